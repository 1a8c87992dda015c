//! How guests stop: one, or all in the reverse order of their start.
//!
//! When all are stopped, a guest is asked as soon as those after it are down. The limit of guests at the same time yields to the
//! deadline: a guest is asked at the latest when the time that is left is just what it and those that it is after may need.
//! Where even that is not enough, the time is shared, so that a guest that hangs cannot use up what others need.

use super::record::Job;
use super::{Action, Engine, How, SECOND, State, XlError};
use crate::guests::settings::StopAs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest time before the deadline that is kept for saving and destroying what is left.
const RESERVE: u64 = 45 * SECOND;
/// How many guests are asked at the same time at least: shutting down is their own work and hardly the host's, a few that hang
/// must not hold up the others, and a power cut may be minutes away. Not all of any number: each is an `xl` in domain 0's memory.
pub(super) const AT_ONCE: usize = 64;

/// The stop of all guests while it goes on; times in microseconds of the engine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StopAll {
    /// Nobody is asked any more from here on: what runs is saved or destroyed.
    hard: u64,
    /// What is still being saved is destroyed.
    last: u64,
    /// What is left is given up.
    end: u64,
    begun: u64,
}

impl Engine {
    pub(super) fn stop_one(&mut self, name: &str, then_start: bool, now: u64) {
        let all = self.stopping.is_some();
        let Some(guest) = self.guests.get_mut(name) else { return self.start_one(name, now) };
        match guest.state {
            _ if all => guest.note("all guests are being stopped already", false, &mut self.actions),
            _ if then_start && !guest.managed => {
                guest.note("it has no configuration to start it with again", true, &mut self.actions);
            }
            State::Stopping { .. } => guest.then_start = then_start,
            _ if guest.has_remains() => {
                guest.then_start = then_start;
                self.destroy(name, "its domain, which has shut down, is still there", now);
            }
            _ if guest.state.is_up() => {
                guest.then_start = then_start;
                self.begin_shutdown(name, now);
            }
            State::Starting { .. } => {
                (guest.then_start, guest.wanted) = (then_start, false);
                guest.enter(State::Stopping { how: How::AfterCreate }, now);
            }
            _ if then_start => self.start_one(name, now),
            State::Waiting { .. } | State::Delayed { .. } | State::BackingOff { .. } | State::Held { .. } => {
                guest.down("stopped before it was started", now, &mut self.actions);
            }
            _ => guest.note("it does not run", false, &mut self.actions),
        }
    }

    pub(super) fn stop_all(&mut self, until_us: u64, now: u64) {
        let reserve = (until_us.saturating_sub(now) / 4).min(RESERVE);
        let (hard, last) = (until_us.saturating_sub(reserve), until_us.saturating_sub(reserve / 3));
        self.stopping = Some(StopAll { hard, last, end: until_us, begun: now });
        // Whoever had not said yet that they start does not say it any more.
        self.begun = true;
        for guest in self.guests.values_mut() {
            (guest.wanted, guest.then_start) = (false, false);
            match guest.state {
                State::Failed { .. } if guest.domid.is_some() => guest.enter(State::Stopping { how: How::Queued }, now),
                _ if guest.state.is_up() => {
                    guest.end_probe(&mut self.actions);
                    guest.enter(State::Stopping { how: How::Queued }, now);
                }
                State::Starting { .. } => guest.enter(State::Stopping { how: How::AfterCreate }, now),
                State::Waiting { .. } | State::Delayed { .. } | State::BackingOff { .. } => {
                    guest.down("not started, because all guests are stopped", now, &mut self.actions);
                }
                _ => {}
            }
        }
        self.clear_remains(now);
        // One that was being stopped already has its share, too, and no more.
        let names: Vec<String> = self.guests.keys().cloned().collect();
        for name in names {
            let until = match self.state(&name) {
                Some(State::Stopping { how: How::Shutdown }) => self.share(&name, now),
                Some(State::Stopping { how: How::Save }) => self.saving(&name, now),
                _ => None,
            };
            let Some(until) = until else { continue };
            if let Some(guest) = self.guests.get_mut(&name) {
                guest.stop_until = Some(guest.stop_until.map_or(until, |already| already.min(until)));
            }
        }
    }

