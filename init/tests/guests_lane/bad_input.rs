//! What nobody should have put there, and what ends at the wrong moment: the rest starts, and nothing panics.

use crate::host::Host;
use std::os::unix::fs::symlink;

/// Two guests that have nothing wrong.
fn host(toml: &str) -> Host {
    let host = Host::new("", toml);
    for name in ["good", "other"] {
        host.guest(name, "");
    }
    host
}

fn lines<'a>(problems: &'a [String], of: &str) -> Vec<&'a String> {
    problems.iter().filter(|problem| problem.contains(of)).collect()
}

pub(crate) fn links() {
    let mut host = host("[guest.given]\nconfig = '/srv/guests/loop.cfg'\n");
    std::fs::create_dir(host.lab.path("srv/guests")).unwrap();
    for (target, link) in [
        ("../nowhere/gone.cfg", "srv/autostart/dangling.cfg"),
        ("loop.cfg", "srv/autostart/loop.cfg"),
        ("two.cfg", "srv/autostart/one.cfg"),
        ("one.cfg", "srv/autostart/two.cfg"),
        ("loop.cfg", "srv/guests/loop.cfg"),
        ("..", "srv/autostart/folder.cfg"),
        ("/dev/zero", "srv/autostart/zero.cfg"),
    ] {
        symlink(target, host.lab.path(link)).unwrap();
    }
    host.on();
    let state =
        host.until("the good ones run", |_| ["good", "other"].iter().all(|name| host.report(name).state == "ready"));
    for (file, why) in [
        ("autostart/dangling.cfg", "is a link to ../nowhere/gone.cfg, which does not exist"),
        ("autostart/loop.cfg", "Too many levels of symbolic links"),
        ("autostart/one.cfg", "Too many levels of symbolic links"),
        ("guests/loop.cfg", "Too many levels of symbolic links"),
        ("autostart/folder.cfg", "is a folder"),
        ("autostart/zero.cfg", "is no file"),
    ] {
        let told = lines(&state.problems, file);
        assert!(told.len() == 1 && told[0].contains(why), "{file}: {told:?}");
    }
    assert_eq!(host.report("given").state, "refused");
    assert!(!host.said().contains("panicked"), "{}", host.said());
}

pub(crate) fn tables() {
    // The first two lines are the host's.
    let toml = "[guest.good]\nready = \"xenstore \\u0000\\u0007\"\nafter = { a = 1 }\n\
        [guest.other]\norder = 1e300\nready_timeout = -5\nautostart = 'no'\nconfig = [\"\\u0000\"]\n\
        [guest.\"\\u0000bin\"]\nconfig = \"/srv/\\u0000x.cfg\"\n\
        [guests]\nparallel = 1979-05-27\n";
    let mut host = host(toml);
    host.on();
    host.until("the good ones run", |_| ["good", "other"].iter().all(|name| host.report(name).state == "ready"));
    let (_, said) = host.sino("sino guests");
    for place in [
        "/srv/sino/sino.toml:4:1: guest.good.ready: ",
        "/srv/sino/sino.toml:5:1: guest.good.after: ",
        "/srv/sino/sino.toml:7:1: guest.other.order: ",
        "/srv/sino/sino.toml:8:1: guest.other.ready_timeout: ",
        "/srv/sino/sino.toml:9:1: guest.other.autostart: ",
        "/srv/sino/sino.toml:10:1: guest.other.config: ",
        "/srv/sino/sino.toml:14:1: guests.parallel: ",
    ] {
        assert!(said.contains(place), "{place}\n{said}");
    }
    assert!(said.contains("/srv/sino/sino.toml:12:") || said.contains("/srv/sino/sino.toml:11:"), "{said}");
    assert!(!said.chars().any(|character| character.is_control() && character != '\n'), "{said:?}");
    assert!(!host.said().contains("panicked"), "{}", host.said());
}

pub(crate) fn no_toml() {
    for bytes in [&b"[guest.good]\norder = 1\n\0\xff\xfe"[..], b"\x7fELF\x02\x01\x01", b"[guest.good]\norder = = 1\n"] {
        let mut host = host("");
        host.file("srv/sino/sino.toml", bytes);
        host.on();
        let state = host.until_all(2, &["ready"]);
        let told = lines(&state.problems, "/srv/sino/sino.toml");
        assert!(told.len() == 1 && told[0].contains("nothing of this file is used"), "{told:?}");
        assert!(!host.said().contains("panicked"), "{}", host.said());
    }
}

pub(crate) fn xenstored_dies() {
    let script = "[guest.first.create]\nms = 1500\n";
    let mut host =
        Host::new(script, "[guests]\nparallel = 1\n[guest.second]\norder = 1\n[guest.third]\nafter = ['first']\n");
    for name in ["first", "second", "third"] {
        host.guest(name, "");
    }
    host.on();
    host.until("xl is at work", |_| host.calls("create").contains_key("first"));
    host.tell("kill xenstored");
    host.until("its death is told", |_| host.said().contains("xenstored DIED"));
    host.until("xl has ended", |_| host.calls("create")["first"][0].ended.is_some());
    assert!(!host.calls("create").contains_key("second"), "nothing is started without xenstored");
    host.tell("start xenstored");
    host.until_all(3, &["ready"]);
    assert!(host.calls("create").values().all(|calls| calls.len() == 1), "{:?}", host.calls("create"));
    assert!(!host.said().contains("panicked"), "{}", host.said());
}
