//! `sino guests plan`: what would start, in which order, with how much memory, and what would not, and why.

use crate::config::origins::clean;
use crate::config::schema::Config;
use crate::guests::budget::need_kib;
use crate::guests::engine::{Engine, Event, Filter, Spec};
use crate::guests::ready::Ready;
use crate::guests::settings::OnFailure;
use crate::guests::survey::{Survey, Wanted};
use crate::supervisor::{guests_lane, storage_lane};
use anyhow::{Context, Result};
use serde::Serialize;
use sino_boot::options::{self, Autostart};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What would happen. Texts have no control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// How many guests are created at the same time.
    pub parallel: usize,
    /// The guests that start. Those of a wave wait for some of the wave before, and for nobody else.
    pub waves: Vec<Vec<Planned>>,
    /// The guests that do not start.
    pub not_started: Vec<NotStarted>,
    /// What Xen has, and what of it stays free; empty if Xen says nothing.
    pub memory: Vec<String>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// A guest that starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// PV, PVH or HVM.
    pub kind: String,
    /// Its memory at its start, in MiB.
    pub memory_mib: u64,
    /// What Xen must have free for it, in MiB; 0 if it runs already.
    pub needs_mib: u64,
    /// The guests that it waits for.
    pub after: Vec<String>,
    /// What is wanted of it beyond the defaults.
    pub wishes: Vec<String>,
}

/// A guest that does not start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NotStarted {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// Shows it.
///
/// # Errors
/// It cannot be written as JSON.
pub(super) fn run(json: bool) -> Result<()> {
    let config = storage_lane::load(true).config;
    let seen = guests_lane::look(&config, &Wanted::default());
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let running = seen.domains.into_iter().map(|domain| domain.name).collect();
    let plan = plan(&seen.survey, &config, cpus, &running);
    if json {
        println!("{}", serde_json::to_string_pretty(&plan).context("writing JSON")?);
        return Ok(());
    }
    print!("{}", text(&plan));
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    match options::parse(&command_line).0.autostart {
        Autostart::All => {}
        Autostart::Off => println!("in this boot, none was started: sino.autostart=off"),
        Autostart::Only(names) => {
            println!("in this boot, only these were started: sino.autostart={}", clean(&names.join(","), 500));
        }
    }
    Ok(())
}

