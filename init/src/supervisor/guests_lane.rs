//! The guests' lane: the Xen daemons, then the guests by their graph, for as long as the host runs.
//!
//! The daemons and the survey are looked after in threads; everything else is an event for the engine, in the supervisor's own
//! thread. What the engine decides is kept in `/run/sino` before it is done, so that a supervisor that was started again goes on
//! with it and starts no guest twice.

mod asking;
mod look;
mod state;
mod stopping;
mod watching;
mod weight;

use super::control::Answer;
use super::lane::{self, Lane};
use super::{News, Sender};
use crate::config::Loaded;
use crate::guests::daemons::{self, Daemons};
use crate::guests::driver::{Driver, Places, Told};
use crate::guests::engine::{self, Action, Engine, Event};
use crate::guests::making::Making;
use crate::guests::survey::Wanted;
use crate::guests::xl::{Xl, wait_for_orphans};
use crate::storage::Host;
use anyhow::{Context, Result};
use log::Level;
use look::{DOM0, Size, filter, known, sizes};
pub use look::{Seen, look};
use rustix::fd::BorrowedFd;
use sino_boot::layout;
use sino_boot::record::now_us;
pub use state::{GuestsState, Wish};
use state::{keep, kept, told_before, write};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
pub use stopping::{LastStop, Stop};
use weight::weigh_dom0;

/// How long an xl of a supervisor that was killed may take from its start: as long as the slowest of a supervisor that lives.
const ORPHAN: Duration = Duration::from_secs(900);

/// How long domain 0's qemu lets the first guests go before; Debian's `xen.service` waits for both.
const QEMU_WAITS: Duration = Duration::from_secs(30);

/// The lane.
pub struct GuestsLane {
    sender: Sender,
    lane: Lane,
    daemons: Option<Daemons>,
    /// Tells the daemons' thread that what is left may begin.
    created: Option<mpsc::Sender<()>>,
    config: Option<Loaded>,
    bridge: bool,
    phase: Phase,
    running: Option<Running>,
    /// What SINO's own xl makes, for the watch.
    making: Making,
    state: GuestsState,
    /// When the lane began, in microseconds since the kernel started.
    since_us: u64,
    first_is_told: bool,
    /// Who asked for something that waits for a new survey, in that order.
    asked: VecDeque<(Wish, mpsc::Sender<Answer>)>,
    /// Whether the survey for the first of them is under way.
    looks: bool,
    /// What became of domains before the survey was through.
    early: Vec<Event>,
}

/// How far the lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Something that guests need is not there.
    Waiting,
    /// The survey was begun, and the engine after it.
    Begun,
    /// Nothing is begun any more.
    Ended,
}

struct Running {
    engine: Engine,
    driver: Driver,
    sizes: BTreeMap<String, Size>,
}

