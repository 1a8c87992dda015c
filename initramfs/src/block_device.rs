//! What a block device is: where it hangs, how large it is, and what its first sectors say.
//!
//! Reads /sys and at most some hundred KiB of the device; writes nothing to it, mounts nothing.

use crate::superblock::{self, Superblock};
use crate::{ioctl, partition_table};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use sino_boot::identity::{self, Volume};
use sino_boot::layout;
use std::fmt::{self, Write as _};
use std::fs;

/// What was found out about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// Kernel name, for example `sdb1`.
    pub name: String,
    /// Kernel name of the disk that it is a partition of; its own name otherwise.
    pub disk: String,
    /// Bus, place and model for people, for example `usb 1-2 "SanDisk Ultra"`.
    pub place: String,
    /// Sorts devices by where they hang: the same on every boot, whichever is found first.
    pub order: String,
    /// Length in bytes.
    pub size: u64,
    /// Whether it can be pulled out: USB, cards, discs, and what says so of itself.
    pub removable: bool,
    /// What it holds.
    pub content: Content,
    /// The superblock that was recognised, with label and UUID.
    pub superblock: Option<Superblock>,
}

/// What a device's first sectors say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An ISO 9660 volume.
    Volume(Volume),
    /// Something else that is known by its superblock.
    Other(&'static str),
    /// Nothing that is known.
    Unknown,
    /// There is no medium in the drive.
    NoMedium,
    /// It could not be read.
    Unreadable(String),
}

impl fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.content == Content::NoMedium {
            // The drive's last known size would only mislead.
            return write!(f, "{} ({}): no medium in it", self.name, self.place);
        }
        write!(f, "{} ({}, {} MiB): ", self.name, self.place, self.size >> 20)?;
        match &self.content {
            Content::Volume(volume) if volume.is_sino() => {
                return write!(f, "SINO {}, build {}", volume.version(), volume.set_id);
            }
            Content::Volume(_) => f.write_str("iso9660")?,
            Content::Other(what) => f.write_str(what)?,
            Content::Unknown => f.write_str("nothing that is known")?,
            Content::NoMedium => {}
            Content::Unreadable(why) => write!(f, "cannot be read: {why}")?,
        }
        match &self.superblock {
            Some(superblock) if !superblock.label.is_empty() => write!(f, " {:?}", superblock.label),
            _ => Ok(()),
        }
    }
}

impl BlockDevice {
    /// Whether the kernel still has it.
    #[must_use]
    pub fn is_present(&self) -> bool {
        is_present(&self.name)
    }

    /// The UUID of the partition that it is, if it is one.
    #[must_use]
    pub fn part_uuid(&self) -> Option<String> {
        let number = attribute(&format!("{}/partition", sys(&self.name)))?.parse().ok()?;
        let sector = attribute(&format!("{}/queue/logical_block_size", sys(&self.disk)))?.parse().ok()?;
        let disk = open(&self.disk).ok()?;
        partition_table::part_uuid(&read(&disk, 0, partition_table::HEAD).ok()?, sector, number)
    }
}

/// The length of a block device in bytes.
#[must_use]
pub fn size(name: &str) -> Option<u64> {
    Some(attribute(&format!("{}/size", sys(name)))?.parse::<u64>().ok()?.saturating_mul(512))
}

/// Whether the kernel has a block device of this name.
#[must_use]
pub fn is_present(name: &str) -> bool {
    fs::metadata(sys(name)).is_ok()
}

/// A device's folder in /sys; a '/' in a kernel name is a '!' there.
fn sys(name: &str) -> String {
    format!("/sys/class/block/{}", name.replace('/', "!"))
}

/// Whether a device of this kernel name can be a medium: not loop, RAM and RAID devices, and our own verified root image.
#[must_use]
pub fn may_be_medium(name: &str) -> bool {
    let numbered =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if numbered("dm-") {
        return mapped(name).as_deref() != Some(layout::VERITY_DEVICE);
    }
    !["loop", "ram", "zram", "md", "nbd", "fd"].into_iter().any(numbered)
}

/// The name that device-mapper gave it.
fn mapped(name: &str) -> Option<String> {
    attribute(&format!("{}/dm/name", sys(name)))
}

