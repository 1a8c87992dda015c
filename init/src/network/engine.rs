//! The network's engine: a thread of the supervisor that keeps the network as the configuration wants it.
//!
//! It waits in one place: for the kernel's and udev's events, for DHCP, for commands, and for the nearest deadline. On each it
//! reads what is there and does what differs. When it ends, whyever, everything stays as it is; one that is started later
//! goes on from `network.json`.

mod announce;
mod clients;
mod converge;
mod publish;

use super::announced::AnnouncedServers;
use super::difference::Made;
use super::plan::Plan;
use super::ports::CardRule;
use super::state::{self, NetworkState};
use super::world::Places;
use crate::config::schema;
use crate::dhcp::lease::Lease;
use crate::netlink::{Connection, Events};
use anyhow::{Context, Result};
use clients::Client;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use sino_boot::layout;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::Duration;

/// After this time something that is missing is said; a card's driver and its carrier take a few seconds.
const MISSING: Duration = Duration::from_secs(15);
/// How long a card waits for udev, which may rename it: udev takes well below a second, and there may be none.
const UDEV_PATIENCE: Duration = Duration::from_secs(5);

/// What the engine is started with.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// The configuration as far as it is known.
    pub network: schema::Network,
    /// The host's name, to be told to DHCP servers.
    pub hostname: Option<String>,
    /// Which links are network cards.
    pub cards: CardRule,
    /// Where the facts about links are.
    pub places: Places,
    /// How long a card waits for udev.
    pub udev_patience: Duration,
    /// How long after its start the engine waits before it says what is missing: a cable, a card.
    pub missing_patience: Duration,
    /// Where the state is kept.
    pub state: PathBuf,
    /// Where the name servers are written.
    pub resolv_conf: PathBuf,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            network: schema::Network::default(),
            hostname: None,
            cards: CardRule::Real,
            places: Places::default(),
            udev_patience: UDEV_PATIENCE,
            missing_patience: MISSING,
            state: layout::NETWORK_STATE.into(),
            resolv_conf: layout::RESOLV_CONF.into(),
        }
    }
}

/// What the supervisor tells the engine.
#[derive(Debug)]
pub enum Command {
    /// This is the configuration now, and the host's name.
    Reconfigure(Box<schema::Network>, Option<String>),
    /// Leases that were kept on `/srv`, by bridge: addresses to ask for again.
    KnownLease(BTreeMap<String, Lease>),
    /// The configuration is complete: set addresses, ask for leases. Before it only links, bridges and ports are brought up.
    BeginAddresses,
    /// Answer when the commands before this one are obeyed, and the kernel's events up to it are answered.
    Answer(Sender<()>),
    /// End, and leave everything as it is.
    Stop,
}

/// What the engine tells the supervisor.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A bridge is there and up, so guests can be attached.
    BridgeUp {
        /// The bridge.
        bridge: String,
        /// How long after the engine's start.
        after: Duration,
    },
    /// The automatic port was chosen.
    PortChosen {
        /// The bridge.
        bridge: String,
        /// The card.
        port: String,
        /// How long after the engine's start.
        after: Duration,
    },
    /// The host has an address by a lease, which is to be kept on `/srv`.
    Addressed {
        /// The bridge.
        bridge: String,
        /// The lease.
        lease: Box<Lease>,
        /// Whether the address is the one that it was.
        renewed: bool,
    },
    /// What is known of the network, at the start and when it changes; it is in `network.json`, too.
    Changed(Box<NetworkState>),
    /// Something for people.
    Say {
        /// What.
        text: String,
        /// Whether it is a warning.
        warning: bool,
    },
}

/// The supervisor's end of the engine.
#[derive(Debug)]
pub struct EngineControl {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    reports: Receiver<Report>,
    ready: Arc<OwnedFd>,
}

impl EngineControl {
    /// Tells the engine something. Returns whether it is still there to hear it.
    pub fn tell(&self, command: Command) -> bool {
        let sent = self.commands.send(command).is_ok();
        ring(&self.wake);
        sent
    }

    /// Readable when there are reports, and when the engine has ended.
    #[must_use]
    pub fn ready(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }

    /// Takes the reports that are there, without waiting. `None`: the engine has ended, and all of them were taken.
    pub fn take(&self) -> Option<Vec<Report>> {
        silence(&self.ready);
        let mut reports = Vec::new();
        loop {
            match self.reports.try_recv() {
                Ok(report) => reports.push(report),
                Err(TryRecvError::Empty) => return Some(reports),
                Err(TryRecvError::Disconnected) => return (!reports.is_empty()).then_some(reports),
            }
        }
    }
}

