//! The ISO on the ext4 of a logical volume.
//!
//! LVM's own tools make the metadata, on a loop device and without device-mapper: nothing is activated. Where they say
//! that the volume lies, the file system is then written into the drive's file. The volume is in two pieces, with the
//! extent of another one between them.

use super::{ISO_PATH, empty_drive, length, output, run, staged};
use anyhow::{Context, Result, ensure};
use sino_image::qemu::process::require;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;

/// LVM's unit of space, in bytes: its default.
const EXTENT: u64 = 4 << 20;
/// What LVM writes before the first extent, and what it cannot use behind the last, at most.
const AROUND: u64 = 8 << 20;
/// The volume between the two pieces of the other one.
const HOLE: &str = "hole";

/// Makes a drive that is the physical volume of the group `group`, in which the logical volume `volume` has an ext4
/// with the ISO as the file [`ISO_PATH`].
///
/// # Errors
/// A tool is missing or fails, in its own words; the user is not root.
pub fn iso_on_volume(iso: &Path, drive: &Path, group: &str, volume: &str) -> Result<()> {
    require("lvm", "lvm2")?;
    require("losetup", "mount")?;
    require("mkfs.ext4", "e2fsprogs")?;
    let temporary = tempfile::tempdir().context("making a temporary folder")?;
    let content = temporary.path().join("ext4");
    empty_drive(&content, length(iso)?)?;
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(staged(iso)?.path()).arg(&content))
        .with_context(|| format!("making a file system with {ISO_PATH}"))?;
    let extents = length(&content)?.div_ceil(EXTENT);
    File::create(drive)?
        .set_len((extents + 1) * EXTENT + AROUND)
        .with_context(|| format!("making {}", drive.display()))?;
    let places = {
        let device = Loop::attach(drive)?;
        let lvm = Lvm { device: &device.0, folder: temporary.path() };
        lvm.make(group, volume, extents)?;
        lvm.places(group, volume)?
    };
    ensure!(places.len() > 1, "LVM put the volume in one piece");
    ensure!(
        places.iter().map(|place| place.1).sum::<u64>() == extents * EXTENT,
        "LVM says {places:?} of {extents} extents"
    );
    let mut content = File::open(&content)?;
    let mut to = OpenOptions::new().write(true).open(drive)?;
    for (start, length) in places {
        to.seek(SeekFrom::Start(start))?;
        io::copy(&mut content.by_ref().take(length), &mut to)
            .with_context(|| format!("writing {}", drive.display()))?;
    }
    Ok(())
}

/// Where the pieces of a volume lie on a drive's file, with their lengths, in bytes. The whole drive is the group's physical
/// volume, or its first partition is.
///
/// # Errors
/// There is no such volume, a tool is missing or fails, in its own words; the user is not root.
pub fn volume_places(drive: &Path, group: &str, volume: &str) -> Result<Vec<(u64, u64)>> {
    require("lvm", "lvm2")?;
    require("losetup", "mount")?;
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let offset = first_partition(drive)?;
    let device = Loop::attach_from(drive, offset)?;
    let places = Lvm { device: &device.0, folder: folder.path() }.places(group, volume)?;
    Ok(places.into_iter().map(|(start, length)| (start + offset, length)).collect())
}

/// Where the first partition begins, in bytes; 0 if the drive has none.
fn first_partition(drive: &Path) -> Result<u64> {
    /// What sfdisk counts in, in bytes.
    const SECTOR: u64 = 512;
    require("sfdisk", "fdisk")?;
    let output = Command::new("sfdisk").arg("--json").arg(drive).output().context("running sfdisk")?;
    // It fails when there is no partition table.
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let start = table.pointer("/partitiontable/partitions/0/start").and_then(serde_json::Value::as_u64);
    Ok(start.unwrap_or_default() * SECTOR)
}

/// A loop device; freed in the end.
struct Loop(String);

impl Loop {
    fn attach(file: &Path) -> Result<Self> {
        Self::attach_from(file, 0)
    }

