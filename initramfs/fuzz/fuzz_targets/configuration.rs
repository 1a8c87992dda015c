//! A layer of the configuration, what holds with it, and the network that it makes. Input: the text.
#![no_main]

use sino_init::config::layers::Merged;
use sino_init::config::{Layer, reading, show};
use sino_init::network::plan::Plan;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let reading = reading::read(text, Layer::Stick, "/sino.toml", false);
    let lines = text.matches('\n').count() + 1;
    for problem in &reading.problems {
        assert!(!problem.to_string().chars().any(char::is_control), "for the console: {problem:?}");
        assert!(problem.line <= lines, "{problem:?} of {lines} lines");
    }
    assert!(reading.given.iter().all(|given| (1..=lines).contains(&given.origin.line)), "{reading:?}");
    let problems = reading.problems.len();
    let mut merged = Merged::default();
    merged.add(reading);
    let loaded = merged.finish();
    // As each value was tried by itself, all of them together make a configuration.
    assert_eq!(loaded.problems.len(), problems, "{:?}", loaded.problems);
    let shown = show::text(&loaded);
    assert!(!shown.chars().any(|character| character.is_control() && character != '\n'), "{shown:?}");
    let (plan, warnings) = Plan::from(&loaded.config.network);
    sino_fuzz::check_plan(&plan, &warnings);
});
