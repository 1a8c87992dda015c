//! A measure as a picture: bars of medians with their ranges; the contenders' timelines from the kernel's start, one over the
//! other; and SINO's phases, one behind the other. SVG that needs nothing else, for light and dark screens.

use super::statistics::{Series, Spread, series};
use super::table::{PHASE, base};
use super::{SINO, SINO_AGAIN, Sample};
use std::fmt::Write as _;

/// Width of the picture, in its own units (pixels at its natural size).
const WIDTH: f64 = 1000.0;
/// Left and right of everything.
const MARGIN: f64 = 24.0;
/// Where bars begin; before it stand the contenders' names.
const PLOT: f64 = 270.0;
/// Where the longest bar ends; behind it stand the values.
const PLOT_END: f64 = 700.0;
/// Height of a bar's row.
const ROW: f64 = 22.0;
/// Height of a block's heading.
const HEADING: f64 = 34.0;
/// Where the first block begins.
const TOP: f64 = 64.0;
/// Below the last block.
const BOTTOM: f64 = 40.0;
/// The first part of a timeline.
const FIRST: (&str, &str) = ("kernel-to-init", "kernel, until /init");
/// What comes after it, counted from /init: figures, and what is reached.
const FROM_INIT: [(&str, &str); 4] = [
    ("init-to-root", "the root's init"),
    ("init-to-first-created", "first guest created"),
    ("init-to-all-ready", "all guests ready"),
    ("init-to-multi-user", "multi-user"),
];
/// Classes of a timeline's parts; [`FROM_INIT`] in its order behind the first.
const PARTS: [&str; 5] = ["t0", "t1", "t1", "t2", "t3"];
/// Cases of one figure have the same scale unless their longest bars differ by more than this.
const SAME_SCALE: f64 = 10.0;

const STYLE: &str = "\
text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#24292f}\
.title{font-size:17px;font-weight:bold}.block{font-size:13px;font-weight:bold}.dim{fill:#656d76}.end{text-anchor:end}\
.page{fill:#fff}.band{fill:#f3f5f7}.range{stroke:#24292f;stroke-width:1.5}\
.t0{fill:#9aa4af}.t1{fill:#2f81c7}.t2{fill:#1a7f37}.t3{fill:#bf8700}.sino{fill:#2f81c7}.again{fill:#9cc3e6}.other{fill:#9aa4af}.floor{fill:#bf8700}.phase{fill:#8250df}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#9198a1}.page{fill:#0d1117}.band{fill:#161b22}\
.range{stroke:#e6edf3}.sino{fill:#4493f8}.again{fill:#26517f}.other{fill:#656c76}.floor{fill:#d29922}.phase{fill:#ab7df8}}";

/// A line of a block.
struct Row {
    name: String,
    class: &'static str,
    /// Where the bar begins; only a timeline's does not begin at 0.
    from: f64,
    spread: Spread,
    /// Of a timeline: where each part ends, and its class.
    parts: Vec<(f64, &'static str)>,
    value: String,
}

/// Bars with a common scale.
struct Block {
    heading: String,
    figure: String,
    rows: Vec<Row>,
    /// Classes and names of a timeline's parts.
    legend: Vec<(&'static str, &'static str)>,
}

impl Block {
    fn most(&self) -> f64 {
        self.rows.iter().map(|row| row.from + row.spread.most).fold(0.0, f64::max)
    }
}

/// Draws a measure's samples.
#[must_use]
pub fn draw(title: &str, samples: &[Sample]) -> String {
    let blocks = blocks(samples);
    let rows: usize = blocks.iter().map(|block| block.rows.len()).sum();
    let height = TOP + blocks.len() as f64 * HEADING + rows as f64 * ROW + BOTTOM;
    // Writing to a String cannot fail.
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"36\">{0}</text>\n",
        escaped(title)
    );
    let mut y = TOP;
    for (index, block) in blocks.iter().enumerate() {
        let tall = HEADING + block.rows.len() as f64 * ROW;
        if index % 2 == 0 {
            let _ = writeln!(svg, "<rect class=\"band\" y=\"{y}\" width=\"{WIDTH}\" height=\"{tall}\"/>");
        }
        let heading = escaped(&block.heading);
        let _ = writeln!(svg, "<text class=\"block\" x=\"{MARGIN}\" y=\"{}\">{heading}</text>", y + 21.0);
        legend(&mut svg, block, y);
        let scale = scale(&blocks, block);
        for (row, at) in block.rows.iter().zip(0..) {
            bar(&mut svg, row, scale, y + HEADING + f64::from(at) * ROW);
        }
        y += tall;
    }
    let note = if blocks.is_empty() {
        "nothing was measured"
    } else {
        "bars: medians; lines: least and most; in brackets: beside SINO in the same rounds"
    };
    let _ = writeln!(svg, "<text class=\"dim\" x=\"{MARGIN}\" y=\"{}\">{note}</text>\n</svg>", y + 24.0);
    svg
}

