//! What the engine knows of one guest, and what can be said of it alone.

use super::{Action, How, Reason, SECOND, Spec, State};
use crate::config::origins::clean;
use crate::guests::ready::Ready;
use serde::{Deserialize, Serialize};

/// After a guest was late, it is looked at again after this time or its own `ready_timeout`, whichever is longer.
const PROBE_AGAIN: u64 = 30 * SECOND;

/// An xl that is under way. It ends by its event only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Job {
    Create,
    Restore,
    Shutdown,
    Save,
    Destroy,
}

impl Job {
    /// Whether it brings a domain into being.
    pub(super) fn starts(self) -> bool {
        matches!(self, Self::Create | Self::Restore)
    }
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and few of their combinations are impossible"
)]
pub(super) struct Record {
    pub(super) spec: Spec,
    pub(super) state: State,
    /// Since when it is in that state.
    pub(super) since_us: u64,
    /// Whether it is to run.
    pub(super) wanted: bool,
    /// Whether guests that failed do not hold it: it was asked for, or ran before.
    pub(super) forced: bool,
    /// Whether its delay is over.
    pub(super) delayed: bool,
    /// Whether it has a configuration; a domain that somebody else started has none.
    pub(super) managed: bool,
    /// How often xl was tried for the present start.
    pub(super) tries: u32,
    /// How often it was started again by itself.
    pub(super) restarts: u32,
    /// When, within the last hour.
    pub(super) recent: Vec<u64>,
    pub(super) created_us: Option<u64>,
    pub(super) ready_us: Option<u64>,
    pub(super) domid: Option<u32>,
    /// What went wrong last.
    pub(super) cause: String,
    pub(super) job: Option<Job>,
    /// The job that was under way when the predecessor was killed.
    pub(super) lost: Option<Job>,
    /// Until when the probe runs.
    pub(super) probe_until: Option<u64>,
    /// Until when the present way of stopping may take.
    pub(super) stop_until: Option<u64>,
    /// Whether it is started again when it is down.
    pub(super) then_start: bool,
    /// Whether a saved state is there.
    pub(super) saved: bool,
    pub(super) first_wave: bool,
    pub(super) first_done: bool,
    /// A domain that was gone before xl told of its creation.
    pub(super) gone_early: Option<(u32, Reason)>,
    /// A domain that had shut down, and stayed, before xl told of its creation.
    #[serde(default)]
    pub(super) remains_early: Option<(u32, Reason)>,
}

impl Record {
    pub(super) fn new(spec: Spec, now: u64) -> Self {
        let state = match &spec.refused {
            Some(why) => State::Refused { why: clean(why, 500) },
            None if spec.saved => State::Saved,
            None if spec.guest.autostart => State::Stopped { how: "not started yet".into() },
            None => State::Stopped { how: "it does not start by itself".into() },
        };
        let saved = spec.saved;
        Self {
            spec,
            state,
            since_us: now,
            wanted: false,
            forced: false,
            delayed: false,
            managed: true,
            tries: 0,
            restarts: 0,
            recent: Vec::new(),
            created_us: None,
            ready_us: None,
            domid: None,
            cause: String::new(),
            job: None,
            lost: None,
            probe_until: None,
            stop_until: None,
            then_start: false,
            saved,
            first_wave: false,
            first_done: false,
            gone_early: None,
            remains_early: None,
        }
    }

    /// The name for people.
    pub(super) fn shown(&self) -> String {
        clean(&self.spec.name, 100)
    }

    pub(super) fn note(&self, text: &str, warning: bool, actions: &mut Vec<Action>) {
        actions.push(Action::Note { text: format!("{}: {text}", self.shown()), warning });
    }

    /// Changes the state; the time counts from the change of its kind, or of the way of stopping.
    pub(super) fn enter(&mut self, state: State, now: u64) {
        let stopping = matches!(state, State::Stopping { .. }) && self.state != state;
        if stopping || std::mem::discriminant(&self.state) != std::mem::discriminant(&state) {
            self.since_us = now;
        }
        self.state = state;
    }

