//! Puts one file on a fresh exFAT volume, in contiguous clusters: no tool does that without mounting it.
//!
//! Knows only what mkfs.exfat leaves behind: a root folder of one cluster that has room, and free clusters behind the
//! used ones. Source: Microsoft, "exFAT file system specification", sections 3 (boot sector), 6 and 7 (entries).

use anyhow::{Context, Result, bail, ensure};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The length of a directory entry in bytes.
const ENTRY: usize = 32;
/// The type of the entry that says where the allocation bitmap is.
const BITMAP: u8 = 0x81;
/// File attributes: a folder, an ordinary file.
const FOLDER: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
/// 1 January 2026, 00:00, as exFAT counts (7.4.8).
const TIME: u32 = (2026 - 1980) << 25 | 1 << 21 | 1 << 16;

/// What the boot sector and the root folder say.
struct Volume {
    file: File,
    /// Where the first cluster begins, and how long one is, in bytes.
    heap: u64,
    cluster: u64,
    /// How many there are. They are numbered from 2.
    clusters: u64,
    /// The root folder's place, and where its next entry goes.
    root: u64,
    end: u64,
    /// The bitmap's place and length.
    bitmap: u64,
    bitmap_length: usize,
}

/// Adds the file `source` at `path` to a fresh volume; its folders are made.
///
/// # Errors
/// The files cannot be used, or the volume is not fresh, or too small.
pub(super) fn add(drive: &Path, path: &str, source: &Path) -> Result<()> {
    let volume = Volume::open(drive).with_context(|| format!("looking at the exFAT on {}", drive.display()))?;
    let mut content = File::open(source).with_context(|| format!("reading {}", source.display()))?;
    let length = content.metadata()?.len();
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let Some((name, folders)) = names.split_last() else { bail!("a file needs a name") };
    // A cluster for each folder, then those of the file.
    let count = folders.len() as u64 + length.div_ceil(volume.cluster);
    let mut next = volume.allocate(count)?;
    let mut place = volume.end;
    for folder in folders {
        volume.file.write_all_at(&entries(folder, FOLDER, next, volume.cluster)?, place)?;
        place = volume.place(next);
        volume.file.write_all_at(&vec![0; usize::try_from(volume.cluster)?], place)?;
        next += 1;
    }
    volume.file.write_all_at(&entries(name, ARCHIVE, next, length)?, place)?;
    let mut to = &volume.file;
    io::Seek::seek(&mut to, io::SeekFrom::Start(volume.place(next)))?;
    io::copy(&mut content, &mut to).with_context(|| format!("copying {}", source.display()))?;
    Ok(())
}

impl Volume {
    fn open(drive: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(drive)?;
        let mut boot = [0; 512];
        file.read_exact_at(&mut boot, 0)?;
        ensure!(boot.get(3..11) == Some(b"EXFAT   "), "it is none");
        let sector = 1 << number(&boot, 108, 1)?;
        let cluster = sector << number(&boot, 109, 1)?;
        let heap = number(&boot, 88, 4)? * sector;
        let root = heap + (number(&boot, 96, 4)? - 2) * cluster;
        let mut folder = vec![0; usize::try_from(cluster)?];
        file.read_exact_at(&mut folder, root)?;
        let used = folder.chunks(ENTRY).take_while(|entry| entry.first() != Some(&0)).count() * ENTRY;
        let bitmap = folder.chunks(ENTRY).find(|entry| entry.first() == Some(&BITMAP)).context("it has no bitmap")?;
        Ok(Self {
            file,
            heap,
            cluster,
            clusters: number(&boot, 92, 4)?,
            root,
            end: root + used as u64,
            bitmap: heap + (number(bitmap, 20, 4)? - 2) * cluster,
            bitmap_length: usize::try_from(number(bitmap, 24, 8)?)?,
        })
    }

    /// Where a cluster begins.
    fn place(&self, cluster: u64) -> u64 {
        self.heap + (cluster - 2) * self.cluster
    }

