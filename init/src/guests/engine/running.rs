//! What becomes of a guest whose domain runs, or did.

use super::record::{Job, Record};
use super::start::pause;
use super::{Action, Domain, Engine, How, Reason, SECOND, Spec, State};
use crate::config::origins::clean;
use crate::guests::settings::{Guest, Restart};

/// The time that the limit of restarts counts over.
const HOUR: u64 = 3600 * SECOND;
/// A guest that wants to be started anew sooner than this after its start does so for ever: it counts as a crash.
const SOON: u64 = 10 * SECOND;

impl Engine {
    pub(super) fn probed(&mut self, name: &str, domid: u32, result: Result<(), String>, now: u64) {
        let Some(guest) = self.guests.get_mut(name) else { return };
        if guest.domid != Some(domid) || !matches!(guest.state, State::Created { .. } | State::NotReady { .. }) {
            return;
        }
        match result {
            Ok(()) => guest.ready(domid, now, &mut self.actions),
            // A probe that ends with the deadline, or cannot work at all; it is begun again when the deadline is over.
            Err(why) => {
                if matches!(guest.state, State::Created { .. }) {
                    guest.not_ready(domid, &format!("not ready: {why}"), now, &mut self.actions);
                }
            }
        }
    }

    pub(super) fn gone(&mut self, name: &str, domid: u32, reason: Reason, now: u64) {
        let Some(guest) = self.guests.get_mut(name) else { return };
        if guest.job.is_some_and(Job::starts) {
            guest.gone_early = Some((domid, reason));
            return;
        }
        if guest.domid != Some(domid) {
            return;
        }
        guest.domid = None;
        match guest.state {
            State::Stopping { how: How::Save } if guest.job == Some(Job::Save) => {
                // xl save takes the domain away before it ends; only its end tells whether the memory is saved.
                if matches!(reason, Reason::PowerOff | Reason::Crash) {
                    guest.down(told(reason), now, &mut self.actions);
                }
            }
            State::Stopping { how } => {
                let text = if how == How::Destroy { "destroyed" } else { told(reason) };
                guest.down(text, now, &mut self.actions);
            }
            _ if guest.state.is_up() => {
                guest.end_probe(&mut self.actions);
                guest.after_gone(reason, now, &mut self.actions);
            }
            _ => guest.down(told(reason), now, &mut self.actions),
        }
    }

    /// Takes over a domain that somebody else started.
    pub(super) fn appeared(&mut self, name: &str, domid: u32, now: u64) {
        let stopping = self.stopping.is_some();
        let known = self.guests.contains_key(name);
        let guest = self.guests.entry(name.to_owned()).or_insert_with(|| unmanaged(name, now));
        if !known {
            self.graph.sequence.push(name.to_owned());
            self.graph.after.insert(name.to_owned(), Vec::new());
        }
        // Its own xl is at work, and what follows is known when that has ended.
        let own = guest.job.is_some() || matches!(guest.state, State::BackingOff { .. });
        if own || guest.domid == Some(domid) {
            return;
        }
        guest.take_over(domid, stopping, now, &mut self.actions);
    }
}

/// A guest without a configuration: it is shown, and stopped with the others.
fn unmanaged(name: &str, now: u64) -> Record {
    let guest = Guest { autostart: false, restart: Restart::No, ..Guest::default() };
    let mut record = Record::new(Spec { name: name.to_owned(), guest, saved: false, refused: None }, now);
    record.managed = false;
    record
}

/// How a domain went, for people.
fn told(reason: Reason) -> &'static str {
    match reason {
        Reason::PowerOff => "shut down",
        Reason::NoReboot => "wanted to reboot, and on_reboot in its file does not let it",
        Reason::Reboot => "shut down (it wanted to reboot)",
        Reason::Suspend => "suspended by somebody else; xl restore resumes it",
        Reason::Crash => "crashed",
        Reason::Destroyed => "destroyed by somebody else",
        Reason::Unknown => "gone, and nobody saw why",
    }
}

impl Record {
    pub(super) fn take_over(&mut self, domid: u32, stopping: bool, now: u64, actions: &mut Vec<Action>) {
        self.end_probe(actions);
        // What it did since then is not in the saved state.
        self.discard(actions);
        self.first_done = true;
        let wait = matches!(self.state, State::Stopping { .. });
        self.domid = Some(domid);
        (self.created_us, self.ready_us) = (None, None);
        if stopping {
            self.created_us.get_or_insert(now);
            if !wait {
                self.enter(State::Stopping { how: How::Queued }, now);
            }
        } else if !wait {
            self.note(&format!("runs as domain {domid}; it was not started by SINO just now"), false, actions);
            self.up(domid, now, actions);
        }
    }

    /// Its domain is gone, and nobody asked for that.
    pub(super) fn after_gone(&mut self, reason: Reason, now: u64, actions: &mut Vec<Action>) {
        let lived = now.saturating_sub(self.created_us.unwrap_or_default());
        let restart = if self.managed { self.spec.guest.restart } else { Restart::No };
        match (reason, restart) {
            (Reason::Reboot, _) if self.managed && lived >= SOON => {
                self.restarts = self.restarts.saturating_add(1);
                self.want(true, now);
            }
            (Reason::NoReboot, Restart::Always) => self.again("wanted to reboot", now, actions),
            (Reason::Reboot, Restart::No) if self.managed => {
                let why = format!("wanted to reboot {} s after its start", lived / SECOND);
                self.down(&why, now, actions);
            }
            (Reason::Reboot, _) if self.managed => self.again("wanted to reboot as soon as it ran", now, actions),
            (Reason::Crash, Restart::No) => {
                let why = format!("crashed {} s after its start", lived / SECOND);
                self.note(&why, true, actions);
                self.cause.clone_from(&why);
                self.wanted = false;
                self.enter(State::Crashed { why }, now);
            }
            (Reason::Crash, _) => self.again("crashed", now, actions),
            (Reason::PowerOff, Restart::Always) => self.again("powered itself off", now, actions),
            (Reason::Unknown, Restart::Always) => self.again(told(reason), now, actions),
            (Reason::PowerOff, _) => self.down("powered itself off", now, actions),
            _ => self.down(told(reason), now, actions),
        }
    }

    /// Starts it again, if that did not happen too often.
    fn again(&mut self, what: &str, now: u64, actions: &mut Vec<Action>) {
        let what = clean(what, 200);
        self.recent.retain(|at| now.saturating_sub(*at) < HOUR);
        let number = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        if number >= self.spec.guest.restarts_per_hour {
            let limit = self.spec.guest.restarts_per_hour;
            let why = format!("{what}, and was started again {limit} times within the hour: restarts_per_hour");
            self.note(&why, true, actions);
            self.wanted = false;
            self.enter(State::Failed { why }, now);
            return;
        }
        self.recent.push(now);
        self.restarts = self.restarts.saturating_add(1);
        let wait = pause(number + 1);
        self.note(&format!("{what}; it is started again in {} s", wait / SECOND), true, actions);
        self.want(true, now);
        self.cause.clone_from(&what);
        self.enter(State::BackingOff { until_us: now.saturating_add(wait), why: what }, now);
    }
}

/// For [`super::reconcile`]: the domains by name; of two of one name the first.
pub(super) fn by_name(domains: &[Domain]) -> std::collections::BTreeMap<&str, &Domain> {
    let mut known = std::collections::BTreeMap::new();
    for domain in domains {
        known.entry(domain.name.as_str()).or_insert(domain);
    }
    known
}
