//! The items on their way between a system and a store, both in temporary folders.

use super::access::apply;
use super::command::{self, StateCommand};
use super::folder::LONGEST;
use super::ssh_key::tests::{generated, pair};
use super::*;
use crate::config::schema::Access;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

/// A host: its root with the image below it, and its store.
pub(super) struct Host {
    folder: tempfile::TempDir,
}

pub(super) fn hash(letter: char) -> String {
    format!("$6$0123456789abcdef${}", letter.to_string().repeat(86))
}

impl Host {
    /// As the image is when it has just been booted.
    pub(super) fn new() -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap() };
        for root in [host.root(), host.root().join("run/sino/lower")] {
            for folder in ["etc/ssh/sshd_config.d", "etc/default", "root", "run", "usr/share/zoneinfo/Etc"] {
                fs::create_dir_all(root.join(folder)).unwrap();
            }
            let default = hash('d');
            let files = [
                ("etc/shadow", format!("root:{default}:1:0:99999:7:::\ndaemon:*:1:0:99999:7:::\n")),
                ("etc/hostname", "sino\n".into()),
                ("etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\tsino\n".into()),
                ("etc/machine-id", String::new()),
                ("etc/timezone", "Etc/UTC\n".into()),
                ("etc/default/keyboard", KEYBOARD.into()),
                ("usr/share/zoneinfo/Etc/UTC", "TZif2".into()),
                ("usr/share/zoneinfo/Etc/GMT+3", "TZif2".into()),
            ];
            for (path, text) in files {
                fs::write(root.join(path), text).unwrap();
            }
            fs::set_permissions(root.join("etc/shadow"), fs::Permissions::from_mode(0o640)).unwrap();
            symlink("/usr/share/zoneinfo/Etc/UTC", root.join("etc/localtime")).unwrap();
        }
        host
    }

    pub(super) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    /// As passwd(1) does it: a new file takes the place of the old.
    pub(super) fn passwd(&self, hash: &str) {
        let text = format!("root:{hash}:20000:0:99999:7:::\ndaemon:*:1:0:99999:7:::\n");
        fs::write(self.path("etc/nshadow"), text).unwrap();
        fs::rename(self.path("etc/nshadow"), self.path("etc/shadow")).unwrap();
    }

    fn settle(&self) {
        self.passwd(&hash('a'));
        self.write("etc/hostname", "node7\n");
        self.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        self.write("etc/ssh/ssh_host_ed25519_key", &pair().0);
        self.write("root/.ssh/authorized_keys", &format!("{} admin\n", pair().1.trim()));
        self.write("etc/default/keyboard", "XKBLAYOUT=\"br\"\nXKBVARIANT=\"nodeadkeys\"\n");
        self.write("etc/systemd/network/card.network", "[Match]\nName=eno1\n");
        fs::remove_file(self.path("etc/localtime")).unwrap();
        symlink("../usr/share/zoneinfo/Etc/GMT+3", self.path("etc/localtime")).unwrap();
    }
}

/// A store in a folder that is thrown away with it.
fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_folder(folder.path());
    (folder, store)
}

fn save_all(host: &Host, store: &Store) -> Saved {
    save(&host.root(), store, &Config::default(), &Item::PLACED, Occasion::Start)
}

fn restore_all(host: &Host, store: &Store) -> Restored {
    restore(&host.root(), store, &Config::default())
}

