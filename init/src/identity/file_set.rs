//! A set of files below given folders as one item: what of them is not the image's own is kept, byte for byte, in one archive.
//!
//! One file in the store for all of them, so that a power cut leaves the old set or the new one. What the archive may put
//! where is decided by the set's places alone, never by the archive.

use super::archive::{self, Content, Entries, Entry};
use super::folder::{Folder, Rights, Unread, replace};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeMap;
use std::io;

/// Bytes of all files of a set: a hundred times what a host needs, and nothing to dom0's memory.
const MOST_BYTES: usize = 256 << 10;
/// Files of a set.
const MOST_FILES: usize = 200;
/// Where a link may lead: it is how systemd is told that a file of this name is to have no effect. Source: systemd.unit(5).
const NOTHING: &str = "/dev/null";

/// Whether a name matters.
pub(super) type Interest = fn(&str) -> bool;

/// Which files of a folder belong to a set.
#[derive(Debug)]
pub(super) struct Place {
    /// The folder, below the root, without a slash in front.
    pub(super) folder: &'static str,
    /// Whether a file of this name belongs to it.
    pub(super) wants: Interest,
    /// Whether a folder in it is one of drop-ins, of which every `*.conf` belongs to it.
    pub(super) has_drop_ins: Interest,
}

/// A set of files.
#[derive(Debug)]
pub(super) struct FileSet {
    /// Where they are.
    pub(super) places: &'static [Place],
}

/// Whether a name is one that an administrator gives a file: no hidden one, no editor's copy, nothing that leads elsewhere.
pub(super) fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@:+,=".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

/// Whether a name is of this kind, and more than the kind. The kernel tells large letters from small ones.
pub(super) fn ends_with(name: &str, kind: &str) -> bool {
    name.strip_suffix(kind).is_some_and(|rest| !rest.is_empty())
}

/// Whether a name is that of a drop-in's file.
pub(super) fn is_drop_in(name: &str) -> bool {
    is_plain(name) && ends_with(name, ".conf")
}

impl FileSet {
    /// Checks an archive of this set.
    ///
    /// # Errors
    /// What is wrong, in words that follow "it".
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let entries = archive::unpack(bytes)?;
        for (path, entry) in &entries {
            if !self.has(path) {
                return Err("holds a file that does not belong there".to_owned());
            }
            match &entry.content {
                Content::File(content) if content.contains(&0) => {
                    return Err("holds a file that is not text".to_owned());
                }
                Content::Link(target) if target != NOTHING => {
                    return Err("holds a link that leads elsewhere".to_owned());
                }
                _ if entry.mode & !0o777 != 0 => return Err("holds a file with special permissions".to_owned()),
                _ => {}
            }
        }
        limits(&entries)
    }

    /// The archive of what the system below `root` has and `image` has not; `None` if that is nothing.
    ///
    /// # Errors
    /// A file cannot be read, is no plain file, or there is too much.
    pub(super) fn read(&self, root: &Folder, image: Option<&Folder>) -> Result<Option<Vec<u8>>> {
        let groups = Groups::of(root);
        let mut entries = Entries::new();
        for place in self.places {
            let Some(folder) = open(root, place.folder)? else { continue };
            let built = image.and_then(|image| image.inside(place.folder).ok());
            collect(&mut entries, place.folder, &folder, built.as_ref(), place.wants, &groups)?;
            for name in drop_ins(&folder, place)? {
                let path = format!("{}/{name}", place.folder);
                let Ok(inner) = folder.child(&name) else { continue };
                let built = built.as_ref().and_then(|built| built.child(&name).ok());
                collect(&mut entries, &path, &inner, built.as_ref(), is_drop_in, &groups)?;
            }
        }
        limits(&entries).map_err(|why| anyhow!("what is there {why}, which is too much to keep"))?;
        let packed = (!entries.is_empty()).then(|| archive::pack(&entries)).transpose();
        packed.map_err(|why| anyhow!(why))
    }

    /// Puts the files of an archive in their places; others stay. Returns whether that changed anything.
    ///
    /// # Errors
    /// It is no archive of this set. A file could not be written; the others were.
    pub(super) fn place(&self, root: &Folder, bytes: &[u8]) -> Result<bool> {
        self.check(bytes).map_err(|why| anyhow!("it {why}"))?;
        let entries = archive::unpack(bytes).map_err(|why| anyhow!("it {why}"))?;
        let groups = Groups::of(root);
        let (mut changed, mut failed) = (false, Ok(()));
        for (path, entry) in &entries {
            match put(root, path, entry, &groups).with_context(|| format!("writing /{path}")) {
                Ok(new) => changed |= new,
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed.map(|()| changed)
    }

    /// The folders to watch, each with the names in it that matter.
    pub(super) fn folders(&self, root: &Folder) -> Vec<(String, Interest)> {
        let mut all: Vec<(String, Interest)> = Vec::new();
        for place in self.places {
            all.push((place.folder.to_owned(), place.wants));
            all.push((place.folder.to_owned(), place.has_drop_ins));
            let inner = root.inside(place.folder).ok().and_then(|folder| drop_ins(&folder, place).ok());
            all.extend(
                inner.into_iter().flatten().map(|name| (format!("{}/{name}", place.folder), is_drop_in as Interest)),
            );
        }
        all
    }

    /// Whether a path is one of the set's.
    fn has(&self, path: &str) -> bool {
        self.places.iter().any(|place| {
            let Some(rest) = path.strip_prefix(place.folder).and_then(|rest| rest.strip_prefix('/')) else {
                return false;
            };
            match rest.split_once('/') {
                None => (place.wants)(rest),
                Some((folder, name)) => (place.has_drop_ins)(folder) && is_drop_in(name),
            }
        })
    }
}

/// The paths in an archive.
pub(super) fn paths(bytes: &[u8]) -> Vec<String> {
    archive::unpack(bytes).map(|entries| entries.into_keys().collect()).unwrap_or_default()
}

/// The files of both archives; where both have one, that of the second. `None` if one is no archive, or it is too much.
pub(super) fn united(first: &[u8], second: &[u8]) -> Option<Vec<u8>> {
    let mut all = archive::unpack(first).ok()?;
    all.extend(archive::unpack(second).ok()?);
    limits(&all).ok()?;
    archive::pack(&all).ok()
}

fn limits(entries: &Entries) -> Result<(), String> {
    let length = |entry: &Entry| if let Content::File(bytes) = &entry.content { bytes.len() } else { 0 };
    let bytes: usize = entries.values().map(length).sum();
    if entries.len() > MOST_FILES || bytes > MOST_BYTES {
        return Err(format!("holds more than {MOST_FILES} files or {} KiB", MOST_BYTES >> 10));
    }
    Ok(())
}

fn open(root: &Folder, path: &str) -> Result<Option<Folder>> {
    match root.inside(path) {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("opening /{path}")),
    }
}

