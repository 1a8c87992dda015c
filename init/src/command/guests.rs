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
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use waiting::Goal;

/// How often times are shown anew while nothing changes.
const REFRESH: Duration = Duration::from_secs(5);

/// So many problems are shown below the table; JSON has all.
const PROBLEMS: usize = 20;

/// What is done with guests.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum GuestsAction {
    /// Starts guests, whether they would start by themselves or not; all that start by themselves if none is named.
    Start {
        /// The guests.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Wait until each that is started is ready, or will not be; 900 s if no number is given. The exit status tells.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "900",
              value_parser = clap::value_parser!(u32).range(1..=86400))]
        wait: Option<u32>,
    },
    /// Asks guests to shut down; all guests in the reverse of their order if none is named, and waits for them.
    Stop {
        /// The guests.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Seconds that all of them may take; what is left then is saved or destroyed, as configured.
        #[arg(long, value_name = "SECONDS", conflicts_with = "names", value_parser = clap::value_parser!(u32).range(1..=3600))]
        deadline: Option<u32>,
        /// Wait until each is down, or left running; 900 s if no number is given. The exit status tells.
        #[arg(long, value_name = "SECONDS", requires = "names", num_args = 0..=1, require_equals = true,
              default_missing_value = "900", value_parser = clap::value_parser!(u32).range(1..=86400))]
        wait: Option<u32>,
    },
    /// Stops guests and starts them again.
    Restart {
        /// The guests.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Wait until each is ready again, or will not be; 900 s if no number is given. The exit status tells.
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
        Some(GuestsAction::Start { names, wait }) if names.is_empty() => return start_all(*wait),
        Some(GuestsAction::Start { names, wait }) => {
            return wished(names, *wait, |name| Wish::Start { name }, |_| Goal::Ready { other_than: None });
        }
        Some(GuestsAction::Stop { names, deadline, .. }) if names.is_empty() => {
            let deadline = deadline.unwrap_or_else(|| storage_lane::load(true).config.guests.stop_deadline);
            return stopping::stop_all(deadline, false);
        }
        Some(GuestsAction::Stop { names, wait, .. }) => {
            return wished(names, *wait, |name| Wish::Stop { name }, |_| Goal::Down);
        }
        Some(GuestsAction::Restart { names, wait }) => {
            // Ready in the same domain would mean that it has not been stopped.
            let again = |before| Goal::Ready { other_than: before };
            return wished(names, *wait, |name| Wish::Restart { name }, again);
        }
        Some(GuestsAction::Console { name }) => console::connect(name)?,
        Some(GuestsAction::Log { name, follow, lines }) => console::log(name, *follow, *lines)?,
        Some(GuestsAction::Plan { json }) => plan::run(*json)?,
        Some(GuestsAction::Last { json }) => last::run(*json)?,
        Some(GuestsAction::Check { files, json }) => return check::run(files, *json),
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the supervisor for each of these guests, and waits for the outcome if that is wanted. One that is refused does not keep
/// the others from being asked for. `goal` is given the guest's domain as it was before.
fn wished(
    names: &[String],
    wait: Option<u32>,
    wish: impl Fn(String) -> Wish,
    goal: impl Fn(Option<u32>) -> Goal,
) -> Result<ExitCode> {
    let path = Path::new(layout::GUESTS_STATE);
    let before = state_at(path).unwrap_or_default().guests;
    let domid = |name: &String| before.iter().find(|guest| guest.name == *name).and_then(|guest| guest.domid);
    let (mut wanted, mut refused) = (Vec::new(), false);
    for name in unique(names) {
        match control::ask(&Request::Guests(wish(name.clone()))) {
            Ok(text) => {
                println!("{text}");
                wanted.push((name.clone(), goal(domid(name))));
            }
            Err(error) => {
                eprintln!("sino: {error:#}");
                refused = true;
            }
        }
    }
    let code = match wait {
        Some(seconds) if !wanted.is_empty() => waiting::for_all(path, &wanted, Duration::from_secs(seconds.into()))?,
        _ => ExitCode::SUCCESS,
    };
    Ok(if refused { ExitCode::FAILURE } else { code })
}

/// Each name once, in the order in which they were given.
fn unique(names: &[String]) -> impl Iterator<Item = &String> {
    names
        .iter()
        .enumerate()
        .filter(|(at, name)| !names.iter().take(*at).any(|other| other == *name))
        .map(|(_, name)| name)
}

/// Has all guests started that start by themselves, and waits for those that are if that is wanted.
fn start_all(wait: Option<u32>) -> Result<ExitCode> {
    let (path, asked_us) = (Path::new(layout::GUESTS_STATE), now_us());
    println!("{}", control::ask(&Request::Guests(Wish::StartAll))?);
    let Some(seconds) = wait else { return Ok(ExitCode::SUCCESS) };
    // The supervisor has written what follows before it answered.
    let state = state_at(path)?;
    if state.stopping {
        bail!("none is started: all guests are being stopped");
    }
    let wanted = waiting::starting(&state, asked_us);
    if wanted.is_empty() {
        println!("there is none to start");
    }
    waiting::for_all(path, &wanted, Duration::from_secs(seconds.into()))
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
        print!("{}", with_problems(&state));
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

/// The guests, and below them what is wrong with files and tables: a guest that is missing above is there, most likely.
fn with_problems(state: &GuestsState) -> String {
    let mut text = text(state);
    if !state.problems.is_empty() {
        text.push_str("\nwhat is wrong\n");
    }
    // Writing to a String cannot fail.
    for problem in state.problems.iter().take(PROBLEMS) {
        let _ = writeln!(text, "  {}", clean(problem, 700));
    }
    if let Some(more) = state.problems.len().checked_sub(PROBLEMS).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {more} more: sino guests --json");
    }
    text
}

/// Shows the table anew whenever it changes.
fn watched() -> Result<()> {
    let events = waiting::changes(Path::new(layout::GUESTS_STATE))?;
    loop {
        // The screen is cleared, and the cursor goes to its corner.
        print!("\u{1b}[H\u{1b}[2J{}", with_problems(&state()?));
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

    #[derive(clap::Parser)]
    struct Words {
        #[command(subcommand)]
        action: GuestsAction,
    }

    #[test]
    fn several_guests_may_be_named_and_each_counts_once() {
        use clap::Parser as _;
        let read = |words: &str| Words::try_parse_from(words.split(' ')).map(|words| words.action);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let stop = GuestsAction::Stop { names: names(&["a", "b", "a"]), deadline: None, wait: Some(900) };
        assert_eq!(read("guests stop a b a --wait").unwrap(), stop);
        assert_eq!(read("guests start --wait=5").unwrap(), GuestsAction::Start { names: vec![], wait: Some(5) });
        let restart = GuestsAction::Restart { names: names(&["a", "b"]), wait: None };
        assert_eq!(read("guests restart a b").unwrap(), restart);
        for wrong in ["guests stop --wait", "guests stop a --deadline 5", "guests restart"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(unique(&names(&["a", "b", "a"])).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn there_is_a_table_or_the_reason_why_there_is_none() {
        assert!(text(&GuestsState::default()).contains("/srv/autostart"));
        let without = GuestsState { without: Some("no Xen\u{1b}".into()), ..GuestsState::default() };
        assert_eq!(text(&without), "no guests: no Xen?\n");
        let guest = GuestReport { name: "db".into(), state: "ready".into(), ..GuestReport::default() };
        let state = GuestsState { guests: vec![guest], ..GuestsState::default() };
        assert!(text(&state).contains("db") && text(&state).contains("ready"), "{}", text(&state));
        assert_eq!(with_problems(&state), text(&state));
        let problems = (0..22).map(|number| format!("/srv/autostart/{number}.cfg: is empty\u{7}")).collect();
        let wrong = GuestsState { problems, ..state.clone() };
        let below = with_problems(&wrong).strip_prefix(&text(&state)).unwrap().to_owned();
        assert!(below.starts_with("\nwhat is wrong\n  /srv/autostart/0.cfg: is empty?\n"), "{below}");
        assert!(below.ends_with("/19.cfg: is empty?\n  and 2 more: sino guests --json\n"), "{below}");
        assert_eq!(find(&state, "db").unwrap().name, "db");
        assert_eq!(find(&state, "dbb").unwrap_err().to_string(), "there is no guest dbb; did you mean db?");
        assert!(find(&without, "db").unwrap_err().to_string().contains("no Xen?"));
    }
}
