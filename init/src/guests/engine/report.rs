//! How each guest is, for people and programs; and what would be started, in which order.

use super::record::Record;
use super::{Engine, Event, Filter, How, SECOND, Spec, State};
use crate::config::origins::clean;
use crate::guests::ready::Ready;
use crate::guests::settings::OnFailure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Characters of a name in a table; a longer one is cut.
const NAME: usize = 32;

/// Characters of a cause in a table.
const WHY: usize = 50;

/// How a guest is. Texts have no control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestReport {
    /// Its name, as it is.
    pub name: String,
    /// One of: waiting, delayed, starting, created, ready, not ready, failed, held, refused, stopping, stopped, crashed, backing
    /// off, saved.
    pub state: String,
    /// Since when, in microseconds of the engine's clock.
    pub since_us: u64,
    /// When its domain was created last, in microseconds of the engine's clock.
    pub created_us: Option<u64>,
    /// When it was ready after that.
    pub ready_us: Option<u64>,
    /// How often xl was tried for its present start.
    pub tries: u32,
    /// How often it was started again by itself.
    pub restarts: u32,
    /// Why it is in that state, or what went wrong last; may be empty.
    pub cause: String,
    /// Its domain while it runs.
    pub domid: Option<u32>,
    /// Its memory in KiB, if the caller knows it.
    pub memory_kib: Option<u64>,
    /// Its CPUs, if the caller knows them.
    pub vcpus: Option<u32>,
}

impl Engine {
    /// How each guest is, by name.
    #[must_use]
    pub fn report(&self) -> Vec<GuestReport> {
        self.guests.values().map(Record::report).collect()
    }
}

impl Record {
    fn report(&self) -> GuestReport {
        GuestReport {
            name: self.spec.name.clone(),
            state: self.state.word().to_owned(),
            since_us: self.since_us,
            created_us: self.created_us,
            ready_us: self.ready_us,
            tries: self.tries,
            restarts: self.restarts,
            cause: self.why(),
            domid: self.domid,
            memory_kib: None,
            vcpus: None,
        }
    }

    fn why(&self) -> String {
        let own = match &self.state {
            State::Waiting { on } if on.is_empty() => "its turn comes".to_owned(),
            State::Waiting { on } => format!("for {}", names(on)),
            State::Delayed { until_us } => format!("until {}", seconds(*until_us)),
            State::Starting { attempt: 0 } => "its saved state is resumed".to_owned(),
            State::Starting { attempt: 1 } | State::Created { .. } | State::Ready { .. } | State::Saved => {
                String::new()
            }
            State::Starting { attempt } => format!("try {attempt}"),
            State::NotReady { why, .. } | State::Failed { why } | State::Refused { why } | State::Crashed { why } => {
                return why.clone();
            }
            State::Stopped { how } => how.clone(),
            State::Held { by } => format!("{} is not ready", clean(by, NAME)),
            State::Stopping { how } => how.told().to_owned(),
            State::BackingOff { until_us, why } => return format!("{why}; again at {}", seconds(*until_us)),
        };
        match (own.is_empty(), self.cause.is_empty()) {
            (_, true) => own,
            (true, false) => self.cause.clone(),
            (false, false) => format!("{own}; {}", self.cause),
        }
    }
}

impl State {
    /// The state in a word or two.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Delayed { .. } => "delayed",
            Self::Starting { .. } => "starting",
            Self::Created { .. } => "created",
            Self::NotReady { .. } => "not ready",
            Self::Ready { .. } => "ready",
            Self::Failed { .. } => "failed",
            Self::Held { .. } => "held",
            Self::Refused { .. } => "refused",
            Self::Stopping { .. } => "stopping",
            Self::Stopped { .. } => "stopped",
            Self::Crashed { .. } => "crashed",
            Self::BackingOff { .. } => "backing off",
            Self::Saved => "saved",
        }
    }
}

impl How {
    fn told(self) -> &'static str {
        match self {
            Self::Queued => "its turn comes",
            Self::AfterCreate => "when xl has created it",
            Self::Shutdown => "it was asked to shut down",
            Self::Save => "its memory is saved",
            Self::Destroy => "it is destroyed",
        }
    }
}

