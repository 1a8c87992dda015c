//! The beginning of a partitioned disk. Input: a byte for the partition's number and the sector size, then see
//! [`sino_fuzz::sparse`]. The checksum of a GPT is put right first: nothing would get past it.
#![no_main]

use sino_initramfs::partition_table::{self, HEAD};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    let sector: u32 = if choice & 0x80 == 0 { 512 } else { 4096 };
    let (mut head, _) = sino_fuzz::sparse(data, HEAD);
    if choice & 0x40 == 0 {
        repair(&mut head, sector as usize);
    }
    let number = u32::from(choice & 0x3f);
    if let Some(uuid) = partition_table::part_uuid(&head, sector, number) {
        assert!(number > 0);
        assert!(uuid.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{uuid:?}");
        assert!(matches!(uuid.len(), 11 | 36), "{uuid:?}");
    }
});

/// Source: UEFI Specification, section 5.3.2.
fn repair(head: &mut [u8], sector: usize) -> Option<()> {
    let header = head.get_mut(sector..2 * sector)?;
    let size = usize::from(u16::from_le_bytes([*header.get(12)?, *header.get(13)?]));
    header.get_mut(16..20)?.fill(0);
    let crc = !sino_fuzz::crc32(!0, header.get(..size)?);
    header.get_mut(16..20)?.copy_from_slice(&crc.to_le_bytes());
    Some(())
}
