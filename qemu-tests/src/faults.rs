//! Breaks things on purpose: a copy of an ISO, or an initramfs with something put over it. Never touches the original.
//!
//! Where a file lies on an ISO, the ISO's own directory says, read by xorriso.

use crate::scenario::InitramfsFault;
use anyhow::{Context, Result, bail, ensure};
use sino_boot::layout;
use sino_boot::manifest::{Manifest, VERITY_BLOCK};
use sino_image::cpio::Archive;
use sino_image::qemu::process::require;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// Files on an ISO begin at multiples of this.
const SECTOR: u64 = 2048;
/// The length of squashfs's superblock, and its magic number.
const SUPERBLOCK: usize = 96;
const SQUASHFS_MAGIC: &[u8; 4] = b"hsqs";
/// Where the superblock says that the table of inodes begins, which is where the files' data ends. Source: kernel
/// `fs/squashfs/squashfs_fs.h`.
const INODE_TABLE_START: usize = 64;
/// What is put in place of a kernel's release.
pub const OTHER_KERNEL: &str = "0.0.0-other";

/// A place in the root image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first byte: squashfs's magic number.
    SquashfsSuperblock,
    /// The middle of the files' data.
    SquashfsMiddle,
    /// The top of the dm-verity tree, on which the verification of all data rests.
    VerityTree,
}

/// Where a file lies on an ISO: its first byte and its length.
///
/// # Errors
/// xorriso is missing or fails, or there is no such file in one piece.
pub fn file_extent(iso: &Path, path: &str) -> Result<(u64, u64)> {
    require("xorriso", "xorriso")?;
    let path = format!("/{}", path.trim_start_matches('/'));
    let mut command = Command::new("xorriso");
    command.arg("-indev").arg(iso).args(["-find", &path, "-exec", "report_lba", "--"]);
    let output = command.output().with_context(|| format!("executing {command:?}"))?;
    let report = String::from_utf8_lossy(&output.stdout);
    let extents: Vec<_> = report.lines().filter_map(extent).collect();
    match extents.as_slice() {
        [extent] => Ok(*extent),
        _ => bail!(
            "{path} on {} is in {} pieces, not in one: {}",
            iso.display(),
            extents.len(),
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    }
}

/// Where the root image lies on an ISO: its first byte and its length, with the dm-verity tree.
///
/// # Errors
/// As [`file_extent`].
pub fn root_image_extent(iso: &Path) -> Result<(u64, u64)> {
    file_extent(iso, layout::ROOT_IMAGE)
}

/// Reads `File data lba:  0 ,     3770 ,     2578 ,  5279744 , '/sino/root.squashfs'`: number of the piece, first
/// sector, sectors, bytes, path.
fn extent(line: &str) -> Option<(u64, u64)> {
    let mut columns = line.strip_prefix("File data lba:")?.split(',').map(str::trim);
    let (first, length) = (columns.nth(1)?, columns.nth(1)?);
    Some((first.parse::<u64>().ok()? * SECTOR, length.parse().ok()?))
}

/// Copies an ISO and overwrites the superblock of the squashfs on it.
///
/// # Errors
/// The files cannot be used, or there is no squashfs on the ISO.
pub fn damage_root(iso: &Path, copy: &Path) -> Result<()> {
    let (start, _) = squashfs(iso)?;
    copied(iso, copy)?.write_all_at(&[0x5a; SUPERBLOCK], start)?;
    Ok(())
}

/// Copies an ISO and turns one bit of the root image.
///
/// # Errors
/// The files cannot be used, or there is no squashfs on the ISO.
pub fn flip_bit(iso: &Path, copy: &Path, manifest: &Manifest, place: Place) -> Result<()> {
    let (start, superblock) = squashfs(iso)?;
    let offset = match place {
        Place::SquashfsSuperblock => 0,
        Place::SquashfsMiddle => {
            let table = superblock.get(INODE_TABLE_START..).and_then(|bytes| bytes.first_chunk());
            table.map_or(0, |bytes| u64::from_le_bytes(*bytes)).midpoint(SUPERBLOCK as u64)
        }
        // In front of the tree is one block with its own superblock.
        Place::VerityTree => manifest.root.verity.data_size + VERITY_BLOCK,
    };
    let file = copied(iso, copy)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, start + offset)?;
    file.write_all_at(&byte.map(|byte| byte ^ 1), start + offset)?;
    Ok(())
}

/// Copies so many percent of an ISO: whole sectors from its beginning.
///
/// # Errors
/// The files cannot be used.
pub fn truncate_iso(iso: &Path, copy: &Path, percent: u8) -> Result<()> {
    let wanted = length(iso)? * u64::from(percent) / 100 / SECTOR * SECTOR;
    let from = File::open(iso).with_context(|| format!("reading {}", iso.display()))?;
    let mut to = File::create(copy).with_context(|| format!("making {}", copy.display()))?;
    io::copy(&mut from.take(wanted), &mut to).with_context(|| format!("writing {}", copy.display()))?;
    Ok(())
}

/// Where the squashfs begins on an ISO, and its superblock.
fn squashfs(iso: &Path) -> Result<(u64, [u8; SUPERBLOCK])> {
    let (start, _) = root_image_extent(iso)?;
    let mut superblock = [0; SUPERBLOCK];
    File::open(iso)?.read_exact_at(&mut superblock, start).with_context(|| format!("reading {}", iso.display()))?;
    ensure!(superblock.starts_with(SQUASHFS_MAGIC), "/{} on {} is no squashfs", layout::ROOT_IMAGE, iso.display());
    Ok((start, superblock))
}

