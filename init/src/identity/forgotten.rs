//! The items that an administrator had the store forget in this boot: they are in use until the next one, and must not
//! be kept again only because the supervisor looks at everything when it starts.

use super::folder::{Folder, Rights, replace};
use super::items::Item;
use anyhow::{Context, Result};
use clap::ValueEnum;
use sino_boot::layout;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// In SINO's folder in `/run`, so that it is gone with this boot: one item a line.
const NAME: &str = "forgotten-items";

fn folder(root: &Path) -> PathBuf {
    root.join(layout::RUN.trim_start_matches('/'))
}

/// Those items.
pub(super) fn read(root: &Path) -> BTreeSet<Item> {
    let Ok(Some(found)) = Folder::open(&folder(root)).map_or(Ok(None), |folder| folder.read(NAME)) else {
        return BTreeSet::new();
    };
    String::from_utf8_lossy(&found.bytes).lines().filter_map(|line| Item::from_str(line, false).ok()).collect()
}

/// Sets those items.
///
/// # Errors
/// They cannot be written.
pub(super) fn write(root: &Path, items: &BTreeSet<Item>) -> Result<()> {
    if *items == read(root) {
        return Ok(());
    }
    let lines: Vec<&str> = items.iter().flat_map(|item| [item.name(), "\n"]).collect();
    let text = lines.concat();
    let path = folder(root).join(NAME);
    let mut folder = Folder::open(&folder(root)).with_context(|| format!("opening {}", folder(root).display()))?;
    replace(&mut folder, NAME, text.as_bytes(), Rights::mode(0o644))
        .with_context(|| format!("writing {}", path.display()))
}
