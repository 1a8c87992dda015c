//! `make demo`: the finished ISO as a stick in a machine of QEMU's, with its console in the terminal or, headless, up to
//! the login prompt.
//!
//! Headless it shows when each stage of the boot was reached, logs in, and prints what the host says of its own boot.
//! It touches nothing but a folder for the machine's traces; what the guest writes is thrown away.

use crate::progress::Progress;
use crate::qemu::arguments::{Channels, arguments};
use crate::qemu::machine::{Accelerator, Bus, Drive, Firmware, Machine, NetworkCard, Start};
use crate::qemu::process::{QEMU, require};
use crate::qemu::{Guest, firmware::UefiFiles};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Memory of the machine: dom0's, Xen's, and some for a guest.
const MEMORY_MIB: u32 = 3072;
/// How long the whole boot may take. On a slow machine without KVM it takes some four minutes.
const LIMIT: Duration = Duration::from_secs(900);
/// What the serial port says when a stage begins, and what that stage is.
const STAGES: [(&str, &str); 5] = [
    ("SINO advanced on ram", "the boot menu is up"),
    ("] read-flags", "Xen and the kernel are up, stage one begins"),
    ("] take-over", "the root is mounted, stage two begins"),
    ("] hand-over", "the host is up, Debian's init takes over"),
    ("login: ", "login prompt"),
];

/// How to show the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demo {
    /// To the login prompt, without a terminal.
    pub headless: bool,
    /// With UEFI firmware instead of a BIOS.
    pub uefi: bool,
}

/// Boots `iso`; traces go to `folder`. Returns when the machine is off.
///
/// # Errors
/// The ISO or QEMU is missing, or (headless) the login prompt was not reached.
pub fn run(demo: Demo, iso: &Path, folder: &Path, progress: &Progress) -> Result<()> {
    ensure!(iso.is_file(), "{} is not there; build it: make iso", iso.display());
    let machine = machine(demo, iso)?;
    if demo.headless { headless(&machine, folder, progress) } else { in_terminal(&machine) }
}

fn machine(demo: Demo, iso: &Path) -> Result<Machine> {
    let firmware = if demo.uefi { Firmware::Uefi(UefiFiles::find(Path::new("/"))?) } else { Firmware::Bios };
    Ok(Machine {
        name: "SINO demo".to_owned(),
        accelerator: Accelerator::from_environment()?,
        firmware,
        start: Start::FromDrives,
        memory_mib: MEMORY_MIB,
        drives: vec![Drive::new("stick", Bus::UsbStick, iso).boot(1)],
        network: vec![NetworkCard::user("e1000", &[22])],
        namespace: None,
        acpi_tables: Vec::new(),
        reset_ends: demo.headless,
    })
}

fn in_terminal(machine: &Machine) -> Result<()> {
    require(QEMU, "qemu-system-x86")?;
    println!("The host's serial console follows. Log in as root, password root. Ctrl-A x ends the machine.");
    let status = Command::new(QEMU).args(arguments(machine, &Channels::Terminal)).status().context("starting QEMU")?;
    ensure!(status.success(), "QEMU ended with {status}");
    Ok(())
}

fn headless(machine: &Machine, folder: &Path, progress: &Progress) -> Result<()> {
    let began = Instant::now();
    let mut guest = Guest::start(machine, folder, LIMIT)?;
    progress.say(&format!("the machine is on; its console is in {}/serial.log", folder.display()));
    for (text, stage) in STAGES {
        guest
            .watch
            .wait_for(text, LIMIT.saturating_sub(began.elapsed()))
            .with_context(|| format!("before: {stage}"))?;
        progress.say(&format!("{:7.1} s  {stage}", began.elapsed().as_secs_f64()));
    }
    for (answer, prompt) in [("root\n", "assword: "), ("root\n", "# ")] {
        guest.watch.type_text(answer)?;
        guest.watch.wait_for(prompt, LIMIT.saturating_sub(began.elapsed())).context("logging in as root")?;
    }
    progress.say(&format!("{:7.1} s  logged in as root", began.elapsed().as_secs_f64()));
    // The second half of the mark is not in what the terminal echoes.
    guest
        .watch
        .type_text("clear; sino status; xl info | grep -E '^(xen_version|total_memory)'; echo end\"\"-of-status\n")?;
    let text = guest.watch.wait_for("end-of-status", LIMIT.saturating_sub(began.elapsed()))?;
    println!("{}", text.lines().skip(1).collect::<Vec<_>>().join("\n").trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iso_that_is_not_there_names_the_command_that_builds_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(Demo::default(), &folder.path().join("x.iso"), folder.path(), &Progress::silent()).unwrap_err();
        assert!(error.to_string().contains("make iso"), "{error}");
    }
}
