//! Which of the root's files must stay readable when the medium is gone: enough to stop the guests, to log in, and to
//! shut the host down. The list goes into the image as [`sino_boot::layout::HELD_IN_RAM`]; stage one's keeper reads it
//! there and holds the files in memory.
//!
//! A line is a file or a symbolic link, as an absolute path without links in its folders; the links that lead to a file
//! are lines of their own. From the [`ROOTS`] on, everything is taken that a file names: an ELF file its libraries and
//! its interpreter, a script its interpreter, a file of PAM its modules. Nothing outside the tree is looked at.

mod elf;
mod roots;

pub use roots::ROOTS;

use anyhow::{Context, Result, bail, ensure};
use sino_boot::modules::matches;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Some programs and files, and why they are needed.
#[derive(Clone, Copy, Debug)]
pub struct Root {
    /// What they are needed for.
    pub why: &'static str,
    /// Whether a tree that has none of them is refused.
    pub essential: bool,
    /// Names in the folders of programs, with spaces between them; `*` stands for any characters.
    pub programs: &'static str,
    /// Paths below the root, with spaces between them; `*` stands for any characters of a name, `**` at the end for
    /// everything below a folder.
    pub files: &'static str,
}

/// What was chosen.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The files and links, as absolute paths.
    pub paths: BTreeSet<String>,
    /// Bytes of each file; several names of one file count once.
    pub sizes: BTreeMap<String, u64>,
}

/// What all of it should have together at most: that much of a host's memory is never free. More is said, not refused.
const LIMIT: u64 = 52 << 20;
/// Where programs are.
const PROGRAM_FOLDERS: &[&str] = &["usr/sbin", "usr/bin"];
/// Where libraries are, in Debian's order (`/etc/ld.so.conf.d`, then ld.so's own folders).
const LIBRARY_FOLDERS: &[&str] =
    &["usr/local/lib", "usr/local/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64"];
/// Where PAM's modules are.
const PAM_FOLDERS: &[&str] = &["usr/lib/x86_64-linux-gnu/security", "usr/lib/security"];
/// How many links may lead from one to the next, as the kernel has it (`path_resolution(7)`).
const MOST_LINKS: u32 = 40;

/// The files of the tree `root` that these roots need.
///
/// # Errors
/// An essential file is missing, a library is missing, or a file cannot be read.
pub fn choose(root: &Path, roots: &[Root]) -> Result<Held> {
    let mut chooser = Chooser { root, held: Held::default(), seen: BTreeSet::new(), open: Vec::new() };
    for entry in roots {
        let programs = entry.programs.split_whitespace();
        let programs = programs.flat_map(|name| PROGRAM_FOLDERS.iter().map(move |folder| join(folder, name)));
        let patterns = programs.chain(entry.files.split_whitespace().map(str::to_owned));
        let mut found = false;
        for pattern in patterns {
            for path in chooser.expand(&pattern)? {
                chooser.take(&path)?;
                found = true;
            }
        }
        let Root { why, programs, files, .. } = entry;
        ensure!(found || !entry.essential, "there is none of: {programs} {files}; needed for: {why}");
    }
    // The folders that programs name by their old places.
    for path in ["bin", "lib", "lib64", "sbin"] {
        chooser.take(path)?;
    }
    while let Some(path) = chooser.open.pop() {
        chooser.follow(&path).with_context(|| format!("following what /{path} needs"))?;
    }
    Ok(chooser.held)
}

impl Held {
    /// The list: one path a line, sorted.
    #[must_use]
    pub fn text(&self) -> String {
        self.paths.iter().flat_map(|path| [path.as_str(), "\n"]).collect()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sizes.values().sum()
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let mut sizes: Vec<_> = self.sizes.iter().collect();
        sizes.sort_by_key(|(_, size)| std::cmp::Reverse(**size));
        let mut line = format!(
            "held in RAM: {} files, {} links, {} kB of {} kB; largest:",
            self.sizes.len(),
            self.paths.len() - self.sizes.len(),
            self.bytes() / 1000,
            LIMIT / 1000
        );
        for (path, size) in sizes.iter().take(10) {
            // Writing to a String cannot fail.
            let _ = write!(line, " {} {} kB", path.rsplit('/').next().unwrap_or(path), *size / 1000);
        }
        if self.bytes() > LIMIT {
            line.push_str("; TOO MUCH: leave something out in image/src/held/roots.rs");
        }
        line
    }
}

/// Where a path leads inside the tree.
struct Place {
    /// The path without links, below the root. What it names need not exist.
    path: String,
    /// The links on the way, likewise.
    links: Vec<String>,
}

struct Chooser<'a> {
    root: &'a Path,
    held: Held,
    /// Device and number of each file that was counted.
    seen: BTreeSet<(u64, u64)>,
    /// Files whose needs are not followed yet.
    open: Vec<String>,
}

