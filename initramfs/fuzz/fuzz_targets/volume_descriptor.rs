//! The volume descriptor of a device that may be the medium. Input: the sector.
#![no_main]

use sino_boot::identity;

libfuzzer_sys::fuzz_target!(|sector: &[u8]| {
    if let Some(volume) = identity::parse(sector) {
        for text in [&volume.volume_id, &volume.set_id, &volume.application_id] {
            assert!(text.is_ascii() && !text.chars().any(char::is_control), "for the console: {text:?}");
        }
        assert!(volume.is_sino() || volume.version().is_empty() || volume.volume_id != identity::VOLUME_ID);
    }
});
