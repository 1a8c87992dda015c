//! The loader: what must be read before any kernel runs, and how long ISOLINUX and GRUB take for it from a slow stick.
//!
//! Each contender's kernel and initramfs lie on a small hybrid ISO with the same ISOLINUX and the same GRUB; the stick delivers
//! `LIMIT`. By BIOS the time is the host's, from ISOLINUX's first line to the first line of the kernel's own set-up code (flag
//! `debug`), or of Xen's. Under UEFI the kernel says nothing until it has unpacked itself; so there the time is from GRUB's line
//! before the first file until QEMU sees the last byte read, which is looked at every `ASK_EVERY`. SINO is there twice: as plain
//! kernel and initramfs like the others, and with Xen, as it is shipped.

use super::{MEDIUM, fresh, machine, prepare};
use crate::bench::contenders::{Contender, Kit};
use crate::bench::{Recorder, Settings, Unit};
use anyhow::{Context, Result, ensure};
use sino_image::cache::{create_folder, remove};
use sino_image::iso::{self, Identity};
use sino_image::qemu::firmware::UefiFiles;
use sino_image::qemu::machine::DriveFault;
use sino_image::qemu::{Bus, Drive, Firmware, Guest, Start};
use sino_image::{build, efi};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The measure.
pub const NAME: &str = "loader";
/// What the stick delivers, in bytes a second.
const LIMIT: u64 = 20_000_000;
/// The cases; the short form has the first.
const CASES: [(&str, bool); 2] = [("BIOS, USB 20 MB/s", false), ("UEFI, USB 20 MB/s", true)];
/// What QEMU lets through at once before it holds to the limit, as seconds of the limit (`throttle_compute_wait` of
/// QEMU's `util/throttle.c`: a tenth of a second's bytes). Nobody's stick does that, and it would flatter who loads little; so each
/// is charged for it.
const AT_ONCE: Duration = Duration::from_millis(100);
/// What ISOLINUX says when it begins to load, and the first words of the kernel's set-up code and of Xen.
const BEGINS: &str = "Loading /";
const KERNEL_RUNS: &str = "early console in setup code";
const XEN_RUNS: &str = "Xen version";
/// What GRUB is made to say, and the first words of a kernel that UEFI has started.
const GRUB_BEGINS: &str = "GRUB loads now";
const KERNEL_SPEAKS: &str = "Linux version";
/// The file by which GRUB knows the stick.
const MARKER: &str = "sino-bench-loader";
/// What loading may take at most.
const WITHIN: Duration = Duration::from_secs(180);
/// How often QEMU is asked how much was read.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Plain(Contender),
    WithXen,
}

impl fmt::Display for Load {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(contender) => contender.fmt(to),
            Self::WithXen => to.write_str("SINO with Xen"),
        }
    }
}

impl Load {
    fn files(self, kit: &Kit) -> Vec<(&'static str, &Path)> {
        let contender = match self {
            Self::Plain(contender) => contender,
            Self::WithXen => Contender::Sino,
        };
        let xen = (self == Self::WithXen).then_some(("xen.gz", kit.sino.xen.as_path()));
        let both = [("vmlinuz", kit.sino.kernel.as_path()), ("initrd", kit.initramfs(contender, Bus::UsbStick))];
        both.into_iter().chain(xen).collect()
    }

    fn entry(self) -> &'static str {
        match self {
            Self::Plain(_) => {
                "KERNEL /vmlinuz\nAPPEND initrd=/initrd console=ttyS0 earlyprintk=serial,ttyS0,115200 debug"
            }
            Self::WithXen => {
                "KERNEL mboot.c32\nAPPEND /xen.gz com1=115200,8n1 console=com1 --- /vmlinuz console=hvc0 --- /initrd"
            }
        }
    }

    /// The same for GRUB, as SINO's menu has it.
    fn commands(self) -> &'static str {
        match self {
            Self::Plain(_) => "linux /vmlinuz console=ttyS0 earlyprintk=serial,ttyS0,115200 debug\ninitrd /initrd",
            Self::WithXen => {
                "multiboot2 /xen.gz com1=115200,8n1 console=com1\nmodule2 --nounzip /vmlinuz console=hvc0\n\
                 module2 --nounzip /initrd"
            }
        }
    }

    /// The first words of what was loaded.
    fn runs(self, uefi: bool) -> &'static str {
        match self {
            Self::Plain(_) if uefi => KERNEL_SPEAKS,
            Self::Plain(_) => KERNEL_RUNS,
            Self::WithXen => XEN_RUNS,
        }
    }
}

/// The names of the cases.
#[must_use]
pub fn cases() -> Vec<String> {
    CASES.into_iter().map(|(case, _)| case.to_owned()).collect()
}

