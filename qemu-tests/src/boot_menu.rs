//! The boot menu, worked by key presses.

use crate::scenario::Entry;
use anyhow::Result;
use sino_image::qemu::Guest;
use std::time::{Duration, Instant};

/// What ISOLINUX and GRUB say of their countdown.
const COUNTDOWNS: [&str; 2] = ["Automatic boot in", "executed automatically in"];
/// How long the menu may take to draw itself.
const DRAWN_WITHIN: Duration = Duration::from_secs(60);

/// The submenu, the last line of the first screen.
const SUBMENU: &str = "More ...";

/// Waits until the menu is drawn, then goes down from the first line and takes the entry that is wanted, through the submenu if
/// it is there.
pub(crate) fn choose(guest: &mut Guest, entry: Entry, deadline: Instant) -> Result<()> {
    let left = || deadline.saturating_duration_since(Instant::now());
    for title in Entry::FIRST.map(Entry::title).into_iter().chain([SUBMENU]) {
        guest.watch.wait_for(title, left())?;
    }
    // The countdown is the last thing that a menu draws, so the picture is whole.
    guest.watch.wait_for_any(&COUNTDOWNS, DRAWN_WITHIN.min(left()))?;
    guest.screenshot("menu")?;
    let down = |guest: &mut Guest, lines: &[Entry]| {
        lines.iter().take_while(|other| **other != entry).try_for_each(|_| guest.qmp.press(&["down"]))
    };
    down(guest, &Entry::FIRST)?;
    guest.qmp.press(&["ret"])?;
    if Entry::MORE.contains(&entry) {
        guest.watch.wait_for(entry.title(), DRAWN_WITHIN.min(left()))?;
        guest.screenshot("submenu")?;
        down(guest, &Entry::MORE)?;
        guest.qmp.press(&["ret"])?;
    }
    Ok(())
}
