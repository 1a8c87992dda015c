//! Drives that hold a medium in another way than being one: the ISO as a file on a file system, or its content as files.
//!
//! Made without mounting anything, by the tools that make file systems; what no tool can do is written by hand
//! (`exfat`). Only LVM's tools want a loop device, and so root (`volume`). Never touches the ISO.

mod exfat;
mod volume;

use crate::scenario::FileSystem;
use anyhow::{Context, Result, bail};
use sino_image::qemu::process::require;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

pub use volume::{iso_on_volume, volume_places};

/// Where the ISO lies on its file system.
pub const ISO_PATH: &str = "/boot/iso/sino.iso";
/// Space for the file system itself, in bytes.
const OVERHEAD: u64 = 48 << 20;
/// The smallest XFS and the smallest btrfs that their tools make, rounded up, in bytes. Only what is written takes
/// space.
const XFS_MIN: u64 = 320 << 20;
const BTRFS_MIN: u64 = 128 << 20;

/// Makes a drive with the ISO as the file [`ISO_PATH`].
///
/// # Errors
/// A tool is missing or fails, in its own words.
pub fn iso_as_file(iso: &Path, drive: &Path, kind: FileSystem) -> Result<()> {
    let smallest = match kind {
        FileSystem::Xfs => XFS_MIN,
        FileSystem::Btrfs => BTRFS_MIN,
        FileSystem::Fat | FileSystem::Exfat | FileSystem::Ntfs | FileSystem::Ext4 => 0,
    };
    empty_drive(drive, length(iso)?.max(smallest))?;
    match kind {
        FileSystem::Exfat => {
            require("mkfs.exfat", "exfatprogs")?;
            run(Command::new("mkfs.exfat").arg(drive))?;
            exfat::add(drive, ISO_PATH, iso)
        }
        FileSystem::Xfs => xfs(drive, iso),
        FileSystem::Fat | FileSystem::Ntfs | FileSystem::Ext4 | FileSystem::Btrfs => {
            fill(drive, staged(iso)?.path(), kind)
        }
    }
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
    empty_drive(drive, length(iso)?)?;
    fill(drive, &content, FileSystem::Fat)
}

fn length(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).with_context(|| format!("looking at {}", file.display()))?.len())
}

/// Zeros with room for a file system and so many bytes on it.
fn empty_drive(drive: &Path, content: u64) -> Result<()> {
    let length = (content + OVERHEAD).next_multiple_of(1 << 20);
    File::create(drive)?.set_len(length).with_context(|| format!("making {}", drive.display()))
}

/// A folder with a copy of the ISO at [`ISO_PATH`].
fn staged(iso: &Path) -> Result<tempfile::TempDir> {
    let staging = tempfile::tempdir().context("making a temporary folder")?;
    let path = staging.path().join(ISO_PATH.trim_start_matches('/'));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(iso, &path).with_context(|| format!("copying {}", iso.display()))?;
    Ok(staging)
}

/// Makes the file system and copies the folder's content into it.
fn fill(drive: &Path, folder: &Path, kind: FileSystem) -> Result<()> {
    match kind {
        FileSystem::Ext4 => {
            require("mkfs.ext4", "e2fsprogs")?;
            run(Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(folder).arg(drive))
        }
        FileSystem::Btrfs => {
            require("mkfs.btrfs", "btrfs-progs")?;
            run(Command::new("mkfs.btrfs").args(["-q", "--rootdir"]).arg(folder).arg(drive))
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
        FileSystem::Ntfs => ntfs(drive, folder),
        FileSystem::Exfat | FileSystem::Xfs => bail!("no tool makes {kind:?} of a folder"),
    }
}

/// NTFS's own tools make no folders on an unmounted volume, but wimlib unpacks its archives onto one.
fn ntfs(drive: &Path, folder: &Path) -> Result<()> {
    require("mkntfs", "ntfs-3g")?;
    require("wimapply", "wimtools")?;
    let temporary = tempfile::tempdir().context("making a temporary folder")?;
    let archive = temporary.path().join("content.wim");
    run(Command::new("wimcapture").args(["--compress=none", "--no-acls"]).arg(folder).arg(&archive))?;
    run(Command::new("mkntfs").args(["-Q", "-F", "-q"]).arg(drive))?;
    run(Command::new("wimapply").arg(&archive).arg("1").arg(drive))
}

/// XFS takes its first content from a list, mkfs.xfs(8) "protofile". Its names have no spaces, so the ISO gets another.
fn xfs(drive: &Path, iso: &Path) -> Result<()> {
    require("mkfs.xfs", "xfsprogs")?;
    let temporary = tempfile::tempdir().context("making a temporary folder")?;
    std::os::unix::fs::symlink(fs::canonicalize(iso)?, temporary.path().join("iso"))?;
    fs::write(temporary.path().join("list"), xfs_list(ISO_PATH))?;
    let drive = fs::canonicalize(drive)?;
    run(Command::new("mkfs.xfs").current_dir(&temporary).args(["-q", "-f", "-p", "list"]).arg(drive))
}

/// A list with the file `iso` of the working directory at `path`.
fn xfs_list(path: &str) -> String {
    let mut list = "/\n0 0\nd--755 0 0\n".to_owned();
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folders: Vec<&str> = folders.split('/').filter(|folder| !folder.is_empty()).collect();
    list.extend(folders.iter().map(|folder| format!("{folder} d--755 0 0\n")));
    list.extend([name, " ---644 0 0 iso\n"]);
    // Each folder ends with a line of its own, the root too.
    list.push_str(&"$\n".repeat(folders.len() + 1));
    list
}

fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// What a command says on standard output.
fn output(command: &mut Command) -> Result<String> {
    let output = command.env("LC_ALL", "C").output().with_context(|| format!("executing {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_xfs_list_opens_and_closes_every_folder() {
        let list = "/\n0 0\nd--755 0 0\na d--755 0 0\nb d--755 0 0\nc.iso ---644 0 0 iso\n$\n$\n$\n";
        assert_eq!(xfs_list("/a/b/c.iso"), list);
    }

    /// Each file system by the checker of another hand than its maker, where there is one.
    #[test]
    fn every_file_system_is_whole_and_as_large_as_it_must_be() {
        let folder = tempfile::tempdir().unwrap();
        let (iso, drive) = (folder.path().join("a b.iso"), folder.path().join("drive"));
        let bytes: Vec<u8> = (0..3 << 20).map(|at: u32| at.to_le_bytes()[at as usize % 3]).collect();
        fs::write(&iso, &bytes).unwrap();
        let checkers: [(FileSystem, &str, &[&str]); 6] = [
            (FileSystem::Fat, "fsck.vfat", &["-n"]),
            (FileSystem::Exfat, "fsck.exfat", &["-n"]),
            (FileSystem::Ntfs, "ntfsfix", &["-n"]),
            (FileSystem::Ext4, "fsck.ext4", &["-n", "-f"]),
            (FileSystem::Xfs, "xfs_repair", &["-n", "-f"]),
            (FileSystem::Btrfs, "btrfs", &["check"]),
        ];
        for (kind, checker, options) in checkers {
            iso_as_file(&iso, &drive, kind).unwrap();
            run(Command::new(checker).args(options).arg(&drive)).unwrap();
            let image = fs::read(&drive).unwrap();
            // Files begin at sectors; looking at every byte takes long.
            let place = (0..image.len()).step_by(512).find(|place| image[*place..].starts_with(&bytes[..512]));
            assert!(image[place.unwrap()..].starts_with(&bytes), "{kind:?}: the file is in pieces");
        }
    }
}
