//! `make demo`: the finished ISO as a stick in a machine of QEMU's, with a disk from which the host starts guests. Its
//! console is in the terminal, or, headless, it is watched until the guests are ready and the host is off again.
//!
//! It touches nothing but a folder for the machine's traces; what the host writes to the disk is thrown away.

pub mod disk;
mod headless;

use crate::progress::Progress;
use crate::qemu::arguments::{Channels, arguments};
use crate::qemu::firmware::UefiFiles;
use crate::qemu::machine::{Accelerator, Bus, Drive, Firmware, Machine, NetworkCard, Start};
use crate::qemu::process::{QEMU, require};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// Memory of the machine in MiB: Xen's, dom0's with the root image in it, the guests', and some to try more.
const MEMORY_MIB: u32 = 3072;

/// How to show the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demo {
    /// Until it is off again, without a terminal.
    pub headless: bool,
    /// With UEFI firmware instead of a BIOS.
    pub uefi: bool,
}

/// Boots `iso` with a `disk` of guests ([`disk::Source`]), if there is one; traces go to `folder`. Returns when the machine is
/// off.
///
/// # Errors
/// The ISO or QEMU is missing, or (headless) the host, a guest or the end was not as it should be.
pub fn run(demo: Demo, iso: &Path, disk: Option<&Path>, folder: &Path, progress: &Progress) -> Result<()> {
    ensure!(iso.is_file(), "{} is not there; build it: make iso", iso.display());
    let machine = machine(demo, iso, disk)?;
    if demo.headless {
        let guests = if disk.is_some() { disk::names() } else { Vec::new() };
        headless::run(&machine, &guests, folder, progress)
    } else {
        in_terminal(&machine, disk.is_some())
    }
}

fn machine(demo: Demo, iso: &Path, disk: Option<&Path>) -> Result<Machine> {
    let firmware = if demo.uefi { Firmware::Uefi(UefiFiles::find(Path::new("/"))?) } else { Firmware::Bios };
    let mut drives = vec![Drive::new("stick", Bus::UsbStick, iso).boot(1)];
    drives.extend(disk.map(|disk| Drive::new("disk", Bus::Virtio, disk)));
    Ok(Machine {
        name: "SINO demo".to_owned(),
        accelerator: Accelerator::from_environment()?,
        firmware,
        start: Start::FromDrives,
        memory_mib: MEMORY_MIB,
        drives,
        network: vec![NetworkCard::user("e1000", &[22])],
        namespace: None,
        acpi_tables: Vec::new(),
        reset_ends: demo.headless,
    })
}

fn in_terminal(machine: &Machine, guests: bool) -> Result<()> {
    require(QEMU, "qemu-system-x86")?;
    println!("The host's serial console follows. Log in as root, password root.");
    if guests {
        println!(
            "{} start by themselves. To see how they are: sino guests --watch (Ctrl-C leaves it); then: sino status, sino \
             timeline, sino guests console alpha (Ctrl-] leaves it), sino guests --help",
            disk::names().join(", ")
        );
    }
    println!("poweroff ends it cleanly, Ctrl-A x at once. Nothing is kept.");
    let status = Command::new(QEMU).args(arguments(machine, &Channels::Terminal)).status().context("starting QEMU")?;
    ensure!(status.success(), "QEMU ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Boot;
    use crate::guests::show::four;
    use crate::menu::dom0_memory;
    use std::net::Ipv4Addr;

    #[test]
    fn an_iso_that_is_not_there_names_the_command_that_builds_it() {
        let folder = tempfile::tempdir().unwrap();
        let iso = folder.path().join("x.iso");
        let error = run(Demo::default(), &iso, None, folder.path(), &Progress::silent()).unwrap_err();
        assert!(error.to_string().contains("make iso"), "{error}");
    }

    #[test]
    fn every_menu_entry_leaves_memory_for_the_guests() {
        // Xen's own, and what it needs for each guest.
        let xen = 256;
        let guests: u32 = four(Ipv4Addr::LOCALHOST).iter().map(|guest| guest.memory_mib).sum();
        let dom0 = dom0_memory(&Boot::default(), 800 << 20, true);
        assert!(dom0 + u64::from(guests + xen) < u64::from(MEMORY_MIB), "{dom0} + {guests} + {xen}");
    }

    #[test]
    fn the_disk_is_never_written() {
        let machine = machine(Demo::default(), Path::new("/iso"), Some(Path::new("/disk"))).unwrap();
        assert!(machine.drives.iter().all(|drive| !drive.keep_writes));
        assert_eq!(machine.drives.iter().filter(|drive| drive.boot_index.is_some()).count(), 1);
    }
}
