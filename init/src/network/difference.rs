//! What has to be done so that what is there becomes what is wanted. Pure, and empty when nothing differs.
//!
//! One round does what can be done with the links that are there; a link that is made in it is filled in the next. Nothing
//! is said here about links of guests, and nothing is removed that SINO did not make.

mod addresses;

use super::plan::{Plan, PortRule};
use super::world::World;
use crate::dhcp::lease::Lease;
use crate::netlink::{Address, Link, Mac, NewLink, Route};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub(super) use addresses::remaining_s;

/// The MTU of Ethernet, to which a link returns when the configuration no longer gives one. Source: IEEE 802.3, 3.2.7.
const ETHERNET_MTU: u32 = 1500;

/// What SINO made and may therefore remove; kept in `network.json`. Addresses and routes bear
/// [`crate::netlink::OWN_PROTOCOL`] instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Made {
    /// Bridges, bonds and VLAN links.
    pub links: BTreeSet<String>,
    /// Ports, with the bridge or bond that they were put into.
    pub ports: BTreeMap<String, String>,
    /// Links whose MTU was set, in bytes.
    pub mtus: BTreeMap<String, u32>,
}

impl Made {
    /// Forgets what is no longer there: a link of the same name that comes later is another's.
    pub(super) fn forget_what_is_gone(&mut self, world: &World) {
        let there: BTreeSet<&str> = world.links.iter().map(|link| link.name.as_str()).collect();
        self.links.retain(|name| there.contains(name.as_str()));
        self.ports.retain(|name, _| there.contains(name.as_str()));
        self.mtus.retain(|name, _| there.contains(name.as_str()));
    }
}

/// What is wanted at a moment.
#[derive(Clone, Debug)]
pub(super) struct Wanted<'a> {
    /// The configuration.
    pub(super) plan: &'a Plan,
    /// The automatic port, once chosen: a link's number.
    pub(super) auto: Option<u32>,
    /// Cards that must be up to tell whether they have a carrier.
    pub(super) raise: &'a [u32],
    /// Leases by bridge.
    pub(super) leases: &'a BTreeMap<String, Lease>,
    /// Whether the host's addresses and routes are to be set yet.
    pub(super) addresses: bool,
    /// Seconds since the machine started (`CLOCK_BOOTTIME`), which leases count in.
    pub(super) now_s: u64,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Make a link; without a MAC address the kernel chooses one, and udev another.
    Create { name: String, link: NewLink, mac: Option<Mac> },
    /// Delete a link that SINO made.
    Delete { link: Link },
    /// Set a link up or down.
    Up { link: Link, up: bool },
    /// Make a link a port of `master` (number, name), or of none.
    Port { link: Link, master: Option<(u32, String)> },
    /// Set the MTU in bytes; `own`: the configuration or a lease asks for it.
    Mtu { link: Link, mtu: u32, own: bool },
    /// Set the MAC address.
    Mac { link: Link, mac: Mac },
    /// Write a kernel setting below `/proc/sys/net`.
    Setting { path: String, value: &'static str },
    /// Add an address or change how long it remains (seconds).
    PutAddress { link: Link, address: IpAddr, prefix: u8, lifetime: Option<u32> },
    /// Remove an address.
    DropAddress { link: Link, address: Address },
    /// Add a route.
    AddRoute { link: Link, route: Route, onlink: bool },
    /// Remove a route.
    DropRoute { link: Link, route: Route },
}

/// The acts of one round, in order, and what stands in the way of the plan.
#[must_use]
pub(super) fn difference(wanted: &Wanted<'_>, world: &World, made: &Made) -> (Vec<Act>, Vec<String>) {
    let mut round = Round { wanted, world, made, acts: Vec::new(), obstacles: Vec::new() };
    if wanted.plan.managed {
        round.remove_links();
        // Of what is about to go nothing else is to be done; the rest follows in the next round.
        if !round.acts.is_empty() {
            return (round.acts, round.obstacles);
        }
        round.create_links();
        round.release_ports();
        round.settings();
        round.bond_ports();
        round.bridge_ports();
        round.mtus();
        round.macs();
        round.raise();
        if wanted.addresses {
            round.addresses();
        }
    }
    (round.acts, round.obstacles)
}

