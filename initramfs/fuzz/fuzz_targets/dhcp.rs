//! What comes to a DHCP client, and its life with it. Input: a byte for how it begins, then steps (see [`Life::step`]). What
//! an answer needs to be listened to (MAC address, transaction, checksum) is put right first: nothing would get past it.
#![no_main]

use sino_fuzz::take;
use sino_init::dhcp::client::{Action, Client, Now, Settings};
use sino_init::dhcp::packet::{self, CLIENT_PORT, SERVER_PORT};
use sino_init::dhcp::{Event, Lease, lease, message};
use std::net::Ipv4Addr;
use std::time::Duration;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// What an answer's header holds that a client insists on: "reply", Ethernet, and the magic number (RFC 2131, 2 and 3).
const REPLY: [u8; 3] = [2, 1, 6];
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const HEADER: usize = 240;
/// Steps of one input, and its calls of `tick`: more take long and show nothing new.
const STEPS: usize = 64;
const TICKS: u64 = 512;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&begin, mut rest)) = data.split_first() else { return };
    let mut life = Life::begin(begin);
    for _ in 0..STEPS {
        if life.step(&mut rest).is_none() {
            break;
        }
        life.settle();
        let state = life.client.state();
        let uses = matches!(state, "bound" | "renewing" | "rebinding" | "verifying");
        assert_eq!(uses, life.held.is_some(), "{state}, but what it told amounts to {:?}", life.held);
    }
});

struct Life {
    client: Client,
    now: Now,
    /// The transaction of the last question.
    xid: [u8; 4],
    /// The address in use, by what the client told.
    held: Option<Ipv4Addr>,
    ticks: u64,
}

impl Life {
    /// Bit 0: there is a lease of an earlier boot. Bit 1: the lease is of this boot, and its address is in use. Bit 7: the earlier
    /// lease was not proved.
    fn begin(choice: u8) -> Self {
        let now = Now { boot: Duration::from_secs(1000), wall: 1_800_000_000 };
        let settings = Settings {
            mac: MAC,
            hostname: Some("host".into()),
            previous: (choice & 1 != 0).then(lease_of_mine),
            unproven: choice & 128 != 0,
        };
        let (client, held) = if choice & 2 == 0 {
            (Client::new(settings, 1, now), None)
        } else {
            (Client::resume(settings, lease_of_mine(), 1), Some(lease_of_mine().address))
        };
        let mut life = Self { client, now, xid: [0; 4], held, ticks: 0 };
        life.settle();
        life
    }

    /// One step: a byte that says which, and what belongs to it. `None` where the input ends.
    fn step(&mut self, rest: &mut &[u8]) -> Option<()> {
        let [choice] = take(rest)?;
        match choice % 8 {
            // An answer: the kind, the address, the length of its options, the options.
            0 => {
                let [kind, a, b, c, d] = take(rest)?;
                let mut answer = vec![0; HEADER];
                answer[16..20].copy_from_slice(&[a, b, c, d]);
                answer.extend([53, 1, kind]);
                answer.extend(piece(rest)?);
                self.answer(answer);
            }
            // A message with all of its header.
            1 => self.answer(piece(rest)?.to_vec()),
            // A packet as it is.
            2 => {
                let packet = piece(rest)?;
                self.judge(packet);
                let actions = self.client.packet(packet, self.now);
                self.look(actions);
            }
            3 => {
                let actions = self.client.arp(piece(rest)?, self.now);
                self.look(actions);
            }
            // Time passes, and what is due is done at its time.
            4 => {
                let end = self.now.boot.saturating_add(duration(take(rest)?));
                self.pass(end);
            }
            // The clock jumps, as after a suspend.
            5 => {
                let by = duration(take(rest)?);
                self.now.boot = self.now.boot.saturating_add(by);
                self.now.wall = self.now.wall.saturating_add(by.as_secs());
            }
            // The other clock is set.
            6 => self.now.wall = u64::from_le_bytes(take(rest)?),
            _ => {
                let actions = self.client.link(choice & 8 != 0, self.now);
                self.look(actions);
            }
        }
        Some(())
    }

    fn answer(&mut self, mut answer: Vec<u8>) {
        if let Some(header) = answer.get_mut(..HEADER) {
            header[..3].copy_from_slice(&REPLY);
            header[4..8].copy_from_slice(&self.xid);
            header[28..34].copy_from_slice(&MAC);
            header[236..].copy_from_slice(&MAGIC);
        }
        let mut packet = packet::build_udp(SERVER, Ipv4Addr::BROADCAST, &answer);
        packet[22..24].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        self.judge(&packet);
        let actions = self.client.packet(&packet, self.now);
        self.look(actions);
    }

    /// The parsers, whatever the client waits for.
    fn judge(&self, packet: &[u8]) {
        let Some(datagram) = packet::parse_udp(packet) else { return };
        assert!(datagram.payload.len() + 28 <= packet.len());
        let Some(reply) = message::parse(datagram.payload) else { return };
        match lease::from_message(&reply, self.now.boot, self.now.wall) {
            Ok(lease) => check(&lease),
            Err(why) => assert!(is_plain(&why), "for the console: {why:?}"),
        }
    }

    /// Calls the client until it has nothing more to do at this time.
    fn settle(&mut self) {
        for _ in 0..4 {
            if self.client.deadline().is_none_or(|deadline| deadline > self.now.boot) {
                return;
            }
            self.tick();
        }
        panic!("its deadline stays in the past: {:?}", self.client);
    }

