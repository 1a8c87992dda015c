//! The host's files as they are below a root, so that a test can play a host with a folder.

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use sino_boot::in_root;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block device and its number.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A regular file and what tells it from others.
    File {
        /// Number of the device that it is on.
        device: u64,
        /// Its inode.
        inode: u64,
    },
    /// A folder.
    Folder,
    /// A FIFO, socket or character device.
    Other,
}

/// A file that is there, links followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is.
    pub kind: Kind,
    /// Its path without links; the given one if that is not known.
    pub path: String,
    /// Whether it can be written.
    pub writable: bool,
    /// Whether it can be executed.
    pub executable: bool,
}

/// The files of a host.
pub trait Files {
    /// Looks at a path that begins with a slash; links are followed.
    ///
    /// # Errors
    /// There is no such file, or it cannot be looked at.
    fn see(&self, path: &str) -> io::Result<Seen>;

    /// Reads a small file.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    fn read(&self, path: &str) -> io::Result<String>;

    /// The names in a folder; none if it cannot be read.
    fn list(&self, folder: &str) -> Vec<String>;
}

/// The files below a root, which links do not leave.
#[derive(Clone, Debug)]
pub struct Root(pub PathBuf);

impl Files for Root {
    fn see(&self, path: &str) -> io::Result<Seen> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.0, flags | OFlags::DIRECTORY, Mode::empty())?;
        let below = path.trim_start_matches('/');
        let below = if below.is_empty() { "." } else { below };
        let file = in_root::open(&root, below, flags)?;
        let stat = rustix::fs::fstat(&file)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => {
                Kind::Block { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) }
            }
            FileType::RegularFile => Kind::File { device: stat.st_dev, inode: stat.st_ino },
            FileType::Directory => Kind::Folder,
            _ => Kind::Other,
        };
        let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
        // For root the mode says nothing about writing, so both are asked: a file system that is mounted read-only, and a file
        // that somebody has protected (Xen's block script honours that).
        let may = |what| rustix::fs::accessat(CWD, &itself, what, AtFlags::empty()).is_ok();
        let top = fs::read_link(format!("/proc/self/fd/{}", root.as_raw_fd()));
        let path = match (fs::read_link(&itself), top) {
            (Ok(real), Ok(top)) => real
                .strip_prefix(&top)
                .map_or_else(|_| path.to_owned(), |real| Path::new("/").join(real).to_string_lossy().into_owned()),
            _ => path.to_owned(),
        };
        Ok(Seen {
            kind,
            path,
            writable: stat.st_mode & 0o222 != 0 && may(Access::WRITE_OK),
            executable: stat.st_mode & 0o111 != 0 && may(Access::EXEC_OK),
        })
    }

    fn read(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.0.join(path.trim_start_matches('/')))
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(folder.trim_start_matches('/')));
        let names = entries.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_are_followed_and_stay_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root(folder.path().to_owned());
        fs::create_dir_all(folder.path().join("srv/img")).unwrap();
        fs::write(folder.path().join("srv/img/a"), "x").unwrap();
        symlink("/srv/img", folder.path().join("disks")).unwrap();
        symlink("../../../../../../../../disks/a", folder.path().join("srv/b")).unwrap();
        let seen = root.see("/srv/b").unwrap();
        assert_eq!(seen.path, "/srv/img/a");
        assert_eq!(seen.kind, root.see("/srv/img/a").unwrap().kind);
        assert!(matches!(seen.kind, Kind::File { .. }) && seen.writable && !seen.executable, "{seen:?}");
        assert_eq!(root.see("/").unwrap().kind, Kind::Folder);
        assert_eq!(root.see("/disks").unwrap().path, "/srv/img");
        assert_eq!(root.see("/gone").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::set_permissions(folder.path().join("srv/img/a"), fs::Permissions::from_mode(0o555)).unwrap();
        let seen = root.see("/srv/b").unwrap();
        assert!(!seen.writable && seen.executable, "{seen:?}");
        let real = Root("/".into());
        assert!(matches!(real.see("/dev/null").unwrap().kind, Kind::Other));
        assert_eq!(root.list("/srv/img"), ["a"]);
        assert_eq!(root.list("/gone"), [""; 0]);
    }
}
