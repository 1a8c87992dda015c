//! The drives of a [`Machine`] for QEMU: on the command line, and for the monitor when one is plugged in or out.
//!
//! To QEMU a drive is two things: an image (`-drive`), which throws away what the guest writes and counts it, and a
//! device in front of it. QEMU removes most images together with their device; plugging such a drive in again needs
//! both. Read errors are a node of their own (`-blockdev`) below the image: that stays when the image goes, and keeps
//! the image's text short enough for the monitor, which takes 1023 bytes. Pure functions.

use super::machine::{Bus, Drive, DriveFault, Machine, Start};
use serde_json::json;

/// A drive's device is named like the drive with this behind it.
pub const DEVICE_SUFFIX: &str = "-device";
/// The node with a drive's read errors is named like the drive with this behind it.
const ERRORS_SUFFIX: &str = "-errors";
/// The name of the card reader whose slots are the drives on [`Bus::UsbReader`].
const READER: &str = "usb-reader";
/// How many bad sectors the command line names at most: an argument must be shorter than 128 KiB.
const MAX_BAD_SECTORS: u64 = 1000;

/// An option of QEMU's command line and its value.
pub type Argument = (&'static str, String);

/// What has to be done at the monitor to plug a drive in, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `drive_add` with this value.
    Image(String),
    /// `device_add` with this value.
    Device(String),
    /// The USB device of this name is connected; until then the guest does not see it.
    Connect(String),
}

/// What is plugged in and out as one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit<'a> {
    /// The device that goes, with all that hangs on it.
    pub device: String,
    /// The drives that go with it.
    pub drives: Vec<&'a Drive>,
}

/// The arguments for all drives of the machine and what they hang on.
#[must_use]
pub fn arguments(machine: &Machine) -> Vec<Argument> {
    let mut arguments: Vec<Argument> = controllers(machine).into_iter().map(|value| ("-device", value)).collect();
    for (place, drive) in placed(machine) {
        arguments.extend(read_errors(drive).map(|value| ("-blockdev", value)));
        arguments.push(("-drive", image(drive)));
        if !comes_later(machine, drive) {
            // QEMU takes the kernel that it loads itself for the first in the boot order.
            let boot_index = drive.boot_index.filter(|_| machine.start == Start::FromDrives);
            arguments.extend(devices(drive, boot_index, place).into_iter().map(|value| ("-device", value)));
        }
    }
    arguments
}

/// What a drive is plugged in and out with; `None`: the machine has no such drive.
#[must_use]
pub fn unit<'a>(machine: &'a Machine, name: &str) -> Option<Unit<'a>> {
    let (place, drive) = placed(machine).find(|(_, drive)| drive.name == name)?;
    let device = match drive.bus {
        Bus::UsbReader => READER.to_owned(),
        Bus::UsbUas => enclosure(place),
        Bus::SdCard => card_reader(place),
        _ => format!("{name}{DEVICE_SUFFIX}"),
    };
    let drives = match drive.bus {
        Bus::UsbReader => machine.drives.iter().filter(|drive| drive.bus == Bus::UsbReader).collect(),
        _ => vec![drive],
    };
    Some(Unit { device, drives })
}

/// How a drive is plugged in, with what belongs to it; `images`: whether its images have gone, because it was plugged
/// in before. Empty: the machine has no such drive.
#[must_use]
pub fn plugging(machine: &Machine, name: &str, images: bool) -> Vec<Step> {
    let Some(unit) = unit(machine, name) else { return Vec::new() };
    let mut steps = Vec::new();
    if images {
        steps.extend(unit.drives.iter().map(|drive| Step::Image(image(drive))));
    }
    for (place, drive) in placed(machine).filter(|(_, drive)| unit.drives.contains(drive)) {
        steps.extend(devices(drive, None, place).into_iter().map(Step::Device));
    }
    if unit.drives.iter().any(|drive| matches!(drive.bus, Bus::UsbReader | Bus::UsbUas)) {
        // At the start of the machine it connects itself, later only when it is told that all its disks are there.
        steps.push(Step::Connect(unit.device));
    }
    steps
}

/// Whether a drive is not there when the machine is switched on.
#[must_use]
pub fn comes_later(machine: &Machine, drive: &Drive) -> bool {
    let unit = unit(machine, &drive.name);
    unit.is_some_and(|unit| unit.drives.iter().any(|drive| drive.plugged_later))
}

