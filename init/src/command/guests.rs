//! `sino guests`: how the guests are, and what an administrator does with them.

use crate::config::origins::clean;
use crate::guests::daemons::CONSOLE_LOGS;
use crate::guests::engine::{self, Filter, table};
use crate::supervisor::control::{self, Request};
use crate::supervisor::guests_lane::{self, GuestsState, Wish};
use crate::supervisor::{running_guests, storage_lane};
use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use sino_boot::layout;
use sino_boot::record::now_us;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// How long after the deadline the supervisor may take until it says so.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// How often times are shown anew while nothing changes.
const REFRESH: Duration = Duration::from_secs(5);

/// What is done with guests.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum GuestsAction {
    /// Starts a guest, whether it would start by itself or not; all that start by themselves if none is named.
    Start {
        /// The guest.
        name: Option<String>,
    },
    /// Asks a guest to shut down; all guests in the reverse of their order if none is named, and waits for them.
    Stop {
        /// The guest.
        name: Option<String>,
        /// Seconds that all of them may take; what is left then is saved or destroyed, as configured.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
        deadline: Option<u32>,
    },
    /// Stops a guest and starts it again.
    Restart {
        /// The guest.
        name: String,
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
    },
    /// Shows what would start, in which order, with its memory. Nothing is touched.
    Plan,
    /// Looks for mistakes in the guests' files and for what they need.
    Check,
}

/// Does it.
///
/// # Errors
/// The supervisor cannot be reached or refuses; a file cannot be read.
pub fn run(action: Option<&GuestsAction>, json: bool, watch: bool) -> Result<ExitCode> {
    let ask = |wish| control::ask(&Request::Guests(wish));
    match action {
        None if watch => watched()?,
        None => show(json)?,
        Some(GuestsAction::Start { name: Some(name) }) => println!("{}", ask(Wish::Start { name: name.clone() })?),
        Some(GuestsAction::Start { name: None }) => println!("{}", ask(Wish::StartAll)?),
        Some(GuestsAction::Stop { name: Some(name), .. }) => println!("{}", ask(Wish::Stop { name: name.clone() })?),
        Some(GuestsAction::Stop { name: None, deadline }) => {
            let deadline = deadline.unwrap_or_else(|| storage_lane::load(true).config.guests.stop_deadline);
            return stop_all(deadline, false);
        }
        Some(GuestsAction::Restart { name }) => println!("{}", ask(Wish::Restart { name: name.clone() })?),
        Some(GuestsAction::Console { name }) => {
            return Err(Command::new("xl").args(["console", "--"]).arg(name).exec()).context("executing xl console");
        }
        Some(GuestsAction::Log { name }) => {
            ensure!(!name.contains('/'), "{} is no name of a guest", clean(name, 64));
            let path = Path::new(CONSOLE_LOGS).join(format!("guest-{name}.log"));
            let text = std::fs::read(&path)
                .with_context(|| format!("reading {}; has it run in this boot? sino guests", path.display()))?;
            // What a guest writes is for a terminal's eyes only as far as it is text.
            for line in String::from_utf8_lossy(&text).lines() {
                println!("{}", clean(line, 1000));
            }
        }
        Some(GuestsAction::Plan) => {
            let config = storage_lane::load(true).config;
            let seen = guests_lane::look(&config);
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            print!("{}", engine::plan(&seen.survey.specs, config.guests.parallel(cpus), &Filter::All));
            if let Some(budget) = &seen.survey.budget {
                println!("\nmemory\n{budget}");
            }
        }
        Some(GuestsAction::Check) => {
            let seen = guests_lane::look(&storage_lane::load(true).config);
            let refused = seen.survey.specs.iter().filter_map(|spec| Some((&spec.name, spec.refused.as_ref()?)));
            let refused: Vec<String> = refused.map(|(name, why)| format!("{}: {why}", clean(name, 64))).collect();
            for line in seen.survey.problems.iter().chain(&refused) {
                println!("{line}");
            }
            println!("{} guests, {} of them cannot start", seen.survey.specs.len(), refused.len());
            return Ok(if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How the guests are.
///
/// # Errors
/// The supervisor's file cannot be read.
pub fn state() -> Result<GuestsState> {
    match std::fs::read_to_string(layout::GUESTS_STATE) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("reading {}", layout::GUESTS_STATE)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(GuestsState {
            without: Some("they are still being looked for; sino log".to_owned()),
            ..GuestsState::default()
        }),
        Err(error) => Err(error).with_context(|| format!("reading {}", layout::GUESTS_STATE)),
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
    let events = changes()?;
    loop {
        // The screen is cleared, and the cursor goes to its corner.
        print!("\u{1b}[H\u{1b}[2J{}", text(&state()?));
        std::io::stdout().flush()?;
        wait(&events, Instant::now() + REFRESH)?;
    }
}

/// Stops all guests within so many seconds, and waits for that; without a supervisor by xl alone. `end`: the supervisor ends
/// afterwards.
///
/// # Errors
/// Guests are still there.
pub fn stop_all(deadline: u32, end: bool) -> Result<ExitCode> {
    let events = changes()?;
    match control::ask(&Request::Guests(Wish::StopAll { deadline, end })) {
        Ok(text) => println!("{text}"),
        Err(error) if running_guests::on_xen() => {
            eprintln!("{error:#}; the guests are shut down by xl alone, in no order");
            return without_supervisor(deadline);
        }
        Err(error) => return Err(error),
    }
    let limit = Duration::from_secs(u64::from(deadline)) + ENDS_WITHIN;
    let until = Instant::now() + limit;
    loop {
        let state = state()?;
        if !state.stopping {
            print!("{}", text(&state));
            let left: Vec<&str> =
                state.guests.iter().filter(|guest| guest.domid.is_some()).map(|guest| guest.name.as_str()).collect();
            ensure!(left.is_empty(), "still there: {}; xl list", clean(&left.join(", "), 500));
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= until {
            bail!("the supervisor has not stopped all guests within {} s; sino log", limit.as_secs());
        }
        wait(&events, until)?;
    }
}

fn without_supervisor(deadline: u32) -> Result<ExitCode> {
    // timeout(1) and xl are held in memory for a host that has lost its stick.
    let status = Command::new("timeout")
        .arg(deadline.to_string())
        .args(["xl", "shutdown", "--all", "--wait"])
        .status()
        .context("executing xl shutdown")?;
    ensure!(status.success(), "xl shutdown: {status}; xl list shows what is still there");
    Ok(ExitCode::SUCCESS)
}

fn changes() -> Result<rustix::fd::OwnedFd> {
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let folder = Path::new(layout::GUESTS_STATE).parent().unwrap_or(Path::new("/run"));
    inotify::add_watch(&events, folder, inotify::WatchFlags::MOVED_TO)
        .with_context(|| format!("watching {}", folder.display()))?;
    Ok(events)
}

fn wait(events: &rustix::fd::OwnedFd, until: Instant) -> Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let mut fds = [PollFd::new(events, PollFlags::IN)];
    match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error).context("waiting for a change"),
    }
    // Empty when it was the time.
    let _ = rustix::io::read(events, &mut [0; 4096]);
    Ok(())
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
    }
}
