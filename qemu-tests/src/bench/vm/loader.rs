//! The loader: what must be read before any kernel runs, and how long a BIOS takes for it from a slow stick.
//!
//! Each contender's kernel and initramfs lie on a small hybrid ISO with the same ISOLINUX; the stick delivers `LIMIT`. The
//! time is the host's, from ISOLINUX's first line to the first line of the kernel's own set-up code (flag `debug`), or of Xen's.
//! SINO is there twice: as plain kernel and initramfs like the others, and with Xen, as it is shipped. GRUB, which reads the same
//! files under UEFI, is not measured: its console says nothing between the menu and the kernel.

use super::{MEDIUM, fresh, machine, prepare};
use crate::bench::contenders::{Contender, Kit};
use crate::bench::{Recorder, Settings, Unit};
use anyhow::{Context, Result};
use sino_image::cache::{create_folder, remove};
use sino_image::qemu::machine::DriveFault;
use sino_image::qemu::{Bus, Drive, Guest, Start};
use sino_image::{command, iso};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The measure.
pub const NAME: &str = "loader";
/// What the stick delivers, in bytes a second.
const LIMIT: u64 = 20_000_000;
/// The case's name.
const CASE: &str = "BIOS, USB 20 MB/s";
/// What ISOLINUX says when it begins to load, and the first words of the kernel's set-up code and of Xen.
const BEGINS: &str = "Loading /";
const KERNEL_RUNS: &str = "early console in setup code";
const XEN_RUNS: &str = "Xen version";
/// What loading may take at most.
const WITHIN: Duration = Duration::from_secs(180);
/// For starting ISOLINUX in place of a stick's boot sector.
const HYBRID: &str = "/usr/lib/ISOLINUX/isohdpfx.bin";

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

    fn runs(self) -> &'static str {
        match self {
            Self::Plain(_) => KERNEL_RUNS,
            Self::WithXen => XEN_RUNS,
        }
    }
}

/// Measures it.
///
/// # Errors
/// What the contenders boot from cannot be made. A boot that comes to no kernel is told, and its turn is left out.
pub fn measure(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    if !settings.wants(CASE) {
        return Ok(());
    }
    let kit = prepare()?;
    super::note_versions(recorder, kit)?;
    let loads: Vec<Load> = Contender::ALL.map(Load::Plain).into_iter().chain([Load::WithXen]).collect();
    recorder.in_turns(CASE, settings.rounds, &loads, |recorder, &load, round| {
        let name = load.to_string();
        let folder = settings.work(NAME).join(name.replace(' ', "-"));
        fresh(&folder)?;
        if round == 1 {
            let lengths = load.files(kit).into_iter().map(|(_, file)| Ok(fs::metadata(file)?.len()));
            let bytes: u64 = lengths.sum::<Result<_>>()?;
            recorder.record(CASE, &name, "bytes", round, Unit::Bytes, float(bytes))?;
        }
        match loaded(&stick(load, kit, &folder)?, load, &folder) {
            Ok(spent) => recorder.record(CASE, &name, "loading", round, Unit::Seconds, spent.as_secs_f64()),
            Err(error) => recorder.failed(CASE, &name, round, &error),
        }
    })
}

/// A hybrid ISO with ISOLINUX and the files.
fn stick(load: Load, kit: &Kit, folder: &Path) -> Result<PathBuf> {
    let (content, stick) = (folder.join("content"), folder.join("stick.iso"));
    create_folder(&content)?;
    for (name, file) in load.files(kit) {
        fs::copy(file, content.join(name)).with_context(|| format!("copying {}", file.display()))?;
    }
    iso::add_isolinux(&content)?;
    let text = format!("SERIAL 0 115200\nPROMPT 0\nDEFAULT bench\nLABEL bench\n{}\n", load.entry());
    fs::write(content.join("isolinux/isolinux.cfg"), text).context("writing ISOLINUX's configuration")?;
    let mut xorriso = Command::new("xorriso");
    xorriso
        .args(["-no_rc", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-rational-rock", "-V", "LOADER"])
        .args(["-isohybrid-mbr", HYBRID, "-partition_offset", "16", "--mbr-force-bootable"])
        .args(["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4"])
        .args(["-boot-info-table", "-o"]);
    command::run(xorriso.arg(&stick).arg(&content))?;
    remove(&content)?;
    Ok(stick)
}

/// How long ISOLINUX loads.
fn loaded(stick: &Path, load: Load, folder: &Path) -> Result<Duration> {
    let mut medium = Drive::new(MEDIUM, Bus::UsbStick, stick).boot(0);
    medium.faults.push(DriveFault::BytesPerSecond(LIMIT));
    let mut guest = Guest::start(&machine(Start::FromDrives, medium)?, folder, WITHIN * 2)?;
    guest.watch.wait_for(BEGINS, WITHIN)?;
    let began = Instant::now();
    guest.watch.wait_for(load.runs(), WITHIN)?;
    Ok(began.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}
