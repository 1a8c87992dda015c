//! Makes the disk with guests on it of the finished ISO and looks at it with tools of other hands.
//!
//! Needs root, the ISO and the guests' program, so it is not part of a plain `cargo test`: after `make iso`, run
//! `cargo test -p sino-image --test guests_disk` as root (make test does).

use sino_image::command;
use sino_image::guests::{Content, prepare_disk, show};
use sino_image::workspace::Workspace;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the workspace's builds, or where the variable says that it is.
fn file(variable: &str, place: &str) -> PathBuf {
    let workspace = Workspace::around(&std::env::current_dir().unwrap());
    let path = std::env::var_os(variable).map_or_else(|| workspace.resolve(Path::new(place)), PathBuf::from);
    assert!(path.is_file(), "{} is missing; run: make iso", path.display());
    path
}

fn text(command: &mut Command) -> String {
    String::from_utf8(command::run(command).unwrap()).unwrap()
}

#[test]
fn a_disk_with_guests_is_what_lvm_and_ext4_expect() {
    let iso = file("SINO_ISO", "target/sino/sino.iso");
    let payload = file("SINO_GUEST", "target/x86_64-unknown-linux-gnu/release/sino-guest");
    let place = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("SINO_GUESTS_DISK").map(PathBuf::from);
    let path = kept.unwrap_or_else(|| place.path().join("disk.img"));
    let network = Ipv4Addr::new(192, 0, 2, 0);
    let content = Content {
        iso: &iso,
        payload: &payload,
        guests: &show::four(network),
        configuration: &show::configuration(network),
        files: &[("/srv/notes/one.txt".into(), b"one".to_vec())],
        volumes: &[],
        srv_mib: 256,
    };
    prepare_disk(&path, 1024, &content).unwrap();
    // Nothing is left beside it, and it is sparse.
    assert_eq!(
        fs::read_dir(path.parent().unwrap()).unwrap().filter(|entry| entry.as_ref().unwrap().path() != path).count(),
        0
    );
    let table = text(Command::new("sfdisk").arg("--json").arg(&path));
    let table: serde_json::Value = serde_json::from_str(&table).unwrap();
    assert_eq!(table["partitiontable"]["partitions"][0]["start"], 2048);

    let lvm = |report: &str| {
        let device = text(Command::new("losetup").args(["--find", "--show", "--offset", "1048576"]).arg(&path));
        let device = device.trim();
        let config = format!("devices{{use_devicesfile=0 scan_lvs=0 filter=[\"a|^{device}$|\",\"r|.*|\"]}}");
        let mut command = Command::new("lvm");
        command.args(report.split(' ')).args(["--driverloaded", "n", "--noheadings", "--config", &config]);
        let said = text(command.env("LVM_SUPPRESS_FD_WARNINGS", "1"));
        text(Command::new("losetup").args(["--detach", device]));
        said
    };
    let volumes = lvm("lvs -o lv_name,lv_size,seg_start_pe,seg_pe_ranges --units m");
    for name in ["xvol", "swap", "alpha", "beta", "gamma", "delta"] {
        assert!(volumes.contains(&format!(" {name} ")), "{volumes}");
    }
    // The first volume begins after LVM's own 1 MiB in the partition.
    let srv = format!("{}?offset={}", path.display(), 2 << 20);
    command::run(Command::new("e2fsck").args(["-f", "-n"]).arg(&srv)).unwrap();
    let show = |file: &str| text(Command::new("debugfs").args(["-R", &format!("cat {file}")]).arg(&srv));
    assert_eq!(show("/sino/sino.toml"), show::configuration(network));
    assert!(show("/autostart/alpha.cfg").contains("/dev/xvg/alpha"));
    assert_eq!(show("/notes/one.txt"), "one");
    let kernel = text(Command::new("debugfs").args(["-R", "stat /guests/vmlinuz"]).arg(&srv));
    assert!(kernel.contains("User:     0"), "{kernel}");
}
