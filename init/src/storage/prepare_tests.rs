use super::*;
use crate::storage::fake::{Fake, file, root};
use std::path::Path;

const NO_GROUPS: &str = "{\"report\": [ ]}";
const SIGNATURES: &str = "# type,offset,label\next4,0x438,old data\n";

fn answers(signatures: &'static str) -> Fake {
    Fake::default()
        .answer("wipefs --no-act", 0, signatures, "")
        .answer("lvm fullreport", 0, NO_GROUPS, "")
        .answer("echo", 0, "", "")
        .answer("wipefs --all", 0, "", "")
        .answer("udevadm", 1, "", "no udev")
        .answer("lvm", 0, "", "")
        .answer("mk", 0, "", "")
}

/// A disk of 64 GiB whose first MiB is zeros.
fn disk(root: &Path) {
    file(root, "dev/sdb", "");
    File::options().write(true).open(root.join("dev/sdb")).unwrap().set_len(4 << 20).unwrap();
    file(root, "sys/class/block/sdb/size", &format!("{}\n", 64_u64 << 21));
    file(root, "sys/class/block/sdb/dev", "8:16\n");
}

fn run(fake: &Fake, root: &Path, request: &Request, typed: Option<&str>) -> Result<Plan> {
    let ask = |_: &str| Ok(typed.map(str::to_owned));
    let host = Host::new(fake, root.to_str().unwrap());
    prepare(host, &schema::Storage::default(), request, &ask, &mut |_| ())
}

fn request(erase: Option<&str>, yes: bool) -> Request {
    Request { disk: "/dev/sdb".into(), erase: erase.map(str::to_owned), yes, ..Request::default() }
}

/// Whether a command that writes was executed.
fn wrote(fake: &Fake) -> bool {
    ["echo", "wipefs --all", "lvm pv", "lvm vgc", "mk"].iter().any(|part| fake.executed(part))
}

#[test]
fn an_empty_disk_is_prepared_after_a_yes_only() {
    let root = root();
    disk(root.path());
    for (yes, typed, right) in
        [(true, None, true), (false, Some("yes\n"), true), (false, Some("y"), false), (false, None, false)]
    {
        let fake = answers("");
        let result = run(&fake, root.path(), &request(None, yes), typed);
        assert_eq!((result.is_ok(), wrote(&fake)), (right, right), "{yes} {typed:?} {result:?}");
        assert!(!fake.executed("wipefs --all"));
    }
}

#[test]
fn a_disk_that_holds_something_is_prepared_only_when_its_name_is_typed() {
    let root = root();
    disk(root.path());
    let cases = [
        (None, Some("sdb"), false),
        (Some(""), Some("sdb\n"), true),
        (Some(""), Some("yes"), false),
        (Some(""), Some("/dev/sdb"), false),
        (Some(""), None, false),
        (Some("sdb"), None, true),
        (Some("sda"), None, false),
    ];
    for (erase, typed, right) in cases {
        let fake = answers(SIGNATURES);
        let result = run(&fake, root.path(), &request(erase, true), typed);
        assert_eq!((result.is_ok(), wrote(&fake)), (right, right), "{erase:?} {typed:?} {result:?}");
        assert_eq!(fake.executed("wipefs --all"), right);
    }
    let error = run(&answers(SIGNATURES), root.path(), &request(None, true), None).unwrap_err().to_string();
    assert!(error.contains("ext4 \"old data\"") && error.contains("--erase=sdb"), "{error}");
}

#[test]
fn data_without_a_signature_counts_as_something() {
    let root = root();
    disk(root.path());
    File::options().write(true).open(root.path().join("dev/sdb")).unwrap().write_all_at(b"x", 70_000).unwrap();
    let fake = answers("");
    let error = run(&fake, root.path(), &request(None, true), None).unwrap_err().to_string();
    assert!(error.contains("may be encrypted") && !wrote(&fake), "{error}");
}

