//! `sino-bench check`: whether stage one is still as near to the floor as it was.

use super::sample::Results;
use super::statistics::{Spread, series};
use super::table::times;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::path::Path;

/// The case that is checked.
pub const CASE: &str = "USB normal";
/// The figure that is checked.
const FIGURE: &str = "init-to-root";

/// The file `qemu-tests/bench-bounds.toml`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// SINO's time over the floor's, at the most.
    pub over_floor: f64,
    /// live-boot's time over SINO's, at the least.
    pub live_boot_over_sino: f64,
}

impl Bounds {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or is not as agreed.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        toml::from_str(&text).with_context(|| format!("reading {}", file.display()))
    }

    /// Holds results of stage one against the bounds; says both ratios.
    ///
    /// # Errors
    /// A bound is exceeded, or a contender has no figure.
    pub fn check(&self, results: &Results) -> Result<String> {
        let floor = ratio(results, "SINO", "floor")?;
        let live_boot = ratio(results, "live-boot", "SINO")?;
        let said = format!(
            "stage one, {CASE}: SINO took {} times the floor, live-boot {} times SINO",
            times(floor),
            times(live_boot)
        );
        ensure!(
            floor.median <= self.over_floor,
            "{said}; more than {} times the floor: something has made stage one slower. What each step takes: \"sino timeline\", \
             or the phases in target/bench/check/stage-one.json. If it has to be, raise over_floor in qemu-tests/bench-bounds.toml",
            self.over_floor
        );
        ensure!(
            live_boot.median >= self.live_boot_over_sino,
            "{said}; at least {} was wanted (live_boot_over_sino in qemu-tests/bench-bounds.toml)",
            self.live_boot_over_sino
        );
        Ok(said)
    }
}

fn ratio(results: &Results, own: &str, other: &str) -> Result<Spread> {
    let all = series(&results.samples);
    let of = |contender: &str| {
        all.iter()
            .find(|one| (one.case, one.figure, one.contender) == (CASE, FIGURE, contender))
            .with_context(|| format!("{contender} has no figure for {CASE}; {}", results.notes.join("; ")))
    };
    of(own)?.over(of(other)?).with_context(|| format!("{own} and {other} have no round in common"))
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::super::statistics::tests::sample;
    use super::*;

    fn results(sino: f64, floor: f64, live_boot: f64) -> Results {
        let mut samples = Vec::new();
        for round in 1..=2 {
            for (contender, value) in [("SINO", sino), ("floor", floor), ("live-boot", live_boot)] {
                samples.push(sample(CASE, contender, FIGURE, round, value));
            }
        }
        let (measure, machine) = ("stage-one".into(), Machine::default());
        Results {
            measure,
            machine,
            short: true,
            complete: true,
            runs: std::collections::BTreeMap::new(),
            failed: Vec::new(),
            notes: vec!["floor: no medium".into()],
            printed: Vec::new(),
            samples,
        }
    }

    #[test]
    fn the_bounds_hold_or_the_check_says_what_to_do() {
        let bounds = Bounds { over_floor: 1.5, live_boot_over_sino: 5.0 };
        assert!(bounds.check(&results(3.0, 2.5, 24.0)).unwrap().contains("1.20"));
        let slow = bounds.check(&results(4.0, 2.5, 24.0)).unwrap_err().to_string();
        assert!(slow.contains("1.60") && slow.contains("bench-bounds.toml"), "{slow}");
        assert!(bounds.check(&results(3.0, 2.5, 9.0)).is_err());
        let mut without = results(3.0, 2.5, 24.0);
        without.samples.retain(|sample| sample.contender != "floor");
        assert!(format!("{:#}", bounds.check(&without).unwrap_err()).contains("no medium"));
    }

    #[test]
    fn the_file_is_as_agreed() {
        let bounds = Bounds::read(&crate::images::workspace().join("qemu-tests/bench-bounds.toml")).unwrap();
        assert!(bounds.over_floor >= 1.0 && bounds.live_boot_over_sino >= 1.0);
    }
}
