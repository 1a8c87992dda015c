//! What lasts: the volume group of the local disks, `/srv` and swap; and the commands `sino srv` and `sino disk`.
//!
//! The supervisor's storage lane calls [`lvm::activate`], [`srv::bring_up`] and [`swap::enable`], in this order, and
//! writes [`state::StorageState`]. A [`Host`] holds the way to the root's own tools and the root of every path, so a
//! test brings its own of both. Nothing here repairs by force, and only `sino disk prepare` writes to a disk outside
//! the group.

use serde::{Deserialize, Serialize};
use sino_boot::stage::Fault;
use std::path::PathBuf;

pub mod command;
pub mod disk;
pub mod ext;
pub mod full;
pub mod holders;
pub mod lvm;
pub mod lvm_config;
pub mod lvm_report;
pub mod mounts;
pub mod plan;
pub mod prepare;
pub mod shell;
pub mod size;
pub mod srv;
pub mod srv_command;
pub mod state;
pub mod swap;
pub mod tools;

#[cfg(test)]
mod fake;

use tools::{Programs, Tools};

/// The machine that storage is brought up on.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// What executes the root's programs.
    pub tools: &'a dyn Tools,
    /// What every path is below; empty for `/`.
    root: &'a str,
}

impl Host<'static> {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        Self { tools: &Programs, root: "" }
    }
}

impl<'a> Host<'a> {
    /// A machine whose paths are below `root` (without a slash at its end), and whose programs are `tools`.
    #[must_use]
    pub fn new(tools: &'a dyn Tools, root: &'a str) -> Self {
        Self { tools, root }
    }

    /// Where `path`, which begins with a slash, lies.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("{}{path}", self.root))
    }
}

/// Something that is not as it should be, while the rest goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What it is, as a sentence without its full stop.
    pub what: String,
    /// What to do.
    #[serde(rename = "do")]
    pub todo: String,
}

impl Problem {
    /// A problem with its remedy.
    pub fn new(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { what: what.into(), todo: todo.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; to do: {}", self.what, self.todo)
    }
}

/// The problems as one fault: the first is the cause.
#[must_use]
pub fn fault(problems: &[Problem]) -> Fault {
    let mut all = problems.iter();
    let Some(first) = all.next() else { return Fault::from(anyhow::anyhow!("it failed without a reason")) };
    let mut fault = Fault::from(anyhow::anyhow!("{}", first.what)).hint(first.todo.clone());
    for problem in all {
        fault = fault.seen(problem.what.clone()).hint(problem.todo.clone());
    }
    fault
}
