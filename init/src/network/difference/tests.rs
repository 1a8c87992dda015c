//! Plans with links whose drivers a test machine need not have, against a kernel that is played.

use super::*;
use crate::config::schema::Network;
use crate::network::ports::Place;
use crate::network::test_lease;

/// Applies an act as the kernel would, as far as the difference can see it.
fn play(act: &Act, world: &mut World, made: &mut Made) {
    let next = world.links.iter().map(|link| link.index).max().unwrap_or(0) + 1;
    let edit = |world: &mut World, link: &Link, change: &dyn Fn(&mut Link)| {
        change(world.links.iter_mut().find(|other| other.index == link.index).expect("an act on a link that is gone"));
    };
    match act {
        Act::Create { name, link, mac } => {
            let mut fresh = Link { index: next, name: name.clone(), mtu: 1500, ethernet: true, ..Link::default() };
            fresh.mac = mac.or(Some([2, 0, 0, 0, 0, u8::try_from(next).unwrap()]));
            match link {
                NewLink::Bridge => fresh.kind = Some("bridge".into()),
                NewLink::Bond(kind) => (fresh.kind, fresh.bond_mode) = (Some("bond".into()), Some(kind.number())),
                NewLink::Vlan { id, below } => {
                    (fresh.kind, fresh.vlan, fresh.below) = (Some("vlan".into()), Some(*id), Some(*below));
                }
            }
            assert!(world.links.iter().all(|link| link.name != *name), "{name} is there already");
            world.links.push(fresh);
            made.links.insert(name.clone());
        }
        Act::Delete { link } => {
            assert!(made.links.remove(&link.name), "{} is not ours", link.name);
            // What is on it goes with it, and its ports are free.
            world.links.retain(|other| other.index != link.index && other.below != Some(link.index));
            for other in &mut world.links {
                other.master = other.master.filter(|&master| master != link.index);
            }
            made.mtus.remove(&link.name);
            let there: BTreeSet<u32> = world.links.iter().map(|link| link.index).collect();
            world.addresses.retain(|address| there.contains(&address.index));
            world.routes.retain(|route| there.contains(&route.index));
        }
        Act::Up { link, up } => edit(world, link, &|link| link.up = *up),
        Act::Port { link, master } => {
            let bond = master
                .as_ref()
                .and_then(|(index, _)| world.numbered(*index))
                .is_some_and(|master| master.kind.as_deref() == Some("bond"));
            assert!(!bond || !world.numbered(link.index).unwrap().up, "the bonding driver takes no card that is up");
            edit(world, link, &|link| {
                link.master = master.as_ref().map(|(index, _)| *index);
                link.up |= bond;
            });
            match master {
                Some((_, name)) => drop(made.ports.insert(link.name.clone(), name.clone())),
                None => drop(made.ports.remove(&link.name)),
            }
        }
        Act::Mtu { link, mtu, own } => {
            let below = link.below.and_then(|index| world.numbered(index)).map_or(u32::MAX, |below| below.mtu);
            assert!(
                link.kind.as_deref() != Some("vlan") || *mtu <= below,
                "a VLAN link cannot have more than its card"
            );
            edit(world, link, &|link| link.mtu = *mtu);
            if *own {
                made.mtus.insert(link.name.clone(), *mtu)
            } else {
                made.mtus.remove(&link.name)
            };
        }
        Act::Mac { link, mac } => edit(world, link, &|link| link.mac = Some(*mac)),
        Act::Setting { .. } => {}
        Act::PutAddress { link, address, prefix, lifetime } => {
            world
                .addresses
                .retain(|other| (other.index, other.address, other.prefix) != (link.index, *address, *prefix));
            let (index, address, prefix, valid_s) = (link.index, *address, *prefix, *lifetime);
            world.addresses.push(Address { index, address, prefix, valid_s, protocol: OWN, link_local: false });
        }
        Act::DropAddress { address, .. } => world.addresses.retain(|other| other != address),
        Act::AddRoute { route, .. } => world.routes.push(route.clone()),
        Act::DropRoute { route, .. } => world.routes.retain(|other| other != route),
    }
}

const OWN: u8 = crate::netlink::OWN_PROTOCOL;

/// A machine with these cards, all up as a firmware might leave them, with index 2 and on.
fn machine(cards: &[&str]) -> World {
    let links: Vec<Link> = cards
        .iter()
        .zip(2..)
        .map(|(name, index)| Link {
            index,
            name: (*name).to_owned(),
            ethernet: true,
            mac: Some([0, 0, 0, 0, 0, u8::try_from(index).unwrap()]),
            mtu: 1500,
            up: true,
            carrier: true,
            ..Link::default()
        })
        .collect();
    World {
        cards: links.iter().map(|link| (link.index, Place::default())).collect(),
        links,
        addresses: Vec::new(),
        routes: Vec::new(),
        guests: BTreeSet::new(),
        unsettled: BTreeSet::new(),
        setting: |_| None,
    }
}

