//! The PARTUUID of a partition, from the beginning of the disk that it is on.
//!
//! Takes the disk's first [`HEAD`] bytes and the number that the kernel gave the partition; reads nothing itself. The
//! answer is what `blkid` and udev call `PART_ENTRY_UUID`. As in the kernel and in libblkid, a protective entry in the
//! MBR means that the GPT counts, and only that: a hybrid ISO without one is divided by its MBR, whatever GPT it has.
//! A damaged GPT has no answer here; its copy at the disk's end is not looked at.

use crate::{lvm_metadata, superblock};
use superblock::number;

/// How much of the disk's beginning is wanted, in bytes: 128 entries fit with 4 KiB sectors, too.
pub const HEAD: usize = 32 << 10;

/// The PARTUUID of partition `number` (from 1, as in /sys) of the disk that begins with `head`.
#[must_use]
pub fn part_uuid(head: &[u8], sector_size: u32, number: u32) -> Option<String> {
    // Type, size and boot indicator of the four primary partitions. Source: UEFI Specification, section 5.2.1.
    let table = head.get(446..510)?;
    if head.get(510..512)? != b"\x55\xaa" || number == 0 {
        return None;
    }
    if table.chunks_exact(16).any(|entry| entry.get(4) == Some(&0xee)) {
        return gpt(head, usize::try_from(sector_size).ok()?, usize::try_from(number).ok()?);
    }
    // FAT's and NTFS's boot sectors end like an MBR.
    let is_table = table.chunks_exact(16).all(|entry| matches!(entry.first(), Some(0 | 0x80)))
        && !superblock::parse(head).is_some_and(|found| matches!(found.kind, "vfat" | "exfat" | "ntfs"));
    is_table.then(|| mbr(head, number))?
}

/// The disk's signature and the number make a PARTUUID, of a logical partition, too.
fn mbr(head: &[u8], partition: u32) -> Option<String> {
    let signature = number(head, 440, 4).filter(|&signature| signature != 0)?;
    if let Some(primary @ 0..4) = partition.checked_sub(1) {
        let entry = 446 + 16 * usize::try_from(primary).ok()?;
        number(head, entry + 12, 4).filter(|&sectors| sectors != 0)?;
    }
    Some(format!("{signature:08x}-{partition:02x}"))
}

/// Source: UEFI Specification, sections 5.3.2 (header, in the second sector) and 5.3.3 (entries).
fn gpt(head: &[u8], sector_size: usize, partition: usize) -> Option<String> {
    let header = head.get(sector_size..sector_size.checked_mul(2)?)?;
    let field = |offset, length| usize::try_from(number(header, offset, length)?).ok();
    let size = field(12, 4).filter(|&size| size >= 92)?;
    if header.get(..8)? != b"EFI PART" || field(24, 8)? != 1 {
        return None;
    }
    // The header's checksum is made with its own field zero.
    let mut summed = header.get(..size)?.to_vec();
    summed.get_mut(16..20)?.fill(0);
    if u64::from(!lvm_metadata::crc32(!0, &summed)) != number(header, 16, 4)? {
        return None;
    }
    let (first, entries, entry_size) = (field(72, 8)?.checked_mul(sector_size)?, field(80, 4)?, field(84, 4)?);
    let index = partition.checked_sub(1).filter(|&index| index < entries && entry_size >= 128)?;
    let entry = head.get(first.checked_add(index.checked_mul(entry_size)?)?..)?;
    // No type: not in use.
    entry.get(..16)?.iter().any(|&byte| byte != 0).then(|| guid(entry.get(16..32)?))?
}

