//! What there is of guests and of what they need, as the lane looks at it: with xl's help, and without changing anything.

use crate::config::schema::Config;
use crate::guests::budget::{self, balloons_dom0, parse_xl_info};
use crate::guests::engine::{self, Filter};
use crate::guests::needs::Use;
use crate::guests::survey::{Host as Surveyed, Survey, Wanted, survey};
use crate::guests::xenstore::{Client, SOCKET, disks::disks};
use crate::guests::xl::{Domain, Scheduler, Xl};
use crate::storage::Host;
use crate::storage::lvm::Group;
use sino_boot::options::{self, Autostart};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long what Xen and xl say of the host may take before guests are started without it.
const ASK: Duration = Duration::from_secs(60);
/// Xen's name of domain 0.
pub(super) const DOM0: &str = "Domain-0";

/// Memory in KiB and CPUs, as far as they are known.
pub(super) type Size = (Option<u64>, Option<u32>);

/// What a survey found, and what ran at that time.
#[derive(Debug)]
pub struct Seen {
    /// What there is.
    pub survey: Survey,
    /// What runs.
    pub domains: Vec<Domain>,
    /// Which scheduler shares out the CPUs, if it knows weights.
    pub scheduler: Option<Scheduler>,
    /// The disks of what runs, as far as the xenstore tells.
    pub disks: Vec<Use>,
}

/// Memory and CPUs of each guest.
pub(super) fn sizes(survey: &Survey, domains: &[Domain]) -> BTreeMap<String, Size> {
    // As configured; of those without a file, as they are.
    let mut sizes: BTreeMap<String, Size> = domains
        .iter()
        .map(|domain| (domain.name.clone(), (Some(domain.memory_mib << 10), Some(domain.vcpus))))
        .collect();
    for (name, config) in &survey.configs {
        let vcpus = config.vcpus.as_ref().map_or(Some(1), |vcpus| u32::try_from(vcpus.value).ok());
        sizes.insert(name.clone(), (config.memory.as_ref().map(|memory| memory.value << 10), vcpus));
    }
    sizes
}

/// A domain as the engine knows it.
pub(super) fn known(domain: &Domain) -> engine::Domain {
    let paused = domain.state.is_some_and(|state| state.paused);
    engine::Domain { name: domain.name.clone(), domid: domain.id, paused }
}

/// Which guests the kernel's command line wants to be started.
pub(super) fn filter() -> Filter {
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    match options::parse(&command_line).0.autostart {
        Autostart::All => Filter::All,
        Autostart::Off => Filter::Off,
        Autostart::Only(names) => Filter::Only(names),
    }
}

/// Looks at everything, and changes nothing.
#[must_use]
pub fn look(config: &Config, wanted: &Wanted) -> Seen {
    look_until(config, wanted, Xl::find().ok().as_ref(), Instant::now() + ASK)
}

/// What xl and xenstored do not say by then is looked at without.
fn look_until(config: &Config, wanted: &Wanted, xl: Option<&Xl>, until: Instant) -> Seen {
    let domains = xl.and_then(|xl| xl.list(until).inspect_err(|error| log::warn!("{error}")).ok());
    let domains = domains.unwrap_or_default();
    let info = xl.and_then(|xl| xl.info(until).inspect_err(|error| log::warn!("{error}")).ok());
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let scheduler = info.as_deref().and_then(Scheduler::of_info);
    let memory = info.and_then(|info| {
        let commandline = info.lines().find_map(|line| line.strip_prefix("xen_commandline")).unwrap_or_default();
        let balloons = balloons_dom0(&text("/etc/xen/xl.conf"), commandline.trim_start_matches([' ', ':']));
        let dom0_mib = domains.iter().find(|domain| domain.name == DOM0).map(|domain| domain.memory_mib);
        let xen = parse_xl_info(&info).inspect_err(|error| log::warn!("{error:#}")).ok()?;
        Some(budget::Host { xen, dom0_mib, balloons })
    });
    let running: BTreeSet<String> = domains.iter().map(|domain| domain.name.clone()).collect();
    let storage = crate::storage::state::StorageState::load(Host::this()).unwrap_or_default();
    let groups: [Group; 1] = [storage.group];
    let groups = if groups.iter().any(|group| group.uuid.is_some()) { &groups[..] } else { &[] };
    let used = Client::by_socket(Path::new(SOCKET)).and_then(|mut client| disks(&mut client, until));
    let used = used.unwrap_or_else(|error| {
        // Those of SINO's guests are in their files.
        log::warn!("which disks running domains have is not known: {error:#}");
        Vec::new()
    });
    let host = Surveyed { root: Path::new("/"), memory, groups, running: &running, disks: &used };
    Seen { survey: survey(&host, config, wanted), domains, scheduler, disks: used }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// What is found with an xl that does this, and how long that took.
    fn found(xl: &str) -> (Seen, Duration) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("xl"), format!("#!/bin/sh\n{xl}\n")).unwrap();
        fs::set_permissions(path("xl"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path("kernel"), "").unwrap();
        fs::write(path("a.cfg"), format!("name = 'a'\nmemory = 64\nkernel = '{}'\n", path("kernel"))).unwrap();
        let config: Config = toml::from_str(&format!("[guest.a]\nconfig = '{}'\n", path("a.cfg"))).unwrap();
        let began = Instant::now();
        let seen = look_until(&config, &Wanted::default(), Some(&Xl::new(path("xl"))), began + Duration::from_secs(1));
        (seen, began.elapsed())
    }

    #[test]
    fn an_xl_that_hangs_or_prints_garbage_keeps_no_guest_from_starting() {
        let list = "Name                                        ID   Mem VCPUs\tState\tTime(s)\n\
            Domain-0                                     0  1024     2     r-----      12.3\n";
        let cases = [
            ("exec sleep 60".to_owned(), 0),
            (format!("[ $1 = list ] || exec sleep 60; printf '%s' '{list}'"), 1),
            ("printf '\\377\\000{[Name\\n'; exit 0".to_owned(), 0),
            ("exec yes total_memory".to_owned(), 0),
            ("kill -SEGV $$".to_owned(), 0),
        ];
        for (xl, domains) in cases {
            let (seen, took) = found(&xl);
            let spec = seen.survey.specs.iter().find(|spec| spec.name == "a").unwrap();
            assert_eq!((&spec.refused, seen.domains.len()), (&None, domains), "{xl}");
            assert!(seen.survey.budget.is_none() && took < Duration::from_secs(20), "{xl}: {took:?}");
        }
    }
}