/// Looks at a device by its kernel name. `None` for what cannot be a medium and for what is gone again.
#[must_use]
pub fn look(name: &str) -> Option<BlockDevice> {
    if !may_be_medium(name) {
        return None;
    }
    let (sys, mapped) = (sys(name), mapped(name));
    let real = fs::canonicalize(&sys).ok()?.to_string_lossy().into_owned();
    let size = size(name)?;
    let is_partition = fs::metadata(format!("{real}/partition")).is_ok();
    let parent = real.rsplit('/').nth(1).unwrap_or_default();
    let disk = if is_partition { parent.replace('!', "/") } else { name.to_owned() };
    let place = mapped.map_or_else(|| place(&real), |mapped| format!("device-mapper {mapped}"));
    let says_removable = attribute(&format!("{}/removable", self::sys(&disk))).as_deref() == Some("1");
    if says_removable {
        // A drive without a medium must report the one that comes later: ask it every 2 s. Source: kernel
        // Documentation/ABI/stable/sysfs-block. A drive that refuses only costs the late medium.
        let _ = fs::write(format!("{}/events_poll_msecs", self::sys(&disk)), "2000");
    }
    let removable =
        says_removable || ["usb ", "mmc"].iter().any(|bus| place.starts_with(bus)) || name.starts_with("sr");
    let (content, superblock) = content(name);
    let order = order(&real);
    Some(BlockDevice { name: name.to_owned(), disk, place, order, size, removable, content, superblock })
}

/// A path with each number padded, so that ports and functions sort as numbers do.
fn order(real: &str) -> String {
    let mut text = String::new();
    let mut digits = String::new();
    for character in real.chars().chain(['/']) {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        if !digits.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{digits:0>6}");
            digits.clear();
        }
        text.push(character);
    }
    text
}

