//! Holds files of the root in memory: their bytes, and their names.
//!
//! When the medium is lost, what is held can still be executed and read. The bytes are mapped and locked, so they take the
//! place in the page cache that they take anyway when they are used, and no second one; an open descriptor keeps the name
//! and the folders above it. What a symbolic link leads to cannot be locked; so links are copied to the overlay's upper
//! layer, which is in memory.

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, utimensat};
use rustix::mm::{MapFlags, ProtFlags, mlock, mmap};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sino_boot::layout;
use std::fmt;
use std::fs;

/// More files than a root image would ever list.
const MOST_FILES: u64 = 16_384;

/// What is held, for as long as the value lives (the mappings for as long as the process).
#[derive(Debug, Default)]
pub struct Held {
    names: Vec<OwnedFd>,
    bytes: u64,
    missing: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} files ({} MiB) are held in memory for a shutdown without the medium",
            self.names.len(),
            self.bytes >> 20
        )?;
        if self.missing > 0 {
            write!(f, "; {} could not be", self.missing)?;
        }
        Ok(())
    }
}

impl Held {
    /// Reads and holds what the root's list names. A root without a list needs nothing.
    #[must_use]
    pub fn read() -> Self {
        let mut held = Self::default();
        let Ok(list) = fs::read_to_string(layout::HELD_IN_RAM) else { return held };
        let limit = getrlimit(Resource::Nofile);
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit { current: Some(MOST_FILES), maximum: limit.maximum.map(|most| most.max(MOST_FILES)) },
        );
        for path in list.lines().filter(|line| line.starts_with('/')) {
            if held.add(path).is_err() {
                held.missing += 1;
            }
        }
        held
    }

    fn add(&mut self, path: &str) -> rustix::io::Result<()> {
        copy_up_link(path);
        // A symbolic link is held as itself; what it leads to has a line of its own.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = rustix::fs::open(path, flags, Mode::empty())?;
        let status = rustix::fs::fstat(&name)?;
        let kind = rustix::fs::FileType::from_raw_mode(status.st_mode);
        let length = usize::try_from(status.st_size).unwrap_or_default();
        if kind == rustix::fs::FileType::RegularFile && length > 0 {
            let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            // SAFETY: a new mapping at an address of the kernel's choice, which nobody reads through and which is never taken
            // away; locking it touches only its own pages.
            #[allow(unsafe_code)]
            unsafe {
                let place = mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, &file, 0)?;
                mlock(place, length)?;
            }
            self.bytes += length as u64;
        }
        self.names.push(name);
        Ok(())
    }
}

/// Has the overlay copy a symbolic link to its upper layer, by setting its times to what they are.
fn copy_up_link(path: &str) {
    let Ok(status) = rustix::fs::lstat(path) else { return };
    if rustix::fs::FileType::from_raw_mode(status.st_mode) != rustix::fs::FileType::Symlink {
        return;
    }
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    let times = Timestamps {
        last_access: time(status.st_atime, status.st_atime_nsec),
        last_modification: time(status.st_mtime, status.st_mtime_nsec),
    };
    // At worst the link cannot be followed when the medium is gone.
    let _ = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
}
