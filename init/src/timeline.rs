//! `sino timeline`: where the time of this boot went, from the kernel's start to systemd's "finished".
//!
//! The steps come from the boot record, the rest from systemd's own times if it runs. A [`Timeline`] is made from values
//! alone; [`text`] and [`svg`] draw it.

pub mod guests;
pub mod show;
pub mod svg;
pub mod text;
pub mod userland;

use serde::Serialize;
pub use show::{TimelineArguments, run};
use sino_boot::record::{BootRecord, Outcome};
pub use userland::{Times, Userland};

/// What begins later than this, in microseconds since the kernel started, is no longer part of a boot: a supervisor that
/// was started again after weeks would otherwise press all of it into one point.
pub(crate) const BOOT_ENDS: u64 = 3_600_000_000;
/// Most units of systemd that are drawn: the slowest.
const UNITS: usize = 40;
/// Units that took less, in microseconds, are not drawn; there are a hundred of them on any host.
const UNIT_LEAST: u64 = 10_000;

/// How a bar ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It did what it is for.
    Done,
    /// It had nothing to do.
    NotRequested,
    /// It failed.
    Failed,
    /// It still goes on.
    Unfinished,
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// Name of the step or unit.
    pub label: String,
    /// When it began, in microseconds since the kernel started.
    pub start_us: u64,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// How it ended.
    pub ending: Ending,
    /// What it found or why it failed.
    pub detail: String,
}

impl Bar {
    /// When it ended, in microseconds since the kernel started.
    #[must_use]
    pub fn end_us(&self) -> u64 {
        self.start_us.saturating_add(self.duration_us)
    }
}

/// Bars that belong together. Lanes run beside each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// `kernel`, a stage as the record names it, `systemd`, or [`guests::LANE`].
    pub name: String,
    /// Its bars by their start.
    pub bars: Vec<Bar>,
}

impl Lane {
    /// When its first bar begins and its last one ends, in microseconds since the kernel started.
    #[must_use]
    pub fn span(&self) -> (u64, u64) {
        let start = self.bars.iter().map(|bar| bar.start_us).min().unwrap_or_default();
        (start, self.bars.iter().map(Bar::end_us).max().unwrap_or_default())
    }
}

/// A moment with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// What happened.
    pub label: String,
    /// When, in microseconds since the kernel started.
    pub at_us: u64,
}

/// A boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// Which SINO, build and kernel it was.
    pub title: String,
    /// The lanes in the order in which they begin.
    pub lanes: Vec<Lane>,
    /// The moments in their order.
    pub marks: Vec<Mark>,
    /// When the last of it ended, in microseconds since the kernel started.
    pub end_us: u64,
    /// Steps that are left out because they began more than an hour after the kernel.
    pub left_out: usize,
    /// How long Xen ran before dom0's kernel, in microseconds; it is before the timeline's beginning. `None`: not known, or
    /// there is no Xen.
    pub xen_us: Option<u64>,
    /// How the guests came up; `None`: there are none.
    pub guests: Option<guests::Came>,
}

/// The moment when everything that systemd's default target wants was started.
const FINISHED: &str = "boot finished";

impl Timeline {
    /// Makes a timeline of what is recorded; without `userland` it ends with stage two.
    #[must_use]
    pub fn from_record(record: &BootRecord, userland: Option<Userland>) -> Self {
        let mut lanes: Vec<Lane> = Vec::new();
        let mut left_out = 0;
        for step in &record.steps {
            if step.start_us > BOOT_ENDS {
                left_out += 1;
                continue;
            }
            let bar = Bar {
                label: step.step.clone(),
                start_us: step.start_us,
                duration_us: step.duration_us.min(BOOT_ENDS),
                ending: match step.outcome {
                    Outcome::Done => Ending::Done,
                    Outcome::NotRequested => Ending::NotRequested,
                    Outcome::Failed => Ending::Failed,
                },
                detail: step.detail.clone(),
            };
            match lanes.iter_mut().find(|lane| lane.name == step.stage) {
                Some(lane) => lane.bars.push(bar),
                None => lanes.push(Lane { name: step.stage.clone(), bars: vec![bar] }),
            }
        }
        let mut marks = Vec::new();
        if let Some(userland) = userland {
            let times = userland.times;
            let moments = [("systemd started", times.userspace_us), (FINISHED, times.finish_us)];
            marks.extend(
                moments
                    .iter()
                    .filter(|(_, at_us)| (1..=BOOT_ENDS).contains(at_us))
                    .map(|(label, at_us)| Mark { label: (*label).to_owned(), at_us: *at_us }),
            );
            let bars = units(userland);
            if !bars.is_empty() {
                lanes.push(Lane { name: "systemd".into(), bars });
            }
        }
        for lane in &mut lanes {
            lane.bars.sort_by_key(|bar| bar.start_us);
        }
        lanes.sort_by_key(|lane| lane.span().0);
        let first =
            lanes.first().map(|lane| lane.span().0).into_iter().chain(marks.iter().map(|mark| mark.at_us)).min();
        if let Some(duration_us) = first {
            let detail = "until the first step: the kernel's own start, and unpacking the initramfs".to_owned();
            let bar = Bar { label: "start".into(), start_us: 0, duration_us, ending: Ending::Done, detail };
            lanes.insert(0, Lane { name: "kernel".into(), bars: vec![bar] });
        }
        let ends = lanes.iter().map(|lane| lane.span().1).chain(marks.iter().map(|mark| mark.at_us));
        Self {
            title: format!("SINO {}, build {}, kernel {}", record.version, record.build_id, record.kernel_release),
            end_us: ends.max().unwrap_or_default(),
            lanes,
            marks,
            left_out,
            xen_us: None,
            guests: None,
        }
    }