/// How many bytes a second the guest can read at most from the beginning.
#[must_use]
pub fn bytes_per_second(drive: &Drive) -> Option<u64> {
    drive.faults.iter().find_map(|fault| match fault {
        DriveFault::BytesPerSecond(limit) => Some(*limit),
        DriveFault::ReadError { .. } => None,
    })
}

/// The drives, each with the number of drives before it on the same bus.
fn placed(machine: &Machine) -> impl Iterator<Item = (usize, &Drive)> {
    let drives = &machine.drives;
    let place =
        |(index, drive): (usize, &Drive)| drives.iter().take(index).filter(|other| other.bus == drive.bus).count();
    drives.iter().enumerate().map(move |(index, drive)| (place((index, drive)), drive))
}

fn controllers(machine: &Machine) -> Vec<String> {
    let any = |buses: &[Bus]| machine.drives.iter().any(|drive| buses.contains(&drive.bus));
    let controllers: [(&[Bus], &str); 4] = [
        (&[Bus::UsbStick, Bus::UsbStickBehindHub, Bus::UsbUas, Bus::UsbReader], "qemu-xhci,id=xhci,p2=8,p3=8"),
        (&[Bus::UsbStickBehindHub], "usb-hub,id=hub,bus=xhci.0,port=8"),
        (&[Bus::Sata], "ich9-ahci,id=ahci"),
        (&[Bus::VirtioScsi], "virtio-scsi-pci,id=scsi"),
    ];
    controllers.into_iter().filter(|(buses, _)| any(buses)).map(|(_, value)| value.to_owned()).collect()
}

/// The value of `-blockdev` for the node below the image that fails where the drive is bad.
fn read_errors(drive: &Drive) -> Option<String> {
    let rules: Vec<_> = bad_sectors(drive)
        .into_iter()
        // "none" is what happens once, when the node is made: the rule holds from the beginning. It fits every request
        // that has the sector in it. Source: QEMU's block/blkdebug.c, rule_check.
        .map(|sector| json!({"event": "none", "iotype": "read", "sector": sector}))
        .collect();
    let file = drive.file.as_ref().filter(|_| !rules.is_empty())?;
    let node = json!({
        "driver": "blkdebug",
        "node-name": format!("{}{ERRORS_SUFFIX}", drive.name),
        "read-only": !drive.keep_writes,
        "image": {"driver": "file", "filename": file},
        "inject-error": rules,
    });
    Some(node.to_string())
}

fn bad_sectors(drive: &Drive) -> Vec<u64> {
    let mut bad = Vec::new();
    for fault in &drive.faults {
        if let DriveFault::ReadError { sector_from, sectors } = *fault {
            let step = usize::try_from(sectors.div_ceil(MAX_BAD_SECTORS)).unwrap_or(usize::MAX);
            bad.extend((sector_from..sector_from.saturating_add(sectors)).step_by(step.max(1)));
        }
    }
    bad
}

/// The value of `-drive`.
fn image(drive: &Drive) -> String {
    let mut parts = vec!["if=none".to_owned()];
    match &drive.file {
        Some(_) if !bad_sectors(drive).is_empty() => {
            let file = json!({"driver": "raw", "file": format!("{}{ERRORS_SUFFIX}", drive.name)});
            parts.extend([format!("id={}", drive.name), format!("file=json:{file}")]);
        }
        Some(file) => {
            parts.extend(["format=raw".to_owned(), format!("id={}", drive.name), format!("file={}", file.display())]);
        }
        None => parts.push(format!("id={}", drive.name)),
    }
    match (drive.bus, drive.file.is_some(), drive.keep_writes) {
        (Bus::Cdrom, true, _) => parts.extend(["media=cdrom".to_owned(), "readonly=on".to_owned()]),
        (Bus::Cdrom, false, _) => parts.push("media=cdrom".to_owned()),
        (_, true, false) => parts.push("snapshot=on".to_owned()),
        (_, _, true) | (_, false, false) => {}
    }
    parts.extend(bytes_per_second(drive).map(|limit| format!("throttling.bps-read={limit}")));
    // A comma inside a part is doubled, as QEMU wants it.
    parts.iter().map(|part| part.replace(',', ",,")).collect::<Vec<_>>().join(",")
}

fn enclosure(place: usize) -> String {
    format!("uas{place}")
}

fn card_reader(place: usize) -> String {
    format!("reader{place}")
}

