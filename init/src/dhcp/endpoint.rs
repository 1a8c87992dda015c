//! A client on one interface: the pure client and the sockets that it needs at the moment.
//!
//! Answers come by a packet socket, because the host has no address yet when it asks. It is open only while one is
//! waited for: in the days between two renewals no packet of a busy host wakes this process. The ARP socket hears
//! everything only while an address is probed; later the kernel lets nothing pass but another host's claim of it. A renewal goes out by an ordinary UDP socket, so that the kernel finds the way to the
//! server; while that is open it also keeps the kernel from telling the server that nobody listens on port 68.

use super::arp_filter;
use super::client::{Action, ArpWatch, Client, Now};
use super::link_address::LinkAddress;
use super::packet::{CLIENT_PORT, SERVER_PORT, arp_announcement};
use super::{Event, Lease, Settings};
use anyhow::{Context, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, eth, recv, sendto, socket_with,
    sockopt,
};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest packet that is read: an Ethernet frame's, with room for one that should not be.
const LONGEST_PACKET: usize = 2048;
/// Packets read in one turn; what is left makes the next poll return at once, so that a flood cannot hold the caller.
const MOST_PACKETS: usize = 256;

/// A client on one interface.
#[derive(Debug)]
pub struct Endpoint {
    interface: String,
    index: u32,
    client: Client,
    dhcp: Option<OwnedFd>,
    arp: Option<(ArpWatch, OwnedFd)>,
    renewal: Option<OwnedFd>,
    /// What happened before there was a turn to tell it in.
    untold: Vec<Event>,
    /// The last error of a socket, so that one that lasts is told once.
    trouble: String,
}

impl Endpoint {
    /// Begins at once to ask for a lease on `interface`, whose number is `index`: for the last one again, or for any.
    /// The interface should be up; `now` is `CLOCK_BOOTTIME`.
    ///
    /// # Errors
    /// The kernel refuses a packet socket: the process is not root's, or there is no such interface.
    pub fn open(interface: &str, index: u32, settings: Settings, now: Duration) -> Result<Self> {
        let client = Client::new(settings, seed(), moment(now));
        let mut endpoint = Self::with(interface, index, client);
        endpoint.dhcp = Some(packet_socket(index, eth::IP).with_context(|| endpoint.purpose())?);
        let actions = endpoint.client.tick(moment(now));
        endpoint.untold = endpoint.perform(actions);
        Ok(endpoint)
    }

    /// Goes on with a lease of this boot whose address is in use: the process was killed and is back. Nothing is sent
    /// before T1.
    ///
    /// # Errors
    /// As [`Endpoint::open`].
    pub fn resume(interface: &str, index: u32, settings: Settings, lease: Lease, now: Duration) -> Result<Self> {
        let mut endpoint = Self::with(interface, index, Client::resume(settings, lease, seed()));
        // Only to know now, and not at T1, that it can be had.
        packet_socket(index, eth::IP).with_context(|| endpoint.purpose())?;
        let actions = endpoint.client.tick(moment(now));
        endpoint.untold = endpoint.perform(actions);
        Ok(endpoint)
    }

    fn with(interface: &str, index: u32, client: Client) -> Self {
        Self {
            interface: interface.to_owned(),
            index,
            client,
            dhcp: None,
            arp: None,
            renewal: None,
            untold: Vec::new(),
            trouble: String::new(),
        }
    }

    fn purpose(&self) -> String {
        format!("opening a packet socket on {} to ask for a lease", self.interface)
    }

