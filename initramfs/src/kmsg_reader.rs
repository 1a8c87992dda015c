//! Reads the kernel's log as it grows, for errors that the kernel only tells there.
//!
//! Source: kernel `Documentation/ABI/testing/dev-kmsg`.

use anyhow::{Context, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

/// The longest record that the kernel hands out.
const LONGEST: usize = 8192;

/// The log, from now on.
#[derive(Debug)]
pub struct Kmsg(OwnedFd);

impl Kmsg {
    /// Opens the log at its end.
    ///
    /// # Errors
    /// There is none.
    pub fn open() -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).context("opening /dev/kmsg")?;
        rustix::fs::seek(&file, SeekFrom::End(0)).context("going to the end of /dev/kmsg")?;
        Ok(Self(file))
    }

    /// The log as another process has opened it, from then on.
    #[must_use]
    pub fn inherited(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// To be handed to another process.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Readable when there is a record.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The text of the kernel's next record; `None` if there is no more now. Records of user space are passed over.
    pub fn next_line(&mut self) -> Option<String> {
        let mut buffer = [0; LONGEST];
        loop {
            match rustix::io::read(&self.0, &mut buffer) {
                Ok(length) => {
                    if let Some(text) = buffer.get(..length).and_then(kernel_text) {
                        return Some(text);
                    }
                }
                // Records were overwritten before they were read.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

/// The text of a record of the kernel's own (facility 0): `PRIORITY,SEQUENCE,TIME,FLAGS;TEXT`.
fn kernel_text(record: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(record);
    let (head, text) = text.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    (priority >> 3 == 0).then(|| text.lines().next().unwrap_or_default().to_owned())
}

/// Whether a line tells of a read from this disk that failed, or of damage that dm-verity found. Source: kernel
/// `block/blk-mq.c` (`blk_print_req_error`), `drivers/md/dm-verity-target.c`.
#[must_use]
pub fn medium_error(line: &str, disk: &str) -> bool {
    line.contains(&format!("error, dev {disk}, sector "))
        || line.contains("device-mapper: verity") && line.contains("is corrupted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_records_count() {
        assert_eq!(kernel_text(b"3,339,5140900,-;I/O error\n SUBSYSTEM=block\n").as_deref(), Some("I/O error"));
        assert_eq!(kernel_text(b"12,339,5140900,-;I/O error\n"), None);
        assert_eq!(kernel_text(b"nonsense"), None);
    }

    #[test]
    fn errors_of_the_medium_are_told_from_others() {
        assert!(medium_error("I/O error, dev sda, sector 1234 op 0x0:(READ) flags 0x80700", "sda"));
        assert!(medium_error("critical medium error, dev sda, sector 8 op 0x0:(READ)", "sda"));
        assert!(!medium_error("I/O error, dev sdab, sector 1234 op 0x0:(READ)", "sda"));
        assert!(medium_error("device-mapper: verity: 7:0: data block 52 is corrupted", "sda"));
        assert!(!medium_error("sda: unknown partition table", "sda"));
    }
}
