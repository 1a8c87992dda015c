//! The guests' lane: the Xen daemons, then the guests by their graph, for as long as the host runs.
//!
//! The daemons and the survey are looked after in threads; everything else is an event for the engine, in the supervisor's own
//! thread. What the engine decides is kept in `/run/sino` before it is done, so that a supervisor that was started again goes on
//! with it and starts no guest twice.

use super::lane::{self, Lane};
use super::{News, Sender, running_guests};
use crate::config::origins::clean;
use crate::config::schema::Config;
use crate::guests::budget::{self, balloons_dom0, parse_xl_info};
use crate::guests::daemons::{self, Daemons};
use crate::guests::driver::{Driver, Places, Told};
use crate::guests::engine::{self, Action, Engine, Event, Filter, GuestReport};
use crate::guests::settings::nearest;
use crate::guests::survey::{Host as Surveyed, Survey, survey};
use crate::guests::watch::Watch;
use crate::guests::xenstore::{Client, domains::Domains};
use crate::guests::xl::{Domain, Xl, wait_for_orphans};
use crate::storage::Host;
use crate::storage::lvm::Group;
use anyhow::{Context, Result, bail};
use log::Level;
use rustix::fd::BorrowedFd;
use serde::{Deserialize, Serialize};
use sino_boot::layout;
use sino_boot::options::{self, Autostart};
use sino_boot::record::now_us;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long what Xen and xl say of the host may take before guests are started without it.
const ASK: Duration = Duration::from_secs(60);
/// How long an xl of a supervisor that was killed may take from its start: as long as the slowest of a supervisor that lives.
const ORPHAN: Duration = Duration::from_secs(900);
/// A connection to xenstored that was lost sooner than this is not replaced at once.
const LIVES: Duration = Duration::from_secs(2);
/// Xen's name of domain 0.
const DOM0: &str = "Domain-0";

/// What a survey found, and what ran at that time.
#[derive(Debug)]
pub struct Seen {
    /// What there is.
    pub survey: Survey,
    /// What runs.
    pub domains: Vec<Domain>,
}

/// How the guests are, in [`layout::GUESTS_STATE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestsState {
    /// Why there are none, as on a plain kernel.
    pub without: Option<String>,
    /// Each guest.
    pub guests: Vec<GuestReport>,
    /// What is wrong, for people.
    pub problems: Vec<String>,
    /// Which fit into the memory, as text.
    pub budget: String,
}

/// What an administrator asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Start a guest.
    Start {
        /// Its name.
        name: String,
    },
    /// Stop a guest.
    Stop {
        /// Its name.
        name: String,
    },
    /// Stop a guest and start it again.
    Restart {
        /// Its name.
        name: String,
    },
    /// Stop all guests.
    StopAll {
        /// Within so many seconds.
        deadline: u32,
    },
    /// Start all guests that start by themselves.
    StartAll,
}

/// The lane.
pub struct GuestsLane {
    sender: Sender,
    lane: Lane,
    daemons: Option<Daemons>,
    config: Option<Config>,
    bridge: bool,
    surveying: bool,
    running: Option<Running>,
    state: GuestsState,
    /// When the lane began, in microseconds since the kernel started.
    since_us: u64,
    first_is_told: bool,
    /// What became of domains before the survey was through.
    early: Vec<Event>,
}

struct Running {
    engine: Engine,
    driver: Driver,
    sizes: BTreeMap<String, (u64, u32)>,
}

