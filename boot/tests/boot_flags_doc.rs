//! `docs/BOOT-FLAGS.md` says what the parser knows.

#[path = "../examples/boot-flags.rs"]
mod boot_flags;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/BOOT-FLAGS.md");
const COMMAND: &str = "cargo run -q -p sino-boot --example boot-flags > docs/BOOT-FLAGS.md";

#[test]
fn the_page_on_boot_flags_is_up_to_date() {
    let found =
        std::fs::read_to_string(PATH).unwrap_or_else(|error| panic!("{PATH}: {error}; write it with: {COMMAND}"));
    let wanted = boot_flags::page();
    let differing = wanted.lines().zip(found.lines()).find(|(wanted, found)| wanted != found);
    assert!(
        found == wanted,
        "docs/BOOT-FLAGS.md is out of date (first differing lines: {differing:?}); run: {COMMAND}"
    );
}
