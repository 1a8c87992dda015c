//! Mounting the root image: a loop device over the squashfs file, read-only.

use crate::devices::Devices;
use crate::loop_device;
use crate::mounts::{self, Mount};
use crate::to_ram::Source;
use rustix::mount::MountAttrFlags;
use sino_boot::layout;
use sino_boot::stage::{Done, Fault, done};

/// The root image, mounted on [`layout::LOWER`].
#[derive(Debug)]
pub struct Lower {
    /// The loop device below it.
    pub device: String,
}

/// Mounts the root image.
///
/// # Errors
/// No loop device, or the bytes are no squashfs that this kernel can read.
pub fn mount(source: Source, devices: &Devices) -> Result<Done<Lower>, Fault> {
    let Source { image, path, in_ram } = source;
    devices.driver("loop")?;
    devices.driver("squashfs")?;
    // In RAM the page cache above the loop would hold everything a second time.
    let device = loop_device::attach(&image, &path, in_ram)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let squashfs = Mount { fs: "squashfs", source: &device, target: layout::LOWER, attributes, options: &[] };
    if let Err(error) = mounts::mount(&squashfs) {
        let _ = loop_device::detach(&device);
        return Err(Fault::from(error)
            .seen(format!("root image: {path}"))
            .hint("the medium is damaged: write the stick again, compare SHA256SUMS, or take another stick"));
    }
    let detail = format!("{path} on {device}");
    Ok(done(Lower { device }, detail))
}
