//! A folder of things that are expensive to make, each under the hash of everything that it is made from.
//!
//! A thing is made under a `.partial` name and renamed when it is whole, under a lock, so that an interrupted or a
//! second build never takes a half-made thing for a whole one; leftovers are removed by the next build that wants
//! the same thing. The cache never expires by itself: deleting any of it is always safe while no build runs.

use crate::command;
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The cache's folder.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// A hash over named inputs; the names and lengths are hashed too, so that no two lists of inputs are alike.
#[derive(Clone, Debug, Default)]
pub struct Key {
    hasher: blake3::Hasher,
}

impl Key {
    /// A key for things of this kind; `format` is raised when the way they are made changes.
    #[must_use]
    pub fn new(kind: &str, format: u32) -> Self {
        Self::default().with(kind, format.to_le_bytes())
    }

    /// Adds an input.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [name.as_bytes(), value.as_ref()] {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
        self
    }

    /// Adds a file's content.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn with_file(self, name: &str, path: &Path) -> Result<Self> {
        let hash = file_hash(path)?;
        Ok(self.with(name, hash))
    }

    /// The key as 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

/// BLAKE3 of a file as 64 hexadecimal digits.
///
/// # Errors
/// The file cannot be read.
pub fn file_hash(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    hasher.update_reader(file).with_context(|| format!("reading {}", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}

impl Cache {
    /// A cache in `folder`, which is made when it is first used.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The cache's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a thing lies when it is there.
    #[must_use]
    pub fn path(&self, kind: &str, key: &Key) -> PathBuf {
        let hex = key.hex();
        self.folder.join(kind).join(hex.get(..24).unwrap_or(&hex))
    }

    /// Returns the thing's path; makes it first when it is not there or when `fresh` asks for a new one.
    ///
    /// `make` gets the path to write a file or a folder to; it does not exist yet.
    ///
    /// # Errors
    /// The error of `make`, or the cache cannot be written.
    pub fn get(&self, kind: &str, key: &Key, fresh: bool, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let whole = self.path(kind, key);
        if whole.exists() && !fresh {
            return Ok(whole);
        }
        let parent = self.folder.join(kind);
        create_folder(&parent)?;
        let _lock = lock(&with_suffix(&whole, "lock"))?;
        // Another build may have made it while this one waited for the lock.
        if whole.exists() && !fresh {
            return Ok(whole);
        }
        let partial = with_suffix(&whole, "partial");
        remove(&partial)?;
        remove_abandoned(&parent)?;
        if let Err(error) = make(&partial) {
            // The first error is the one to tell; what is left over is removed by the next build at the latest.
            let _ = remove(&partial);
            return Err(error);
        }
        remove(&whole)?;
        fs::rename(&partial, &whole)
            .with_context(|| format!("renaming {} to {}", partial.display(), whole.display()))?;
        Ok(whole)
    }
}

/// Removes what interrupted builds of other things left behind; what a running build works on is locked and stays.
fn remove_abandoned(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading the folder {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (Some((thing, _)), true) = (name.split_once('.'), name.ends_with(".partial")) else { continue };
        let lock = folder.join(format!("{thing}.lock"));
        let file = File::create(&lock).with_context(|| format!("creating {}", lock.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(&path)?;
        }
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Takes an exclusive lock on a file, which is made when it is missing; it lasts as long as the returned file.
///
/// # Errors
/// The file cannot be made or locked.
pub fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Makes a folder with all its parents.
///
/// # Errors
/// It cannot be made.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("creating the folder {}", path.display()))
}

/// Removes a file or a whole folder; nothing there is fine. Never crosses into another file system.
///
/// # Errors
/// Something is mounted below the path, or it cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    let Ok(facts) = fs::symlink_metadata(path) else { return Ok(()) };
    if !facts.is_dir() {
        return fs::remove_file(path).with_context(|| format!("removing {}", path.display()));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let full = fs::canonicalize(path).with_context(|| format!("resolving {}", path.display()))?;
    if let Some(mount) = mount_below(&mounts, &full.to_string_lossy()) {
        bail!("{} is not removed: {mount} is mounted; unmount it first", path.display());
    }
    command::run(Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(path))?;
    Ok(())
}

/// The first mount point at or below `path` in the text of `/proc/self/mountinfo`.
fn mount_below(mountinfo: &str, path: &str) -> Option<String> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let below = |point: &&str| point.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    points.into_iter().find(below).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_when_any_input_does() {
        let key = |parts: &[(&str, &str)]| {
            parts.iter().fold(Key::new("thing", 1), |key, (name, value)| key.with(name, value)).hex()
        };
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
        assert_ne!(key(&[("a", "bc")]), key(&[("ab", "c")]));
        assert_ne!(key(&[("a", "b")]), key(&[("a", "b"), ("", "")]));
        assert_ne!(Key::new("thing", 1).hex(), Key::new("thing", 2).hex());
    }

    #[test]
    fn a_thing_is_made_once_and_never_half() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let key = Key::new("thing", 1);
        let half = cache.get("things", &key, false, |path| {
            fs::write(path, "half")?;
            bail!("interrupted")
        });
        assert_eq!(half.unwrap_err().to_string(), "interrupted");
        assert!(!cache.path("things", &key).exists());
        // What a killed build leaves behind is not in the way either.
        fs::create_dir_all(with_suffix(&cache.path("things", &key), "partial").join("deep")).unwrap();
        let path = cache.get("things", &key, false, |path| Ok(fs::write(path, "whole")?)).unwrap();
        let again = cache.get("things", &key, false, |_| bail!("made twice")).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), &path), ("whole", &again));
        cache.get("things", &key, true, |path| Ok(fs::write(path, "new")?)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn what_other_interrupted_builds_left_is_removed_unless_it_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let things = folder.path().join("things");
        fs::create_dir_all(things.join("dead.root.partial/deep")).unwrap();
        fs::write(things.join("busy.partial"), "").unwrap();
        let busy = lock(&things.join("busy.lock")).unwrap();
        let cache = Cache::new(folder.path());
        cache.get("things", &Key::new("thing", 1), false, |path| Ok(fs::write(path, "")?)).unwrap();
        assert!(!things.join("dead.root.partial").exists() && things.join("busy.partial").exists());
        // Not by closing it: a program that another test is just starting has the file open too.
        flock(&busy, FlockOperation::Unlock).unwrap();
        cache.get("things", &Key::new("thing", 2), false, |path| Ok(fs::write(path, "")?)).unwrap();
        assert!(!things.join("busy.partial").exists());
    }

    #[test]
    fn mounts_below_a_path_are_seen() {
        let text = "21 1 0:20 / / rw - ext4 /dev/vda rw\n22 21 0:5 / /a/tree/proc rw - proc proc rw\n";
        assert_eq!(mount_below(text, "/a/tree").as_deref(), Some("/a/tree/proc"));
        assert_eq!(mount_below(text, "/a/tree/proc").as_deref(), Some("/a/tree/proc"));
        assert_eq!(mount_below(text, "/a/tre"), None);
    }
}
