//! Drives that hold a medium in another way than being one: the ISO as a file on a file system, or its content as files.
//!
//! Made without mounting anything, by the tools that make file systems. Never touches the ISO.

use crate::scenario::FileSystem;
use anyhow::{Context, Result, bail};
use sino_image::qemu::process::require;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// Where the ISO lies on its file system.
pub const ISO_PATH: &str = "/boot/iso/sino.iso";
/// Space for the file system itself, in bytes.
const OVERHEAD: u64 = 48 << 20;

/// Makes a drive with the ISO as the file [`ISO_PATH`].
///
/// # Errors
/// A tool is missing or fails, in its own words.
pub fn iso_as_file(iso: &Path, drive: &Path, kind: FileSystem) -> Result<()> {
    let length = fs::metadata(iso).with_context(|| format!("looking at {}", iso.display()))?.len();
    File::create(drive)?.set_len((length + OVERHEAD).next_multiple_of(1 << 20))?;
    let staging = tempfile::tempdir().context("making a temporary folder")?;
    let path = staging.path().join(ISO_PATH.trim_start_matches('/'));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(iso, &path)?;
    fill(drive, staging.path(), kind)
}

/// Makes a FAT drive with the ISO's content as files, as people do by hand.
///
/// # Errors
/// A tool is missing or fails, in its own words.
pub fn content_as_files(iso: &Path, drive: &Path) -> Result<()> {
    require("xorriso", "xorriso")?;
    let staging = tempfile::tempdir().context("making a temporary folder")?;
    let content = staging.path().join("content");
    run(Command::new("xorriso").args(["-osirrox", "on", "-indev"]).arg(iso).args(["-extract", "/"]).arg(&content))?;
    run(Command::new("chmod").args(["-R", "u+w"]).arg(&content))?;
    let length = fs::metadata(iso)?.len();
    File::create(drive)?.set_len((length + OVERHEAD).next_multiple_of(1 << 20))?;
    fill(drive, &content, FileSystem::Fat)
}

/// Makes the file system and copies the folder's content into it.
fn fill(drive: &Path, folder: &Path, kind: FileSystem) -> Result<()> {
    match kind {
        FileSystem::Ext4 => {
            require("mkfs.ext4", "e2fsprogs")?;
            run(Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(folder).arg(drive))
        }
        FileSystem::Fat => {
            require("mkfs.vfat", "dosfstools")?;
            require("mcopy", "mtools")?;
            run(Command::new("mkfs.vfat").args(["-F", "32"]).arg(drive))?;
            for entry in fs::read_dir(folder)? {
                run(Command::new("mcopy").args(["-s", "-Q", "-i"]).arg(drive).arg(entry?.path()).arg("::/"))?;
            }
            Ok(())
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("executing {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
