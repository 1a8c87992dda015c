//! Boots a contender in QEMU up to the bench's init, and asks that init.
//!
//! The machine is always the same: one virtual CPU under TCG, 2 GiB of memory (dracut keeps its copy in `/run`, which takes
//! 20 % of the memory), one medium. Kernel and initramfs are put into its memory by QEMU, so no boot loader is in the times.
//! A boot counts only if its effects are right: the contender's kernel, an overlay over a squashfs as root, and the root
//! image in RAM exactly when that was asked for.

pub mod boot_time;
pub mod loader;
pub mod stage_one;
pub mod to_ram;
pub mod trust;

use super::contenders::{Contender, Kit};
use super::{Recorder, Settings};
use crate::report::{MEMORY, Memory, READ_ALL, ReadAll, Report};
use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use sino_image::qemu::machine::DriveFault;
use sino_image::qemu::{Accelerator, Bus, Drive, Firmware, Guest, Machine, Start};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The machine's memory in MiB.
const MEMORY_MIB: u32 = 2048;
/// What a boot may take at most.
const BOOT_WITHIN: Duration = Duration::from_secs(300);
/// What an answer of the bench's init may take at most: it may read the whole root.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
/// How often QEMU is asked how much was read.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// The medium's name in QEMU.
const MEDIUM: &str = "medium";

/// A boot to be made.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Who boots.
    pub contender: Contender,
    /// What the medium hangs on.
    pub bus: Bus,
    /// Whether the root image is to be copied to RAM.
    pub ram: bool,
    /// Further flags on the kernel's command line.
    pub flags: &'static str,
    /// What the medium delivers at most, in bytes a second.
    pub limit: Option<u64>,
}

impl Trial {
    /// A boot with the contender's ordinary flags from a medium that is as fast as the host.
    #[must_use]
    pub fn new(contender: Contender, bus: Bus, ram: bool) -> Self {
        Self { contender, bus, ram, flags: "", limit: None }
    }
}

/// How much of the medium was read at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Seconds since the machine was switched on.
    pub at_s: f64,
    /// Bytes.
    pub bytes: u64,
}

/// A machine whose bench's init has reported.
pub struct Booted {
    /// What it reported.
    pub report: Report,
    /// How the medium was read until then.
    pub readings: Vec<Reading>,
    guest: Guest,
}

impl Booted {
    /// Seconds from "Run /init" to the root's init.
    #[must_use]
    pub fn init_to_root(&self) -> f64 {
        seconds(self.report.began_us.saturating_sub(self.report.init_us))
    }

    /// Seconds from the kernel's start to the root's init.
    #[must_use]
    pub fn kernel_to_root(&self) -> f64 {
        seconds(self.report.began_us)
    }

    /// The memory that is free.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn memory(&mut self) -> Result<Memory> {
        self.ask(MEMORY)
    }

    /// Reads every file of the root.
    ///
    /// # Errors
    /// The guest does not answer, or a file cannot be read.
    pub fn read_all(&mut self) -> Result<ReadAll> {
        let all: ReadAll = self.ask(READ_ALL)?;
        ensure!(all.errors.is_empty(), "not every file of the root could be read: {:?}", all.errors);
        Ok(all)
    }

    fn ask<T: DeserializeOwned>(&mut self, command: &str) -> Result<T> {
        self.guest.watch.tell(command)?;
        let line = self.guest.watch.wait_for_report(ANSWER_WITHIN)?;
        serde_json::from_str(&line).with_context(|| format!("the answer to {command} is not as agreed"))
    }
}

/// Boots a contender; the machine's files go to `folder`, and the machine goes with what is returned.
///
/// # Errors
/// It does not come to the bench's init, or not in the way that was asked for; with the last lines of its console.
pub fn boot(kit: &Kit, trial: &Trial, folder: &Path) -> Result<Booted> {
    let flags = format!("{} {}", trial.contender.flags(trial.bus, trial.ram), trial.flags);
    let mut medium = Drive::new(MEDIUM, trial.bus, kit.medium(trial.contender));
    medium.faults.extend(trial.limit.map(DriveFault::BytesPerSecond));
    let start = Start::Kernel {
        kernel: kit.sino.kernel.clone(),
        initrd: kit.initramfs(trial.contender, trial.bus).to_owned(),
        append: flags.trim_end().to_owned(),
    };
    let mut booted = begin(start, medium, folder)?;
    check(&mut booted, kit, trial).with_context(|| format!("its files: {}", folder.display()))?;
    Ok(booted)
}

