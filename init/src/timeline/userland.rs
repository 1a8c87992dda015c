//! systemd's own times of this boot, asked of systemctl(1).
//!
//! systemd counts them by `CLOCK_MONOTONIC`, the boot record by `CLOCK_BOOTTIME`; the two differ only on a machine that
//! slept, which none does while it boots.

use super::{BOOT_ENDS, UNIT_LEAST, UNITS};
use crate::guests::probe::Cancel;
use crate::guests::xl::{DATA, Kind, run};
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use sino_boot::record::now_us;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long systemd may take to answer; sd-bus itself gives up after that.
const ANSWERS_WITHIN: Duration = Duration::from_secs(25);

/// Moments of the boot, in microseconds since the kernel started; 0: not yet. Source: `org.freedesktop.systemd1(5)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Times {
    /// systemd was executed.
    pub userspace_us: u64,
    /// Everything that the default target wants was started.
    pub finish_us: u64,
    /// It was asked; [`parse_manager`] cannot know that.
    pub now_us: u64,
}

/// A unit that was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unit {
    /// Its name.
    pub id: String,
    /// When its start began, in microseconds since the kernel started.
    pub start_us: u64,
    /// When its start ended, well or not; `None` if it did not yet, or if that is not known.
    pub end_us: Option<u64>,
    /// Whether it failed.
    pub failed: bool,
}

/// What systemd knows of this boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Userland {
    /// Moments.
    pub times: Times,
    /// Units that were started, as systemd lists them.
    pub units: Vec<Unit>,
}

const MANAGER: &str = "--property=UserspaceTimestampMonotonic,FinishTimestampMonotonic";
const UNIT: &str = "--property=Id,ActiveState,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic,\
                    InactiveEnterTimestampMonotonic";

impl Userland {
    /// Asks systemctl, until it answers or `cancel`.
    ///
    /// # Errors
    /// There is no systemctl, or systemd is not what runs.
    pub fn of_this_host(cancel: Option<&Cancel>) -> Result<Self> {
        let times = Times { now_us: now_us(), ..parse_manager(&systemctl(&["show", MANAGER], cancel)?) };
        let units = parse_units(&systemctl(&["show", "*", UNIT], cancel)?);
        Ok(Self { times, units })
    }

    /// The same with only those units that a timeline may show, in their order.
    #[must_use]
    pub fn slowest(mut self) -> Self {
        let Times { userspace_us, finish_us, now_us } = self.times;
        let end = Some(finish_us).filter(|at_us| *at_us > 0).unwrap_or(now_us).min(BOOT_ENDS);
        let took = |unit: &Unit| unit.end_us.unwrap_or(end).min(end).saturating_sub(unit.start_us);
        self.units
            .retain(|unit| (userspace_us..=end).contains(&unit.start_us) && (unit.failed || took(unit) >= UNIT_LEAST));
        let mut order: Vec<_> = self.units.iter().map(|unit| (!unit.failed, std::cmp::Reverse(took(unit)))).collect();
        order.sort_unstable();
        if let Some(last) = order.get(UNITS - 1).copied() {
            self.units.retain(|unit| (!unit.failed, std::cmp::Reverse(took(unit))) <= last);
        }
        self
    }
}

fn systemctl(arguments: &[&str], cancel: Option<&Cancel>) -> Result<String> {
    let mut command = Command::new("systemctl");
    let finished = run(command.args(arguments), DATA, Instant::now() + ANSWERS_WITHIN, cancel).map_err(|failure| {
        // What it had said by its deadline is the beginning of the answer.
        let why = match (failure.kind, failure.said.first()) {
            (Kind::Deadline, _) => format!("no whole answer within {} s; try again", ANSWERS_WITHIN.as_secs()),
            (Kind::CannotRun(why), _) => why,
            (_, Some(said)) => said.clone(),
            (_, None) => "failed without a word".to_owned(),
        };
        anyhow!("systemctl {}: {why}", arguments.join(" "))
    })?;
    let text = finished.stdout.whole().context("systemctl says more than can be")?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Reads the properties of systemd itself.
#[must_use]
pub fn parse_manager(text: &str) -> Times {
    Times {
        userspace_us: property(text, "UserspaceTimestampMonotonic").unwrap_or_default(),
        finish_us: property(text, "FinishTimestampMonotonic").unwrap_or_default(),
        now_us: 0,
    }
}

/// Reads the properties of units, in blocks with empty lines between them. Units that were never started are left out, and
/// devices, which are not started but appear.
#[must_use]
pub fn parse_units(text: &str) -> Vec<Unit> {
    text.split("\n\n").filter_map(unit).collect()
}

fn unit(block: &str) -> Option<Unit> {
    let id = value(block, "Id").filter(|id| !id.is_empty() && !id.ends_with(".device"))?;
    let start_us = property(block, "InactiveExitTimestampMonotonic")?;
    let state = value(block, "ActiveState").unwrap_or_default();
    let failed = state == "failed";
    // A unit that does its work once and ends never gets active: it leaves "inactive" and comes back to it.
    let active = property(block, "ActiveEnterTimestampMonotonic").filter(|at_us| *at_us >= start_us);
    let inactive = property(block, "InactiveEnterTimestampMonotonic").filter(|at_us| *at_us >= start_us);
    Some(Unit { id: id.to_owned(), start_us, end_us: active.or(inactive), failed })
}

fn value<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// A time; 0 means that the moment has not come.
fn property(block: &str, name: &str) -> Option<u64> {
    value(block, name)?.trim().parse().ok().filter(|us| *us > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn moments_are_read_and_0_is_not_yet() {
        let text = "UserspaceTimestampMonotonic=10400000\nFinishTimestampMonotonic=0\n";
        assert_eq!(parse_manager(text), Times { userspace_us: 10_400_000, finish_us: 0, now_us: 0 });
        assert_eq!(parse_manager("x"), Times::default());
    }

    #[test]
    fn units_of_every_kind_are_read() {
        let text = "\
Id=ssh.service\nActiveState=active\nInactiveExitTimestampMonotonic=15\nActiveEnterTimestampMonotonic=16\n\
InactiveEnterTimestampMonotonic=0\n\n\
ActiveState=inactive\nInactiveExitTimestampMonotonic=20\nActiveEnterTimestampMonotonic=0\n\
InactiveEnterTimestampMonotonic=25\nId=once.service\n\n\
Id=bad.service\nActiveState=failed\nInactiveExitTimestampMonotonic=30\nActiveEnterTimestampMonotonic=0\n\
InactiveEnterTimestampMonotonic=39\n\n\
Id=slow.service\nActiveState=activating\nInactiveExitTimestampMonotonic=40\nActiveEnterTimestampMonotonic=0\n\
InactiveEnterTimestampMonotonic=7\n\n\
Id=never.service\nActiveState=inactive\nInactiveExitTimestampMonotonic=0\n\n\
Id=dev-sda.device\nActiveState=active\nInactiveExitTimestampMonotonic=5\nActiveEnterTimestampMonotonic=5\n";
        let units = parse_units(text);
        let seen: Vec<_> =
            units.iter().map(|unit| (unit.id.as_str(), unit.start_us, unit.end_us, unit.failed)).collect();
        assert_eq!(
            seen,
            [
                ("ssh.service", 15, Some(16), false),
                ("once.service", 20, Some(25), false),
                ("bad.service", 30, Some(39), true),
                ("slow.service", 40, None, false),
            ]
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(Id=|InactiveExitTimestampMonotonic=|[0-9]{1,25}|\n|\\PC){0,20}") {
            let _ = (parse_manager(&text), parse_units(&text));
        }
    }
}
