//! Finding the medium: the device that carries the build that this initramfs was made with.
//!
//! Waits on device events, never on time; ends at once when the right device appears. Mounts the medium read-only and
//! makes sure that the root image on it is there and as long as the manifest says.

use crate::block_device::{self, BlockDevice, Content};
use crate::carrier;
use crate::devices::{Devices, Event};
use crate::loop_device;
use crate::mounts::{self, Mount};
use anyhow::{Context, Result, anyhow, ensure};
use log::Level;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use sino_boot::manifest::Manifest;
use sino_boot::options::Options;
use sino_boot::record::{self, BootRecord};
use sino_boot::stage::{Done, Fault, done};
use sino_boot::{console, layout};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After this time without the medium the consoles show what is waited for. The slowest sticks seen need some seconds.
const REPORT_AFTER: Duration = Duration::from_secs(10);

/// The medium, mounted on [`layout::MEDIUM`], with its root image open.
#[derive(Debug)]
pub struct Medium {
    /// The device.
    pub device: BlockDevice,
    /// The root image.
    pub image: OwnedFd,
    /// The loop device over the ISO file, when the medium is a file on [`layout::CARRIER`].
    loop_device: Option<String>,
}

impl Medium {
    /// Lets go of the medium: nothing of it is open or mounted afterwards.
    ///
    /// # Errors
    /// Something of it is still in use.
    pub fn release(self) -> Result<()> {
        drop(self.image);
        mounts::release(layout::MEDIUM)?;
        if let Some(device) = &self.loop_device {
            loop_device::detach(device)?;
            mounts::release(layout::CARRIER)?;
        }
        Ok(())
    }
}

/// What a look at a device came to.
enum Finding {
    /// It is the medium.
    Medium(Box<Medium>),
    /// It is not, and this is what it is.
    Not(String),
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
    let began = Instant::now();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut told = false;
    loop {
        // Until the report the wait is for the report's time, afterwards for the end.
        let until = if told { patience } else { patience.min(REPORT_AFTER) };
        let Some(event) = devices.next(began + until) else {
            if told || patience <= REPORT_AFTER {
                break;
            }
            told = true;
            report_waiting(manifest, &seen, patience);
            continue;
        };
        match event {
            Event::Block(device) => match consider(device.clone(), options, manifest, devices) {
                Ok(Finding::Medium(medium)) => return Ok(found(*medium, options, record)),
                Ok(Finding::Not(remark)) => {
                    if told && seen.get(&device.name) != Some(&remark) {
                        console::say(&format!("find-medium: seen {remark}"), Level::Warn);
                    }
                    seen.insert(device.name, remark);
                }
                Err(error) => {
                    let remark = format!("{device}, but it cannot be used: {error:#}");
                    log::warn!("{remark}");
                    seen.insert(device.name, remark);
                }
            },
            Event::Gone(name) => {
                seen.remove(&name);
            }
            Event::Died(why) => return Err(explain(anyhow!("the search for devices ended: {why}"), &seen, devices)),
        }
    }
    let only = options.medium.as_ref().map_or_else(String::new, |path| format!(" (only {path} was asked for)"));
    let file = options.iso.as_ref().map_or_else(String::new, |path| format!(" (nor a file {path})"));
    let cause = anyhow!("no device carries build {} after {} s{only}{file}", manifest.build_id, patience.as_secs());
    Err(explain(cause, &seen, devices)
        .hint("plug the right stick in, then leave the shell with \"exit\"")
        .hint("sino.medium-timeout=SECONDS waits longer"))
}

/// Says on every console what is waited for and what there is, long before the wait ends.
fn report_waiting(manifest: &Manifest, seen: &BTreeMap<String, String>, patience: Duration) {
    let waited = REPORT_AFTER.as_secs();
    let until = patience.as_secs();
    console::say(
        &format!(
            "find-medium: no device carries build {} after {waited} s; waiting until {until} s",
            manifest.build_id
        ),
        Level::Warn,
    );
    for remark in seen.values() {
        console::say(&format!("find-medium: seen {remark}"), Level::Warn);
    }
    if seen.is_empty() {
        console::say("find-medium: no block device has appeared", Level::Warn);
    }
}

