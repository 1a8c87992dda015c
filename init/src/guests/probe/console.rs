//! Whether a line of a guest's console matches, read from the log that xenconsoled writes, as it grows.
//!
//! The log is read from where it ended when the [`Console`] was made. It need not exist yet; it may be cut or replaced.

use super::cancel::Woken;
use super::lines::Lines;
use super::{Cancel, Outcome};
use anyhow::{Context as _, Result};
use regex_lite::Regex;
use rustix::event::PollFlags;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A line that has not ended (a prompt) counts when nothing was added to it for this long.
const QUIET: Duration = Duration::from_millis(200);
/// Changes that come this soon after one another are read together.
const SETTLE: Duration = Duration::from_millis(20);
/// Room for one read, in bytes.
const CHUNK: usize = 64 << 10;
/// How deep a folder that is not there yet may be.
const DEEPEST: usize = 64;
/// How much of the last line is told when none matched, in characters.
const TOLD: usize = 120;

/// The log of a guest's console.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    file: Option<(u64, u64)>,
    position: u64,
}

/// The regular expression of the configuration.
pub(super) fn pattern(text: &str) -> Result<Regex> {
    Regex::new(text).with_context(|| format!("{text:?} is no regular expression"))
}

impl Console {
    /// The log at this path, from its present end. Make it before the guest.
    pub fn begin(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let about = fs::metadata(&path).ok();
        Self { file: about.as_ref().map(identity), position: about.map_or(0, |about| about.len()), path }
    }

    pub(super) fn wait(&mut self, text: &str, deadline: Instant, cancel: &Cancel) -> Result<Outcome> {
        let pattern = pattern(text)?;
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("opening inotify")?;
        let (mut lines, mut last) = (Lines::default(), String::new());
        let mut open = None;
        let mut begun_seen = 0;
        loop {
            // Watched before it is read, so that no change is missed.
            self.watch(&events)?;
            loop {
                let bytes = self.read(&mut open)?;
                let mut matched = false;
                lines.push(&bytes, |line| {
                    matched |= pattern.is_match(line);
                    line.clone_into(&mut last);
                });
                if matched {
                    return Ok(Outcome::Ready);
                }
                if cancel.is_cancelled() {
                    return Ok(Outcome::Cancelled);
                }
                if bytes.is_empty() || Instant::now() >= deadline {
                    break;
                }
                begun_seen = 0;
            }
            let begun = lines.begun();
            let quiet = begun.len() != begun_seen;
            let until = if quiet { deadline.min(Instant::now() + QUIET) } else { deadline };
            match cancel.wait_with(Some((events.as_fd(), PollFlags::IN)), until)? {
                Woken::Cancelled => return Ok(Outcome::Cancelled),
                Woken::Event => {
                    if cancel.wait(deadline.min(Instant::now() + SETTLE))? == Woken::Cancelled {
                        return Ok(Outcome::Cancelled);
                    }
                    drain(&events);
                }
                Woken::Time => {
                    if pattern.is_match(&begun) && !begun.is_empty() {
                        return Ok(Outcome::Ready);
                    }
                    begun_seen = begun.len();
                }
            }
            if Instant::now() >= deadline {
                return Ok(Outcome::NotReady(self.told(text, if begun.is_empty() { &last } else { &begun })));
            }
        }
    }

    /// The next bytes of the log; none if there are none now.
    fn read(&mut self, open: &mut Option<File>) -> Result<Vec<u8>> {
        let describe = || format!("reading the console's log {}", self.path.display());
        let mut bytes = vec![0; CHUNK];
        // Twice, for a log that was replaced: what is left in the old one, then the new one.
        for _ in 0..2 {
            if let Some(file) = open {
                let length = file.metadata().with_context(describe)?.len();
                if length < self.position {
                    self.position = 0;
                }
                let read = file.read_at(&mut bytes, self.position).with_context(describe)?;
                if read > 0 {
                    self.position += read as u64;
                    bytes.truncate(read);
                    return Ok(bytes);
                }
            }
            let Ok(about) = fs::metadata(&self.path) else { break };
            if open.is_some() && self.file == Some(identity(&about)) {
                break;
            }
            let Ok(file) = File::open(&self.path) else { break };
            let found = identity(&file.metadata().with_context(describe)?);
            if self.file != Some(found) {
                self.position = 0;
            }
            self.file = Some(found);
            *open = Some(file);
        }
        Ok(Vec::new())
    }

