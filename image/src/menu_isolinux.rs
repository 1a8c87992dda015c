//! Writes the menu for ISOLINUX, which starts Xen through `mboot.c32` on BIOS machines.
//!
//! A text menu, so that it is the same on the screen and on a serial terminal.

use crate::menu::{INITRAMFS, KERNEL, Menu, XEN};
use std::fmt::Write as _;

/// The content of `isolinux/isolinux.cfg`.
#[must_use]
pub fn config(menu: &Menu) -> String {
    let mut text = format!(
        "# Made by SINO's image builder.\n\
         SERIAL {unit} {speed}\n\
         UI menu.c32\n\
         PROMPT 0\n\
         TIMEOUT {tenths}\n\
         MENU TITLE {heading}\n\
         MENU ROWS {rows}\n\
         MENU TABMSGROW {tab}\n\
         MENU CMDLINEROW {tab}\n\
         MENU HELPMSGROW {help}\n\
         MENU TIMEOUTROW {timeout}\n",
        unit = menu.serial_unit,
        speed = menu.serial_speed,
        tenths = menu.timeout * 10,
        heading = menu.heading,
        rows = menu.entries.len(),
        tab = menu.entries.len() + 6,
        help = menu.entries.len() + 10,
        timeout = menu.entries.len() + 8,
    );
    for (index, entry) in menu.entries.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(text, "\nLABEL {}\n  MENU LABEL {}\n", entry.label, entry.title);
        if index == 0 {
            text.push_str("  MENU DEFAULT\n");
        }
        let _ = write!(text, "  TEXT HELP\n{}\n  ENDTEXT\n", entry.help.join("\n"));
        let _ = writeln!(
            text,
            "  KERNEL mboot.c32\n  APPEND {XEN} {} --- {KERNEL} {} --- {INITRAMFS}",
            entry.xen_with(entry.video.on_bios()),
            entry.kernel
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::menu;

    #[test]
    fn the_text_is_the_known_one() {
        let text = config(&menu::tests::sample());
        assert_eq!(text, include_str!("../tests/snapshots/isolinux.cfg"));
    }
}
