//! Waits until guests are as they were asked to be, by the file that the supervisor writes at each change.

use super::{find, state_at};
use crate::config::origins::clean;
use crate::guests::engine::GuestReport;
use crate::supervisor::guests_lane::GuestsState;
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

    /// What those are that are not there.
    fn missed(self) -> &'static str {
        match self {
            Self::Ready { .. } => "not ready",
            Self::Down => "not stopped",
        }
    }
}

/// Those that a start of all guests has begun to start, or could not; `asked_us` is when that was asked, by the clock of
/// [`GuestReport::since_us`].
pub(super) fn starting(state: &GuestsState, asked_us: u64) -> Vec<(String, Goal)> {
    let starts = |guest: &&GuestReport| match guest.state.as_str() {
        "waiting" | "delayed" | "starting" | "backing off" | "created" | "held" | "refused" => true,
        // Already over, or of before.
        "ready" | "not ready" | "failed" | "crashed" => guest.since_us >= asked_us,
        _ => false,
    };
    state.guests.iter().filter(starts).map(|guest| (guest.name.clone(), Goal::Ready { other_than: None })).collect()
}

/// Waits for these guests, each with its goal, and says how they are then. The exit status tells whether that is what was wanted.
///
/// # Errors
/// The time is over, or of several some are not as they were wanted: these are named.
pub(super) fn for_all(path: &Path, wanted: &[(String, Goal)], limit: Duration) -> Result<ExitCode> {
    let events = changes(path)?;
    let deadline = Instant::now() + limit;
    loop {
        let state = state_at(path)?;
        let guests = wanted.iter().map(|(name, goal)| Ok((find(&state, name)?, *goal)));
        let guests: Vec<(&GuestReport, Goal)> = guests.collect::<Result<_>>()?;
        // A guest that is held may start when another one is ready: all must have ended at the same time.
        let late = guests.iter().filter(|(guest, goal)| goal.reached(guest).is_none());
        let late: Vec<String> = late.map(|(guest, goal)| outcome(guest, *goal, true)).collect();
        let is_late = Instant::now() >= deadline;
        if late.is_empty() || is_late {
            for (guest, goal) in &guests {
                if let Some(reached) = goal.reached(guest) {
                    println!("{}", outcome(guest, *goal, reached));
                }
            }
            let failed = guests.iter().filter(|(guest, goal)| goal.reached(guest) == Some(false));
            let failed: Vec<(String, Goal)> = failed.map(|(guest, goal)| (clean(&guest.name, 64), *goal)).collect();
            let mut told = Vec::new();
            if let (Some((_, goal)), true) = (failed.first(), guests.len() > 1) {
                let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
                told.push(format!("{}: {}", goal.missed(), names.join(", ")));
            }
            if !late.is_empty() {
                told.push(format!("{}, after {} s; it goes on: sino guests", late.join("; "), limit.as_secs()));
            }
            if !told.is_empty() {
                bail!("{}", told.join("; "));
            }
            return Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
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

    /// What the supervisor does at each change.
    fn write(path: &Path, guests: Vec<GuestReport>) {
        let state = GuestsState { guests, ..GuestsState::default() };
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_string(&state).unwrap()).unwrap();
        std::fs::rename(&new, path).unwrap();
    }

    #[test]
    fn a_change_of_the_file_ends_the_waiting_and_the_deadline_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guests.json");
        let for_one = |name: &str, goal, ms| for_all(&path, &[(name.to_owned(), goal)], Duration::from_millis(ms));
        write(&path, vec![guest("starting", None)]);
        let error = for_one("web", UP, 200).unwrap_err().to_string();
        assert!(error.starts_with("web is starting, after 0 s"), "{error}");
        assert!(for_one("wep", UP, 60_000).unwrap_err().to_string().contains("mean web?"));
        let later = {
            let path = path.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(200));
                write(&path, vec![guest("ready", Some(4))]);
            })
        };
        let began = Instant::now();
        assert_eq!(for_one("web", UP, 60_000).unwrap(), ExitCode::SUCCESS);
        assert!(began.elapsed() < Duration::from_secs(30));
        later.join().unwrap();
        assert_eq!(for_one("web", Goal::Down, 60_000).unwrap(), ExitCode::FAILURE);
        write(&path, vec![guest("stopped", None)]);
        assert_eq!(for_one("web", Goal::Down, 60_000).unwrap(), ExitCode::SUCCESS);
    }

    #[test]
    fn all_that_are_started_are_waited_for_and_those_that_did_not_get_ready_are_named() {
        let report = |name: &str, state: &str, since_us| {
            let (name, state) = (name.to_owned(), state.to_owned());
            GuestReport { name, state, since_us, ..GuestReport::default() }
        };
        let guests = vec![
            report("a", "starting", 60),
            report("by hand", "stopped", 60),
            report("c", "held", 60),
            report("d", "failed", 20),
            report("e", "failed", 60),
            report("f", "ready", 20),
            report("g", "refused", 20),
            report("h", "stopping", 60),
        ];
        let state = GuestsState { guests, ..GuestsState::default() };
        let wanted = starting(&state, 50);
        let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "c", "e", "g"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guests.json");
        let told = |guests: &[(&str, &str)]| {
            write(&path, guests.iter().map(|(name, state)| report(name, state, 70)).collect());
            for_all(&path, &wanted, Duration::from_millis(100)).map_err(|error| error.to_string())
        };
        assert_eq!(
            told(&[("a", "starting"), ("c", "held"), ("e", "ready"), ("g", "backing off")]).unwrap_err(),
            "not ready: c; a is starting; g is backing off, after 0 s; it goes on: sino guests"
        );
        let ends = [("a", "not ready"), ("c", "held"), ("e", "failed"), ("g", "refused")];
        assert_eq!(told(&ends).unwrap_err(), "not ready: a, c, e, g");
        assert_eq!(told(&[("a", "ready"), ("c", "ready"), ("e", "ready"), ("g", "ready")]), Ok(ExitCode::SUCCESS));
    }
}
