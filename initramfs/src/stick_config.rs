//! The configuration on the medium: a `sino.toml` that was put on the stick from any computer. It is copied into memory while
//! the medium is there, because the stick may be pulled before stage two reads it.

use crate::block_device::{self, BlockDevice};
use crate::carrier;
use crate::devices::Devices;
use crate::fat_root;
use crate::loop_device;
use crate::medium::Medium;
use crate::mounts::{self, Mount};
use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use sino_boot::layout;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// Largest file that is copied, in bytes.
const LARGEST: u64 = 256 << 10;
/// The file's name, in the first folder of its file system.
const NAME: &str = "sino.toml";
/// What it ends with.
const EXTENSION: &str = "toml";
/// Where the EFI partition is mounted for as long as it is looked at.
const PLACE: &str = "/run/sino/efi";

/// Copies the configuration; returns where it was found.
///
/// # Errors
/// There is one, and it cannot be read. The boot goes on without it.
pub fn keep(medium: &Medium, devices: &Devices) -> Result<Option<String>> {
    if let Some(partition) = efi_partition(&medium.device)
        && fat_root::may_hold(&partition.name, EXTENSION)
    {
        let below = mount(&partition, devices)?;
        let found = copy(PLACE, Path::new(layout::STICK_CONFIG));
        // Nothing is open on it, so this can only fail if it is gone already.
        let _ = mounts::release(PLACE);
        let _ = fs::remove_dir(PLACE);
        if let Some(below) = below {
            loop_device::detach(&below)?;
        }
        if found.with_context(|| format!("{NAME} on the EFI partition {}", partition.name))? {
            return Ok(Some(partition.name));
        }
    }
    for place in [layout::MEDIUM, layout::CARRIER] {
        let found = copy(place, Path::new(layout::STICK_CONFIG));
        if found.with_context(|| format!("{NAME} on {}", medium.device.name))? {
            return Ok(Some(medium.device.name.clone()));
        }
    }
    Ok(None)
}

/// Mounts the partition on [`PLACE`]. When the whole disk is mounted as the medium, the kernel gives nobody a part of it; then a
/// loop device stands between, which is returned.
fn mount(partition: &BlockDevice, devices: &Devices) -> Result<Option<String>> {
    let Err(refused) = carrier::mount(partition, PLACE, devices) else { return Ok(None) };
    let source = format!("/dev/{}", partition.name);
    let file = rustix::fs::open(&source, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {source}"))?;
    devices.driver("loop")?;
    let device = loop_device::attach(&file, &partition.name, false)?;
    let attributes = carrier::READ_ONLY;
    let mounted = mounts::mount(&Mount { fs: "vfat", source: &device, target: PLACE, attributes, options: &[] });
    if mounted.is_err() {
        loop_device::detach(&device)?;
        return Err(refused);
    }
    Ok(Some(device))
}

/// The EFI partition of the disk that the medium is on. A disc has none.
pub(crate) fn efi_partition(device: &BlockDevice) -> Option<BlockDevice> {
    let partitions = block_device::partitions(&device.disk).into_iter();
    let is_ours = |device: &BlockDevice| {
        device.superblock.as_ref().is_some_and(|superblock| superblock.label == layout::EFI_LABEL)
    };
    partitions.filter_map(|name| block_device::look(&name)).find(is_ours)
}

/// Copies the file if there is one.
fn copy(from: &str, to: &Path) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(format!("{from}/{NAME}"), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let facts = file.metadata()?;
    ensure!(facts.is_file(), "it is not a file");
    ensure!(facts.len() <= LARGEST, "it has {} bytes, and {LARGEST} at most are read", facts.len());
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(to, bytes).with_context(|| format!("writing {}", to.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_reasonable_size_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().to_str().unwrap(), folder.path().join("run/stick/sino.toml"));
        assert!(!copy(from, &to).unwrap());
        fs::write(folder.path().join(NAME), "[boot]\n").unwrap();
        assert!(copy(from, &to).unwrap());
        assert_eq!(fs::read_to_string(&to).unwrap(), "[boot]\n");
        fs::write(folder.path().join(NAME), vec![b'#'; 300 << 10]).unwrap();
        assert!(copy(from, &to).unwrap_err().to_string().contains("bytes"));
        fs::remove_file(folder.path().join(NAME)).unwrap();
        fs::create_dir(folder.path().join(NAME)).unwrap();
        assert!(copy(from, &to).is_err());
    }
}
