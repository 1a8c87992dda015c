//! Breaks things on purpose: a copy of an ISO, or an initramfs with something put over it. Never touches the original.

use crate::scenario::InitramfsFault;
use anyhow::{Context, Result, ensure};
use sino_boot::layout;
use sino_boot::manifest::Manifest;
use sino_image::cpio::Archive;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The magic number of squashfs at the beginning of the root image.
const SQUASHFS_MAGIC: &[u8; 4] = b"hsqs";
/// Files on an ISO begin at multiples of this.
const SECTOR: usize = 2048;
/// How much of the root image's beginning is overwritten: its superblock.
const SUPERBLOCK: usize = 96;
/// What is put in place of a kernel's release.
pub const OTHER_KERNEL: &str = "0.0.0-other";

/// Copies an ISO and overwrites the superblock of the squashfs on it.
///
/// # Errors
/// The files cannot be used, or there is no squashfs on the ISO.
pub fn damage_root(iso: &Path, copy: &Path) -> Result<()> {
    fs::copy(iso, copy).with_context(|| format!("copying {} to {}", iso.display(), copy.display()))?;
    let mut file = OpenOptions::new().read(true).write(true).open(copy)?;
    let mut sector = [0; SECTOR];
    let mut offset = 0;
    while file.read_exact(&mut sector).is_ok() {
        if sector.starts_with(SQUASHFS_MAGIC) {
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(&[0x5a; SUPERBLOCK])?;
            return Ok(());
        }
        offset += SECTOR as u64;
    }
    anyhow::bail!("there is no squashfs on {}", iso.display())
}

/// Copies an ISO and appends zeros up to a power of two, which is what an SD card's length must be.
///
/// # Errors
/// The files cannot be used.
pub fn pad(iso: &Path, copy: &Path) -> Result<()> {
    let length = fs::copy(iso, copy).with_context(|| format!("copying {} to {}", iso.display(), copy.display()))?;
    OpenOptions::new().write(true).open(copy)?.set_len(length.next_power_of_two())?;
    Ok(())
}

/// Makes a file of zeros.
///
/// # Errors
/// The file cannot be written.
pub fn blank(file: &Path, mib: u64) -> Result<()> {
    File::create(file)?.set_len(mib << 20).with_context(|| format!("making {}", file.display()))
}

/// Copies an initramfs and appends an archive that puts something broken in the place of the right thing. The kernel
/// unpacks archives in order; later files replace earlier ones.
///
/// # Errors
/// The files cannot be used.
pub fn break_initramfs(initramfs: &Path, copy: &Path, manifest: &Manifest, fault: InitramfsFault) -> Result<()> {
    let mut over = Archive::new();
    match fault {
        InitramfsFault::OtherKernel => {
            let manifest = Manifest { kernel_release: OTHER_KERNEL.to_owned(), ..manifest.clone() };
            over.file(below_root(layout::MANIFEST), 0o644, manifest.to_text()?)?;
        }
        InitramfsFault::BrokenModule(name) => {
            // The name of a module's file has '-' or '_', as its makers liked it; the table knows, and so does the kernel:
            // both are put there, and the one that is not asked for does no harm.
            let spellings = BTreeSet::from([name.replace('_', "-"), name.replace('-', "_")]);
            for spelling in spellings {
                for ending in ["ko", "ko.xz"] {
                    let path = format!("{}/{spelling}.{ending}", below_root(layout::MODULES));
                    over.file(&path, 0o644, "not a kernel module")?;
                }
            }
        }
    }
    let mut bytes = fs::read(initramfs).with_context(|| format!("reading {}", initramfs.display()))?;
    // An archive begins at a multiple of four.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(over.to_bytes(0)?);
    fs::write(copy, bytes).with_context(|| format!("writing {}", copy.display()))
}

fn below_root(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// The length of a file that must not be empty.
///
/// # Errors
/// It is empty or not there.
pub fn length(file: &Path) -> Result<u64> {
    let length = fs::metadata(file).with_context(|| format!("looking at {}", file.display()))?.len();
    ensure!(length > 0, "{} is empty", file.display());
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_images_beginning_is_overwritten_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (iso, copy) = (folder.path().join("a"), folder.path().join("b"));
        let mut bytes = vec![7; 5 * SECTOR];
        bytes[2 * SECTOR..2 * SECTOR + 4].copy_from_slice(SQUASHFS_MAGIC);
        fs::write(&iso, &bytes).unwrap();
        damage_root(&iso, &copy).unwrap();
        assert_eq!(fs::read(&iso).unwrap(), bytes);
        bytes[2 * SECTOR..2 * SECTOR + SUPERBLOCK].fill(0x5a);
        assert_eq!(fs::read(&copy).unwrap(), bytes);
        assert!(damage_root(&copy, &iso).unwrap_err().to_string().contains("no squashfs"));
    }

    #[test]
    fn an_sd_card_has_a_power_of_two() {
        let folder = tempfile::tempdir().unwrap();
        let (iso, copy) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&iso, vec![1; 1025]).unwrap();
        pad(&iso, &copy).unwrap();
        assert_eq!(length(&copy).unwrap(), 2048);
    }

    #[test]
    fn what_is_put_over_an_initramfs_begins_at_a_multiple_of_four() {
        let folder = tempfile::tempdir().unwrap();
        let (initramfs, copy) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&initramfs, b"12345").unwrap();
        let manifest = Manifest {
            format: 1,
            build_id: "b".into(),
            version: "1".into(),
            kernel_release: "6.1".into(),
            root: sino_boot::manifest::RootImage { path: "x".into(), size: 1, blake3: "0".repeat(64) },
        };
        for (fault, text) in [
            (InitramfsFault::OtherKernel, OTHER_KERNEL),
            (InitramfsFault::BrokenModule("usb_storage"), "usb-storage.ko"),
            (InitramfsFault::BrokenModule("nvme"), "nvme.ko"),
        ] {
            break_initramfs(&initramfs, &copy, &manifest, fault).unwrap();
            let bytes = fs::read(&copy).unwrap();
            assert_eq!(bytes[..14], [b"12345\0\0\0".as_slice(), b"070701"].concat());
            assert!(String::from_utf8_lossy(&bytes).contains(text));
        }
    }
}
