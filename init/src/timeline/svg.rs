//! The timeline as a picture: SVG that needs nothing else, for light and dark screens.

use super::{Bar, Ending, Lane, Timeline, seconds};
use std::fmt::Write as _;

/// Width of the picture, in its own units (pixels at its natural size).
const WIDTH: f64 = 1200.0;
/// Left and right of the plot.
const MARGIN: f64 = 24.0;
/// Height of a bar's row.
const ROW: f64 = 20.0;
/// Height of a lane's heading.
const HEADING: f64 = 26.0;
/// Where the first lane begins.
const TOP: f64 = 134.0;
/// Below the last lane.
const BOTTOM: f64 = 52.0;

const STYLE: &str = "\
text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#24292f}\
.title{font-size:17px;font-weight:bold}.lane{font-size:13px;font-weight:bold}.dim{fill:#656d76}.end{text-anchor:end}\
.middle{text-anchor:middle}.page{fill:#fff}.band{fill:#f3f5f7}.grid{stroke:#d0d7de}\
.mark{stroke:#8250df;stroke-dasharray:4 3}.marked{fill:#8250df}\
.span{fill:#d0d7de}.done{fill:#2f81c7}.not-requested{fill:#9aa4af}.failed{fill:#d1242f}.unfinished{fill:#bf8700}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#9198a1}.page{fill:#0d1117}.band{fill:#161b22}\
.grid{stroke:#30363d}.mark{stroke:#ab7df8}.marked{fill:#ab7df8}.span{fill:#3d444d}.done{fill:#4493f8}\
.not-requested{fill:#656c76}.failed{fill:#f85149}.unfinished{fill:#d29922}}";

/// Draws it.
#[must_use]
pub fn draw(timeline: &Timeline) -> String {
    let rows: usize = timeline.lanes.iter().map(|lane| lane.bars.len()).sum();
    let bottom = TOP + timeline.lanes.len() as f64 * HEADING + rows as f64 * ROW;
    let height = bottom + BOTTOM;
    // Writing to a String cannot fail.
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"34\">{0}</text>\n<text class=\"dim\" x=\"{MARGIN}\" y=\"56\">{1}</text>\n",
        escaped(&timeline.title),
        escaped(&summary(timeline))
    );
    let plot = Plot { end_us: timeline.end_us.max(1) };
    // The bands lie below the grid, the bars above it.
    let mut bands = String::new();
    let mut bars = String::new();
    let mut y = TOP;
    for (index, lane) in timeline.lanes.iter().enumerate() {
        let height = HEADING + lane.bars.len() as f64 * ROW;
        if index % 2 == 0 {
            let _ = writeln!(bands, "<rect class=\"band\" y=\"{y}\" width=\"{WIDTH}\" height=\"{height}\"/>");
        }
        plot.heading(&mut bars, lane, y);
        for (row, bar) in lane.bars.iter().enumerate() {
            plot.bar(&mut bars, bar, y + HEADING + row as f64 * ROW);
        }
        y += height;
    }
    svg.push_str(&bands);
    plot.axis(&mut svg, timeline, bottom);
    svg.push_str(&bars);
    legend(&mut svg, timeline, bottom + 30.0);
    svg.push_str("</svg>\n");
    svg
}

/// What a reader wants to know first.
fn summary(timeline: &Timeline) -> String {
    let xen = timeline.xen_us.map(|us| format!("Xen before that {}", seconds(us)));
    let marks = timeline.marks.iter().map(|mark| format!("{} at {}", mark.label, seconds(mark.at_us)));
    let lanes = timeline.lanes.iter().map(|lane| {
        let (start, end) = lane.span();
        format!("{} {}", lane.name, seconds(end - start))
    });
    let mut summary = String::new();
    for part in marks.chain(xen).chain(lanes) {
        let between = if summary.is_empty() { "" } else { "  \u{b7}  " };
        // What would run out of the picture stands at its lane, too.
        if summary.chars().count() + part.chars().count() < 160 {
            summary.push_str(between);
            summary.push_str(&part);
        }
    }
    if summary.is_empty() { "nothing is recorded of this boot".to_owned() } else { summary }
}

/// From times to places.
struct Plot {
    end_us: u64,
}

impl Plot {
    fn x(&self, us: u64) -> f64 {
        MARGIN + (us as f64 / self.end_us as f64).min(1.0) * (WIDTH - 2.0 * MARGIN)
    }

