//! What happens to the daemons after they have started: one dies, is stopped by somebody, or comes back.

use super::launch::{CHANGES, drain};
use super::process::{self, Process, has_ended};
use super::{DAEMON_WITHIN, Daemon, Daemons, Parts, QEMU, State, Xen, hold, settings};
use crate::storage::tools::Call;
use crate::storage::{Host, Problem};
use anyhow::{Result, ensure};
use log::Level;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::inotify::{self, CreateFlags};
use sino_boot::record::now_us;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What an administrator can still do.
pub(super) const WITHOUT_XENSTORED: &str = "guests run on, but none can be started, stopped or seen: shut them down from within, \
     for example by ssh, and then reboot the host";
/// What the end of domain 0's qemu means.
const QEMU_GONE: &str =
    "guests with a disk that it served have lost it; systemctl restart xen starts it for those to come";
/// What the end of xenconsoled means.
const CONSOLES_WAIT: &str = "consoles of guests wait until it runs again";
/// How long somebody who stops xenconsoled may take from its end until its PID file is removed. Debian's script looks
/// through all processes in between.
const STOPPED_WITHIN: Duration = Duration::from_secs(3);
/// xenconsoled is started again so often within [`RESTARTS_WITHIN`].
const RESTARTS: usize = 3;
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);
/// How long systemd may take to say whether the host goes down.
const TELLS_WITHIN: Duration = Duration::from_secs(5);
/// The control group of Debian's service, while it has processes.
const GROUP: &str = "/sys/fs/cgroup/system.slice/xen.service/cgroup.procs";

/// What happened to a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It died. What can be done is done or said.
    Died {
        /// Which.
        daemon: Daemon,
        /// What it was.
        process: Process,
        /// What follows, for people.
        follows: &'static str,
    },
    /// Somebody stopped it: it is left so.
    Stopped {
        /// Which.
        daemon: Daemon,
        /// What it was.
        process: Process,
    },
    /// It ended while the host goes down, as it should: nothing is done about it.
    WentDown {
        /// Which.
        daemon: Daemon,
        /// What it was.
        process: Process,
    },
    /// Somebody else has started it; it is watched from now on.
    Found {
        /// Which.
        daemon: Daemon,
        /// What it is.
        process: Process,
    },
    /// It was started again.
    Restarted {
        /// Which.
        daemon: Daemon,
        /// What it is.
        process: Process,
    },
    /// It is not started again.
    GaveUp {
        /// Which.
        daemon: Daemon,
        /// Why, and what to do.
        why: String,
    },
}

impl Event {
    /// How much it matters.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Died { daemon: Daemon::Xenconsoled, .. }
            // Systemd lets it run to the end, and guests may not be down yet.
            | Self::WentDown { daemon: Daemon::Xenstored, .. } => Level::Warn,
            Self::Died { .. } | Self::GaveUp { .. } => Level::Error,
            Self::Stopped { .. } | Self::WentDown { .. } | Self::Found { .. } | Self::Restarted { .. } => Level::Info,
        }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Died { daemon, process, follows } => {
                write!(f, "{} DIED ({process}): {follows}", daemon.name())
            }
            Self::Stopped { daemon, process } => {
                write!(f, "{} was stopped ({process}) and is left so; systemctl restart xen starts it", daemon.name())
            }
            Self::WentDown { daemon, process } => {
                write!(f, "{} has ended ({process}), and the host goes down", daemon.name())
            }
            Self::Found { daemon, process } => write!(f, "{} runs: {process}", daemon.name()),
            Self::Restarted { daemon, process } => write!(f, "{} was started again: {process}", daemon.name()),
            Self::GaveUp { daemon, why } => write!(f, "{} is not started again: {why}", daemon.name()),
        }
    }
}

impl Daemons {
    /// Watches what this state says to run.
    pub(super) fn watch(host: Host<'_>, state: State) -> Self {
        let mut daemons = Self { state, ends: BTreeMap::new(), changes: None, due: None };
        if daemons.state.xen.is_some() {
            let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(|changes| {
                inotify::add_watch(&changes, host.path("/run"), CHANGES)?;
                Ok(changes)
            });
            match changes {
                Ok(changes) => daemons.changes = Some(changes),
                Err(error) => log::warn!("Xen daemons that others start are not noticed: {error}"),
            }
        }
        for (daemon, process) in daemons.state.running.clone() {
            daemons.keep(daemon, &process);
        }
        daemons
    }

