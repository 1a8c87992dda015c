//! What the client does when a time has come: ask, ask again, give up.

use super::super::message::Request;
use super::super::packet;
use super::super::timing::half_of_the_rest;
use super::{Action, Client, Event, Exchange, Known, Lease, Now, State};
use dhcproto::v4::MessageType;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Silence after which the last lease is given up and any server is asked for any address. RFC 2131, 3.2 leaves it
/// open; a server that has the lease answers in milliseconds, and it is asked twice.
pub(super) const REBOOT_LIMIT: Duration = Duration::from_secs(8);
/// How often an offer is asked for before another is looked for: 28 s in all.
const REQUEST_TRIES: u32 = 3;
/// RFC 5227, 1.1 has 3 probes 1 to 2 s apart and 2 s of waiting. A host on the same wire answers in milliseconds, and
/// the boot waits for the address: 3 probes, 0.6 s in all.
const PROBES: u32 = 3;
const PROBE_PAUSE: Duration = Duration::from_millis(200);
/// DISCOVERs without an answer after which it is said that there is no server: about 12 s.
const TRIES_BEFORE_A_WARNING: u32 = 2;

impl Client {
    /// Does what is due first, and leaves a state whose deadline is later.
    pub(super) fn step(&mut self, now: Now, actions: &mut Vec<Action>) {
        let over = |at: Option<Duration>| at.is_some_and(|at| at <= now.boot);
        if let Some(lease) = self.held().filter(|lease| over(lease.end())) {
            let why = format!("the lease of {} is over and no server renewed it", lease.address);
            self.wish = Some(lease.address);
            self.lose(why, now, actions);
            return;
        }
        let state = std::mem::replace(&mut self.state, State::Waiting { until: now.boot });
        match state {
            State::Waiting { .. } => self.discover(now, actions),
            State::Selecting(exchange) => {
                if exchange.tries == TRIES_BEFORE_A_WARNING {
                    let waited = now.boot.saturating_sub(exchange.began).as_secs();
                    let text = format!(
                        "no DHCP server has answered for {waited} s; it is asked on (look at the cable, the switch port and \
                         the DHCP server)"
                    );
                    self.say(actions, true, text);
                }
                self.send_discover(exchange, now, actions);
            }
            State::Requesting { exchange, offer } if exchange.tries >= REQUEST_TRIES => {
                let text = format!("{} offered {} and then fell silent; asking anew", offer.server, offer.address);
                self.say(actions, true, text);
                self.discover(now, actions);
            }
            State::Requesting { exchange, offer } => self.send_request(exchange, offer, now, actions),
            State::Rebooting { exchange, address, known } => self.reboot(exchange, address, known, now, actions),
            State::Probing { lease, probes, .. } if probes < PROBES => {
                actions.push(Action::Arp(packet::arp_probe(self.mac, lease.address)));
                let next = now.boot.saturating_add(PROBE_PAUSE);
                self.state = State::Probing { lease, probes: probes.saturating_add(1), next };
            }
            State::Probing { lease, .. } => {
                actions.push(Action::Arp(packet::arp_announcement(self.mac, lease.address)));
                self.bind(lease, false, actions);
            }
            // The clock jumped, or the process was killed before T1 and is back after T2: its server had its turn.
            State::Bound { lease } if over(lease.rebinding()) => {
                let exchange = self.exchange(now);
                self.rebind(exchange, lease, now, actions);
            }
            State::Bound { lease } if over(lease.renewal()) => {
                let exchange = self.exchange(now);
                self.renew(exchange, lease, now, actions);
            }
            State::Renewing { lease, .. } if over(lease.rebinding()) => {
                let text =
                    format!("{} does not renew the lease of {}; asking every server", lease.server, lease.address);
                self.say(actions, true, text);
                let exchange = self.exchange(now);
                self.rebind(exchange, lease, now, actions);
            }
            State::Renewing { exchange, lease } if exchange.next <= now.boot => {
                self.renew(exchange, lease, now, actions);
            }
            State::Rebinding { exchange, lease } if exchange.next <= now.boot => {
                self.rebind(exchange, lease, now, actions);
            }
            // Nothing but the wait for an answer is over; it does not go on before the next question.
            state @ (State::Bound { .. } | State::Renewing { .. } | State::Rebinding { .. }) => {
                self.listening = false;
                self.state = state;
            }
        }
    }

    /// Begins anew: any server is asked for any address.
    pub(super) fn discover(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.carrier == Some(false) {
            self.state = State::Waiting { until: now.boot };
        } else {
            let exchange = self.exchange(now);
            self.send_discover(exchange, now, actions);
        }
    }

    fn send_discover(&mut self, exchange: Exchange, now: Now, actions: &mut Vec<Action>) {
        let mut request = self.request(MessageType::Discover);
        request.requested = self.wish;
        let exchange = self.ask(exchange, &request, now, actions);
        self.state = State::Selecting(exchange);
    }

    /// Asks for what was offered (RFC 2131, 4.3.2: "SELECTING").
    pub(super) fn send_request(&mut self, exchange: Exchange, offer: Lease, now: Now, actions: &mut Vec<Action>) {
        let mut request = self.request(MessageType::Request);
        (request.requested, request.server) = (Some(offer.address), Some(offer.server));
        let exchange = self.ask(exchange, &request, now, actions);
        self.state = State::Requesting { exchange, offer };
    }