fn drop_ins(folder: &Folder, place: &Place) -> Result<Vec<String>> {
    let mut names = folder.names().with_context(|| format!("reading /{}", place.folder))?;
    names.retain(|name| (place.has_drop_ins)(name));
    names.truncate(MOST_FILES);
    Ok(names)
}

/// Adds the files of one folder that the image has not.
fn collect(
    entries: &mut Entries,
    path: &str,
    folder: &Folder,
    image: Option<&Folder>,
    wants: Interest,
    groups: &Groups,
) -> Result<()> {
    for name in folder.names().with_context(|| format!("reading /{path}"))?.into_iter().filter(|name| wants(name)) {
        let full = format!("{path}/{name}");
        let entry = entry(folder, &name, groups).with_context(|| format!("/{full} is not kept"))?;
        let built = image.and_then(|image| self::entry(image, &name, groups).ok().flatten());
        if let Some(entry) = entry
            && built.as_ref() != Some(&entry)
        {
            entries.insert(full, entry);
        }
        if entries.len() > MOST_FILES {
            break;
        }
    }
    Ok(())
}

/// A file as it is now; `None` if it is gone.
fn entry(folder: &Folder, name: &str, groups: &Groups) -> Result<Option<Entry>> {
    if let Some(target) = folder.link(name) {
        if target != NOTHING {
            bail!("it is a link to {target:?}; put the file itself in its place (a link to {NOTHING} is kept)");
        }
        return Ok(Some(Entry { mode: 0o777, group: "root".to_owned(), content: Content::Link(target) }));
    }
    let found = match folder.read(name) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        Err(Unread::Foreign(why)) => bail!(why),
        Err(Unread::Failed(error)) => return Err(error.into()),
    };
    if found.bytes.contains(&0) {
        bail!("it is not text");
    }
    let group = groups.name(found.rights.group.unwrap_or_default());
    Ok(Some(Entry { mode: found.rights.mode & 0o777, group, content: Content::File(found.bytes) }))
}

/// Writes a file unless it is so already.
fn put(root: &Folder, path: &str, entry: &Entry, groups: &Groups) -> Result<bool> {
    let (folder, name) = path.rsplit_once('/').context("it has no folder")?;
    let mut at = root.inside(".")?;
    for part in folder.split('/') {
        at = at.made(part, 0o755)?;
    }
    if self::entry(&at, name, groups).is_ok_and(|there| there.as_ref() == Some(entry)) {
        return Ok(false);
    }
    match &entry.content {
        Content::File(bytes) => {
            let group = groups.number(&entry.group);
            replace(&mut at, name, bytes, Rights { mode: entry.mode, group: Some(group) })?;
        }
        Content::Link(target) => at.put_link(name, target)?,
    }
    Ok(true)
}

/// The groups of a system by their numbers. A group has the same name in every image, but not the same number.
struct Groups(BTreeMap<u32, String>);

impl Groups {
    /// Reads them. Source: group(5).
    fn of(root: &Folder) -> Self {
        let found = root.inside("etc").ok().and_then(|etc| etc.read("group").ok().flatten());
        let text = found.map(|found| String::from_utf8_lossy(&found.bytes).into_owned()).unwrap_or_default();
        let line = |line: &str| {
            let mut fields = line.split(':');
            let (name, number) = (fields.next()?, fields.nth(1)?);
            Some((number.parse().ok()?, name.to_owned()))
        };
        let mut groups: BTreeMap<u32, String> = text.lines().filter_map(line).collect();
        groups.insert(0, "root".to_owned());
        Self(groups)
    }

    fn name(&self, number: u32) -> String {
        self.0.get(&number).cloned().unwrap_or_else(|| number.to_string())
    }

    /// Its number; root's if this system has no such group, so that nobody else can read the file.
    fn number(&self, name: &str) -> u32 {
        let known = self.0.iter().find(|(_, known)| *known == name).map(|(number, _)| *number);
        known.or_else(|| name.parse().ok()).unwrap_or_default()
    }
}
