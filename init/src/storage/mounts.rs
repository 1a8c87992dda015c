//! What is mounted, and mounting with the kernel's own explanation when it fails.

use super::Host;
use anyhow::{Context, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};
use sino_boot::mounts::{explained, parse};
use std::fs;
use std::path::Path;

pub use sino_boot::mounts::{Mounted, unescaped};

/// A file system to mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// The block device.
    pub device: &'a Path,
    /// Its type, for example `ext4`.
    pub fs: &'a str,
    /// Where; the folder is made if it is missing.
    pub target: &'a Path,
    /// Whether it is mounted read-only.
    pub read_only: bool,
    /// Options of the file system, each a name or `NAME=VALUE`.
    pub options: &'a [&'a str],
}

/// Mounts a file system. Access times are kept as `relatime`, the kernel's default.
///
/// # Errors
/// What failed, with the kernel's own messages.
pub fn mount(what: &Mount<'_>) -> Result<()> {
    let doing = || format!("mounting {} ({}) on {}", what.device.display(), what.fs, what.target.display());
    fs::create_dir_all(what.target).with_context(doing)?;
    let context = fsopen(what.fs, FsOpenFlags::FSOPEN_CLOEXEC)
        .with_context(|| format!("the kernel knows no file system {}", what.fs))
        .with_context(doing)?;
    let configure = || -> rustix::io::Result<OwnedFd> {
        fsconfig_set_string(context.as_fd(), "source", what.device)?;
        if what.read_only {
            // The superblock too, not only this mount: a block device that is read-only refuses the rest.
            fsconfig_set_flag(context.as_fd(), "ro")?;
        }
        for option in what.options {
            match option.split_once('=') {
                Some((name, value)) => fsconfig_set_string(context.as_fd(), name, value)?,
                None => fsconfig_set_flag(context.as_fd(), *option)?,
            }
        }
        fsconfig_create(context.as_fd())?;
        let read_only = if what.read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, read_only)
    };
    let mounted = configure().map_err(|error| explained(context.as_fd(), error)).with_context(doing)?;
    move_mount(mounted.as_fd(), "", CWD, what.target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).with_context(doing)
}

/// What is mounted, in the order of `/proc/self/mountinfo`.
///
/// # Errors
/// The kernel's table cannot be read.
pub fn table(host: Host<'_>) -> Result<Vec<Mounted>> {
    let path = host.path("/proc/self/mountinfo");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(parse(&text))
}

/// What is mounted on `target`: the last one hides those before.
///
/// # Errors
/// As [`table`].
pub fn on(host: Host<'_>, target: &str) -> Result<Option<Mounted>> {
    Ok(table(host)?.into_iter().rfind(|mount| mount.target == target))
}
