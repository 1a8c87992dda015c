//! Mounting the root image: a loop device over the file, dm-verity over that while the medium is used, and the squashfs.

use crate::devices::Devices;
use crate::keeper::Task;
use crate::mounts::{self, Mount};
use crate::to_ram::Source;
use crate::{loop_device, verity};
use rustix::mount::MountAttrFlags;
use sino_boot::layout;
use sino_boot::manifest::Manifest;
use sino_boot::options::Options;
use sino_boot::stage::{Done, Fault, done};

/// The root image, mounted on [`layout::LOWER`].
#[derive(Debug)]
pub struct Lower {
    /// The loop device below it.
    pub device: String,
    /// What the keeper has to do for it.
    pub task: Task,
}

/// Mounts the root image. A copy in RAM was verified as a whole and needs no tree; from the medium every block is verified
/// when it is read (`docs/decisions/0005`).
///
/// # Errors
/// No loop device, no verified device, or the bytes are no squashfs that this kernel can read.
pub fn mount(source: Source, options: &Options, manifest: &Manifest, devices: &Devices) -> Result<Done<Lower>, Fault> {
    let Source { image, path, in_ram, background } = source;
    devices.driver("loop")?;
    devices.driver("squashfs")?;
    let verified = options.verify && !in_ram;
    if verified {
        devices.driver("dm_verity")?;
    }
    let device = loop_device::attach(&image, &path, in_ram)?;
    match stack(&device, verified, manifest) {
        Ok(top) => {
            let task =
                Task { hold_files: !in_ram, copy: background.map(|holds| (device.clone(), path.clone(), holds)) };
            let over = if verified { format!(", verified by dm-verity as {top}") } else { String::new() };
            Ok(done(Lower { device: device.clone(), task }, format!("{path} on {device}{over}")))
        }
        Err(fault) => {
            let damaged = verified && verity::has_seen_damage();
            if verified {
                let _ = verity::close();
            }
            let _ = loop_device::detach(&device);
            let fault = fault.seen(format!("root image: {path}"));
            let fault = if damaged {
                fault.seen("dm-verity: a block of the medium is not the one that was built")
            } else {
                fault
            };
            Err(fault.hint("the medium is damaged: write the stick again, compare SHA256SUMS, or take another stick"))
        }
    }
}

/// Stacks what belongs over the loop device; returns the device that is mounted.
fn stack(device: &str, verified: bool, manifest: &Manifest) -> Result<String, Fault> {
    let top = if verified { verity::open(device, &manifest.root.verity)? } else { device.to_owned() };
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    mounts::mount(&Mount { fs: "squashfs", source: &top, target: layout::LOWER, attributes, options: &[] })?;
    Ok(top)
}
