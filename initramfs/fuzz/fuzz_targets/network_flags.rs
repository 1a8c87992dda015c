//! The kernel's flags that stand for keys of the configuration (`ip=`, `sino.net=`, `sino.set=`), and the network that
//! they make. Input: the command line.
#![no_main]

use sino_init::config::Layers;
use sino_init::network::flags;
use sino_init::network::plan::Plan;
use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let line = String::from_utf8_lossy(data);
    let (table, warnings) = flags::from_command_line(&line);
    for warning in &warnings {
        assert!(!warning.chars().any(char::is_control), "for the console: {warning:?}");
    }
    assert!(table.is_some() || warnings.is_empty(), "{warnings:?}");
    // There are no files below this root.
    let nowhere = Path::new("/dev/null");
    if let Some(table) = &table {
        let alone = Layers::load(nowhere, "", true, vec![(table.clone(), "ip".to_owned())]);
        // A name that the network can have may be none that a host can have; that is told.
        assert!(alone.problems.iter().all(|problem| problem.key == "system.hostname"), "{:?}", alone.problems);
    }
    let extra = table.map(|table| (table, "ip".to_owned())).into_iter().collect();
    let loaded = Layers::load(nowhere, &line, true, extra);
    for problem in &loaded.problems {
        assert!(!problem.to_string().chars().any(char::is_control), "for the console: {problem:?}");
    }
    let (plan, warnings) = Plan::from(&loaded.config.network);
    sino_fuzz::check_plan(&plan, &warnings);
});
