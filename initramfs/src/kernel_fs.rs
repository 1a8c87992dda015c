//! The kernel's own file systems: /proc, /sys, /dev and the tmpfs on /run. Before them nothing can be read or said.
//!
//! Mounting is repeated harmlessly, because stage one starts itself again when a rescue shell is left.

use crate::mounts::{self, Mount};
use anyhow::Result;
use rustix::mount::MountAttrFlags;
use sino_boot::layout;

/// Mounts what is not mounted yet, and makes `/run/sino`.
///
/// # Errors
/// The first mount that failed.
pub fn mount_all() -> Result<()> {
    let quiet =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
    let no_suid = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let no_device = no_suid | MountAttrFlags::MOUNT_ATTR_NODEV;
    let wanted = [
        Mount { fs: "proc", source: "proc", target: "/proc", attributes: quiet, options: &[] },
        Mount { fs: "sysfs", source: "sysfs", target: "/sys", attributes: quiet, options: &[] },
        Mount { fs: "devtmpfs", source: "devtmpfs", target: "/dev", attributes: no_suid, options: &[("mode", "0755")] },
        Mount {
            fs: "tmpfs",
            source: "tmpfs",
            target: "/run",
            attributes: no_device,
            options: &[("mode", "0755"), ("size", "20%")],
        },
    ];
    let device = |path: &str| rustix::fs::stat(path).ok().map(|status| status.st_dev);
    let root = device("/");
    for mount in wanted {
        // What is mounted has another device than the root; what is not there has none.
        let mounted = device(mount.target).is_some_and(|own| Some(own) != root);
        if !mounted {
            mounts::mount(&mount)?;
        }
    }
    std::fs::create_dir_all(layout::RUN)?;
    Ok(())
}
