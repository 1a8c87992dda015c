//! The timeline as a table with bars made of characters, 80 columns wide.

use super::{Bar, Ending, Timeline, seconds};
use std::fmt::Write as _;

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Columns for a name.
const NAME: usize = 28;
/// Columns for a duration.
const DURATION: usize = 9;
/// Columns for bars.
const BARS: usize = WIDTH - NAME - DURATION - 1;
/// Units of systemd that are shown: the slowest, and every one that failed or goes on.
const UNITS: usize = 12;

/// Draws it. Nothing in it is wider than 80 columns.
#[must_use]
pub fn draw(timeline: &Timeline) -> String {
    let mut text = line(&timeline.title, WIDTH);
    text.push('\n');
    if timeline.lanes.is_empty() {
        text.push_str("nothing is recorded of this boot\n");
    } else {
        let _ = write!(text, "\n{:1$}", "seconds since the kernel's start", NAME + DURATION + 1);
        let _ = writeln!(text, "{}", axis(timeline));
    }
    for lane in &timeline.lanes {
        let (start, end) = lane.span();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:NAME$}{:>DURATION$}", line(&lane.name, NAME - 1), seconds(end - start));
        let mut slowest: Vec<u64> = lane.bars.iter().map(|bar| bar.duration_us).collect();
        slowest.sort_unstable_by(|a, b| b.cmp(a));
        let least = if lane.name == "systemd" { slowest.get(UNITS - 1).copied().unwrap_or_default() } else { 0 };
        let shown = |bar: &&Bar| bar.duration_us >= least || matches!(bar.ending, Ending::Failed | Ending::Unfinished);
        for bar in lane.bars.iter().filter(shown) {
            let name = format!("  {}", line(&bar.label, NAME - 3));
            let took = if bar.ending == Ending::NotRequested { String::new() } else { seconds(bar.duration_us) };
            let _ = writeln!(text, "{name:NAME$}{took:>DURATION$} {}", drawn(bar, timeline.end_us));
        }
    }
    text.push('\n');
    for mark in &timeline.marks {
        let _ = writeln!(text, "{:NAME$}{:>DURATION$}", line(&mark.label, NAME - 1), seconds(mark.at_us));
    }
    if let Some(xen_us) = timeline.xen_us {
        let _ = writeln!(text, "{:NAME$}{:>DURATION$}", "Xen, before the kernel", seconds(xen_us));
    }
    if timeline.left_out > 0 {
        let _ = writeln!(text, "not shown: {} later than an hour", timeline.left_out);
    }
    text.push_str("# done   - nothing to do   ! failed   > goes on\n");
    text
}

/// The column of a moment.
fn column(us: u64, end_us: u64) -> usize {
    let position = u128::from(us) * (BARS as u128 - 1) / u128::from(end_us.max(1));
    usize::try_from(position).unwrap_or(BARS).min(BARS - 1)
}

fn drawn(bar: &Bar, end_us: u64) -> String {
    let sign = match bar.ending {
        Ending::Done => "#",
        Ending::NotRequested => "-",
        Ending::Failed => "!",
        Ending::Unfinished => ">",
    };
    let (first, last) = (column(bar.start_us, end_us), column(bar.end_us(), end_us));
    // What ends in a column's beginning does not fill it; what is shorter than a column has one.
    " ".repeat(first) + &sign.repeat((last - first).max(1))
}

/// The seconds above the bars, each beginning at its column.
fn axis(timeline: &Timeline) -> String {
    let tick = timeline.tick(6.0);
    let mut axis = String::new();
    let mut at = 0.0;
    while at * 1e6 <= timeline.end_us as f64 {
        let label = if tick < 1.0 { format!("{at:.1}") } else { format!("{at:.0}") };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, not above an hour or so"
        )]
        let column = column((at * 1e6) as u64, timeline.end_us);
        if column + label.len() <= BARS && (axis.len() < column || axis.is_empty()) {
            axis.push_str(&" ".repeat(column - axis.len()));
            axis.push_str(&label);
        }
        at += tick;
    }
    axis
}

/// A text on one line, cut to a width, without control characters.
pub(crate) fn line(text: &str, width: usize) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::boot;
    use super::*;

    #[test]
    fn bars_stand_where_the_time_was() {
        let (record, userland) = boot();
        let text = draw(&Timeline::from_record(&record, Some(userland)));
        println!("{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let line = |name: &str| text.lines().find(|line| line.trim_start().starts_with(name)).unwrap().to_owned();
        let begin = |name: &str, sign: char| line(name).find(sign).unwrap();
        assert_eq!(begin("start", '#'), NAME + DURATION + 1);
        assert!(begin("load-drivers", '#') < begin("lease", '!'));
        assert!(begin("lease", '!') < begin("sino.service", '#'));
        assert_eq!(line("lease").matches('!').count(), 7);
        assert_eq!(line("swap").matches('-').count(), 1);
        assert!(line("boot finished").ends_with("19.80 s"), "{text}");
        assert!(line("seconds").ends_with(" 15"), "{text}");
    }

    #[test]
    fn an_empty_record_says_so() {
        assert!(draw(&Timeline::default()).contains("nothing is recorded"));
    }
}
