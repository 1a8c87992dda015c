//! The beginning of a device that holds anything. Input: see [`sino_fuzz::sparse`]; what is left over is handed to
//! the second step, the label.
#![no_main]

use sino_initramfs::superblock::{self, HEAD};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (head, rest) = sino_fuzz::sparse(data, HEAD);
    if let Some(mut found) = superblock::parse(&head) {
        assert_eq!(superblock::parse(&head).as_ref(), Some(&found));
        let place = found.label_place(&head);
        if place.is_some() {
            found.read_label(rest);
        }
        for text in [&found.label, &found.uuid] {
            assert!(!text.chars().any(char::is_control), "for the console: {found:?}");
        }
        assert!(found.uuid.chars().all(|c| c.is_ascii_graphic()) || found.kind == "LUKS", "{found:?}");
    }
});
