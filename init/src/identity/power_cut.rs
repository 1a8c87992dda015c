//! A disk that loses its power at any moment: whatever it kept, the store has the old item or the new one.
//!
//! The model is stricter than ext4: bytes that were not synced may be there, be cut off, be zeros or be missing, and of the
//! names that were changed since the last sync any number of the first may be there.

use super::folder::{Disk, Folder, Rights, replace};
use super::items::Item;
use super::store::Store;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    synced: bool,
}

/// Which inode a name leads to.
type Names = BTreeMap<String, usize>;

#[derive(Clone, Default)]
struct Model {
    inodes: Vec<Inode>,
    /// The names as they are, after those that they may be when the power goes.
    names: Vec<Names>,
    /// Steps until the power goes, and until the disk is full.
    power: usize,
    room: usize,
}

impl Model {
    fn with(name: &str, bytes: Option<&[u8]>) -> Self {
        let inodes: Vec<Inode> = bytes.into_iter().map(|bytes| Inode { bytes: bytes.to_vec(), synced: true }).collect();
        let names = Names::from_iter(bytes.map(|_| (name.to_owned(), 0)));
        Self { inodes, names: vec![names], power: usize::MAX, room: usize::MAX }
    }

    fn step(&mut self) -> io::Result<()> {
        self.power = self.power.checked_sub(1).ok_or_else(|| io::Error::other("no power"))?;
        Ok(())
    }

    fn change_names(&mut self, change: impl FnOnce(&mut Names) -> io::Result<()>) -> io::Result<()> {
        let mut names = self.names.last().unwrap().clone();
        change(&mut names)?;
        self.names.push(names);
        Ok(())
    }

    /// Everything that may be on the disk when the power is back.
    fn outcomes(&self) -> Vec<BTreeMap<String, Vec<u8>>> {
        let mut outcomes = Vec::new();
        for names in &self.names {
            for damage in 0..4 {
                let file = |inode: &Inode| match (inode.synced, damage) {
                    (true, _) | (false, 0) => inode.bytes.clone(),
                    (false, 1) => inode.bytes[..inode.bytes.len() / 2].to_vec(),
                    (false, 2) => vec![0; inode.bytes.len()],
                    (false, _) => Vec::new(),
                };
                outcomes.push(names.iter().map(|(name, at)| (name.clone(), file(&self.inodes[*at]))).collect());
            }
        }
        outcomes
    }
}

impl Disk for Model {
    fn create(&mut self, name: &str, _: Rights) -> io::Result<()> {
        self.step()?;
        let at = self.inodes.len();
        self.inodes.push(Inode::default());
        self.change_names(|names| match names.insert(name.to_owned(), at) {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => Ok(()),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // The power may go in the middle.
        for half in [&bytes[..bytes.len() / 2], &bytes[bytes.len() / 2..]] {
            self.step()?;
            self.room = self.room.checked_sub(half.len()).ok_or(io::ErrorKind::StorageFull)?;
            self.inodes.last_mut().unwrap().bytes.extend(half);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step()?;
        self.inodes.last_mut().unwrap().synced = true;
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        self.change_names(|names| {
            let at = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            names.insert(to.to_owned(), at);
            Ok(())
        })
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.step()?;
        self.names = self.names.split_off(self.names.len() - 1);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        self.change_names(|names| names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }
}

/// Writes `new` over `old` with the power going after each number of steps, and looks at everything that may be left.
fn cut_everywhere(item: Item, name: &str, old: Option<&[u8]>, new: &[u8]) {
    let start = Model::with(name, old);
    let mut cuts = 0;
    for power in 0.. {
        let mut disk = Model { power, ..start.clone() };
        let done = replace(&mut disk, name, new, Rights::mode(0o600)).is_ok();
        for outcome in disk.outcomes() {
            let folder = tempfile::tempdir().unwrap();
            for (file, bytes) in &outcome {
                fs::write(folder.path().join(file), bytes).unwrap();
            }
            check(item, name, folder.path(), old, new, done);
        }
        if done {
            break;
        }
        cuts += 1;
    }
    assert!(cuts >= 6, "only {cuts} moments were tried");
}

fn check(item: Item, name: &str, folder: &Path, old: Option<&[u8]>, new: &[u8], done: bool) {
    let store = Store::in_folder(folder);
    let kept = store.look(item).unwrap();
    assert!(kept.damaged.is_empty() && kept.unread.is_empty(), "{kept:?}");
    let found = kept.files.get(name).map(Vec::as_slice);
    assert!(found == Some(new) || (!done && found == old), "{found:?}");
    // Whatever is left over does not hinder the next attempt.
    store.keep(item, &[(name.to_owned(), new.to_vec())].into()).unwrap();
    assert_eq!(fs::read(folder.join(name)).unwrap(), new);
    assert_eq!(
        Folder::open(folder)
            .unwrap()
            .names()
            .unwrap()
            .iter()
            .filter(|other| *other != name && !other.starts_with('.'))
            .count(),
        0
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_power_cut_leaves_the_old_item_or_the_new_one(old in "[a-z]{1,20}", new in "[a-z0-9]{1,40}", first: bool) {
        let (old, new) = (format!("{old}\n"), format!("{new}\n"));
        cut_everywhere(Item::Hostname, "hostname", (!first).then_some(old.as_bytes()), new.as_bytes());
    }

    #[test]
    fn a_full_disk_leaves_the_old_item(old in "[a-z]{1,20}", new in "[a-z0-9]{2,40}", room in 0usize..20) {
        let mut disk = Model { room: room.min(new.len() - 1), ..Model::with("hostname", Some(old.as_bytes())) };
        prop_assert!(replace(&mut disk, "hostname", new.as_bytes(), Rights::mode(0o600)).is_err());
        for outcome in disk.outcomes() {
            prop_assert_eq!(outcome.get("hostname").map(Vec::as_slice), Some(old.as_bytes()));
        }
        prop_assert_eq!(disk.names.last().unwrap().len(), 1, "what was written in part is removed");
    }
}

#[test]
fn a_host_key_survives_a_power_cut() {
    let (private, other) = (&super::ssh_key::tests::pair().0, super::ssh_key::tests::generated("ed25519").0);
    cut_everywhere(Item::SshHostKeys, "ssh_host_ed25519_key", Some(private.as_bytes()), other.as_bytes());
}

#[test]
fn a_set_of_files_survives_a_power_cut_as_a_whole() {
    use super::archive::tests::file;
    use super::archive::{Entries, pack};
    let set = |text: &str| {
        let names =
            ["etc/network/interfaces", "etc/systemd/network/a.network", "etc/systemd/network/a.network.d/b.conf"];
        pack(&names.iter().map(|name| ((*name).to_owned(), file(0o644, text))).collect::<Entries>()).unwrap()
    };
    cut_everywhere(Item::NetworkFiles, "network-files.tar", Some(&set("old")), &set("new"));
    cut_everywhere(Item::NetworkFiles, "network-files.tar", None, &set("new"));
}