/// A copy that can be written.
fn copied(iso: &Path, copy: &Path) -> Result<File> {
    fs::copy(iso, copy).with_context(|| format!("copying {} to {}", iso.display(), copy.display()))?;
    let file = OpenOptions::new().read(true).write(true).open(copy);
    file.with_context(|| format!("opening {}", copy.display()))
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

/// A configuration that nobody has by chance.
pub const CONFIG: &str = "[system]\nhostname = \"from-the-stick\"\n";

/// Copies an ISO and puts a `sino.toml` with this text into its EFI partition, which begins at this sector.
///
/// # Errors
/// mcopy fails, in its own words.
pub fn configure(iso: &Path, copy: &Path, sector: u64, content: &str) -> Result<()> {
    copied(iso, copy)?;
    let text = copy.with_extension("toml");
    fs::write(&text, content).with_context(|| format!("writing {}", text.display()))?;
    let image = format!("{}@@{}", copy.display(), sector * 512);
    let mut mcopy = Command::new("mcopy");
    mcopy.args(["-i", &image]).arg(&text).arg("::sino.toml").env("MTOOLS_SKIP_CHECK", "1");
    let output = mcopy.output().context("running mcopy; install it: apt-get install mtools")?;
    ensure!(output.status.success(), "mcopy: {}", String::from_utf8_lossy(&output.stderr).trim());
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
        // The right one for any other medium.
        InitramfsFault::NotForIsoFiles => {}
        InitramfsFault::OtherKernel => {
            let manifest = Manifest { kernel_release: OTHER_KERNEL.to_owned(), ..manifest.clone() };
            over.file(below_root(layout::MANIFEST), 0o644, manifest.to_text()?)?;
        }
        InitramfsFault::BrokenModule(name) => {
            // The name of a module's file has '-' or '_', as its makers liked it; the table knows, and so does the kernel:
            // both are put there, and the one that is not asked for does no harm.
            let spellings = BTreeSet::from([name.replace('_', "-"), name.replace('-', "_")]);
            for spelling in spellings {
                for (folder, ending) in [layout::MODULES, layout::SELDOM_MODULES, layout::CARRIER_MODULES]
                    .into_iter()
                    .flat_map(|folder| ["ko", "ko.xz"].map(|ending| (folder, ending)))
                {
                    let path = format!("{}/{spelling}.{ending}", below_root(folder));
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

    /// An ISO whose root image is `image`.
    fn iso(folder: &Path, image: &[u8]) -> std::path::PathBuf {
        let content = folder.join("content");
        let file = content.join(layout::ROOT_IMAGE);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, image).unwrap();
        let iso = folder.join("an iso");
        let mut command = Command::new("xorriso");
        command.args(["-as", "mkisofs", "-quiet", "-R", "-o"]).arg(&iso).arg(content);
        assert!(command.output().unwrap().status.success());
        iso
    }

    /// A root image of 3 MiB without the byte 0x5a; its inodes begin at 1 MiB.
    fn root_image() -> Vec<u8> {
        let mut image = vec![7; 3 << 20];
        image[..4].copy_from_slice(SQUASHFS_MAGIC);
        image[64..72].copy_from_slice(&(1_u64 << 20).to_le_bytes());
        image
    }

    fn differences(one: &Path, other: &Path) -> Vec<u64> {
        let (one, other) = (fs::read(one).unwrap(), fs::read(other).unwrap());
        assert_eq!(one.len(), other.len());
        (0..).zip(one.iter().zip(&other)).filter(|(_, (one, other))| one != other).map(|(at, _)| at).collect()
    }

    #[test]
    fn a_line_of_xorrisos_report_is_an_extent() {
        let line = "File data lba:  0 ,     3770 ,     2578 ,  5279744 , '/sino/root.squashfs'";
        assert_eq!(extent(line), Some((3770 * 2048, 5_279_744)));
        assert_eq!(extent("Report layout: xt , Startlba ,   Blocks , Filesize , ISO image path"), None);
    }

    #[test]
    fn the_root_images_beginning_is_overwritten_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (iso, copy) = (iso(folder.path(), &root_image()), folder.path().join("copy"));
        let (start, length) = root_image_extent(&iso).unwrap();
        assert_eq!(length, 3 << 20);
        damage_root(&iso, &copy).unwrap();
        assert_eq!(differences(&iso, &copy), (start..start + SUPERBLOCK as u64).collect::<Vec<_>>());
        assert!(damage_root(&copy, &folder.path().join("c")).unwrap_err().to_string().contains("no squashfs"));
        assert!(file_extent(&iso, "/sino/none").unwrap_err().to_string().contains("0 pieces"));
    }

    #[test]
    fn one_bit_is_turned_where_it_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let (iso, copy) = (iso(folder.path(), &root_image()), folder.path().join("copy"));
        let (start, _) = root_image_extent(&iso).unwrap();
        let mut manifest = sino_boot::manifest::sample_of("b", "6.1");
        manifest.root.verity.data_size = 2 << 20;
        for (place, offset) in [
            (Place::SquashfsSuperblock, 0),
            (Place::SquashfsMiddle, (1 << 19) + 48),
            (Place::VerityTree, (2 << 20) + 4096),
        ] {
            flip_bit(&iso, &copy, &manifest, place).unwrap();
            assert_eq!(differences(&iso, &copy), [start + offset], "{place:?}");
        }
    }

    #[test]
    fn a_truncated_iso_is_the_beginning_in_whole_sectors() {
        let folder = tempfile::tempdir().unwrap();
        let (iso, copy) = (folder.path().join("a"), folder.path().join("b"));
        let bytes: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        fs::write(&iso, &bytes).unwrap();
        truncate_iso(&iso, &copy, 50).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), bytes[..49152]);
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
        let manifest = sino_boot::manifest::sample_of("b", "6.1");
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
