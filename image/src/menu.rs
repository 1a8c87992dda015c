//! The boot menu as one model, and its three languages: ISOLINUX, GRUB from the medium, GRUB from another stick.
//!
//! [`menu`] computes every flag once; [`crate::menu_isolinux`] and [`crate::menu_grub`] only write them down, so the
//! menus cannot differ in what they start. Pure.

use crate::config::{Boot, SerialPort};

/// Where Xen, kernel and initramfs lie on the medium.
pub const XEN: &str = "/sino/xen.gz";
/// The kernel on the medium.
pub const KERNEL: &str = "/sino/vmlinuz";
/// The initramfs on the medium.
pub const INITRAMFS: &str = "/sino/initramfs.img";
/// The initramfs on the medium for a medium that is an ISO file: with the drivers of all file systems that one may lie on.
pub const ISO_FILE_INITRAMFS: &str = "/sino/initramfs-iso-file.img";

/// The sums of memory are rounded up to this many MiB.
const MEMORY_STEP: u64 = 64;

/// What is on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Video {
    /// A framebuffer for Xen and dom0.
    Framebuffer,
    /// Text mode; where the firmware has none, its smallest usual mode.
    Text,
}

impl Video {
    /// The value of Xen's flag `vga` on a BIOS machine: a VESA mode by its exact depth, or text.
    #[must_use]
    pub fn on_bios(self) -> &'static str {
        match self {
            Self::Framebuffer => "gfx-1024x768x32",
            Self::Text => "text-80x25",
        }
    }

    /// The same under UEFI, which has no text mode: a mode of the Graphics Output Protocol, whose 32-bit modes Xen counts
    /// as 24 (`efi_find_gop_mode` in xen/common/efi/boot.c). Both are named: with `current`, dom0 was seen to draw for
    /// another mode than the one on the screen, which GRUB's text console had changed.
    #[must_use]
    pub fn on_uefi(self) -> &'static str {
        match self {
            Self::Framebuffer => "gfx-1024x768x24",
            Self::Text => "gfx-800x600x24",
        }
    }
}

/// One menu entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What stands in the menu.
    pub title: &'static str,
    /// Short name for labels.
    pub label: &'static str,
    /// Help text, line by line.
    pub help: &'static [&'static str],
    /// What is on the screen.
    pub video: Video,
    /// Xen's flags, except those for the screen.
    pub xen: String,
    /// Xen's further flags from the configuration; they come last, so they win.
    pub xen_extra: String,
    /// The kernel's flags.
    pub kernel: String,
}

impl Entry {
    /// Xen's command line with this value of its flag `vga`.
    #[must_use]
    pub fn xen_with(&self, vga: &str) -> String {
        format!("{} vga={vga} {}", self.xen, self.xen_extra).trim_end().to_owned()
    }
}

/// The whole menu; the first entry is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Menu {
    /// SINO's version and the build id, for the title line.
    pub heading: String,
    /// Names the build; GRUB finds the medium by it.
    pub build_id: String,
    /// Seconds until the default starts.
    pub timeout: u32,
    /// Number of the serial port, from 0.
    pub serial_unit: u32,
    /// Its speed in baud.
    pub serial_speed: u32,
    /// The entries in order.
    pub entries: Vec<Entry>,
    /// What stands behind them.
    pub more: Submenu,
}

impl Menu {
    /// The entries of the first screen, and those of the submenu.
    pub fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().chain(&self.more.entries)
    }
}

/// A second screen, for what is seldom wanted. Nothing on it starts by itself, and Esc leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submenu {
    /// What stands in the menu.
    pub title: &'static str,
    /// Short name for labels.
    pub label: &'static str,
    /// The entries in order.
    pub entries: Vec<Entry>,
}

struct Kind {
    title: &'static str,
    label: &'static str,
    help: &'static [&'static str],
    video: Video,
    ram: bool,
    /// Further flags of the kernel.
    flags: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    Kind {
        title: "SINO",
        label: "sino",
        help: &["Start the Xen host from this medium.", "The medium stays in use and must stay in place."],
        video: Video::Framebuffer,
        ram: false,
        flags: &[],
    },
    Kind {
        title: "SINO on ram",
        label: "sino-ram",
        help: &[
            "Copy the system to memory first and check the copy.",
            "Then the medium may be removed. Needs more memory and a longer start.",
        ],
        video: Video::Framebuffer,
        ram: true,
        flags: &[],
    },
    Kind {
        title: "SINO advanced",
        label: "sino-advanced",
        help: &[
            "Start in text mode, without a framebuffer.",
            "For graphics cards that stay dark, and for consoles over a management card.",
        ],
        video: Video::Text,
        ram: false,
        flags: &[],
    },
    Kind {
        title: "SINO advanced on ram",
        label: "sino-advanced-ram",
        help: &["Text mode as in \"SINO advanced\", and the system copied to memory", "as in \"SINO on ram\"."],
        video: Video::Text,
        ram: true,
        flags: &[],
    },
];

