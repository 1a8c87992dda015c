//! `docs/BENCHMARKS.md` and its pictures, made in whole from the results.
//!
//! What stands on the page is kept beside it, in `docs/benchmarks/*.json`: anyone can look at each value, and make the page again.
//! `target/bench/*.json`, this machine's own results, take the place of what is kept, case by case.

use super::machine::Machine;
use super::measures::{MEASURES, Measure};
use super::sample::{Results, Run};
use super::statistics::{Series, Spread, series};
use super::{SINO, SINO_AGAIN, Unit, chart, goals, table};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const HEAD: &str = "\
# Benchmarks

<!-- Made by `make bench-report` from the results of `make bench`; do not edit. -->

SINO beside other live systems: within a case on the same machine, with the same kernel and the same files, in the same run. Contenders take
turns (A B C A B C ...). A figure is the median of its rounds, with the range beside it; a ratio is made within each round, and
the median of these ratios is shown with its range. \"SINO again\" is SINO once more as if it were somebody else: how far it is
from SINO is the noise of the machine.

";

const REPEAT: &str = "\
## How to repeat it

```
make bench                  # everything; takes hours under emulation. If it is ended, the next one goes on with it
make bench BENCH=--fresh    # everything anew
make bench WHAT=stage-one   # one measure: stage-one, loader, to-ram, guests, scale, shutdown, image, trust
make bench WHAT=scale BENCH=--short   # fewer cases and two rounds; --rounds N, --only TEXT (cases with that text)
make bench-report           # this page and its pictures
make bench-check            # two rounds of stage one on USB; fails if SINO is too far from the floor (qemu-tests/bench-bounds.toml)
```

Every single value of this page is in `docs/benchmarks/MEASURE.json`. A bench under way keeps each in `target/bench/MEASURE.json`, from where
`make bench-report` takes them over, case by case; what it does not find there stays. `make bench` goes on with rounds that are there if they are
of the same build of SINO, on the same machine; a round that was cut is made again as a whole. Root is needed; what else is needed is installed by `make tools bench-tools`,
which these commands call.

";

const LIMITS: &str = "\
## What it does not show

- Unless the machine above says kvm, virtual machines are emulated by software (TCG): a processor is 10 to 50 times slower than
  a real one, while disks are as fast as the host's. What a processor does weighs too much, what a stick does too little. Ratios of the
  same run mean something; seconds do not.
- The loader's stick: QEMU lets a tenth of a second's bytes through before it holds to a limit, and each is charged 0.1 s for them.
- Firmware is QEMU's. A real one may take longer than all the rest, and a real stick takes time to answer.
- One virtual processor: what would run beside each other on real hardware runs one after the other.
- With a fake `xl` no domain is built: it shows what starting many guests costs beside the building, not how long that takes.
- Copies that are made natively read from this machine's disk, which is much faster than a stick; there a stick would be the limit for
  all of them.
- SINO copies and hashes beside each other, on two processors. Where another program kept the other one busy, plain `cp` was seen to be sooner.
  All copy into a tmpfs with huge pages, as stage one's own is. Where there are none, as in a PV dom0 of Xen, the copy costs
  a processor almost twice as much; into small pages SINO was seen to take from 0.84 to 1.27 times as long as `cp` (decision 0028).
  Machines differ, too: on another one of this kind, five rounds of the copy, still in pieces of 1 MiB, gave 0.87 (0.84 .. 0.90) times `cp`'s time.
- A copy that uses memory for the first time in a while takes up to four times as long here, so each uses its memory once before it is
  timed; still `cp`'s own times were seen to spread by a factor of
  four. The disk of such a machine is also held back once so much was read from it, whoever reads (decision 0028).

";

/// Writes the page and its pictures into `docs`.
///
/// # Errors
/// There are no results, one of them cannot be read, or the page cannot be written.
pub fn write(results: &Path, docs: &Path) -> Result<()> {
    let kept = docs.join("benchmarks");
    let read = |measure: &Measure| -> Result<Option<Results>> {
        let read = |folder: &Path| {
            let file = folder.join(format!("{}.json", measure.name));
            file.exists().then(|| Results::read(&file)).transpose()
        };
        let (new, before) = (read(results)?.filter(|new| !new.samples.is_empty()), read(&kept)?);
        Ok(match (new, before) {
            (Some(new), Some(before)) => Some(new.or_before(before)),
            (new, before) => new.or(before),
        })
    };
    let all: Vec<Option<Results>> = MEASURES.iter().map(read).collect::<Result<_>>()?;
    let all: Vec<Results> = all.into_iter().flatten().collect();
    ensure!(
        !all.is_empty(),
        "there are no results in {} and none in {}; run: make bench",
        results.display(),
        kept.display()
    );
    fs::create_dir_all(&kept).with_context(|| format!("making {}", kept.display()))?;
    for results in &all {
        results.write(&kept.join(format!("{}.json", results.measure)))?;
    }
    let images = docs.join("images");
    fs::create_dir_all(&images).with_context(|| format!("making {}", images.display()))?;
    for results in all.iter().filter(|results| !results.samples.is_empty()) {
        let picture = images.join(format!("bench-{}.svg", results.measure));
        fs::write(&picture, chart::draw(title(results), &results.samples))
            .with_context(|| format!("writing {}", picture.display()))?;
    }
    let page = docs.join("BENCHMARKS.md");
    fs::write(&page, markdown(&all)).with_context(|| format!("writing {}", page.display()))
}

