//! The kernel's rtnetlink, synchronously: links, addresses and routes are listed and changed, and changes are heard of.
//!
//! Requests are built with the types of `netlink-packet-route`. Answers are read attribute by attribute and only as far as
//! they are needed here, so that a newer kernel with an unknown attribute hides no link. Each refusal carries the kernel's
//! own explanation. Source: kernel `Documentation/userspace-api/netlink/intro.rst`, `include/uapi/linux/rtnetlink.h`.

mod events;
mod read;
mod request;

pub use events::Events;
pub use read::Announcement;
pub use request::{BondKind, Lifetime, NewLink};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage as Message;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// The routing protocol number that SINO's routes bear, and the address protocol of its addresses: only what bears it is
/// ever removed. None of `rtnetlink.h` and of iproute2's `rt_protos` has it.
pub const OWN_PROTOCOL: u8 = 83;
/// How long the kernel may take for an answer. It answers at once; a driver that sets a card up may take seconds.
const ANSWER: Duration = Duration::from_secs(30);
/// Room for one message of a dump; the kernel fills up to 32 KiB.
const BUFFER: usize = 64 << 10;
/// How often a list that changes while it is told is asked for.
const DUMPS: usize = 5;
/// `NETLINK_EXT_ACK` of `include/uapi/linux/netlink.h`: refusals come with a text.
const EXT_ACK: i32 = 11;
/// `NLMSGERR_ATTR_MSG`: that text.
const EXT_ACK_TEXT: u16 = 1;

/// A list changed each time that it was asked for, so that it may have lacked something that is there. It is quiet again once
/// whoever changes it, like many guests that start at once, is done.
#[derive(Clone, Copy, Debug)]
pub struct Restless;

impl fmt::Display for Restless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it changed each of the {DUMPS} times that it was asked for")
    }
}

impl std::error::Error for Restless {}

/// A MAC address.
pub type Mac = [u8; 6];

/// A MAC address as people write it.
#[must_use]
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A network link.
#[allow(clippy::struct_excessive_bools)] // Facts that do not depend on one another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number; it is never given to another link while the kernel runs.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `bond`, `vlan`, `veth`, `tun`, ...; a network card has none.
    pub kind: Option<String>,
    /// Whether frames on it are Ethernet's; not so for loopback and tunnels.
    pub ethernet: bool,
    /// MAC address in use.
    pub mac: Option<Mac>,
    /// MAC address in the card's memory.
    pub permanent_mac: Option<Mac>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it is set up by the administrator (`IFF_UP`).
    pub up: bool,
    /// Whether a cable with a partner is plugged in; of a bridge, whether a port is.
    pub carrier: bool,
    /// Whether the kernel has made it ready to send (`IF_OPER_UP` of RFC 2863); until then packets are dropped silently,
    /// also for a moment after the carrier has come. Some kinds of links never say so.
    pub ready: bool,
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// The link below it (of a VLAN link), or its peer (of a veth).
    pub below: Option<u32>,
    /// VLAN number of a VLAN link.
    pub vlan: Option<u16>,
    /// Mode of a bond, as the kernel numbers it.
    pub bond_mode: Option<u8>,
}

/// An address of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link that it is on.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
    /// Seconds for which it remains; `None`: for ever.
    pub valid_s: Option<u32>,
    /// Who made it (`IFA_PROTO`), 0 if that is not known.
    pub protocol: u8,
    /// Whether it serves this link only (`fe80::`).
    pub link_local: bool,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The link that it leads out of.
    pub index: u32,
    /// First address of the destination.
    pub destination: IpAddr,
    /// Prefix length of the destination; 0 is the default route.
    pub prefix: u8,
    /// The router; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The lower, the earlier it is taken.
    pub metric: u32,
    /// Who made it.
    pub protocol: u8,
}

/// The kernel refused a request.
#[derive(Debug)]
pub struct Refused {
    /// The error's number, as in errno(3).
    pub errno: i32,
    /// The kernel's own explanation, often empty.
    pub said: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = std::io::Error::from_raw_os_error(self.errno);
        if self.said.is_empty() { write!(f, "{errno}") } else { write!(f, "{errno}, because: {}", self.said) }
    }
}

impl std::error::Error for Refused {}

