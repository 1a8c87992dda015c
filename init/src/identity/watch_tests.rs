//! The watch against programs that change files as Debian's do.

use super::items::Item;
use super::tests::{Host, hash};
use super::watch::Watcher;
use super::{Notice, Store, watch};
use crate::config::schema::Config;
use rustix::event::{EventfdFlags, eventfd};
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Ends the watch, also when an assertion fails.
struct Stop<'a>(&'a OwnedFd);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        rustix::io::write(self.0, &1u64.to_ne_bytes()).unwrap();
    }
}

/// Runs a watch while `act` does something, and returns all that it said.
fn watched(host: &Host, store: &Store, act: impl FnOnce(&Receiver<Notice>)) -> Vec<Notice> {
    let stop = eventfd(0, EventfdFlags::empty()).unwrap();
    let (say, said) = channel();
    let (root, config) = (host.root(), Config::default());
    thread::scope(|scope| {
        let end = Stop(&stop);
        let watcher =
            scope.spawn(|| watch(&root, store, &config, &[], stop.as_fd(), &mut |notice| say.send(notice).unwrap()));
        assert_eq!(said.recv_timeout(Duration::from_secs(10)), Ok(Notice::Watching));
        act(&said);
        drop(end);
        watcher.join().unwrap().unwrap();
    });
    said.try_iter().collect()
}

/// Waits for the item to be kept and says how long that took.
fn kept(said: &Receiver<Notice>, item: Item) -> Duration {
    let start = Instant::now();
    loop {
        let notice = said.recv_timeout(Duration::from_secs(2)).unwrap_or_else(|_| panic!("{item} not kept within 2 s"));
        if matches!(&notice, Notice::Kept(items) if items.contains(&item)) {
            return start.elapsed();
        }
    }
}

fn in_store(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default()
}

#[test]
fn each_change_is_kept_within_two_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let (host, store) = (Host::new(), Store::in_folder(folder.path()));
    let (private, public) = super::ssh_key::tests::pair();
    let rest = watched(&host, &store, |said| {
        host.passwd(&hash('p'));
        kept(said, Item::RootPassword);
        assert_eq!(in_store(folder.path(), "root-password"), hash('p') + "\n");
        // A second time: the file that was watched is another one now.
        host.passwd(&hash('q'));
        kept(said, Item::RootPassword);
        assert_eq!(in_store(folder.path(), "root-password"), hash('q') + "\n");

        host.write("root/.ssh/authorized_keys", public);
        kept(said, Item::AuthorizedKeys);
        let second = format!("{public}{}", public.replace('\n', " second\n"));
        host.write("root/.ssh/authorized_keys", &second);
        kept(said, Item::AuthorizedKeys);
        assert_eq!(in_store(folder.path(), "authorized_keys"), second);
        fs::remove_dir_all(host.root().join("root/.ssh")).unwrap();
        kept(said, Item::AuthorizedKeys);
        assert_eq!(in_store(folder.path(), "authorized_keys"), "");
        host.write("root/.ssh/authorized_keys", public);
        kept(said, Item::AuthorizedKeys);

        host.write("etc/hostname", "node9\n");
        kept(said, Item::Hostname);
        let link = host.root().join("etc/localtime");
        symlink("/usr/share/zoneinfo/Etc/GMT+3", link.with_extension("new")).unwrap();
        fs::rename(link.with_extension("new"), &link).unwrap();
        kept(said, Item::Timezone);
        assert_eq!(in_store(folder.path(), "timezone"), "Etc/GMT+3\n");
        host.write("etc/default/keyboard", "XKBLAYOUT=\"pt\"\n");
        kept(said, Item::Keyboard);
        let tar = || super::file_set::paths(&fs::read(folder.path().join("network-files.tar")).unwrap_or_default());
        // None of these folders is there before.
        host.write("etc/systemd/network/a.network", "x");
        kept(said, Item::NetworkFiles);
        host.write("etc/systemd/network/a.network.d/b.conf", "y");
        kept(said, Item::NetworkFiles);
        assert_eq!(tar(), ["etc/systemd/network/a.network", "etc/systemd/network/a.network.d/b.conf"]);
        host.write("etc/network/interfaces.d/c", "z");
        kept(said, Item::NetworkFiles);
        assert_eq!(tar().len(), 3);
        host.write("etc/systemd/network/a.network.d/b.conf", "changed");
        kept(said, Item::NetworkFiles);
        for folder in ["etc/systemd/network", "etc/network"] {
            fs::remove_dir_all(host.root().join(folder)).unwrap();
        }
        kept(said, Item::NetworkFiles);
        assert!(tar().is_empty() && !folder.path().join("network-files.tar").exists());
        host.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        kept(said, Item::MachineId);
        host.write("etc/ssh/ssh_host_ed25519_key", private);
        kept(said, Item::SshHostKeys);
        assert_eq!(in_store(folder.path(), "ssh_host_ed25519_key"), *private);
    });
    assert!(!rest.iter().any(|notice| matches!(notice, Notice::Kept(_))), "{rest:?}");
}

