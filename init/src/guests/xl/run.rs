//! Runs one program to its end or its deadline, and keeps what it says.
//!
//! The program leads a process group of its own. At the deadline the group is killed. What has left the group by then with
//! `setsid` lives on: the daemon that `xl create` leaves behind for a domain that it has created, and device models.

use super::failure::{Failure, Kind};
use crate::child::words;
use crate::guests::probe::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much of each stream is kept for people, in bytes.
pub const WORDS: usize = 64 << 10;
/// How much of each stream is kept where all of it is needed, in bytes: lists, Xen's console ring.
pub const DATA: usize = 4 << 20;
/// How much of the end is kept beside that, in bytes: the cause of a failure tends to stand last.
const TAIL: usize = 8 << 10;
/// How long a killed process may take to go; one in an uninterruptible call of the hypervisor does not go at all.
const GONE: Duration = Duration::from_secs(5);
/// Room for one read, in bytes: a pipe's usual size.
const CHUNK: usize = 64 << 10;
/// How much is read from one stream before the other things are looked at again, in chunks.
const TURN: usize = 16;

/// A program that has ended by itself.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Captured,
    /// Its standard error.
    pub stderr: Captured,
    /// How long it ran.
    pub took: Duration,
}

/// What was kept of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    head: Vec<u8>,
    tail: Vec<u8>,
    /// How many bytes between beginning and end were not kept.
    pub left_out: u64,
}

impl Captured {
    /// All of it, if all of it was kept.
    #[must_use]
    pub fn whole(&self) -> Option<&[u8]> {
        (self.left_out == 0 && self.tail.is_empty()).then_some(&self.head)
    }

    /// What was kept, with a line that says how much is missing.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        if self.left_out > 0 {
            bytes.extend(format!("\n[{} bytes left out]\n", self.left_out).bytes());
        }
        bytes.extend(&self.tail);
        bytes
    }

    fn push(&mut self, bytes: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend(first);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(TAIL);
        if over > 0 {
            self.tail.drain(..over);
            self.left_out += over as u64;
        }
    }
}

/// Runs `command` until it ends, `deadline`, or `cancel`; keeps `limit` bytes of each stream.
///
/// # Errors
/// It cannot be started, did not end in time (it and its process group are killed), or ended with another status than 0.
pub fn run(
    command: &mut Command,
    limit: usize,
    deadline: Instant,
    cancel: Option<&Cancel>,
) -> Result<Finished, Failure> {
    let what = words(command);
    let began = Instant::now();
    let fail = |kind, stdout: &Captured, stderr: &Captured| {
        Failure::new(what.clone(), kind, began.elapsed(), &stdout.bytes(), &stderr.bytes())
    };
    let none = Captured::default();
    let broken = |error: io::Error| fail(Kind::CannotRun(error.to_string()), &none, &none);
    // Not started at all is better than started and killed at once.
    if began >= deadline {
        return Err(fail(Kind::Deadline, &none, &none));
    }
    if cancel.is_some_and(Cancel::is_cancelled) {
        return Err(fail(Kind::Cancelled, &none, &none));
    }
    let mut running = Running::start(command, limit).map_err(broken)?;
    let end = running.wait(deadline, cancel);
    if !matches!(end, Ok(End::Exited)) {
        running.kill();
    }
    // What it wrote before its end is in the pipes. Others that hold them are not waited for.
    running.stdout.take();
    running.stderr.take();
    let (stdout, stderr) = (running.stdout.kept, running.stderr.kept);
    match end.map_err(broken)? {
        End::Deadline => Err(fail(Kind::Deadline, &stdout, &stderr)),
        End::Cancelled => Err(fail(Kind::Cancelled, &stdout, &stderr)),
        End::Exited => {
            let status = running.child.wait().map_err(broken)?;
            match Kind::of(status) {
                Some(kind) => Err(fail(kind, &stdout, &stderr)),
                None => Ok(Finished { status, stdout, stderr, took: began.elapsed() }),
            }
        }
    }
}

enum End {
    Exited,
    Deadline,
    Cancelled,
}

struct Running {
    child: Child,
    pid: Pid,
    ended: OwnedFd,
    stdout: Stream,
    stderr: Stream,
}