    /// Watches the log and its folder, or the nearest folder above that there is.
    fn watch(&self, events: &OwnedFd) -> Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // One that appears while this looks is found in the next turn.
        for _ in 0..DEEPEST {
            let nearest = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
            let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
            match inotify::add_watch(events, nearest, flags) {
                Ok(_) => {}
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(error) => return Err(error).with_context(|| format!("watching {}", nearest.display())),
            }
            if nearest == folder || folder.ancestors().find(|folder| folder.is_dir()) == Some(nearest) {
                break;
            }
        }
        match inotify::add_watch(events, &self.path, WatchFlags::MODIFY) {
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("watching {}", self.path.display())),
        }
    }

    fn told(&self, pattern: &str, last: &str) -> String {
        if self.file.is_none() {
            return format!("its console has no log {}", self.path.display());
        }
        let last: String = last.chars().take(TOLD).collect();
        let seen = if last.is_empty() { "nothing came".to_owned() } else { format!("the last is {last:?}") };
        format!("no line of its console matches {pattern:?}; {seen}")
    }
}

fn identity(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// Empties the queue; what is in it does not matter, as the files are looked at themselves.
fn drain(events: &OwnedFd) {
    let mut buffer = [0_u8; 4096];
    while let Ok(1..) | Err(Errno::INTR) = rustix::io::read(events, &mut buffer) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

    fn append(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn waits(mut console: Console, pattern: &'static str, time: Duration) -> thread::JoinHandle<Outcome> {
        thread::spawn(move || console.wait(pattern, Instant::now() + time, &Cancel::new().unwrap()).unwrap())
    }

    #[test]
    fn only_what_comes_after_it_was_made_counts() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("guest-web.log");
        append(&path, "web is up\n");
        let console = Console::begin(&path);
        let outcome = waits(Console::begin(&path), "is up", Duration::from_millis(100)).join().unwrap();
        assert!(matches!(&outcome, Outcome::NotReady(seen) if seen.contains("nothing came")), "{outcome}");
        // Before the wait, but after it was made; in parts, with colours.
        append(&path, "\x1b[32mweb");
        let waiter = waits(console, "^web is up$", LONG);
        thread::sleep(Duration::from_millis(50));
        append(&path, " is\x1b[0m up\r\n");
        assert_eq!(waiter.join().unwrap(), Outcome::Ready);
    }

    #[test]
    fn a_log_and_its_folder_may_come_later_and_a_prompt_has_no_end() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log/xen/guest-web.log");
        let waiter = waits(Console::begin(&path), "login: $", LONG);
        thread::sleep(Duration::from_millis(50));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        thread::sleep(Duration::from_millis(50));
        append(&path, "login: root\nweb login: ");
        assert_eq!(waiter.join().unwrap(), Outcome::Ready);
        let outcome = waits(Console::begin(place.path().join("none")), "x", Duration::from_millis(50)).join().unwrap();
        assert!(matches!(&outcome, Outcome::NotReady(seen) if seen.contains("has no log")), "{outcome}");
    }

    #[test]
    fn a_log_that_is_cut_or_replaced_is_read_on() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("guest-web.log");
        append(&path, "a long line that was there before\n");
        let waiter = waits(Console::begin(&path), "first", LONG);
        thread::sleep(Duration::from_millis(50));
        File::create(&path).unwrap();
        append(&path, "first\n");
        assert_eq!(waiter.join().unwrap(), Outcome::Ready);
        let waiter = waits(Console::begin(&path), "second", LONG);
        thread::sleep(Duration::from_millis(50));
        append(&place.path().join("new"), "second\n");
        fs::rename(place.path().join("new"), &path).unwrap();
        assert_eq!(waiter.join().unwrap(), Outcome::Ready);
    }

    #[test]
    fn a_flood_without_lines_ends_at_the_deadline_and_is_told_in_short() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("guest-web.log");
        let mut console = Console::begin(&path);
        append(&path, &"x".repeat(3 << 20));
        let (began, cancel) = (Instant::now(), Cancel::new().unwrap());
        let outcome = console.wait("y", Instant::now() + Duration::from_millis(500), &cancel).unwrap();
        assert!(matches!(&outcome, Outcome::NotReady(seen) if seen.len() < 300), "{outcome}");
        assert!(began.elapsed() < Duration::from_secs(20));
        cancel.cancel();
        assert_eq!(console.wait("y", Instant::now() + LONG, &cancel).unwrap(), Outcome::Cancelled);
    }
}
