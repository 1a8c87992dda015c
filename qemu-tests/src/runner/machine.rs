//! The machine of a scenario: its kernel flags, and its drives with what is on them and what is wrong with them.

use super::DIRECT_FLAGS;
use crate::images::{Images, Paths};
use crate::scenario::{Begin, Content, DriveSpec, FirmwareKind, InitramfsFault, Plugged, Scenario, Trouble};
use crate::{carriers, faults, ventoy};
use anyhow::{Context, Result};
use sino_image::qemu::firmware::UefiFiles;
use sino_image::qemu::machine::{AcpiTable, DriveFault, NetworkCard};
use sino_image::qemu::process::require;
use sino_image::qemu::{Accelerator, Drive, Firmware, Machine, Start};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The scenario's machine.
pub(super) fn machine(scenario: &Scenario, image: &Paths, images: &Images, folder: &Path) -> Result<Machine> {
    let start = match scenario.begin {
        Begin::Menu(_) => Start::FromDrives,
        Begin::Direct(flags) => {
            let for_carriers =
                |spec: &DriveSpec| matches!(spec.content, Content::IsoFile(_, kind) if kind.is_for_carriers());
            let not_for_carriers = scenario.initramfs_fault == Some(InitramfsFault::NotForIsoFiles);
            let right = if scenario.drives.iter().any(for_carriers) && !not_for_carriers {
                &image.iso_file_initramfs
            } else {
                &image.initramfs
            };
            let mut initrd = right.clone();
            if let Some(fault) = scenario.initramfs_fault {
                initrd = folder.join("initramfs-broken.img");
                faults::break_initramfs(right, &initrd, &image.manifest, fault)?;
            }
            let flags = with_identities(flags, &image.iso)?;
            let append = format!("{DIRECT_FLAGS} {flags}").trim_end().to_owned();
            Start::Kernel { kernel: image.kernel.clone(), initrd, append }
        }
    };
    let mut drives = Vec::new();
    for (index, spec) in (0..).zip(&scenario.drives) {
        let plugged_later = spec.plugged != Plugged::FromTheBeginning;
        let made = match made(spec, image, images, folder)? {
            Some(file) => Drive::new(spec.name, spec.bus, file),
            None => Drive::empty(spec.name, spec.bus),
        };
        let faults = spec.trouble.map(|trouble| fault(trouble, image)).transpose()?.into_iter().collect();
        drives.push(Drive { plugged_later, faults, ..made.boot(index) });
    }
    let mut acpi_tables = Vec::new();
    if scenario.ventoy {
        let data = ventoy::record(&image.iso, &folder.join("ventoy.bin"))?;
        acpi_tables.push(AcpiTable { signature: "VTOY".to_owned(), data });
    }
    let network = NetworkCard::user("virtio-net-pci", &[22]);
    Ok(Machine {
        name: format!("sino-{}", scenario.name),
        accelerator: Accelerator::from_environment()?,
        firmware: match scenario.firmware {
            FirmwareKind::Bios => Firmware::Bios,
            FirmwareKind::Uefi => Firmware::Uefi(UefiFiles::find(Path::new("/"))?),
        },
        start,
        memory_mib: scenario.memory_mib,
        drives,
        network: scenario.network.then_some(network).into_iter().collect(),
        namespace: None,
        acpi_tables,
        reset_ends: true,
    })
}

/// Makes what is on a drive; `None` for a drive without a medium.
fn made(spec: &DriveSpec, image: &Paths, images: &Images, folder: &Path) -> Result<Option<PathBuf>> {
    let source = match spec.content {
        Content::Iso(which)
        | Content::DamagedRoot(which)
        | Content::PaddedIso(which)
        | Content::Configured(which)
        | Content::FlippedBit(which, _)
        | Content::Truncated(which, _)
        | Content::IsoFile(which, _)
        | Content::IsoOnVolume(which)
        | Content::CopiedFiles(which) => images.get(which)?,
        Content::Blank(_) | Content::NoMedium => image.clone(),
    };
    let file = drive_file(spec.content, spec.name, &source, folder);
    match spec.content {
        Content::Iso(_) => {}
        Content::DamagedRoot(_) => faults::damage_root(&source.iso, &file)?,
        Content::PaddedIso(_) => faults::pad(&source.iso, &file)?,
        Content::Configured(_) => {
            faults::configure(&source.iso, &file, second_partition(&source.iso)?, faults::CONFIG)?;
        }
        Content::FlippedBit(_, place) => faults::flip_bit(&source.iso, &file, &source.manifest, place)?,
        Content::Truncated(_, percent) => faults::truncate_iso(&source.iso, &file, percent)?,
        Content::IsoFile(_, kind) => carriers::iso_as_file(&source.iso, &file, kind)?,
        Content::IsoOnVolume(_) => carriers::iso_on_volume(&source.iso, &file, "xvg", "xvol")?,
        Content::CopiedFiles(_) => carriers::content_as_files(&source.iso, &file)?,
        Content::Blank(mib) => faults::blank(&file, mib)?,
        Content::NoMedium => return Ok(None),
    }
    Ok(Some(file))
}

