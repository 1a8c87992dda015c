//! `sino state`: what is kept of this host, and how it is forgotten.

use super::items::Item;
use super::running::System;
use super::{Store, forgotten};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

/// Shows and forgets what is kept of this host on /srv.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Lists what is kept, since when, and whether it is what the running system uses. Secrets are not shown.
    List {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Forgets items: the next boot has the image's, or makes new ones. The running system goes on with those it has.
    Forget(Forget),
}

/// What is to be forgotten.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Forget {
    /// The items.
    #[arg(value_enum)]
    items: Vec<Item>,
    /// Everything; to confirm it, name this host.
    #[arg(long, value_name = "HOSTNAME")]
    all: Option<String>,
}

/// An item as the store has it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    item: Item,
    kept: bool,
    /// Seconds since 1970.
    since: Option<u64>,
    /// Not known (`None`) where the running system has no place for it.
    in_use: Option<bool>,
    damaged: Vec<String>,
}

/// Executes the command for the system below `root`.
///
/// # Errors
/// The store cannot be read or written; a confirmation is missing.
pub fn run(command: &StateCommand, root: &Path, store: &Store) -> Result<()> {
    match command {
        StateCommand::List { json } => {
            let rows = rows(root, store)?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&rows).context("writing the list as JSON")?);
            } else {
                print!("{}", render(&rows, store));
            }
        }
        StateCommand::Forget(what) => {
            let items = match &what.all {
                None => what.items.clone(),
                Some(name) => {
                    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                    confirmed(name, &host)?;
                    Item::ALL.to_vec()
                }
            };
            print!("{}", forget(root, store, &items)?);
        }
    }
    Ok(())
}

fn confirmed(name: &str, host: &str) -> Result<()> {
    if name != host {
        bail!(
            "this host is {host:?}, not {name:?}: nothing is forgotten; to forget everything: sino state forget --all {host}"
        );
    }
    Ok(())
}

fn rows(root: &Path, store: &Store) -> Result<Vec<Row>> {
    let system = System::open(root)?;
    let row = |item: Item| {
        let kept = store.look(item)?;
        let running = system.read(item).unwrap_or_default();
        // The running system may have more keys than those that are kept.
        let in_use = || kept.files.iter().all(|(name, bytes)| running.get(name) == Some(bytes));
        let since = kept.since.and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok());
        let damaged = kept.damaged.iter().map(|damage| format!("{}: {}", damage.file, damage.why));
        Ok(Row {
            item,
            kept: !kept.files.is_empty(),
            since: since.map(|since| since.as_secs()),
            in_use: (Item::PLACED.contains(&item) && !kept.files.is_empty()).then(in_use),
            damaged: damaged.chain(kept.unread.iter().cloned()).collect(),
        })
    };
    Item::ALL.into_iter().map(row).collect()
}

fn render(rows: &[Row], store: &Store) -> String {
    let mut text = format!("kept in {}\n", store.path().display());
    for row in rows {
        let since = row.since.map(|seconds| format!("since {}", date(seconds))).unwrap_or_default();
        let state = match (row.kept, row.in_use) {
            (false, _) => "not kept",
            (true, Some(true)) => "in use",
            (true, Some(false)) => "differs from the running system",
            (true, None) => "kept",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<16} {state:<32} {since}", row.item.name());
        for damage in &row.damaged {
            let _ = writeln!(text, "    DAMAGED {damage}");
        }
    }
    text
}

/// A day in UTC, as ISO 8601 has it. Source of the arithmetic: the civil calendar's 400-year cycle of 146,097 days, with
/// years that begin in March, so that the leap day is the last.
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (seconds % 86_400 / 3600, seconds % 3600 / 60);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02} UTC")
}

/// Forgets the items and returns what a person should read.
fn forget(root: &Path, store: &Store, items: &[Item]) -> Result<String> {
    // First the note, so that nobody keeps it again in between.
    let mut all = forgotten::read(root);
    all.extend(items);
    forgotten::write(root, &all)?;
    let mut text = String::new();
    for item in items {
        let removed = store.forget(*item).with_context(|| format!("forgetting {item}"))?;
        let was = if removed { "forgotten" } else { "was not kept" };
        let _ = writeln!(text, "{item}: {was}. {}", next_boot(*item));
    }
    Ok(text)
}

fn next_boot(item: Item) -> &'static str {
    match item {
        Item::SshHostKeys => "The next boot makes a new key; ssh clients will warn that the host has changed.",
        Item::RootPassword => {
            "The next boot has the image's default password; if it is changed before, the new one is kept."
        }
        Item::AuthorizedKeys => {
            "The next boot has the keys of sino.toml and of the image only; without any, a password is enough by ssh."
        }
        Item::Hostname => "The next boot has the name of sino.toml, of the lease, or of the image.",
        Item::MachineId => "The next boot makes a new one.",
        Item::Timezone => "The next boot has the zone of sino.toml or of the image.",
        Item::Keyboard => "The next boot has the layout of sino.toml or of the image.",
        Item::NetworkFiles => {
            "The next boot has the image's; if one is written before, all that are there then are kept."
        }
        Item::Leases => {
            "The next boot waits for a server's answer before it has an address; a lease of this boot is kept when it is renewed."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_795_440_000, "2026-11-23 13:20 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn everything_is_forgotten_only_for_the_right_name() {
        assert!(confirmed("node7", "node7").is_ok());
        assert!(format!("{:#}", confirmed("", "node7").unwrap_err()).contains("--all node7"));
    }

    #[test]
    fn the_arguments_are_sound() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(subcommand)]
            command: StateCommand,
        }
        use clap::{CommandFactory as _, Parser as _};
        Line::command().debug_assert();
        let parsed = |line: &[&str]| Line::try_parse_from(line).map(|line| format!("{:?}", line.command));
        assert!(parsed(&["x", "forget", "ssh-host-keys", "hostname"]).unwrap().contains("SshHostKeys"));
        assert!(parsed(&["x", "forget"]).is_err());
        assert!(parsed(&["x", "forget", "hostname", "--all", "a"]).is_err());
        assert!(parsed(&["x", "forget", "nonsense"]).is_err());
    }
}
