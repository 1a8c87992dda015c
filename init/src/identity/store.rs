//! The store: one file for each item in `/srv/sino/state`. It is opened for each use and held open by none, so that
//! `/srv` can be unmounted at any time; what lies below an unmounted `/srv` is never touched.

use super::folder::{Disk as _, Folder, Found, Rights, Unread, remove_if_there, replace};
use super::items::{self, Files, Item};
use crate::storage::full;
use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
use serde_json::Value;
use sino_boot::layout;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The folder of the items below SINO's own.
const STATE: &str = "state";
/// What is added to the name of a damaged file.
const DAMAGED: &str = ".damaged";
/// More host keys than sshd knows kinds are not read.
const MOST_HOST_KEYS: usize = 16;

/// Where the items are kept.
#[derive(Clone, Debug)]
pub struct Store {
    /// Where the volume is mounted, and the store's folder below it.
    volume: PathBuf,
    folders: Vec<String>,
    must_be_mounted: bool,
}

/// The volume that holds the store is not mounted.
#[derive(Debug)]
pub struct NotMounted(PathBuf);

impl fmt::Display for NotMounted {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "nothing is mounted on {}; to see why: sino status", self.0.display())
    }
}

impl std::error::Error for NotMounted {}

/// What the store has of an item.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Files whose content is right.
    pub(super) files: Files,
    /// When the newest of them was written.
    pub(super) since: Option<SystemTime>,
    /// Files whose content is not, with what is wrong.
    pub(super) damaged: Vec<Damage>,
    /// Files that could not be read at all.
    pub(super) unread: Vec<String>,
}

/// A damaged file.
#[derive(Debug)]
pub(super) struct Damage {
    /// Its name in the store.
    pub(super) file: String,
    /// What is wrong, in words that follow "it".
    pub(super) why: String,
}

impl Store {
    /// The store of this host: `/srv/sino/state`, once `/srv` is mounted.
    #[must_use]
    pub fn on_host() -> Self {
        let below = layout::SRV_STATE.strip_prefix(layout::SRV).unwrap_or_default();
        let folders = below.split('/').filter(|part| !part.is_empty()).chain([STATE]);
        let folders = folders.map(str::to_owned).collect();
        Self { volume: PathBuf::from(layout::SRV), folders, must_be_mounted: true }
    }

    /// The store of a volume that is mounted elsewhere, for example that of another host.
    #[must_use]
    pub fn on_volume(mounted_on: &Path) -> Self {
        Self { volume: mounted_on.to_owned(), ..Self::on_host() }
    }