/// The values of `-device` for a drive, with the devices between it and its bus in front; `place` counts the drives
/// before it on the same bus.
fn devices(drive: &Drive, boot_index: Option<u32>, place: usize) -> Vec<String> {
    let port = place + 1;
    let mut devices = Vec::new();
    let on = match drive.bus {
        Bus::UsbStick => "usb-storage,bus=xhci.0,removable=on".to_owned(),
        Bus::UsbStickBehindHub => format!("usb-storage,bus=xhci.0,removable=on,port=8.{port}"),
        Bus::UsbUas => {
            devices.push(format!("usb-uas,bus=xhci.0,id={}", enclosure(place)));
            format!("scsi-hd,bus={}.0", enclosure(place))
        }
        Bus::UsbReader => {
            if place == 0 {
                devices.push(format!("usb-bot,bus=xhci.0,id={READER}"));
            }
            format!("scsi-hd,bus={READER}.0,scsi-id=0,lun={place},removable=on")
        }
        Bus::Cdrom => format!("ide-cd,bus=ide.{}", 1 - place.min(1)),
        Bus::Ide => format!("ide-hd,bus=ide.{},unit={}", place / 2, place % 2),
        Bus::Sata => format!("ide-hd,bus=ahci.{place}"),
        Bus::Nvme => "nvme".to_owned(),
        Bus::Virtio => "virtio-blk-pci".to_owned(),
        Bus::VirtioScsi => "scsi-hd,bus=scsi.0".to_owned(),
        Bus::SdCard => {
            devices.push(format!("sdhci-pci,id={}", card_reader(place)));
            "sd-card".to_owned()
        }
    };
    let name = &drive.name;
    let mut device = format!("{on},id={name}{DEVICE_SUFFIX},drive={name}");
    if drive.bus != Bus::SdCard {
        // An SD card has neither a serial number nor a place in the boot order.
        device.extend([",serial=", name]);
        device.extend(boot_index.map(|index| format!(",bootindex={index}")));
    }
    devices.push(device);
    devices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::arguments::tests::machine;

    fn with(drives: Vec<Drive>) -> Machine {
        Machine { drives, ..machine() }
    }

    fn text(drives: Vec<Drive>) -> String {
        let arguments = arguments(&with(drives));
        arguments.iter().map(|(option, value)| format!("{option} {value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_bus_has_its_controller_once_and_its_drive() {
        let cases = [
            (Bus::UsbStick, "usb-storage,bus=xhci.0,removable=on,id=m-device,drive=m,serial=m,bootindex=0"),
            (
                Bus::UsbStickBehindHub,
                "usb-storage,bus=xhci.0,removable=on,port=8.1,id=m-device,drive=m,serial=m,bootindex=0",
            ),
            (
                Bus::UsbUas,
                "usb-uas,bus=xhci.0,id=uas0 -device scsi-hd,bus=uas0.0,id=m-device,drive=m,serial=m,bootindex=0",
            ),
            (
                Bus::UsbReader,
                "usb-bot,bus=xhci.0,id=usb-reader -device scsi-hd,bus=usb-reader.0,scsi-id=0,lun=0,removable=on,\
                 id=m-device,drive=m,serial=m,bootindex=0",
            ),
            (Bus::Cdrom, "ide-cd,bus=ide.1,id=m-device,drive=m,serial=m,bootindex=0"),
            (Bus::Ide, "ide-hd,bus=ide.0,unit=0,id=m-device,drive=m,serial=m,bootindex=0"),
            (Bus::Sata, "ich9-ahci,id=ahci -drive"),
            (Bus::Nvme, "-device nvme,id=m-device,drive=m,serial=m,bootindex=0"),
            (Bus::Virtio, "-device virtio-blk-pci,id=m-device,drive=m,serial=m,bootindex=0"),
            (Bus::VirtioScsi, "-device scsi-hd,bus=scsi.0,id=m-device,drive=m,serial=m,bootindex=0"),
            (Bus::SdCard, "-device sdhci-pci,id=reader0 -device sd-card,id=m-device,drive=m -"),
        ];
        for (bus, wanted) in cases {
            let text = text(vec![Drive::new("m", bus, "/x.iso").boot(0), Drive::new("n", Bus::UsbStick, "/y")]);
            assert!(text.contains(wanted), "{bus:?}: {text}");
            assert_eq!(text.matches("qemu-xhci").count(), 1, "{bus:?}: {text}");
        }
    }

    #[test]
    fn a_drive_that_comes_later_has_its_image_and_controller_but_no_device() {
        let later = Drive { plugged_later: true, ..Drive::new("b", Bus::UsbUas, "/b") };
        let machine = with(vec![Drive::new("a", Bus::UsbUas, "/a"), later]);
        let text = text(machine.drives.clone());
        assert!(text.contains("id=b,file=/b") && !text.contains("b-device"), "{text}");
        let device = |text: &str| Step::Device(text.to_owned());
        let devices = [
            device("usb-uas,bus=xhci.0,id=uas1"),
            device("scsi-hd,bus=uas1.0,id=b-device,drive=b,serial=b"),
            Step::Connect("uas1".into()),
        ];
        assert_eq!(plugging(&machine, "b", false), devices);
        let again = [[Step::Image("if=none,format=raw,id=b,file=/b,snapshot=on".into())].as_slice(), &devices].concat();
        assert_eq!(plugging(&machine, "b", true), again);
        assert!(plugging(&machine, "c", false).is_empty());
    }

    #[test]
    fn the_slots_of_a_reader_are_one_device_with_a_lun_each_and_come_and_go_together() {
        let slots = vec![
            Drive::empty("slot", Bus::UsbReader),
            Drive::new("x", Bus::Virtio, "/x"),
            Drive::new("m", Bus::UsbReader, "/m"),
        ];
        let here = text(slots.clone());
        assert_eq!(here.matches("usb-bot").count(), 1, "{here}");
        assert!(here.contains("-drive if=none,id=slot -device usb-bot"), "{here}");
        assert!(here.contains("lun=1,removable=on,id=m-device,drive=m,serial=m"), "{here}");
        let mut later = slots;
        later[2].plugged_later = true;
        assert!(!text(later.clone()).contains("usb-bot"));
        let machine = with(later);
        let unit = unit(&machine, "m").unwrap();
        assert_eq!(unit.device, "usb-reader");
        assert_eq!(unit.drives.iter().map(|drive| drive.name.as_str()).collect::<Vec<_>>(), ["slot", "m"]);
        let steps = plugging(&machine, "slot", false);
        assert_eq!(steps.len(), 4);
        assert_eq!(steps.last(), Some(&Step::Connect("usb-reader".into())));
    }

    #[test]
    fn what_a_guest_writes_never_reaches_a_medium() {
        let text = text(vec![Drive::new("a", Bus::UsbStick, "/a"), Drive::new("b", Bus::Cdrom, "/b")]);
        assert!(text.contains("if=none,format=raw,id=a,file=/a,snapshot=on"), "{text}");
        assert!(text.contains("if=none,format=raw,id=b,file=/b,media=cdrom,readonly=on"), "{text}");
    }

    #[test]
    fn a_slow_drive_is_so_from_the_beginning() {
        let slow = Drive { faults: vec![DriveFault::BytesPerSecond(9000)], ..Drive::new("a", Bus::Virtio, "/a") };
        assert!(text(vec![slow]).contains("id=a,file=/a,snapshot=on,throttling.bps-read=9000"));
    }

    #[test]
    fn read_errors_are_a_node_below_the_image() {
        let faults = vec![DriveFault::ReadError { sector_from: 7, sectors: 2 }];
        let text = text(vec![Drive { faults, ..Drive::new("a", Bus::Virtio, "/odd,name") }]);
        assert!(
            text.contains(
                "-blockdev {\"driver\":\"blkdebug\",\"image\":{\"driver\":\"file\",\"filename\":\"/odd,name\"},\
                 \"inject-error\":[{\"event\":\"none\",\"iotype\":\"read\",\"sector\":7},\
                 {\"event\":\"none\",\"iotype\":\"read\",\"sector\":8}],\"node-name\":\"a-errors\",\"read-only\":true} \
                 -drive if=none,id=a,file=json:{\"driver\":\"raw\",,\"file\":\"a-errors\"},snapshot=on"
            ),
            "{text}"
        );
    }

    #[test]
    fn many_bad_sectors_still_fit_into_an_argument() {
        let faults = vec![DriveFault::ReadError { sector_from: u64::from(u32::MAX), sectors: 5000 }];
        let drive = Drive { faults, ..Drive::new("a", Bus::Virtio, "/a") };
        let bad = bad_sectors(&drive);
        assert_eq!((bad.len(), bad[1] - bad[0]), (1000, 5));
        assert!(read_errors(&drive).unwrap().len() < 128 << 10);
    }

    #[test]
    fn a_comma_in_a_path_does_not_end_it() {
        assert!(text(vec![Drive::new("a", Bus::Virtio, "/odd,name")]).contains("file=/odd,,name,snapshot=on"));
    }
}
