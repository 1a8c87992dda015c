//! A virtual machine as plain data: firmware, how it starts, memory, drives, network cards.
//!
//! Describes only; [`super::arguments`] makes the command line of it and [`super::guest`] runs it.

use super::firmware::UefiFiles;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU's own translator. Works everywhere, and is the default everywhere: a `/dev/kvm` that opens proves nothing.
    #[default]
    Tcg,
    /// The host's KVM, only where the user asks for it.
    Kvm,
}

/// The environment variable that chooses the accelerator.
pub const ACCELERATOR_VARIABLE: &str = "SINO_QEMU_ACCEL";

impl Accelerator {
    /// What `SINO_QEMU_ACCEL` asks for; TCG when it is not set.
    ///
    /// # Errors
    /// A value other than `tcg` and `kvm`.
    pub fn from_environment() -> Result<Self> {
        match std::env::var(ACCELERATOR_VARIABLE).as_deref() {
            Err(_) | Ok("" | "tcg") => Ok(Self::Tcg),
            Ok("kvm") => Ok(Self::Kvm),
            Ok(other) => bail!("{ACCELERATOR_VARIABLE}={other:?} is not an accelerator; allowed: tcg, kvm"),
        }
    }
}

/// The machine's firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// `SeaBIOS`, which QEMU brings along.
    Bios,
    /// OVMF, from these files.
    Uefi(UefiFiles),
}

/// How the machine starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The firmware boots the drive with the lowest boot index.
    FromDrives,
    /// QEMU puts this kernel in place of a boot loader.
    Kernel {
        /// Kernel image.
        kernel: PathBuf,
        /// Initramfs.
        initrd: PathBuf,
        /// Kernel command line.
        append: String,
    },
    /// QEMU puts this hypervisor in place of a boot loader, with the kernel and the initramfs as its modules.
    Xen {
        /// The hypervisor, not compressed: QEMU's multiboot loader decompresses nothing.
        xen: PathBuf,
        /// Its command line.
        options: String,
        /// Kernel image of domain 0.
        kernel: PathBuf,
        /// Its command line.
        append: String,
        /// Its initramfs.
        initrd: PathBuf,
    },
}

/// What a drive hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// A USB 3 stick with the ordinary bulk-only protocol.
    UsbStick,
    /// The same behind a hub.
    UsbStickBehindHub,
    /// A USB disk that speaks UAS.
    UsbUas,
    /// An ATAPI drive with a disc in it.
    Cdrom,
    /// A disk on the chipset's IDE controller.
    Ide,
    /// A disk on an AHCI controller.
    Sata,
    /// An `NVMe` namespace.
    Nvme,
    /// virtio-blk.
    Virtio,
    /// A disk on a virtio SCSI controller.
    VirtioScsi,
    /// An SD card in a PCI card reader. Its file's length must be a power of two.
    SdCard,
    /// A slot of a USB card reader. All such drives of a machine are the slots of one reader, a LUN each, in order;
    /// they are plugged in and out together.
    UsbReader,
}

/// What is wrong with a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveFault {
    /// The guest reads at most so many bytes a second, until [`super::Guest::throttle`] says otherwise.
    BytesPerSecond(u64),
    /// Whatever read touches one of these sectors fails, each time.
    ReadError {
        /// The first one; a sector has 512 bytes.
        sector_from: u64,
        /// How many. Of more than 1000 only every second (third, ...) one is bad, which no read of a page can miss
        /// until there are 8000.
        sectors: u64,
    },
}

/// A drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// Name of the drive in QEMU, in its statistics, and the serial number that the guest sees.
    pub name: String,
    /// What it hangs on.
    pub bus: Bus,
    /// The raw image; `None`: there is no medium in the drive ([`Bus::UsbReader`] and [`Bus::Cdrom`] only).
    pub file: Option<PathBuf>,
    /// Whether what the guest writes stays in the file. If not, the guest can write (and is counted) but the file stays.
    pub keep_writes: bool,
    /// Place in the firmware's boot order; `None`: the firmware does not boot it.
    pub boot_index: Option<u32>,
    /// Whether it is not there when the machine is switched on; [`super::Guest::plug`] plugs it in.
    pub plugged_later: bool,
    /// What is wrong with it.
    pub faults: Vec<DriveFault>,
}

impl Drive {
    /// A drive whose file never changes.
    pub fn new(name: &str, bus: Bus, file: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            bus,
            file: Some(file.into()),
            keep_writes: false,
            boot_index: None,
            plugged_later: false,
            faults: Vec::new(),
        }
    }

    /// A drive without a medium in it.
    pub fn empty(name: &str, bus: Bus) -> Self {
        Self { file: None, ..Self::new(name, bus, "") }
    }

    /// The drive at a place in the boot order.
    #[must_use]
    pub fn boot(mut self, index: u32) -> Self {
        self.boot_index = Some(index);
        self
    }
}

/// What a network card's cable leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// QEMU's own user-mode network, which has a DHCP server and no way in but the forwarded ports.
    User {
        /// TCP ports of the guest that get a free port on the host's loopback address.
        forward: Vec<u16>,
    },
    /// The host's tap device of this name, which exists already.
    Tap(String),
    /// Another program, a frame a datagram: QEMU's socket `local`, the other's `remote`, both paths.
    Datagrams {
        /// QEMU makes this socket.
        local: PathBuf,
        /// QEMU sends to this one.
        remote: PathBuf,
    },
    /// Nothing. The card has a carrier until [`super::Guest::set_link`] takes it.
    None,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkCard {
    /// QEMU's device model, for example `virtio-net-pci`, `e1000e` or `e1000`.
    pub model: String,
    /// Its MAC address; `None`: QEMU's choice.
    pub mac: Option<String>,
    /// What its cable leads to.
    pub backend: Backend,
}

impl NetworkCard {
    /// A card on QEMU's own network.
    #[must_use]
    pub fn user(model: &str, forward: &[u16]) -> Self {
        Self { model: model.to_owned(), mac: None, backend: Backend::User { forward: forward.to_vec() } }
    }
}

/// A table that the firmware passes on to the operating system beside its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiTable {
    /// Its signature: four characters.
    pub signature: String,
    /// The file with what follows the table's header; QEMU makes the header. Its path must be without colons.
    pub data: PathBuf,
}

/// The whole machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Name, for the window title and the process list.
    pub name: String,
    /// What executes it.
    pub accelerator: Accelerator,
    /// Firmware.
    pub firmware: Firmware,
    /// How it starts.
    pub start: Start,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Drives, in the order in which the guest finds those of one bus.
    pub drives: Vec<Drive>,
    /// Network cards.
    pub network: Vec<NetworkCard>,
    /// The file of the network namespace that QEMU runs in, for example `/proc/42/ns/net`; `None`: the caller's.
    pub namespace: Option<PathBuf>,
    /// ACPI tables besides QEMU's own.
    pub acpi_tables: Vec<AcpiTable>,
    /// Whether a reset by the guest ends QEMU instead of starting the machine again.
    pub reset_ends: bool,
}
