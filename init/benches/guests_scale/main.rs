//! What starting and stopping many guests costs beside the guests themselves: the real supervisor, or Debian's xendomains,
//! with a fake xl (`init/examples/fake-xl`) that takes the same time for each guest. One start and one stop a run; prints JSON.
//!
//! `guests_scale sino|TREE|TREE+save GUESTS PARALLEL CREATE STOP [ordered]`: TREE is a Debian tree with xen-utils-common,
//! CREATE and STOP are what a guest takes, in ms. Needs root, `unshare`, and the fake built in the same profile:
//! `cargo build --release -p sino-init --example fake-xl`. `sino-bench scale` (qemu-tests) runs it and records what it prints.
#![allow(missing_docs, reason = "a program for the bench")]

mod figures;
#[allow(dead_code, reason = "the trials of the guests' lane use the rest")]
#[path = "../../tests/guests_lane/host.rs"]
mod host;
#[path = "../../tests/fake-xl/lab.rs"]
mod lab;
#[path = "../../tests/guests_lane/machine.rs"]
mod machine;
mod xendomains;
#[path = "../../tests/guests_lane/xenstored.rs"]
mod xenstored;

use figures::{Figures, Took};
use host::Host;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// How long stopping all guests may take, in seconds: far more than it does.
const STOP_DEADLINE: u32 = 1800;
const USAGE: &str = "guests_scale sino|TREE|TREE+save GUESTS PARALLEL CREATE_MS STOP_MS [ordered]";

/// What is to be run.
pub(crate) struct Wanted {
    guests: usize,
    parallel: usize,
    /// What `xl create` takes, in ms.
    pub(crate) create: u64,
    /// What a guest takes to shut down once it is asked, or `xl save` takes, in ms.
    pub(crate) stop: u64,
    /// Whether guests start after others.
    ordered: bool,
}

impl Wanted {
    fn parse(arguments: &[String]) -> Option<Self> {
        let number = |at: usize| arguments.get(at)?.parse::<u64>().ok();
        Some(Self {
            guests: usize::try_from(number(0)?).ok().filter(|guests| (1..=999).contains(guests))?,
            parallel: usize::try_from(number(1)?).ok().filter(|parallel| *parallel > 0)?,
            create: number(2)?,
            stop: number(3)?,
            ordered: arguments.get(4).is_some_and(|word| word == "ordered"),
        })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        (0..self.guests).map(|number| format!("g{number:03}")).collect()
    }

    /// Numbers of the guests that must be ready before each one. Ordered: every guest is after the one that is ten before it,
    /// and every third one also after the one that is seven before.
    pub(crate) fn after(&self) -> Vec<Vec<usize>> {
        let of = |own: usize| {
            let rules = [(10, 1), (7, 3)];
            rules
                .iter()
                .filter(|(by, each)| self.ordered && own >= *by && own.is_multiple_of(*each))
                .map(|(by, _)| own - by)
                .collect()
        };
        (0..self.guests).map(of).collect()
    }

    /// The fake xl's script.
    pub(crate) fn script(&self) -> String {
        self.names().iter().fold(String::new(), |mut script, name| {
            let Self { create, stop, .. } = self;
            let _ = write!(
                script,
                "[guest.{name}]\nobeys_after = {stop}\n[guest.{name}.create]\nms = {create}\n[guest.{name}.save]\nms = {stop}\n"
            );
            script
        })
    }

    /// The host's `sino.toml`.
    fn toml(&self) -> String {
        let names = self.names();
        let mut toml = format!("[guests]\nparallel = {}\n", self.parallel);
        for (name, after) in names.iter().zip(self.after()).filter(|(_, after)| !after.is_empty()) {
            let after: Vec<&String> = after.iter().map(|other| &names[*other]).collect();
            let _ = writeln!(toml, "[guest.{name}]\nafter = {after:?}");
        }
        toml
    }
}

/// The fake xl that was built beside this program.
pub(crate) fn fake_xl() -> PathBuf {
    let this = std::env::current_exe().expect("this program");
    this.parent().and_then(Path::parent).expect("the folder of the build").join("examples/fake-xl")
}

fn main() -> ExitCode {
    // Cargo adds --bench.
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [machine::WORD, folder] = given.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        return machine::run(Path::new(folder));
    }
    let program = std::env::current_exe().expect("this program");
    let name = program.file_name().expect("its name").to_string_lossy().into_owned();
    if ["oxenstored", "xenconsoled"].contains(&name.as_str()) {
        return xenstored::daemon(&program, &name);
    }
    let Some((who, wanted)) = given.split_first().and_then(|(who, rest)| Some((who, Wanted::parse(rest)?))) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("root is needed; run: make bench WHAT=scale (it uses sudo), or this command with sudo");
        return ExitCode::FAILURE;
    }
    let (start, stop) = match (who.as_str(), who.strip_suffix("+save")) {
        ("sino", _) => sino(&wanted),
        (_, Some(tree)) => xendomains::run(Path::new(tree), true, &wanted),
        (tree, None) => xendomains::run(Path::new(tree), false, &wanted),
    };
    println!("{}", json!({ "start": start, "stop": stop }));
    ExitCode::SUCCESS
}

/// The real supervisor.
fn sino(wanted: &Wanted) -> (Figures, Figures) {
    let mut host = Host::new(&wanted.script(), &wanted.toml());
    let names = wanted.names();
    for name in &names {
        host.guest(name, "");
    }
    host.on();
    host.until_all(names.len(), &["ready"]);
    let created = calls(&host, "create", &names);
    let first = created.values().map(|(began, _)| *began).min().expect("a guest");
    let last = created.values().map(|(_, ended)| *ended).max().expect("a guest");
    let took = created.into_iter().map(|(name, (began, ended))| (name, ended - began)).collect();
    let start = Figures::of_start(wanted, last - first, &Took(took));

    let began = Instant::now();
    let answer = host.stop_all(STOP_DEADLINE);
    assert!(answer.ok, "{answer:?}");
    host.until_all(names.len(), &["stopped"]);
    let total = u64::try_from(began.elapsed().as_millis()).expect("some minutes");
    assert!(host.lab.names().is_empty(), "guests are left");
    let took = calls(&host, "shutdown", &names);
    let took = took.into_iter().map(|(name, (began, ended))| (name, ended - began + wanted.stop)).collect();
    (start, Figures::of_stop(wanted, total, &Took(took)))
}

/// When the one call for each guest began and ended, in ms since 1970.
fn calls(host: &Host, command: &str, names: &[String]) -> BTreeMap<String, (u64, u64)> {
    let all = host.calls(command);
    let of = |name: &String| {
        let own = all.get(name).map(Vec::as_slice);
        let Some([call]) = own else { panic!("{command} of {name}: {own:?}") };
        assert_eq!(call.code, Some(0), "{command} of {name}");
        (name.clone(), (call.began, call.ended.expect("an ended call")))
    };
    names.iter().map(of).collect()
}
