//! Packs a folder into the root image: squashfs with zstd, the same bytes for the same folder.
//!
//! mksquashfs itself is deterministic when it is told the time of the file system; times of files are the caller's.

use crate::command;
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// How to pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// zstd level.
    pub level: u32,
    /// Block size in KiB.
    pub block: u32,
    /// The time of the file system, seconds since 1970.
    pub epoch: u64,
    /// Whether every file belongs to root and has the time `epoch` (for folders made by hand).
    pub flat: bool,
}

/// Packs `folder` into the new file `image`, without `excluded` paths (relative, with wildcards).
///
/// # Errors
/// mksquashfs fails.
pub fn pack(folder: &Path, image: &Path, packing: Packing, excluded: &[&str]) -> Result<()> {
    command::run(&mut command_line(folder, image, packing, excluded))?;
    Ok(())
}

/// Packs `folder` into the new file `image` for the fewest bytes, with xz and its filter for programs of this processor; everything
/// belongs to root and has the time `epoch`, seconds since 1970.
///
/// # Errors
/// mksquashfs fails.
pub fn pack_smallest(folder: &Path, image: &Path, epoch: u64) -> Result<()> {
    let mut command = Command::new("mksquashfs");
    command
        .arg(folder)
        .arg(image)
        .args(["-noappend", "-no-progress", "-quiet", "-no-xattrs", "-all-root"])
        .args(["-comp", "xz", "-Xbcj", "x86", "-b", "1M"])
        .args(["-mkfs-time", &epoch.to_string(), "-all-time", &epoch.to_string()])
        .env_remove("SOURCE_DATE_EPOCH");
    command::run(&mut command)?;
    Ok(())
}

fn command_line(folder: &Path, image: &Path, packing: Packing, excluded: &[&str]) -> Command {
    let mut command = Command::new("mksquashfs");
    command
        .arg(folder)
        .arg(image)
        .args(["-noappend", "-no-progress", "-quiet", "-xattrs", "-exports"])
        .args(["-comp", "zstd", "-Xcompression-level", &packing.level.to_string()])
        .args(["-b", &format!("{}K", packing.block), "-mkfs-time", &packing.epoch.to_string()])
        // With this variable in the environment mksquashfs refuses the option for the same thing.
        .env_remove("SOURCE_DATE_EPOCH");
    if packing.flat {
        command.args(["-all-root", "-all-time", &packing.epoch.to_string()]);
    }
    if !excluded.is_empty() {
        command.args(["-wildcards", "-e"]).args(excluded);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_same_folder_gives_the_same_image_and_exclusions_hold() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("root");
        fs::create_dir_all(folder.join("boot")).unwrap();
        fs::write(folder.join("boot/vmlinuz"), "kernel").unwrap();
        fs::write(folder.join("file"), "x".repeat(100_000)).unwrap();
        let packing = Packing { level: 3, block: 128, epoch: 1_700_000_000, flat: true };
        let image = |name: &str| {
            let path = place.path().join(name);
            pack(&folder, &path, packing, &["boot/*"]).unwrap();
            path
        };
        let (one, other) = (image("one"), image("other"));
        assert_eq!(fs::read(&one).unwrap(), fs::read(other).unwrap());
        let list = command::run(Command::new("unsquashfs").arg("-l").arg(&one)).unwrap();
        let list = String::from_utf8(list).unwrap();
        assert!(list.contains("/file") && list.contains("/boot") && !list.contains("vmlinuz"), "{list}");
    }
}
