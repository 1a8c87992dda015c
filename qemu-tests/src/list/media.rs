//! The medium on every kind of drive, late, beside others, and as files.

use super::{booted, direct, drive};
use crate::scenario::{
    Act, Afterwards, Booted, Content, DriveSpec, During, Expect, Failed, FileSystem, Image, InitramfsFault, Plugged,
    Scenario, Trouble,
};
use sino_image::qemu::Bus;

/// The medium on everything that it can be, in every order.
pub(super) fn media() -> Vec<Scenario> {
    [kinds(), several(), odd(), files()].concat()
}

/// The medium on everything that a medium can be.
fn kinds() -> Vec<Scenario> {
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
    scenarios
}

/// More than one device, and devices that come late.
fn several() -> Vec<Scenario> {
    let tiny = Content::Iso(Image::Tiny);
    let mut scenarios = Vec::new();
    let two = |second| {
        vec![
            drive("other", Bus::UsbStick, Content::Iso(Image::OtherBuild)),
            drive("medium", second, Content::Iso(Image::Tiny)),
        ]
    };
    scenarios.push(direct("medium-second-of-two-sticks", "", two(Bus::UsbStick), booted(&[])));
    scenarios.push(direct("medium-on-disk-beside-another-build", "", two(Bus::Virtio), booted(&[])));
    scenarios.push(direct("on-ram-stick", "sino.ram", vec![drive("medium", Bus::UsbStick, tiny)], booted(&[])));
    for (name, flags) in [
        ("medium-stick-with-configuration", ""),
        ("on-ram-stick-with-configuration", "sino.ram"),
        ("check-of-a-medium-with-configuration", "sino.check"),
    ] {
        scenarios.push(Scenario {
            afterwards: &[Afterwards::Configuration],
            ..direct(name, flags, vec![drive("medium", Bus::UsbStick, Content::Configured(Image::Tiny))], booted(&[]))
        });
    }
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
        Expect::Recovered(absent, Booted { medium: "medium", warnings: &[], in_ram: None }),
    ));
    let wrong_first = |plugged| {
        vec![
            DriveSpec {
                plugged: Plugged::After("find-medium: no device carries"),
                ..drive("other", Bus::UsbStick, Content::Iso(Image::OtherBuild))
            },
            DriveSpec { plugged, ..drive("medium", Bus::UsbStick, tiny) },
        ]
    };
    scenarios.push(direct(
        "medium-plugged-in-at-the-rescue-shell-and-nobody-there",
        "sino.medium-timeout=5",
        late(Plugged::InRescue),
        Expect::RecoversByItself(absent, Booted { medium: "medium", warnings: &[], in_ram: None }),
    ));
    scenarios.push(Scenario {
        during: &[During { when: "still waiting, 20 s until the rescue shell", act: Act::Plug("medium") }],
        ..direct("medium-40-s-late", "", late(Plugged::ByAct), booted(&[]))
    });
    scenarios.push(Scenario {
        during: &[
            During { when: "another release than this", act: Act::Pull("other") },
            During { when: "is gone", act: Act::Plug("medium") },
        ],
        ..direct("medium-replugged-during-the-wait", "", wrong_first(Plugged::ByAct), booted(&[]))
    });
    scenarios
}

