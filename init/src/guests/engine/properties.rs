//! Random guests on a random host, with commands and kills at random moments. What must never happen is in [`super::world`].

use super::world::{Behaviour, Outcome, World};
use super::*;
use crate::guests::ready::Ready;
use crate::guests::settings::{OnFailure, Restart, StopAs};
use proptest::prelude::*;

fn name(number: usize) -> String {
    ["g", &number.to_string()].concat()
}

fn seconds(most: u64) -> impl Strategy<Value = u64> {
    (0..=most * 10).prop_map(|tenths| tenths * SECOND / 10)
}

prop_compose! {
    fn guest()(
        after in proptest::collection::vec(0_usize..14, 0..4),
        order in -1..3,
        delay in prop_oneof![3 => Just(0_u32), 1 => 1_u32..20],
        probed in any::<bool>(),
        ready_timeout in 1_u32..40,
        retries in 0_u32..3,
        hold in any::<bool>(),
        stop_timeout in 1_u32..60,
        stop in prop_oneof![Just(StopAs::Shutdown), Just(StopAs::Save), Just(StopAs::Destroy)],
        autostart in proptest::bool::weighted(0.9),
        restart in prop_oneof![Just(Restart::Always), Just(Restart::OnCrash), Just(Restart::No)],
        restarts_per_hour in 0_u32..4,
    ) -> Guest {
        Guest {
            config: None,
            after: after.into_iter().map(name).collect(),
            order,
            delay,
            ready: if probed { "ping 192.0.2.1".parse().unwrap() } else { Ready::Running },
            ready_timeout,
            retries,
            on_failure: if hold { OnFailure::HoldDependents } else { OnFailure::Continue },
            stop_timeout,
            stop,
            autostart,
            restart,
            restarts_per_hour,
        }
    }
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        2 => Just(Reason::Crash),
        2 => Just(Reason::PowerOff),
        2 => Just(Reason::Reboot),
        1 => Just(Reason::NoReboot),
        1 => Just(Reason::Suspend),
        1 => Just(Reason::Destroyed),
        1 => Just(Reason::Unknown),
    ]
}

prop_compose! {
    fn behaviour()(
        creates in proptest::collection::vec(
            prop_oneof![4 => Just(Outcome::Works), 1 => Just(Outcome::Fails), 1 => Just(Outcome::Hangs)], 1..4),
        create_us in seconds(8),
        ready_us in proptest::option::weighted(0.8, seconds(50)),
        ends in prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec((seconds(200), reason()), 1..6)],
        shutdown_us in proptest::option::weighted(0.8, seconds(40)),
        asked in proptest::bool::weighted(0.9),
        save_us in seconds(20),
        save_works in proptest::bool::weighted(0.8),
        restore_works in proptest::bool::weighted(0.8),
        destroy_us in seconds(1),
    ) -> Behaviour {
        Behaviour { creates, create_us, ready_us, ends, shutdown_us, asked, save_us, save_works, restore_works, destroy_us }
    }
}

prop_compose! {
    /// Guests with some saved and some refused, on a host that creates so many at a time.
    fn world()(
        guests in proptest::collection::vec((guest(), behaviour(), 0_u8..10), 1..14),
        parallel in 1_usize..5,
        kills in proptest::collection::btree_map(1_usize..150, any::<u8>(), 0..4),
    ) -> (Vec<Spec>, BTreeMap<String, Behaviour>, usize, BTreeMap<usize, u8>) {
        let specs = guests.iter().enumerate().map(|(number, (guest, _, luck))| Spec {
            name: name(number),
            guest: guest.clone(),
            saved: *luck == 0,
            refused: (*luck == 1).then(|| "does not fit".to_owned()),
        });
        let behaviours = guests.iter().enumerate().map(|(number, (_, behaviour, _))| (name(number), behaviour.clone()));
        (specs.collect(), behaviours.collect(), parallel, kills)
    }
}

