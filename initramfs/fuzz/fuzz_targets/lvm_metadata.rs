//! LVM's metadata. Input: a byte that says which part it is, then its bytes. Checksums are put right first: nothing would
//! get past them.
#![no_main]

use sino_initramfs::lvm_metadata::{self, Mapping};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((part, bytes)) = data.split_first() else { return };
    match part % 3 {
        0 => label(&mut bytes.to_vec()),
        1 => area(&mut bytes.to_vec()),
        _ => text(&String::from_utf8_lossy(bytes)),
    }
});

/// Puts a checksum right: that of `from` to the end of the sector, at `at`.
fn seal(sector: &mut [u8], from: usize, at: usize) {
    if let Some(sector) = sector.get_mut(..512) {
        let crc = sino_fuzz::crc32(0xf597_a6cf, &sector[from..]);
        sector[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

fn label(head: &mut [u8]) {
    for sector in head.chunks_mut(512) {
        seal(sector, 20, 16);
    }
    if let Some(label) = lvm_metadata::label(head) {
        assert!(label.pv_uuid.len() == 32 && label.pv_uuid.bytes().all(|byte| byte.is_ascii_graphic()), "{label:?}");
        assert!(label.metadata_areas.len() < 512 / 16);
    }
}

/// The first 16 bytes are the area's place.
fn area(bytes: &mut [u8]) {
    let Some((place, header)) = bytes.split_first_chunk_mut::<16>() else { return };
    seal(header, 4, 0);
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| place[at + index]));
    let (start, size) = (number(0), number(8));
    if let Some(pieces) = lvm_metadata::text_pieces((start, size), header) {
        assert!(matches!(pieces.len(), 1 | 2));
        for (offset, length) in &pieces {
            assert!(*length > 0 && *offset >= start + 512 && offset + length <= start + size, "{pieces:?}");
        }
        if let [first, second] = *pieces {
            assert!(first.0 >= second.0 + second.1 && first.0 + first.1 == start + size, "{pieces:?}");
        }
    }
    let _ = lvm_metadata::is_whole(header, place);
}

fn text(text: &str) {
    let Ok(group) = lvm_metadata::parse(text) else { return };
    for name in group.logical.keys() {
        let Ok(targets) = group.targets(name) else { continue };
        let mut next = 0;
        for target in &targets {
            assert!(target.start == next && target.length > 0, "a gap in {name}: {targets:?}");
            next = target.start.checked_add(target.length).expect("a volume whose end has no number");
            if let Mapping::Striped { chunk, stripes } = &target.mapping {
                assert!(*chunk > 0 && stripes.len() > 1, "{target:?}");
            }
        }
        assert!(!targets.is_empty());
    }
}