/// Decides what a device is, and mounts it if it is the medium.
fn consider(device: BlockDevice, options: &Options, manifest: &Manifest, devices: &Devices) -> Result<Finding> {
    let asked = options.medium.as_deref().is_none_or(|path| path.strip_prefix("/dev/") == Some(&device.name));
    if !asked {
        let medium = options.medium.as_deref().unwrap_or_default();
        return Ok(Finding::Not(format!("{device}: passed over, because sino.medium={medium} was given")));
    }
    if let Content::Volume(volume) = &device.content {
        if volume.is_sino() && volume.set_id == manifest.build_id {
            let device = if options.medium.is_none() { narrowed(device, manifest) } else { device };
            let image = open(&format!("/dev/{}", device.name), manifest, devices)?;
            return Ok(Finding::Medium(Box::new(Medium { device, image, loop_device: None })));
        }
        let other = if volume.is_sino() { another_release(manifest) } else { String::new() };
        return Ok(Finding::Not(format!("{device}{other}")));
    }
    if let (Some(path), true) = (&options.iso, carrier::may_hold_file(&device)) {
        return in_file(device, path, manifest, devices);
    }
    if carrier::may_hold_copy(&device) {
        return as_copy(device, manifest, devices);
    }
    Ok(Finding::Not(device.to_string()))
}

fn another_release(manifest: &Manifest) -> String {
    format!(", another release than this initramfs ({}, build {})", manifest.version, manifest.build_id)
}

/// The ISO as a file on the device.
fn in_file(device: BlockDevice, path: &str, manifest: &Manifest, devices: &Devices) -> Result<Finding> {
    let Some((volume, loop_device)) = carrier::open_file(&device, path, devices)? else {
        return Ok(Finding::Not(format!("{device}, without a file {path}")));
    };
    let opened = if volume.is_sino() && volume.set_id == manifest.build_id {
        open(&loop_device, manifest, devices)
    } else if volume.is_sino() {
        let other = another_release(manifest);
        Err(anyhow!("its {path} is SINO {}, build {}{other}", volume.version(), volume.set_id))
    } else {
        Err(anyhow!("its {path} is {:?}, not SINO", volume.volume_id))
    };
    match opened {
        Ok(image) => Ok(Finding::Medium(Box::new(Medium { device, image, loop_device: Some(loop_device) }))),
        Err(error) => {
            loop_device::detach(&loop_device)?;
            mounts::release(layout::CARRIER)?;
            Err(error)
        }
    }
}

/// The ISO's content as files on the device.
fn as_copy(device: BlockDevice, manifest: &Manifest, devices: &Devices) -> Result<Finding> {
    let Some(build) = carrier::open_copy(&device, devices)? else {
        return Ok(Finding::Not(device.to_string()));
    };
    let opened = if build == manifest.build_id {
        open_image(manifest)
    } else {
        Err(anyhow!("it holds the files of build {build}{}", another_release(manifest)))
    };
    match opened {
        Ok(image) => Ok(Finding::Medium(Box::new(Medium { device, image, loop_device: None }))),
        Err(error) => {
            mounts::release(layout::MEDIUM)?;
            Err(error)
        }
    }
}

/// The partition of a stick that holds the medium, when the stick as a whole looks like it, too: the kernel lets nobody
/// mount the stick's other partitions while the whole stick is mounted. The partitions are known by the time that the
/// kernel announces the disk.
fn narrowed(disk: BlockDevice, manifest: &Manifest) -> BlockDevice {
    let carries = |device: &BlockDevice| matches!(&device.content, Content::Volume(volume) if volume.is_sino() && volume.set_id == manifest.build_id);
    let partitions = block_device::partitions(&disk.name);
    partitions.iter().filter_map(|name| block_device::look(name)).find(carries).unwrap_or(disk)
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

fn found(medium: Medium, options: &Options, record: &mut BootRecord) -> Done<Medium> {
    let device = &medium.device;
    let file = match (&medium.loop_device, &options.iso) {
        (Some(_), Some(path)) => format!(", file {path}"),
        _ => String::new(),
    };
    let detail = format!("{} {}{file}", device.place, device.name);
    record.medium = Some(record::Medium {
        device: device.name.clone(),
        description: format!("{}{file}", device.place),
        build_id: record.build_id.clone(),
        in_ram: false,
    });
    done(medium, detail)
}

/// Mounts the ISO on a block device and opens the root image on it.
fn open(source: &str, manifest: &Manifest, devices: &Devices) -> Result<OwnedFd> {
    devices.driver("isofs")?;
    let attributes = carrier::READ_ONLY;
    mounts::mount(&Mount { fs: "iso9660", source, target: layout::MEDIUM, attributes, options: &[] })?;
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