fn event() -> impl Strategy<Value = (u64, Event)> {
    let name = || (0_usize..16).prop_map(name);
    let event = prop_oneof![
        name().prop_map(|name| Event::Start { name }),
        name().prop_map(|name| Event::Stop { name }),
        name().prop_map(|name| Event::Restart { name }),
        name().prop_map(|name| Event::Refuse { name, why: "the disk\n is gone".into() }),
        Just(Event::DaemonsLost),
        Just(Event::DaemonsUp),
        Just(Event::StartAll { filter: Filter::All }),
        name().prop_map(|name| Event::StartAll { filter: Filter::Only(vec![name]) }),
    ];
    (seconds(120), event)
}

fn begin(
    (specs, behaviours, parallel, kills): (Vec<Spec>, BTreeMap<String, Behaviour>, usize, BTreeMap<usize, u8>),
) -> World {
    let mut world = World::new(specs, behaviours, parallel);
    world.kills = kills;
    world.feed(Event::StartAll { filter: Filter::All });
    world.feed(Event::DaemonsUp);
    world
}

fn stop(world: &mut World, seconds: u64) {
    let until_us = world.now + seconds * SECOND;
    world.feed(Event::StopAll { until_us });
    let end = world.stopping.unwrap().1;
    while !world.engine.is_settled() {
        assert!(world.go_on(), "nothing is under way: {:#?}", world.engine.report());
        assert!(world.now <= end + 40 * SECOND);
    }
    world.settle();
    let late = world.kills.is_empty() && world.log.last().is_some_and(|(at, _)| *at > end);
    assert!(!late, "it went on after the deadline");
    assert!(world.domains.is_empty(), "{:?}\n{:#?}", world.domains, world.engine.report());
}

proptest! {
    #[test]
    fn every_guest_ends_in_one_state_in_order_and_without_a_deadlock(world in world()) {
        let mut world = begin(world);
        world.settle();
        prop_assert!(world.engine.first_wave_created());
    }

    #[test]
    fn commands_and_kills_at_any_moment_change_nothing_of_that(
        world in world(),
        mut events in proptest::collection::vec(event(), 0..12),
        deadline in prop_oneof![Just(20_u64), Just(180), Just(100_000)],
        wait in seconds(200),
    ) {
        let mut world = begin(world);
        events.sort_by_key(|(at, _)| *at);
        for (at, event) in events {
            world.run_until(at);
            world.feed(event);
        }
        world.feed(Event::DaemonsUp);
        let then = world.now + wait;
        world.run_until(then);
        world.kills.clear();
        stop(&mut world, deadline);
        // And up again, as after a power cut that did not come.
        world.feed(Event::StartAll { filter: Filter::All });
        world.settle();
    }

    #[test]
    fn stopping_survives_kills(world in world(), kills in proptest::collection::btree_map(0_usize..60, any::<u8>(), 0..4)) {
        let mut world = begin(world);
        world.settle();
        let steps = world.steps;
        world.kills = kills.into_iter().map(|(step, how)| (steps + 1 + step, how)).collect();
        stop(&mut world, 600);
    }

    #[test]
    fn no_event_makes_it_panic_or_ask_for_the_impossible(
        world in world(),
        events in proptest::collection::vec((event(), 0_usize..8, 0_usize..16, 0_u32..6, any::<bool>()), 0..60),
    ) {
        let (specs, _, parallel, _) = world;
        let mut engine = Engine::new(specs, parallel, 0);
        for ((now, command), kind, number, domid, good) in events {
            let name = name(number);
            let result = if good { Ok(()) } else { Err(XlError::TimedOut) };
            let event = match kind {
                0 => Event::Created { name, result: result.map(|()| domid) },
                1 => Event::Probed { name, domid, result: result.map_err(|error| error.to_string()) },
                2 => Event::Gone { name, domid, reason: Reason::Crash },
                3 => Event::Appeared { name, domid },
                4 => Event::ShutdownEnded { name, result },
                5 => Event::SaveEnded { name, result },
                6 => Event::DestroyEnded { name, result },
                _ => command,
            };
            let _ = engine.step(event, now);
            let again = Engine::from_json(&engine.to_json().unwrap()).unwrap();
            prop_assert_eq!(again.report(), engine.report());
            prop_assert_eq!(engine.report().len(), engine.guests.len());
            let _ = table(&engine.report(), now);
        }
    }
}
