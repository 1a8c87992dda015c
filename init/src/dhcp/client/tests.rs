//! The machine against a server that lives in the test, by a clock that is a number.

mod conflicts;
mod play;

use super::super::packet::{Arp, arp_probe};
use super::*;
use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use play::*;
use proptest::prelude::*;

const DISCOVER: MessageType = MessageType::Discover;
const REQUEST: MessageType = MessageType::Request;
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

#[test]
fn discover_is_sent_at_once_and_repeated_for_ever() {
    let mut play = Play::new(None);
    assert_eq!(play.seen(), [(DISCOVER, None, NONE)]);
    let mut last = play.ms;
    for pause in [4, 8, 16, 32, 64, 64, 64, 64] {
        let due = u64::try_from(play.client.deadline().unwrap().as_millis()).unwrap();
        assert!((pause * 1000 - 1000..=pause * 1000 + 1000).contains(&(due - last)), "{pause}: {}", due - last);
        play.after(due - play.ms);
        last = due;
        assert_eq!(play.seen(), [(DISCOVER, None, NONE)]);
    }
    assert!(play.warned("no DHCP server has answered"));
    assert_eq!(play.events.len(), 1);
    play.after(86_400_000);
    assert!((1300..1400).contains(&play.sent.len()), "{}", play.sent.len());
}

#[test]
fn the_first_usable_offer_is_asked_for_probed_and_used_within_0_6_s() {
    let mut play = Play::new(None);
    play.after(30);
    let xid = play.sent[0].0.xid();
    assert_eq!(play.sent[0].0.opts().get(OptionCode::Hostname), Some(&DhcpOption::Hostname("host".into())));
    play.seen();
    // One that is of no use, then a good one, then a better one that comes too late.
    play.answer_with(MessageType::Offer, OTHER, SECOND, 0, |_| {});
    assert!(play.warned("192.0.2.2 is of no use: a lease of 0 s"));
    play.answer(MessageType::Offer, ADDRESS);
    play.answer_with(MessageType::Offer, OTHER, SECOND, 86_400, |_| {});
    assert_eq!(play.sent[0].0.opts().get(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(SERVER)));
    assert_eq!(play.sent[0].0.xid(), xid);
    assert_eq!(play.seen(), [(REQUEST, Some(ADDRESS), NONE)]);
    play.after(20);
    play.answer(MessageType::Ack, ADDRESS);
    assert!(play.client.arp_watch() == Some(ArpWatch::Probe) && !play.client.wants_dhcp());
    let granted = play.ms;
    play.after(599);
    assert!(play.arp.iter().all(|probe| probe.sender == NONE && probe.target == ADDRESS && probe.sender_mac == MAC));
    assert_eq!((play.arp.len(), play.client.state()), (3, "probing"));
    play.after(1);
    assert_eq!(play.ms - granted, 600);
    assert_eq!(play.arp.last().map(|arp| arp.sender), Some(ADDRESS));
    let (lease, renewed) = play.lease();
    assert_eq!((lease.address, lease.lease_s, renewed), (ADDRESS, 3600, false));
    assert_eq!((lease.began, lease.obtained_at), (1000, WALL + 1000));
    assert_eq!((play.client.state(), play.client.arp_watch()), ("bound", Some(ArpWatch::Claims(ADDRESS))));
    assert_eq!(play.client.deadline(), Some(Duration::from_secs(2800)));
}

#[test]
fn a_flood_of_useless_offers_fills_no_log() {
    let mut play = Play::new(None);
    for last in 1..200 {
        play.answer_with(MessageType::Offer, OTHER, Ipv4Addr::new(198, 51, 100, last), 0, |_| {});
    }
    assert_eq!((play.events.len(), play.client.state()), (4, "selecting"));
    play.after(5000);
    play.answer_with(MessageType::Offer, OTHER, SECOND, 0, |_| {});
    assert_eq!(play.events.len(), 5);
}

#[test]
fn a_lease_begins_when_it_was_asked_for() {
    let mut play = Play::new(None);
    play.answer(MessageType::Offer, ADDRESS);
    play.after(2500);
    play.answer(MessageType::Ack, ADDRESS);
    play.after(600);
    let (lease, _) = play.lease();
    assert_eq!((lease.began, lease.obtained_at), (1000, WALL + 1000));
}

#[test]
fn a_server_that_falls_silent_after_its_offer_is_given_up() {
    let mut play = Play::new(None);
    play.answer(MessageType::Offer, ADDRESS);
    play.seen();
    play.after(32_000);
    let seen: Vec<_> = play.seen().into_iter().map(|message| message.0).collect();
    assert_eq!(seen[..3], [REQUEST, REQUEST, DISCOVER]);
    assert!(play.warned("fell silent"));
}

