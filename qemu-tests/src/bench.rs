//! The bench: how fast SINO is beside other live systems, on the same bytes in the same run.
//!
//! A measure ([`measures`]) is a plain function that runs its contenders in turns ([`Recorder::in_turns`]) and records every single value
//! ([`sample`]). What is shown, medians, ranges, ratios, is made from the recorded values only. Figures are printed and kept,
//! never judged here; only `sino-bench check` has a bound.

pub mod chart;
pub mod check;
pub mod contenders;
pub mod goals;
pub mod guests;
pub mod image_cost;
pub mod machine;
pub mod measures;
pub mod native_copy;
pub mod programs;
pub mod report;
pub mod sample;
pub mod scale;
pub mod statistics;
pub mod table;
pub mod vm;

use crate::images::{target, workspace};
pub use sample::{Recorder, Sample, Unit};
use std::path::PathBuf;

/// Rounds of the full form, unless told otherwise.
pub const ROUNDS: u32 = 5;
/// Rounds of the short form.
pub const SHORT_ROUNDS: u32 = 2;
/// The contender that is SINO.
pub const SINO: &str = "SINO";
/// SINO once more, as if it were somebody else: what differs between the two is the machine's noise.
pub const SINO_AGAIN: &str = "SINO again";

/// What the user of the bench asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often each contender runs.
    pub rounds: u32,
    /// Only what is quick: fewer cases, smaller files.
    pub short: bool,
    /// Only some cases ([`Settings::wants`]).
    pub only: Option<String>,
    /// Only contenders with one of these texts in their name ([`Settings::wants_contender`]); all if empty.
    pub contenders: Vec<String>,
    /// Whether to measure anew what is there of the same build.
    pub fresh: bool,
    /// Folder of the finished image (`sino.iso`, `vmlinuz`, `initramfs.img`, ...), for [`crate::images::Paths::open`].
    pub image: PathBuf,
    /// The workspace's folder.
    pub workspace: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
}

impl Settings {
    /// The defaults of the short or the full form.
    #[must_use]
    pub fn new(short: bool) -> Self {
        Self {
            rounds: if short { SHORT_ROUNDS } else { ROUNDS },
            short,
            only: None,
            contenders: Vec::new(),
            fresh: false,
            image: workspace().join("target/sino"),
            workspace: workspace(),
            target: target(),
        }
    }

    /// Whether a case is to be run.
    #[must_use]
    pub fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| sample::is_meant(only, case))
    }

    /// Whether a contender takes part.
    #[must_use]
    pub fn wants_contender(&self, name: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|text| name.contains(text.as_str()))
    }

    /// Where the results are: `target/bench` of the workspace, whatever folder cargo builds in: root measures, and anybody makes
    /// the report.
    #[must_use]
    pub fn results(&self) -> PathBuf {
        self.workspace.join("target/bench")
    }

    /// A folder for what a measure makes on its way: `target/bench/work/NAME`. Not made here.
    #[must_use]
    pub fn work(&self, name: &str) -> PathBuf {
        self.results().join("work").join(name)
    }
}
