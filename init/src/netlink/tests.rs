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
        let _ = (read::link(&bytes), read::address(&bytes), read::route(&bytes));
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
