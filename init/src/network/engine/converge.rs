//! Looks at the network and does what differs from the plan.

use super::{Engine, Report, now};
use crate::netlink::{Refused, Restless};
use crate::network::apply::apply;
use crate::network::difference::{Act, Wanted, difference};
use crate::network::plan::PortRule;
use crate::network::ports::{Choice, choose};
use crate::network::world::World;
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

/// Rounds of looking and doing in a row: a VLAN link on a bond in a bridge with a host VLAN takes five.
const ROUNDS: usize = 12;
/// `ENODEV` of `include/uapi/asm-generic/errno-base.h`.
const NO_DEVICE: i32 = 19;
/// What failed is tried again after this time, and then after twice as long, up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Links that come and go too fast to be listed are said after this time: a hundred guests at once take seconds.
const RESTLESS_PATIENCE: Duration = Duration::from_secs(15);
/// How soon they are listed again if no event comes before.
const RESTLESS_PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    /// Makes the network what it should be, as far as that is possible now, and tells what came of it.
    pub(super) fn converge(&mut self) {
        if !self.plan.managed {
            self.leave_alone();
            return;
        }
        let mut failed: Vec<Act> = Vec::new();
        let mut troubles: BTreeSet<String> = self.left_out.iter().cloned().collect();
        for round in 0..ROUNDS {
            let world = match World::read(&mut self.connection, &self.settings.places, self.settings.cards) {
                Ok(world) => {
                    self.restless = None;
                    self.settled(world)
                }
                Err(error) if self.is_patient_with(&error) => return,
                Err(error) => {
                    self.tell_troubles([format!("the network cannot be looked at: {error:#}")].into());
                    self.put_off(true);
                    return;
                }
            };
            self.made.forget_what_is_gone(&world);
            let choice = self.choose_port(&world);
            let leases = self.leases();
            let wanted = Wanted {
                plan: &self.plan,
                auto: choice.port,
                raise: &choice.raise,
                leases: &leases,
                addresses: self.addresses_begun,
                now_s: now().as_secs(),
            };
            let (mut acts, obstacles) = difference(&wanted, &world, &self.made);
            acts.retain(|act| !failed.contains(act));
            if acts.is_empty() || round + 1 == ROUNDS {
                if self.tend_clients(&world) && round + 1 < ROUNDS {
                    continue;
                }
                troubles.extend(obstacles);
                self.missing = self.missing_in(&world);
                if self.missing_deadline().is_none() {
                    troubles.extend(self.missing.iter().cloned());
                }
                self.tell_troubles(troubles);
                self.put_off(!failed.is_empty());
                self.announce(&world);
                self.publish(&world);
                return;
            }
            for act in acts {
                if let Err(error) = apply(&mut self.connection, &act, &mut self.made) {
                    // What went away in the meantime is no trouble: the next round sees it gone.
                    // Its folder below /proc/sys moves when udev renames a card.
                    let gone = error.downcast_ref::<Refused>().is_some_and(|refused| refused.errno == NO_DEVICE)
                        || error
                            .downcast_ref::<io::Error>()
                            .is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
                    if !gone {
                        troubles.insert(format!("{error:#}"));
                        failed.push(act);
                    }
                }
            }
        }
    }

    /// Notes which cards are still udev's.
    fn settled(&mut self, mut world: World) -> World {
        let now = now();
        self.first_seen.retain(|index, _| world.cards.contains_key(index));
        self.settles = None;
        for &index in world.cards.keys() {
            let first_seen = *self.first_seen.entry(index).or_insert(now);
            let until = first_seen + self.settings.udev_patience;
            let in_use = world.numbered(index).is_some_and(|link| link.master.is_some());
            if until > now && !in_use && !self.settings.places.udev.join(format!("n{index}")).exists() {
                world.unsettled.insert(index);
                self.settles = Some(self.settles.map_or(until, |settles| settles.min(until)));
            }
        }
        world
    }

    fn choose_port(&mut self, world: &World) -> Choice {
        let plan = &self.plan;
        let Some(bridge) = plan.bridges.iter().find(|(_, bridge)| bridge.ports == PortRule::Auto).map(|(name, _)| name)
        else {
            self.auto = None;
            return Choice::default();
        };
        let named = plan.named_ports();
        let choice = choose(world, bridge, self.auto, |name| named.contains(name));
        // A port that an earlier engine chose is ours, too, whatever udev calls it now.
        let index = world.named(bridge).map(|link| link.index);
        if let Some(link) = choice
            .port
            .and_then(|port| world.numbered(port))
            .filter(|link| link.master.is_some() && link.master == index)
        {
            self.made.ports.insert(link.name.clone(), bridge.clone());
        }
        if choice.port != self.auto {
            if let Some(link) = choice.port.and_then(|index| world.numbered(index)) {
                let (bridge, port) = (bridge.clone(), link.name.clone());
                let after = now().saturating_sub(self.began);
                self.reports.send(Report::PortChosen { bridge, port, after });
            }
            self.auto = choice.port;
        }
        choice
    }

    /// Says what is new of what stands in the way.
    fn tell_troubles(&mut self, troubles: BTreeSet<String>) {
        for trouble in troubles.difference(&self.troubles) {
            self.reports.say(trouble.clone(), true);
        }
        self.troubles = troubles;
    }

    /// When what is missing is said; `None`: nothing is, or the time is over.
    pub(super) fn missing_deadline(&self) -> Option<Duration> {
        let at = self.began + self.settings.missing_patience;
        (!self.missing.is_empty() && at > now()).then_some(at)
    }

    /// What the plan names or needs and is not there.
    fn missing_in(&self, world: &World) -> BTreeSet<String> {
        let mut missing = BTreeSet::new();
        for (name, bridge) in &self.plan.bridges {
            if bridge.ports == PortRule::Auto && self.auto.is_none() {
                let cards: Vec<&str> = world
                    .cards
                    .keys()
                    .filter_map(|&index| world.numbered(index))
                    .map(|link| link.name.as_str())
                    .collect();
                missing.insert(if cards.is_empty() {
                    format!("{name} has no port: no network card was found; look at `dmesg` for its driver or firmware")
                } else {
                    format!(
                        "{name} has no port: none of {} has a carrier that it could use; plug in a cable",
                        cards.join(", ")
                    )
                });
            }
        }
        for name in self.plan.named_ports() {
            if world.named(name).is_none() && !self.plan.bonds.contains_key(name) && !self.plan.vlans.contains_key(name)
            {
                missing.insert(format!(
                    "there is no network card {name}, which the configuration names; `ip link` shows what there is"
                ));
            }
        }
        missing
    }

    /// Whether links come and go so fast that they cannot be listed, and not for long yet: then it looks again when they rest.
    fn is_patient_with(&mut self, error: &anyhow::Error) -> bool {
        let now = now();
        let patient = error.is::<Restless>() && now < *self.restless.get_or_insert(now) + RESTLESS_PATIENCE;
        if patient {
            self.retry = Some((now + RESTLESS_PAUSE, FIRST_RETRY));
        }
        patient
    }

    fn put_off(&mut self, failed: bool) {
        self.retry = failed.then(|| {
            let pause = self.retry.map_or(FIRST_RETRY, |(_, pause)| (pause * 2).min(LONGEST_RETRY));
            (now() + pause, pause)
        });
    }

    /// The network is the administrator's.
    fn leave_alone(&mut self) {
        self.settles = None;
        self.retry = None;
        self.missing.clear();
        self.clients.clear();
        if !std::mem::replace(&mut self.left_alone, true) {
            let text = "network.managed is false: SINO leaves the network to Debian's own configuration";
            self.reports.say(text, false);
        }
        self.publish_unmanaged();
    }
}