impl Chooser<'_> {
    /// Takes a path with all links that lead to it, if it is a file.
    fn take(&mut self, path: &str) -> Result<bool> {
        let place = resolve(self.root, path)?;
        self.held.paths.extend(place.links.iter().map(|link| format!("/{link}")));
        let Ok(facts) = fs::symlink_metadata(self.root.join(&place.path)) else { return Ok(false) };
        if facts.is_file() && self.held.paths.insert(format!("/{}", place.path)) {
            let size = if self.seen.insert((facts.dev(), facts.ino())) { facts.len() } else { 0 };
            self.held.sizes.insert(format!("/{}", place.path), size);
            self.open.push(place.path);
        }
        Ok(facts.is_file())
    }

    /// The paths that exist and match.
    fn expand(&self, pattern: &str) -> Result<Vec<String>> {
        let mut found = vec![String::new()];
        for part in pattern.split('/') {
            let mut next = Vec::new();
            for folder in found {
                let folder = resolve(self.root, &folder)?.path;
                match part {
                    "**" => self.below(&folder, &mut next)?,
                    _ if part.contains('*') => {
                        let names = self.names(&folder)?;
                        next.extend(names.iter().filter(|name| matches(part, name)).map(|name| join(&folder, name)));
                    }
                    _ => {
                        let path = join(&folder, part);
                        next.extend(fs::symlink_metadata(self.root.join(&path)).is_ok().then_some(path));
                    }
                }
            }
            found = next;
        }
        Ok(found)
    }

    /// All files and links below a folder.
    fn below(&self, folder: &str, found: &mut Vec<String>) -> Result<()> {
        for name in self.names(folder)? {
            let path = join(folder, &name);
            let facts = fs::symlink_metadata(self.root.join(&path)).with_context(|| format!("reading /{path}"))?;
            if facts.is_dir() {
                self.below(&path, found)?;
            } else {
                found.push(path);
            }
        }
        Ok(())
    }

    /// The names in a folder; none where there is no folder.
    fn names(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.root.join(folder);
        if !path.is_dir() {
            return Ok(Vec::new());
        }
        let reading = || format!("reading the folder {}", path.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).with_context(reading)? {
            let name = entry.with_context(reading)?.file_name();
            names.push(name.into_string().ok().with_context(|| format!("{}: a name is not UTF-8", path.display()))?);
        }
        Ok(names)
    }

    /// Takes what this file names.
    fn follow(&mut self, path: &str) -> Result<()> {
        let bytes = fs::read(self.root.join(path))?;
        if let Some(loads) = elf::loads(&bytes)? {
            return self.follow_elf(path, &loads);
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Some(line) = text.strip_prefix("#!").and_then(|rest| rest.lines().next()) {
            // "#!/usr/bin/env NAME" has the program looked for.
            for word in line.split_whitespace().take(2).filter(|word| !word.starts_with('-')) {
                self.take_first(word, PROGRAM_FOLDERS)?;
            }
        }
        if path.contains("/pam.d/") {
            let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            for module in lines.flat_map(str::split_whitespace).filter(|word| word.strip_suffix(".so").is_some()) {
                // PAM goes on without a module that is not installed.
                self.take_first(module, PAM_FOLDERS)?;
            }
        }
        Ok(())
    }

    fn follow_elf(&mut self, path: &str, loads: &elf::Loads) -> Result<()> {
        let own = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let folders: Vec<String> =
            loads.folders.iter().map(|folder| folder.replace("$ORIGIN", own).replace("${ORIGIN}", own)).collect();
        let mut folders: Vec<&str> =
            folders.iter().map(String::as_str).chain(LIBRARY_FOLDERS.iter().copied()).collect();
        // systemd's libraries need each other without saying where; the program that loads both does.
        folders.push(own);
        for library in loads.interpreter.iter().chain(&loads.needed) {
            if !self.take_first(library, &folders)? {
                bail!("{library} is missing");
            }
        }
        for names in &loads.wanted {
            for name in names {
                if self.take_first(name, &folders)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Takes an absolute path, or the first file of that name in the folders.
    fn take_first(&mut self, name: &str, folders: &[&str]) -> Result<bool> {
        if name.contains('/') {
            return self.take(name);
        }
        for folder in folders {
            let path = join(folder, name);
            if self.root.join(&resolve(self.root, &path)?.path).is_file() {
                return self.take(&path);
            }
        }
        Ok(false)
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Follows every link of `path` as if `root` were the root.
fn resolve(root: &Path, path: &str) -> Result<Place> {
    let mut place = Place { path: String::new(), links: Vec::new() };
    let mut open: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
    let mut left = MOST_LINKS;
    while let Some(part) = open.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                place.path.truncate(place.path.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let next = join(&place.path, &part);
        let Ok(target) = fs::read_link(root.join(&next)) else {
            place.path = next;
            continue;
        };
        left = left.checked_sub(1).with_context(|| format!("/{path} leads through too many links"))?;
        place.links.push(next);
        let target = target.to_str().with_context(|| format!("/{path} leads to a name that is not UTF-8"))?;
        if target.starts_with('/') {
            place.path.clear();
        }
        open.extend(target.rsplit('/').map(str::to_owned));
    }
    Ok(place)
}

#[cfg(test)]
mod tests;
