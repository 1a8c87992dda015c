//! A scenario as data: which machine, which image, what is broken on purpose, and what must come of it.
//!
//! Describes only. [`crate::list`] holds all of them, [`crate::runner`] boots one.

use sino_image::qemu::Bus;
use std::time::Duration;

/// Which firmware the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirmwareKind {
    /// `SeaBIOS`.
    Bios,
    /// OVMF.
    Uefi,
}

/// A built image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Image {
    /// The tiny root with the test payload as its init.
    Tiny,
    /// The same, of another build.
    OtherBuild,
    /// The tiny root without `/sbin/sino-init`.
    WithoutStageTwo,
    /// The product: Debian with Xen.
    Real,
}

/// An entry of the boot menu, in the menu's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// "SINO"
    Normal,
    /// "SINO on ram"
    Ram,
    /// "SINO advanced"
    Advanced,
    /// "SINO advanced on ram"
    AdvancedRam,
}

impl Entry {
    /// All of them, in the menu's order.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Ram, Self::Advanced, Self::AdvancedRam];

    /// The entry's title in the menu.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Normal => "SINO",
            Self::Ram => "SINO on ram",
            Self::Advanced => "SINO advanced",
            Self::AdvancedRam => "SINO advanced on ram",
        }
    }

    /// Whether the root image is copied to RAM.
    #[must_use]
    pub fn on_ram(self) -> bool {
        matches!(self, Self::Ram | Self::AdvancedRam)
    }

    /// Whether the entry does without a framebuffer.
    #[must_use]
    pub fn advanced(self) -> bool {
        matches!(self, Self::Advanced | Self::AdvancedRam)
    }
}

/// How the boot begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// From the medium: firmware, boot loader, and this entry by key presses in the menu; under Xen.
    Menu(Entry),
    /// QEMU loads kernel and initramfs; these flags go on the command line; no Xen.
    Direct(&'static str),
}

impl Begin {
    /// Whether the root image is copied to RAM.
    #[must_use]
    pub fn on_ram(self) -> bool {
        match self {
            Self::Menu(entry) => entry.on_ram(),
            Self::Direct(flags) => flags.split(' ').any(|flag| flag == "sino.ram"),
        }
    }
}

/// What is on a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// An image's ISO.
    Iso(Image),
    /// An image's ISO in which the beginning of the root image is overwritten.
    DamagedRoot(Image),
    /// An image's ISO, followed by zeros up to a power of two.
    PaddedIso(Image),
    /// An image's ISO as the file [`crate::carriers::ISO_PATH`] on a file system.
    IsoFile(Image, FileSystem),
    /// The content of an image's ISO as files on a FAT file system.
    CopiedFiles(Image),
    /// Zeros; so many MiB.
    Blank(u64),
}

/// A file system that holds an ISO file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// FAT32.
    Fat,
    /// ext4.
    Ext4,
}

/// When a drive is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugged {
    /// Before the machine is switched on.
    FromTheBeginning,
    /// When this text has appeared on the serial console.
    After(&'static str),
    /// When the rescue shell is open; then the shell is left.
    InRescue,
}

/// A drive of the scenario's machine; the firmware boots them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriveSpec {
    /// Its name.
    pub name: &'static str,
    /// What it hangs on.
    pub bus: Bus,
    /// What is on it.
    pub content: Content,
    /// When it is plugged in.
    pub plugged: Plugged,
}

/// What is broken in the initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitramfsFault {
    /// The manifest names another kernel.
    OtherKernel,
    /// This kernel module's file is garbage.
    BrokenModule(&'static str),
}

/// The boot must reach the payload, and this must be true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booted {
    /// The drive that the root must come from.
    pub medium: &'static str,
    /// Warnings in the boot record: one for each text, which it contains; no others.
    pub warnings: &'static [&'static str],
}

/// Stage one or two must fail, explain it on every console, and open a rescue shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The step that fails.
    pub step: &'static str,
    /// What the explanation contains, all of it.
    pub says: &'static [&'static str],
}

/// What must come of the boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The payload runs.
    Booted(Booted),
    /// A step fails.
    Failed(Failed),
    /// A step fails, what it lacks is plugged in, the rescue shell is left, and then the payload runs.
    Recovered(Failed, Booted),
    /// Debian runs, and an administrator can work with it.
    Multiuser,
}

/// A scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name: letters, digits and hyphens.
    pub name: String,
    /// Whether it runs only when `SINO_TEST_LONG=1` asks for it.
    pub long: bool,
    /// The machine's firmware.
    pub firmware: FirmwareKind,
    /// The image whose kernel and initramfs are booted.
    pub image: Image,
    /// How the boot begins.
    pub begin: Begin,
    /// The machine's memory in MiB.
    pub memory_mib: u32,
    /// The machine's drives.
    pub drives: Vec<DriveSpec>,
    /// Whether the machine has a network card.
    pub network: bool,
    /// What is broken in the initramfs; only for [`Begin::Direct`].
    pub initramfs_fault: Option<InitramfsFault>,
    /// What must come of it.
    pub expect: Expect,
    /// After this time the machine is switched off and the scenario has failed.
    pub budget: Duration,
}
