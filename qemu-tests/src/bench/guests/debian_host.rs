//! The other host: the product's own root image without SINO, started by live-boot, with Debian's xendomains for the guests.
//!
//! So it has the same packages, settings and masked units. What an administrator would have to add is added as kindly as it
//! can be: `/srv` is mounted by a unit, networkd makes the bridge, `/etc/xen/auto` is the folder of guests on `/srv`, nothing
//! waits until the network is online, xendomains has as long as it likes, and it shuts guests down: saved guests would fill the
//! memory that a live system's root is in, and be lost.

use super::super::contenders::{Contender, Kit, write_medium};
use super::super::image_cost::unpack;
use crate::images::Paths;
use anyhow::{Context, Result, ensure};
use sino_image::cache::{Key, create_folder, remove};
use sino_image::config::Config;
use sino_image::guests::show::AUTOSTART;
use sino_image::qemu::Bus;
use sino_image::squashfs::{self, Packing};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Raised when the way it is made changes.
const FORMAT: u32 = 1;

/// What is SINO's in the root; the unit that makes the ssh key stays, because Debian's own is masked for it.
const SINOS: &[&str] = &[
    "etc/systemd/system/sino.service",
    "etc/systemd/system/sino-keeper.service",
    "etc/systemd/system/sino-network-online.service",
    "etc/systemd/system/sino-guests.service",
    "etc/systemd/system/sysinit.target.wants/sino.service",
    "etc/systemd/system/sysinit.target.wants/sino-keeper.service",
    "etc/systemd/system/network-online.target.wants/sino-network-online.service",
    "etc/systemd/system/multi-user.target.wants/sino-guests.service",
    "etc/systemd/system/run-sino-.mount.d",
    "etc/systemd/system/xen.service.d",
    "etc/systemd/system/system.slice.wants",
    "etc/systemd/system/systemd-udevd.service.d",
    "usr/sbin/sino",
    "usr/sbin/sino-init",
    "usr/sbin/srv",
    // Links to what SINO writes.
    "etc/issue",
    "etc/resolv.conf",
    // A mask.
    "etc/systemd/system/xendomains.service",
];

/// What is added: paths and texts.
const FILES: &[(&str, &str)] = &[
    ("etc/issue", "Debian\n"),
    ("etc/resolv.conf", ""),
    ("etc/systemd/network/xenbr0.netdev", "[NetDev]\nName=xenbr0\nKind=bridge\n"),
    ("etc/systemd/network/10-card.network", "[Match]\nName=en* eth*\n\n[Network]\nBridge=xenbr0\n"),
    ("etc/systemd/network/20-xenbr0.network", "[Match]\nName=xenbr0\n\n[Network]\nDHCP=ipv4\n"),
    ("etc/systemd/system/srv.mount", "[Mount]\nWhat=/dev/xvg/xvol\nWhere=/srv\nType=ext4\n"),
    ("etc/systemd/system/xendomains.service.d/time.conf", "[Service]\nTimeoutSec=30min\n"),
];

/// Links: paths and targets.
const LINKS: &[(&str, &str)] = &[
    ("etc/systemd/system/local-fs.target.wants/srv.mount", "../srv.mount"),
    (
        "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
        "/usr/lib/systemd/system/systemd-networkd.service",
    ),
    ("etc/systemd/system/multi-user.target.wants/xendomains.service", "/usr/lib/systemd/system/xendomains.service"),
    ("etc/xen/auto", AUTOSTART),
    // Which SINO drops.
    ("etc/systemd/system/system.slice.wants/system-xfs_scrub.slice", "/usr/lib/systemd/system/system-xfs_scrub.slice"),
];

/// The settings of xendomains, and what is added to them.
const SETTINGS: (&str, &str) = ("etc/default/xendomains", "\nXENDOMAINS_SAVE=\nXENDOMAINS_RESTORE=false\n");

/// What it boots from.
#[derive(Clone, Debug)]
pub(super) struct DebianHost {
    pub(super) medium: PathBuf,
    pub(super) initramfs: PathBuf,
}

