//! Builds the requests.

use super::{Address, Mac, OWN_PROTOCOL, Route};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol, CacheInfo};
use netlink_packet_route::link::{
    BondLacpRate, BondMode, BridgeStpState, InfoBond, InfoBridge, InfoData, InfoKind, InfoVlan, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use std::net::IpAddr;

/// How often a bond looks at its cards' carrier, in milliseconds.
const MIIMON_MS: u32 = 100;

/// How a bond distributes what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BondKind {
    /// One card works, another takes over.
    ActiveBackup,
    /// By addresses, with a static trunk.
    BalanceXor,
    /// LACP.
    Lacp,
}

impl BondKind {
    /// The kernel's number. Source: `include/uapi/linux/if_bonding.h`.
    #[must_use]
    pub fn number(self) -> u8 {
        self.mode().into()
    }

    fn mode(self) -> BondMode {
        match self {
            Self::ActiveBackup => BondMode::ActiveBackup,
            Self::BalanceXor => BondMode::BalanceXor,
            Self::Lacp => BondMode::Ieee8023Ad,
        }
    }
}

/// A link to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewLink {
    /// A bridge without the spanning tree protocol, whose ports forward at once.
    Bridge,
    /// A bond.
    Bond(BondKind),
    /// A VLAN link on the link with the number `below`.
    Vlan {
        /// VLAN number.
        id: u16,
        /// The link that it is on.
        below: u32,
    },
}

impl NewLink {
    /// What it is called.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Bond(_) => "bond",
            Self::Vlan { .. } => "VLAN link",
        }
    }
}

/// How long an address remains, in seconds from now; `None`: for ever.
pub type Lifetime = Option<u32>;

/// Without the counters, which are most of a link's message: the shorter the list, the less often it changes on its way.
pub(super) fn list_links() -> Message {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Message::GetLink(message)
}

pub(super) fn list_addresses() -> Message {
    Message::GetAddress(AddressMessage::default())
}

pub(super) fn list_routes(v6: bool) -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    Message::GetRoute(message)
}

pub(super) fn create(name: &str, link: &NewLink, mac: Option<Mac>) -> Message {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    let info = match link {
        NewLink::Bridge => {
            let data = vec![InfoBridge::StpState(BridgeStpState::Disabled), InfoBridge::ForwardDelay(0)];
            vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(data))]
        }
        NewLink::Bond(kind) => {
            let mut data = vec![InfoBond::Mode(kind.mode()), InfoBond::MiiMon(MIIMON_MS)];
            if *kind == BondKind::Lacp {
                data.push(InfoBond::AdLacpRate(BondLacpRate::Slow));
            }
            vec![LinkInfo::Kind(InfoKind::Bond), LinkInfo::Data(InfoData::Bond(data))]
        }
        NewLink::Vlan { id, below } => {
            message.attributes.push(LinkAttribute::Link(*below));
            vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(*id)]))]
        }
    };
    message.attributes.push(LinkAttribute::LinkInfo(info));
    Message::NewLink(message)
}

fn on(index: u32, attribute: LinkAttribute) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(attribute);
    Message::SetLink(message)
}

pub(super) fn delete(index: u32) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Message::DelLink(message)
}

pub(super) fn set_up(index: u32, up: bool) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    message.header.change_mask = LinkFlags::Up;
    Message::SetLink(message)
}

pub(super) fn set_master(index: u32, master: u32) -> Message {
    on(index, LinkAttribute::Controller(master))
}

pub(super) fn set_mtu(index: u32, mtu: u32) -> Message {
    on(index, LinkAttribute::Mtu(mtu))
}

pub(super) fn set_mac(index: u32, mac: Mac) -> Message {
    on(index, LinkAttribute::Address(mac.to_vec()))
}

pub(super) fn new_address(index: u32, address: IpAddr, prefix: u8, lifetime: Lifetime) -> Message {
    let mut message = address_message(index, address, prefix);
    if let IpAddr::V4(v4) = address
        && prefix < 31
    {
        let host_part = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        message.attributes.push(AddressAttribute::Broadcast((v4.to_bits() | host_part).into()));
    }
    if let Some(seconds) = lifetime {
        let mut cache = CacheInfo::default();
        cache.ifa_valid = seconds;
        cache.ifa_preferred = seconds;
        message.attributes.push(AddressAttribute::CacheInfo(cache));
    }
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(OWN_PROTOCOL)));
    Message::NewAddress(message)
}

pub(super) fn delete_address(address: &Address) -> Message {
    Message::DelAddress(address_message(address.index, address.address, address.prefix))
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

pub(super) fn new_route(route: &Route, onlink: bool) -> Message {
    let mut message = route_message(route);
    if onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    Message::NewRoute(message)
}

pub(super) fn delete_route(route: &Route) -> Message {
    Message::DelRoute(route_message(route))
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination);
    message.header.destination_prefix_length = route.prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind = RouteType::Unicast;
    // An IPv4 route without a router is for this link; IPv6 takes no notice of the scope.
    let local = route.gateway.is_none() && route.destination.is_ipv4();
    message.header.scope = if local { RouteScope::Link } else { RouteScope::Universe };
    if route.prefix > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(route.destination)));
    }
    if let Some(gateway) = route.gateway {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
    }
    message.attributes.push(RouteAttribute::Oif(route.index));
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
