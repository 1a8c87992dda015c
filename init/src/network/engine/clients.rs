//! The DHCP clients: one for each bridge that asks for a lease.

use super::{Engine, Report, now};
use crate::dhcp::lease::Lease;
use crate::dhcp::{Endpoint, Event, Settings};
use crate::netlink::{Link, Mac};
use crate::network::difference::remaining_s;
use crate::network::plan::{Plan, PortRule};
use crate::network::state::BridgeState;
use crate::network::world::World;
use rustix::fd::BorrowedFd;
use std::collections::BTreeMap;
use std::time::Duration;

/// When an endpoint that could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The DHCP client of a bridge.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) lease: Option<Lease>,
    running: Option<Running>,
    /// A lease that an earlier endpoint was granted and had not probed to its end.
    unproven: Option<Lease>,
    /// Whether the lease is an earlier engine's, so that the endpoint goes on with it.
    taken_over: bool,
    /// Whether the earlier engine saw no carrier, or was not done with verifying the lease since it came back.
    verify: bool,
    again: Option<Duration>,
}

/// An endpoint, and for what it was opened.
#[derive(Debug)]
struct Running {
    endpoint: Endpoint,
    index: u32,
    mac: Mac,
    hostname: Option<String>,
    carrier: bool,
}

impl Client {
    /// Goes on where an earlier engine was killed; `None`: it had no lease.
    pub(super) fn from_record(bridge: &BridgeState) -> Option<Self> {
        let (lease, unproven) = (bridge.lease.clone(), bridge.unproven.clone());
        if lease.is_none() && unproven.is_none() {
            return None;
        }
        // What is over is only a wish.
        let taken_over = lease.as_ref().is_some_and(|lease| remaining_s(lease, now().as_secs()) != Some(0));
        let verify = taken_over && (!bridge.carrier || bridge.dhcp.as_deref() == Some("verifying"));
        Some(Self { lease, unproven, taken_over, verify, ..Self::default() })
    }

    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.running.as_ref().map(|running| running.endpoint.fds()).unwrap_or_default()
    }

    pub(super) fn state(&self) -> &'static str {
        match &self.running {
            Some(running) => running.endpoint.state(),
            None if self.taken_over && self.verify => "verifying",
            None if self.taken_over => "bound",
            None => "waiting for a carrier",
        }
    }

    pub(super) fn conflict(&self) -> Option<&str> {
        self.running.as_ref().and_then(|running| running.endpoint.conflict())
    }

    pub(super) fn unproven(&self) -> Option<&Lease> {
        self.running.as_ref().map_or(self.unproven.as_ref(), |running| running.endpoint.unproven())
    }

    fn deadline(&self) -> Option<Duration> {
        self.running.as_ref().map_or(self.again, |running| running.endpoint.deadline())
    }
}

/// Whether a bridge has a carrier of its own: guests' interfaces do not count where it has other ports.
pub(super) fn carrier(world: &World, rule: &PortRule, bridge: &Link) -> bool {
    if *rule == PortRule::None {
        return bridge.carrier;
    }
    world.ports_of(bridge.index).any(|port| !world.guests.contains(&port.index) && port.carrier)
}

impl Engine {
    pub(super) fn leases(&self) -> BTreeMap<String, Lease> {
        self.clients.iter().filter_map(|(name, client)| Some((name.clone(), client.lease.clone()?))).collect()
    }

    pub(super) fn client_deadline(&self) -> Option<Duration> {
        self.clients.values().filter_map(Client::deadline).min()
    }

    /// Ends the clients that the configuration no longer wants.
    pub(super) fn drop_unwanted_clients(&mut self) {
        let plan = &self.plan;
        let wanted = |name: &str| plan.managed && plan.bridges.get(name).is_some_and(|bridge| bridge.dhcp);
        self.clients.retain(|name, _| wanted(name));
    }