/// Measures it.
///
/// # Errors
/// What the contenders boot from cannot be made. A boot that comes to no kernel is told, and its turn is left out.
pub fn measure(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    let kit = prepare()?;
    super::note_versions(recorder, kit)?;
    let loads: Vec<Load> = Contender::ALL.map(Load::Plain).into_iter().chain([Load::WithXen]).collect();
    let cases = if settings.short { CASES.get(..1).unwrap_or_default() } else { &CASES };
    for &(case, uefi) in cases.iter().filter(|(case, _)| settings.wants(case)) {
        recorder.in_turns(case, settings.rounds, &loads, |recorder, &load, round| {
            let name = load.to_string();
            let folder = settings.work(NAME).join(name.replace(' ', "-"));
            fresh(&folder)?;
            if round == 1 {
                let lengths = load.files(kit).into_iter().map(|(_, file)| Ok(fs::metadata(file)?.len()));
                let bytes: u64 = lengths.sum::<Result<_>>()?;
                recorder.record(case, &name, "bytes", round, Unit::Bytes, float(bytes))?;
            }
            let stick = stick(load, kit, &folder)?;
            match if uefi { loaded_by_grub(&stick, load, &folder) } else { loaded(&stick, load, &folder) } {
                Ok(spent) => {
                    let seconds = (spent + AT_ONCE).as_secs_f64();
                    recorder.record(case, &name, "loading", round, Unit::Seconds, seconds)
                }
                Err(error) => recorder.failed(case, &name, round, &error),
            }
        })?;
    }
    Ok(())
}

/// A hybrid ISO with both loaders and the files.
fn stick(load: Load, kit: &Kit, folder: &Path) -> Result<PathBuf> {
    let (content, stick, partition) = (folder.join("content"), folder.join("stick.iso"), folder.join("efi.img"));
    for below in ["", "boot", "boot/grub"] {
        create_folder(&content.join(below))?;
    }
    for (name, file) in load.files(kit) {
        fs::copy(file, content.join(name)).with_context(|| format!("copying {}", file.display()))?;
    }
    iso::add_isolinux(&content)?;
    let isolinux = format!("SERIAL 0 115200\nPROMPT 0\nDEFAULT bench\nLABEL bench\n{}\n", load.entry());
    let grub = format!(
        "serial --unit=0 --speed=115200\nterminal_output serial\necho '{GRUB_BEGINS}'\n{}\nboot\n",
        load.commands()
    );
    for (name, text) in [("isolinux/isolinux.cfg", isolinux), ("boot/grub/grub.cfg", grub), (MARKER, String::new())] {
        fs::write(content.join(name), text).with_context(|| format!("writing {name}"))?;
    }
    let embedded = format!("search --no-floppy --file --set=root /{MARKER}\nconfigfile ($root)/boot/grub/grub.cfg\n");
    efi::make(&partition, folder, &embedded, &["linux"], 0)?;
    let identity = Identity { build_id: "bench", version: build::VERSION, epoch: 0 };
    iso::make(&stick, &content, &partition, &identity)?;
    remove(&content)?;
    remove(&partition)?;
    Ok(stick)
}

/// The slow stick.
fn medium(stick: &Path) -> Drive {
    let mut medium = Drive::new(MEDIUM, Bus::UsbStick, stick).boot(0);
    medium.faults.push(DriveFault::BytesPerSecond(LIMIT));
    medium
}

/// How long ISOLINUX loads.
fn loaded(stick: &Path, load: Load, folder: &Path) -> Result<Duration> {
    let mut guest = Guest::start(&machine(Start::FromDrives, medium(stick))?, folder, WITHIN * 2)?;
    guest.watch.wait_for(BEGINS, WITHIN)?;
    let began = Instant::now();
    guest.watch.wait_for(load.runs(false), WITHIN)?;
    Ok(began.elapsed())
}

/// How long GRUB loads.
fn loaded_by_grub(stick: &Path, load: Load, folder: &Path) -> Result<Duration> {
    let mut machine = machine(Start::FromDrives, medium(stick))?;
    machine.firmware = Firmware::Uefi(UefiFiles::find(Path::new("/"))?);
    let mut guest = Guest::start(&machine, folder, WITHIN * 2)?;
    guest.watch.wait_for(GRUB_BEGINS, WITHIN)?;
    let began = Instant::now();
    let first = super::reading(&mut guest, began)?;
    let mut last = first;
    loop {
        let waited = guest.watch.wait_for(load.runs(true), ASK_EVERY);
        let reading = super::reading(&mut guest, began)?;
        if reading.bytes > last.bytes {
            last = reading;
        }
        match waited {
            Ok(_) => break,
            Err(error) if began.elapsed() > WITHIN || guest.watch.disaster().is_some() => return Err(error),
            Err(_) => {}
        }
    }
    let read = last.bytes - first.bytes;
    ensure!(read > 0, "GRUB had read everything before it said that it begins");
    Ok(Duration::from_secs_f64(last.at_s - first.at_s))
}

#[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}
