//! `docs/CONFIG.md` says what the table of keys says, and its examples are right.

use sino_init::config::Layer;
use sino_init::config::reading::read;

#[path = "../examples/config-doc.rs"]
mod config_doc;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CONFIG.md");
const COMMAND: &str = "cargo run -q -p sino-init --example config-doc > docs/CONFIG.md";

#[test]
fn the_page_on_the_configuration_is_up_to_date() {
    let found =
        std::fs::read_to_string(PATH).unwrap_or_else(|error| panic!("{PATH}: {error}; write it with: {COMMAND}"));
    let wanted = config_doc::page();
    let differing = wanted.lines().zip(found.lines()).find(|(wanted, found)| wanted != found);
    assert!(found == wanted, "docs/CONFIG.md is out of date (first differing lines: {differing:?}); run: {COMMAND}");
}

#[test]
fn its_examples_have_no_mistakes() {
    let page = config_doc::page();
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert_eq!(examples.len(), 9);
    for example in examples {
        let reading = read(example, Layer::Stick, "example", false);
        assert!(reading.problems.is_empty() && !reading.given.is_empty(), "{example}\n{:?}", reading.problems);
    }
}
