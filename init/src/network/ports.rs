//! The automatic port: which network card it is.
//!
//! It is the first card, in the order of the machine's buses, that has a carrier. Once chosen it stays, also without a
//! carrier, and there is never a second: two cables in one switch would be a loop. Only when the card itself goes away (a USB
//! card is pulled, a driver is loaded anew) is there another choice.

use super::world::World;
use crate::netlink::Link;
use std::cmp::Ordering;
use std::fs;
use std::path::Path;

/// Which links count as network cards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CardRule {
    /// Wired cards with a device behind them.
    #[default]
    Real,
    /// Also veth links, for tests.
    AnyEthernet,
}

impl CardRule {
    /// Whether `link` is a wired network card: Ethernet with a device of its own, neither wireless nor made by software.
    #[must_use]
    pub fn is_card(self, class: &Path, link: &Link) -> bool {
        let path = class.join(&link.name);
        let real = link.kind.is_none()
            && path.join("device").exists()
            && !path.join("wireless").exists()
            && !path.join("phy80211").exists()
            // A virtual function is there to be given to a guest.
            && !path.join("device/physfn").exists();
        let veth = self == Self::AnyEthernet && link.kind.as_deref() == Some("veth");
        link.ethernet && (real || veth)
    }
}

/// A card's place in the machine; the lower one is the first card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The path of its device below `/sys/devices`.
    pub path: String,
    /// Which port of that device it is.
    pub port: u32,
    /// Its name, where the rest is the same.
    pub name: String,
}

