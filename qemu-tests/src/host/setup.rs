//! What a host is made of, and how it boots.

use crate::lab::Disk;
use crate::runner::DIRECT_FLAGS;
use crate::scenario::Entry;
use sino_image::qemu::NetworkCard;

/// What is left out of a boot for these trials, because it takes a quarter of the processor's time until the shell and none
/// of them looks at it.
pub const FAST: &str = "systemd.mask=systemd-timesyncd.service systemd.mask=systemd-binfmt.service \
                        systemd.mask=modprobe@drm.service systemd.mask=modprobe@efi_pstore.service \
                        systemd.mask=getty@tty1.service systemd.mask=user@0.service systemd.mask=console-setup.service \
                        systemd.mask=cron.service systemd.mask=sino-network-online.service";

/// Xen's command line of [`Way::Xen`]: the menu's.
pub(super) const XEN_OPTIONS: &str = "dom0_mem=1024M,max:1024M com1=115200,8n1 console=com1,vga loglvl=warning \
                                      console_timestamps=boot guest_loglvl=warning";
/// Domain 0's there.
const DOM0_FLAGS: &str = "console=tty0 console=hvc0 loglevel=5 printk.devkmsg=on usb-storage.delay_use=0 panic=-1";

/// How the host boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// QEMU loads kernel and initramfs; no Xen. The quickest.
    Direct,
    /// QEMU loads Xen, kernel and initramfs: under Xen, without the time that the firmware and the boot loader take.
    Xen,
    /// From a stick, by this entry of the menu, under Xen.
    Menu(Entry),
}

/// What the host is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How it boots.
    pub way: Way,
    /// More kernel flags; not for [`Way::Menu`].
    pub flags: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Network cards.
    pub cards: Vec<NetworkCard>,
    /// Disks that last.
    pub disks: Vec<Disk>,
    /// Whether SINO's stage one boots it, as its first words on the console tell.
    pub stage_one: bool,
}

impl Setup {
    /// A small host without Xen, with these cards and disks.
    #[must_use]
    pub fn direct(cards: &[NetworkCard], disks: &[Disk]) -> Self {
        let (cards, disks) = (cards.to_vec(), disks.to_vec());
        Self { way: Way::Direct, flags: String::new(), memory_mib: 2048, cards, disks, stage_one: true }
    }

    /// The same with more kernel flags.
    #[must_use]
    pub fn with(mut self, flags: &str) -> Self {
        flags.clone_into(&mut self.flags);
        self
    }

    /// The same host under Xen, with as much memory for domain 0 as the menu gives it.
    #[must_use]
    pub fn on_xen(mut self) -> Self {
        self.way = Way::Xen;
        self.memory_mib = 4096;
        self
    }

    /// The same host under Xen, from a stick.
    #[must_use]
    pub fn under_xen(mut self) -> Self {
        self.way = Way::Menu(Entry::Normal);
        self.memory_mib = 4096;
        self
    }
}

/// The kernel's command line of a boot without a menu.
pub(super) fn append(way: Way, flags: &str) -> String {
    let own = if way == Way::Xen { DOM0_FLAGS } else { DIRECT_FLAGS };
    format!("{own} {FAST} {flags}").trim_end().to_owned()
}
