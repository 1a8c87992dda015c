//! The order of the guests: who waits for whom, in levels, and what of it cannot be.
//!
//! What is left after the problems never has a cycle. Members of a cycle are refused, because whichever of its edges is
//! dropped, some wish is broken; an edge that leads nowhere is dropped alone, and its guest starts.

use super::settings::nearest;
use crate::config::origins::clean;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// Names of a path that are told; a console has no room for a cycle of a hundred guests.
const TOLD: usize = 12;

/// A guest as far as the order is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The guests that it is after.
    pub after: Vec<String>,
    /// Guests of a lower number come first within a level.
    pub order: i32,
    /// Whether it starts by itself.
    pub autostart: bool,
}

/// The order of all guests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// The guests that start by themselves: each level after those before it, each in its order.
    pub levels: Vec<Vec<String>>,
    /// All guests, each behind those that it is after.
    pub sequence: Vec<String>,
    /// The guests that each guest is after, without those that cannot be waited for. It has no cycle, and an entry for every
    /// guest.
    pub after: BTreeMap<String, Vec<String>>,
    /// The guests that are in a cycle, with why.
    pub refused: BTreeMap<String, String>,
    /// What is wrong, in the order of the guests.
    pub problems: Vec<Problem>,
}

/// Something in the wanted order that cannot be. As a text it has no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// Each of these is after the next, and the last is the first.
    Cycle {
        /// The names.
        path: Vec<String>,
    },
    /// A guest is after one that there is not.
    Unknown {
        /// The guest.
        guest: String,
        /// The name.
        name: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// A guest is after itself.
    Itself {
        /// The guest.
        guest: String,
    },
    /// A guest is after one that does not start by itself.
    NotAutomatic {
        /// The guest.
        guest: String,
        /// The other.
        name: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |name: &str| clean(name, 100);
        match self {
            Self::Cycle { path } => {
                write!(
                    f,
                    "each of these waits for the next: {}; none of them is started, take one `after` away",
                    arrows(path)
                )
            }
            Self::Unknown { guest, name, nearest } => {
                write!(f, "{} is after {}, which there is not; it does not wait for it", shown(guest), shown(name))?;
                nearest.as_deref().map_or(Ok(()), |nearest| write!(f, "; did you mean {}?", shown(nearest)))
            }
            Self::Itself { guest } => write!(f, "{} is after itself; that has no effect", shown(guest)),
            Self::NotAutomatic { guest, name } => {
                let (guest, name) = (shown(guest), shown(name));
                write!(
                    f,
                    "{guest} is after {name}, which does not start by itself; it waits for it only while {name} starts"
                )
            }
        }
    }
}

/// The names of a path with arrows; the middle of a long one is left out.
fn arrows(path: &[String]) -> String {
    let mut names: Vec<String> = path.iter().take(TOLD).map(|name| clean(name, 100)).collect();
    if path.len() > TOLD {
        names.push(format!("({} more)", path.len() - TOLD));
        names.extend(path.last().map(|name| clean(name, 100)));
    }
    names.join(" -> ")
}

/// Finds the order. Of two nodes of one name the first counts.
#[must_use]
pub fn graph(nodes: &[Node]) -> Graph {
    let mut known: BTreeMap<&str, &Node> = BTreeMap::new();
    for node in nodes {
        known.entry(&node.name).or_insert(node);
    }
    let mut sorted: Vec<&Node> = known.values().copied().collect();
    sorted.sort_by_key(|node| (node.order, &node.name));
    let mut graph = Graph::default();
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in &sorted {
        edges.insert(&node.name, edges_of(node, &known, &mut graph.problems));
    }
    let component = components(&sorted, &edges);
    refuse_cycles(&sorted, &edges, &component, &mut graph);
    for (name, after) in &mut edges {
        let own = component.get(name);
        after.retain(|other| component.get(other) != own);
        graph.after.insert((*name).to_owned(), after.iter().map(|&other| other.to_owned()).collect());
    }
    order(&sorted, &edges, &mut graph);
    graph
}

/// The edges of one guest, without those that lead nowhere.
fn edges_of<'a>(node: &'a Node, known: &BTreeMap<&'a str, &'a Node>, problems: &mut Vec<Problem>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    let mut edges = Vec::new();
    let guest = || node.name.clone();
    for name in node.after.iter().filter(|name| seen.insert(name.as_str())) {
        match known.get(name.as_str()) {
            None => {
                let nearest =
                    nearest(name, known.keys().copied().filter(|known| *known != node.name)).map(str::to_owned);
                problems.push(Problem::Unknown { guest: guest(), name: name.clone(), nearest });
            }
            Some(_) if *name == node.name => problems.push(Problem::Itself { guest: guest() }),
            Some(other) => {
                if node.autostart && !other.autostart {
                    problems.push(Problem::NotAutomatic { guest: guest(), name: name.clone() });
                }
                edges.push(other.name.as_str());
            }
        }
    }
    edges
}

