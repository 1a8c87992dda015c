//! The trials of a host that boots several times: what an administrator does, and what goes wrong around a host.
//!
//! A boot is dear, so each trial looks at much in each. What is asked and what must come of it is data ([`check`]); what is
//! SINO's own wording or command, as opposed to Debian's and the kernel's, stands in `product` alone.

pub mod check;
mod configured;
mod first_steps;
pub(crate) mod guests;
mod laboratory;
mod links;
mod power;
mod product;
mod storage;
mod under_xen;

use crate::images::Images;
use crate::lab::Lab;
use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// A trial.
#[derive(Clone, Copy, Debug)]
pub struct HostTrial {
    /// Its name.
    pub name: &'static str,
    /// Whether it belongs to the long set.
    pub long: bool,
    /// How long it may take, in minutes, on a machine with two cores that runs two trials side by side.
    pub minutes: u64,
    run: fn(&mut Lab) -> Result<()>,
}

/// All of them; the longest first, so that they end together.
pub const TRIALS: &[HostTrial] = &[
    HostTrial { name: "host-guests-all", long: true, minutes: 40, run: guests::run_long },
    HostTrial { name: "host-guests", long: false, minutes: 30, run: guests::run },
    HostTrial { name: "host-power-cuts", long: false, minutes: 30, run: power::run },
    HostTrial { name: "host-power-cuts-twenty", long: true, minutes: 50, run: power::run_long },
    HostTrial { name: "host-storage-trouble", long: true, minutes: 25, run: storage::run },
    HostTrial { name: "host-network-configured", long: true, minutes: 25, run: configured::run },
    HostTrial { name: "host-network-late-and-links", long: true, minutes: 20, run: links::run },
    HostTrial { name: "host-under-xen", long: true, minutes: 20, run: under_xen::run },
    HostTrial { name: "host-first-steps", long: false, minutes: 15, run: first_steps::run },
    HostTrial { name: "host-laboratory", long: true, minutes: 20, run: laboratory::run },
    HostTrial { name: "host-laboratory-trunk", long: false, minutes: 1, run: laboratory::trunk },
];

/// Runs a trial; its artifacts stay in `target/qemu/NAME/`.
///
/// # Errors
/// Everything that is not as it must be.
pub fn run(trial: &HostTrial, images: &Images) -> Result<()> {
    let mut lab = Lab::open(trial.name, images, Duration::from_secs(trial.minutes * 60))?;
    let result = (trial.run)(&mut lab);
    let verdict = lab.verdict(result);
    let text = match &verdict {
        Ok(()) => "passed\n".to_owned(),
        Err(error) => format!("failed: {error:#}\n"),
    };
    // The result is returned too; the file is for whoever looks at the folder later.
    let _ = fs::write(lab.folder.join("result.txt"), text);
    verdict.with_context(|| format!("{} (artifacts: {})", trial.name, lab.folder.display()))
}
