//! What becomes of the domains: xenstored tells that something happened, `xl list` and xl's own logs tell what.
//!
//! What SINO's own xl makes it tells itself ([`super::making`]); for that nothing is looked at here.
//!
//! A guest that reboots is built anew by the `xl` that waits for it, as a domain with another number: that is told as the new
//! domain's appearance alone, and as the old one's end only if none comes.

use super::engine::{Event, Reason};
use super::making::Making;
use super::xenstore::Client;
use super::xenstore::domains::{Change, Domain, Domains};
use super::xenstore::stops::{LOGS, Stop, read_log};
use super::xl::{self, Shutdown, Xl};
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long `xl list` may take.
const LIST: Duration = Duration::from_secs(60);
/// How long a guest may take to be built anew by the xl that waits for it.
const REBUILT: Duration = Duration::from_secs(120);
/// How soon a domain that somebody else builds is looked at again: nothing tells that it runs.
const BUILT: Duration = Duration::from_secs(1);
/// Where `xl list` takes long, the pause before the next one is so many times as long: a twentieth of one CPU goes into it.
const PAUSE_OVER_LIST: u32 = 19;
/// The longest such pause, and how soon it is looked at once more whether an xl of SINO's has ended without a domain.
const LONGEST: Duration = Duration::from_secs(30);
/// A domain that has shut down and is there for so long stays, unless the log of the xl that waits for it says otherwise.
const TAKEN_AWAY: Duration = Duration::from_secs(10);

/// Watches for as long as xenstored answers.
pub struct Watch {
    domains: Domains,
    xl: Xl,
    making: Making,
    logs: PathBuf,
    /// How long the last `xl list` took.
    list_took: Duration,
    /// Why a domain stopped, as long as it is there.
    stopped: BTreeMap<u32, Reason>,
    /// Domains that have shut down and are still there.
    ended: BTreeMap<u32, Ended>,
    /// Domains that were still being built.
    building: BTreeMap<u32, Domain>,
    /// Guests whose new domain has not come yet, with the old one's number, and until when it may.
    rebuilt: BTreeMap<String, (u32, Instant)>,
    /// Whether xenstored was lost, and what it knows has not been compared with what there is.
    again: bool,
}

/// A domain that has shut down.
struct Ended {
    name: String,
    reason: Reason,
    since: Instant,
    /// Whether it was told that it stays, or is not looked at any more.
    settled: bool,
}

impl Watch {
    /// Begins; what is there already is told first. `making`: the domains that need not be told of, because their own xl does.
    #[must_use]
    pub fn new(domains: Domains, xl: Xl, making: Making) -> Self {
        let (stopped, ended, building, rebuilt) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (logs, list_took) = (LOGS.into(), Duration::ZERO);
        Self { domains, xl, making, logs, list_took, stopped, ended, building, rebuilt, again: false }
    }

    /// Goes on with another connection, after xenstored was lost; what has happened meanwhile is told next.
    ///
    /// # Errors
    /// xenstored is lost again.
    pub fn again(&mut self, client: Client) -> Result<()> {
        self.again = true;
        self.domains.again(client)
    }

    /// Waits for something, and returns it. Empty: nothing that matters.
    ///
    /// # Errors
    /// xenstored is lost.
    pub fn wait(&mut self) -> Result<Vec<Event>> {
        // What came along with an answer is in memory already, and no poll tells of it.
        let mut changes = self.domains.changes()?;
        if changes.is_empty() {
            self.poll()?;
            changes = self.domains.changes()?;
        }
        if self.again && !changes.is_empty() {
            self.again = false;
            self.doubt(&mut changes);
        }
        let tells = |change: &Change| match change {
            Change::Stopped => true,
            Change::Appeared(domain) => !self.is_own(domain),
            _ => false,
        };
        let looks = self.looks_again() || changes.iter().any(tells);
        let began = Instant::now();
        let listed = if looks { self.xl.list(began + LIST) } else { Ok(Vec::new()) };
        let listed = listed.unwrap_or_else(|failure| {
            log::warn!("what becomes of the domains is not known: {failure}");
            Vec::new()
        });
        let now = Instant::now();
        if looks {
            self.list_took = now.saturating_duration_since(began);
        }
        Ok(self.told(changes, &listed, now))
    }

    /// Whether there is something that nothing tells of.
    fn looks_again(&self) -> bool {
        self.building.values().any(|domain| !self.is_own(domain)) || self.ended.values().any(|ended| !ended.settled)
    }

    /// Whether the xl that makes this domain, or has made it, is SINO's.
    fn is_own(&self, domain: &Domain) -> bool {
        self.making.has_made(domain.id) || domain.name.as_deref().is_some_and(|name| self.making.is_under_way(name))
    }

