//! A lease: what a server grants, after everything in it that makes no sense or does harm was left out.
//!
//! [`from_message`] refuses a lease without what is essential (a usable address and mask, a server, a time) and drops
//! from a good one the values that are not usable. Whether a router can be reached is for the network code to judge.

use super::message::Reply;
use super::names;
use dhcproto::v4::{DhcpOption, OptionCode};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The lease time that means "for ever" (RFC 2131, 3.3).
const INFINITE: u32 = u32::MAX;
/// A lease that is shorter would keep the network busy with renewals, in seconds.
const SHORTEST_LEASE: u32 = 10;
/// A server's T1 that is sooner is a mistake, in seconds; the default is taken.
const SOONEST_RENEWAL: u32 = 5;
/// Addresses that are kept of each list. The resolver uses three name servers; nobody needs more than a few of the rest.
const MOST_ADDRESSES: usize = 8;
/// Routes and domains that are kept: more than a network has, and few enough to set in no time.
const MOST_ROUTES: usize = 64;
const MOST_DOMAINS: usize = 16;
/// RFC 791: every host takes packets of this size; a smaller MTU breaks more than it helps.
const SMALLEST_MTU: u16 = 576;

/// What a server grants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The host's address.
    pub address: Ipv4Addr,
    /// Length of the prefix of its net, 1 to 32.
    pub prefix: u8,
    /// Default gateways, best first (option 3). Empty if there are `routes`: RFC 3442 forbids to use both.
    pub routers: Vec<Ipv4Addr>,
    /// Routes, the default ones among them (option 121).
    pub routes: Vec<LeaseRoute>,
    /// Name servers, best first (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// Domain of the host (option 15).
    pub domain: Option<String>,
    /// Domains in which short names are looked up (option 119).
    pub search: Vec<String>,
    /// Name of the host (option 12).
    pub hostname: Option<String>,
    /// Time servers (option 42).
    pub ntp: Vec<Ipv4Addr>,
    /// Largest packet, in bytes (option 26).
    pub mtu: Option<u16>,
    /// The server (option 54).
    pub server: Ipv4Addr,
    /// When it was asked for, in seconds since 1970: for the copy on the disk.
    pub obtained_at: u64,
    /// When it was asked for, in seconds of `CLOCK_BOOTTIME`: for this boot.
    pub began: u64,
    /// How long it holds, in seconds; `u32::MAX` is for ever.
    pub lease_s: u32,
    /// T1: after how many seconds its server is asked to renew it.
    pub renew_s: u32,
    /// T2: after how many seconds every server is.
    pub rebind_s: u32,
}

/// A route of option 121.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRoute {
    /// The net, without bits beyond its prefix.
    pub destination: Ipv4Addr,
    /// Length of its prefix, 0 to 32.
    pub prefix: u8,
    /// The next router; `None`: the net is on the link itself.
    pub gateway: Option<Ipv4Addr>,
}

impl Lease {
    /// When its server is asked to renew it, in `CLOCK_BOOTTIME`; `None` for a lease for ever.
    #[must_use]
    pub fn renewal(&self) -> Option<Duration> {
        self.after(self.renew_s)
    }

    /// When every server is asked.
    #[must_use]
    pub fn rebinding(&self) -> Option<Duration> {
        self.after(self.rebind_s)
    }

    /// When it ends.
    #[must_use]
    pub fn end(&self) -> Option<Duration> {
        self.after(self.lease_s)
    }

    fn after(&self, seconds: u32) -> Option<Duration> {
        (self.lease_s != INFINITE).then(|| Duration::from_secs(self.began.saturating_add(seconds.into())))
    }

    /// Whether a lease that was kept on the disk still holds at `wall` (seconds since 1970). A clock that is behind the
    /// lease's proves nothing; such a lease is taken as one that holds, because a server is asked about it anyway.
    #[must_use]
    pub fn holds_at(&self, wall: u64) -> bool {
        self.lease_s == INFINITE || wall < self.obtained_at.saturating_add(self.lease_s.into())
    }
}

