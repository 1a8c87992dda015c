//! What a device holds, from its first bytes: the kind of file system or container, its label and its UUID.
//!
//! Takes the first [`HEAD`] bytes, or what there is of them; reads nothing itself. Label and UUID are the ones that
//! `blkid -p` prints, because they are what people write into `LABEL=` and `UUID=`. Not looked at: what lies at a
//! device's end (md 0.90 and 1.0), Joliet's spelling of an ISO 9660 label, and a pure UDF's label, which lies far away.
//! Sources: each format's own documentation, named at its function; the order and the printed forms are libblkid's.

use crate::lvm_metadata;

/// How much of a device's beginning [`parse`] wants, in bytes: `btrfs` has its superblock at 64 KiB.
pub const HEAD: usize = 68 << 10;
/// How much of a root directory is searched for the label: it is nearly always the first entry.
const DIRECTORY: u64 = 32 << 10;

/// Recognises one format.
type Parser = fn(&[u8]) -> Option<Superblock>;

/// What was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The kind, in the words that are shown to people.
    pub kind: &'static str,
    /// The label, free of control characters; empty if there is none or it lies elsewhere ([`Self::label_place`]).
    pub label: String,
    /// The UUID as `blkid` writes it; empty if there is none.
    pub uuid: String,
}

/// Recognises a device by its first bytes.
#[must_use]
pub fn parse(head: &[u8]) -> Option<Superblock> {
    // Containers first: what they hold may show through. Partition tables last: boot sectors look like them.
    let formats: [Parser; 16] =
        [linux_raid, lvm, luks, bitlocker, vfat, swap, xfs, ext, iso9660, udf, ntfs, squashfs, btrfs, exfat, gpt, mbr];
    let mut found = formats.iter().find_map(|format| format(head))?;
    if let Some((offset, length)) = found.label_place(head) {
        let bytes = usize::try_from(offset).ok().and_then(|offset| head.get(offset..)).unwrap_or_default();
        found.read_label(bytes.get(..length).unwrap_or(bytes));
    }
    Some(found)
}

impl Superblock {
    /// Where the label lies (bytes from the start, length) in the formats that do not keep it in their superblock. A
    /// caller who wants a label that lies beyond the head reads there and hands the bytes to [`Self::read_label`].
    #[must_use]
    pub fn label_place(&self, head: &[u8]) -> Option<(u64, usize)> {
        let (offset, length) = match self.kind {
            "vfat" => fat_geometry(head)?.root?,
            "exfat" => exfat_directory(head)?,
            "ntfs" => ntfs_volume_record(head)?,
            _ => return None,
        };
        Some((offset, usize::try_from(length.min(DIRECTORY)).ok()?))
    }

    /// Takes the label from the bytes at [`Self::label_place`], if they say it.
    pub fn read_label(&mut self, bytes: &[u8]) {
        let label = match self.kind {
            "vfat" => fat_label(bytes),
            "exfat" => exfat_label(bytes),
            "ntfs" => ntfs_label(bytes),
            _ => None,
        };
        if let Some(label) = label {
            self.label = label;
        }
    }
}

/// md 1.1 (at the start) and 1.2 (at 4 KiB). Source: kernel `include/uapi/linux/raid/md_p.h`, `mdp_superblock_1`.
fn linux_raid(head: &[u8]) -> Option<Superblock> {
    let start = [0, 4096].into_iter().find(|&start| has(head, start, b"\xfc\x4e\x2b\xa9\x01\0\0\0"))?;
    Some(named("Linux RAID member", text(head, start + 32, 32), dashed(head, start + 16)))
}

/// A physical volume of LVM2, with its UUID in LVM's 6-4-4-4-4-4-6 form.
fn lvm(head: &[u8]) -> Option<Superblock> {
    let id = lvm_metadata::label(head)?.pv_uuid;
    let dashed: String = id
        .char_indices()
        .flat_map(|(at, c)| matches!(at, 6 | 10 | 14 | 18 | 22 | 26).then_some('-').into_iter().chain([c]))
        .collect();
    Some(named("LVM2 member", String::new(), dashed))
}

/// Source: cryptsetup's "LUKS1 On-Disk Format" and "LUKS2 On-Disk Format", binary headers.
fn luks(head: &[u8]) -> Option<Superblock> {
    let label = match head.get(..8)? {
        b"LUKS\xba\xbe\0\x01" => String::new(),
        b"LUKS\xba\xbe\0\x02" => text(head, 24, 48),
        _ => return None,
    };
    Some(named("LUKS", label, text(head, 168, 40)))
}

