//! What is known of the storage, as JSON in [`layout::STORAGE_STATE`]; and who may change the storage.

use super::lvm::Group;
use super::srv::Srv;
use super::swap::Swap;
use super::{Host, Problem};
use anyhow::{Context, Result, bail};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use sino_boot::layout;
use std::fs;

/// The group, `/srv` and swap as they were when the boot or `sino srv` last looked. Free space is not in it: it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageState {
    /// The group, with its volumes and problems.
    pub group: Group,
    /// `/srv`.
    pub srv: Srv,
    /// The swap areas in use.
    pub swaps: Vec<Swap>,
    /// What is wrong with swap.
    pub swap_problems: Vec<Problem>,
    /// What should be kept on `/srv` and is not, at the moment.
    pub not_kept: Vec<Problem>,
}

impl StorageState {
    /// All problems, those of the group first.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let storage = self.group.problems.iter().chain(&self.srv.problems).chain(&self.swap_problems);
        storage.chain(&self.not_kept)
    }

    /// Reads the state; without a file it is empty.
    ///
    /// # Errors
    /// The file cannot be read, or is not such JSON.
    pub fn load(host: Host<'_>) -> Result<Self> {
        let path = host.path(layout::STORAGE_STATE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                serde_json::from_str(&text).with_context(|| format!("{} is not a state of storage", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Writes the state, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, host: Host<'_>) -> Result<()> {
        let path = host.path(layout::STORAGE_STATE);
        let mut text = serde_json::to_string_pretty(self).context("writing the state of storage as JSON")?;
        text.push('\n');
        let new = path.with_extension("json.new");
        fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("renaming {} to {}", new.display(), path.display()))
    }
}

/// The right to change the storage; it ends when this is dropped.
#[derive(Debug)]
pub struct Claim {
    /// The lock goes with the file descriptor.
    _file: OwnedFd,
}

/// Takes the right to change the storage, or says that another program has it. Never waits.
///
/// # Errors
/// Another program has it; the lock's file cannot be opened.
pub fn claim(host: Host<'_>) -> Result<Claim> {
    let path = host.path(layout::STORAGE_STATE).with_extension("lock");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let file = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
        .with_context(|| format!("opening {}", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Claim { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => bail!(
            "the boot or another command is at work on the storage (a check of /srv may take long); sino status tells when \
             it is done"
        ),
        Err(error) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fake::{Fake, root};
    use crate::storage::srv::State;

    #[test]
    fn the_state_is_read_as_it_was_written_and_one_program_changes_it() {
        let (root, fake) = (root(), Fake::default());
        let host = Host::new(&fake, root.path().to_str().unwrap());
        assert_eq!(StorageState::load(host).unwrap(), StorageState::default());
        let state = StorageState {
            group: Group { name: "xvg".into(), problems: vec![Problem::new("a", "b")], ..Group::default() },
            srv: Srv { state: State::ReadOnly, ..Srv::default() },
            ..StorageState::default()
        };
        state.save(host).unwrap();
        assert_eq!(StorageState::load(host).unwrap(), state);
        let text = fs::read_to_string(host.path(layout::STORAGE_STATE)).unwrap();
        assert!(text.contains("\"read-only\"") && text.contains("\"do\": \"b\""), "{text}");
        let first = claim(host).unwrap();
        assert!(claim(host).unwrap_err().to_string().contains("at work"));
        drop(first);
        claim(host).unwrap();
    }
}
