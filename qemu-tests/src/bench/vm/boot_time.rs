//! How long a root image takes from a USB stick, whatever it is packed with.
//!
//! The floor boots it, so that nothing but the image differs; before it switches to the root it reads all programs and
//! libraries that a running host is made of (`/usr/lib/sino/held-in-ram` in the image), which is what a start up to a login reads
//! most. It brings the bench's init along.

use super::{MEDIUM, begin};
use crate::bench::Settings;
use crate::bench::contenders::{Contender, Kit, RootFs};
use anyhow::{Context, Result, ensure};
use sino_image::qemu::{Bus, Drive, Start};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where erofs has its magic number, and what it is. Source: kernel `fs/erofs/erofs_fs.h`.
const EROFS: (u64, [u8; 4]) = (1024, 0xE0F5_E1E2_u32.to_le_bytes());

/// Seconds from "Run /init" to the root's init with the root image `image` (squashfs, or erofs by its superblock) on a USB
/// stick, with the reading of the running system's programs.
///
/// # Errors
/// What it needs cannot be made, or it does not boot.
pub fn measure(settings: &Settings, image: &Path) -> Result<f64> {
    let kit = Kit::get()?;
    let folder = settings.work("boot-time");
    super::fresh(&folder)?;
    let (initrd, medium) = kit.other_root(image, kind(image)?, &folder)?;
    let append = Contender::Floor.flags(Bus::UsbStick, false);
    let start = Start::Kernel { kernel: kit.sino.kernel.clone(), initrd, append };
    let booted = begin(start, Drive::new(MEDIUM, Bus::UsbStick, &medium), &folder.join("machine"))?;
    let root = booted.report.mounted_at("/").map_or("nothing", |mount| mount.fs.as_str());
    ensure!(root == "overlay", "the root is {root}, not an overlay");
    Ok(booted.init_to_root())
}

/// What the image is.
fn kind(image: &Path) -> Result<RootFs> {
    let mut magic = [0; 4];
    let file = File::open(image).with_context(|| format!("opening {}", image.display()))?;
    file.read_exact_at(&mut magic, EROFS.0).with_context(|| format!("reading {}", image.display()))?;
    Ok(if magic == EROFS.1 { RootFs::Erofs } else { RootFs::Squashfs })
}