    /// Waits until xenstored has something to say, or it is time to look at what is being built or taken away.
    fn poll(&self) -> Result<()> {
        let now = Instant::now();
        let pause = (self.list_took * PAUSE_OVER_LIST).clamp(BUILT, LONGEST);
        let pause = if self.looks_again() { Some(pause) } else { (!self.building.is_empty()).then_some(LONGEST) };
        let built = pause.map(|pause| now + pause);
        let next = self.rebuilt.values().map(|(_, until)| *until).chain(built).min();
        let left = next.and_then(|at| Timespec::try_from(at.saturating_duration_since(now)).ok());
        let mut fds = [PollFd::from_borrowed_fd(self.domains.fd(), PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("waiting for news of the domains"),
        }
    }

    /// A xenstored that was started anew may know nothing of domains that run on: only Xen's word counts.
    fn doubt(&self, changes: &mut Vec<Change>) {
        let gone = |change: &Change| matches!(change, Change::Gone(_));
        if !changes.iter().any(gone) {
            return;
        }
        match self.xl.list(Instant::now() + LIST) {
            Ok(there) => changes.retain(
                |change| !matches!(change, Change::Gone(domain) if there.iter().any(|other| other.id == domain.id)),
            ),
            Err(failure) => {
                log::warn!("which guests are gone since xenstored was lost is not known: {failure}");
                changes.retain(|change| !gone(change));
            }
        }
    }

    fn told(&mut self, changes: Vec<Change>, listed: &[xl::Domain], now: Instant) -> Vec<Event> {
        for domain in listed {
            if let Some(reason) = domain.state.and_then(|state| state.shutdown) {
                self.stopped.insert(domain.id, reason_of(reason));
            }
        }
        let mut events = Vec::new();
        for change in changes {
            match change {
                Change::Appeared(domain) => drop(self.building.insert(domain.id, domain)),
                Change::Gone(domain) => {
                    self.building.remove(&domain.id);
                    self.making.forget(domain.id);
                    self.ended.remove(&domain.id);
                    let stopped = self.stopped.remove(&domain.id);
                    if let Some(name) = domain.name {
                        let (reason, again) = why(&self.logs, &name, domain.id, stopped);
                        if again {
                            self.rebuilt.insert(name, (domain.id, now + REBUILT));
                        } else {
                            events.push(Event::Gone { name, domid: domain.id, reason });
                        }
                    }
                }
                _ => {}
            }
        }
        let made = |domid: &u32, _: &mut Domain| !self.making.has_made(*domid);
        self.building.retain(made);
        for domain in listed.iter().filter(|domain| domain.state.is_none_or(|state| !state.paused)) {
            if self.building.remove(&domain.id).is_some() && !domain.name.is_empty() {
                self.rebuilt.remove(&domain.name);
                events.push(Event::Appeared { name: domain.name.clone(), domid: domain.id });
            }
        }
        events.extend(self.remains(listed, now));
        let late: Vec<String> =
            self.rebuilt.iter().filter(|(_, (_, until))| *until <= now).map(|(name, _)| name.clone()).collect();
        for name in late {
            if let Some((domid, _)) = self.rebuilt.remove(&name) {
                events.push(Event::Gone { name, domid, reason: Reason::Reboot });
            }
        }
        events
    }
}

impl Watch {
    /// Which of the domains that have shut down stay.
    fn remains(&mut self, listed: &[xl::Domain], now: Instant) -> Vec<Event> {
        if !listed.is_empty() {
            let ended = |domain: &xl::Domain| domain.state.and_then(|state| state.shutdown);
            self.ended.retain(|id, _| listed.iter().any(|domain| domain.id == *id && ended(domain).is_some()));
            // One that is being saved is there for as long as that takes.
            let reason = |domain| ended(domain).map(reason_of).filter(|reason| *reason != Reason::Suspend);
            for (domain, reason) in listed.iter().filter_map(|domain| Some((domain, reason(domain)?))) {
                let name = domain.name.clone();
                self.ended.entry(domain.id).or_insert(Ended { name, reason, since: now, settled: false });
            }
        }
        let mut events = Vec::new();
        for (id, ended) in self.ended.iter_mut().filter(|(_, ended)| !ended.settled) {
            let action = last_stop(&self.logs, &ended.name, *id).and_then(|stop| stop.action);
            let late = now.saturating_duration_since(ended.since) >= TAKEN_AWAY;
            let stays = action.as_deref().map_or(late, |action| action == "preserve");
            // A core dump takes as long as it takes.
            ended.settled = stays || late;
            if stays {
                events.push(Event::Remains { name: ended.name.clone(), domid: *id, reason: ended.reason });
            }
        }
        events
    }
}

/// What the log of the xl that waited for a domain says of its stop.
fn last_stop(logs: &Path, name: &str, id: u32) -> Option<Stop> {
    // An older log is moved aside when the guest is started again.
    let files = ["", ".1"].map(|end| logs.join(format!("xl-{name}.log{end}")));
    files.iter().find_map(|file| read_log(&String::from_utf8_lossy(&fs::read(file).ok()?), id))
}

/// Why a domain is gone, and whether the xl that waited for it builds it anew. `seen`: what `xl list` said of it before.
fn why(logs: &Path, name: &str, id: u32, seen: Option<Reason>) -> (Reason, bool) {
    let stop = last_stop(logs, name, id);
    let action = stop.as_ref().and_then(|stop| stop.action.as_deref());
    let again = action.is_some_and(|action| action.contains("restart"));
    let reason = stop.as_ref().map(|stop| match reason_of(stop.reason) {
        Reason::Reboot if action.is_some() && !again => Reason::NoReboot,
        reason => reason,
    });
    // Without a word of anybody's, somebody has destroyed it.
    (reason.or(seen).unwrap_or(Reason::Destroyed), again)
}

fn reason_of(reason: Shutdown) -> Reason {
    match reason {
        Shutdown::Poweroff => Reason::PowerOff,
        Shutdown::Reboot | Shutdown::SoftReset => Reason::Reboot,
        Shutdown::Suspend => Reason::Suspend,
        Shutdown::Crash | Shutdown::Watchdog => Reason::Crash,
        Shutdown::Other => Reason::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::xenstore::played::server;
    use super::*;

    struct Played {
        watch: Watch,
        logs: tempfile::TempDir,
        now: Instant,
    }

    fn named(id: u32, name: &str) -> Domain {
        Domain { id, name: Some(name.into()), uuid: None }
    }

    fn listed(id: u32, name: &str, paused: bool, shutdown: Option<Shutdown>) -> xl::Domain {
        let state = xl::State { paused, shutdown, ..xl::State::default() };
        let (name, state) = (name.to_owned(), Some(state));
        xl::Domain { name, id, memory_mib: 1, vcpus: 1, state, cpu_time: None, uuid: None }
    }

    impl Played {
        fn new() -> Self {
            let logs = tempfile::tempdir().unwrap();
            let (client, _tree) = server();
            let mut watch = Watch::new(Domains::watch(client).unwrap(), Xl::new("/no/such"), Making::default());
            watch.logs = logs.path().to_owned();
            Self { watch, logs, now: Instant::now() }
        }

        fn told(&mut self, changes: Vec<Change>, listed: &[xl::Domain]) -> Vec<Event> {
            self.watch.told(changes, listed, self.now)
        }

        fn log(&self, file: &str, text: &str) {
            fs::write(self.logs.path().join(file), text).unwrap();
        }
    }

    fn gone(name: &str, domid: u32, reason: Reason) -> Event {
        Event::Gone { name: name.into(), domid, reason }
    }

    fn appeared(name: &str, domid: u32) -> Event {
        Event::Appeared { name: name.into(), domid }
    }

    #[test]
    fn a_domain_appears_when_it_is_built() {
        let mut played = Played::new();
        let change = vec![Change::Appeared(named(3, "a"))];
        assert_eq!(played.told(change, &[listed(3, "a", true, None)]), []);
        assert_eq!(played.told(vec![], &[listed(3, "a", false, None)]), [appeared("a", 3)]);
        assert_eq!(played.told(vec![], &[listed(3, "a", false, None)]), []);
    }

    #[test]
    fn what_sino_makes_itself_is_not_looked_for() {
        let mut played = Played::new();
        let making = played.watch.making.clone();
        let under_way = making.begin("a");
        assert_eq!(played.told(vec![Change::Appeared(named(3, "a"))], &[]), []);
        assert!(!played.watch.looks_again());
        under_way.made(3);
        assert!(!played.watch.looks_again());
        // Another domain is why there is a list.
        let there = [listed(3, "a", false, None), listed(4, "b", false, None)];
        assert_eq!(played.told(vec![Change::Appeared(named(4, "b"))], &there), [appeared("b", 4)]);
        assert!(played.watch.building.is_empty());
        played.told(vec![Change::Gone(named(3, "a"))], &[]);
        assert!(!making.has_made(3));
        // An xl that ends badly leaves a domain to whoever looks.
        let under_way = making.begin("c");
        assert_eq!(played.told(vec![Change::Appeared(named(5, "c"))], &[]), []);
        drop(under_way);
        assert!(played.watch.looks_again());
    }

    #[test]
    fn why_it_is_gone_is_in_the_log_or_was_seen_before_or_nobody_says() {
        let mut played = Played::new();
        played.log(
            "xl-a.log",
            "Domain 3 has shut down, reason code 3 0x3\nAction for shutdown reason code 3 is destroy\n",
        );
        played.log("xl-b.log.1", "Domain 4 has shut down, reason code 0 0x0\n");
        played.told(vec![Change::Stopped], &[listed(5, "c", false, Some(Shutdown::Suspend))]);
        let all = [(3, "a"), (4, "b"), (5, "c"), (6, "d")].map(|(id, name)| Change::Gone(named(id, name)));
        let expected = [
            gone("a", 3, Reason::Crash),
            gone("b", 4, Reason::PowerOff),
            gone("c", 5, Reason::Suspend),
            gone("d", 6, Reason::Destroyed),
        ];
        assert_eq!(played.told(all.to_vec(), &[]), expected);
    }

    #[test]
    fn a_xenstored_that_was_lost_is_not_believed_that_all_are_gone() {
        let played = Played::new();
        let mut changes = vec![Change::Gone(named(3, "a")), Change::Appeared(named(4, "b"))];
        // There is no xl that could confirm it.
        played.watch.doubt(&mut changes);
        assert_eq!(changes, [Change::Appeared(named(4, "b"))]);
    }

    #[test]
    fn a_reboot_is_the_appearance_of_another_domain_or_an_end_if_none_comes() {
        let mut played = Played::new();
        let log = "Domain 3 has shut down, reason code 1 0x1\nAction for shutdown reason code 1 is restart\n";
        played.log("xl-a.log", log);
        assert_eq!(played.told(vec![Change::Gone(named(3, "a"))], &[]), []);
        let change = vec![Change::Appeared(named(4, "a"))];
        assert_eq!(played.told(change, &[listed(4, "a", false, None)]), [appeared("a", 4)]);
        played.now += REBUILT;
        assert_eq!(played.told(vec![], &[]), []);
        played.log("xl-a.log", &log.replace("Domain 3", "Domain 4"));
        assert_eq!(played.told(vec![Change::Gone(named(4, "a"))], &[]), []);
        played.now += REBUILT;
        assert_eq!(played.told(vec![], &[]), [gone("a", 4, Reason::Reboot)]);
    }

    #[test]
    fn what_has_shut_down_and_stays_is_told_once() {
        let mut played = Played::new();
        let remains = |id, name: &str, reason| Event::Remains { name: name.into(), domid: id, reason };
        let crashed = |id, name: &str| listed(id, name, false, Some(Shutdown::Crash));
        played.log(
            "xl-a.log",
            "Domain 3 has shut down, reason code 3 0x3\nAction for shutdown reason code 3 is preserve\n",
        );
        played.log(
            "xl-b.log",
            "Domain 4 has shut down, reason code 3 0x3\nAction for shutdown reason code 3 is coredump-destroy\n",
        );
        let there = [crashed(3, "a"), crashed(4, "b"), crashed(5, "c"), listed(6, "s", false, Some(Shutdown::Suspend))];
        assert_eq!(played.told(vec![Change::Stopped], &there), [remains(3, "a", Reason::Crash)]);
        assert!(played.watch.looks_again(), "nobody has said what becomes of c");
        assert_eq!(played.told(vec![], &there), []);
        played.now += TAKEN_AWAY;
        assert_eq!(played.told(vec![], &there), [remains(5, "c", Reason::Crash)]);
        assert!(!played.watch.looks_again());
        assert_eq!(played.told(vec![Change::Gone(named(4, "b"))], &[]), [gone("b", 4, Reason::Crash)]);
        // It is seen when the watch begins, too, after the domain itself.
        let mut played = Played::new();
        played.log(
            "xl-a.log",
            "Domain 3 has shut down, reason code 0 0x0\nAction for shutdown reason code 0 is preserve\n",
        );
        let off = [listed(3, "a", false, Some(Shutdown::Poweroff))];
        let told = played.told(vec![Change::Appeared(named(3, "a"))], &off);
        assert_eq!(told, [appeared("a", 3), remains(3, "a", Reason::PowerOff)]);
    }

    #[test]
    fn a_reboot_that_xl_does_not_do_is_told_as_such() {
        let mut played = Played::new();
        played.log(
            "xl-a.log",
            "Domain 3 has shut down, reason code 1 0x1\nAction for shutdown reason code 1 is destroy\n",
        );
        let told = played.told(vec![Change::Gone(named(3, "a")), Change::Gone(named(4, "b"))], &[]);
        assert_eq!(told, [gone("a", 3, Reason::NoReboot), gone("b", 4, Reason::Destroyed)]);
    }
}
