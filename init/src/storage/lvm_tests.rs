use super::*;
use crate::storage::fake::{Fake, file, root};

const PLAIN: &str = include_str!("fixtures/plain.json");

/// Activates with this report; `nodes` are the devices that there are afterwards.
fn activated(report: &str, warnings: &str, vgchange: (i32, &str), nodes: &[&str]) -> (Group, Fake) {
    let fake = Fake::default()
        .answer("lvm fullreport", 0, report, warnings)
        .answer("lvm vgchange", vgchange.0, "", vgchange.1)
        .answer("lvm vgmknodes", 0, "", "")
        .answer("lvm vgs", 0, "", "")
        .answer("udevadm settle", 0, "", "");
    let root = root();
    for node in nodes {
        file(root.path(), &format!("dev/{node}"), "");
    }
    let settings = schema::Storage::default();
    let group = attempt(Host::new(&fake, root.path().to_str().unwrap()), &settings).unwrap().0;
    (group, fake)
}

fn only(group: &Group) -> &Problem {
    let [problem] = group.problems.as_slice() else { panic!("{:?}", group.problems) };
    problem
}

#[test]
fn a_whole_group_is_activated_by_its_uuid_and_its_devices_are_there() {
    let (group, fake) = activated(PLAIN, "", (0, ""), &["xvg/guest1", "xvg/swap", "xvg/xvol"]);
    assert_eq!(group.problems, []);
    assert!(group.volumes.iter().all(|volume| volume.active) && group.volumes.len() == 3, "{group:?}");
    assert!(fake.executed("vgchange -ay --select vg_uuid=FmXyA8-3Dd3-pvcR-vyrL-teYy-NWma-n21t25"));
    assert!(!fake.executed("udevadm"), "nothing is left to wait for");
}

#[test]
fn no_group_is_no_fault_and_nothing_is_activated() {
    let (group, fake) = activated("{\"report\": [ ]}", "", (0, ""), &[]);
    assert_eq!((group.uuid, group.problems), (None, vec![]));
    assert!(!fake.executed("vgchange"));
}

#[test]
fn active_volumes_are_kept_without_another_activation() {
    let report = PLAIN.replace("-wi-XX----", "-wi-a-----");
    let (group, fake) = activated(&report, "", (0, ""), &["xvg/guest1", "xvg/swap", "xvg/xvol"]);
    assert!(group.problems.is_empty() && !fake.executed("vgchange"));
}

#[test]
fn a_missing_disk_leaves_off_only_what_needs_it_and_names_it() {
    let report = include_str!("fixtures/missing.json");
    let (group, _) =
        activated(report, "", (5, "Refusing activation of partial LV xvg/guest1."), &["xvg/swap", "xvg/xvol"]);
    let problem = only(&group);
    assert!(problem.what.contains("1 of 2 disks") && problem.what.ends_with("; off: guest1"), "{problem}");
    assert!(problem.todo.contains("vgreduce --removemissing xvg"), "{problem}");
    assert!(group.volume("xvol").unwrap().active && !group.volume("guest1").unwrap().active);
}

#[test]
fn a_mirror_that_runs_without_its_missing_half_is_not_called_off() {
    let report = include_str!("fixtures/missing.json").replace("\"linear\"", "\"raid,raid1\"");
    let (group, _) = activated(&report, "", (0, ""), &["xvg/guest1", "xvg/swap", "xvg/xvol"]);
    let problem = only(&group);
    assert!(problem.what.ends_with("no volume is off; on, with a part missing: guest1"), "{problem}");
}

#[test]
fn two_groups_of_one_name_are_named_and_none_is_taken_when_both_are_built_in() {
    let (group, fake) =
        activated(include_str!("fixtures/twins.json"), include_str!("fixtures/twins.err"), (0, ""), &[]);
    assert_eq!(group.uuid, None);
    let problem = only(&group);
    for part in ["yi2Tl4-KNiY-dwdU-wZCP-dyKz-NsEo-JTRJba on /dev/loop5", "FmXyA8-", "/dev/loop2, /dev/loop3"] {
        assert!(problem.what.contains(part), "{part}: {problem}");
    }
    assert!(problem.todo.contains("vgrename UUID") && !fake.executed("vgchange"), "{problem}");
}

