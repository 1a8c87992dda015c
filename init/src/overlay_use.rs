//! How full the overlay is that takes what is written to the root, and with what.

use anyhow::{Context, Result};
use rustix::fs::statvfs;
use serde::Serialize;
use sino_boot::layout;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How many of the largest folders are shown.
const SHOWN: usize = 5;
/// Folders are told apart down to this depth: `/var/log`, not `/var`.
const DEPTH: usize = 2;

/// The use of the overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OverlayUse {
    /// Bytes that fit.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
    /// Files and folders that fit.
    pub files: u64,
    /// Files and folders in use.
    pub files_used: u64,
    /// The largest folders and files, largest first.
    pub largest: Vec<Part>,
}

/// A folder, or a file near the root, with all that was written below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its path in the running system.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// Files and folders.
    pub files: u64,
}

impl OverlayUse {
    /// Looks at the overlay of this boot.
    ///
    /// # Errors
    /// There is none.
    pub fn now() -> Result<Self> {
        let facts = statvfs(layout::OVERLAY).with_context(|| format!("looking at {}", layout::OVERLAY))?;
        let unit = facts.f_frsize;
        Ok(Self {
            size: facts.f_blocks.saturating_mul(unit),
            used: facts.f_blocks.saturating_sub(facts.f_bfree).saturating_mul(unit),
            files: facts.f_files,
            files_used: facts.f_files.saturating_sub(facts.f_ffree),
            largest: largest(&Path::new(layout::OVERLAY).join("upper")),
        })
    }

    /// The use for people.
    #[must_use]
    pub fn render(&self) -> String {
        let percent = |part: u64, whole: u64| part.saturating_mul(100) / whole.max(1);
        let mut text = format!(
            "\nchanges to the root (in memory, gone at the next boot)\n  {} of {} MiB used ({} %), {} of {} files ({} %)\n",
            self.used.div_ceil(1 << 20),
            self.size >> 20,
            percent(self.used, self.size),
            self.files_used,
            self.files,
            percent(self.files_used, self.files)
        );
        for part in &self.largest {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {:>8} KiB  {:>6} files  {}", part.bytes.div_ceil(1024), part.files, part.path);
        }
        text
    }
}

/// The largest parts of what lies below `upper`. What cannot be read is left out.
fn largest(upper: &Path) -> Vec<Part> {
    let mut parts: BTreeMap<String, Part> = BTreeMap::new();
    let mut folders = vec![(upper.to_path_buf(), String::new(), 0)];
    while let Some((folder, name, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(facts) = entry.metadata() else { continue };
            let path = format!("{name}/{}", entry.file_name().to_string_lossy());
            let key = if depth < DEPTH { path.clone() } else { name.clone() };
            if facts.is_dir() {
                folders.push((entry.path(), key.clone(), depth + 1));
                if depth + 1 < DEPTH {
                    continue;
                }
            }
            let part = parts.entry(key.clone()).or_insert_with(|| Part { path: key, ..Part::default() });
            part.bytes = part.bytes.saturating_add(facts.blocks().saturating_mul(512));
            part.files += 1;
        }
    }
    let mut parts: Vec<Part> = parts.into_values().filter(|part| part.bytes > 0).collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    parts.truncate(SHOWN);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_folder_comes_first_with_all_below_it() {
        let upper = tempfile::tempdir().unwrap();
        for (path, length) in
            [("var/log/deep/er/a", 50_000), ("var/log/b", 30_000), ("var/lib/c", 60_000), ("top", 9_000)]
        {
            let path = upper.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![1; length]).unwrap();
        }
        let found = largest(upper.path());
        let paths: Vec<&str> = found.iter().map(|part| part.path.as_str()).collect();
        assert_eq!(paths, ["/var/log", "/var/lib", "/top"]);
        assert!(found[0].bytes >= 80_000 && found[0].files >= 4, "{found:?}");
        let text = OverlayUse { size: 100 << 20, used: 80 << 20, files: 10, files_used: 1, largest: found }.render();
        assert!(
            text.contains("80 of 100 MiB used (80 %), 1 of 10 files (10 %)") && text.contains("/var/log"),
            "{text}"
        );
    }
}