/// The kernel names of a disk's partitions, in their order; none for a partition.
#[must_use]
pub fn partitions(disk: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(sys(disk)) else { return Vec::new() };
    let number = |path: &std::path::Path| fs::read_to_string(path.join("partition")).ok()?.trim().parse::<u32>().ok();
    let mut found: Vec<(u32, String)> = entries
        .flatten()
        .filter_map(|entry| Some((number(&entry.path())?, entry.file_name().into_string().ok()?)))
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

/// Whether a USB storage device that hangs before `order` has no disk yet, so that it may still turn out to carry the same
/// build and to be the one that is always taken.
#[must_use]
pub fn is_one_pending_before(order: &str) -> bool {
    ["usb-storage", "uas"].iter().any(|driver| {
        let Ok(entries) = fs::read_dir(format!("/sys/bus/usb/drivers/{driver}")) else { return false };
        entries.flatten().filter_map(|entry| fs::canonicalize(entry.path()).ok()).any(|interface| {
            let real = interface.to_string_lossy().into_owned();
            interface.join("bInterfaceNumber").exists()
                && self::order(&real).as_str() < order
                && !order.starts_with(self::order(&real).trim_end_matches('/'))
                && !has_disk(&interface)
        })
    })
}

/// Whether some `block` folder lies below an interface's folder: `hostN/targetN:0:0/N:0:0:0/block`.
fn has_disk(interface: &std::path::Path) -> bool {
    let mut folders = vec![(interface.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if folder.join("block").is_dir() {
            return true;
        }
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten().filter(|_| depth < 3) {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("host") || name.starts_with("target") || name.contains(':') {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    false
}

/// What lies at [`Superblock::label_place`] of a device of this kind; `None` for another kind, and for what cannot be read.
#[must_use]
pub fn label_place(name: &str, kind: &str) -> Option<Vec<u8>> {
    let file = open(name).ok()?;
    let head = read(&file, 0, superblock::HEAD).ok()?;
    let (offset, length) = superblock::parse(&head).filter(|found| found.kind == kind)?.label_place(&head)?;
    read(&file, offset, length).ok()
}

fn open(name: &str) -> rustix::io::Result<OwnedFd> {
    // Non-blocking, so that a drive without a disc answers at once.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(format!("/dev/{name}"), flags, Mode::empty())
}

/// Reads up to `length` bytes; fewer at the device's end, or before a place that cannot be read.
fn read(file: &OwnedFd, offset: u64, length: usize) -> rustix::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        match rustix::io::pread(file, rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) if filled == 0 => return Err(error),
            Err(_) => break,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn content(name: &str) -> (Content, Option<Superblock>) {
    let file = match open(name) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOMEDIUM) => return (Content::NoMedium, None),
        Err(error) => return (Content::Unreadable(error.to_string()), None),
    };
    if name.starts_with("sr") && !disc_is_in(&file) {
        return (Content::NoMedium, None);
    }
    let head = match read(&file, 0, superblock::HEAD) {
        Ok(head) => head,
        Err(rustix::io::Errno::NOMEDIUM) => return (Content::NoMedium, None),
        Err(error) => return (Content::Unreadable(error.to_string()), None),
    };
    let mut found = superblock::parse(&head);
    if let Some(superblock) = found.as_mut()
        && let Some((offset, length)) = superblock.label_place(&head)
        && let Ok(bytes) = read(&file, offset, length)
    {
        superblock.read_label(&bytes);
    }
    let sector = usize::try_from(identity::SECTOR_OFFSET).ok().and_then(|offset| head.get(offset..));
    let volume = sector.and_then(|sector| identity::parse(sector.get(..identity::SECTOR_SIZE)?));
    let content = match (volume, &found) {
        (Some(volume), _) => Content::Volume(volume),
        (None, Some(superblock)) => Content::Other(superblock.kind),
        (None, None) => Content::Unknown,
    };
    (content, found)
}

/// Asks an optical drive whether it holds a disc. Reading without one only fills the log with errors. Source: kernel
/// `include/uapi/linux/cdrom.h`: `CDROM_DRIVE_STATUS` of the current slot; 4 is `CDS_DISC_OK`, 0 means that the drive
/// cannot tell.
fn disc_is_in(drive: &OwnedFd) -> bool {
    const CDROM_DRIVE_STATUS: rustix::ioctl::Opcode = 0x5326;
    const CDSL_CURRENT: usize = i32::MAX as usize;
    ioctl::with_number(drive, CDROM_DRIVE_STATUS, CDSL_CURRENT).is_ok_and(|status| matches!(status, 0 | 4))
}

/// Bus, place and model from a device's path in /sys.
fn place(real: &str) -> String {
    let parts: Vec<&str> = real.split('/').collect();
    let starting = |prefix: &str| {
        parts
            .iter()
            .rev()
            .find(|part| part.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())))
    };
    // A USB device is named by its ports ("1-2.3"), its interface follows (":1.0").
    let usb = parts.iter().rev().find(|part| {
        part.split_once('-').is_some_and(|(bus, ports)| {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            digits(bus) && digits(ports)
        })
    });
    let bus = match (usb, starting("nvme"), starting("mmc"), starting("ata"), starting("virtio")) {
        (Some(port), ..) => format!("usb {port}"),
        (_, Some(_), ..) => "nvme".to_owned(),
        (_, _, Some(_), ..) => "mmc".to_owned(),
        (_, _, _, Some(_), _) => "ata".to_owned(),
        (.., Some(_)) => "virtio".to_owned(),
        _ if starting("vbd-").is_some() => "xen".to_owned(),
        _ if starting("target").is_some() => "scsi".to_owned(),
        _ => "disk".to_owned(),
    };
    match model(real) {
        Some(model) => format!("{bus} {model:?}"),
        None => bus,
    }
}

/// The model that the disk, or the disk of this partition, gives itself.
fn model(real: &str) -> Option<String> {
    let parent = real.rsplit_once('/').map(|(parent, _)| parent)?;
    let disk = if fs::metadata(format!("{real}/partition")).is_ok() { parent } else { real };
    let words: Vec<String> =
        ["vendor", "model", "name"].iter().filter_map(|name| attribute(&format!("{disk}/device/{name}"))).collect();
    let text = words.iter().filter(|word| !word.starts_with("0x")).cloned().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

fn attribute(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (path, expected) in [
            (
                "/sys/devices/pci0000:00/0000:00:04.0/usb1/1-2/1-2.1/1-2.1:1.0/host2/target2:0:0/2:0:0:0/block/sdb/sdb1",
                "usb 1-2.1",
            ),
            ("/sys/devices/pci0000:00/0000:00:05.0/nvme/nvme0/nvme0n1", "nvme"),
            ("/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sr0", "ata"),
            ("/sys/devices/pci0000:00/0000:00:06.0/virtio1/block/vda", "virtio"),
            ("/sys/devices/pci0000:00/0000:00:07.0/mmc_host/mmc0/mmc0:0001/block/mmcblk0", "mmc"),
            ("/sys/devices/pci0000:00/0000:00:06.0/host1/target1:0:0/1:0:0:0/block/sda", "scsi"),
        ] {
            assert_eq!(place(path), expected, "{path}");
        }
    }

    #[test]
    fn ports_sort_as_numbers() {
        let order = |port: &str| order(&format!("/sys/devices/pci0000:00/usb1/1-{port}/1-{port}:1.0/host9/block/sda"));
        assert!(order("2") < order("10"));
        assert!(order("2.1") < order("10.1"));
        assert!(!order("10").starts_with(order("1").trim_end_matches('/')));
    }
}