    /// Asks a guest to shut down.
    pub(super) fn begin_shutdown(&mut self, name: &str, now: u64) {
        let until = self.share(name, now);
        let Some(guest) = self.guests.get_mut(name) else { return };
        guest.end_probe(&mut self.actions);
        guest.wanted = false;
        guest.cause.clear();
        guest.stop_until = until;
        guest.job = Some(Job::Shutdown);
        guest.enter(State::Stopping { how: How::Shutdown }, now);
        self.actions.push(Action::Shutdown { name: name.to_owned() });
    }

    /// A guest's time for shutting down, or for being saved, is over.
    pub(super) fn out_of_time(&mut self, name: &str, now: u64) {
        let Some(guest) = self.guests.get_mut(name) else { return };
        let took = now.saturating_sub(guest.since_us) / SECOND;
        if let State::Stopping { how: How::Shutdown } = guest.state {
            guest.cause = format!("did not shut down within {took} s");
        }
        self.last_resort(name, now);
    }

    /// A guest was asked and is still there: it is saved, destroyed or left running.
    fn last_resort(&mut self, name: &str, now: u64) {
        let all = self.stopping;
        let until = self.saving(name, now);
        let Some(guest) = self.guests.get_mut(name) else { return };
        let tried = matches!(guest.state, State::Stopping { how: How::Save });
        let why = if guest.cause.is_empty() { "still there".to_owned() } else { guest.cause.clone() };
        match guest.spec.guest.stop {
            StopAs::Save if !tried => {
                guest.note(&format!("{why}; its memory is saved"), true, &mut self.actions);
                guest.stop_until = until;
                guest.job = Some(Job::Save);
                guest.enter(State::Stopping { how: How::Save }, now);
                self.actions.push(Action::Save { name: name.to_owned() });
            }
            StopAs::Shutdown if all.is_none() => self.left_running(name, now),
            _ => self.destroy(name, &why, now),
        }
    }

    pub(super) fn destroy(&mut self, name: &str, why: &str, now: u64) {
        let Some(guest) = self.guests.get_mut(name) else { return };
        guest.note(&format!("{why}; it is destroyed"), true, &mut self.actions);
        guest.stop_until = None;
        guest.job = Some(Job::Destroy);
        guest.enter(State::Stopping { how: How::Destroy }, now);
        self.actions.push(Action::Destroy { name: name.to_owned() });
    }

    /// It could not be stopped, and goes on.
    fn left_running(&mut self, name: &str, now: u64) {
        let Some(guest) = self.guests.get_mut(name) else { return };
        let Some(domid) = guest.domid else { return guest.down("gone", now, &mut self.actions) };
        (guest.stop_until, guest.then_start) = (None, false);
        let cause = guest.cause.clone();
        guest.note(&format!("{cause}; it is left running"), true, &mut self.actions);
        guest.up(domid, now, &mut self.actions);
        guest.cause = cause;
    }

    pub(super) fn shutdown_ended(&mut self, name: &str, result: Result<(), XlError>, now: u64) {
        let Some(guest) = self.guests.get_mut(name).filter(|guest| guest.job == Some(Job::Shutdown)) else { return };
        guest.job = None;
        if let (Err(error), State::Stopping { how: How::Shutdown }) = (result, &guest.state) {
            guest.cause = format!("cannot be asked to shut down: {error}");
            self.last_resort(name, now);
        }
    }

