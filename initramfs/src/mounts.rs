//! Mounting with the kernel's own explanation when it fails.
//!
//! Uses the mount API of Linux 5.2 (`fsopen`, `fsconfig`, `fsmount`, `move_mount`), whose file-system context hands
//! out the messages that mount(2) only puts into the kernel's log.

use anyhow::{Context, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use sino_boot::mounts::explained;
use std::fs;

/// A file system to mount.
#[derive(Clone, Copy, Debug)]
pub struct Mount<'a> {
    /// Type, for example `squashfs`.
    pub fs: &'a str,
    /// Device or name.
    pub source: &'a str,
    /// Where; the folder is made if it is missing.
    pub target: &'a str,
    /// Mount attributes, for example read-only.
    pub attributes: MountAttrFlags,
    /// Options of the file system: a name with a value, or a name alone (empty value).
    pub options: &'a [(&'a str, &'a str)],
}

/// Mounts a file system.
///
/// # Errors
/// What failed, with source, target and the kernel's own messages.
pub fn mount(what: &Mount<'_>) -> Result<()> {
    let Mount { fs, source, target, attributes, options } = *what;
    let doing = || format!("mounting {source} ({fs}) on {target}");
    fs::create_dir_all(target).with_context(doing)?;
    let context = fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC)
        .with_context(|| format!("the kernel knows no file system {fs}"))
        .with_context(doing)?;
    let read_only = attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY);
    let configure = || -> rustix::io::Result<OwnedFd> {
        fsconfig_set_string(context.as_fd(), "source", source)?;
        if read_only {
            // The superblock too, not only this mount: a block device that is read-only refuses the rest.
            fsconfig_set_flag(context.as_fd(), "ro")?;
        }
        for (name, value) in options {
            if value.is_empty() {
                fsconfig_set_flag(context.as_fd(), *name)?;
            } else {
                fsconfig_set_string(context.as_fd(), *name, *value)?;
            }
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    let mounted = configure().map_err(|error| explained(context.as_fd(), error)).with_context(doing)?;
    move_mount(mounted.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).with_context(doing)
}

/// Moves a mount to another place.
///
/// # Errors
/// The kernel's refusal, with both places.
pub fn relocate(from: &str, to: &str) -> Result<()> {
    rustix::mount::mount_move(from, to).with_context(|| format!("moving the mount {from} to {to}"))
}

/// Unmounts `target`, at once or not at all.
///
/// # Errors
/// The kernel's refusal, for example that it is in use.
pub fn release(target: &str) -> Result<()> {
    unmount(target, UnmountFlags::empty()).with_context(|| format!("unmounting {target}"))
}

/// Opens a folder for use as a starting point of path look-ups.
///
/// # Errors
/// It is not there or not a folder.
pub fn open_folder(path: &str) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening the folder {path}"))
}
