//! A guest's console: connected to, or what it has said.

use super::{find, state, unknown, waiting};
use crate::config::origins::clean;
use crate::guests::daemons::CONSOLE_LOGS;
use crate::guests::engine::GuestReport;
use crate::guests::probe::lines::Lines;
use crate::guests::settings::nearest;
use crate::guests::xl::Xl;
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::inotify::WatchFlags;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A line that has not ended (a prompt) is shown when nothing was added to it for this long.
const QUIET: Duration = Duration::from_millis(200);
/// Room for one read, in bytes.
const CHUNK: usize = 64 << 10;

/// Becomes `xl console`.
///
/// # Errors
/// There is no such guest, it does not run, or xl cannot be executed.
pub(super) fn connect(name: &str) -> Result<()> {
    let state = state()?;
    let domid = domain(find(&state, name)?)?;
    // By its number, because a name may look like a number or an option.
    let error = Command::new(Xl::find()?.program).arg("console").arg(domid.to_string()).exec();
    Err(error).context("executing xl console")
}

fn domain(guest: &GuestReport) -> Result<u32> {
    guest.domid.with_context(|| {
        let name = clean(&guest.name, 64);
        let why = if guest.cause.is_empty() { String::new() } else { format!(": {}", clean(&guest.cause, 300)) };
        let log = "what it said before: sino guests log";
        format!("{name} does not run, it is {}{why}; sino guests start {name}; {log} {name}", guest.state)
    })
}

/// Shows the log of a guest's console.
///
/// # Errors
/// There is none, or it cannot be read.
pub(super) fn log(name: &str, follow: bool, last: Option<usize>) -> Result<()> {
    let shown = show(Path::new(CONSOLE_LOGS), name, follow, last, &mut std::io::stdout().lock());
    match shown {
        // Whoever read it has seen enough.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => {
            Ok(())
        }
        Err(error) => {
            let guests = state().unwrap_or_default().guests;
            let known = guests.iter().any(|guest| guest.name == name);
            Err(if known || guests.is_empty() { error } else { anyhow!("{error:#}; {}", unknown(name, &guests)) })
        }
        Ok(()) => Ok(()),
    }
}

fn show(folder: &Path, name: &str, follow: bool, last: Option<usize>, out: &mut dyn Write) -> Result<()> {
    ensure!(!name.is_empty() && !name.contains('/'), "{} is no name of a guest", clean(name, 64));
    let path = folder.join(format!("guest-{name}.log"));
    // Watched before it is read, so that nothing is missed.
    let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
    let events = if follow { Some(waiting::watch(folder, what)?) } else { None };
    let mut tail = Tail { path, open: None, at: 0, lines: Lines::default(), shown: String::new() };
    let mut first: VecDeque<String> = VecDeque::new();
    tail.read(|line| {
        first.push_back(line.to_owned());
        if last.is_some_and(|last| first.len() > last) {
            first.pop_front();
        }
        Ok(())
    })?;
    if tail.open.is_none() && !follow {
        bail!("{} has said nothing in this boot{}", clean(name, 64), others(folder, name));
    }
    for line in first {
        writeln!(out, "{line}")?;
    }
    let Some(events) = events else {
        let begun = tail.lines.begun();
        if !begun.is_empty() && last != Some(0) {
            writeln!(out, "{begun}")?;
        }
        return Ok(());
    };
    if tail.open.is_none() {
        eprintln!("{} has said nothing yet in this boot; waiting{}", clean(name, 64), others(folder, name));
    }
    loop {
        tail.prompt(out)?;
        waiting::wait(&events, None)?;
        // What comes bit by bit is taken together.
        let settled = Instant::now() + QUIET;
        loop {
            tail.follow(out)?;
            if Instant::now() >= settled {
                break;
            }
            waiting::wait(&events, Some(settled))?;
        }
    }
}

/// The guests that have a log, for a name that was mistyped.
fn others(folder: &Path, name: &str) -> String {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let file = entry.file_name().into_string().ok()?;
        Some(file.strip_prefix("guest-")?.strip_suffix(".log")?.to_owned())
    });
    let names: Vec<String> = names.collect();
    let meant = nearest(name, names.iter().map(String::as_str));
    meant.map(|meant| format!("; did you mean {}?", clean(meant, 64))).unwrap_or_default()
}

/// A file that grows, and may be cut or replaced.
struct Tail {
    path: PathBuf,
    open: Option<(File, u64, u64)>,
    at: u64,
    lines: Lines,
    /// The part of the last line that is on the screen.
    shown: String,
}

