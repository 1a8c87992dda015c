//! What the client makes of an answer.

use super::super::lease;
use super::super::message::{self, Reply};
use super::super::names;
use super::super::packet::{self, CLIENT_PORT};
use super::{Action, Client, Conflict, Exchange, Known, Lease, Now, State};
use crate::netlink::mac_text;
use dhcproto::v4::{DhcpOption, MessageType, OptionCode};
use std::net::Ipv4Addr;
use std::time::Duration;

/// RFC 2131, 3.1, 5: a client waits at least this long after it refused an address.
const PAUSE_AFTER_CONFLICT: Duration = Duration::from_secs(10);
/// RFC 5227, 1.1 (`DEFEND_INTERVAL`): two hosts that both defend an address must not fill the link with that.
const DEFENCE_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause before a server that takes its offers back is asked again.
const LONGEST_PAUSE: u64 = 64;
/// Answers of no use that are told of for each question: whoever hears the question can send thousands.
const MOST_COMPLAINTS: u32 = 4;

impl Client {
    /// Takes an IPv4 packet from the interface. Whatever does not answer the client's last question is passed over.
    pub fn packet(&mut self, packet: &[u8], now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        let datagram = packet::parse_udp(packet).filter(|datagram| datagram.destination_port == CLIENT_PORT);
        let reply = datagram.and_then(|datagram| message::parse(datagram.payload));
        let asked = |reply: &Reply| self.asked().is_some_and(|asked| asked.tries > 0 && asked.xid == reply.xid);
        if let Some(reply) = reply.filter(|reply| reply.mac == self.mac && asked(reply)) {
            self.answer(&reply, now, &mut actions);
        }
        actions
    }

    /// Takes an ARP packet from the interface. RFC 5227, 2.1.1: the address is another's if somebody sends from it, or
    /// asks for it in the same way at the same time.
    pub fn arp(&mut self, packet: &[u8], now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        // A bridge may send the client's own packets back.
        let Some(arp) = packet::parse_arp(packet).filter(|arp| arp.sender_mac != self.mac) else { return actions };
        if let Some(address) = self.held().map(|lease| lease.address).filter(|address| *address == arp.sender) {
            self.defend(address, arp.sender_mac, now, &mut actions);
        }
        let State::Probing { lease, .. } = &self.state else { return actions };
        if arp.sender == lease.address || (arp.sender.is_unspecified() && arp.target == lease.address) {
            let lease = lease.clone();
            let text = format!(
                "{} is in use by {}; it is declined, and another is asked for in {} s",
                lease.address,
                mac_text(arp.sender_mac),
                PAUSE_AFTER_CONFLICT.as_secs()
            );
            self.say(&mut actions, true, text);
            self.decline(&lease, now, &mut actions);
            self.wish = None;
            self.state = State::Waiting { until: now.boot.saturating_add(PAUSE_AFTER_CONFLICT) };
        }
        actions
    }

    /// Another host sends from the address that is in use. It is kept: a host that serves others must not lose its
    /// address because of a mistake elsewhere (RFC 5227, 2.4 c).
    fn defend(&mut self, address: Ipv4Addr, other: [u8; 6], now: Now, actions: &mut Vec<Action>) {
        let answered = self.conflict.as_ref().map(|conflict| conflict.answered);
        let due = answered.is_none_or(|answered| answered.saturating_add(DEFENCE_PAUSE) <= now.boot);
        if due {
            actions.push(Action::Arp(packet::arp_announcement(self.mac, address)));
        }
        let text = format!(
            "{address} is also claimed by {}; it is kept, but connections may break: give that host another address",
            mac_text(other)
        );
        self.say(actions, true, text.clone());
        let answered = answered.filter(|_| !due).unwrap_or(now.boot);
        self.conflict = Some(Conflict { seen: now.boot, answered, text });
    }

    /// The question that is open.
    pub(super) fn asked(&self) -> Option<&Exchange> {
        match &self.state {
            State::Selecting(exchange)
            | State::Requesting { exchange, .. }
            | State::Rebooting { exchange, .. }
            | State::Renewing { exchange, .. }
            | State::Rebinding { exchange, .. } => Some(exchange),
            State::Waiting { .. } | State::Probing { .. } | State::Bound { .. } => None,
        }
    }

