use super::*;
use proptest::prelude::*;

fn plan(text: &str) -> (Plan, Vec<String>) {
    Plan::from(&toml::from_str(text).unwrap())
}

#[test]
fn a_host_that_nobody_configured_has_one_bridge_with_a_lease() {
    let (plan, warnings) = Plan::from(&schema::Network::default());
    assert_eq!(warnings, Vec::<String>::new());
    let bridge = &plan.bridges["xenbr0"];
    assert_eq!((&bridge.ports, bridge.dhcp, bridge.slaac), (&PortRule::Auto, true, false));
    assert_eq!(plan.bridges.len(), 1);
    // It exists although the configuration names another one only.
    let (plan, _) = super::tests::plan("[bridge.lan]\n");
    assert_eq!(plan.bridges.keys().collect::<Vec<_>>(), ["lan", "xenbr0"]);
    assert!(!plan.bridges["lan"].serves_host());
}

#[test]
fn the_automatic_port_is_for_a_bridge_that_can_be() {
    let text = "bridge.xenbr0.ports = []\nbridge.\"a\\u001b\".ports = 'auto'\nbridge.vif1.ports = 'auto'\nbridge.xenbr1.ports = 'auto'\n";
    let (plan, warnings) = plan(text);
    assert_eq!(plan.bridges["xenbr1"].ports, PortRule::Auto);
    assert_eq!((plan.bridges.len(), warnings.len()), (2, 2), "{warnings:#?}");
    assert!(!warnings.iter().any(|warning| warning.chars().any(char::is_control)), "{warnings:#?}");
}

#[test]
fn each_unusable_value_is_named_and_the_rest_holds() {
    let (plan, warnings) = plan(
        r#"
        search = ["example.org", "a b"]
        [bridge.xenbr0]
        addresses = ["192.0.2.5/99", "192.0.2.6", "192.0.2.7/24", "slaac", "192.0.2.0/24", "no"]
        gateways = ["192.0.2.1", "192.0.2.2", "192.0.2.7"]
        routes = ["10.0.0.0/8 via 192.0.2.254", "10.1.0.0/8", "here", "10.2.0.0/16 via ::1"]
        mtu = 100
        mac = "01:00:00:00:00:00"
        host_vlan = 5000
        [vlan.v1]
        link = "enp1s0"
        id = 0
        [bridge."much-too-long-a-name"]
        [bridge.vif1]
        [bridge.lan]
        ports = "all"
        "#,
    );
    let bridge = &plan.bridges["xenbr0"];
    assert_eq!(bridge.addresses, [net("192.0.2.7/24").unwrap()]);
    assert_eq!(bridge.routes.len(), 2);
    assert!(bridge.slaac && bridge.mtu.is_none() && bridge.mac.is_none() && bridge.host_vlan.is_none());
    assert!(plan.vlans.is_empty());
    assert_eq!(plan.search, ["example.org"]);
    assert_eq!(plan.bridges.keys().collect::<Vec<_>>(), ["lan", "xenbr0"]);
    assert!(
        warnings
            .iter()
            .any(|text| text.contains("bridge.xenbr0.addresses: \"192.0.2.5/99\"") && text.contains("192.0.2.5/24"))
    );
    for part in [
        "\"192.0.2.6\" has no prefix length: use 192.0.2.6/24",
        "\"192.0.2.0/24\"",
        "\"no\"",
        "192.0.2.2 is a second",
        "192.0.2.7 is no router",
        "use 10.0.0.0/8",
        "\"here\"",
        "mixes",
        "xenbr0.mtu",
        "xenbr0.mac",
        "host_vlan",
        "vlan.v1.id",
        "much-too-long",
        "bridge.vif1",
        "\"all\"",
        "network.search",
    ] {
        assert_eq!(warnings.iter().filter(|text| text.contains(part)).count(), 1, "{part}: {warnings:#?}");
    }
}

#[test]
fn there_is_one_automatic_port_and_each_card_is_used_once() {
    let (plan, warnings) = plan("[bridge.lan]\nports = 'auto'\n");
    assert_eq!((&plan.bridges["lan"].ports, &plan.bridges["xenbr0"].ports), (&PortRule::None, &PortRule::Auto));
    assert_eq!(warnings.len(), 1);
    let text = "[bridge.lan]\nports = 'auto'\n[bridge.xenbr0]\nports = ['bond0', 'enp1s0', 'enp3s0', 'enp3s0', 'lan', 'vif1.0']\n[bond.bond0]\nports = ['enp1s0', 'enp2s0']\n";
    let (plan, warnings) = super::tests::plan(text);
    assert_eq!(plan.bridges["lan"].ports, PortRule::Auto);
    assert_eq!(plan.bridges["xenbr0"].ports, PortRule::Named(vec!["bond0".into(), "enp3s0".into()]));
    assert_eq!(plan.named_ports(), ["bond0", "enp1s0", "enp2s0", "enp3s0"].into());
    for part in ["enp1s0 is a port by network.bond.bond0.ports", "enp3s0 is a port", "\"lan\"", "\"vif1.0\""] {
        assert!(warnings.iter().any(|text| text.contains(part)), "{part}: {warnings:#?}");
    }
}

#[test]
fn a_vlan_shares_its_card_with_a_bridge() {
    let (plan, warnings) = plan(
        "[bridge.xenbr0]\nports = ['enp1s0']\n[vlan.guests]\nlink = 'enp1s0'\nid = 10\n[vlan.again]\nlink='enp1s0'\nid=10\n[bridge.lan]\nports = ['guests']\n",
    );
    assert_eq!(plan.bridges["lan"].ports, PortRule::Named(vec!["guests".into()]));
    assert_eq!(plan.vlans.len(), 1);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn nets_and_routes() {
    assert!(net("10.0.0.255/24").is_err() && net("10.0.0.0/31").is_ok() && net("2001:db8::/64").is_ok());
    assert_eq!(net("10.1.2.3/8").unwrap().base().to_string(), "10.0.0.0/8");
    assert!(net("10.1.2.3/8").unwrap().contains("10.9.9.9".parse().unwrap()));
    assert!(!net("10.1.2.3/32").unwrap().contains("10.1.2.4".parse().unwrap()));
    assert_eq!(route("default via fe80::1").unwrap().to.to_string(), "::/0");
    assert_eq!(route("192.0.2.9").unwrap().to.prefix, 32);
    assert_eq!(mac("0:16:3E:12:34:56"), Some([0, 0x16, 0x3e, 0x12, 0x34, 0x56]));
    assert_eq!((mac("00:16:3e:12:34"), mac("+0:16:3e:12:34:56")), (None, None));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(given in ".{0,40}") {
        let _ = (net(&given), route(&given), mac(&given), valid_name(&given), text::domain(&given));
        let mut network = schema::Network::default();
        let bridge = schema::Bridge { addresses: Some(vec![given.clone()]), routes: vec![given.clone()], ..schema::Bridge::default() };
        network.bridge.insert(given.clone(), bridge);
        network.bond.insert(given.clone(), schema::Bond { ports: vec![given.clone()], ..schema::Bond::default() });
        let (plan, _) = Plan::from(&network);
        prop_assert!(plan.bridges.keys().all(|name| valid_name(name)));
    }
}
