//! The guests' part of a timeline: a bar for each, from when its domain was created until it was ready.

use super::{BOOT_ENDS, Bar, Ending, Lane, Mark, Timeline, seconds};
use crate::boots::GuestTimes;
use serde::Serialize;
use std::fmt::Write as _;

/// The lane of the guests. The supervisor's own steps for them are the lane `guests`.
pub const LANE: &str = "guests-ready";

/// How the guests came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Came {
    /// How many were to come.
    pub wanted: usize,
    /// How many of these were ready.
    pub ready: usize,
    /// When the first domain was created, in microseconds since the kernel started.
    pub first_created_us: Option<u64>,
    /// When the last guest was ready, whether others were not or all were.
    pub last_ready_us: Option<u64>,
}

impl Came {
    /// Whether every one that was to come is ready.
    #[must_use]
    pub fn all(&self) -> bool {
        self.ready == self.wanted
    }
}

impl Timeline {
    /// Adds the guests. Those whose start began more than an hour after the kernel's are counted only.
    pub fn add_guests(&mut self, guests: &[GuestTimes]) {
        let begins = |guest: &GuestTimes| guest.created_us.unwrap_or(guest.since_us);
        let (began, late): (Vec<&GuestTimes>, Vec<_>) = guests.iter().partition(|guest| begins(guest) <= BOOT_ENDS);
        self.left_out += late.len();
        if began.is_empty() {
            return;
        }
        let mut bars: Vec<Bar> = began.iter().map(|guest| bar(guest, begins(guest), self.end_us)).collect();
        bars.sort_by_key(|bar| bar.start_us);
        let wanted: Vec<_> = began.into_iter().filter(|guest| !guest.is_left_alone()).collect();
        let came = Came {
            wanted: wanted.len(),
            ready: wanted.iter().filter(|guest| guest.ready_us.is_some()).count(),
            first_created_us: wanted.iter().filter_map(|guest| guest.created_us).min(),
            last_ready_us: wanted.iter().filter_map(|guest| guest.ready_us).max().map(|us| us.min(2 * BOOT_ENDS)),
        };
        let label = if came.all() {
            "all guests ready".to_owned()
        } else {
            format!("{} of {} guests ready", came.ready, came.wanted)
        };
        let moments = [("first guest created".to_owned(), came.first_created_us), (label, came.last_ready_us)];
        self.marks.extend(moments.into_iter().filter_map(|(label, at_us)| Some(Mark { label, at_us: at_us? })));
        self.marks.sort_by_key(|mark| mark.at_us);
        let ready = Lane { name: LANE.to_owned(), bars };
        self.end_us = self.end_us.max(ready.span().1).max(came.last_ready_us.unwrap_or_default());
        self.lanes.push(ready);
        self.lanes.sort_by_key(|lane| lane.span().0);
        self.guests = Some(came);
    }
}

fn bar(guest: &GuestTimes, start_us: u64, boot_us: u64) -> Bar {
    let created = guest.created_us.is_some();
    let (end_us, ending) = match (guest.ready_us, guest.state.as_str()) {
        (Some(ready_us), _) => (ready_us, Ending::Done),
        (None, "created") => (boot_us, Ending::Unfinished),
        (None, "waiting" | "delayed" | "starting" | "backing off") => (guest.since_us, Ending::Unfinished),
        (None, "stopped" | "saved" | "stopping") if created => (guest.since_us, Ending::Unfinished),
        (None, "stopped" | "saved" | "stopping") => (start_us, Ending::NotRequested),
        (None, _) => (guest.since_us, Ending::Failed),
    };
    let duration_us = end_us.saturating_sub(start_us).min(BOOT_ENDS);
    let mut detail = match guest.created_us {
        Some(created_us) => format!("created at {}", seconds(created_us)),
        None => guest.state.clone(),
    };
    if let Some(ready_us) = guest.ready_us {
        // Writing to a String cannot fail.
        let _ = write!(detail, ", ready at {}", seconds(ready_us));
    } else if !guest.cause.is_empty() {
        let _ = write!(detail, ": {}", guest.cause);
    }
    Bar { label: guest.name.clone(), start_us, duration_us, ending, detail }
}

#[cfg(test)]
mod tests {
    use super::super::{svg, tests::boot, text};
    use super::*;

    fn guest(name: &str, state: &str, since: u64, created: Option<u64>, ready: Option<u64>) -> GuestTimes {
        let us = |seconds: u64| seconds * 1_000_000;
        let (name, state) = (name.to_owned(), state.to_owned());
        let (created_us, ready_us) = (created.map(us), ready.map(us));
        GuestTimes { name, state, since_us: us(since), created_us, ready_us, ..GuestTimes::default() }
    }

    #[test]
    fn guests_have_bars_from_created_to_ready() {
        let (record, userland) = boot();
        let mut timeline = Timeline::from_record(&record, Some(userland));
        timeline.add_guests(&[
            guest("web", "ready", 26, Some(12), Some(26)),
            guest("db", "ready", 15, Some(11), Some(15)),
            guest("spare", "stopped", 3, None, None),
            guest("broken", "refused", 9, None, None),
            guest("slow", "created", 14, Some(14), None),
            guest("next-week", "ready", 604_800, Some(604_800), Some(604_801)),
        ]);
        let lane = timeline.lanes.iter().find(|lane| lane.name == LANE).unwrap();
        let seen: Vec<_> =
            lane.bars.iter().map(|bar| (bar.label.as_str(), bar.duration_us / 1_000_000, bar.ending)).collect();
        assert_eq!(
            seen,
            [
                ("spare", 0, Ending::NotRequested),
                ("broken", 0, Ending::Failed),
                ("db", 4, Ending::Done),
                ("web", 14, Ending::Done),
                ("slow", 5, Ending::Unfinished),
            ]
        );
        assert_eq!((timeline.left_out, timeline.end_us, timeline.total_us()), (1, 26_000_000, Some(26_000_000)));
        let marks: Vec<&str> = timeline.marks.iter().map(|mark| mark.label.as_str()).collect();
        assert_eq!(marks, ["systemd started", "first guest created", "boot finished", "2 of 4 guests ready"]);
        let drawn = text::draw(&timeline);
        println!("{drawn}");
        assert!(
            drawn.lines().any(|line| line.starts_with("  web") && line.contains("14.00 s") && line.ends_with("##"))
        );
        assert!(svg::draw(&timeline).contains("created at 12.00 s, ready at 26.00 s"));
        if let Ok(path) = std::env::var("SINO_TEST_SVG_GUESTS") {
            std::fs::write(path, svg::draw(&timeline)).unwrap();
        }
    }

    #[test]
    fn without_guests_nothing_changes() {
        let (record, userland) = boot();
        let before = Timeline::from_record(&record, Some(userland));
        let mut timeline = before.clone();
        timeline.add_guests(&[]);
        assert_eq!(timeline, before);
        assert_eq!(timeline.total_us(), Some(19_800_000));
    }
}