/// The socket for requests.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens the socket.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn open() -> Result<Self> {
        // Protocol 0 of netlink is NETLINK_ROUTE.
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .context("opening the socket for network requests")?;
        bind(&fd, &SocketAddrNetlink::new(0, 0)).context("binding the socket for network requests")?;
        set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER)).context("limiting the wait for network answers")?;
        want_explanations(&fd);
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// All links.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        self.dump(&request::list_links(), read::link).context("listing the network links")
    }

    /// All addresses of both families.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        self.dump(&request::list_addresses(), read::address).context("listing the addresses")
    }

    /// The unicast routes of the main table, of both families.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = self.dump(&request::list_routes(false), read::route).context("listing the IPv4 routes")?;
        routes.extend(self.dump(&request::list_routes(true), read::route).context("listing the IPv6 routes")?);
        Ok(routes)
    }

    /// Makes a bridge, a bond or a VLAN link; without `mac` the kernel chooses its MAC address.
    ///
    /// # Errors
    /// The kernel refuses: the name is taken, the driver is missing.
    pub fn create(&mut self, name: &str, link: &NewLink, mac: Option<Mac>) -> Result<()> {
        self.change(request::create(name, link, mac), NLM_F_CREATE | NLM_F_EXCL)
            .with_context(|| format!("{name}: making the {}", link.word()))
    }

    /// Deletes a link.
    ///
    /// # Errors
    /// The kernel refuses, for example for a network card.
    pub fn delete(&mut self, link: &Link) -> Result<()> {
        self.change(request::delete(link.index), 0).with_context(|| format!("{}: deleting it", link.name))
    }

    /// Sets a link up or down.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn set_up(&mut self, link: &Link, up: bool) -> Result<()> {
        let word = if up { "up" } else { "down" };
        self.change(request::set_up(link.index, up), 0).with_context(|| format!("{}: setting it {word}", link.name))
    }

    /// Makes a link a port of the bridge or bond with the number `master`, or of none.
    ///
    /// # Errors
    /// The link cannot be a port.
    pub fn set_master(&mut self, link: &Link, master: Option<u32>) -> Result<()> {
        let word = if master.is_some() { "making it a port" } else { "taking it out of the bridge" };
        self.change(request::set_master(link.index, master.unwrap_or(0)), 0)
            .with_context(|| format!("{}: {word}", link.name))
    }

    /// Sets the largest packet, in bytes.
    ///
    /// # Errors
    /// The driver cannot do that.
    pub fn set_mtu(&mut self, link: &Link, mtu: u32) -> Result<()> {
        self.change(request::set_mtu(link.index, mtu), 0).with_context(|| format!("{}: setting MTU {mtu}", link.name))
    }

    /// Sets the MAC address.
    ///
    /// # Errors
    /// The driver cannot do that.
    pub fn set_mac(&mut self, link: &Link, mac: Mac) -> Result<()> {
        self.change(request::set_mac(link.index, mac), 0)
            .with_context(|| format!("{}: setting MAC address {}", link.name, mac_text(mac)))
    }

    /// Adds an address, or changes how long it remains.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn put_address(&mut self, link: &Link, address: IpAddr, prefix: u8, lifetime: Lifetime) -> Result<()> {
        self.change(request::new_address(link.index, address, prefix, lifetime), NLM_F_CREATE | NLM_F_REPLACE)
            .with_context(|| format!("{}: setting address {address}/{prefix}", link.name))
    }

    /// Removes an address.
    ///
    /// # Errors
    /// It is not there.
    pub fn delete_address(&mut self, link: &Link, address: &Address) -> Result<()> {
        self.change(request::delete_address(address), 0)
            .with_context(|| format!("{}: removing address {}/{}", link.name, address.address, address.prefix))
    }

    /// Adds a route to the main table; `onlink`: the router is taken to be on the link although no address says so.
    ///
    /// # Errors
    /// The router cannot be reached, or there is such a route.
    pub fn add_route(&mut self, link: &Link, route: &Route, onlink: bool) -> Result<()> {
        self.change(request::new_route(route, onlink), NLM_F_CREATE | NLM_F_EXCL)
            .with_context(|| format!("{}: adding route {}", link.name, route_text(route)))
    }

    /// Removes a route.
    ///
    /// # Errors
    /// It is not there.
    pub fn delete_route(&mut self, link: &Link, route: &Route) -> Result<()> {
        self.change(request::delete_route(route), 0)
            .with_context(|| format!("{}: removing route {}", link.name, route_text(route)))
    }

    /// Sends a request that changes something and waits for the kernel's word.
    fn change(&mut self, message: Message, flags: u16) -> Result<()> {
        let sequence = self.send(message, NLM_F_ACK | flags)?;
        loop {
            for answer in self.receive(sequence)? {
                if let Answer::End(result) = answer {
                    return Ok(result?);
                }
            }
        }
    }

    /// Asks for a list, again if it changed while the kernel told it: it may lack something that is there.
    fn dump<T>(&mut self, message: &Message, read: fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
        for _ in 0..DUMPS {
            let sequence = self.send(message.clone(), NLM_F_DUMP)?;
            let (mut list, mut changed, mut end) = (Vec::new(), false, false);
            while !end {
                for answer in self.receive(sequence)? {
                    match answer {
                        Answer::Item(payload) => list.extend(read(&payload)),
                        Answer::Changed => changed = true,
                        Answer::End(result) => {
                            result?;
                            end = true;
                        }
                    }
                }
            }
            if !changed {
                return Ok(list);
            }
        }
        Err(Restless.into())
    }

    fn send(&mut self, message: Message, flags: u16) -> Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.sequence_number = self.sequence;
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        loop {
            match send(&self.fd, &bytes, SendFlags::empty()) {
                Ok(_) => return Ok(self.sequence),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("sending the request to the kernel"),
            }
        }
    }

    /// The next datagram's answers to the request with this number; answers to older ones are passed over.
    fn receive(&mut self, sequence: u32) -> Result<Vec<Answer>> {
        let length = loop {
            match recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, length)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => bail!("the kernel gave no answer within {} s", ANSWER.as_secs()),
                Err(error) => return Err(error).context("receiving the kernel's answer"),
            }
        };
        let datagram = self.buffer.get(..length).context("the kernel's answer is too long")?;
        Ok(answers(datagram, sequence))
    }
}

