//! What the guests' lane tells and is told, and what of it is kept in files.

use super::stopping::{LastStop, Stop};
use crate::guests::engine::{Engine, GuestReport};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sino_boot::layout;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// How the guests are, in [`layout::GUESTS_STATE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestsState {
    /// Why there are none, as on a plain kernel.
    pub without: Option<String>,
    /// Whether all of them are being stopped.
    pub stopping: bool,
    /// That stop, while it goes on.
    pub stop: Option<Stop>,
    /// Each guest.
    pub guests: Vec<GuestReport>,
    /// What is wrong, for people.
    pub problems: Vec<String>,
    /// Which fit into the memory, as text.
    pub budget: String,
}

/// What an administrator asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Start a guest.
    Start {
        /// Its name.
        name: String,
    },
    /// Stop a guest.
    Stop {
        /// Its name.
        name: String,
    },
    /// Stop a guest and start it again.
    Restart {
        /// Its name.
        name: String,
    },
    /// Stop all guests.
    StopAll {
        /// Within so many seconds.
        deadline: u32,
        /// Whether the supervisor ends afterwards: the next one starts them as at power-up.
        end: bool,
    },
    /// Start all guests that start by themselves.
    StartAll,
}

/// What the supervisor before this one has told of the guests in this boot.
pub(super) fn told_before() -> GuestsState {
    let text = std::fs::read_to_string(layout::GUESTS_STATE).unwrap_or_default();
    let told: GuestsState = serde_json::from_str(&text).unwrap_or_default();
    GuestsState { stopping: told.stop.is_some(), ..told }
}

/// The engine as the supervisor before this one has left it.
pub(super) fn kept() -> Option<Engine> {
    let text = std::fs::read_to_string(layout::GUESTS_ENGINE).ok()?;
    Engine::from_json(&text).inspect_err(|error| log::warn!("{error:#}; what runs is taken over")).ok()
}

/// Keeps the engine for the next supervisor.
pub(super) fn keep(engine: &Engine) {
    match engine.to_json() {
        Ok(text) => write(layout::GUESTS_ENGINE, &text),
        Err(error) => log::warn!("{error:#}"),
    }
}

/// Puts a whole file in the place of another.
pub(super) fn write(path: &str, text: &str) {
    let new = format!("{path}.new");
    if let Err(error) = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path)) {
        log::warn!("{path} could not be written: {error}");
    }
}

/// On a volume that is there: without one nothing is kept, and nothing is written in its place.
pub(super) fn write_for_good(path: &Path, last: &LastStop) -> Result<()> {
    let Some(folder) = path.parent().filter(|folder| folder.is_dir()) else { return Ok(()) };
    let new = path.with_extension("new");
    let mut file = File::create(&new).with_context(|| format!("making {}", new.display()))?;
    file.write_all(serde_json::to_string_pretty(last)?.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", new.display()))?;
    std::fs::rename(&new, path).and_then(|()| File::open(folder)?.sync_all()).context("putting it in its place")
}
