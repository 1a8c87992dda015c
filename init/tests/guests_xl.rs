//! Calls of xl against a fake one that is slow, fails, hangs and lies (`init/examples/fake-xl`).
//!
//! Run alone, it needs the fake built: `cargo build -p sino-init --example fake-xl`.

use rustix::process::{Pid, getsid, test_kill_process};
use sino_init::command::guests::check;
use sino_init::guests::probe::{self, Cancel, Outcome, Sources};
use sino_init::guests::ready::Ready;
use sino_init::guests::xl::{Call, Domain, Failure, Kind, Shutdown, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

#[path = "fake-xl/lab.rs"]
mod lab;
use lab::{Lab, eventually, soon};

/// Long enough for anything that should work, on a busy machine, in ms.
const LONG: u64 = 60_000;

fn domain(lab: &Lab, name: &str) -> Option<Domain> {
    lab.xl.list(soon(LONG)).unwrap().into_iter().find(|domain| domain.name == name)
}

#[test]
fn a_guest_lives_and_every_call_is_logged() {
    let lab = Lab::new("");
    let config = lab.guest("two  words", "memory = 512\nvcpus = 3\ntype = 'pvh'");
    let json = lab.xl.dry_run(&config, soon(LONG)).unwrap();
    assert!(json.contains("\"name\": \"two  words\""), "{json}");
    assert!(lab.names().is_empty(), "a dry run makes nothing");
    lab.xl.create(&config, soon(LONG)).unwrap();
    let made = domain(&lab, "two  words").unwrap();
    assert_eq!((made.id, made.memory_mib, made.vcpus), (1, 512, 3));
    assert!(made.state.unwrap().is_up() && made.uuid.is_some() && made.cpu_time.is_some());
    lab.xl.reboot("two  words", false, soon(LONG)).unwrap();
    assert_eq!(domain(&lab, "two  words").unwrap().id, 2, "a rebooted guest has another number");
    let again = lab.xl.create(&config, soon(LONG)).unwrap_err();
    assert!(again.to_string().contains("already exists") && again.advice.contains("xl list"), "{again}");
    lab.xl.destroy(&domain(&lab, "two  words").unwrap(), soon(LONG)).unwrap();
    let gone = lab.xl.destroy("two  words", soon(LONG)).unwrap_err();
    assert!(gone.no_such_domain() && gone.kind == Kind::Status(1), "{gone}");
    assert!(lab.xl.info(soon(LONG)).unwrap().contains("\nfree_memory "));
    assert!(lab.xl.console_ring(soon(LONG)).unwrap().starts_with("(XEN) "));
    let calls = lab.calls();
    let ended = calls.iter().filter(|call| call.code.is_some());
    assert_eq!(ended.clone().count() * 2, calls.len(), "each call has begun and ended: {calls:?}");
    assert!(ended.clone().all(|call| call.ended.unwrap() >= call.began));
    let destroys: Vec<_> = ended.filter(|call| call.arguments[0] == "destroy").collect();
    assert_eq!(destroys[0].arguments[1], "2");
    assert_eq!((destroys[0].code, destroys[1].code), (Some(0), Some(1)));
}

#[test]
fn a_failure_says_why_and_another_try_may_work() {
    let lab = Lab::new("[guest.web.create]\nms = 50\nfail_first = 2");
    let config = lab.guest("web", "");
    for _ in 0..2 {
        let failure = lab.xl.create(&config, soon(LONG)).unwrap_err();
        assert_eq!(failure.kind, Kind::Status(3));
        assert_eq!(failure.said, ["libxl: error: Domain 5:unable to add disk devices"]);
        assert!(failure.advice.contains("disks") && failure.took >= Duration::from_millis(50));
        assert!(!failure.may_leave_a_domain() && lab.names().is_empty());
    }
    lab.xl.create(&config, soon(LONG)).unwrap();
    assert_eq!(lab.names(), ["web"]);
    let bad = lab.guest("bad", "this is no line of xl's");
    let failure = lab.xl.create(&bad, soon(LONG)).unwrap_err();
    assert!(failure.to_string().contains("bad.cfg:2: config parsing error"), "{failure}");
    let failure = lab.xl.create(&lab.path("none.cfg"), soon(LONG)).unwrap_err();
    assert!(failure.to_string().contains("Failed to read config file"), "{failure}");
}

#[test]
fn a_call_that_hangs_is_gone_at_its_deadline_with_all_that_it_started() {
    let lab = Lab::new("[guest.web.create]\nhang = true\nchildren = 3\n[guest.db]\ndaemon = true");
    lab.xl.create(&lab.guest("db", ""), soon(LONG)).unwrap();
    let began = Instant::now();
    let config = lab.guest("web", "");
    let failure = lab.xl.create(&config, soon(1500)).unwrap_err();
    assert_eq!(failure.kind, Kind::Deadline);
    assert!(began.elapsed() < Duration::from_secs(20) && began.elapsed() >= Duration::from_millis(1400));
    assert!(failure.to_string().contains("xl destroy NAME") && failure.may_leave_a_domain(), "{failure}");
    eventually("no process is left of the call", || lab.processes().is_empty());
    // What it had done stays, and is seen and can be cleared away.
    assert!(domain(&lab, "web").unwrap().state.unwrap().paused);
    lab.xl.destroy("web", soon(LONG)).unwrap();
    assert!(lab.daemon("db").is_some(), "the other guest's daemon lives");
    lab.xl.destroy("db", soon(LONG)).unwrap();
    eventually("the daemon has ended", || lab.daemon("db").is_none());
    // Cancelled instead: the same.
    let (sender, receiver) = channel();
    let job = lab.xl.start(Call::Create(config), soon(LONG), move |end| sender.send(end).unwrap()).unwrap();
    eventually("the call hangs", || lab.processes().len() == 4);
    job.cancel();
    let failure = receiver.recv_timeout(Duration::from_secs(20)).unwrap().unwrap_err();
    assert_eq!(failure.kind, Kind::Cancelled);
    eventually("no process is left of the call", || lab.processes().is_empty());
}

#[test]
fn the_daemon_of_a_domain_outlives_the_call_in_a_session_of_its_own() {
    let lab = Lab::new("[guest.web]\ndaemon = true");
    lab.xl.create(&lab.guest("web", ""), soon(LONG)).unwrap();
    eventually("the daemon runs", || lab.daemon("web").is_some());
    let pid = Pid::from_raw(lab.daemon("web").unwrap()).unwrap();
    assert_eq!(getsid(Some(pid)).unwrap(), pid);
    assert!(test_kill_process(pid).is_ok());
    lab.xl.destroy("web", soon(LONG)).unwrap();
    eventually("the daemon has ended", || lab.daemon("web").is_none());
}

#[test]
fn a_lie_is_found_out_and_the_truth_too() {
    let lab = Lab::new("[guest.web.create]\nlie = true\n[guest.slow.create]\nms = 700");
    lab.xl.create(&lab.guest("web", ""), soon(LONG)).unwrap();
    let probe = |name: &str, ms| {
        let xl = lab.xl.clone();
        let list = Box::new(move |deadline| xl.list(deadline));
        let mut sources = Sources { domains: Some((Target::from(name), list)), ..Sources::default() };
        probe::wait(&Ready::Running, &mut sources, soon(ms), &Cancel::new().unwrap())
    };
    let outcome = probe("web", 800);
    assert!(matches!(&outcome, Outcome::NotReady(seen) if seen.contains("no such domain")), "{outcome}");
    let (sender, receiver) = channel();
    let config = lab.guest("slow", "");
    lab.xl.start(Call::Create(config), soon(LONG), move |end| sender.send(end.map(drop)).unwrap()).unwrap();
    assert_eq!(probe("slow", LONG), Outcome::Ready);
    assert!(domain(&lab, "slow").unwrap().state.unwrap().is_up());
    receiver.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
}

#[test]
fn garbage_and_floods_are_errors_only_where_the_output_matters() {
    let lab = Lab::new("[guest.odd.create]\ngarbage = true\n[guest.huge.create]\nhuge = 3000000");
    lab.xl.create(&lab.guest("odd", ""), soon(LONG)).unwrap();
    let finished = lab.xl.create(&lab.guest("huge", ""), soon(LONG)).unwrap();
    assert!(finished.stdout.left_out > 2_000_000 && finished.stdout.bytes().len() < 100_000);
    assert_eq!(lab.names(), ["huge", "odd"]);

    let told = |script: &str| Lab::new(script).xl.list(soon(LONG)).unwrap_err();
    let failure = told("[command.list]\ngarbage = true\n[command.'list -l']\nlie = true");
    assert!(matches!(&failure.kind, Kind::Unreadable(why) if why.contains("and with -l")), "{failure}");
    assert!(failure.to_string().chars().all(|c| !c.is_control()), "{failure:?}");
    let failure = told("[command.list]\nlie = true\n[command.'list -l']\nhuge = 9000000");
    assert!(failure.to_string().contains("more than 4 MiB"), "{failure}");
    let failure = told("[command.list]\nfail_first = 1\ncode = 1\ntext = 'libxl_list_domain failed.'");
    assert!(failure.advice.contains("under Xen"), "{failure}");
    let lab = Lab::new("[command.info]\nlie = true\n[command.dmesg]\nhang = true");
    assert!(matches!(lab.xl.info(soon(LONG)).unwrap_err().kind, Kind::Unreadable(_)));
    assert_eq!(lab.xl.console_ring(soon(300)).unwrap_err().kind, Kind::Deadline);
}

#[test]
fn names_that_spoil_the_table_are_read_from_the_json() {
    let lab = Lab::new("[command.list]\ngarbage = true");
    lab.xl.create(&lab.guest("web", "memory = 256"), soon(LONG)).unwrap();
    let found = domain(&lab, "web").unwrap();
    assert_eq!((found.id, found.memory_mib, found.state), (1, 256, None));
}

#[test]
fn a_guest_shuts_down_late_never_or_only_by_its_button() {
    let lab = Lab::new(
        "[guest.late]\nobeys_after = 400\n[guest.deaf]\nignores = true\n[guest.hvm]\nno_pv = true\n\
         [guest.stuck.shutdown]\nhang = true",
    );
    for name in ["late", "deaf", "hvm", "stuck"] {
        lab.xl.create(&lab.guest(name, ""), soon(LONG)).unwrap();
    }
    lab.xl.shutdown("late", false, soon(LONG)).unwrap();
    lab.xl.shutdown("deaf", false, soon(LONG)).unwrap();
    let failure = lab.xl.shutdown("hvm", false, soon(LONG)).unwrap_err();
    assert!(failure.no_pv_drivers() && failure.advice.contains("ACPI"), "{failure}");
    assert_eq!(lab.xl.shutdown("stuck", true, soon(500)).unwrap_err().kind, Kind::Deadline);
    eventually("late has gone", || lab.names() == ["deaf", "hvm", "stuck"]);
    lab.xl.shutdown("hvm", true, soon(LONG)).unwrap();
    lab.xl.destroy("stuck", soon(LONG)).unwrap();
    assert_eq!(lab.names(), ["deaf"]);
}

#[test]
fn a_saved_state_is_whole_or_not_there() {
    let lab = Lab::new(
        "[guest.full.save]\nfail_first = 1\ncode = 1\ntext = 'Failed to save domain, resuming domain'\n\
         [guest.stuck.save]\nhang = true",
    );
    for name in ["web", "full", "stuck"] {
        lab.xl.create(&lab.guest(name, "memory = 300"), soon(LONG)).unwrap();
    }
    let files = || {
        let mut names: Vec<String> = fs::read_dir(lab.place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("state-of"))
            .collect();
        names.sort();
        names
    };
    let failure = lab.xl.save("full", &lab.path("state-of-full"), soon(LONG)).unwrap_err();
    assert!(failure.to_string().contains("resuming domain"), "{failure}");
    let failure = lab.xl.save("stuck", &lab.path("state-of-stuck"), soon(500)).unwrap_err();
    assert!(failure.kind == Kind::Deadline && failure.may_leave_a_domain());
    assert!(files().is_empty(), "{:?}", files());
    lab.xl.save("web", &lab.path("state-of-web"), soon(LONG)).unwrap();
    assert_eq!(files(), ["state-of-web"]);
    assert_eq!(lab.names(), ["full", "stuck"]);
    lab.xl.restore(&lab.path("state-of-web"), soon(LONG)).unwrap();
    assert_eq!(domain(&lab, "web").unwrap().memory_mib, 300);
    fs::write(lab.path("cut"), b"Xen saved").unwrap();
    let failure = lab.xl.restore(&lab.path("cut"), soon(LONG)).unwrap_err();
    assert!(failure.advice.contains("start the guest anew"), "{failure}");
}

#[test]
fn crashes_are_seen() {
    let lab = Lab::new("[guest.kept]\ncrash_after = 200\npreserve = true\n[guest.gone]\ncrash_after = 200");
    for name in ["kept", "gone"] {
        lab.xl.create(&lab.guest(name, ""), soon(LONG)).unwrap();
    }
    eventually("the one without preserve is gone", || lab.names() == ["kept"]);
    eventually("the other is seen as crashed", || {
        domain(&lab, "kept").unwrap().state.unwrap().shutdown == Some(Shutdown::Crash)
    });
}

#[test]
fn many_calls_at_once_each_tell_their_end_once() {
    const GUESTS: usize = 40;
    const FIT: usize = 30;
    let lab = Lab::new(&format!("memory_mib = {}", FIT * 100));
    let (sender, receiver) = channel::<(usize, Result<(), Failure>)>();
    for number in 0..GUESTS {
        let config = lab.guest(&format!("guest {number}"), "memory = 100");
        let sender = sender.clone();
        let done = move |end: Result<_, _>| sender.send((number, end.map(drop))).unwrap();
        lab.xl.start(Call::Create(config), soon(LONG), done).unwrap();
    }
    drop(sender);
    let mut ends: Vec<_> = receiver.iter().collect();
    ends.sort_by_key(|(number, _)| *number);
    assert!(ends.iter().map(|(number, _)| *number).eq(0..GUESTS), "each once");
    let failures: Vec<_> = ends.iter().filter_map(|(_, end)| end.as_ref().err()).collect();
    assert_eq!(failures.len(), GUESTS - FIT);
    assert!(failures.iter().all(|failure| failure.said == ["failed to free memory for the domain"]));
    let domains = lab.xl.list(soon(LONG)).unwrap();
    let ids: std::collections::BTreeSet<u32> = domains.iter().map(|domain| domain.id).collect();
    assert_eq!((domains.len(), ids.len()), (FIT + 1, FIT + 1), "numbers differ");
    let (sender, receiver) = channel();
    lab.xl.start_list(soon(LONG), move |list| sender.send(list).unwrap()).unwrap();
    assert_eq!(receiver.recv_timeout(Duration::from_secs(20)).unwrap().unwrap().len(), FIT + 1);
}

#[test]
fn all_files_are_tried_two_at_a_time_each_with_its_deadline() {
    let lab = Lab::new(
        "[guest.slow.dry_run]\nms = 300\n[guest.slow2.dry_run]\nms = 300\n[guest.stuck.dry_run]\nhang = true\nchildren = 1\n\
         [guest.odd.dry_run]\ngarbage = true\n[guest.no.dry_run]\nfail_first = 1\ncode = 1\ntext = \"\\u001b[31mno such key\\n\"",
    );
    let mut files: Vec<_> = ["slow", "slow2", "stuck", "good", "odd", "no"].map(|name| lab.guest(name, "")).into();
    files.push(lab.guest("bad", "this is no line of xl's"));
    let began = Instant::now();
    let results = lab.xl.dry_runs(&files, Duration::from_secs(5));
    assert!(began.elapsed() < Duration::from_secs(60));
    let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
    // Garbage is still an answer: only what xl says of the file counts.
    assert_eq!(good, [true, true, false, true, true, false, false], "{results:?}");
    assert_eq!(results[2].as_ref().unwrap_err().kind, Kind::Deadline);
    assert_eq!(results[5].as_ref().unwrap_err().said, ["no such key"]);
    assert!(results[6].as_ref().unwrap_err().to_string().contains("bad.cfg:2"), "{results:?}");
    assert!(lab.names().is_empty(), "nothing is made");
    let calls = lab.calls();
    let mut spans: Vec<_> = calls.iter().filter_map(|call| Some((call.began, call.ended?))).collect();
    spans.sort_unstable();
    let most = spans.iter().map(|(at, _)| spans.iter().filter(|(from, to)| from <= at && at < to).count()).max();
    assert!(most <= Some(2), "{spans:?}");
    assert!(lab.xl.dry_runs(&[], Duration::from_secs(5)).is_empty());
}

#[test]
fn a_check_tells_what_xl_says_of_each_file_or_why_it_was_not_asked() {
    let lab = Lab::new(
        "[guest.no.dry_run]\nfail_first = 9\ncode = 1\ntext = 'no such key'\n[guest.stuck.dry_run]\nhang = true",
    );
    // Kernels are looked for below a root that has none of them.
    let files = ["good", "no", "stuck"].map(|name| lab.guest(name, "kernel = '/vmlinuz'\nmemory = 64"));
    fs::write(lab.path("vmlinuz"), "").unwrap();
    let given = || check::given(lab.place.path(), &files, &[], &BTreeSet::new(), &BTreeMap::new(), &[]);
    let mut checked = given();
    assert!(!checked.wrong(), "{checked:?}");
    checked.ask(Ok(lab.xl.clone()), Duration::from_secs(2));
    let text = check::text(&checked);
    assert!(
        checked.wrong() && text.contains("(good): ok\n") && text.contains("(no): wrong\n  xl: no such key\n"),
        "{text}"
    );
    assert!(
        text.contains("(stuck): wrong\n  xl: no answer after 2 s") && text.ends_with("3 files, 2 wrong\n"),
        "{text}"
    );
    let hangs = Lab::new("[command.list]\nhang = true");
    let mut checked = given();
    checked.ask(Ok(hangs.xl.clone()), Duration::from_millis(300));
    assert!(!checked.wrong() && check::text(&checked).contains("xl was not asked: "), "{checked:?}");
    let plain = Lab::new("[command.list]\nfail_first = 1\ncode = 1\ntext = 'libxl_list_domain failed.'");
    let mut checked = given();
    checked.ask(Ok(plain.xl.clone()), Duration::from_secs(20));
    assert!(!checked.wrong() && check::text(&checked).contains("under Xen"), "{checked:?}");
}
