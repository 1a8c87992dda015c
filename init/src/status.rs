//! `sino status`: the record of this boot for people.

use sino_boot::issue;
use sino_boot::record::{BootRecord, Outcome};
use std::fmt::Write as _;

/// The record as text.
#[must_use]
pub fn render(record: &BootRecord) -> String {
    let mut text = format!("SINO {}, build {}, kernel {}\n", record.version, record.build_id, record.kernel_release);
    // Writing to a String cannot fail.
    let _ = match &record.medium {
        Some(medium) => {
            let mut also = String::new();
            for twin in &medium.also {
                let _ = writeln!(also, "{twin} carries the same build and is not used");
            }
            write!(text, "{}\n{also}", issue::place(medium))
        }
        None => writeln!(text, "the medium is not known: stage one left no record"),
    };
    let mut stage = "";
    for step in &record.steps {
        if step.stage != stage {
            let _ = writeln!(text, "\n{}", step.stage);
            stage = &step.stage;
        }
        let mark = match step.outcome {
            Outcome::Done => "done",
            Outcome::NotRequested => "-",
            Outcome::Failed => "FAILED",
        };
        let start = step.start_us as f64 / 1e6;
        let duration = step.duration_us as f64 / 1e6;
        let _ = writeln!(text, "  {start:>8.3} s  {duration:>7.3} s  {:<14} {mark:<7} {}", step.step, step.detail);
    }
    if !record.warnings.is_empty() {
        text.push_str("\nwarnings\n");
    }
    for warning in &record.warnings {
        let _ = writeln!(text, "  {warning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sino_boot::record::{Medium, StepRecord};

    #[test]
    fn what_an_administrator_asks_first_is_on_it() {
        let step = StepRecord {
            stage: "stage-one".into(),
            step: "find-medium".into(),
            start_us: 1_500_000,
            duration_us: 250_000,
            outcome: Outcome::Done,
            detail: "usb 1-2 sdb".into(),
        };
        let medium =
            Medium { device: "sdb".into(), description: "usb 1-2".into(), may_be_removed: true, ..Medium::default() };
        let mut record =
            BootRecord { version: "0.1.0".into(), build_id: "b1".into(), steps: vec![step], ..BootRecord::default() };
        record.medium = Some(medium);
        record.warnings.push("flag sino.x is not known".into());
        let text = render(&record);
        for part in ["SINO 0.1.0, build b1", "may be removed", "1.500 s", "find-medium", "flag sino.x"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        record.medium.as_mut().unwrap().may_be_removed = false;
        assert!(render(&record).contains("DO NOT REMOVE"));
    }
}
