//! The folder of the kept boots: one file for each, written whole or not at all, and never more than [`MOST`].
//!
//! It is opened for each use and held open by none, so that `/srv` can be unmounted at any time; what lies below an unmounted
//! `/srv` is never touched. Only files with names of our own form are read or removed, and only plain ones.

use super::record::Boot;
use super::when;
use crate::storage::full;
use anyhow::{Context, Result, bail};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use sino_boot::layout;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How many boots are kept: a year of monthly updates and some trying on each, in less than 2 MiB.
pub const MOST: usize = 50;
/// Longest file that is read, in bytes: ten times that of a boot with 200 guests.
const LONGEST: u64 = 1 << 20;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Held while a boot is written: two threads of the supervisor do so.
static WRITES: Mutex<()> = Mutex::new(());

/// Where boots are kept.
#[derive(Clone, Debug)]
pub struct Store {
    /// Where the volume is mounted, and the folder below it.
    volume: PathBuf,
    folders: Vec<String>,
    must_be_mounted: bool,
}

/// The kept boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Names and boots, the latest first.
    pub boots: Vec<(String, Boot)>,
    /// Files that are left out, and why, for people.
    pub broken: Vec<String>,
}

impl Store {
    /// That of this host: [`layout::BOOTS`], once `/srv` is mounted.
    #[must_use]
    pub fn on_host() -> Self {
        let below = layout::BOOTS.strip_prefix(layout::SRV).unwrap_or_default();
        let folders = below.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Self { volume: PathBuf::from(layout::SRV), folders, must_be_mounted: true }
    }

    /// One in any folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { volume: folder.to_owned(), folders: vec!["boots".to_owned()], must_be_mounted: false }
    }

    /// The folder, for people.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folders.iter().fold(self.volume.clone(), |path, part| path.join(part))
    }

    /// Opens the volume's root, if it is mounted. What is asked of the open folder cannot change any more when it is unmounted.
    fn volume(&self) -> Result<Option<OwnedFd>> {
        let what = || format!("opening {}", self.volume.display());
        let folder = rustix::fs::open(&self.volume, FOLDER, Mode::empty()).with_context(what)?;
        let facts = statx(&folder, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).with_context(what)?;
        let mounted = facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        Ok((mounted || !self.must_be_mounted).then_some(folder))
    }

    /// Whether boots can be kept and looked up.
    ///
    /// # Errors
    /// The volume cannot be looked at.
    pub fn is_there(&self) -> Result<bool> {
        Ok(self.volume()?.is_some())
    }

    /// Opens the folder; `None`: nothing is mounted, or there is no such folder and `make` does not want one.
    fn open(&self, make: bool) -> Result<Option<OwnedFd>> {
        let Some(mut folder) = self.volume()? else { return Ok(None) };
        let what = || format!("opening {}", self.path().display());
        for part in &self.folders {
            if make {
                // SINO's own folder also holds the configuration, which everybody may read.
                match rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(0o755)) {
                    Ok(()) => rustix::fs::fsync(&folder).with_context(what)?,
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(full::explained(&self.volume, error.into())).with_context(what),
                }
            }
            folder = match rustix::fs::openat(&folder, part, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(inner) => inner,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(error).with_context(what),
            };
        }
        Ok(Some(folder))
    }

    /// The kept boots; none where nothing is mounted. A file that is none, or damaged, costs nothing but itself.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Listed> {
        let mut listed = Listed::default();
        let Some(folder) = self.open(false)? else { return Ok(listed) };
        let mut names = self.names(&folder)?;
        names.sort();
        for name in names.into_iter().rev() {
            match read(&folder, &name) {
                Ok(boot) => listed.boots.push((name, boot)),
                Err(error) => {
                    listed.broken.push(format!("{} is left out: {error:#}", self.path().join(name).display()));
                }
            }
        }
        Ok(listed)
    }

    /// What is kept of a boot, and the name of its file. A damaged file of it has its name only.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn find(&self, boot_id: &str) -> Result<Option<(String, Option<Boot>)>> {
        let Some(folder) = self.open(false)? else { return Ok(None) };
        let Some(ending) = when::digits(boot_id).map(|digits| format!("-{digits}{}", when::ENDING)) else {
            return Ok(None);
        };
        let mut damaged = None;
        for name in self.names(&folder)?.into_iter().filter(|name| name.ends_with(&ending)) {
            match read(&folder, &name) {
                Ok(boot) if boot.boot_id == boot_id => return Ok(Some((name, Some(boot)))),
                Ok(_) => {}
                Err(_) => damaged = Some((name, None)),
            }
        }
        Ok(damaged)
    }

    /// Writes a boot's file, and removes the oldest where there are more than [`MOST`]. `Ok(false)`: nothing is mounted.
    ///
    /// # Errors
    /// The file cannot be written, for example because the volume is full; what was there before is there still.
    pub fn put(&self, name: &str, boot: &Boot) -> Result<bool> {
        let mut bytes = serde_json::to_vec_pretty(boot).context("writing the boot as JSON")?;
        bytes.push(b'\n');
        let Some(folder) = self.open(true)? else { return Ok(false) };
        let _one = WRITES.lock().unwrap_or_else(PoisonError::into_inner);
        replace(&folder, name, &bytes)
            .map_err(|error| full::explained(&self.volume, error))
            .with_context(|| format!("writing {}", self.path().join(name).display()))?;
        self.remove_oldest(&folder, name)?;
        Ok(true)
    }

    /// Names of our own form that are plain files.
    fn names(&self, folder: &OwnedFd) -> Result<Vec<String>> {
        let what = || format!("reading {}", self.path().display());
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(folder).with_context(what)? {
            let entry = entry.with_context(what)?;
            // Names that are not UTF-8 are not ours.
            if let Ok(name) = entry.file_name().to_str()
                && when::is_ours(name)
                && is_plain(folder, name)
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// `own` stays even if the machine's clock makes it the oldest.
    fn remove_oldest(&self, folder: &OwnedFd, own: &str) -> Result<()> {
        let mut others: Vec<String> = self.names(folder)?.into_iter().filter(|name| name != own).collect();
        others.sort();
        let over = (others.len() + 1).saturating_sub(MOST);
        for name in others.iter().take(over) {
            rustix::fs::unlinkat(folder, name, AtFlags::empty())
                .with_context(|| format!("removing {}", self.path().join(name).display()))?;
        }
        Ok(())
    }
}

fn is_plain(folder: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|facts| FileType::from_raw_mode(facts.st_mode) == FileType::RegularFile)
}