    pub(super) fn save_ended(&mut self, name: &str, result: Result<(), XlError>, now: u64) {
        let all = self.stopping.is_some();
        let Some(guest) = self.guests.get_mut(name).filter(|guest| guest.job == Some(Job::Save)) else { return };
        guest.job = None;
        if guest.state != (State::Stopping { how: How::Save }) {
            return;
        }
        match result {
            Ok(()) => {
                guest.saved = true;
                let then_start = guest.then_start;
                guest.down("saved", now, &mut self.actions);
                if !then_start {
                    guest.enter(State::Saved, now);
                }
            }
            Err(error) => {
                guest.cause = format!("cannot be saved: {error}");
                let cause = guest.cause.clone();
                match guest.domid {
                    None => guest.down(&cause, now, &mut self.actions),
                    Some(_) if all => self.destroy(name, &cause, now),
                    Some(_) => self.left_running(name, now),
                }
            }
        }
    }

    pub(super) fn destroy_ended(&mut self, name: &str, result: Result<(), XlError>, now: u64) {
        let all = self.stopping.is_some();
        let Some(guest) = self.guests.get_mut(name).filter(|guest| guest.job == Some(Job::Destroy)) else { return };
        guest.job = None;
        match (result, &guest.state) {
            (Ok(()), State::Stopping { .. }) => {
                guest.down("destroyed", now, &mut self.actions);
            }
            (Err(error), State::Stopping { .. }) => {
                guest.cause = format!("cannot be destroyed: {error}");
                if all || guest.domid.is_none() {
                    let why = guest.cause.clone();
                    guest.note(&why, true, &mut self.actions);
                    guest.stop_until = None;
                    guest.enter(State::Failed { why }, now);
                } else {
                    self.left_running(name, now);
                }
            }
            (Err(error), _) => {
                guest.note(&format!("what is left of it cannot be destroyed: {error}"), true, &mut self.actions);
            }
            (Ok(()), _) => {}
        }
    }

    /// Until when a guest may take to shut down: its own time, or what those that it is after leave of the time until the
    /// deadline. Each of them needs its own time at the most, and when that is too much for all, an equal part.
    fn share(&self, name: &str, now: u64) -> Option<u64> {
        let guest = self.guests.get(name)?;
        let own = u64::from(guest.spec.guest.stop_timeout) * SECOND;
        let Some(all) = self.stopping else { return Some(now.saturating_add(own)) };
        let further = u64::from(guest.spec.guest.stop == StopAs::Save);
        let left = all.hard.saturating_sub(now);
        let (equal, kept) = self.below(name, 1 + further, left);
        let kept = kept.saturating_add(own.min(equal) * further);
        Some(now.saturating_add(own.min(left.saturating_sub(kept))))
    }

    /// Until when a guest may take to be saved: its memory is written to a disk, which has nothing to do with the time that its
    /// shutting down takes. So it has all that those that it is after leave, and without such all until the deadline. When only
    /// this guest is stopped, xl's own deadline is the only one.
    fn saving(&self, name: &str, now: u64) -> Option<u64> {
        let all = self.stopping?;
        let left = all.hard.saturating_sub(now);
        let (_, kept) = self.below(name, 1, left);
        Some(if kept == 0 || left == 0 { all.last.max(now) } else { now.saturating_add(left.saturating_sub(kept)) })
    }

    /// When `left` is shared out to `ways` of stopping this guest and all that it is after still need, one behind the other: an
    /// equal part of it, and how much of it those others need.
    fn below(&self, name: &str, ways: u64, left: u64) -> (u64, u64) {
        let below = |chains: &BTreeMap<&str, u64>| {
            let after = self.graph.after.get(name).into_iter().flatten();
            after.filter_map(|other| chains.get(other.as_str()).copied()).max().unwrap_or_default()
        };
        let equal = left / ways.saturating_add(below(&self.chains(|_| 1))).max(1);
        (equal, below(&self.chains(|timeout| timeout.min(equal))))
    }

