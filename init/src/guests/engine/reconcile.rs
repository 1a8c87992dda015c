//! What the engine knows against what runs: after a kill, or whenever events may have been missed.

use super::record::{Job, Record};
use super::running::by_name;
use super::{Action, Domain, Engine, How, Reason, SECOND, State};

impl Engine {
    /// Takes over what runs, and finds out what is gone. `domains`: all there are, but for dom0 and device models' domains. Guests
    /// that xl is at work with (of this engine, not of a killed predecessor) are left alone until it answers.
    ///
    /// A domain that nothing is known of becomes a guest without a configuration: it is shown, never started, and stopped with
    /// the others.
    #[must_use]
    pub fn reconcile(&mut self, domains: &[Domain], now_us: u64) -> Vec<Action> {
        let now = self.clock(now_us);
        let running = by_name(domains);
        let names: Vec<String> = self.guests.keys().cloned().collect();
        for name in &names {
            if self.guests.get(name).is_some_and(|guest| guest.job.is_none()) {
                match running.get(name.as_str()) {
                    Some(domain) => self.still_there(domain, now),
                    None => self.not_there(name, now),
                }
            }
        }
        for (name, domain) in running {
            if !self.guests.contains_key(name) {
                self.appeared(name, domain.domid, now);
            }
        }
        self.advance(now)
    }

    fn still_there(&mut self, domain: &Domain, now: u64) {
        let stopping = self.stopping.is_some();
        let Some(guest) = self.guests.get_mut(&domain.name) else { return };
        let lost = guest.lost.take();
        let building = lost.is_some_and(Job::starts)
            || (lost == Some(Job::Destroy) && !matches!(guest.state, State::Stopping { .. }));
        if building && domain.paused {
            return guest.remove_half(now, &mut self.actions);
        }
        if guest.state != (State::Stopping { how: How::Save }) {
            // It ran since; and a discard of the predecessor may not have been done.
            guest.saved = false;
            self.actions.push(Action::Discard { name: domain.name.clone() });
        }
        let same = guest.domid == Some(domain.domid);
        match guest.state {
            _ if guest.has_remains() && same => {}
            _ if guest.state.is_up() && same => guest.probe_again(now, &mut self.actions),
            State::Stopping { how } if how != How::AfterCreate => {
                guest.domid = Some(domain.domid);
                self.stop_again(&domain.name, how);
            }
            State::Stopping { .. } => {
                guest.domid = Some(domain.domid);
                guest.first_done = true;
                if stopping {
                    guest.enter(State::Stopping { how: How::Queued }, now);
                } else {
                    self.begin_shutdown(&domain.name, now);
                }
            }
            _ => guest.take_over(domain.domid, stopping, now, &mut self.actions),
        }
    }

    /// Does again what the predecessor was at when it was killed.
    fn stop_again(&mut self, name: &str, how: How) {
        let Some(guest) = self.guests.get_mut(name) else { return };
        let name = name.to_owned();
        let (job, action) = match how {
            How::Queued | How::AfterCreate => return,
            How::Shutdown => (Job::Shutdown, Action::Shutdown { name }),
            How::Save => (Job::Save, Action::Save { name }),
            How::Destroy => (Job::Destroy, Action::Destroy { name }),
        };
        guest.job = Some(job);
        self.actions.push(action);
    }

    fn not_there(&mut self, name: &str, now: u64) {
        let Some(guest) = self.guests.get_mut(name) else { return };
        let lost = guest.lost.take();
        match guest.state {
            State::Starting { .. } => {
                if lost == Some(Job::Restore) {
                    // It may have run and be gone again since: then its disks are newer than the saved state.
                    guest.discard(&mut self.actions);
                }
                guest.first_done = true;
                guest.note("its start was interrupted; it is begun again", true, &mut self.actions);
                guest.enter(State::Waiting { on: Vec::new() }, now);
            }
            State::Stopping { how: How::Save } => {
                // xl save takes the domain away when the memory is saved. If it went otherwise, the saved state is not
                // complete; xl restore refuses that, and the guest is started anew.
                guest.saved = true;
                let then_start = guest.then_start;
                guest.down("saved", now, &mut self.actions);
                if !then_start {
                    guest.enter(State::Saved, now);
                }
            }
            State::Stopping { .. } => guest.down("shut down", now, &mut self.actions),
            _ if guest.state.is_up() => {
                if let Some(domid) = guest.domid {
                    self.gone(name, domid, Reason::Unknown, now);
                }
            }
            _ if guest.has_remains() => guest.down("gone", now, &mut self.actions),
            _ => guest.domid = None,
        }
    }
}

impl Record {
    /// A probe that was under way when the predecessor was killed is begun again.
    fn probe_again(&mut self, now: u64, actions: &mut Vec<Action>) {
        let (Some(domid), Some(until)) = (self.domid, self.probe_until) else { return };
        if matches!(self.state, State::Created { .. } | State::NotReady { .. }) {
            self.probe(domid, until.saturating_sub(now).max(SECOND), now, actions);
        }
    }

    /// A domain that xl did not finish is taken away before the guest is started again.
    fn remove_half(&mut self, now: u64, actions: &mut Vec<Action>) {
        self.first_done = true;
        self.job = Some(Job::Destroy);
        match self.state {
            State::Starting { attempt } => {
                if attempt == 0 {
                    self.note("its saved state was being resumed when that was interrupted", true, actions);
                }
                self.enter(State::Waiting { on: Vec::new() }, now);
            }
            State::Stopping { .. } => self.enter(State::Stopping { how: How::Destroy }, now),
            _ => {}
        }
        self.note("its start was interrupted; what is left of it is destroyed", true, actions);
        actions.push(Action::Destroy { name: self.spec.name.clone() });
    }
}