/// Writes a file, whole or not at all: a new file, fsync, rename, fsync of the folder, as the ext4 documentation has it.
fn replace(folder: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!(".{name}.new");
    // What a power cut left.
    match rustix::fs::unlinkat(folder, &new, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The kernel's command line is in it, which is root's.
    let written = rustix::fs::openat(folder, &new, flags, Mode::RUSR | Mode::WUSR)
        .map_err(io::Error::from)
        .and_then(|file| {
            let mut file = File::from(file);
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| Ok(rustix::fs::renameat(folder, &new, folder, name)?));
    if let Err(error) = written {
        // If it stays, the next attempt removes it.
        let _ = rustix::fs::unlinkat(folder, &new, AtFlags::empty());
        return Err(error);
    }
    Ok(rustix::fs::fsync(folder)?)
}

fn read(folder: &OwnedFd, name: &str) -> Result<Boot> {
    // NONBLOCK: a named pipe that has just taken its place must not hold anybody.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        bail!("it is longer than {} KiB, so it is no boot", LONGEST >> 10);
    }
    parse(&bytes)
}

/// A boot from the bytes of its file.
///
/// # Errors
/// They are not such JSON.
pub fn parse(bytes: &[u8]) -> Result<Boot> {
    let boot: Boot = serde_json::from_slice(bytes).context("it is damaged")?;
    if boot.format != 1 {
        bail!("its format is {}, and this SINO knows 1", boot.format);
    }
    Ok(boot)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::seen;
    use super::*;
    use crate::timeline::{svg, text};
    use proptest::prelude::*;
    use std::fs;

    fn boot(started: u64, id: &str) -> Boot {
        Boot { started, boot_id: id.to_owned(), ..Boot::of(seen(), None) }
    }

    fn put(store: &Store, started: u64, id: &str) -> String {
        let boot = boot(started, id);
        let name = boot.file_name().unwrap();
        assert!(store.put(&name, &boot).unwrap());
        name
    }

    #[test]
    fn the_oldest_boots_go_and_foreign_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_folder(folder.path());
        assert_eq!(store.list().unwrap(), Listed::default());
        let inner = folder.path().join("boots");
        fs::create_dir(&inner).unwrap();
        let foreign = ["notes.txt", "1970-01-01T00-00-00Z-deadbeef.json.bak", "0.json"];
        for name in foreign {
            fs::write(inner.join(name), "mine").unwrap();
        }
        // Names of our form that are no plain files are foreign, too.
        fs::create_dir(inner.join("1970-01-01T00-00-00Z-00000001.json")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", inner.join("1970-01-01T00-00-00Z-00000002.json")).unwrap();
        let names: Vec<String> =
            (0..60).map(|number| put(&store, 1_700_000_000 + number, &format!("{number:08x}"))).collect();
        let listed = store.list().unwrap();
        let kept: Vec<&String> = listed.boots.iter().map(|(name, _)| name).collect();
        assert_eq!(kept, names.iter().rev().take(MOST).collect::<Vec<_>>());
        assert_eq!(listed.broken, [""; 0]);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), MOST + foreign.len() + 2);
        // A clock that was wrong makes this boot the oldest: it stays, and another goes.
        let own = put(&store, 5, "0123abcd");
        let listed = store.list().unwrap();
        assert_eq!((listed.boots.len(), &listed.boots[MOST - 1].0), (MOST, &own));
    }

    #[test]
    fn a_boot_is_written_over_its_own_file_and_damage_costs_one_boot() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_folder(folder.path());
        let name = put(&store, 1_700_000_000, "aaaaaaaa-1");
        let other = put(&store, 1_700_000_100, "bbbbbbbb-1");
        let path = store.path();
        fs::write(path.join(format!(".{name}.new")), "what a power cut left").unwrap();
        put(&store, 1_700_000_000, "aaaaaaaa-1");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
        assert_eq!(store.find("aaaaaaaa-1").unwrap().unwrap().0, name);
        // Another boot whose id begins alike.
        assert_eq!(store.find("aaaaaaaa-2").unwrap(), None);
        assert_eq!(store.find("x").unwrap(), None);
        fs::write(path.join(&name), "{\"format\": 1, \"boot_id\": ").unwrap();
        assert_eq!(store.find("aaaaaaaa-1").unwrap(), Some((name.clone(), None)));
        let listed = store.list().unwrap();
        assert_eq!((listed.boots.len(), &listed.boots[0].0), (1, &other));
        assert!(listed.broken.len() == 1 && listed.broken[0].contains(&name), "{:?}", listed.broken);
        fs::write(path.join(&name), vec![b' '; (1 << 20) + 5]).unwrap();
        assert!(store.list().unwrap().broken[0].contains("longer than 1024 KiB"));
        fs::write(path.join(&name), "{\"format\": 2}").unwrap();
        assert!(store.list().unwrap().broken[0].contains("its format is 2"));
    }

    #[test]
    fn nothing_is_written_below_an_unmounted_volume() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store { must_be_mounted: true, ..Store::in_folder(folder.path()) };
        let boot = boot(1_700_000_000, "aaaaaaaa");
        assert!(!store.put(&boot.file_name().unwrap(), &boot).unwrap());
        assert!(!store.is_there().unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(store.list().unwrap(), Listed::default());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        /// A file with numbers and names that no boot has is drawn all the same, in bounded time.
        #[test]
        fn no_damage_makes_drawing_panic(
            numbers in proptest::collection::vec(any::<u64>(), 12),
            name in "\\PC{0,10}|[\u{0}-\u{1f}]{1,4}",
        ) {
            let mut boot = boot(numbers[0], "aaaaaaaa");
            boot.xen.as_mut().unwrap().own_us = Some(numbers[1]);
            for (step, number) in boot.record.steps.iter_mut().zip(&numbers) {
                (step.start_us, step.duration_us, step.step) = (*number, number.rotate_left(7), name.clone());
            }
            let userland = boot.userland.as_mut().unwrap();
            (userland.times.userspace_us, userland.times.finish_us) = (numbers[2], numbers[3]);
            for (unit, number) in userland.units.iter_mut().zip(&numbers) {
                (unit.start_us, unit.end_us, unit.id) = (*number, Some(number.rotate_left(9)), name.clone());
            }
            for (guest, number) in boot.guests.iter_mut().flatten().zip(&numbers) {
                (guest.since_us, guest.created_us) = (*number, Some(number.rotate_left(3)));
                (guest.ready_us, guest.name, guest.state) = (Some(number.rotate_left(5)), name.clone(), name.clone());
            }
            let bytes = serde_json::to_vec(&boot).unwrap();
            let read = parse(&bytes).unwrap();
            prop_assert_eq!(&read, &boot);
            let timeline = read.timeline();
            let _ = super::super::compare::compare(&timeline, &boot.timeline());
            for drawn in [text::draw(&timeline), svg::draw(&timeline)] {
                prop_assert!(!drawn.chars().any(|c| c.is_control() && c != '\n'));
            }
        }
    }
}
