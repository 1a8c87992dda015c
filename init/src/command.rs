//! The `sino` command: what an administrator asks and tells SINO.

pub mod guests;
pub mod log;
pub mod network;

use crate::config::command::ConfigAction;
use crate::identity::{Store, command::StateCommand};
use crate::storage::Host;
use crate::storage::command::{DiskAction, SrvAction};
use crate::supervisor::control::{self, Request};
use crate::supervisor::storage_lane;
use crate::timeline::TimelineArguments;
use crate::{config, identity, manual, network as engine, status, storage, timeline};
use anyhow::Result;
use clap::{Parser, Subcommand};
use guests::GuestsAction;
use network::NetworkAction;
use signal_hook::consts::SIGPIPE;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, atomic::AtomicBool};

/// Asks and controls this SINO host.
#[derive(Parser)]
#[command(name = "sino", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Shows the host on one screen: version, medium and whether the stick may be removed, network, storage, memory, warnings.
    Status {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows what SINO has said in this boot.
    Log {
        /// Go on showing what comes.
        #[arg(short, long)]
        follow: bool,
    },
    /// Shows the configuration with the origin of each key, or looks for mistakes in a file.
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Shows the network, or changes it: a change goes back by itself unless it is confirmed.
    Network {
        #[command(subcommand)]
        action: NetworkAction,
    },
    /// Shows the guests, starts and stops them.
    #[command(args_conflicts_with_subcommands = true)]
    Guests {
        /// Print them as JSON.
        #[arg(long, conflicts_with = "watch")]
        json: bool,
        /// Show them until Ctrl-C.
        #[arg(long)]
        watch: bool,
        #[command(subcommand)]
        action: Option<GuestsAction>,
    },
    /// Mounts and unmounts /srv, and shows how it is. Also called as "srv".
    Srv {
        #[command(subcommand)]
        action: SrvAction,
    },
    /// Sets up a disk for a new host.
    Disk {
        #[command(subcommand)]
        action: DiskAction,
    },
    /// Shows what is kept of this host on /srv, and forgets it.
    State {
        #[command(subcommand)]
        action: StateCommand,
    },
    /// Shows where the time of this boot or an earlier one went, and what got slower.
    Timeline(TimelineArguments),
    /// Writes manual pages, shell completions and the example configuration; the image's builder calls it.
    #[command(hide = true)]
    Manual {
        /// The folder, which becomes a root's.
        folder: PathBuf,
    },
}

/// Runs the command. `name` is what it was called by: `srv` stands for `sino srv`.
#[must_use]
pub fn main(name: &str, arguments: &[OsString]) -> ExitCode {
    // `sino guests | head` ends as any other program does, without a word.
    let _ = signal_hook::flag::register_conditional_shutdown(SIGPIPE, 128 + SIGPIPE, Arc::new(AtomicBool::new(true)));
    let mut words: Vec<OsString> = vec!["sino".into()];
    if name == "srv" {
        words.push("srv".into());
    }
    words.extend(arguments.iter().skip(1).cloned());
    match run(&Arguments::parse_from(words)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sino: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let settings = || storage_lane::load(true).config.storage;
    match &arguments.command {
        Action::Status { json } => status::run(*json)?,
        Action::Log { follow } => return log::run(*follow),
        Action::Config { action } => {
            let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
            let (table, warnings) = engine::flags::from_command_line(&command_line);
            for warning in warnings {
                eprintln!("kernel flags: {warning}");
            }
            let extra = table.map(|table| (table, "ip= or sino.net=".to_owned())).into_iter().collect();
            return config::command::run(action, Path::new("/"), &command_line, extra);
        }
        Action::Network { action } => return network::run(action),
        Action::Guests { json, watch, action } => return guests::run(action.as_ref(), *json, *watch),
        Action::Srv { action } => {
            if *action == SrvAction::Stop {
                // Without a supervisor nobody but processes holds it.
                let _ = control::ask(&Request::SrvStopping);
            }
            let result = storage::command::srv(Host::this(), &settings(), action, &started);
            if *action == SrvAction::Stop && result.is_err() {
                // It is still there, so it is kept up to date again.
                let _ = control::ask(&Request::SrvStarted);
            }
            return result;
        }
        Action::Disk { action } => return storage::command::disk(Host::this(), &settings(), action, &started),
        Action::State { action } => identity::command::run(action, Path::new("/"), &Store::on_host())?,
        Action::Timeline(arguments) => timeline::run(arguments)?,
        Action::Manual { folder } => manual::write(folder)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `/srv` is mounted: the supervisor takes over.
fn started() -> Result<()> {
    println!("{}", control::ask(&Request::SrvStarted)?);
    Ok(())
}
