//! All scenarios. A new case is a few lines here.

use crate::scenario::{
    Begin, Booted, Content, DriveSpec, Entry, Expect, Failed, FileSystem, FirmwareKind, Image, InitramfsFault, Plugged,
    Scenario,
};
use sino_image::qemu::Bus;
use std::time::Duration;

/// For a kernel that QEMU loads: seconds that a boot of the tiny root may take at worst.
const DIRECT_BUDGET: Duration = Duration::from_secs(120);
/// Through the boot loader and Xen under BIOS.
const BIOS_BUDGET: Duration = Duration::from_secs(240);
/// Through the boot loader and Xen under UEFI.
const UEFI_BUDGET: Duration = Duration::from_secs(300);
/// Debian until an administrator has done what the scenario asks.
const REAL_BUDGET: Duration = Duration::from_secs(900);

/// Memory in MiB: for the tiny root without Xen, under Xen, and for the real image.
const DIRECT_MEMORY: u32 = 768;
const XEN_MEMORY: u32 = 2560;
const REAL_MEMORY: u32 = 4096;

/// Every scenario.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    let mut all = menu();
    all.extend(media());
    all.extend(faults());
    all.extend(real());
    all
}

fn drive(name: &'static str, bus: Bus, content: Content) -> DriveSpec {
    DriveSpec { name, bus, content, plugged: Plugged::FromTheBeginning }
}

fn booted(warnings: &'static [&'static str]) -> Expect {
    Expect::Booted(Booted { medium: "medium", warnings })
}

/// Every firmware x medium x menu entry, under Xen.
fn menu() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for (firmware, firmware_name, budget) in
        [(FirmwareKind::Bios, "bios", BIOS_BUDGET), (FirmwareKind::Uefi, "uefi", UEFI_BUDGET)]
    {
        for (bus, bus_name) in [(Bus::UsbStick, "stick"), (Bus::Cdrom, "cd")] {
            for entry in Entry::ALL {
                let entry_name = entry.title().to_lowercase().replace(' ', "-");
                scenarios.push(Scenario {
                    name: format!("menu-{firmware_name}-{bus_name}-{entry_name}"),
                    long: false,
                    firmware,
                    image: Image::Tiny,
                    begin: Begin::Menu(entry),
                    memory_mib: XEN_MEMORY,
                    drives: vec![drive("medium", bus, Content::Iso(Image::Tiny))],
                    network: false,
                    initramfs_fault: None,
                    expect: booted(&[]),
                    budget,
                });
            }
        }
    }
    scenarios
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
        initramfs_fault: None,
        expect,
        budget: DIRECT_BUDGET,
    }
}

/// The medium on everything that a medium can be.
fn media() -> Vec<Scenario> {
    let tiny = Content::Iso(Image::Tiny);
    let mut scenarios: Vec<Scenario> = [
        ("medium-stick", Bus::UsbStick),
        ("medium-stick-behind-hub", Bus::UsbStickBehindHub),
        ("medium-uas", Bus::UsbUas),
        ("medium-cd", Bus::Cdrom),
        ("medium-ide", Bus::Ide),
        ("medium-sata", Bus::Sata),
        ("medium-nvme", Bus::Nvme),
        ("medium-virtio", Bus::Virtio),
        ("medium-virtio-scsi", Bus::VirtioScsi),
    ]
    .into_iter()
    .map(|(name, bus)| direct(name, "", vec![drive("medium", bus, tiny)], booted(&[])))
    .collect();
    let card = drive("medium", Bus::SdCard, Content::PaddedIso(Image::Tiny));
    scenarios.push(direct("medium-sd-card", "", vec![card], booted(&[])));
    let two = |second| {
        vec![
            drive("other", Bus::UsbStick, Content::Iso(Image::OtherBuild)),
            drive("medium", second, Content::Iso(Image::Tiny)),
        ]
    };
    scenarios.push(direct("medium-second-of-two-sticks", "", two(Bus::UsbStick), booted(&[])));
    scenarios.push(direct("medium-on-disk-beside-another-build", "", two(Bus::Virtio), booted(&[])));
    scenarios.push(direct("on-ram-stick", "sino.ram", vec![drive("medium", Bus::UsbStick, tiny)], booted(&[])));
    scenarios.push(direct("on-ram-virtio", "sino.ram", vec![drive("medium", Bus::Virtio, tiny)], booted(&[])));
    scenarios.push(direct(
        "flag-unknown",
        "sino.rma",
        vec![drive("medium", Bus::Virtio, tiny)],
        booted(&["did you mean sino.ram?"]),
    ));
    let late = |plugged| {
        vec![
            drive("other", Bus::UsbStick, Content::Iso(Image::OtherBuild)),
            DriveSpec { plugged, ..drive("medium", Bus::UsbStick, tiny) },
        ]
    };
    let absent = Failed { step: "find-medium", says: &["cause:", "no device carries build", "try:", "plug"] };
    scenarios.push(direct("medium-plugged-in-late", "", late(Plugged::After("] load-drivers")), booted(&[])));
    scenarios.push(direct(
        "medium-plugged-in-at-the-rescue-shell",
        "sino.medium-timeout=5",
        late(Plugged::InRescue),
        Expect::Recovered(absent, Booted { medium: "medium", warnings: &[] }),
    ));
    let file = |kind| vec![drive("medium", Bus::UsbStick, Content::IsoFile(Image::Tiny, kind))];
    let copied = vec![drive("medium", Bus::UsbStick, Content::CopiedFiles(Image::Tiny))];
    scenarios.push(direct("iso-file-on-ext4", "findiso=/boot/iso/sino.iso", file(FileSystem::Ext4), booted(&[])));
    scenarios.push(direct(
        "iso-file-on-fat-on-ram",
        "sino.ram iso-scan/filename=/boot/iso/sino.iso",
        file(FileSystem::Fat),
        booted(&[]),
    ));
    scenarios.push(direct("copied-files-on-fat", "", copied, booted(&[])));
    let broken = drive("empty", Bus::Nvme, Content::Blank(16));
    scenarios.push(Scenario {
        initramfs_fault: Some(InitramfsFault::BrokenModule("nvme")),
        ..direct(
            "driver-broken-but-not-needed",
            "",
            vec![drive("medium", Bus::UsbStick, tiny), broken],
            booted(&["nvme"]),
        )
    });
    scenarios
}

