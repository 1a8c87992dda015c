//! Results as a table: plain text for the terminal, Markdown for the report.

use super::SINO;
use super::sample::Printed;
use super::statistics::{Series, Spread, series};
use super::{Sample, Unit};
use std::fmt::Write as _;

/// What a contender's name ends with if the others are compared with it where SINO itself does not take part.
pub const DEFAULT: &str = "(default)";
/// Figures of this name are phases, which the picture shows.
pub const PHASE: &str = "phase ";

const HEAD: [&str; 7] = ["case", "figure", "contender", "median", "range", "rounds", "times SINO's"];

/// The one that the others of the same case and figure are compared with.
#[must_use]
pub fn base<'a, 's>(all: &'a [Series<'s>], of: &Series<'_>) -> Option<&'a Series<'s>> {
    let mut same = all.iter().filter(|other| (other.case, other.figure) == (of.case, of.figure));
    same.clone().find(|other| other.contender == SINO).or_else(|| same.find(|other| other.contender.ends_with(DEFAULT)))
}

/// Rows without the heading; phases are left out.
fn rows(samples: &[Sample]) -> Vec<[String; 7]> {
    let all = series(samples);
    let mut rows: Vec<[String; 7]> = Vec::new();
    let mut before = ("", "");
    for one in all.iter().filter(|one| !one.figure.starts_with(PHASE)) {
        let Some(spread) = one.spread() else { continue };
        let ratio = base(&all, one).filter(|base| base.contender != one.contender).and_then(|base| one.over(base));
        // What is the same as in the row above is not said again.
        let case = if before.0 == one.case { "" } else { one.case };
        let figure = if before == (one.case, one.figure) { "" } else { one.figure };
        before = (one.case, one.figure);
        rows.push([
            case.to_owned(),
            figure.to_owned(),
            one.contender.to_owned(),
            one.unit.show(spread.median),
            range(one.unit, spread),
            spread.count.to_string(),
            ratio.map_or_else(String::new, times),
        ]);
    }
    rows
}

fn range(unit: Unit, spread: Spread) -> String {
    let (least, most) = (unit.show(spread.least), unit.show(spread.most));
    if least == most { String::new() } else { format!("{least} .. {most}") }
}

/// `7.12 (6.80 .. 7.40)`; one pair has no spread.
#[must_use]
pub fn times(ratio: Spread) -> String {
    let digits = if ratio.median < 10.0 { 2 } else { 1 };
    let mut text = format!("{:.digits$}", ratio.median);
    if ratio.count > 1 {
        let _ = write!(text, " ({:.digits$} .. {:.digits$})", ratio.least, ratio.most);
    }
    text
}

/// For a terminal.
#[must_use]
pub fn text(samples: &[Sample]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows(samples));
    let mut wide = [0; 7];
    for line in &lines {
        for (most, cell) in wide.iter_mut().zip(line) {
            *most = cell.chars().count().max(*most);
        }
    }
    lines.iter().fold(String::new(), |mut text, line| {
        let cells: Vec<String> = line.iter().zip(wide).map(|(cell, wide)| format!("{cell:wide$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        text
    })
}

/// For the report; `printed` are the rows of cases whose values were not kept.
#[must_use]
pub fn markdown(samples: &[Sample], printed: &[Printed]) -> String {
    let mut text = format!("| {} |\n|---|---|---|---:|---:|---:|---:|\n", HEAD.join(" | "));
    let mut rows = rows(samples);
    let mut before = ("", "");
    for row in printed {
        let case = if before.0 == row.case { "" } else { &row.case };
        let figure = if before == (&row.case, &row.figure) { "" } else { &row.figure };
        before = (&row.case, &row.figure);
        let [median, range, rounds, times] = row.cells.clone();
        rows.push([case.to_owned(), figure.to_owned(), row.contender.clone(), median, range, rounds, times]);
    }
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::statistics::tests::sample;
    use super::*;

    fn samples() -> Vec<Sample> {
        let mut samples = Vec::new();
        for (round, slow) in [(1, 1.0), (2, 2.0), (3, 1.5)] {
            samples.push(sample("usb normal", "SINO", "init-to-root", round, 3.0 * slow));
            samples.push(sample("usb normal", "live|boot", "init-to-root", round, 24.0 * slow));
            samples.push(sample("usb normal", "SINO", "phase find-medium", round, 1.0));
        }
        samples
    }

    #[test]
    fn a_row_has_median_range_and_ratio() {
        let rows = rows(&samples());
        assert_eq!(rows.len(), 2, "phases are no rows");
        assert_eq!(rows[0], ["usb normal", "init-to-root", "SINO", "4.50 s", "3.00 s .. 6.00 s", "3", ""]);
        assert_eq!(rows[1], ["", "", "live|boot", "36.00 s", "24.00 s .. 48.00 s", "3", "8.00 (8.00 .. 8.00)"]);
    }

    #[test]
    fn both_forms_have_all_rows() {
        let row = |figure: &str| Printed {
            case: "cd".into(),
            figure: figure.into(),
            contender: "floor".into(),
            cells: ["1 s", "", "5", "0.90"].map(str::to_owned),
            ..Printed::default()
        };
        let page = markdown(&samples(), &[row("a"), row("a"), row("b")]);
        assert!(page.lines().all(|line| line.starts_with('|')) && page.contains("live\\|boot"), "{page}");
        assert!(page.ends_with("| cd | a | floor | 1 s |  | 5 | 0.90 |\n|  |  | floor | 1 s |  | 5 | 0.90 |\n|  | b | floor | 1 s |  | 5 | 0.90 |\n"));
        let text = text(&samples());
        assert_eq!(text.lines().count(), 3);
        assert_eq!(
            text.lines().map(|line| line.find("4.50 s").or(line.find("36.00 s"))).nth(1),
            Some(text.lines().next().unwrap().find("median"))
        );
    }

    #[test]
    fn without_sino_the_default_is_the_base() {
        let samples = [
            sample("packing", "zstd 6", "size", 1, 4.0),
            sample("packing", "zstd 15 (default)", "size", 1, 2.0),
            sample("other", "zstd 6", "size", 1, 4.0),
        ];
        let rows = rows(&samples);
        assert_eq!([rows[0][6].as_str(), rows[1][6].as_str(), rows[2][6].as_str()], ["2.00", "", ""]);
    }
}