/// An encrypted Windows volume; that on a stick ("To Go") dresses as FAT. Source: libbde's "`BitLocker` Drive
/// Encryption (BDE) format", volume header.
fn bitlocker(head: &[u8]) -> Option<Superblock> {
    let to_go = b"\x3b\xd6\x76\x49\x29\x2e\x4a\xd8\x83\x99\xf6\xa3\x39\xe3\xd0\x01";
    (has(head, 3, b"-FVE-FS-") || has(head, 424, to_go)).then(|| unnamed("BitLocker"))
}

/// Source: Microsoft's "FAT32 File System Specification" (fatgen103), boot sector. The boot sector's label may be
/// stale: the root directory's counts, where it can be seen.
fn vfat(head: &[u8]) -> Option<Superblock> {
    // Signature, serial number, label.
    let at = if fat_geometry(head)?.is_fat32 { 66 } else { 38 };
    let signature = number(head, at, 1)?;
    let has_label = signature == 0x29 && !has(head, at + 5, b"NO NAME    ");
    let label = if has_label { text(head, at + 5, 11) } else { String::new() };
    let serial = if at == 66 || matches!(signature, 0x28 | 0x29) { number(head, at + 1, 4)? } else { 0 };
    Some(named("vfat", label, short_serial(serial)))
}

struct FatGeometry {
    is_fat32: bool,
    /// Offset and length in bytes of the root directory, or of its first cluster.
    root: Option<(u64, u64)>,
}

/// What a FAT's boot sector says; `None` if it is not one. Not every FAT has a magic string, so its fields are checked.
fn fat_geometry(head: &[u8]) -> Option<FatGeometry> {
    let strings: [(usize, &[u8]); 6] =
        [(82, b"MSWIN"), (82, b"FAT32   "), (54, b"MSDOS"), (54, b"FAT16   "), (54, b"FAT12   "), (54, b"FAT     ")];
    // OS/2 puts a sector like this before other file systems.
    let other = has(head, 54, b"JFS     ") || has(head, 54, b"HPFS    ");
    if !strings.iter().any(|(at, magic)| has(head, *at, magic)) && (other || !has(head, 510, b"\x55\xaa")) {
        return None;
    }
    let field = |offset, length| number(head, offset, length);
    let either = |short: u64, long: u64| if short == 0 { long } else { short };
    let (sector, cluster) = (field(11, 2)?, field(13, 1)?);
    let (reserved, fats, entries, media) = (field(14, 2)?, field(16, 1)?, field(17, 2)?, field(21, 1)?);
    let (sectors, short_length, long_length) = (either(field(19, 2)?, field(32, 4)?), field(22, 2)?, field(36, 4)?);
    let valid = sector.is_power_of_two() && (512..=4096).contains(&sector) && cluster.is_power_of_two();
    if !valid || reserved == 0 || fats == 0 || !(media == 0xf0 || media >= 0xf8) {
        return None;
    }
    // None of these can overflow: the widest is 8 + 32 + 12 bits.
    let is_fat32 = short_length == 0 && long_length != 0;
    let directory = reserved + fats * either(short_length, long_length);
    let data = directory + (entries * 32).div_ceil(sector);
    let clusters = sectors.checked_sub(data)? / cluster;
    if clusters > if is_fat32 { 0x0fff_fff6 } else { 0xfff4 } {
        return None;
    }
    let root = if is_fat32 {
        field(44, 4)?.checked_sub(2).map(|first| ((data + first * cluster) * sector, cluster * sector))
    } else {
        Some((directory * sector, entries * 32))
    };
    Some(FatGeometry { is_fat32, root })
}

/// The label in a FAT's root directory; empty if the directory ends without one, `None` if its end is not seen.
fn fat_label(directory: &[u8]) -> Option<String> {
    for entry in directory.chunks_exact(32) {
        let (first, attributes) = (number(entry, 0, 1)?, number(entry, 11, 1)?);
        if first == 0 {
            return Some(String::new());
        }
        // Neither deleted, nor a part of a long name, nor a file: the volume label.
        let clusters = number(entry, 20, 2)? | number(entry, 26, 2)?;
        if first != 0xe5 && attributes & 0x3f != 0x0f && attributes & 0x18 == 0x08 && clusters == 0 {
            return Some(text(entry, 0, 11));
        }
    }
    None
}

/// Swap space, or a hibernated system in it. The magic ends the first page, whose size differs. Source: kernel
/// `include/linux/swap.h`, `union swap_header`, and `kernel/power/swap.c`.
fn swap(head: &[u8]) -> Option<Superblock> {
    let magic = |page: usize| {
        [&b"SWAPSPACE2"[..], b"S1SUSPEND\0"].iter().any(|magic| has(head, page - 10, magic))
            && number(head, 1024, 4) == Some(1)
    };
    [4096, 8192, 16384, 32768, 65536].into_iter().any(magic).then_some(())?;
    Some(named("swap", text(head, 1052, 16), dashed(head, 1036)))
}

