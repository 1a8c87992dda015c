//! The table of flags, of which `docs/BOOT-FLAGS.md` is made, too.

/// A flag that SINO knows, for the parser and for `docs/BOOT-FLAGS.md`.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Full name, with the `sino.` in front.
    pub name: &'static str,
    /// What may stand after `=`, for people.
    pub values: &'static str,
    /// What holds when the flag is not given.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

/// Every flag, in the order of the documentation.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "sino.ram",
        values: "copy | background | auto | off",
        default: "off",
        help: "copy (or no value): copy the root image to RAM, verify it, and let go of the medium before the boot goes on. \
               background: boot from the medium at once, copy while the host comes up, then let go of it. auto: copy if it \
               fits comfortably, else run from the medium.",
    },
    Flag {
        name: "sino.verify",
        values: "on | off",
        default: "on",
        help: "Check every block of the root image when it is read from the medium (dm-verity). off: take the medium's bytes \
               as they come; a damaged stick then gives wrong programs, not errors.",
    },
    Flag {
        name: "sino.check",
        values: "on | off",
        default: "off",
        help: "Read and verify every file of the medium before the boot goes on, and show the result. Without a value: on.",
    },
    Flag {
        name: "sino.medium",
        values: "/dev/NAME | LABEL=TEXT | UUID=TEXT | PARTUUID=TEXT | removable",
        default: "any device that carries this build",
        help: "Look for the medium only here. The values are those of blkid(8); removable: what hangs on USB, cards, discs, and \
               drives whose media are removable. The build must be right in any case.",
    },
    Flag {
        name: "sino.medium-timeout",
        values: "SECONDS (1 to 86400)",
        default: "60",
        help: "How long to wait for a device with this build before the step is reported as failed.",
    },
    Flag {
        name: "sino.iso",
        values: "/PATH | /dev/VG/LV/PATH",
        default: "none",
        help: "The medium is an ISO file with this path on some file system (vfat, exfat, ntfs, ext4, xfs, btrfs), or on that of \
               a logical volume. Also as findiso=, fromiso= and iso-scan/filename=, which multi-boot loaders pass. On ntfs, xfs \
               and btrfs the loader must read `sino/initramfs-iso-file.img` in place of `initramfs.img`.",
    },
    Flag {
        name: "sino.overlay",
        values: "SIZE[K|M|G] (1M or more) | PERCENT% (1 to 100)",
        default: "50%",
        help: "Size of the tmpfs that takes what is written to the root, as bytes or as part of dom0's memory.",
    },
    Flag {
        name: "sino.overlay-inodes",
        values: "NUMBER (1024 or more)",
        default: "one for each 8 KiB of sino.overlay, 16384 at least",
        help: "How many files and folders that tmpfs takes.",
    },
    Flag {
        name: "sino.init",
        values: "/PATH",
        default: "/sbin/sino-init",
        help: "The program in the root that stage one executes.",
    },
    Flag {
        name: "sino.on-failure",
        values: "shell | reboot | poweroff",
        default: "shell",
        help: "What to do when stage one cannot go on, or stage two cannot hand over. shell: a rescue shell on every console, and a restart after \
               sino.rescue-timeout unless a key is pressed. reboot, poweroff: that, after 10 s in which the reason can be read.",
    },
    Flag {
        name: "sino.rescue-timeout",
        values: "SECONDS (0 to 86400)",
        default: "300",
        help: "How long the rescue shell waits for a key before the machine restarts. 0: for ever.",
    },
    Flag {
        name: "sino.step-timeout",
        values: "SECONDS (5 to 86400)",
        default: "180",
        help: "How long a step may be without progress before it counts as failed.",
    },
    Flag {
        name: "sino.break",
        values: "STEP[,STEP...] | all",
        default: "none",
        help: "Open a rescue shell before these steps (for example find-medium); leaving the shell goes on. all: before each step of stage \
               one. Stage two has take-over, bring-up and hand-over.",
    },
    Flag {
        name: "sino.debug",
        values: "on | off",
        default: "off",
        help: "Say in the kernel's log what is tried and found, device by device and module by module. Without a value: on.",
    },
    Flag {
        name: "sino.handover",
        values: "SECONDS (0 to 600)",
        default: "boot.handover of sino.toml, which is 30",
        help: "How long stage two may take until Debian takes over whatever is not ready; see docs/CONFIG.md. Drivers and volumes that \
               wait for udev then are given up to 30 s more. 0: Debian takes over at once, and starts the supervisor itself.",
    },
    Flag {
        name: "sino.set",
        values: "KEY=VALUE",
        default: "none",
        help: "Set a key of sino.toml for this boot, above every file; see docs/CONFIG.md for the keys. The value is TOML, with \
               single quotes where it needs any; what is not TOML is taken as text. May be given more than once.",
    },
    Flag {
        name: "sino.net",
        values: "TEXT",
        default: "none",
        help: "The network for this boot, in short; see \"For one boot\" in docs/NETWORK.md. May be given more than once.",
    },
    Flag {
        name: "sino.autostart",
        values: "on | off | NAME,...",
        default: "on: all guests that are configured to",
        help: "Which guests start with the host in this boot. off: none. Names: these and no others, whether they are configured to \
               start by themselves or not.",
    },
];
