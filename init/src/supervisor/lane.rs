//! A lane of the supervisor: a straight run of named steps beside the others, in the same record as stage one's.
//!
//! A step that fails is narrated, and the lane goes on with what does not need it.

use log::Level;
use sino_boot::record::BootRecord;
use sino_boot::stage::{Done, Fault, Stage};
use sino_boot::{console, layout};
use std::path::Path;

/// Says a line on every console; what is no trouble only in the log once somebody may work on the consoles.
pub fn say(line: &str, level: Level) {
    if level > Level::Warn && Path::new(layout::HANDED_OVER).exists() {
        log::log!(level, "{line}");
    } else {
        console::say(line, level);
    }
}

/// A problem as it is said in a warning: one of a file says itself that it is a warning, behind the file's name.
#[must_use]
pub fn unmarked(problem: &str) -> String {
    problem.replacen(": warning: ", ": ", 1)
}

/// A lane while it runs.
pub struct Lane {
    stage: Stage,
    /// Whether this is the boot: a supervisor that was started again only writes to the log.
    boot: bool,
}

impl Lane {
    /// A lane of `total` steps. Its lines begin with `label`, which is its name and a space.
    #[must_use]
    pub fn new(name: &'static str, label: &'static str, total: usize, boot: bool) -> Self {
        let narrator = Box::new(move |line: &str, failed: bool| {
            let level = if failed { Level::Error } else { Level::Info };
            if boot { say(line, level) } else { log::log!(level, "{line}") }
        });
        Self { stage: Stage::lane(name, label, total, narrator), boot }
    }

    /// Runs a step. `None`: it failed, which has been said.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<Done<T>, Fault>) -> Option<T> {
        let result = self.stage.step(name, |_| work()).ok();
        self.keep();
        result
    }

    /// Something that was waited for since `since_us` ([`sino_boot::record::now_us`]) is there now.
    pub fn reached(&mut self, name: &str, since_us: u64, detail: &str) {
        self.stage.reached(name, since_us, detail);
        self.keep();
    }

    /// Says a warning and records it.
    pub fn warn(&mut self, warning: &str) {
        self.stage.warn(&unmarked(warning));
        self.keep();
    }

    /// Moves what is new to the boot's record.
    fn keep(&mut self) {
        let new = std::mem::take(&mut self.stage.record);
        if !self.boot {
            return;
        }
        let saved = BootRecord::update(Path::new(layout::BOOT_RECORD), |record| {
            record.steps.extend(new.steps);
            record.warnings.extend(new.warnings);
        });
        if let Err(error) = saved {
            log::warn!("the boot record could not be kept: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problem, Severity};

    #[test]
    fn that_it_is_a_warning_is_said_once() {
        let text = "is left out, as its name does not end in .cfg".to_owned();
        let problem =
            Problem { severity: Severity::Warning, file: "/a".into(), line: 0, column: 0, key: String::new(), text };
        assert_eq!(unmarked(&problem.to_string()), "/a: is left out, as its name does not end in .cfg");
        let problem = Problem { line: 2, column: 1, key: "guest.a.afer".into(), ..problem };
        assert!(unmarked(&problem.to_string()).starts_with("/a:2:1: guest.a.afer: is left out"));
        assert_eq!(unmarked("an error stays as it is"), "an error stays as it is");
    }
}
