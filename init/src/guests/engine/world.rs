//! A host that is not there: domains, xl and time as the tests want them. It holds each action against what must never happen.

use super::stop::AT_ONCE;
use super::*;
use crate::guests::ready::Ready;
use crate::guests::settings::OnFailure;
use std::collections::{BTreeMap, BTreeSet};

/// How one guest behaves.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    /// What each `xl create` does; the last one goes on.
    pub(super) creates: Vec<Outcome>,
    pub(super) create_us: u64,
    /// When it is ready after its creation.
    pub(super) ready_us: Option<u64>,
    /// How each of its lives ends by itself; afterwards it stays.
    pub(super) ends: Vec<(u64, Reason)>,
    /// How long a shutdown takes; `None`: it does not listen.
    pub(super) shutdown_us: Option<u64>,
    pub(super) asked: bool,
    pub(super) save_us: u64,
    pub(super) save_works: bool,
    pub(super) restore_works: bool,
    pub(super) destroy_us: u64,
}

/// What `xl create` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Works,
    Fails,
    /// It hangs and leaves half a domain.
    Hangs,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            creates: vec![Outcome::Works],
            create_us: 2 * SECOND,
            ready_us: Some(10 * SECOND),
            ends: Vec::new(),
            shutdown_us: Some(5 * SECOND),
            asked: true,
            save_us: 3 * SECOND,
            save_works: true,
            restore_works: true,
            destroy_us: SECOND / 2,
        }
    }
}

#[derive(Clone, Debug)]
enum Happening {
    XlCreate { name: String, outcome: Outcome },
    XlShutdown { name: String },
    XlSave { name: String },
    XlDestroy { name: String },
    Probe { name: String, domid: u32, result: Result<(), String> },
    End { name: String, domid: u32, reason: Reason },
}

impl Happening {
    /// Whether it ends with the supervisor.
    fn is_ours(&self) -> bool {
        !matches!(self, Self::End { .. })
    }
}

pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) now: u64,
    pub(super) behaviours: BTreeMap<String, Behaviour>,
    pub(super) domains: BTreeMap<String, Domain>,
    ready_at: BTreeMap<u32, Option<u64>>,
    lives: BTreeMap<String, usize>,
    tries: BTreeMap<String, usize>,
    queue: BTreeMap<(u64, u64), Happening>,
    number: u64,
    xl: BTreeMap<String, (u64, u64)>,
    pub(super) parallel: usize,
    pub(super) log: Vec<(u64, Action)>,
    pub(super) saved: BTreeSet<String>,
    stale: BTreeSet<String>,
    pub(super) commanded: BTreeSet<String>,
    /// When all were told to stop and until when.
    pub(super) stopping: Option<(u64, u64)>,
    pub(super) steps: usize,
    /// Steps after which the supervisor is killed, and how it then is with what was under way.
    pub(super) kills: BTreeMap<usize, u8>,
}

impl World {
    pub(super) fn new(specs: Vec<Spec>, behaviours: BTreeMap<String, Behaviour>, parallel: usize) -> Self {
        let saved = specs.iter().filter(|spec| spec.saved).map(|spec| spec.name.clone()).collect();
        Self {
            engine: Engine::new(specs, parallel, 0),
            now: 0,
            behaviours,
            domains: BTreeMap::new(),
            ready_at: BTreeMap::new(),
            lives: BTreeMap::new(),
            tries: BTreeMap::new(),
            queue: BTreeMap::new(),
            number: 0,
            xl: BTreeMap::new(),
            parallel,
            log: Vec::new(),
            saved,
            stale: BTreeSet::new(),
            commanded: BTreeSet::new(),
            stopping: None,
            steps: 0,
            kills: BTreeMap::new(),
        }
    }

