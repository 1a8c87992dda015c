//! The trials.

use crate::host::Host;
use crate::lab::soon;
use sino_init::guests::engine::GuestReport;
use sino_init::guests::xl::Call;
use sino_init::supervisor::guests_lane::{GuestsState, LastStop};
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a fake `xl create` takes, in ms; a real one takes longer.
const COST: u64 = 500;
/// At most this much of the ideal time is used by a debug build. 1.03 to 1.08 on a quiet machine, 1.24 on a busy one.
const OVERHEAD: f64 = 1.5;

fn since_1970() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn fixed_cost(names: &[String], ms: u64) -> String {
    names.iter().fold(String::new(), |mut script, name| {
        let _ = writeln!(script, "[guest.{name}.create]\nms = {ms}");
        script
    })
}

pub(crate) fn many() {
    for number in [50, 200] {
        scheduled(number, 4);
    }
}

/// Every guest is after the one that is ten before it, and every third one also after the one that is seven before.
fn scheduled(number: usize, parallel: usize) {
    let names: Vec<String> = (0..number).map(|number| format!("g{number:03}")).collect();
    let after: Vec<Vec<usize>> = (0..number)
        .map(|own| {
            [(10, 1), (7, 3)]
                .iter()
                .filter(|(by, each)| own >= *by && own % each == 0)
                .map(|(by, _)| own - by)
                .collect()
        })
        .collect();
    let mut toml = format!("[guests]\nparallel = {parallel}\n");
    for (name, after) in names.iter().zip(&after) {
        let after: Vec<&String> = after.iter().map(|other| &names[*other]).collect();
        let _ = writeln!(toml, "[guest.{name}]\nafter = {after:?}");
    }
    let mut host = Host::new(&fixed_cost(&names, COST), &toml);
    for name in &names {
        host.guest(name, "");
    }
    let began = since_1970();
    host.on();
    let state = host.until_all(number, &["ready"]);
    let reported: Vec<&String> = state.guests.iter().map(|guest| &guest.name).collect();
    assert_eq!(reported, names.iter().collect::<Vec<_>>(), "each once, by name");
    assert_eq!(state.problems, Vec::<String>::new());
    let calls = host.calls("create");
    for (name, after) in names.iter().zip(&after) {
        let own = &calls[name];
        assert!(own.len() == 1 && own[0].code == Some(0), "{name}: {own:?}");
        for other in after {
            let other = &calls[&names[*other]][0];
            assert!(own[0].began >= other.ended.unwrap(), "{name} before {other:?}");
        }
    }
    assert_eq!(host.lab.names(), names);
    assert_eq!(host.calls("sched-credit2").into_keys().collect::<Vec<_>>(), ["1024"], "domain 0's share of the CPUs");
    let first = calls.values().map(|calls| calls[0].began).min().unwrap();
    let last = calls.values().map(|calls| calls[0].ended.unwrap()).max().unwrap();
    let took: Vec<u64> = names.iter().map(|name| calls[name][0].ended.unwrap() - calls[name][0].began).collect();
    let (ideal, possible) = (ideal(&after, &vec![COST; number], parallel), ideal(&after, &took, parallel));
    #[allow(clippy::cast_precision_loss, reason = "some seconds in ms")]
    let over = |ideal: u64| (last - first) as f64 / ideal as f64;
    let ratio = over(possible);
    eprintln!(
        "{number} guests of {COST} ms, {parallel} at the same time: {} ms; ideal {ideal} ms (x{:.3}); with what each xl really \
         took here {possible} ms (x{ratio:.3}); {} ms until the first one",
        last - first,
        over(ideal),
        first - began
    );
    let lists: Vec<u64> =
        host.calls("list").values().flatten().filter_map(|call| Some(call.ended? - call.began)).collect();
    eprintln!("{} xl list beside them, {} ms each", lists.len(), lists.iter().sum::<u64>() / lists.len() as u64);
    assert!(ratio <= OVERHEAD, "x{ratio:.3}");
}