    /// What must be polled for input now. It changes with every call of another function.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.dhcp.iter().chain(self.arp.as_ref().map(|(_, socket)| socket)).map(AsFd::as_fd).collect()
    }

    /// When [`Endpoint::turn`] must be called at the latest, in `CLOCK_BOOTTIME`; `None`: not before there is input.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        if self.untold.is_empty() { self.client.deadline() } else { Some(Duration::ZERO) }
    }

    /// Reads what came and does what is due. Never blocks.
    pub fn turn(&mut self, now: Duration) -> Vec<Event> {
        let now = moment(now);
        let mut events = std::mem::take(&mut self.untold);
        for packet in self.read(|endpoint| endpoint.dhcp.as_ref()) {
            let actions = self.client.packet(&packet, now);
            events.extend(self.perform(actions));
        }
        for packet in self.read(|endpoint| endpoint.arp.as_ref().map(|(_, socket)| socket)) {
            let actions = self.client.arp(&packet, now);
            events.extend(self.perform(actions));
        }
        let actions = self.client.tick(now);
        events.extend(self.perform(actions));
        events
    }

    /// Is told whether the interface has a carrier. When it comes back, the lease is verified; the address stays
    /// meanwhile.
    pub fn link(&mut self, up: bool, now: Duration) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.untold);
        let actions = self.client.link(up, moment(now));
        events.extend(self.perform(actions));
        events
    }

    /// One word for people: "selecting", "bound", ...
    #[must_use]
    pub fn state(&self) -> &'static str {
        self.client.state()
    }

    /// See [`Client::conflict`].
    #[must_use]
    pub fn conflict(&self) -> Option<&str> {
        self.client.conflict()
    }

    /// The lease that is granted and still probed; see [`Client::unproven`].
    #[must_use]
    pub fn unproven(&self) -> Option<&Lease> {
        self.client.unproven()
    }

    /// The packets that wait in a socket.
    fn read(&self, socket: impl Fn(&Self) -> Option<&OwnedFd>) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let Some(socket) = socket(self) else { return packets };
        let mut buffer = vec![0; LONGEST_PACKET];
        for _ in 0..MOST_PACKETS {
            match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) => packets.extend(buffer.get(..length).map(<[u8]>::to_vec)),
                Err(Errno::AGAIN) => break,
                // The interface went down (ENETDOWN), which the caller hears of by other ways; the error is told once
                // by the kernel and cleared by this.
                Err(_) => {}
            }
        }
        packets
    }

    /// Does what the client wants, and opens and closes the sockets that it needs for that and from now on.
    fn perform(&mut self, actions: Vec<Action>) -> Vec<Event> {
        let mut events = Vec::new();
        // An answer may come at once: the sockets are there before the question is sent.
        self.open_wanted(&mut events);
        for action in actions {
            let done = match action {
                Action::Tell(event) => {
                    if matches!(event, Event::Bound { .. }) {
                        self.trouble.clear();
                    }
                    events.push(event);
                    Ok(())
                }
                Action::Broadcast(packet) => send_raw(self.dhcp.as_ref(), self.index, eth::IP, &packet)
                    .with_context(|| format!("sending a DHCP message on {}", self.interface)),
                Action::Arp(packet) => send_raw(self.arp.as_ref().map(|arp| &arp.1), self.index, eth::ARP, &packet)
                    .with_context(|| format!("sending an ARP packet on {}", self.interface)),
                Action::Unicast { source, server, message } => self
                    .send_unicast(source, server, &message)
                    .with_context(|| format!("asking {server} from {source} to renew the lease of {}", self.interface)),
            };
            self.note(done, &mut events);
        }
        if !self.client.wants_dhcp() {
            self.dhcp = None;
            self.renewal = None;
        }
        events
    }

    fn open_wanted(&mut self, events: &mut Vec<Event>) {
        if self.client.wants_dhcp() && self.dhcp.is_none() {
            let opened = packet_socket(self.index, eth::IP).with_context(|| self.purpose());
            let opened = opened.map(|socket| self.dhcp = Some(socket));
            self.note(opened, events);
        }
        let watch = self.client.arp_watch();
        if watch != self.arp.as_ref().map(|(watch, _)| *watch) {
            self.arp = None;
            if let Some(watch) = watch {
                let opened = arp_socket(self.index, watch, self.client.mac())
                    .with_context(|| format!("opening a packet socket on {} to watch over an address", self.interface));
                let opened = opened.map(|socket| self.arp = Some((watch, socket)));
                self.note(opened, events);
            }
        }
    }

    fn send_unicast(&mut self, source: Ipv4Addr, server: Ipv4Addr, message: &[u8]) -> Result<()> {
        // A new one each time: the address may have gone and come back.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None).context("opening a UDP socket")?;
        sockopt::set_socket_reuseaddr(&socket, true).context("sharing the DHCP client's port")?;
        bind(&socket, &SocketAddrV4::new(source, CLIENT_PORT)).context("binding to the DHCP client's port")?;
        sendto(&socket, message, SendFlags::DONTWAIT, &SocketAddrV4::new(server, SERVER_PORT)).context("sending")?;
        self.renewal = Some(socket);
        Ok(())
    }

    /// Tells of an error, once as long as it lasts. The client asks again in its own time.
    fn note(&mut self, done: Result<()>, events: &mut Vec<Event>) {
        match done {
            Ok(()) => {}
            Err(error) => {
                let text = format!("{error:#}; it is tried again");
                if text != self.trouble {
                    self.trouble.clone_from(&text);
                    events.push(Event::Say { warning: true, text });
                }
            }
        }
    }
}

/// Tells every host on a link that this address is here (RFC 5227, 2.3).
///
/// # Errors
/// The kernel refuses a packet socket, or to send.
pub fn announce(index: u32, mac: [u8; 6], address: Ipv4Addr) -> Result<()> {
    send_raw(None, index, eth::ARP, &arp_announcement(mac, address))
}

/// A socket for packets of one protocol on one interface, without their Ethernet headers (packet(7)).
fn packet_socket(index: u32, protocol: Protocol) -> Result<OwnedFd> {
    let socket = unbound_socket()?;
    bind(&socket, &LinkAddress::broadcast(index, protocol)).context("binding it to the interface")?;
    Ok(socket)
}

/// A socket that hears what is to be watched and sends ARP packets.
fn arp_socket(index: u32, watch: ArpWatch, mac: [u8; 6]) -> Result<OwnedFd> {
    let socket = unbound_socket()?;
    if let ArpWatch::Claims(address) = watch {
        arp_filter::attach(socket.as_fd(), address, mac)?;
    }
    bind(&socket, &LinkAddress::broadcast(index, eth::ARP)).context("binding it to the interface")?;
    Ok(socket)
}

/// A packet socket without a protocol: with one it would receive the packets of every interface until it is bound.
fn unbound_socket() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None).context("socket (root is needed)")
}

/// Sends a packet to every host on the link, by `socket` or one that is opened for it.
fn send_raw(socket: Option<&OwnedFd>, index: u32, protocol: Protocol, packet: &[u8]) -> Result<()> {
    let to = LinkAddress::broadcast(index, protocol);
    let opened;
    let socket = if let Some(socket) = socket {
        socket
    } else {
        opened = packet_socket(index, protocol)?;
        &opened
    };
    sendto(socket, packet, SendFlags::DONTWAIT, &to).context("sendto")?;
    Ok(())
}

fn moment(boot: Duration) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    Now { boot, wall }
}

/// A different number for each client: std's hash keys come from the kernel's random numbers.
fn seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
