//! The order as tables, and of random guests.

use super::*;
use proptest::prelude::*;

fn node(name: &str, after: &[&str]) -> Node {
    Node { name: name.into(), after: after.iter().map(|&name| name.into()).collect(), order: 0, autostart: true }
}

fn told(graph: &Graph) -> Vec<String> {
    graph.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn levels_come_from_the_longest_way_and_are_sorted_by_order_and_name() {
    let mut nodes = vec![
        node("web", &["db", "auth"]),
        node("db", &["disk"]),
        node("auth", &[]),
        node("disk", &[]),
        node("a", &["auth"]),
    ];
    nodes[2].order = -1;
    nodes[4].order = 5;
    let found = graph(&nodes);
    assert_eq!(found.levels, [vec!["auth", "disk"], vec!["db", "a"], vec!["web"]]);
    assert_eq!(found.sequence, ["auth", "disk", "db", "web", "a"]);
    assert_eq!(found.problems, []);
    nodes.reverse();
    assert_eq!(graph(&nodes), found);
}

#[test]
fn members_of_a_cycle_are_refused_with_the_path_and_the_rest_starts() {
    let found = graph(&[
        node("a", &["b"]),
        node("b", &["c", "x"]),
        node("c", &["a"]),
        node("d", &["c"]),
        node("x", &[]),
        node("e", &["a", "x"]),
    ]);
    assert_eq!(told(&found).len(), 1);
    assert!(told(&found)[0].contains("a -> b -> c -> a"), "{:?}", told(&found));
    assert_eq!(found.refused.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(found.refused["c"].contains("a -> b -> c -> a"));
    assert_eq!(found.levels, [vec!["d", "x"], vec!["e"]]);
    assert_eq!((found.after["b"].as_slice(), found.after["e"].len()), (["x".to_owned()].as_slice(), 2));
}

#[test]
fn every_member_of_entangled_cycles_is_in_a_path_that_is_told() {
    let found = graph(&[
        node("a", &["b"]),
        node("b", &["a", "c"]),
        node("c", &["b"]),
        node("p", &["q"]),
        node("q", &["p", "a"]),
    ]);
    let told = told(&found).join("\n");
    for path in ["a -> b -> a", "c -> b -> c", "p -> q -> p"] {
        assert!(told.contains(path), "{told}");
    }
    assert_eq!((found.refused.len(), found.levels.len(), found.sequence.len()), (5, 0, 5));
}

#[test]
fn edges_that_lead_nowhere_are_dropped_and_told() {
    let mut nodes =
        vec![node("web", &["databsae", "web", "hand", "hand", "qqqqqq"]), node("database", &[]), node("hand", &[])];
    nodes[2].autostart = false;
    let found = graph(&nodes);
    assert_eq!(
        told(&found),
        [
            "web is after databsae, which there is not; it does not wait for it; did you mean database?",
            "web is after itself; that has no effect",
            "web is after hand, which does not start by itself; it waits for it only while hand starts",
            "web is after qqqqqq, which there is not; it does not wait for it",
        ]
    );
    assert_eq!(found.levels, [["database", "web"]]);
    assert_eq!((found.after["web"].as_slice(), found.refused.len()), (["hand".to_owned()].as_slice(), 0));
}

#[test]
fn names_that_are_no_text_do_no_harm_to_a_console() {
    let names = ["a\u{1b}[2J", "b\n"];
    let found = graph(&[node(names[0], &names[1..]), node(names[1], &names[..1]), node("c\r", &["\u{7f}", "c\r"])]);
    for text in told(&found).iter().chain(found.refused.values()) {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

#[test]
fn a_chain_and_a_cycle_of_thousands_end_soon_and_are_told_in_short() {
    let begun = std::time::Instant::now();
    let name = |number: usize| ["g", &number.to_string()].concat();
    let mut nodes: Vec<Node> = (0..5000).map(|number| node(&name(number), &[&name(number + 1)])).collect();
    nodes.push(node(&name(5000), &[]));
    assert_eq!(graph(&nodes).levels.len(), 5001);
    nodes.push(node(&name(5000), &[]));
    nodes[5000].after.push(name(0));
    let found = graph(&nodes);
    assert_eq!((found.refused.len(), found.problems.len()), (5001, 1));
    assert!(told(&found)[0].len() < 300, "{}", told(&found)[0]);
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

proptest! {
    #[test]
    fn what_is_left_has_no_cycle_and_everybody_has_a_place(
        edges in proptest::collection::vec((0_usize..24, 0_usize..26), 0..60),
        by_hand in proptest::collection::vec(proptest::bool::weighted(0.9), 24),
    ) {
        let name = |number: usize| ["g", &number.to_string()].concat();
        let mut nodes: Vec<Node> = (0..24).map(|number| node(&name(number), &[])).collect();
        for (from, to) in edges {
            nodes[from].after.push(name(to));
        }
        for (node, by_hand) in nodes.iter_mut().zip(by_hand) {
            node.autostart = by_hand;
        }
        let found = graph(&nodes);
        prop_assert_eq!(found.sequence.len(), 24);
        let place = |name: &str| found.sequence.iter().position(|other| other == name).unwrap();
        let level = |name: &str| found.levels.iter().position(|level| level.iter().any(|other| other == name));
        for node in &nodes {
            let starts = node.autostart && !found.refused.contains_key(&node.name);
            prop_assert_eq!(level(&node.name).is_some(), starts);
            for other in &found.after[&node.name] {
                prop_assert!(place(other) < place(&node.name));
                if let (Some(own), Some(other)) = (level(&node.name), level(other)) {
                    prop_assert!(other < own);
                }
            }
            // An edge is dropped only for a reason that is told.
            for other in node.after.iter().filter(|other| !found.after[&node.name].contains(other)) {
                let unknown = nodes.iter().all(|node| node.name != *other);
                let both = found.refused.contains_key(&node.name) && found.refused.contains_key(other);
                prop_assert!(unknown || *other == node.name || both);
            }
        }
    }
}