    /// When time alone changes something.
    pub(super) fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Delayed { until_us } | State::BackingOff { until_us, .. } => Some(until_us),
            State::Created { .. } | State::NotReady { .. } => self.probe_until,
            State::Stopping { .. } => self.stop_until,
            _ => None,
        }
    }

    /// It is to be started; everything that was of an earlier start is forgotten.
    pub(super) fn want(&mut self, forced: bool, now: u64) {
        (self.wanted, self.forced, self.then_start, self.tries) = (true, forced, false, 0);
        self.delayed = forced;
        self.stop_until = None;
        self.cause.clear();
        self.enter(State::Waiting { on: Vec::new() }, now);
    }

    /// Has xl start it.
    pub(super) fn attempt(&mut self, now: u64, actions: &mut Vec<Action>) {
        (self.created_us, self.ready_us, self.gone_early, self.probe_until) = (None, None, None, None);
        self.remains_early = None;
        let name = self.spec.name.clone();
        if self.saved {
            self.job = Some(Job::Restore);
            self.enter(State::Starting { attempt: 0 }, now);
            actions.push(Action::Restore { name });
        } else {
            self.tries = self.tries.saturating_add(1);
            self.job = Some(Job::Create);
            self.enter(State::Starting { attempt: self.tries }, now);
            actions.push(Action::Create { name, attempt: self.tries });
        }
    }

    /// Its domain runs.
    pub(super) fn up(&mut self, domid: u32, now: u64, actions: &mut Vec<Action>) {
        self.domid = Some(domid);
        self.wanted = true;
        self.created_us.get_or_insert(now);
        self.enter(State::Created { domid }, now);
        if self.spec.guest.ready == Ready::Running {
            self.ready(domid, now, actions);
        } else {
            self.probe(domid, u64::from(self.spec.guest.ready_timeout) * SECOND, now, actions);
        }
    }

    pub(super) fn ready(&mut self, domid: u32, now: u64, actions: &mut Vec<Action>) {
        self.probe_until = None;
        self.ready_us.get_or_insert(now);
        self.cause.clear();
        self.enter(State::Ready { domid }, now);
        self.note("ready", false, actions);
    }

    /// Has it probed for so long.
    pub(super) fn probe(&mut self, domid: u32, duration: u64, now: u64, actions: &mut Vec<Action>) {
        let deadline_us = now.saturating_add(duration);
        self.probe_until = Some(deadline_us);
        let (name, ready) = (self.spec.name.clone(), self.spec.guest.ready.clone());
        actions.push(Action::Probe { name, domid, ready, deadline_us });
    }

    pub(super) fn end_probe(&mut self, actions: &mut Vec<Action>) {
        if self.probe_until.take().is_some() {
            actions.push(Action::EndProbe { name: self.spec.name.clone() });
        }
    }

    /// It is not ready in time: that is said, and it is looked at further.
    pub(super) fn late(&mut self, now: u64, actions: &mut Vec<Action>) {
        let Some(domid) = self.domid else { return };
        let timeout = self.spec.guest.ready_timeout;
        if matches!(self.state, State::Created { .. }) {
            self.not_ready(domid, &format!("not ready within {timeout} s ({})", self.spec.guest.ready), now, actions);
        }
        self.probe(domid, (u64::from(timeout) * SECOND).max(PROBE_AGAIN), now, actions);
    }

    pub(super) fn not_ready(&mut self, domid: u32, why: &str, now: u64, actions: &mut Vec<Action>) {
        let why = clean(why, 500);
        self.note(&why, true, actions);
        self.cause.clone_from(&why);
        self.enter(State::NotReady { domid, why }, now);
    }

    /// Its saved state is of no use any more.
    pub(super) fn discard(&mut self, actions: &mut Vec<Action>) {
        if std::mem::take(&mut self.saved) {
            actions.push(Action::Discard { name: self.spec.name.clone() });
        }
    }

    /// It is down, or never was up. A job that is under way still has to end.
    pub(super) fn down(&mut self, how: &str, now: u64, actions: &mut Vec<Action>) {
        self.end_probe(actions);
        (self.domid, self.stop_until) = (None, None);
        if std::mem::take(&mut self.then_start) {
            self.want(true, now);
        } else {
            self.wanted = false;
            self.note(how, false, actions);
            self.enter(State::Stopped { how: clean(how, 500) }, now);
        }
    }

    /// Whether xl is at work to stop it, or it has been asked.
    pub(super) fn going_down(&self) -> bool {
        matches!(self.state, State::Stopping { how: How::Shutdown | How::Save | How::Destroy })
    }
}