#[test]
fn the_boot_medium_and_a_disk_in_use_are_refused_whatever_is_typed() {
    let uses: [(&str, &str, &str); 5] = [
        ("run/sino/boot.json", "{\"format\":1,\"medium\":{\"device\":\"sdb\"}}", "was booted from it"),
        ("proc/self/mountinfo", "9 1 8:16 / /mnt rw - ext4 /dev/sdb rw\n", "mounted on /mnt"),
        ("sys/class/block/sdb/holders/dm-3", "", "used by dm-3"),
        ("sys/class/block/sdb/ro", "1\n", "read-only"),
        ("run/sino/boot.json", "{", "which disk is the boot medium"),
    ];
    for (path, text, words) in uses {
        let root = root();
        disk(root.path());
        file(root.path(), path, text);
        let fake = answers(SIGNATURES);
        let error = format!("{:#}", run(&fake, root.path(), &request(Some("sdb"), true), Some("sdb")).unwrap_err());
        assert!(error.contains(words) && !wrote(&fake), "{words}: {error}");
    }
    let root = root();
    disk(root.path());
    let line = format!("Filename\n{}/dev/sdb partition 1 0 -2\n", root.path().display());
    file(root.path(), "proc/swaps", &line.replace(root.path().to_str().unwrap(), ""));
    let fake = answers(SIGNATURES);
    assert!(run(&fake, root.path(), &request(Some("sdb"), true), None).is_err() && !wrote(&fake));
}

#[test]
fn a_group_of_that_name_or_something_that_is_no_disk_is_refused() {
    let root = root();
    disk(root.path());
    let fake = Fake::default().answer("wipefs", 0, "", "").answer(
        "lvm fullreport",
        0,
        include_str!("fixtures/plain.json"),
        "",
    );
    let error = run(&fake, root.path(), &request(None, true), None).unwrap_err().to_string();
    assert!(error.contains("vgextend xvg /dev/sdb") && error.contains("/dev/loop2, /dev/loop3"), "{error}");
    for path in ["/dev/none", "/etc/passwd", "sdb"] {
        let request = Request { disk: path.into(), ..request(Some("sdb"), true) };
        assert!(run(&answers(""), root.path(), &request, None).is_err(), "{path}");
    }
}

#[test]
fn a_failure_in_the_middle_says_what_was_done_and_what_is_left() {
    let root = root();
    disk(root.path());
    let fake = Fake::default()
        .answer("wipefs", 0, "", "")
        .answer("lvm fullreport", 0, NO_GROUPS, "")
        .answer("echo", 0, "", "")
        .answer("udevadm", 0, "", "")
        .answer("lvm pvcreate", 0, "", "")
        .answer("lvm vgcreate", 5, "", "  /run/lock/lvm: no space left\n");
    let error = run(&fake, root.path(), &request(None, true), None).unwrap_err().to_string();
    let (done, left) = error.split_once("left to do").unwrap();
    assert!(done.contains("no space left") && done.contains("pvcreate --yes /dev/sdb1"), "{error}");
    assert!(
        left.contains("lvm vgcreate xvg /dev/sdb1") && left.contains("mkfs.ext4") && left.ends_with("srv start"),
        "{error}"
    );
}

#[test]
fn a_group_that_would_be_lost_is_named_with_its_volumes_before_the_question() {
    let root = root();
    disk(root.path());
    file(root.path(), "dev/sdb1", "");
    file(root.path(), "sys/class/block/sdb/sdb1/partition", "1\n");
    let report = include_str!("fixtures/plain.json").replace("\"xvg\"", "\"old\"").replace("/dev/loop2", "/dev/sdb1");
    let fake =
        Fake::default().answer("wipefs", 0, "", "").answer("lvm fullreport", 0, Box::leak(report.into_boxed_str()), "");
    let lines = std::cell::RefCell::new(Vec::new());
    let asked = |question: &str| {
        lines.borrow_mut().push(question.to_owned());
        Ok(None)
    };
    let host = Host::new(&fake, root.path().to_str().unwrap());
    let mut say = |line: &str| lines.borrow_mut().push(line.to_owned());
    prepare(host, &schema::Storage::default(), &request(Some(""), false), &asked, &mut say).unwrap_err();
    let lines = lines.into_inner();
    let lost = "THIS WILL BE LOST: the volume group old with the volumes guest1, swap, xvol; 1 more of its disks will miss this one";
    assert!(lines.iter().any(|line| line == lost), "{lines:?}");
    assert!(lines.last().unwrap().starts_with("type the disk's name"), "{lines:?}");
}
