//! The client's side of RFC 2131 as a pure machine: packets and time go in, actions come out. It reads no clock and
//! touches no socket, so that a test plays a day in no time.
//!
//! Where the RFC leaves a choice: the first DISCOVER goes out at once (4.4.1 would wait up to 10 s; one host per stick
//! makes no storm), the first usable offer is taken, it asks for ever, and a lease holds until its time is over even
//! when the carrier comes back and no server answers (3.7).

mod answers;
mod questions;

use super::lease::Lease;
use super::timing::Random;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long after a renewal was asked for its answer is listened for; the sockets are closed again until the next.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long after another host has claimed the address that is told as something that is wrong now.
const CONFLICT_WAIT: Duration = Duration::from_secs(60);

/// What the client is told at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// MAC address of the interface.
    pub mac: [u8; 6],
    /// The host's name, if it has one, for the server.
    pub hostname: Option<String>,
    /// The last lease, as it was kept: its address is asked for again.
    pub previous: Option<Lease>,
    /// `previous` was granted in this boot, but the process was killed before it knew whether the address is free; it
    /// is probed once the server has confirmed it.
    pub unproven: bool,
}

/// What happened, for whoever sets addresses and informs the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The lease may be used from now on.
    Bound {
        /// What was granted.
        lease: Lease,
        /// The address was in use until now and stays; only its time and the other values may have changed.
        renewed: bool,
    },
    /// The address must not be used any longer; the client asks for another.
    Lost {
        /// For people.
        why: String,
    },
    /// Something worth a line in the log.
    Say {
        /// Whether it is something wrong.
        warning: bool,
        /// For people.
        text: String,
    },
}

/// What the client wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this IPv4 packet to every host on the link.
    Broadcast(Vec<u8>),
    /// Send this message by UDP from port 68 of `source` to port 67 of `server`, on the kernel's routes.
    Unicast {
        /// The host's address.
        source: Ipv4Addr,
        /// The server's.
        server: Ipv4Addr,
        /// The payload.
        message: Vec<u8>,
    },
    /// Send this ARP packet to every host on the link.
    Arp(Vec<u8>),
    /// Pass this on.
    Tell(Event),
}

/// One moment by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`; all deadlines are in it.
    pub boot: Duration,
    /// Seconds since 1970; only for what is kept on the disk, because it may jump.
    pub wall: u64,
}

/// A question to servers that is repeated until it is answered.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    xid: u32,
    /// When the first message of it was sent, when the last, and when the next will be.
    began: Duration,
    sent: Duration,
    next: Duration,
    tries: u32,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing is sent before that time.
    Waiting { until: Duration },
    /// INIT and SELECTING of RFC 2131: any server is asked.
    Selecting(Exchange),
    /// The server is asked for what it offered.
    Requesting { exchange: Exchange, offer: Lease },
    /// INIT-REBOOT and REBOOTING: any server is asked to confirm an address.
    Rebooting { exchange: Exchange, address: Ipv4Addr, known: Known },
    /// The address is granted; is it free?
    Probing { lease: Lease, probes: u32, next: Duration },
    /// All is well.
    Bound { lease: Lease },
    /// T1 is past: its server is asked to renew the lease.
    Renewing { exchange: Exchange, lease: Lease },
    /// T2 is past: every server is.
    Rebinding { exchange: Exchange, lease: Lease },
}

/// What is to be heard of the ARP packets on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpWatch {
    /// Everything: an address is probed.
    Probe,
    /// That another host sends from this address.
    Claims(Ipv4Addr),
}

/// Another host that claims the address.
#[derive(Clone, Debug)]
struct Conflict {
    /// When it did so last, and when it was answered last.
    seen: Duration,
    answered: Duration,
    /// For people.
    text: String,
}

/// How an address that is asked about is known.
#[derive(Clone, Debug)]
enum Known {
    /// From an earlier boot, when it was in use.
    Kept,
    /// It was granted in this boot, and nobody has looked yet whether it is free.
    Unproven(Lease),
    /// It is in use.
    Held(Lease),
}

