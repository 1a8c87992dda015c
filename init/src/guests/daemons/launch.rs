//! Starts a daemon as Debian's script does, and waits until it is there: by its PID file and, for xenstored, by its first answer.

use super::process::{self, Process, has_ended};
use crate::child;
use crate::guests::xenstore::{Client, SOCKET};
use crate::storage::Host;
use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{Pid, setpriority_process};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What daemons write before they are on their own, one file each.
const LOGS: &str = "/run/sino/xen";
/// Where xenstored keeps its socket. Source: Debian's /etc/init.d/xen.
pub(super) const XENSTORED_FOLDER: &str = "/run/xenstored";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Between binding its socket and listening on it a program makes no event. It takes microseconds.
const SOON: Duration = Duration::from_millis(20);
/// What is waited for in a folder with PID files or sockets.
pub(super) const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE);

/// How nice a daemon is while it starts and others come first. Source: nice(1).
const WAITING: &str = "15";

const ENDED: &str = "it ended as soon as it began";

/// A daemon to start.
pub(super) struct Launch<'a> {
    /// The path of its program.
    pub(super) program: &'a Path,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Where it writes its number.
    pub(super) pid_file: &'static str,
    /// Whether it is only there once it answers as xenstored does.
    pub(super) answers: bool,
    /// How much rather than others it is ended when memory is short, -1000 to 1000. Source: proc(5), `oom_score_adj`.
    pub(super) oom: i32,
    /// Whether others come first until it is there.
    pub(super) waits: bool,
}

impl Launch<'_> {
    /// Starts it and waits until it is there.
    ///
    /// # Errors
    /// It cannot be executed, it ends, or it is not there in time; with what it wrote.
    pub(super) fn run(&self, host: Host<'_>, limit: Duration) -> Result<Process> {
        let deadline = Instant::now() + limit;
        let changes =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("asking for changes of files")?;
        for folder in ["/run", XENSTORED_FOLDER] {
            // The second is there before xenstored, and nobody else needs it.
            let _ = inotify::add_watch(&changes, host.path(folder), CHANGES);
        }
        let said = |error: anyhow::Error| match self.said(host) {
            Some(said) => error.context(format!("it wrote: {said}")),
            None => error,
        };
        // Of one that died: nobody runs, or nothing would be started.
        let _ = fs::remove_file(host.path(self.pid_file));
        self.begin(host, limit).map_err(said)?;
        let process = self.comes(host, &changes, deadline).map_err(said)?;
        self.protect(&process);
        if self.waits {
            hurry(&process);
        }
        Ok(process)
    }

    /// Starts it and waits until its first process has ended, which leaves the daemon behind.
    ///
    /// # Errors
    /// It cannot be executed, or fails at once.
    fn begin(&self, host: Host<'_>, limit: Duration) -> Result<()> {
        let path = self.log(host);
        let log = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| OpenOptions::new().create(true).write(true).truncate(true).open(&path));
        let log = log.with_context(|| format!("writing {}", path.display()))?;
        let mut command = if self.waits { Command::new("nice") } else { Command::new(self.program) };
        if self.waits {
            command.args(["-n", WAITING]).arg(self.program);
        }
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("XENSTORED_ROOTDIR", host.path(XENSTORED_FOLDER))
            .current_dir("/")
            .stdout(log.try_clone().context("opening its log twice")?)
            .stderr(Stdio::from(log));
        let status = child::run(&mut command, limit)?;
        if !status.success() {
            bail!("{} ended with {status}", child::words(&command));
        }
        Ok(())
    }

    fn comes(&self, host: Host<'_>, changes: &OwnedFd, deadline: Instant) -> Result<Process> {
        let mut found: Option<(Process, OwnedFd)> = None;
        loop {
            // Asked before the process: what is written whole then has been written by one that lived.
            let written = fs::read_to_string(host.path(self.pid_file)).is_ok_and(|text| text.ends_with('\n'));
            if found.is_none() && written {
                let process = process::by_file(host, self.program, self.pid_file).context(ENDED)?;
                let end = process.end()?;
                found = Some((process, end));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some((process, end)) = &found {
                if has_ended(end) {
                    bail!(ENDED);
                }
                if !self.answers || answers(host, left) {
                    return Ok(process.clone());
                }
            }
            if left.is_zero() {
                let what = if found.is_some() { "it does not answer" } else { "it has not written its PID file" };
                return Err(anyhow!("{what} ({})", self.pid_file));
            }
            let soon = found.is_some() && self.answers && host.path(SOCKET).exists();
            let left = if soon { left.min(SOON) } else { left };
            let mut fds = vec![PollFd::new(changes, PollFlags::IN)];
            fds.extend(found.iter().map(|(_, end)| PollFd::new(end, PollFlags::IN)));
            // A signal ends the wait early, which only costs a turn.
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
            drain(changes);
        }
    }

    /// Makes it one of the last to end when memory is short.
    fn protect(&self, process: &Process) {
        let path = format!("/proc/{}/oom_score_adj", process.pid);
        if let Err(error) = fs::write(&path, self.oom.to_string()) {
            log::warn!("{process} may be ended when memory is short: {path}: {error}");
        }
    }

    fn log(&self, host: Host<'_>) -> PathBuf {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        host.path(&format!("{LOGS}/{name}.log"))
    }

    /// The last that it wrote, on one line.
    fn said(&self, host: Host<'_>) -> Option<String> {
        let text = fs::read(self.log(host)).ok()?;
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines.get(lines.len().saturating_sub(4)..)?.join("; ");
        (!last.is_empty()).then(|| crate::config::origins::clean(&last, 600))
    }
}

/// Ends a daemon's waiting for others: of all its threads, for each has its own nice.
fn hurry(process: &Process) {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid)).into_iter().flatten().flatten();
    let threads = tasks.filter_map(|task| Pid::from_raw(task.file_name().to_str()?.parse().ok()?));
    for thread in threads {
        if let Err(error) = setpriority_process(Some(thread), 0) {
            // Ended, or at worst it is slow where the CPUs are busy.
            log::warn!("{process} stays behind others: {error}");
        }
    }
}

/// Whether xenstored answers.
pub(super) fn answers(host: Host<'_>, limit: Duration) -> bool {
    Client::by_socket(&host.path(SOCKET)).is_ok_and(|client| client.within(limit).read("/").is_ok())
}

/// Empties a queue of changes.
pub(super) fn drain(changes: &OwnedFd) {
    let mut buffer = [0; 4096];
    // Not blocking: an error is an empty queue.
    while rustix::io::read(changes, &mut buffer).is_ok_and(|length| length > 0) {}
}