/// Units of the picture for 1 of a value.
fn scale(blocks: &[Block], of: &Block) -> f64 {
    let same: Vec<f64> = blocks.iter().filter(|block| block.figure == of.figure).map(Block::most).collect();
    let (least, most) = same.iter().fold((f64::MAX, 0.0_f64), |(least, most), own| (least.min(*own), most.max(*own)));
    let most = if most > least * SAME_SCALE { of.most() } else { most };
    if most > 0.0 { (PLOT_END - PLOT) / most } else { 0.0 }
}

fn blocks(samples: &[Sample]) -> Vec<Block> {
    let all = series(samples);
    let mut blocks: Vec<Block> = Vec::new();
    let mut before = ("", "", "");
    for one in &all {
        let Some(spread) = one.spread() else { continue };
        if one.case != before.0 {
            blocks.extend(timelines(&all, one.case));
        }
        let phase = one.figure.strip_prefix(PHASE);
        // A timeline is of one contender; bars are of one figure.
        let key = if phase.is_some() { (one.case, "", one.contender) } else { (one.case, one.figure, "") };
        if key != before || blocks.is_empty() {
            let (heading, figure) = match phase {
                Some(_) => (format!("{}: the phases of {}", one.case, one.contender), PHASE.to_owned()),
                None if one.unit.more_is_better() => {
                    (format!("{}: {} (more is better)", one.case, one.figure), one.figure.to_owned())
                }
                None => (format!("{}: {}", one.case, one.figure), one.figure.to_owned()),
            };
            blocks.push(Block { heading, figure, rows: Vec::new(), legend: Vec::new() });
        }
        before = key;
        let Some(block) = blocks.last_mut() else { continue };
        let from = block.rows.last().filter(|_| phase.is_some()).map_or(0.0, |row| row.from + row.spread.median);
        block.rows.push(Row {
            name: phase.unwrap_or(one.contender).to_owned(),
            class: if phase.is_some() { "phase" } else { class(one.contender) },
            from,
            spread,
            parts: Vec::new(),
            value: value(&all, one, spread),
        });
    }
    blocks
}