impl Drop for EngineControl {
    fn drop(&mut self) {
        self.tell(Command::Stop);
    }
}

/// The engine.
pub struct Engine {
    settings: EngineSettings,
    connection: Connection,
    events: Events,
    announcements: Events,
    udev: Events,
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    reports: Reports,
    plan: Plan,
    /// What of the configuration was left out.
    left_out: Vec<String>,
    addresses_begun: bool,
    made: Made,
    /// The number of the card that is the automatic port.
    auto: Option<u32>,
    /// When each card was seen first, by its number.
    first_seen: BTreeMap<u32, Duration>,
    clients: BTreeMap<String, Client>,
    known_leases: BTreeMap<String, Lease>,
    announced: AnnouncedServers,
    /// The host's own addresses that its neighbours were told of.
    told: announce::Announced,
    /// What stands in the way at the moment, and was said.
    troubles: BTreeSet<String>,
    /// What is missing, like a cable: kept in the state at once, but said only after some time.
    missing: BTreeSet<String>,
    /// The last error at writing a file.
    unwritten: String,
    /// Whether it was said that the network is left alone.
    left_alone: bool,
    /// Bridges that were reported as up.
    reported_up: BTreeSet<String>,
    state: NetworkState,
    /// Whether the supervisor was told of that state.
    state_told: bool,
    resolv_conf: String,
    began: Duration,
    /// When to try again what failed, and how long that was put off.
    retry: Option<(Duration, Duration)>,
    /// Since when links come and go too fast to be listed.
    restless: Option<Duration>,
    /// When the nearest card is done waiting for udev.
    settles: Option<Duration>,
}

/// Tells the supervisor that the engine's thread is over.
struct RingAtEnd(Arc<OwnedFd>);

impl Drop for RingAtEnd {
    fn drop(&mut self) {
        ring(&self.0);
    }
}

/// The engine's way to the supervisor.
struct Reports {
    sender: Sender<Report>,
    ready: Arc<OwnedFd>,
}

impl Reports {
    fn send(&self, report: Report) {
        // Without a supervisor the network goes on all the same.
        let _ = self.sender.send(report);
        ring(&self.ready);
    }

    fn say(&self, text: impl Into<String>, warning: bool) {
        self.send(Report::Say { text: text.into(), warning });
    }
}

/// What a wait brought.
#[derive(Clone, Copy, Debug, Default)]
struct Woken {
    links: bool,
    udev: bool,
    command: bool,
    /// How many of the DHCP clients' sockets are readable.
    dhcp: usize,
}

