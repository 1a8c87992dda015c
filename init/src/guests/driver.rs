//! Does what the engine wants: xl and probes in threads of their own, files of saved states.
//!
//! Each answer comes with the number of the work that it is of; [`Driver::takes`] tells whether that work is still wanted.
//! Works of one guest never overlap: a new one ends the old one's xl, and begins when that is gone.

use super::engine::{Action, Event, XlError};
use super::making::{Making, UnderWay};
use super::probe::{self, Console, Outcome, Sources, Xenstore};
use super::ready::Ready;
use super::survey::SAVED;
use super::xenstore::{Client, domains};
use super::xl::{Call, Failure, Finished, Job, Kind, Target, Xl};
use super::{daemons, probe::Cancel};
use anyhow::{Context, Result};
use rustix::fd::BorrowedFd;
use sino_boot::record::now_us;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long `xl create` may take: each disk and each network card may wait 40 s for its hotplug script (libxl's limit), and the
/// kernel comes from a stick.
const CREATE: Duration = Duration::from_secs(300);
/// How long a guest's memory may take to be written or read.
const SAVE: Duration = Duration::from_secs(900);
/// How long asking a guest, or listing the domains, may take.
const ASK: Duration = Duration::from_secs(60);
/// How long taking a domain down may take; its memory is cleaned.
const DESTROY: Duration = Duration::from_secs(180);

/// An event of the engine, and the number of the work that it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The number; see [`Driver::takes`].
    pub number: u64,
    /// The event.
    pub event: Event,
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The logs of the guests' consoles.
    pub consoles: PathBuf,
    /// The saved states.
    pub saved: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { consoles: daemons::CONSOLE_LOGS.into(), saved: SAVED.into() }
    }
}

/// Where answers go. It is called from other threads.
pub type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// What does it.
pub struct Driver {
    xl: Xl,
    places: Places,
    making: Making,
    tell: Tell,
    /// Each guest's file.
    files: BTreeMap<String, PathBuf>,
    /// The work of xl for each guest, by its number.
    jobs: BTreeMap<String, (u64, Job)>,
    probes: BTreeMap<String, (u64, Job)>,
    /// Held by the work that is under way for a guest.
    turns: BTreeMap<String, Arc<Mutex<()>>>,
    /// The log of each guest's console, from before its domain was made.
    consoles: BTreeMap<String, Console>,
    last: u64,
}

impl Driver {
    /// Nothing is done yet. `making` is told of each domain that is made.
    #[must_use]
    pub fn new(xl: Xl, places: Places, making: Making, tell: Tell) -> Self {
        let (jobs, probes, files) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (turns, consoles) = (BTreeMap::new(), BTreeMap::new());
        Self { xl, places, making, tell, files, jobs, probes, turns, consoles, last: 0 }
    }

    /// The guests' files, from now on.
    pub fn files(&mut self, files: BTreeMap<String, PathBuf>) {
        self.files = files;
    }

    /// Whether an answer is of work that is still wanted; it is over then.
    pub fn takes(&mut self, told: &Told) -> bool {
        let (works, name) = match &told.event {
            Event::Probed { name, .. } => (&mut self.probes, name),
            Event::Created { name, .. }
            | Event::ShutdownEnded { name, .. }
            | Event::SaveEnded { name, .. }
            | Event::DestroyEnded { name, .. } => (&mut self.jobs, name),
            _ => return true,
        };
        let wanted = works.get(name).is_some_and(|(number, _)| *number == told.number);
        if wanted {
            works.remove(name);
        }
        wanted
    }

    /// Whether xl is at work with this guest.
    #[must_use]
    pub fn works_on(&self, name: &str) -> bool {
        self.jobs.contains_key(name)
    }

