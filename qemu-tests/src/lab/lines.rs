//! The lines that a program says, as they come: kept in memory for whoever counts or waits, and in a file.
//!
//! A wait ends when the line is there, or at its deadline. Several programs, one after another, can add to the same lines.

use anyhow::{Context, Result, bail};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many of the last lines an error shows.
const TAIL: usize = 12;

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

/// The lines so far.
#[derive(Clone, Debug)]
pub struct Lines {
    shared: Arc<Shared>,
    file: PathBuf,
}

impl Lines {
    /// No lines yet; those that come go to `file` too.
    #[must_use]
    pub fn new(file: &Path) -> Self {
        Self { shared: Arc::default(), file: file.to_owned() }
    }

    /// Begins to read what a program says.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn follow(&self, from: impl Read + Send + 'static) -> Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.file)
            .with_context(|| format!("writing {}", self.file.display()))?;
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                // The file is for people who look later; the lines count from memory.
                let _ = writeln!(file, "{line}");
                lock(&shared).push(line);
                shared.changed.notify_all();
            }
        });
        Ok(())
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.shared).len()
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `read` makes of the lines from number `from` on; lines of which it makes nothing are left out.
    pub fn since<T>(&self, from: usize, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        lock(&self.shared).iter().skip(from).filter_map(|line| read(line)).collect()
    }

    /// Waits until `find` finds something in a line from number `from` on.
    ///
    /// # Errors
    /// It does not within that time; with the last lines.
    pub fn wait_for<T>(
        &self,
        what: &str,
        from: usize,
        within: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        let mut lines = lock(&self.shared);
        loop {
            if let Some(found) = lines.iter().skip(from).find_map(|line| find(line)) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last: Vec<&str> = lines.iter().skip(lines.len().saturating_sub(TAIL)).map(String::as_str).collect();
                bail!(
                    "waited {} s in vain for {what}; the last lines of {}:\n    | {}",
                    within.as_secs(),
                    self.file.display(),
                    last.join("\n    | ")
                );
            }
            lines = self.shared.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Vec<String>> {
    // A line is pushed whole or not at all.
    shared.lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_two_programs_are_counted_waited_for_and_kept_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let lines = Lines::new(&folder.path().join("log"));
        let is = |word: &'static str| move |line: &str| line.contains(word).then(|| line.to_owned());
        lines.follow(&b"one\ntwo\n"[..]).unwrap();
        assert_eq!(lines.wait_for("two", 0, Duration::from_secs(20), is("two")).unwrap(), "two");
        lines.follow(&b"two again\n"[..]).unwrap();
        assert_eq!(lines.wait_for("two", 2, Duration::from_secs(20), is("two")).unwrap(), "two again");
        assert_eq!((lines.len(), lines.since(1, is("two")).len(), lines.is_empty()), (3, 2, false));
        let error = lines.wait_for("four", 0, Duration::ZERO, is("four")).unwrap_err().to_string();
        assert!(error.contains("for four") && error.contains("| one"), "{error}");
        assert_eq!(std::fs::read_to_string(folder.path().join("log")).unwrap(), "one\ntwo\ntwo again\n");
    }
}