impl Place {
    /// The place of a link.
    #[must_use]
    pub fn of(class: &Path, name: &str) -> Self {
        let link = class.join(name);
        let device = fs::canonicalize(link.join("device")).or_else(|_| fs::canonicalize(&link)).unwrap_or_default();
        let port =
            fs::read_to_string(link.join("dev_port")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self { path: device.to_string_lossy().into_owned(), port, name: name.to_owned() }
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        let paths = || {
            let (mut ours, mut theirs) = (self.path.split('/'), other.path.split('/'));
            loop {
                match (ours.next(), theirs.next()) {
                    (None, None) => return Ordering::Equal,
                    (one, two) => match by_component(one.unwrap_or_default(), two.unwrap_or_default()) {
                        Ordering::Equal => {}
                        unequal => return unequal,
                    },
                }
            }
        };
        // The plain text decides last, so that only equal places compare as equal.
        paths()
            .then_with(|| self.port.cmp(&other.port))
            .then_with(|| by_number(&self.name, &other.name))
            .then_with(|| (&self.path, &self.name).cmp(&(&other.path, &other.name)))
    }
}

/// PCI addresses are hexadecimal and of a fixed width; in everything else a run of digits is a number.
fn by_component(one: &str, two: &str) -> Ordering {
    let pci = |text: &str| {
        let parts: Vec<&str> = text.split([':', '.']).collect();
        let hex = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        parts.len() == 4 && parts.iter().all(hex)
    };
    match (pci(one), pci(two)) {
        (true, true) => one.cmp(two),
        (false, false) => by_number(one, two),
        (one, two) => two.cmp(&one),
    }
}

fn by_number(one: &str, two: &str) -> Ordering {
    let (mut one, mut two) = (one, two);
    loop {
        let ((a, rest_a), (b, rest_b)) = (run(one), run(two));
        let number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = if number(a) && number(b) {
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        } else {
            a.cmp(b)
        };
        if order != Ordering::Equal || (a.is_empty() && b.is_empty()) {
            return order;
        }
        (one, two) = (rest_a, rest_b);
    }
}

/// The digits, or the other characters, that a text begins with, and the rest.
fn run(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

/// What to do about the automatic port of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The number of the card that is the port.
    pub port: Option<u32>,
    /// While there is none: the cards that must be up to tell whether they have a carrier.
    pub raise: Vec<u32>,
}

/// Chooses the automatic port of `bridge`. `before` is the card that was chosen last; `named` tells whether the configuration
/// uses a card elsewhere.
#[must_use]
pub fn choose(world: &World, bridge: &str, before: Option<u32>, named: impl Fn(&str) -> bool) -> Choice {
    let bridge = world.named(bridge).map(|link| link.index);
    let mut candidates: Vec<(&Place, &Link)> = world
        .cards
        .iter()
        .filter_map(|(&index, place)| Some((place, world.numbered(index)?)))
        .filter(|(_, link)| !named(&link.name) && (link.master.is_none() || link.master == bridge))
        .collect();
    candidates.sort_by_key(|found| found.0);
    let port = |found: &&(&Place, &Link)| Some(found.1.index) == before;
    let member = |found: &&(&Place, &Link)| found.1.master.is_some();
    // What is in the bridge stays; if that is not known, it is what a supervisor before this one chose.
    let stays = candidates.iter().find(port).or_else(|| candidates.iter().find(member));
    let settled = |found: &&(&Place, &Link)| !world.unsettled.contains(&found.1.index);
    let first = || candidates.iter().filter(settled).find(|(_, link)| link.carrier);
    if let Some((_, link)) = stays.or_else(first) {
        return Choice { port: Some(link.index), raise: Vec::new() };
    }
    Choice { port: None, raise: candidates.iter().filter(settled).map(|(_, link)| link.index).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn place(path: &str, name: &str) -> Place {
        Place { path: path.into(), port: 0, name: name.into() }
    }

    fn world(cards: &[(u32, &str, bool, Option<u32>)]) -> World {
        let mut links: Vec<Link> = cards
            .iter()
            .map(|&(index, name, carrier, master)| Link {
                index,
                name: name.into(),
                carrier,
                master,
                ..Link::default()
            })
            .collect();
        let cards: BTreeMap<u32, Place> =
            links.iter().map(|link| (link.index, place("/sys/devices/x", &link.name))).collect();
        links.push(Link { index: 1, name: "xenbr0".into(), ..Link::default() });
        World {
            links,
            addresses: Vec::new(),
            routes: Vec::new(),
            cards,
            guests: [].into(),
            unsettled: [].into(),
            setting: |_| None,
        }
    }

    #[test]
    fn the_first_card_is_the_one_on_the_lowest_bus() {
        let order = [
            place("/sys/devices/pci0000:00/0000:00:02.0/0000:09:00.0", "enp9s0"),
            place("/sys/devices/pci0000:00/0000:00:02.0/0000:0b:00.0", "enp11s0"),
            place("/sys/devices/pci0000:00/0000:00:02.0/0000:10:00.0", "enp16s0"),
            place("/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0", "a"),
            place("/sys/devices/pci0000:00/0000:00:14.0/usb1/1-10/1-10:1.0", "b"),
            place("/sys/devices/pci0000:00/0000:00:1f.6", "eno1"),
        ];
        let mut shuffled = order.to_vec();
        shuffled.reverse();
        shuffled.sort();
        assert_eq!(shuffled, order);
        assert!(place("/x", "eth9") < place("/x", "eth10"));
        assert!(Place { port: 1, ..place("/x", "a") } > Place { port: 0, ..place("/x", "b") });
    }

    #[test]
    fn the_first_with_a_carrier_is_taken_and_stays() {
        let mut world = world(&[(10, "eth10", true, None), (9, "eth9", false, None), (11, "eth11", true, None)]);
        let choose = |world: &World, before| choose(world, "xenbr0", before, |name| name == "eth11");
        assert_eq!(choose(&world, None).port, Some(10));
        // It is another's choice when that card goes, not when its carrier does.
        world.links[0].carrier = false;
        assert_eq!(choose(&world, Some(10)).port, Some(10));
        assert_eq!(choose(&world, None), Choice { port: None, raise: vec![9, 10] });
        world.links[1].master = Some(1);
        assert_eq!(choose(&world, None).port, Some(9));
        // A card that udev has not finished with waits.
        world.links[1].master = None;
        world.links[0].carrier = true;
        world.unsettled.insert(10);
        assert_eq!(choose(&world, None), Choice { port: None, raise: vec![9] });
        // One that is in another bridge is none.
        world.links[1].master = Some(7);
        assert_eq!(choose(&world, None), Choice { port: None, raise: vec![] });
    }

    proptest! {
        #[test]
        fn places_have_an_order(a in "[a-c0-9:./]{0,12}", b in "[a-c0-9:./]{0,12}") {
            let (a, b) = (place(&a, "x"), place(&b, "x"));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
        }
    }
}
