//! A daemon's process: known by its number and by when it started, found as Debian's script finds it.

use crate::storage::Host;
use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// A process that cannot be taken for another one that got its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The path of its program.
    pub program: String,
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did. Source: proc(5), `/proc/PID/stat`, field 22.
    pub started: u64,
}

impl Process {
    /// The process of this number, if it lives and executes this program.
    pub(super) fn of(pid: u32, program: &Path) -> Option<Self> {
        let executes = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let executes = executes.to_string_lossy();
        // What an update replaced runs on.
        let executes = executes.strip_suffix(" (deleted)").unwrap_or(&executes);
        if Path::new(executes) != program {
            return None;
        }
        Some(Self { program: program.display().to_string(), pid, started: started(pid)? })
    }

    /// Whether it lives. A dead one whose parent has not asked for its exit code yet does not.
    #[must_use]
    pub fn lives(&self) -> bool {
        Self::of(self.pid, Path::new(&self.program)).is_some_and(|now| now == *self)
    }

    /// Becomes readable when it ends.
    pub(super) fn end(&self) -> Result<OwnedFd> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process of no number")?;
        let end = pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("watching process {pid:?}"))?;
        // Not another one that has got its number meanwhile.
        ensure!(self.lives(), "process {} has ended", self.pid);
        Ok(end)
    }

    /// The program's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.program.rsplit('/').next().unwrap_or_default()
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, process {}", self.name(), self.pid)
    }
}

/// Whether what [`Process::end`] returned is readable.
pub(super) fn has_ended(end: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(end, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

fn started(pid: u32) -> Option<u64> {
    started_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of a line of `/proc/PID/stat`. The second holds the name in brackets, which may have spaces and brackets.
fn started_of(line: &str) -> Option<u64> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok()).flatten()
}

/// The process that a PID file names, if it executes this program.
pub(super) fn by_file(host: Host<'_>, program: &Path, pid_file: &str) -> Option<Process> {
    let text = fs::read_to_string(host.path(pid_file)).ok()?;
    Process::of(text.trim().parse().ok()?, program)
}

/// The process that executes this program: the one of the PID file, or else any (whose number is then written to the file, for
/// Debian's script).
pub(super) fn find(host: Host<'_>, program: &Path, pid_file: &str) -> Option<Process> {
    if let Some(process) = by_file(host, program, pid_file) {
        return Some(process);
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let process = pids.find_map(|pid| Process::of(pid, program))?;
    if let Err(error) = fs::write(host.path(pid_file), format!("{}\n", process.pid)) {
        log::warn!("Debian's xen.service may not find {process}: {pid_file}: {error}");
    }
    Some(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_the_same_only_while_it_lives() {
        let program = fs::read_link("/proc/self/exe").unwrap();
        let me = Process::of(std::process::id(), &program).unwrap();
        assert!(me.lives());
        assert!(!Process { started: me.started + 1, ..me.clone() }.lives());
        assert_eq!(Process::of(std::process::id(), Path::new("/bin/other")), None);
        assert!(!has_ended(&me.end().unwrap()));

        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let program = fs::canonicalize("/bin/sleep").unwrap();
        // It executes this test until it executes its own program; spawn returns after that.
        let sleep = Process::of(child.id(), &program).unwrap();
        let end = sleep.end().unwrap();
        child.kill().unwrap();
        poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap();
        // Nobody has asked for its exit code yet.
        assert!(has_ended(&end) && !sleep.lives() && sleep.end().is_err());
        child.wait().unwrap();
    }

    #[test]
    fn the_time_is_found_behind_any_name() {
        let line = "400 (a) b (c)) S 1 399 399 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 2525 1 2";
        assert_eq!(started_of(line), Some(2525));
        assert_eq!(started_of(&line.replace(" S ", " Z ")), None);
        for odd in ["", "1 (x", "1 (x) S 1", "1 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"] {
            assert_eq!(started_of(odd), None, "{odd}");
        }
    }
}