fn mode(path: PathBuf) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_one_boot_has_the_next_has_too() {
    let (folder, store) = store();
    let first = Host::new();
    first.settle();
    let saved = save_all(&first, &store);
    assert_eq!((saved.kept.len(), &saved.failed), (Item::PLACED.len(), &vec![]), "{saved:?}");
    assert_eq!(save_all(&first, &store).kept, [], "a second time there is nothing to do");
    for (name, right) in [
        ("root-password", 0o600),
        ("ssh_host_ed25519_key", 0o600),
        ("authorized_keys", 0o644),
        ("network-files.tar", 0o600),
    ] {
        assert_eq!(mode(folder.path().join(name)), right, "{name}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("root-password")).unwrap(), hash('a') + "\n");

    let second = Host::new();
    let restored = restore_all(&second, &store);
    assert_eq!(restored.problems, Vec::<String>::new());
    assert!(restored.items.iter().all(|item| item.source == Source::Kept && item.changed), "{restored:?}");
    assert!(restored.store_was_there && !restored.needs_ssh_restart);
    let shadow = second.read("etc/shadow");
    assert!(shadow.starts_with(&format!("root:{}:", hash('a'))), "{shadow}");
    assert!(shadow.ends_with(":0:99999:7:::\ndaemon:*:1:0:99999:7:::\n"), "{shadow}");
    for path in [
        "etc/hostname",
        "etc/machine-id",
        "etc/ssh/ssh_host_ed25519_key",
        "root/.ssh/authorized_keys",
        "etc/systemd/network/card.network",
    ] {
        assert_eq!(second.read(path), first.read(path), "{path}");
    }
    assert_eq!(second.read("etc/ssh/ssh_host_ed25519_key.pub").trim(), pair().1.trim());
    assert_eq!(second.read("etc/default/keyboard"), first.read("etc/default/keyboard"));
    assert_eq!(second.read("etc/hosts"), "127.0.0.1\tlocalhost\n127.0.1.1\tnode7\n");
    assert_eq!(fs::read_link(second.path("etc/localtime")).unwrap(), Path::new("/usr/share/zoneinfo/Etc/GMT+3"));
    assert_eq!(second.read("etc/timezone"), "Etc/GMT+3\n");
    for (path, right) in [
        ("etc/shadow", 0o640),
        ("etc/ssh/ssh_host_ed25519_key", 0o600),
        ("etc/ssh/ssh_host_ed25519_key.pub", 0o644),
        ("root/.ssh", 0o700),
        ("root/.ssh/authorized_keys", 0o600),
        ("etc/hostname", 0o644),
        ("etc/machine-id", 0o444),
    ] {
        assert_eq!(mode(second.path(path)), right, "{path}");
    }
    let again = restore_all(&second, &store);
    assert!(again.items.iter().all(|item| !item.changed), "{again:?}");
    assert_eq!(save_all(&second, &store).kept, [], "what was restored need not be kept again");
}

#[test]
fn the_configuration_wins_and_is_not_kept() {
    let (_folder, store) = store();
    let first = Host::new();
    first.settle();
    save_all(&first, &store);
    let mut config = Config::default();
    config.system.hostname = Some("chosen.example.org".into());
    config.system.timezone = Some("Etc/UTC".into());
    config.system.keyboard = Some("de".into());
    let second = Host::new();
    let restored = restore(&second.root(), &store, &config);
    assert_eq!(restored.problems, Vec::<String>::new());
    assert_eq!(second.read("etc/hostname"), "chosen.example.org\n");
    assert!(second.read("etc/hosts").contains("127.0.1.1\tchosen.example.org chosen\n"));
    assert!(second.read("etc/default/keyboard").contains("XKBMODEL=\"pc105\"\nXKBLAYOUT=\"de\"\nXKBVARIANT=\"\"\n"));
    assert_eq!(save(&second.root(), &store, &config, &Item::PLACED, Occasion::Change).kept, []);
    // Without the key the kept name is back.
    let third = Host::new();
    restore_all(&third, &store);
    assert_eq!(third.read("etc/hostname"), "node7\n");

    config.system.hostname = Some("a b\nc".into());
    let restored = restore(&Host::new().root(), &store, &config);
    assert!(restored.problems[0].contains("system.hostname") && !restored.problems[0].contains('\n'), "{restored:?}");
    assert_eq!(restored.items[1].source, Source::Kept);
}

#[test]
fn what_is_the_images_own_is_not_kept_but_a_host_key_is_made() {
    let (folder, store) = store();
    let host = Host::new();
    let restored = restore_all(&host, &store);
    assert!(restored.items.iter().all(|item| item.source == Source::Image));
    let saved = save_all(&host, &store);
    assert_eq!((saved.kept, saved.failed), (vec![Item::SshHostKeys], vec![]));
    assert_eq!(
        fs::read(folder.path().join("ssh_host_ed25519_key")).unwrap(),
        fs::read(host.path("etc/ssh/ssh_host_ed25519_key")).unwrap()
    );
}

#[test]
fn a_volume_that_comes_late_brings_the_hosts_own_keys_and_keeps_newer_decisions() {
    let (_folder, store) = store();
    let first = Host::new();
    first.settle();
    save_all(&first, &store);
    let late = Host::new();
    late.write("etc/ssh/ssh_host_ed25519_key", &generated("ed25519").0);
    late.write("etc/machine-id", "ffffffffffffffffffffffffffffffff\n");
    late.write("run/sshd.pid", "1\n");
    late.passwd(&hash('n'));
    let newer = generated("ed25519").1;
    late.write("root/.ssh/authorized_keys", &newer);
    let restored = restore_all(&late, &store);
    assert!(restored.needs_ssh_restart);
    assert_eq!(late.read("etc/ssh/ssh_host_ed25519_key"), pair().0);
    assert_eq!(late.read("etc/machine-id"), "0123456789abcdef0123456789abcdef\n");
    assert!(late.read("etc/shadow").contains(&hash('n')));
    let keys = late.read("root/.ssh/authorized_keys");
    assert!(keys.contains(pair().1.trim()) && keys.contains(newer.trim()), "{keys}");
    let saved = save_all(&late, &store);
    assert_eq!(saved.kept, [Item::RootPassword, Item::AuthorizedKeys]);
}

#[test]
fn damage_of_each_kind_is_said_set_aside_and_costs_nothing_else() {
    let cut = &pair().0.as_bytes()[..100];
    let long = vec![b'a'; usize::try_from(LONGEST).unwrap() + 1];
    let cases: [(&str, &[u8]); 10] = [
        ("network-files.tar", &[0; 600]),
        ("ssh_host_ed25519_key", cut),
        ("root-password", b"$6$0123456789abcdef$short\n"),
        ("root-password", b"a:b:c\nroot2::0:0:::\n"),
        ("authorized_keys", b"ssh-ed25519 AAAA\x1b]0;x\x07\n"),
        ("authorized_keys", &long),
        ("hostname", b"\0\0\0\0\0"),
        ("machine-id", b""),
        ("timezone", b"../../../etc/passwd\n"),
        ("keyboard", b"XKBLAYOUT=\"us\"\n$(reboot)\n"),
    ];
    for (name, bytes) in cases {
        let (folder, store) = store();
        let first = Host::new();
        first.settle();
        save_all(&first, &store);
        fs::write(folder.path().join(name), bytes).unwrap();
        let host = Host::new();
        let restored = restore_all(&host, &store);
        assert_eq!(restored.problems.len(), 1, "{name}: {restored:?}");
        let problem = &restored.problems[0];
        let full = folder.path().join(name).display().to_string();
        assert!(problem.contains(&full) && problem.contains(&format!("{name}.damaged")), "{problem}");
        assert!(!problem.chars().any(char::is_control), "{problem:?}");
        assert!(!folder.path().join(name).exists());
        assert_eq!(fs::read(folder.path().join(format!("{name}.damaged"))).unwrap(), bytes);
        let kept = restored.items.iter().filter(|item| item.source == Source::Kept && item.changed).count();
        assert_eq!(kept, Item::PLACED.len() - 1, "{name}");
        let quiet = restore_all(&host, &store);
        assert_eq!(quiet.problems, Vec::<String>::new(), "it is said once");
    }
}

#[test]
fn links_pipes_and_folders_in_place_of_files_are_not_followed() {
    type Make = fn(&Path);
    let cases: [Make; 3] = [
        |path| symlink("/etc/hostname", path).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| {
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        },
    ];
    for make in cases {
        let (folder, store) = store();
        make(&folder.path().join("hostname"));
        let host = Host::new();
        let restored = restore_all(&host, &store);
        assert_eq!(restored.problems.len(), 1, "{restored:?}");
        assert!(folder.path().join("hostname.damaged").symlink_metadata().is_ok());
        assert_eq!(host.read("etc/hostname"), "sino\n");
    }
    // A link in place of a file that is written is replaced, not followed.
    let (folder, store) = store();
    let host = Host::new();
    let target = folder.path().join("target");
    fs::write(&target, "untouched").unwrap();
    for name in ["hostname", ".hostname.new"] {
        symlink(&target, folder.path().join(name)).unwrap();
    }
    host.write("etc/hostname", "node7\n");
    let saved = save(&host.root(), &store, &Config::default(), &[Item::Hostname], Occasion::Change);
    assert_eq!(saved.kept, [Item::Hostname], "{saved:?}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    assert!(folder.path().join("hostname").symlink_metadata().unwrap().is_file());
}

#[test]
fn a_zone_that_this_image_lacks_is_said_and_stays_kept() {
    let (folder, store) = store();
    fs::write(folder.path().join("timezone"), "US/Eastern\n").unwrap();
    let host = Host::new();
    let restored = restore_all(&host, &store);
    assert!(restored.problems[0].contains("US/Eastern"), "{restored:?}");
    save_all(&host, &store);
    assert_eq!(fs::read_to_string(folder.path().join("timezone")).unwrap(), "US/Eastern\n");
}

#[test]
fn a_host_without_a_password_and_a_broken_key_are_not_kept() {
    let (folder, store) = store();
    let host = Host::new();
    host.passwd("");
    host.write("etc/ssh/ssh_host_ed25519_key", &pair().0[..80]);
    let saved = save(&host.root(), &store, &Config::default(), &Item::PLACED, Occasion::Change);
    let failed: Vec<Item> = saved.failed.iter().map(|(item, _)| *item).collect();
    assert_eq!(failed, [Item::SshHostKeys, Item::RootPassword], "{saved:?}");
    assert!(!folder.path().join("root-password").exists());
}

#[test]
fn removed_keys_let_nobody_in_after_the_next_boot() {
    let (_folder, store) = store();
    let host = Host::new();
    host.settle();
    save_all(&host, &store);
    fs::remove_file(host.path("root/.ssh/authorized_keys")).unwrap();
    save(&host.root(), &store, &Config::default(), &[Item::AuthorizedKeys], Occasion::Change);
    let next = Host::new();
    restore_all(&next, &store);
    assert_eq!(next.read("root/.ssh/authorized_keys"), "");
}

#[test]
fn network_files_are_joined_file_by_file_and_the_last_that_goes_takes_the_item_along() {
    let (folder, store) = store();
    let first = Host::new();
    first.write("etc/systemd/network/kept.network", "kept");
    first.write("etc/systemd/network/both.network", "old");
    assert_eq!(save_all(&first, &store).kept, [Item::SshHostKeys, Item::NetworkFiles]);
    // Written before the volume came.
    let late = Host::new();
    late.write("etc/systemd/network/both.network", "new");
    late.write("etc/network/interfaces.d/late", "late");
    let restored = restore_all(&late, &store);
    assert!(restored.items.iter().any(|item| item.item == Item::NetworkFiles && item.source == Source::ThisBoot));
    save_all(&late, &store);
    let third = Host::new();
    assert_eq!(restore_all(&third, &store).problems, Vec::<String>::new());
    let files =
        ["etc/systemd/network/kept.network", "etc/systemd/network/both.network", "etc/network/interfaces.d/late"];
    assert_eq!(files.map(|path| third.read(path)), ["kept", "new", "late"]);
    // What could not be put in its place stays kept.
    let fourth = Host::new();
    fourth.write("etc/network/interfaces.d", "a file in the place of the folder");
    let restored = restore_all(&fourth, &store);
    assert!(restored.problems[0].contains("/etc/network/interfaces.d/late"), "{restored:?}");
    assert_eq!(fourth.read("etc/systemd/network/kept.network"), "kept");
    save_all(&fourth, &store);
    let kept = fs::read(folder.path().join("network-files.tar")).unwrap();
    assert_eq!(file_set::paths(&kept).len(), 3);
    let change = |host: &Host| save(&host.root(), &store, &Config::default(), &[Item::NetworkFiles], Occasion::Change);
    fs::remove_file(third.path(files[0])).unwrap();
    change(&third);
    assert_eq!(file_set::paths(&fs::read(folder.path().join("network-files.tar")).unwrap()).len(), 2);
    for path in &files[1..] {
        fs::remove_file(third.path(path)).unwrap();
    }
    assert_eq!(change(&third).kept, [Item::NetworkFiles]);
    assert!(!folder.path().join("network-files.tar").exists());
    assert_eq!(change(&third).kept, []);
}

#[test]
fn the_store_is_not_below_an_unmounted_volume() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::on_volume(folder.path());
    let host = Host::new();
    host.settle();
    let saved = save_all(&host, &store);
    assert!(saved.not_mounted && saved.kept.is_empty() && saved.failed.len() == Item::PLACED.len());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let restored = restore_all(&host, &store);
    assert!(!restored.store_was_there && restored.problems.is_empty());
    let stop = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
    let ended = watch(&host.root(), &store, &Config::default(), &[], std::os::fd::AsFd::as_fd(&stop), &mut |_| {});
    assert!(ended.unwrap_err().is::<NotMounted>());
}

#[test]
fn leases_go_both_ways_and_damage_is_set_aside() {
    let (folder, store) = store();
    assert_eq!(store.leases().unwrap(), Default::default());
    let leases = [("xenbr0".to_owned(), serde_json::json!({"address": "192.0.2.7/24"}))].into();
    assert!(store.keep_leases(&leases).unwrap());
    assert!(!store.keep_leases(&leases).unwrap());
    assert_eq!(store.leases().unwrap(), (leases, vec![]));
    fs::write(folder.path().join("leases.json"), "{\"xenbr0\":").unwrap();
    let (leases, problems) = store.leases().unwrap();
    assert!(leases.is_empty() && problems[0].contains("leases.json.damaged"), "{problems:?}");
}

#[test]
fn what_is_forgotten_stays_forgotten_until_it_changes() {
    let (folder, store) = store();
    let host = Host::new();
    host.settle();
    save_all(&host, &store);
    fs::write(folder.path().join("ssh_host_rsa_key.damaged"), "x").unwrap();
    let run = |line: &[&str]| {
        #[derive(clap::Parser)]
        struct Line {
            #[command(subcommand)]
            command: StateCommand,
        }
        let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
        command::run(&line.command, &host.root(), &store)
    };
    run(&["sino", "list"]).unwrap();
    run(&["sino", "list", "--json"]).unwrap();
    run(&["sino", "forget", "ssh-host-keys", "hostname"]).unwrap();
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let gone = |name: &std::ffi::OsString| name.to_string_lossy().contains("ssh_host") || name == "hostname";
    assert!(left.len() == 6 && !left.iter().any(gone), "{left:?}");
    assert_eq!(save_all(&host, &store).kept, [], "a supervisor that starts again must not keep them");
    assert!(run(&["sino", "forget", "--all", "another-host-by-far"]).is_err());
    host.write("etc/hostname", "node8\n");
    let saved = save(&host.root(), &store, &Config::default(), &[Item::Hostname], Occasion::Change);
    assert_eq!(saved.kept, [Item::Hostname]);
}

#[test]
fn a_password_is_enough_only_while_there_is_no_key() {
    let host = Host::new();
    let text = || host.read("etc/ssh/sshd_config.d/00-sino-access.conf");
    let open = apply(&host.root(), &Access::default());
    assert!(open.password_login && open.default_password && open.changed && open.keys == 0, "{open:?}");
    let seen = super::access::look(&host.root()).unwrap();
    assert!(seen.password_login && seen.default_password && seen.warning().is_some(), "{seen:?}");
    assert!(open.warning().unwrap().contains("passwd"));
    assert!(text().contains("\nPasswordAuthentication yes\n") && text().contains("\nPermitRootLogin yes\n"));
    assert!(!apply(&host.root(), &Access::default()).changed);

    host.write("root/.ssh/authorized_keys", "# not a key\nssh-ed25519 garbage\n");
    assert!(apply(&host.root(), &Access::default()).password_login, "garbage must not lock root out");
    host.write("root/.ssh/authorized_keys", &pair().1);
    host.passwd(&hash('a'));
    let closed = apply(&host.root(), &Access::default());
    assert!(!closed.password_login && !closed.default_password && closed.changed && closed.keys == 1, "{closed:?}");
    let seen = super::access::look(&host.root()).unwrap();
    assert!(!seen.password_login && !seen.default_password && seen.warning().is_none(), "{seen:?}");
    assert_eq!(closed.warning(), None);
    for line in [
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/sino_authorized_keys",
    ] {
        assert!(text().lines().any(|have| have == line), "{line}");
    }

    fs::remove_file(host.path("root/.ssh/authorized_keys")).unwrap();
    let key = pair().1.trim().to_owned();
    let bad = "ssh-ed25519 x\nPermitEmptyPasswords yes".to_owned();
    let configured = apply(&host.root(), &Access { ssh_password: None, authorized_keys: vec![key.clone(), bad] });
    assert!(!configured.password_login && configured.keys == 1 && configured.problems.len() == 1, "{configured:?}");
    assert_eq!(host.read("etc/ssh/sino_authorized_keys"), format!("{key}\n"));
    let both = Access { ssh_password: Some(true), authorized_keys: vec![key] };
    assert!(apply(&host.root(), &both).password_login);
}
