//! The commands `sino srv` (also called `srv`) and `sino disk`.

use super::prepare::{self, Request};
use super::srv::State;
use super::srv_command::{self, Now};
use super::state::{StorageState, claim};
use super::{Host, size};
use crate::config::schema;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

/// `srv status` when `/srv` is not mounted. Source: Linux Standard Base 5.0, "Init Script Actions": not running.
const NOT_MOUNTED: u8 = 3;

/// What is done with `/srv`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum SrvAction {
    /// Activates the volume group, mounts /srv, makes its folders and puts swap to use.
    Start,
    /// Unmounts /srv, or names what holds it.
    Stop,
    /// Tells device, file system, use and problems; exit code 0 when it is mounted, 3 when not.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What is done with disks.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum DiskAction {
    /// Makes the volume group, /srv and swap on an empty disk; shows every command before.
    Prepare(Prepare),
}

/// What is asked of `sino disk prepare`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The whole disk, for example /dev/sdb.
    pub disk: String,
    /// Size of /srv, with K, M, G or T [default: 20G, or a quarter of a small disk].
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub srv: Option<u64>,
    /// Size of the swap, or 0 for none [default: 6G, or a tenth of a small disk].
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub swap: Option<u64>,
    /// The volume group's name [default: of the configuration, xvg].
    #[arg(long)]
    pub group: Option<String>,
    /// Erases what the disk holds: asks for the disk's name, or takes it from here (--erase=sdb).
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub erase: Option<String>,
    /// Takes an empty disk without a question.
    #[arg(long)]
    pub yes: bool,
}

/// Executes `sino srv`. `started` is called when `/srv` is there for writing: the place to save the host's identity.
///
/// # Errors
/// What went wrong, with what to do.
pub fn srv(
    host: Host<'_>,
    settings: &schema::Storage,
    action: &SrvAction,
    started: &dyn Fn() -> Result<()>,
) -> Result<ExitCode> {
    let say = |line: &str| println!("{line}");
    match action {
        SrvAction::Start => return start(host, settings, started),
        SrvAction::Stop => srv_command::stop(host, &say)?,
        SrvAction::Status { json } => {
            let (now, state) = (Now::look(host)?, StorageState::load(host)?);
            if *json {
                let value = serde_json::json!({ "now": now, "last": state });
                println!("{}", serde_json::to_string_pretty(&value).context("writing JSON")?);
            } else {
                print!("{}", now.render(&state));
            }
            return Ok(if now.mounted { ExitCode::SUCCESS } else { ExitCode::from(NOT_MOUNTED) });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A `/srv` that is there for reading only is no success.
fn start(host: Host<'_>, settings: &schema::Storage, started: &dyn Fn() -> Result<()>) -> Result<ExitCode> {
    let state = srv_command::start(host, settings, &|line| println!("{line}"))?;
    if state.srv.state != State::Mounted {
        return Ok(ExitCode::FAILURE);
    }
    started()?;
    Ok(ExitCode::SUCCESS)
}

/// Executes `sino disk`. `started` as for [`srv`].
///
/// # Errors
/// What went wrong, with what to do.
pub fn disk(
    host: Host<'_>,
    settings: &schema::Storage,
    action: &DiskAction,
    started: &dyn Fn() -> Result<()>,
) -> Result<ExitCode> {
    let DiskAction::Prepare(wish) = action;
    let mut settings = settings.clone();
    if let Some(group) = &wish.group {
        group.clone_into(&mut settings.group);
    }
    let request =
        Request { disk: wish.disk.clone(), srv: wish.srv, swap: wish.swap, erase: wish.erase.clone(), yes: wish.yes };
    {
        let _claim = claim(host)?;
        prepare::prepare(host, &settings, &request, &ask, &mut |line| println!("{line}"))?;
    }
    start(host, &settings, started)
}

/// Asks on the terminal.
fn ask(question: &str) -> Result<Option<String>> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    print!("{question}");
    std::io::stdout().flush().context("writing to the terminal")?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("reading from the terminal")?;
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        action: DiskAction,
    }

    fn parsed(words: &[&str]) -> Result<Prepare, String> {
        let line = Line::try_parse_from([&["disk", "prepare"], words].concat()).map_err(|error| error.to_string())?;
        let DiskAction::Prepare(wish) = line.action;
        Ok(wish)
    }

    #[test]
    fn to_erase_takes_a_name_or_asks_and_never_takes_the_next_word() {
        assert_eq!(parsed(&["/dev/sdb"]).unwrap().erase, None);
        assert_eq!(parsed(&["--erase", "/dev/sdb"]).unwrap().erase.as_deref(), Some(""));
        assert_eq!(parsed(&["/dev/sdb", "--erase=sdb", "--swap", "0"]).unwrap().erase.as_deref(), Some("sdb"));
        let error = parsed(&["/dev/sdb", "--srv", "20"]).unwrap_err();
        assert!(error.contains("--srv") && error.contains("for example 20G"), "{error}");
    }
}
