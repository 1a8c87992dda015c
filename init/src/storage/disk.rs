//! What the kernel says of block devices, in sysfs.

use super::Host;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The kernel's name of a device: of `/dev/disk/by-id/...` as of `/dev/sda`. Without the device, the path's last part.
#[must_use]
pub fn kernel_name(host: Host<'_>, device: &str) -> String {
    let path = host.path(device);
    let real = fs::canonicalize(&path).unwrap_or(path);
    real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The folder of a device in sysfs.
#[must_use]
pub fn folder(host: Host<'_>, name: &str) -> PathBuf {
    host.path("/sys/class/block").join(name)
}

/// An attribute of a device in sysfs; empty if it has none.
#[must_use]
pub fn attribute(host: Host<'_>, name: &str, attribute: &str) -> String {
    fs::read_to_string(folder(host, name).join(attribute)).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Names in a folder of sysfs, sorted.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The partitions of a disk.
#[must_use]
pub fn partitions(host: Host<'_>, disk: &str) -> Vec<String> {
    let folder = folder(host, disk);
    names(&folder).into_iter().filter(|name| folder.join(name).join("partition").exists()).collect()
}

/// What the kernel has built on a device: device-mapper and md devices.
#[must_use]
pub fn holders(host: Host<'_>, name: &str) -> Vec<String> {
    names(&folder(host, name).join("holders"))
}

/// The whole disk that a partition is of; a disk is its own.
#[must_use]
pub fn whole(host: Host<'_>, name: &str) -> String {
    let folder = folder(host, name);
    let parent =
        || fs::canonicalize(&folder).ok()?.parent()?.file_name().map(|name| name.to_string_lossy().into_owned());
    if folder.join("partition").exists() { parent().unwrap_or_else(|| name.to_owned()) } else { name.to_owned() }
}

/// The whole disks below a device: of a partition, and of what device-mapper or md built.
#[must_use]
pub fn disks_below(host: Host<'_>, name: &str) -> BTreeSet<String> {
    let mut disks = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let below = names(&folder(host, &name).join("slaves"));
        if below.is_empty() {
            disks.insert(whole(host, &name));
        } else {
            open.extend(below);
        }
    }
    disks
}

/// Whether a device lies on a disk that the kernel calls removable, or that hangs on USB.
#[must_use]
pub fn removable(host: Host<'_>, device: &str) -> bool {
    disks_below(host, &kernel_name(host, device)).iter().any(|disk| {
        let place = fs::canonicalize(folder(host, disk)).unwrap_or_default();
        attribute(host, disk, "removable") == "1" || place.to_string_lossy().contains("/usb")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fake::{Fake, file, root};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_device_is_followed_down_to_its_disks() {
        let (root, fake) = (root(), Fake::default());
        let at = root.path();
        file(at, "sys/devices/pci/usb1/sdb/removable", "0\n");
        file(at, "sys/devices/pci/usb1/sdb/sdb1/partition", "1\n");
        file(at, "sys/devices/pci/ata1/sda/removable", "0\n");
        file(at, "sys/devices/virtual/dm-0/dm/name", "x\n");
        fs::create_dir_all(at.join("sys/class/block")).unwrap();
        fs::create_dir_all(at.join("sys/devices/virtual/dm-0/slaves/sdb1")).unwrap();
        for (name, place) in
            [("sdb", "pci/usb1/sdb"), ("sdb1", "pci/usb1/sdb/sdb1"), ("sda", "pci/ata1/sda"), ("dm-0", "virtual/dm-0")]
        {
            symlink(format!("../../devices/{place}"), at.join("sys/class/block").join(name)).unwrap();
        }
        let host = Host::new(&fake, at.to_str().unwrap());
        assert_eq!(disks_below(host, "dm-0"), BTreeSet::from(["sdb".to_owned()]));
        assert_eq!(partitions(host, "sdb"), ["sdb1"]);
        assert!(removable(host, "/dev/dm-0") && removable(host, "/dev/sdb1") && !removable(host, "/dev/sda"));
    }
}
