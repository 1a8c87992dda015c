//! `sino network`: how the network is, and changing it without being locked out.

use crate::network::state::{self, NetworkState, Origin};
use crate::supervisor::control::{self, Request};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use sino_boot::layout;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What is done with the network.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum NetworkAction {
    /// Shows bridges, ports, addresses and leases.
    Show {
        /// Print what is in /run/sino/network.json.
        #[arg(long)]
        json: bool,
    },
    /// Reads the configuration again and makes the network so. Without "sino network confirm" it goes back by itself.
    Apply {
        /// Seconds until it goes back; 0: never.
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=3600))]
        revert_after: u32,
    },
    /// Keeps the network that was applied.
    Confirm,
    /// Goes back at once to the network before the one that was applied.
    Revert,
    /// Waits until the host has an address.
    Wait {
        /// Seconds to wait at most.
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86400))]
        timeout: u32,
    },
}

/// Does it.
///
/// # Errors
/// The supervisor cannot be reached or refuses; there is no address in time.
pub fn run(action: &NetworkAction) -> Result<ExitCode> {
    match action {
        NetworkAction::Show { json } => {
            let path = Path::new(layout::NETWORK_STATE);
            let state = state::read(path)?.with_context(|| {
                format!("{} is not there: the supervisor has not begun; systemctl status sino", path.display())
            })?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&state).context("writing JSON")?);
            } else {
                print!("{}", render(&state));
            }
        }
        NetworkAction::Apply { revert_after } => {
            println!("{}", control::ask(&Request::NetworkApply { revert_after: *revert_after })?);
        }
        NetworkAction::Confirm => println!("{}", control::ask(&Request::NetworkConfirm)?),
        NetworkAction::Revert => println!("{}", control::ask(&Request::NetworkRevert)?),
        NetworkAction::Wait { timeout } => wait(Duration::from_secs(u64::from(*timeout)))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for changes of the state's file.
fn wait(limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).context("asking for changes of files")?;
    inotify::add_watch(&watch, layout::RUN, inotify::WatchFlags::MOVED_TO).context("watching /run/sino")?;
    loop {
        let state = state::read(Path::new(layout::NETWORK_STATE)).unwrap_or_default().unwrap_or_default();
        let is_up =
            |bridge: &state::BridgeState| bridge.addresses.iter().any(|address| address.origin != Origin::Other);
        // Not ours to wait for, or there.
        if state.format != 0 && (!state.managed || state.bridges.values().any(is_up)) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no address after {} s; sino network show tells why", limit.as_secs());
        }
        let mut fds = [PollFd::new(&watch, PollFlags::IN)];
        // A signal ends the wait early, which only costs a turn.
        let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        if fds.iter().any(|fd| !fd.revents().is_empty()) {
            let mut buffer = [0; 4096];
            rustix::io::read(&watch, &mut buffer).context("reading changes of files")?;
        }
    }
}

/// The network for people.
#[must_use]
pub fn render(state: &NetworkState) -> String {
    let mut text = String::new();
    if !state.managed {
        return "the network is not SINO's (network.managed = false)\n".to_owned();
    }
    // Writing to a String cannot fail.
    for (name, bridge) in &state.bridges {
        let carrier = if bridge.carrier { "carrier" } else { "no carrier" };
        let mac = bridge.mac.as_deref().unwrap_or("-");
        let _ = writeln!(
            text,
            "{name}: {}, {carrier}, MAC {mac}, MTU {}",
            if bridge.up { "up" } else { "down" },
            bridge.mtu
        );
        for port in &bridge.ports {
            let how = if port.automatic { ", chosen by its carrier" } else { "" };
            let carrier = if port.carrier { "carrier" } else { "no carrier" };
            let _ = writeln!(text, "  port     {}, {carrier}{how}", port.name);
        }
        for address in &bridge.addresses {
            let origin = match address.origin {
                Origin::Dhcp => "by DHCP",
                Origin::Static => "configured",
                Origin::Slaac => "by SLAAC",
                Origin::Other => "not SINO's",
            };
            let on = if bridge.host_link == *name { String::new() } else { format!(" on {}", bridge.host_link) };
            let _ = writeln!(text, "  address  {}{on}, {origin}", address.address);
        }
        for gateway in &bridge.gateways {
            let _ = writeln!(text, "  gateway  {gateway}");
        }
        if let Some(dhcp) = &bridge.dhcp {
            let lease = bridge
                .lease
                .as_ref()
                .map_or_else(String::new, |lease| format!(", lease of {} s from {}", lease.lease_s, lease.server));
            let _ = writeln!(text, "  DHCP     {dhcp}{lease}");
        }
    }
    let list = |values: Vec<String>| if values.is_empty() { "none".to_owned() } else { values.join(", ") };
    let _ = writeln!(text, "name servers: {}", list(state.dns.iter().map(ToString::to_string).collect()));
    if !state.search.is_empty() {
        let _ = writeln!(text, "search: {}", state.search.join(", "));
    }
    for warning in &state.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}
