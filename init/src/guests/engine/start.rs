//! How guests start: who may, when it is whose turn, and what follows from the answer of xl.

use super::record::{Job, Record};
use super::{Action, Engine, Filter, How, SECOND, State, XlError};
use crate::config::origins::clean;
use crate::guests::settings::{OnFailure, nearest};

/// The first pause before xl is tried again; each further one is twice as long.
const FIRST_PAUSE: u64 = 5 * SECOND;
/// The longest pause.
const LONGEST_PAUSE: u64 = 300 * SECOND;

/// How long to wait before try or restart number `number` + 1, from 1.
pub(super) fn pause(number: u32) -> u64 {
    let factor = 1_u64.checked_shl(number.saturating_sub(1).min(32)).unwrap_or(u64::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

/// Whether a guest may start as far as others are concerned.
enum Verdict {
    Go,
    Wait(Vec<String>),
    Held(String),
}

impl Engine {
    pub(super) fn start_all(&mut self, filter: &Filter, now: u64) {
        if self.stopping.is_some() {
            return self.note("all guests are being stopped; none is started before that is over", true);
        }
        self.begun = true;
        if let Filter::Only(names) = filter {
            self.tell_unknown(names);
        }
        let rests = |guest: &&mut Record| guest.state.is_settled() && !guest.state.is_up() && !guest.has_remains();
        for guest in self.guests.values_mut().filter(rests) {
            let wanted = filter.wants(&guest.spec.name, guest.spec.guest.autostart);
            let not = match filter {
                Filter::All => "it does not start by itself",
                Filter::Off => "no guest is to be started in this boot",
                Filter::Only(_) => "it is not among the guests to be started",
            };
            match (&guest.state, guest.spec.refused.clone()) {
                (State::Refused { .. }, _) => {}
                (_, Some(why)) if wanted && guest.managed => guest.refuse(&why, now, &mut self.actions),
                _ if wanted && guest.managed => guest.want(false, now),
                (State::Stopped { .. }, _) => guest.enter(State::Stopped { how: not.into() }, now),
                _ => {}
            }
        }
        self.judge(now);
        for guest in self.guests.values_mut() {
            guest.first_wave |= matches!(&guest.state, State::Waiting { on } if on.is_empty());
        }
    }

    fn tell_unknown(&mut self, names: &[String]) {
        for name in names.iter().filter(|name| !self.guests.contains_key(*name)).cloned().collect::<Vec<_>>() {
            let meant = nearest(&name, self.guests.keys().map(String::as_str));
            let meant = meant.map(|meant| format!("; did you mean {}?", clean(meant, 100))).unwrap_or_default();
            self.note(format!("there is no guest {}{meant}", clean(&name, 100)), true);
        }
    }

    pub(super) fn start_one(&mut self, name: &str, now: u64) {
        let stopping = self.stopping.is_some();
        let Some(guest) = self.guests.get_mut(name) else { return self.tell_unknown(&[name.to_owned()]) };
        let remains = guest.has_remains();
        match guest.state {
            _ if stopping => guest.note("all guests are being stopped; it is not started", true, &mut self.actions),
            _ if guest.state.is_up() => guest.note("it runs already", false, &mut self.actions),
            State::Stopping { .. } => guest.then_start = true,
            State::Starting { .. } => {}
            _ if remains => guest.note("its old domain is still there; it is not started", true, &mut self.actions),
            _ if !guest.managed => guest.note("it has no configuration to start it with", true, &mut self.actions),
            _ => guest.want(true, now),
        }
    }

    pub(super) fn refuse(&mut self, name: &str, why: &str, now: u64) {
        let Some(guest) = self.guests.get_mut(name) else { return };
        if guest.state.is_up() || matches!(guest.state, State::Starting { .. } | State::Stopping { .. }) {
            return;
        }
        guest.refuse(why, now, &mut self.actions);
    }

    /// Looks at each guest that waits or is held, in the sequence of the graph, so that what follows for one is known when
    /// those after it are looked at.
    pub(super) fn judge(&mut self, now: u64) {
        for name in &self.graph.sequence {
            let waits =
                |guest: &Record| guest.wanted && matches!(guest.state, State::Waiting { .. } | State::Held { .. });
            if !self.guests.get(name).is_some_and(waits) {
                continue;
            }
            let verdict = self.verdict(name);
            let Some(guest) = self.guests.get_mut(name) else { continue };
            let delay = u64::from(guest.spec.guest.delay) * SECOND;
            match verdict {
                Verdict::Wait(on) => guest.enter(State::Waiting { on }, now),
                Verdict::Held(by) => {
                    if !matches!(guest.state, State::Held { .. }) {
                        let text = format!("held, because {} is not ready", clean(&by, 100));
                        guest.note(&text, true, &mut self.actions);
                    }
                    guest.enter(State::Held { by }, now);
                }
                Verdict::Go if delay > 0 && !guest.delayed => {
                    guest.enter(State::Delayed { until_us: now.saturating_add(delay) }, now);
                }
                Verdict::Go => guest.enter(State::Waiting { on: Vec::new() }, now),
            }
        }
    }

    fn verdict(&self, name: &str) -> Verdict {
        let forced = self.guests.get(name).is_some_and(|guest| guest.forced);
        let mut on = Vec::new();
        for other in self.graph.after.get(name).into_iter().flatten().filter_map(|other| self.guests.get(other)) {
            match other.state {
                State::Ready { .. } | State::Stopped { .. } | State::Saved => {}
                State::NotReady { .. }
                | State::Failed { .. }
                | State::Crashed { .. }
                | State::Refused { .. }
                | State::Held { .. } => {
                    if other.spec.guest.on_failure == OnFailure::HoldDependents && !forced {
                        return Verdict::Held(other.spec.name.clone());
                    }
                }
                _ => on.push(other.spec.name.clone()),
            }
        }
        if on.is_empty() { Verdict::Go } else { Verdict::Wait(on) }
    }

    /// How many guests xl is creating.
    pub(super) fn creating(&self) -> usize {
        self.guests.values().filter(|guest| guest.job.is_some_and(Job::starts)).count()
    }

    /// Starts as many as the limit allows of those whose turn it is.
    pub(super) fn launch(&mut self, now: u64) {
        let free = self.parallel.saturating_sub(self.creating());
        if !self.daemons || free == 0 {
            return;
        }
        let turn = |guest: &&mut Record| {
            guest.wanted && guest.job.is_none() && matches!(&guest.state, State::Waiting { on } if on.is_empty())
        };
        let mut next: Vec<&mut Record> = self.guests.values_mut().filter(turn).collect();
        // The map is sorted by name, and this keeps it where the order is the same.
        next.sort_by_key(|guest| guest.spec.guest.order);
        for guest in next.into_iter().take(free) {
            guest.attempt(now, &mut self.actions);
        }
    }

    /// The answer of `xl create` or `xl restore`.
    pub(super) fn created(&mut self, name: &str, result: Result<u32, XlError>, now: u64) {
        let (all, daemons) = (self.stopping.is_some(), self.daemons);
        let Some(guest) = self.guests.get_mut(name) else { return };
        let Some(job) = guest.job.filter(|job| job.starts()) else {
            if let Ok(domid) = result {
                guest.stray(domid, now, &mut self.actions);
            }
            return;
        };
        (guest.job, guest.first_done) = (None, true);
        if job == Job::Restore && (daemons || result.is_ok()) {
            guest.discard(&mut self.actions);
        }
        match result {
            Ok(domid) => {
                guest.created_us = Some(now);
                if let State::Stopping { .. } = guest.state {
                    guest.domid = Some(domid);
                } else {
                    let took = (now - guest.since_us) / 100_000;
                    let text = format!("created as domain {domid} in {}.{} s", took / 10, took % 10);
                    guest.note(&text, false, &mut self.actions);
                    guest.up(domid, now, &mut self.actions);
                }
                let remains = guest.remains_early.take().filter(|(domain, _)| *domain == domid);
                if let Some((_, reason)) = guest.gone_early.take().filter(|(gone, _)| *gone == domid) {
                    self.gone(name, domid, reason, now);
                } else if let Some((_, reason)) = remains {
                    self.remains(name, domid, reason, now);
                } else if matches!(guest.state, State::Stopping { .. }) {
                    if all {
                        guest.enter(State::Stopping { how: How::Queued }, now);
                    } else {
                        self.begin_shutdown(name, now);
                    }
                }
            }
            Err(error) => {
                let timed_out = error == XlError::TimedOut;
                guest.not_created(job, &error, daemons, now, &mut self.actions);
                if timed_out {
                    // There may be half a domain.
                    guest.job = Some(Job::Destroy);
                    self.actions.push(Action::Destroy { name: name.to_owned() });
                }
            }
        }
    }
}

impl Record {
    /// It must not be started.
    fn refuse(&mut self, why: &str, now: u64, actions: &mut Vec<Action>) {
        let why = clean(why, 500);
        self.note(&format!("it is not started: {why}"), true, actions);
        self.wanted = false;
        self.enter(State::Refused { why }, now);
    }

    /// xl did not start it: what then?
    fn not_created(&mut self, job: Job, error: &XlError, daemons: bool, now: u64, actions: &mut Vec<Action>) {
        let last = matches!(error, XlError::Final(_));
        let error = &error.to_string();
        self.cause.clone_from(error);
        if let State::Stopping { .. } = self.state {
            self.down(&format!("not started: {error}"), now, actions);
        } else if job == Job::Restore && daemons {
            self.note(&format!("its saved state cannot be resumed: {error}; it is started anew"), true, actions);
            self.enter(State::Waiting { on: Vec::new() }, now);
        } else if !daemons {
            self.tries = self.tries.saturating_sub(1);
            self.enter(State::Waiting { on: Vec::new() }, now);
        } else if last || self.tries > self.spec.guest.retries {
            let tries = self.spec.guest.retries.saturating_add(1);
            let why = if last { error.clone() } else { format!("{error} (try {} of {tries})", self.tries) };
            self.note(&format!("failed: {why}"), true, actions);
            self.wanted = false;
            self.enter(State::Failed { why }, now);
        } else {
            let wait = pause(self.tries);
            self.note(&format!("{error}; it is tried again in {} s", wait / SECOND), true, actions);
            self.enter(State::BackingOff { until_us: now.saturating_add(wait), why: error.clone() }, now);
        }
    }

    /// A domain came up whose xl was given up: it must not run unnoticed.
    fn stray(&mut self, domid: u32, now: u64, actions: &mut Vec<Action>) {
        if self.domid.is_none() && self.job.is_none() {
            self.domid = Some(domid);
            self.job = Some(Job::Destroy);
            self.enter(State::Stopping { how: How::Destroy }, now);
            actions.push(Action::Destroy { name: self.spec.name.clone() });
        }
    }
}
