use super::*;
use crate::storage::fake::{Fake, file, root};
use crate::storage::lvm::Volume;

fn group(active: bool) -> Group {
    let volume = Volume { name: "xvol".into(), size: 1 << 30, active };
    Group { name: "xvg".into(), uuid: Some("u".into()), volumes: vec![volume], ..Group::default() }
}

/// `/srv` from a volume whose content is `bytes` long and of this type.
fn brought_up(fake: &Fake, active: bool, mountinfo: &str) -> Srv {
    let root = root();
    file(root.path(), "dev/xvg/xvol", "");
    file(root.path(), "proc/self/mountinfo", mountinfo);
    attempt(Host::new(fake, root.path().to_str().unwrap()), &schema::Storage::default(), &group(active), &|_| ())
}

fn ext(code: i32, said: &str) -> Fake {
    Fake::default().answer("blkid", 0, "TYPE=ext4\nUSAGE=filesystem\n", "").answer("e2fsck -p -C 1", code, said, "")
}

#[test]
fn a_sound_file_system_is_checked_and_mounted_for_writing() {
    let fake = ext(0, "x: clean, 11/64 files\n");
    let srv = brought_up(&fake, true, "");
    assert_eq!((srv.state, srv.fs.as_str(), srv.note.as_str()), (State::Mounted, "ext4", ""));
    let log = fake.log.borrow();
    assert!(log[2].starts_with("mount ext4 ") && log[2].ends_with("/dev/xvg/xvol rw,errors=remount-ro"), "{log:?}");
    assert_eq!(log.len(), 3);
}

#[test]
fn what_was_corrected_is_said() {
    let srv = brought_up(&ext(1, "x: Inode 12 has zero dtime.  FIXED.\n"), true, "");
    assert!(srv.state == State::Mounted && srv.note.contains("FIXED"), "{srv:?}");
}

#[test]
fn errors_that_are_left_make_it_read_only_with_the_command_for_the_administrator() {
    let fake = ext(4, "x: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n");
    let srv = brought_up(&fake, true, "");
    assert_eq!(srv.state, State::ReadOnly);
    assert!(srv.problems[0].todo.contains("e2fsck -f /dev/xvg/xvol"), "{srv:?}");
    assert!(fake.executed("xvol ro") && !fake.executed(" rw,") && !fake.executed("-y"), "{:?}", fake.log);
}

#[test]
fn a_journal_that_cannot_be_replayed_is_left_out_and_said() {
    let mut fake = ext(8, "x: Journal checksum error\n");
    fake.refused = vec![("ro,noload", ""), ("ro", "EUCLEAN (bad journal)")];
    fake.refused.remove(0);
    let srv = brought_up(&fake, true, "");
    assert_eq!(srv.state, State::Failed, "every way is refused: {srv:?}");
    assert!(fake.executed("ro,noload"));
    assert!(srv.problems[0].what.contains("bad journal"), "{srv:?}");
    assert!(srv.outcome().unwrap_err().cause().contains("cannot be mounted"));
}

#[test]
fn a_mount_that_is_refused_falls_back_to_read_only() {
    let mut fake = ext(0, "");
    fake.refused = vec![("rw", "EROFS (device is read-only)")];
    let srv = brought_up(&fake, true, "");
    assert_eq!(srv.state, State::ReadOnly);
    assert!(srv.problems[0].what.contains("device is read-only"), "{srv:?}");
}

#[test]
fn xfs_replays_its_log_by_mounting_and_is_not_repaired() {
    let xfs = || Fake::default().answer("blkid", 0, "TYPE=xfs\n", "");
    let fake = xfs();
    assert_eq!(brought_up(&fake, true, "").state, State::Mounted);
    assert!(fake.executed("mount xfs") && !fake.executed("e2fsck"));
    let mut fake = xfs();
    fake.refused = vec![("rw", "EUCLEAN (log mount failed)")];
    let srv = brought_up(&fake, true, "");
    assert_eq!(srv.state, State::ReadOnly);
    assert!(srv.problems[0].todo.contains("xfs_repair -n /dev/xvg/xvol"), "{srv:?}");
}

#[test]
fn a_volume_without_a_file_system_is_not_touched() {
    let fake = Fake::default().answer("blkid", 2, "", "");
    let srv = brought_up(&fake, true, "");
    assert_eq!(srv.state, State::Failed);
    assert!(srv.problems[0].todo.contains("mkfs.ext4 /dev/xvg/xvol"), "{srv:?}");
    assert!(!fake.executed("mount"));
    let srv = brought_up(&Fake::default().answer("blkid", 0, "TYPE=crypto_LUKS\n", ""), true, "");
    assert!(srv.problems[0].what.contains("crypto_LUKS"), "{srv:?}");
}

#[test]
fn what_is_mounted_is_kept_and_what_is_not_there_is_no_fault() {
    let fake = Fake::default();
    let line = "36 35 253:0 / /srv rw,relatime - ext4 /dev/mapper/xvg-xvol rw\n";
    let srv = brought_up(&fake, true, line);
    assert_eq!((srv.state, srv.device.as_str()), (State::Mounted, "/dev/mapper/xvg-xvol"));
    assert!(fake.log.borrow().is_empty());
    let none = Group { name: "xvg".into(), ..Group::default() };
    let root = root();
    let srv = attempt(Host::new(&fake, root.path().to_str().unwrap()), &schema::Storage::default(), &none, &|_| ());
    assert_eq!(srv.state, State::Absent);
    assert!(srv.outcome().is_ok());
    let off = brought_up(&fake, false, "");
    assert!(off.problems[0].what.contains("is not active"), "{off:?}");
}
