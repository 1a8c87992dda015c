//! A message of the kernel's about a device. Input: the message.
#![no_main]

use sino_initramfs::uevent;
use std::path::{Component, Path};

libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    if let Some(event) = uevent::parse(message) {
        assert!(!event.action.is_empty());
        assert!(event.modalias.is_none_or(|alias| !alias.is_empty()));
        if let Some(name) = event.devname {
            assert!(Path::new(&name).components().all(|part| matches!(part, Component::Normal(_))), "{name:?}");
        }
    }
});
