use super::*;
use crate::guests::xl_config::{self, GuestConfig};
use crate::storage::lvm::Volume;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};

/// A host in a folder. Block devices are empty files that are said to be some.
struct Played {
    folder: tempfile::TempDir,
    devices: HashMap<String, (u32, u32)>,
}

impl Files for Played {
    fn see(&self, path: &str) -> io::Result<Seen> {
        let seen = Root(self.folder.path().to_owned()).see(path)?;
        Ok(match self.devices.get(&seen.path) {
            Some((major, minor)) => Seen { kind: Kind::Block { major: *major, minor: *minor }, ..seen },
            None => seen,
        })
    }

    fn read(&self, path: &str) -> io::Result<String> {
        Root(self.folder.path().to_owned()).read(path)
    }

    fn list(&self, folder: &str) -> Vec<String> {
        Root(self.folder.path().to_owned()).list(folder)
    }
}

impl Played {
    fn put(&self, path: &str, text: &str, mode: u32) {
        let path = self.folder.path().join(&path[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// A host with volumes web, db, mail of xvg (dm-0 to dm-2), a bridge, a kernel, pygrub and an image.
fn host() -> Played {
    let mut played = Played { folder: tempfile::tempdir().unwrap(), devices: HashMap::new() };
    for (minor, name) in (0..).zip(["web", "db", "mail"]) {
        played.put(&format!("/dev/dm-{minor}"), "", 0o660);
        played.devices.insert(format!("/dev/dm-{minor}"), (253, minor));
        for link in [format!("xvg/{name}"), format!("mapper/xvg-{name}")] {
            let path = played.folder.path().join("dev").join(link);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(format!("../dm-{minor}"), path).unwrap();
        }
    }
    for link in ["xenbr0/bridge/x", "lan0/bridge/x", "enp3s0/address"] {
        played.put(&format!("/sys/class/net/{link}"), "", 0o444);
    }
    played.put("/srv/k", "kernel", 0o644);
    played.put("/srv/a.img", "image", 0o644);
    played.put("/usr/lib/xen-4.20/bin/pygrub", "#!", 0o755);
    played.put("/usr/lib/xen-4.20/bin/qemu-system-i386", "#!", 0o755);
    played.put("/usr/lib/xen-4.20/boot/pvgrub64.bin", "x", 0o644);
    played
}

fn groups() -> Vec<Group> {
    let volume = |name: &str, active| Volume { name: name.into(), active, ..Volume::default() };
    let volumes = vec![volume("web", true), volume("db", true), volume("mail", true), volume("o-ld", false)];
    vec![Group { name: "xvg".into(), volumes, ..Group::default() }]
}

fn config(name: &str, text: &str) -> GuestConfig {
    xl_config::read(format!("name = '{name}'\nkernel = '/srv/k'\n{text}\n").as_bytes(), "f").config
}

fn told(played: &Played, guests: &[(&str, &str)], running: &[Use]) -> Vec<String> {
    let configs: Vec<_> = guests.iter().map(|(name, text)| config(name.trim_end_matches('*'), text)).collect();
    let guests: Vec<_> = guests
        .iter()
        .zip(&configs)
        .map(|((name, _), config)| Candidate { name: name.trim_end_matches('*'), config, running: name.ends_with('*') })
        .collect();
    let problems = check(Host { files: played, groups: &groups() }, &guests, running);
    let mark = |problem: &Problem| if problem.refuse { "" } else { "odd: " };
    problems.iter().map(|problem| format!("{}{problem}", mark(problem))).collect()
}

#[test]
fn what_is_there_is_not_told() {
    let played = host();
    let guest =
        "disk = [ 'phy:xvg/web,xvda,w', 'file:/srv/a.img,xvdb,w', ',hdc:cdrom,r' ]\nvif = [ '', 'bridge=lan0' ]";
    assert_eq!(told(&played, &[("g", guest)], &[]), [""; 0]);
    assert_eq!(told(&played, &[("g", "bootloader = 'pygrub'\nkernel = '/vmlinuz'")], &[]), [""; 0]);
    let firmware = xl_config::read(b"name = 'g'\ntype = 'pvh'\nfirmware = 'pvgrub64'\n", "f").config;
    let guests = [Candidate { name: "g", config: &firmware, running: false }];
    assert_eq!(check(Host { files: &played, groups: &[] }, &guests, &[]), []);
    assert_eq!(told(&played, &[("g", "type = 'hvm'")], &[]), [""; 0]);
    assert_eq!(told(&played, &[("g", "builder = 'hvm'\nkernel = '/usr/lib/xen/boot/hvmloader'")], &[]), [""; 0]);
}

#[test]
fn what_is_missing_is_named() {
    let played = host();
    played.put("/dev/xvg/stray", "", 0o660);
    played.put("/srv/ro.img", "", 0o444);
    played.put("/sys/dev/block/253:2/ro", "1\n", 0o444);
    for (text, expected) in [
        (
            "disk = [ 'phy:xvg/gone,xvda,w' ]",
            "g (line 3): disk /dev/xvg/gone: the group xvg has no logical volume gone; try: lvs xvg",
        ),
        (
            "disk = [ '/dev/xvg/o-ld,,xvda' ]",
            "g (line 3): disk /dev/xvg/o-ld: the logical volume o-ld of xvg is there, but not active; try: lvchange -ay xvg/o-ld",
        ),
        (
            "disk = [ '/dev/mapper/xvg-o--ld,,xvda' ]",
            "g (line 3): disk /dev/mapper/xvg-o--ld: the logical volume o-ld of xvg is there, but not active",
        ),
        (
            "disk = [ '/dev/data/x,,xvda' ]",
            "g (line 3): disk /dev/data/x does not exist: no logical volume x of a group data (groups that are seen: xvg); try: lvs and vgs",
        ),
        ("disk = [ '/dev/sdz,,xvda' ]", "g (line 3): disk /dev/sdz does not exist; try: lvs and lsblk"),
        (
            "disk = [ '/dev/disk/by-id/x,,xvda' ]",
            "g (line 3): disk /dev/disk/by-id/x does not exist; try: lvs and lsblk",
        ),
        ("disk = [\n'/srv/gone.img,,xvda' ]", "g (line 4): disk /srv/gone.img does not exist; try: correct the path"),
        ("disk = [ '/srv/k/x,,xvda' ]", "g (line 3): disk /srv/k/x cannot be looked at: Not a directory"),
        ("disk = [ '/srv,,xvda' ]", "g (line 3): disk /srv is neither a block device nor a file"),
        ("disk = [ '/dev/xvg/stray,,xvda' ]", "g (line 3): disk /dev/xvg/stray is a file in /dev and no device"),
        (
            "disk = [ '/srv/a.img,,xvda,backendtype=phy' ]",
            "g (line 3): disk /srv/a.img is a file, which backendtype=phy does not serve",
        ),
        (
            "disk = [ '/dev/xvg/web,qcow2,xvda,backendtype=phy' ]",
            "g (line 3): disk /dev/xvg/web has a format other than raw",
        ),
        (
            "disk = [ 'phy:/srv/a.img,xvda,w' ]",
            "odd: g (line 3): disk /srv/a.img is a file and no block device, despite phy:",
        ),
        ("disk = [ '/srv/ro.img,,xvda' ]", "g (line 3): disk /srv/ro.img cannot be written"),
        ("disk = [ '/dev/xvg/mail,,xvda' ]", "g (line 3): disk /dev/xvg/mail cannot be written"),
        ("disk = [ 'drbd:web,xvda,w' ]", "g (line 3): the script /etc/xen/scripts/block-drbd of disk web is not there"),
        (
            "vif = [ 'bridge=lan9' ]",
            "g (line 3): there is no bridge lan9 (there are: lan0, xenbr0); try: [network.bridge.lan9] in sino.toml",
        ),
        ("vif = [ 'bridge=enp3s0' ]", "g (line 3): enp3s0 is a network link, but no bridge"),
        ("vif = [ 'bridge=../../etc' ]", "g (line 3): \"../../etc\" cannot be the name of a bridge"),
        ("ramdisk = '/srv/gone'", "g (line 3): ramdisk /srv/gone does not exist"),
        ("kernel = '/srv'", "g (line 3): kernel /srv is no file"),
        ("kernel = ''", "g (line 3): kernel is empty"),
        ("kernel = 'k'", "odd: g (line 3): kernel \"k\" is looked for in whatever folder xl is started from"),
        (
            "bootloader = '/usr/lib/xen-4.17/bin/pygrub'",
            "g (line 3): bootloader /usr/lib/xen-4.17/bin/pygrub is not there, or no program (paths with Xen's version change with it); try: bootloader = \"pygrub\"",
        ),
        ("bootloader = 'petgrub'", "g (line 3): bootloader \"petgrub\" is neither in Xen's own folder nor in PATH"),
        ("firmware = 'pvgrub32'", "g (line 3): firmware pvgrub32 is not installed (pvgrub32.bin)"),
        ("type = 'hvm'\nfirmware = '/srv/fw'", "g (line 4): firmware /srv/fw does not exist"),
        (
            "type = 'hvm'\ndevice_model_override = '/srv/k'",
            "g (line 4): device_model_override /srv/k is not there, or no program",
        ),
    ] {
        let told = told(&played, &[("g", text)], &[]);
        assert_eq!(told.len(), 1, "{text}: {told:#?}");
        assert!(told[0].starts_with(expected), "{text}: {told:#?}");
    }
    fs::remove_file(played.folder.path().join("usr/lib/xen-4.20/bin/qemu-system-i386")).unwrap();
    let told = told(&played, &[("g", "type = 'hvm'")], &[]);
    assert!(told.len() == 1 && told[0].starts_with("odd: g (line 3): no device model is seen"), "{told:?}");
}

#[test]
fn a_bridge_of_old_is_found_as_xen_finds_it() {
    let played = host();
    played.put("/sys/class/net/eth7/bridge/x", "", 0o444);
    assert_eq!(told(&played, &[("g", "vif = [ 'bridge=xenbr7' ]")], &[]), [""; 0]);
    assert_eq!(told(&played, &[("g", "vif = [ 'bridge=xenbr8' ]")], &[]).len(), 1);
}

#[test]
fn a_disk_has_one_writer_whatever_path_leads_to_it() {
    let played = host();
    symlink("a.img", played.folder.path().join("srv/b.img")).unwrap();
    let disk = |text: &str| format!("disk = [ '{text}' ]");
    let used = |path: &str, writable| vec![Use { domain: "old".into(), path: path.into(), writable }];
    for (first, second, expected) in [
        (
            "phy:/dev/xvg/web,xvda,w",
            "/dev/mapper/xvg-web,,xvda",
            "b (line 3): disk /dev/mapper/xvg-web of b is also that of the guest a, and both write to it",
        ),
        (
            "phy:/dev/xvg/web,xvda,r",
            "/dev/dm-0,,xvda",
            "b (line 3): disk /dev/dm-0 of b is also that of the guest a, and it would be written while the other reads it",
        ),
        (
            "phy:/dev/xvg/web,xvda,w",
            "/dev/dm-0,,xvda,r",
            "b (line 3): disk /dev/dm-0 of b is also that of the guest a, and the other writes to it",
        ),
        (
            "/srv/a.img,,xvda",
            "/srv/b.img,,xvda",
            "b (line 3): disk /srv/b.img of b is also that of the guest a, and both write to it",
        ),
        ("phy:/dev/xvg/web,xvda,r", "/dev/dm-0,,xvda,r", ""),
        ("phy:/dev/xvg/web,xvda,w", "/dev/xvg/db,,xvda", ""),
        ("phy:/dev/xvg/web,xvda,w!", "phy:/dev/xvg/web,xvda,w!", "odd: b (line 3)"),
        ("phy:/dev/xvg/web,xvda,w", "phy:/dev/xvg/web,xvda,w!", "b (line 3)"),
        ("/dev/xvg/web,,xvda,backendtype=qdisk", "/dev/xvg/web,,xvda,backendtype=qdisk", "odd: b (line 3)"),
        // The first one does not start: its disks are free.
        ("phy:/dev/xvg/gone,xvda,w', '/dev/xvg/web,,xvdb", "/dev/xvg/web,,xvda", "a (line 3): disk /dev/xvg/gone"),
    ] {
        let told = told(&played, &[("a", &disk(first)), ("b", &disk(second))], &[]);
        assert_eq!(told.len(), usize::from(!expected.is_empty()), "{first} {second}: {told:#?}");
        assert!(told.iter().all(|told| told.starts_with(expected)), "{first} {second}: {told:#?}");
    }
    let web = disk("/dev/xvg/web,,xvda");
    let of_running = told(&played, &[("b", &web)], &used("/dev/dm-0", true));
    assert!(of_running[0].contains("of b is also that of the running domain old"), "{of_running:?}");
    assert_eq!(told(&played, &[("b", &disk("/dev/xvg/web,,xvda,r"))], &used("/dev/dm-0", false)), [""; 0]);
    assert_eq!(told(&played, &[("b", &web)], &used("/gone", true)), [""; 0]);
    // A guest that runs is not checked, and has its disks.
    let by_file = told(&played, &[("b", &web), ("a*", &web)], &[]);
    assert!(by_file.len() == 1 && by_file[0].contains("of b is also that of the running domain a"), "{by_file:?}");
    // Twice in one guest is the guest's own affair.
    assert_eq!(told(&played, &[("a", &disk("/dev/xvg/web,,xvda', '/dev/xvg/web,,xvdb"))], &[]), [""; 0]);
}

#[test]
fn what_the_host_itself_uses_is_refused() {
    let played = host();
    played.put(
        "/proc/self/mountinfo",
        "24 1 253:0 / /srv rw,relatime - ext4 /dev/mapper/xvg-web rw\n25 1 253:1 / /mnt\\040x ro - ext4 /dev/dm-1 ro\nnonsense\n26 1 x:y / /y rw\n",
        0o444,
    );
    played.put("/proc/swaps", "Filename Type Size Used Priority\n/dev/dm-2 partition 100 0 -2\n", 0o444);
    for (disk, expected) in [
        ("/dev/xvg/web,,xvda", "g (line 3): disk /dev/xvg/web is in use by this host itself (mounted on /srv)"),
        ("/dev/xvg/web,,xvda,r", "g (line 3): disk /dev/xvg/web is in use by this host itself (mounted on /srv)"),
        ("/dev/xvg/db,,xvda", "g (line 3): disk /dev/xvg/db is in use by this host itself (mounted on /mnt\\040x)"),
        ("/dev/xvg/db,,xvda,r", ""),
        ("/dev/xvg/mail,,xvda", "g (line 3): disk /dev/xvg/mail is in use by this host itself (swap)"),
    ] {
        let told = told(&played, &[("g", &format!("disk = [ '{disk}' ]"))], &[]);
        assert_eq!(told.len(), usize::from(!expected.is_empty()), "{disk}: {told:#?}");
        assert!(told.iter().all(|told| told.starts_with(expected)), "{disk}: {told:#?}");
    }
}

#[test]
fn problems_are_fit_for_a_console_and_for_json() {
    let played = host();
    let bad = config("g\u{7}", "kernel = '/x\\n\\ay'");
    let problems =
        check(Host { files: &played, groups: &[] }, &[Candidate { name: "g\u{7}", config: &bad, running: false }], &[]);
    assert_eq!(problems[0].guest, "g\u{7}");
    assert!(!problems[0].to_string().contains(char::is_control), "{problems:?}");
    assert!(serde_json::to_string(&problems).unwrap().contains("\"try\":\"put the file there"));
}
