//! The goals of the bench, and what became of them.

use super::sample::{Printed, Results};
use super::statistics::{Series, series};
use super::table::times;
use super::{ROUNDS, SINO, Unit};
use std::fmt::Write as _;

/// What a goal looks at.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// The median of this contender.
    Value(&'static str),
    /// The first over the second, paired by round.
    Ratio(&'static str, &'static str),
}

/// The bound.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A goal.
#[derive(Clone, Copy, Debug)]
struct Goal {
    text: &'static str,
    measure: &'static str,
    case: &'static str,
    figure: &'static str,
    of: Of,
    bound: Bound,
}

const fn goal(text: &'static str, [measure, case, figure]: [&'static str; 3], of: Of, bound: Bound) -> Goal {
    Goal { text, measure, case, figure, of, bound }
}

const GOALS: &[Goal] = &[
    goal(
        "stage one, USB: at most 1.3 times the floor",
        ["stage-one", "USB normal", "init-to-root"],
        Of::Ratio("SINO", "floor"),
        Bound::AtMost(1.3),
    ),
    goal(
        "stage one, USB: at least 7 times faster than live-boot",
        ["stage-one", "USB normal", "init-to-root"],
        Of::Ratio("live-boot", "SINO"),
        Bound::AtLeast(7.0),
    ),
    goal(
        "stage one, USB: at least 10 times faster than dracut",
        ["stage-one", "USB normal", "init-to-root"],
        Of::Ratio("dracut", "SINO"),
        Bound::AtLeast(10.0),
    ),
    goal(
        "kernel's start to the root's init, USB: at least 4 times faster than live-boot",
        ["stage-one", "USB normal", "kernel-to-root"],
        Of::Ratio("live-boot", "SINO"),
        Bound::AtLeast(4.0),
    ),
    goal("initramfs: at most 6 MB", ["image", "make iso", "initramfs"], Of::Value("SINO"), Bound::AtMost(6e6)),
    goal(
        "to RAM with its hash, natively: not slower than plain cp",
        ["to-ram", "native, cold file", "time"],
        Of::Ratio("SINO", "cp"),
        Bound::AtMost(1.0),
    ),
    goal(
        "to RAM from a stick of 20 MB/s: at least 95 % of its bandwidth, so at most 1.053 times its own time",
        ["to-ram", "USB 20 MB/s", "copying over the stick's time"],
        Of::Value("SINO"),
        Bound::AtMost(1.0 / 0.95),
    ),
    goal(
        "to RAM: 24 MB of memory over the image at most",
        ["to-ram", "USB", "memory beyond the image"],
        Of::Value("SINO"),
        // Kibibytes.
        Bound::AtMost(24.0 * 1024.0),
    ),
    goal(
        "first guest created at least 5 times sooner than with live-boot and xendomains",
        ["guests", "1 guest", "init-to-first-created"],
        Of::Ratio("live-boot + xendomains", "SINO"),
        Bound::AtLeast(5.0),
    ),
    goal(
        "50 guests: at most 1.02 times the critical path",
        ["scale", "50 guests", "over critical path"],
        Of::Value("SINO"),
        Bound::AtMost(1.02),
    ),
];

/// What became of a goal.
struct Verdict {
    figure: String,
    met: bool,
    /// How many rounds it is made of, if these are fewer than a whole run has.
    few: Option<usize>,
}

fn judged(goal: &Goal, results: &[Results]) -> Option<Verdict> {
    let results = results.iter().find(|results| results.measure == goal.measure)?;
    let all = series(&results.samples);
    let of = |contender: &str| -> Option<&Series<'_>> {
        all.iter().find(|one| one.contender == contender && one.case == goal.case && one.figure == goal.figure)
    };
    let (spread, figure, unit) = match goal.of {
        Of::Value(contender) => {
            let series = of(contender)?;
            let spread = series.spread()?;
            (spread, series.unit.show(spread.median), series.unit)
        }
        Of::Ratio(own, SINO) if of(own).is_none() => return printed(goal, own, results),
        Of::Ratio(own, other) => {
            let ratio = of(own)?.over(of(other)?)?;
            (ratio, format!("{} times", times(ratio)), Unit::Ratio)
        }
    };
    let met = match goal.bound {
        Bound::AtMost(most) => spread.median <= most,
        Bound::AtLeast(least) => spread.median >= least,
    };
    // A file's length is the same in each round.
    let few = (unit != Unit::Bytes && spread.count < ROUNDS as usize).then_some(spread.count);
    Some(Verdict { figure, met, few })
}

