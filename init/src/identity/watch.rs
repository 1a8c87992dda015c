//! Notices changes of the items in the running system and keeps them.
//!
//! It waits for inotify, and for a change of the mounts when something could not be kept. Nothing on `/srv` is open
//! while it waits. What it keeps is what has changed since it looked last, so an item that was forgotten stays so.

use super::access::{self, AccessState};
use super::file_set::Interest;
use super::items::{Files, Item, is_host_key_name};
use super::network_files;
use super::running::System;
use super::{Occasion, Store, forgotten, save};
use crate::config::schema::Config;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Changes that come this soon after the first are kept with it: programs write several files, or one in steps.
const COALESCE: Duration = Duration::from_millis(300);
/// How often what could not be kept is tried again; a full file system does not say when it no longer is.
pub const RETRY: Duration = Duration::from_secs(60);

/// The folders with items, and the names in them that matter.
const FOLDERS: [(&str, Interest); 7] = [
    ("etc", |name| {
        let items = ["shadow", "hostname", "localtime", "timezone", "machine-id"];
        items.contains(&name) || ["ssh", "default", "network", "systemd"].contains(&name)
    }),
    // Of all in /etc/ssh only the host keys matter, and temporary files lead to them.
    ("etc/ssh", is_host_key_name),
    ("etc/default", |name| name == "keyboard"),
    ("etc/network", |name| name == "interfaces.d"),
    ("etc/systemd", |name| name == "network"),
    ("root", |name| name == ".ssh"),
    ("root/.ssh", |name| name == "authorized_keys"),
];

/// What [`watch`] has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// From now on every change is noticed.
    Watching,
    /// These items were kept.
    Kept(Vec<Item>),
    /// Something could not be kept; it is tried again. Said once for each reason.
    NotKept(String),
    /// What was said so does not hold any more.
    Resolved(String),
    /// Not the watch's own: [`RETRY`] is over for somebody else who keeps something.
    TryAgain,
    /// Who may log in has changed. Where [`AccessState::changed`] is set, sshd must be reloaded.
    Access(AccessState),
}

/// Keeps what changes below `root`, within a second, and before that what `unsaved` names, until `stop` is readable or hung up; what is not kept by then is
/// tried once more. Also applies [`access`] again when keys or the password change.
///
/// # Errors
/// Nothing is mounted where the store is (only after [`super::restore`] may anything be kept), or the kernel refuses to
/// watch.
pub fn watch(
    root: &Path,
    store: &Store,
    config: &Config,
    unsaved: &[Item],
    stop: BorrowedFd<'_>,
    say: &mut dyn FnMut(Notice),
) -> Result<()> {
    let mut watcher = Watcher::new(root, store, config)?;
    say(Notice::Watching);
    if !unsaved.is_empty() {
        watcher.pending.extend(unsaved);
        watcher.due_by(Instant::now());
    }
    let mounts = rustix::fs::open("/proc/self/mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context("opening /proc/self/mountinfo")?;
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
            PollFd::new(&watcher.inotify, PollFlags::IN),
            PollFd::new(&mounts, PollFlags::PRI),
        ];
        match poll(&mut fds, watcher.until_due().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for changes"),
        }
        let [stopped, changed, mounted] = fds.map(|fd| !fd.revents().is_empty());
        if changed && watcher.drain()? {
            watcher.due_by(Instant::now() + COALESCE);
        }
        if mounted && !watcher.pending.is_empty() {
            watcher.due_by(Instant::now());
        }
        if stopped || watcher.due.is_some_and(|due| due <= Instant::now()) {
            watcher.look(say)?;
        }
        if stopped {
            return Ok(());
        }
    }
}

