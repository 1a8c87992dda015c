//! LVM's report of its groups, and what is made of it. Input: the JSON, then, after a NUL byte, LVM's warnings.
#![no_main]

use anyhow::{Result, bail};
use sino_init::config::schema;
use sino_init::storage::mounts::Mount;
use sino_init::storage::tools::{Call, Heard, Output, Tools};
use sino_init::storage::{Host, lvm, lvm_report};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (report, warnings) = text.split_once('\0').unwrap_or((&text, ""));
    if let Ok(groups) = lvm_report::parse(report) {
        for group in &groups {
            assert!(!group.name.is_empty());
        }
    }
    let tools = Lvm { report, warnings };
    // Nothing is below this root.
    if let Ok((group, detail)) = lvm::attempt(Host::new(&tools, "/dev/null"), &schema::Storage::default()) {
        let problems = group.problems.iter().map(ToString::to_string);
        let names = group.volumes.iter().map(|volume| volume.name.clone()).chain(group.disks.clone());
        for text in problems.chain(names).chain(group.uuid.clone()).chain([detail]) {
            assert!(!text.chars().any(char::is_control), "for the console: {text:?}");
        }
        assert!(group.uuid.is_some() || group.volumes.is_empty(), "{group:?}");
    }
});

/// LVM that says this, and does nothing.
struct Lvm<'a> {
    report: &'a str,
    warnings: &'a str,
}

impl Tools for Lvm<'_> {
    fn listen(&self, call: &Call, _: &mut dyn FnMut(Heard<'_>)) -> Result<Output> {
        let reports = call.words.get(1).is_some_and(|word| word == "fullreport");
        let out = if reports { self.report } else { "" }.to_owned();
        Ok(Output { code: Some(if reports { 0 } else { 5 }), out, err: self.warnings.to_owned() })
    }

    fn mount(&self, _: &Mount<'_>) -> Result<()> {
        bail!("nothing is mounted here")
    }
}
