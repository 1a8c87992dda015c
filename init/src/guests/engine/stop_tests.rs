//! Stopping, and what runs already, rule by rule.

use super::stop::AT_ONCE;
use super::tests::{begin, deaf, done, specs, started, state, world};
use super::world::{Behaviour, World};
use super::*;

#[test]
fn all_are_stopped_in_the_reverse_order() {
    let mut world = started("[db]\n[web]\nafter = ['db']\n[app]\nafter = ['db']\n[alone]\n", &[]);
    world.settle();
    world.log.clear();
    world.now = 100 * SECOND;
    world.feed(Event::StopAll { until_us: 280 * SECOND });
    assert_eq!(state(&world, "db"), "stopping: its turn comes");
    world.settle();
    assert_eq!(done(&world), ["100 shutdown web", "100 shutdown app", "100 shutdown alone", "105 shutdown db"]);
    assert_eq!((state(&world, "db"), world.now), ("stopped: shut down".into(), 110 * SECOND));
    assert_eq!(world.engine.next_deadline(), None);
}

#[test]
fn a_guest_that_does_not_listen_holds_up_nobody_else_and_ends_as_configured() {
    let text = "[db]\n[web]\nafter = ['db']\n[save]\nstop = 'save'\nstop_timeout = 30\n[kill]\nstop = 'destroy'\nstop_timeout = 10\n[good]\n";
    let mut world = started(text, &[("web", deaf()), ("save", deaf()), ("kill", deaf())]);
    world.settle();
    world.log.clear();
    world.now = 100 * SECOND;
    world.feed(Event::StopAll { until_us: 280 * SECOND });
    world.settle();
    // 45 s of the 180 are kept back; the other 135 are shared by "web" and "db", which would need 240.
    assert_eq!(
        done(&world),
        [
            "100 shutdown web",
            "100 shutdown save",
            "100 shutdown kill",
            "100 shutdown good",
            "110 destroy kill",
            "130 save save",
            "167.5 destroy web",
            "168 shutdown db",
        ]
    );
    assert_eq!(state(&world, "save"), "saved: did not shut down within 30 s");
    assert_eq!(state(&world, "db"), "stopped: shut down");
    assert!(state(&world, "kill").starts_with("stopped: destroyed; did not shut down within 10 s"));
}

#[test]
fn one_that_is_being_stopped_already_has_its_share_and_no_more() {
    let mut world = started("[db]\n[web]\nafter = ['db']\nstop_timeout = 3000\n", &[("web", deaf())]);
    world.settle();
    world.log.clear();
    world.now = 100 * SECOND;
    world.feed(Event::Stop { name: "web".into() });
    world.feed(Event::StopAll { until_us: 280 * SECOND });
    world.settle();
    // 135 s for two, of which one would take 3000 s and the other 120 s: an equal part.
    let lines = done(&world);
    assert!(lines[1].starts_with("167.5") && lines[1].ends_with(" destroy web"), "{lines:?}");
    assert!(lines[2].starts_with("168 ") && lines[2].ends_with(" shutdown db"), "{lines:?}");
    assert_eq!(state(&world, "db"), "stopped: shut down");
}

#[test]
fn the_time_that_a_guest_took_counts_from_when_it_was_asked() {
    let mut world = started("[db]\nstop = 'destroy'\nstop_timeout = 20\n[web]\nafter = ['db']\n", &[("db", deaf())]);
    world.settle();
    let until_us = world.now + 180 * SECOND;
    world.feed(Event::StopAll { until_us });
    world.settle();
    assert_eq!(state(&world, "db"), "stopped: destroyed; did not shut down within 20 s");
}

#[test]
fn one_that_cannot_be_asked_is_not_waited_for() {
    let behaviour = Behaviour { asked: false, ..Behaviour::default() };
    let mut world = started("[a]\n", &[("a", behaviour)]);
    world.settle();
    let until_us = world.now + 180 * SECOND;
    world.feed(Event::StopAll { until_us });
    world.settle();
    assert_eq!(world.now, 2_700_000);
}