/// Makes the plan; `cpus` are dom0's.
#[must_use]
pub fn plan(survey: &Survey, config: &Config, cpus: usize, running: &BTreeSet<String>) -> Plan {
    let parallel = config.guests.parallel(cpus);
    let mut engine = Engine::new(survey.specs.clone(), parallel, 0);
    // Without the daemons nothing leaves its place, so that this only decides who would start.
    let _ = engine.step(Event::StartAll { filter: Filter::All }, 0);
    let mut plan = Plan { parallel, problems: survey.problems.clone(), ..Plan::default() };
    // The survey tells them, too, if the plan is made of one.
    let of_order = engine.graph().problems.iter().map(ToString::to_string);
    plan.problems.extend(of_order.filter(|problem| !survey.problems.contains(problem)));
    let mut starts = BTreeSet::new();
    for guest in engine.report() {
        if ["waiting", "delayed"].contains(&guest.state.as_str()) {
            starts.insert(guest.name);
        } else {
            plan.not_started.push(NotStarted { name: clean(&guest.name, 64), why: clean(&guest.cause, 700) });
        }
    }
    let specs: BTreeMap<&str, &Spec> = survey.specs.iter().map(|spec| (spec.name.as_str(), spec)).collect();
    let graph = engine.graph();
    let mut waves: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sorted: Vec<(usize, i32, Planned)> = Vec::new();
    // Each is behind those that it is after.
    for name in graph.sequence.iter().filter(|name| starts.contains(*name)) {
        let Some(spec) = specs.get(name.as_str()) else { continue };
        let after: Vec<&String> =
            graph.after.get(name).into_iter().flatten().filter(|other| starts.contains(*other)).collect();
        let before = after.iter().filter_map(|other| waves.get(other.as_str())).max();
        let wave = before.map_or(0, |before| before + 1);
        waves.insert(name, wave);
        let followed = graph.after.iter().any(|(other, after)| starts.contains(other) && after.contains(name));
        let mut planned = Planned {
            name: clean(name, 64),
            after: after.into_iter().map(|other| clean(other, 64)).collect(),
            wishes: wishes(spec, followed),
            ..Planned::default()
        };
        if let Some(config) = survey.configs.get(name) {
            planned.kind = config.kind.value.to_string();
            planned.memory_mib = config.memory_mib();
            planned.needs_mib = if running.contains(name) { 0 } else { need_kib(config) / 1024 };
        }
        if running.contains(name) {
            planned.wishes.insert(0, "runs already".into());
        }
        sorted.push((wave, spec.guest.order, planned));
    }
    sorted.sort_by(|one, other| (one.0, one.1, &one.2.name).cmp(&(other.0, other.1, &other.2.name)));
    for (wave, _, planned) in sorted {
        if plan.waves.len() <= wave {
            plan.waves.resize_with(wave + 1, Vec::new);
        }
        if let Some(wave) = plan.waves.get_mut(wave) {
            wave.push(planned);
        }
    }
    if let Some(budget) = &survey.budget {
        // Behind the first line are the guests, one a line, which are told above.
        let text = budget.to_string();
        let lines = text.lines().enumerate().filter(|(at, _)| *at == 0 || *at > budget.guests.len());
        plan.memory = lines.map(|(_, line)| line.trim_start_matches("memory: ").to_owned()).collect();
    }
    plan
}

/// What is wanted of a guest beyond the defaults. `followed`: others wait for it.
fn wishes(spec: &Spec, followed: bool) -> Vec<String> {
    let guest = &spec.guest;
    let wishes = [
        spec.saved.then(|| "resumed from its saved state".to_owned()),
        (guest.order != 0).then(|| format!("order {}", guest.order)),
        (guest.delay != 0).then(|| format!("delay {} s", guest.delay)),
        (guest.ready != Ready::Running).then(|| format!("ready: {}", clean(&guest.ready.to_string(), 100))),
        (guest.on_failure == OnFailure::HoldDependents && followed)
            .then(|| "those after it are held unless it is ready".to_owned()),
    ];
    wishes.into_iter().flatten().collect()
}