/// Judges an OFFER or ACK to a message that was sent at `sent` (`CLOCK_BOOTTIME`), which is when its time begins
/// (RFC 2131, 4.4.1); `wall` is the same moment in seconds since 1970.
///
/// # Errors
/// Why the lease cannot be used, as a phrase: "the netmask is ...".
pub fn from_message(reply: &Reply, sent: Duration, wall: u64) -> Result<Lease, String> {
    let option = |code| reply.options.get(code);
    let address = reply.address;
    if !is_host(address) {
        return Err(format!("{address} cannot be a host's address"));
    }
    let mask = match option(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => *mask,
        _ => return Err("it has no netmask".to_owned()),
    };
    let prefix = prefix_of(mask).ok_or_else(|| format!("{mask} is no netmask"))?;
    if is_end_of_net(address, prefix) {
        return Err(format!("{address} is the address of the net {address}/{prefix} itself or its broadcast"));
    }
    let server = match option(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) if is_host(*server) => *server,
        _ => return Err("it does not say which server it is from".to_owned()),
    };
    let lease_s = match option(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(seconds)) if *seconds >= SHORTEST_LEASE => *seconds,
        Some(DhcpOption::AddressLeaseTime(seconds)) => return Err(format!("a lease of {seconds} s is of no use")),
        _ => return Err("it has no lease time".to_owned()),
    };
    let (renew_s, rebind_s) = renewal_times(reply, lease_s);
    let static_routes = match option(OptionCode::ClasslessStaticRoute) {
        Some(DhcpOption::ClasslessStaticRoute(routes)) => {
            usable_routes(routes.iter().map(|(net, gateway)| (net.addr(), net.prefix_len(), *gateway)))
        }
        _ => Vec::new(),
    };
    let routers = match option(OptionCode::Router) {
        Some(DhcpOption::Router(list)) if static_routes.is_empty() => usable(list, address),
        _ => Vec::new(),
    };
    let dns = match option(OptionCode::DomainNameServer) {
        Some(DhcpOption::DomainNameServer(servers)) => usable(servers, Ipv4Addr::UNSPECIFIED),
        _ => Vec::new(),
    };
    let ntp = match option(OptionCode::NtpServers) {
        Some(DhcpOption::NtpServers(servers)) => usable(servers, Ipv4Addr::UNSPECIFIED),
        _ => Vec::new(),
    };
    let domain = match option(OptionCode::DomainName) {
        Some(DhcpOption::DomainName(name)) => names::plain(name),
        _ => None,
    };
    let hostname = match option(OptionCode::Hostname) {
        Some(DhcpOption::Hostname(name)) => names::plain(name),
        _ => None,
    };
    let mtu = match option(OptionCode::InterfaceMtu) {
        Some(DhcpOption::InterfaceMtu(mtu)) if *mtu >= SMALLEST_MTU => Some(*mtu),
        _ => None,
    };
    let search = match option(OptionCode::DomainSearch) {
        Some(DhcpOption::DomainSearch(names)) => {
            without_repetitions(names.iter().filter_map(names::from_dns), MOST_DOMAINS)
        }
        _ => Vec::new(),
    };
    Ok(Lease {
        address,
        prefix,
        routers,
        routes: static_routes,
        dns,
        domain,
        search,
        hostname,
        ntp,
        mtu,
        server,
        obtained_at: wall,
        began: sent.as_secs(),
        lease_s,
        renew_s,
        rebind_s,
    })
}

/// T1 and T2: the server's if they are in order, else half and seven eighths of the lease (RFC 2131, 4.4.5).
fn renewal_times(reply: &Reply, lease_s: u32) -> (u32, u32) {
    let default = (lease_s / 2, lease_s - lease_s / 8);
    let t1 = match reply.options.get(OptionCode::Renewal) {
        Some(DhcpOption::Renewal(seconds)) => *seconds,
        _ => default.0,
    };
    let t2 = match reply.options.get(OptionCode::Rebinding) {
        Some(DhcpOption::Rebinding(seconds)) => *seconds,
        _ => default.1,
    };
    if t1 >= SOONEST_RENEWAL && t1 < t2 && t2 < lease_s { (t1, t2) } else { default }
}

/// The routes that make sense; of several to one net the first, because they cannot all be set.
fn usable_routes(routes: impl Iterator<Item = (Ipv4Addr, u8, Ipv4Addr)>) -> Vec<LeaseRoute> {
    let mut kept: Vec<LeaseRoute> = Vec::new();
    for (destination, prefix, gateway) in routes {
        let destination = Ipv4Addr::from_bits(destination.to_bits() & mask_of(prefix));
        let on_link = gateway.is_unspecified();
        let known = kept.iter().any(|route| route.destination == destination && route.prefix == prefix);
        let sensible = !destination.is_loopback() && !destination.is_multicast() && (on_link || is_host(gateway));
        if sensible && !known {
            kept.push(LeaseRoute { destination, prefix, gateway: (!on_link).then_some(gateway) });
        }
        if kept.len() == MOST_ROUTES {
            break;
        }
    }
    kept
}

/// The addresses that can be a host's, but not `own`; each once, in their order.
fn usable(addresses: &[Ipv4Addr], own: Ipv4Addr) -> Vec<Ipv4Addr> {
    let usable = addresses.iter().copied().filter(|address| is_host(*address) && *address != own);
    without_repetitions(usable, MOST_ADDRESSES)
}

fn without_repetitions<T: PartialEq>(items: impl Iterator<Item = T>, most: usize) -> Vec<T> {
    let mut kept = Vec::new();
    for item in items {
        if kept.len() == most {
            break;
        }
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

/// Whether a host elsewhere can have it: not 0.0.0.0/8, loopback, multicast, reserved or broadcast.
fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first != 127 && first < 224
}

/// The first and the last address of a net are no host's, except in nets of one or two addresses (RFC 3021).
fn is_end_of_net(address: Ipv4Addr, prefix: u8) -> bool {
    let host_part = !mask_of(prefix);
    let host = address.to_bits() & host_part;
    prefix < 31 && (host == 0 || host == host_part)
}

fn mask_of(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or_default()
}

/// The length of a prefix of 1 to 32 bits; `None` if the ones are not all in front.
fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let length = u8::try_from(mask.to_bits().leading_ones()).ok()?;
    (length > 0 && mask_of(length) == mask.to_bits()).then_some(length)
}

#[cfg(test)]
mod tests;