fn plan(config: &str) -> Plan {
    let network: Network = toml::from_str(config).unwrap();
    let (plan, warnings) = Plan::from(&network);
    assert_eq!(warnings, Vec::<String>::new());
    plan
}

/// Does what differs until nothing does, and returns what was done.
fn converge(plan: &Plan, leases: &BTreeMap<String, Lease>, world: &mut World, made: &mut Made) -> Vec<Act> {
    let wanted = Wanted { plan, auto: None, raise: &[], leases, addresses: true, now_s: 1000 };
    let mut all = Vec::new();
    for _ in 0..10 {
        made.forget_what_is_gone(world);
        let (acts, obstacles) = difference(&wanted, world, made);
        assert_eq!(obstacles, Vec::<String>::new());
        if acts.is_empty() {
            return all;
        }
        for act in &acts {
            play(act, world, made);
        }
        all.extend(acts);
    }
    panic!("it does not come to rest: {all:#?}");
}

fn ports(world: &World, name: &str) -> Vec<String> {
    world.ports_of(world.named(name).unwrap().index).map(|link| link.name.clone()).collect()
}

const WHOLE: &str = r#"
    [bond.bond0]
    mode = "802.3ad"
    ports = ["eth0", "eth1"]
    [vlan.guests]
    link = "bond0"
    id = 10
    [bridge.xenbr0]
    ports = ["bond0"]
    addresses = ["192.0.2.5/24"]
    gateways = ["192.0.2.1"]
    host_vlan = 7
    [bridge.lan]
    ports = ["guests", "eth2"]
    mtu = 9000
"#;

#[test]
fn a_bond_with_vlans_below_two_bridges_comes_to_rest() {
    let (mut world, mut made) = (machine(&["eth0", "eth1", "eth2"]), Made::default());
    let plan = plan(WHOLE);
    converge(&plan, &BTreeMap::new(), &mut world, &mut made);
    assert_eq!(ports(&world, "bond0"), ["eth0", "eth1"]);
    assert_eq!(
        (ports(&world, "xenbr0"), ports(&world, "lan")),
        (vec!["bond0".to_owned()], vec!["eth2".into(), "guests".into()])
    );
    let link = |name: &str| world.named(name).unwrap();
    assert_eq!((link("guests").below, link("guests").vlan), (Some(link("bond0").index), Some(10)));
    assert_eq!((link("xenbr0.7").below, link("xenbr0.7").vlan), (Some(link("xenbr0").index), Some(7)));
    // The first port that is named gives the MAC address, and big packets pass on all that is below.
    assert_eq!((link("lan").mac, link("xenbr0").mac), (link("guests").mac, link("bond0").mac));
    assert_eq!(link("bond0").mac, link("eth0").mac);
    assert!(["lan", "guests", "eth2", "bond0", "eth0", "eth1"].iter().all(|name| link(name).mtu == 9000));
    assert!(world.links.iter().all(|link| link.up));
    let host = link("xenbr0.7").index;
    assert_eq!(world.addresses.iter().map(|address| address.index).collect::<Vec<_>>(), [host]);
    assert_eq!(world.routes.iter().map(|route| (route.index, route.metric)).collect::<Vec<_>>(), [(host, 101)]);
}

#[test]
fn a_bond_has_its_first_cards_mac_whatever_order_the_cards_come_in() {
    let plan =
        plan("[bond.bond0]\nports = ['eth0', 'eth1']\n[bridge.xenbr0]\nports = ['bond0']\naddresses = ['dhcp']\n");
    let mut whole = machine(&["eth0", "eth1"]);
    whole.links.iter_mut().for_each(|card| card.permanent_mac = card.mac);
    let first = whole.named("eth0").unwrap().clone();
    let mac = first.permanent_mac;

    // udev is still to name the first: the bond waits for it.
    let (mut world, mut made) = (whole.clone(), Made::default());
    world.unsettled.insert(first.index);
    converge(&plan, &BTreeMap::new(), &mut world, &mut made);
    assert!(world.named("bond0").is_none(), "{:?}", world.links);
    world.unsettled.clear();
    converge(&plan, &BTreeMap::new(), &mut world, &mut made);
    assert_eq!((world.named("bond0").unwrap().mac, world.named("xenbr0").unwrap().mac), (mac, mac));

    // Its driver comes late: the bond goes without it, and takes its address when it is there.
    let (mut world, mut made) = (whole, Made::default());
    world.links.retain(|link| link.name != "eth0");
    converge(&plan, &BTreeMap::new(), &mut world, &mut made);
    assert_ne!(world.named("bond0").unwrap().mac, mac);
    world.links.push(first);
    converge(&plan, &BTreeMap::new(), &mut world, &mut made);
    assert_eq!((world.named("bond0").unwrap().mac, world.named("xenbr0").unwrap().mac), (mac, mac));
    assert_eq!(ports(&world, "bond0").len(), 2);
}

