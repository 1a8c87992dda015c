//! A folder with a fake xl, its script, its guests' files and its log. See `init/examples/fake-xl`.
#![allow(dead_code, reason = "each test program that includes this uses a part of it")]

use serde::Deserialize;
use sino_init::guests::xl::Xl;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) struct Lab {
    pub(crate) place: TempDir,
    pub(crate) xl: Xl,
}

/// A line of the log; without `code` the call has begun and not ended.
#[derive(Debug, Deserialize)]
pub(crate) struct Call {
    pub(crate) pid: i32,
    pub(crate) arguments: Vec<String>,
    /// ms since 1970.
    pub(crate) began: u64,
    pub(crate) ended: Option<u64>,
    pub(crate) code: Option<u8>,
}

impl Lab {
    /// A host whose xl behaves as `script` says (TOML without `state` and `log`).
    pub(crate) fn new(script: &str) -> Self {
        let place = tempfile::tempdir().expect("a folder");
        let [state, log, program] = ["state", "log", "xl"].map(|name| place.path().join(name));
        fs::write(
            place.path().join("xl.toml"),
            format!("state = '{}'\nlog = '{}'\n{script}", state.display(), log.display()),
        )
        .expect("the script");
        std::os::unix::fs::symlink(program_file(), &program).expect("a link");
        Self { place, xl: Xl::new(program) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A guest's file with these lines beside its name.
    pub(crate) fn guest(&self, name: &str, lines: &str) -> PathBuf {
        let path = self.path(&format!("{name}.cfg"));
        fs::write(&path, format!("name = \"{name}\"\n{lines}\n")).expect("a guest's file");
        path
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of the log")).collect()
    }

    /// Names and numbers of the guests, by name.
    pub(crate) fn names(&self) -> Vec<String> {
        let domains = self.xl.list(soon(60_000)).expect("xl list");
        let names: BTreeSet<String> = domains.into_iter().map(|domain| domain.name).collect();
        names.into_iter().filter(|name| name != "Domain-0").collect()
    }

    /// Processes that calls of xl have started and that are in their process groups still.
    pub(crate) fn processes(&self) -> Vec<String> {
        let groups: BTreeSet<i32> = self.calls().iter().map(|call| call.pid).collect();
        in_groups(&groups)
    }

    /// The process of the daemon that xl has left for this guest.
    pub(crate) fn daemon(&self, guest: &str) -> Option<i32> {
        let text = fs::read_to_string(self.path("state").join(format!("daemon-{guest}.pid"))).ok()?;
        let pid: i32 = text.parse().ok()?;
        Path::new("/proc").join(pid.to_string()).exists().then_some(pid)
    }
}

pub(crate) fn soon(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Looks until it is so; the state of processes has no event to wait for.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = soon(20_000);
    while !is_so() {
        assert!(Instant::now() < end, "never so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Beside the tests: cargo builds examples before it runs all of a crate's tests, and not before it runs a single one.
fn program_file() -> PathBuf {
    let this = std::env::current_exe().expect("this program");
    let target = this.parent().and_then(Path::parent).expect("the folder of the build");
    let program = target.join("examples/fake-xl");
    assert!(
        program.exists(),
        "{} is not there; build it: cargo build -p sino-init --example fake-xl",
        program.display()
    );
    program
}

fn in_groups(groups: &BTreeSet<i32>) -> Vec<String> {
    let folders = fs::read_dir("/proc").expect("/proc").flatten();
    folders
        .filter_map(|folder| {
            let stat = fs::read_to_string(folder.path().join("stat")).ok()?;
            // The name is in brackets and may hold anything; then: state, parent, group.
            let (_, rest) = stat.rsplit_once(") ")?;
            let mut fields = rest.split(' ');
            let (state, _parent, group) = (fields.next()?, fields.next()?, fields.next()?);
            (state != "Z" && groups.contains(&group.parse().ok()?)).then_some(stat)
        })
        .collect()
}
