//! A scenario as data: which machine, which image, what is broken on purpose, and what must come of it.
//!
//! Describes only. [`crate::list`] holds all of them, [`crate::runner`] boots one.

pub use crate::faults::Place;
use sino_image::qemu::{Bus, EndReason};
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
    /// The tiny root with a file of many MiB, for measuring.
    Large,
    /// The tiny root without `/sbin/init`, which stage two hands over to.
    WithoutInit,
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
    /// "SINO without guests", in the submenu
    WithoutGuests,
}

impl Entry {
    /// Those of the menu's first screen, in its order.
    pub const FIRST: [Self; 4] = [Self::Normal, Self::Ram, Self::Advanced, Self::AdvancedRam];
    /// Those of the submenu that is the last line of the first screen.
    pub const MORE: [Self; 1] = [Self::WithoutGuests];

    /// The entry's title in the menu.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Normal => "SINO",
            Self::Ram => "SINO on ram",
            Self::Advanced => "SINO advanced",
            Self::AdvancedRam => "SINO advanced on ram",
            Self::WithoutGuests => "SINO without guests",
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

    /// Whether no guest starts by itself.
    #[must_use]
    pub fn without_guests(self) -> bool {
        self == Self::WithoutGuests
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
            Self::Direct(flags) => flags.split(' ').any(|flag| matches!(flag, "sino.ram" | "sino.ram=copy")),
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
    /// An image's ISO with [`crate::faults::CONFIG`] as `sino.toml` in its EFI partition, as an administrator puts it there.
    Configured(Image),
    /// An image's ISO in which one bit of the root image is another.
    FlippedBit(Image, Place),
    /// The first so many percent of an image's ISO.
    Truncated(Image, u8),
    /// An image's ISO as the file [`crate::carriers::ISO_PATH`] on a file system.
    IsoFile(Image, FileSystem),
    /// The same on the ext4 of the logical volume `xvg/xvol`; the drive is the group's physical volume.
    IsoOnVolume(Image),
    /// The content of an image's ISO as files on a FAT file system.
    CopiedFiles(Image),
    /// Zeros; so many MiB.
    Blank(u64),
    /// A reader without a card, a drive without a disc.
    NoMedium,
}

/// What is wrong with a drive, whatever is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It gives at most so many bytes a second.
    Slow(u64),
    /// The middle of the root image's data cannot be read.
    UnreadableData,
    /// What the boot has no use for cannot be read.
    UnreadableElsewhere,
    /// Part of the EFI partition cannot be read.
    UnreadableEfi,
    /// Its first sectors cannot be read.
    UnreadableBeginning,
}

/// A file system that holds an ISO file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// FAT32.
    Fat,
    /// exFAT.
    Exfat,
    /// NTFS.
    Ntfs,
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl FileSystem {
    /// Whether only the initramfs for ISO files has its driver.
    #[must_use]
    pub fn is_for_carriers(self) -> bool {
        match self {
            Self::Fat | Self::Exfat | Self::Ext4 => false,
            Self::Ntfs | Self::Xfs | Self::Btrfs => true,
        }
    }
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
    /// When [`Act::Plug`] says so.
    ByAct,
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
    /// What is wrong with it.
    pub trouble: Option<Trouble>,
}

/// Something that is done while the machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct During {
    /// It is done when this has appeared on the serial console, after what came before.
    pub when: &'static str,
    /// What is done.
    pub act: Act,
}

/// What is done while the machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing: the text alone matters.
    See,
    /// This drive is plugged in.
    Plug(&'static str),
    /// This drive is pulled out.
    Pull(&'static str),
    /// This drive gives only so many bytes a second from now on.
    Throttle(&'static str, u64),
}

/// Something that is done, or must be true, after the payload has reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// This drive is pulled out.
    Pull(&'static str),
    /// This appears on the serial console.
    Console(&'static str),
    /// Every file of the root can be read.
    ReadAll,
    /// Reading these files gives an I/O error, and every other can be read.
    ReadAllBut(&'static [&'static str]),
    /// Reading ends, with errors: what was on the medium is not there any more.
    ReadWhatIsLeft,
    /// The root takes writes until it is full, and says so then.
    FillRoot,
    /// The record and the text above the login say that the medium may be removed.
    MayBeRemoved,
    /// The record and the text above the login say this of the medium.
    Trouble(&'static str),
    /// Stage one has copied the medium's `sino.toml`.
    Configuration,
    /// A warning in the record has this text.
    Warns(&'static str),
    /// There are so many loop devices, used or not.
    LoopDevices(usize),
    /// The overlay's tmpfs has these bytes and takes this number of files.
    Overlay(u64, u64),
    /// The payload restarts the machine, and it does restart.
    Restart,
}

/// What is broken in the initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitramfsFault {
    /// The manifest names another kernel.
    OtherKernel,
    /// This kernel module's file is garbage.
    BrokenModule(&'static str),
    /// It is the usual one although the medium is an ISO file for which another one is made.
    NotForIsoFiles,
}

/// The boot must reach the payload, and this must be true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booted {
    /// The drive that the root must come from.
    pub medium: &'static str,
    /// Warnings in the boot record: one for each text, which it contains; no others.
    pub warnings: &'static [&'static str],
    /// Whether the root image lies in RAM when the payload begins; `None`: if the flags or the menu's entry ask for it.
    pub in_ram: Option<bool>,
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
    /// As `Recovered`, but nobody touches the shell: plugging in is enough.
    RecoversByItself(Failed, Booted),
    /// A step fails, and the machine ends by itself in this way.
    Ends(Failed, EndReason),
    /// A step fails, a key is pressed, and after so many seconds the shell still answers.
    Stays(Failed, u64),
    /// A rescue shell opens before each of these steps; each is left; then the payload runs.
    Breaks(&'static [&'static str], Booted),
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
    /// What is done while it boots, in this order.
    pub during: &'static [During],
    /// What comes after the payload's report, in this order. Nothing: every file is read; on RAM the stick is pulled before.
    pub afterwards: &'static [Afterwards],
    /// Whether the firmware says that Ventoy started the ISO file on the exFAT drive.
    pub ventoy: bool,
    /// What is broken in the initramfs; only for [`Begin::Direct`].
    pub initramfs_fault: Option<InitramfsFault>,
    /// What must come of it.
    pub expect: Expect,
    /// After this time the machine is switched off and the scenario has failed.
    pub budget: Duration,
}