/// A GUID in its usual form: its first three parts are little-endian numbers.
fn guid(bytes: &[u8]) -> Option<String> {
    let tail = bytes.get(8..16)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
    let [first, second, third] = [number(bytes, 0, 4)?, number(bytes, 4, 2)?, number(bytes, 6, 2)?];
    Some(format!("{first:08x}-{second:04x}-{third:04x}-{:04x}-{:012x}", tail >> 48, tail & 0xffff_ffff_ffff))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mbr_disk(kinds: [u8; 2]) -> Vec<u8> {
        let mut head = vec![0; HEAD];
        head[440..444].copy_from_slice(b"\xef\x01\x83\x41");
        head[510..512].copy_from_slice(b"\x55\xaa");
        for (index, kind) in kinds.into_iter().enumerate() {
            head[446 + 16 * index + 4] = kind;
            head[446 + 16 * index + 12] = 9;
        }
        head
    }

    fn gpt_disk(sector: usize, entry_size: u8) -> Vec<u8> {
        let mut head = mbr_disk([0xee, 0]);
        head[sector..sector + 8].copy_from_slice(b"EFI PART");
        head[sector + 12] = 92;
        head[sector + 24] = 1;
        head[sector + 72] = 2;
        head[sector + 80] = 4;
        head[sector + 84] = entry_size;
        let crc = !lvm_metadata::crc32(!0, &head[sector..sector + 92]);
        head[sector + 16..sector + 20].copy_from_slice(&crc.to_le_bytes());
        let second = 2 * sector + usize::from(entry_size);
        head[second] = 1;
        for (byte, value) in head[second + 16..second + 32].iter_mut().zip(1..) {
            *byte = value;
        }
        head
    }

    #[test]
    fn an_mbr_gives_the_signature_and_the_number() {
        let head = mbr_disk([0x83, 0xef]);
        assert_eq!(part_uuid(&head, 512, 1).unwrap(), "418301ef-01");
        assert_eq!(part_uuid(&head, 512, 2).unwrap(), "418301ef-02");
        assert_eq!(part_uuid(&head, 512, 11).unwrap(), "418301ef-0b");
        // Partition 3 is empty, and 0 is the disk.
        assert_eq!(part_uuid(&head, 512, 3), None);
        assert_eq!(part_uuid(&head, 512, 0), None);
        let mut unsigned = head.clone();
        unsigned[440..444].fill(0);
        assert_eq!(part_uuid(&unsigned, 512, 1), None);
        let mut boot_sector = head;
        boot_sector[446] = 7;
        assert_eq!(part_uuid(&boot_sector, 512, 1), None);
    }

    #[test]
    fn a_gpt_gives_the_entrys_guid() {
        for (sector, entry_size) in [(512, 128), (4096, 128), (512, 160)] {
            let head = gpt_disk(sector, entry_size);
            let uuid = |number| part_uuid(&head, u32::try_from(sector).unwrap(), number);
            assert_eq!(uuid(2).unwrap(), "04030201-0605-0807-090a-0b0c0d0e0f10");
            assert_eq!((uuid(1), uuid(5), uuid(0)), (None, None, None));
        }
        assert_eq!(part_uuid(&gpt_disk(4096, 128), 512, 2), None);
    }

    #[test]
    fn a_damaged_or_unprotected_gpt_does_not_count() {
        let mut head = gpt_disk(512, 128);
        head[450] = 0x83;
        assert_eq!(part_uuid(&head, 512, 1).unwrap(), "418301ef-01");
        let mut head = gpt_disk(512, 128);
        head[512 + 56] ^= 1;
        assert_eq!(part_uuid(&head, 512, 2), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            mut head in proptest::collection::vec(any::<u8>(), 0..2000),
            sector_size in prop_oneof![Just(512), Just(4096), any::<u32>()],
            partition in prop_oneof![0..6_u32, any::<u32>()],
            protective in any::<bool>(),
            header in proptest::collection::vec(any::<u8>(), 76),
        ) {
            if head.len() >= 604 {
                head[510..512].copy_from_slice(b"\x55\xaa");
                if protective { head[450] = 0xee; }
                head[512..520].copy_from_slice(b"EFI PART");
                head[520..596].copy_from_slice(&header);
                head[524..528].copy_from_slice(&[92, 0, 0, 0]);
                head[536..544].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
                head[528..532].fill(0);
                let crc = !lvm_metadata::crc32(!0, &head[512..604]);
                head[528..532].copy_from_slice(&crc.to_le_bytes());
            }
            let _ = part_uuid(&head, sector_size, partition);
        }
    }
}
