//! A shell on every console, for both stages. Which program the shell is, the caller says.

use crate::console;
use anyhow::{Context, Result};
use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, wait};
use std::fs::OpenOptions;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What is read from a terminal right after its shell was opened does not count as a key: busybox asks the terminal where its
/// cursor is, and the kernel's own terminal answers.
const TERMINAL_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Ends the wait for somebody to come.
#[derive(Clone, Copy, Debug)]
pub struct Countdown {
    /// How long nobody may press a key.
    pub limit: Duration,
    /// What happens then, for people.
    pub then: &'static str,
}

/// Something besides the shells that may go on: when `fd` is readable, `wants` says whether that is a reason. Counts
/// only while nobody has pressed a key.
pub struct Waker<'a> {
    /// What to wait for.
    pub fd: BorrowedFd<'a>,
    /// Reads it, and says whether to go on.
    pub wants: &'a mut dyn FnMut() -> bool,
}

/// Why the shells are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Somebody left a shell.
    Shell,
    /// Nobody pressed a key in time.
    TimeUp,
    /// The waker had a reason.
    Woken,
}

/// Opens a shell on every console and waits until one of them is left; the others are ended then. `command` makes the
/// command of one shell; it must begin a session and take its standard input as controlling terminal (`setsid -c`).
///
/// Reaps every child that ends meanwhile, so only process 1 may call it. Where no shell can be opened it says so; then only
/// the countdown or the waker ends the wait, and without either it never returns: the explanation stays on the consoles.
pub fn open(
    how: &str,
    command: &dyn Fn() -> Command,
    countdown: Option<Countdown>,
    mut waker: Option<Waker<'_>>,
) -> Left {
    let keys = Keys::new();
    console::say(&format!("rescue shell on every console: {how}"), Level::Error);
    let mut countdown = countdown.map(Announcer::start);
    let mut shells = Vec::new();
    for name in console::all() {
        // tty0 is whichever terminal is in front; a shell needs one of its own.
        let tty = if name == "tty0" { "tty1".to_owned() } else { name };
        keys.watch(&tty);
        match open_on(&tty, command()) {
            Ok(shell) => shells.push(shell),
            Err(error) => console::say(&format!("no rescue shell on {tty}: {error:#}"), Level::Warn),
        }
    }
    if shells.is_empty() {
        console::say("no rescue shell could be opened", Level::Error);
    }
    let opened = Instant::now();
    let left = loop {
        let next = countdown.as_ref().map(Announcer::next);
        let ready = wait_for(&shells, &keys, waker.as_ref(), next);
        if reap(&mut shells) {
            break Left::Shell;
        }
        if ready.key && opened.elapsed() > TERMINAL_ANSWERS_WITHIN && countdown.take().is_some() {
            waker = None;
            console::say("a key was pressed: the rescue shell stays open", Level::Warn);
        }
        if ready.waker && waker.as_mut().is_some_and(|waker| (waker.wants)()) {
            break Left::Woken;
        }
        if countdown.as_mut().is_some_and(Announcer::is_over) {
            break Left::TimeUp;
        }
    };
    for (pid, _) in shells {
        // It may have ended in the same moment.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    left
}

/// Says how much time is left.
struct Announcer {
    countdown: Countdown,
    began: Instant,
    /// What is left when the next line is due.
    due: Duration,
}

impl Announcer {
    fn start(countdown: Countdown) -> Self {
        let mut announcer = Self { countdown, began: Instant::now(), due: countdown.limit };
        announcer.say("; press any key to stay");
        announcer
    }

    fn say(&mut self, more: &str) {
        let left = self.due.as_secs();
        console::say(&format!("in {left} s {}{more}", self.countdown.then), Level::Error);
        // Each minute, then at 30, 10 and 0 seconds.
        let next = match left {
            61.. => (left - 1) / 60 * 60,
            31..=60 => 30,
            11..=30 => 10,
            _ => 0,
        };
        self.due = Duration::from_secs(next);
    }

    /// When something has to be said or done.
    fn next(&self) -> Instant {
        self.began + self.countdown.limit.saturating_sub(self.due)
    }

    /// Says what is due; whether the time is up.
    fn is_over(&mut self) -> bool {
        while Instant::now() >= self.next() {
            if self.due.is_zero() {
                return true;
            }
            self.say("; press any key to stay");
        }
        false
    }
}

/// Notices that somebody types: a terminal from which a shell has read. Source: inotify(7), `IN_ACCESS`.
struct Keys(Option<OwnedFd>);

impl Keys {
    fn new() -> Self {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        Self(inotify::init(flags).inspect_err(|error| log::warn!("keys cannot be noticed: {error}")).ok())
    }

    fn watch(&self, tty: &str) {
        if let Some(fd) = &self.0 {
            // Without it a key on this terminal does not stop the countdown; leaving its shell still does.
            let _ = inotify::add_watch(fd, format!("/dev/{tty}"), inotify::WatchFlags::ACCESS);
        }
    }

    fn drain(&self) {
        if let Some(fd) = &self.0 {
            let mut buffer = [0_u8; 4096];
            while rustix::io::read(fd, &mut buffer).is_ok_and(|length| length > 0) {}
        }
    }
}

struct Ready {
    key: bool,
    waker: bool,
}

/// Waits until a shell ended, a key was pressed, the waker is readable, or `until`.
fn wait_for(shells: &[(Pid, OwnedFd)], keys: &Keys, waker: Option<&Waker<'_>>, until: Option<Instant>) -> Ready {
    let mut fds: Vec<PollFd<'_>> = Vec::new();
    let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    fds.extend(keys.0.as_ref().map(|fd| readable(fd.as_fd())));
    let key_places = fds.len();
    fds.extend(waker.map(|waker| readable(waker.fd)));
    let waker_places = fds.len();
    fds.extend(shells.iter().map(|(_, fd)| readable(fd.as_fd())));
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    // A signal ends the wait early, which only costs a turn.
    let _ = poll(&mut fds, timeout.as_ref());
    let any = |mut range: std::slice::Iter<'_, PollFd<'_>>| range.any(|fd| !fd.revents().is_empty());
    let (keys_ready, rest) = fds.split_at_checked(key_places).unwrap_or_default();
    let (waker_ready, _) = rest.split_at_checked(waker_places - key_places).unwrap_or_default();
    let ready = Ready { key: any(keys_ready.iter()), waker: any(waker_ready.iter()) };
    keys.drain();
    ready
}

/// Reaps whoever has ended; whether one of the shells did.
fn reap(shells: &mut Vec<(Pid, OwnedFd)>) -> bool {
    let before = shells.len();
    while let Ok(Some((ended, _))) = wait(WaitOptions::NOHANG) {
        shells.retain(|(pid, _)| *pid != ended);
    }
    shells.len() < before
}

fn open_on(tty: &str, mut command: Command) -> Result<(Pid, OwnedFd)> {
    let path = format!("/dev/{tty}");
    let terminal = OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("opening {path}"))?;
    let output = || terminal.try_clone().map(Stdio::from).with_context(|| format!("opening {path}"));
    command
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .env("PS1", "sino rescue# ")
        .env("HOME", "/")
        .env("TERM", "linux");
    let child = command.stdin(output()?).stdout(output()?).stderr(output()?).spawn().context("executing the shell")?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id that is too large")?).context("no id")?;
    let fd = pidfd_open(pid, PidfdFlags::empty()).context("watching the shell")?;
    Ok((pid, fd))
}
