//! "On ram": the root image is copied into a tmpfs in one pass, verified on the way, and the medium is let go.
//!
//! When memory does not suffice, or the medium is damaged but what is read from it will be verified, the boot goes on from
//! the medium and says so. A block whose hash is wrong is never used.

use crate::block_copy::{self, BadBlock, Copied, HUGE_PAGE, Plan};
use crate::medium::Medium;
use crate::mounts::{self, Mount};
use crate::progress::Progress;
use anyhow::{Context, Result};
use log::Level;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;
use sino_boot::manifest::Manifest;
use sino_boot::options::{Options, Ram};
use sino_boot::record::{self, BootRecord, Verified};
use sino_boot::stage::{Done, Fault, done, not_requested};
use sino_boot::watchdog::Watchdog;
use sino_boot::{block_hash, console, layout};

/// What must be left for the rest of the boot, whatever the machine: Debian's userland until the login, in bytes.
const RESERVE: u64 = 96 << 20;
/// And this part of all memory on top: the kernel's own tables and caches grow with it.
const RESERVE_PERCENT: u64 = 4;

/// Where the root image's bytes come from, from here on.
#[derive(Debug)]
pub struct Source {
    /// The root image.
    pub image: OwnedFd,
    /// Its path, for people and for `losetup`.
    pub path: String,
    /// Whether it lies in RAM.
    pub in_ram: bool,
    /// How the medium is let go of after a copy in the background.
    pub background: Option<Vec<crate::medium::Hold>>,
}

/// What a copy to RAM needs, and what there is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The root image.
    pub image: u64,
    /// What must be left.
    pub reserve: u64,
    /// What is available now.
    pub available: u64,
}

impl Memory {
    /// Asks the kernel.
    ///
    /// # Errors
    /// `/proc/meminfo` cannot be read.
    pub fn now(image: u64) -> Result<Self> {
        let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
        Self::from_text(image, &text)
    }

    fn from_text(image: u64, text: &str) -> Result<Self> {
        let bytes = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.with_context(|| format!("no {name} in /proc/meminfo"))?.trim();
            let kib: u64 =
                number.trim_end_matches("kB").trim().parse().with_context(|| format!("{name} is no number"))?;
            Ok(kib.saturating_mul(1024))
        };
        let reserve = RESERVE + bytes("MemTotal")? / 100 * RESERVE_PERCENT;
        Ok(Self { image, reserve, available: bytes("MemAvailable")? })
    }

    /// Whether the image and the reserve fit.
    #[must_use]
    pub fn suffices(&self) -> bool {
        self.available >= self.image.saturating_add(self.reserve)
    }

    /// Whether they fit, and as much again as the image stays free for guests' work in dom0.
    #[must_use]
    pub fn is_comfortable(&self) -> bool {
        self.available >= self.image.saturating_mul(2).saturating_add(self.reserve.saturating_mul(2))
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        write!(
            f,
            "{} MiB needed ({} MiB image and {} MiB reserve), {} MiB available",
            mib(self.image.saturating_add(self.reserve)),
            mib(self.image),
            mib(self.reserve),
            self.available >> 20
        )
    }
}

/// Copies the root image to RAM if the flags say so.
///
/// # Errors
/// The medium cannot be read, or the bytes are not those of the manifest and the flags forbid to verify them later.
pub fn copy(
    medium: Medium,
    options: &Options,
    manifest: &Manifest,
    record: &mut BootRecord,
    watchdog: Option<&Watchdog>,
) -> Result<Done<Source>, Fault> {
    if let Some(medium) = record.medium.as_mut() {
        medium.verified = if options.verify { Verified::DmVerity } else { Verified::No };
    }
    if !options.verify && options.ram != Ram::Copy {
        let text = "sino.verify=off: nothing makes sure that what is read from the medium is what was built";
        warn(record, text, "");
    }
    if options.ram == Ram::Off {
        return Ok(not_requested(from_medium(medium)));
    }
    let memory = Memory::now(manifest.root.size)?;
    if options.ram == Ram::Auto && !memory.is_comfortable() {
        let text = format!("from the medium, because it does not fit comfortably: {memory}; DO NOT REMOVE THE STICK");
        return Ok(done(from_medium(medium), text));
    }
    if !memory.suffices() {
        let text = format!("not copied to RAM: {memory}; DO NOT REMOVE THE STICK");
        warn(record, &text, "; give dom0 more memory (dom0_mem= of Xen)");
        return Ok(done(from_medium(medium), text));
    }
    if options.ram == Ram::Background {
        if let Some(medium) = record.medium.as_mut() {
            medium.copy = Some(record::Copy { done: 0, total: manifest.root.size, failed: false });
        }
        let background = Some(medium.holds());
        return Ok(done(
            Source { background, ..from_medium(medium) },
            format!("later, while the host comes up: {memory}"),
        ));
    }
    now(medium, options, manifest, record, watchdog)
}

fn warn(record: &mut BootRecord, text: &str, hint: &str) {
    console::say(&format!("warning: {text}{hint}"), Level::Warn);
    record.warnings.push(text.to_owned());
}

