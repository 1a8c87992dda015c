//! The `sino` command: what an administrator asks and tells SINO.

use crate::overlay_use::OverlayUse;
use crate::status;
use anyhow::Result;
use clap::{Parser, Subcommand};
use sino_boot::layout;
use sino_boot::record::BootRecord;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Asks and controls this SINO host.
#[derive(Parser)]
#[command(name = "sino", version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Shows which build runs, from where, the network, storage, memory and what needs attention.
    Status {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command. `name` is what it was called by: `srv` stands for `sino srv`.
#[must_use]
pub fn main(name: &str, arguments: &[OsString]) -> ExitCode {
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
    match &arguments.command {
        Action::Status { json } => {
            let record = BootRecord::load(Path::new(layout::BOOT_RECORD))?;
            let overlay = OverlayUse::now();
            if *json {
                let mut value = serde_json::to_value(&record)?;
                if let Some(fields) = value.as_object_mut() {
                    fields.insert("overlay".to_owned(), serde_json::json!(overlay.ok()));
                }
                println!("{}", serde_json::to_string_pretty(&value)?);
            } else {
                print!("{}", status::render(&record));
                match overlay {
                    Ok(overlay) => print!("{}", overlay.render()),
                    Err(error) => println!("\nchanges to the root: not known: {error:#}"),
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