#[test]
fn a_server_that_takes_its_offers_back_is_asked_less_and_less_often() {
    let mut play = Play::new(None);
    let mut pauses = vec![];
    for _ in 0..9 {
        play.answer(MessageType::Offer, ADDRESS);
        // Another server's refusal counts for nothing.
        play.answer_with(MessageType::Nak, NONE, SECOND, 0, |_| {});
        assert_eq!(play.client.state(), "requesting");
        play.answer_with(MessageType::Nak, NONE, SERVER, 0, |message| {
            message.opts_mut().insert(DhcpOption::Message("no\x1b[31m more".into()));
        });
        assert_eq!(play.client.state(), "waiting");
        let begin = play.ms;
        play.seen();
        while play.sent.is_empty() {
            play.after(500);
        }
        pauses.push((play.ms - begin) / 1000);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    assert!(play.warned("back: no[31m more"));
}

#[test]
fn the_last_lease_is_confirmed_without_a_discover_and_without_a_probe() {
    let mut play = Play::new(Some(previous()));
    assert_eq!((play.client.state(), play.seen()), ("rebooting", vec![(REQUEST, Some(ADDRESS), NONE)]));
    play.answer(MessageType::Ack, ADDRESS);
    let (lease, renewed) = play.lease();
    assert_eq!((lease.address, renewed, play.arp.len()), (ADDRESS, false, 0));
}

#[test]
fn the_last_lease_is_given_up_after_8_s_or_by_a_nak() {
    let mut play = Play::new(Some(previous()));
    play.after(7900);
    assert_eq!(play.seen(), [(REQUEST, Some(ADDRESS), NONE); 2]);
    play.after(100);
    // Any address will do now; the old one is still welcome.
    assert_eq!(play.seen(), [(DISCOVER, Some(ADDRESS), NONE)]);

    let mut play = Play::new(Some(previous()));
    play.seen();
    play.answer_with(MessageType::Nak, NONE, SECOND, 0, |_| {});
    assert_eq!(play.seen(), [(DISCOVER, None, NONE)]);
    assert!(play.events.iter().all(|event| matches!(event, Event::Say { warning: false, .. })));
}

#[test]
fn a_lease_that_is_past_t2_goes_to_every_server_at_once() {
    let mut play = Play::bound(3600);
    play.jump(3_200_000);
    assert_eq!((play.client.state(), play.sent[0].1), ("rebinding", None));
    assert_eq!(play.seen(), [(REQUEST, None, ADDRESS)]);
}

#[test]
fn a_lease_that_is_over_is_only_a_wish() {
    let mut last = previous();
    last.obtained_at = WALL - 10_000;
    let mut play = Play::new(Some(last.clone()));
    assert_eq!(play.seen(), [(DISCOVER, Some(ADDRESS), NONE)]);
    last.lease_s = u32::MAX;
    assert_eq!(Play::new(Some(last)).client.state(), "rebooting");
}

#[test]
fn a_lease_is_renewed_by_its_server_and_then_by_any() {
    let mut play = Play::bound(3600);
    play.after(1_798_000);
    assert_eq!((play.sent.len(), play.client.wants_dhcp()), (0, false));
    play.after(2000);
    assert_eq!((play.client.state(), play.client.wants_dhcp()), ("renewing", true));
    assert_eq!(play.sent[0].1, Some(SERVER));
    assert_eq!(play.seen(), [(REQUEST, None, ADDRESS)]);
    // Half of what is left until T2 (1350 s), and nothing is listened to for long.
    play.after(10_000);
    assert!(!play.client.wants_dhcp());
    play.after(663_000);
    assert_eq!(play.sent.len(), 0);
    play.after(5000);
    assert_eq!(play.seen().len(), 1);
    play.answer(MessageType::Ack, OTHER);
    assert!(play.warned("it is for 192.0.2.8, not 192.0.2.7"));
    play.answer(MessageType::Ack, ADDRESS);
    let (lease, renewed) = play.lease();
    assert_eq!((lease.address, renewed, play.client.state(), play.arp.len()), (ADDRESS, true, "bound", 0));

    let mut play = Play::bound(3600);
    play.after(3_149_000);
    assert!(play.sent.iter().all(|(_, to)| *to == Some(SERVER)));
    // 1350 s before T2: 675, 337, 168, 84, then every 60 s.
    assert!((6..=8).contains(&play.sent.len()), "{}", play.sent.len());
    play.seen();
    play.after(2000);
    assert_eq!((play.client.state(), play.sent[0].1), ("rebinding", None));
    assert_eq!(play.seen(), [(REQUEST, None, ADDRESS)]);
    assert!(play.warned("asking every server"));
    play.answer_with(MessageType::Ack, ADDRESS, SECOND, 7200, |_| {});
    let (lease, renewed) = play.lease();
    assert_eq!((lease.server, lease.lease_s, renewed), (SECOND, 7200, true));
}

#[test]
fn a_lease_that_nobody_renews_is_lost_at_its_end() {
    for jump in [false, true] {
        let mut play = Play::bound(120);
        if jump {
            play.jump(200_000);
        } else {
            play.after(118_000);
            assert_eq!(play.client.state(), "rebinding");
            let count = play.sent.len();
            assert!((4..=12).contains(&count), "{count} messages in a lease of 120 s");
            assert!(!play.events.iter().any(|event| matches!(event, Event::Lost { .. })));
            play.seen();
            play.after(2000);
        }
        assert!(play.lost().contains("192.0.2.7 is over"));
        assert_eq!((play.client.state(), play.seen()), ("selecting", vec![(DISCOVER, Some(ADDRESS), NONE)]));
    }
    let mut play = Play::bound(u32::MAX);
    assert_eq!(play.client.deadline(), None);
    play.jump(u64::from(u32::MAX) * 3000);
    assert_eq!((play.client.state(), play.events.len(), play.sent.len()), ("bound", 0, 0));
}

#[test]
fn a_nak_takes_a_lease_in_use_away() {
    for (ms, state) in [(1_801_000, "renewing"), (3_151_000, "rebinding")] {
        let mut play = Play::bound(3600);
        play.after(ms);
        assert_eq!(play.client.state(), state);
        play.seen();
        if state == "renewing" {
            play.answer_with(MessageType::Nak, NONE, SECOND, 0, |_| {});
            assert_eq!((play.client.state(), play.events.len()), ("renewing", 0));
            play.answer_with(MessageType::Nak, NONE, SERVER, 0, |_| {});
        } else {
            play.answer_with(MessageType::Nak, NONE, SECOND, 0, |_| {});
        }
        assert!(play.lost().contains("took 192.0.2.7 back"));
        assert_eq!(play.seen(), [(DISCOVER, None, NONE)]);
    }
}

#[test]
fn a_carrier_that_comes_back_has_the_lease_verified() {
    let back = |play: &mut Play| {
        for up in [false, true] {
            let actions = play.client.link(up, at(play.ms));
            play.take(actions);
            play.after(1000);
        }
    };
    let mut play = Play::bound(3600);
    // That there is a carrier is no news.
    assert_eq!(play.client.link(true, at(play.ms)), []);
    back(&mut play);
    assert_eq!((play.client.state(), play.seen()), ("verifying", vec![(REQUEST, Some(ADDRESS), NONE)]));
    play.answer(MessageType::Ack, ADDRESS);
    assert!(play.lease().1);
    // Nobody answers: it is kept for its time.
    back(&mut play);
    play.after(8000);
    assert_eq!((play.client.state(), play.warned("it is kept")), ("bound", true));
    assert!(!play.events.iter().any(|event| matches!(event, Event::Lost { .. })));
    // Another net.
    back(&mut play);
    play.answer_with(MessageType::Nak, NONE, SECOND, 0, |_| {});
    assert!(play.lost().contains("took 192.0.2.7 back"));
    assert_eq!(play.client.state(), "selecting");
}

#[test]
fn without_a_carrier_nothing_is_sent_but_the_lease_ends() {
    let mut play = Play::bound(3600);
    assert_eq!(play.client.link(false, at(play.ms)), []);
    play.after(3_598_000);
    assert_eq!((play.sent.len(), play.events.len()), (0, 0));
    play.after(2000);
    assert!(play.lost().contains("is over"));
    assert_eq!((play.client.deadline(), play.sent.len()), (None, 0));
    let actions = play.client.link(true, at(play.ms));
    play.take(actions);
    assert_eq!(play.seen(), [(DISCOVER, Some(ADDRESS), NONE)]);

    // While it asks: silence, and at once again when the carrier is back, after however many tries.
    let mut play = Play::new(None);
    play.after(200_000);
    play.seen();
    for _ in 0..2 {
        assert_eq!(play.client.link(false, at(play.ms)), []);
        play.after(500_000);
        assert_eq!(play.seen(), []);
        let actions = play.client.link(true, at(play.ms));
        play.take(actions);
        play.after(5000);
        assert_eq!(play.seen(), [(DISCOVER, None, NONE); 2]);
    }
}

#[test]
fn a_process_that_was_killed_goes_on_in_silence() {
    let lease = previous();
    let settings = Settings { mac: MAC, hostname: None, previous: None, unproven: false };
    let mut play = Play::with(Client::resume(settings, lease.clone(), 5));
    let actions = play.client.link(true, at(play.ms));
    play.take(actions);
    assert_eq!((play.client.state(), play.sent.len()), ("bound", 0));
    assert_eq!(play.client.deadline(), lease.renewal());
    play.after(1_801_000);
    assert_eq!(play.seen(), [(REQUEST, None, ADDRESS)]);
    play.answer(MessageType::Ack, ADDRESS);
    assert!(play.lease().1);
}

#[test]
fn what_answers_no_question_is_passed_over() {
    let mut play = Play::new(None);
    let before = play.seen().len();
    let xid = play.client.asked_for_tests();
    let offer = |change: &dyn Fn(&mut Message)| reply(MessageType::Offer, xid, ADDRESS, SERVER, 3600, change);
    let mut wrong = vec![
        offer(&|message| {
            message.set_xid(xid ^ 1);
        }),
        offer(&|message| {
            message.set_chaddr(&OTHER_MAC);
        }),
        offer(&|message| {
            message.set_chaddr(&[2; 16]);
        }),
        offer(&|message| {
            message.set_opcode(Opcode::BootRequest);
        }),
        offer(&|message| {
            message.opts_mut().remove(OptionCode::MessageType);
        }),
        reply(MessageType::Ack, xid, ADDRESS, SERVER, 3600, |_| {}),
        reply(MessageType::Nak, xid, ADDRESS, SERVER, 3600, |_| {}),
        reply(MessageType::Inform, xid, ADDRESS, SERVER, 3600, |_| {}),
    ];
    let good = offer(&|_| {});
    wrong.push(udp(&good[28..], 67));
    wrong.push(good[..200].to_vec());
    for packet in wrong {
        assert_eq!(play.client.packet(&packet, at(play.ms)), []);
        assert_eq!(play.client.state(), "selecting");
    }
    assert_eq!(before, 1);
    play.answer(MessageType::Offer, ADDRESS);
    assert_eq!(play.client.state(), "requesting");
}

#[derive(Clone, Debug)]
enum Blow {
    Wait(u64),
    Jump(u64),
    Reply(u8, [u8; 4], u32, Vec<u8>),
    Bytes(Vec<u8>),
    Arp(Vec<u8>),
    Link(bool),
}

proptest! {
    /// Whatever happens in whatever order: no panic, no endless loop, no message without a pause.
    #[test]
    fn nothing_upsets_it(blows in proptest::collection::vec(prop_oneof![
        (0_u64..100_000).prop_map(Blow::Wait),
        (0_u64..u64::from(u32::MAX) * 10).prop_map(Blow::Jump),
        (1_u8..9, any::<[u8; 4]>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(kind, address, lease, tail)| Blow::Reply(kind, address, lease, tail)),
        Just(Blow::Reply(2, [192, 0, 2, 7], 600, vec![])),
        Just(Blow::Reply(5, [192, 0, 2, 7], 600, vec![])),
        Just(Blow::Reply(6, [192, 0, 2, 7], 600, vec![])),
        proptest::collection::vec(any::<u8>(), 0..400).prop_map(Blow::Bytes),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Blow::Arp),
        Just(Blow::Arp(arp(Arp { operation: 2, sender_mac: OTHER_MAC, sender: ADDRESS, target: NONE }))),
        any::<bool>().prop_map(Blow::Link),
    ], 0..40)) {
        let mut play = Play::new(None);
        for blow in blows {
            let before = play.sent.len();
            let mut waited = 0;
            match blow {
                Blow::Wait(ms) => {
                    waited = ms / 1000;
                    play.after(ms);
                }
                Blow::Jump(ms) => play.jump(ms),
                Blow::Reply(kind, address, lease, tail) => {
                    let xid = play.client.asked_for_tests();
                    let mut packet = reply(kind.into(), xid, address.into(), SERVER, lease, |_| {})[28..].to_vec();
                    packet.pop();
                    packet.extend(tail);
                    let actions = play.client.packet(&udp(&packet, 68), at(play.ms));
                    play.take(actions);
                }
                Blow::Bytes(bytes) => {
                    let mut actions = play.client.packet(&bytes, at(play.ms));
                    actions.extend(play.client.packet(&udp(&bytes, 68), at(play.ms)));
                    play.take(actions);
                }
                Blow::Arp(bytes) => {
                    let actions = play.client.arp(&bytes, at(play.ms));
                    play.take(actions);
                }
                Blow::Link(up) => {
                    let actions = play.client.link(up, at(play.ms));
                    play.take(actions);
                }
            }
            let sent = u64::try_from(play.sent.len() - before).unwrap();
            prop_assert!(sent <= 4 + waited, "{sent} messages in {waited} s");
        }
    }
}
