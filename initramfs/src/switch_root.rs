//! Entering the new root: the point of no return.
//!
//! Moves the kernel's file systems along, makes the new root "/", leaves the initramfs to the keeper, which empties it (its memory
//! is worth having), and executes the init. Only a checked root gets here.

use crate::keeper::{self, Task};
use crate::{mounts, seldom};
use anyhow::{Context, Result, anyhow};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use sino_boot::{console, layout};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// File-system types of an initramfs (`RAMFS_MAGIC`, `TMPFS_MAGIC` of `include/uapi/linux/magic.h`).
const INITRAMFS_TYPES: [i64; 2] = [0x8584_58f6, 0x0102_1994];
/// What moves along.
const MOVED: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];

/// A complete root on [`layout::NEW_ROOT`] whose init is known to be executable.
#[derive(Debug)]
pub struct NewRoot {
    /// The program to execute, as the new root sees it.
    pub init: String,
    /// What the keeper has to do.
    pub task: Task,
}

/// Enters the root and executes its init with `arguments`. Returns only if that failed.
pub fn enter(root: &NewRoot, arguments: Vec<OsString>) -> anyhow::Error {
    seldom::release();
    let old = match change_root() {
        Ok(old) => old,
        Err(error) => return error.context("switching to the new root"),
    };
    if let Err(error) = keeper::start(&root.task, old) {
        // Worst case: nothing is copied in the background or watched, a lost medium is not explained, the initramfs keeps its
        // memory, and a shutdown has no root in memory to go back to.
        console::say(&format!("warning: {error:#}"), log::Level::Warn);
    }
    let error = Command::new(&root.init).args(arguments).exec();
    anyhow!(error).context(format!("executing {}", root.init))
}

/// Makes the new root "/"; returns the old one.
fn change_root() -> Result<OwnedFd> {
    let old = mounts::open_folder("/")?;
    for mount in MOVED {
        let target = format!("{}{mount}", layout::NEW_ROOT);
        std::fs::create_dir_all(&target).with_context(|| format!("making {target}"))?;
        mounts::relocate(mount, &target)?;
    }
    rustix::process::chdir(layout::NEW_ROOT).context("going to the new root")?;
    mounts::relocate(".", "/")?;
    rustix::process::chroot(".").context("making the new root \"/\"")?;
    rustix::process::chdir("/").context("going to \"/\"")?;
    Ok(old)
}

/// Deletes everything in the initramfs, and nothing on any other file system.
///
/// # Errors
/// `old` is the root of something else, or a folder cannot be read.
pub fn empty(old: OwnedFd) -> Result<()> {
    let kind = rustix::fs::fstatfs(&old).context("asking for the initramfs's type")?.f_type;
    anyhow::ensure!(INITRAMFS_TYPES.contains(&kind), "the old root has type {kind:#x}, which is no initramfs");
    let device = rustix::fs::fstat(&old).context("asking for the initramfs's device")?.st_dev;
    // Folders still to visit. A folder is removed after all that it holds, so the list grows deepest last.
    let mut folders = vec![(old, None::<(usize, String)>)];
    let mut next = 0;
    while next < folders.len() {
        let mut found = Vec::new();
        if let Some((folder, _)) = folders.get(next) {
            let listing =
                rustix::fs::openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            for entry in Dir::new(listing)?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if matches!(name.as_str(), "." | "..") {
                    continue;
                }
                if entry.file_type() != FileType::Directory {
                    rustix::fs::unlinkat(folder, name.as_str(), AtFlags::empty())?;
                    continue;
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = rustix::fs::openat(folder, name.as_str(), flags, Mode::empty())?;
                if rustix::fs::fstat(&below)?.st_dev == device {
                    found.push((below, Some((next, name))));
                }
            }
        }
        folders.extend(found);
        next += 1;
    }
    for (_, parent) in folders.iter().rev() {
        if let Some((index, name)) = parent
            && let Some((parent, _)) = folders.get(*index)
        {
            // A mount point cannot be removed; it holds next to nothing.
            let _ = rustix::fs::unlinkat(parent.as_fd(), name.as_str(), AtFlags::REMOVEDIR);
        }
    }
    Ok(())
}