impl Tail {
    /// Gives the lines that were added.
    fn read(&mut self, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
        loop {
            match std::fs::metadata(&self.path) {
                Ok(about) => {
                    let same = self.open.as_ref().is_some_and(|(_, device, inode)| {
                        (*device, *inode) == (about.dev(), about.ino()) && about.len() >= self.at
                    });
                    if !same {
                        let reading = || format!("reading {}", self.path.display());
                        ensure!(about.is_file(), "{} is no file", self.path.display());
                        let file = File::open(&self.path).with_context(reading)?;
                        if self.open.replace((file, about.dev(), about.ino())).is_some() {
                            // Nobody will end the old file's last line.
                            push(&mut self.lines, b"\n", &mut each)?;
                        }
                        self.at = 0;
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error).with_context(|| format!("reading {}", self.path.display())),
            }
            let Some((file, ..)) = &mut self.open else { return Ok(()) };
            let mut chunk = vec![0; CHUNK];
            let count = file.read(&mut chunk).with_context(|| format!("reading {}", self.path.display()))?;
            if count == 0 {
                return Ok(());
            }
            self.at += u64::try_from(count).unwrap_or_default();
            push(&mut self.lines, chunk.get(..count).unwrap_or_default(), &mut each)?;
        }
    }

    /// Shows the lines that were added.
    fn follow(&mut self, out: &mut dyn Write) -> Result<()> {
        let mut shown = std::mem::take(&mut self.shown);
        self.read(|line| {
            let before = std::mem::take(&mut shown);
            match line.strip_prefix(before.as_str()) {
                Some(rest) => writeln!(out, "{rest}")?,
                None => write!(out, "\n{line}\n")?,
            }
            Ok(())
        })?;
        self.shown = shown;
        out.flush()?;
        Ok(())
    }

    /// Shows what there is of a line that has not ended.
    fn prompt(&mut self, out: &mut dyn Write) -> Result<()> {
        let begun = self.lines.begun();
        if let Some(rest) = begun.strip_prefix(self.shown.as_str()) {
            write!(out, "{rest}")?;
            out.flush()?;
            self.shown = begun;
        }
        Ok(())
    }
}

/// Gives lines until one of them cannot be taken.
fn push(lines: &mut Lines, bytes: &[u8], each: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let mut result = Ok(());
    lines.push(bytes, |line| {
        if result.is_ok() {
            result = each(line);
        }
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::mpsc::{Sender, channel};

    fn shown(folder: &Path, name: &str, last: Option<usize>) -> Result<String> {
        let mut out = Vec::new();
        show(folder, name, false, last, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_log_is_shown_as_text_whole_or_its_end() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("guest-web.log"), "one\r\n\u{1b}[31mtwo\u{1b}[0m\n\u{7}three\nlogin: ").unwrap();
        assert_eq!(shown(folder.path(), "web", None).unwrap(), "one\ntwo\nthree\nlogin: \n");
        assert_eq!(shown(folder.path(), "web", Some(1)).unwrap(), "three\nlogin: \n");
        assert_eq!(shown(folder.path(), "web", Some(0)).unwrap(), "");
        let error = shown(folder.path(), "wep", None).unwrap_err().to_string();
        assert_eq!(error, "wep has said nothing in this boot; did you mean web?");
        assert!(shown(folder.path(), "../x", None).is_err());
    }

    struct Told(Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_comes_is_followed_over_prompts_and_a_log_that_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guest-web.log");
        let (sender, receiver) = channel();
        let of = folder.path().to_owned();
        let reader = std::thread::spawn(move || show(&of, "web", true, None, &mut Told(sender)));
        let mut text = String::new();
        let mut until = |end: &str| {
            while !text.ends_with(end) {
                let bytes = receiver.recv_timeout(Duration::from_secs(30)).expect(end);
                text.push_str(std::str::from_utf8(&bytes).unwrap());
            }
            text.clone()
        };
        let add = |more: &str| {
            let mut file = File::options().append(true).create(true).open(&path).unwrap();
            file.write_all(more.as_bytes()).unwrap();
        };
        // Nobody tells when it has begun to watch; whatever comes first, it sees the file.
        add("booting\nlogin: ");
        assert_eq!(until("login: "), "booting\nlogin: ");
        add("root\nPassword: ");
        assert_eq!(until("Password: "), "booting\nlogin: root\nPassword: ");
        fs::write(folder.path().join("new"), "again\n").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(until("again\n").ends_with("Password: \nagain\n"));
        drop(receiver);
        add("nobody reads this\n");
        let error = reader.join().unwrap().unwrap_err();
        assert_eq!(error.downcast_ref::<std::io::Error>().unwrap().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_guest_that_does_not_run_has_no_console() {
        let mut guest = GuestReport { name: "web".into(), state: "failed".into(), ..GuestReport::default() };
        guest.cause = "no disk".into();
        let error = domain(&guest).unwrap_err().to_string();
        assert!(error.starts_with("web does not run, it is failed: no disk; sino guests start web"), "{error}");
        guest.domid = Some(4);
        assert_eq!(domain(&guest).unwrap(), 4);
    }
}
