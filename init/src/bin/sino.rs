//! `sino`: what an administrator asks and tells SINO.

use anyhow::Result;
use clap::{Parser, Subcommand};
use sino_boot::layout;
use sino_boot::record::BootRecord;
use sino_init::overlay_use::OverlayUse;
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
    /// Shows which build runs, from where, how long each step of the boot took, and what fills the memory for changes.
    Status {
        /// Print the record as JSON: what is in /run/sino/boot.json, and the overlay's use.
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
            let overlay = OverlayUse::now();
            if *json {
                let mut value = serde_json::to_value(&record)?;
                value["overlay"] = overlay.map_or(serde_json::Value::Null, |overlay| serde_json::json!(overlay));
                println!("{}", serde_json::to_string_pretty(&value)?);
            } else {
                print!("{}", status::render(&record));
                match overlay {
                    Ok(overlay) => print!("{}", overlay.render()),
                    Err(error) => println!("\nchanges to the root: not known: {error:#}"),
                }
            }
        }
        Action::BridgePort { bridge } => {
            let port = bridge_port::attach(bridge)?;
            println!("{port} is the port of {bridge}");
        }
    }
    Ok(())
}