impl GuestsLane {
    /// Starts the daemons, in a thread of its own.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(boot: bool, sender: &Sender) -> Result<Self> {
        let news = sender.clone();
        let (created, first_created) = mpsc::channel();
        std::thread::Builder::new()
            .name("xen".into())
            .spawn(move || {
                let mut lane = Lane::new("xen", "xen ", daemons::STEPS, boot);
                let (daemons, rest) = Daemons::start(Host::this(), &mut lane);
                news.send(News::Xen(Box::new(daemons)));
                // Where one CPU does everything, the first guests would wait for it. Told, too late, or the lane is gone.
                let _ = first_created.recv_timeout(QEMU_WAITS);
                rest.run(&mut lane);
            })
            .context("starting the lane of the Xen daemons")?;
        Ok(Self {
            sender: sender.clone(),
            lane: Lane::new(super::GUESTS, "guests ", 2, boot),
            daemons: None,
            created: Some(created),
            config: None,
            bridge: false,
            phase: Phase::Waiting,
            running: None,
            making: Making::default(),
            // What it was at, and what was wrong, goes on.
            state: GuestsState { without: None, ..told_before() },
            since_us: now_us(),
            first_is_told: false,
            asked: VecDeque::new(),
            looks: false,
            early: Vec::new(),
        })
    }

    /// Whether the hand-over need not wait for guests any more: there are none to wait for, or xl has created the first.
    #[must_use]
    pub fn ready(&mut self) -> bool {
        let ready = self.state.without.is_some()
            || self.running.as_ref().is_some_and(|running| running.engine.first_wave_created());
        if ready && let Some(created) = self.created.take() {
            // Nobody hears it when it was too late.
            let _ = created.send(());
        }
        ready
    }

    /// What there is to wait for.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.daemons.as_ref().map(Daemons::fds).unwrap_or_default()
    }

    /// When [`GuestsLane::tend`] is due, in microseconds since the kernel started.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let daemon = self.daemons.as_ref().and_then(Daemons::next).map(|at| {
            now_us() + u64::try_from(at.saturating_duration_since(Instant::now()).as_micros()).unwrap_or(u64::MAX)
        });
        let guests = self.running.as_ref().and_then(|running| running.engine.next_deadline());
        [daemon, guests].into_iter().flatten().min()
    }

    /// Sees to the daemons, and tells the engine the time.
    pub fn tend(&mut self) {
        if let Some(daemons) = &mut self.daemons {
            let before = daemons.ready();
            for event in daemons.tend(Host::this(), Instant::now()) {
                lane::say(&event.to_string(), event.level());
            }
            let after = daemons.ready();
            if before != after {
                self.step(if after { Event::DaemonsUp } else { Event::DaemonsLost });
            }
        }
        if self.running.as_ref().and_then(|running| running.engine.next_deadline()).is_some_and(|at| at <= now_us()) {
            self.step(Event::Tick);
        }
    }

    /// The daemons run, or there is no Xen.
    pub fn daemons(&mut self, daemons: Daemons) {
        if daemons.ready() {
            self.watch();
        } else {
            let state = daemons.state();
            let problem = state.problems.first().map(ToString::to_string);
            self.state.without = state.without.clone().or(problem).or(Some("the Xen daemons do not run".into()));
            self.publish();
        }
        self.daemons = Some(daemons);
        self.begin();
    }

    /// The configuration is whole, and `/srv` as mounted as it will be.
    pub fn configured(&mut self, loaded: &Loaded) {
        self.config = Some(loaded.clone());
        self.begin();
    }

    /// Guests can be attached to the bridge.
    pub fn bridge(&mut self) {
        if !std::mem::replace(&mut self.bridge, true) {
            self.begin();
        }
    }

    /// Makes the survey, once everything that guests need is there.
    fn begin(&mut self) {
        let ready = self.daemons.as_ref().is_some_and(Daemons::ready) && self.bridge;
        let ready = ready && self.phase == Phase::Waiting;
        let Some(config) = self.config.clone().filter(|_| ready) else { return };
        self.phase = Phase::Begun;
        let load = move || {
            wait_for_orphans(ORPHAN);
            config
        };
        if let Err(error) = self.survey(Wanted { first: Vec::new(), filter: filter() }, load) {
            log::error!("{error:#}; systemctl restart sino");
        }
    }

    /// Looks at the guests with the configuration that `load` gives, in a thread of its own.
    fn survey(&self, wanted: Wanted, load: impl FnOnce() -> Loaded + Send + 'static) -> Result<()> {
        let news = self.sender.clone();
        let started = std::thread::Builder::new().name("survey".into()).spawn(move || {
            let loaded = load();
            let seen = look(&loaded.config, &wanted);
            news.send(News::Surveyed(Box::new(loaded), Box::new(seen)));
        });
        started.map(drop).context("looking for the guests")
    }

    /// The engine begins with what was found, or goes on where the last one was.
    pub fn surveyed(&mut self, loaded: Loaded, seen: Seen) {
        self.config = Some(loaded);
        if self.running.is_some() {
            self.seen_again(seen);
        } else {
            self.begin_engine(seen);
        }
        self.seen_for_asked();
    }

    /// What there is of guests may have changed.
    fn seen_again(&mut self, seen: Seen) {
        let Some(running) = &mut self.running else { return };
        let Seen { survey, domains, .. } = seen;
        running.sizes = sizes(&survey, &domains);
        running.driver.files(survey.files);
        running.engine.respec(survey.specs, now_us());
        self.problems(survey.problems);
        self.state.budget = survey.budget.map(|plan| plan.to_string()).unwrap_or_default();
        self.publish();
    }

    /// What is wrong: what `sino.toml` says of guests and cannot be used, then what the survey found.
    fn problems(&mut self, found: Vec<String>) {
        let of_toml = self.config.iter().flat_map(|loaded| &loaded.problems).filter(|problem| problem.is_of_guests());
        self.state.problems = of_toml.map(ToString::to_string).chain(found).collect();
    }

    fn begin_engine(&mut self, seen: Seen) {
        let xl = match Xl::find() {
            Ok(xl) => xl,
            Err(error) => {
                self.lane.step("guests", || Err::<sino_boot::stage::Done<()>, _>(error.into()));
                self.state.without = Some("there is no xl".to_owned());
                return self.publish();
            }
        };
        let sender = self.sender.clone();
        let guests = self.config.as_ref().map(|loaded| loaded.config.guests.clone()).unwrap_or_default();
        weigh_dom0(&xl, seen.scheduler, guests.dom0_weight);
        let tell = Arc::new(move |told| sender.send(News::Guest(told)));
        let mut driver = Driver::new(xl, Places::default(), self.making.clone(), tell);
        let Seen { survey, domains, .. } = seen;
        let sizes = sizes(&survey, &domains);
        driver.files(survey.files);
        for problem in &survey.problems {
            self.lane.warn(problem);
        }
        self.problems(survey.problems);
        self.state.budget = survey.budget.map(|plan| plan.to_string()).unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let engine = if let Some(mut engine) = kept() {
            engine.respec(survey.specs, now_us());
            engine
        } else {
            Engine::new(survey.specs, guests.parallel(cpus), now_us())
        };
        // The supervisor before this one may have been killed between keeping the engine and this.
        let begins = !engine.has_begun();
        self.lane.reached("survey", self.since_us, &format!("{} guests", engine.report().len()));
        self.running = Some(Running { engine, driver, sizes });
        let there: Vec<engine::Domain> = domains.iter().filter(|domain| domain.name != DOM0).map(known).collect();
        if let Some(running) = &mut self.running {
            let actions = running.engine.reconcile(&there, now_us());
            self.act(actions);
        }
        for event in std::mem::take(&mut self.early) {
            self.step(event);
        }
        self.step(Event::DaemonsUp);
        if !self.go_on_stopping() && begins {
            self.step(Event::StartAll { filter: filter() });
        }
    }

    /// An xl or a probe has ended.
    pub fn told(&mut self, told: Told) {
        if self.running.as_mut().is_some_and(|running| running.driver.takes(&told)) {
            self.step(told.event);
        }
    }

    /// Something became of domains.
    pub fn domains(&mut self, events: Vec<Event>) {
        if self.running.is_none() {
            // The list of domains that is on its way may be older.
            return self.early.extend(events);
        }
        for event in events {
            self.step(event);
        }
    }

    /// Tells the engine, and does what it wants.
    fn step(&mut self, event: Event) {
        let Some(running) = &mut self.running else { return };
        let actions = running.engine.step(event, now_us());
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        let Some(running) = &mut self.running else { return };
        if self.phase != Phase::Ended {
            keep(&running.engine);
        }
        for action in actions {
            if let Action::Note { text, warning } = &action {
                if *warning {
                    self.lane.warn(text);
                } else {
                    lane::say(&format!("guest {text}"), Level::Info);
                }
            }
            running.driver.act(action);
        }
        if !self.first_is_told && running.engine.report().iter().any(|guest| guest.created_us.is_some()) {
            self.first_is_told = true;
            self.lane.reached("first-created", self.since_us, "");
        }
        self.tend_stop();
        self.publish();
    }

    fn fill(&mut self) {
        if let Some(running) = &self.running {
            self.state.guests = running.engine.report();
            for guest in &mut self.state.guests {
                (guest.memory_kib, guest.vcpus) = running.sizes.get(&guest.name).copied().unwrap_or_default();
            }
        }
    }

    fn publish(&mut self) {
        self.fill();
        let text = serde_json::to_string(&self.state).unwrap_or_default();
        write(layout::GUESTS_STATE, &text);
    }
}