/// Source: "XFS Algorithms & Data Structures", superblocks.
fn xfs(head: &[u8]) -> Option<Superblock> {
    has(head, 0, b"XFSB").then_some(())?;
    Some(named("xfs", text(head, 108, 12), dashed(head, 32)))
}

/// Source: kernel `Documentation/filesystems/ext4/super.rst`. Two bytes of magic are few: the block size must be one.
fn ext(head: &[u8]) -> Option<Superblock> {
    (has(head, 1080, b"\x53\xef") && number(head, 1048, 4)? <= 6).then_some(())?;
    Some(named("ext2/3/4", text(head, 1144, 16), dashed(head, 1128)))
}

/// Source: ECMA-119, section 8.4 (primary volume descriptor). The UUID is the date of modification, or of creation.
fn iso9660(head: &[u8]) -> Option<Superblock> {
    has(head, 32_768, b"\x01CD001\x01").then_some(())?;
    let date = |offset: usize| {
        let bytes = head.get(offset..offset + 17)?;
        let (digits, zone) = bytes.split_at_checked(16)?;
        let is_set = digits.iter().any(|&byte| byte != b'0') || zone != [0];
        let digits = std::str::from_utf8(digits).ok()?;
        (is_set && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| {
            let parts = [0..4, 4..6, 6..8, 8..10, 10..12, 12..14, 14..16];
            parts.into_iter().filter_map(|part| digits.get(part)).collect::<Vec<_>>().join("-")
        })
    };
    Some(named("iso9660", text(head, 32_808, 32), date(33_598).or_else(|| date(33_581)).unwrap_or_default()))
}

/// Only what is not ISO 9660 as well. Source: ECMA-167, sections 2/9.1 and 3/9.1 (volume structure descriptors).
fn udf(head: &[u8]) -> Option<Superblock> {
    let mut descriptors = (32_769..HEAD).step_by(2048);
    descriptors.any(|at| has(head, at, b"NSR02") || has(head, at, b"NSR03")).then(|| unnamed("udf"))
}

/// Source: libfsntfs' "New Technologies File System (NTFS)", volume header.
fn ntfs(head: &[u8]) -> Option<Superblock> {
    ntfs_volume_record(head)?;
    let serial = number(head, 72, 8)?;
    Some(named("ntfs", String::new(), if serial == 0 { String::new() } else { format!("{serial:016X}") }))
}

/// Offset and length in bytes of the file record that says the label: `$Volume`, the fourth of the master file table.
fn ntfs_volume_record(head: &[u8]) -> Option<(u64, u64)> {
    has(head, 3, b"NTFS    ").then_some(())?;
    // Both sizes: as they are, or (negative, as a signed byte) the power of two that they are.
    let size = |offset, unit: u64, whole: u64| match number(head, offset, 1)? {
        small @ 1..=128 => small.checked_mul(unit),
        power => 1_u64.checked_shl(u32::try_from(256 - power).ok()?)?.checked_mul(whole),
    };
    let sector = number(head, 11, 2).filter(|sector| sector.is_power_of_two() && (256..=4096).contains(sector))?;
    let cluster = size(13, sector, sector)?;
    let record = size(64, cluster, 1)?;
    let offset = number(head, 48, 8)?.checked_mul(cluster)?.checked_add(record.checked_mul(3)?)?;
    Some((offset, record))
}

/// The value of a file record's attribute of type 0x60, `$VOLUME_NAME`; empty if the attributes end without one.
fn ntfs_label(record: &[u8]) -> Option<String> {
    has(record, 0, b"FILE").then_some(())?;
    let mut at = usize::try_from(number(record, 20, 2)?).ok()?;
    loop {
        let attribute = record.get(at..)?;
        match number(attribute, 0, 4)? {
            0xffff_ffff => return Some(String::new()),
            0x60 => {
                let length = usize::try_from(number(attribute, 16, 4)?).ok()?;
                let start = usize::try_from(number(attribute, 20, 2)?).ok()?;
                return Some(utf16(attribute.get(start..start.checked_add(length)?)?));
            }
            _ => at = at.checked_add(usize::try_from(number(attribute, 4, 4)?).ok().filter(|length| *length > 0)?)?,
        }
    }
}

/// Source: kernel `fs/squashfs/squashfs_fs.h`, `struct squashfs_super_block`. It has neither label nor UUID.
fn squashfs(head: &[u8]) -> Option<Superblock> {
    has(head, 0, b"hsqs").then(|| unnamed("squashfs"))
}