/// A drive's trouble in QEMU's terms.
fn fault(trouble: Trouble, image: &Paths) -> Result<DriveFault> {
    /// A page: what the kernel reads at least.
    const SECTORS: u64 = 8;
    let in_file = |path: &str, offset: u64| -> Result<DriveFault> {
        let (start, _) = faults::file_extent(&image.iso, path)?;
        Ok(DriveFault::ReadError { sector_from: (start + offset) / 4096 * SECTORS, sectors: SECTORS })
    };
    match trouble {
        Trouble::Slow(bytes) => Ok(DriveFault::BytesPerSecond(bytes)),
        Trouble::UnreadableData => in_file("/sino/root.squashfs", image.manifest.root.verity.data_size / 2),
        Trouble::UnreadableElsewhere => in_file("/sino/vmlinuz", 4 << 20),
        Trouble::UnreadableEfi => {
            let start = second_partition(&image.iso)?;
            Ok(DriveFault::ReadError { sector_from: start + 16 * SECTORS, sectors: SECTORS })
        }
        Trouble::UnreadableBeginning => Ok(DriveFault::ReadError { sector_from: 0, sectors: SECTORS }),
    }
}

/// The first sector of the second partition, which is the EFI partition.
pub(crate) fn second_partition(iso: &Path) -> Result<u64> {
    require("sfdisk", "fdisk")?;
    let output = Command::new("sfdisk").arg("--json").arg(iso).output()?;
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).context("sfdisk's answer is not JSON")?;
    let start = table.pointer("/partitiontable/partitions/1/start").and_then(serde_json::Value::as_u64);
    start.with_context(|| format!("{} has no second partition", iso.display()))
}

/// Puts the ISO's own UUIDs into the flags, as blkid(8) shows them to an administrator.
fn with_identities(flags: &str, iso: &Path) -> Result<String> {
    if !flags.contains('%') {
        return Ok(flags.to_owned());
    }
    require("blkid", "util-linux")?;
    require("sfdisk", "fdisk")?;
    let output = Command::new("blkid").args(["-p", "-s", "UUID", "-o", "value"]).arg(iso).output()?;
    let uuid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let output = Command::new("sfdisk").arg("--json").arg(iso).output()?;
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).context("sfdisk's answer is not JSON")?;
    let table = table.get("partitiontable").context("sfdisk shows no partition table")?;
    let text = |value: Option<&serde_json::Value>| value.and_then(|it| it.as_str()).unwrap_or_default().to_lowercase();
    // An MBR's partitions are numbered below the disk's signature; a GPT's have UUIDs of their own.
    let part_uuid = match text(table.get("label")).as_str() {
        "dos" => format!("{}-01", text(table.get("id")).trim_start_matches("0x")),
        _ => text(table.pointer("/partitions/0/uuid")),
    };
    anyhow::ensure!(!uuid.is_empty() && part_uuid.len() > 3, "the ISO has UUID {uuid:?} and PARTUUID {part_uuid:?}");
    Ok(flags.replace("%UUID%", &uuid).replace("%PARTUUID%", &part_uuid))
}

/// The file behind a drive: the image's own ISO, or a copy in the scenario's folder.
pub(super) fn drive_file(content: Content, name: &str, image: &Paths, folder: &Path) -> PathBuf {
    match content {
        Content::Iso(_) => image.iso.clone(),
        _ => folder.join(format!("{name}.img")),
    }
}