/// Which strongly connected component each guest is in, as any number. After Kosaraju; without recursion, because a chain
/// of guests may be longer than the stack.
fn components<'a>(sorted: &[&'a Node], edges: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeMap<&'a str, usize> {
    let mut finished = Vec::new();
    let mut seen = BTreeSet::new();
    for node in sorted {
        let mut stack = vec![(node.name.as_str(), false)];
        while let Some((name, done)) = stack.pop() {
            if done {
                finished.push(name);
            } else if seen.insert(name) {
                stack.push((name, true));
                stack.extend(edges.get(name).into_iter().flatten().map(|other| (*other, false)));
            }
        }
    }
    let reversed = reversed(edges);
    let mut component = BTreeMap::new();
    for (number, name) in finished.into_iter().rev().enumerate() {
        let mut stack = vec![name];
        while let Some(name) = stack.pop() {
            if !component.contains_key(name) {
                component.insert(name, number);
                stack.extend(reversed.get(name).into_iter().flatten());
            }
        }
    }
    component
}

/// The edges the other way round: who is after each guest.
fn reversed<'a>(edges: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut reversed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, after) in edges {
        for other in after {
            reversed.entry(other).or_default().push(name);
        }
    }
    reversed
}

/// Reports cycles until every guest that is in one is in a reported one.
fn refuse_cycles<'a>(
    sorted: &[&'a Node],
    edges: &BTreeMap<&'a str, Vec<&'a str>>,
    component: &BTreeMap<&'a str, usize>,
    graph: &mut Graph,
) {
    let mut members: BTreeMap<usize, usize> = BTreeMap::new();
    for number in component.values() {
        *members.entry(*number).or_default() += 1;
    }
    for node in sorted {
        let own = component.get(node.name.as_str());
        let alone = own.and_then(|own| members.get(own)).is_none_or(|count| *count < 2);
        if alone || graph.refused.contains_key(&node.name) {
            continue;
        }
        let path = cycle(&node.name, edges, |name| component.get(name) == own);
        let why = format!("it waits for itself: {}", arrows(&path));
        for name in &path {
            graph.refused.entry(name.clone()).or_insert_with(|| why.clone());
        }
        graph.problems.push(Problem::Cycle { path });
    }
}

/// The shortest cycle through a guest that is in one.
fn cycle<'a>(start: &'a str, edges: &BTreeMap<&'a str, Vec<&'a str>>, within: impl Fn(&str) -> bool) -> Vec<String> {
    let mut from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(name) = queue.pop_front() {
        for other in edges.get(name).into_iter().flatten().filter(|other| within(other)) {
            if *other == start {
                let mut path = vec![start.to_owned()];
                let mut at = name;
                while at != start {
                    path.push(at.to_owned());
                    at = from.get(at).copied().unwrap_or(start);
                }
                path.push(start.to_owned());
                path.reverse();
                return path;
            }
            if !from.contains_key(other) {
                from.insert(other, name);
                queue.push_back(other);
            }
        }
    }
    vec![start.to_owned(), start.to_owned()]
}

/// Puts the guests into their sequence and levels; the edges have no cycle any more.
fn order<'a>(sorted: &[&'a Node], edges: &BTreeMap<&'a str, Vec<&'a str>>, graph: &mut Graph) {
    let reversed = reversed(edges);
    let mut open: BTreeMap<&str, usize> = edges.iter().map(|(name, after)| (*name, after.len())).collect();
    let mut level: BTreeMap<&str, usize> = BTreeMap::new();
    let starts = |node: &Node, graph: &Graph| node.autostart && !graph.refused.contains_key(&node.name);
    let nodes: BTreeMap<&str, &Node> = sorted.iter().map(|node| (node.name.as_str(), *node)).collect();
    let free = sorted.iter().filter(|node| open.get(node.name.as_str()) == Some(&0));
    let mut next: BTreeSet<(i32, &str)> = free.map(|node| (node.order, node.name.as_str())).collect();
    while let Some((_, name)) = next.pop_first() {
        let Some(node) = nodes.get(name) else { continue };
        graph.sequence.push(name.to_owned());
        if starts(node, graph) {
            // Only guests that start have a level; those that do not are not waited for.
            let below = edges.get(name).into_iter().flatten().filter_map(|other| level.get(other));
            level.insert(name, below.max().map_or(0, |highest| highest + 1));
        }
        for other in reversed.get(name).into_iter().flatten() {
            if let (Some(count), Some(other)) = (open.get_mut(other), nodes.get(other)) {
                *count -= 1;
                if *count == 0 {
                    next.insert((other.order, &other.name));
                }
            }
        }
    }
    for node in sorted {
        if let Some(number) = level.get(node.name.as_str()) {
            if graph.levels.len() <= *number {
                graph.levels.resize(number + 1, Vec::new());
            }
            if let Some(level) = graph.levels.get_mut(*number) {
                level.push(node.name.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