fn from_medium(medium: Medium) -> Source {
    Source { image: medium.image, path: medium.path, in_ram: false, background: None }
}

/// Copies before the boot goes on.
fn now(
    medium: Medium,
    options: &Options,
    manifest: &Manifest,
    record: &mut BootRecord,
    watchdog: Option<&Watchdog>,
) -> Result<Done<Source>, Fault> {
    let progress = Progress::start("copy-to-ram", manifest.root.size, true);
    let copied = into_ram(&medium.image, manifest, &|bytes| {
        watchdog.inspect(|watchdog| watchdog.alive());
        progress.at(bytes);
    });
    progress.end();
    let (image, copied) = match copied {
        Ok(copied) => copied,
        Err(error) => return not_copied(error, medium, options, record),
    };
    let told = medium.device.to_string();
    medium.release().context("letting go of the medium after the copy")?;
    if let Some(medium) = record.medium.as_mut() {
        medium.in_ram = true;
        medium.may_be_removed = true;
        medium.verified = Verified::Blake3;
    }
    if copied.retried > 0 {
        let text =
            format!("{} blocks of {told} were right only when read again: the medium is wearing out", copied.retried);
        warn(record, &text, "; write a new stick soon");
    }
    let rate = progress.rate();
    let detail = format!("{} MiB at {rate:.0} MB/s, verified; the stick may be removed", manifest.root.size >> 20);
    Ok(done(Source { image, path: ram_path(), in_ram: true, background: None }, detail))
}

/// Decides what a copy that failed means for the boot.
fn not_copied(
    error: anyhow::Error,
    medium: Medium,
    options: &Options,
    record: &mut BootRecord,
) -> Result<Done<Source>, Fault> {
    // What was copied is of no use; at worst its memory stays in use until the next attempt.
    let _ = mounts::release(layout::RAM);
    let place = medium.device.to_string();
    let gone = !medium.device.is_present();
    let block = error.downcast_ref::<BadBlock>();
    if gone {
        return Err(Fault::from(error.context("the medium was pulled while it was copied"))
            .seen(format!("medium: {place}"))
            .hint(
                "plug it in again and leave it until the screen says that it may be removed; the boot then begins anew",
            ));
    }
    let Some(block) = block.filter(|_| options.verify) else {
        return Err(Fault::from(error)
            .seen(format!("medium: {place}"))
            .hint("the medium is damaged: write the stick again, compare SHA256SUMS, or take another stick"));
    };
    let text = format!(
        "not copied to RAM: {block} on {place}. The medium is damaged: the boot goes on from it, and every block that is used \
         is verified; DO NOT REMOVE THE STICK"
    );
    warn(record, &text, "; write the stick again soon, or take another one");
    Ok(done(from_medium(medium), text))
}

/// Where the copy lies.
#[must_use]
pub fn ram_path() -> String {
    format!("{}/root.squashfs", layout::RAM)
}

/// Makes the tmpfs and copies the root image into it, verified. What failed leaves the tmpfs mounted.
///
/// # Errors
/// A mount failed, or a block could not be copied ([`BadBlock`] is in the chain).
pub fn into_ram(from: &OwnedFd, manifest: &Manifest, progress: &(dyn Fn(u64) + Sync)) -> Result<(OwnedFd, Copied)> {
    let size = (manifest.root.size.next_multiple_of(HUGE_PAGE as u64) + (64 << 10)).to_string();
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = |options: &[(&str, &str)]| {
        mounts::mount(&Mount { fs: "tmpfs", source: "sino-ram", target: layout::RAM, attributes, options })
    };
    let common = [("size", size.as_str()), ("mode", "0700")];
    // Getting small pages, 256 for each block, is half of what the copy costs a processor.
    let huge = [common.as_slice(), &[("huge", "always")]].concat();
    // A kernel without huge pages, such as that of a PV dom0, refuses the option instead of doing without.
    mount(&huge).or_else(|_| mount(&common))?;
    let path = ram_path();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let to = rustix::fs::open(&path, flags, Mode::RUSR).with_context(|| format!("creating {path}"))?;
    let blocks = block_hash::parse(&manifest.root.blocks)?;
    let copied = block_copy::copy(Plan { from, to: Some(&to), size: manifest.root.size, blocks: &blocks }, progress)?;
    Ok((to, copied))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_computed_and_both_numbers_are_shown() {
        let text = "MemTotal:        1024000 kB\nMemFree: 1 kB\nMemAvailable:     307200 kB\n";
        let memory = Memory::from_text(150 << 20, text).unwrap();
        assert_eq!(memory.reserve, (96 << 20) + 1_024_000 * 1024 / 100 * 4);
        assert!(memory.suffices() && !memory.is_comfortable());
        assert_eq!(memory.to_string(), "286 MiB needed (150 MiB image and 136 MiB reserve), 300 MiB available");
        assert!(!Memory::from_text(170 << 20, text).unwrap().suffices());
        assert!(Memory::from_text(1, "MemTotal: 5 kB\n").is_err());
    }
}