    /// Does what the engine wants. Notes are the caller's to say.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::Create { name, .. } => self.create(name),
            Action::Restore { name } => self.restore(name),
            Action::Discard { name } => discard(&self.saved(&name)),
            Action::Shutdown { name } => self.start(name, |xl, name, cancel| {
                let call = Call::Shutdown { guest: name.into(), acpi: true };
                let result = xl.call(&call, Instant::now() + ASK, Some(cancel)).map(drop);
                Event::ShutdownEnded { name: name.to_owned(), result: result.map_err(|failure| reason(&failure)) }
            }),
            Action::Save { name } => self.save(name),
            Action::Destroy { name } => self.start(name, |xl, name, cancel| {
                let result = match xl.call(&Call::Destroy(name.into()), Instant::now() + DESTROY, Some(cancel)) {
                    Err(failure) if !failure.no_such_domain() => Err(reason(&failure)),
                    _ => Ok(()),
                };
                Event::DestroyEnded { name: name.to_owned(), result }
            }),
            Action::Probe { name, domid, ready, deadline_us } => self.probe(name, domid, ready, deadline_us),
            Action::EndProbe { name } => {
                if let Some((_, job)) = self.probes.remove(&name) {
                    job.cancel();
                }
            }
            Action::Note { .. } => {}
        }
    }

    fn saved(&self, name: &str) -> PathBuf {
        self.places.saved.join(format!("{name}.save"))
    }

    fn create(&mut self, name: String) {
        discard(&self.saved(&name));
        let Some(file) = self.files.get(&name).cloned() else {
            return self.start(name, |_, name, _| created(name, Err(XlError::Failed("it has no file".into()))));
        };
        self.begin_console(&name);
        let making = self.making.clone();
        self.start(name, move |xl, name, cancel| {
            let under_way = making.begin(name);
            let made = xl.call(&Call::Create(file), Instant::now() + CREATE, Some(cancel));
            created(name, domain(xl, under_way, name, made))
        });
    }

    fn restore(&mut self, name: String) {
        let file = self.saved(&name);
        self.begin_console(&name);
        let making = self.making.clone();
        self.start(name, move |xl, name, cancel| {
            if !file.is_file() {
                return created(name, Err(XlError::Failed(format!("there is no saved state {}", file.display()))));
            }
            let under_way = making.begin(name);
            let made = xl.call(&Call::Restore(file.clone()), Instant::now() + SAVE, Some(cancel));
            let made = domain(xl, under_way, name, made);
            if made.is_ok() {
                // Its disks change from now on, and the state must never be used again.
                discard(&file);
            }
            created(name, made)
        });
    }

    fn save(&mut self, name: String) {
        let file = self.saved(&name);
        self.start(name, move |xl, name, cancel| {
            let result = save(xl, name, &file, cancel);
            Event::SaveEnded { name: name.to_owned(), result }
        });
    }

    /// Begins a work for a guest, and ends the one that is under way.
    fn start(&mut self, name: String, work: impl FnOnce(&Xl, &str, &Cancel) -> Event + Send + 'static) {
        if let Some((_, job)) = self.jobs.remove(&name) {
            job.cancel();
        }
        self.last += 1;
        let (number, xl, tell, guest) = (self.last, self.xl.clone(), Arc::clone(&self.tell), name.clone());
        let turn = Arc::clone(self.turns.entry(name.clone()).or_default());
        let job = Job::start(
            "guest",
            move |cancel| {
                // The xl of the work before is on its way out, and must be gone.
                let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                work(&xl, &guest, cancel)
            },
            move |event| tell(Told { number, event }),
        );
        match job {
            Ok(job) => {
                self.jobs.insert(name, (number, job));
            }
            // The engine would wait for ever; a machine that has no thread left is beyond help, but says so.
            Err(error) => log::error!("{name}: no thread for xl: {error}; sino guests restart {name}"),
        }
    }

    fn begin_console(&mut self, name: &str) {
        let log = self.places.consoles.join(format!("guest-{name}.log"));
        self.consoles.insert(name.to_owned(), Console::begin(log));
    }

    fn probe(&mut self, name: String, domid: u32, ready: Ready, deadline_us: u64) {
        if let Some((_, job)) = self.probes.remove(&name) {
            job.cancel();
        }
        self.last += 1;
        let (number, tell) = (self.last, Arc::clone(&self.tell));
        let deadline = Instant::now() + Duration::from_micros(deadline_us.saturating_sub(now_us()));
        let guest = name.clone();
        let answer = move |outcome: Outcome| {
            let result = match outcome {
                Outcome::Ready => Ok(()),
                Outcome::NotReady(why) | Outcome::Failed(why) => Err(why),
                // Nobody wants the answer.
                Outcome::Cancelled => return,
            };
            tell(Told { number, event: Event::Probed { name: guest, domid, result } });
        };
        // xl has let it run and ended well: no list of all domains is needed to know that, if xenstored still has it.
        let made = ready == Ready::Running && self.making.has_made(domid);
        let job = match self.sources(&name, domid, &ready) {
            Ok(mut sources) => Job::start(
                "probe",
                move |cancel| {
                    if made && is_introduced(domid) {
                        return Outcome::Ready;
                    }
                    probe::wait(&ready, &mut sources, deadline, cancel)
                },
                answer,
            ),
            Err(error) => Job::start("probe", move |_| Outcome::Failed(format!("{error:#}")), answer),
        };
        match job {
            Ok(job) => drop(self.probes.insert(name, (number, job))),
            Err(error) => log::error!("{name}: no thread to find out whether it is ready: {error}"),
        }
    }

    /// What the probe needs.
    fn sources(&mut self, name: &str, domid: u32, ready: &Ready) -> Result<Sources> {
        let mut sources = Sources::default();
        match ready {
            Ready::Running => {
                let xl = self.xl.clone();
                let list = move |deadline| xl.list(deadline);
                sources.domains = Some((Target::Id(domid), Box::new(list)));
            }
            Ready::Xenstore { .. } => {
                let client = Client::connect().context("asking xenstored")?;
                sources.xenstore = Some((Box::new(Store(client)), format!("/local/domain/{domid}")));
            }
            Ready::Console(_) => {
                // Probed again, or of a supervisor before this one: from its present end.
                let log = self.places.consoles.join(format!("guest-{name}.log"));
                sources.console = Some(self.consoles.remove(name).unwrap_or_else(|| Console::begin(log)));
            }
            Ready::Ping(_) | Ready::Tcp(_) => {}
        }
        Ok(sources)
    }
}

