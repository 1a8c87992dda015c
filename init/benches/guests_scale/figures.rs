//! What a start or a stop came to, and what would have been possible.

use crate::Wanted;
use serde::Serialize;
use std::collections::BTreeMap;

/// How long each guest's own call took, in ms, by its name.
#[derive(Debug)]
pub(crate) struct Took(pub(crate) BTreeMap<String, u64>);

/// All in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    /// From the first guest's beginning to the last one's end.
    pub(crate) time: f64,
    /// What it would take if each guest had exactly its fixed cost, and nothing else took time.
    pub(crate) ideal: f64,
    /// The same with what each guest's call really took: the critical path.
    pub(crate) critical_path: f64,
}

impl Figures {
    /// Of a start: as many guests as may be are under way at once. `total` in ms.
    pub(crate) fn of_start(wanted: &Wanted, total: u64, took: &Took) -> Self {
        Self::of(wanted, total, took, (wanted.create, wanted.parallel))
    }

    /// Of a stop: guests that were asked need nobody to wait for them, so all of them may be under way at once.
    pub(crate) fn of_stop(wanted: &Wanted, total: u64, took: &Took) -> Self {
        Self::of(wanted, total, took, (wanted.stop, usize::MAX))
    }

    fn of(wanted: &Wanted, total: u64, took: &Took, (cost, parallel): (u64, usize)) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "some minutes in ms")]
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let after = wanted.after();
        let each: Vec<u64> = wanted.names().iter().map(|name| took.0[name]).collect();
        Self {
            time: seconds(total),
            ideal: seconds(ideal(&after, &vec![cost; after.len()], parallel)),
            critical_path: seconds(ideal(&after, &each, parallel)),
        }
    }
}

/// How long all take if each begins as soon as it may, in the order of their numbers, `parallel` at the same time, and nothing
/// else takes time.
fn ideal(after: &[Vec<usize>], took: &[u64], parallel: usize) -> u64 {
    let (mut now, mut ends): (u64, Vec<Option<u64>>) = (0, vec![None; after.len()]);
    loop {
        let busy = ends.iter().flatten().filter(|end| **end > now).count();
        let done = |other: &usize| ends[*other].is_some_and(|end| end <= now);
        let may = |own: &usize| ends[*own].is_none() && after[*own].iter().all(done);
        let next: Vec<usize> = (0..after.len()).filter(may).take(parallel - busy).collect();
        for own in next {
            ends[own] = Some(now + took[own]);
        }
        match ends.iter().flatten().filter(|end| **end > now).min() {
            Some(end) => now = *end,
            None => return now,
        }
    }
}
