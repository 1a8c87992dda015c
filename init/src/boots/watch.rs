//! Keeps this boot when it is over, and what comes to it later: a thread that waits for events, off the supervisor's own.
//!
//! A boot is over when systemd has finished and every guest is ready or reported. Until then the thread waits for a command that
//! ends with systemd's boot, and for news of the guests in `/run/sino`. Nothing on `/srv` is open while it waits.

use super::record::GuestTimes;
use super::{Kept, Places, keep};
use crate::child::words;
use crate::guests::probe::Cancel;
use crate::timeline::BOOT_ENDS;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sino_boot::layout;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// A boot that is not over by then, in microseconds since the kernel started, is kept as it is: a guest may never get ready.
const LATEST: u64 = 15 * 60 * 1_000_000;
/// Ends when systemd has finished the boot. Source: systemctl(1), `is-system-running --wait`.
pub(super) const FINISH: &[&str] = &["systemctl", "is-system-running", "--wait"];
/// What that says of a boot that has finished. Source: systemctl(1), as above.
const FINISHED: [&str; 4] = ["running", "degraded", "maintenance", "stopping"];
/// How soon it is started again if it failed, in microseconds: systemd's bus is not there yet, and no event tells when it is.
const TRIES_EVERY: u64 = 5_000_000;

/// The thread; it ends when [`Watch::stop`] is called, or an hour after the kernel's start.
#[derive(Debug)]
pub struct Watch {
    cancel: Cancel,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Starts it.
    ///
    /// # Errors
    /// There is no thread or no file descriptor to be had.
    pub fn start(places: Places) -> Result<Self> {
        let cancel = Cancel::new().context("making an event descriptor")?;
        let stopped = cancel.clone();
        let thread = std::thread::Builder::new().name("boots".into()).spawn(move || {
            if let Err(error) = follow(&places, &stopped) {
                log::warn!("the times of this boot are no longer kept: {error:#}");
            }
        })?;
        Ok(Self { cancel, thread })
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops it. What is known of the boot by then is kept; `/srv` may be unmounted afterwards.
    pub fn stop(self) {
        self.cancel.cancel();
        // It can only have ended by a panic, which has been logged.
        let _ = self.thread.join();
    }
}

fn follow(places: &Places, cancel: &Cancel) -> Result<()> {
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let folder = places.path(layout::RUN);
    inotify::add_watch(&events, &folder, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)
        .with_context(|| format!("watching {}", folder.display()))?;
    let mut finish = Finish::default();
    let mut keeping = Keeping::default();
    loop {
        finish.tend(places);
        let late = (places.now_us)() >= LATEST;
        if (finish.is_over && guests_rest(places)) || late {
            keeping.keep(places, Some(cancel));
        }
        if (places.now_us)() > BOOT_ENDS {
            return Ok(());
        }
        let next = [finish.again_at, (!late).then_some(LATEST)].into_iter().flatten().min();
        let left = next.map(|at| Duration::from_micros(at.saturating_sub((places.now_us)())));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = vec![PollFd::from_borrowed_fd(cancel.fd(), PollFlags::IN), PollFd::new(&events, PollFlags::IN)];
        fds.extend(finish.running.iter().map(|(_, ended)| PollFd::new(ended, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the boot's end"),
        }
        if cancel.is_cancelled() {
            // Systemd is not asked any more.
            keeping.keep(places, Some(cancel));
            return Ok(());
        }
        // Only that there was something matters; empty when it was something else.
        while rustix::io::read(&events, &mut [0; 4096]).is_ok_and(|count| count > 0) {}
    }
}

/// Whether nothing more is to be expected of the guests' first start.
fn guests_rest(places: &Places) -> bool {
    let Some(state) = places.guests() else { return false };
    state.without.is_some() || state.guests.into_iter().all(|guest| GuestTimes::from(guest).rests())
}

/// Keeps, and says each trouble once.
#[derive(Default)]
struct Keeping {
    trouble: String,
}

impl Keeping {
    fn keep(&mut self, places: &Places, cancel: Option<&Cancel>) {
        match keep(places, cancel) {
            Ok(Kept::Written(name)) => log::debug!("the times of this boot are kept: {name}"),
            Ok(Kept::AsItWas | Kept::Nowhere) => {}
            Err(error) => {
                let trouble = format!("{error:#}");
                if trouble != self.trouble {
                    log::warn!("the times of this boot are not kept: {trouble}");
                    self.trouble = trouble;
                }
            }
        }
    }
}

/// The wait for systemd's "finished".
#[derive(Default)]
struct Finish {
    running: Option<(Child, OwnedFd)>,
    is_over: bool,
    /// When it is to be tried again.
    again_at: Option<u64>,
}

impl Finish {
    /// Starts the command once Debian's init was executed, and looks what it said when it has ended.
    fn tend(&mut self, places: &Places) {
        if let Some((child, _)) = &mut self.running {
            match child.try_wait() {
                Ok(None) => return,
                Ok(Some(_)) => {
                    let mut said = String::new();
                    if let Some(mut stdout) = child.stdout.take() {
                        // A word at most; if it is none, it is tried again.
                        let _ = stdout.by_ref().take(100).read_to_string(&mut said);
                    }
                    self.is_over = FINISHED.contains(&said.trim());
                }
                Err(error) => log::debug!("waiting for systemd: {error}"),
            }
            self.running = None;
            self.again_at = (!self.is_over).then(|| (places.now_us)() + TRIES_EVERY);
        }
        let due = self.again_at.is_none_or(|at| at <= (places.now_us)());
        if self.is_over || !due || (places.now_us)() >= BOOT_ENDS || !places.path(layout::HANDED_OVER).exists() {
            return;
        }
        self.again_at = None;
        match start(places.finish) {
            Ok(running) => self.running = Some(running),
            Err(error) => {
                log::debug!("waiting for systemd: {error:#}");
                self.again_at = Some((places.now_us)() + TRIES_EVERY);
            }
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.running {
            // Already ended is fine, too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(command: &[&str]) -> Result<(Child, OwnedFd)> {
    let (program, arguments) = command.split_first().context("no command")?;
    let mut command = Command::new(Path::new(program));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let what = words(&command);
    let mut child = command.spawn().with_context(|| format!("executing {what}"))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let ended = pid.context("it has no number").and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
    match ended {
        Ok(ended) => Ok((child, ended)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error).with_context(|| format!("watching {what}"))
        }
    }
}
