//! What is wanted: the configuration's words as typed values. Pure.
//!
//! A value that cannot be used is left out with a warning that names its key and what is allowed; the rest holds.

mod text;

pub use text::{Net, domain, mac, net, route};

use crate::config::schema::{self, BondMode, FIRST_BRIDGE, Ports};
use crate::netlink::{BondKind, Mac};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Longest name of a link: `IFNAMSIZ` without its NUL.
const NAME_LENGTH: usize = 15;
/// Largest VLAN number that may be used. Source: IEEE 802.1Q, 9.6.
const LAST_VLAN: u16 = 4094;
/// The smallest MTU that IPv6 can use (RFC 8200, 5), and the largest that an IP packet can have.
const MTU: std::ops::RangeInclusive<u32> = 1280..=65_535;

/// The network that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// `false`: nothing is to be touched.
    pub managed: bool,
    /// Bridges by name.
    pub bridges: BTreeMap<String, Bridge>,
    /// Bonds by name.
    pub bonds: BTreeMap<String, Bond>,
    /// VLAN links by name.
    pub vlans: BTreeMap<String, Vlan>,
    /// Name servers before those of a lease.
    pub dns: Vec<IpAddr>,
    /// Domains to search before those of a lease.
    pub search: Vec<String>,
}

/// A bridge that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Which ports.
    pub ports: PortRule,
    /// Whether an IPv4 lease is asked for.
    pub dhcp: bool,
    /// Whether routers' announcements give it IPv6 addresses.
    pub slaac: bool,
    /// Fixed addresses.
    pub addresses: Vec<Net>,
    /// Fixed routes, the default routes among them.
    pub routes: Vec<Route>,
    /// The host's addresses are on this VLAN of the bridge.
    pub host_vlan: Option<u16>,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// MAC address instead of the first port's.
    pub mac: Option<Mac>,
}

impl Bridge {
    /// Whether the host is to be reached on it.
    #[must_use]
    pub fn serves_host(&self) -> bool {
        self.dhcp || self.slaac || !self.addresses.is_empty()
    }
}

/// Which ports a bridge has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PortRule {
    /// None but guests'.
    #[default]
    None,
    /// The first network card with a carrier.
    Auto,
    /// These.
    Named(Vec<String>),
}

/// A route that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: Net,
    /// The router; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
}

/// A bond that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    /// The cards in it.
    pub ports: Vec<String>,
    /// How it distributes.
    pub kind: BondKind,
}

/// A VLAN link that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The link that it is on.
    pub below: String,
    /// VLAN number.
    pub id: u16,
}

impl Plan {
    /// The plan, and the warnings about what was left out.
    #[must_use]
    pub fn from(network: &schema::Network) -> (Self, Vec<String>) {
        let mut reader = Reader { network, warnings: Vec::new(), taken: BTreeMap::new() };
        let plan = reader.plan();
        (plan, reader.warnings)
    }

    /// The link that bears the host's addresses of a bridge: the bridge, or a VLAN link on it.
    #[must_use]
    pub fn host_link(bridge: &str, wanted: &Bridge) -> String {
        wanted.host_vlan.map_or_else(|| bridge.to_owned(), |id| format!("{bridge}.{id}"))
    }

    /// The links that the configuration names as below a bridge, bond or VLAN link: none of them is free for `"auto"`.
    #[must_use]
    pub fn named_ports(&self) -> BTreeSet<&str> {
        let bridges = self.bridges.values().flat_map(|bridge| match &bridge.ports {
            PortRule::Named(names) => names.as_slice(),
            PortRule::None | PortRule::Auto => &[],
        });
        let bonds = self.bonds.values().flat_map(|bond| &bond.ports);
        bridges.chain(bonds).chain(self.vlans.values().map(|vlan| &vlan.below)).map(String::as_str).collect()
    }
}