/// The contenders of a case from the kernel's start, one over the other; `None` if the case has no such figures.
fn timelines(all: &[Series<'_>], case: &str) -> Option<Block> {
    let of = |figure: &str, contender: &str| {
        all.iter().find(|one| (one.case, one.figure, one.contender) == (case, figure, contender))
    };
    let mut legend = vec![(PARTS[0], FIRST.1)];
    let mut rows = Vec::new();
    for first in all.iter().filter(|one| (one.case, one.figure) == (case, FIRST.0)) {
        let Some(init) = first.spread() else { continue };
        let mut ends = vec![(init, PARTS[0])];
        for ((figure, name), class) in FROM_INIT.into_iter().zip(PARTS.into_iter().skip(1)) {
            let Some(later) = of(figure, first.contender) else { continue };
            let at = |round: u32| first.values.iter().find(|(other, _)| *other == round).map(|(_, at)| *at);
            let sums: Vec<f64> = later.values.iter().filter_map(|(round, value)| Some(at(*round)? + value)).collect();
            ends.extend(Spread::of(&sums).map(|spread| (spread, class)));
            if !legend.contains(&(class, name)) {
                legend.push((class, name));
            }
        }
        // What is reached first is drawn first.
        ends.sort_by(|(one, _), (other, _)| one.median.total_cmp(&other.median));
        let Some((spread, _)) = ends.last().copied().filter(|_| ends.len() > 1) else { continue };
        rows.push(Row {
            name: first.contender.to_owned(),
            class: "",
            from: 0.0,
            spread,
            parts: ends.iter().map(|(end, class)| (end.median, *class)).collect(),
            value: ends.iter().map(|(end, _)| first.unit.show(end.median)).collect::<Vec<_>>().join(", "),
        });
    }
    let heading = format!("{case}: from the kernel's start");
    (!rows.is_empty()).then(|| Block { heading, figure: "timeline".to_owned(), rows, legend })
}

/// The names of a timeline's parts, right of its heading.
fn legend(svg: &mut String, block: &Block, y: f64) {
    let mut x = PLOT_END - 250.0;
    for (class, name) in &block.legend {
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.0}\" y=\"{}\" width=\"10\" height=\"10\"/><text class=\"dim\" x=\"{:.0}\" y=\"{}\">{}</text>",
            y + 12.0,
            x + 14.0,
            y + 21.0,
            escaped(name)
        );
        x += 30.0 + name.chars().count() as f64 * 6.5;
    }
}

fn value(all: &[Series<'_>], one: &Series<'_>, spread: Spread) -> String {
    let base = base(all, one).filter(|base| base.contender != one.contender);
    let shown = one.unit.show(spread.median);
    match base.and_then(|base| one.over(base)) {
        Some(ratio) => format!("{shown}  ({:.2} x)", ratio.median),
        None => shown,
    }
}

fn class(contender: &str) -> &'static str {
    match contender {
        SINO => "sino",
        SINO_AGAIN => "again",
        "floor" => "floor",
        name if name.starts_with(SINO) || name.ends_with(super::table::DEFAULT) => "sino",
        _ => "other",
    }
}

fn bar(svg: &mut String, row: &Row, scale: f64, y: f64) {
    let Row { name, class, from, spread, parts, value } = row;
    let x = PLOT + from * scale;
    let wide = (spread.median * scale).max(1.5);
    // What is less than nothing has no bar.
    let at = |value: f64| (PLOT + (from + value) * scale).max(PLOT);
    let (least, most) = (at(spread.least), at(spread.most));
    let (middle, base) = (y + ROW / 2.0, y + ROW - 6.0);
    let _ = writeln!(
        svg,
        "<g><title>{0}: {1}</title><text class=\"end\" x=\"{2}\" y=\"{base}\">{0}</text>",
        escaped(name),
        escaped(value),
        PLOT - 10.0
    );
    let mut rect = |class: &str, x: f64, wide: f64| {
        let (y, high) = (y + 3.0, ROW - 6.0);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{wide:.1}\" height=\"{high}\" rx=\"2\"/>"
        );
    };
    let mut begin = 0.0;
    for (end, class) in parts {
        rect(class, PLOT + begin * scale, ((end - begin) * scale).max(1.0));
        begin = *end;
    }
    if parts.is_empty() {
        rect(class, x, wide);
    }
    if most - least >= 1.0 {
        let (top, bottom) = (middle - 4.0, middle + 4.0);
        let _ = writeln!(
            svg,
            "<path class=\"range\" d=\"M{least:.1} {top}V{bottom}M{least:.1} {middle}H{most:.1}M{most:.1} {top}V{bottom}\"/>"
        );
    }
    let behind = most.max(x + wide) + 8.0;
    let _ = writeln!(svg, "<text x=\"{behind:.1}\" y=\"{base}\">{}</text></g>", escaped(value));
}

