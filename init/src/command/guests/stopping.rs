//! Stops all guests, as at a shutdown.

use super::{state, text, waiting};
use crate::config::origins::clean;
use crate::supervisor::control::{self, Request};
use crate::supervisor::guests_lane::Wish;
use crate::supervisor::running_guests;
use anyhow::{Context, Result, bail, ensure};
use sino_boot::layout;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// How long after the deadline the supervisor may take until it says so.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Stops all guests within so many seconds, and waits for that; without a supervisor by xl alone. `end`: the supervisor ends
/// afterwards.
///
/// # Errors
/// Guests are still there.
pub fn stop_all(deadline: u32, end: bool) -> Result<ExitCode> {
    let events = waiting::changes(Path::new(layout::GUESTS_STATE))?;
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
        waiting::wait(&events, Some(until))?;
    }
}

fn without_supervisor(deadline: u32) -> Result<ExitCode> {
    let status = Command::new("timeout")
        .arg(deadline.to_string())
        .args(["xl", "shutdown", "--all", "--wait"])
        .status()
        .context("executing xl shutdown")?;
    ensure!(status.success(), "xl shutdown: {status}; xl list shows what is still there");
    Ok(ExitCode::SUCCESS)
}
