//! All scenarios. A new case is a few lines here.

mod damaged;
mod flags;
mod media;
mod ram;

use crate::scenario::{Begin, Booted, Content, DriveSpec, Entry, Expect, FirmwareKind, Image, Plugged, Scenario};
use sino_image::qemu::Bus;
use std::time::Duration;

/// For a kernel that QEMU loads: seconds that a boot of the tiny root may take at worst.
const DIRECT_BUDGET: Duration = Duration::from_secs(120);
/// Through the boot loader and Xen under BIOS.
const BIOS_BUDGET: Duration = Duration::from_secs(240);
/// Through the boot loader and Xen under UEFI.
const UEFI_BUDGET: Duration = Duration::from_secs(300);
/// Debian until an administrator has done what the scenario asks. On the slowest machine so far that took 831 s beside other work.
const REAL_BUDGET: Duration = Duration::from_secs(1200);

/// Memory in MiB: for the tiny root without Xen, under Xen, and for the real image.
const DIRECT_MEMORY: u32 = 768;
/// Too little for a copy of the large root image to RAM, enough for everything else.
const TIGHT_MEMORY: u32 = 288;
const XEN_MEMORY: u32 = 2560;
const REAL_MEMORY: u32 = 4096;

/// Every scenario.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    // The longest first, so that both machines are busy until the end.
    let mut all = real();
    all.extend(menu());
    all.extend(media::media());
    all.extend(ram::on_ram());
    all.extend(ram::lost());
    all.extend(damaged::damaged());
    all.extend(flags::flags());
    all.extend(flags::faults());
    all
}

fn drive(name: &'static str, bus: Bus, content: Content) -> DriveSpec {
    DriveSpec { name, bus, content, plugged: Plugged::FromTheBeginning, trouble: None }
}

fn booted(warnings: &'static [&'static str]) -> Expect {
    Expect::Booted(Booted { medium: "medium", warnings, in_ram: None })
}

/// Every firmware x medium x menu entry, under Xen; the submenu's entries from the stick alone.
fn menu() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for (firmware, firmware_name, budget) in
        [(FirmwareKind::Bios, "bios", BIOS_BUDGET), (FirmwareKind::Uefi, "uefi", UEFI_BUDGET)]
    {
        for (bus, bus_name) in [(Bus::UsbStick, "stick"), (Bus::Cdrom, "cd")] {
            let more = if bus == Bus::UsbStick { &Entry::MORE[..] } else { &[] };
            for &entry in Entry::FIRST.iter().chain(more) {
                let entry_name = entry.title().to_lowercase().replace(' ', "-");
                scenarios.push(Scenario {
                    name: format!("menu-{firmware_name}-{bus_name}-{entry_name}"),
                    long: is_left_out(firmware, bus, entry),
                    firmware,
                    image: Image::Tiny,
                    begin: Begin::Menu(entry),
                    memory_mib: XEN_MEMORY,
                    drives: vec![drive("medium", bus, Content::Iso(Image::Tiny))],
                    network: false,
                    during: &[],
                    afterwards: &[],
                    ventoy: false,
                    initramfs_fault: None,
                    expect: booted(&[]),
                    budget,
                });
            }
        }
    }
    scenarios
}

/// Whether it is in the long set: each takes a minute, most of it the firmware's. UEFI's menu is the same on a stick and on a
/// disc, and BIOS has the same entries.
fn is_left_out(firmware: FirmwareKind, bus: Bus, entry: Entry) -> bool {
    let advanced = matches!(entry, Entry::Advanced | Entry::AdvancedRam);
    firmware == FirmwareKind::Uefi && (advanced || bus == Bus::Cdrom && entry == Entry::Normal)
}

/// A boot of the tiny root without loader and Xen.
fn direct(name: &str, flags: &'static str, drives: Vec<DriveSpec>, expect: Expect) -> Scenario {
    Scenario {
        name: name.to_owned(),
        long: false,
        firmware: FirmwareKind::Bios,
        image: Image::Tiny,
        begin: Begin::Direct(flags),
        memory_mib: DIRECT_MEMORY,
        drives,
        network: false,
        during: &[],
        afterwards: &[],
        ventoy: false,
        initramfs_fault: None,
        expect,
        budget: DIRECT_BUDGET,
    }
}

/// The boot goes on from the medium although a copy was asked for, or before it is complete.
fn from_medium(warnings: &'static [&'static str]) -> Expect {
    Expect::Booted(Booted { medium: "medium", warnings, in_ram: Some(false) })
}

fn stick() -> DriveSpec {
    drive("medium", Bus::UsbStick, Content::Iso(Image::Tiny))
}

/// Boots that are compared with each other: a large root image from the medium, the same without verification, and in RAM.
#[must_use]
pub fn compared() -> [Scenario; 3] {
    let one = |name, flags, warnings: &'static [&'static str]| {
        let drives = vec![drive("medium", Bus::Virtio, Content::Iso(Image::Large))];
        Scenario { image: Image::Large, ..direct(name, flags, drives, booted(warnings)) }
    };
    [
        one("compared-from-medium", "", &[]),
        one("compared-unverified", "sino.verify=off", &["sino.verify=off"]),
        one("compared-on-ram", "sino.ram", &[]),
    ]
}

/// The product.
fn real() -> Vec<Scenario> {
    let scenario = |name: &str, firmware, bus, entry, long| Scenario {
        name: name.to_owned(),
        long,
        firmware,
        image: Image::Real,
        begin: Begin::Menu(entry),
        memory_mib: REAL_MEMORY,
        drives: vec![drive("medium", bus, Content::Iso(Image::Real))],
        network: true,
        during: &[],
        afterwards: &[],
        ventoy: false,
        initramfs_fault: None,
        expect: Expect::Multiuser,
        budget: REAL_BUDGET,
    };
    vec![
        scenario("real-bios-stick-on-ram", FirmwareKind::Bios, Bus::UsbStick, Entry::Ram, false),
        scenario("real-bios-stick", FirmwareKind::Bios, Bus::UsbStick, Entry::Normal, false),
        scenario("real-uefi-stick", FirmwareKind::Uefi, Bus::UsbStick, Entry::Normal, true),
        scenario("real-bios-cd-on-ram", FirmwareKind::Bios, Bus::Cdrom, Entry::Ram, true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_make_good_folders() {
        let all = scenarios();
        let names: BTreeSet<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert!(
            names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
        );
    }

    #[test]
    fn every_firmware_medium_and_entry_is_booted() {
        assert_eq!(menu().len(), 2 * 2 * 4 + 2);
    }

    #[test]
    fn what_is_expected_of_a_drive_is_a_drive_of_the_machine() {
        for scenario in scenarios() {
            if let Expect::Booted(booted)
            | Expect::Recovered(_, booted)
            | Expect::RecoversByItself(_, booted)
            | Expect::Breaks(_, booted) = scenario.expect
            {
                assert!(scenario.drives.iter().any(|drive| drive.name == booted.medium), "{}", scenario.name);
            }
        }
    }

    #[test]
    fn only_a_direct_boot_can_have_a_broken_initramfs() {
        for scenario in scenarios().iter().filter(|scenario| scenario.initramfs_fault.is_some()) {
            assert!(matches!(scenario.begin, Begin::Direct(_)), "{}", scenario.name);
        }
    }
}
