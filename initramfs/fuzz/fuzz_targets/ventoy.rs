//! What Ventoy leaves. Input: a byte that says in which form, then the bytes. The sums and lengths that a form asks for
//! are put right first: nothing would get past them.
#![no_main]

use sino_initramfs::ventoy::{self, RECORD_SIZE};
use std::path::{Component, Path};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((form, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    let start = [0, 36, 4, 16][usize::from(form % 4)];
    if form & 4 == 0 && bytes.len() >= start + RECORD_SIZE {
        let record = &mut bytes[start..start + RECORD_SIZE];
        record[16] = 0;
        record[16] = record.iter().fold(0, |sum: u8, &byte| sum.wrapping_sub(byte));
    }
    let found = match form % 4 {
        0 => ventoy::parse(&bytes),
        1 => ventoy::from_acpi(&bytes),
        2 => ventoy::from_efi_variable(&bytes),
        _ => ventoy::from_memory(&bytes),
    };
    if let Some(found) = found {
        assert!(!found.path.chars().any(char::is_control), "for the console: {found:?}");
        let mut parts = Path::new(&found.path).components();
        assert!(parts.next() == Some(Component::RootDir), "{found:?}");
        assert!(parts.all(|part| matches!(part, Component::Normal(_))), "{found:?}");
        let _ = found.is_on(&bytes);
    }
});
