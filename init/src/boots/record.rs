//! What is kept of a boot: the facts that its timeline is drawn from, so that a newer SINO can draw an older boot.
//!
//! Values only; nothing here reads or writes anything. Times are microseconds since dom0's kernel started.

use super::when;
use super::xen::Xen;
use crate::guests::engine::GuestReport;
use crate::timeline::{Timeline, Userland};
use serde::{Deserialize, Serialize};
use sino_boot::record::BootRecord;

/// The format of a kept boot.
const FORMAT: u32 = 1;

/// A boot, as it is kept in [`sino_boot::layout::BOOTS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Boot {
    /// Format of this record; 1.
    pub format: u32,
    /// The kernel's id of the boot. Source: random(4), `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// When the kernel started, by the machine's clock, in seconds since 1970.
    pub started: u64,
    /// The steps of both stages, the medium, SINO's version.
    pub record: BootRecord,
    /// The Xen below; `None`: a plain kernel.
    pub xen: Option<Xen>,
    /// systemd's part, if it could be asked.
    pub userland: Option<Userland>,
    /// The guests; `None`: there are none to be had, as on a plain kernel.
    pub guests: Option<Vec<GuestTimes>>,
    /// Whether the host was stopped before the boot was over: what is missing then was not late, it did not come.
    pub ended_before_over: bool,
}

/// A guest's part of a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestTimes {
    /// Its name.
    pub name: String,
    /// How it was in the end, in the words of [`GuestReport::state`]; `ready` for good once it was.
    pub state: String,
    /// Since when.
    pub since_us: u64,
    /// When its domain was created first.
    pub created_us: Option<u64>,
    /// When it was ready first.
    pub ready_us: Option<u64>,
    /// How often xl was tried.
    pub tries: u32,
    /// What went wrong.
    pub cause: String,
}

impl From<GuestReport> for GuestTimes {
    fn from(report: GuestReport) -> Self {
        let GuestReport { name, state, since_us, created_us, ready_us, tries, cause, .. } = report;
        Self { name, state, since_us, created_us, ready_us, tries, cause }
    }
}

impl GuestTimes {
    /// Whether nothing more is to be expected of its start.
    #[must_use]
    pub fn rests(&self) -> bool {
        !["waiting", "delayed", "starting", "created", "stopping", "backing off"].contains(&self.state.as_str())
    }

    /// Whether it is one that does not start by itself, and has not been started.
    #[must_use]
    pub fn is_left_alone(&self) -> bool {
        self.created_us.is_none() && ["stopped", "saved"].contains(&self.state.as_str())
    }

    /// What is known of it in all, from what was known and what is seen now. A boot has one first start of a guest: what
    /// becomes of the guest once it was ready is not the boot's.
    fn with(self, known: &Self) -> Self {
        if known.ready_us.is_some() {
            return known.clone();
        }
        let created_us = [known.created_us, self.created_us].into_iter().flatten().min();
        Self { created_us, ..self }
    }
}

/// What there is to be seen of a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The kernel's id of it.
    pub boot_id: String,
    /// When the kernel started, in seconds since 1970.
    pub started: u64,
    /// Its record.
    pub record: BootRecord,
    /// The Xen below.
    pub xen: Option<Xen>,
    /// systemd's part.
    pub userland: Option<Userland>,
    /// The guests, as they are now.
    pub guests: Option<Vec<GuestReport>>,
    /// Whether the host, or SINO on it, is being stopped.
    pub stops: bool,
}