impl Running {
    fn start(command: &mut Command, limit: usize) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // xl's messages are compared with what is known of them.
            .env("LC_ALL", "C")
            .process_group(0)
            .spawn()?;
        match Self::watch(&mut child, limit) {
            Ok((pid, ended, stdout, stderr)) => Ok(Self { child, pid, ended, stdout, stderr }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    fn watch(child: &mut Child, limit: usize) -> io::Result<(Pid, OwnedFd, Stream, Stream)> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        let stdout = Stream::new(child.stdout.take().map(OwnedFd::from), limit)?;
        let stderr = Stream::new(child.stderr.take().map(OwnedFd::from), limit)?;
        Ok((pid, ended, stdout, stderr))
    }

    fn wait(&mut self, deadline: Instant, cancel: Option<&Cancel>) -> io::Result<End> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = vec![PollFd::new(&self.ended, PollFlags::IN)];
            fds.extend(cancel.map(|cancel| PollFd::from_borrowed_fd(cancel.fd(), PollFlags::IN)));
            fds.extend(self.stdout.fd.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            fds.extend(self.stderr.fd.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            if fds.first().is_some_and(|ended| !ended.revents().is_empty()) {
                return Ok(End::Exited);
            }
            if cancel.is_some_and(Cancel::is_cancelled) {
                return Ok(End::Cancelled);
            }
            if left.is_zero() {
                return Ok(End::Deadline);
            }
            self.stdout.take();
            self.stderr.take();
        }
    }

    /// Kills the process group; the leader is no more than a zombie until it is waited for here, so its number is its own.
    fn kill(&mut self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        let time = Instant::now() + GONE;
        loop {
            let left = Timespec::try_from(time.saturating_duration_since(Instant::now())).ok();
            match poll(&mut [PollFd::from_borrowed_fd(self.ended.as_fd(), PollFlags::IN)], left.as_ref()) {
                Err(Errno::INTR) => {}
                Ok(1..) => {
                    let _ = self.child.wait();
                    return;
                }
                // Stuck in the kernel: whoever takes over orphans reaps it; nothing waits for it here.
                Ok(0) | Err(_) => return,
            }
        }
    }
}

/// One output of the program, read without blocking.
struct Stream {
    fd: Option<OwnedFd>,
    kept: Captured,
    limit: usize,
    chunk: Vec<u8>,
}

impl Stream {
    fn new(fd: Option<OwnedFd>, limit: usize) -> io::Result<Self> {
        if let Some(fd) = &fd {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { fd, kept: Captured::default(), limit, chunk: vec![0; CHUNK] })
    }

    /// Takes what is there, up to a turn's worth.
    fn take(&mut self) {
        for _ in 0..TURN {
            let Some(fd) = &self.fd else { return };
            match rustix::io::read(fd, &mut self.chunk[..]) {
                Ok(0) => self.fd = None,
                Ok(length) => self.kept.push(self.chunk.get(..length).unwrap_or_default(), self.limit),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.fd = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: usize, time: u64) -> Result<Finished, Failure> {
        let deadline = Instant::now() + Duration::from_millis(time);
        run(Command::new("sh").args(["-c", script]), limit, deadline, None)
    }

    #[test]
    fn both_streams_are_kept_with_limits_and_none_blocks_the_program() {
        let done = shell("echo out; echo err >&2", 100, 60_000).unwrap();
        assert_eq!((done.stdout.whole(), done.stderr.whole()), (Some(&b"out\n"[..]), Some(&b"err\n"[..])));
        let done =
            shell("head -c 3000000 /dev/zero >&2; head -c 3000000 /dev/zero; echo end; echo last >&2", 100, 60_000)
                .unwrap();
        assert_eq!(done.stdout.whole(), None);
        assert_eq!(done.stdout.left_out + 100 + TAIL as u64, 3_000_004);
        assert!(done.stdout.bytes().ends_with(b"\0end\n") && done.stderr.bytes().ends_with(b"\0last\n"));
        assert!(done.stdout.bytes().len() < 100 + TAIL + 100);
    }

    #[test]
    fn a_child_that_holds_the_output_is_not_waited_for() {
        let began = Instant::now();
        let done = shell("echo it; sleep 30 & echo $! >&2", 1000, 20_000).unwrap();
        assert!(began.elapsed() < Duration::from_secs(15));
        assert_eq!(done.stdout.whole(), Some(&b"it\n"[..]));
        let left: i32 = String::from_utf8(done.stderr.bytes()).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn statuses_and_programs_that_are_not_there_are_told() {
        assert_eq!(shell("exit 3", 100, 60_000).unwrap_err().kind, Kind::Status(3));
        assert_eq!(shell("kill -9 $$", 100, 60_000).unwrap_err().kind, Kind::Signal(9));
        let deadline = Instant::now() + Duration::from_secs(60);
        let error = run(&mut Command::new("/no/such"), 100, deadline, None).unwrap_err();
        assert!(matches!(error.kind, Kind::CannotRun(_)), "{error}");
        assert_eq!(shell("true", 100, 0).unwrap_err().kind, Kind::Deadline);
    }

    #[test]
    fn a_flood_and_a_cancel_end_a_program() {
        let began = Instant::now();
        let error = shell("yes error", 1000, 300).unwrap_err();
        assert_eq!(error.kind, Kind::Deadline);
        let cancel = Cancel::new().unwrap();
        let waiter = std::thread::spawn({
            let cancel = cancel.clone();
            move || {
                run(Command::new("sleep").arg("60"), 100, Instant::now() + Duration::from_secs(60), Some(&cancel))
                    .unwrap_err()
                    .kind
            }
        });
        cancel.cancel();
        assert_eq!(waiter.join().unwrap(), Kind::Cancelled);
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
