//! What is seen of a running guest: the text on its serial port and the lines on its report port.
//!
//! Two threads read; whoever waits is woken by every piece that arrives. A wait ends when what is waited for is there,
//! at once when the guest's text holds a word of disaster ([`DISASTERS`]) or QEMU is gone, and at its deadline.
//! Everything that the serial port says goes to a log file as it comes.

use super::terminal_text::Filter;
use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Text after which no guest recovers; a wait for anything else ends there.
pub const DISASTERS: &[&str] = &[
    "Kernel panic",
    "Attempted to kill init",
    "Oops: ",
    "BUG: ",
    "kernel BUG at",
    "Panic on CPU",
    "FATAL TRAP",
    "FATAL PAGE FAULT",
];

/// How much of the end of the serial text an error shows, in lines.
const TAIL: usize = 12;

#[derive(Default)]
struct Seen {
    text: String,
    report: VecDeque<String>,
    disaster: Option<String>,
    closed: bool,
    mirror: Option<Box<dyn Write + Send>>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

/// The watcher.
pub struct Watch {
    shared: Arc<Shared>,
    serial: UnixStream,
    report: UnixStream,
    /// The text before this place has been waited for already.
    cursor: usize,
}

impl Watch {
    /// Begins to read both connections; the serial port's bytes go to the file `log` too.
    ///
    /// # Errors
    /// The log cannot be written, or a connection cannot be used.
    pub fn start(serial: UnixStream, report: UnixStream, log: &Path) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let file = File::create(log).with_context(|| format!("writing {}", log.display()))?;
        let (reader, to) = (serial.try_clone().context("using the serial port")?, Arc::clone(&shared));
        std::thread::spawn(move || read_serial(reader, file, &to));
        let (reader, to) = (report.try_clone().context("using the report port")?, Arc::clone(&shared));
        std::thread::spawn(move || read_report(reader, &to));
        Ok(Self { shared, serial, report, cursor: 0 })
    }

    /// Sends a copy of all that the serial port says from now on to `out`.
    pub fn mirror(&self, out: Box<dyn Write + Send>) {
        lock(&self.shared).mirror = Some(out);
    }

    /// Waits until the serial port says `text` after what was waited for before; returns what it said until then.
    ///
    /// # Errors
    /// The deadline, a disaster, the end of QEMU; with the last lines of the serial port.
    pub fn wait_for(&mut self, text: &str, within: Duration) -> Result<String> {
        let (_, before) = self.wait_for_any(&[text], within)?;
        Ok(before)
    }

    /// Waits until the serial port says one of `texts`; returns which (the first to appear) and what it said until then.
    ///
    /// # Errors
    /// As [`Watch::wait_for`].
    pub fn wait_for_any(&mut self, texts: &[&str], within: Duration) -> Result<(usize, String)> {
        let cursor = self.cursor;
        let wanted = texts.join("\" or \"");
        let (which, start, end) = self.wait(&format!("\"{wanted}\" on the serial port"), within, |seen| {
            let rest = seen.text.get(cursor..)?;
            let found = texts.iter().enumerate().filter_map(|(which, text)| Some((rest.find(text)?, which)));
            let (start, which) = found.min()?;
            Some((which, cursor + start, cursor + start + texts.get(which)?.len()))
        })?;
        self.cursor = end;
        let before = lock(&self.shared).text.get(cursor..start).unwrap_or_default().to_owned();
        Ok((which, before))
    }

    /// Waits for the next line on the report port.
    ///
    /// # Errors
    /// As [`Watch::wait_for`].
    pub fn wait_for_report(&mut self, within: Duration) -> Result<String> {
        self.wait("a line on the report port", within, |seen| seen.report.pop_front())
    }

    fn wait<T>(&self, what: &str, within: Duration, mut find: impl FnMut(&mut Seen) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + within;
        let mut seen = lock(&self.shared);
        loop {
            if let Some(found) = find(&mut seen) {
                return Ok(found);
            }
            let end = tail(&seen.text);
            if let Some(line) = &seen.disaster {
                bail!("the guest is lost while waiting for {what}: {line}\n{end}");
            }
            if seen.closed {
                bail!("QEMU ended while waiting for {what}; the serial port's last lines:\n{end}");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("waited {} s in vain for {what}; the serial port's last lines:\n{end}", within.as_secs());
            }
            seen = self.shared.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Types on the serial port.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.serial.write_all(text.as_bytes()).context("typing on the serial port")
    }

    /// A second handle on the serial port, for a terminal that types by itself.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn keyboard(&self) -> Result<UnixStream> {
        self.serial.try_clone().context("using the serial port")
    }

