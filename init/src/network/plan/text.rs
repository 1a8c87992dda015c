//! Addresses, routes, MAC addresses and domains as text.

use super::Route;
use crate::netlink::Mac;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address with its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Net {
    /// All addresses of a family: where a default route leads.
    #[must_use]
    pub fn any(of: IpAddr) -> Self {
        let address = match of {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self { address, prefix: 0 }
    }

    /// Its first address: what a route's destination must be.
    #[must_use]
    pub fn base(self) -> Self {
        let address = match self.address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & high_bits_v4(self.prefix)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & high_bits_v6(self.prefix)).into(),
        };
        Self { address, prefix: self.prefix }
    }

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self { address, ..self }.base() == self.base()
    }
}

fn high_bits_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0)
}

fn high_bits_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0)
}

/// An address that a host can have, with its prefix length.
///
/// # Errors
/// Why it is none, to be put behind the value.
pub fn net(given: &str) -> Result<Net, String> {
    let example = |address: IpAddr| format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 });
    let Some((address, prefix)) = given.split_once('/') else {
        return Err(match given.parse::<IpAddr>() {
            Ok(address) => format!("has no prefix length: use {}", example(address)),
            Err(_) => "is not \"dhcp\", \"slaac\" or an address such as 192.0.2.5/24".to_owned(),
        });
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err("is no address: use one such as 192.0.2.5/24 or 2001:db8::5/64".to_owned());
    };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.parse().ok().filter(|prefix| (1..=longest).contains(prefix));
    let Some(prefix) = prefix else {
        return Err(format!("has a prefix length that is not 1 to {longest}: use {}", example(address)));
    };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
        return Err("is no address that a host can have".to_owned());
    }
    let net = Net { address, prefix };
    let last = |v4: Ipv4Addr| v4.to_bits() | !high_bits_v4(prefix) == v4.to_bits();
    let ends = matches!(address, IpAddr::V4(v4) if prefix < 31 && (net.base().address == address || last(v4)));
    if ends {
        return Err("is the first or last address of its net, which no host can have".to_owned());
    }
    Ok(net)
}

/// A route: `10.0.0.0/8 via 192.0.2.254`, `10.0.0.0/8`, `default via 192.0.2.254`.
///
/// # Errors
/// Why it is none, to be put behind the value.
pub fn route(given: &str) -> Result<Route, String> {
    let shape = || "is no route: use for example 10.0.0.0/8 via 192.0.2.254".to_owned();
    let words: Vec<&str> = given.split_whitespace().collect();
    let (to, gateway) = match words.as_slice() {
        [to] => (*to, None),
        [to, "via", gateway] => (*to, Some(gateway.parse::<IpAddr>().map_err(|_| shape())?)),
        _ => return Err(shape()),
    };
    let to = if to == "default" {
        Net::any(gateway.ok_or_else(shape)?)
    } else {
        let (address, prefix) = match to.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (to, None),
        };
        let address: IpAddr = address.parse().map_err(|_| shape())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|&prefix| prefix <= longest).ok_or_else(shape)?,
            None => longest,
        };
        Net { address, prefix }
    };
    if to.base() != to {
        return Err(format!("has bits beyond its prefix length: use {}", to.base()));
    }
    if gateway.is_some_and(|gateway| gateway.is_ipv4() != to.address.is_ipv4()) {
        return Err("mixes IPv4 and IPv6".to_owned());
    }
    Ok(Route { to, gateway })
}

/// A MAC address of one card: six bytes in hexadecimal, not a group's.
#[must_use]
pub fn mac(given: &str) -> Option<Mac> {
    let mut bytes = Vec::new();
    for part in given.trim().split([':', '-']) {
        let digits = (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(part, 16).ok().filter(|_| digits)?);
    }
    let mac = Mac::try_from(bytes).ok()?;
    (mac.first()? & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// Whether it can stand on a line of resolv.conf as a domain.
#[must_use]
pub fn domain(given: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    let given = given.strip_suffix('.').unwrap_or(given);
    given.len() <= 253 && given.split('.').all(label)
}
