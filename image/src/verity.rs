//! Appends a dm-verity tree to a root image, and reads from an image which tree it has.
//!
//! The file becomes: squashfs, zeros up to a multiple of 4096, veritysetup's superblock, tree. Salt and UUID follow
//! from the squashfs, not from chance, so that the same squashfs gives the same file. Nothing but the image is kept:
//! the root hash is the hash of the salt and the tree's first block. Sources: veritysetup(8); cryptsetup's wiki, page
//! "`DMVerity`", for the superblock; kernel `Documentation/admin-guide/device-mapper/verity.rst` for the tree; kernel
//! `fs/squashfs/squashfs_fs.h`.

use crate::cache::file_hash;
use crate::command;
use anyhow::{Context, Result, bail, ensure};
use sino_boot::manifest::{VERITY_BLOCK, Verity};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// A tree over one block has no blocks of its own, so there are always two.
const LEAST: u64 = 2 * VERITY_BLOCK;
/// Length of veritysetup's superblock.
const SUPERBLOCK: usize = 512;

/// Appends the tree to the squashfs `image`.
///
/// # Errors
/// The file is no squashfs, cannot be written, or veritysetup fails.
pub fn append(image: &Path) -> Result<Verity> {
    let data_size = pad(image).with_context(|| format!("padding {}", image.display()))?;
    let content = file_hash(image)?;
    let derived = |purpose: &str| blake3::derive_key(purpose, content.as_bytes());
    let salt = blake3::Hash::from(derived("SINO root image: salt of the dm-verity tree")).to_hex();
    let output = command::run(
        Command::new("veritysetup")
            .args(["format", "--format=1", "--hash=sha256", "--data-block-size=4096", "--hash-block-size=4096"])
            .arg(format!("--data-blocks={}", data_size / VERITY_BLOCK))
            .arg(format!("--hash-offset={data_size}"))
            .arg(format!("--salt={salt}"))
            .arg(format!("--uuid={}", uuid(derived("SINO root image: UUID of the dm-verity tree"))))
            .args([image, image]),
    )?;
    let tree = facts(image)?;
    let said = String::from_utf8_lossy(&output);
    ensure!(said.contains(&tree.root_hash), "veritysetup wrote another tree than it says:\n{said}{tree:?}");
    Ok(tree)
}

/// Which tree the image has, from its own bytes.
///
/// # Errors
/// The file cannot be read, or is not what [`append`] leaves.
pub fn facts(image: &Path) -> Result<Verity> {
    read_facts(image).with_context(|| format!("reading the dm-verity tree in {}", image.display()))
}

fn read_facts(image: &Path) -> Result<Verity> {
    let file = File::open(image)?;
    let data_size = data_size(&file)?;
    let mut superblock = [0; SUPERBLOCK];
    file.read_exact_at(&mut superblock, data_size)?;
    // Signature, version, type, UUID, name of the hash at 32, the two block sizes at 64.
    let number = |at| Ok::<_, anyhow::Error>(u32::from_le_bytes(array(&superblock, at)?));
    let numbers = [number(8)?, number(12)?, number(64)?, number(68)?];
    ensure!(
        superblock.starts_with(b"verity\0\0")
            && array(&superblock, 32)? == *b"sha256\0"
            && numbers == [1, 1, 4096, 4096],
        "no superblock of format 1 with SHA-256 and blocks of 4096 bytes at {data_size}"
    );
    // The number of data blocks at 72, the length of the salt at 80, the salt at 88.
    let blocks = u64::from_le_bytes(array(&superblock, 72)?);
    ensure!(
        blocks.checked_mul(VERITY_BLOCK) == Some(data_size),
        "the tree covers {blocks} blocks, not {data_size} bytes"
    );
    let salt_length = usize::from(u16::from_le_bytes(array(&superblock, 80)?));
    let salt = superblock.get(88..88 + salt_length).context("the salt is too long")?;
    let mut top = [0; 4096];
    file.read_exact_at(&mut top, data_size + VERITY_BLOCK)?;
    Ok(Verity { data_size, root_hash: sha256(&[salt, &top].concat())?, salt: hex(salt) })
}

