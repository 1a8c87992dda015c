//! Which guests there are, as xenstored tells: a domain appeared, is gone, was asked to shut down, has a console.
//!
//! Facts, from Xen's sources and seen with Xen 4.20:
//! - `@introduceDomain` fires when a domain's maker tells xenstored of it; its name and uuid are in the xenstore by then. So a
//!   domain appears here before its first instruction runs: `xl create` unpauses it afterwards.
//! - `@releaseDomain` fires when any domain shuts down, crashes or is destroyed, without saying which. A domain that only shut down
//!   is still introduced: what to do with it is for its maker (`xl`'s process for each guest, by `on_poweroff`, `on_reboot`,
//!   `on_crash`), which destroys it a moment later, or preserves it.
//! - Why it stopped is not in the xenstore. Honest sources without linking libxl, which has another ABI with every release, are those in
//!   [`super::stops`].
//! - `control/shutdown` holds what the guest was asked (`poweroff`, `reboot`, `suspend`); the guest empties it when it obeys.
//! - A reboot by `xl` is a new domain with a new number and the same name and uuid.
//!
//! Takes a [`Client`] of its own; whoever polls [`Domains::fd`] calls [`Domains::changes`]. Asks xenstored, never Xen.

use super::{Client, Event};
use crate::config::origins::clean;
use anyhow::Result;
use rustix::fd::BorrowedFd;
use std::collections::BTreeMap;

const INTRODUCED: &str = "@introduceDomain";
const RELEASED: &str = "@releaseDomain";
/// The folder of all domains' folders.
const FOLDER: &str = "/local/domain";
/// Where the guest is asked to shut down, below its folder. Source: Xen's `docs/misc/xenstore-paths.pandoc`.
const SHUTDOWN: &str = "control/shutdown";
/// Where xenconsoled names the terminal of the guest's console, below its folder. Source: as above.
const CONSOLE: &str = "console/tty";
/// The longest name or value that is passed on, in characters.
const LONGEST: usize = 256;

/// A guest's domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    /// Its number; never used twice until Xen has counted to 32752.
    pub id: u32,
    /// Its name, if it has one by now.
    pub name: Option<String>,
    /// Its uuid, which stays over a reboot.
    pub uuid: Option<String>,
}

/// What happened to a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there. Also said of each that was there before the watch.
    Appeared(Domain),
    /// It is destroyed.
    Gone(Domain),
    /// It was asked to do this: `poweroff`, `reboot`, `suspend`, ...
    Asked(Domain, String),
    /// It obeys what it was asked.
    Obeys(Domain),
    /// xenconsoled reads its console, which is this terminal.
    Console(Domain, String),
    /// Some domain stopped, crashed or is gone; which one and why only Xen can say ([`crate::guests::xl::table`]).
    Stopped,
}

#[derive(Debug, Default)]
struct Known {
    domain: Domain,
    asked: bool,
    console: Option<String>,
}

/// The domains but domain 0, while they come and go.
#[derive(Debug)]
pub struct Domains {
    client: Client,
    known: BTreeMap<u32, Known>,
    /// What was found and not told yet: a connection that is lost between must not take it along.
    found: Vec<Change>,
    /// Whether the first event of [`RELEASED`], which says nothing, has come.
    begun: bool,
}

impl Domains {
    /// Watches for domains. Those that are there already are among the first [`Domains::changes`].
    ///
    /// # Errors
    /// xenstored refuses, or is gone.
    pub fn watch(mut client: Client) -> Result<Self> {
        client.watch(INTRODUCED, INTRODUCED)?;
        client.watch(RELEASED, RELEASED)?;
        Ok(Self { client, known: BTreeMap::new(), found: Vec::new(), begun: false })
    }

