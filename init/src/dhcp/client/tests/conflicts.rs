//! Addresses that others use as well, or might.

use super::*;

#[test]
fn a_grant_that_was_not_probed_is_confirmed_and_then_probed() {
    let begun = || {
        let mut play = Play::new(None);
        assert_eq!(play.client.unproven(), None);
        play.answer(MessageType::Offer, ADDRESS);
        play.answer(MessageType::Ack, ADDRESS);
        let granted = play.client.unproven().cloned().unwrap();
        let settings = Settings { mac: MAC, hostname: None, previous: Some(granted.clone()), unproven: true };
        let mut play = Play::with(Client::new(settings, 2, at(play.ms)));
        assert_eq!((play.client.state(), play.seen()), ("rebooting", vec![(REQUEST, Some(ADDRESS), NONE)]));
        assert_eq!(play.client.unproven(), Some(&granted));
        play
    };
    let mut play = begun();
    play.answer(MessageType::Ack, ADDRESS);
    assert_eq!((play.client.state(), play.client.unproven().is_some()), ("probing", true));
    play.after(600);
    assert_eq!((play.lease().1, play.arp.len(), play.client.unproven()), (false, 4, None));

    let mut play = begun();
    play.answer(MessageType::Ack, ADDRESS);
    let conflict = Arp { operation: 2, sender_mac: OTHER_MAC, sender: ADDRESS, target: NONE };
    let actions = play.client.arp(&arp(conflict), at(play.ms));
    play.take(actions);
    assert_eq!((play.seen(), play.client.unproven()), (vec![(MessageType::Decline, Some(ADDRESS), NONE)], None));

    let mut play = begun();
    play.answer_with(MessageType::Nak, NONE, SERVER, 0, |_| {});
    assert_eq!((play.seen(), play.client.unproven()), (vec![(DISCOVER, None, NONE)], None));
}

#[test]
fn a_conflict_is_declined_and_waited_out() {
    let conflicts = [
        // Somebody answers the probe, or just talks, or probes for the same address.
        Arp { operation: 2, sender_mac: OTHER_MAC, sender: ADDRESS, target: NONE },
        Arp { operation: 1, sender_mac: OTHER_MAC, sender: ADDRESS, target: SERVER },
        Arp { operation: 1, sender_mac: OTHER_MAC, sender: NONE, target: ADDRESS },
    ];
    for conflict in conflicts {
        let mut play = Play::new(None);
        play.answer(MessageType::Offer, ADDRESS);
        play.answer(MessageType::Ack, ADDRESS);
        play.after(300);
        play.seen();
        // Not: the own probe that comes back, others that ask for it or talk of something else, nonsense.
        for harmless in [
            arp_probe(MAC, ADDRESS),
            arp(Arp { operation: 1, sender_mac: OTHER_MAC, sender: SERVER, target: ADDRESS }),
            arp(Arp { operation: 1, sender_mac: OTHER_MAC, sender: NONE, target: OTHER }),
            vec![1; 20],
        ] {
            let actions = play.client.arp(&harmless, at(play.ms));
            assert_eq!(actions, []);
        }
        let actions = play.client.arp(&arp(conflict), at(play.ms));
        play.take(actions);
        assert!(play.warned("192.0.2.7 is in use by 02:00:00:00:00:09"));
        let server = play.sent[0].0.opts().get(OptionCode::ServerIdentifier).cloned();
        assert_eq!(server, Some(DhcpOption::ServerIdentifier(SERVER)));
        assert_eq!(play.seen(), [(MessageType::Decline, Some(ADDRESS), NONE)]);
        play.after(9_999);
        assert_eq!((play.sent.len(), play.client.state()), (0, "waiting"));
        play.after(1);
        assert_eq!(play.seen(), [(DISCOVER, None, NONE)]);
    }
}

#[test]
fn an_address_in_use_is_defended_and_kept() {
    let mut play = Play::bound(3600);
    let claim = |play: &mut Play, mac| {
        let claim = arp(Arp { operation: 1, sender_mac: mac, sender: ADDRESS, target: ADDRESS });
        let actions = play.client.arp(&claim, at(play.ms));
        play.take(actions);
        std::mem::take(&mut play.arp)
    };
    // Its own announcement, a question for it, and a probe are no claims.
    assert_eq!(claim(&mut play, MAC), []);
    for harmless in [
        arp_probe(OTHER_MAC, ADDRESS),
        arp(Arp { operation: 1, sender_mac: OTHER_MAC, sender: OTHER, target: ADDRESS }),
    ] {
        assert_eq!(play.client.arp(&harmless, at(play.ms)), []);
    }
    assert_eq!(play.client.conflict(), None);
    let own = Arp { operation: 1, sender_mac: MAC, sender: ADDRESS, target: ADDRESS };
    assert_eq!(claim(&mut play, OTHER_MAC), [own]);
    assert!(play.warned("192.0.2.7 is also claimed by 02:00:00:00:00:09; it is kept"));
    // However often it is claimed, it is announced once in ten seconds, and said once.
    for _ in 0..99 {
        play.after(100);
        assert_eq!(claim(&mut play, OTHER_MAC), []);
    }
    play.after(100);
    assert_eq!(claim(&mut play, OTHER_MAC), [own]);
    assert_eq!((play.events.len(), play.client.state(), play.sent.len()), (1, "bound", 0));
    // It is told as wrong as long as it lasts.
    play.after(59_999);
    assert!(play.client.conflict().is_some_and(|text| text.contains("02:00:00:00:00:09")));
    play.after(1);
    assert_eq!(play.client.conflict(), None);
    assert_eq!(claim(&mut play, OTHER_MAC), [own]);
    play.after(3_600_000);
    assert!(play.lost().contains("is over"));
    assert_eq!((play.client.conflict(), play.client.arp_watch()), (None, None));
}
