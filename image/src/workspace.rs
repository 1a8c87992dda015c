//! Where the workspace is, and with it the default places of cache, programs and results.

use std::path::{Path, PathBuf};

/// Folders with defaults below the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// The folder with the workspace's `Cargo.toml`, or the current one when there is none.
    pub root: PathBuf,
}

impl Workspace {
    /// The workspace around `start`.
    #[must_use]
    pub fn around(start: &Path) -> Self {
        let is_root = |folder: &&Path| {
            std::fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| text.contains("[workspace]"))
        };
        Self { root: start.ancestors().find(is_root).unwrap_or(start).to_owned() }
    }

    /// The build cache.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join("target/cache")
    }

    /// Where cargo puts the static programs of the two stages.
    #[must_use]
    pub fn binaries(&self) -> PathBuf {
        self.root.join("target/x86_64-unknown-linux-gnu/release")
    }

    /// An absolute path as it is, a relative one below the workspace.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_from_inside() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("image/src");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(place.path().join("image/Cargo.toml"), "[package]\n").unwrap();
        assert_eq!(Workspace::around(&inner).root, inner);
        std::fs::write(place.path().join("Cargo.toml"), "[workspace]\n").unwrap();
        let workspace = Workspace::around(&inner);
        assert_eq!(workspace.root, place.path());
        assert_eq!(workspace.resolve(Path::new("/x")), Path::new("/x"));
    }
}
