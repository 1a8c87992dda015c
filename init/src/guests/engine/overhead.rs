//! What the scheduling costs, beside the longest way through the graph.

use super::world::{Behaviour, World};
use super::*;

/// Guests of an ordinary large host: most depend on a few, each with its own times; the same in each run.
fn host(count: usize) -> (Vec<Spec>, BTreeMap<String, Behaviour>) {
    let mut seed = 7_u64;
    let mut random = move |most: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % most
    };
    let name = |number: usize| ["guest", &number.to_string()].concat();
    let mut specs = Vec::new();
    let mut behaviours = BTreeMap::new();
    for number in 0..count {
        let after = if number == 0 { 0 } else { random(4) };
        let after = (0..after).map(|_| name(usize::try_from(random(number as u64)).unwrap())).collect();
        let delay = if random(8) == 0 { 3 } else { 0 };
        let ready = "tcp 192.0.2.1:22".parse().unwrap();
        let guest = Guest { after, delay, ready, ready_timeout: 600, ..Guest::default() };
        specs.push(Spec { name: name(number), guest, saved: false, refused: None });
        let (create_us, ready_us) = (SECOND + random(3 * SECOND), Some(SECOND + random(30 * SECOND)));
        behaviours.insert(name(number), Behaviour { create_us, ready_us, ..Behaviour::default() });
    }
    (specs, behaviours)
}

/// The longest way in microseconds: what a host without any limit could do.
fn longest(specs: &[Spec], behaviours: &BTreeMap<String, Behaviour>) -> u64 {
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    // A guest is only after those with a smaller number here.
    for spec in specs {
        let begin = spec.guest.after.iter().map(|other| ends[other.as_str()]).max().unwrap_or_default();
        let behaviour = &behaviours[&spec.name];
        let own = u64::from(spec.guest.delay) * SECOND + behaviour.create_us + behaviour.ready_us.unwrap();
        ends.insert(&spec.name, begin + own);
    }
    ends.into_values().max().unwrap()
}

fn run(count: usize, parallel: usize) -> (u64, u64, u64, std::time::Duration) {
    let (specs, behaviours) = host(count);
    let way = longest(&specs, &behaviours);
    let work = behaviours.values().map(|behaviour| behaviour.create_us).sum::<u64>() / parallel as u64;
    let mut world = World::new(specs, behaviours, parallel);
    let begun = std::time::Instant::now();
    world.feed(Event::DaemonsUp);
    world.feed(Event::StartAll { filter: Filter::All });
    world.settle();
    assert!(world.engine.report().iter().all(|guest| guest.state == "ready"));
    (world.now, way, work, begun.elapsed())
}

#[test]
fn the_longest_way_through_the_graph_is_all_it_takes() {
    for count in [10, 50, 200] {
        let (took, way, _, real) = run(count, count);
        let ratio = took as f64 / way as f64;
        println!(
            "{count} guests: {:.1} s, longest way {:.1} s, ratio {ratio:.4}; computed in {real:?}",
            took as f64 / 1e6,
            way as f64 / 1e6
        );
        assert!(ratio <= 1.02, "{count} guests: {ratio}");
        // With a limit it is never worse than the longest way and the work one after the other (Graham 1966).
        let (took, way, work, _) = run(count, 4);
        let least = way.max(work);
        println!("{count} guests, 4 at a time: {:.1} s, at least {:.1} s", took as f64 / 1e6, least as f64 / 1e6);
        assert!(took <= way + work, "{count} guests: {took}, {way}, {work}");
    }
}

#[test]
fn two_hundred_guests_with_cycles_all_have_their_state() {
    let (mut specs, behaviours) = host(200);
    for (member, other) in [(3, 190), (190, 50), (50, 3), (20, 21), (21, 20), (100, 100)] {
        let other = specs[other].name.clone();
        specs[member].guest.after.push(other);
    }
    let mut world = World::new(specs, behaviours, 8);
    world.feed(Event::DaemonsUp);
    world.feed(Event::StartAll { filter: Filter::All });
    world.settle();
    let count = |state: &str| world.engine.report().iter().filter(|guest| guest.state == state).count();
    assert!(count("refused") >= 5, "{:#?}", world.engine.graph().problems);
    assert_eq!(count("refused") + count("ready"), 200);
    assert_eq!(count("refused"), world.engine.graph().refused.len());
}