    /// Gives the engine an event and does what it wants.
    pub(super) fn feed(&mut self, event: Event) {
        match &event {
            Event::Start { name } | Event::Restart { name } | Event::Stop { name } => {
                self.commanded.insert(name.clone());
            }
            Event::StopAll { until_us } => self.stopping = Some((self.now, *until_us)),
            Event::StartAll { .. } => self.stopping = None,
            _ => {}
        }
        let actions = self.engine.step(event, self.now);
        self.steps += 1;
        // The state is written before the actions are done, so a kill may come before, between and after them.
        match self.kills.remove(&self.steps) {
            None => self.perform(actions),
            Some(how) => {
                let done = actions.len() * usize::from(how % 3) / 2;
                self.perform(actions.into_iter().take(done).collect());
                self.kill(how);
            }
        }
        assert!(self.steps < 200_000, "it does not come to an end");
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.log.push((self.now, action.clone()));
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Create { name, .. } => {
                self.saved.remove(&name);
                let number = self.tries.entry(name.clone()).or_default();
                let creates = &self.behaviours[&name].creates;
                let outcome = creates[(*number).min(creates.len() - 1)];
                *number += 1;
                self.build(name, outcome);
            }
            Action::Restore { name } => {
                let there = self.saved.contains(&name);
                assert!(!there || !self.stale.contains(&name), "{name}: an old state is resumed");
                let works = there && self.behaviours[&name].restore_works;
                self.build(name, if works { Outcome::Works } else { Outcome::Fails });
            }
            Action::Discard { name } => {
                self.saved.remove(&name);
            }
            Action::Probe { name, domid, deadline_us, .. } => {
                let ready = self.ready_at.get(&domid).copied().flatten().map(|at| at.max(self.now));
                match ready.filter(|at| *at <= deadline_us) {
                    Some(at) => {
                        self.at(at, Happening::Probe { name, domid, result: Ok(()) });
                    }
                    None if domid % 2 == 0 && self.engine.state(&name) == Some(&State::Created { domid }) => {
                        self.at(deadline_us, Happening::Probe { name, domid, result: Err("no answer".into()) });
                    }
                    None => {}
                }
            }
            Action::EndProbe { .. } => {}
            Action::Shutdown { name } => self.shutdown(name),
            Action::Save { name } => {
                let after = self.behaviour(&name).save_us;
                self.xl(name.clone(), after, Happening::XlSave { name });
            }
            Action::Destroy { name } => {
                let after = self.behaviour(&name).destroy_us;
                self.xl(name.clone(), after, Happening::XlDestroy { name });
            }
            Action::Note { text, .. } => assert!(!text.chars().any(char::is_control), "{text:?}"),
        }
    }

    fn behaviour(&self, name: &str) -> Behaviour {
        self.behaviours.get(name).cloned().unwrap_or_default()
    }

    /// Begins to build a domain.
    fn build(&mut self, name: String, outcome: Outcome) {
        assert!(!self.domains.contains_key(&name), "{name} is started twice");
        assert!(!self.xl.contains_key(&name), "{name} is started while xl is at work with it");
        assert!(self.stopping.is_none(), "{name} is started while all are stopped");
        self.check_order(&name);
        let domid = u32::try_from(self.number).unwrap() + 1;
        self.domains.insert(name.clone(), Domain { name: name.clone(), domid, paused: true });
        let after = self.behaviours[&name].create_us * if outcome == Outcome::Hangs { 10 } else { 1 };
        self.xl(name.clone(), after, Happening::XlCreate { name, outcome });
        let creating = self.queue.values().filter(|it| matches!(it, Happening::XlCreate { .. })).count();
        assert!(creating <= self.parallel, "{creating} are created at a time");
    }

    /// Whether those that a guest is after are as they should be.
    fn check_order(&self, name: &str) {
        if self.commanded.contains(name) || self.engine.guests[name].restarts > 0 {
            return;
        }
        for other in &self.engine.graph().after[name] {
            let guest = &self.engine.guests[other];
            let hold = guest.spec.guest.on_failure == OnFailure::HoldDependents;
            match &guest.state {
                State::Ready { domid } => {
                    let told = self.ready_at.get(domid).copied().flatten().is_some_and(|at| at <= self.now);
                    assert!(told || guest.spec.guest.ready == Ready::Running, "{name} before {other} is ready");
                }
                State::Stopped { .. } | State::Saved => {}
                state => assert!(state.is_settled() && !hold, "{name} before {other}, which is {state:?}"),
            }
        }
    }

    fn shutdown(&mut self, name: String) {
        if let Some((begun, until)) = self.stopping {
            let hard = until - ((until - begun) / 4).min(45 * SECOND);
            for (other, after) in &self.engine.graph().after {
                let before = after.contains(&name) && self.domains.get(other).is_some_and(|domain| !domain.paused);
                assert!(!before || self.now >= hard, "{name} is stopped before {other}");
            }
            let down = self.engine.guests.values().filter(|guest| guest.going_down()).count();
            assert!(
                down <= self.parallel.max(AT_ONCE) || until - begun < 3600 * SECOND,
                "{down} are stopped at a time"
            );
        }
        let behaviour = self.behaviour(&name);
        if let (Some(after), Some(domain)) = (behaviour.shutdown_us, self.domains.get(&name)) {
            let end = Happening::End { name: name.clone(), domid: domain.domid, reason: Reason::PowerOff };
            if behaviour.asked {
                self.at(self.now + after, end);
            }
        }
        self.xl(name.clone(), SECOND / 5, Happening::XlShutdown { name });
    }

    fn at(&mut self, time: u64, happening: Happening) -> (u64, u64) {
        self.number += 1;
        self.queue.insert((time, self.number), happening);
        (time, self.number)
    }

    /// Runs xl; one that is under way for that guest is ended.
    fn xl(&mut self, name: String, after: u64, happening: Happening) {
        if let Some(key) = self.xl.remove(&name) {
            self.queue.remove(&key);
        }
        let key = self.at(self.now + after, happening);
        self.xl.insert(name, key);
    }

    /// Goes on to the next moment. `false`: nothing will ever happen any more.
    pub(super) fn go_on(&mut self) -> bool {
        let next = self.queue.keys().next().copied();
        let deadline = self.engine.next_deadline();
        match (next, deadline) {
            (None, None) => return false,
            (Some(key), deadline) if deadline.is_none_or(|deadline| key.0 <= deadline) => {
                self.now = self.now.max(key.0);
                let happening = self.queue.remove(&key).unwrap();
                for event in self.happen(happening) {
                    self.feed(event);
                }
            }
            (_, deadline) => {
                self.now = self.now.max(deadline.unwrap());
                self.feed(Event::Tick);
            }
        }
        true
    }

    /// Goes on until every guest is in a state that stays and nothing happens by itself any more.
    pub(super) fn settle(&mut self) {
        while !(self.engine.is_settled() && self.queue.is_empty()) {
            assert!(self.go_on(), "nothing is under way: {:#?}", self.engine.report());
        }
        self.check();
    }

    pub(super) fn run_until(&mut self, time: u64) {
        while self
            .queue
            .keys()
            .next()
            .map(|key| key.0)
            .into_iter()
            .chain(self.engine.next_deadline())
            .min()
            .is_some_and(|at| at <= time)
        {
            self.go_on();
        }
        self.now = self.now.max(time);
    }

    /// Whether the engine knows what runs, now that nothing happens.
    pub(super) fn check(&self) {
        for (name, guest) in &self.engine.guests {
            let domain = self.domains.get(name);
            let up = guest.state.is_up();
            assert_eq!(up, domain.is_some_and(|domain| !domain.paused), "{name}: {:?}, {domain:?}", guest.state);
            assert!(up || domain.is_none(), "{name}: {:?}, {domain:?}", guest.state);
            assert_eq!(guest.domid, domain.map(|domain| domain.domid), "{name}: {:?}", guest.state);
            assert!(!up || !self.saved.contains(name), "{name} runs and has a saved state");
            assert_eq!(guest.job, None, "{name}: {:?}", guest.state);
        }
        assert!(self.domains.keys().all(|name| self.engine.guests.contains_key(name)));
        for report in self.engine.report() {
            assert!(!report.cause.chars().any(char::is_control));
        }
    }

    fn runs(&mut self, name: &str) -> u32 {
        let domain = self.domains.get_mut(name).unwrap();
        domain.paused = false;
        let domid = domain.domid;
        self.stale.insert(name.to_owned());
        let behaviour = self.behaviour(name);
        self.ready_at.insert(domid, behaviour.ready_us.map(|after| self.now + after));
        let life = self.lives.entry(name.to_owned()).or_default();
        *life += 1;
        if let Some((after, reason)) = behaviour.ends.get(*life - 1) {
            let end = Happening::End { name: name.to_owned(), domid, reason: *reason };
            self.at(self.now + after, end);
        }
        domid
    }

    /// A domain that somebody else starts.
    pub(super) fn start_by_hand(&mut self, name: &str) -> u32 {
        self.number += 1;
        let domid = u32::try_from(self.number).unwrap();
        self.domains.insert(name.to_owned(), Domain { name: name.to_owned(), domid, paused: true });
        self.runs(name)
    }

    fn happen(&mut self, happening: Happening) -> Vec<Event> {
        let gone = |name: &str, domid, reason| Event::Gone { name: name.to_owned(), domid, reason };
        match happening {
            Happening::XlCreate { name, outcome } => {
                self.xl.remove(&name);
                let result = match outcome {
                    Outcome::Works => Ok(self.runs(&name)),
                    Outcome::Fails => {
                        self.domains.remove(&name);
                        Err(XlError::Failed("no such\u{1b} disk".into()))
                    }
                    Outcome::Hangs => Err(XlError::TimedOut),
                };
                vec![Event::Created { name, result }]
            }
            Happening::XlShutdown { name } => {
                self.xl.remove(&name);
                let asked = self.behaviour(&name).asked;
                let result = if asked { Ok(()) } else { Err(XlError::Failed("no drivers".into())) };
                vec![Event::ShutdownEnded { name, result }]
            }
            Happening::XlSave { name } => {
                self.xl.remove(&name);
                let works = self.behaviour(&name).save_works;
                match self.domains.get(&name).cloned().filter(|_| works) {
                    Some(domain) => {
                        self.domains.remove(&name);
                        self.saved.insert(name.clone());
                        self.stale.remove(&name);
                        vec![gone(&name, domain.domid, Reason::Suspend), Event::SaveEnded { name, result: Ok(()) }]
                    }
                    None => vec![Event::SaveEnded { name, result: Err(XlError::Failed("no space".into())) }],
                }
            }
            Happening::XlDestroy { name } => {
                self.xl.remove(&name);
                let domain = self.domains.remove(&name).filter(|domain| !domain.paused);
                let gone = domain.map(|domain| gone(&name, domain.domid, Reason::Destroyed));
                gone.into_iter().chain([Event::DestroyEnded { name, result: Ok(()) }]).collect()
            }
            Happening::Probe { name, domid, result } => vec![Event::Probed { name, domid, result }],
            Happening::End { name, domid, reason } => {
                if self.domains.get(&name).is_none_or(|domain| domain.domid != domid) {
                    return Vec::new();
                }
                self.domains.remove(&name);
                vec![gone(&name, domid, reason)]
            }
        }
    }

    /// Kills the supervisor with all that it has started, and starts it again some time later.
    pub(super) fn kill(&mut self, how: u8) {
        let json = self.engine.to_json().unwrap();
        let ours: Vec<_> = self.queue.iter().filter(|(_, it)| it.is_ours()).map(|(key, _)| *key).collect();
        for (index, key) in ours.into_iter().enumerate() {
            let it = self.queue.remove(&key).unwrap();
            let works =
                matches!(it, Happening::XlCreate { .. } | Happening::XlSave { .. } | Happening::XlDestroy { .. });
            match (usize::from(how / 3) + index) % 3 {
                // It was over just before, and its event is lost.
                0 if works => drop(self.happen(it)),
                1 => {
                    if let Happening::XlCreate { name, .. } = it {
                        self.domains.remove(&name);
                    }
                }
                _ => {}
            }
        }
        self.xl.clear();
        let back = self.now + u64::from(how) * SECOND / 8;
        while let Some(((time, number), _)) = self.queue.first_key_value()
            && *time <= back
        {
            let happening = self.queue.remove(&(*time, *number)).unwrap();
            drop(self.happen(happening));
        }
        self.now = back;
        self.engine = Engine::from_json(&json).unwrap();
        let domains: Vec<Domain> = self.domains.values().cloned().collect();
        let actions = self.engine.reconcile(&domains, self.now);
        self.perform(actions);
    }
}