/// Names for people; a long list is cut.
fn names(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(5).map(|name| clean(name, NAME)).collect();
    match names.len().saturating_sub(5) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A duration for people.
fn seconds(us: u64) -> String {
    let tenths = us / (SECOND / 10);
    match tenths / 10 {
        0..100 => format!("{}.{} s", tenths / 10, tenths % 10),
        seconds @ 100..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// The report as a table for `sino guests`, at this time of the engine's clock. `UP` is the time since the creation of the domain,
/// `READY` the time from there until the guest was ready.
#[must_use]
pub fn table(reports: &[GuestReport], now_us: u64) -> String {
    const HEAD: [&str; 9] = ["GUEST", "STATE", "SINCE", "MEMORY", "VCPUS", "UP", "READY", "RESTARTS", "WHY"];
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![HEAD.map(str::to_owned)];
    for guest in reports {
        let created = guest.created_us.filter(|_| guest.domid.is_some());
        rows.push([
            clean(&guest.name, NAME),
            guest.state.clone(),
            seconds(now_us.saturating_sub(guest.since_us)),
            known(guest.memory_kib.map(|kib| format!("{} MiB", kib / 1024))),
            known(guest.vcpus.map(|vcpus| vcpus.to_string())),
            known(created.map(|created| seconds(now_us.saturating_sub(created)))),
            known(guest.created_us.zip(guest.ready_us).map(|(from, to)| seconds(to.saturating_sub(from)))),
            guest.restarts.to_string(),
            short(&clean(&guest.cause, 500)),
        ]);
    }
    let mut text = columns(&rows);
    for guest in reports.iter().filter(|guest| guest.cause.chars().count() > WHY) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{}: {}", clean(&guest.name, NAME), clean(&guest.cause, 1000));
    }
    text
}

/// How guests were stopped, as a table for `sino guests last`; `began_us` is when that began, by the reports' clock. `AFTER` is
/// how long it took for each guest from there; `before`: it did not run any more. Without `began_us` that is not known.
#[must_use]
pub fn stop_table(reports: &[GuestReport], began_us: Option<u64>) -> String {
    let mut rows = vec![["GUEST", "STATE", "AFTER", "HOW"].map(str::to_owned)];
    for guest in reports {
        let after = |began| guest.since_us.checked_sub(began).map_or_else(|| "before".to_owned(), seconds);
        let after = began_us.map_or_else(|| "-".to_owned(), after);
        rows.push([clean(&guest.name, NAME), clean(&guest.state, NAME), after, clean(&guest.cause, 500)]);
    }
    columns(&rows)
}

/// A cause that is too long for its column; all of it is below the table.
fn short(cause: &str) -> String {
    if cause.chars().count() <= WHY {
        return cause.to_owned();
    }
    cause.chars().take(WHY - 4).chain(" ...".chars()).collect()
}

/// Rows with each column as wide as its widest cell, but for the last.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
    text
}

/// What would be started, as text for `sino guests plan`: level by level, who waits for whom, what is not started and why,
/// and what is wrong with the order. Nothing is done.
#[must_use]
pub fn plan(specs: &[Spec], parallel: usize, filter: &Filter) -> String {
    let mut engine = Engine::new(specs.to_vec(), parallel, 0);
    // Without the daemons nothing leaves its level.
    let _ = engine.step(Event::StartAll { filter: filter.clone() }, 0);
    let mut text = String::new();
    let starts = |guest: &Record| matches!(guest.state, State::Waiting { .. } | State::Delayed { .. });
    let mut level: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &engine.graph.sequence {
        if engine.guests.get(name).is_some_and(starts) {
            let after = engine.graph.after.get(name).into_iter().flatten();
            let below = after.filter_map(|other| level.get(other.as_str())).max();
            let number = below.map_or(0, |below| below + 1);
            level.insert(name, number);
        }
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{} guests start, {} at a time", level.len(), engine.parallel);
    let deepest = level.values().max().map_or(0, |deepest| deepest + 1);
    for number in 0..deepest {
        let _ = writeln!(text, "level {}", number + 1);
        let mut own: Vec<&Record> = level
            .iter()
            .filter(|(_, level)| **level == number)
            .filter_map(|(name, _)| engine.guests.get(*name))
            .collect();
        own.sort_by_key(|guest| (guest.spec.guest.order, &guest.spec.name));
        let rows: Vec<[String; 2]> = own
            .into_iter()
            .map(|guest| [format!("  {}", clean(&guest.spec.name, NAME)), engine.wishes(guest)])
            .collect();
        text.push_str(&columns(&rows));
    }
    let not = engine.guests.values().filter(|guest| !starts(guest));
    let rows: Vec<[String; 2]> =
        not.map(|guest| [format!("  {}", clean(&guest.spec.name, NAME)), guest.why()]).collect();
    if !rows.is_empty() {
        let _ = write!(text, "not started\n{}", columns(&rows));
    }
    if !engine.graph.problems.is_empty() {
        text.push_str("problems\n");
    }
    for problem in &engine.graph.problems {
        let _ = writeln!(text, "  {problem}");
    }
    text
}

impl Engine {
    /// What a guest waits for, and what is wanted of it beyond the defaults.
    fn wishes(&self, guest: &Record) -> String {
        let mut wishes = Vec::new();
        let wanted = &guest.spec.guest;
        if let State::Waiting { on } = &guest.state
            && !on.is_empty()
        {
            wishes.push(format!("after {}", names(on)));
        }
        if guest.saved {
            wishes.push("resumed from its saved state".to_owned());
        }
        if wanted.order != 0 {
            wishes.push(format!("order {}", wanted.order));
        }
        if wanted.delay != 0 {
            wishes.push(format!("delay {} s", wanted.delay));
        }
        if wanted.ready != Ready::Running {
            wishes.push(format!("ready: {}", wanted.ready));
        }
        if wanted.on_failure == OnFailure::HoldDependents && self.dependents.contains_key(&guest.spec.name) {
            wishes.push("those after it are held if it fails".to_owned());
        }
        clean(&wishes.join("; "), 300)
    }
}