impl GuestsLane {
    /// Starts the daemons, in a thread of its own.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(boot: bool, sender: &Sender) -> Result<Self> {
        let news = sender.clone();
        std::thread::Builder::new()
            .name("xen".into())
            .spawn(move || {
                let mut lane = Lane::new("xen", "xen ", daemons::STEPS, boot);
                news.send(News::Xen(Box::new(Daemons::start(Host::this(), &mut lane))));
            })
            .context("starting the lane of the Xen daemons")?;
        Ok(Self {
            sender: sender.clone(),
            lane: Lane::new(super::GUESTS, "guests ", 2, boot),
            daemons: None,
            config: None,
            bridge: false,
            surveying: false,
            running: None,
            state: GuestsState::default(),
            since_us: now_us(),
            first_is_told: false,
            early: Vec::new(),
        })
    }

    /// Whether the hand-over need not wait for guests any more: there are none to wait for, or xl has created the first.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.state.without.is_some() || self.running.as_ref().is_some_and(|running| running.engine.first_wave_created())
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
    pub fn configured(&mut self, config: &Config) {
        self.config = Some(config.clone());
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
        let ready = self.daemons.as_ref().is_some_and(Daemons::ready) && self.bridge && !self.surveying;
        let Some(config) = self.config.clone().filter(|_| ready) else { return };
        self.surveying = true;
        let news = self.sender.clone();
        let started = std::thread::Builder::new().name("survey".into()).spawn(move || {
            wait_for_orphans(ORPHAN);
            news.send(News::Surveyed(Box::new(look(&config))));
        });
        if let Err(error) = started {
            log::error!("the guests are not looked for: {error}; systemctl restart sino");
        }
    }

    /// The engine begins with what was found, or goes on where the last one was.
    pub fn surveyed(&mut self, seen: Seen) {
        let xl = match Xl::find() {
            Ok(xl) => xl,
            Err(error) => {
                self.lane.step("guests", || Err::<sino_boot::stage::Done<()>, _>(error.into()));
                self.state.without = Some("there is no xl".to_owned());
                return self.publish();
            }
        };
        let sender = self.sender.clone();
        let mut driver = Driver::new(xl, Places::default(), Arc::new(move |told| sender.send(News::Guest(told))));
        let Seen { survey, domains } = seen;
        driver.files(survey.files);
        for problem in &survey.problems {
            self.lane.warn(problem);
        }
        self.state.problems = survey.problems;
        self.state.budget = survey.budget.map(|plan| plan.to_string()).unwrap_or_default();
        let sizes =
            domains.iter().map(|domain| (domain.name.clone(), (domain.memory_mib << 10, domain.vcpus))).collect();
        let guests = self.config.as_ref().map(|config| config.guests.clone()).unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let kept = kept();
        let fresh = kept.is_none();
        let engine = kept.unwrap_or_else(|| Engine::new(survey.specs, guests.parallel(cpus), now_us()));
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
        if fresh {
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

    /// Does what an administrator asks, if there is such a guest.
    ///
    /// # Errors
    /// There is none, or guests cannot be started.
    pub fn ask(&mut self, wish: &Wish) -> Result<String> {
        if let Some(why) = &self.state.without {
            bail!("no guests: {why}");
        }
        let Some(running) = &self.running else { bail!("the guests are still being looked for; try again") };
        if let Wish::Start { name } | Wish::Stop { name } | Wish::Restart { name } = wish
            && running.engine.state(name).is_none()
        {
            let names: Vec<String> = running.engine.report().into_iter().map(|guest| guest.name).collect();
            let meant = nearest(name, names.iter().map(String::as_str));
            let meant = meant.map(|meant| format!("; did you mean {}?", clean(meant, 64))).unwrap_or_default();
            bail!("there is no guest {}{meant}", clean(name, 64));
        }
        let (event, text) = match wish.clone() {
            Wish::Start { name } => (Event::Start { name: name.clone() }, format!("{name} is being started")),
            Wish::Stop { name } => (Event::Stop { name: name.clone() }, format!("{name} is being stopped")),
            Wish::Restart { name } => (Event::Restart { name: name.clone() }, format!("{name} is being restarted")),
            Wish::StopAll { deadline } => {
                let until_us = now_us() + u64::from(deadline) * 1_000_000;
                (Event::StopAll { until_us }, format!("all guests are being stopped, within {deadline} s"))
            }
            Wish::StartAll => (Event::StartAll { filter: Filter::All }, "the guests are being started".to_owned()),
        };
        self.step(event);
        Ok(format!("{text}; sino guests shows how it goes"))
    }

    /// Tells the engine, and does what it wants.
    fn step(&mut self, event: Event) {
        let Some(running) = &mut self.running else { return };
        let actions = running.engine.step(event, now_us());
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        let Some(running) = &mut self.running else { return };
        keep(&running.engine);
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
        self.publish();
    }

    /// Has the engine told what becomes of domains, from a thread that waits for it.
    fn watch(&self) {
        let news = self.sender.clone();
        let watch = move || -> Result<()> {
            let mut watch = Watch::new(Domains::watch(Client::connect()?)?, Xl::find()?);
            loop {
                let since = Instant::now();
                let lost = loop {
                    match watch.wait() {
                        Ok(events) if events.is_empty() => {}
                        Ok(events) => news.send(News::Domains(events)),
                        Err(error) => break error,
                    }
                };
                log::warn!("what becomes of guests is not seen until xenstored answers again: {lost:#}");
                // No event tells when one that ends each connection no longer does.
                std::thread::sleep(LIVES.saturating_sub(since.elapsed()));
                while let Err(error) = running_guests::wait_for_xenstored().and_then(|client| watch.again(client)) {
                    log::warn!("{error:#}");
                    std::thread::sleep(LIVES);
                }
                log::info!("what becomes of guests is seen again");
            }
        };
        let started = std::thread::Builder::new().name("domains".into()).spawn(move || {
            if let Err(error) = watch() {
                log::error!("what becomes of guests is no longer seen: {error:#}; sino log");
            }
        });
        if let Err(error) = started {
            log::error!("what becomes of guests is not seen: {error}; systemctl restart sino");
        }
    }

    fn publish(&mut self) {
        if let Some(running) = &self.running {
            self.state.guests = running.engine.report();
            for guest in &mut self.state.guests {
                let size = running.sizes.get(&guest.name).filter(|_| guest.domid.is_some());
                (guest.memory_kib, guest.vcpus) = (size.map(|size| size.0), size.map(|size| size.1));
            }
        }
        let text = serde_json::to_string(&self.state).unwrap_or_default();
        write(layout::GUESTS_STATE, &text);
    }
}

/// The engine as the supervisor before this one has left it.
fn kept() -> Option<Engine> {
    let text = std::fs::read_to_string(layout::GUESTS_ENGINE).ok()?;
    Engine::from_json(&text).inspect_err(|error| log::warn!("{error:#}; what runs is taken over")).ok()
}

fn keep(engine: &Engine) {
    match engine.to_json() {
        Ok(text) => write(layout::GUESTS_ENGINE, &text),
        Err(error) => log::warn!("{error:#}"),
    }
}

fn write(path: &str, text: &str) {
    let new = format!("{path}.new");
    if let Err(error) = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path)) {
        log::warn!("{path} could not be written: {error}");
    }
}