    /// Starts the clients that are wanted and tells them of the carrier. Returns whether that changed a lease.
    pub(super) fn tend_clients(&mut self, world: &World) -> bool {
        if !self.plan.managed || !self.addresses_begun {
            return false;
        }
        self.drop_unwanted_clients();
        let now = now();
        let (mut events, mut changed) = (Vec::new(), false);
        for (name, bridge) in self.plan.bridges.iter().filter(|(_, bridge)| bridge.dhcp) {
            let client = self.clients.entry(name.clone()).or_default();
            // Over is over, also when there is nothing to be opened now.
            client.again = client.again.filter(|&again| again > now);
            let Some(link) = world.named(name) else { continue };
            let Some(host) = world.named(&Plan::host_link(name, bridge)).filter(|host| host.up) else { continue };
            let Some(mac) = host.mac else { continue };
            // A question that is sent before the link is ready is lost, and the next one comes seconds later.
            let carrier = host.ready && carrier(world, &bridge.ports, link);
            let hostname = &self.settings.hostname;
            let same =
                |running: &Running| (running.index, running.mac, &running.hostname) == (host.index, mac, hostname);
            if let Some(running) = client.running.as_mut().filter(|running| same(running)) {
                if running.carrier != carrier {
                    running.carrier = carrier;
                    events.extend(running.endpoint.link(carrier, now).into_iter().map(|event| (name.clone(), event)));
                }
                continue;
            }
            // The first question waits for a carrier; what an earlier engine began goes on without.
            if client.again.is_some() || !(carrier || client.taken_over || client.running.is_some()) {
                continue;
            }
            // The same link under another name of the host: the lease goes on. Another card's lease does not.
            let before = client.running.take();
            let here = before.as_ref().is_some_and(|running| (running.index, running.mac) == (host.index, mac));
            if let Some(running) = before {
                client.unproven = running.endpoint.unproven().filter(|_| here).cloned();
            }
            let keep = client.taken_over || here;
            client.unproven.take_if(|lease| remaining_s(lease, now.as_secs()) == Some(0));
            let previous = client.unproven.as_ref().or(client.lease.as_ref()).or_else(|| self.known_leases.get(name));
            let settings = Settings {
                mac,
                hostname: hostname.clone(),
                previous: previous.cloned(),
                unproven: client.unproven.is_some(),
            };
            let valid = client.lease.take_if(|lease| keep && remaining_s(lease, now.as_secs()) != Some(0));
            changed |= client.lease.take().is_some();
            client.lease.clone_from(&valid);
            let opened = match valid {
                Some(lease) => Endpoint::resume(&host.name, host.index, settings, lease, now),
                None => Endpoint::open(&host.name, host.index, settings, now),
            };
            match opened {
                Ok(mut endpoint) => {
                    // A lease is verified when the carrier comes back, also when nobody was there to see it.
                    let told =
                        [(!carrier || client.verify).then_some(false), (carrier && client.verify).then_some(true)];
                    for up in told.into_iter().flatten() {
                        events.extend(endpoint.link(up, now).into_iter().map(|event| (name.clone(), event)));
                    }
                    let hostname = hostname.clone();
                    client.running = Some(Running { endpoint, index: host.index, mac, hostname, carrier });
                    (client.taken_over, client.verify, client.unproven) = (false, false, None);
                }
                Err(error) => {
                    client.again = Some(now + AGAIN);
                    let text = format!("{name}: no lease can be asked for: {error:#}; trying again");
                    events.push((name.clone(), Event::Say { warning: true, text }));
                }
            }
        }
        for (name, event) in events {
            changed |= self.hear(&name, event);
        }
        changed
    }

    /// Lets the clients do what is due. Returns whether the network is to be looked at.
    pub(super) fn turn_clients(&mut self, now: Duration) -> bool {
        let mut events = Vec::new();
        let mut look = false;
        for (name, client) in &mut self.clients {
            look |= client.running.is_none();
            if let Some(running) = &mut client.running {
                let before = (running.endpoint.state(), running.endpoint.conflict().is_some());
                events.extend(running.endpoint.turn(now).into_iter().map(|event| (name.clone(), event)));
                // The state is told to people, and to the engine that follows should this one be killed.
                look |= before != (running.endpoint.state(), running.endpoint.conflict().is_some());
            }
        }
        for (name, event) in events {
            self.hear(&name, event);
            look = true;
        }
        look
    }

    /// Takes in what a client says. Returns whether its lease changed.
    fn hear(&mut self, name: &str, event: Event) -> bool {
        let Some(client) = self.clients.get_mut(name) else { return false };
        match event {
            Event::Bound { lease, renewed } => {
                client.lease = Some(lease.clone());
                self.reports.send(Report::Addressed { bridge: name.to_owned(), lease: Box::new(lease), renewed });
                true
            }
            Event::Lost { why } => {
                client.lease = None;
                self.reports.say(format!("{name}: the lease is gone: {why}"), true);
                true
            }
            Event::Say { warning, text } => {
                self.reports.say(text, warning);
                false
            }
        }
    }
}
