//! Tells what the network is now: `network.json`, `resolv.conf`, reports.

use super::clients::carrier;
use super::{Engine, Report, now};
use crate::netlink::{Address, Link, mac_text};
use crate::network::plan::{Bridge, Plan, PortRule};
use crate::network::resolv;
use crate::network::state::{self, AddressState, BridgeState, FORMAT, NetworkState, Origin, PortState};
use crate::network::world::World;

/// `IFAPROT_KERNEL_RA` of `include/uapi/linux/if_addr.h`.
const ANNOUNCED: u8 = 2;

impl Engine {
    pub(super) fn publish(&mut self, world: &World) {
        let mut bridges = std::collections::BTreeMap::<String, BridgeState>::new();
        for (name, wanted) in &self.plan.bridges {
            let Some(link) = world.named(name) else { continue };
            if link.up && self.reported_up.insert(name.clone()) {
                let after = now().saturating_sub(self.began);
                self.reports.send(Report::BridgeUp { bridge: name.clone(), after });
            }
            let state = self.bridge_state(world, name, wanted, link);
            self.tell_carrier(name, &state);
            bridges.insert(name.clone(), state);
        }
        let leases = self.leases();
        let announced = bridges.iter().map(|(name, bridge)| (name.clone(), bridge.name_servers.clone())).collect();
        let (dns, search) = resolv::sources(&self.plan, &leases, &announced);
        let made = self.made.clone();
        let conflicts =
            self.clients.iter().filter_map(|(name, client)| Some(format!("{name}: {}", client.conflict()?)));
        let warnings = self.troubles.union(&self.missing).cloned().chain(conflicts).collect();
        self.write_state(NetworkState { format: FORMAT, managed: true, bridges, dns, search, warnings, made });
        if self.addresses_begun {
            self.write_resolv_conf();
        }
    }

    pub(super) fn publish_unmanaged(&mut self) {
        let made = self.made.clone();
        self.write_state(NetworkState { format: FORMAT, made, ..NetworkState::default() });
    }

    fn write_state(&mut self, state: NetworkState) {
        let changed = state != self.state;
        if changed || !self.unwritten.is_empty() {
            let written = serde_json::to_string_pretty(&state).map_err(Into::into);
            match written.and_then(|text| state::write(&self.settings.state, &text)) {
                Ok(()) => self.unwritten.clear(),
                Err(error) => {
                    self.tell_unwritten(format!("{error:#}; a new supervisor would know less of the network"));
                }
            }
        }
        let told = std::mem::replace(&mut self.state_told, true);
        if changed || !told {
            self.state = state.clone();
            self.reports.send(Report::Changed(Box::new(state)));
        }
    }

    fn write_resolv_conf(&mut self) {
        let text = resolv::text(&self.state.dns, &self.state.search);
        if text != self.resolv_conf {
            match state::write(&self.settings.resolv_conf, &text) {
                Ok(()) => self.resolv_conf = text,
                Err(error) => self.tell_unwritten(format!("{error:#}; names cannot be looked up")),
            }
        }
    }

    /// Says what cannot be written, once as long as it is the same.
    fn tell_unwritten(&mut self, text: String) {
        if text != self.unwritten {
            self.reports.say(text.clone(), true);
            self.unwritten = text;
        }
    }

    /// Says when a port of a bridge loses its carrier and when it has it again.
    fn tell_carrier(&self, name: &str, now: &BridgeState) {
        let Some(before) = self.state.bridges.get(name) else { return };
        for port in &now.ports {
            let before = before.ports.iter().find(|other| other.index == port.index).map(|other| other.carrier);
            match (before, port.carrier) {
                (Some(true), false) => {
                    self.reports.say(format!("{name}: {} has lost its carrier; it stays the port", port.name), true);
                }
                (Some(false), true) => self.reports.say(format!("{name}: {} has a carrier", port.name), false),
                _ => {}
            }
        }
    }

    fn bridge_state(&self, world: &World, name: &str, wanted: &Bridge, link: &Link) -> BridgeState {
        let host_link = Plan::host_link(name, wanted);
        let host = world.named(&host_link).map(|host| host.index);
        let client = self.clients.get(name).filter(|_| wanted.dhcp);
        let lease = client.and_then(|client| client.lease.clone());
        let origin = |address: &Address| match address.protocol {
            _ if lease.as_ref().is_some_and(|lease| address.address == lease.address) => Origin::Dhcp,
            crate::netlink::OWN_PROTOCOL => Origin::Static,
            ANNOUNCED => Origin::Slaac,
            _ => Origin::Other,
        };
        let here = |index: u32| Some(index) == host;
        let addresses = world.addresses.iter().filter(|address| here(address.index) && !address.link_local);
        let mut routes: Vec<_> = world.routes.iter().filter(|route| here(route.index) && route.prefix == 0).collect();
        routes.sort_by_key(|route| route.metric);
        let ports = world.ports_of(link.index).filter(|port| !world.guests.contains(&port.index));
        BridgeState {
            up: link.up,
            carrier: carrier(world, &wanted.ports, link),
            mac: link.mac.map(mac_text),
            mtu: link.mtu,
            ports: ports
                .map(|port| PortState {
                    name: port.name.clone(),
                    index: port.index,
                    carrier: port.carrier,
                    automatic: wanted.ports == PortRule::Auto && self.auto == Some(port.index),
                })
                .collect(),
            host_link,
            addresses: addresses
                .map(|address| AddressState {
                    address: format!("{}/{}", address.address, address.prefix),
                    origin: origin(address),
                })
                .collect(),
            gateways: routes.iter().filter_map(|route| route.gateway).collect(),
            dhcp: wanted.dhcp.then(|| client.map_or("not begun", |client| client.state()).to_owned()),
            lease,
            name_servers: host
                .filter(|_| wanted.slaac)
                .map(|host| self.announced.of(host).to_vec())
                .unwrap_or_default(),
            unproven: client.and_then(|client| client.unproven()).cloned(),
        }
    }
}
