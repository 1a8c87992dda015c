//! What there is before anything is started: the guests of the folders and of `sino.toml`, whether they fit, whether the host
//! has what they need. Looks and reads, nothing else.

use super::budget::{self, Candidate, Plan};
use super::engine::{Filter, Spec};
use super::graph::{Node, graph};
use super::needs;
use super::settings::{self, Guest, Listed};
use super::xl_config::GuestConfig;
use super::xl_config::discover::{self, discover};
use crate::config::origins::clean;
use crate::config::schema::Config;
use crate::storage::lvm::Group;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where saved states of guests are, one file `NAME.save` for each, on the volume of `/srv`.
pub const SAVED: &str = "/srv/sino/saved";

/// The host, as far as the survey needs it.
pub struct Host<'a> {
    /// The root of its files.
    pub root: &'a Path,
    /// What `xl info` says; `None` if it says nothing: then no guest is refused for memory.
    pub memory: Option<budget::Host>,
    /// Its volume groups.
    pub groups: &'a [Group],
    /// The names of the domains that run.
    pub running: &'a BTreeSet<String>,
    /// What the disks of running domains are, from the xenstore.
    pub disks: &'a [needs::Use],
}

/// Who is to start besides those that run; what they need is looked for in this order. What the others need is theirs to be
/// refused for when they are started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// These first: they are on their way, or asked for.
    pub first: Vec<String>,
    /// Then those that this wants.
    pub filter: Filter,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The guests, in the order in which they start, as the engine wants them.
    pub specs: Vec<Spec>,
    /// Each guest's file.
    pub files: BTreeMap<String, PathBuf>,
    /// What each guest's file says, of those that could be read.
    pub configs: BTreeMap<String, GuestConfig>,
    /// What is wrong, for people; without control characters.
    pub problems: Vec<String>,
    /// Which guests fit; `None` if it is not known what Xen has.
    pub budget: Option<Plan>,
}

/// The file that holds, or would hold, a guest's saved state.
#[must_use]
pub fn saved_state(name: &str) -> PathBuf {
    Path::new(SAVED).join(format!("{name}.save"))
}

/// Makes the survey. A problem of one guest is that guest's alone.
#[must_use]
pub fn survey(host: &Host<'_>, config: &Config, wanted: &Wanted) -> Survey {
    let tables = config.guest.iter();
    let given: Vec<(String, PathBuf)> =
        tables.filter_map(|(name, guest)| Some((name.clone(), guest.config.clone()?.into()))).collect();
    let found = discover(host.root, &given);
    let mut survey = Survey { problems: found.problems.iter().map(ToString::to_string).collect(), ..Survey::default() };
    let mut refused: BTreeMap<String, String> = BTreeMap::new();
    let listed = listed(found.guests, config, &mut survey, &mut refused);
    for (name, guest) in &listed.guests {
        if !survey.configs.contains_key(name) && !refused.contains_key(name) {
            let file = guest.config.as_deref().unwrap_or_default();
            refused.insert(name.clone(), format!("its file {} cannot be used", clean(file, 300)));
        }
    }
    look(host, &listed, wanted, &mut survey, &mut refused);
    let mut specs: BTreeMap<String, Spec> = BTreeMap::new();
    for (name, guest) in listed.guests {
        survey.files.insert(name.clone(), PathBuf::from(guest.config.clone().unwrap_or_default()));
        let saved = on(host.root, &saved_state(&name)).is_file();
        let refused = refused.remove(&name);
        specs.insert(name.clone(), Spec { name, guest, saved, refused });
    }
    let graph = graph(&specs.values().map(node).collect::<Vec<_>>());
    survey.problems.extend(graph.problems.iter().map(ToString::to_string));
    let sequence = graph.sequence;
    survey.specs = sequence.iter().filter_map(|name| specs.remove(name)).collect();
    // Those that the graph leaves out of its order are told by it.
    survey.specs.extend(specs.into_values());
    survey
}

