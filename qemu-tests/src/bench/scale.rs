//! Many guests, with a fake `xl` whose every guest costs the same: what starting and stopping them costs beside the guests.
//!
//! SINO is its real supervisor in namespaces of its own (`init/benches/guests_scale`), xendomains the script that Debian's
//! unit runs, in the Debian tree that the image is made of. Both call the same fake. The ideal is what a host could do that
//! needs no time itself: to start guests with `PARALLEL` of them under way at once, as SINO is told to, and to stop all at once.

use super::{Recorder, SINO, SINO_AGAIN, Settings, Unit, programs};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use sino_image::cache::Cache;
use sino_image::command;
use sino_image::config::Config;
use sino_image::tree::Tree;
use sino_image::workspace::Workspace;
use std::path::PathBuf;
use std::process::Command;

/// How many guests SINO starts at once, and the ideal too.
const PARALLEL: u32 = 4;
/// What a fake `xl create` takes, in ms; a real one takes longer.
const CREATE_MS: u32 = 500;
/// What a guest takes to shut down, or a fake `xl save` takes, in ms.
const STOP_MS: u32 = 1000;
/// More guests than this are neither started by xendomains in the short form, nor saved by it in any: minutes for nothing new.
const FEW: u32 = 10;

/// Numbers of guests, and whether some start after others, which only SINO can.
const CASES: [(u32, bool); 5] = [(1, false), (10, false), (50, false), (50, true), (200, false)];

/// What `guests_scale` prints of a start or a stop, in seconds.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Figures {
    time: f64,
    ideal: f64,
    critical_path: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Outcome {
    start: Figures,
    stop: Figures,
}

/// Programs and the tree, made once.
struct Lab {
    program: PathBuf,
    tree: Tree,
}

/// Who starts and stops, as `guests_scale` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Sino,
    Again,
    Xendomains,
    Saving,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sino => SINO,
            Self::Again => SINO_AGAIN,
            Self::Xendomains => "xendomains",
            Self::Saving => "xendomains, saving",
        })
    }
}

impl Who {
    /// Whether it takes part in a case.
    fn can(self, guests: u32, ordered: bool, short: bool) -> bool {
        let most = match (self, short) {
            (Self::Sino | Self::Again, _) => return true,
            (Self::Xendomains, false) => u32::MAX,
            _ => FEW,
        };
        guests <= most && !ordered
    }
}

impl Lab {
    fn make(recorder: &mut Recorder, settings: &Settings) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "root is needed for namespaces; run: make bench (it uses sudo)");
        // The program looks for the fake beside itself.
        programs::example(settings, "sino-init", "fake-xl", "")?;
        let program = programs::bench(settings, "sino-init", "guests_scale")?;
        let workspace = Workspace { root: settings.workspace.clone() };
        let tree = Tree::get(&Config::default(), &Cache::new(workspace.cache()))?;
        let version = tree.packages.lines().find_map(|line| line.strip_prefix("xen-utils-common "));
        recorder.version("xendomains (xen-utils-common)", version.unwrap_or("not in the tree"))?;
        Ok(Self { program, tree })
    }

    fn run(&self, who: Who, guests: u32, [create, stop]: [u32; 2], ordered: bool) -> Result<Outcome> {
        let tree = self.tree.root.to_string_lossy();
        let who = match who {
            Who::Sino | Who::Again => "sino".to_owned(),
            Who::Xendomains => tree.into_owned(),
            Who::Saving => format!("{tree}+save"),
        };
        let mut command = Command::new(&self.program);
        command.arg(who).args([guests, PARALLEL, create, stop].map(|number| number.to_string()));
        command.args(ordered.then_some("ordered")).env("TMPDIR", "/tmp");
        let said = command::run(&mut command)?;
        serde_json::from_slice(&said).context("guests_scale prints something else than agreed")
    }
}

fn case((guests, ordered): (u32, bool)) -> String {
    match (guests, ordered) {
        (1, _) => "1 guest".to_owned(),
        (guests, false) => format!("{guests} guests"),
        (guests, true) => format!("{guests} guests, some after others"),
    }
}

/// The names of the cases.
#[must_use]
pub fn case_names() -> Vec<String> {
    CASES.into_iter().map(case).collect()
}

/// Starts.
///
/// # Errors
/// Not root, nothing can be built, or guests are left over or missing.
pub fn start(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    cases(recorder, settings, &[Who::Sino, Who::Xendomains, Who::Again], [CREATE_MS, 0], |outcome| outcome.start)
}

/// Stops.
///
/// # Errors
/// As [`start`].
pub fn stop(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    let all = [Who::Sino, Who::Xendomains, Who::Saving, Who::Again];
    cases(recorder, settings, &all, [0, STOP_MS], |outcome| outcome.stop)
}

fn cases(
    recorder: &mut Recorder,
    settings: &Settings,
    contenders: &[Who],
    costs: [u32; 2],
    part: fn(Outcome) -> Figures,
) -> Result<()> {
    let lab = Lab::make(recorder, settings)?;
    for (guests, ordered) in CASES {
        let case = case((guests, ordered));
        if !settings.wants(&case) {
            continue;
        }
        let contenders: Vec<Who> =
            contenders.iter().copied().filter(|who| who.can(guests, ordered, settings.short)).collect();
        recorder.in_turns(&case, settings.rounds, &contenders, |recorder, who, round| {
            let figures = match lab.run(*who, guests, costs, ordered) {
                Ok(outcome) => part(outcome),
                Err(error) => return recorder.failed(&case, &who.to_string(), round, &error),
            };
            let mut record = |figure, unit, value| recorder.record(&case, &who.to_string(), figure, round, unit, value);
            record("time", Unit::Seconds, figures.time)?;
            record("over ideal", Unit::Ratio, figures.time / figures.ideal)?;
            record("over critical path", Unit::Ratio, figures.time / figures.critical_path)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xendomains_takes_part_where_it_can() {
        assert!(Who::Xendomains.can(200, false, false) && !Who::Xendomains.can(50, true, false));
        assert!(!Who::Xendomains.can(50, false, true) && Who::Xendomains.can(10, false, true));
        assert!(Who::Saving.can(10, false, false) && !Who::Saving.can(50, false, false));
        assert!(Who::Again.can(200, true, true));
    }
}
