//! Writes the menu for ISOLINUX, which starts Xen through `mboot.c32` on BIOS machines.
//!
//! A text menu, so that it is the same on the screen and on a serial terminal.

use crate::menu::{Entry, INITRAMFS, KERNEL, Menu, XEN};
use std::fmt::Write as _;

/// The content of `isolinux/isolinux.cfg`.
#[must_use]
pub fn config(menu: &Menu) -> String {
    // The entries, and the submenu.
    let rows = menu.entries.len() + 1;
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
        rows = rows,
        tab = rows + 6,
        help = rows + 10,
        timeout = rows + 8,
    );
    for (index, entry) in menu.entries.iter().enumerate() {
        text.push_str(&one(entry, index == 0));
    }
    let more = &menu.more;
    // Writing to a String cannot fail. Without a timeout of its own the submenu has that of the menu, and its first entry would
    // start by itself. GRUB says by itself how to come back.
    let _ = write!(
        text,
        "\nMENU BEGIN {}\n  MENU LABEL {}\n  MENU TITLE {}\n  MENU TABMSG Press [Tab] to edit options, [Esc] to go back\n  TIMEOUT 0\n",
        more.label, more.title, menu.heading,
    );
    text.extend(more.entries.iter().map(|entry| one(entry, false)));
    text.push_str("MENU END\n");
    text
}

fn one(entry: &Entry, default: bool) -> String {
    format!(
        "\nLABEL {}\n  MENU LABEL {}\n{}{}  KERNEL mboot.c32\n  APPEND {XEN} {} --- {KERNEL} {} --- {INITRAMFS}\n",
        entry.label,
        entry.title,
        if default { "  MENU DEFAULT\n" } else { "" },
        help(entry.help),
        entry.xen_with(entry.video.on_bios()),
        entry.kernel
    )
}

fn help(lines: &[&str]) -> String {
    format!("  TEXT HELP\n{}\n  ENDTEXT\n", lines.join("\n"))
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
