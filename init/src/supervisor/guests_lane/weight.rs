//! Domain 0's share of the CPUs.
//!
//! Xen gives each domain the same share. Guests that boot want a whole CPU each, and domain 0, which has to build the next guest
//! and to serve the disks of all, would get what a single one of them gets.

use crate::guests::xl::{Call, Scheduler, Xl};
use std::time::{Duration, Instant};

/// How long xl may take for it.
const WITHIN: Duration = Duration::from_secs(60);

/// Has xl set it, beside everything else. What does not work is told, and no guest waits for it.
pub(super) fn weigh_dom0(xl: &Xl, scheduler: Option<Scheduler>, weight: u32) {
    let Some(scheduler) = scheduler.filter(|_| weight > 0) else { return };
    let told = |error: &dyn std::fmt::Display| {
        log::warn!("domain 0 has no larger share of the CPUs than a guest (guests.dom0_weight): {error}");
    };
    let call = Call::WeighDom0 { scheduler, weight };
    let started = xl.start(call, Instant::now() + WITHIN, move |result| {
        if let Err(error) = result {
            told(&error);
        }
    });
    if let Err(error) = started {
        told(&error);
    }
}