/// The plan for people.
#[must_use]
pub fn text(plan: &Plan) -> String {
    let mut text = String::new();
    let all: usize = plan.waves.iter().map(Vec::len).sum();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{all} guests start, {} at a time", plan.parallel);
    let every = plan.waves.iter().flatten();
    let names = every.map(|guest| guest.name.chars().count()).max().unwrap_or_default();
    for (number, wave) in plan.waves.iter().enumerate() {
        let _ = writeln!(text, "\nwave {}", number + 1);
        for guest in wave {
            let Planned { name, kind, memory_mib, needs_mib, .. } = guest;
            let needs = if *needs_mib == 0 { String::new() } else { format!("needs {needs_mib} MiB") };
            let after = (!guest.after.is_empty()).then(|| format!("after {}", guest.after.join(", ")));
            let wishes: Vec<&str> =
                after.iter().map(String::as_str).chain(guest.wishes.iter().map(String::as_str)).collect();
            let line = format!("  {name:names$}  {kind:3}  {memory_mib:>6} MiB  {needs:16}  {}", wishes.join("; "));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    if !plan.not_started.is_empty() {
        text.push_str("\nnot started\n");
    }
    let names = plan.not_started.iter().map(|guest| guest.name.chars().count()).max().unwrap_or_default();
    for NotStarted { name, why } in &plan.not_started {
        let _ = writeln!(text, "  {name:names$}  {why}");
    }
    text.push_str("\nmemory\n");
    if plan.memory.is_empty() {
        text.push_str("  not known, because xl info does not tell it; no guest is refused for memory\n");
    }
    for line in &plan.memory {
        let _ = writeln!(text, "  {line}");
    }
    if !plan.problems.is_empty() {
        text.push_str("\nproblems\n");
    }
    for problem in &plan.problems {
        let _ = writeln!(text, "  {}", clean(problem, 700));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::budget::{self, XenMemory};
    use crate::guests::survey::{Host, survey};
    use std::fs;

    fn shown(files: &[(&str, u32)], toml: &str, free_mib: Option<u64>) -> Plan {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("srv/autostart")).unwrap();
        fs::write(root.path().join("srv/vmlinuz"), "").unwrap();
        for (name, memory) in files {
            let text = format!("name = '{name}'\nmemory = {memory}\nkernel = '/srv/vmlinuz'\ntype = 'pvh'\n");
            fs::write(root.path().join(format!("srv/autostart/{name}.cfg")), text).unwrap();
        }
        let config: Config = toml::from_str(toml).unwrap();
        let xen = |free_mib| XenMemory { total_mib: 16_384, free_mib, ..XenMemory::default() };
        let memory = free_mib.map(|free| budget::Host { xen: xen(free), dom0_mib: Some(1024), balloons: false });
        let running = BTreeSet::from(["mail".to_owned()]);
        let host = Host { root: root.path(), memory, groups: &[], running: &running, disks: &[] };
        plan(&survey(&host, &config, &Wanted::default()), &config, 2, &running)
    }

    #[test]
    fn waves_memory_and_reasons_are_on_one_page() {
        let toml = "[guest.web]\nafter = ['db', 'mail']\ndelay = 5\n[guest.db]\norder = -1\nready = 'tcp 192.0.2.5:22'\n\
                    on_failure = 'hold-dependents'\n[guest.test]\nautostart = false\n[guest.big]\norder = 9\n\
                    [guest.top]\nafter = ['web']\n";
        let files = [("db", 512), ("web", 1024), ("mail", 256), ("test", 64), ("big", 9000), ("top", 64)];
        let plan = shown(&files, toml, Some(4000));
        let names = |wave: &Vec<Planned>| wave.iter().map(|guest| guest.name.clone()).collect::<Vec<_>>();
        assert_eq!(plan.waves.iter().map(names).collect::<Vec<_>>(), [vec!["db", "mail"], vec!["web"], vec!["top"]]);
        assert!(plan.waves[0][0].needs_mib > 512 && plan.waves[0][1].needs_mib == 0, "{plan:?}");
        let text = text(&plan);
        let lines = [
            "4 guests start, 2 at a time",
            "wave 1",
            "ready: tcp 192.0.2.5:22; those after it are held unless it is ready",
            "after db, mail; delay 5 s",
            "runs already",
            "not started",
            "  test  it does not start by itself",
            "  16384 MiB, free in Xen 4000 MiB, dom0 1024 MiB",
            "MiB stay free",
            "  try: ",
        ];
        for line in lines {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(text.contains("  big   needs ") && text.contains("MiB are left after"), "{text}");
        assert!(!text.contains("problems") && !text.contains("fits with"), "{text}");
    }

    #[test]
    fn without_guests_or_figures_it_says_so_and_cycles_are_told() {
        let plan = shown(&[], "", None);
        assert_eq!(
            text(&plan),
            "0 guests start, 2 at a time\n\nmemory\n  not known, because xl info does not tell it; no guest is refused for memory\n"
        );
        let plan = shown(&[("a", 64), ("b", 64)], "[guest.a]\nafter = ['b']\n[guest.b]\nafter = ['a']\n", None);
        let text = text(&plan);
        assert!(plan.waves.is_empty() && plan.not_started.len() == 2, "{plan:?}");
        assert!(text.contains("problems\n  each of these waits for the next: a -> b"), "{text}");
    }
}
