//! Finding the medium: the device that carries the build that this initramfs was made with.
//!
//! Waits on device events, never on time; ends at once when the right device appears. Mounts the medium read-only and
//! makes sure that the root image on it is there and as long as the manifest says.

use crate::block_device::{self, BlockDevice, Content};
use crate::devices::{Devices, Event};
use crate::mounts::{self, Mount};
use anyhow::{Context, Result, anyhow, ensure};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;
use sino_boot::layout;
use sino_boot::manifest::Manifest;
use sino_boot::options::Options;
use sino_boot::record::{self, BootRecord};
use sino_boot::stage::{Done, Fault, done};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The medium, mounted on [`layout::MEDIUM`], with its root image open.
#[derive(Debug)]
pub struct Medium {
    /// The device.
    pub device: BlockDevice,
    /// The root image.
    pub image: OwnedFd,
}

/// Waits for the medium and mounts it.
///
/// # Errors
/// It did not appear in time; the fault lists every block device and what it is.
pub fn find(
    devices: &mut Devices,
    options: &Options,
    manifest: &Manifest,
    record: &mut BootRecord,
) -> Result<Done<Medium>, Fault> {
    let patience = Duration::from_secs(u64::from(options.medium_timeout));
    let deadline = Instant::now() + patience;
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    while let Some(event) = devices.next(deadline) {
        match event {
            Event::Block(device) => {
                if !wanted(&device, options, manifest) {
                    seen.insert(device.name.clone(), remark(&device, options, manifest));
                    continue;
                }
                let device = if options.medium.is_none() { narrowed(device, manifest) } else { device };
                match open(&device, manifest, devices) {
                    Ok(image) => return Ok(found(device, image, record)),
                    Err(error) => {
                        log::warn!("{device}, but it cannot be used: {error:#}");
                        seen.insert(device.name.clone(), format!("{device}, but it cannot be used: {error:#}"));
                    }
                }
            }
            Event::Gone(name) => {
                seen.remove(&name);
            }
            Event::Died(why) => return Err(explain(anyhow!("the search for devices ended: {why}"), &seen, devices)),
        }
    }
    let only = options.medium.as_ref().map_or_else(String::new, |path| format!(" (only {path} was asked for)"));
    let cause = anyhow!("no device carries build {} after {} s{only}", manifest.build_id, patience.as_secs());
    Err(explain(cause, &seen, devices)
        .hint("plug the right stick in, then leave the shell with \"exit\"")
        .hint("sino.medium-timeout=SECONDS waits longer"))
}

/// The partition of a stick that holds the medium, when the stick as a whole looks like it, too: the kernel lets nobody
/// mount the stick's other partitions while the whole stick is mounted. The partitions are known by the time that the
/// kernel announces the disk.
fn narrowed(disk: BlockDevice, manifest: &Manifest) -> BlockDevice {
    let partitions = block_device::partitions(&disk.name);
    let right = partitions.iter().filter_map(|name| block_device::look(name)).find(|part| carries(part, manifest));
    right.unwrap_or(disk)
}

fn carries(device: &BlockDevice, manifest: &Manifest) -> bool {
    matches!(&device.content, Content::Volume(volume) if volume.is_sino() && volume.set_id == manifest.build_id)
}

fn wanted(device: &BlockDevice, options: &Options, manifest: &Manifest) -> bool {
    let asked = options.medium.as_deref().is_none_or(|path| path.strip_prefix("/dev/") == Some(&device.name));
    let right =
        matches!(&device.content, Content::Volume(volume) if volume.is_sino() && volume.set_id == manifest.build_id);
    asked && right
}

/// Why a device is not the medium.
fn remark(device: &BlockDevice, options: &Options, manifest: &Manifest) -> String {
    match &device.content {
        Content::Volume(volume) if volume.is_sino() && volume.set_id != manifest.build_id => {
            format!("{device}: another release than this initramfs ({}, build {})", manifest.version, manifest.build_id)
        }
        Content::Volume(volume) if volume.is_sino() => {
            format!("{device}: passed over, because sino.medium={} was given", options.medium.as_deref().unwrap_or(""))
        }
        _ => device.to_string(),
    }
}

fn explain(cause: anyhow::Error, seen: &BTreeMap<String, String>, devices: &Devices) -> Fault {
    let mut fault = Fault::from(cause);
    if seen.is_empty() {
        fault = fault.seen(format!("no block device at all; {} drivers were loaded", devices.loaded()));
    }
    for remark in seen.values() {
        fault = fault.seen(remark);
    }
    for failure in devices.failures() {
        fault = fault.seen(failure);
    }
    fault
}

fn found(device: BlockDevice, image: OwnedFd, record: &mut BootRecord) -> Done<Medium> {
    let detail = format!("{} {}", device.place, device.name);
    record.medium = Some(record::Medium {
        device: device.name.clone(),
        description: device.place.clone(),
        build_id: record.build_id.clone(),
        in_ram: false,
    });
    done(Medium { device, image }, detail)
}

/// Mounts a device that carries the right build and opens the root image on it.
fn open(device: &BlockDevice, manifest: &Manifest, devices: &Devices) -> Result<OwnedFd> {
    devices.driver("isofs")?;
    let source = format!("/dev/{}", device.name);
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mounts::mount(&Mount { fs: "iso9660", source: &source, target: layout::MEDIUM, attributes, options: &[] })?;
    open_image(manifest).inspect_err(|_| {
        // The next device with this build needs the place; a mount that stays is reported by its own error.
        let _ = mounts::release(layout::MEDIUM);
    })
}

fn open_image(manifest: &Manifest) -> Result<OwnedFd> {
    let path = format!("{}/{}", layout::MEDIUM, manifest.root.path);
    let image = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening the root image {}", manifest.root.path))?;
    let size = rustix::fs::fstat(&image).context("asking for the root image's length")?.st_size;
    ensure!(
        u64::try_from(size) == Ok(manifest.root.size),
        "the root image {} has {size} bytes instead of {}: the medium is half written or damaged",
        manifest.root.path,
        manifest.root.size
    );
    Ok(image)
}