fn created(name: &str, result: Result<u32, XlError>) -> Event {
    Event::Created { name: name.to_owned(), result }
}

/// The number of the domain that was made, or why there is none. What a killed xl has left half made is taken down.
fn domain(xl: &Xl, under_way: UnderWay, name: &str, made: Result<Finished, Failure>) -> Result<u32, XlError> {
    let there = || {
        let domains = xl.list(Instant::now() + ASK).map_err(|failure| reason(&failure))?;
        Ok::<_, XlError>(domains.into_iter().find(|domain| domain.name == name))
    };
    let Err(failure) = made else {
        let number = match in_xenstore(name) {
            Some(number) => Some(number),
            None => there()?.map(|domain| domain.id),
        };
        let number = number.ok_or_else(|| {
            XlError::Failed("xl says that it has made the domain, and there is none: xl list, sino log".to_owned())
        })?;
        under_way.made(number);
        return Ok(number);
    };
    if failure.may_leave_a_domain() {
        if let Ok(Some(domain)) = there()
            && let Err(failure) = xl.destroy(&domain, Instant::now() + DESTROY)
        {
            log::warn!("{name}: what xl has left half made stays: {failure}");
        }
    } else if failure.said.iter().any(|line| line.contains("already exists"))
        && let Some(domain) = there()?
        && domain.state.is_none_or(|state| state.is_up())
    {
        return Ok(domain.id);
    }
    Err(reason(&failure))
}

/// The number of the domain that xl has just made, if xenstored can tell; it costs a few messages, and `xl list` a process.
fn in_xenstore(name: &str) -> Option<u32> {
    let newest = Client::connect().and_then(|mut client| domains::newest(&mut client, name));
    newest.inspect_err(|error| log::debug!("{name}: {error:#}; xl list tells")).ok().flatten()
}

/// Whether xenstored knows the domain; false too if it cannot be asked.
fn is_introduced(domid: u32) -> bool {
    Client::connect().and_then(|mut client| client.is_introduced(domid)).unwrap_or(false)
}

/// Writes a guest's state, so that it outlives a power cut.
fn save(xl: &Xl, name: &str, file: &Path, cancel: &Cancel) -> Result<(), XlError> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| XlError::Failed(format!("making {}: {error}", folder.display())))?;
    let call = Call::Save { guest: Target::Name(name.to_owned()), file: file.to_owned() };
    xl.call(&call, Instant::now() + SAVE, Some(cancel)).map_err(|failure| reason(&failure))?;
    let synced = [file, folder].iter().try_for_each(|path| File::open(path)?.sync_all());
    synced.map_err(|error| XlError::Failed(format!("{}: {error}", file.display())))
}

fn reason(failure: &Failure) -> XlError {
    match failure.kind {
        Kind::Deadline => XlError::TimedOut,
        _ if failure.is_final() => XlError::Final(failure.to_string()),
        _ => XlError::Failed(failure.to_string()),
    }
}

/// Puts a saved state aside, as `NAME.save.old`: what an administrator may still want to look at, and nobody resumes.
fn discard(file: &Path) {
    let mut aside = file.as_os_str().to_owned();
    aside.push(".old");
    match fs::rename(file, aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            log::warn!("the saved state {} could not be put aside: {error}", file.display());
        }
        _ => {}
    }
}

/// A client of xenstored as a probe wants it.
struct Store(Client);

impl Xenstore for Store {
    fn read(&mut self, path: &str) -> Result<Option<String>> {
        self.0.text(path)
    }

    fn watch(&mut self, path: &str) -> Result<()> {
        self.0.watch(path, path)
    }

    fn wakeups(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    fn take_wakeups(&mut self) -> Result<()> {
        while self.0.event()?.is_some() {}
        Ok(())
    }
}