    fn answer(&mut self, reply: &Reply, now: Now, actions: &mut Vec<Action>) {
        let state = self.state.clone();
        match (state, reply.kind) {
            (State::Selecting(exchange), MessageType::Offer) => {
                if let Some(offer) = self.judge(reply, &exchange, None, now, actions) {
                    // The tries of the REQUEST are counted, and waited for, by themselves.
                    self.send_request(Exchange { tries: 0, ..exchange }, offer, now, actions);
                }
            }
            (State::Requesting { exchange, offer }, MessageType::Ack) => {
                if let Some(lease) = self.judge(reply, &exchange, Some(offer.address), now, actions) {
                    self.probe(lease, now, actions);
                }
            }
            (State::Requesting { offer, .. }, MessageType::Nak) if server(reply) == Some(offer.server) => {
                // A server that offers and refuses in turn must not be asked without a pause.
                let pause = Duration::from_secs((1 << self.refusals.min(6)).min(LONGEST_PAUSE));
                self.refusals = self.refusals.saturating_add(1);
                self.wish = None;
                self.say(
                    actions,
                    true,
                    format!("{} takes its offer of {} back{}", offer.server, offer.address, words(reply)),
                );
                self.state = State::Waiting { until: now.boot.saturating_add(pause) };
            }
            (State::Rebooting { exchange, address, known }, MessageType::Ack) => {
                if let Some(lease) = self.judge(reply, &exchange, Some(address), now, actions) {
                    match known {
                        Known::Kept => self.bind(lease, false, actions),
                        Known::Unproven(_) => self.probe(lease, now, actions),
                        Known::Held(_) => self.bind(lease, true, actions),
                    }
                }
            }
            (State::Rebooting { address, known: Known::Kept | Known::Unproven(_), .. }, MessageType::Nak) => {
                self.say(actions, false, format!("{address} is not to be had here any more{}", words(reply)));
                self.wish = None;
                self.discover(now, actions);
            }
            (State::Renewing { exchange, lease } | State::Rebinding { exchange, lease }, MessageType::Ack) => {
                if let Some(lease) = self.judge(reply, &exchange, Some(lease.address), now, actions) {
                    self.bind(lease, true, actions);
                }
            }
            // Only its own server was asked, and no other has a say.
            (State::Renewing { lease, .. }, MessageType::Nak) if server(reply) != Some(lease.server) => {}
            (
                State::Rebooting { known: Known::Held(lease), .. }
                | State::Renewing { lease, .. }
                | State::Rebinding { lease, .. },
                MessageType::Nak,
            ) => {
                self.wish = None;
                let why = format!("a DHCP server took {} back{}", lease.address, words(reply));
                self.lose(why, now, actions);
            }
            // An answer to a question of another kind.
            _ => {}
        }
    }

    /// The lease in an OFFER or ACK, if it can be used and is for the address that was asked for.
    fn judge(
        &mut self,
        reply: &Reply,
        exchange: &Exchange,
        address: Option<Ipv4Addr>,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Option<Lease> {
        let wall = now.wall.saturating_sub(now.boot.saturating_sub(exchange.sent).as_secs());
        let lease = lease::from_message(reply, exchange.sent, wall).and_then(|lease| match address {
            Some(address) if lease.address != address => Err(format!("it is for {}, not {address}", lease.address)),
            _ => Ok(lease),
        });
        lease
            .map_err(|why| {
                if self.complaints == MOST_COMPLAINTS {
                    return;
                }
                self.complaints = self.complaints.saturating_add(1);
                let from = server(reply).map_or_else(|| "a DHCP server".to_owned(), |server| server.to_string());
                self.say(actions, true, format!("an answer of {from} is of no use: {why}"));
            })
            .ok()
    }
}

/// The server that an answer says it is from.
fn server(reply: &Reply) -> Option<Ipv4Addr> {
    match reply.options.get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
        _ => None,
    }
}

/// What the server says for people, after a colon.
fn words(reply: &Reply) -> String {
    match reply.options.get(OptionCode::Message) {
        Some(DhcpOption::Message(text)) if !text.is_empty() => format!(": {}", names::for_people(text)),
        _ => String::new(),
    }
}