    /// Goes on with another connection, after the one before was lost. What has changed meanwhile is among the next
    /// [`Domains::changes`].
    ///
    /// # Errors
    /// xenstored refuses, or is gone.
    pub fn again(&mut self, mut client: Client) -> Result<()> {
        client.watch(INTRODUCED, INTRODUCED)?;
        client.watch(RELEASED, RELEASED)?;
        for id in self.known.keys() {
            for path in [SHUTDOWN, CONSOLE] {
                client.watch(&of(*id, path), &of(*id, path))?;
            }
        }
        (self.client, self.begun) = (client, false);
        Ok(())
    }

    /// Readable when there may be changes.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.client.fd()
    }

    /// Those that are there, as of the last [`Domains::changes`].
    pub fn there(&self) -> impl Iterator<Item = &Domain> {
        self.known.values().map(|known| &known.domain)
    }

    /// What has changed since the last call, in the order in which it is safe to act: those that are gone first.
    ///
    /// # Errors
    /// xenstored refuses, or is gone: then so are all watches.
    pub fn changes(&mut self) -> Result<Vec<Change>> {
        // Looking brings new events, of the watches that it sets.
        while let Some(event) = self.client.event()? {
            let (mut look, mut released) = (false, false);
            let mut next = Some(event);
            while let Some(event) = next {
                match event.token.as_str() {
                    INTRODUCED => look = true,
                    RELEASED => {
                        (look, released) = (true, true);
                        if std::mem::replace(&mut self.begun, true) && !self.found.contains(&Change::Stopped) {
                            self.found.push(Change::Stopped);
                        }
                    }
                    _ => {
                        let change = self.of_one(&event)?;
                        self.found.extend(change);
                    }
                }
                next = self.client.event()?;
            }
            if look {
                self.look(released)?;
            }
        }
        Ok(std::mem::take(&mut self.found))
    }

    /// Compares what is there with what was. Unless one was `released`, those that are known are still there, and xenstored is
    /// asked about the others only: each of a hundred guests that start would else cost a question about all that have.
    fn look(&mut self, released: bool) -> Result<()> {
        let names = self.client.directory(FOLDER)?.unwrap_or_default();
        let mut there: BTreeMap<u32, bool> =
            names.iter().filter_map(|name| name.parse().ok()).filter(|id| *id != 0).map(|id| (id, false)).collect();
        for (id, introduced) in &mut there {
            // A folder may outlive its domain.
            let known = !released && self.known.contains_key(id);
            *introduced = known || self.client.is_introduced(*id)?;
        }
        let gone: Vec<u32> = self.known.keys().filter(|id| there.get(id) != Some(&true)).copied().collect();
        for id in gone {
            self.found.extend(self.known.remove(&id).map(|known| Change::Gone(known.domain)));
            for path in [SHUTDOWN, CONSOLE] {
                self.client.unwatch(&of(id, path), &of(id, path))?;
            }
        }
        let news = |id: &u32| released || !self.known.contains_key(id);
        let there: Vec<u32> = there.iter().filter(|(id, there)| **there && news(id)).map(|(id, _)| *id).collect();
        for id in there {
            let domain = self.describe(id)?;
            if let Some(known) = self.known.get_mut(&id) {
                // What is taken away may have lost its name before it is gone, and its end must be told by its name.
                known.domain.name = domain.name.or_else(|| known.domain.name.take());
                known.domain.uuid = domain.uuid.or_else(|| known.domain.uuid.take());
                continue;
            }
            self.known.insert(id, Known { domain: domain.clone(), ..Known::default() });
            self.found.push(Change::Appeared(domain));
            for path in [SHUTDOWN, CONSOLE] {
                self.client.watch(&of(id, path), &of(id, path))?;
            }
        }
        Ok(())
    }

    fn describe(&mut self, id: u32) -> Result<Domain> {
        let name = self.client.text(&of(id, "name"))?.map(|name| clean(&name, LONGEST));
        let uuid = self.client.text(&of(id, "vm"))?;
        let uuid = uuid.and_then(|path| Some(clean(path.strip_prefix("/vm/")?, LONGEST)));
        Ok(Domain { id, name: name.filter(|name| !name.is_empty()), uuid })
    }

    /// A change below a domain's folder. The tokens are ours: a guest cannot choose them.
    fn of_one(&mut self, event: &Event) -> Result<Option<Change>> {
        let Some((id, path)) = event.token.strip_prefix(FOLDER).and_then(|rest| rest.get(1..)?.split_once('/')) else {
            return Ok(None);
        };
        let Some(id) = id.parse().ok().filter(|id| self.known.contains_key(id)) else { return Ok(None) };
        let value = self.client.text(&event.token)?.map(|value| clean(&value, LONGEST)).unwrap_or_default();
        let Some(known) = self.known.get_mut(&id) else { return Ok(None) };
        let domain = known.domain.clone();
        if path == SHUTDOWN {
            let asked = std::mem::replace(&mut known.asked, !value.is_empty());
            return Ok(match (asked, value.is_empty()) {
                (_, false) => Some(Change::Asked(domain, value)),
                (true, true) => Some(Change::Obeys(domain)),
                (false, true) => None,
            });
        }
        if value.is_empty() || known.console.as_ref() == Some(&value) {
            return Ok(None);
        }
        known.console = Some(value.clone());
        Ok(Some(Change::Console(domain, value)))
    }
}

