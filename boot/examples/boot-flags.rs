//! Prints `docs/BOOT-FLAGS.md`: `cargo run -q -p sino-boot --example boot-flags > docs/BOOT-FLAGS.md`.

use sino_boot::options::FLAGS;
use std::fmt::Write as _;
use std::io::Write as _;

const INTRODUCTION: &str = "\
# Boot flags

<!-- Generated: cargo run -q -p sino-boot --example boot-flags > docs/BOOT-FLAGS.md -->

Flags for SINO on the kernel's command line. To give one for a single boot, edit the menu entry (key `e` in GRUB, `Tab` in
ISOLINUX) and add it to the line of the kernel (`vmlinuz`), not to the line of Xen.

- The last value of a flag wins; `sino.set` and `sino.net` add up.
- `-` and `_` in a flag's name are the same, as they are to the kernel.
- What stands after a lone `--` belongs to the init and is not read.
- A flag that is not known, or whose value cannot be used, is a warning and has no effect: the boot goes on with the default. The
  warning is on the consoles and in `/run/sino/boot.json`.

| flag | values | default | what it does |
|---|---|---|---|
";

/// The page.
pub(crate) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for flag in FLAGS {
        // A bar would end the cell. Writing to a String cannot fail.
        let cell = |text: &str| text.replace('|', "\\|");
        let values = if flag.values.is_empty() { "no value".to_owned() } else { format!("`{}`", cell(flag.values)) };
        let _ = writeln!(page, "| `{}` | {values} | {} | {} |", flag.name, cell(flag.default), cell(flag.help));
    }
    page
}

#[allow(dead_code, reason = "the test that compares the page includes this file and calls page() only")]
fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(page().as_bytes())
}
