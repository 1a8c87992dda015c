//! The domains, kept in a file that one call at a time may change.

use crate::script::Script;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// What there is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    last_id: u32,
    pub(crate) domains: Vec<Domain>,
    /// How often each call was made.
    pub(crate) tries: BTreeMap<String, u32>,
}

/// A domain. Times are in ms since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Domain {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) kind: String,
    pub(crate) memory_mib: u64,
    pub(crate) vcpus: u32,
    /// Still being made: paused.
    pub(crate) building: bool,
    pub(crate) made: u64,
    /// When it will be gone.
    pub(crate) ends: Option<u64>,
    /// When it will have crashed.
    pub(crate) crashes: Option<u64>,
    /// When it will have wanted to reboot.
    #[serde(default)]
    pub(crate) reboots: Option<u64>,
    pub(crate) preserve: bool,
    /// Its disks, as its file has them.
    #[serde(default)]
    pub(crate) disks: Vec<String>,
}

impl Domain {
    pub(crate) fn has_crashed(&self) -> bool {
        self.crashes.is_some_and(|time| time <= now())
    }
}

impl State {
    /// Changes the state while no other call does. A call that is killed while it waits has changed nothing.
    pub(crate) fn change<T>(script: &Script, change: impl FnOnce(&mut Self) -> T) -> T {
        let lock = File::create(script.state.join("lock")).expect("the lock file");
        flock(&lock, FlockOperation::LockExclusive).expect("locking");
        let path = script.state.join("domains.json");
        let mut state: Self =
            fs::read(&path).ok().map(|bytes| serde_json::from_slice(&bytes).expect("the state")).unwrap_or_default();
        let time = now();
        state.domains.retain(|domain| domain.ends.is_none_or(|end| end > time));
        state.domains.retain(|domain| domain.reboots.is_none_or(|end| end > time));
        state.domains.retain(|domain| domain.preserve || !domain.has_crashed());
        let result = change(&mut state);
        // Renamed, for a call that is killed while it writes.
        let next = script.state.join("domains.json.new");
        fs::write(&next, serde_json::to_vec(&state).expect("the state")).expect("writing the state");
        fs::rename(next, path).expect("writing the state");
        result
    }

    /// By number or by name, as xl does it.
    pub(crate) fn find(&mut self, which: &str) -> Option<&mut Domain> {
        let id: Option<u32> = which.parse().ok();
        self.domains.iter_mut().find(|domain| id.map_or(domain.name == which, |id| domain.id == id))
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.domains.retain(|domain| domain.name != name);
    }

    pub(crate) fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn used_mib(&self) -> u64 {
        self.domains.iter().map(|domain| domain.memory_mib).sum()
    }
}

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
struct Logged<'a> {
    pid: u32,
    arguments: &'a [String],
    began: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
}

/// One line for the beginning of a call (without `code`), one for its end.
pub(crate) fn log(script: &Script, arguments: &[String], began: u64, code: Option<u8>) {
    let Some(path) = &script.log else { return };
    let line = Logged { pid: std::process::id(), arguments, began, ended: code.map(|_| now()), code };
    let line = serde_json::to_string(&line).expect("a line of the log") + "\n";
    // One write to the end of the file: lines of several calls do not mix.
    let file = File::options().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("writing the log");
}
