//! What SINO's stage one is compared with: live-boot and dracut of the same Debian, and the floor.
//!
//! # What is the same for all
//! * The kernel, and the modules' files: those of SINO's own Debian tree.
//! * The root image, to the byte: that Debian tree as a squashfs, with the bench's init ([`INIT`]) in it. It is the tree that
//!   the product is made of, so it has the product's length and number of files; it is not configured, because nothing of it
//!   but that init runs. SINO's dm-verity tree behind the squashfs (0.8 %) is copied to RAM by the others too.
//! * The init: `/run` and `/proc` of any boot do, it reports by the kernel's log when it began ([`crate::payload`]). SINO's
//!   stage two is another init than Debian's and has its own measures; here stage one executes the bench's init itself.
//! * The kernel's flags (`FLAGS`). `usb-storage.delay_use=0` is SINO's own choice and a second faster than the kernel's
//!   default; the others get it too. So do they `quiet`, which they are usually shipped with.
//!
//! # What is each one's own
//! * **SINO**: initramfs and ISO from the product's builder; verification on, as shipped.
//! * **live-boot**: initramfs-tools with live-boot in a minimal Debian: no hooks of packages that a real image would add, so
//!   it is smaller and faster than shipped ones. `toram=` names the root image, which spares it the rest of the medium.
//! * **dracut**: `dmsquash-live`, not for one host (`--no-hostonly`), with systemd in it, which is dracut's default.
//! * **the floor**: a busybox script that inserts exactly the modules that this one machine needs; no hardware is looked for.
//!   It says what the kernel, the emulated drive and the copying cost at least.
//!
//! The others' medium is a plain ISO with the root image under the names that they look for. SINO's image is made in each run,
//! by the builder as it is then; all else is kept below `target/bench/` under the hash of what it is made from.

mod debian;
mod floor;
mod root;

pub use floor::RootFs;
pub(super) use root::write_medium;

use crate::images::{Paths, target};
use anyhow::{Result, anyhow};
use sino_image::cache::Cache;
use sino_image::config::Config;
use sino_image::qemu::Bus;
use sino_image::tree::Tree;
use sino_image::workspace::Workspace;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The bench's init in the root image.
pub const INIT: &str = "/usr/sbin/sino-payload";
/// The volume label of the others' medium.
const LABEL: &str = "BENCH";
/// What every contender has on its kernel command line.
const FLAGS: &str = "console=tty0 console=ttyS0,115200 quiet printk.devkmsg=on usb-storage.delay_use=0 panic=-1 init=/usr/sbin/sino-payload";

/// A way from the kernel to the root's init.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// SINO's stage one.
    Sino,
    /// The same once more: what differs between these two is noise.
    SinoAgain,
    /// Debian's live-boot.
    LiveBoot,
    /// dracut's dmsquash-live.
    Dracut,
    /// The hand-made script.
    Floor,
}

