//! A cpio archive in the `newc` format as a value: entries in order, and bytes that depend on nothing else.
//!
//! Everything belongs to root, has the same time, and inode numbers count from 1, so equal entries give equal bytes.
//! Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file with its content.
    File(Vec<u8>),
    /// A symbolic link with its target.
    Link(String),
    /// A character device with its major and minor number.
    Device(u32, u32),
}

/// An archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    entries: BTreeMap<String, (u32, Kind)>,
}

impl Archive {
    /// An archive without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry at `path` (no leading slash), and the folders above it.
    ///
    /// # Errors
    /// A path that is not plain and relative, or that is there already.
    pub fn add(&mut self, path: &str, mode: u32, kind: Kind) -> Result<()> {
        let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        ensure!(plain && path.is_ascii(), "{path:?} is not a plain relative path");
        ensure!(path != "TRAILER!!!", "the path TRAILER!!! ends an archive");
        for (at, _) in path.match_indices('/') {
            let parent = path.get(..at).unwrap_or_default().to_owned();
            self.entries.entry(parent).or_insert((0o755, Kind::Folder));
        }
        let old = self.entries.insert(path.to_owned(), (mode & 0o7777, kind));
        ensure!(old.is_none(), "{path} is in the archive twice");
        Ok(())
    }

    /// Adds a regular file.
    ///
    /// # Errors
    /// As [`Archive::add`].
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Result<()> {
        self.add(path, mode, Kind::File(content.into()))
    }

    /// Adds a folder.
    ///
    /// # Errors
    /// As [`Archive::add`].
    pub fn folder(&mut self, path: &str) -> Result<()> {
        self.add(path, 0o755, Kind::Folder)
    }

    /// The archive's bytes, padded to 512; every entry has the time `epoch`.
    ///
    /// # Errors
    /// A file or the time is too large for the format.
    pub fn to_bytes(&self, epoch: u64) -> Result<Vec<u8>> {
        let time = u32::try_from(epoch).context("the archive's time does not fit into 32 bits")?;
        let mut bytes = Vec::new();
        for (index, (path, (mode, kind))) in self.entries.iter().enumerate() {
            let number = u32::try_from(index + 1).context("the archive has too many entries")?;
            let (format, content, device): (u32, &[u8], (u32, u32)) = match kind {
                Kind::Folder => (0o040_000, &[], (0, 0)),
                Kind::File(content) => (0o100_000, content, (0, 0)),
                Kind::Link(target) => (0o120_000, target.as_bytes(), (0, 0)),
                Kind::Device(major, minor) => (0o020_000, &[], (*major, *minor)),
            };
            let links = if matches!(kind, Kind::Folder) { 2 } else { 1 };
            push(&mut bytes, path, [number, format | mode, links, time, device.0, device.1], content)?;
        }
        push(&mut bytes, "TRAILER!!!", [0, 0, 1, 0, 0, 0], &[])?;
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        Ok(bytes)
    }
}

/// Appends one entry: a header of 13 numbers, the name, the content, each part padded to 4 bytes.
fn push(bytes: &mut Vec<u8>, path: &str, facts: [u32; 6], content: &[u8]) -> Result<()> {
    let [number, mode, links, time, major, minor] = facts;
    let size = u32::try_from(content.len()).with_context(|| format!("{path} is too large for a cpio archive"))?;
    let name = u32::try_from(path.len() + 1).context("a path is too long for a cpio archive")?;
    let mut header = "070701".to_owned();
    for value in [number, mode, 0, 0, links, time, size, 0, 0, major, minor, name, 0] {
        // Writing to a String cannot fail.
        let _ = write!(header, "{value:08x}");
    }
    bytes.extend(header.bytes());
    bytes.extend(path.bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(())
}

#[cfg(test)]
mod tests;