/// Of a case whose values were not kept, what was printed of it.
fn printed(goal: &Goal, own: &str, results: &Results) -> Option<Verdict> {
    let row = |row: &&Printed| row.contender == own && row.case == goal.case && row.figure == goal.figure;
    let [_, _, rounds, times] = &results.printed.iter().find(row)?.cells;
    let ratio: f64 = times.split(' ').next()?.parse().ok()?;
    let met = match goal.bound {
        Bound::AtMost(most) => ratio <= most,
        Bound::AtLeast(least) => ratio >= least,
    };
    let few = rounds.parse().ok().filter(|rounds| *rounds < ROUNDS as usize);
    Some(Verdict { figure: format!("{times} times"), met, few })
}

/// A table in Markdown: each goal, its figure, met or not.
#[must_use]
pub fn markdown(results: &[Results]) -> String {
    let mut text = "| goal | figure | |\n|---|---:|---|\n".to_owned();
    for goal in GOALS {
        let (figure, mut verdict) = match judged(goal, results) {
            Some(Verdict { figure, met: true, few }) => (figure, rounds("met", few)),
            Some(Verdict { figure, met: false, few }) => (figure, rounds("**not met**", few)),
            None => (String::new(), "not measured".to_owned()),
        };
        let cut = |results: &Results| results.measure == goal.measure && !results.complete;
        // With all its rounds, what else its measure lacks does not matter to it.
        if judged(goal, results).is_none_or(|verdict| verdict.few.is_some()) && results.iter().any(cut) {
            verdict.push_str(", in a run that did not come to its end");
        }
        let _ = writeln!(text, "| {} | {figure} | {verdict} |", goal.text);
    }
    text
}

fn rounds(verdict: &str, few: Option<usize>) -> String {
    match few {
        Some(1) => format!("{verdict}, by one round"),
        Some(few) => format!("{verdict}, by {few} rounds"),
        None => verdict.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::super::statistics::tests::sample;
    use super::*;

    #[test]
    fn goals_are_met_missed_or_not_measured() {
        let mut samples = Vec::new();
        for round in 1..=ROUNDS {
            for (contender, value) in [("SINO", 3.0), ("floor", 2.0), ("live-boot", 24.0)] {
                samples.push(sample("USB normal", contender, "init-to-root", round, value));
            }
        }
        let results = Results {
            measure: "stage-one".into(),
            machine: Machine::default(),
            short: false,
            complete: true,
            runs: std::collections::BTreeMap::new(),
            failed: Vec::new(),
            notes: Vec::new(),
            printed: vec![Printed {
                case: "USB normal".into(),
                figure: "init-to-root".into(),
                contender: "dracut".into(),
                cells: ["36 s", "", "5", "12.5 (12.1 .. 13.0)"].map(str::to_owned),
                ..Printed::default()
            }],
            samples,
        };
        let text = markdown(std::slice::from_ref(&results));
        let line = |start: &str| text.lines().find(|line| line.contains(start)).unwrap();
        assert!(line("1.3 times the floor").ends_with("1.50 (1.50 .. 1.50) times | **not met** |"), "{text}");
        assert!(line("faster than live-boot").ends_with("8.00 (8.00 .. 8.00) times | met |"), "{text}");
        assert!(line("faster than dracut").ends_with("| 12.5 (12.1 .. 13.0) times | met |"), "{text}");
        assert!(line("first guest").ends_with("| not measured |"), "{text}");
        assert_eq!(text.lines().count(), GOALS.len() + 2);
        let mut few = results.clone();
        few.samples.retain(|sample| sample.round == 1);
        few.complete = false;
        let said = "times | **not met**, by one round, in a run that did not come to its end |";
        assert!(markdown(&[few]).contains(said), "{}", markdown(&[results]));
    }

    #[test]
    fn each_goal_is_of_a_measure_that_there_is() {
        for goal in GOALS {
            assert!(super::super::measures::find(goal.measure).is_some(), "{}", goal.text);
        }
    }
}
