//! What a block device is: where it hangs, how large it is, and what its first sectors say.
//!
//! Reads /sys and at most 36 KiB of the device; writes nothing, mounts nothing.

use crate::ioctl;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use sino_boot::identity::{self, Volume};
use std::fmt;
use std::fs;

/// What was found out about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// Kernel name, for example `sdb1`.
    pub name: String,
    /// Bus, place and model for people, for example `usb 1-2 "SanDisk Ultra"`.
    pub place: String,
    /// Length in bytes.
    pub size: u64,
    /// What it holds.
    pub content: Content,
}

/// What a device's first sectors say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An ISO 9660 volume.
    Volume(Volume),
    /// Something else that is known by its signature.
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
            return write!(f, "{} ({}): no disc", self.name, self.place);
        }
        write!(f, "{} ({}, {} MiB): ", self.name, self.place, self.size >> 20)?;
        match &self.content {
            Content::Volume(volume) if volume.is_sino() => {
                write!(f, "SINO {}, build {}", volume.version(), volume.set_id)
            }
            Content::Volume(volume) => write!(f, "iso9660 {:?}", volume.volume_id),
            Content::Other(what) => f.write_str(what),
            Content::Unknown => f.write_str("nothing that is known"),
            Content::NoMedium => f.write_str("no disc"),
            Content::Unreadable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

/// Looks at a device by its kernel name. `None` for what cannot be a medium (loop, RAM and device-mapper devices) and
/// for what is gone again.
#[must_use]
pub fn look(name: &str) -> Option<BlockDevice> {
    let virtual_device = ["loop", "ram", "zram", "dm-", "md", "nbd", "fd"]
        .iter()
        .any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())));
    if virtual_device {
        return None;
    }
    // A '/' in a kernel name is a '!' in /sys.
    let sys = format!("/sys/class/block/{}", name.replace('/', "!"));
    let real = fs::canonicalize(&sys).ok()?;
    let size = attribute(&format!("{sys}/size"))?.parse::<u64>().ok()?.saturating_mul(512);
    if name.starts_with("sr") {
        // A drive without a disc must report the disc that comes later: ask it every 2 s. Source: kernel
        // Documentation/ABI/stable/sysfs-block. A drive that refuses only costs the late disc.
        let _ = fs::write(format!("{sys}/events_poll_msecs"), "2000");
    }
    let place = place(&real.to_string_lossy());
    Some(BlockDevice { name: name.to_owned(), place, size, content: content(name) })
}

/// The kernel names of a disk's partitions, in their order; none for a partition.
#[must_use]
pub fn partitions(disk: &str) -> Vec<String> {
    let folder = format!("/sys/class/block/{}", disk.replace('/', "!"));
    let Ok(entries) = fs::read_dir(&folder) else { return Vec::new() };
    let number = |path: &std::path::Path| fs::read_to_string(path.join("partition")).ok()?.trim().parse::<u32>().ok();
    let mut found: Vec<(u32, String)> = entries
        .flatten()
        .filter_map(|entry| Some((number(&entry.path())?, entry.file_name().into_string().ok()?)))
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

fn content(name: &str) -> Content {
    // Non-blocking, so that a drive without a disc answers at once.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(format!("/dev/{name}"), flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOMEDIUM) => return Content::NoMedium,
        Err(error) => return Content::Unreadable(error.to_string()),
    };
    if name.starts_with("sr") && !disc_is_in(&file) {
        return Content::NoMedium;
    }
    let mut sector = vec![0; identity::SECTOR_SIZE];
    match rustix::io::pread(&file, &mut sector, identity::SECTOR_OFFSET) {
        Ok(length) => {
            if let Some(volume) = sector.get(..length).and_then(identity::parse) {
                return Content::Volume(volume);
            }
        }
        Err(rustix::io::Errno::NOMEDIUM) => return Content::NoMedium,
        Err(error) => return Content::Unreadable(error.to_string()),
    }
    let mut head = vec![0; 4096];
    match rustix::io::pread(&file, &mut head, 0) {
        Ok(length) => signature(head.get(..length).unwrap_or_default()).map_or(Content::Unknown, Content::Other),
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

/// Asks an optical drive whether it holds a disc. Reading without one only fills the log with errors. Source: kernel
/// `include/uapi/linux/cdrom.h`: `CDROM_DRIVE_STATUS` of the current slot; 4 is `CDS_DISC_OK`, 0 means that the drive
/// cannot tell.
fn disc_is_in(drive: &OwnedFd) -> bool {
    const CDROM_DRIVE_STATUS: rustix::ioctl::Opcode = 0x5326;
    const CDSL_CURRENT: usize = i32::MAX as usize;
    ioctl::with_number(drive, CDROM_DRIVE_STATUS, CDSL_CURRENT).is_ok_and(|status| matches!(status, 0 | 4))
}

/// What the first 4 KiB of a device say. Sources: the on-disk formats' own magic numbers, as in magic(5).
#[must_use]
pub fn signature(head: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset.saturating_add(magic.len())) == Some(magic);
    let known: [(usize, &[u8], &str); 10] = [
        (512, b"LABELONE", "LVM2 member"),
        (1080, b"\x53\xef", "ext2/3/4"),
        (0, b"XFSB", "xfs"),
        (0, b"hsqs", "squashfs"),
        (0, b"LUKS\xba\xbe", "LUKS"),
        (3, b"NTFS    ", "ntfs"),
        (3, b"EXFAT   ", "exfat"),
        (82, b"FAT32   ", "vfat"),
        (54, b"FAT1", "vfat"),
        (512, b"EFI PART", "GPT partition table"),
    ];
    let found = known.iter().find(|(offset, magic, _)| at(*offset, magic)).map(|(_, _, name)| *name);
    found.or_else(|| at(510, b"\x55\xaa").then_some("MBR partition table"))
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
    use proptest::prelude::*;

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
    fn signatures() {
        let mut head = vec![0; 4096];
        assert_eq!(signature(&head), None);
        head[510..512].copy_from_slice(b"\x55\xaa");
        assert_eq!(signature(&head), Some("MBR partition table"));
        head[512..520].copy_from_slice(b"LABELONE");
        assert_eq!(signature(&head), Some("LVM2 member"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(head in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = signature(&head);
        }
    }
}
