use super::*;
use netlink_packet_core::NetlinkSerializable;
use proptest::prelude::*;

fn bytes(message: &Message) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[test]
fn a_bond_and_a_vlan_are_asked_for_as_the_kernel_reads_them() {
    let bond = read::link(&bytes(&request::create("bond0", &NewLink::Bond(BondKind::Lacp), Some([2; 6])))).unwrap();
    assert_eq!((bond.name.as_str(), bond.kind.as_deref(), bond.bond_mode), ("bond0", Some("bond"), Some(4)));
    assert_eq!(bond.mac, Some([2; 6]));
    let vlan = read::link(&bytes(&request::create("lan.7", &NewLink::Vlan { id: 7, below: 12 }, None))).unwrap();
    assert_eq!((vlan.kind.as_deref(), vlan.vlan, vlan.below), (Some("vlan"), Some(7), Some(12)));
    let bridge = read::link(&bytes(&request::create("xenbr0", &NewLink::Bridge, None))).unwrap();
    assert_eq!(bridge.kind.as_deref(), Some("bridge"));
}

/// A netlink attribute (`struct nlattr`): length, kind, payload, padding to four bytes.
fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(payload.len() + 4).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `struct ifinfomsg` of `include/uapi/linux/rtnetlink.h`.
fn ifinfo(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change].map(u32::to_ne_bytes).concat()
}

// Numbers of `include/uapi/linux/if_link.h` and `rtnetlink.h`, not of the crate that is checked by them.
const IFF_UP: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_SETLINK: u16 = 19;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_MIIMON: u16 = 3;
const IFLA_BOND_AD_LACP_RATE: u16 = 21;

#[test]
fn a_bond_of_each_mode_is_asked_for_byte_by_byte() {
    // BOND_MODE_ACTIVEBACKUP, BOND_MODE_XOR and BOND_MODE_8023AD of `include/uapi/linux/if_bonding.h`. The kernel
    // refuses an LACP rate for any mode but the last.
    for (kind, mode, lacp) in
        [(BondKind::ActiveBackup, 1, false), (BondKind::BalanceXor, 2, false), (BondKind::Lacp, 4, true)]
    {
        let mut data = attribute(IFLA_BOND_MODE, &[mode]);
        data.extend(attribute(IFLA_BOND_MIIMON, &100_u32.to_ne_bytes()));
        if lacp {
            data.extend(attribute(IFLA_BOND_AD_LACP_RATE, &[0]));
        }
        let info = [attribute(IFLA_INFO_KIND, b"bond\0"), attribute(IFLA_INFO_DATA, &data)].concat();
        let wanted = [
            ifinfo(0, 0, 0),
            attribute(IFLA_IFNAME, b"bond0\0"),
            attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 7]),
            attribute(IFLA_LINKINFO, &info),
        ];
        let message = request::create("bond0", &NewLink::Bond(kind), Some([2, 0, 0, 0, 0, 7]));
        assert_eq!((message.message_type(), bytes(&message)), (RTM_NEWLINK, wanted.concat()), "{kind:?}");
        assert_eq!(kind.number(), mode);
    }
}

#[test]
fn ports_mtu_state_and_removal_are_asked_for_byte_by_byte() {
    let number = |number: u32| number.to_ne_bytes();
    let cases = [
        (request::set_up(3, false), RTM_SETLINK, ifinfo(3, 0, IFF_UP)),
        (request::set_master(3, 7), RTM_SETLINK, [ifinfo(3, 0, 0), attribute(IFLA_MASTER, &number(7))].concat()),
        (request::set_up(7, true), RTM_SETLINK, ifinfo(7, IFF_UP, IFF_UP)),
        (request::set_mtu(7, 9000), RTM_SETLINK, [ifinfo(7, 0, 0), attribute(IFLA_MTU, &number(9000))].concat()),
        (request::set_mac(7, [2; 6]), RTM_SETLINK, [ifinfo(7, 0, 0), attribute(IFLA_ADDRESS, &[2; 6])].concat()),
        // A port is freed by the master 0.
        (request::set_master(3, 0), RTM_SETLINK, [ifinfo(3, 0, 0), attribute(IFLA_MASTER, &number(0))].concat()),
        (request::delete(7), RTM_DELLINK, ifinfo(7, 0, 0)),
    ];
    for (message, kind, wanted) in cases {
        assert_eq!((message.message_type(), bytes(&message)), (kind, wanted), "{message:?}");
    }
}