fn known(domain: &Domain) -> engine::Domain {
    let paused = domain.state.is_some_and(|state| state.paused);
    engine::Domain { name: domain.name.clone(), domid: domain.id, paused }
}

/// Which guests the kernel's command line wants.
fn filter() -> Filter {
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    match options::parse(&command_line).0.autostart {
        Autostart::All => Filter::All,
        Autostart::Off => Filter::Off,
        Autostart::Only(names) => Filter::Only(names),
    }
}

/// Looks at everything, and changes nothing.
#[must_use]
pub fn look(config: &Config) -> Seen {
    let until = Instant::now() + ASK;
    let xl = Xl::find();
    let domains = xl.as_ref().ok().and_then(|xl| xl.list(until).inspect_err(|error| log::warn!("{error}")).ok());
    let domains = domains.unwrap_or_default();
    let info = xl.as_ref().ok().and_then(|xl| xl.info(until).inspect_err(|error| log::warn!("{error}")).ok());
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory = info.and_then(|info| {
        let commandline = info.lines().find_map(|line| line.strip_prefix("xen_commandline")).unwrap_or_default();
        let balloons = balloons_dom0(&text("/etc/xen/xl.conf"), commandline.trim_start_matches([' ', ':']));
        let dom0_mib = domains.iter().find(|domain| domain.name == DOM0).map(|domain| domain.memory_mib);
        let xen = parse_xl_info(&info).inspect_err(|error| log::warn!("{error:#}")).ok()?;
        Some(budget::Host { xen, dom0_mib, balloons })
    });
    let running: BTreeSet<String> = domains.iter().map(|domain| domain.name.clone()).collect();
    let storage = crate::storage::state::StorageState::load(Host::this()).unwrap_or_default();
    let groups: [Group; 1] = [storage.group];
    let groups = if groups.iter().any(|group| group.uuid.is_some()) { &groups[..] } else { &[] };
    let host = Surveyed { root: Path::new("/"), memory, groups, running: &running, disks: &[] };
    Seen { survey: survey(&host, config), domains }
}
