//! What is mounted, and mounting with the kernel's own explanation when it fails.

use super::Host;
use anyhow::{Context, Result, anyhow};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};
use std::fs;
use std::path::Path;

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
    let explain = |error: rustix::io::Errno| {
        let messages = messages(context.as_fd());
        if messages.is_empty() { anyhow!(error) } else { anyhow!("{error} ({})", messages.join("; ")) }
    };
    let mounted = configure().map_err(explain).with_context(doing)?;
    move_mount(mounted.as_fd(), "", CWD, what.target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).with_context(doing)
}

/// The messages of a file-system context, without the one-letter class in front ("e ", "w ", "i ").
fn messages(context: BorrowedFd<'_>) -> Vec<String> {
    let mut messages = Vec::new();
    let mut buffer = [0_u8; 1024];
    // Each read returns one message; ENODATA ends them. The bound guards against a kernel that never ends.
    while messages.len() < 16 {
        match rustix::io::read(context, &mut buffer) {
            Ok(length) if length > 0 => {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                let text = text.trim_end();
                messages.push(text.get(2..).unwrap_or(text).to_owned());
            }
            _ => break,
        }
    }
    messages
}

/// A mount of this process's mount namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounted {
    /// Number of its device, as `MAJOR:MINOR`.
    pub number: String,
    /// The folder that it is on.
    pub target: String,
    /// The file system's type.
    pub fs: String,
    /// What it was mounted from.
    pub source: String,
    /// Whether it, or the whole file system, is read-only.
    pub read_only: bool,
}

/// What is mounted, in the order of `/proc/self/mountinfo`.
///
/// # Errors
/// The kernel's table cannot be read.
pub fn table(host: Host<'_>) -> Result<Vec<Mounted>> {
    let path = host.path("/proc/self/mountinfo");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.lines().filter_map(line).collect())
}

/// What is mounted on `target`: the last one hides those before.
///
/// # Errors
/// As [`table`].
pub fn on(host: Host<'_>, target: &str) -> Result<Option<Mounted>> {
    Ok(table(host)?.into_iter().rfind(|mount| mount.target == target))
}

/// Reads a line of mountinfo; see `proc_pid_mountinfo(5)`.
fn line(text: &str) -> Option<Mounted> {
    let (mount, device) = text.split_once(" - ")?;
    let mut words = mount.split(' ').skip(2);
    let (number, _root, target, options) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let mut words = device.split(' ');
    let (fs, source, whole) = (words.next()?, words.next()?, words.next()?);
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mounted {
        number: number.to_owned(),
        target: unescaped(target),
        fs: fs.to_owned(),
        source: unescaped(source),
        read_only: read_only(options) || read_only(whole),
    })
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
#[must_use]
pub fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let text = r"36 35 98:0 / /srv/a\040b rw,relatime shared:1 - ext4 /dev/mapper/xvg-xvol ro,errors=remount-ro";
        let mount = line(text).unwrap();
        assert_eq!(
            mount,
            Mounted {
                number: "98:0".into(),
                target: "/srv/a b".into(),
                fs: "ext4".into(),
                source: "/dev/mapper/xvg-xvol".into(),
                read_only: true
            }
        );
        assert!(!line(&text.replace("ro,errors=remount-ro", "rw,errors=remount-ro")).unwrap().read_only);
        assert_eq!(line("garbage - a b"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(text in ".*") {
            let _ = line(&text);
        }
    }
}