#[test]
fn only_what_changed_is_made_anew() {
    let (mut world, mut made) = (machine(&["eth0", "eth1", "eth2"]), Made::default());
    converge(&plan(WHOLE), &BTreeMap::new(), &mut world, &mut made);
    let changed = WHOLE.replace("id = 10", "id = 11");
    let acts = converge(&plan(&changed), &BTreeMap::new(), &mut world, &mut made);
    let links: BTreeSet<&str> = acts
        .iter()
        .map(|act| match act {
            Act::Create { name, .. } => name.as_str(),
            Act::Delete { link }
            | Act::Up { link, .. }
            | Act::Port { link, .. }
            | Act::Mtu { link, .. }
            | Act::Mac { link, .. } => &link.name,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(links, ["guests", "lan"].into());
    assert_eq!(world.named("guests").unwrap().vlan, Some(11));
    // Back to nothing: all that was made goes, the cards stay and get their MTU back.
    converge(&plan("[bridge.xenbr0]\nports = []\naddresses = []\n"), &BTreeMap::new(), &mut world, &mut made);
    assert_eq!(
        world.links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(),
        ["eth0", "eth1", "eth2", "xenbr0"]
    );
    assert!(world.links.iter().all(|link| link.mtu == 1500 && link.master.is_none()));
    assert!(world.addresses.is_empty() && world.routes.is_empty());
}

#[test]
fn a_bond_of_each_mode_is_made_changed_and_removed() {
    let config = |mode: &str| {
        format!(
            "[bond.bond0]\nports = ['eth0', 'eth1']\nmode = '{mode}'\n\
             [bridge.xenbr0]\nports = ['bond0']\nmtu = 9000\naddresses = ['192.0.2.5/24']\n"
        )
    };
    for (mode, number) in [("active-backup", 1), ("balance-xor", 2), ("802.3ad", 4)] {
        let (mut world, mut made) = (machine(&["eth0", "eth1"]), Made::default());
        let acts = converge(&plan(&config(mode)), &BTreeMap::new(), &mut world, &mut made);
        // Each card is set down before it becomes a port, and nothing is done twice.
        let place = |wanted: &dyn Fn(&Act) -> bool| acts.iter().position(wanted).expect(mode);
        for card in ["eth0", "eth1"] {
            let down = place(&|act| matches!(act, Act::Up { link, up: false } if link.name == card));
            let port = place(
                &|act| matches!(act, Act::Port { link, master: Some((_, master)) } if link.name == card && master == "bond0"),
            );
            assert!(down < port, "{mode}: {acts:?}");
        }
        assert_eq!(acts.iter().filter(|act| matches!(act, Act::Port { .. })).count(), 3, "{mode}: {acts:?}");
        let link = |name: &str| world.named(name).unwrap();
        assert_eq!((link("bond0").bond_mode, link("bond0").mac), (Some(number), link("eth0").mac));
        assert_eq!(
            (ports(&world, "bond0"), ports(&world, "xenbr0")),
            (vec!["eth0".into(), "eth1".into()], vec!["bond0".into()])
        );
        assert!(world.links.iter().all(|link| link.mtu == 9000 && link.up), "{:?}", world.links);

        // A card leaves the bond, and nothing else is touched.
        let fewer = config(mode).replace(", 'eth1'", "");
        let acts = converge(&plan(&fewer), &BTreeMap::new(), &mut world, &mut made);
        assert!(
            acts.iter().any(|act| matches!(act, Act::Port { link, master: None } if link.name == "eth1")),
            "{acts:?}"
        );
        assert!(!acts.iter().any(|act| matches!(act, Act::Create { .. } | Act::Delete { .. })), "{acts:?}");
        assert_eq!(ports(&world, "bond0"), ["eth0"]);
        converge(&plan(&config(mode)), &BTreeMap::new(), &mut world, &mut made);

        // The mode of a bond with ports cannot be changed: it is made anew, and the bridge and its address stay.
        let (other, other_number) = if number == 4 { ("balance-xor", 2) } else { ("802.3ad", 4) };
        let acts = converge(&plan(&config(other)), &BTreeMap::new(), &mut world, &mut made);
        let made_anew: Vec<&str> = acts
            .iter()
            .filter_map(|act| match act {
                Act::Delete { link } => Some(link.name.as_str()),
                Act::Create { name, .. } => Some(name.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(made_anew, ["bond0", "bond0"]);
        assert_eq!(world.named("bond0").unwrap().bond_mode, Some(other_number));
        assert_eq!((ports(&world, "bond0"), world.addresses.len()), (vec!["eth0".into(), "eth1".into()], 1));
        assert!(world.links.iter().all(|link| link.mtu == 9000 && link.up), "{:?}", world.links);

        converge(&plan("[bridge.xenbr0]\nports = ['eth0']\n"), &BTreeMap::new(), &mut world, &mut made);
        assert!(world.named("bond0").is_none() && made.links == ["xenbr0".to_owned()].into(), "{made:?}");
        assert_eq!(ports(&world, "xenbr0"), ["eth0"]);
        assert!(world.links.iter().all(|link| link.mtu == 1500 && link.up), "{:?}", world.links);
    }
}

#[test]
fn what_others_made_is_neither_taken_nor_removed() {
    let (mut world, made) = (machine(&["eth0", "xenbr0", "guests"]), Made::default());
    world.links[2].kind = Some("vlan".into());
    (world.links[2].vlan, world.links[2].below) = (Some(9), Some(2));
    let plan =
        plan("[vlan.guests]\nlink = 'eth0'\nid = 10\n[bridge.xenbr0]\naddresses = ['192.0.2.5/24']\nports = []\n");
    let wanted = Wanted { plan: &plan, auto: None, raise: &[], leases: &BTreeMap::new(), addresses: true, now_s: 0 };
    let (acts, obstacles) = difference(&wanted, &world, &made);
    assert_eq!(acts, Vec::new());
    assert!(
        obstacles[0].contains("guests is another vlan")
            && obstacles[1].contains("there is a network card of this name"),
        "{obstacles:?}"
    );
}

#[test]
fn a_lease_is_set_until_it_ends_and_a_fixed_gateway_goes_before_its_own() {
    let (mut world, mut made) = (machine(&["eth0"]), Made::default());
    let plan = plan(
        "[bridge.xenbr0]\nports = ['eth0']\naddresses = ['dhcp', '198.51.100.5/24']\ngateways = ['198.51.100.1']\n",
    );
    let mut lease = test_lease();
    lease.mtu = Some(1400);
    let mut leases = BTreeMap::from([("xenbr0".to_owned(), lease)]);
    converge(&plan, &leases, &mut world, &mut made);
    assert_eq!(world.addresses[1].valid_s, Some(600));
    assert_eq!(world.routes.iter().map(|route| route.metric).collect::<Vec<_>>(), [100, 200]);
    // The bridge has the lease's MTU; guests' packets still pass the card.
    assert_eq!((world.named("xenbr0").unwrap().mtu, world.named("eth0").unwrap().mtu), (1400, 1500));
    // Renewed: only the lifetime changes.
    leases.get_mut("xenbr0").unwrap().began = 1300;
    let acts = converge(&plan, &leases, &mut world, &mut made);
    assert!(matches!(acts.as_slice(), [Act::PutAddress { lifetime: Some(900), .. }]), "{acts:?}");
    // Classless routes stand in for the router, which need not be on the net.
    let lease = leases.get_mut("xenbr0").unwrap();
    let route = |destination: [u8; 4], prefix, gateway: Option<[u8; 4]>| crate::dhcp::lease::LeaseRoute {
        destination: destination.into(),
        prefix,
        gateway: gateway.map(Into::into),
    };
    lease.routes = vec![route([10, 0, 0, 0], 8, Some([203, 0, 113, 1])), route([203, 0, 113, 0], 24, None)];
    let acts = converge(&plan, &leases, &mut world, &mut made);
    let added: Vec<bool> = acts
        .iter()
        .filter_map(|act| match act {
            Act::AddRoute { onlink, .. } => Some(*onlink),
            _ => None,
        })
        .collect();
    assert_eq!((added, world.routes.len()), (vec![true, false], 3));
    leases.clear();
    converge(&plan, &leases, &mut world, &mut made);
    assert_eq!((world.addresses.len(), world.routes.len()), (1, 1));
    assert_eq!(world.named("xenbr0").unwrap().mtu, 1500);
}

#[test]
fn an_unmanaged_network_differs_in_nothing() {
    let plan = plan("managed = false\n");
    let wanted = Wanted { plan: &plan, auto: None, raise: &[], leases: &BTreeMap::new(), addresses: true, now_s: 0 };
    let made = Made { links: ["eth0".to_owned()].into(), ..Made::default() };
    assert_eq!(difference(&wanted, &machine(&["eth0"]), &made), (Vec::new(), Vec::new()));
}