    fn pass(&mut self, end: Duration) {
        let seconds = end.saturating_sub(self.now.boot).as_secs();
        let before = self.ticks;
        while let Some(deadline) = self.client.deadline().filter(|deadline| *deadline <= end) {
            if self.ticks > TICKS {
                break;
            }
            self.advance(deadline);
            self.tick();
            // An address is probed five times a second, but never for long.
            let ticks = self.ticks - before;
            assert!(ticks <= 2 * seconds + 50, "{ticks} deadlines in {seconds} s: {:?}", self.client);
        }
        self.advance(end);
    }

    fn advance(&mut self, to: Duration) {
        let by = to.saturating_sub(self.now.boot);
        self.now.boot += by;
        self.now.wall = self.now.wall.saturating_add(by.as_secs());
    }

    fn tick(&mut self) {
        self.ticks += 1;
        let actions = self.client.tick(self.now);
        self.look(actions);
    }

    /// Whether what the client does makes sense.
    fn look(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Broadcast(packet) => {
                    let datagram = packet::parse_udp(&packet).expect("a good packet");
                    assert_eq!((datagram.source_port, datagram.destination_port), (CLIENT_PORT, SERVER_PORT));
                    assert!(datagram.source.is_unspecified() || Some(datagram.source) == self.held, "{datagram:?}");
                    self.asked(datagram.payload);
                }
                Action::Unicast { source, message, .. } => {
                    assert_eq!(Some(source), self.held);
                    self.asked(&message);
                }
                Action::Arp(packet) => assert_eq!(packet::parse_arp(&packet).map(|arp| arp.sender_mac), Some(MAC)),
                Action::Tell(Event::Bound { lease, renewed }) => {
                    check(&lease);
                    assert_eq!(self.held, renewed.then_some(lease.address), "renewed: {renewed}");
                    assert!(lease.began <= self.now.boot.as_secs(), "{lease:?}");
                    self.held = Some(lease.address);
                }
                Action::Tell(Event::Lost { why }) => {
                    assert!(self.held.take().is_some() && is_plain(&why), "{why:?}");
                }
                Action::Tell(Event::Say { text, .. }) => assert!(is_plain(&text), "for the console: {text:?}"),
            }
        }
    }

    fn asked(&mut self, message: &[u8]) {
        assert!((300..=576).contains(&message.len()), "{} bytes", message.len());
        self.xid.copy_from_slice(&message[4..8]);
    }
}

/// The rest of the input, or as much as the two bytes before it say.
fn piece<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::from(u16::from_le_bytes(take(rest)?));
    let (piece, after) = rest.split_at(length.min(rest.len()));
    *rest = after;
    Some(piece)
}

/// Milliseconds, and how often they are doubled: up to 24 days.
fn duration([low, high, doubled]: [u8; 3]) -> Duration {
    Duration::from_millis(u64::from(u16::from_le_bytes([low, high])) << (doubled % 16))
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// Whether a host may do all that the lease says.
fn check(lease: &Lease) {
    let is_host = |address: Ipv4Addr| {
        let reserved = address.octets()[0] == 0 || address.octets()[0] >= 240;
        !reserved && !address.is_loopback() && !address.is_multicast()
    };
    assert!(is_host(lease.address) && is_host(lease.server) && (1..=32).contains(&lease.prefix), "{lease:?}");
    let mask = u32::MAX << (32 - u32::from(lease.prefix));
    let host = lease.address.to_bits() & !mask;
    assert!(lease.prefix > 30 || (host != 0 && host != !mask), "an end of the net: {lease:?}");
    assert!(lease.routers.iter().all(|router| is_host(*router) && *router != lease.address), "{lease:?}");
    assert!(lease.routers.is_empty() || lease.routes.is_empty(), "{lease:?}");
    for route in &lease.routes {
        assert!(route.prefix <= 32 && route.gateway.is_none_or(is_host), "{route:?}");
        let beyond = u32::MAX.checked_shr(route.prefix.into()).unwrap_or(0);
        assert!(route.destination.to_bits() & beyond == 0, "{route:?}");
    }
    assert!(lease.dns.iter().chain(&lease.ntp).all(|server| is_host(*server)), "{lease:?}");
    for name in lease.domain.iter().chain(&lease.hostname).chain(&lease.search) {
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{name:?}");
        assert!(!name.is_empty() && !name.starts_with(['-', '.']), "{name:?}");
    }
    let many = [lease.routers.len(), lease.dns.len(), lease.ntp.len(), lease.search.len(), lease.routes.len()];
    assert!(many.into_iter().all(|number| number <= 64) && lease.mtu.is_none_or(|mtu| mtu >= 576), "{lease:?}");
    assert!(0 < lease.renew_s && lease.renew_s < lease.rebind_s && lease.rebind_s < lease.lease_s, "{lease:?}");
    let kept = serde_json::to_string(lease).expect("a lease can be kept");
    assert_eq!(serde_json::from_str::<Lease>(&kept).expect("what is kept can be read"), *lease);
}

/// A lease of an hour that began ten minutes ago.
fn lease_of_mine() -> Lease {
    Lease {
        address: Ipv4Addr::new(192, 0, 2, 7),
        prefix: 24,
        routers: vec![SERVER],
        routes: Vec::new(),
        dns: vec![SERVER],
        domain: Some("example.org".into()),
        search: Vec::new(),
        hostname: None,
        ntp: Vec::new(),
        mtu: None,
        server: SERVER,
        obtained_at: 1_799_999_400,
        began: 400,
        lease_s: 3600,
        renew_s: 1800,
        rebind_s: 3150,
    }
}