    /// The file from this byte on.
    fn attach_from(file: &Path, offset: u64) -> Result<Self> {
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show", "--offset", &offset.to_string()]).arg(file);
        let name =
            output(&mut losetup).context("making a loop device for LVM's tools needs root: run the tests as root")?;
        Ok(Self(name.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // At worst a loop device stays.
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// LVM's tools, which see this device only and leave nothing elsewhere.
struct Lvm<'a> {
    device: &'a str,
    folder: &'a Path,
}

impl Lvm<'_> {
    fn command(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("lvm");
        command
            .args([name, "--driverloaded", "n", "--config", &configuration(self.device, self.folder)])
            .args(arguments);
        output(command.env("LVM_SYSTEM_DIR", self.folder).env("LVM_SUPPRESS_FD_WARNINGS", "1"))
    }

    /// The group, with the volume in two pieces.
    fn make(&self, group: &str, volume: &str, extents: u64) -> Result<()> {
        let (first, all) = ((extents / 2).to_string(), extents.to_string());
        let not_active = ["--activate", "n", "--zero", "n", "--wipesignatures", "n"];
        let make = |name: &str, extents: &str| {
            self.command("lvcreate", &[not_active.as_slice(), &["--extents", extents, "--name", name, group]].concat())
        };
        self.command("pvcreate", &["-ff", "--yes", self.device])?;
        self.command("vgcreate", &[group, self.device])?;
        make(volume, &first)?;
        make(HOLE, "1")?;
        self.command("lvextend", &["--extents", &all, &format!("{group}/{volume}")])?;
        Ok(())
    }

    /// Where the pieces of the volume lie on the device, with their lengths, in bytes.
    fn places(&self, group: &str, volume: &str) -> Result<Vec<(u64, u64)>> {
        let report = ["--noheadings", "--nosuffix", "--units", "b"];
        let start = self.command("pvs", &[report.as_slice(), &["-o", "pe_start", self.device]].concat())?;
        let start: u64 = start.trim().parse().with_context(|| format!("reading {start:?}"))?;
        let volume = format!("{group}/{volume}");
        let columns = ["--segments", "-O", "seg_start_pe", "-o", "seg_pe_ranges", &volume];
        let ranges = self.command("lvs", &[report.as_slice(), &columns].concat())?;
        ranges.lines().map(|line| place(line, start).with_context(|| format!("reading {line:?}"))).collect()
    }
}

/// Reads `  /dev/loop0:0-9`: extents of a device. Returns where they begin, and their length, in bytes.
fn place(line: &str, start: u64) -> Result<(u64, u64)> {
    let (_, extents) = line.trim().rsplit_once(':').context("no colon")?;
    let (first, last) = extents.split_once('-').context("no hyphen")?;
    let (first, last): (u64, u64) = (first.parse()?, last.parse()?);
    Ok((start + first * EXTENT, (last + 1).saturating_sub(first) * EXTENT))
}

/// LVM's configuration. Without udev, without a daemon, without a file in `/etc` or `/run`.
fn configuration(device: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "devices{{use_devicesfile=0 scan_lvs=0 obtain_device_list_from_udev=0 filter=[\"a|^{device}$|\",\"r|.*|\"]}} \
         backup{{backup=0 archive=0}} global{{locking_dir=\"{folder}\"}} activation{{udev_sync=0 udev_rules=0}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_extents_is_a_place_and_a_length() {
        assert_eq!(place("  /dev/loop2:11-23\n", 1 << 20).unwrap(), ((1 << 20) + 11 * EXTENT, 13 * EXTENT));
        assert!(place("  /dev/loop2:11", 0).is_err());
    }

    #[test]
    fn lvm_sees_only_the_device() {
        let text = configuration("/dev/loop2", Path::new("/t"));
        assert!(
            text.contains("filter=[\"a|^/dev/loop2$|\",\"r|.*|\"]") && text.contains("locking_dir=\"/t\""),
            "{text}"
        );
    }
}