fn title(results: &Results) -> &str {
    super::measures::find(&results.measure).map_or(results.measure.as_str(), |measure| measure.title)
}

/// The page.
#[must_use]
pub fn markdown(all: &[Results]) -> String {
    let mut page = HEAD.to_owned();
    let _ = writeln!(page, "## Goals\n\n{}", goals::markdown(all));
    for results in all {
        measure(&mut page, results);
    }
    page.push_str(REPEAT);
    machines(&mut page, all);
    page.push_str(LIMITS);
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn measure(page: &mut String, results: &Results) {
    let Some(measure) = super::measures::find(&results.measure) else { return };
    let _ = writeln!(page, "## {}\n\n{}\n", measure.title, measure.about);
    let _ = writeln!(page, "![{}](images/bench-{}.svg)\n", measure.title, measure.name);
    page.push_str(&table::markdown(&results.samples, &results.printed));
    page.push('\n');
    if !results.printed.is_empty() {
        let mut cases: Vec<&str> = results.printed.iter().map(|row| row.case.as_str()).collect();
        cases.dedup();
        let _ = writeln!(
            page,
            "The values of {} were not kept and are not in the picture: these rows stand as an earlier page had them.\n",
            cases.join("; ")
        );
    }
    if let Some(noise) = noise(results) {
        let _ = writeln!(
            page,
            "Noise: SINO again took {} times SINO's, at most {:.1} % off in {} pairs.\n",
            format_args!("{:.3} to {:.3}", noise.least, noise.most),
            (noise.most - 1.0).abs().max((noise.least - 1.0).abs()) * 100.0,
            noise.count
        );
    }
    if results.short {
        page.push_str("This was the short form.\n\n");
    }
    if !results.complete {
        page.push_str("**This run did not come to its end.**\n\n");
    }
    list(page, "", &results.notes);
    let failed: Vec<String> = results.failed.iter().map(ToString::to_string).collect();
    list(page, "Runs that failed; nothing of them is in the figures:\n\n", &failed);
}

fn list(page: &mut String, heading: &str, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    page.push_str(heading);
    for text in texts {
        // A contender's last words may be many lines.
        let _ = writeln!(page, "- {}", text.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    }
    page.push('\n');
}

/// How far "SINO again" is from SINO, over all cases and all figures that are times, except phases.
#[must_use]
pub fn noise(results: &Results) -> Option<Spread> {
    let all = series(&results.samples);
    let timed = |one: &Series<'_>| one.unit == Unit::Seconds;
    let again = all.iter().filter(|one| one.contender == SINO_AGAIN && timed(one));
    let again = again.filter(|one| !one.figure.starts_with(table::PHASE));
    let mut ratios = Vec::new();
    for one in again {
        let own = all.iter().find(|own| (own.contender, own.case, own.figure) == (SINO, one.case, one.figure));
        for (round, value) in &one.values {
            let own = own.and_then(|own| own.values.iter().find(|(other, _)| other == round));
            ratios.extend(own.filter(|(_, own)| *own != 0.0).map(|(_, own)| value / own));
        }
    }
    Spread::of(&ratios)
}

/// Machines and versions; measures that ran on the same are named together.
fn machines(page: &mut String, all: &[Results]) {
    page.push_str("## Machine and versions\n\n");
    // Dates and what one measure alone used make no other machine.
    let mut places: Vec<(String, Vec<&str>)> = Vec::new();
    for results in all {
        let Machine { cpu, cores, memory_mib, kernel, accelerator, .. } = &results.machine;
        let place = format!(
            "{cpu}, {cores} processors, {memory_mib} MiB of memory, Linux {kernel}; virtual machines by {accelerator}."
        );
        match places.iter_mut().find(|(other, _)| *other == place) {
            Some((_, measures)) => measures.push(&results.measure),
            None => places.push((place, vec![&results.measure])),
        }
    }
    let one = places.len() == 1;
    for (place, measures) in &places {
        let of = if one { String::new() } else { format!("{}: ", measures.join(", ")) };
        let _ = writeln!(page, "{of}{place}\n");
    }
    page.push_str("| measure | cases | when | SINO's revision | build |\n|---|---|---|---|---|\n");
    for results in all {
        for (run, cases) in runs(results) {
            let date =
                run.continued.map_or(run.date.clone(), |later| format!("{}, gone on with until {later}", run.date));
            let build = run.of.strip_prefix("build ").and_then(|of| of.split(',').next()).unwrap_or("not recorded");
            let cases = cases.join(", ");
            let _ = writeln!(page, "| {} | {cases} | {date} | {} | {build} |", results.measure, run.revision);
        }
        let mut printed: Vec<(&[String; 3], Vec<&str>)> = Vec::new();
        for row in &results.printed {
            match printed.iter_mut().find(|(run, _)| **run == row.run) {
                Some((_, cases)) if cases.contains(&row.case.as_str()) => {}
                Some((_, cases)) => cases.push(&row.case),
                None => printed.push((&row.run, vec![&row.case])),
            }
        }
        for ([date, revision, build], cases) in printed {
            let _ = writeln!(page, "| {} | {} | {date} | {revision} | {build} |", results.measure, cases.join(", "));
        }
    }
    let mut versions: Vec<&(String, String)> = all.iter().flat_map(|results| &results.machine.versions).collect();
    versions.sort();
    versions.dedup();
    page.push_str("\n| used | version |\n|---|---|\n");
    for (name, version) in versions {
        let _ = writeln!(page, "| {name} | {version} |");
    }
    page.push('\n');
}

/// The runs of a measure, each with its cases in the order of the samples.
fn runs(results: &Results) -> BTreeMap<Run, Vec<&str>> {
    let mut runs: BTreeMap<Run, Vec<&str>> = BTreeMap::new();
    for sample in &results.samples {
        // Files from before each case had its run.
        let or_before = |text: &str| format!("{text} or before");
        let unknown = || Run {
            date: or_before(&results.machine.date),
            revision: or_before(&results.machine.revision),
            ..Run::default()
        };
        let run = results.runs.get(&sample.case).cloned().unwrap_or_else(unknown);
        // Which rounds a case has shows in its table.
        let cases = runs.entry(Run { rounds: BTreeMap::new(), ..run }).or_default();
        if !cases.contains(&sample.case.as_str()) {
            cases.push(&sample.case);
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::super::sample::Failure;
    use super::super::statistics::tests::sample;
    use super::*;

    fn results() -> Results {
        let mut samples = Vec::new();
        for round in 1..=3_u32 {
            for (contender, value) in [("SINO", 3.0), ("floor", 2.5), ("SINO again", 3.0 + f64::from(round) * 0.03)] {
                samples.push(sample("USB normal", contender, "init-to-root", round, value));
            }
        }
        let machine = Machine { cpu: "Model T".into(), cores: 2, ..Machine::default() };
        let (notes, failed) = (
            vec!["a remark".to_owned()],
            vec![Failure {
                case: "USB normal".into(),
                contender: "dracut".into(),
                round: 2,
                why: "no report:\n  did not boot".into(),
            }],
        );
        let runs = BTreeMap::from([(
            "USB normal".into(),
            Run { date: "today".into(), revision: "0123".into(), ..Run::default() },
        )]);
        let printed = Vec::new();
        Results {
            measure: "stage-one".into(),
            machine,
            runs,
            short: true,
            complete: false,
            failed,
            notes,
            printed,
            samples,
        }
    }

    #[test]
    fn the_page_says_what_a_reader_needs() {
        let page = markdown(&[results()]);
        for part in [
            "## Goals",
            "at most 1.3 times the floor | 1.20 (1.20 .. 1.20) times | met, by 3 rounds, in a run that did not come to its end |",
            "![Stage one](images/bench-stage-one.svg)",
            "Noise: SINO again took 1.010 to 1.030 times SINO's, at most 3.0 % off in 3 pairs.",
            "short form",
            "did not come to its end",
            "- a remark\n\nRuns that failed; nothing of them is in the figures:\n\n- USB normal, dracut, round 2: no report: did not boot\n",
            "Model T, 2 processors",
            "| stage-one | USB normal | today | 0123 | not recorded |",
            "make bench-check",
            "(TCG)",
        ] {
            assert!(page.contains(part), "{part} is not in:\n{page}");
        }
        assert!(page.ends_with('\n') && !page.ends_with("\n\n"));
        let other = Machine { cpu: "Model A".into(), ..Machine::default() };
        let page = markdown(&[results(), Results { measure: "scale".into(), machine: other, ..results() }]);
        assert!(page.contains("\nstage-one: Model T, 2 processors") && page.contains("\nscale: Model A, "), "{page}");
    }

    #[test]
    fn page_and_pictures_are_written_and_none_without_results() {
        let place = tempfile::tempdir().unwrap();
        let (from, docs) = (place.path().join("bench"), place.path().join("docs"));
        fs::create_dir_all(&from).unwrap();
        assert!(format!("{:#}", write(&from, &docs).unwrap_err()).contains("make bench"));
        fs::write(from.join("stage-one.json"), serde_json::to_string(&results()).unwrap()).unwrap();
        write(&from, &docs).unwrap();
        assert!(docs.join("BENCHMARKS.md").exists() && docs.join("images/bench-stage-one.svg").exists());
        // What is kept is enough.
        let page = fs::read_to_string(docs.join("BENCHMARKS.md")).unwrap();
        fs::remove_file(from.join("stage-one.json")).unwrap();
        write(&from, &docs).unwrap();
        assert_eq!(fs::read_to_string(docs.join("BENCHMARKS.md")).unwrap(), page);
        fs::write(from.join("scale.json"), "[]").unwrap();
        assert!(format!("{:#}", write(&from, &docs).unwrap_err()).contains("scale.json"));
    }
}
