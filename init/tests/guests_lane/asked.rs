//! What an administrator asks for, by `sino guests` and by stopping the host.

use crate::host::Host;
use sino_init::guests::engine::Engine;
use sino_init::supervisor::guests_lane::GuestsState;
use std::fs;

pub(crate) fn several() {
    let script = "[guest.fails.create]\nfail_first = 99\n[guest.slow.create]\nms = 700\n";
    let toml = "[guest.fails]\nretries = 0\non_failure = 'hold-dependents'\nautostart = false\n[guest.behind]\nafter = ['fails']\n\
        [guest.hand]\nautostart = false\n";
    let mut host = Host::new(script, toml);
    for name in ["a", "b", "slow", "hand"] {
        host.guest(name, "");
    }
    host.file("srv/autostart/bad.cfg", "");
    host.on();
    host.until("all run", |state| state.guests.iter().filter(|guest| guest.state == "ready").count() == 3);
    // What is wrong is below the table, and in JSON.
    let (_, said) = host.sino("sino guests");
    assert!(said.contains("\nwhat is wrong\n") && said.contains("\n  /srv/autostart/bad.cfg: is empty"), "{said}");
    let (_, said) = host.sino("sino guests --json");
    let state: GuestsState = serde_json::from_str(&said).unwrap();
    assert!(state.problems.iter().any(|problem| problem.starts_with("/srv/autostart/bad.cfg: ")), "{said}");
    // One that there is not keeps none from being asked for.
    let (status, said) = host.sino("sino guests stop a nobody slow --wait");
    assert!(status == 1 && said.contains("there is no guest nobody"), "{said}");
    assert!(said.contains("a is stopped") && said.contains("slow is stopped"), "{said}");
    assert_eq!(host.lab.names(), ["b"]);
    let (status, said) = host.sino("sino guests start hand a --wait");
    assert!(status == 0 && said.contains("hand is ready") && said.contains("a is ready"), "{said}");
    let (status, said) = host.sino("sino guests restart a b --wait");
    assert!(status == 0 && said.contains("a is ready") && said.contains("b is ready"), "{said}");
    let calls = host.calls("create");
    assert_eq!(["a", "b", "hand", "slow"].map(|name| calls[name].len()), [3, 2, 1, 1]);
    // Without names: those that start by themselves, the new ones too.
    let (status, said) = host.sino("sino guests start --wait");
    assert!(status == 0 && said.contains("slow is ready") && !said.contains("hand"), "{said}");
    let (status, said) = host.sino("sino guests start --wait");
    assert!(status == 0 && said.contains("there is none to start"), "{said}");
    host.guest("fails", "");
    host.guest("behind", "");
    host.guest("last", "");
    let toml = toml.replace("autostart = false\n[guest.behind]", "[guest.behind]");
    host.file("srv/sino/sino.toml", format!("[network]\nmanaged = false\n{toml}"));
    let (status, said) = host.sino("sino guests start --wait=30");
    assert!(status == 1 && said.contains("sino: not ready: behind, fails"), "{said}");
    for line in ["last is ready", "behind is held: fails is not ready", "fails is failed: "] {
        assert!(said.contains(line), "{line}: {said}");
    }
    host.guest("later", "");
    host.file("xl.toml", fs::read_to_string(host.lab.path("xl.toml")).unwrap() + "[guest.later.create]\nms = 4000\n");
    let (status, said) = host.sino("sino guests start later --wait=1");
    assert!(status == 1 && said.contains("later is starting, after 1 s; it goes on"), "{said}");
}

/// What is kept of the host's only boot.
fn kept(host: &Host) -> String {
    let Ok(folder) = fs::read_dir(host.lab.path("srv/sino/boots")) else { return String::new() };
    let mut files = folder.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some());
    files.next().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
}

pub(crate) fn ended_boot() {
    let ended = "\"ended_before_over\": true";
    for word in ["end", "sino guests stop"] {
        let mut host = Host::new("", "");
        host.own_clock = true;
        host.guest("a", "");
        host.on();
        host.until_all(1, &["ready"]);
        assert_eq!(kept(&host), "", "systemd has not finished");
        if word == "end" {
            host.tell(word);
            let pid = host.lab.path("run/supervisor");
            host.until("the supervisor is gone", |_| !pid.exists());
            assert_eq!(host.lab.names(), ["a"], "guests are not its to stop");
        } else {
            assert_eq!(host.sino(word).0, 0);
        }
        let kept = kept(&host);
        assert!(kept.contains(ended) && kept.contains("\"ready\""), "{word}: {kept}");
        assert!(!host.said().contains("panicked"), "{}", host.said());
    }
}

/// The supervisor before this one kept its engine, and was killed before it told it to start the guests.
pub(crate) fn nothing_said() {
    let mut host = Host::new("", "");
    host.guest("web", "");
    let mut engine = Engine::new(Vec::new(), 2, 0);
    let _ = engine.reconcile(&[], 0);
    host.file("run/sino/guests-engine.json", engine.to_json().unwrap());
    host.on();
    host.until_all(1, &["ready"]);
}