/// The bench's machine.
fn machine(start: Start, medium: Drive) -> Result<Machine> {
    Ok(Machine {
        name: "sino-bench".to_owned(),
        accelerator: Accelerator::from_environment()?,
        firmware: Firmware::Bios,
        start,
        memory_mib: MEMORY_MIB,
        drives: vec![medium],
        network: Vec::new(),
        namespace: None,
        acpi_tables: Vec::new(),
        reset_ends: true,
    })
}

/// Boots up to the report.
fn begin(start: Start, medium: Drive, folder: &Path) -> Result<Booted> {
    let machine = machine(start, medium)?;
    fresh(folder)?;
    let began = Instant::now();
    let mut guest = Guest::start(&machine, folder, BOOT_WITHIN + ANSWER_WITHIN * 2)?;
    let (line, readings) = wait(&mut guest, began)?;
    fs::write(folder.join("report.json"), &line).context("keeping the report")?;
    let report: Report = serde_json::from_str(&line).context("the bench's init reports something else than agreed")?;
    Ok(Booted { report, readings, guest })
}

/// Waits for the report, and looks meanwhile at how much is read.
fn wait(guest: &mut Guest, began: Instant) -> Result<(String, Vec<Reading>)> {
    let mut readings = Vec::new();
    loop {
        let waited = guest.watch.wait_for_report(ASK_EVERY);
        let over = began.elapsed() > BOOT_WITHIN || guest.watch.disaster().is_some();
        match waited {
            Ok(line) => {
                readings.push(reading(guest, began)?);
                return Ok((line, readings));
            }
            Err(error) if over => return Err(error.context(format!("after {} s", began.elapsed().as_secs()))),
            // Also when QEMU is gone: then this fails.
            Err(_) => readings.push(reading(guest, began)?),
        }
    }
}

fn reading(guest: &mut Guest, began: Instant) -> Result<Reading> {
    let drives = guest.drive_statistics()?;
    let bytes = drives.iter().find(|drive| drive.name == MEDIUM).map_or(0, |drive| drive.read_bytes);
    Ok(Reading { at_s: began.elapsed().as_secs_f64(), bytes })
}

/// Whether the system is what was asked for.
fn check(booted: &mut Booted, kit: &Kit, trial: &Trial) -> Result<()> {
    let report = &booted.report;
    ensure!(report.init_us > 0 && report.began_us > report.init_us, "the kernel's log does not say when init began");
    ensure!(report.kernel_release == kit.kernel_release, "the kernel is {}", report.kernel_release);
    let root = report.mounted_at("/").map_or("nothing", |mount| mount.fs.as_str());
    ensure!(root == "overlay", "the root is {root}, not an overlay");
    let image_kib = fs::metadata(&kit.root)?.len() / 1024;
    let memory = booted.memory()?;
    match (trial.ram, memory.tmpfs_kib >= image_kib) {
        (true, false) => bail!("nothing was copied to RAM: all the tmpfs hold {} KiB", memory.tmpfs_kib),
        (false, true) => bail!("the root image was copied to RAM, which nobody asked for"),
        (true, true) | (false, false) => Ok(()),
    }
}

/// Keeps what the contenders were made with.
pub(super) fn note_versions(recorder: &mut Recorder, kit: &Kit) -> Result<()> {
    recorder.version("kernel of the image", &kit.kernel_release)?;
    for (package, version) in kit.versions() {
        recorder.version(&package, &version)?;
    }
    Ok(())
}

/// Makes everything that the contenders boot from, and reads it once, so that the first boot is like the others.
///
/// # Errors
/// As [`Kit::get`], or a file cannot be read.
pub fn prepare() -> Result<&'static Kit> {
    let kit = Kit::get()?;
    for file in [&kit.sino.iso, &kit.medium] {
        let mut from = File::open(file).with_context(|| format!("reading {}", file.display()))?;
        io::copy(&mut from, &mut io::sink()).with_context(|| format!("reading {}", file.display()))?;
    }
    Ok(kit)
}

/// The folder of a boot's files.
fn folder(settings: &Settings, measure: &str, case: &str, contender: Contender) -> PathBuf {
    settings.work(measure).join(case.replace(' ', "-")).join(contender.name().replace(' ', "-"))
}

fn fresh(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("emptying {}", folder.display()))
        }
        _ => fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display())),
    }
}

/// Microseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "times of boots are far below 2^52 microseconds")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