    fn axis(&self, svg: &mut String, timeline: &Timeline, bottom: f64) {
        let tick = timeline.tick(14.0);
        let (above, label) = (TOP - 6.0, TOP - 11.0);
        let mut at = 0.0;
        while at * 1e6 <= timeline.end_us as f64 {
            let x = MARGIN + at * 1e6 / self.end_us as f64 * (WIDTH - 2.0 * MARGIN);
            let name = if tick < 1.0 { format!("{at:.1} s") } else { format!("{at:.0} s") };
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{above}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text class=\"dim middle\" x=\"{x:.1}\" y=\"{label}\">{name}</text>"
            );
            at += tick;
        }
        for (index, mark) in timeline.marks.iter().enumerate() {
            let x = self.x(mark.at_us);
            // Those that are close to each other must not stand one on the other.
            let up = 26.0 + 14.0 * (index % 3) as f64;
            // The name stands beside its line on the side where there is room.
            let (class, shift) = if x > WIDTH / 2.0 { ("marked end", -5.0) } else { ("marked", 5.0) };
            let _ = writeln!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text class=\"{class}\" x=\"{:.1}\" y=\"{}\">{}</text>",
                TOP - up - 9.0,
                x + shift,
                TOP - up,
                escaped(&mark.label)
            );
        }
    }

    /// A lane's name, and its whole span as a thin line.
    fn heading(&self, svg: &mut String, lane: &Lane, y: f64) {
        let (start, end) = lane.span();
        let (x, width) = (self.x(start), (self.x(end) - self.x(start)).max(1.0));
        let _ = writeln!(
            svg,
            "<rect class=\"span\" x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"3\"/>",
            y + HEADING - 5.0
        );
        let name = format!("{}  {}", lane.name, seconds(end - start));
        Self::label(svg, "lane", &name, (x, x), y + HEADING - 10.0);
    }

    fn bar(&self, svg: &mut String, bar: &Bar, y: f64) {
        let (x, end) = (self.x(bar.start_us), self.x(bar.end_us()));
        let width = (end - x).max(2.0);
        let (class, how) = match bar.ending {
            Ending::Done => ("done", ""),
            Ending::NotRequested => ("not-requested", "nothing to do"),
            Ending::Failed => ("failed", "FAILED"),
            Ending::Unfinished => ("unfinished", "goes on"),
        };
        let took = match (bar.ending, how) {
            (Ending::NotRequested, how) => how.to_owned(),
            (_, "") => seconds(bar.duration_us),
            (_, how) => format!("{}, {how}", seconds(bar.duration_us)),
        };
        let _ = write!(
            svg,
            "<g><title>{}: {took}, from {}{}{}</title><rect class=\"{class}\" x=\"{x:.1}\" y=\"{}\" \
             width=\"{width:.1}\" height=\"{}\" rx=\"2\"/>",
            escaped(&bar.label),
            seconds(bar.start_us),
            if bar.detail.is_empty() { "" } else { "; " },
            escaped(&bar.detail),
            y + 3.0,
            ROW - 6.0
        );
        let name = format!("{} ({took})", bar.label);
        let text = if bar.ending == Ending::NotRequested { "dim" } else { "" };
        Self::label(svg, text, &name, (x, x + width), y + ROW - 6.0);
        svg.push_str("</g>\n");
    }

    /// A text behind a bar from `span.0` to `span.1`, or before it where there is no room behind.
    fn label(svg: &mut String, class: &str, text: &str, span: (f64, f64), y: f64) {
        let shown: String = text.chars().take(90).collect();
        // Letters are about seven units wide.
        let wide = shown.chars().count() as f64 * 7.0;
        let behind = if class == "lane" { span.1 } else { span.1 + 6.0 };
        let (class, x) = if behind + wide > WIDTH - MARGIN && span.0 > WIDTH - span.1 {
            (format!("{class} end"), if class == "lane" { WIDTH - MARGIN } else { span.0 - 6.0 })
        } else {
            (class.to_owned(), behind)
        };
        let _ = writeln!(svg, "<text class=\"{}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", class.trim(), escaped(&shown));
    }
}

fn legend(svg: &mut String, timeline: &Timeline, y: f64) {
    let entries =
        [("done", "done"), ("not-requested", "nothing to do"), ("failed", "failed"), ("unfinished", "goes on")];
    let mut x = MARGIN;
    for (class, name) in entries {
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{}\" width=\"14\" height=\"10\" rx=\"2\"/>\
             <text class=\"dim\" x=\"{}\" y=\"{y}\">{name}</text>",
            y - 9.0,
            x + 20.0
        );
        x += 130.0;
    }
    let mut note = "times since the kernel's start; lanes run beside each other".to_owned();
    if timeline.left_out > 0 {
        let _ = write!(note, "; not shown: {} steps later than an hour", timeline.left_out);
    }
    let _ = writeln!(svg, "<text class=\"dim end\" x=\"{}\" y=\"{y}\">{note}</text>", WIDTH - MARGIN);
}

/// A text for XML 1.0, which takes no control characters even when they are escaped.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            control if control.is_control() => escaped.push('?'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::tests::{boot, step};
    use super::*;
    use sino_boot::record::Outcome;

    #[test]
    fn texts_are_escaped_and_every_bar_is_there() {
        let (mut record, userland) = boot();
        record.steps.push(step("<x>", "a&b\u{1b}\u{ffff}", 9_000_000, 5, Outcome::Done));
        let svg = draw(&Timeline::from_record(&record, Some(userland)));
        if let Ok(path) = std::env::var("SINO_TEST_SVG") {
            std::fs::write(path, &svg).unwrap();
        }
        assert!(svg.contains("a&amp;b??") && svg.contains("&lt;x&gt;") && !svg.contains("a&b"), "{svg}");
        // 14 steps, 6 units, the kernel's own.
        assert_eq!(svg.matches("<g>").count(), 21);
        assert_eq!(svg.matches("class=\"failed\"").count(), 3);
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        assert!(svg.contains("boot finished") && svg.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn an_empty_record_is_a_picture_that_says_so() {
        assert!(draw(&Timeline::default()).contains("nothing is recorded"));
    }
}
