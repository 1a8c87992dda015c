//! The supervisor: brings the host up in lanes that run side by side, and then keeps it: the lease, the network that was asked
//! for, the host's identity on `/srv`.
//!
//! Process 1 starts it; it outlives the hand-over to Debian's init, and `sino.service` takes it in ([`crate::adopt`]). Killed
//! at any moment, it is started again, takes what is known from `/run/sino`, and nothing that runs is disturbed.

pub mod control;
pub mod guests_lane;
pub mod keeping;
pub mod known;
pub mod lane;
pub mod login_text;
pub mod network_lane;
pub mod own_network;
pub mod readiness;
pub mod running_guests;
pub mod storage_lane;

use crate::config::{Loaded, Severity};
use crate::guests::{daemons::Daemons, driver::Told, engine};
use crate::{adopt, child, identity};
use anyhow::{Context, Result, bail};
use control::{Answer, Request};
use guests_lane::GuestsLane;
use keeping::Keeping;
use known::Known;
use network_lane::NetworkLane;
use readiness::Readiness;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use signal_hook::consts::SIGTERM;
use sino_boot::record::now_us;
use sino_boot::{layout, stage};
use std::io::{PipeReader, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Its name in the list of processes.
pub const NAME: &str = "sino-supervisor";
/// The first argument of a supervisor.
pub const MODE: &str = "supervise";
/// What it says to process 1 when the host is up.
pub const READY: &str = "ready";

/// The lane that makes bridges and gets addresses.
const NETWORK: &str = "network";
/// The lane that activates the volume group and mounts `/srv`.
const STORAGE: &str = "storage";
/// The lane that starts the Xen daemons and the guests.
const GUESTS: &str = "guests";

/// How long it may take to end when asked to, if it is busy or a disk hangs.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How long a change of a service may take.
const SERVICE_WITHIN: Duration = Duration::from_secs(60);
/// How long the addresses wait for what `/srv` says of them. A file system that is checked takes longer.
const SRV_WITHIN: Duration = Duration::from_secs(45);

/// What other threads tell the supervisor's own.
#[derive(Debug)]
pub enum News {
    /// What the storage lane found.
    Storage(Box<storage_lane::Found>),
    /// A request, and where its answer goes.
    Asked(Request, mpsc::Sender<Answer>),
    /// Something of the host's identity changed.
    Identity(identity::Notice),
    /// The names of the guests that run; `None`: that is not known.
    Running(Option<Vec<String>>),
    /// The Xen daemons run, or there is no Xen.
    Xen(Box<Daemons>),
    /// What there is of guests, with the configuration that it was looked at with.
    Surveyed(Box<Loaded>, Box<guests_lane::Seen>),
    /// An xl or a probe of a guest has ended.
    Guest(Told),
    /// Something became of domains.
    Domains(Vec<engine::Event>),
    /// The supervisor is to end.
    Stops,
}

/// The way to the supervisor's own thread.
#[derive(Clone, Debug)]
pub struct Sender {
    sender: mpsc::Sender<News>,
    bell: Arc<OwnedFd>,
}

impl Sender {
    /// Tells it something.
    pub fn send(&self, news: News) {
        // It only goes away with the whole process.
        let _ = self.sender.send(news);
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

struct Supervisor {
    known: Known,
    network: NetworkLane,
    keeping: Keeping,
    guests: GuestsLane,
    ready: Arc<Readiness>,
    /// When the addresses are begun without `/srv`, in microseconds since the kernel started.
    addresses_at: Option<u64>,
    sender: Sender,
}

/// Starts a supervisor as a child of this process; what it says comes out of the pipe.
///
/// # Errors
/// It cannot be executed.
pub fn start() -> Result<PipeReader> {
    let (reader, writer) = std::io::pipe().context("making a pipe to the supervisor")?;
    Command::new("/proc/self/exe")
        .arg0(NAME)
        .arg(MODE)
        .stdin(Stdio::null())
        .stdout(writer)
        .spawn()
        .context("starting the supervisor")?;
    Ok(reader)
}

/// Supervises, until systemd stops it.
///
/// # Errors
/// Another one runs, or its files in `/run/sino` cannot be written.
pub fn run() -> Result<()> {
    begin()?;
    let known = Known::load();
    let boot = !known.brought_up && !Path::new(layout::HANDED_OVER).exists();
    let ready = Arc::new(Readiness::of(&[NETWORK, STORAGE, GUESTS]));
    let (sender, receiver) = mpsc::channel();
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("making an event descriptor")?;
    let sender = Sender { sender, bell: Arc::new(bell) };
    listen(&sender)?;
    end_when_asked(&sender)?;
    running_guests::watch(&sender);
    let loaded = storage_lane::load(false);
    let network = known.network.clone().unwrap_or_else(|| loaded.config.network.clone());
    let mut supervisor = Supervisor {
        network: NetworkLane::start(network, boot),
        keeping: Keeping::new(loaded.config.clone()),
        guests: GuestsLane::start(boot, &sender)?,
        addresses_at: Some(now_us() + u64::try_from(SRV_WITHIN.as_micros()).unwrap_or(u64::MAX)),
        known,
        ready,
        sender: sender.clone(),
    };
    if supervisor.known.network.is_some() {
        // The addresses that the host has are kept without a moment's pause.
        supervisor.begin_addresses();
    }
    if supervisor.known.brought_up {
        supervisor.take_up_again();
    } else {
        std::thread::Builder::new()
            .name("storage".into())
            .spawn(move || storage_lane::run(boot, &sender))
            .context("starting the storage lane")?;
    }
    supervisor.keep_going(&receiver)
}

/// Has the supervisor keep this boot when it is asked to end; at the latest after [`ENDS_WITHIN`] it does end.
fn end_when_asked(sender: &Sender) -> Result<()> {
    let (mut asked, signals) = UnixStream::pair().context("making a pair of sockets for signals")?;
    signal_hook::low_level::pipe::register(SIGTERM, signals).context("asking for the signal to end")?;
    let sender = sender.clone();
    let wait = move || {
        // A byte for each signal; it cannot fail as long as the handler has the other end.
        if asked.read_exact(&mut [0]).is_err() {
            return;
        }
        sender.send(News::Stops);
        std::thread::sleep(ENDS_WITHIN);
        std::process::exit(0);
    };
    std::thread::Builder::new().name("end".into()).spawn(wait).map(drop).context("waiting for the signal to end")
}

/// Becomes a process of its own, and the only supervisor.
fn begin() -> Result<()> {
    stage::note_panics();
    if let Some(other) = adopt::living(layout::SUPERVISOR_PID, NAME).filter(|pid| *pid != std::process::id()) {
        bail!("another supervisor runs already: process {other}");
    }
    // Fails only for a leader of a group, which has no terminal that could send it signals either.
    let _ = rustix::process::setsid();
    rustix::thread::set_name(c"sino-supervisor").context("naming the process")?;
    // Among the last to end when memory is short: without it guests and leases are nobody's.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
    name_the_host();
    std::fs::create_dir_all(layout::RUN)?;
    let new = format!("{}.new", layout::SUPERVISOR_PID);
    std::fs::write(&new, format!("{}\n", std::process::id())).with_context(|| format!("writing {new}"))?;
    std::fs::rename(&new, layout::SUPERVISOR_PID).with_context(|| format!("renaming {new}"))
}

/// Gives the kernel the host's name, which systemd would do later: DHCP servers are told it.
fn name_the_host() {
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let unnamed = rustix::system::uname().nodename().to_bytes() == b"(none)";
    if unnamed
        && identity::is_hostname(name.trim())
        && let Err(error) = rustix::system::sethostname(name.trim().as_bytes())
    {
        log::warn!("the host has no name yet: {error}");
    }
}

/// Listens for requests; each waits for the supervisor's own thread.
fn listen(sender: &Sender) -> Result<()> {
    let sender = sender.clone();
    control::serve(move |request| {
        let (answer, answered) = mpsc::channel();
        sender.send(News::Asked(request, answer));
        answered
            .recv_timeout(control::ANSWERS_WITHIN)
            .unwrap_or_else(|_| Answer { ok: false, text: "the supervisor is busy; try again".to_owned() })
    })
}

/// Has systemd do something with a service, if systemd runs; what goes wrong is said in the log.
pub fn systemctl(arguments: &[&str]) {
    let mut command = Command::new("systemctl");
    let result = child::run(command.arg("--no-block").args(arguments), SERVICE_WITHIN);
    if !result.as_ref().is_ok_and(std::process::ExitStatus::success) {
        log::warn!("{}: {result:?}", child::words(&command));
    }
}

impl Supervisor {
    fn keep_going(&mut self, receiver: &Receiver<News>) -> Result<()> {
        loop {
            self.wait()?;
            let mut counter = [0; 8];
            // Empty when something else woke it.
            let _ = rustix::io::read(&self.sender.bell, &mut counter);
            while let Ok(news) = receiver.try_recv() {
                self.take(news);
            }
            if self.network.take(&mut self.keeping) {
                self.ready.done(NETWORK);
                self.guests.bridge();
            }
            self.guests.tend();
            if self.guests.ready() {
                self.ready.done(GUESTS);
            }
            let now = now_us();
            if self.addresses_at.is_some_and(|at| at <= now) {
                self.begin_addresses();
            }
            if self.known.pending.as_ref().is_some_and(|pending| pending.until_us <= now) {
                log::warn!("the network was not confirmed: going back to the one before");
                self.revert();
            }
            self.keeping.show(self.network.state());
        }
    }

    fn wait(&self) -> Result<()> {
        let pending = self.known.pending.as_ref().map(|pending| pending.until_us);
        let next = [self.addresses_at, pending, self.guests.deadline()].into_iter().flatten().min();
        let left = next.map(|at| Duration::from_micros(at.saturating_sub(now_us())));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = vec![PollFd::new(&self.sender.bell, PollFlags::IN)];
        if let Some(fd) = self.network.ready() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        fds.extend(self.guests.fds().into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("waiting for news"),
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Storage(found) => self.storage_is_up(*found),
            News::Asked(Request::Guests(wish), answer) => {
                if matches!(wish, guests_lane::Wish::StopAll { .. }) {
                    self.keeping.host_stops();
                }
                self.guests.ask(wish, answer);
            }
            News::Stops => {
                self.keeping.host_stops();
                std::process::exit(0);
            }
            News::Asked(request, answer) => {
                let result = self.answer(&request);
                let (ok, text) = match result {
                    Ok(text) => (true, text),
                    Err(error) => (false, format!("{error:#}")),
                };
                // Who asked may be gone.
                let _ = answer.send(Answer { ok, text });
            }
            News::Identity(notice) => self.keeping.notice(notice),
            News::Running(names) => self.keeping.guests(names),
            News::Xen(daemons) => self.guests.daemons(*daemons),
            News::Surveyed(loaded, seen) => self.guests.surveyed(*loaded, *seen),
            News::Guest(told) => self.guests.told(told),
            News::Domains(events) => self.guests.domains(events),
        }
    }

    /// The storage lane is through: the configuration is whole, and so the addresses can be begun.
    fn storage_is_up(&mut self, found: storage_lane::Found) {
        let network = found.loaded.config.network.clone();
        self.network.known_leases(found.leases.clone());
        if self.known.pending.is_none() && self.known.network.as_ref() != Some(&network) {
            self.network.reconfigure(network.clone());
            self.known.network = Some(network);
        }
        self.begin_addresses();
        self.guests.configured(&found.loaded);
        self.keeping.begin(found, &self.sender);
        self.known.brought_up = true;
        self.known.keep();
        self.ready.done(STORAGE);
    }

    /// Started again after the lanes were through: only what this process itself has to do.
    fn take_up_again(&mut self) {
        let found = keeping::as_it_is();
        self.network.known_leases(found.leases.clone());
        self.guests.configured(&found.loaded);
        self.keeping.begin(found, &self.sender);
        self.ready.done(STORAGE);
        log::info!("the supervisor was started again and goes on where the last one was");
    }

    fn begin_addresses(&mut self) {
        if self.addresses_at.take().is_some() {
            self.network.begin_addresses();
        }
    }

    fn answer(&mut self, request: &Request) -> Result<String> {
        match request {
            Request::NetworkApply { revert_after } => self.apply(*revert_after),
            Request::NetworkConfirm => {
                if self.known.pending.take().is_none() {
                    bail!("there is nothing to confirm: no network was applied, or the time was over and it went back");
                }
                self.known.keep();
                Ok("the network stays as it is, and so it is at the next boot".to_owned())
            }
            Request::NetworkRevert => {
                if self.known.pending.is_none() {
                    bail!("there is nothing to go back to: no network was applied that is not confirmed");
                }
                self.revert();
                Ok("the network goes back to the one before".to_owned())
            }
            Request::SrvStarted => {
                let (found, problems) = storage_lane::identity(&keeping::storage());
                let differs = self.known.network.as_ref() != Some(&found.loaded.config.network);
                self.network.known_leases(found.leases.clone());
                self.keeping.begin(found, &self.sender);
                self.keeping.keep_leases(self.network.state());
                let mut text = format!("what makes this host itself is kept in {}", layout::SRV_STATE);
                for problem in problems {
                    text.push_str("\nwarning: ");
                    text.push_str(&lane::unmarked(&problem));
                }
                if differs {
                    text.push_str("\nits sino.toml has another network: \"sino network apply\" takes it");
                }
                Ok(text)
            }
            // It has answered already.
            Request::Guests(_) => Ok(String::new()),
            Request::SrvStopping => {
                self.keeping.let_go();
                Ok(format!("{} is let go of", layout::SRV))
            }
        }
    }

    fn apply(&mut self, revert_after: u32) -> Result<String> {
        let loaded = storage_lane::load(keeping::is_mounted());
        let network = loaded.config.network.clone();
        // A mistyped address would fall back to the layer below, and that is not what was asked for.
        if let Some(error) = loaded.problems.iter().find(|problem| problem.severity == Severity::Error) {
            bail!("nothing is changed, because the configuration has an error: {error}");
        }
        let problems: Vec<String> = loaded
            .problems
            .iter()
            .map(|problem| format!("\nwarning: {}", lane::unmarked(&problem.to_string())))
            .collect();
        let current = self.known.network.clone().unwrap_or_default();
        if network == current {
            return Ok(format!("the network is so already{}", problems.concat()));
        }
        let previous = self.known.pending.take().map_or(current, |pending| pending.previous);
        let mut text = format!("applied{}", problems.concat());
        if revert_after > 0 {
            let until_us = now_us() + u64::from(revert_after) * 1_000_000;
            self.known.pending = Some(known::Pending { previous, until_us });
            text = format!(
                "applied; it goes back after {revert_after} s unless you say: sino network confirm{}",
                problems.concat()
            );
        }
        self.known.network = Some(network.clone());
        self.known.keep();
        self.keeping.config(loaded.config);
        self.network.reconfigure(network);
        Ok(text)
    }

    fn revert(&mut self) {
        if let Some(pending) = self.known.pending.take() {
            self.network.reconfigure(pending.previous.clone());
            self.known.network = Some(pending.previous);
            self.known.keep();
        }
    }
}
