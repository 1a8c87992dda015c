//! Programs that do not run: a test says what each would have written.

use super::mounts::Mount;
use super::tools::{Call, Heard, Output, Tools};
use anyhow::{Result, bail};
use std::cell::RefCell;
use std::fs;
use std::path::Path;

/// Answers by the beginning of the command line; the first that fits. What has none is not installed.
#[derive(Default)]
pub(crate) struct Fake {
    answers: Vec<(&'static str, Output)>,
    /// The mounts that the kernel refuses: options that are then among them, and its words.
    pub(crate) refused: Vec<(&'static str, &'static str)>,
    /// What was executed or mounted.
    pub(crate) log: RefCell<Vec<String>>,
}

impl Fake {
    pub(crate) fn answer(mut self, line: &'static str, code: i32, out: &str, err: &str) -> Self {
        self.answers.push((line, Output { code: Some(code), out: out.into(), err: err.into() }));
        self
    }

    pub(crate) fn executed(&self, part: &str) -> bool {
        self.log.borrow().iter().any(|line| line.contains(part))
    }
}

impl Tools for Fake {
    fn listen(&self, call: &Call, hear: &mut dyn FnMut(Heard<'_>)) -> Result<Output> {
        let line = call.line();
        self.log.borrow_mut().push(line.clone());
        let Some((_, output)) = self.answers.iter().find(|(start, _)| line.starts_with(start)) else {
            bail!("the program {} is not installed", call.words.first().unwrap())
        };
        for line in output.out.lines() {
            hear(Heard::Line(line));
        }
        Ok(output.clone())
    }

    fn mount(&self, mount: &Mount<'_>) -> Result<()> {
        let options = [&[if mount.read_only { "ro" } else { "rw" }], mount.options].concat().join(",");
        self.log.borrow_mut().push(format!("mount {} {} {options}", mount.fs, mount.device.display()));
        match self.refused.iter().find(|(part, _)| options.starts_with(part)) {
            Some((_, words)) => bail!("{words}"),
            None => Ok(()),
        }
    }
}

/// Writes a file below `root`, with its folders.
pub(crate) fn file(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A root with empty tables of the kernel.
pub(crate) fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    file(root.path(), "proc/self/mountinfo", "");
    file(root.path(), "proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n");
    fs::create_dir_all(root.path().join("run/sino")).unwrap();
    fs::create_dir_all(root.path().join("dev")).unwrap();
    root
}