    /// Marks so many clusters behind the last used one, and returns the first of them.
    fn allocate(&self, count: u64) -> Result<u64> {
        ensure!(self.end + 4 * ENTRY as u64 <= self.root + self.cluster, "the root folder is full");
        let mut bitmap = vec![0; self.bitmap_length];
        self.file.read_exact_at(&mut bitmap, self.bitmap)?;
        let set = |byte: &u8, bit: u64| byte >> bit & 1 == 1;
        let last = (0..self.clusters).rev().find(|&at| byte_of(&bitmap, at).is_some_and(|byte| set(byte, at % 8)));
        let first = last.map_or(0, |last| last + 1);
        ensure!(first + count <= self.clusters, "it has not {count} clusters free");
        for at in first..first + count {
            let byte = bitmap.get_mut(usize::try_from(at / 8)?).context("the bitmap is too short")?;
            *byte |= 1 << (at % 8);
        }
        self.file.write_all_at(&bitmap, self.bitmap)?;
        Ok(first + 2)
    }
}

fn byte_of(bitmap: &[u8], bit: u64) -> Option<&u8> {
    bitmap.get(usize::try_from(bit / 8).ok()?)
}

/// A little-endian number.
fn number(bytes: &[u8], at: usize, length: usize) -> Result<u64> {
    let bytes = bytes.get(at..at + length).context("it is cut off")?;
    Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// The entries of a file or folder in its folder: file, stream extension, name.
fn entries(name: &str, attributes: u8, first_cluster: u64, length: u64) -> Result<Vec<u8>> {
    let letters: Vec<u16> = name.encode_utf16().collect();
    ensure!(name.is_ascii() && (1..=15).contains(&letters.len()), "the name {name:?} is not 1 to 15 ASCII letters");
    let (mut file, mut stream, mut names) = ([0; ENTRY], [0; ENTRY], [0; ENTRY]);
    put(&mut file, 0, &[0x85, 2]);
    put(&mut file, 4, &[attributes]);
    for time in [8, 12, 16] {
        put(&mut file, time, &TIME.to_le_bytes());
    }
    // It can have clusters (1), and they follow one another, so that the FAT is not asked (2).
    put(&mut stream, 0, &[0xc0, 3, 0, u8::try_from(letters.len())?]);
    let upper: Vec<u8> = name.to_ascii_uppercase().encode_utf16().flat_map(u16::to_le_bytes).collect();
    put(&mut stream, 4, &sum(&upper).to_le_bytes());
    put(&mut stream, 8, &length.to_le_bytes());
    put(&mut stream, 20, &u32::try_from(first_cluster)?.to_le_bytes());
    put(&mut stream, 24, &length.to_le_bytes());
    put(&mut names, 0, &[0xc1]);
    put(&mut names, 2, &letters.iter().flat_map(|letter| letter.to_le_bytes()).collect::<Vec<_>>());
    let mut set = [file, stream, names].concat();
    // The sum leaves out its own two bytes, which follow the first two.
    let summed: Vec<u8> = set.iter().take(2).chain(set.iter().skip(4)).copied().collect();
    put(&mut set, 2, &sum(&summed).to_le_bytes());
    Ok(set)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

/// exFAT's checksum of entries and of names (6.3.3, 7.6.4).
fn sum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0_u16, |sum, byte| sum.rotate_right(1).wrapping_add(u16::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_entries_have_its_name_place_and_length_and_the_right_sum() {
        let set = entries("sino.iso", ARCHIVE, 9, 0x0123_4567_89ab).unwrap();
        assert_eq!(set.len(), 3 * ENTRY);
        assert_eq!((set[0], set[32], set[64]), (0x85, 0xc0, 0xc1));
        assert_eq!(number(&set, 32 + 20, 4).unwrap(), 9);
        assert_eq!(number(&set, 32 + 24, 8).unwrap(), 0x0123_4567_89ab);
        assert_eq!(&set[66..82], b"s\0i\0n\0o\0.\0i\0s\0o\0");
        assert!(entries("a name of 16 let", ARCHIVE, 9, 1).is_err());
        assert!(entries("", ARCHIVE, 9, 1).is_err());
    }

    #[test]
    fn the_sum_turns_right_and_adds() {
        assert_eq!(sum(&[1]), 1);
        assert_eq!(sum(&[1, 0]), 0x8000);
        assert_eq!(sum(&[1, 2, 0]), 0x4001);
    }

    #[test]
    fn a_volume_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let drive = folder.path().join("drive");
        std::fs::write(&drive, [0; 4096]).unwrap();
        assert!(format!("{:#}", add(&drive, "/a", &drive).unwrap_err()).contains("it is none"));
    }
}
