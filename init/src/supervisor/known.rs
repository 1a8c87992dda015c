//! What a supervisor must know of the one before it, in `/run/sino/supervisor.json`.

use crate::config::schema::Network;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sino_boot::layout;
use std::path::Path;

/// The state of a supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// The network as it was last told to the engine.
    pub network: Option<Network>,
    /// A network that was applied and not confirmed.
    pub pending: Option<Pending>,
    /// Whether the lanes have been run to their end once.
    pub brought_up: bool,
}

/// A network that was applied and not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The network before it.
    pub previous: Network,
    /// When to go back to that, in microseconds since the kernel started.
    pub until_us: u64,
}

impl Known {
    /// What the last supervisor of this boot has left; nothing if it is the first.
    #[must_use]
    pub fn load() -> Self {
        Self::load_from(Path::new(layout::SUPERVISOR_STATE)).unwrap_or_else(|error| {
            log::warn!("{error:#}; the supervisor begins anew");
            Self::default()
        })
    }

    fn load_from(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("reading {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Keeps it. A supervisor that cannot is no worse off until it is killed.
    pub fn keep(&self) {
        if let Err(error) = self.keep_at(Path::new(layout::SUPERVISOR_STATE)) {
            log::warn!("{error:#}");
        }
    }

    fn keep_at(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_string(self)?).with_context(|| format!("writing {}", new.display()))?;
        std::fs::rename(&new, path).with_context(|| format!("putting {} in place", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_known_again_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supervisor.json");
        assert_eq!(Known::load_from(&path).unwrap(), Known::default());
        let pending = Pending { previous: Network::default(), until_us: 5 };
        let known = Known { network: Some(Network::default()), pending: Some(pending), brought_up: true };
        known.keep_at(&path).unwrap();
        assert_eq!(Known::load_from(&path).unwrap(), known);
        std::fs::write(&path, "{").unwrap();
        assert!(Known::load_from(&path).is_err());
    }
}