/// Pads the squashfs with zeros; returns the new length.
fn pad(image: &Path) -> Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(image)?;
    let (size, wanted) = (file.metadata()?.len(), data_size(&file)?);
    ensure!(size <= wanted, "it has {size} bytes, more than its squashfs");
    file.set_len(wanted)?;
    Ok(wanted)
}

/// What a tree over this squashfs covers: its length, which its superblock tells, as whole blocks.
fn data_size(file: &File) -> Result<u64> {
    let mut superblock = [0; 48];
    file.read_exact_at(&mut superblock, 0)?;
    if !superblock.starts_with(b"hsqs") {
        bail!("it is no squashfs");
    }
    let length = u64::from_le_bytes(array(&superblock, 40)?);
    Ok(length.next_multiple_of(VERITY_BLOCK).max(LEAST))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).context("too short")
}

fn sha256(bytes: &[u8]) -> Result<String> {
    let output = String::from_utf8(command::run_with_input(&mut Command::new("sha256sum"), bytes)?)?;
    Ok(output.split_whitespace().next().context("sha256sum said nothing")?.to_owned())
}

/// Version 8: bytes of our own choice. Source: RFC 9562, section 5.8.
fn uuid(mut bytes: [u8; 32]) -> String {
    bytes[6] = 0x80 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    let part = |from: usize, to: usize| hex(bytes.get(from..to).unwrap_or_default());
    [part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 16)].join("-")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::squashfs::{self, Packing};
    use std::fs;
    use std::path::PathBuf;

    /// A squashfs with `random` bytes that do not compress.
    fn image(place: &Path, name: &str, random: usize) -> PathBuf {
        let (folder, path) = (place.join("root"), place.join(name));
        fs::create_dir_all(&folder).unwrap();
        let mut bytes = vec![0; random];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        fs::write(folder.join("file"), bytes).unwrap();
        let packing = Packing { level: 3, block: 128, epoch: 1_700_000_000, flat: true };
        squashfs::pack(&folder, &path, packing, &[]).unwrap();
        path
    }

    fn verify(image: &Path, tree: &Verity) -> Result<Vec<u8>> {
        command::run(
            Command::new("veritysetup")
                .arg("verify")
                .args([image, image])
                .arg(&tree.root_hash)
                .arg(format!("--hash-offset={}", tree.data_size)),
        )
    }

    #[test]
    fn the_tree_holds_and_a_single_flipped_bit_breaks_it() {
        let place = tempfile::tempdir().unwrap();
        // Trees of one, two and three levels: up to 128 blocks, up to 128 * 128, more.
        for (name, random) in [("small", 10), ("middle", 3 << 20), ("large", 65 << 20)] {
            let path = image(place.path(), name, random);
            let tree = append(&path).unwrap();
            verify(&path, &tree).unwrap();
            assert_eq!(facts(&path).unwrap(), tree);
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let mut byte = [0];
            for place in [4096 + 7, tree.data_size - 1, file.metadata().unwrap().len() - 1] {
                file.read_exact_at(&mut byte, place).unwrap();
                file.write_all_at(&[byte[0] ^ 4], place).unwrap();
                verify(&path, &tree).unwrap_err();
                file.write_all_at(&byte, place).unwrap();
            }
            verify(&path, &tree).unwrap();
        }
    }

    #[test]
    fn the_same_squashfs_gives_the_same_bytes() {
        let place = tempfile::tempdir().unwrap();
        let paths = ["one", "other"].map(|name| image(place.path(), name, 100_000));
        let trees = paths.clone().map(|path| append(&path).unwrap());
        assert_eq!(trees[0], trees[1]);
        assert_eq!(fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap());
        let different = append(&image(place.path(), "different", 100_001)).unwrap();
        assert_ne!(different.salt, trees[0].salt);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = image(place.path(), "image", 10);
        assert!(format!("{:#}", facts(&path).unwrap_err()).contains("reading the dm-verity tree in"));
        append(&path).unwrap();
        let again = format!("{:#}", append(&path).unwrap_err());
        assert!(again.contains("more than its squashfs"), "{again}");
        fs::write(&path, vec![0; 10_000]).unwrap();
        assert!(format!("{:#}", append(&path).unwrap_err()).contains("no squashfs"));
    }
}
