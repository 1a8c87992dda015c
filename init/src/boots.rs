//! The last boots, kept on `/srv`: what [`crate::timeline`] draws, so that a host can tell what got slower.
//!
//! [`present`] is what is known of this boot; [`keep`] writes it, as often as it is called, to the one file of this boot, and
//! only if something has changed. [`Watch`] is the supervisor's thread that calls it at the right times. [`compare`] compares.

pub mod compare;
mod record;
mod store;
#[cfg(test)]
mod tests;
mod watch;
pub mod when;
pub mod xen;

pub use compare::Compared;
pub use record::{Boot, GuestTimes, Seen};
pub use store::{Listed, MOST, Store, parse};
pub use watch::Watch;
pub use xen::Xen;

#[cfg(test)]
pub(crate) use record::tests::seen as record_of_a_test;

use crate::guests::probe::Cancel;
use crate::guests::xl::Xl;
use crate::supervisor::guests_lane::GuestsState;
use crate::supervisor::running_guests::on_xen;
use crate::timeline::{BOOT_ENDS, Userland};
use anyhow::{Context, Result};
use sino_boot::layout;
use sino_boot::record::{BootRecord, now_us};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The kernel's id of this boot. Source: random(4).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Xen's version, in the files `major` and `minor`. Source: Linux, `Documentation/ABI/stable/sysfs-hypervisor-xen`.
const XEN_VERSION: &str = "/sys/hypervisor/version";
/// How long xl may take to print Xen's console ring, which it only copies.
const RING_WITHIN: Duration = Duration::from_secs(10);

/// Where the facts of this boot come from, and where they are kept.
#[derive(Clone, Debug)]
pub struct Places {
    /// The root: `/`, or a test's.
    pub root: PathBuf,
    /// The kept boots.
    pub store: Store,
    /// Asks systemd.
    pub userland: fn(Option<&Cancel>) -> Result<Userland>,
    /// Asks Xen.
    pub xen: fn() -> Option<Xen>,
    /// The command that ends when systemd has finished the boot, and says a word on how that went.
    pub finish: &'static [&'static str],
    /// The time in microseconds since the kernel started.
    pub now_us: fn() -> u64,
}

impl Places {
    /// Those of this host.
    #[must_use]
    pub fn of_this_host() -> Self {
        Self {
            root: PathBuf::from("/"),
            store: Store::on_host(),
            userland: Userland::of_this_host,
            xen: the_xen,
            finish: watch::FINISH,
            now_us,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The kernel's id of this boot.
    fn boot_id(&self) -> Result<String> {
        let path = self.path(BOOT_ID);
        let id = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(id.trim().to_owned())
    }

    /// How the guests are; `None`: that is not known yet.
    fn guests(&self) -> Option<GuestsState> {
        serde_json::from_str(&fs::read_to_string(self.path(layout::GUESTS_STATE)).ok()?).ok()
    }
}

/// What is known of this boot.
#[derive(Debug)]
pub struct Present {
    /// The boot.
    pub boot: Boot,
    /// The name of its file, if there is one, and what is in it, if that can be read.
    pub kept: Option<(String, Option<Boot>)>,
    /// What could not be found out, for people.
    pub notes: Vec<String>,
}

/// What became of a boot that is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was written to the file of this name.
    Written(String),
    /// There is nothing new.
    AsItWas,
    /// Nothing is mounted on `/srv`.
    Nowhere,
}

/// Puts together what is known of this boot, kept facts of it included.
///
/// # Errors
/// There is no boot record, or no boot's id.
pub fn present(places: &Places, cancel: Option<&Cancel>) -> Result<Present> {
    seen(places, cancel, false)
}

/// The same; `stops`: the host is being stopped, and nobody is asked who may be going, too.
fn seen(places: &Places, cancel: Option<&Cancel>, stops: bool) -> Result<Present> {
    let boot_id = places.boot_id()?;
    let record = BootRecord::load(&places.path(layout::BOOT_RECORD))?;
    let mut notes = Vec::new();
    let kept = places.store.find(&boot_id).unwrap_or_else(|error| {
        notes.push(format!("without what is kept: {error:#}"));
        None
    });
    let known = kept.as_ref().and_then(|(_, boot)| boot.as_ref());
    // What systemd has finished is not asked for again: the units that were started again since would be missing.
    let finished = known.and_then(|known| known.userland.as_ref()).is_some_and(|known| known.times.finish_us > 0);
    let userland = if finished || stops {
        None
    } else {
        let asked = (places.userland)(cancel);
        asked.inspect_err(|error| notes.push(format!("without systemd's part: {error:#}"))).ok()
    };
    let xen = if known.is_some_and(|known| known.xen.is_some()) || stops { None } else { (places.xen)() };
    let guests = places.guests().filter(|state| state.without.is_none()).map(|state| state.guests);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let started = now.saturating_sub(Duration::from_micros((places.now_us)())).as_secs();
    let boot = Boot::of(Seen { boot_id, started, record, xen, userland, guests, stops }, known);
    Ok(Present { boot, kept, notes })
}

/// Keeps this boot, if something of it has changed since it was kept last. It asks systemd and xl, so the supervisor has it
/// called by [`Watch`], in a thread.
///
/// # Errors
/// There is no record of this boot, or its file cannot be written.
pub fn keep(places: &Places, cancel: Option<&Cancel>) -> Result<Kept> {
    write(places, |places| present(places, cancel))
}

/// Keeps this boot because the host is being stopped: one that is not over says so, unless it is an hour old. Nobody is asked
/// anything, so it takes no longer than writing.
///
/// # Errors
/// As [`keep`].
pub fn keep_at_stop(places: &Places) -> Result<Kept> {
    if (places.now_us)() > BOOT_ENDS {
        return Ok(Kept::AsItWas);
    }
    write(places, |places| seen(places, None, true))
}

fn write(places: &Places, look: impl FnOnce(&Places) -> Result<Present>) -> Result<Kept> {
    if !places.store.is_there()? {
        return Ok(Kept::Nowhere);
    }
    let Present { boot, kept, notes } = look(places)?;
    for note in notes {
        log::debug!("the record of this boot: {note}");
    }
    let own = boot.file_name().context("the kernel's id of this boot is none")?;
    let (name, known) = kept.map_or((own, None), |(name, known)| (name, known));
    if known.as_ref() == Some(&boot) {
        return Ok(Kept::AsItWas);
    }
    let written = places.store.put(&name, &boot)?;
    Ok(if written { Kept::Written(name) } else { Kept::Nowhere })
}

/// The Xen below; `None`: there is none.
fn the_xen() -> Option<Xen> {
    if !on_xen() {
        return None;
    }
    let read = |name: &str| fs::read_to_string(Path::new(XEN_VERSION).join(name)).unwrap_or_default().trim().to_owned();
    let ring = Xl::find().and_then(|xl| Ok(xl.console_ring(Instant::now() + RING_WITHIN)?));
    let ring = ring.inspect_err(|error| log::debug!("how long Xen took is not known: {error:#}")).ok();
    let own_us = ring.and_then(|ring| xen::own_time(&ring));
    Some(Xen { version: format!("{}.{}", read("major"), read("minor")), own_us })
}
