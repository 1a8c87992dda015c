use super::super::message;
use super::*;
use dhcproto::Encodable;
use dhcproto::v4::{Message, MessageType, Opcode};
use proptest::prelude::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SENT: Duration = Duration::from_millis(100_900);

/// What a small router sends, with `options` (code and value) instead of or beside its own. An empty value takes the
/// option away.
fn judged(address: Ipv4Addr, options: &[(u8, &[u8])]) -> Result<Lease, String> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(1, none, address, none, none, &[2, 0, 0, 0, 0, 7]);
    message.set_opcode(Opcode::BootReply).opts_mut().insert(DhcpOption::MessageType(MessageType::Ack));
    let mut bytes = message.to_vec().unwrap();
    bytes.truncate(240);
    let own: [(u8, &[u8]); 4] =
        [(53, &[5]), (1, &[255, 255, 255, 0]), (54, &[192, 0, 2, 1]), (51, &[0, 0, 0x0e, 0x10])];
    for (code, value) in own.iter().filter(|own| options.iter().all(|other| own.0 != other.0)).chain(options) {
        for part in value.chunks(255) {
            bytes.extend([*code, u8::try_from(part.len()).unwrap()]);
            bytes.extend(part);
        }
    }
    bytes.push(255);
    from_message(&message::parse(&bytes).unwrap(), SENT, 1000)
}

fn with(options: &[(u8, &[u8])]) -> Lease {
    judged(ADDRESS, options).unwrap()
}

fn addresses(list: &[Ipv4Addr]) -> Vec<u8> {
    list.iter().flat_map(Ipv4Addr::octets).collect()
}

#[test]
fn a_plain_lease_has_the_defaults() {
    let lease = with(&[]);
    assert_eq!((lease.address, lease.prefix, lease.server), (ADDRESS, 24, SERVER));
    assert_eq!((lease.lease_s, lease.renew_s, lease.rebind_s), (3600, 1800, 3150));
    assert_eq!((lease.began, lease.obtained_at), (100, 1000));
    assert_eq!(lease.renewal(), Some(Duration::from_secs(1900)));
    assert_eq!(lease.end(), Some(Duration::from_secs(3700)));
    assert!(lease.holds_at(4599) && !lease.holds_at(4600) && lease.holds_at(0));
    let text = serde_json::to_string(&lease).unwrap();
    assert_eq!(serde_json::from_str::<Lease>(&text).unwrap(), lease);
}

#[test]
fn all_that_is_asked_for_is_kept() {
    let search = b"\x01a\x07example\0\x01b\xc0\x02";
    let lease = with(&[
        (3, &addresses(&[SERVER])),
        (6, &addresses(&[Ipv4Addr::new(9, 9, 9, 9), SERVER])),
        (12, b"host"),
        (15, b"example.org\0"),
        (26, &1400_u16.to_be_bytes()),
        (42, &addresses(&[SERVER])),
        (119, search),
        (58, &1000_u32.to_be_bytes()),
        (59, &2000_u32.to_be_bytes()),
    ]);
    assert_eq!(lease.routers, [SERVER]);
    assert_eq!(lease.dns, [Ipv4Addr::new(9, 9, 9, 9), SERVER]);
    assert_eq!((lease.hostname.as_deref(), lease.domain.as_deref()), (Some("host"), Some("example.org")));
    assert_eq!((lease.mtu, lease.ntp), (Some(1400), vec![SERVER]));
    assert_eq!(lease.search, ["a.example", "b.example"]);
    assert_eq!((lease.renew_s, lease.rebind_s), (1000, 2000));
}

#[test]
fn addresses_and_masks_that_cannot_be_used_are_refused() {
    for octets in [[0, 0, 0, 0], [0, 0, 0, 9], [255; 4], [224, 0, 0, 1], [240, 0, 0, 1], [127, 0, 0, 1]] {
        assert!(judged(octets.into(), &[]).unwrap_err().contains("cannot be"), "{octets:?}");
    }
    for last in [0, 255] {
        assert!(judged(Ipv4Addr::new(192, 0, 2, last), &[]).unwrap_err().contains("192.0.2."), "{last}");
    }
    for mask in [[255, 0, 255, 0], [0; 4], [0, 255, 255, 255], [255, 255, 255, 1]] {
        assert!(judged(ADDRESS, &[(1, &mask)]).unwrap_err().contains("no netmask"), "{mask:?}");
    }
    assert!(judged(ADDRESS, &[(1, &[])]).unwrap_err().contains("no netmask"));
    assert!(judged(ADDRESS, &[(1, &[255, 255])]).unwrap_err().contains("no netmask"));
    // Hosts alone in their net, and two on a line (RFC 3021), are right.
    assert_eq!(with(&[(1, &[255; 4])]).prefix, 32);
    assert_eq!(with(&[(1, &[255, 255, 255, 254])]).prefix, 31);
    for server in [&[0, 0, 0, 0][..], &[255; 4], &[224, 0, 0, 9], &[192, 0, 2], &[]] {
        assert!(judged(ADDRESS, &[(54, server)]).unwrap_err().contains("which server"), "{server:?}");
    }
}

