//! Waits until guests are as they were asked to be, by the file that the supervisor writes at each change.

use super::{find, state_at};
use crate::config::origins::clean;
use crate::guests::engine::GuestReport;
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// It is ready.
    Ready {
        /// In another domain than this one, which is to be stopped before.
        other_than: Option<u32>,
    },
    /// It does not run.
    Down,
}

impl Goal {
    /// Whether a guest is there; `None`: not yet.
    fn reached(self, guest: &GuestReport) -> Option<bool> {
        let up = ["created", "ready", "not ready"].contains(&guest.state.as_str());
        let on_its_way = ["waiting", "delayed", "starting", "stopping", "backing off"].contains(&guest.state.as_str());
        match self {
            _ if on_its_way => None,
            Self::Ready { .. } if guest.state == "created" => None,
            Self::Ready { other_than } => {
                Some(guest.state == "ready" && (other_than.is_none() || guest.domid != other_than))
            }
            Self::Down => Some(!up && guest.domid.is_none()),
        }
    }
}

/// Waits for one guest, and says how it is then. The exit status tells whether that is what was wanted.
pub(super) fn for_one(path: &Path, name: &str, goal: Goal, limit: Duration) -> Result<ExitCode> {
    let events = changes(path)?;
    let deadline = Instant::now() + limit;
    loop {
        let state = state_at(path)?;
        let guest = find(&state, name)?;
        if let Some(reached) = goal.reached(guest) {
            println!("{}", outcome(guest, goal, reached));
            return Ok(if reached { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        if Instant::now() >= deadline {
            bail!("{}, after {} s; it goes on: sino guests", outcome(guest, goal, true), limit.as_secs());
        }
        wait(&events, Some(deadline))?;
    }
}

fn outcome(guest: &GuestReport, goal: Goal, reached: bool) -> String {
    let why = if guest.cause.is_empty() { String::new() } else { format!(": {}", clean(&guest.cause, 500)) };
    let same = match goal {
        Goal::Ready { other_than: Some(domid) } if !reached && guest.domid == Some(domid) => " and was not restarted",
        Goal::Down if !reached => " and was not stopped",
        _ => "",
    };
    format!("{} is {}{same}{why}", clean(&guest.name, 64), guest.state)
}

/// Tells of changes of a file that is always replaced as a whole.
pub(super) fn changes(path: &Path) -> Result<OwnedFd> {
    watch(path.parent().unwrap_or(Path::new("/run")), WatchFlags::MOVED_TO)
}

/// Tells of what happens in a folder.
pub(super) fn watch(folder: &Path, what: WatchFlags) -> Result<OwnedFd> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("opening inotify")?;
    inotify::add_watch(&events, folder, what).with_context(|| format!("watching {}", folder.display()))?;
    Ok(events)
}

/// Waits for a change, until then at the latest.
pub(super) fn wait(events: &OwnedFd, until: Option<Instant>) -> Result<()> {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    let mut fds = [PollFd::new(events, PollFlags::IN)];
    match poll(&mut fds, left.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error).context("waiting for a change"),
    }
    // Empty when it was the time.
    let _ = rustix::io::read(events, &mut [0; 4096]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::guests_lane::GuestsState;

    const UP: Goal = Goal::Ready { other_than: None };
    const AGAIN: Goal = Goal::Ready { other_than: Some(3) };

    fn guest(state: &str, domid: Option<u32>) -> GuestReport {
        GuestReport { name: "web".into(), state: state.into(), domid, ..GuestReport::default() }
    }

    #[test]
    fn each_state_is_on_the_way_or_the_end_of_it() {
        let cases = [
            ("waiting", None, [None, None, None]),
            ("starting", None, [None, None, None]),
            ("created", Some(4), [None, None, Some(false)]),
            ("ready", Some(4), [Some(true), Some(true), Some(false)]),
            ("ready", Some(3), [Some(true), Some(false), Some(false)]),
            ("not ready", Some(4), [Some(false), Some(false), Some(false)]),
            ("stopping", Some(3), [None, None, None]),
            ("stopped", None, [Some(false), Some(false), Some(true)]),
            ("saved", None, [Some(false), Some(false), Some(true)]),
            ("failed", None, [Some(false), Some(false), Some(true)]),
            ("failed", Some(3), [Some(false), Some(false), Some(false)]),
            ("backing off", None, [None, None, None]),
        ];
        for (state, domid, expected) in cases {
            let guest = guest(state, domid);
            let reached = [UP, AGAIN, Goal::Down].map(|goal| goal.reached(&guest));
            assert_eq!(reached, expected, "{state} {domid:?}");
        }
        let mut left = guest("ready", Some(3));
        left.cause = "did not shut down within 120 s".into();
        assert_eq!(outcome(&left, AGAIN, false), "web is ready and was not restarted: did not shut down within 120 s");
        assert_eq!(
            outcome(&left, Goal::Down, false),
            "web is ready and was not stopped: did not shut down within 120 s"
        );
    }

    #[test]
    fn a_change_of_the_file_ends_the_waiting_and_the_deadline_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guests.json");
        let write = {
            let path = path.clone();
            move |guest| {
                let state = GuestsState { guests: vec![guest], ..GuestsState::default() };
                let new = path.with_extension("new");
                std::fs::write(&new, serde_json::to_string(&state).unwrap()).unwrap();
                std::fs::rename(&new, &path).unwrap();
            }
        };
        write(guest("starting", None));
        let error = for_one(&path, "web", UP, Duration::from_millis(200)).unwrap_err().to_string();
        assert!(error.starts_with("web is starting, after 0 s"), "{error}");
        assert!(for_one(&path, "wep", UP, Duration::from_secs(60)).unwrap_err().to_string().contains("mean web?"));
        let later = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            write(guest("ready", Some(4)));
            write
        });
        let began = Instant::now();
        assert_eq!(for_one(&path, "web", UP, Duration::from_secs(60)).unwrap(), ExitCode::SUCCESS);
        assert!(began.elapsed() < Duration::from_secs(30));
        let write = later.join().unwrap();
        assert_eq!(for_one(&path, "web", Goal::Down, Duration::from_secs(60)).unwrap(), ExitCode::FAILURE);
        write(guest("stopped", None));
        assert_eq!(for_one(&path, "web", Goal::Down, Duration::from_secs(60)).unwrap(), ExitCode::SUCCESS);
    }
}
