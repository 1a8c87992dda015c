//! A guest's file in xl's grammar, what is known of the guest, and whether it fits. Input: the file.
#![no_main]

use sino_init::guests::budget::{Candidate, Host, Verdict, XenMemory, plan};
use sino_init::guests::xl_config::{Content, Reading, Value, read, read_settings};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let lines = data.split(|byte| *byte == b'\n').count();
    let Reading { config, problems } = read(data, "/srv/autostart/g.cfg");
    for problem in &problems {
        assert!(!problem.to_string().chars().any(char::is_control), "for the console: {problem:?}");
        assert!(problem.line <= lines, "{problem:?} of {lines} lines");
    }
    // What is written of it is read as the same.
    let text = config.raw.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let (again, problems) = read_settings(text.as_bytes(), "again");
    assert!(problems.is_empty(), "{problems:?} in {text:?}");
    assert_eq!(again.len(), config.raw.len());
    for (setting, again) in config.raw.iter().zip(&again) {
        assert!((1..=lines).contains(&setting.line) && setting.column > 0, "{setting:?}");
        assert!(setting.name == again.name && setting.added == again.added && same(&setting.value, &again.value));
    }
    assert!(config.memory_mib() > 0 && config.max_cpus() > 0, "{config:?}");
    for disk in &config.disks {
        assert!((1..=lines).contains(&disk.line), "{disk:?}");
        assert!(disk.path().is_none_or(|path| path.starts_with('/')), "{disk:?}");
    }
    for vif in &config.vifs {
        assert!((1..=lines).contains(&vif.line), "{vif:?}");
    }
    let host = Host { xen: XenMemory { total_mib: 8192, free_mib: 4096, ..XenMemory::default() }, ..Host::default() };
    let guest = Candidate { name: "g", config: &config, running: false };
    let plan = plan(&host, &[guest, guest]);
    let started: u64 =
        plan.guests.iter().filter(|guest| guest.verdict == Verdict::Fits).map(|guest| guest.need_kib).sum();
    assert_eq!(started + plan.left_kib, 4096 * 1024, "{plan:?}");
    assert!(!plan.to_string().chars().any(|character| character.is_control() && character != '\n'), "{plan}");
});

fn same(one: &Value, other: &Value) -> bool {
    match (&one.content, &other.content) {
        (Content::Text(one), Content::Text(other)) => one == other,
        (Content::List(one), Content::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        _ => false,
    }
}
