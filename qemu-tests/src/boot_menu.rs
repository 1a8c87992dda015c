//! The boot menu, worked by key presses.

use crate::scenario::Entry;
use anyhow::Result;
use sino_image::qemu::Guest;
use std::time::{Duration, Instant};

/// What ISOLINUX and GRUB say of their countdown.
const COUNTDOWNS: [&str; 2] = ["Automatic boot in", "executed automatically in"];
/// How long the menu may take to draw itself.
const DRAWN_WITHIN: Duration = Duration::from_secs(60);

/// Waits for the menu's last entry, then goes down from the first and takes the one that is wanted.
pub(crate) fn choose(guest: &mut Guest, entry: Entry, deadline: Instant) -> Result<()> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let last = Entry::ALL.last().map_or("", |entry| entry.title());
    guest.watch.wait_for(last, left())?;
    // The countdown is the last thing that a menu draws, so the picture is whole.
    guest.watch.wait_for_any(&COUNTDOWNS, DRAWN_WITHIN.min(left()))?;
    guest.screenshot("menu")?;
    for _ in Entry::ALL.iter().take_while(|other| **other != entry) {
        guest.qmp.press(&["down"])?;
    }
    guest.qmp.press(&["ret"])
}