/// Joins files and tables; what a file says of its guest goes into the survey.
fn listed(
    guests: Vec<discover::Guest>,
    config: &Config,
    survey: &mut Survey,
    refused: &mut BTreeMap<String, String>,
) -> Listed {
    let mut files = Vec::new();
    for guest in guests {
        survey.problems.extend(guest.problems.iter().map(ToString::to_string));
        let (name, file) = (clean(&guest.name, 100), clean(&guest.path.to_string_lossy(), 300));
        for table in guest.sections.iter().filter(|table| **table != guest.name) {
            refused.insert(table.clone(), format!("its file {file} calls it {name}: call the table guest.{name} too"));
        }
        if guest.is_misnamed() {
            continue;
        }
        let other = config.guest.get(&guest.name).and_then(|table| table.config.as_ref());
        if let Some(other) = other.filter(|_| guest.sections.is_empty()) {
            let other = clean(other, 300);
            survey
                .problems
                .push(format!("{file}: is left out, because guest.{name} in sino.toml names another file, {other}"));
            continue;
        }
        files.push(settings::Found { name: guest.name.clone(), config: guest.path });
        survey.configs.insert(guest.name, guest.config);
    }
    let listed = settings::list(&files, config);
    survey.problems.extend(listed.problems.iter().cloned());
    listed
}

/// Whether those that are to start fit, and find what they need.
fn look(
    host: &Host<'_>,
    listed: &Listed,
    wanted: &Wanted,
    survey: &mut Survey,
    refused: &mut BTreeMap<String, String>,
) {
    let starts = |(name, guest): &(&String, &Guest)| {
        let runs = host.running.contains(*name);
        let wants = wanted.filter.wants(name, guest.autostart) || wanted.first.contains(name);
        (runs || wants) && !refused.contains_key(*name)
    };
    let nodes: Vec<Node> = listed.guests.iter().filter(starts).map(|(name, guest)| of(name, guest)).collect();
    let mut sequence = graph(&nodes).sequence;
    // The others stay in their order.
    sequence.sort_by_key(|name| wanted.first.iter().position(|first| first == name).unwrap_or(usize::MAX));
    let candidate = |name: &'_ String| {
        let (name, config) = survey.configs.get_key_value(name)?;
        Some(Candidate { name, config, running: host.running.contains(name) })
    };
    let candidates: Vec<Candidate<'_>> = sequence.iter().filter_map(candidate).collect();
    let there = needs::Host { files: &needs::Root(host.root.to_owned()), groups: host.groups };
    let mut problems = Vec::new();
    for problem in needs::check(there, &candidates, host.disks) {
        if problem.refuse {
            let why = format!("{}; try: {}", problem.what, problem.remedy);
            refused.entry(problem.guest.clone()).or_insert(why);
        } else {
            problems.push(problem.to_string());
        }
    }
    // What does not start takes no memory.
    let fit: Vec<Candidate<'_>> = candidates.into_iter().filter(|guest| !refused.contains_key(guest.name)).collect();
    let plan = host.memory.as_ref().map(|memory| budget::plan(memory, &fit));
    for share in plan.iter().flat_map(|plan| &plan.guests) {
        if let Some(why) = share.refusal() {
            refused.insert(share.name.clone(), why);
        }
    }
    survey.budget = plan;
    survey.problems.extend(problems);
}

fn node(spec: &Spec) -> Node {
    of(&spec.name, &spec.guest)
}

fn of(name: &str, guest: &Guest) -> Node {
    Node { name: name.to_owned(), after: guest.after.clone(), order: guest.order, autostart: guest.autostart }
}

