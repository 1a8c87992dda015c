//! The host's addresses and routes.

use super::{Act, Round};
use crate::dhcp::lease::Lease;
use crate::netlink::{Link, OWN_PROTOCOL, Route};
use crate::network::plan::{Bridge, Net};
use std::net::IpAddr;

/// The smallest MTU that a lease may set: less is a mistake or an attack. Source: RFC 791 (576 is what every host takes).
pub(super) const SMALLEST_MTU: u32 = 576;
/// The metric of fixed routes; those of the next bridge in the order of names have one more.
const FIXED_METRIC: u32 = 100;
/// The metric of a lease's routes: a fixed gateway goes before a lease's.
const LEASE_METRIC: u32 = 200;
/// By how many seconds the kernel's count of an address's remaining time may differ from ours.
const TOLERANCE_S: u32 = 5;
/// `IFAPROT_KERNEL_RA` of `include/uapi/linux/if_addr.h`: the kernel made the address from a router's announcement.
const ANNOUNCED_ADDRESS: u8 = 2;
/// `RTPROT_RA` and `RTPROT_KERNEL` of `include/uapi/linux/rtnetlink.h`.
const ANNOUNCED_ROUTE: u8 = 9;

/// Seconds for which a lease's address remains; `None`: for ever.
pub(in crate::network) fn remaining_s(lease: &Lease, now_s: u64) -> Option<u32> {
    if lease.lease_s == u32::MAX {
        return None;
    }
    let ends = lease.began.saturating_add(lease.lease_s.into());
    Some(u32::try_from(ends.saturating_sub(now_s)).unwrap_or(u32::MAX - 1))
}

/// The addresses that are wanted, with the seconds for which they remain.
fn wanted_addresses(bridge: &Bridge, lease: Option<&Lease>, now_s: u64) -> Vec<(Net, Option<u32>)> {
    let mut wanted: Vec<_> = bridge.addresses.iter().map(|&net| (net, None)).collect();
    if let Some(lease) = lease.filter(|_| bridge.dhcp) {
        let net = Net { address: lease.address.into(), prefix: lease.prefix };
        let remaining = remaining_s(lease, now_s);
        if remaining != Some(0) && wanted.iter().all(|(other, _)| *other != net) {
            wanted.push((net, remaining));
        }
    }
    wanted
}

/// The routes that are wanted: destination, router, metric. `place` is the bridge's among the bridges.
fn wanted_routes(bridge: &Bridge, lease: Option<&Lease>, place: usize) -> Vec<(Net, Option<IpAddr>, u32)> {
    let place = u32::try_from(place).unwrap_or(0).min(LEASE_METRIC - FIXED_METRIC - 1);
    let mut wanted: Vec<_> =
        bridge.routes.iter().map(|route| (route.to, route.gateway, FIXED_METRIC + place)).collect();
    let Some(lease) = lease.filter(|_| bridge.dhcp) else { return wanted };
    let metric = LEASE_METRIC + place;
    // With classless routes the routers count for nothing. Source: RFC 3442, "DHCP Client Behavior".
    if lease.routes.is_empty() {
        let router = lease.routers.first().filter(|router| !router.is_unspecified());
        wanted.extend(router.map(|&router| (Net::any(router.into()), Some(router.into()), metric)));
    }
    for route in lease.routes.iter().filter(|route| route.prefix <= 32) {
        let to = Net { address: route.destination.into(), prefix: route.prefix }.base();
        let gateway = route.gateway.filter(|gateway| !gateway.is_unspecified()).map(IpAddr::from);
        if wanted.iter().all(|(other, _, other_metric)| (*other, *other_metric) != (to, metric)) {
            wanted.push((to, gateway, metric));
        }
    }
    wanted
}

impl<'a> Round<'a> {
    pub(super) fn addresses(&mut self) {
        let hosts = self.host_links();
        let mut routes: Vec<(&'a Link, Route, bool)> = Vec::new();
        let mut addresses: Vec<(u32, Net)> = Vec::new();
        for (place, name, bridge, link) in &hosts {
            let lease = self.wanted.leases.get(*name);
            for (net, lifetime) in wanted_addresses(bridge, lease, self.wanted.now_s) {
                addresses.push((link.index, net));
                self.put_address(link, net, lifetime);
            }
            let on_link = |gateway: IpAddr| {
                let near = addresses.iter().any(|(index, net)| *index == link.index && net.contains(gateway));
                near || matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local())
            };
            for (to, gateway, metric) in wanted_routes(bridge, lease, *place) {
                let (index, protocol) = (link.index, OWN_PROTOCOL);
                let route = Route { index, destination: to.address, prefix: to.prefix, gateway, metric, protocol };
                routes.push((link, route, gateway.is_some_and(|gateway| !on_link(gateway))));
            }
        }
        let silent = |index: u32| hosts.iter().any(|(_, _, bridge, link)| link.index == index && !bridge.slaac);
        for route in &self.world.routes {
            let stale = route.protocol == OWN_PROTOCOL && routes.iter().all(|(_, wanted, _)| wanted != route);
            let announced = route.protocol == ANNOUNCED_ROUTE && silent(route.index);
            if let Some(link) = self.world.numbered(route.index).filter(|_| stale || announced) {
                self.acts.push(Act::DropRoute { link: link.clone(), route: route.clone() });
            }
        }
        for address in self.world.addresses.iter().filter(|address| !address.link_local) {
            let net = Net { address: address.address, prefix: address.prefix };
            let stale = address.protocol == OWN_PROTOCOL && !addresses.contains(&(address.index, net));
            let announced = address.protocol == ANNOUNCED_ADDRESS && silent(address.index);
            if let Some(link) = self.world.numbered(address.index).filter(|_| stale || announced) {
                self.acts.push(Act::DropAddress { link: link.clone(), address: address.clone() });
            }
        }
        for (link, route, onlink) in routes {
            // Before the link is up the kernel refuses it; the link's change brings another round.
            if link.up && !self.world.routes.contains(&route) {
                self.acts.push(Act::AddRoute { link: link.clone(), route, onlink });
            }
        }
    }

    fn put_address(&mut self, link: &'a Link, net: Net, lifetime: Option<u32>) {
        let there =
            self.world.addresses.iter().find(|address| {
                (address.index, address.address, address.prefix) == (link.index, net.address, net.prefix)
            });
        let same = there.is_some_and(|there| match (there.valid_s, lifetime) {
            (None, None) => true,
            (Some(there), Some(wanted)) => there.abs_diff(wanted) <= TOLERANCE_S,
            _ => false,
        });
        if !same {
            let (address, prefix) = (net.address, net.prefix);
            self.acts.push(Act::PutAddress { link: link.clone(), address, prefix, lifetime });
        }
    }
}