    /// Asks whether an address is still the host's, or gives the question up.
    fn reboot(&mut self, exchange: Exchange, address: Ipv4Addr, known: Known, now: Now, actions: &mut Vec<Action>) {
        if exchange.began.saturating_add(REBOOT_LIMIT) > now.boot {
            let mut request = self.request(MessageType::Request);
            request.requested = Some(address);
            let exchange = self.ask(exchange, &request, now, actions);
            self.state = State::Rebooting { exchange, address, known };
        } else if let Known::Held(lease) = known {
            let text =
                format!("no DHCP server confirms {address} since the carrier came back; it is kept for its lease");
            self.say(actions, true, text);
            self.state = State::Bound { lease };
        } else {
            self.say(actions, false, format!("no DHCP server knows of {address}; asking for any address"));
            self.discover(now, actions);
        }
    }

    /// Begins to ask whether anybody uses the address of a lease that was granted.
    pub(super) fn probe(&mut self, lease: Lease, now: Now, actions: &mut Vec<Action>) {
        self.state = State::Probing { lease, probes: 0, next: now.boot };
        actions.extend(self.tick(now));
    }

    fn renew(&mut self, exchange: Exchange, lease: Lease, now: Now, actions: &mut Vec<Action>) {
        let mut request = self.request(MessageType::Request);
        request.in_use = Some(lease.address);
        (request.xid, request.seconds) = (exchange.xid, seconds(&exchange, now));
        match request.encode() {
            Ok(message) => {
                actions.push(Action::Unicast { source: lease.address, server: lease.server, message });
            }
            Err(error) => self.say(actions, true, format!("a DHCP message cannot be written: {error:#}")),
        }
        let exchange = Exchange { tries: exchange.tries.saturating_add(1), ..exchange };
        let exchange = self.extending(exchange, lease.rebinding(), &lease, now);
        self.state = State::Renewing { exchange, lease };
    }

    fn rebind(&mut self, exchange: Exchange, lease: Lease, now: Now, actions: &mut Vec<Action>) {
        let mut request = self.request(MessageType::Request);
        request.in_use = Some(lease.address);
        let exchange = self.ask(exchange, &request, now, actions);
        let exchange = self.extending(exchange, lease.end(), &lease, now);
        self.state = State::Rebinding { exchange, lease };
    }

    /// An exchange of which a message was sent to extend `lease`, which must be answered before `end`.
    fn extending(&mut self, exchange: Exchange, end: Option<Duration>, lease: &Lease, now: Now) -> Exchange {
        self.listening = true;
        let pause = half_of_the_rest(now.boot, end.unwrap_or_default(), lease.lease_s);
        Exchange { sent: now.boot, next: now.boot.saturating_add(pause), ..exchange }
    }

    /// Refuses an address that another host uses (RFC 2131, 4.4.1).
    pub(super) fn decline(&mut self, lease: &Lease, now: Now, actions: &mut Vec<Action>) {
        let exchange = self.exchange(now);
        let mut request = self.request(MessageType::Decline);
        (request.requested, request.server) = (Some(lease.address), Some(lease.server));
        self.ask(exchange, &request, now, actions);
    }

    /// Gives up the address in use and begins anew.
    pub(super) fn lose(&mut self, why: String, now: Now, actions: &mut Vec<Action>) {
        actions.push(Action::Tell(Event::Lost { why }));
        self.said.clear();
        self.conflict = None;
        self.discover(now, actions);
    }

    /// Uses `lease` from now on; `renewed` if its address is in use already.
    pub(super) fn bind(&mut self, lease: Lease, renewed: bool, actions: &mut Vec<Action>) {
        self.refusals = 0;
        self.wish = None;
        self.listening = false;
        // What is still wrong was said already.
        self.said = self.conflict.as_ref().map(|conflict| conflict.text.clone()).unwrap_or_default();
        actions.push(Action::Tell(Event::Bound { lease: lease.clone(), renewed }));
        self.state = State::Bound { lease };
    }

    /// The beginning of the next question.
    fn request(&mut self, kind: MessageType) -> Request {
        self.complaints = 0;
        Request {
            kind,
            xid: 0,
            mac: self.mac,
            seconds: 0,
            in_use: None,
            requested: None,
            server: None,
            hostname: self.hostname.clone(),
        }
    }

    /// Broadcasts `request` as the next message of `exchange`.
    fn ask(&mut self, exchange: Exchange, request: &Request, now: Now, actions: &mut Vec<Action>) -> Exchange {
        let request = Request { xid: exchange.xid, seconds: seconds(&exchange, now), ..request.clone() };
        match request.encode() {
            Ok(message) => {
                let source = request.in_use.unwrap_or(Ipv4Addr::UNSPECIFIED);
                actions.push(Action::Broadcast(packet::build_udp(source, Ipv4Addr::BROADCAST, &message)));
            }
            Err(error) => self.say(actions, true, format!("a DHCP message cannot be written: {error:#}")),
        }
        let tries = exchange.tries.saturating_add(1);
        Exchange { sent: now.boot, next: now.boot.saturating_add(self.random.back_off(tries)), tries, ..exchange }
    }
}

/// For how long the question has been asked.
fn seconds(exchange: &Exchange, now: Now) -> u16 {
    u16::try_from(now.boot.saturating_sub(exchange.began).as_secs()).unwrap_or(u16::MAX)
}