    /// For each guest the sum of what `each` makes of the `stop_timeout`s (in microseconds) of itself and those that it is after,
    /// as far as they still run, where that sum is largest. A guest that may be saved counts twice.
    fn chains(&self, each: impl Fn(u64) -> u64) -> BTreeMap<&str, u64> {
        let mut chains: BTreeMap<&str, u64> = BTreeMap::new();
        for name in &self.graph.sequence {
            let Some(guest) = self.guests.get(name) else { continue };
            let ways = if guest.spec.guest.stop == StopAs::Save { 2 } else { 1 };
            let below = self.graph.after.get(name).into_iter().flatten().filter_map(|other| chains.get(other.as_str()));
            let below = below.copied().max().unwrap_or_default();
            let own = if guest.state.is_settled() {
                0
            } else {
                each(u64::from(guest.spec.guest.stop_timeout) * SECOND) * ways
            };
            chains.insert(name, below.saturating_add(own));
        }
        chains
    }

    /// The guests whose turn it is to be asked: those after them are down. The latest time for each with it.
    fn next_to_stop(&self, all: StopAll) -> Vec<(u64, String)> {
        let down =
            |name: &String| self.guests.get(name).is_none_or(|guest| !matches!(guest.state, State::Stopping { .. }));
        let queued = |name: &&String| {
            let state = self.guests.get(*name).map(|guest| &guest.state);
            state == Some(&State::Stopping { how: How::Queued })
                && self.dependents.get(*name).is_none_or(|others| others.iter().all(down))
        };
        let chains = self.chains(|timeout| timeout);
        let latest = |name: &String| all.hard.saturating_sub(chains.get(name.as_str()).copied().unwrap_or_default());
        self.graph.sequence.iter().rev().filter(queued).map(|name| (latest(name), name.clone())).collect()
    }

    /// Goes on with stopping all.
    pub(super) fn stop_next(&mut self, now: u64) {
        let Some(all) = self.stopping else { return };
        if self.daemons {
            for (latest, name) in self.next_to_stop(all) {
                let busy = self.creating() + self.guests.values().filter(|guest| guest.going_down()).count();
                if busy < self.parallel.max(AT_ONCE) || now >= latest {
                    self.begin_shutdown(&name, now);
                }
            }
        }
        let stopping = |how: &[How]| -> Vec<String> {
            let is = |state: &State| matches!(state, State::Stopping { how: now } if how.contains(now));
            self.guests.iter().filter(|(_, guest)| is(&guest.state)).map(|(name, _)| name.clone()).collect()
        };
        let mut pressed = Vec::new();
        if now >= all.hard {
            pressed.extend(stopping(&[How::Queued, How::Shutdown]));
        }
        let mut destroyed = Vec::new();
        if now >= all.hard {
            destroyed.extend(stopping(&[How::AfterCreate]));
        }
        if now >= all.last {
            destroyed.extend(stopping(&[How::Save]));
        }
        for name in pressed {
            if let Some(guest) = self.guests.get_mut(&name) {
                guest.cause = "the deadline for all guests is near".into();
            }
            self.last_resort(&name, now);
        }
        for name in destroyed {
            self.destroy(&name, "the deadline for all guests is near", now);
        }
        if now >= all.end {
            for guest in self.guests.values_mut().filter(|guest| matches!(guest.state, State::Stopping { .. })) {
                let why = "still there when the deadline for all guests was over".to_owned();
                guest.note(&why, true, &mut self.actions);
                guest.stop_until = None;
                guest.enter(State::Failed { why }, now);
            }
        }
        if !self.guests.values().any(|guest| matches!(guest.state, State::Stopping { .. })) {
            self.stopping = None;
            let took = now.saturating_sub(all.begun) / 100_000;
            self.note(format!("all guests are stopped, after {}.{} s", took / 10, took % 10), false);
        }
    }

    /// When stopping all goes on by time alone.
    pub(super) fn stop_deadlines(&self) -> impl Iterator<Item = u64> {
        let mut deadlines = Vec::new();
        if let Some(all) = self.stopping {
            if self.daemons {
                deadlines.extend(self.next_to_stop(all).into_iter().map(|(latest, _)| latest));
            }
            deadlines.extend([all.hard, all.last, all.end].into_iter().filter(|at| *at > self.now_us));
        }
        deadlines.into_iter()
    }
}
