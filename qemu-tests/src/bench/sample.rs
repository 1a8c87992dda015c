//! Single values, and the file that keeps them: `target/bench/MEASURE.json`.

use super::machine::Machine;
use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Seconds; less is better.
    Seconds,
    /// Bytes; less is better.
    Bytes,
    /// A ratio without a unit; less is better.
    Ratio,
    /// 10^6 bytes a second; more is better.
    MegabytesPerSecond,
    /// 1024 bytes, of memory; less is better.
    Kibibytes,
}

/// One value of one contender in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The measure: `stage-one`.
    pub measure: String,
    /// What is the same for all contenders: `usb normal`.
    pub case: String,
    /// Who: `SINO`.
    pub contender: String,
    /// What was measured: `init-to-root`. Figures that begin with `phase ` follow each other in time; a picture stacks them
    /// in the order in which they were recorded.
    pub figure: String,
    /// What the value counts.
    pub unit: Unit,
    /// The round, from 1.
    pub round: u32,
    /// The value.
    pub value: f64,
}

/// When a case was measured, and of what.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Run {
    /// As [`Machine::date`].
    pub date: String,
    /// As [`Machine::revision`].
    pub revision: String,
    /// What was measured, by which edition of the bench, on what, in which form ([`Recorder::begin`]): only rounds of the same
    /// stand beside each other.
    #[serde(default)]
    pub of: String,
    /// When it was last gone on with, if it was ended in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continued: Option<String>,
    /// The rounds that are there in whole, each with its contenders.
    #[serde(default)]
    pub rounds: BTreeMap<u32, Vec<String>>,
}

/// A run of a contender that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// As [`Sample::case`].
    pub case: String,
    /// As [`Sample::contender`].
    pub contender: String,
    /// As [`Sample::round`].
    pub round: u32,
    /// Why, in its own words.
    pub why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, round {}: {}", self.case, self.contender, self.round, self.why)
    }
}

/// A row of the page's table whose values were not kept: how it was printed, until its case is measured again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printed {
    /// As [`Sample::case`].
    pub case: String,
    /// As [`Sample::figure`].
    pub figure: String,
    /// As [`Sample::contender`].
    pub contender: String,
    /// Median, range, rounds, and how many times SINO's.
    pub cells: [String; 4],
    /// When the case was measured, as on the page: date, revision and build.
    pub run: [String; 3],
}

/// How a measure begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begin<'a> {
    /// Whether this is the short form.
    pub short: bool,
    /// Only some cases; the values of the others stay, whatever they are of.
    pub only: Option<&'a str>,
    /// Whether the cases begin anew; otherwise complete rounds of the same stay.
    pub fresh: bool,
    /// What is measured: the image's build.
    pub what: &'a str,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The measure.
    pub measure: String,
    /// Where and of what; the last run, when cases were measured one by one.
    pub machine: Machine,
    /// The run of each case.
    #[serde(default)]
    pub runs: BTreeMap<String, Run>,
    /// Whether this was the short form.
    pub short: bool,
    /// Whether it came to its end.
    pub complete: bool,
    /// Runs that failed. Nothing of such a run is among the values.
    #[serde(default)]
    pub failed: Vec<Failure>,
    /// What else a reader must know.
    pub notes: Vec<String>,
    /// Rows of cases without values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub printed: Vec<Printed>,
    /// The values, in the order in which they were measured.
    pub samples: Vec<Sample>,
}

impl Results {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is not such a file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no results of the bench", file.display()))
    }

    /// Writes the file, whole or not at all: one value a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        const NONE: &str = "\"samples\": []";
        let values: Vec<String> = self.samples.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let mut text = serde_json::to_string_pretty(&Self { samples: Vec::new(), ..self.clone() })? + "\n";
        // The samples are the last that is written.
        if let (Some(at), false) = (text.rfind(NONE), values.is_empty()) {
            let lines = format!("\"samples\": [\n    {}\n  ]", values.join(",\n    "));
            text.replace_range(at..at + NONE.len(), &lines);
        }
        let next = file.with_extension("json.new");
        fs::write(&next, text).with_context(|| format!("writing {}", next.display()))?;
        fs::rename(&next, file).with_context(|| format!("writing {}", file.display()))
    }

    /// With the cases of an earlier file that are not in this one, or there with more whole rounds, if that was measured in the
    /// same form on the same machine.
    #[must_use]
    pub fn or_before(mut self, before: Self) -> Self {
        if (self.short, self.machine.place()) != (before.short, before.machine.place()) {
            return self;
        }
        let rounds = |of: &Self, case: &str| of.runs.get(case).map_or(0, |run| run.rounds.len());
        // A round that was cut takes no row's place.
        let printed = |case: &str| before.printed.iter().any(|row| row.case == case);
        let cut = |sample: &Sample| rounds(&self, &sample.case) == 0 && printed(&sample.case);
        let samples: Vec<Sample> = self.samples.iter().filter(|sample| !cut(sample)).cloned().collect();
        self.samples = samples;
        let own: BTreeSet<String> = self.samples.iter().map(|sample| sample.case.clone()).collect();
        let has = |case: &str| own.contains(case);
        let taken: BTreeSet<String> = before
            .samples
            .iter()
            .map(|sample| &sample.case)
            .filter(|case| !has(case) || rounds(&self, case) < rounds(&before, case))
            .cloned()
            .collect();
        self.printed = before.printed;
        self.printed.retain(|row| !has(&row.case) && !taken.contains(&row.case));
        if taken.is_empty() {
            return self;
        }
        self.samples.retain(|sample| !taken.contains(&sample.case));
        self.failed.retain(|failure| !taken.contains(&failure.case));
        self.samples.extend(before.samples.into_iter().filter(|sample| taken.contains(&sample.case)));
        self.failed.extend(before.failed.into_iter().filter(|failure| taken.contains(&failure.case)));
        self.runs.extend(before.runs.into_iter().filter(|(case, _)| taken.contains(case)));
        self.machine.versions.extend(before.machine.versions);
        self.machine.versions.sort();
        self.machine.versions.dedup();
        self.complete |= before.complete;
        self
    }
}