/// One message of an answer.
enum Answer {
    /// A link, an address, a route: its bytes after netlink's header.
    Item(Vec<u8>),
    /// The list changed while it was told (`NLM_F_DUMP_INTR`).
    Changed,
    /// The end, or a refusal.
    End(Result<(), Refused>),
}

/// `NLMSG_ERROR` and `NLMSG_DONE` of `include/uapi/linux/netlink.h`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

fn answers(datagram: &[u8], sequence: u32) -> Vec<Answer> {
    let mut answers = Vec::new();
    for (header, payload) in read::Messages::new(datagram) {
        if header.sequence != sequence {
            continue;
        }
        if header.flags & NLM_F_DUMP_INTR != 0 {
            answers.push(Answer::Changed);
        }
        match header.kind {
            ERROR | DONE => answers.push(Answer::End(outcome(header.kind, payload))),
            _ => answers.push(Answer::Item(payload.to_vec())),
        }
    }
    answers
}

/// What an `NLMSG_ERROR` or `NLMSG_DONE` says: a negative error number (0: none), and the explanation behind the echo of
/// the request.
fn outcome(kind: u16, payload: &[u8]) -> Result<(), Refused> {
    let code = read::i32_at(payload, 0).unwrap_or(0);
    if code == 0 {
        return Ok(());
    }
    let mut behind = 4;
    if kind == ERROR {
        let echoed = read::u32_at(payload, 4).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        behind += echoed.next_multiple_of(4);
    }
    let text = read::attributes(payload.get(behind..).unwrap_or_default())
        .find_map(|(kind, value)| (kind == EXT_ACK_TEXT).then(|| read::text(value)));
    Err(Refused { errno: code.saturating_neg(), said: text.unwrap_or_default() })
}

fn route_text(route: &Route) -> String {
    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    format!("{}/{}{via}", route.destination, route.prefix)
}

/// Asks for the texts of refusals. Without them only the error numbers are told.
fn want_explanations(fd: &OwnedFd) {
    let on: libc::c_int = 1;
    let Ok(length) = libc::socklen_t::try_from(size_of_val(&on)) else { return };
    // SAFETY: the descriptor is open for the whole call, and the kernel reads `length` bytes of `on`, which outlives it.
    #[allow(unsafe_code)]
    unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, EXT_ACK, (&raw const on).cast(), length);
    }
}

#[cfg(test)]
mod tests;