/// A text for XML 1.0, which takes no control characters even when they are escaped.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            control if control.is_control() => escaped.push('?'),
            other => escaped.push(other),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::super::statistics::tests::sample;
    use super::*;

    #[test]
    fn each_contender_has_a_bar_and_phases_follow_each_other() {
        let mut samples = Vec::new();
        for (round, slow) in [(1, 1.0), (2, 1.2)] {
            for (contender, value) in [("SINO", 3.0), ("SINO again", 3.1), ("a<b", 30.0)] {
                samples.push(sample("usb normal", contender, "init-to-root", round, value * slow));
            }
            samples.push(sample("usb normal", "SINO", "phase find-medium", round, 1.0));
            samples.push(sample("usb normal", "SINO", "phase mount-image", round, 2.0));
        }
        let svg = draw("Stage one", &samples);
        if let Ok(path) = std::env::var("SINO_TEST_SVG") {
            std::fs::write(path, &svg).unwrap();
        }
        assert_eq!((svg.matches("<g>").count(), svg.matches("</g>").count()), (5, 5));
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert!(svg.contains("(10.00 x)") && svg.contains("prefers-color-scheme:dark"), "{svg}");
        let blocks = blocks(&samples);
        assert_eq!(blocks.iter().map(|block| block.rows.len()).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(blocks[1].rows.iter().map(|row| row.from).collect::<Vec<_>>(), [0.0, 1.0]);
    }

    #[test]
    fn timelines_stand_over_each_other_and_nothing_is_left_of_the_plot() {
        let mut samples = Vec::new();
        for (round, slow) in [(1, 1.0), (2, 1.2)] {
            for (contender, init, created, ready) in [("SINO", 4.0, 20.0, 90.0), ("live-boot", 6.0, 150.0, 170.0)] {
                let figures =
                    [("kernel-to-init", init), ("init-to-first-created", created), ("init-to-all-ready", ready)];
                for (figure, value) in figures {
                    samples.push(sample("1 guest", contender, figure, round, value * slow));
                }
            }
        }
        let all = blocks(&samples);
        let (timeline, parts) = (&all[0], |row: usize| -> Vec<f64> {
            all[0].rows[row].parts.iter().map(|(end, _)| (end * 10.0).round() / 10.0).collect()
        });
        assert_eq!(timeline.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["SINO", "live-boot"]);
        assert_eq!((parts(0), parts(1)), (vec![4.4, 26.4, 103.4], vec![6.6, 171.6, 193.6]));
        assert_eq!(timeline.legend.len(), 3);
        samples.push(sample("1 guest", "SINO", "memory", 1, -500.0));
        let svg = draw("Guests", &samples);
        if let Ok(path) = std::env::var("SINO_TEST_SVG") {
            std::fs::write(path, &svg).unwrap();
        }
        let begins = svg.match_indices("d=\"M").map(|(at, found)| &svg[at + found.len()..]);
        let begins: Vec<f64> = begins.map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(!begins.is_empty() && begins.iter().all(|x| *x >= PLOT), "{begins:?}");
    }

    #[test]
    fn cases_have_one_scale_unless_they_are_far_apart() {
        let samples = [("usb", 1.0), ("cd", 4.0)].map(|(case, value)| sample(case, "SINO", "t", 1, value));
        let near = blocks(&samples);
        assert!((scale(&near, &near[0]) - scale(&near, &near[1])).abs() < 1e-9);
        let samples = [("usb", 1.0), ("cd", 40.0)].map(|(case, value)| sample(case, "SINO", "t", 1, value));
        let far = blocks(&samples);
        assert!(scale(&far, &far[0]) > scale(&far, &far[1]));
    }

    #[test]
    fn nothing_is_a_picture_that_says_so() {
        assert!(draw("Image", &[]).contains("nothing was measured"));
    }
}