impl Engine {
    /// Starts the engine in a thread of its own.
    ///
    /// # Errors
    /// The kernel refuses its sockets or the thread.
    pub fn start(settings: EngineSettings) -> Result<EngineControl> {
        let bell = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("making an event descriptor");
        let (wake, ready) = (Arc::new(bell()?), Arc::new(bell()?));
        let (commands, commands_of_engine) = mpsc::channel();
        let (sender, reports) = mpsc::channel();
        let reports_of_engine = Reports { sender, ready: Arc::clone(&ready) };
        let engine = Self::new(settings, commands_of_engine, Arc::clone(&wake), reports_of_engine)?;
        let end = RingAtEnd(Arc::clone(&ready));
        std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || {
                // The first local is dropped last, and by a panic, too.
                let _end = end;
                let mut engine = engine;
                if let Err(error) = engine.run() {
                    engine.reports.say(format!("the network is no longer looked after: {error:#}"), true);
                }
            })
            .context("starting the network's thread")?;
        Ok(EngineControl { commands, wake, reports, ready })
    }

    fn new(
        settings: EngineSettings,
        commands: Receiver<Command>,
        wake: Arc<OwnedFd>,
        reports: Reports,
    ) -> Result<Self> {
        // Before anything is read: what changes after the reading is heard of.
        let events = Events::of_links_and_addresses()?;
        let announcements = Events::of_name_servers()?;
        let udev = Events::of_udev()?;
        let before = state::read(&settings.state).unwrap_or_else(|error| {
            reports.say(format!("{error:#}; the network is looked at as if for the first time"), true);
            None
        });
        let (plan, left_out) = Plan::from(&settings.network);
        let mut engine = Self {
            connection: Connection::open()?,
            events,
            announcements,
            udev,
            commands,
            wake,
            reports,
            plan,
            left_out,
            addresses_begun: false,
            made: Made::default(),
            auto: None,
            first_seen: BTreeMap::new(),
            clients: BTreeMap::new(),
            known_leases: BTreeMap::new(),
            announced: AnnouncedServers::default(),
            told: announce::Announced::new(),
            troubles: BTreeSet::new(),
            missing: BTreeSet::new(),
            unwritten: String::new(),
            left_alone: false,
            reported_up: BTreeSet::new(),
            state: NetworkState::default(),
            state_told: false,
            resolv_conf: std::fs::read_to_string(&settings.resolv_conf).unwrap_or_default(),
            began: now(),
            retry: None,
            restless: None,
            settles: None,
            settings,
        };
        if let Some(before) = before {
            engine.take_over(before);
        }
        Ok(engine)
    }

    /// Goes on where an earlier engine stopped.
    fn take_over(&mut self, before: NetworkState) {
        let ports = before.bridges.values().flat_map(|bridge| &bridge.ports);
        self.auto = ports.clone().find(|port| port.automatic).map(|port| port.index);
        self.clients = before
            .bridges
            .iter()
            .filter_map(|(name, bridge)| Some((name.clone(), Client::from_record(bridge)?)))
            .collect();
        self.made = before.made.clone();
        self.announced.take_over(before.bridges.values().flat_map(|bridge| &bridge.name_servers).cloned());
        self.state = before;
    }

    fn run(&mut self) -> Result<()> {
        let mut look = true;
        let mut asking: Vec<Sender<()>> = Vec::new();
        loop {
            if look {
                self.converge();
            }
            for asking in asking.drain(..) {
                // Who no longer waits needs no answer.
                let _ = asking.send(());
            }
            let woken = self.wait()?;
            look = false;
            if woken.command {
                silence(&self.wake);
                loop {
                    match self.commands.try_recv() {
                        Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return Ok(()),
                        Ok(Command::Answer(sender)) => asking.push(sender),
                        Ok(command) => self.obey(command),
                        Err(TryRecvError::Empty) => break,
                    }
                }
                look = true;
            }
            if woken.links {
                look |= self.events.drain()? > 0;
                for announcement in self.announcements.announcements()? {
                    look |= self.announced.hear(&announcement, now().as_secs());
                }
            }
            // Devices of all kinds pass by; they matter only while a card waits.
            look |= woken.udev && self.udev.drain()? > 0 && self.settles.is_some();
            let now = now();
            let due = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
            look |= due(self.settles) || due(self.retry.map(|(at, _)| at)) || due(self.missing_deadline());
            look |= due(self.announcement_deadline());
            if due(self.announced.next_end().map(Duration::from_secs)) {
                self.announced.forget_old(now.as_secs());
                look = true;
            }
            if woken.dhcp > 0 || due(self.client_deadline()) {
                look |= self.turn_clients(now);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Reconfigure(network, hostname) => {
                (self.plan, self.left_out) = Plan::from(&network);
                self.settings.network = *network;
                self.settings.hostname = hostname;
                self.drop_unwanted_clients();
            }
            Command::KnownLease(leases) => self.known_leases = leases,
            Command::BeginAddresses => self.addresses_begun = true,
            Command::Answer(_) | Command::Stop => {}
        }
    }

    fn wait(&self) -> Result<Woken> {
        let announced = self.announced.next_end().map(Duration::from_secs);
        let retry = self.retry.map(|(at, _)| at);
        let again = self.announcement_deadline();
        let deadlines = [self.settles, retry, self.missing_deadline(), announced, again, self.client_deadline()];
        let dhcp: Vec<BorrowedFd<'_>> = self.clients.values().flat_map(Client::fds).collect();
        let mut fds: Vec<PollFd<'_>> = [self.wake.as_fd(), self.events.fd(), self.announcements.fd(), self.udev.fd()]
            .into_iter()
            .chain(dhcp)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let left = deadlines.into_iter().flatten().min().map(|deadline| deadline.saturating_sub(now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for changes of the network"),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || ready.next().unwrap_or(false);
        let (command, links, announcements, udev) = (next(), next(), next(), next());
        let links = links || announcements;
        Ok(Woken { links, udev, command, dhcp: ready.filter(|ready| *ready).count() })
    }
}

/// Time since the machine started, with the time that it slept: what leases are counted in.
pub(super) fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn ring(bell: &OwnedFd) {
    // Full means that it is ringing.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

fn silence(bell: &OwnedFd) {
    let _ = rustix::io::read(bell, &mut [0; 8]);
}