/// The newest domain of this name, domain 0 excepted; `None`: there is none, or its folder tells no such name.
///
/// # Errors
/// xenstored refuses, or is gone.
pub fn newest(client: &mut Client, name: &str) -> Result<Option<u32>> {
    let folders = client.directory(FOLDER)?.unwrap_or_default();
    let mut ids: Vec<u32> = folders.iter().filter_map(|id| id.parse().ok()).filter(|id| *id != 0).collect();
    // Nearly always the first that is asked about, since Xen counts upwards.
    ids.sort_unstable_by(|one, other| other.cmp(one));
    for id in ids {
        if client.text(&of(id, "name"))?.as_deref() == Some(name) && client.is_introduced(id)? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// A path of a domain.
fn of(id: u32, path: &str) -> String {
    format!("{FOLDER}/{id}/{path}")
}

#[cfg(test)]
mod tests {
    use super::super::played::{Tree, server};
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::sync::{Arc, Mutex};

    fn introduce(tree: &Arc<Mutex<Tree>>, id: u32, name: &str) {
        let mut tree = tree.lock().unwrap();
        tree.set(&of(id, "name"), name);
        tree.set(&of(id, "vm"), "/vm/6d0c1c0e-0000-4000-8000-000000000001");
        tree.introduced.insert(id);
        tree.fire(INTRODUCED);
    }

    /// Waits for changes.
    fn changes(domains: &mut Domains) -> Vec<Change> {
        loop {
            let changes = domains.changes().unwrap();
            if !changes.is_empty() {
                return changes;
            }
            let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&domains.client, PollFlags::IN)], Some(&limit)).unwrap();
            assert_eq!(ready, 1, "no change came");
        }
    }

    impl rustix::fd::AsFd for Client {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd()
        }
    }

    #[test]
    fn what_happened_while_xenstored_was_lost_is_told_afterwards() {
        let (client, tree) = server();
        introduce(&tree, 1, "gone");
        introduce(&tree, 2, "stays");
        let mut domains = Domains::watch(client).unwrap();
        assert_eq!(changes(&mut domains).len(), 2);
        tree.lock().unwrap().end();
        while domains.changes().is_ok() {
            let _ = poll(&mut [PollFd::new(&domains.client, PollFlags::IN)], None);
        }
        let (client, tree) = server();
        introduce(&tree, 2, "stays");
        introduce(&tree, 3, "new");
        domains.again(client).unwrap();
        let told = changes(&mut domains);
        let [Change::Gone(gone), Change::Appeared(new)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((gone.id, new.id), (1, 3));
        tree.lock().unwrap().set(&of(2, SHUTDOWN), "poweroff");
        assert!(matches!(changes(&mut domains).as_slice(), [Change::Asked(domain, _)] if domain.id == 2));
    }

    #[test]
    fn a_guest_appears_has_a_console_is_asked_obeys_stops_and_is_gone() {
        let (client, tree) = server();
        introduce(&tree, 1, "early");
        tree.lock().unwrap().set("/local/domain/0/name", "Domain-0");
        let mut domains = Domains::watch(client).unwrap();
        let early = changes(&mut domains);
        let Some(Change::Appeared(domain)) = early.first() else { panic!("{early:?}") };
        assert_eq!((domain.id, domain.name.as_deref()), (1, Some("early")));
        assert_eq!(domain.uuid.as_deref(), Some("6d0c1c0e-0000-4000-8000-000000000001"));
        assert_eq!(early.len(), 1, "{early:?}");

        let domain = domain.clone();
        tree.lock().unwrap().set("/local/domain/1/console/tty", "/dev/pts/1");
        assert_eq!(changes(&mut domains), [Change::Console(domain.clone(), "/dev/pts/1".into())]);
        tree.lock().unwrap().set("/local/domain/1/control/shutdown", "poweroff");
        assert_eq!(changes(&mut domains), [Change::Asked(domain.clone(), "poweroff".into())]);
        tree.lock().unwrap().set("/local/domain/1/control/shutdown", "");
        assert_eq!(changes(&mut domains), [Change::Obeys(domain.clone())]);
        // It has shut down, and nobody has destroyed it yet.
        tree.lock().unwrap().fire(RELEASED);
        assert_eq!(changes(&mut domains), [Change::Stopped]);
        assert_eq!(domains.there().count(), 1);
        // Its folder stays a moment longer.
        tree.lock().unwrap().introduced.remove(&1);
        tree.lock().unwrap().fire(RELEASED);
        assert_eq!(changes(&mut domains), [Change::Stopped, Change::Gone(domain)]);
        assert_eq!(domains.there().count(), 0);
    }

    #[test]
    fn one_that_has_lost_its_folder_is_still_told_by_its_name_when_it_is_gone() {
        let (client, tree) = server();
        introduce(&tree, 1, "web");
        let mut domains = Domains::watch(client).unwrap();
        changes(&mut domains);
        // Its maker takes its folder's values away before Xen lets it go, and another comes at that very moment.
        tree.lock().unwrap().values.retain(|path, _| !path.starts_with("/local/domain/1/"));
        introduce(&tree, 2, "other");
        assert!(matches!(changes(&mut domains).as_slice(), [Change::Appeared(domain)] if domain.id == 2));
        tree.lock().unwrap().introduced.remove(&1);
        tree.lock().unwrap().fire(RELEASED);
        let told = changes(&mut domains);
        let [Change::Stopped, Change::Gone(gone)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((gone.id, gone.name.as_deref()), (1, Some("web")));
        assert!(gone.uuid.is_some());
    }

    #[test]
    fn a_reboot_is_a_new_domain_and_all_is_told_before_it() {
        let (client, tree) = server();
        introduce(&tree, 4, "web");
        let mut domains = Domains::watch(client).unwrap();
        changes(&mut domains);
        tree.lock().unwrap().introduced.remove(&4);
        tree.lock().unwrap().fire(RELEASED);
        introduce(&tree, 5, "web");
        let mut told = Vec::new();
        while told.len() < 3 {
            told.extend(changes(&mut domains));
        }
        assert!(matches!(told[0], Change::Stopped), "{told:?}");
        assert!(matches!(&told[1], Change::Gone(domain) if domain.id == 4), "{told:?}");
        assert!(matches!(&told[2], Change::Appeared(domain) if domain.id == 5), "{told:?}");
    }

    #[test]
    fn names_that_guests_could_choose_are_fit_for_a_console() {
        let (client, tree) = server();
        introduce(&tree, 1, "bad\x1b[2J");
        tree.lock().unwrap().set("/local/domain/x/name", "no number");
        let mut domains = Domains::watch(client).unwrap();
        changes(&mut domains);
        assert_eq!(domains.there().next().unwrap().name.as_deref(), Some("bad?[2J"));
        assert_eq!(domains.there().count(), 1);
    }
}
