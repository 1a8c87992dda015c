//! Writes the menu for GRUB: `grub.cfg` of our own medium (UEFI), and `loopback.cfg` for multi-boot sticks that
//! start the ISO as a file.
//!
//! The menu is on the screen and on the serial port, and both can choose. What Xen's flag `vga` must say depends on the
//! firmware, and the GRUB of another stick may run on either: two variables hold it. A submenu sees exported variables only.
//!
//! Started from another stick's menu, the ISO is a file on whatever file system that stick has, and the initramfs for ISO files is
//! taken. Ventoy starts `grub.cfg`, too; it is known by its own partition.

use crate::menu::{Entry, INITRAMFS, ISO_FILE_INITRAMFS, KERNEL, Menu, Video, XEN};
use std::fmt::Write as _;

/// The file by which GRUB knows the medium of this build, below the medium's root.
#[must_use]
pub fn marker(build_id: &str) -> String {
    format!("sino/build/{build_id}")
}

/// A file on the second partition of each Ventoy stick, by which its own GRUB knows it (its `ventoy_check_official_device`).
/// Looked for without `search`, which complains on the screen when there is none.
const VENTOY: &str = "/ventoy/ventoy.cpio";

/// The variable with the value of Xen's flag `vga`, as it stands in an entry.
#[must_use]
pub fn variable(video: Video) -> &'static str {
    match video {
        Video::Framebuffer => "${sino_framebuffer}",
        Video::Text => "${sino_text}",
    }
}

/// Lines that set the variables. Under UEFI GRUB must leave the mode alone in every entry: when it asks the firmware for
/// a text console, the mode changes under the feet of whoever was told the old one, and the screen is garbage.
fn variables() -> String {
    let set = |framebuffer: &str, text: &str, payload: &str| {
        format!("  set sino_framebuffer={framebuffer}\n  set sino_text={text}\n  set sino_text_payload={payload}\n")
    };
    format!(
        "if [ \"${{grub_platform}}\" = efi ]; then\n{}else\n{}fi\n\
         export sino_framebuffer sino_text sino_text_payload\n",
        set(Video::Framebuffer.on_uefi(), Video::Text.on_uefi(), "keep"),
        set(Video::Framebuffer.on_bios(), Video::Text.on_bios(), "text")
    )
}

/// What is embedded in the EFI program: find the medium of this build and read its menu.
#[must_use]
pub fn embedded(menu: &Menu) -> String {
    format!(
        "search --no-floppy --file --set=root /{}\nset prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n",
        marker(&menu.build_id)
    )
}

/// The content of `boot/grub/grub.cfg`.
#[must_use]
pub fn config(menu: &Menu) -> String {
    let mut text = format!(
        "# Made by SINO's image builder.\n\
         search --no-floppy --file --set=root /{marker}\n\
         insmod all_video\n\
         if serial --unit={unit} --speed={speed} --word=8 --parity=no --stop=1; then\n\
         \x20 terminal_input console serial\n\
         \x20 terminal_output console serial\n\
         fi\n\
         set default=0\n\
         set timeout={timeout}\n\
         set timeout_style=menu\n",
        marker = marker(&menu.build_id),
        unit = menu.serial_unit,
        speed = menu.serial_speed,
        timeout = menu.timeout,
    );
    text.push_str(&variables());
    let _ = write!(
        text,
        "set sino_initramfs={INITRAMFS}\n\
         for sino_partition in (hd*,msdos2) (hd*,gpt2); do\n\
         \x20 if [ -f \"${{sino_partition}}{VENTOY}\" ]; then\n\
         \x20   set sino_initramfs={ISO_FILE_INITRAMFS}\n\
         \x20 fi\n\
         done\n\
         export sino_initramfs\n"
    );
    text.push_str(&entries(menu, "", "${sino_initramfs}"));
    text
}

/// The content of `boot/grub/loopback.cfg`; the multi-boot stick's GRUB has set `root` and `iso_path`.
#[must_use]
pub fn loopback(menu: &Menu) -> String {
    let text = "# Made by SINO's image builder. For GRUB menus that start this ISO as a file.\n";
    format!("{text}{}export iso_path\n{}", variables(), entries(menu, " findiso=\"${iso_path}\"", ISO_FILE_INITRAMFS))
}

/// All entries: with `last` behind the kernel's flags, and with this initramfs.
fn entries(menu: &Menu, last: &str, initramfs: &str) -> String {
    let write = |entries: &[Entry]| -> String { entries.iter().map(|entry| one(entry, last, initramfs)).collect() };
    let more = &menu.more;
    format!(
        "{}\nsubmenu \"{}\" --id={} {{\n{}}}\n",
        write(&menu.entries),
        more.title,
        more.label,
        write(&more.entries).trim_start_matches('\n')
    )
}

fn one(entry: &Entry, last: &str, initramfs: &str) -> String {
    let mut text = format!("\nmenuentry \"{}\" --id={} {{\n", entry.title, entry.label);
    for line in entry.help {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  echo '{line}'");
    }
    let payload = match entry.video {
        Video::Framebuffer => "keep",
        Video::Text => "${sino_text_payload}",
    };
    let _ = write!(
        text,
        "  set gfxpayload={payload}\n  \
         multiboot2 {XEN} {xen}\n  \
         module2 --nounzip {KERNEL} {kernel}{last}\n  \
         module2 --nounzip {initramfs}\n}}\n",
        xen = entry.xen_with(variable(entry.video)),
        kernel = entry.kernel,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::menu;

    #[test]
    fn the_texts_are_the_known_ones() {
        let menu = menu::tests::sample();
        assert_eq!(config(&menu), include_str!("../tests/snapshots/grub.cfg"));
        assert_eq!(loopback(&menu), include_str!("../tests/snapshots/loopback.cfg"));
        assert_eq!(embedded(&menu), include_str!("../tests/snapshots/embedded.cfg"));
    }

    #[test]
    fn help_has_no_quote_that_would_end_its_own() {
        assert!(menu::tests::sample().all().all(|entry| entry.help.iter().all(|line| !line.contains('\''))));
    }
}
