//! `sino`: what an administrator asks and tells SINO.

use anyhow::Result;
use clap::{Parser, Subcommand};
use sino_boot::layout;
use sino_boot::record::BootRecord;
use sino_init::{bridge_port, status};
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
    /// Shows which build runs, from where, and how long each step of the boot took.
    Status {
        /// Print the record as JSON, as it is in /run/sino/boot.json.
        #[arg(long)]
        json: bool,
    },
    /// Waits for the first network card with a carrier and makes it the port of the bridge.
    BridgePort {
        /// The bridge.
        #[arg(long, default_value = "xenbr0")]
        bridge: String,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sino: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Action::Status { json } => {
            let record = BootRecord::load(Path::new(layout::BOOT_RECORD))?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&record)?);
            } else {
                print!("{}", status::render(&record));
            }
        }
        Action::BridgePort { bridge } => {
            let port = bridge_port::attach(bridge)?;
            println!("{port} is the port of {bridge}");
        }
    }
    Ok(())
}