/// The client of one interface.
#[derive(Clone, Debug)]
pub struct Client {
    mac: [u8; 6],
    hostname: Option<String>,
    random: Random,
    state: State,
    /// An address that was the host's, as a wish to any server.
    wish: Option<Ipv4Addr>,
    /// Offers in a row that a server took back.
    refusals: u32,
    /// Whether there is a carrier, if that was told.
    carrier: Option<bool>,
    /// Whether an answer to a renewal may still come.
    listening: bool,
    /// What was said last; it is not repeated.
    said: String,
    /// Answers to the last question that were told to be of no use.
    complaints: u32,
    conflict: Option<Conflict>,
}

impl Client {
    /// A client without an address. It asks for the last lease again if that holds, else for any; the first message is
    /// among the actions of the first [`Client::tick`].
    #[must_use]
    pub fn new(settings: Settings, seed: u64, now: Now) -> Self {
        let mut client = Self::with_state(settings.mac, settings.hostname, seed, State::Waiting { until: now.boot });
        if let Some(previous) = settings.previous {
            client.wish = Some(previous.address);
            if previous.holds_at(now.wall) {
                let exchange = client.exchange(now);
                let address = previous.address;
                let known = if settings.unproven { Known::Unproven(previous) } else { Known::Kept };
                client.state = State::Rebooting { exchange, address, known };
            }
        }
        client
    }

    /// A client that has a lease of this boot, whose address is in use.
    #[must_use]
    pub fn resume(settings: Settings, lease: Lease, seed: u64) -> Self {
        Self::with_state(settings.mac, settings.hostname, seed, State::Bound { lease })
    }

    fn with_state(mac: [u8; 6], hostname: Option<String>, seed: u64, state: State) -> Self {
        Self {
            mac,
            hostname,
            random: Random::new(seed),
            state,
            wish: None,
            refusals: 0,
            carrier: None,
            listening: false,
            said: String::new(),
            complaints: 0,
            conflict: None,
        }
    }