#[test]
fn of_two_groups_of_one_name_the_one_on_built_in_disks_is_taken() {
    let fake = Fake::default()
        .answer("lvm fullreport", 0, include_str!("fixtures/twins.json"), "")
        .answer("lvm vgchange", 0, "", "")
        .answer("lvm vgmknodes", 0, "", "")
        .answer("udevadm", 0, "", "");
    let root = root();
    file(root.path(), "sys/class/block/loop5/removable", "1\n");
    let host = Host::new(&fake, root.path().to_str().unwrap());
    let group = attempt(host, &schema::Storage::default()).unwrap().0;
    assert_eq!(group.uuid.as_deref(), Some("FmXyA8-3Dd3-pvcR-vyrL-teYy-NWma-n21t25"));
    assert!(fake.executed("--select vg_uuid=FmXyA8-3Dd3-pvcR-vyrL-teYy-NWma-n21t25"));
    assert!(group.problems[0].what.contains("not yi2Tl4-"), "{:?}", group.problems);
}

#[test]
fn a_copied_disk_is_named_with_its_original() {
    let report = include_str!("fixtures/duplicate-pv.json");
    let refusal = "Cannot activate LVs in VG xvg while PVs appear on duplicate devices.";
    let (group, _) = activated(report, include_str!("fixtures/duplicate-pv.err"), (5, refusal), &[]);
    let problem = &group.problems[0];
    assert!(problem.what.starts_with("/dev/loop7 is a copy of /dev/loop3"), "{problem}");
    assert!(problem.todo.contains("vgimportclone"), "{problem}");
    let off = &group.problems[1].what;
    assert!(off.starts_with("not active: xvg/guest1, xvg/swap, xvg/xvol: ") && off.ends_with(refusal), "{off}");
    assert_eq!(group.problems.len(), 2);
}

#[test]
fn exported_and_foreign_groups_are_left_alone_with_the_way_out() {
    let exported = include_str!("fixtures/exported.json").replace("\"other\"", "\"x\"").replace("\"xvg\"", "\"other\"");
    let (group, fake) = activated(&exported.replace("\"x\"", "\"xvg\""), "", (0, ""), &[]);
    assert!(only(&group).todo.contains("vgimport xvg") && !fake.executed("vgchange"), "{group:?}");
    let foreign = include_str!("fixtures/foreign.json").replace("\"other\"", "\"x\"").replace("\"xvg\"", "\"other\"");
    let (group, fake) = activated(&foreign.replace("\"x\"", "\"xvg\""), "", (0, ""), &[]);
    assert!(only(&group).what.contains("belongs to the system \"elsewhere\""), "{group:?}");
    assert!(!fake.executed("vgchange"));
}

#[test]
fn a_thin_volume_without_its_tool_is_named() {
    let report = PLAIN.replace("\"lv_name\":\"guest1\"", "\"lv_layout\":\"\", \"lv_name\":\"guest1\"");
    let report = report.replacen("\"lv_layout\":\"\", ", "", 1).replacen("\"linear\"", "\"thin,sparse\"", 1);
    let said = "/usr/sbin/thin_check: execvp failed: No such file or directory";
    let (group, _) = activated(&report, "", (5, said), &["xvg/swap", "xvg/xvol"]);
    let problem = only(&group);
    assert!(problem.what.contains("xvg/guest1 (thin)") && problem.what.contains("execvp"), "{problem}");
    assert!(problem.todo.contains("thin-provisioning-tools"), "{problem}");
}

#[test]
fn lvm_that_says_nothing_useful_is_a_fault() {
    let fake = Fake::default().answer("lvm fullreport", 5, "", "cannot open /run/lock/lvm");
    let root = root();
    let host = Host::new(&fake, root.path().to_str().unwrap());
    let fault = activate(host, &schema::Storage::default()).unwrap_err();
    assert!(fault.cause().contains("LVM's report"), "{}", fault.cause());
    let none = Fake::default();
    let fault = activate(Host::new(&none, root.path().to_str().unwrap()), &schema::Storage::default()).unwrap_err();
    assert!(fault.cause().contains("the program lvm is not installed"), "{}", fault.cause());
}
