//! The manifest inside the initramfs. Input: its text.
#![no_main]

use sino_boot::manifest::Manifest;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(manifest) = Manifest::parse(text) {
        let written = manifest.to_text().expect("what was read can be written");
        assert_eq!(Manifest::parse(&written).expect("what was written can be read"), manifest);
    }
});
