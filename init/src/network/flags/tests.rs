use super::*;
use proptest::prelude::*;

/// The table as text on one line, and the warnings.
fn read(command_line: &str) -> (String, Vec<String>) {
    let (table, warnings) = from_command_line(command_line);
    (table.map(|table| table.to_string()).unwrap_or_default(), warnings)
}

#[track_caller]
fn same(command_line: &str, wanted: &str) {
    let (table, warnings) = from_command_line(command_line);
    assert_eq!(warnings, Vec::<String>::new(), "{command_line}");
    assert_eq!(table.unwrap(), wanted.parse::<Table>().unwrap(), "{command_line}");
}

#[test]
fn the_kernels_own_flag() {
    assert_eq!(from_command_line("quiet root=/dev/sda1 sino.network=x ipv6.disable=1"), (None, vec![]));
    same("ip=dhcp", "[network.bridge.xenbr0]\naddresses = ['dhcp']\ngateways = []");
    same("quiet ip=off", "[network.bridge.xenbr0]\naddresses = []\ngateways = []");
    same("ip=eth1:dhcp", "[network.bridge.xenbr0]\naddresses = ['dhcp']\ngateways = []\nports = ['eth1']");
    same("ip=:::::eth0:dhcp", "[network.bridge.xenbr0]\naddresses = ['dhcp']\ngateways = []\nports = ['eth0']");
    same(
        "ip=192.0.2.5:192.0.2.9:192.0.2.1:255.255.255.128:xen1:eno1:off:192.0.2.53:192.0.2.54",
        "[network]\ndns = ['192.0.2.53', '192.0.2.54']\n[network.bridge.xenbr0]\naddresses = ['192.0.2.5/25']\n\
         gateways = ['192.0.2.1']\nports = ['eno1']\n[system]\nhostname = 'xen1'",
    );
    same(
        "ip=[2001:db8::5]::[fe80::1]:64:::none",
        "[network.bridge.xenbr0]\naddresses = ['2001:db8::5/64']\ngateways = ['fe80::1']",
    );
    same("ip=192.0.2.5:::24", "[network.bridge.xenbr0]\naddresses = ['192.0.2.5/24']\ngateways = []");
    for (line, part) in [
        ("ip=magic", "\"magic\" is no way to an address"),
        ("ip=192.0.2.5:::255.0.255.0", "\"255.0.255.0\" is no netmask"),
        ("ip=192.0.2.5", "\"\" is no netmask"),
        ("ip=192.0.2.5::router:24", "\"router\" is no gateway"),
        ("ip=dhcp ip=off", "more than once"),
        ("ip=:::::eth0:dhcp:::192.0.2.7", "time servers"),
    ] {
        let (_, warnings) = read(line);
        assert_eq!(warnings.len(), 1, "{line}: {warnings:?}");
        assert!(warnings[0].starts_with("ip: ") && warnings[0].contains(part), "{line}: {warnings:?}");
    }
}

#[test]
fn our_own_flag() {
    same("sino.net=off", "[network]\nmanaged = false");
    same("sino.net=mtu=9000", "[network.bridge.xenbr0]\nmtu = 9000");
    same(
        "sino.net=192.0.2.5/24,gw=192.0.2.1,dns=192.0.2.53,slaac,port=eno1+eno2,vlan=7",
        "[network]\ndns = ['192.0.2.53']\n[network.bridge.xenbr0]\naddresses = ['192.0.2.5/24', 'slaac']\n\
         gateways = ['192.0.2.1']\nports = ['eno1', 'eno2']\nhost_vlan = 7",
    );
    same(
        "sino.net=bond=802.3ad:eno1+eno2",
        "[network.bond.bond0]\nmode = '802.3ad'\nports = ['eno1', 'eno2']\n[network.bridge.xenbr0]\nports = ['bond0']",
    );
    // It goes before the kernel's.
    same(
        "ip=192.0.2.5::192.0.2.1:24::eno1 sino.net=dhcp",
        "[network.bridge.xenbr0]\naddresses = ['dhcp']\ngateways = []\nports = ['eno1']",
    );
}

#[test]
fn a_wrong_part_is_named_and_the_rest_holds() {
    let (text, warnings) =
        read("sino.net=192.0.2.5,dhcp,gw=x,vlan=0,bond=fast:a+b,bond=eno1,port=a/b,mtu=9,colour=red");
    assert!(text.contains("dhcp"), "{text}");
    assert_eq!(warnings.len(), 8, "{warnings:#?}");
    for part in ["192.0.2.5", "gw=x", "vlan=0", "802.3ad", "bond=eno1", "port=a/b", "mtu=9", "colour=red"] {
        assert!(warnings.iter().any(|text| text.starts_with("sino.net: ") && text.contains(part)), "{part}");
    }
}

proptest! {
    #[test]
    fn whatever_is_given_its_table_can_be_read(value in "[a-z0-9:=,.+/\\[\\]\" -]{0,60}") {
        for name in ["ip", "sino.net"] {
            let (table, _) = from_command_line(&format!("{name}={value}"));
            let config: Result<crate::config::schema::Config, _> = table.unwrap().try_into();
            prop_assert!(config.is_ok(), "{config:?}");
        }
    }
}