impl Boot {
    /// The record of a boot, from what is seen of it now and what was `known` of the same boot before.
    ///
    /// What was whole stays: units that were started again after the boot would be missing in it otherwise, and guests
    /// that were stopped.
    #[must_use]
    pub fn of(seen: Seen, known: Option<&Self>) -> Self {
        let known = known.filter(|known| known.boot_id == seen.boot_id);
        let began = |guest: &GuestReport| {
            let earliest = guest.created_us.unwrap_or(guest.since_us);
            earliest <= crate::timeline::BOOT_ENDS
        };
        let before = known.and_then(|known| known.guests.as_ref());
        let of_before = |name: &str| before.into_iter().flatten().find(|guest| guest.name == name);
        let guests = seen.guests.map(|guests| {
            let mut all: Vec<GuestTimes> = guests
                .into_iter()
                .filter_map(|guest| match of_before(&guest.name) {
                    Some(known) if !began(&guest) => Some(known.clone()),
                    Some(known) => Some(GuestTimes::from(guest).with(known)),
                    None => began(&guest).then(|| guest.into()),
                })
                .collect();
            // What a supervisor that was started again has not found yet.
            let missing = before.into_iter().flatten().filter(|old| !all.iter().any(|guest| guest.name == old.name));
            let missing: Vec<GuestTimes> = missing.cloned().collect();
            all.extend(missing);
            all.sort_by(|a, b| a.name.cmp(&b.name));
            all
        });
        let whole = known.and_then(|known| known.userland.clone()).filter(|userland| userland.times.finish_us > 0);
        let mut boot = Self {
            format: FORMAT,
            boot_id: seen.boot_id,
            started: known.map_or(seen.started, |known| known.started),
            record: seen.record,
            xen: seen.xen.or_else(|| known.and_then(|known| known.xen.clone())),
            userland: whole.or_else(|| seen.userland.map(Userland::slowest)).or_else(|| known?.userland.clone()),
            guests: guests.or_else(|| before.cloned()),
            ended_before_over: false,
        };
        // All guests may also be stopped by hand on a host that still comes up: its boot is over later.
        let stops = seen.stops || known.is_some_and(|known| known.ended_before_over);
        let was_over = known.is_some_and(Self::is_over);
        boot.ended_before_over = stops && !was_over && !boot.is_over();
        boot
    }