/// Whether the kernel takes `name` as a link's. Source: kernel `net/core/dev.c`, `dev_valid_name`.
#[must_use]
pub fn valid_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%');
    (1..=NAME_LENGTH).contains(&name.len()) && name.chars().all(plain) && !matches!(name, "." | "..")
}

/// Whether a link of this name is a guest's: those of Xen's toolstack and of device models.
#[must_use]
pub fn guest_name(name: &str) -> bool {
    let numbered =
        |prefix| name.strip_prefix(prefix).is_some_and(|rest: &str| rest.starts_with(|c: char| c.is_ascii_digit()));
    numbered("vif") || numbered("tap")
}

/// Whether a link of ours may have this name.
fn may_be_ours(name: &str) -> bool {
    valid_name(name) && !guest_name(name) && name != "lo"
}

struct Reader<'a> {
    network: &'a schema::Network,
    warnings: Vec<String>,
    /// Links that are ports, with the key that took them.
    taken: BTreeMap<String, String>,
}

impl Reader<'_> {
    fn warn(&mut self, key: &str, text: impl std::fmt::Display) {
        self.warnings.push(format!("network.{key}: {text}"));
    }

    fn plan(&mut self) -> Plan {
        let network = self.network;
        let mut plan = Plan { managed: network.managed, ..Plan::default() };
        for (name, bond) in &network.bond {
            if self.own_name("bond", name) {
                let key = format!("bond.{name}.ports");
                let ports = self.cards(&key, &bond.ports);
                if ports.is_empty() {
                    self.warn(&key, "no card is in it; name at least one, or leave the bond out");
                }
                let kind = match bond.mode {
                    BondMode::ActiveBackup => BondKind::ActiveBackup,
                    BondMode::Lacp => BondKind::Lacp,
                    BondMode::BalanceXor => BondKind::BalanceXor,
                };
                plan.bonds.insert(name.clone(), Bond { ports, kind });
            }
        }
        self.vlans(&mut plan);
        let mut bridges = network.bridge.clone();
        bridges.entry(FIRST_BRIDGE.to_owned()).or_default();
        let auto = self.automatic(&bridges);
        for (name, bridge) in &bridges {
            if self.own_name("bridge", name) {
                let wanted = self.bridge(name, bridge, auto.as_deref() == Some(name));
                plan.bridges.insert(name.clone(), wanted);
            }
        }
        plan.dns.clone_from(&network.dns);
        plan.search = network.search.iter().filter(|domain| self.domain(domain)).cloned().collect();
        plan
    }

    fn domain(&mut self, domain: &str) -> bool {
        let valid = text::domain(domain);
        if !valid {
            self.warn("search", format_args!("{domain:?} is no domain name; it is left out"));
        }
        valid
    }

    /// Whether a link of ours may have this name and no other has it.
    fn own_name(&mut self, kind: &str, name: &str) -> bool {
        let key = format!("{kind}.{}", name.escape_default());
        if !may_be_ours(name) {
            self.warn(
                &key,
                "a link cannot have this name; use up to 15 letters, digits, '.', '-' and '_', not vif... or tap...",
            );
            return false;
        }
        // A bridge goes before a bond, a bond before a VLAN link.
        let bridge = self.network.bridge.contains_key(name) || name == FIRST_BRIDGE;
        let taken = match kind {
            "bond" => bridge,
            "vlan" => bridge || self.network.bond.contains_key(name),
            _ => false,
        };
        if taken {
            self.warn(&key, "another bridge or bond has this name; it is left out");
            return false;
        }
        true
    }

    fn vlans(&mut self, plan: &mut Plan) {
        let mut seen = BTreeMap::new();
        for (name, vlan) in &self.network.vlan {
            if !self.own_name("vlan", name) {
                continue;
            }
            let below = &vlan.link;
            let below_key = format!("vlan.{name}.link");
            if !valid_name(below) || guest_name(below) {
                self.warn(&below_key, format_args!("{below:?} is no name of a card or bond"));
            } else if self.network.vlan.contains_key(below) || self.network.bridge.contains_key(below) {
                self.warn(&below_key, format_args!("{below} is a VLAN link or a bridge; name a card or a bond"));
            } else if !(1..=LAST_VLAN).contains(&vlan.id) {
                self.warn(
                    &format!("vlan.{name}.id"),
                    format_args!("{} is no VLAN number; use 1 to {LAST_VLAN}", vlan.id),
                );
            } else if let Some(other) = seen.insert((below, vlan.id), name) {
                self.warn(&format!("vlan.{name}"), format_args!("{other} is VLAN {} of {below} already", vlan.id));
            } else {
                plan.vlans.insert(name.clone(), Vlan { below: below.clone(), id: vlan.id });
            }
        }
    }

    /// The bridge that has the automatic port: the first bridge before others, and never two.
    fn automatic(&mut self, bridges: &BTreeMap<String, schema::Bridge>) -> Option<String> {
        let wants = |name: &str, bridge: &schema::Bridge| match &bridge.ports {
            Some(Ports::Word(word)) => word == "auto",
            Some(Ports::Names(_)) => false,
            None => name == FIRST_BRIDGE,
        };
        let mut names: Vec<&String> = bridges
            .iter()
            .filter(|(name, bridge)| may_be_ours(name) && wants(name, bridge))
            .map(|(name, _)| name)
            .collect();
        names.sort_by_key(|name| *name != FIRST_BRIDGE);
        let (first, others) = names.split_first()?;
        for other in others {
            let text = format!("{first} has the automatic port; name the ports of one of the two");
            self.warn(&format!("bridge.{other}.ports"), text);
        }
        Some((*first).clone())
    }

    fn bridge(&mut self, name: &str, bridge: &schema::Bridge, auto: bool) -> Bridge {
        let key = |part: &str| format!("bridge.{name}.{part}");
        let ports = match &bridge.ports {
            _ if auto => PortRule::Auto,
            Some(Ports::Names(names)) => PortRule::Named(self.ports(&key("ports"), names)),
            Some(Ports::Word(word)) if word != "auto" => {
                self.warn(
                    &key("ports"),
                    format_args!("{word:?} is not known; use \"auto\", or names in brackets: [\"enp1s0\"]"),
                );
                PortRule::None
            }
            Some(Ports::Word(_)) | None => PortRule::None,
        };
        let mut wanted = Bridge { ports, ..Bridge::default() };
        let default: &[String] = if name == FIRST_BRIDGE { &["dhcp".to_owned()] } else { &[] };
        for address in bridge.addresses.as_deref().unwrap_or(default) {
            self.address(&key("addresses"), address, &mut wanted);
        }
        self.routes(name, bridge, &mut wanted);
        if let Some(id) = bridge.host_vlan {
            if !(1..=LAST_VLAN).contains(&id) {
                self.warn(&key("host_vlan"), format_args!("{id} is no VLAN number; use 1 to {LAST_VLAN}"));
            } else if !valid_name(&format!("{name}.{id}")) {
                self.warn(&key("host_vlan"), format_args!("the link's name would be {name}.{id}, which is longer than {NAME_LENGTH}; give the bridge a shorter name"));
            } else {
                wanted.host_vlan = Some(id);
            }
        }
        match bridge.mtu {
            Some(mtu) if MTU.contains(&mtu) => wanted.mtu = Some(mtu),
            Some(mtu) => {
                self.warn(&key("mtu"), format_args!("{mtu} is no usable MTU; use {} to {}", MTU.start(), MTU.end()));
            }
            None => {}
        }
        if let Some(given) = &bridge.mac {
            wanted.mac = mac(given);
            if wanted.mac.is_none() {
                self.warn(
                    &key("mac"),
                    format_args!("{given:?} is no MAC address of one card; use for example 00:16:3e:12:34:56"),
                );
            }
        }
        wanted
    }

    fn address(&mut self, key: &str, given: &str, wanted: &mut Bridge) {
        match given.trim() {
            "dhcp" => wanted.dhcp = true,
            "slaac" => wanted.slaac = true,
            given => match net(given) {
                Ok(net) if wanted.addresses.contains(&net) => {}
                Ok(net) => wanted.addresses.push(net),
                Err(why) => self.warn(key, format_args!("{given:?} {why}; it is left out")),
            },
        }
    }

    fn routes(&mut self, name: &str, bridge: &schema::Bridge, wanted: &mut Bridge) {
        for &gateway in &bridge.gateways {
            let to = Net::any(gateway);
            let own = wanted.addresses.iter().any(|net| net.address == gateway);
            if own || gateway.is_unspecified() || gateway.is_multicast() || gateway.is_loopback() {
                self.warn(&format!("bridge.{name}.gateways"), format_args!("{gateway} is no router's address"));
            } else if wanted.routes.iter().any(|route| route.to == to) {
                let text = format!("{gateway} is a second default gateway of its family; only the first is used");
                self.warn(&format!("bridge.{name}.gateways"), text);
            } else {
                wanted.routes.push(Route { to, gateway: Some(gateway) });
            }
        }
        for given in &bridge.routes {
            let key = format!("bridge.{name}.routes");
            match route(given) {
                Ok(route) if wanted.routes.iter().any(|other| other.to == route.to) => {
                    self.warn(&key, format_args!("{given:?}: there is a route to {} already", route.to));
                }
                Ok(route) => wanted.routes.push(route),
                Err(why) => self.warn(&key, format_args!("{given:?} {why}")),
            }
        }
        let is_fixed = |address: &Net, v4: bool| address.address.is_ipv4() == v4;
        for v4 in [true, false] {
            let has = wanted.addresses.iter().any(|address| is_fixed(address, v4))
                || if v4 { wanted.dhcp } else { wanted.slaac };
            let routed = wanted.routes.iter().any(|route| route.to.address.is_ipv4() == v4);
            if routed && !has {
                let family = if v4 { "IPv4" } else { "IPv6" };
                self.warn(
                    &format!("bridge.{name}"),
                    format_args!("there are {family} routes but no {family} address; they are left out"),
                );
                wanted.routes.retain(|route| route.to.address.is_ipv4() != v4);
            }
        }
    }

    /// The ports of a bridge: cards, bonds and VLAN links.
    fn ports(&mut self, key: &str, names: &[String]) -> Vec<String> {
        let (ours, cards): (Vec<_>, Vec<_>) = names
            .iter()
            .cloned()
            .partition(|name| self.network.bond.contains_key(name) || self.network.vlan.contains_key(name));
        let ours: Vec<String> = ours.into_iter().filter(|name| self.take(key, name)).collect();
        let cards = self.cards(key, &cards);
        // In the order in which they are named: the first gives the bridge its MAC address.
        let mut ports: Vec<String> =
            names.iter().filter(|name| ours.contains(name) || cards.contains(name)).cloned().collect();
        let mut seen = BTreeSet::new();
        ports.retain(|name| seen.insert(name.clone()));
        ports
    }

    fn cards(&mut self, key: &str, names: &[String]) -> Vec<String> {
        let mut cards = Vec::new();
        for name in names {
            let ours =
                self.network.bridge.contains_key(name) || self.network.bond.contains_key(name) || name == FIRST_BRIDGE;
            if !valid_name(name) || guest_name(name) || ours || name == "lo" {
                self.warn(key, format_args!("{name:?} cannot be a port; name a network card, as `ip link` shows it"));
            } else if self.take(key, name) {
                cards.push(name.clone());
            }
        }
        cards
    }

    /// Whether this link is no port yet.
    fn take(&mut self, key: &str, name: &str) -> bool {
        if let Some(other) = self.taken.get(name) {
            let text = format!("{name} is a port by network.{other} already; it is left out here");
            self.warn(key, text);
            return false;
        }
        self.taken.insert(name.to_owned(), key.to_owned());
        true
    }
}

#[cfg(test)]
mod tests;
