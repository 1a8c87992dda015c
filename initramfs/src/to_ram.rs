//! "On ram": the root image is copied into a tmpfs in one pass, verified on the way, and the medium is let go.
//!
//! When memory does not suffice, the boot goes on from the medium and says so. A copy whose hash is wrong is never
//! used.

use crate::medium::Medium;
use crate::mounts::{self, Mount};
use anyhow::{Context, Result, bail, ensure};
use log::Level;
use rustix::fd::OwnedFd;
use rustix::fs::{Advice, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use sino_boot::console;
use sino_boot::layout;
use sino_boot::manifest::Manifest;
use sino_boot::options::Options;
use sino_boot::record::BootRecord;
use sino_boot::stage::{Done, Fault, done, not_requested};
use std::num::NonZeroU64;
use std::time::Instant;

/// Memory that must be left for the rest of the boot, in bytes.
const RESERVE: u64 = 96 << 20;
/// Bytes read at a time: large enough for a stick's own read-ahead, small enough to stay in the CPU's cache.
const BLOCK: usize = 1 << 20;

/// Where the root image's bytes come from, from here on.
#[derive(Debug)]
pub struct Source {
    /// The root image.
    pub image: OwnedFd,
    /// Its path, for people and for `losetup`.
    pub path: String,
    /// Whether it lies in RAM.
    pub in_ram: bool,
}

/// Copies the root image to RAM if the flags say so.
///
/// # Errors
/// The medium cannot be read, or the bytes are not those of the manifest.
pub fn copy(
    medium: Medium,
    options: &Options,
    manifest: &Manifest,
    record: &mut BootRecord,
) -> Result<Done<Source>, Fault> {
    let path = format!("{}/{}", layout::MEDIUM, manifest.root.path);
    if !options.ram {
        return Ok(not_requested(Source { image: medium.image, path, in_ram: false }));
    }
    let needed = manifest.root.size.saturating_add(RESERVE);
    let available = available_memory()?;
    if available < needed {
        let text = format!(
            "not copied: {} MiB of memory are needed, {} MiB are available; DO NOT REMOVE THE STICK",
            needed.div_ceil(1 << 20),
            available >> 20
        );
        console::say(&format!("warning: {text}; give dom0 more memory (dom0_mem= of Xen)"), Level::Warn);
        record.warnings.push(text.clone());
        return Ok(done(Source { image: medium.image, path, in_ram: false }, text));
    }
    let began = Instant::now();
    let image = copy_verified(&medium.image, manifest).map_err(|error| {
        Fault::from(error).seen(format!("medium: {}", medium.device)).hint(
            "the medium is damaged or was pulled: write the stick again, compare SHA256SUMS, or take another stick",
        )
    })?;
    let rate = manifest.root.size as f64 / 1e6 / began.elapsed().as_secs_f64().max(1e-3);
    medium.release()?;
    if let Some(medium) = record.medium.as_mut() {
        medium.in_ram = true;
    }
    let detail = format!("{} MiB at {rate:.0} MB/s, verified; the stick may be removed", manifest.root.size >> 20);
    Ok(done(Source { image, path: ram_path(), in_ram: true }, detail))
}

fn ram_path() -> String {
    format!("{}/root.squashfs", layout::RAM)
}

fn copy_verified(from: &OwnedFd, manifest: &Manifest) -> Result<OwnedFd> {
    let size = (manifest.root.size.div_ceil(4096) * 4096 + (64 << 10)).to_string();
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("size", size.as_str()), ("mode", "0700")];
    mounts::mount(&Mount { fs: "tmpfs", source: "sino-ram", target: layout::RAM, attributes, options: &options })?;
    let path = ram_path();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let to = rustix::fs::open(&path, flags, Mode::RUSR).with_context(|| format!("creating {path}"))?;
    let copied = copy_blocks(from, &to, manifest.root.size)?;
    ensure!(
        copied == manifest.root.blake3,
        "the copy's BLAKE3 is {copied}, the manifest says {}: the medium does not hold what was built",
        manifest.root.blake3
    );
    Ok(to)
}

/// Copies `size` bytes and returns their BLAKE3 as hexadecimal digits.
///
/// # Errors
/// Reading or writing failed, with the place, or the source ends too early.
pub fn copy_blocks(from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; BLOCK];
    let mut offset = 0_u64;
    let mut told = 0;
    let _ = rustix::fs::fadvise(from, 0, None, Advice::Sequential);
    while offset < size {
        let length = rustix::io::pread(from, &mut block, offset)
            .with_context(|| format!("reading the root image at byte {offset} of {size}"))?;
        let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
        let bytes = block.get(..length.min(left)).unwrap_or_default();
        if bytes.is_empty() {
            bail!("the root image ends at byte {offset} instead of {size}");
        }
        hasher.update(bytes);
        write_all(to, bytes, offset).with_context(|| format!("writing the copy at byte {offset}"))?;
        // What was read is not needed a second time: it must not fill the page cache beside the copy.
        let _ = rustix::fs::fadvise(from, offset, NonZeroU64::new(bytes.len() as u64), Advice::DontNeed);
        offset += bytes.len() as u64;
        let tenth = offset.saturating_mul(10) / size;
        if tenth > told {
            told = tenth;
            console::say(&format!("copy-to-ram: {}0 % of {} MiB", tenth, size >> 20), Level::Info);
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn write_all(to: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::pwrite(to, bytes, offset)?;
        ensure!(written > 0, "nothing more can be written");
        bytes = bytes.get(written..).unwrap_or_default();
        offset += written as u64;
    }
    Ok(())
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable in /proc/meminfo")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().context("MemAvailable is no number")?;
    Ok(kilobytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn the_copy_is_the_source_and_its_hash_is_right() {
        let bytes: Vec<u8> = (0..3_000_001_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(&bytes).unwrap();
        let mut to = tempfile::tempfile().unwrap();
        let hash = copy_blocks(&from.into(), &to.try_clone().unwrap().into(), bytes.len() as u64).unwrap();
        assert_eq!(hash, blake3::hash(&bytes).to_hex().to_string());
        let mut copy = Vec::new();
        to.rewind().unwrap();
        to.read_to_end(&mut copy).unwrap();
        assert!(copy == bytes);
    }

    #[test]
    fn a_source_that_ends_early_is_an_error_with_its_place() {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(&[1; 5000]).unwrap();
        let error = copy_blocks(&from.into(), &tempfile::tempfile().unwrap().into(), 6000).unwrap_err();
        assert!(error.to_string().contains("5000"), "{error}");
    }
}