/// Source: btrfs' "On-disk Format", superblock; the first copy lies at 64 KiB.
fn btrfs(head: &[u8]) -> Option<Superblock> {
    has(head, 65_600, b"_BHRfS_M").then_some(())?;
    Some(named("btrfs", text(head, 65_835, 256), dashed(head, 65_568)))
}

/// Source: Microsoft's "exFAT file system specification", section 3.1 (boot sector).
fn exfat(head: &[u8]) -> Option<Superblock> {
    exfat_directory(head)?;
    Some(named("exfat", String::new(), short_serial(number(head, 100, 4)?)))
}

/// Offset and length in bytes of the root directory's first cluster.
fn exfat_directory(head: &[u8]) -> Option<(u64, u64)> {
    has(head, 3, b"EXFAT   ").then_some(())?;
    let (sector, cluster) = (number(head, 108, 1)?, number(head, 109, 1)?);
    if !(9..=12).contains(&sector) || cluster > 25 - sector {
        return None;
    }
    // 32 bits each, and 25 more for the cluster: no overflow.
    let (data, first) = (number(head, 88, 4)? << sector, number(head, 96, 4)?.checked_sub(2)?);
    Some((data + (first << (sector + cluster)), 1 << (sector + cluster)))
}

/// The label in an exFAT root directory; empty if the directory ends without one, `None` if its end is not seen.
fn exfat_label(directory: &[u8]) -> Option<String> {
    let entry = directory.chunks_exact(32).find(|entry| matches!(entry.first(), Some(0 | 0x83)))?;
    let characters = if has(entry, 0, &[0]) { 0 } else { usize::try_from(number(entry, 1, 1)?).ok()?.min(11) };
    Some(utf16(entry.get(2..2 + 2 * characters)?))
}

/// Source: UEFI Specification, section 5.3.2 (GPT header), which is the second sector.
fn gpt(head: &[u8]) -> Option<Superblock> {
    (has(head, 512, b"EFI PART") || has(head, 4096, b"EFI PART")).then(|| unnamed("GPT partition table"))
}

/// The boot indicators tell a partition table from other boot sectors. Source: UEFI Specification, section 5.2.1.
fn mbr(head: &[u8]) -> Option<Superblock> {
    let indicators = [446, 462, 478, 494].into_iter().all(|at| matches!(head.get(at), Some(0 | 0x80)));
    (has(head, 510, b"\x55\xaa") && indicators).then(|| unnamed("MBR partition table"))
}

fn named(kind: &'static str, label: String, uuid: String) -> Superblock {
    Superblock { kind, label, uuid }
}

fn unnamed(kind: &'static str) -> Superblock {
    named(kind, String::new(), String::new())
}

fn has(bytes: &[u8], offset: usize, magic: &[u8]) -> bool {
    bytes.get(offset..).is_some_and(|bytes| bytes.starts_with(magic))
}

/// A little-endian number of at most eight bytes.
pub(crate) fn number(bytes: &[u8], offset: usize, length: usize) -> Option<u64> {
    let field = bytes.get(offset..offset.checked_add(length)?)?;
    Some(field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// A text field that ends at its length or at a zero byte; empty if it is not there.
fn text(bytes: &[u8], offset: usize, length: usize) -> String {
    let field = bytes.get(offset..offset.saturating_add(length)).unwrap_or_default();
    clean(&String::from_utf8_lossy(field.split(|&byte| byte == 0).next().unwrap_or_default()))
}

/// A little-endian UTF-16 text that ends at its length or at a zero.
fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map_while(|pair| match pair {
        [0, 0] => None,
        [low, high] => Some(u16::from_le_bytes([*low, *high])),
        _ => None,
    });
    clean(&char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>())
}

/// Without the white space at its end, and fit for a console.
fn clean(text: &str) -> String {
    text.trim_end_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']).replace(char::is_control, "?")
}

/// A UUID of 16 bytes in its usual form; empty if it is not there or all zero.
fn dashed(bytes: &[u8], offset: usize) -> String {
    let field = bytes.get(offset..).and_then(<[u8]>::first_chunk::<16>);
    let Some(value) = field.map(|field| u128::from_be_bytes(*field)).filter(|&value| value != 0) else {
        return String::new();
    };
    let digits = format!("{value:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().filter_map(|part| digits.get(part));
    parts.collect::<Vec<_>>().join("-")
}

/// A FAT's serial number as a UUID; empty if it is zero.
fn short_serial(serial: u64) -> String {
    if serial == 0 { String::new() } else { format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff) }
}

#[cfg(test)]
mod tests;
