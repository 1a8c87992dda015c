//! `sino guests`: how the guests are, and what an administrator does with them.

pub mod check;
mod console;
mod last;
pub mod plan;
pub mod stopping;
mod waiting;

use crate::config::origins::clean;
use crate::guests::engine::table;
use crate::supervisor::control::{self, Request};
use crate::supervisor::guests_lane::{GuestsState, Wish};
use crate::supervisor::storage_lane;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use sino_boot::layout;
use sino_boot::record::now_us;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use waiting::Goal;

/// How often times are shown anew while nothing changes.
const REFRESH: Duration = Duration::from_secs(5);

/// What is done with guests.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum GuestsAction {
    /// Starts a guest, whether it would start by itself or not; all that start by themselves if none is named.
    Start {
        /// The guest.
        name: Option<String>,
        /// Wait until it is ready, or will not be; 900 s if no number is given. The exit status tells.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "900",
              value_parser = clap::value_parser!(u32).range(1..=86400))]
        wait: Option<u32>,
    },
    /// Asks a guest to shut down; all guests in the reverse of their order if none is named, and waits for them.
    Stop {
        /// The guest.
        name: Option<String>,
        /// Seconds that all of them may take; what is left then is saved or destroyed, as configured.
        #[arg(long, value_name = "SECONDS", conflicts_with = "name", value_parser = clap::value_parser!(u32).range(1..=3600))]
        deadline: Option<u32>,
        /// Wait until it is down, or left running; 900 s if no number is given. The exit status tells.
        #[arg(long, value_name = "SECONDS", requires = "name", num_args = 0..=1, require_equals = true,
              default_missing_value = "900", value_parser = clap::value_parser!(u32).range(1..=86400))]
        wait: Option<u32>,
    },
    /// Stops a guest and starts it again.
    Restart {
        /// The guest.
        name: String,
        /// Wait until it is ready again, or will not be; 900 s if no number is given. The exit status tells.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "900",
              value_parser = clap::value_parser!(u32).range(1..=86400))]
        wait: Option<u32>,
    },
    /// Connects to a guest's console; Ctrl-] leaves it.
    Console {
        /// The guest.
        name: String,
    },
    /// Shows what a guest has said on its console in this boot.
    Log {
        /// The guest.
        name: String,
        /// Go on showing what comes, until Ctrl-C.
        #[arg(short, long)]
        follow: bool,
        /// Only the last lines.
        #[arg(short = 'n', long, value_name = "LINES")]
        lines: Option<usize>,
    },
    /// Shows what would start, in which order, with its memory. Nothing is touched.
    Plan {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows how all guests were stopped last, as at the shutdown before this boot.
    Last {
        /// Print it as JSON; null if there is no report.
        #[arg(long)]
        json: bool,
    },
    /// Looks for mistakes in the guests' files and for what they need, and asks xl. The exit status is 1 if anything is wrong.
    Check {
        /// These files, instead of those of all guests.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
///
/// # Errors
/// The supervisor cannot be reached or refuses; a file cannot be read.
pub fn run(action: Option<&GuestsAction>, json: bool, watch: bool) -> Result<ExitCode> {
    match action {
        None if watch => watched()?,
        None => show(json)?,
        Some(GuestsAction::Start { name: None, .. }) => {
            println!("{}", control::ask(&Request::Guests(Wish::StartAll))?);
        }
        Some(GuestsAction::Start { name: Some(name), wait }) => {
            let wish = Wish::Start { name: name.clone() };
            return wished(wish, name, *wait, |_| Goal::Ready { other_than: None });
        }
        Some(GuestsAction::Stop { name: Some(name), wait, .. }) => {
            return wished(Wish::Stop { name: name.clone() }, name, *wait, |_| Goal::Down);
        }
        Some(GuestsAction::Stop { name: None, deadline, .. }) => {
            let deadline = deadline.unwrap_or_else(|| storage_lane::load(true).config.guests.stop_deadline);
            return stopping::stop_all(deadline, false);
        }
        Some(GuestsAction::Restart { name, wait }) => {
            // Ready in the same domain would mean that it has not been stopped.
            let wish = Wish::Restart { name: name.clone() };
            return wished(wish, name, *wait, |before| Goal::Ready { other_than: before });
        }
        Some(GuestsAction::Console { name }) => console::connect(name)?,
        Some(GuestsAction::Log { name, follow, lines }) => console::log(name, *follow, *lines)?,
        Some(GuestsAction::Plan { json }) => plan::run(*json)?,
        Some(GuestsAction::Last { json }) => last::run(*json)?,
        Some(GuestsAction::Check { files, json }) => return check::run(files, *json),
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the supervisor, and waits for the outcome if that is wanted. `goal` is given the guest's domain as it was before.
fn wished(wish: Wish, name: &str, wait: Option<u32>, goal: impl FnOnce(Option<u32>) -> Goal) -> Result<ExitCode> {
    let path = Path::new(layout::GUESTS_STATE);
    let before = state_at(path).ok().and_then(|state| state.guests.into_iter().find(|guest| guest.name == name));
    println!("{}", control::ask(&Request::Guests(wish))?);
    let Some(seconds) = wait else { return Ok(ExitCode::SUCCESS) };
    waiting::for_one(path, name, goal(before.and_then(|guest| guest.domid)), Duration::from_secs(seconds.into()))
}

/// How the guests are.
///
/// # Errors
/// The supervisor's file cannot be read.
pub fn state() -> Result<GuestsState> {
    state_at(Path::new(layout::GUESTS_STATE))
}

fn state_at(path: &Path) -> Result<GuestsState> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("reading {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(GuestsState {
            without: Some("they are still being looked for; sino log".to_owned()),
            ..GuestsState::default()
        }),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn show(json: bool) -> Result<()> {
    let state = state()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&state).context("writing JSON")?);
    } else {
        print!("{}", text(&state));
    }
    Ok(())
}