    /// Sends a line to the guest's program on the report port.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        self.report.write_all(format!("{line}\n").as_bytes()).context("sending a line to the report port")
    }

    /// All that the serial port has said so far, without control sequences.
    pub fn text(&self) -> String {
        lock(&self.shared).text.clone()
    }

    /// The first line of disaster so far, if there is one.
    pub fn disaster(&self) -> Option<String> {
        lock(&self.shared).disaster.clone()
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Seen> {
    // The data is whole after every statement, so a thread that panicked while it held the lock spoiled nothing.
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_serial(mut from: impl Read, mut log: impl Write, shared: &Shared) {
    let mut buffer = [0; 4096];
    let mut filter = Filter::default();
    let mut line_start = 0;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = buffer.get(..length).unwrap_or_default();
        // A log that cannot be written (full disk) must not stop the test: the text is in memory too.
        let _ = log.write_all(bytes);
        let mut seen = lock(shared);
        if let Some(mirror) = &mut seen.mirror {
            let _ = mirror.write_all(bytes).and_then(|()| mirror.flush());
        }
        filter.add(bytes, &mut seen.text);
        if seen.disaster.is_none() {
            seen.disaster = seen.text.get(line_start..).and_then(disaster_in);
        }
        line_start = seen.text.rfind('\n').map_or(0, |end| end + 1);
        shared.changed.notify_all();
    }
    lock(shared).closed = true;
    shared.changed.notify_all();
}

fn read_report(from: impl Read, shared: &Shared) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        lock(shared).report.push_back(line);
        shared.changed.notify_all();
    }
}

/// The first line with a word of disaster.
fn disaster_in(text: &str) -> Option<String> {
    let line = text.lines().find(|line| DISASTERS.iter().any(|word| line.contains(word)))?;
    Some(line.trim().to_owned())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last: Vec<String> =
        lines.iter().skip(lines.len().saturating_sub(TAIL)).map(|line| format!("    | {line}")).collect();
    last.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> (Watch, UnixStream, UnixStream, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (serial, serial_end) = UnixStream::pair().unwrap();
        let (report, report_end) = UnixStream::pair().unwrap();
        let watch = Watch::start(serial, report, &folder.path().join("serial.log")).unwrap();
        (watch, serial_end, report_end, folder)
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn text_is_found_once_and_in_order_and_logged_raw() {
        let (mut watch, mut guest, _report, folder) = watch();
        guest.write_all(b"one \x1b[1mlogin: two login: three\r\n").unwrap();
        assert_eq!(watch.wait_for("login:", SOON).unwrap(), "one ");
        assert_eq!(watch.wait_for("login:", SOON).unwrap(), " two ");
        assert_eq!(watch.wait_for_any(&["zzz", "three"], SOON).unwrap().0, 1);
        let error = watch.wait_for("login:", Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("in vain") && error.contains("| one login"), "{error}");
        drop(guest);
        assert!(watch.wait_for("x", SOON).unwrap_err().to_string().contains("QEMU ended"));
        let log = std::fs::read(folder.path().join("serial.log")).unwrap();
        assert!(log.starts_with(b"one \x1b[1m"));
    }

    #[test]
    fn a_disaster_ends_every_wait_at_once_even_one_for_the_report() {
        let (mut watch, mut guest, _report, _folder) = watch();
        guest.write_all(b"fine\n[ 1.0] Kernel pa").unwrap();
        guest.write_all(b"nic - not syncing\n").unwrap();
        let error = watch.wait_for_report(SOON).unwrap_err().to_string();
        assert!(error.contains("[ 1.0] Kernel panic - not syncing"), "{error}");
    }

    #[test]
    fn reports_come_line_by_line_and_commands_go_back() {
        let (mut watch, mut guest, mut report, _folder) = watch();
        report.write_all(b"{\"a\":1}\n{\"b\"").unwrap();
        assert_eq!(watch.wait_for_report(SOON).unwrap(), "{\"a\":1}");
        report.write_all(b":2}\n").unwrap();
        assert_eq!(watch.wait_for_report(SOON).unwrap(), "{\"b\":2}");
        watch.tell("read-all").unwrap();
        watch.type_text("root\n").unwrap();
        let mut line = [0; 9];
        report.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"read-all\n");
        let mut typed = [0; 5];
        guest.read_exact(&mut typed).unwrap();
        assert_eq!(&typed, b"root\n");
    }
}