/// A path below a root.
fn on(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::super::budget::XenMemory;
    use super::*;
    use std::fs;

    struct Played {
        root: tempfile::TempDir,
        running: BTreeSet<String>,
        disks: Vec<needs::Use>,
        wanted: Wanted,
    }

    impl Played {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            for folder in
                ["srv/autostart", "srv/sino/saved", "etc/xen/auto", "srv/other", "sys/class/net/xenbr0/bridge"]
            {
                fs::create_dir_all(root.path().join(folder)).unwrap();
            }
            fs::write(root.path().join("srv/vmlinuz"), "").unwrap();
            Self { root, running: BTreeSet::new(), disks: Vec::new(), wanted: Wanted::default() }
        }

        fn guest(&self, path: &str, name: &str, memory: u32, more: &str) {
            let text = format!("name = '{name}'\nmemory = {memory}\nkernel = '/srv/vmlinuz'\n{more}\n");
            fs::write(self.root.path().join(path), text).unwrap();
        }

        fn survey(&self, free_mib: u64, toml: &str) -> Survey {
            let config: Config = toml::from_str(toml).unwrap();
            let xen = XenMemory { free_mib, ..XenMemory::default() };
            let memory = Some(budget::Host { xen, ..budget::Host::default() });
            let (running, disks) = (&self.running, &self.disks);
            let host = Host { root: self.root.path(), memory, groups: &[], running, disks };
            survey(&host, &config, &self.wanted)
        }
    }

    fn names(survey: &Survey) -> Vec<&str> {
        survey.specs.iter().map(|spec| spec.name.as_str()).collect()
    }

    fn refused<'a>(survey: &'a Survey, name: &str) -> Option<&'a str> {
        survey.specs.iter().find(|spec| spec.name == name).unwrap().refused.as_deref()
    }

    #[test]
    fn guests_of_both_folders_and_of_tables_are_in_their_order() {
        let played = Played::new();
        played.guest("srv/autostart/web.cfg", "web", 100, "");
        played.guest("etc/xen/auto/db", "db", 100, "");
        played.guest("srv/other/mail.cfg", "mail", 100, "");
        fs::write(played.root.path().join("srv/sino/saved/mail.save"), "").unwrap();
        let toml = "[guest.db]\nafter = ['mail']\n[guest.mail]\nconfig = '/srv/other/mail.cfg'\norder = 9\n";
        let survey = played.survey(4000, toml);
        assert_eq!(survey.problems, Vec::<String>::new());
        assert_eq!(names(&survey), ["web", "mail", "db"]);
        assert!(survey.specs.iter().all(|spec| spec.refused.is_none()));
        assert_eq!(survey.specs.iter().filter(|spec| spec.saved).count(), 1);
        assert_eq!(survey.files["db"], Path::new("/etc/xen/auto/db"));
    }

    #[test]
    fn what_does_not_fit_or_lacks_something_is_refused_and_takes_nothing_from_the_rest() {
        let played = Played::new();
        played.guest("srv/autostart/a.cfg", "a", 100, "vif = ['bridge=xenbr7']");
        played.guest("srv/autostart/b.cfg", "b", 1000, "");
        played.guest("srv/autostart/c.cfg", "c", 1000, "vif = ['bridge=xenbr0']");
        played.guest("srv/autostart/d.cfg", "d", 100, "");
        let survey = played.survey(1500, "[guest.gone]\nconfig = '/srv/other/gone.cfg'\n");
        assert!(refused(&survey, "a").unwrap().contains("no bridge xenbr7"));
        assert_eq!(refused(&survey, "b"), None);
        assert!(refused(&survey, "c").unwrap().contains("MiB are left after b"));
        assert_eq!(refused(&survey, "d"), None);
        assert!(refused(&survey, "gone").unwrap().contains("/srv/other/gone.cfg cannot be used"));
        assert!(survey.problems.iter().any(|problem| problem.contains("gone.cfg")), "{:?}", survey.problems);
    }

    #[test]
    fn a_table_whose_file_has_another_name_is_refused() {
        let played = Played::new();
        played.guest("srv/other/x.cfg", "y", 100, "");
        let survey = played.survey(4000, "[guest.x]\nconfig = '/srv/other/x.cfg'\n");
        assert_eq!(names(&survey), ["x"]);
        assert!(refused(&survey, "x").unwrap().ends_with("calls it y: call the table guest.y too"));
    }

    #[test]
    fn a_guest_that_a_table_and_a_folder_name_is_one() {
        let played = Played::new();
        played.guest("srv/autostart/a.cfg", "a", 100, "");
        played.guest("srv/other/b.cfg", "b", 100, "");
        std::os::unix::fs::symlink("../other/b.cfg", played.root.path().join("srv/autostart/b.cfg")).unwrap();
        let toml = "[guest.a]\nconfig = '/srv/autostart/a.cfg'\n[guest.b]\nconfig = '/srv/autostart/../other/b.cfg'\n";
        let survey = played.survey(4000, toml);
        assert_eq!((names(&survey), survey.problems.as_slice()), (vec!["a", "b"], &[][..]));
        assert!(survey.specs.iter().all(|spec| spec.refused.is_none()));
        // Two files: the table's counts for everything, or nothing does.
        played.guest("srv/other/c.cfg", "c", 100, "");
        played.guest("srv/autostart/c.cfg", "c", 9999, "vif = ['bridge=none']");
        let survey = played.survey(4000, "[guest.c]\nconfig = '/srv/other/c.cfg'\n");
        assert_eq!((refused(&survey, "c"), survey.files["c"].as_path()), (None, Path::new("/srv/other/c.cfg")));
        assert_eq!(survey.configs["c"].memory_mib(), 100);
        assert!(survey.problems[0].contains("/srv/autostart/c.cfg: has the guest name \"c\", as has /srv/other/c.cfg"));
        let survey = played.survey(4000, "[guest.c]\nconfig = '/srv/typing-error.cfg'\n");
        assert_eq!(refused(&survey, "c"), Some("its file /srv/typing-error.cfg cannot be used"));
        let told = survey.problems.join("\n");
        assert!(
            told.contains("/srv/autostart/c.cfg: is left out, because guest.c in sino.toml names another"),
            "{told}"
        );
    }

    #[test]
    fn what_runs_already_needs_nothing_and_without_figures_none_is_refused_for_memory() {
        let mut played = Played::new();
        played.guest("srv/autostart/a.cfg", "a", 1000, "");
        played.running.insert("a".into());
        assert_eq!(refused(&played.survey(10, ""), "a"), None);
        played.running.clear();
        assert!(refused(&played.survey(10, ""), "a").is_some());
        let host = Host { root: played.root.path(), memory: None, groups: &[], running: &played.running, disks: &[] };
        assert_eq!(refused(&survey(&host, &Config::default(), &Wanted::default()), "a"), None);
    }

    #[test]
    fn a_disk_that_a_domain_of_somebody_else_writes_to_is_refused_and_the_domain_named() {
        let mut played = Played::new();
        fs::write(played.root.path().join("srv/a.img"), "").unwrap();
        fs::write(played.root.path().join("srv/b.img"), "").unwrap();
        played.guest("srv/autostart/a.cfg", "a", 10, "disk = ['/srv/a.img,raw,xvda,w']");
        played.guest("srv/autostart/b.cfg", "b", 10, "disk = ['/srv/b.img,raw,xvda,w']");
        played.guest("srv/autostart/c.cfg", "c", 10, "disk = ['/srv/b.img,raw,xvda,r']");
        played.disks.push(needs::Use { domain: "by hand".into(), path: "/srv/a.img".into(), writable: true });
        played.disks.push(needs::Use { domain: "reads".into(), path: "/srv/b.img".into(), writable: false });
        let survey = played.survey(4000, "");
        let why = refused(&survey, "a").unwrap();
        assert!(
            why.starts_with("disk /srv/a.img of a is also that of the running domain by hand, and both write"),
            "{why}"
        );
        assert!(refused(&survey, "b").unwrap().contains("the running domain reads"));
        assert_eq!(refused(&survey, "c"), None);
    }

    #[test]
    fn only_those_that_are_to_start_are_looked_at_and_those_asked_for_first() {
        let mut played = Played::new();
        fs::write(played.root.path().join("srv/a.img"), "").unwrap();
        played.guest("srv/autostart/a.cfg", "a", 1000, "disk = ['/srv/a.img,raw,xvda,w']");
        played.guest("srv/autostart/b.cfg", "b", 1000, "");
        let long = "s".repeat(90);
        played.guest("srv/autostart/spare.cfg", &long, 1000, "disk = ['/srv/a.img,raw,xvda,w']\nvif = ['bridge=none']");
        let toml = format!("[guest.{long}]\nautostart = false\n[guest.b]\nautostart = false\n");
        let survey = played.survey(1500, &toml);
        assert!(["a", "b", &long].iter().all(|name| refused(&survey, name).is_none()), "b and spare stay as they are");
        played.wanted.first = vec!["b".into()];
        let survey = played.survey(1500, &toml);
        assert_eq!(refused(&survey, "b"), None);
        assert!(refused(&survey, "a").unwrap().ends_with("are left after b"));
        played.wanted.first = vec![long.clone()];
        let survey = played.survey(1500, &toml);
        assert!(refused(&survey, &long).unwrap().contains("no bridge none"));
        // For one boot, by the kernel's command line.
        played.wanted = Wanted { first: vec![], filter: Filter::Only(vec!["b".into()]) };
        let survey = played.survey(500, &toml);
        assert!(refused(&survey, "b").unwrap().contains("MiB are left"));
        assert_eq!(refused(&survey, "a"), None, "it does not start in this boot");
    }

    #[test]
    fn a_guest_that_runs_keeps_its_disks_though_it_does_not_start_by_itself() {
        let mut played = Played::new();
        fs::write(played.root.path().join("srv/a.img"), "").unwrap();
        played.guest("srv/autostart/a.cfg", "a", 10, "disk = ['/srv/a.img,raw,xvda,w']");
        played.guest("srv/autostart/b.cfg", "b", 10, "disk = ['/srv/a.img,raw,xvda,w']");
        played.running.insert("b".into());
        let survey = played.survey(4000, "[guest.b]\nautostart = false\n");
        assert!(refused(&survey, "a").unwrap().contains("the running domain b"), "without a word of the xenstore");
    }
}
