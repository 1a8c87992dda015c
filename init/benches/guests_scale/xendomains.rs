//! Debian's xendomains: the script that its unit runs, in its own Debian, one start and one stop.

use crate::Wanted;
use crate::figures::{Figures, Took};
use crate::lab::{Call, Lab};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts and stops all guests. With `save`, they are saved, as Debian's settings want it, and else shut down.
pub(crate) fn run(tree: &Path, save: bool, wanted: &Wanted) -> (Figures, Figures) {
    let lab = Lab::new(&wanted.script());
    let auto = lab.path("auto");
    fs::create_dir(&auto).unwrap();
    for name in wanted.names() {
        fs::write(auto.join(&name), format!("name = \"{name}\"\nkernel = \"/srv/vmlinuz\"\nmemory = 64\n")).unwrap();
    }
    let fake = crate::fake_xl();
    let settings = if save { "" } else { "XENDOMAINS_SAVE=" };
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c"])
        .arg(include_str!("xendomains.sh"))
        .arg("sh")
        .args([lab.place.path(), tree, &fake])
        .arg(settings)
        .stdin(Stdio::null())
        .status()
        .expect("unshare cannot be executed; install it: apt-get install util-linux");
    let said = |what: &str| fs::read_to_string(lab.path(&format!("{what}.said"))).unwrap_or_default();
    assert!(status.success(), "xendomains: {status}\n{}\n{}", said("start"), said("stop"));
    let ended: Vec<Call> = lab.calls().into_iter().filter(|call| call.code.is_some()).collect();
    let all = |command: &str| -> Vec<&Call> {
        ended
            .iter()
            .filter(|call| call.arguments[0] == command && !call.arguments.iter().any(|word| word == "--dryrun"))
            .collect()
    };
    let created = all("create");
    let names: Vec<String> = wanted.names();
    assert!(
        created.len() == names.len() && created.iter().all(|call| call.code == Some(0)),
        "{} of {} guests were created\n{}",
        created.len(),
        names.len(),
        said("start")
    );
    let took = |calls: &[&Call], more: u64| -> BTreeMap<String, u64> {
        // Only how long each took counts here: nothing is after anything.
        calls.iter().zip(&names).map(|(call, name)| (name.clone(), call.ended.unwrap() - call.began + more)).collect()
    };
    // The first thing that it does for the first guest is not counted, nor what it does after the last one.
    let first = created.iter().map(|call| call.began).min().unwrap();
    let last = created.iter().filter_map(|call| call.ended).max().unwrap();
    let start = Figures::of_start(wanted, last - first, &Took(took(&created, 0)));
    let time = |what: &str| -> u64 {
        let ns: u64 = fs::read_to_string(lab.path(what)).unwrap().trim().parse().unwrap();
        ns / 1_000_000
    };
    let (stops, more) = if save { (all("save"), 0) } else { (all("shutdown"), wanted.stop) };
    assert_eq!(stops.len(), names.len(), "{}", said("stop"));
    assert!(lab.names().is_empty(), "guests are left: {}", said("stop"));
    let stop = Figures::of_stop(wanted, time("stop.ended") - time("stop.began"), &Took(took(&stops, more)));
    (start, stop)
}
