//! What happens next with each guest: a state machine over all of them, without I/O.
//!
//! [`Engine::step`] takes one event and the time, and returns what is to be done; [`Engine::next_deadline`] is when it wants an
//! [`Event::Tick`]. Time is only ever what the caller says it is. The engine is kept as JSON ([`Engine::to_json`]) before its
//! actions are done; one that was read again is told what runs with [`Engine::reconcile`] and goes on from there, so that no
//! guest is started twice and none is forgotten.
//!
//! What it does not do: run xl, look for domains, read configurations. Of a guest whose domain is told as gone it expects that
//! nothing is left of the domain, and that nobody else starts it again: a reboot by xl's own process is told as the appearance of
//! the new domain alone ([`super::watch`]).

mod event;
mod reconcile;
mod record;
mod remains;
mod report;
mod respec;
mod running;
mod start;
mod state;
mod stop;

use super::graph::{Graph, Node, graph};
use super::settings::Guest;
use anyhow::{Context, Result};
use record::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use stop::StopAll;

pub use event::{Action, Domain, Event, Filter, Reason, XlError};
pub use report::{GuestReport, plan, stop_table, table};
pub use state::{How, State};

/// Microseconds of a second.
const SECOND: u64 = 1_000_000;

/// A guest as the engine is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name, which is its domain's.
    pub name: String,
    /// What is wanted of it.
    pub guest: Guest,
    /// Whether a saved state of it is there to be resumed.
    pub saved: bool,
    /// Why it must not be started: it does not fit, something that it needs is missing.
    pub refused: Option<String>,
}

/// All guests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    guests: BTreeMap<String, Record>,
    graph: Graph,
    /// Who is after each guest: the graph the other way round.
    dependents: BTreeMap<String, Vec<String>>,
    parallel: usize,
    /// Whether the Xen daemons answer.
    daemons: bool,
    /// Whether it was told what becomes of the guests as a whole: that they start, or that they stop.
    begun: bool,
    stopping: Option<StopAll>,
    /// When the last event was.
    now_us: u64,
    /// What is to be done of this event.
    #[serde(skip)]
    actions: Vec<Action>,
}

impl Engine {
    /// An engine that waits for [`Event::DaemonsUp`] and [`Event::StartAll`], in whichever order. `parallel`: how many guests are
    /// created, or shut down, at the same time; at least 1. Of two specs of one name the first counts.
    ///
    /// Tell it what runs already with [`Engine::reconcile`] before it starts anything.
    #[must_use]
    pub fn new(mut specs: Vec<Spec>, parallel: usize, now_us: u64) -> Self {
        let (graph, dependents) = lay_out(&mut specs);
        let mut guests = BTreeMap::new();
        for spec in specs {
            guests.entry(spec.name.clone()).or_insert_with(|| Record::new(spec, now_us));
        }
        let (parallel, daemons, begun) = (parallel.max(1), false, false);
        Self { guests, graph, dependents, parallel, daemons, begun, stopping: None, now_us, actions: Vec::new() }
    }

    /// Takes an event at a time (microseconds of any clock that does not go back; the boot clock), and returns what is to be
    /// done. Events of guests that it does not know, and answers to actions that were replaced, do nothing.
    #[must_use]
    pub fn step(&mut self, event: Event, now_us: u64) -> Vec<Action> {
        let now = self.clock(now_us);
        match event {
            Event::Tick => {}
            Event::StartAll { filter } => self.start_all(&filter, now),
            Event::StopAll { until_us } => self.stop_all(until_us, now),
            Event::Start { name } => self.start_one(&name, now),
            Event::Stop { name } => self.stop_one(&name, false, now),
            Event::Restart { name } => self.stop_one(&name, true, now),
            Event::Refuse { name, why } => self.refuse(&name, &why, now),
            Event::Created { name, result } => self.created(&name, result, now),
            Event::Probed { name, domid, result } => self.probed(&name, domid, result, now),
            Event::Gone { name, domid, reason } => self.gone(&name, domid, reason, now),
            Event::Remains { name, domid, reason } => self.remains(&name, domid, reason, now),
            Event::Appeared { name, domid } => self.appeared(&name, domid, now),
            Event::ShutdownEnded { name, result } => self.shutdown_ended(&name, result, now),
            Event::SaveEnded { name, result } => self.save_ended(&name, result, now),
            Event::DestroyEnded { name, result } => self.destroy_ended(&name, result, now),
            Event::DaemonsUp => self.daemons_are(true),
            Event::DaemonsLost => self.daemons_are(false),
        }
        self.advance(now)
    }

