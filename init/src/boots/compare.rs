//! What got slower from one boot to another.

use super::record::Boot;
use super::when::utc;
use crate::timeline::text::line;
use crate::timeline::{Ending, Timeline, seconds};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// By so many percent a step must have grown: the same host's same step differs by that from boot to boot without a cause (disks,
/// leases, other steps beside it).
const PERCENT: u64 = 20;
/// And by so many microseconds: less than a tenth of a second nobody waits for, and a step of 1 ms doubles easily.
const LEAST: u64 = 100_000;
/// So many steps are told in the text; JSON has all.
const SHOWN: usize = 10;
/// Columns for a step's name, so that its line fits into 80.
const NAME: usize = 24;

/// A time that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The lane of the step.
    pub lane: String,
    /// The step.
    pub label: String,
    /// How long it took, in microseconds.
    pub before_us: u64,
    /// How long it takes now.
    pub now_us: u64,
    /// How it ended now.
    pub ending: Ending,
}

/// Times of two boots as a whole, in microseconds; `None`: that boot was not over when it was looked at last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Total {
    /// Of the earlier.
    pub before_us: Option<u64>,
    /// Of the later.
    pub now_us: Option<u64>,
}

/// A boot beside the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// The name of the other boot's file.
    pub with: String,
    /// When it began, in UTC.
    pub started: String,
    /// In what the two differ that explains different times.
    pub differ: Vec<String>,
    /// From the kernel's start until systemd has finished and the guests are ready.
    pub total: Total,
    /// Steps, units and guests that got slower, the worst first.
    pub slower: Vec<Change>,
}

impl Compared {
    /// Compares a boot with an earlier one, which is kept in the file `with`.
    #[must_use]
    pub fn of(now: &Boot, with: &str, before: &Boot) -> Self {
        let (total, slower) = compare(&now.timeline(), &before.timeline());
        Self { with: with.to_owned(), started: utc(before.started), differ: differ(now, before), total, slower }
    }

    /// The end of what `sino timeline` says. `last`: the other boot is the one before the present.
    #[must_use]
    pub fn text(&self, last: bool) -> String {
        let other = if last { "the last boot" } else { "the boot before" };
        let mut text = String::new();
        // Writing to a String cannot fail.
        if !self.differ.is_empty() {
            let _ = writeln!(text, "{}", line(&format!("{other} differs: {}", self.differ.join(", ")), 80));
        }
        for change in self.slower.iter().take(SHOWN) {
            let failed = if change.ending == Ending::Failed { "!" } else { "" };
            let name = line(&format!("{failed}{} {}", change.lane, change.label), NAME);
            let _ = writeln!(text, "slower than {other}: {name} {}", times(change.before_us, change.now_us));
        }
        if self.slower.len() > SHOWN {
            let _ = writeln!(text, "and {} more: sino timeline --json", self.slower.len() - SHOWN);
        }
        let (Some(before_us), Some(now_us)) = (self.total.before_us, self.total.now_us) else {
            let which = if self.total.now_us.is_none() { "this boot" } else { other };
            let _ = writeln!(text, "in all: not compared, {which} was not over when it was looked at last");
            return text;
        };
        let how = if grown(before_us, now_us) {
            "slower than"
        } else if grown(now_us, before_us) {
            "faster than"
        } else {
            "about as fast as"
        };
        let _ = writeln!(text, "in all {how} {other}: {}", times(before_us, now_us));
        text
    }
}

/// `+1.20 s (0.80 s -> 2.00 s)`.
fn times(before_us: u64, now_us: u64) -> String {
    let sign = if now_us < before_us { '-' } else { '+' };
    format!("{sign}{} ({} -> {})", seconds(now_us.abs_diff(before_us)), seconds(before_us), seconds(now_us))
}

/// Whether a time has grown so much that it is worth a word.
fn grown(before_us: u64, now_us: u64) -> bool {
    let more = now_us.saturating_sub(before_us);
    more > LEAST && more.saturating_mul(100) > before_us.saturating_mul(PERCENT)
}

/// Compares two timelines: the steps that both have, and both as a whole.
#[must_use]
pub fn compare(now: &Timeline, before: &Timeline) -> (Total, Vec<Change>) {
    let mut earlier: BTreeMap<(&str, &str), (u64, Ending)> = BTreeMap::new();
    for lane in &before.lanes {
        for bar in &lane.bars {
            // What a step that was done twice took the first time is the boot's.
            earlier.entry((&lane.name, &bar.label)).or_insert((bar.duration_us, bar.ending));
        }
    }
    let mut slower = Vec::new();
    for lane in &now.lanes {
        for bar in &lane.bars {
            if let Some((before_us, ended)) = earlier.remove(&(lane.name.as_str(), bar.label.as_str()))
                // Of two that did not end it is only known how long somebody looked.
                && (ended != Ending::Unfinished || bar.ending != Ending::Unfinished)
                && grown(before_us, bar.duration_us)
            {
                let (lane, label) = (lane.name.clone(), bar.label.clone());
                slower.push(Change { lane, label, before_us, now_us: bar.duration_us, ending: bar.ending });
            }
        }
    }
    if let (Some(before_us), Some(now_us)) = (before.xen_us, now.xen_us)
        && grown(before_us, now_us)
    {
        let (lane, label) = ("xen".to_owned(), "Xen itself".to_owned());
        slower.push(Change { lane, label, before_us, now_us, ending: Ending::Done });
    }
    slower.sort_by_key(|change| std::cmp::Reverse(change.now_us.saturating_sub(change.before_us)));
    (Total { before_us: before.total_us(), now_us: now.total_us() }, slower)
}