#[test]
fn the_limit_holds_while_the_deadline_allows_it_and_yields_when_it_does_not() {
    // Three more than are asked at once.
    let text = (0..AT_ONCE + 3).map(|number| format!("[g{number}]\nstop_timeout = 20\n")).collect::<Vec<_>>().concat();
    for (deadline, late) in [(1000, 15), (80, 15), (40, 10)] {
        let expected: Vec<u64> = (0..AT_ONCE + 3).map(|number| if number < AT_ONCE { 0 } else { late }).collect();
        let all = specs(&text);
        let slow = Behaviour { shutdown_us: Some(15 * SECOND), ..Behaviour::default() };
        let mut world = World::new(all.clone(), all.iter().map(|spec| (spec.name.clone(), slow.clone())).collect(), 2);
        begin(&mut world);
        world.settle();
        world.log.clear();
        let begun = world.now;
        world.feed(Event::StopAll { until_us: begun + deadline * SECOND });
        world.settle();
        let asked =
            |(at, action): &(u64, Action)| matches!(action, Action::Shutdown { .. }).then_some((at - begun) / SECOND);
        assert_eq!(world.log.iter().filter_map(asked).collect::<Vec<_>>(), expected, "{deadline}");
        assert!(world.engine.report().iter().all(|guest| guest.cause == "shut down"), "{:#?}", world.engine.report());
    }
}

#[test]
fn near_the_deadline_nobody_waits_for_others_or_for_the_daemons() {
    let undying = Behaviour { destroy_us: 10_000 * SECOND, ..deaf() };
    for daemons in [true, false] {
        let mut world = started("[db]\n[web]\nafter = ['db']\n", &[("web", undying.clone())]);
        world.settle();
        world.log.clear();
        world.now = 100 * SECOND;
        if !daemons {
            world.feed(Event::DaemonsLost);
        }
        world.feed(Event::StopAll { until_us: 160 * SECOND });
        while !world.engine.is_settled() {
            assert!(world.go_on());
        }
        let expected: &[&str] = if daemons {
            &["100 shutdown web", "122.5 destroy web", "145 destroy db"]
        } else {
            &["145 destroy db", "145 destroy web"]
        };
        assert_eq!(done(&world), expected);
        assert_eq!(state(&world, "db"), "stopped: destroyed; the deadline for all guests is near");
        assert_eq!((state(&world, "web").split(':').next(), world.now), (Some("failed"), 160 * SECOND));
    }
}

#[test]
fn what_nothing_helps_against_is_given_up_at_the_deadline() {
    let stuck = Behaviour { destroy_us: 10_000 * SECOND, save_us: 10_000 * SECOND, ..deaf() };
    let mut world = started("[a]\n[b]\nstop = 'save'\n", &[("a", stuck.clone()), ("b", stuck)]);
    world.settle();
    let end = world.now + 60 * SECOND;
    world.feed(Event::StopAll { until_us: end });
    while !world.engine.is_settled() {
        assert!(world.go_on());
    }
    assert_eq!((world.now, world.engine.next_deadline()), (end, None));
    assert!(state(&world, "a").starts_with("failed: still there when the deadline"), "{}", state(&world, "a"));
}

#[test]
fn a_guest_that_is_being_created_when_all_are_stopped_is_stopped_too() {
    let slow = Behaviour { create_us: 20 * SECOND, ..Behaviour::default() };
    let mut world = started("[a]\n[b]\nafter = ['a']\n[c]\ndelay = 30\n", &[("a", slow)]);
    world.run_until(SECOND);
    world.feed(Event::StopAll { until_us: 181 * SECOND });
    assert!(world.engine.first_wave_created() || state(&world, "a").starts_with("stopping"));
    world.settle();
    assert_eq!(done(&world), ["0 create a", "20 shutdown a"]);
    assert_eq!(state(&world, "b"), "stopped: not started, because all guests are stopped");
    // And all may be started again.
    world.feed(Event::StartAll { filter: Filter::All });
    world.settle();
    assert_eq!((state(&world, "a"), state(&world, "c")), ("ready".into(), "ready".into()));
}