#[test]
fn times_that_make_no_sense_are_refused_or_replaced() {
    assert!(judged(ADDRESS, &[(51, &[0; 4])]).unwrap_err().contains("0 s"));
    assert!(judged(ADDRESS, &[(51, &[0, 0, 0, 9])]).unwrap_err().contains("9 s"));
    assert!(judged(ADDRESS, &[(51, &[])]).unwrap_err().contains("no lease time"));
    let times = |t1: u32, t2: u32| {
        let lease = with(&[(58, &t1.to_be_bytes()), (59, &t2.to_be_bytes())]);
        (lease.renew_s, lease.rebind_s)
    };
    assert_eq!(times(60, 3599), (60, 3599));
    for (t1, t2) in [(0, 0), (1, 2000), (2000, 1000), (1000, 1000), (1000, 3600), (u32::MAX, u32::MAX)] {
        assert_eq!(times(t1, t2), (1800, 3150), "{t1} {t2}");
    }
    let forever = with(&[(51, &[255; 4])]);
    assert_eq!((forever.renewal(), forever.rebinding(), forever.end()), (None, None, None));
    assert!(forever.holds_at(u64::MAX));
    let long = with(&[(51, &(u32::MAX - 1).to_be_bytes())]);
    assert!(long.renewal() < long.rebinding() && long.rebinding() < long.end());
}

#[test]
fn useless_values_are_dropped_and_lists_end() {
    let bad = addresses(&[ADDRESS, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST, SERVER, SERVER]);
    let lease =
        with(&[(3, &bad), (6, &bad), (26, &575_u16.to_be_bytes()), (12, b"a\x1b[2Jb"), (15, b"x y"), (42, &[1, 2, 3])]);
    assert_eq!(lease.routers, [SERVER]);
    // A host may well be its own name server.
    assert_eq!(lease.dns, [ADDRESS, SERVER]);
    assert_eq!((lease.mtu, lease.hostname, lease.domain), (None, None, None));
    assert!(lease.ntp.is_empty());
    let many: Vec<Ipv4Addr> = (1..=60).map(|last| Ipv4Addr::new(198, 51, 100, last)).collect();
    assert_eq!(with(&[(6, &addresses(&many))]).dns, many[..8]);
    // A router elsewhere is kept: the network code judges it.
    assert_eq!(with(&[(3, &[10, 0, 0, 1])]).routers, [Ipv4Addr::new(10, 0, 0, 1)]);
}

#[test]
fn routes_take_the_place_of_routers() {
    let routes = [0, 192, 0, 2, 254, 8, 10, 192, 0, 2, 1, 32, 203, 0, 113, 9, 0, 0, 0, 0];
    let lease = with(&[(3, &addresses(&[SERVER])), (121, &routes)]);
    assert!(lease.routers.is_empty());
    let route = |destination: [u8; 4], prefix, gateway: Option<[u8; 4]>| LeaseRoute {
        destination: destination.into(),
        prefix,
        gateway: gateway.map(Into::into),
    };
    let expected = [
        route([0; 4], 0, Some([192, 0, 2, 254])),
        route([10, 0, 0, 0], 8, Some([192, 0, 2, 1])),
        route([203, 0, 113, 9], 32, None),
    ];
    assert_eq!(lease.routes, expected);
    // Bits beyond the prefix, repetitions of a net, and nets and routers that cannot be.
    let routes = [
        12, 10, 31, 192, 0, 2, 1, 12, 10, 16, 192, 0, 2, 9, 8, 127, 192, 0, 2, 1, 4, 224, 192, 0, 2, 1, 8, 11, 224, 0,
        0, 1,
    ];
    assert_eq!(with(&[(121, &routes)]).routes, [route([10, 16, 0, 0], 12, Some([192, 0, 2, 1]))]);
    // None of any use: the routers are better than nothing.
    let lease = with(&[(3, &addresses(&[SERVER])), (121, &[33, 1, 2, 3])]);
    assert_eq!((lease.routers, lease.routes), (vec![SERVER], vec![]));
    let many: Vec<u8> = (0..200).flat_map(|third| [24, 10, 9, third, 192, 0, 2, 1]).collect();
    assert_eq!(with(&[(121, &many)]).routes.len(), 64);
}

proptest! {
    #[test]
    fn whatever_comes_no_lease_is_senseless(
        address: [u8; 4],
        options in proptest::collection::vec(
            (proptest::sample::select(vec![1_u8, 3, 6, 12, 15, 26, 42, 51, 54, 58, 59, 119, 121]),
             proptest::collection::vec(any::<u8>(), 0..24)),
            0..12,
        ),
    ) {
        let options: Vec<(u8, &[u8])> = options.iter().map(|(code, value)| (*code, &value[..])).collect();
        if let Ok(lease) = judged(address.into(), &options) {
            prop_assert!(is_host(lease.address) && (1..=32).contains(&lease.prefix));
            prop_assert!(lease.renew_s >= 5 && lease.renew_s < lease.rebind_s && lease.rebind_s < lease.lease_s);
            prop_assert!(lease.routers.is_empty() || lease.routes.is_empty());
            prop_assert!(lease.routes.iter().all(|route| route.prefix <= 32));
        }
    }
}
