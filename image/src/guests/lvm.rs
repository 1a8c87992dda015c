//! LVM's own tools on a file: they write a group's metadata and say where its volumes lie, without device-mapper.
//!
//! They take block devices only, so the file hangs on a loop device while they work, which needs root. They see this
//! device alone, and leave nothing in `/etc` or `/run`.

use crate::command;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// LVM's unit of space, in bytes: its default.
pub(super) const EXTENT: u64 = 4 << 20;

/// A group on one physical volume, being made.
pub(super) struct Group<'a> {
    name: &'a str,
    device: Loop,
    folder: &'a Path,
}

impl<'a> Group<'a> {
    /// Makes the group on the bytes `from..from + length` of a file. `folder` is for LVM's locks.
    ///
    /// # Errors
    /// A tool is missing or refuses, in its own words; the user is not root.
    pub(super) fn make(name: &'a str, file: &Path, from: u64, length: u64, folder: &'a Path) -> Result<Self> {
        let group = Self { name, device: Loop::attach(file, from, length)?, folder };
        group.run("pvcreate", &["-ff", "--yes", &group.device.0])?;
        group.run("vgcreate", &[name, &group.device.0])?;
        Ok(group)
    }

    /// Makes a volume in one piece and returns where it begins, in bytes from the beginning of the physical volume.
    ///
    /// # Errors
    /// There is no room, or LVM refuses for another reason.
    pub(super) fn volume(&self, name: &str, bytes: u64) -> Result<u64> {
        let extents = bytes.div_ceil(EXTENT).to_string();
        let not_active = ["--activate", "n", "--zero", "n", "--wipesignatures", "n", "--contiguous", "y"];
        let what = ["--extents", &extents, "--name", name, self.name];
        self.run("lvcreate", &[not_active.as_slice(), &what].concat())?;
        let report = ["--noheadings", "--nosuffix", "--units", "b"];
        let start = self.run("pvs", &[report.as_slice(), &["-o", "pe_start", &self.device.0]].concat())?;
        let path = format!("{}/{name}", self.name);
        let ranges = self.run("lvs", &[report.as_slice(), &["--segments", "-o", "seg_pe_ranges", &path]].concat())?;
        place(&start, &ranges).with_context(|| format!("LVM says {start:?} and {ranges:?} of {path}"))
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("lvm");
        command
            .args([name, "--driverloaded", "n", "--config", &configuration(&self.device.0, self.folder)])
            .args(arguments)
            .env("LVM_SYSTEM_DIR", self.folder)
            .env("LVM_SUPPRESS_FD_WARNINGS", "1");
        Ok(String::from_utf8_lossy(&command::run(&mut command)?).into_owned())
    }
}

/// Where a volume begins of which LVM says `/dev/loop0:5-9`: after so many extents.
fn place(start: &str, ranges: &str) -> Option<u64> {
    let (_, extents) = ranges.trim().rsplit_once(':')?;
    let first: u64 = extents.split_once('-')?.0.parse().ok()?;
    Some(start.trim().parse::<u64>().ok()? + first * EXTENT)
}

/// LVM's configuration: without udev, daemon, device-mapper, or any device but this one.
fn configuration(device: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "devices{{use_devicesfile=0 scan_lvs=0 obtain_device_list_from_udev=0 filter=[\"a|^{device}$|\",\"r|.*|\"]}} \
         backup{{backup=0 archive=0}} global{{locking_dir=\"{folder}\"}} activation{{udev_sync=0 udev_rules=0}}"
    )
}

/// A loop device; freed in the end.
struct Loop(String);

impl Loop {
    fn attach(file: &Path, from: u64, length: u64) -> Result<Self> {
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show", "--offset", &from.to_string(), "--sizelimit", &length.to_string()]).arg(file);
        let name = command::run(&mut losetup).context("making a loop device for LVM's tools, which needs root")?;
        Ok(Self(String::from_utf8_lossy(&name).trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // At worst a loop device stays.
        let _ = command::run(Command::new("losetup").args(["--detach", &self.0]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_extents_is_a_place() {
        assert_eq!(place("  1048576\n", "  /dev/loop2:11-23\n"), Some((1 << 20) + 11 * EXTENT));
        assert_eq!(place("1048576", "/dev/loop2"), None);
    }
}