    /// One word for people, after RFC 2131's names.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match &self.state {
            State::Waiting { .. } => "waiting",
            State::Selecting(_) => "selecting",
            State::Requesting { .. } => "requesting",
            State::Rebooting { known: Known::Held(_), .. } => "verifying",
            State::Rebooting { .. } => "rebooting",
            State::Probing { .. } => "probing",
            State::Bound { .. } => "bound",
            State::Renewing { .. } => "renewing",
            State::Rebinding { .. } => "rebinding",
        }
    }

    /// The lease that is granted, and whose address is not known to be free yet: what another process needs, should this
    /// one be killed now, to go on without a DISCOVER.
    #[must_use]
    pub fn unproven(&self) -> Option<&Lease> {
        match &self.state {
            State::Probing { lease, .. } | State::Rebooting { known: Known::Unproven(lease), .. } => Some(lease),
            _ => None,
        }
    }

    /// Whether DHCP packets are waited for.
    #[must_use]
    pub fn wants_dhcp(&self) -> bool {
        match self.state {
            State::Selecting(_) | State::Requesting { .. } | State::Rebooting { .. } => true,
            State::Renewing { .. } | State::Rebinding { .. } => self.listening,
            State::Waiting { .. } | State::Probing { .. } | State::Bound { .. } => false,
        }
    }

    /// MAC address of the interface.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Which ARP packets are waited for; others do no harm.
    #[must_use]
    pub fn arp_watch(&self) -> Option<ArpWatch> {
        match &self.state {
            State::Probing { .. } => Some(ArpWatch::Probe),
            _ => self.held().map(|lease| ArpWatch::Claims(lease.address)),
        }
    }

    /// Another host claims the address that is in use, or did so less than a minute ago: a sentence for people.
    #[must_use]
    pub fn conflict(&self) -> Option<&str> {
        self.conflict.as_ref().map(|conflict| conflict.text.as_str())
    }

    /// When [`Client::tick`] must be called at the latest, in `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let end = self.held().and_then(Lease::end);
        if self.carrier == Some(false) {
            // Nothing can be asked, but an address whose time is over must be given up.
            return end;
        }
        let answer = |exchange: &Exchange| self.listening.then(|| exchange.sent.saturating_add(ANSWER_WAIT));
        let due = match &self.state {
            State::Waiting { until } => Some(*until),
            State::Selecting(exchange) | State::Requesting { exchange, .. } => Some(exchange.next),
            State::Rebooting { exchange, .. } => {
                Some(exchange.next.min(exchange.began.saturating_add(questions::REBOOT_LIMIT)))
            }
            State::Probing { next, .. } => Some(*next),
            State::Bound { lease } => lease.renewal(),
            State::Renewing { exchange, lease } => {
                [answer(exchange), Some(exchange.next), lease.rebinding()].into_iter().flatten().min()
            }
            State::Rebinding { exchange, .. } => [answer(exchange), Some(exchange.next)].into_iter().flatten().min(),
        };
        let conflict = self.conflict.as_ref().map(|conflict| conflict.seen.saturating_add(CONFLICT_WAIT));
        [due, end, conflict].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        self.conflict.take_if(|conflict| conflict.seen.saturating_add(CONFLICT_WAIT) <= now.boot);
        // A clock that jumped may have passed several deadlines at once: T1, T2 and the end of the lease, say.
        for _ in 0..8 {
            if self.deadline().is_none_or(|deadline| deadline > now.boot) {
                break;
            }
            self.step(now, &mut actions);
        }
        actions
    }

    /// Is told whether there is a carrier. When one came back, a lease in use is verified (RFC 2131, 3.7: the host may
    /// be on another net now), and whatever is being asked is asked anew, because nobody heard it.
    pub fn link(&mut self, up: bool, now: Now) -> Vec<Action> {
        let before = self.carrier.replace(up);
        if !up || before == Some(true) {
            return Vec::new();
        }
        let again = |exchange: Exchange| Exchange { began: now.boot, next: now.boot, tries: 0, ..exchange };
        let state = std::mem::replace(&mut self.state, State::Waiting { until: now.boot });
        self.state = match (state, before) {
            (State::Rebooting { exchange, address, known }, _) => {
                State::Rebooting { exchange: again(exchange), address, known }
            }
            (State::Probing { lease, .. }, _) => State::Probing { lease, probes: 0, next: now.boot },
            // Another net may have another server: not for one that was told for the first time, though.
            (State::Requesting { exchange, offer }, None) => State::Requesting { exchange: again(exchange), offer },
            (State::Requesting { exchange, .. }, Some(_)) | (State::Selecting(exchange), _) => {
                State::Selecting(again(exchange))
            }
            (State::Bound { lease } | State::Renewing { lease, .. } | State::Rebinding { lease, .. }, Some(_)) => {
                State::Rebooting { exchange: self.exchange(now), address: lease.address, known: Known::Held(lease) }
            }
            (
                state
                @ (State::Waiting { .. } | State::Bound { .. } | State::Renewing { .. } | State::Rebinding { .. }),
                _,
            ) => state,
        };
        self.tick(now)
    }

    /// The lease whose address is in use.
    fn held(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound { lease }
            | State::Renewing { lease, .. }
            | State::Rebinding { lease, .. }
            | State::Rebooting { known: Known::Held(lease), .. } => Some(lease),
            State::Waiting { .. }
            | State::Selecting(_)
            | State::Requesting { .. }
            | State::Rebooting { .. }
            | State::Probing { .. } => None,
        }
    }

    fn exchange(&mut self, now: Now) -> Exchange {
        Exchange { xid: self.random.xid(), began: now.boot, sent: now.boot, next: now.boot, tries: 0 }
    }

    /// Passes a text on, unless it is what was said last.
    fn say(&mut self, actions: &mut Vec<Action>, warning: bool, text: String) {
        if self.said != text {
            self.said.clone_from(&text);
            actions.push(Action::Tell(Event::Say { warning, text }));
        }
    }
}

#[cfg(test)]
mod tests;