const MORE: &[Kind] = &[Kind {
    title: "SINO without guests",
    label: "sino-without-guests",
    help: &[
        "As \"SINO\", but no guest is started in this boot.",
        "For a host that a guest keeps from working. Later: sino guests start NAME",
    ],
    video: Video::Framebuffer,
    ram: false,
    flags: &["sino.autostart=off"],
}];

/// Builds the menu. `root_size` is the root image's length in bytes.
#[must_use]
pub fn menu(boot: &Boot, version: &str, build_id: &str, root_size: u64) -> Menu {
    Menu {
        heading: format!("SINO {version} ({build_id})"),
        build_id: build_id.to_owned(),
        timeout: boot.menu_timeout,
        serial_unit: match boot.serial_port {
            SerialPort::Com1 => 0,
            SerialPort::Com2 => 1,
        },
        serial_speed: boot.serial_speed,
        entries: KINDS.iter().map(|kind| entry(kind, boot, root_size)).collect(),
        more: Submenu {
            title: "More ...",
            label: "more",
            entries: MORE.iter().map(|kind| entry(kind, boot, root_size)).collect(),
        },
    }
}

/// dom0's memory in MiB for entries that boot from the medium, or from a copy in memory.
#[must_use]
pub fn dom0_memory(boot: &Boot, root_size: u64, ram: bool) -> u64 {
    if !ram {
        return boot.dom0_memory;
    }
    let sum = boot.dom0_memory + root_size.div_ceil(1 << 20) + boot.ram_reserve;
    sum.next_multiple_of(MEMORY_STEP)
}