/// Everything that must fail with an explanation.
fn faults() -> Vec<Scenario> {
    let failed = |step, says| Expect::Failed(Failed { step, says });
    let stick = |content| vec![drive("medium", Bus::UsbStick, content)];
    let tiny = Content::Iso(Image::Tiny);
    let no_stage_two = failed("check-root", &["/sbin/sino-init"]);
    vec![
        direct(
            "fault-medium-absent",
            "sino.medium-timeout=5",
            vec![drive("empty", Bus::Virtio, Content::Blank(16))],
            failed("find-medium", &["cause:", "no device carries build", "seen:", "vda", "try:"]),
        ),
        direct(
            "fault-medium-of-another-build",
            "sino.medium-timeout=5",
            stick(Content::Iso(Image::OtherBuild)),
            failed("find-medium", &["cause:", "seen:", "usb", "another", "try:"]),
        ),
        direct(
            "fault-root-image-unreadable",
            "sino.medium-timeout=5",
            stick(Content::DamagedRoot(Image::Tiny)),
            failed("mount-image", &["cause:", "squashfs", "try:"]),
        ),
        direct(
            "fault-root-image-unreadable-on-ram",
            "sino.medium-timeout=5 sino.ram",
            stick(Content::DamagedRoot(Image::Tiny)),
            failed("copy-to-ram", &["cause:", "try:"]),
        ),
        Scenario {
            image: Image::WithoutStageTwo,
            ..direct("fault-stage-two-missing", "", stick(Content::Iso(Image::WithoutStageTwo)), no_stage_two)
        },
        direct(
            "fault-init-flag-wrong",
            "sino.init=/sbin/nowhere",
            stick(tiny),
            failed("check-root", &["/sbin/nowhere", "try:"]),
        ),
        Scenario {
            initramfs_fault: Some(InitramfsFault::OtherKernel),
            ..direct(
                "fault-kernel-of-another-build",
                "",
                stick(tiny),
                failed("read-manifest", &["cause:", "0.0.0-other", "is running", "try:"]),
            )
        },
        Scenario {
            initramfs_fault: Some(InitramfsFault::BrokenModule("usb_storage")),
            ..direct(
                "fault-driver-of-the-medium-broken",
                "sino.medium-timeout=5",
                stick(tiny),
                failed("find-medium", &["cause:", "usb_storage", "try:"]),
            )
        },
        Scenario {
            name: "fault-under-xen".to_owned(),
            image: Image::WithoutStageTwo,
            begin: Begin::Menu(Entry::Advanced),
            memory_mib: XEN_MEMORY,
            budget: BIOS_BUDGET,
            ..direct("", "", stick(Content::Iso(Image::WithoutStageTwo)), no_stage_two)
        },
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
        initramfs_fault: None,
        expect: Expect::Multiuser,
        budget: REAL_BUDGET,
    };
    vec![
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
        assert_eq!(menu().len(), 2 * 2 * 4);
    }

    #[test]
    fn what_is_expected_of_a_drive_is_a_drive_of_the_machine() {
        for scenario in scenarios() {
            if let Expect::Booted(booted) | Expect::Recovered(_, booted) = scenario.expect {
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