#[test]
fn a_change_just_before_the_stop_is_kept_and_access_follows_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (host, store) = (Host::new(), Store::in_folder(folder.path()));
    let said = watched(&host, &store, |_| host.write("root/.ssh/authorized_keys", &super::ssh_key::tests::pair().1));
    assert!(said.contains(&Notice::Kept(vec![Item::AuthorizedKeys])), "{said:?}");
    let access = said.iter().find_map(|notice| if let Notice::Access(state) = notice { Some(state) } else { None });
    assert!(access.is_some_and(|state| state.changed && !state.password_login && state.keys == 1), "{said:?}");
}

#[test]
fn what_could_not_be_kept_at_the_start_is_kept_without_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let (host, store) = (Host::new(), Store::in_folder(folder.path()));
    host.write("etc/hostname", "node9\n");
    let stop = eventfd(0, EventfdFlags::empty()).unwrap();
    let mut said = Vec::new();
    rustix::io::write(&stop, &1u64.to_ne_bytes()).unwrap();
    watch(&host.root(), &store, &Config::default(), &[Item::Hostname], stop.as_fd(), &mut |notice| said.push(notice))
        .unwrap();
    assert_eq!(said, [Notice::Watching, Notice::Kept(vec![Item::Hostname])]);
}

#[test]
fn other_files_wake_nobody_and_a_broken_one_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let (host, store) = (Host::new(), Store::in_folder(folder.path()));
    let said = watched(&host, &store, |said| {
        host.write("etc/motd", "hello\n");
        host.write("etc/ssh/moduli", "x\n");
        assert!(said.recv_timeout(Duration::from_millis(700)).is_err());
        for text in ["not a name\n", "nor this\n"] {
            host.write("etc/hostname", text);
            thread::sleep(Duration::from_millis(500));
        }
    });
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(matches!(&said[0], Notice::NotKept(why) if why.contains("hostname")), "{said:?}");
    let said = watched(&host, &store, |said| {
        host.write("etc/hostname", "not a name\n");
        let Ok(Notice::NotKept(why)) = said.recv_timeout(Duration::from_secs(2)) else { panic!("nothing was said") };
        host.write("etc/hostname", "sino\n");
        assert!(said.iter().any(|notice| notice == Notice::Resolved(why.clone())));
        fs::remove_file(folder.path().join("hostname")).unwrap();
    });
    assert_eq!(said, []);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn when_events_are_lost_everything_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let (host, store, config) = (Host::new(), Store::in_folder(folder.path()), Config::default());
    let root = host.root();
    let mut watcher = Watcher::new(&root, &store, &config).unwrap();
    assert!(!watcher.drain().unwrap());
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    // Two at a time, as the kernel makes one of equal events that follow each other.
    for _ in 0..limit {
        for name in ["etc/noise", "etc/moise"] {
            fs::write(root.join(name), "").unwrap();
        }
    }
    host.write("etc/hostname", "node9\n");
    assert!(watcher.drain().unwrap());
    let mut said = Vec::new();
    watcher.look(&mut |notice| said.push(notice)).unwrap();
    assert_eq!(said, [Notice::Kept(vec![Item::Hostname])]);
}
