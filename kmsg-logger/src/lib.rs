//! A backend of the [`log`] crate that writes to the kernel's log, `/dev/kmsg`.
//!
//! ```no_run
//! kmsg_logger::KmsgLogger::new("sino").install(log::LevelFilter::Info)?;
//! log::info!("found the medium"); // the kernel's log says: sino: found the medium
//! # Ok::<(), log::SetLoggerError>(())
//! ```
//!
//! Each line of a message becomes one `write()` of `<PRI>tag: line`; a line that is longer than a record of the
//! kernel may be goes on in the next record. What the kernel does not take goes to standard error instead. There is
//! no lock, no thread and no allocation after [`KmsgLogger::new`]. Deliberately not here: timestamps (the kernel
//! adds its own), filters by target, reading the log.
//!
//! Source for the format and the limits: the kernel's `Documentation/ABI/testing/dev-kmsg` and `kernel/printk/`.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod record;

use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};
use record::{Splitter, visible};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};

/// The kernel's log as seen by programs.
pub const DEVICE: &str = "/dev/kmsg";

/// The longest tag, in bytes. A longer one is cut, so that every record has room for text.
pub const TAG_MAX: usize = 64;

/// How often one record is written again after a signal interrupted the call. A kernel that interrupts more often
/// than that is not going to stop, and a logger must not hang its program.
const ATTEMPTS: usize = 8;

/// A logger that writes to `/dev/kmsg`, or to standard error where that cannot be done.
#[derive(Debug)]
pub struct KmsgLogger {
    tag: String,
    kmsg: Option<File>,
    fallback: Option<File>,
}

impl KmsgLogger {
    /// A logger whose records begin with `tag`; opens [`DEVICE`] now. Where that fails, everything goes to standard
    /// error; [`KmsgLogger::reaches_the_kernel`] tells.
    #[must_use]
    pub fn new(tag: &str) -> Self {
        Self { tag: clean_tag(tag), kmsg: OpenOptions::new().write(true).open(DEVICE).ok(), fallback: None }
    }

    /// Writes to `file` instead of [`DEVICE`]. Each record is one `write()`, so a datagram socket gets one datagram each.
    #[must_use]
    pub fn with_file(mut self, file: File) -> Self {
        self.kmsg = Some(file);
        self
    }

    /// Writes what `/dev/kmsg` does not take to `file` instead of standard error.
    #[must_use]
    pub fn with_fallback(mut self, file: File) -> Self {
        self.fallback = Some(file);
        self
    }

    /// Whether there is an open file to write records to. If not, they go to the fallback.
    #[must_use]
    pub fn reaches_the_kernel(&self) -> bool {
        self.kmsg.is_some()
    }

    /// Makes this the program's logger, for records up to `level`.
    ///
    /// # Errors
    /// The program has a logger already; it stays.
    pub fn install(self, level: LevelFilter) -> Result<(), SetLoggerError> {
        log::set_boxed_logger(Box::new(self))?;
        log::set_max_level(level);
        Ok(())
    }

    /// Hands one record to the kernel, or to the fallback without its priority. There is nobody left to tell when
    /// that fails too: the record is lost.
    fn emit(&self, record: &[u8]) {
        if self.kmsg.as_ref().is_some_and(|file| deliver(file, record)) {
            return;
        }
        let text = record::without_priority(record);
        let _lost = match self.fallback.as_ref() {
            // Writing needs a shared reference only, but a mutable one to that.
            Some(file) => (&mut &*file).write_all(text),
            None => std::io::stderr().write_all(text),
        };
    }
}

impl Log for KmsgLogger {
    /// Always true: the level given to [`KmsgLogger::install`] is checked by the `log` crate before it calls here.
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut splitter = Splitter::new(record.level(), &self.tag, |piece: &[u8]| self.emit(piece));
        if splitter.write_fmt(*record.args()).is_err() {
            // The splitter takes everything, so it was a value that refused to be printed. Keep what there is.
            let _infallible = splitter.write_str(" (a value in this message could not be printed)");
        }
        splitter.finish();
    }

    fn flush(&self) {}
}

/// Writes `record` with one call. False if it was not taken whole: the rest must not follow, because the kernel would
/// take it for another record.
fn deliver(mut target: impl Write, record: &[u8]) -> bool {
    for _ in 0..ATTEMPTS {
        match target.write(record) {
            Ok(written) => return written == record.len(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // EINVAL (longer than this kernel takes), EPERM (printk.devkmsg=off), EAGAIN, EPIPE, a vanished device.
            Err(_) => return false,
        }
    }
    false
}

/// The tag as it is written: visible characters only, at most [`TAG_MAX`] bytes.
fn clean_tag(tag: &str) -> String {
    let mut clean = String::new();
    for character in tag.chars() {
        let visible = visible(character);
        if clean.len() + visible.as_str().len() > TAG_MAX {
            break;
        }
        clean.push_str(visible.as_str());
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// A writer that answers from a script.
    struct Scripted {
        answers: Vec<io::Result<usize>>,
        calls: usize,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.answers.is_empty() { Ok(bytes.len()) } else { self.answers.remove(0) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn interrupted() -> io::Result<usize> {
        Err(ErrorKind::Interrupted.into())
    }

    #[test]
    fn an_interrupted_write_is_done_again_but_not_for_ever() {
        let mut once = Scripted { answers: vec![interrupted()], calls: 0 };
        assert!(deliver(&mut once, b"x"));
        assert_eq!(once.calls, 2);

        let mut always = Scripted { answers: (0..100).map(|_| interrupted()).collect(), calls: 0 };
        assert!(!deliver(&mut always, b"x"));
        assert_eq!(always.calls, ATTEMPTS);
    }

    #[test]
    fn a_refused_or_cut_record_is_not_continued() {
        // EAGAIN, EINVAL, EPIPE as Linux numbers them on x86.
        for errno in [11, 22, 32] {
            let mut refusing = Scripted { answers: vec![Err(io::Error::from_raw_os_error(errno))], calls: 0 };
            assert!(!deliver(&mut refusing, b"x"));
            assert_eq!(refusing.calls, 1, "errno {errno}");
        }
        let mut cutting = Scripted { answers: vec![Ok(1)], calls: 0 };
        assert!(!deliver(&mut cutting, b"xy"));
        assert_eq!(cutting.calls, 1);
    }

    #[test]
    fn a_tag_is_made_visible_and_short() {
        assert_eq!(clean_tag("sino"), "sino");
        assert_eq!(clean_tag("a\nb"), "a\\x0ab");
        assert_eq!(clean_tag(&"é".repeat(100)).len(), TAG_MAX);
        assert_eq!(clean_tag(&"\n".repeat(100)).len(), TAG_MAX);
    }
}
