//! Tells the neighbours of the host's fixed addresses: a neighbour that has known the address by another MAC address, and a
//! switch that has learned that on another port, would send to where nobody listens, for minutes. A lease's address is its
//! client's to announce, and the bonding driver announces when a bond changes its card.
//!
//! Source: RFC 5227, 2.3 (announcing) and 1.1 (`ANNOUNCE_NUM`, `ANNOUNCE_INTERVAL`).

use super::clients::carrier;
use super::{Engine, now};
use crate::dhcp::announce;
use crate::netlink::Mac;
use crate::network::plan::Plan;
use crate::network::world::World;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The second announcement comes after this time.
const INTERVAL: Duration = Duration::from_secs(2);

/// A link's number, and an address on it.
type Place = (u32, Ipv4Addr);
/// By which MAC address, and by which cards, the host is reached.
type Way = (Mac, Vec<u32>);
/// What was announced.
pub(super) type Announced = BTreeMap<Place, Told>;

/// An address that was announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    way: Way,
    /// When it is announced once more.
    again: Option<Duration>,
}

impl Engine {
    /// When an address is to be announced again.
    pub(super) fn announcement_deadline(&self) -> Option<Duration> {
        self.told.values().filter_map(|told| told.again).min()
    }

    /// Announces what is new, or is reached by another way than before, or is due once more.
    pub(super) fn announce(&mut self, world: &World) {
        let now = now();
        let mut told = Announced::new();
        for (place, way) in self.reached(world) {
            let before = self.told.get(&place).filter(|before| before.way == way);
            let again = match before {
                Some(before) if before.again.is_none_or(|at| at > now) => before.again,
                Some(_) => None,
                None => Some(now + INTERVAL),
            };
            let due = before.is_none_or(|before| before.again.is_some_and(|at| at <= now));
            if due && let Err(error) = announce(place.0, way.0, place.1) {
                // At worst the neighbours find out by themselves, in some minutes.
                log::warn!("announcing {}: {error:#}", place.1);
            }
            told.insert(place, Told { way, again });
        }
        self.told = told;
    }

    /// The fixed addresses that are set and can be reached, with the way there.
    fn reached(&self, world: &World) -> Vec<(Place, Way)> {
        let mut reached = Vec::new();
        for (name, bridge) in &self.plan.bridges {
            let Some(link) = world.named(name).filter(|link| carrier(world, &bridge.ports, link)) else { continue };
            let host = world.named(&Plan::host_link(name, bridge)).filter(|host| host.up && host.ready);
            let Some((host, mac)) = host.and_then(|host| Some((host, host.mac?))) else { continue };
            let ports = world.ports_of(link.index).filter(|port| !world.guests.contains(&port.index) && port.carrier);
            let ports: Vec<u32> = ports.map(|port| port.index).collect();
            for address in bridge.addresses.iter().map(|net| net.address) {
                let is_set = world.addresses.iter().any(|set| (set.index, set.address) == (host.index, address));
                if let (IpAddr::V4(address), true) = (address, is_set) {
                    reached.push(((host.index, address), (mac, ports.clone())));
                }
            }
        }
        reached
    }
}