impl Contender {
    /// All, in the order in which they take turns.
    pub const ALL: [Self; 5] = [Self::Sino, Self::LiveBoot, Self::Dracut, Self::Floor, Self::SinoAgain];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sino => "SINO",
            Self::SinoAgain => "SINO again",
            Self::LiveBoot => "live-boot",
            Self::Dracut => "dracut",
            Self::Floor => "floor",
        }
    }

    /// Its flags on the kernel command line, with those of all; `ram`: the root image is to be copied to RAM.
    #[must_use]
    pub fn flags(self, bus: Bus, ram: bool) -> String {
        let (own, on_ram) = match self {
            Self::Sino | Self::SinoAgain => (format!("sino.init={INIT}"), "sino.ram"),
            Self::LiveBoot => ("boot=live".to_owned(), "toram=filesystem.squashfs"),
            Self::Dracut => {
                (format!("root=live:CDLABEL={LABEL} rd.live.image rd.live.overlay.overlayfs=1"), "rd.live.ram=1")
            }
            Self::Floor => (format!("floor.device={}", floor::device(bus)), "floor.ram"),
        };
        let on_ram = if ram { on_ram } else { "" };
        format!("{FLAGS} {own} {on_ram}").trim_end().to_owned()
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// Everything that the contenders boot from.
#[derive(Clone, Debug)]
pub struct Kit {
    /// SINO's image around the common root image.
    pub sino: Paths,
    /// The root image.
    pub root: PathBuf,
    /// The others' medium.
    pub medium: PathBuf,
    /// The release of the kernel.
    pub kernel_release: String,
    /// Lines of `package version` of what the others' initramfs were made with.
    pub packages: BTreeMap<&'static str, String>,
    live_boot: PathBuf,
    dracut: PathBuf,
    floors: Floors,
    tree: Tree,
    /// Where what is made for the contenders is kept.
    pub(super) cache: Cache,
}

/// The floor's initramfs, each for one machine.
#[derive(Clone, Debug)]
struct Floors {
    usb: PathBuf,
    virtio: PathBuf,
    cdrom: PathBuf,
}

impl Floors {
    fn of(&self, bus: Bus) -> &Path {
        match bus {
            Bus::Virtio => &self.virtio,
            Bus::Cdrom => &self.cdrom,
            _ => &self.usb,
        }
    }
}

impl Kit {
    /// Makes what is missing, once a run.
    ///
    /// # Errors
    /// Not root, no network, a tool that is missing or fails, in its own words.
    pub fn get() -> Result<&'static Self> {
        static MADE: OnceLock<Result<Kit, String>> = OnceLock::new();
        let make = || Self::make(&|what| println!("  making {what}")).map_err(|error| format!("{error:#}"));
        MADE.get_or_init(make).as_ref().map_err(|why| anyhow!("what the contenders boot from is not to be had: {why}"))
    }

    fn make(say: &dyn Fn(&str)) -> Result<Self> {
        let config = Config::default();
        let workspace = Workspace::around(&crate::images::workspace());
        let trees = Cache::new(workspace.cache());
        say("the Debian tree");
        let tree = Tree::get(&config, &trees)?;
        let cache = Cache::new(target().join("bench"));
        say("the root image with the bench's init");
        let root = root::common(&config, &tree, &cache)?;
        say("SINO's image around it");
        let sino = root::sino(&config, &root, &trees, &cache)?;
        say("the others' medium");
        let medium = root::medium(&root, &cache)?;
        root::keep_only(&cache, "root", &root.image)?;
        root::keep_only(&cache, "medium", &medium)?;
        say("live-boot's initramfs");
        let live_boot = debian::initramfs(&debian::LIVE_BOOT, &config, &tree, &trees, &cache)?;
        say("dracut's initramfs");
        let dracut = debian::initramfs(&debian::DRACUT, &config, &tree, &trees, &cache)?;
        say("the floor's initramfs");
        let floor = |bus| floor::initramfs(bus, RootFs::Squashfs, None, &tree, &cache);
        let floors = Floors { usb: floor(Bus::UsbStick)?, virtio: floor(Bus::Virtio)?, cdrom: floor(Bus::Cdrom)? };
        let packages = [("live-boot", &live_boot), ("dracut", &dracut)];
        let packages = packages.map(|(name, folder)| Ok((name, debian::packages(folder)?)));
        Ok(Self {
            sino,
            root: root.image,
            medium,
            kernel_release: tree.kernel_release.clone(),
            packages: packages.into_iter().collect::<Result<_>>()?,
            live_boot: live_boot.join(debian::INITRAMFS),
            dracut: dracut.join(debian::INITRAMFS),
            floors,
            tree,
            cache,
        })
    }

    /// The floor's initramfs for a stick with a root image that has not the bench's init in it, and that image's medium; the
    /// medium goes to `folder`.
    ///
    /// # Errors
    /// A tool or a module is missing.
    pub fn other_root(&self, image: &Path, kind: RootFs, folder: &Path) -> Result<(PathBuf, PathBuf)> {
        let init = crate::tiny_root::programs()?.join("sino-payload");
        let initramfs = floor::initramfs(Bus::UsbStick, kind, Some(&init), &self.tree, &self.cache)?;
        let medium = folder.join("medium.iso");
        root::write_medium(image, &medium)?;
        Ok((initramfs, medium))
    }

    /// The versions of what the contenders are.
    #[must_use]
    pub fn versions(&self) -> Vec<(String, String)> {
        let shown = ["live-boot", "initramfs-tools", "dracut-core", "systemd", "busybox-static"];
        let lines = self.packages.values().flat_map(|text| text.lines());
        let pairs = lines.filter_map(|line| line.split_once(['\t', ' ']));
        let wanted = pairs.filter(|(package, _)| shown.contains(package));
        wanted.map(|(package, version)| (package.to_owned(), version.to_owned())).collect()
    }

    /// A contender's initramfs for a machine with its medium on `bus`.
    #[must_use]
    pub fn initramfs(&self, contender: Contender, bus: Bus) -> &Path {
        match contender {
            Contender::Sino | Contender::SinoAgain => &self.sino.initramfs,
            Contender::LiveBoot => &self.live_boot,
            Contender::Dracut => &self.dracut,
            Contender::Floor => self.floors.of(bus),
        }
    }

    /// A contender's medium.
    #[must_use]
    pub fn medium(&self, contender: Contender) -> &Path {
        match contender {
            Contender::Sino | Contender::SinoAgain => &self.sino.iso,
            Contender::LiveBoot | Contender::Dracut | Contender::Floor => &self.medium,
        }
    }
}

/// What a medium hangs on, for tables.
#[must_use]
pub fn bus_name(bus: Bus) -> &'static str {
    match bus {
        Bus::Virtio => "virtio",
        Bus::Cdrom => "CD",
        _ => "USB",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_flags_and_those_of_all() {
        for contender in Contender::ALL {
            let (normal, ram) = (contender.flags(Bus::UsbStick, false), contender.flags(Bus::UsbStick, true));
            assert!(normal.starts_with(FLAGS) && ram.starts_with(&normal) && ram.len() > normal.len(), "{ram}");
        }
        assert_eq!(Contender::Sino.flags(Bus::Cdrom, true), Contender::SinoAgain.flags(Bus::Cdrom, true));
        assert!(FLAGS.ends_with(INIT));
    }
}