    /// A store in any folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { volume: folder.to_owned(), folders: Vec::new(), must_be_mounted: false }
    }

    /// The folder, for people.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folders.iter().fold(self.volume.clone(), |path, part| path.join(part))
    }

    /// The number of the device that the volume is on; it tells one volume from another.
    ///
    /// # Errors
    /// [`NotMounted`], or the mount point cannot be looked at.
    pub fn device(&self) -> Result<u64> {
        let volume = self.open_volume()?;
        let facts = rustix::fs::fstat(volume.fd()).with_context(|| format!("looking at {}", self.volume.display()))?;
        Ok(facts.st_dev)
    }

    /// Makes sure that the store can be used, if there is one.
    ///
    /// # Errors
    /// [`NotMounted`], or it is not this system's to use.
    pub(super) fn check(&self) -> Result<()> {
        self.open().map(|_| ())
    }

    /// Opens the volume's root. What is asked of the open folder cannot change any more when it is unmounted.
    fn open_volume(&self) -> Result<Folder> {
        let folder = Folder::open(&self.volume).with_context(|| format!("opening {}", self.volume.display()))?;
        if self.must_be_mounted {
            let facts = statx(folder.fd(), "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
                .with_context(|| format!("looking at {}", self.volume.display()))?;
            if !facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                bail!(NotMounted(self.volume.clone()));
            }
        }
        Ok(folder)
    }

    /// Opens the store's folder; `None` if there is none yet.
    fn open(&self) -> Result<Option<Folder>> {
        let mut folder = self.open_volume()?;
        for part in &self.folders {
            folder = match folder.child(part) {
                Ok(child) => child,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error).with_context(|| format!("opening {}", self.path().display())),
            };
        }
        self.check_owner(&folder)?;
        Ok(Some(folder))
    }

    /// Opens the store's folder, and makes it if there is none.
    fn open_to_write(&self) -> Result<Folder> {
        let mut folder = self.open_volume()?;
        for part in &self.folders {
            // SINO's own folder also holds the configuration, which everybody may read.
            let mode = if part == STATE { 0o700 } else { 0o755 };
            folder = folder
                .made(part, mode)
                .map_err(|error| full::explained(&self.volume, error))
                .with_context(|| format!("making {}", self.path().display()))?;
        }
        self.check_owner(&folder)?;
        Ok(folder)
    }

    /// Refuses a folder that another user can write to, and closes one that others can read.
    fn check_owner(&self, folder: &Folder) -> Result<()> {
        let path = self.path();
        let facts = rustix::fs::fstat(folder.fd()).with_context(|| format!("looking at {}", path.display()))?;
        let us = rustix::process::geteuid().as_raw();
        if facts.st_uid != us {
            bail!(
                "{} belongs to the user {}, so what it holds is not trusted; to use it: chown -R root: {}",
                path.display(),
                facts.st_uid,
                path.display()
            );
        }
        if facts.st_mode & 0o077 != 0 {
            // On a volume that is read-only it stays as it is.
            let _ = rustix::fs::fchmod(folder.fd(), rustix::fs::Mode::RWXU);
        }
        Ok(())
    }

    /// What is kept of an item. Nothing is changed.
    ///
    /// # Errors
    /// The store itself cannot be read: [`NotMounted`], or another reason.
    pub(super) fn look(&self, item: Item) -> Result<Kept> {
        let mut kept = Kept::default();
        let Some(folder) = self.open()? else { return Ok(kept) };
        let names = match item.file() {
            Some(name) => vec![name.to_owned()],
            None => host_key_names(&folder).with_context(|| format!("reading {}", self.path().display()))?,
        };
        for name in names {
            let found = match folder.read(&name) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(Unread::Foreign(why)) => {
                    kept.damaged.push(Damage { file: name, why });
                    continue;
                }
                Err(Unread::Failed(error)) => {
                    kept.unread.push(format!("{} cannot be read: {error}", self.path().join(name).display()));
                    continue;
                }
            };
            match items::check(item, &found.bytes) {
                Ok(()) => {
                    kept.since = kept.since.max(Some(found.modified));
                    kept.files.insert(name, found.bytes);
                }
                Err(why) => kept.damaged.push(Damage { file: name, why: format!("it {why}") }),
            }
        }
        Ok(kept)
    }

    /// Puts a damaged file out of the way, so that it is neither used nor lost, and returns what a person should read.
    pub(super) fn set_aside(&self, item: Item, damage: &Damage) -> String {
        let path = self.path().join(&damage.file);
        let renamed = self.open().and_then(|folder| {
            let mut folder = folder.context("it is gone")?;
            let aside = format!("{}{DAMAGED}", damage.file);
            folder.rename(&damage.file, &aside)?;
            folder.sync_names()?;
            Ok(())
        });
        let then = match renamed {
            Ok(()) => format!("set aside as {}{DAMAGED}", damage.file),
            Err(error) => format!("it could not be set aside: {error:#}"),
        };
        format!("{item} is not restored: {} is damaged ({}); {then}", path.display(), damage.why)
    }

    /// Keeps an item: writes those files that are not there yet with this content. Returns whether it wrote.
    ///
    /// # Errors
    /// [`NotMounted`], a full file system and the like; what was kept before is kept still.
    pub(super) fn keep(&self, item: Item, files: &Files) -> Result<bool> {
        let mut folder = self.open_to_write()?;
        let mut wrote = false;
        for (name, bytes) in files {
            if let Err(why) = items::check(item, bytes) {
                bail!("{item} of the running system is not kept: it {why}");
            }
            let same = |found: &Found| found.bytes == *bytes && found.rights.mode == item.mode();
            if matches!(folder.read(name), Ok(Some(found)) if same(&found)) {
                continue;
            }
            replace(&mut folder, name, bytes, Rights::mode(item.mode()))
                .map_err(|error| full::explained(&self.volume, error))
                .with_context(|| format!("writing {}", self.path().join(name).display()))?;
            wrote = true;
        }
        Ok(wrote)
    }

    /// Removes an item, also what is damaged of it. Returns whether there was anything.
    ///
    /// # Errors
    /// [`NotMounted`], or a file cannot be removed.
    pub(super) fn forget(&self, item: Item) -> Result<bool> {
        let Some(mut folder) = self.open()? else { return Ok(false) };
        let all = folder.names().with_context(|| format!("reading {}", self.path().display()))?;
        let mut removed = false;
        for name in all {
            let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(".new"));
            let plain = inner.or(name.strip_suffix(DAMAGED)).unwrap_or(&name);
            let ours = item.file().map_or_else(|| items::is_host_key_name(plain), |file| file == plain);
            if ours {
                removed |= remove_if_there(&mut folder, &name)
                    .with_context(|| format!("removing {}", self.path().join(&name).display()))?;
            }
        }
        Ok(removed)
    }

    /// The leases that were had last, by bridge. None when there are none, or when what is kept is damaged; then it is
    /// set aside, and the second value says so.
    ///
    /// # Errors
    /// The store cannot be read: [`NotMounted`], or another reason.
    pub fn leases(&self) -> Result<(BTreeMap<String, Value>, Vec<String>)> {
        let kept = self.look(Item::Leases)?;
        let mut problems = kept.unread;
        problems.extend(kept.damaged.iter().map(|damage| self.set_aside(Item::Leases, damage)));
        let leases = kept.files.values().find_map(|bytes| items::leases(bytes).ok());
        Ok((leases.unwrap_or_default(), problems))
    }

    /// Keeps the leases. Returns whether they differed from those that were kept.
    ///
    /// # Errors
    /// [`NotMounted`], a full file system and the like; what was kept before is kept still.
    pub fn keep_leases(&self, leases: &BTreeMap<String, Value>) -> Result<bool> {
        let mut bytes = serde_json::to_vec_pretty(leases).context("writing the leases as JSON")?;
        bytes.push(b'\n');
        let name = Item::Leases.file().unwrap_or_default().to_owned();
        self.keep(Item::Leases, &Files::from([(name, bytes)]))
    }
}

fn host_key_names(folder: &Folder) -> io::Result<Vec<String>> {
    let mut names = folder.names()?;
    names.retain(|name| items::is_host_key_name(name));
    names.truncate(MOST_HOST_KEYS);
    Ok(names)
}