fn differ(now: &Boot, before: &Boot) -> Vec<String> {
    let xen = |boot: &Boot| match &boot.xen {
        Some(xen) => format!("Xen {}", xen.version),
        None => "no Xen".to_owned(),
    };
    let guests = |boot: &Boot| match boot.guests.as_ref().map_or(0, Vec::len) {
        1 => "1 guest".to_owned(),
        number => format!("{number} guests"),
    };
    let facts = |boot: &Boot| {
        [
            format!("SINO {}", boot.record.version),
            format!("build {}", boot.record.build_id),
            format!("kernel {}", boot.record.kernel_release),
            xen(boot),
            format!("from {}", boot.medium()),
            guests(boot),
        ]
    };
    facts(before).into_iter().zip(facts(now)).filter(|(old, new)| old != new).map(|(old, _)| old).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::seen;
    use super::*;

    fn boots() -> (Boot, Boot) {
        let before = Boot::of(seen(), None);
        (before.clone(), before)
    }

    #[test]
    fn what_got_slower_is_told_with_both_times() {
        let (mut now, before) = boots();
        for step in &mut now.record.steps {
            match step.step.as_str() {
                // 20 % and no more; 100 ms and no more; twice, but of nothing; both.
                "find-medium" => step.duration_us = 1_560_000,
                "mount-image" => step.duration_us = 360_000,
                "read-flags" => step.duration_us *= 2,
                "check-srv" => step.duration_us = 2_400_000,
                "lease" => step.duration_us = 30_000_000,
                _ => {}
            }
        }
        let compared = Compared::of(&now, "x.json", &before);
        let names: Vec<_> =
            compared.slower.iter().map(|change| (change.lane.as_str(), change.label.as_str())).collect();
        assert_eq!(names, [("network", "lease"), ("storage", "check-srv")]);
        let text = compared.text(true);
        println!("{text}");
        assert!(text.contains("slower than the last boot: storage check-srv +1.20 s (1.20 s -> 2.40 s)\n"), "{text}");
        assert!(text.contains("slower than the last boot: !network lease +26.90 s"), "{text}");
        assert!(text.ends_with("in all about as fast as the last boot: +0 ms (19.80 s -> 19.80 s)\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(compared.differ, [""; 0]);
    }

    #[test]
    fn a_boot_as_a_whole_is_faster_or_slower_and_what_differs_is_said() {
        let (mut now, mut before) = boots();
        before.userland.as_mut().unwrap().times.finish_us = 45_000_000;
        before.record.medium.as_mut().unwrap().in_ram = false;
        before.xen = None;
        let compared = Compared::of(&now, "x.json", &before);
        let text = compared.text(false);
        assert!(text.starts_with("the boot before differs: no Xen, from the medium\n"), "{text}");
        assert!(text.ends_with("in all faster than the boot before: -25.20 s (45.00 s -> 19.80 s)\n"), "{text}");
        let text = Compared::of(&before, "x.json", &now).text(true);
        assert!(text.contains("in all slower than the last boot: +25.20 s"), "{text}");
        now.userland = None;
        let text = Compared::of(&now, "x.json", &before).text(true);
        assert!(text.ends_with("not compared, this boot was not over when it was looked at last\n"), "{text}");
        now = before.clone();
        now.xen = seen().xen;
        before.xen = seen().xen;
        before.xen.as_mut().unwrap().own_us = Some(900_000);
        let slower = Compared::of(&now, "x.json", &before).slower;
        assert_eq!((slower.len(), slower[0].label.as_str()), (1, "Xen itself"));
    }

    #[test]
    fn a_guest_that_is_ready_later_is_told() {
        let (mut now, before) = boots();
        now.guests.as_mut().unwrap()[0].ready_us = Some(30_000_000);
        let slower = Compared::of(&now, "x.json", &before).slower;
        assert_eq!((slower[0].lane.as_str(), slower[0].label.as_str()), ("guests-ready", "db"));
        let total = Compared::of(&now, "x.json", &before).total;
        assert_eq!((total.before_us, total.now_us), (Some(19_800_000), Some(30_000_000)));
    }
}
