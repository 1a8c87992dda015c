//! Reads the kernel's messages: only the attributes that are used here, everything else is passed over.

use super::{Address, Link, Mac, Route};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of netlink's header.
const HEADER: usize = 16;

/// What is used of a message's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
}

/// The messages of a datagram.
#[derive(Debug)]
pub(super) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = (Header, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::try_from(u32_at(self.rest, 0)?).ok()?;
        let payload = self.rest.get(HEADER..length)?;
        let header =
            Header { kind: u16_at(self.rest, 4)?, flags: u16_at(self.rest, 6)?, sequence: u32_at(self.rest, 8)? };
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, payload))
    }
}

/// The attributes in `bytes`: kind without its flags, value. Ends at the first that is not whole.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A link of an `RTM_NEWLINK`. Source: `include/uapi/linux/if_link.h`.
pub(super) fn link(payload: &[u8]) -> Option<Link> {
    const ETHERNET: u16 = 1;
    const UP: u32 = 1;
    const OPERATIONAL: u8 = 6;
    let mut link = Link {
        index: u32_at(payload, 4)?,
        ethernet: u16_at(payload, 2)? == ETHERNET,
        up: u32_at(payload, 8)? & UP != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            1 => link.mac = Mac::try_from(value).ok(),
            3 => link.name = text(value),
            4 => link.mtu = u32_at(value, 0)?,
            5 => link.below = u32_at(value, 0).filter(|&index| index != 0),
            10 => link.master = u32_at(value, 0).filter(|&index| index != 0),
            16 => link.ready = value.first() == Some(&OPERATIONAL),
            18 => info(&mut link, value),
            33 => link.carrier = value.first() == Some(&1),
            54 => link.permanent_mac = Mac::try_from(value).ok(),
            _ => {}
        }
    }
    // A link that is down tells nothing about a carrier, whatever it said last.
    link.carrier &= link.up;
    (!link.name.is_empty()).then_some(link)
}

/// `IFLA_LINKINFO`: the kind of a link, and what is used of its data.
fn info(link: &mut Link, value: &[u8]) {
    let find = |wanted: u16, bytes| attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value));
    link.kind = find(1, value).map(text);
    let data = find(2, value).unwrap_or_default();
    match link.kind.as_deref() {
        Some("vlan") => link.vlan = find(1, data).and_then(|id| u16_at(id, 0)),
        Some("bond") => link.bond_mode = find(1, data).and_then(|mode| mode.first().copied()),
        _ => {}
    }
}

/// An address of an `RTM_NEWADDR`. Source: `include/uapi/linux/if_addr.h`.
pub(super) fn address(payload: &[u8]) -> Option<Address> {
    const LINK_SCOPE: u8 = 253;
    const FOR_EVER: u32 = u32::MAX;
    let (mut local, mut remote, mut valid_s, mut protocol) = (None, None, None, 0);
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            1 => remote = ip(value),
            2 => local = ip(value),
            6 => valid_s = u32_at(value, 4).filter(|&seconds| seconds != FOR_EVER),
            11 => protocol = value.first().copied().unwrap_or(0),
            _ => {}
        }
    }
    let address = local.or(remote)?;
    let link_local = *payload.get(3)? == LINK_SCOPE || matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    Some(Address { index: u32_at(payload, 4)?, address, prefix: *payload.get(1)?, valid_s, protocol, link_local })
}

/// A unicast route of the main table of an `RTM_NEWROUTE`; `None` for others, and for routes with several routers.
pub(super) fn route(payload: &[u8]) -> Option<Route> {
    const MAIN: u32 = 254;
    const UNICAST: u8 = 1;
    const CLONED: u32 = 0x200;
    let (family, prefix, source_prefix) = (*payload.first()?, *payload.get(1)?, *payload.get(2)?);
    let (mut table, protocol, kind) = (u32::from(*payload.get(4)?), *payload.get(5)?, *payload.get(7)?);
    let (mut destination, mut gateway, mut index, mut metric) = (None, None, None, 0);
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            1 => destination = ip(value),
            4 => index = u32_at(value, 0),
            5 => gateway = ip(value),
            6 => metric = u32_at(value, 0)?,
            15 => table = u32_at(value, 0)?,
            _ => {}
        }
    }
    let wanted = table == MAIN && kind == UNICAST && source_prefix == 0 && u32_at(payload, 8)? & CLONED == 0;
    let any = if family == 10 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    wanted.then_some(Route {
        index: index?,
        destination: destination.unwrap_or(any),
        prefix,
        gateway,
        metric,
        protocol,
    })
}

/// Name servers that a router announced (RFC 8106, 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The link.
    pub index: u32,
    /// Their addresses.
    pub servers: Vec<Ipv6Addr>,
    /// For how many seconds they may be used, from now on; 0: no longer; `None`: for ever.
    pub lifetime_s: Option<u32>,
}

/// The name servers in an `RTM_NEWNDUSEROPT`, which has one option of a router's announcement. Source:
/// `struct nduseroptmsg` of `include/uapi/linux/rtnetlink.h`.
pub(super) fn announcement(payload: &[u8]) -> Option<Announcement> {
    const IPV6: u8 = 10;
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const NAME_SERVERS: u8 = 25;
    const FOR_EVER: u32 = u32::MAX;
    let length = usize::from(u16_at(payload, 2)?);
    let option = payload.get(16..)?.get(..length)?;
    // The option's own length, in units of eight bytes, and the message's must agree.
    let whole = usize::from(*option.get(1)?) * 8 == length && length >= 24;
    let kind = (*payload.first()?, *payload.get(8)?, *option.first()?);
    if !whole || kind != (IPV6, ROUTER_ADVERTISEMENT, NAME_SERVERS) {
        return None;
    }
    let lifetime = u32::from_be_bytes(option.get(4..8)?.try_into().ok()?);
    let addresses = option.get(8..)?.chunks_exact(16);
    Some(Announcement {
        index: u32_at(payload, 4)?,
        servers: addresses.filter_map(|bytes| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))).collect(),
        lifetime_s: Some(lifetime).filter(|&seconds| seconds != FOR_EVER),
    })
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

/// Text that the kernel ends with a NUL.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
