//! A medium that is not a whole device: an ISO file on some file system, or the ISO's content copied to a FAT stick.
//!
//! The file system is mounted read-only, in a way that writes nothing even if it was not unmounted cleanly. What is found
//! counts only if it carries the right build.

use crate::block_device::{BlockDevice, Content};
use crate::devices::Devices;
use crate::loop_device;
use crate::mounts::{self, Mount};
use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;
use sino_boot::identity::{self, Volume};
use sino_boot::layout;

/// How a medium is mounted: for reading only, and nothing on it is executed or is a device.
pub const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A file system that may carry a medium: what its signature is called, its driver, and the options that keep it from
/// writing (a journal would be replayed even when mounted read-only).
struct Kind {
    signature: &'static str,
    driver: &'static str,
    options: &'static [(&'static str, &'static str)],
}

const KINDS: [Kind; 6] = [
    Kind { signature: "vfat", driver: "vfat", options: &[] },
    Kind { signature: "exfat", driver: "exfat", options: &[] },
    Kind { signature: "ntfs", driver: "ntfs3", options: &[] },
    Kind { signature: "ext2/3/4", driver: "ext4", options: &[("noload", "")] },
    // Without "nouuid" the same file system could not be mounted for good later, for example as /srv.
    Kind { signature: "xfs", driver: "xfs", options: &[("norecovery", ""), ("nouuid", "")] },
    Kind { signature: "btrfs", driver: "btrfs", options: &[("rescue", "nologreplay")] },
];

fn kind(device: &BlockDevice) -> Option<&'static Kind> {
    let Content::Other(signature) = device.content else { return None };
    KINDS.iter().find(|kind| kind.signature == signature)
}

/// Whether the device may hold an ISO file.
#[must_use]
pub fn may_hold_file(device: &BlockDevice) -> bool {
    kind(device).is_some()
}

/// Whether the device may hold a copy of the ISO's content: only FAT, which is what such sticks are made with.
#[must_use]
pub fn may_hold_copy(device: &BlockDevice) -> bool {
    device.content == Content::Other("vfat")
}

/// Mounts a file system of one of these kinds, in a way that writes nothing.
///
/// # Errors
/// It is none of them, or the kernel's refusal.
pub fn mount(device: &BlockDevice, target: &str, devices: &Devices) -> Result<()> {
    let kind = kind(device).context("no file system that could carry a medium")?;
    devices.driver(kind.driver)?;
    let source = format!("/dev/{}", device.name);
    mounts::mount(&Mount { fs: kind.driver, source: &source, target, attributes: READ_ONLY, options: kind.options })
}

/// Looks for the ISO file `path` on a device. What is returned stays mounted: the device on [`layout::CARRIER`], and the
/// ISO on the loop device that is named.
///
/// # Errors
/// The file system cannot be mounted, or the file is there and cannot be used.
pub fn open_file(device: &BlockDevice, path: &str, devices: &Devices) -> Result<Option<(Volume, String)>> {
    mount(device, layout::CARRIER, devices)?;
    let found = volume_in(path).and_then(|found| match found {
        Some((volume, file)) => {
            devices.driver("loop")?;
            Ok(Some((volume, loop_device::attach(&file, path, true)?)))
        }
        None => Ok(None),
    });
    if !matches!(found, Ok(Some(_))) {
        // Nothing is open on it, so this can only fail if it is gone already.
        let _ = mounts::release(layout::CARRIER);
    }
    found
}

/// Opens the ISO file on the mounted carrier and reads whose it is; `None` if there is no such file.
fn volume_in(path: &str) -> Result<Option<(Volume, OwnedFd)>> {
    let full = format!("{}{path}", layout::CARRIER);
    let file = match rustix::fs::open(&full, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("opening {path}")),
    };
    let mut sector = vec![0; identity::SECTOR_SIZE];
    let length =
        rustix::io::pread(&file, &mut sector, identity::SECTOR_OFFSET).with_context(|| format!("reading {path}"))?;
    let volume =
        sector.get(..length).and_then(identity::parse).with_context(|| format!("{path} is not an ISO image"))?;
    Ok(Some((volume, file)))
}

/// Mounts a FAT file system on [`layout::MEDIUM`] and reads the build id that lies beside the copied files; `None`, and
/// nothing mounted, if there is none.
///
/// # Errors
/// It cannot be mounted, or the build id cannot be read.
pub fn open_copy(device: &BlockDevice, devices: &Devices) -> Result<Option<String>> {
    mount(device, layout::MEDIUM, devices)?;
    let build = match std::fs::read_to_string(format!("{}/{}", layout::MEDIUM, layout::BUILD_ID_FILE)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", layout::BUILD_ID_FILE)),
    };
    if !matches!(build, Ok(Some(_))) {
        let _ = mounts::release(layout::MEDIUM);
    }
    build
}