/// How long all take if each is created as soon as it may be, in the order of their numbers, `parallel` at the same time, and
/// nothing else takes time.
fn ideal(after: &[Vec<usize>], took: &[u64], parallel: usize) -> u64 {
    let (mut now, mut ends): (u64, Vec<Option<u64>>) = (0, vec![None; after.len()]);
    loop {
        let busy = ends.iter().flatten().filter(|end| **end > now).count();
        let down = |other: &usize| ends[*other].is_some_and(|end| end <= now);
        let may = |own: &usize| ends[*own].is_none() && after[*own].iter().all(down);
        let next: Vec<usize> = (0..after.len()).filter(may).take(parallel - busy).collect();
        for own in next {
            ends[own] = Some(now + took[own]);
        }
        match ends.iter().flatten().filter(|end| **end > now).min() {
            Some(end) => now = *end,
            None => return now,
        }
    }
}

pub(crate) fn killed() {
    const KILLS: usize = 20;
    let seed = std::env::var("SINO_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(since_1970);
    eprintln!("again: SINO_SEED={seed}");
    // Xorshift; source: Marsaglia, "Xorshift RNGs", 2003.
    let mut random = seed | 1;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let names: Vec<String> = (0..30).map(|number| format!("g{number:02}")).collect();
    let mut script = String::new();
    let mut toml = "[guests]\nparallel = 2\n".to_owned();
    // Some as soon as it has begun, some after it has done something.
    let pauses: Vec<u64> = (0..200_u32).map(|kill| next(if kill % 3 == 0 { 1500 } else { 400 })).collect();
    // Two at the same time take at least twice as long as the supervisors that are to be killed live.
    let scale = 4 * pauses.iter().take(KILLS).sum::<u64>() / 30;
    let costs: Vec<u64> = names.iter().map(|_| scale / 4 + next(3 * scale / 2)).collect();
    for (number, (name, cost)) in names.iter().zip(&costs).enumerate() {
        let _ = writeln!(script, "[guest.{name}.create]\nms = {cost}");
        if let Some(other) = number.checked_sub(5) {
            let _ = writeln!(toml, "[guest.{name}]\nafter = ['{}']", names[other]);
        }
    }
    let mut host = Host::new(&script, &toml);
    for name in &names {
        host.guest(name, "");
    }
    host.on();
    let all = |guests: &[GuestReport]| guests.len() == 30 && guests.iter().all(|guest| guest.state == "ready");
    let mut kills = 0_usize;
    for pause in pauses {
        if all(&host.state().guests) {
            break;
        }
        std::thread::sleep(Duration::from_millis(pause));
        host.tell("kill");
        kills += 1;
    }
    eprintln!("killed {kills} times until all guests ran");
    assert!(kills >= KILLS, "the guests started too fast for {KILLS} kills");
    host.until_all(30, &["ready"]);
    assert_eq!(host.lab.names(), names);
    let calls = host.calls("create");
    for (number, name) in names.iter().enumerate() {
        let own = &calls[name];
        assert!(own.len() == 1 && own[0].code == Some(0), "{name} was not created once: {own:?}\n{}", host.said());
        if let Some(other) = number.checked_sub(5) {
            let other = calls[&names[other]][0].ended.unwrap();
            assert!(own[0].began >= other, "{name} before its time");
        }
    }
    assert_eq!(host.calls("destroy").len(), 0);
}

pub(crate) fn misbehaving() {
    let script = "\
        [guest.slow.create]\nms = 2500\n\
        [guest.once.create]\nfail_first = 1\n\
        [guest.never.create]\nfail_first = 99\n\
        [guest.hangs.create]\nhang = true\nchildren = 2\n\
        [guest.lies.create]\nlie = true\n\
        [guest.noise.create]\ngarbage = true\n\
        [guest.flood.create]\nhuge = 3000000\n";
    let toml = "[guests]\nparallel = 3\n[guest.never]\nretries = 0\n[guest.lies]\nretries = 0\n\
        on_failure = 'hold-dependents'\n[guest.behind]\nafter = ['lies']\n[guest.beside]\nafter = ['never', 'slow']\n";
    let mut host = Host::new(script, toml);
    let names = ["slow", "once", "never", "hangs", "lies", "noise", "flood", "behind", "beside", "good1", "good2"];
    for name in names {
        host.guest(name, "");
    }
    host.on();
    let others = |guests: &[GuestReport]| {
        let mut others = guests.iter().filter(|guest| guest.name != "hangs");
        guests.len() == names.len() && others.all(|guest| ["ready", "failed", "held"].contains(&guest.state.as_str()))
    };
    host.until("all but the one that hangs have ended", |state| others(&state.guests));
    for name in ["slow", "once", "noise", "flood", "beside", "good1", "good2"] {
        assert_eq!(host.report(name).state, "ready", "{name}");
    }
    assert_eq!(host.report("once").tries, 2);
    let cause = |name: &str, state: &str, text: &str| {
        let report = host.report(name);
        assert!(report.state == state && report.cause.contains(text), "{name}: {report:?}");
    };
    cause("never", "failed", "unable to add disk devices");
    cause("lies", "failed", "there is none");
    cause("behind", "held", "lies");
    cause("hangs", "starting", "");
    let began = since_1970();
    assert!(host.stop_all(12).ok);
    host.until_all(names.len(), &["stopped", "failed", "held"]);
    eprintln!("all stopped after {} ms of 12000, one xl create hangs", since_1970() - began);
    assert!(since_1970() - began < 20_000);
    assert_eq!(host.lab.names(), Vec::<String>::new());
}

pub(crate) fn garbage() {
    let mut host = Host::new("[command.list]\ngarbage = true\n[command.info]\ngarbage = true\n", "");
    for name in ["a", "b"] {
        host.guest(name, "");
    }
    host.on();
    host.until_all(2, &["ready"]);
    host.kill();
    host.until_all(2, &["ready"]);
    assert_eq!(host.calls("create").values().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
}

pub(crate) fn bad_files() {
    let toml = "[guest.good]\norder = 'first'\nafter = 7\n[guest.ghost]\nafter = ['good']\n[guest.good2]\nafter = ['nobody']\n\
        [guest.other]\nconfig = '/srv/autostart/misnamed.cfg'\n[guest.twice]\nconfig = '/srv/autostart/twice.cfg'\n[guests]\nparallel = 'many'\n";
    let mut host = Host::new("", toml);
    for name in ["good", "good2", "two words", "twice"] {
        host.guest(name, "");
    }
    host.guest("unknown", "colour = \"green\"\nvcpu = 2");
    let at = |name: &str| format!("srv/autostart/{name}.cfg");
    host.file(&at("empty"), "");
    host.file(&at("binary"), (0..=u8::MAX).map(|number| number.wrapping_mul(7)).cycle().take(5000).collect::<Vec<_>>());
    host.file(&at("huge"), "# nothing\n".repeat(1 << 20));
    host.file(&at("zz-twin"), "name = \"good\"\nkernel = \"/srv/vmlinuz\"\n");
    host.file(&at("no-kernel"), "name = \"no-kernel\"\nkernel = \"/srv/none\"\nmemory = 64\n");
    host.file(&at("unclosed"), "name = \"unclosed\"\nkernel = \"/srv/vmlinuz\"\ndisk = [ 'x'\n");
    host.file(&at("misnamed"), "name = \"another\"\nkernel = \"/srv/vmlinuz\"\nmemory = 64\n");
    host.file("srv/disk.img", vec![0; 4096]);
    host.guest("disk1", "disk = [ 'format=raw,vdev=xvda,access=rw,target=/srv/disk.img' ]");
    host.guest("disk2", "disk = [ 'format=raw,vdev=xvda,access=rw,target=/srv/disk.img' ]");
    host.guest("no-bridge", "vif = [ 'bridge=xenbr7' ]");
    host.guest("bridge", "vif = [ 'bridge=xenbr0' ]");
    std::fs::create_dir(host.lab.path(&at("folder"))).unwrap();
    symlink("/srv/nowhere.cfg", host.lab.path(&at("dangling"))).unwrap();
    symlink("loop.cfg", host.lab.path(&at("loop"))).unwrap();
    host.file("srv/autostart/readme.txt", "not a guest");
    host.on();
    let state = host.until("all have ended", |state| {
        state.guests.len() > 5
            && state.guests.iter().all(|guest| ["ready", "refused", "failed"].contains(&guest.state.as_str()))
    });
    for name in ["good", "good2", "two words", "twice", "unknown", "disk1", "bridge"] {
        assert_eq!(host.report(name).state, "ready", "{name}: {:?}", host.report(name));
    }
    for (name, text) in [("no-kernel", "/srv/none"), ("disk2", "disk1"), ("no-bridge", "xenbr7"), ("other", "another")]
    {
        let report = host.report(name);
        assert!(
            ["refused", "failed"].contains(&report.state.as_str()) && report.cause.contains(text),
            "{name}: {report:?}"
        );
    }
    let problems = state.problems.join("\n");
    eprintln!("{problems}");
    for text in [
        "empty.cfg",
        "binary.cfg:1",
        "huge.cfg",
        "zz-twin.cfg",
        "unclosed.cfg:",
        "unknown.cfg:5",
        "folder.cfg",
        "dangling.cfg",
        "loop.cfg",
        "readme.txt",
        "guest.ghost",
        "nobody",
    ] {
        assert!(problems.contains(text), "nothing of {text}:\n{problems}");
    }
    assert!(!problems.contains("twice.cfg"), "it is one guest:\n{problems}");
    let twin = "/srv/autostart/zz-twin.cfg: has the guest name \"good\", as has /srv/autostart/good.cfg";
    assert!(problems.contains(twin), "both files are named:\n{problems}");
    assert!(!host.said().contains("panicked"), "{}", host.said());
}

pub(crate) fn bad_folder() {
    let mut host = Host::new("", "");
    std::fs::remove_dir(host.lab.path("srv/autostart")).unwrap();
    host.file("srv/autostart", "no folder");
    host.file("auto/good", "name = \"good\"\nkernel = \"/srv/vmlinuz\"\nmemory = 64\n");
    host.on();
    let state = host.until_all(1, &["ready"]);
    assert!(state.problems[0].contains("/srv/autostart: the folder cannot be read"), "{:?}", state.problems);
}

pub(crate) fn xenstored() {
    let mut host = Host::new("", "[guest.c]\nautostart = false\n");
    for name in ["a", "b", "c", "d", "e"] {
        host.guest(name, "");
    }
    host.on();
    let ready =
        |state: &GuestsState, number| state.guests.iter().filter(|guest| guest.state == "ready").count() == number;
    host.until("four run", |state| ready(state, 4));
    // It ends its connections, and answers at once when it is asked again.
    host.file("state/drop", "");
    host.until("the connections are lost", |_| !host.lab.path("state/drop").exists());
    host.lab.xl.destroy("a", soon(60_000)).unwrap();
    host.until("it is seen that a is gone", |_| host.report("a").state == "stopped");
    // It dies.
    host.tell("kill xenstored");
    host.until("its death is told", |_| host.said().contains("xenstored DIED"));
    assert!(host.start("c").ok);
    host.until("c waits", |_| host.report("c").state == "waiting");
    host.lab.xl.destroy("b", soon(60_000)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!([host.report("c").state, host.report("d").state], ["waiting", "ready"]);
    assert!(!host.calls("create").contains_key("c"), "nothing is started without xenstored");
    // Somebody starts it again.
    host.tell("start xenstored");
    host.until("c starts", |_| host.report("c").state == "ready");
    host.until("it is seen that b was gone meanwhile", |_| host.report("b").state == "stopped");
    host.lab.xl.destroy("d", soon(60_000)).unwrap();
    host.until("it is seen that d is gone", |_| host.report("d").state == "stopped");
    assert_eq!(host.report("e").state, "ready");
    assert!(host.calls("create").values().all(|calls| calls.len() == 1));
}

pub(crate) fn stop() {
    let script = "[guest.db]\nobeys_after = 300\n[guest.web]\nobeys_after = 300\n[guest.hangs]\nignores = true\n\
        [guest.keeps]\nignores = true\n[guest.keeps.save]\nms = 300\n";
    let toml = "[guest.web]\nafter = ['db']\n[guest.hangs]\nstop_timeout = 4\n[guest.keeps]\nstop = 'save'\nstop_timeout = 1\n\
        [guest.front]\nafter = ['web']\n[guests]\nparallel = 3\n";
    let mut host = Host::new(script, toml);
    for name in ["db", "web", "front", "hangs", "keeps"] {
        host.guest(name, "");
    }
    host.on();
    host.until_all(5, &["ready"]);
    let began = since_1970();
    assert!(host.stop_all(60).ok);
    host.until("the others are down", |_| host.report("db").state == "stopped");
    let others = since_1970() - began;
    assert_eq!(host.report("hangs").state, "stopping", "it held up the others");
    host.until_all(5, &["stopped", "saved"]);
    eprintln!("the others down after {others} ms, all after {} ms", since_1970() - began);
    assert!(since_1970() - began < 12_000, "the one that hangs has 4 s");
    let calls = host.calls("shutdown");
    let asked = |name: &str| calls[name][0].began;
    assert!(asked("front") + 1 < asked("web") && asked("web") + 300 <= asked("db"));
    assert_eq!(host.report("keeps").state, "saved");
    assert!(host.lab.path("srv/sino/saved/keeps.save").is_file());
    assert!(host.said().contains("it is destroyed"), "{}", host.said());
    assert_eq!(host.lab.names(), Vec::<String>::new());
    host.reboot();
    host.until_all(5, &["ready"]);
    let (status, last) = host.sino("sino guests last");
    eprintln!("{last}");
    assert!(
        status == 0 && last.starts_with("all guests were stopped on 20") && last.contains(" s of 60 s\n"),
        "{last}"
    );
    for words in
        [&["db", "stopped", "shut down"][..], &["keeps", "saved"], &["hangs", "stopped", "destroyed", "within 4 s"]]
    {
        assert!(last.lines().any(|line| words.iter().all(|word| line.contains(word))), "{words:?}:\n{last}");
    }
    assert_eq!(host.calls("restore").len(), 1);
    assert_eq!(host.calls("create")["keeps"].len(), 1, "it was resumed and not started anew");
    assert!(!host.lab.path("srv/sino/saved/keeps.save").exists());
}

pub(crate) fn disks() {
    let toml = "[guest.spare]\nautostart = false\n[guest.free]\nautostart = false\n[guest.large]\nautostart = false\n\
        [guest.lost]\nautostart = false\n";
    let mut host = Host::new("memory_mib = 1000\n[guest.second.create]\nms = 100\n", toml);
    for name in ["a", "b", "c"] {
        host.file(&format!("srv/{name}.img"), vec![0; 4096]);
    }
    let disk =
        |name: &str, access: &str| format!("disk = [ 'format=raw,vdev=xvda,access={access},target=/srv/{name}.img' ]");
    // One that somebody starts by hand, and that is none of SINO's.
    let lines = format!("memory = 64\n{}", disk("a", "rw"));
    let by_hand = host.lab.guest("by hand", &lines);
    host.lab.xl.call(&Call::Create(by_hand.clone()), soon(60_000), None).unwrap();
    host.guest("first", &disk("a", "rw"));
    host.guest("second", &disk("b", "rw"));
    host.guest("third", &disk("b", "rw"));
    host.guest("spare", &disk("b", "rw"));
    host.guest("free", &disk("c", "rw"));
    host.guest("lost", "vif = [ 'bridge=xenbr7' ]");
    host.file("srv/autostart/large.cfg", "name = 'large'\nkernel = '/srv/vmlinuz'\nmemory = 2000\n");
    host.on();
    host.until("all have ended", |_| host.report("second").state == "ready" && host.report("third").state == "refused");
    let refused = |host: &Host, name: &str, text: &str| {
        let report = host.report(name);
        assert!(report.state == "refused" && report.cause.contains(text), "{name}: {report:?}");
    };
    refused(
        &host,
        "first",
        "disk /srv/a.img of first is also that of the running domain by hand, and both write to it",
    );
    refused(&host, "third", "is also that of the guest second, and both write to it");
    // By hand they are refused with the same words, and stay as they are.
    for (name, state, text) in [
        ("first", "refused", "is also that of the running domain by hand, and both write to it; try: "),
        ("third", "refused", "is also that of the running domain second, and both write to it; try: "),
        ("spare", "stopped", "is also that of the running domain second, and both write to it; try: "),
        ("large", "stopped", "needs 2010 MiB of Xen's memory, "),
        ("lost", "stopped", "there is no bridge xenbr7 (there are: xenbr0); try: "),
    ] {
        let (status, said) = host.sino(&format!("sino guests start {name}"));
        assert!(status == 1 && said.contains(&format!("{name} cannot be started: ")) && said.contains(text), "{said}");
        assert_eq!(host.report(name).state, state, "{name}");
    }
    let (status, said) = host.sino("sino guests start free --wait");
    assert!(status == 0 && said.contains("free is ready"), "{said}");
    // What nobody has any more is theirs.
    host.lab.xl.destroy("by hand", soon(60_000)).unwrap();
    assert_eq!(host.sino("sino guests start first --wait").0, 0);
    let calls = host.calls("create");
    assert!(["third", "spare", "large", "lost"].iter().all(|name| !calls.contains_key(*name)), "{calls:?}");
    // sino guests check knows of it, too: of the guests, and of a file that is not in place.
    let (status, said) = host.sino("sino guests check");
    assert!(status == 1 && said.contains("of third is also that of the running domain second"), "{said}");
    host.file("srv/new.cfg", format!("name = 'new'\nkernel = '/srv/vmlinuz'\nmemory = 64\n{}", disk("a", "rw")));
    let (status, said) = host.sino("sino guests check /srv/new.cfg");
    assert!(status == 1 && said.contains("of new is also that of the running domain first"), "{said}");
}

pub(crate) fn ends() {
    // One after the other: who looks at the list because of one must not see the end of another before that is told.
    let script = "[guest.stays]\ncrash_after = 400\npreserve = true\n[guest.reboots]\nreboot_after = 800\n\
        [guest.never]\nreboot_after = 1200\n[guest.always]\nreboot_after = 1600\n[guest.crashes]\ncrash_after = 2000\n";
    let toml = "[guest.never]\nrestart = 'no'\n[guest.always]\nrestart = 'always'\n";
    let mut host = Host::new(script, toml);
    for name in ["stays", "reboots", "never", "always", "crashes"] {
        host.guest(name, "");
    }
    host.on();
    let state = host.until("all have ended", |state| {
        let is = |name: &str, word: &str| state.guests.iter().any(|guest| guest.name == name && guest.state == word);
        is("stays", "crashed") && is("reboots", "stopped") && is("never", "stopped") && is("always", "backing off")
    });
    let cause = |name: &str| state.guests.iter().find(|guest| guest.name == name).unwrap().cause.clone();
    assert!(cause("stays").starts_with("crashed; its domain"), "{}", cause("stays"));
    assert_eq!(cause("reboots"), "wanted to reboot, and on_reboot in its file does not let it");
    host.until("what crashed is started again", |_| {
        host.calls("create").get("crashes").is_some_and(|calls| calls.len() == 2)
    });
    host.kill();
    assert_eq!(host.report("stays").state, "crashed");
    let (status, said) = host.sino("sino guests start stays");
    assert!(
        status == 1 && said.contains("stays cannot be started: its domain") && said.contains("guests stop stays"),
        "{said}"
    );
    assert_eq!(host.calls("create").values().map(Vec::len).min(), Some(1));
    let (status, said) = host.sino("sino guests stop stays --wait");
    assert!(status == 0 && said.contains("stays is stopped"), "{said}");
    assert!(!host.lab.names().contains(&"stays".to_owned()));
    assert!(["stays", "reboots", "never"].iter().all(|name| host.calls("create")[*name].len() == 1));
}

pub(crate) fn stop_killed() {
    let script = "[guest.db]\nobeys_after = 300\n[guest.hangs]\nignores = true\n";
    let toml = "[guest.hangs]\nstop_timeout = 5\nafter = ['db']\n";
    let mut host = Host::new(script, toml);
    for name in ["db", "hangs"] {
        host.guest(name, "");
    }
    host.on();
    host.until_all(2, &["ready"]);
    let (status, nothing) = host.sino("sino guests last");
    assert!(status == 0 && nothing.starts_with("no report"), "{nothing}");
    assert_eq!(host.sino("sino guests last --json").1.trim(), "null");
    assert!(host.stop_all(60).ok);
    host.until("it is asked", |_| host.report("hangs").state == "stopping");
    host.kill();
    assert!(host.state().stopping, "who waits for the stop must not think that it is over");
    host.until("the stop is over", |state| !state.stopping);
    assert_eq!(host.lab.names(), Vec::<String>::new());
    let (_, last) = host.sino("sino guests last --json");
    let last: LastStop = serde_json::from_str(&last).unwrap();
    let ends: Vec<&str> = last.guests.iter().map(|guest| guest.state.as_str()).collect();
    assert!(ends == ["stopped", "stopped"] && last.within == 60, "{last:#?}");
    host.file("srv/sino/guests-last-stop.json", "{\"guests\": [");
    let (status, broken) = host.sino("sino guests last");
    assert!(status == 1 && broken.contains("guests-last-stop.json cannot be used"), "{broken}");
}
