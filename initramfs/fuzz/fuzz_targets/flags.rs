//! The kernel command line. Input: the line.
#![no_main]

use sino_boot::options::{self, Options};
use std::path::{Component, Path};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let line = String::from_utf8_lossy(data);
    let (options, warnings) = options::parse(&line);
    let shown = [options.iso.as_ref().map(ToString::to_string), options.medium.as_ref().map(ToString::to_string)];
    for text in warnings.iter().chain(shown.iter().flatten()).chain(&options.init).chain(&options.break_before) {
        assert!(!text.chars().any(char::is_control), "for the console: {text:?}");
    }
    let stays = |path: &str| !Path::new(path).components().any(|part| part == Component::ParentDir);
    if let Some(file) = &options.iso {
        assert!(file.path.starts_with('/') && stays(&file.path), "{file:?}");
    }
    if let Some(init) = &options.init {
        assert!(init.starts_with('/'), "{init:?}");
    }
    // What stands after a lone "--" changes nothing, unless it is quoted.
    if !line.contains('"') {
        assert_eq!(options::parse(&format!("{line} -- sino.debug sino.unknown")), (options, warnings));
        let words = || line.split_whitespace().take_while(|word| *word != "--");
        if !words().any(options::is_ours) {
            assert_eq!(options::parse(&line), (Options::default(), Vec::new()));
        }
    }
});