/// The kernel's name for what a link of the plan is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bridge,
    Bond,
    Vlan,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Bond => "bond",
            Self::Vlan => "vlan",
        }
    }
}

struct Round<'a> {
    wanted: &'a Wanted<'a>,
    world: &'a World,
    made: &'a Made,
    acts: Vec<Act>,
    obstacles: Vec<String>,
}

impl<'a> Round<'a> {
    /// The link of this name if it is of this kind.
    fn own(&self, name: &str, kind: Kind) -> Option<&'a Link> {
        self.world.named(name).filter(|link| link.kind.as_deref() == Some(kind.name()))
    }

    /// The bridges of the plan that are there.
    fn bridges(&self) -> Vec<(&'a String, &'a super::plan::Bridge, &'a Link)> {
        let bridges = &self.wanted.plan.bridges;
        bridges.iter().filter_map(|(name, wanted)| Some((name, wanted, self.own(name, Kind::Bridge)?))).collect()
    }

    /// Links that bear the host's addresses, with their bridge's name and place among the bridges.
    fn host_links(&self) -> Vec<(usize, &'a String, &'a super::plan::Bridge, &'a Link)> {
        let bridges = self.wanted.plan.bridges.iter().enumerate();
        bridges
            .filter_map(|(place, (name, wanted))| {
                let kind = if wanted.host_vlan.is_some() { Kind::Vlan } else { Kind::Bridge };
                Some((place, name, wanted, self.own(&Plan::host_link(name, wanted), kind)?))
            })
            .collect()
    }

    /// Names of all links that the plan makes.
    fn names(&self) -> BTreeSet<String> {
        let plan = self.wanted.plan;
        let hosts = plan.bridges.iter().map(|(name, bridge)| Plan::host_link(name, bridge));
        plan.bridges.keys().chain(plan.bonds.keys()).chain(plan.vlans.keys()).cloned().chain(hosts).collect()
    }

    fn remove_links(&mut self) {
        let names = self.names();
        for name in self.made.links.difference(&names) {
            let Some(link) = self.world.named(name) else { continue };
            let guests: Vec<&str> = self
                .world
                .ports_of(link.index)
                .filter(|port| self.world.guests.contains(&port.index))
                .map(|port| port.name.as_str())
                .collect();
            if guests.is_empty() {
                self.acts.push(Act::Delete { link: link.clone() });
            } else {
                self.obstacles.push(format!(
                    "{name} is no longer configured, but guests are on it ({}); it stays until they are gone",
                    guests.join(", ")
                ));
            }
        }
        // What differs in a way that cannot be changed is made anew in the next round.
        for (name, vlan) in &self.wanted.plan.vlans {
            let below = self.world.named(&vlan.below).map(|link| link.index);
            self.remake(name, Kind::Vlan, |link| {
                link.vlan != Some(vlan.id) || (below.is_some() && link.below != below)
            });
        }
        for (name, bridge, link) in self.bridges() {
            if let Some(id) = bridge.host_vlan {
                let other = |host: &Link| host.vlan != Some(id) || host.below != Some(link.index);
                self.remake(&Plan::host_link(name, bridge), Kind::Vlan, other);
            }
        }
        for (name, bond) in &self.wanted.plan.bonds {
            self.remake(name, Kind::Bond, |link| link.bond_mode != Some(bond.kind.number()));
        }
        // With a bridge or bond the VLAN links on it go; they are first.
        self.acts.sort_by_key(|act| !matches!(act, Act::Delete { link } if link.below.is_some()));
    }

    fn remake(&mut self, name: &str, kind: Kind, differs: impl Fn(&Link) -> bool) {
        let Some(link) = self.own(name, kind) else { return };
        if !differs(link) {
            return;
        }
        if self.made.links.contains(name) {
            self.acts.push(Act::Delete { link: link.clone() });
        } else {
            let word = kind.name();
            self.obstacles.push(format!("{name} is another {word} than configured, and not made by SINO; delete it"));
        }
    }

    fn create_links(&mut self) {
        let plan = self.wanted.plan;
        for (name, bond) in &plan.bonds {
            // Its first card's, whatever order the cards come in: a server may know the host by it. If that may be one that
            // udev is still to name, the bond waits as long as any card does.
            let first = bond.ports.first().and_then(|port| self.usable(port));
            if first.is_none() && !self.world.unsettled.is_empty() {
                continue;
            }
            let card = first.or_else(|| bond.ports.iter().find_map(|port| self.usable(port)));
            self.create(name, Kind::Bond, Some(NewLink::Bond(bond.kind)), card.and_then(own_mac));
        }
        for (name, bridge) in &plan.bridges {
            self.create(name, Kind::Bridge, Some(NewLink::Bridge), bridge.mac);
        }
        for (name, vlan) in &plan.vlans {
            let below = self.world.named(&vlan.below);
            self.create(name, Kind::Vlan, below.map(|below| NewLink::Vlan { id: vlan.id, below: below.index }), None);
        }
        for (name, bridge, link) in self.bridges() {
            if let Some(id) = bridge.host_vlan {
                self.create(
                    &Plan::host_link(name, bridge),
                    Kind::Vlan,
                    Some(NewLink::Vlan { id, below: link.index }),
                    None,
                );
            }
        }
    }

    fn create(&mut self, name: &str, kind: Kind, link: Option<NewLink>, mac: Option<Mac>) {
        match self.world.named(name) {
            None => self.acts.extend(link.map(|link| Act::Create { name: name.to_owned(), link, mac })),
            Some(there) if there.kind.as_deref() == Some(kind.name()) => {}
            Some(there) => {
                let is = there.kind.as_deref().unwrap_or("network card");
                self.obstacles.push(format!("{name} is to be a {}, but there is a {is} of this name", kind.name()));
            }
        }
    }

    /// The links that a bridge's rule names and that are there, in order.
    fn ports(&self, rule: &PortRule) -> Vec<&'a Link> {
        match rule {
            PortRule::None => Vec::new(),
            PortRule::Auto => self.wanted.auto.and_then(|index| self.world.numbered(index)).into_iter().collect(),
            PortRule::Named(names) => names.iter().filter_map(|name| self.usable(name)).collect(),
        }
    }

    /// A port that the configuration names, if it is there and no guest's.
    fn usable(&self, name: &str) -> Option<&'a Link> {
        self.world.named(name).filter(|link| !self.world.guests.contains(&link.index))
    }

    fn release_ports(&mut self) {
        let plan = self.wanted.plan;
        for (port, master) in &self.made.ports {
            let Some(link) = self.world.named(port) else { continue };
            let Some(there) = link.master.and_then(|index| self.world.numbered(index)) else { continue };
            let stays = if let Some(bridge) = plan.bridges.get(master) {
                // An automatic port that is not chosen yet is about to be.
                let undecided = bridge.ports == PortRule::Auto && self.wanted.auto.is_none();
                undecided || self.ports(&bridge.ports).iter().any(|wanted| wanted.index == link.index)
            } else if let Some(bond) = plan.bonds.get(master) {
                bond.ports.contains(port)
            } else {
                // Its bridge goes, or stays as it is for its guests' sake.
                true
            };
            if there.name == *master && !stays {
                self.acts.push(Act::Port { link: link.clone(), master: None });
            }
        }
    }

    fn bond_ports(&mut self) {
        for (name, bond) in &self.wanted.plan.bonds {
            let Some(master) = self.own(name, Kind::Bond) else { continue };
            let ports: Vec<&Link> = bond.ports.iter().filter_map(|port| self.usable(port)).collect();
            for port in ports {
                if port.master != Some(master.index) {
                    // The bonding driver takes a card only when it is down, and sets it up itself.
                    if port.up {
                        self.acts.push(Act::Up { link: port.clone(), up: false });
                    }
                    self.acts.push(Act::Port { link: port.clone(), master: Some((master.index, name.clone())) });
                }
            }
        }
    }

    fn bridge_ports(&mut self) {
        for (name, bridge, master) in self.bridges() {
            for port in self.ports(&bridge.ports) {
                if port.master != Some(master.index) {
                    self.acts.push(Act::Port { link: port.clone(), master: Some((master.index, name.clone())) });
                }
            }
        }
    }

    /// All that is below a bridge, bond or VLAN link and therefore has no address of its own.
    fn lower_links(&self) -> Vec<&'a Link> {
        let plan = self.wanted.plan;
        let mut lower: Vec<&Link> = plan.bridges.values().flat_map(|bridge| self.ports(&bridge.ports)).collect();
        lower.extend(plan.bonds.values().flat_map(|bond| &bond.ports).filter_map(|name| self.usable(name)));
        lower.extend(plan.vlans.values().filter_map(|vlan| self.usable(&vlan.below)));
        lower.extend(self.wanted.raise.iter().filter_map(|&index| self.world.numbered(index)));
        lower.sort_by_key(|link| link.index);
        lower.dedup_by_key(|link| link.index);
        lower
    }

    fn setting(&mut self, path: String, value: &'static str) {
        // A kernel without IPv6 has no such setting, and needs none.
        if (self.world.setting)(&path).is_some_and(|now| now != value) {
            self.acts.push(Act::Setting { path, value });
        }
    }

    fn settings(&mut self) {
        for link in self.lower_links() {
            self.setting(format!("ipv6/conf/{}/disable_ipv6", link.name), "1");
        }
        let hosts = self.host_links();
        for (_, _, bridge, link) in &hosts {
            let name = &link.name;
            self.setting(format!("ipv4/conf/{name}/promote_secondaries"), "1");
            // 2: also on a host that forwards packets. Source: kernel `Documentation/networking/ip-sysctl.rst`.
            self.setting(format!("ipv6/conf/{name}/accept_ra"), if bridge.slaac { "2" } else { "0" });
            self.setting(format!("ipv6/conf/{name}/autoconf"), if bridge.slaac { "1" } else { "0" });
            // On a bridge that is for guests only the host is not to be reached.
            self.setting(format!("ipv6/conf/{name}/disable_ipv6"), if bridge.serves_host() { "0" } else { "1" });
        }
        for (name, _, link) in self.bridges() {
            if hosts.iter().all(|(_, _, _, host)| host.index != link.index) {
                self.setting(format!("ipv6/conf/{name}/disable_ipv6"), "1");
            }
        }
    }

    fn mtus(&mut self) {
        let plan = self.wanted.plan;
        // What is below comes before what is above it: a VLAN link cannot have more than its card.
        let mut wanted: Vec<(&Link, u32)> = Vec::new();
        let mut want = |link: &'a Link, mtu: u32| match wanted.iter_mut().find(|(other, _)| other.index == link.index) {
            Some((_, largest)) => *largest = mtu.max(*largest),
            None => wanted.push((link, mtu)),
        };
        for (name, bridge, link) in self.bridges() {
            let leased = self.wanted.leases.get(name).and_then(|lease| lease.mtu).map(u32::from);
            let leased = leased.filter(|mtu| bridge.dhcp && *mtu >= addresses::SMALLEST_MTU);
            let Some(mtu) = bridge.mtu.or(leased) else { continue };
            for port in self.ports(&bridge.ports) {
                // A small MTU in a lease is the host's affair; guests' packets still pass.
                let mtu = if bridge.mtu.is_some() { mtu } else { mtu.max(port.mtu) };
                if let Some(below) = plan.vlans.get(&port.name).and_then(|vlan| self.usable(&vlan.below)) {
                    for card in self.bonded(below) {
                        want(card, mtu.max(card.mtu));
                    }
                    want(below, mtu.max(below.mtu));
                }
                for card in self.bonded(port) {
                    want(card, mtu);
                }
                want(port, mtu);
            }
            want(link, mtu);
            if let Some(host) = bridge.host_vlan.and_then(|_| self.own(&Plan::host_link(name, bridge), Kind::Vlan)) {
                want(host, mtu);
            }
        }
        // While a link is made anew, what is below it keeps its MTU.
        let rebuilding = self.acts.iter().any(|act| matches!(act, Act::Create { .. }));
        for name in self.made.mtus.keys().filter(|_| !rebuilding) {
            if let Some(link) = self.world.named(name)
                && wanted.iter().all(|(other, _)| other.index != link.index)
            {
                // Also when it is so already: then it is no longer the configuration's.
                self.acts.push(Act::Mtu { link: link.clone(), mtu: ETHERNET_MTU, own: false });
            }
        }
        for (link, mtu) in wanted {
            if link.mtu != mtu {
                self.acts.push(Act::Mtu { link: link.clone(), mtu, own: true });
            }
        }
    }

    /// The cards in a bond of the plan; none for any other link.
    fn bonded(&self, link: &Link) -> Vec<&'a Link> {
        let bond = self.wanted.plan.bonds.get(&link.name);
        bond.map(|bond| bond.ports.iter().filter_map(|name| self.usable(name)).collect()).unwrap_or_default()
    }

    fn macs(&mut self) {
        // A bond that was made while its first card was not there yet has another one's until that comes.
        for (name, bond) in &self.wanted.plan.bonds {
            let Some(link) = self.own(name, Kind::Bond) else { continue };
            let first = bond.ports.first().and_then(|port| self.usable(port));
            let mac = first.filter(|card| card.master == Some(link.index)).and_then(|card| card.permanent_mac);
            if let Some(mac) = mac.filter(|_| mac != link.mac) {
                self.acts.push(Act::Mac { link: link.clone(), mac });
            }
        }
        for (_, bridge, link) in self.bridges() {
            // A bond has its cards' address only when there is a card in it.
            let tells = |port: &&Link| {
                port.master == Some(link.index)
                    && (port.kind.as_deref() != Some("bond") || self.world.ports_of(port.index).next().is_some())
            };
            let ports = self.ports(&bridge.ports);
            let mac = bridge.mac.or_else(|| ports.first().copied().filter(tells).and_then(|port| port.mac));
            if let Some(mac) = mac.filter(|_| mac != link.mac) {
                self.acts.push(Act::Mac { link: link.clone(), mac });
            }
        }
    }

    fn raise(&mut self) {
        let plan = self.wanted.plan;
        let mut links = self.lower_links();
        links.extend(plan.bonds.keys().filter_map(|name| self.own(name, Kind::Bond)));
        links.extend(plan.vlans.keys().filter_map(|name| self.own(name, Kind::Vlan)));
        links.extend(self.bridges().into_iter().map(|(_, _, link)| link));
        links.extend(self.host_links().into_iter().map(|(_, _, _, link)| link));
        let mut seen = BTreeSet::new();
        for link in links.into_iter().filter(|link| !link.up && seen.insert(link.index)) {
            // A port that this round takes down for its bond is set up by the bond.
            self.acts.push(Act::Up { link: link.clone(), up: true });
        }
    }
}

/// The MAC address that is the card's own, also while it is in a bond.
fn own_mac(card: &Link) -> Option<Mac> {
    card.permanent_mac.or(card.mac)
}

#[cfg(test)]
mod tests;
