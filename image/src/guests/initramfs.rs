//! The initramfs of a PV or PVH guest: one program and two drivers.

use super::kernel::Kernel;
use crate::command;
use crate::cpio::{Archive, Kind};
use crate::initramfs::unpacked;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The drivers that it needs, below the kernel's folder of drivers: the network card and the disk that Xen offers.
pub const DRIVERS: [&str; 2] = ["net/xen-netfront", "block/xen-blkfront"];
/// Where they are in it. The program loads all that it finds there.
pub const FOLDER: &str = "drivers";
/// What the program is also called, for the kernel, which calls it so when Xen asks for a shutdown or a reboot.
const CALLED: [&str; 2] = ["sbin/poweroff", "sbin/reboot"];

/// The initramfs with the static program `payload` and the kernel's drivers, ready for xl.
///
/// # Errors
/// A file that cannot be read, or a tool that fails.
pub fn initramfs(kernel: &Kernel, payload: &Path) -> Result<Vec<u8>> {
    let program = fs::read(payload).with_context(|| format!("reading {}", payload.display()))?;
    let mut archive = Archive::new();
    for folder in ["dev", "proc", "sys"] {
        archive.folder(folder)?;
    }
    // The kernel opens /dev/console for init before init can mount a /dev.
    archive.add("dev/console", 0o600, Kind::Device(5, 1))?;
    archive.file("init", 0o755, program)?;
    for name in CALLED {
        archive.add(name, 0o777, Kind::Link("/init".to_owned()))?;
    }
    for driver in &kernel.drivers {
        let name = driver.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let plain = name.split(".ko").next().unwrap_or_default();
        archive.file(&format!("{FOLDER}/{plain}.ko"), 0o644, unpacked(driver)?)?;
    }
    // Quick to unpack: it is unpacked more often than packed.
    command::run_with_input(Command::new("zstd").args(["-q", "-c", "-3"]), &archive.to_bytes(0)?)
        .context("packing the guests' initramfs")
}