fn entry(kind: &Kind, boot: &Boot, root_size: u64) -> Entry {
    let memory = dom0_memory(boot, root_size, kind.ram);
    let port = match boot.serial_port {
        SerialPort::Com1 => "com1",
        SerialPort::Com2 => "com2",
    };
    let xen = [
        format!("dom0_mem={memory}M,max:{memory}M"),
        format!("{port}={},8n1", boot.serial_speed),
        format!("console={port},vga"),
        "loglvl=warning".into(),
        // `sino timeline` knows Xen's own time by them.
        "console_timestamps=boot".into(),
        "guest_loglvl=warning".into(),
        "ucode=scan".into(),
    ];
    let mut kernel: Vec<String> =
        ["console=tty0", "console=hvc0", "loglevel=5", "printk.devkmsg=on", "usb-storage.delay_use=0"]
            .map(Into::into)
            .into();
    // dom0 gets the screen that Xen was started with; without this flag a driver of its own would change it later.
    if kind.video == Video::Text {
        kernel.push("nomodeset".into());
    }
    if kind.ram {
        kernel.push("sino.ram".into());
    }
    kernel.extend(kind.flags.iter().map(|&flag| flag.to_owned()));
    kernel.extend(boot.kernel_flags.split_whitespace().map(str::to_owned));
    Entry {
        title: kind.title,
        label: kind.label,
        help: kind.help,
        video: kind.video,
        xen: xen.join(" "),
        xen_extra: boot.xen_flags.split_whitespace().collect::<Vec<_>>().join(" "),
        kernel: kernel.join(" "),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{menu_grub, menu_isolinux};
    use sino_boot::layout;

    pub(crate) fn sample() -> Menu {
        menu(&Boot::default(), "0.1.0", "20261123-a1b2c3", 300 << 20)
    }

    #[test]
    fn titles_and_flags_are_those_of_the_specification() {
        let menu = sample();
        let titles: Vec<&str> = menu.entries.iter().map(|entry| entry.title).collect();
        assert_eq!(titles, ["SINO", "SINO on ram", "SINO advanced", "SINO advanced on ram"]);
        for entry in &menu.entries {
            let (ram, advanced) = (entry.title.ends_with("on ram"), entry.title.contains("advanced"));
            assert_eq!(entry.kernel.split(' ').any(|flag| flag == "sino.ram"), ram, "{}", entry.title);
            assert_eq!(entry.kernel.contains("nomodeset"), advanced, "{}", entry.title);
            assert_eq!(entry.video == Video::Text, advanced, "{}", entry.title);
            let memory = if ram { "dom0_mem=1408M,max:1408M" } else { "dom0_mem=1024M,max:1024M" };
            assert!(entry.xen.starts_with(memory), "{}", entry.xen);
            assert!(!entry.help.is_empty());
        }
        let more: Vec<&str> = menu.more.entries.iter().map(|entry| entry.title).collect();
        assert_eq!(more, ["SINO without guests"]);
        let first = menu.entries.first().unwrap();
        let without = menu.more.entries.first().unwrap();
        assert_eq!(without.kernel, format!("{} sino.autostart=off", first.kernel));
        assert_eq!((&without.xen, without.video), (&first.xen, first.video));
        let options = sino_boot::options::parse(&without.kernel).0;
        assert_eq!(options.autostart, sino_boot::options::Autostart::Off);
    }

    #[test]
    fn memory_on_ram_is_the_sum_rounded_up() {
        let boot = Boot::default();
        assert_eq!(dom0_memory(&boot, 1, false), 1024);
        assert_eq!(dom0_memory(&boot, 1, true), 1152);
        assert_eq!(dom0_memory(&boot, 64 << 20, true), 1152);
        assert_eq!(dom0_memory(&boot, (64 << 20) + 1, true), 1216);
    }

    #[test]
    fn extra_flags_come_last_so_that_they_win() {
        let boot = Boot { kernel_flags: "sino.debug  quiet".into(), xen_flags: "smt=0".into(), ..Boot::default() };
        let menu = menu(&boot, "1", "b", 1);
        assert!(menu.all().all(|entry| entry.kernel.ends_with("sino.debug quiet")));
        assert!(menu.all().all(|entry| entry.xen_with("x").ends_with(" vga=x smt=0")));
    }

    /// What a menu's text starts: for each title, Xen's flags and the kernel's.
    #[test]
    fn the_three_menus_start_the_same() {
        let on_medium = [layout::INITRAMFS, layout::ISO_FILE_INITRAMFS].map(|path| format!("/{path}"));
        assert_eq!(on_medium, [INITRAMFS, ISO_FILE_INITRAMFS], "what is started is what is laid out");
        let menu = sample();
        let started = |vga: &dyn Fn(&Entry) -> String| -> Vec<(String, String)> {
            menu.all().map(|entry| (entry.xen_with(&vga(entry)), entry.kernel.clone())).collect()
        };
        let isolinux = menu_isolinux::config(&menu);
        let from_isolinux: Vec<(String, String)> = isolinux
            .lines()
            .filter_map(|line| line.trim().strip_prefix("APPEND "))
            .map(|line| {
                let parts: Vec<&str> = line.split(" --- ").collect();
                assert_eq!(parts[2], INITRAMFS);
                (after(parts[0], XEN), after(parts[1], KERNEL))
            })
            .collect();
        assert_eq!(from_isolinux, started(&|entry| entry.video.on_bios().into()));
        let expected = started(&|entry| menu_grub::variable(entry.video).into());
        let findiso = " findiso=\"${iso_path}\"";
        for (text, last, initramfs) in [
            (menu_grub::config(&menu), "", "${sino_initramfs}"),
            (menu_grub::loopback(&menu), findiso, ISO_FILE_INITRAMFS),
        ] {
            let values = |command: &str, path: &str| -> Vec<String> {
                let lines = text.lines().filter_map(|line| line.trim().strip_prefix(command));
                lines.filter(|rest| rest.contains(path)).map(|rest| after(rest, path)).collect()
            };
            let kernels = values("module2 --nounzip ", KERNEL);
            let kernels = kernels.iter().map(|flags| flags.strip_suffix(last).unwrap().to_owned());
            let found: Vec<(String, String)> = values("multiboot2 ", XEN).into_iter().zip(kernels).collect();
            assert_eq!(found, expected, "{text}");
            assert_eq!(values("module2 --nounzip ", initramfs).len(), expected.len());
            for entry in menu.all() {
                assert!(text.contains(&format!("menuentry \"{}\"", entry.title)));
                assert!(isolinux.contains(&format!("MENU LABEL {}\n", entry.title)));
            }
        }
    }

    fn after(text: &str, path: &str) -> String {
        text.trim().strip_prefix(path).unwrap().trim().to_owned()
    }
}