    /// How long the boot took, in microseconds since the kernel started: until systemd had finished, and every guest that was
    /// to come was ready. `None`: systemd has not finished, or that is not known.
    #[must_use]
    pub fn total_us(&self) -> Option<u64> {
        let finished = self.marks.iter().find(|mark| mark.label == FINISHED)?.at_us;
        Some(finished.max(self.guests.and_then(|guests| guests.last_ready_us).unwrap_or_default()))
    }

    /// The distance between two marks of an axis in seconds, so that there are at most `most` of them.
    fn tick(&self, most: f64) -> f64 {
        let seconds = self.end_us as f64 / 1e6;
        let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1800.0];
        steps.into_iter().find(|step| seconds / step <= most).unwrap_or(3600.0)
    }
}

/// The slowest units as bars.
fn units(userland: Userland) -> Vec<Bar> {
    let Times { userspace_us, finish_us, now_us } = userland.times;
    // What was started again after the boot is not part of it, and what went on after it did not hold it up.
    let end = Some(finish_us).filter(|at_us| *at_us > 0).unwrap_or(now_us).min(BOOT_ENDS);
    let mut bars: Vec<Bar> = userland
        .units
        .into_iter()
        .filter(|unit| (userspace_us..=end).contains(&unit.start_us))
        .map(|unit| {
            let (end_us, ending) = match (unit.end_us, unit.failed) {
                (Some(end_us), false) => (end_us, Ending::Done),
                (end_us, true) => (end_us.unwrap_or(unit.start_us), Ending::Failed),
                (None, false) => (end, Ending::Unfinished),
            };
            let duration_us = end_us.min(end).saturating_sub(unit.start_us);
            Bar { label: unit.id, start_us: unit.start_us, duration_us, ending, detail: String::new() }
        })
        .filter(|bar| bar.duration_us >= UNIT_LEAST || bar.ending == Ending::Failed)
        .collect();
    bars.sort_by_key(|bar| (bar.ending != Ending::Failed, std::cmp::Reverse(bar.duration_us)));
    bars.truncate(UNITS);
    bars
}