/// Readers, failing and slow devices, twins, and what the flags choose among devices.
fn odd() -> Vec<Scenario> {
    let tiny = Content::Iso(Image::Tiny);
    let mut scenarios = Vec::new();
    let reader = |name, content| drive(name, Bus::UsbReader, content);
    scenarios.push(direct(
        "medium-in-a-reader-with-empty-slots",
        "",
        vec![reader("slot0", Content::NoMedium), reader("slot1", Content::Blank(16)), reader("medium", tiny)],
        booted(&[]),
    ));
    let failing =
        DriveSpec { trouble: Some(Trouble::UnreadableBeginning), ..drive("failing", Bus::Sata, Content::Blank(16)) };
    scenarios.push(direct(
        "medium-beside-a-failing-disk",
        "",
        vec![failing, drive("medium", Bus::UsbStick, tiny)],
        booted(&[]),
    ));
    let slow = DriveSpec { trouble: Some(Trouble::Slow(2_000_000)), ..drive("medium", Bus::UsbStick, tiny) };
    scenarios.push(direct("medium-slow-stick", "", vec![slow], booted(&[])));
    let twins = |flags, name: &'static str| {
        let drives = vec![drive("medium", Bus::UsbStick, tiny), drive("twin", Bus::UsbStick, tiny)];
        Scenario {
            afterwards: &[Afterwards::Console("carries the same build and is not used"), Afterwards::ReadAll],
            ..direct(name, flags, drives, booted(&[]))
        }
    };
    scenarios.push(twins("", "medium-two-of-the-same-build"));
    for (name, flags) in [
        ("medium-by-label", "sino.medium=LABEL=SINO"),
        ("medium-by-uuid", "sino.medium=UUID=%UUID%"),
        ("medium-by-partition-uuid", "sino.medium=PARTUUID=%PARTUUID%"),
        ("medium-by-device", "sino.medium=/dev/sda"),
    ] {
        scenarios.push(direct(name, flags, vec![drive("medium", Bus::UsbStick, tiny)], booted(&[])));
    }
    let fixed_first = vec![drive("fixed", Bus::Virtio, tiny), drive("medium", Bus::UsbStick, tiny)];
    scenarios.push(direct("medium-removable", "sino.medium=removable", fixed_first, booted(&[])));
    scenarios
}

/// The ISO as a file, and its content as files.
fn files() -> Vec<Scenario> {
    let tiny = Content::Iso(Image::Tiny);
    let mut scenarios = Vec::new();
    let file = |kind| vec![drive("medium", Bus::UsbStick, Content::IsoFile(Image::Tiny, kind))];
    let copied = vec![drive("medium", Bus::UsbStick, Content::CopiedFiles(Image::Tiny))];
    for (name, flags, kind) in [
        ("iso-file-on-ext4", "findiso=/boot/iso/sino.iso", FileSystem::Ext4),
        ("iso-file-on-fat-on-ram", "sino.ram iso-scan/filename=/boot/iso/sino.iso", FileSystem::Fat),
        ("iso-file-on-exfat", "fromiso=/dev/sda1/boot/iso/sino.iso", FileSystem::Exfat),
        ("iso-file-on-ntfs", "sino.iso=/boot/iso/sino.iso", FileSystem::Ntfs),
        ("iso-file-on-xfs", "sino.iso=/boot/iso/sino.iso", FileSystem::Xfs),
        ("iso-file-on-btrfs", "sino.iso=/boot/iso/sino.iso", FileSystem::Btrfs),
    ] {
        scenarios.push(direct(name, flags, file(kind), booted(&[])));
    }
    let volume = |bus| vec![drive("medium", bus, Content::IsoOnVolume(Image::Tiny))];
    for (name, flags) in [
        ("iso-file-on-a-logical-volume", "sino.iso=/dev/xvg/xvol/boot/iso/sino.iso"),
        ("iso-file-on-a-logical-volume-on-ram", "sino.ram findiso=/dev/mapper/xvg-xvol/boot/iso/sino.iso"),
    ] {
        scenarios.push(direct(name, flags, volume(Bus::Sata), booted(&[])));
    }
    scenarios.push(Scenario {
        ventoy: true,
        ..direct("iso-file-started-by-ventoy", "", file(FileSystem::Exfat), booted(&[]))
    });
    scenarios.push(direct("copied-files-on-fat", "", copied, booted(&[])));
    let broken = drive("empty", Bus::Nvme, Content::Blank(16));
    scenarios.push(Scenario {
        initramfs_fault: Some(InitramfsFault::BrokenModule("nvme")),
        ..direct(
            "driver-broken-but-not-needed",
            // While the stick waits, the other driver is tried; otherwise the boot might well be over before.
            "usb-storage.delay_use=3",
            vec![drive("medium", Bus::UsbStick, tiny), broken],
            booted(&["nvme"]),
        )
    });
    scenarios
}