impl DebianHost {
    /// Makes it from the finished image, or takes it from the cache.
    ///
    /// # Errors
    /// Not root, a tool is missing or fails, or the image has another kernel than the tree in the cache.
    pub(super) fn make(image: &Paths, kit: &Kit) -> Result<Self> {
        let manifest = &image.manifest;
        ensure!(
            manifest.kernel_release == kit.kernel_release,
            "the finished image has kernel {}, the contenders have {}; make the image anew: make iso",
            manifest.kernel_release,
            kit.kernel_release
        );
        let config = Config::default().image;
        let packing = Packing { level: config.compression_level, block: config.block_size, epoch: 0, flat: false };
        let key = Key::new("debian host", FORMAT)
            .with("root", &manifest.root.blake3)
            .with("changes", format!("{SINOS:?} {FILES:?} {LINKS:?} {SETTINGS:?}"))
            .with("packing", format!("{packing:?}"));
        let medium = kit.cache.get("debian-host", &key, false, |path| {
            println!("  making the host with live-boot and xendomains");
            let work = path.with_extension("work");
            let (root, packed) = (work.join("root"), work.join("root.squashfs"));
            let made = unpack(&image.iso, &work, &root)
                .and_then(|()| change(&root))
                .and_then(|()| squashfs::pack(&root, &packed, packing, &[]))
                .and_then(|()| write_medium(&packed, path));
            remove(&work)?;
            made
        })?;
        let initramfs = kit.initramfs(Contender::LiveBoot, Bus::Virtio).to_owned();
        Ok(Self { medium, initramfs })
    }
}

/// Takes SINO out of the root, and adds what Debian needs for the same.
fn change(root: &Path) -> Result<()> {
    for path in SINOS {
        let path = root.join(path);
        ensure!(path.symlink_metadata().is_ok(), "the image has no {}: has SINO another name for it?", path.display());
        remove(&path)?;
    }
    for (path, text) in FILES {
        let path = root.join(path);
        path.parent().map_or(Ok(()), create_folder)?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    for (path, target) in LINKS {
        let path = root.join(path);
        path.parent().map_or(Ok(()), create_folder)?;
        remove(&path)?;
        symlink(target, &path).with_context(|| format!("linking {}", path.display()))?;
    }
    let (path, text) = SETTINGS;
    let mut settings = fs::OpenOptions::new().append(true).open(root.join(path)).with_context(|| path.to_owned())?;
    settings.write_all(text.as_bytes()).with_context(|| format!("writing {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sino_image::root_files::{self, Content};

    /// What SINO adds to Debian, as the builder does.
    fn sinos(root: &Path) {
        let put = |path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        for file in root_files::all(&Config::default(), "") {
            match file.content {
                Content::File(_, text) => fs::write(put(&file.path), text).unwrap(),
                Content::Link(target) => symlink(target, put(&file.path)).unwrap(),
            }
        }
        fs::write(put("usr/sbin/sino"), "").unwrap();
        fs::write(put(SETTINGS.0), "XENDOMAINS_SAVE=/var/lib/xen/save").unwrap();
    }

    #[test]
    fn nothing_of_sino_is_started_and_xendomains_is() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        sinos(root);
        change(root).unwrap();
        let units = root.join("etc/systemd/system");
        assert!(!units.join("xendomains.service").exists() && units.join("xendomains.service.d/time.conf").exists());
        // All that is left of what SINO starts.
        let wants = |target: &str| -> Vec<String> {
            let entries = fs::read_dir(units.join(target)).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        let all = ["sino-ssh-keys.service", "systemd-networkd.service", "xendomains.service"];
        assert_eq!(wants("multi-user.target.wants"), all);
        assert_eq!(wants("sysinit.target.wants"), [""; 0]);
        assert_eq!(fs::read_link(root.join("etc/xen/auto")).unwrap(), Path::new(AUTOSTART));
        assert!(fs::read_to_string(root.join(SETTINGS.0)).unwrap().contains("\nXENDOMAINS_SAVE=\n"));
        assert!(format!("{:#}", change(root).unwrap_err()).contains("another name"));
    }
}
