//! An open folder: files in it are read with a limit, and replaced so that a power cut leaves the old one or the new one.
//!
//! The order of [`replace`] is that of the ext4 documentation (new file, fsync, rename, fsync of the folder). Names are
//! never followed out of the folder: a symbolic link in place of a file is an error.

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags};
use rustix::io::Errno;
use sino_boot::in_root;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Longest file that is read, in bytes: far above any item's, far below what would trouble dom0's memory.
pub(super) const LONGEST: u64 = 1 << 20;

/// What a new file gets beside its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    /// Permission bits.
    pub(super) mode: u32,
    /// Its group, if it is not the caller's.
    pub(super) group: Option<u32>,
}

impl Rights {
    /// Permission bits, and the caller's group.
    pub(super) const fn mode(mode: u32) -> Self {
        Self { mode, group: None }
    }
}

/// The steps that a file is replaced with; the tests put a disk that loses its power in place of the kernel's.
pub(super) trait Disk {
    /// Makes a new file, which [`Disk::write`] and [`Disk::sync`] are about; it must not exist.
    fn create(&mut self, name: &str, rights: Rights) -> io::Result<()>;
    /// Writes all of the new file.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Waits until the new file's content is on the disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Gives a file another name; whatever has that name is gone.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Waits until the names are on the disk.
    fn sync_names(&mut self) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// Writes a file, whole or not at all. When it returns, the new content outlives a power cut; when it fails or the power
/// goes, the old content is there.
///
/// # Errors
/// A step failed, for example because the file system is full; what the step left is removed.
pub(super) fn replace(disk: &mut impl Disk, name: &str, bytes: &[u8], rights: Rights) -> io::Result<()> {
    let new = format!(".{name}.new");
    // What a power cut left.
    remove_if_there(disk, &new)?;
    let written = disk
        .create(&new, rights)
        .and_then(|()| disk.write(bytes))
        .and_then(|()| disk.sync())
        .and_then(|()| disk.rename(&new, name));
    if let Err(error) = written {
        // If it stays, the next attempt removes it.
        let _ = disk.remove(&new);
        return Err(error);
    }
    disk.sync_names()
}

/// Removes a file so that a power cut does not bring it back; says whether there was one.
///
/// # Errors
/// It cannot be removed.
pub(super) fn remove_if_there(disk: &mut impl Disk, name: &str) -> io::Result<bool> {
    match disk.remove(name) {
        Ok(()) => disk.sync_names().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Found {
    /// Its content.
    pub(super) bytes: Vec<u8>,
    /// When it was last written.
    pub(super) modified: SystemTime,
    /// Its permission bits and group.
    pub(super) rights: Rights,
}

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is not what was put there; the text says what it is.
    Foreign(String),
    /// The disk or the kernel refuses.
    Failed(io::Error),
}

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    new: Option<File>,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Folder {
    /// Opens a folder by its path.
    ///
    /// # Errors
    /// It does not exist, or is no folder.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: rustix::fs::open(path, FOLDER, Mode::empty())?, new: None })
    }

    /// Opens a folder below this one; links on the way lead to where they would if this one were `/`.
    ///
    /// # Errors
    /// It does not exist, or is no folder.
    pub(super) fn inside(&self, path: &str) -> io::Result<Self> {
        let fd = in_root::open(&self.fd, path, FOLDER)?;
        Ok(Self { fd, new: None })
    }

    /// Opens a folder in this one that is no link, after making it if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or is no folder.
    pub(super) fn made(&self, name: &str, mode: u32) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) => rustix::fs::fsync(&self.fd)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.child(name)
    }

    /// Opens a folder in this one that is no link.
    ///
    /// # Errors
    /// It does not exist, or is no folder.
    pub(super) fn child(&self, name: &str) -> io::Result<Self> {
        Ok(Self { fd: rustix::fs::openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?, new: None })
    }

    /// The open folder itself.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Reads a file of this folder; `None` if there is none.
    ///
    /// # Errors
    /// [`Unread`].
    pub(super) fn read(&self, name: &str) -> Result<Option<Found>, Unread> {
        // NONBLOCK: a named pipe in its place must not hold the boot.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(Unread::Foreign("it is a symbolic link".to_owned())),
            Err(Errno::NXIO) => return Err(Unread::Foreign("it is no plain file".to_owned())),
            Err(error) => return Err(Unread::Failed(error.into())),
        };
        let facts = rustix::fs::fstat(&fd).map_err(|error| Unread::Failed(error.into()))?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            return Err(Unread::Foreign("it is no plain file".to_owned()));
        }
        let us = rustix::process::geteuid().as_raw();
        if facts.st_uid != us {
            return Err(Unread::Foreign(format!("it belongs to the user {}, not to {us}", facts.st_uid)));
        }
        let mut bytes = Vec::new();
        File::from(fd).take(LONGEST + 1).read_to_end(&mut bytes).map_err(Unread::Failed)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LONGEST {
            return Err(Unread::Foreign(format!("it is longer than {} KiB", LONGEST >> 10)));
        }
        let seconds = u64::try_from(facts.st_mtime).unwrap_or_default();
        let rights = Rights { mode: facts.st_mode & 0o7777, group: Some(facts.st_gid) };
        let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Ok(Some(Found { bytes, modified: modified.unwrap_or(SystemTime::UNIX_EPOCH), rights }))
    }

    /// Where a symbolic link of this folder leads; `None` if there is none.
    pub(super) fn link(&self, name: &str) -> Option<String> {
        rustix::fs::readlinkat(&self.fd, name, Vec::new()).ok()?.into_string().ok()
    }

    /// Makes a symbolic link, or has one lead elsewhere; at no moment is it gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn put_link(&mut self, name: &str, target: &str) -> io::Result<()> {
        let new = format!(".{name}.new");
        remove_if_there(self, &new)?;
        rustix::fs::symlinkat(target, &self.fd, &new)?;
        self.rename(&new, name)?;
        self.sync_names()
    }

    /// The names in it, sorted.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            // Names that are not UTF-8 are not ours.
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

impl Disk for Folder {
    fn create(&mut self, name: &str, rights: Rights) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Closed to others until all is set.
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?;
        if let Some(group) = rights.group {
            rustix::fs::fchown(&fd, None, Some(Gid::from_raw(group)))?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(rights.mode))?;
        self.new = Some(File::from(fd));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.new.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.new.take().map_or(Ok(()), |file| file.sync_all())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.new = None;
        Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?)
    }
}