#[test]
fn addresses_and_routes_come_back_as_they_were_asked_for() {
    let address = bytes(&request::new_address(3, "192.0.2.5".parse().unwrap(), 24, Some(60)));
    let seen = read::address(&address).unwrap();
    assert_eq!((seen.index, seen.prefix, seen.valid_s, seen.protocol), (3, 24, Some(60), OWN_PROTOCOL));
    let route = Route {
        index: 3,
        destination: "2001:db8::".parse().unwrap(),
        prefix: 32,
        gateway: Some("fe80::1".parse().unwrap()),
        metric: 100,
        protocol: OWN_PROTOCOL,
    };
    assert_eq!(read::route(&bytes(&request::new_route(&route, true))), Some(route));
}

#[test]
fn announced_name_servers_are_read() {
    let servers = ["2001:db8::53", "fe80::1"].map(|server| server.parse::<std::net::Ipv6Addr>().unwrap());
    let mut option = vec![25, 5, 0, 0];
    option.extend(600_u32.to_be_bytes());
    option.extend(servers.iter().flat_map(std::net::Ipv6Addr::octets));
    // Family, length of the option, link, kind of the ICMP message; then an attribute with the router's address.
    let message = |option: &[u8]| {
        let mut bytes = vec![10, 0];
        bytes.extend(u16::try_from(option.len()).unwrap().to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend([134, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(option);
        bytes.extend(attribute(1, &servers[1].octets()));
        bytes
    };
    let seen = read::announcement(&message(&option)).unwrap();
    assert_eq!(seen, Announcement { index: 7, servers: servers.to_vec(), lifetime_s: Some(600) });
    option[4..8].fill(0xff);
    assert_eq!(read::announcement(&message(&option)).unwrap().lifetime_s, None);
    // Another option, a length that lies, and too short ones.
    option[0] = 31;
    assert_eq!(read::announcement(&message(&option)), None);
    (option[0], option[1]) = (25, 9);
    assert_eq!(read::announcement(&message(&option)), None);
    for length in 0..24 {
        assert_eq!(read::announcement(&message(&option[..length])), None);
    }
}

#[test]
fn a_refusal_carries_the_kernels_words() {
    let mut payload = (-17_i32).to_ne_bytes().to_vec();
    payload.extend(16_u32.to_ne_bytes());
    payload.extend([0; 12]);
    payload.extend(9_u16.to_ne_bytes());
    payload.extend(1_u16.to_ne_bytes());
    payload.extend(b"busy\0");
    let refused = outcome(ERROR, &payload).unwrap_err();
    assert_eq!(refused.errno, Errno::EXIST.raw_os_error());
    assert_eq!(refused.to_string(), "File exists (os error 17), because: busy");
    assert!(outcome(DONE, &0_i32.to_ne_bytes()).is_ok());
}

#[test]
fn a_list_that_changed_while_it_was_told_is_noticed() {
    let message = |kind: u16, flags: u16, sequence: u32| {
        let mut bytes = 20_u32.to_ne_bytes().to_vec();
        bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
        bytes.extend([sequence.to_ne_bytes(), [0; 4], [0; 4]].concat());
        bytes
    };
    let datagram =
        [message(16, 2, 7), message(16, 2, 6), message(16, 2 | NLM_F_DUMP_INTR, 7), message(DONE, 2, 7)].concat();
    let answers = answers(&datagram, 7);
    assert!(matches!(answers.as_slice(), [Answer::Item(_), Answer::Changed, Answer::Item(_), Answer::End(Ok(()))]));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (read::link(&bytes), read::address(&bytes), read::route(&bytes), read::announcement(&bytes));
        let _ = answers(&bytes, 0).len();
        let _ = outcome(ERROR, &bytes);
    }

    #[test]
    fn no_attributes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut link = vec![0; 16];
        link.extend_from_slice(&bytes);
        let _ = (read::link(&link), read::address(&link), read::route(&link));
    }
}
