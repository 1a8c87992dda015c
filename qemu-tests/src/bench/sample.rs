//! Single values, and the file that keeps them: `target/bench/MEASURE.json`.

use super::machine::Machine;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// Runs that failed, each with its words. Nothing of such a run is among the values.
    #[serde(default)]
    pub failed: Vec<String>,
    /// What else a reader must know.
    pub notes: Vec<String>,
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
}

/// Collects the samples of a measure, tells each of them, and saves them at once: a bench takes hours, and may be ended.
#[derive(Debug)]
pub struct Recorder {
    file: PathBuf,
    results: Results,
}

/// Whether a case is meant by what was given as `--only`: a part of its name, or the whole of it behind `=`.
pub(super) fn is_meant(only: &str, case: &str) -> bool {
    only.strip_prefix('=').map_or_else(|| case.contains(only), |name| case == name)
}

impl Recorder {
    /// Begins `folder/MEASURE.json`. With `only`, samples of an earlier run whose case it does not mean stay.
    ///
    /// # Errors
    /// The folder cannot be made, or an earlier file that should be kept cannot be read.
    pub fn begin(folder: &Path, measure: &str, machine: Machine, short: bool, only: Option<&str>) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let file = folder.join(format!("{measure}.json"));
        let mut results = Results {
            measure: measure.to_owned(),
            machine,
            runs: BTreeMap::new(),
            short,
            complete: false,
            failed: Vec::new(),
            notes: Vec::new(),
            samples: Vec::new(),
        };
        if let Some(only) = only.filter(|_| file.exists()) {
            let former = Results::read(&file)?;
            // What failed begins with its case.
            let whole = only.strip_prefix('=').map(|name| format!("{name}, "));
            let stays =
                |text: &String| !whole.as_ref().map_or_else(|| text.contains(only), |name| text.starts_with(name));
            results.runs = former.runs.into_iter().filter(|(case, _)| !is_meant(only, case)).collect();
            results.samples = former.samples.into_iter().filter(|sample| !is_meant(only, &sample.case)).collect();
            results.failed = former.failed.into_iter().filter(stays).collect();
            results.notes = former.notes.into_iter().filter(stays).collect();
        }
        Ok(Self { file, results })
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
        let Machine { date, revision, .. } = &self.results.machine;
        let run = Run { date: date.clone(), revision: revision.clone() };
        self.results.runs.entry(case.to_owned()).or_insert(run);
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
        let text = format!("{case}, {contender}, round {round}: {error:#}");
        println!("  {} FAILED: {text}", self.results.measure);
        self.results.failed.push(text);
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

    /// What was recorded so far.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.results.samples
    }

    /// The measure came to its end.
    ///
    /// # Errors
    /// That cannot be saved.
    pub fn finish(mut self) -> Result<Results> {
        self.results.complete = true;
        self.save()?;
        Ok(self.results)
    }

    /// Whole or not at all: a bench that is ended here leaves the samples before.
    fn save(&self) -> Result<()> {
        let next = self.file.with_extension("json.new");
        let text = serde_json::to_string_pretty(&self.results)? + "\n";
        fs::write(&next, text).with_context(|| format!("writing {}", next.display()))?;
        fs::rename(&next, &self.file).with_context(|| format!("writing {}", self.file.display()))
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
mod tests {
    use super::*;

    #[test]
    fn samples_are_on_disk_at_once_and_other_cases_stay() {
        let place = tempfile::tempdir().unwrap();
        let begin = |only| Recorder::begin(place.path(), "stage-one", Machine::default(), true, only).unwrap();
        let file = place.path().join("stage-one.json");
        let mut recorder = begin(None);
        recorder.record("usb normal", "SINO", "init-to-root", 1, Unit::Seconds, 3.25).unwrap();
        recorder.record("cd normal", "SINO", "init-to-root", 1, Unit::Seconds, 4.0).unwrap();
        let read = Results::read(&file).unwrap();
        assert!(!read.complete && read.samples.len() == 2);
        assert_eq!(recorder.finish().unwrap(), Results { complete: true, ..read });
        let later = Machine { revision: "later".into(), ..Machine::default() };
        let mut recorder = Recorder::begin(place.path(), "stage-one", later, true, Some("usb")).unwrap();
        recorder.record("usb normal", "SINO", "init-to-root", 1, Unit::Seconds, 3.25).unwrap();
        let runs = Results::read(&file).unwrap().runs;
        assert!(runs["usb normal"].revision == "later" && runs["cd normal"].revision.is_empty(), "{runs:?}");
        let mut recorder = begin(Some("usb"));
        assert_eq!(recorder.samples().len(), 1, "the CD's");
        recorder.note("no stick").unwrap();
        recorder.failed("cd normal", "SINO", 1, &anyhow::anyhow!("no disc")).unwrap();
        assert_eq!(Results::read(&file).unwrap().failed, ["cd normal, SINO, round 1: no disc"]);
        assert_eq!(begin(Some("usb")).results.failed.len(), 1, "the CD's");
        assert_eq!(begin(Some("=cd")).results.failed.len(), 1, "no whole name");
        assert_eq!(begin(Some("=cd normal")).results.failed, [""; 0]);
        assert_eq!(begin(None).samples(), []);
        assert_eq!(Results::read(&file).unwrap().notes, ["no stick"]);
    }

    #[test]
    fn values_are_shown_as_one_says_them() {
        assert_eq!(Unit::Seconds.show(0.0123), "12.3 ms");
        assert_eq!(Unit::Seconds.show(3.456), "3.46 s");
        assert_eq!(Unit::Bytes.show(6_000_000.0), "6.00 MB");
        assert_eq!(Unit::Kibibytes.show(2048.0), "2.0 MiB");
    }
}