pub(super) struct Watcher<'a> {
    root: &'a Path,
    store: &'a Store,
    config: &'a Config,
    /// The volume that the items belong to.
    device: u64,
    inotify: OwnedFd,
    watches: BTreeMap<i32, Vec<Interest>>,
    /// What the items were when they were looked at last.
    seen: BTreeMap<Item, Files>,
    /// What is to be kept.
    pending: BTreeSet<Item>,
    access: Option<AccessState>,
    /// What was said of that which cannot be kept.
    said: BTreeSet<String>,
    due: Option<Instant>,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(root: &'a Path, store: &'a Store, config: &'a Config) -> Result<Self> {
        let device = store.device().context("watching for what is to be kept")?;
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).context("asking for inotify")?;
        let mut new = Self {
            root,
            store,
            config,
            device,
            inotify,
            watches: BTreeMap::new(),
            seen: BTreeMap::new(),
            pending: BTreeSet::new(),
            access: None,
            said: BTreeSet::new(),
            due: None,
        };
        // First the watches, then the look: nothing falls between.
        new.add_watches()?;
        let system = System::open(root)?;
        new.seen = Item::PLACED.iter().map(|item| (*item, system.read(*item).unwrap_or_default())).collect();
        Ok(new)
    }

    /// Watches every folder that is there; a folder that is watched already stays so.
    fn add_watches(&mut self) -> Result<()> {
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut watches: BTreeMap<i32, Vec<Interest>> = BTreeMap::new();
        let sets = network_files::FILES.folders(System::open(self.root)?.root());
        let folders = FOLDERS.into_iter().map(|(folder, interest)| (folder.to_owned(), interest)).chain(sets);
        for (folder, interest) in folders {
            let path: PathBuf = self.root.join(folder);
            match inotify::add_watch(&self.inotify, &path, flags) {
                // A folder that is named twice has one watch.
                Ok(watch) => watches.entry(watch).or_default().push(interest),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error).with_context(|| format!("watching {}", path.display())),
            }
        }
        // A folder that was renamed and replaced is no longer of interest; the kernel has let go of one that was removed.
        for old in self.watches.keys().filter(|old| !watches.contains_key(old)) {
            let _ = inotify::remove_watch(&self.inotify, *old);
        }
        self.watches = watches;
        Ok(())
    }

    /// Takes the events that are there; says whether one of them may be about an item.
    pub(super) fn drain(&mut self) -> Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut of_interest = false;
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(of_interest),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context("reading what has changed"),
            };
            let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            let name = event.file_name().and_then(|name| name.to_str().ok());
            let named = match (self.watches.get(&event.wd()), name) {
                (Some(interests), Some(name)) => interests.iter().any(|interest| interest(name)),
                // The folder itself went, or another came in its place.
                (_, None) => true,
                (None, Some(_)) => false,
            };
            of_interest |= lost || named;
        }
    }

    fn due_by(&mut self, when: Instant) {
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }

    fn until_due(&self) -> Option<Timespec> {
        let left = self.due?.saturating_duration_since(Instant::now());
        // Rounded up: to wake too early would be to wake twice.
        let left = left + Duration::from_millis(1);
        Some(Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }

    /// Compares every item with what it was, and keeps what differs.
    pub(super) fn look(&mut self, say: &mut dyn FnMut(Notice)) -> Result<()> {
        self.due = None;
        self.add_watches()?;
        let system = System::open(self.root)?;
        let mut changed = BTreeSet::new();
        let mut troubles = BTreeSet::new();
        for item in Item::PLACED {
            match system.read(item) {
                Ok(files) if self.seen.get(&item) == Some(&files) => {}
                Ok(files) => {
                    self.seen.insert(item, files);
                    changed.insert(item);
                }
                // A file that is half written; its end is an event of its own.
                Err(error) => {
                    troubles.insert(format!("{error:#}"));
                }
            }
        }
        if !changed.is_empty() {
            let mut not_wanted = forgotten::read(self.root);
            not_wanted.retain(|item| !changed.contains(item));
            if let Err(error) = forgotten::write(self.root, &not_wanted) {
                troubles.insert(format!("{error:#}"));
            }
            self.pending.extend(&changed);
        }
        self.keep(say, &mut troubles);
        for trouble in troubles.difference(&self.said) {
            say(Notice::NotKept(trouble.clone()));
        }
        for trouble in self.said.difference(&troubles) {
            say(Notice::Resolved(trouble.clone()));
        }
        self.said = troubles;
        if changed.contains(&Item::AuthorizedKeys) || changed.contains(&Item::RootPassword) {
            let state = access::apply(self.root, &self.config.access);
            let same = |old: &AccessState| AccessState { changed: false, ..old.clone() } == state;
            if !self.access.as_ref().is_some_and(same) {
                say(Notice::Access(state.clone()));
            }
            self.access = Some(state);
        }
        Ok(())
    }

    /// Keeps what is pending; what cannot be kept stays so.
    fn keep(&mut self, say: &mut dyn FnMut(Notice), troubles: &mut BTreeSet<String>) {
        if self.pending.is_empty() {
            return;
        }
        if let Ok(device) = self.store.device()
            && device != self.device
        {
            troubles.insert(format!(
                "changes of this host are not kept: another volume than at its start is mounted, {}",
                self.store.path().display()
            ));
            self.due_by(Instant::now() + RETRY);
            return;
        }
        let items: Vec<Item> = self.pending.iter().copied().collect();
        let saved = save(self.root, self.store, self.config, &items, Occasion::Change);
        self.pending = saved.failed.iter().map(|(item, _)| *item).collect();
        if saved.not_mounted {
            let names: Vec<&str> = self.pending.iter().map(|item| item.name()).collect();
            troubles.insert(format!(
                "not kept yet, as the volume of {} is not mounted: {}",
                self.store.path().display(),
                names.join(", ")
            ));
        } else {
            troubles.extend(saved.failed.into_iter().map(|(item, why)| format!("{item} is not kept yet: {why}")));
            if !self.pending.is_empty() {
                self.due_by(Instant::now() + RETRY);
            }
        }
        if !saved.kept.is_empty() {
            say(Notice::Kept(saved.kept));
        }
    }
}
