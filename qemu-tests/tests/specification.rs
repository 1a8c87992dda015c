//! Every test that `docs/SPECIFICATION.md` names is there.

use sino_qemu_tests::images::workspace;
use sino_qemu_tests::list;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Trials that are no scenarios.
const OTHERS: [&str; 2] = ["iso-same-inputs-same-bytes", "memory-on-ram-overhead"];

fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_promise_names_tests_that_exist() {
    let workspace = workspace();
    let page = fs::read_to_string(workspace.join("docs/SPECIFICATION.md")).unwrap();
    let scenarios: BTreeSet<String> = list::scenarios().into_iter().map(|scenario| scenario.name).collect();
    let hosts = sino_qemu_tests::hosts::TRIALS.iter().map(|trial| trial.name.to_owned());
    let scenarios: BTreeSet<String> = scenarios.into_iter().chain(hosts).collect();
    let mut code = String::new();
    sources(&workspace, &mut code);
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let mut missing = Vec::new();
    let mut named = 0;
    for row in rows {
        for name in row.split('`').skip(1).step_by(2) {
            let plain = |extra: char| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == extra);
            if plain('-') && name.contains('-') {
                named += 1;
                if !scenarios.contains(name) && !OTHERS.contains(&name) && !is_step(name) {
                    missing.push(name.to_owned());
                }
            } else if plain('_') && name.contains('_') {
                named += 1;
                let forms = ["fn {}(", "Trial::test(\"{}\"", "trial(\"{}\""].map(|form| form.replace("{}", name));
                if !forms.iter().any(|form| code.contains(form)) {
                    missing.push(name.to_owned());
                }
            }
        }
    }
    assert!(named > 100, "only {named} tests are named");
    assert!(missing.is_empty(), "the specification names tests that do not exist: {missing:?}");
}

/// Steps of stage one stand in the table of faults, too.
fn is_step(name: &str) -> bool {
    name == "hand-over" || sino_qemu_tests::checks::STAGE_ONE.contains(&name)
}