#[test]
fn saved_guests_are_resumed_and_started_anew_only_when_that_does_not_work() {
    for (restore_works, expected) in
        [(true, vec!["0 restore a", "2 discard a"]), (false, vec!["0 restore a", "2 discard a", "2 create a"])]
    {
        let mut all = specs("[a]\nretries = 0\n");
        all[0].saved = true;
        let behaviour = Behaviour { restore_works, ..Behaviour::default() };
        let mut world = World::new(all, BTreeMap::from([("a".into(), behaviour)]), 2);
        assert_eq!(state(&world, "a"), "saved");
        begin(&mut world);
        world.settle();
        assert_eq!(done(&world), expected);
        assert_eq!(state(&world, "a"), "ready");
    }
}

#[test]
fn one_guest_is_stopped_and_restarted_on_command() {
    let command = |world: &mut World, event: Event| {
        world.log.clear();
        world.feed(event);
        world.settle();
        done(world).iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    let name = || "a".to_owned();
    let mut world = started("[a]\nrestart = 'always'\n", &[]);
    world.settle();
    assert_eq!(command(&mut world, Event::Start { name: name() }), Vec::<String>::new());
    assert_eq!(command(&mut world, Event::Stop { name: name() }), ["shutdown a"]);
    assert_eq!(state(&world, "a"), "stopped: shut down");
    assert_eq!(command(&mut world, Event::Stop { name: name() }), Vec::<String>::new());
    assert_eq!(command(&mut world, Event::Restart { name: name() }), ["create a"]);
    assert_eq!(command(&mut world, Event::Restart { name: name() }), ["shutdown a", "create a"]);
    assert_eq!(state(&world, "a"), "ready");

    for (stop, expected, then) in [
        ("shutdown", vec!["shutdown a"], "ready: did not shut down within 120 s"),
        ("save", vec!["shutdown a", "save a"], "saved: did not shut down within 120 s"),
        ("destroy", vec!["shutdown a", "destroy a"], "stopped: destroyed; did not shut down within 120 s"),
    ] {
        let mut world = started(&format!("[a]\nstop = '{stop}'\n"), &[("a", deaf())]);
        world.settle();
        assert_eq!(command(&mut world, Event::Stop { name: name() }), expected);
        assert_eq!(state(&world, "a"), then);
    }
    let mut world = started("[a]\n", &[]);
    world.feed(Event::Stop { name: name() });
    world.settle();
    assert_eq!(done(&world), ["0 create a", "2 shutdown a"]);
    assert_eq!(state(&world, "a"), "stopped: shut down");
    world.feed(Event::Start { name: "b".into() });
    assert!(
        matches!(&world.log.last().unwrap().1, Action::Note { text, .. } if text.starts_with("there is no guest b"))
    );
}

#[test]
fn guests_that_run_already_are_taken_over_and_never_started_twice() {
    let mut world = world("[a]\nready = 'ping 192.0.2.1'\n[b]\nafter = ['a']\n", &[]);
    world.now = 5 * SECOND;
    world.start_by_hand("a");
    world.start_by_hand("stranger");
    world.kill(0);
    begin(&mut world);
    assert_eq!(state(&world, "b"), "waiting: for a");
    world.settle();
    assert_eq!(done(&world), ["5 discard a", "15 create b"]);
    assert_eq!(state(&world, "stranger"), "ready");
    let until_us = world.now + 180 * SECOND;
    world.feed(Event::StopAll { until_us });
    world.settle();
    assert_eq!((world.domains.len(), state(&world, "stranger")), (0, "stopped: shut down".into()));
    world.feed(Event::StartAll { filter: Filter::Only(vec!["stranger".into()]) });
    world.feed(Event::Start { name: "stranger".into() });
    world.feed(Event::Restart { name: "stranger".into() });
    assert_eq!(state(&world, "stranger").split(':').next(), Some("stopped"));
}

#[test]
fn one_that_was_started_by_hand_is_taken_over_and_its_saved_state_is_of_no_use_any_more() {
    let mut all = specs("[a]\nautostart = false\n");
    all[0].saved = true;
    let mut world = World::new(all, BTreeMap::new(), 2);
    begin(&mut world);
    let domid = world.start_by_hand("a");
    world.feed(Event::Appeared { name: "a".into(), domid });
    world.settle();
    assert_eq!((done(&world), state(&world, "a").as_str()), (vec!["0 discard a".to_owned()], "ready"));
}

#[test]
fn half_a_domain_of_a_killed_supervisor_is_destroyed_before_the_guest_starts() {
    // 6 / 3 % 3 = 2: xl is gone, and what it had built so far is there.
    let mut world = started("[a]\n", &[]);
    world.run_until(SECOND);
    world.kill(6);
    world.settle();
    assert_eq!(done(&world), ["0 create a", "1.75 destroy a", "2.25 create-2 a"]);
    assert_eq!(state(&world, "a"), "ready");
}

#[test]
fn a_restore_that_may_have_run_is_never_repeated() {
    let mut all = specs("[a]\n");
    all[0].saved = true;
    let mut engine = Engine::new(all, 2, 0);
    let _ = engine.step(Event::DaemonsUp, 0);
    let _ = engine.step(Event::StartAll { filter: Filter::All }, 0);
    let mut engine = Engine::from_json(&engine.to_json().unwrap()).unwrap();
    let actions = engine.reconcile(&[], SECOND);
    let kinds: Vec<&Action> = actions.iter().filter(|action| !matches!(action, Action::Note { .. })).collect();
    let name = || "a".to_owned();
    assert_eq!(kinds, [&Action::Discard { name: name() }, &Action::Create { name: name(), attempt: 1 }]);
}

#[test]
fn one_that_was_kept_before_it_was_told_anything_has_not_begun() {
    let kept = |engine: &Engine| Engine::from_json(&engine.to_json().unwrap()).unwrap();
    let mut engine = Engine::new(specs("[a]\n"), 2, 0);
    let _ = engine.reconcile(&[], 0);
    let _ = engine.step(Event::DaemonsUp, 0);
    assert!(!kept(&engine).has_begun());
    let (mut starts, mut stops) = (kept(&engine), kept(&engine));
    let _ = starts.step(Event::StartAll { filter: Filter::All }, 0);
    let _ = stops.step(Event::StopAll { until_us: SECOND }, 0);
    assert!(kept(&starts).has_begun() && kept(&stops).has_begun());
}

#[test]
fn a_guest_that_shut_down_while_its_save_was_cut_off_is_started_anew() {
    // It listens, but only after its time is over; the kill comes while it is being saved.
    let slow = Behaviour { shutdown_us: Some(9_100_000), ..Behaviour::default() };
    let mut world = started("[a]\nstop = 'save'\nstop_timeout = 9\n", &[("a", slow)]);
    world.settle();
    world.now = 10 * SECOND;
    world.feed(Event::Stop { name: "a".into() });
    world.run_until(19 * SECOND);
    world.kill(3);
    assert_eq!((state(&world, "a"), world.saved.len()), ("saved: did not shut down within 9 s".into(), 0));
    world.feed(Event::Start { name: "a".into() });
    world.settle();
    assert_eq!(state(&world, "a"), "ready");
    assert_eq!(done(&world)[3..], ["19.375 restore a", "21.375 discard a", "21.375 create a"]);
}

#[test]
fn a_state_that_is_no_json_is_an_error() {
    for text in ["", "{}", "[1]", "{\"guests\": 5}"] {
        assert!(Engine::from_json(text).is_err(), "{text}");
    }
}

#[test]
fn saving_has_the_time_that_others_leave_and_not_that_of_shutting_down() {
    let slow = |save_s: u64| Behaviour { save_us: save_s * SECOND, ..deaf() };
    // "big" is after "db", which needs 20 s of the 135 s until nobody is asked any more; nobody needs any after "alone".
    for (save_s, big, alone) in [(100, "saved", "saved"), (120, "stopped", "saved"), (170, "stopped", "stopped")] {
        let text = "[db]\nstop_timeout = 20\n[big]\nafter = ['db']\nstop = 'save'\nstop_timeout = 10\n\
            [alone]\nstop = 'save'\nstop_timeout = 10\n";
        let mut world = started(text, &[("big", slow(save_s)), ("alone", slow(save_s))]);
        world.settle();
        let until_us = world.now + 180 * SECOND;
        world.feed(Event::StopAll { until_us });
        world.settle();
        let ends = |name: &str| world.engine.state(name).unwrap().word();
        assert_eq!((ends("big"), ends("alone")), (big, alone), "{save_s} {:#?}", world.engine.report());
        assert_eq!(state(&world, "db"), "stopped: shut down", "{save_s}");
    }
}