    /// Readable when [`Daemons::tend`] has something to do.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.ends.values().chain(&self.changes).map(AsFd::as_fd).collect()
    }

    /// When [`Daemons::tend`] has something to do although nothing is readable.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.due.as_ref().map(|(_, when)| *when)
    }

    /// Sees to the daemons, and returns what happened. Takes moments, or as long as starting xenconsoled takes.
    pub fn tend(&mut self, host: Host<'_>, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        let ended: Vec<Daemon> =
            self.ends.iter().filter(|(_, end)| has_ended(end)).map(|(daemon, _)| *daemon).collect();
        for daemon in ended {
            self.ends.remove(&daemon);
            if let Some(process) = self.state.running.remove(&daemon) {
                events.extend(self.ended(host, daemon, process, now));
            }
        }
        if let Some(changes) = &self.changes {
            drain(changes);
            events.extend(self.look(host));
        }
        if self.due.as_ref().is_some_and(|(_, when)| *when <= now) {
            events.extend(self.restart(host));
        }
        if !events.is_empty() {
            self.state.save(host);
        }
        events
    }

    /// One has ended. Whether xenconsoled was stopped on purpose shows a moment later. At a shutdown each of them ends.
    fn ended(&mut self, host: Host<'_>, daemon: Daemon, process: Process, now: Instant) -> Option<Event> {
        if daemon == Daemon::Xenstored {
            self.state.lost = Some(process.clone());
        }
        let follows = match daemon {
            Daemon::Xenstored | Daemon::Qemu if goes_down(host) => return Some(Event::WentDown { daemon, process }),
            Daemon::Xenstored => {
                self.state.problems.push(Problem::new("xenstored has died", WITHOUT_XENSTORED));
                WITHOUT_XENSTORED
            }
            Daemon::Qemu if !host.path(daemon.pid_file()).exists() => return Some(Event::Stopped { daemon, process }),
            Daemon::Qemu => QEMU_GONE,
            Daemon::Xenconsoled => {
                self.due = Some((process, now + STOPPED_WITHIN));
                return None;
            }
        };
        Some(Event::Died { daemon, process, follows })
    }

    /// Looks for what others have started or stopped.
    fn look(&mut self, host: Host<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        for daemon in Daemon::ALL {
            if self.state.running.contains_key(&daemon) {
                continue;
            }
            let programs = self.programs(host, daemon);
            let found = programs.iter().find_map(|program| process::by_file(host, program, daemon.pid_file()));
            if let Some(process) = found {
                self.due.take_if(|_| daemon == Daemon::Xenconsoled);
                self.keep(daemon, &process);
                if daemon == Daemon::Xenstored {
                    self.state.lost = None;
                }
                events.push(Event::Found { daemon, process });
            }
        }
        let stopped = |_: &mut (Process, Instant)| !host.path(Daemon::Xenconsoled.pid_file()).exists();
        if let Some((process, _)) = self.due.take_if(stopped) {
            events.push(Event::Stopped { daemon: Daemon::Xenconsoled, process });
        }
        events
    }

    fn programs(&self, host: Host<'_>, daemon: Daemon) -> Vec<PathBuf> {
        let Some(xen) = self.state.xen.clone() else { return Vec::new() };
        match daemon {
            Daemon::Xenstored => Parts { host, xen, settings: settings(host) }.xenstoreds(),
            Daemon::Xenconsoled => vec![xen.programs.join("xenconsoled")],
            Daemon::Qemu => vec![host.path(QEMU)],
        }
    }

    /// xenconsoled died, and nobody has stopped or started it meanwhile.
    fn restart(&mut self, host: Host<'_>) -> Vec<Event> {
        let daemon = Daemon::Xenconsoled;
        let (Some((dead, _)), Some(xen)) = (self.due.take(), self.state.xen.clone()) else { return Vec::new() };
        let _held = hold(host).inspect_err(|error| log::warn!("{error:#}"));
        if let Some(process) = process::find(host, &xen.programs.join("xenconsoled"), daemon.pid_file()) {
            self.keep(daemon, &process);
            return vec![Event::Found { daemon, process }];
        }
        if goes_down(host) {
            return vec![Event::WentDown { daemon, process: dead }];
        }
        let next = match self.another(host, xen) {
            Ok(process) => {
                self.keep(daemon, &process);
                to_debians_group(host, &process);
                Event::Restarted { daemon, process }
            }
            Err(why) => Event::GaveUp { daemon, why: format!("{why:#}; then: systemctl restart xen") },
        };
        vec![Event::Died { daemon, process: dead, follows: CONSOLES_WAIT }, next]
    }

    /// Starts xenconsoled, unless it has died too often.
    fn another(&mut self, host: Host<'_>, xen: Xen) -> Result<Process> {
        ensure!(self.state.running.contains_key(&Daemon::Xenstored), "it needs xenstored, which is gone");
        let since = now_us().saturating_sub(u64::try_from(RESTARTS_WITHIN.as_micros()).unwrap_or(u64::MAX));
        self.state.restarts_us.retain(|when| *when >= since);
        let (times, seconds) = (self.state.restarts_us.len(), RESTARTS_WITHIN.as_secs());
        ensure!(times < RESTARTS, "it died {} times within {seconds} s: see journalctl -t xenconsoled", times + 1);
        self.state.restarts_us.push(now_us());
        let parts = Parts { host, settings: settings(host), xen };
        let program = parts.xen.programs.join("xenconsoled");
        parts.launch_xenconsoled(&program).run(host, DAEMON_WITHIN)
    }

    /// Watches a process.
    fn keep(&mut self, daemon: Daemon, process: &Process) {
        match process.end() {
            Ok(end) => drop(self.ends.insert(daemon, end)),
            Err(error) => {
                // It has ended since it was found.
                log::warn!("{} does not run: {error:#}", daemon.name());
                self.state.running.remove(&daemon);
                self.due =
                    (daemon == Daemon::Xenconsoled).then(|| (process.clone(), Instant::now())).or(self.due.take());
                return;
            }
        }
        self.state.running.insert(daemon, process.clone());
    }
}

/// Whether the host is being shut down. Source: systemctl(1), `is-system-running`. Without a systemd that answers it is not.
fn goes_down(host: Host<'_>) -> bool {
    let asked = host.tools.run(&Call::new(&["systemctl", "is-system-running"], TELLS_WITHIN));
    asked.is_ok_and(|said| said.out.trim() == "stopping")
}

/// Moves it from the supervisor's control group to the one where Debian has it. There is none before systemd.
fn to_debians_group(host: Host<'_>, process: &Process) {
    let group = host.path(GROUP);
    if group.exists()
        && let Err(error) = fs::write(&group, process.pid.to_string())
    {
        log::warn!("{process} stays in the supervisor's control group: {}: {error}", group.display());
    }
}