    /// When it wants an [`Event::Tick`] at the latest; `None`: it only waits for events.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let guests = self.guests.values().filter_map(Record::deadline);
        guests.chain(self.stop_deadlines()).min()
    }

    /// Whether each guest that could start without waiting for others (or for its delay) has its first `xl create` behind it,
    /// however that ended. Not before [`Event::StartAll`].
    #[must_use]
    pub fn first_wave_created(&self) -> bool {
        let behind = |guest: &Record| !guest.first_wave || guest.first_done || guest.state.is_settled();
        self.begun && self.guests.values().all(behind)
    }

    /// Whether it was ever told to start, or to stop, all guests. One that was not, and is kept, is that of a supervisor that was
    /// killed just before [`Event::StartAll`]: its successor must still say it.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether every guest is in a state that stays.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.stopping.is_none() && self.guests.values().all(|guest| guest.state.is_settled())
    }

    /// Whether all guests are being stopped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// The order that it follows, and what is wrong with it.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// How a guest is; `None`: there is no such guest.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<&State> {
        self.guests.get(name).map(|guest| &guest.state)
    }

    /// Why a guest that does not run must not be started, as it was looked at last.
    #[must_use]
    pub fn refusal(&self, name: &str) -> Option<&str> {
        let guest = self.guests.get(name).filter(|guest| guest.domid.is_none() && guest.job.is_none())?;
        match &guest.state {
            State::Refused { why } => Some(why),
            _ => guest.spec.refused.as_deref(),
        }
    }

    /// The guests that are on their way up, by name.
    #[must_use]
    pub fn on_their_way(&self) -> Vec<String> {
        let up = |guest: &&Record| {
            use State::{BackingOff, Delayed, Starting, Waiting};
            matches!(guest.state, Waiting { .. } | Delayed { .. } | Starting { .. } | BackingOff { .. })
        };
        self.guests.values().filter(up).map(|guest| guest.spec.name.clone()).collect()
    }

    /// The engine as JSON. Write it before the actions of a step are done.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).context("writing the state of the guests as JSON")
    }

    /// The engine from its JSON, after a kill. Call [`Engine::reconcile`] once no xl of the predecessor runs any more, before
    /// anything else.
    ///
    /// # Errors
    /// The text is not such a JSON; a new engine that is reconciled takes over what runs.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut engine: Self = serde_json::from_str(text).context("reading the state of the guests")?;
        for guest in engine.guests.values_mut() {
            guest.lost = guest.job.take();
        }
        Ok(engine)
    }

    /// The time never goes back, whatever the caller says.
    fn clock(&mut self, now_us: u64) -> u64 {
        self.now_us = self.now_us.max(now_us);
        self.now_us
    }

    /// What follows from what has changed, and the actions of all of it.
    fn advance(&mut self, now: u64) -> Vec<Action> {
        self.expire(now);
        if self.stopping.is_some() {
            self.stop_next(now);
        } else {
            self.judge(now);
            self.launch(now);
        }
        std::mem::take(&mut self.actions)
    }

    /// What follows for single guests because time has passed.
    fn expire(&mut self, now: u64) {
        let due = |guest: &Record| guest.deadline().is_some_and(|deadline| deadline <= now);
        let names: Vec<String> =
            self.guests.values().filter(|guest| due(guest)).map(|guest| guest.spec.name.clone()).collect();
        for name in names {
            let Some(guest) = self.guests.get_mut(&name) else { continue };
            match guest.state {
                State::Delayed { .. } => {
                    guest.delayed = true;
                    guest.enter(State::Waiting { on: Vec::new() }, now);
                }
                State::BackingOff { .. } => guest.enter(State::Waiting { on: Vec::new() }, now),
                State::Created { .. } | State::NotReady { .. } => guest.late(now, &mut self.actions),
                State::Stopping { .. } => self.out_of_time(&name, now),
                _ => {}
            }
        }
    }

    fn daemons_are(&mut self, up: bool) {
        if self.daemons && !up {
            self.note("the Xen daemons do not answer: no guest is started until they do", true);
        }
        self.daemons = up;
    }

    fn note(&mut self, text: impl Into<String>, warning: bool) {
        self.actions.push(Action::Note { text: text.into(), warning });
    }
}

/// The order of these guests, and who is after each; what the order makes impossible is refused. Of two of one name the first
/// counts.
fn lay_out(specs: &mut [Spec]) -> (Graph, BTreeMap<String, Vec<String>>) {
    let node = |spec: &Spec| Node {
        name: spec.name.clone(),
        after: spec.guest.after.clone(),
        order: spec.guest.order,
        autostart: spec.guest.autostart,
    };
    let graph = graph(&specs.iter().map(node).collect::<Vec<_>>());
    for spec in specs {
        if let Some(why) = graph.refused.get(&spec.name) {
            spec.refused = Some(why.clone());
        }
    }
    let mut dependents: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, after) in &graph.after {
        for other in after {
            dependents.entry(other.clone()).or_default().push(name.clone());
        }
    }
    (graph, dependents)
}

#[cfg(test)]
mod overhead;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod stop_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