/// The guests as `sino guests` and `sino status` show them.
#[must_use]
pub fn text(state: &GuestsState) -> String {
    if let Some(why) = &state.without {
        return format!("no guests: {}\n", clean(why, 300));
    }
    if state.guests.is_empty() {
        return "no guests: put their files into /srv/autostart, then: sino guests start\n".to_owned();
    }
    table(&state.guests, now_us())
}

/// Shows the table anew whenever it changes.
fn watched() -> Result<()> {
    let events = waiting::changes(Path::new(layout::GUESTS_STATE))?;
    loop {
        // The screen is cleared, and the cursor goes to its corner.
        print!("\u{1b}[H\u{1b}[2J{}", text(&state()?));
        std::io::stdout().flush()?;
        waiting::wait(&events, Some(Instant::now() + REFRESH))?;
    }
}

/// A guest by its name.
///
/// # Errors
/// There is none; with the nearest name.
fn find<'a>(state: &'a GuestsState, name: &str) -> Result<&'a crate::guests::engine::GuestReport> {
    if let Some(why) = &state.without {
        bail!("no guests: {}", clean(why, 300));
    }
    state.guests.iter().find(|guest| guest.name == name).with_context(|| unknown(name, &state.guests))
}

fn unknown(name: &str, guests: &[crate::guests::engine::GuestReport]) -> String {
    let meant = crate::guests::settings::nearest(name, guests.iter().map(|guest| guest.name.as_str()));
    let meant = meant.map(|meant| format!("; did you mean {}?", clean(meant, 64))).unwrap_or_default();
    format!("there is no guest {}{meant}", clean(name, 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::engine::GuestReport;

    #[test]
    fn there_is_a_table_or_the_reason_why_there_is_none() {
        assert!(text(&GuestsState::default()).contains("/srv/autostart"));
        let without = GuestsState { without: Some("no Xen\u{1b}".into()), ..GuestsState::default() };
        assert_eq!(text(&without), "no guests: no Xen?\n");
        let guest = GuestReport { name: "db".into(), state: "ready".into(), ..GuestReport::default() };
        let state = GuestsState { guests: vec![guest], ..GuestsState::default() };
        assert!(text(&state).contains("db") && text(&state).contains("ready"), "{}", text(&state));
        assert_eq!(find(&state, "db").unwrap().name, "db");
        assert_eq!(find(&state, "dbb").unwrap_err().to_string(), "there is no guest dbb; did you mean db?");
        assert!(find(&without, "db").unwrap_err().to_string().contains("no Xen?"));
    }
}
