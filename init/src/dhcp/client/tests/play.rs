//! The client, a clock that is a number, and a server that answers when the test says so.

use super::super::super::packet::{Arp, arp_probe, build_udp, parse_arp, parse_udp};
use super::super::*;
use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};

pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
pub(super) const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
pub(super) const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(super) const WALL: u64 = 1_800_000_000;

/// The client, its clock in milliseconds, and what it did that was not looked at yet.
pub(super) struct Play {
    pub(super) client: Client,
    pub(super) ms: u64,
    pub(super) sent: Vec<(Message, Option<Ipv4Addr>)>,
    pub(super) arp: Vec<Arp>,
    pub(super) events: Vec<Event>,
}

impl Play {
    pub(super) fn new(previous: Option<Lease>) -> Self {
        let settings = Settings { mac: MAC, hostname: Some("host".into()), previous, unproven: false };
        Self::with(Client::new(settings, 1, at(1_000_000)))
    }

    pub(super) fn with(client: Client) -> Self {
        let mut play = Self { client, ms: 1_000_000, sent: vec![], arp: vec![], events: vec![] };
        play.after(0);
        play
    }

    /// Time passes, and what is due is done, each at its time.
    pub(super) fn after(&mut self, ms: u64) {
        let end = self.ms + ms;
        for _ in 0..10_000 {
            let due = self.client.deadline().map(|due| u64::try_from(due.as_nanos().div_ceil(1_000_000)).unwrap());
            match due.map(|due| due.max(self.ms)) {
                Some(due) if due <= end => {
                    self.ms = due;
                    let actions = self.client.tick(at(due));
                    self.take(actions);
                }
                _ => {
                    self.ms = end;
                    return;
                }
            }
        }
        panic!("the client is in a loop: {:?}", self.client);
    }

    /// The clock jumps.
    pub(super) fn jump(&mut self, ms: u64) {
        self.ms += ms;
        let actions = self.client.tick(at(self.ms));
        self.take(actions);
    }

    pub(super) fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Broadcast(packet) => {
                    let datagram = parse_udp(&packet).expect("a good packet");
                    assert_eq!(datagram.destination, Ipv4Addr::BROADCAST);
                    let message = Message::from_bytes(datagram.payload).unwrap();
                    assert_eq!(datagram.source, message.ciaddr());
                    self.sent.push((message, None));
                }
                Action::Unicast { source, server, message } => {
                    let message = Message::from_bytes(&message).unwrap();
                    assert_eq!(source, message.ciaddr());
                    self.sent.push((message, Some(server)));
                }
                Action::Arp(packet) => self.arp.push(parse_arp(&packet).unwrap()),
                Action::Tell(event) => self.events.push(event),
            }
        }
    }

    /// The messages since the last look, as kind, wish and address in use.
    pub(super) fn seen(&mut self) -> Vec<(MessageType, Option<Ipv4Addr>, Ipv4Addr)> {
        self.sent.drain(..).map(|(message, _)| (kind(&message), wish(&message), message.ciaddr())).collect()
    }

    /// An answer to the last question.
    pub(super) fn answer(&mut self, kind: MessageType, address: Ipv4Addr) {
        self.answer_with(kind, address, SERVER, 3600, |_| {});
    }

    pub(super) fn answer_with(
        &mut self,
        kind: MessageType,
        address: Ipv4Addr,
        server: Ipv4Addr,
        lease: u32,
        change: impl FnOnce(&mut Message),
    ) {
        let xid = self.client.clone().asked_for_tests();
        let packet = reply(kind, xid, address, server, lease, change);
        let actions = self.client.packet(&packet, at(self.ms));
        self.take(actions);
    }

    pub(super) fn lease(&mut self) -> (Lease, bool) {
        match self.events.pop() {
            Some(Event::Bound { lease, renewed }) => (lease, renewed),
            other => panic!("not bound but {other:?}; {:?}", self.client),
        }
    }

    /// DISCOVER to BOUND.
    pub(super) fn bound(lease: u32) -> Self {
        let mut play = Self::new(None);
        play.answer_with(MessageType::Offer, ADDRESS, SERVER, lease, |_| {});
        play.answer_with(MessageType::Ack, ADDRESS, SERVER, lease, |_| {});
        play.after(600);
        assert_eq!(play.lease().0.address, ADDRESS);
        (play.sent, play.arp) = (vec![], vec![]);
        play
    }

    pub(super) fn lost(&mut self) -> String {
        let at = self.events.iter().position(|event| matches!(event, Event::Lost { .. })).expect("not lost");
        match self.events.remove(at) {
            Event::Lost { why } => why,
            _ => unreachable!(),
        }
    }

    pub(super) fn warned(&self, part: &str) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Say { warning: true, text } if text.contains(part)))
    }
}

impl Client {
    pub(super) fn asked_for_tests(&self) -> u32 {
        self.asked().map(|asked| asked.xid).unwrap_or_default()
    }
}

pub(super) fn at(ms: u64) -> Now {
    Now { boot: Duration::from_millis(ms), wall: WALL + ms / 1000 }
}

pub(super) fn kind(message: &Message) -> MessageType {
    message.opts().msg_type().unwrap()
}

pub(super) fn wish(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
        _ => None,
    }
}

pub(super) fn reply(
    kind: MessageType,
    xid: u32,
    address: Ipv4Addr,
    server: Ipv4Addr,
    lease: u32,
    change: impl FnOnce(&mut Message),
) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(xid, none, address, none, none, &MAC);
    message.set_opcode(Opcode::BootReply);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(server));
    if kind != MessageType::Nak {
        options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
        options.insert(DhcpOption::AddressLeaseTime(lease));
    }
    change(&mut message);
    udp(&message.to_vec().unwrap(), 68)
}

pub(super) fn udp(payload: &[u8], port: u16) -> Vec<u8> {
    let mut packet = packet_of(payload);
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet
}

pub(super) fn packet_of(payload: &[u8]) -> Vec<u8> {
    build_udp(SERVER, Ipv4Addr::BROADCAST, payload)
}

pub(super) fn previous() -> Lease {
    let mut play = Play::bound(3600);
    let Some(lease) = play.client.held().cloned() else { panic!() };
    play.after(1);
    lease
}

pub(super) fn arp(arp: Arp) -> Vec<u8> {
    let mut packet = arp_probe(arp.sender_mac, arp.target);
    packet[6..8].copy_from_slice(&arp.operation.to_be_bytes());
    packet[14..18].copy_from_slice(&arp.sender.octets());
    packet
}
