//! The EFI partition's image: a FAT file system with GRUB as the program that firmware looks for.
//!
//! It is large enough to be useful as an ordinary partition of the written stick. Its bytes follow from its inputs.

use crate::cache::Key;
use crate::command;
use anyhow::{Context, Result};
use sino_boot::layout;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// Size of the partition in bytes.
const SIZE: u64 = 16 << 20;

const MODULES: &[&str] = &[
    "all_video",
    "boot",
    "configfile",
    "echo",
    "efi_gop",
    "fat",
    "gzio",
    "halt",
    "iso9660",
    "loopback",
    "ls",
    "minicmd",
    "multiboot2",
    "normal",
    "part_gpt",
    "part_msdos",
    "reboot",
    "regexp",
    "search",
    "search_fs_file",
    "search_label",
    "serial",
    "sleep",
    "terminal",
    "test",
    "true",
    "video",
];

/// Where the Debian package grub-efi-amd64-bin puts GRUB's modules.
const GRUB: &str = "/usr/lib/grub/x86_64-efi";

/// Makes the image at `path`, with files below `work`. `embedded` is the configuration inside GRUB, `more` are modules of GRUB beside
/// those that SINO's own menu needs.
///
/// # Errors
/// A tool or a file fails.
pub fn make(path: &Path, work: &Path, embedded: &str, more: &[&str], epoch: u64) -> Result<()> {
    anyhow::ensure!(
        Path::new(GRUB).join("multiboot2.mod").exists(),
        "GRUB's modules are not in {GRUB}; install them with: apt-get install grub-efi-amd64-bin"
    );
    let config = work.join("embedded.cfg");
    fs::write(&config, embedded).with_context(|| format!("writing {}", config.display()))?;
    let program = work.join("BOOTX64.EFI");
    command::run(
        Command::new("grub-mkimage")
            .args(["-O", "x86_64-efi", "-p", "/boot/grub", "-d", GRUB, "-c"])
            .arg(&config)
            .arg("-o")
            .arg(&program)
            .args(MODULES)
            .args(more),
    )?;
    set_time(&program, epoch)?;
    let image = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    image.set_len(SIZE).with_context(|| format!("making {} {SIZE} bytes long", path.display()))?;
    let serial = Key::new("fat", 1).with("embedded", embedded).hex();
    let serial = serial.get(..8).unwrap_or("00000001").to_owned();
    let sectors = (SIZE / 512).to_string();
    fat(
        "mformat",
        path,
        epoch,
        &["-T", &sectors, "-h", "16", "-s", "32", "-v", layout::EFI_LABEL, "-N", &serial, "::"],
    )?;
    fat("mmd", path, epoch, &["::/EFI", "::/EFI/BOOT"])?;
    let program = program.to_string_lossy().into_owned();
    fat("mcopy", path, epoch, &["-m", &program, "::/EFI/BOOT/BOOTX64.EFI"])
}

/// Runs one of the mtools on the image with a fixed clock.
fn fat(tool: &str, image: &Path, epoch: u64, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(tool);
    command.arg("-i").arg(image).args(arguments);
    command.env("SOURCE_DATE_EPOCH", epoch.to_string()).env("TZ", "UTC").env("MTOOLS_SKIP_CHECK", "1");
    command::run(&mut command).map(|_| ())
}

/// Sets a file's time.
///
/// # Errors
/// The file cannot be opened or changed.
pub fn set_time(path: &Path, epoch: u64) -> Result<()> {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(epoch);
    let file = File::options().write(true).open(path).with_context(|| format!("opening {}", path.display()))?;
    file.set_modified(time).with_context(|| format!("setting the time of {}", path.display()))
}