    /// The name of its file; `None` for an id that is none.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        when::file_name(self.started, &self.boot_id)
    }

    /// Its timeline.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        let mut timeline = Timeline::from_record(&self.record, self.userland.clone());
        timeline.add_guests(self.guests.as_deref().unwrap_or_default());
        timeline.xen_us = self.xen.as_ref().and_then(|xen| xen.own_us);
        timeline
    }

    /// Whether it is over: systemd has finished, and nothing more is to be expected of any guest.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let finished = self.userland.as_ref().is_some_and(|userland| userland.times.finish_us > 0);
        finished && self.guests.as_ref().is_none_or(|guests| guests.iter().all(GuestTimes::rests))
    }

    /// How the root image was read: what most explains that another boot took another time.
    #[must_use]
    pub fn medium(&self) -> &'static str {
        match &self.record.medium {
            Some(medium) if medium.in_ram => "RAM",
            Some(_) => "the medium",
            None => "no medium",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::timeline::tests::boot as times;
    use proptest::prelude::*;
    use sino_boot::record::Medium;

    pub(crate) const ID: &str = "5f1c3a90-1b2c-4d3e-8f90-0123456789ab";

    pub(crate) fn guest(name: &str, state: &str, created_s: Option<u64>, ready_s: Option<u64>) -> GuestReport {
        let us = |seconds: Option<u64>| seconds.map(|seconds| seconds * 1_000_000);
        let since_us = us(ready_s.or(created_s)).unwrap_or(12_000_000);
        let (name, state) = (name.to_owned(), state.to_owned());
        GuestReport {
            name,
            state,
            since_us,
            created_us: us(created_s),
            ready_us: us(ready_s),
            ..GuestReport::default()
        }
    }

    pub(crate) fn seen() -> Seen {
        let (mut record, userland) = times();
        record.version = "0.1.0".to_owned();
        record.medium = Some(Medium { in_ram: true, ..Medium::default() });
        Seen {
            boot_id: ID.to_owned(),
            started: 1_795_000_000,
            record,
            xen: Some(Xen { version: "4.20".to_owned(), own_us: Some(1_900_000) }),
            userland: Some(userland),
            guests: Some(vec![guest("web", "created", Some(13), None), guest("db", "ready", Some(12), Some(18))]),
            stops: false,
        }
    }

    #[test]
    fn what_was_whole_stays_and_what_comes_later_is_added() {
        let first = Boot::of(seen(), None);
        assert_eq!(first.file_name().unwrap(), "2026-11-18T11-06-40Z-5f1c3a90.json");
        assert!(!first.is_over());
        assert_eq!(first.guests.as_ref().unwrap()[0].name, "db");
        // Later: the clock was set, units were started again, one guest was stopped, one is ready, one is new after a day.
        let mut later = seen();
        later.started += 5;
        later.userland.as_mut().unwrap().units.clear();
        later.xen = None;
        let day = Some(86_400);
        later.guests = Some(vec![
            guest("web", "ready", Some(13), Some(25)),
            guest("db", "stopped", None, None),
            guest("new", "ready", day, day),
        ]);
        let second = Boot::of(later, Some(&first));
        assert_eq!((second.started, &second.userland, &second.xen), (first.started, &first.userland, &first.xen));
        let guests: Vec<_> = second
            .guests
            .iter()
            .flatten()
            .map(|guest| (guest.name.as_str(), guest.state.as_str(), guest.ready_us))
            .collect();
        assert_eq!(guests, [("db", "ready", Some(18_000_000)), ("web", "ready", Some(25_000_000))]);
        assert!(second.is_over());
        assert_eq!(Boot::of(seen(), Some(&Boot { boot_id: "other".to_owned(), ..second })).started, seen().started);
    }

    #[test]
    fn a_boot_that_was_cut_short_says_so_until_it_is_over_after_all() {
        let first = Boot::of(Seen { stops: true, userland: None, ..seen() }, None);
        assert!(first.ended_before_over && !first.is_over());
        // The guests are stopped then; systemd has not finished.
        let mut down = Seen { userland: None, ..seen() };
        down.guests = Some(vec![guest("web", "stopped", None, None), guest("db", "stopped", None, None)]);
        let second = Boot::of(down.clone(), Some(&first));
        assert!(second.ended_before_over);
        // By hand, on a host that comes up.
        let third = Boot::of(Seen { userland: seen().userland, ..down }, Some(&second));
        assert!(third.is_over() && !third.ended_before_over);
        assert!(!Boot::of(Seen { stops: true, ..seen() }, Some(&third)).ended_before_over, "it was over before");
    }

    #[test]
    fn a_guest_that_was_started_twice_counts_from_the_first() {
        let mut seen_first = seen();
        seen_first.guests = Some(vec![guest("a", "created", Some(10), None)]);
        let first = Boot::of(seen_first, None);
        let mut crashed = seen();
        crashed.guests = Some(vec![guest("a", "backing off", None, None)]);
        let second = Boot::of(crashed, Some(&first));
        let mut again = seen();
        again.guests = Some(vec![guest("a", "ready", Some(40), Some(50))]);
        let third = Boot::of(again, Some(&second));
        let guest = &third.guests.as_ref().unwrap()[0];
        assert_eq!((guest.created_us, guest.ready_us), (Some(10_000_000), Some(50_000_000)));
    }

    #[test]
    fn what_is_written_is_read() {
        let boot = Boot::of(seen(), None);
        let text = serde_json::to_string_pretty(&boot).unwrap();
        assert_eq!(serde_json::from_str::<Boot>(&text).unwrap(), boot);
        // Made again of the same facts nothing has changed.
        assert_eq!(Boot::of(seen(), Some(&boot)), boot);
    }

    proptest! {
        #[test]
        fn told_twice_is_told_once(
            states in proptest::collection::vec((0_usize..4, 0_u64..4000, proptest::option::of(0_u64..4000)), 0..6),
        ) {
            let words = ["ready", "created", "failed", "stopped"];
            let mut seen = seen();
            seen.guests = Some(
                states.iter().enumerate().map(|(number, (word, created, ready))| {
                    guest(&format!("g{number}"), words[*word], Some(*created), *ready)
                }).collect(),
            );
            let once = Boot::of(seen.clone(), None);
            prop_assert_eq!(&Boot::of(seen, Some(&once)), &once);
        }
    }
}
