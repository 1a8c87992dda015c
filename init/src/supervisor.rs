//! The supervisor: brings the host up in lanes that run side by side, and then keeps it: the lease, the network that was asked
//! for, the host's identity on `/srv`.
//!
//! Process 1 starts it; it outlives the hand-over to Debian's init, and `sino.service` takes it in ([`crate::adopt`]). Killed
//! at any moment, it is started again, takes what is known from `/run/sino`, and nothing that runs is disturbed.

pub mod control;
pub mod lane;
pub mod readiness;

use crate::{adopt, udev};
use anyhow::{Context, Result, bail};
use lane::Lane;
use readiness::Readiness;
use sino_boot::{layout, stage};
use std::path::Path;
use std::sync::Arc;

/// Its name in the list of processes.
pub const NAME: &str = "sino-supervisor";
/// The first argument of a supervisor.
pub const MODE: &str = "supervise";
/// What it says to process 1 when the host is up.
pub const READY: &str = "ready";

/// The lane that makes bridges and gets addresses.
const NETWORK: &str = "network";
/// The lane that activates the volume group and mounts `/srv`.
const STORAGE: &str = "storage";

/// Supervises, until systemd stops it.
///
/// # Errors
/// Another one runs, or its files in `/run/sino` cannot be written.
pub fn run() -> Result<()> {
    begin()?;
    let boot = !Path::new(layout::HANDED_OVER).exists();
    let ready = Arc::new(Readiness::of(&[NETWORK, STORAGE]));
    let mut lane = Lane::new(STORAGE, "storage ", 5, boot);
    if boot {
        lane.step("devices", udev::start);
    }
    ready.done(NETWORK);
    ready.done(STORAGE);
    loop {
        std::thread::park();
    }
}

/// Becomes a process of its own, and the only supervisor.
fn begin() -> Result<()> {
    stage::note_panics();
    if let Some(other) = adopt::living(layout::SUPERVISOR_PID, NAME).filter(|pid| *pid != std::process::id()) {
        bail!("another supervisor runs already: process {other}");
    }
    // Fails only for a leader of a group, which has no terminal that could send it signals either.
    let _ = rustix::process::setsid();
    rustix::thread::set_name(c"sino-supervisor").context("naming the process")?;
    // Among the last to end when memory is short: without it guests and leases are nobody's.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
    std::fs::create_dir_all(layout::RUN)?;
    let new = format!("{}.new", layout::SUPERVISOR_PID);
    std::fs::write(&new, format!("{}\n", std::process::id())).with_context(|| format!("writing {new}"))?;
    std::fs::rename(&new, layout::SUPERVISOR_PID).with_context(|| format!("renaming {new}"))
}