/// A duration for people: `12.34 s`, or `4 ms` below a tenth of a second.
pub(crate) fn seconds(us: u64) -> String {
    if us < 100_000 { format!("{} ms", us.div_ceil(1000)) } else { format!("{:.2} s", us as f64 / 1e6) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::userland::Unit;
    use super::*;
    use proptest::prelude::*;
    use sino_boot::record::StepRecord;

    pub(crate) fn step(stage: &str, step: &str, start_us: u64, duration_us: u64, outcome: Outcome) -> StepRecord {
        let detail = format!("<{step}> & \"more\"");
        StepRecord { stage: stage.into(), step: step.into(), start_us, duration_us, outcome, detail }
    }

    fn unit(id: &str, start_us: u64, end_us: Option<u64>, failed: bool) -> Unit {
        Unit { id: id.into(), start_us, end_us, failed }
    }

    /// A boot with parallel lanes, a failure and systemd.
    pub(crate) fn boot() -> (BootRecord, Userland) {
        use Outcome::{Done, Failed, NotRequested};
        let steps = vec![
            step("stage-one", "read-flags", 2_900_000, 4_000, Done),
            step("stage-one", "load-drivers", 2_910_000, 700_000, Done),
            step("stage-one", "find-medium", 3_620_000, 1_300_000, Done),
            step("stage-one", "copy-to-ram", 4_930_000, 20, NotRequested),
            step("stage-one", "mount-image", 4_940_000, 260_000, Done),
            step("stage-one", "check-root", 5_210_000, 3_000, Done),
            step("network", "links", 5_800_000, 1_400_000, Done),
            step("storage", "activate", 5_790_000, 900_000, Done),
            step("network", "lease", 7_200_000, 3_100_000, Failed),
            step("storage", "check-srv", 6_690_000, 1_200_000, Done),
            step("storage", "mount-srv", 7_900_000, 90_000, Done),
            step("storage", "swap", 8_000_000, 10, NotRequested),
            step("xen", "xenstored", 5_850_000, 600_000, Done),
        ];
        let record = BootRecord {
            version: "0.1.0".into(),
            build_id: "20261123-a1b2c3".into(),
            kernel_release: "6.12.48+deb13-amd64".into(),
            steps,
            ..BootRecord::default()
        };
        let userland = Userland {
            times: Times { userspace_us: 10_400_000, finish_us: 19_800_000, now_us: 100_000_000 },
            units: vec![
                unit("systemd-udevd.service", 11_200_000, Some(11_900_000), false),
                unit("systemd-udev-trigger.service", 11_300_000, Some(13_700_000), false),
                unit("ssh.service", 15_000_000, Some(16_100_000), false),
                unit("chrony.service", 15_100_000, Some(17_400_000), true),
                unit("sino.service", 15_200_000, Some(19_600_000), false),
                unit("quick.service", 15_200_000, Some(15_200_100), false),
                unit("later.service", 90_000_000, Some(95_000_000), false),
                unit("slow.service", 16_000_000, None, false),
            ],
        };
        (record, userland)
    }

    #[test]
    fn lanes_are_by_stage_and_begin_in_order() {
        let (record, userland) = boot();
        let timeline = Timeline::from_record(&record, Some(userland));
        let names: Vec<&str> = timeline.lanes.iter().map(|lane| lane.name.as_str()).collect();
        assert_eq!(names, ["kernel", "stage-one", "storage", "network", "xen", "systemd"]);
        assert_eq!(timeline.lanes[0].bars[0].duration_us, 2_900_000);
        assert_eq!(timeline.lanes[1].span(), (2_900_000, 5_213_000));
        assert_eq!(timeline.end_us, 19_800_000);
        assert_eq!(timeline.marks.iter().map(|mark| mark.at_us).collect::<Vec<_>>(), [10_400_000, 19_800_000]);
        let units = &timeline.lanes[5].bars;
        assert_eq!(units.len(), 6, "{units:?}");
        assert!(units.iter().any(|bar| bar.label == "slow.service" && bar.ending == Ending::Unfinished));
        assert!(units.iter().any(|bar| bar.label == "chrony.service" && bar.ending == Ending::Failed));
    }

    #[test]
    fn without_systemd_or_without_any_step_there_is_still_a_timeline() {
        let (record, userland) = boot();
        let timeline = Timeline::from_record(&record, None);
        assert_eq!((timeline.lanes.len(), timeline.end_us), (5, 10_300_000));
        assert_eq!(Timeline::from_record(&BootRecord::default(), None).lanes, []);
        let timeline = Timeline::from_record(&BootRecord::default(), Some(userland));
        assert_eq!((timeline.lanes.len(), timeline.lanes[0].bars[0].duration_us), (2, 10_400_000));
    }

    #[test]
    fn a_boot_that_goes_on_ends_now() {
        let (record, mut userland) = boot();
        userland.times = Times { finish_us: 0, now_us: 17_000_000, ..userland.times };
        let timeline = Timeline::from_record(&record, Some(userland));
        assert_eq!((timeline.end_us, timeline.marks.len()), (17_000_000, 1));
    }

    #[test]
    fn what_came_long_after_the_boot_is_counted_only() {
        let (mut record, _) = boot();
        record.steps.push(step("network", "again", 86_400_000_000, 5, Outcome::Done));
        let timeline = Timeline::from_record(&record, None);
        assert_eq!((timeline.left_out, timeline.end_us), (1, 10_300_000));
    }

    proptest! {
        #[test]
        fn no_record_makes_it_panic(
            steps in proptest::collection::vec(("\\PC{0,3}|\u{1b}", "\\PC{0,20}|<\u{7}&", any::<u64>(), any::<u64>()), 0..8),
            small in any::<bool>(),
        ) {
            let cut = |number: u64| if small { number % 100_000_000 } else { number };
            let steps = steps.into_iter().map(|(stage, name, start, length)| {
                step(&stage, &name, cut(start), cut(length), Outcome::Done)
            });
            let record = BootRecord { steps: steps.collect(), ..BootRecord::default() };
            let timeline = Timeline::from_record(&record, None);
            let text = text::draw(&timeline);
            prop_assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            for drawn in [text, svg::draw(&timeline)] {
                prop_assert!(!drawn.chars().any(|c| c.is_control() && c != '\n'));
            }
        }
    }
}