/// To be raised when what a measure does has changed, so that older values do not belong beside newer ones.
const EDITION: u32 = 2;

/// Collects the samples of a measure, tells each of them, and saves them at once: a bench takes hours, and may be ended.
#[derive(Debug)]
pub struct Recorder {
    file: PathBuf,
    results: Results,
    /// As [`Run::of`].
    of: String,
    /// Whether the measure will be complete when it comes to its end: with all cases, or with some of a file that was.
    whole: bool,
    /// Whether there was a case to measure.
    met: bool,
    /// Held for as long as this measures: a second bench would overwrite the file.
    _lock: Lock,
}

/// Whether a case is meant by what was given as `--only`: a part of its name, or the whole of it behind `=`.
pub(super) fn is_meant(only: &str, case: &str) -> bool {
    only.strip_prefix('=').map_or_else(|| case.contains(only), |name| case == name)
}

/// A locked file.
#[derive(Debug)]
struct Lock(fs::File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it is not enough: a child that another thread has just forked has the file, too, until it executes something,
        // and with it the lock. Source: flock(2).
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Locks a file; `None` if somebody else has locked it.
fn lock(path: &Path) -> Result<Option<Lock>> {
    let file = fs::File::create(path).with_context(|| format!("making {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock(file))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

impl Recorder {
    /// Begins `folder/MEASURE.json`, or goes on with it: what an earlier run recorded of the same build, with the same edition of
    /// the bench, in the same form on the same machine, stays. Which rounds are then still to be made, [`Recorder::in_turns`] sees.
    ///
    /// # Errors
    /// The folder cannot be made, or an earlier file cannot be read.
    pub fn begin(folder: &Path, measure: &str, machine: Machine, begin: Begin<'_>) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let file = folder.join(format!("{measure}.json"));
        let lock = lock(&file.with_extension("lock"))?
            .with_context(|| format!("{measure} is being measured by another bench; wait for its end, or end it"))?;
        let form = if begin.short { "short form" } else { "full form" };
        let of = format!("build {}, edition {EDITION} of the bench, {form}, {}", begin.what, machine.place());
        let mut results = Results {
            measure: measure.to_owned(),
            machine,
            runs: BTreeMap::new(),
            short: begin.short,
            complete: false,
            failed: Vec::new(),
            notes: Vec::new(),
            printed: Vec::new(),
            samples: Vec::new(),
        };
        let mut whole = begin.only.is_none();
        if file.exists() && (begin.only.is_some() || !begin.fresh) {
            let former = Results::read(&file)
                .with_context(|| format!("to measure without what was measured before, remove {}", file.display()))?;
            whole |= former.complete;
            let same = |case: &str| former.runs.get(case).is_some_and(|run| run.of == of);
            let stays = |case: &str| match begin.only {
                Some(only) if !is_meant(only, case) => true,
                _ => !begin.fresh && same(case),
            };
            results.samples = former.samples.iter().filter(|sample| stays(&sample.case)).cloned().collect();
            results.failed = former.failed.iter().filter(|failure| stays(&failure.case)).cloned().collect();
            results.runs =
                former.runs.iter().filter(|(case, _)| stays(case)).map(|(c, r)| (c.clone(), r.clone())).collect();
            // A remark is on the whole measure.
            results.notes = former.notes.iter().filter(|_| begin.only.is_some()).cloned().collect();
        }
        Ok(Self { file, results, of, whole, met: false, _lock: lock })
    }

    /// Calls `run` with each contender and the round's number from 1, all contenders in each round: A B C A B C, so that whatever
    /// the machine does meanwhile meets all of them. A round that is there in whole is not made again; of one that is not, nothing
    /// stays, because contenders are compared within a round.
    ///
    /// # Errors
    /// The first one of `run`, with contender and round.
    pub fn in_turns<C: fmt::Display>(
        &mut self,
        case: &str,
        rounds: u32,
        contenders: &[C],
        mut run: impl FnMut(&mut Self, &C, u32) -> Result<()>,
    ) -> Result<()> {
        let names: Vec<String> = contenders.iter().map(ToString::to_string).collect();
        ensure!(!names.is_empty(), "none of the contenders of {case} is meant");
        self.met = true;
        let made = self.results.runs.get(case).map(|run| run.rounds.clone()).unwrap_or_default();
        let whole = |round: u32| made.get(&round).is_some_and(|made| names.iter().all(|name| made.contains(name)));
        // An earlier run may have been told to make more of them, with more contenders: what is whole stays.
        self.forget(case, |round| round > rounds && !whole(round))?;
        for round in 1..=rounds {
            if whole(round) {
                println!("  {} / {case}, round {round}: was measured before", self.results.measure);
                continue;
            }
            self.forget(case, |other| other == round)?;
            for contender in contenders {
                run(self, contender, round).with_context(|| format!("{contender}, round {round}"))?;
            }
            let failed = |failure: &Failure| failure.case == case && failure.round == round;
            if !self.results.failed.iter().any(failed)
                && let Some(run) = self.results.runs.get_mut(case)
            {
                run.rounds.insert(round, names.clone());
                self.save()?;
            }
        }
        Ok(())
    }

    /// Forgets rounds of a case.
    fn forget(&mut self, case: &str, meant: impl Fn(u32) -> bool) -> Result<()> {
        self.results.samples.retain(|sample| sample.case != case || !meant(sample.round));
        self.results.failed.retain(|failure| failure.case != case || !meant(failure.round));
        if let Some(run) = self.results.runs.get_mut(case) {
            run.rounds.retain(|round, _| !meant(*round));
        }
        if !self.results.samples.iter().any(|sample| sample.case == case) {
            self.results.runs.remove(case);
        }
        self.save()
    }

    /// Takes a value.
    ///
    /// # Errors
    /// It cannot be saved.
    pub fn record(
        &mut self,
        case: &str,
        contender: &str,
        figure: &str,
        round: u32,
        unit: Unit,
        value: f64,
    ) -> Result<()> {
        let measure = self.results.measure.clone();
        println!("  {measure} / {case} / {contender}, round {round}: {figure} {}", unit.show(value));
        let Machine { date, revision, .. } = self.results.machine.clone();
        let new = Run { date: date.clone(), revision, of: self.of.clone(), ..Run::default() };
        let run = self.results.runs.entry(case.to_owned()).or_insert(new);
        if run.date != date {
            run.continued = Some(date);
        }
        self.results.samples.push(Sample {
            measure,
            case: case.to_owned(),
            contender: contender.to_owned(),
            figure: figure.to_owned(),
            unit,
            round,
            value,
        });
        self.save()
    }

    /// Takes the failure of a run, of which nothing must be recorded.
    ///
    /// # Errors
    /// It cannot be saved.
    pub fn failed(&mut self, case: &str, contender: &str, round: u32, error: &anyhow::Error) -> Result<()> {
        let (case, contender, why) = (case.to_owned(), contender.to_owned(), format!("{error:#}"));
        let failure = Failure { case, contender, round, why };
        println!("  {} FAILED: {failure}", self.results.measure);
        self.results.failed.push(failure);
        self.save()
    }

    /// Takes a remark for the report's reader.
    ///
    /// # Errors
    /// It cannot be saved.
    pub fn note(&mut self, text: &str) -> Result<()> {
        println!("  {}: {text}", self.results.measure);
        self.results.notes.push(text.to_owned());
        self.save()
    }

    /// Takes the version of something that this measure used beside the build machine's tools: `live-boot`, `1:20250225`.
    ///
    /// # Errors
    /// It cannot be saved.
    pub fn version(&mut self, name: &str, version: &str) -> Result<()> {
        let versions = &mut self.results.machine.versions;
        versions.retain(|(other, _)| other != name);
        versions.push((name.to_owned(), version.to_owned()));
        self.save()
    }

    /// Whether there was a case to measure, now or before.
    #[must_use]
    pub fn met(&self) -> bool {
        self.met
    }

    /// What was recorded so far.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.results.samples
    }

    /// The measure came to its end: it is complete, unless only some cases were meant and the others are not there.
    ///
    /// # Errors
    /// That cannot be saved.
    pub fn finish(mut self) -> Result<Results> {
        self.results.complete = self.whole;
        self.save()?;
        Ok(self.results)
    }

    /// A bench that is ended here leaves the samples before.
    fn save(&self) -> Result<()> {
        self.results.write(&self.file)
    }
}

impl Unit {
    /// A value with its unit, for people.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value.abs() < 0.1 => format!("{:.1} ms", value * 1e3),
            Self::Seconds if value.abs() < 100.0 => format!("{value:.2} s"),
            Self::Seconds => format!("{value:.0} s"),
            Self::Bytes if value.abs() < 1e5 => format!("{:.1} kB", value / 1e3),
            Self::Bytes => format!("{:.2} MB", value / 1e6),
            Self::Ratio => format!("{value:.3}"),
            Self::MegabytesPerSecond => format!("{value:.0} MB/s"),
            Self::Kibibytes => format!("{:.1} MiB", value / 1024.0),
        }
    }

    /// Whether a larger value is the better one.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        self == Self::MegabytesPerSecond
    }
}

#[cfg(test)]
mod tests;
