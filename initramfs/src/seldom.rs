//! The drivers that few machines need: a squashfs in the initramfs, which is mounted when the first of them is asked for.
//!
//! So the kernel does not unpack them on every boot (`docs/decisions/0020`).

use crate::loop_device;
use crate::mounts::{self, Mount};
use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use sino_boot::layout;

/// What the kernel needs for the archive.
pub const NEEDS: [&str; 2] = ["loop", "squashfs"];

/// Mounts the archive; its loop device goes away with the mount.
///
/// # Errors
/// There is no archive, no loop device, or the kernel cannot read it.
pub fn mount() -> Result<()> {
    let path = layout::SELDOM_ARCHIVE;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {path}"))?;
    let device = loop_device::attach(&file, path, false)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let what = Mount { fs: "squashfs", source: &device, target: layout::SELDOM_MODULES, attributes, options: &[] };
    let mounted = mounts::mount(&what);
    // While the device is in use, this only says that it is released with its last user.
    let released = loop_device::detach(&device);
    mounted.and(released)
}

/// Gives the archive up, so that nothing is left of it when the initramfs is emptied. A driver that is just being read is read to
/// its end.
pub fn release() {
    // Two programs may have mounted it at the same time, one over the other.
    while unmount(layout::SELDOM_MODULES, UnmountFlags::DETACH).is_ok() {}
}
