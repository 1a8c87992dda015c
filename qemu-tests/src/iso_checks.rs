//! What must be true of a finished ISO without booting it.
//!
//! The same inputs give the same bytes; and the EFI partition, once the ISO is written to a stick, is an ordinary FAT
//! partition that any computer can mount.

use anyhow::{Context, Result, bail, ensure};
use sino_image::command::run;
use sino_image::qemu::process::require;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;

/// Types of a partition that computers mount by themselves: EFI system, basic data; and their MBR counterparts.
const TYPES: [&str; 4] = ["C12A7328-F81F-11D2-BA4B-00C04FC93EC9", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "ef", "c"];
/// The program that UEFI firmware starts from a removable medium.
const PROGRAM: &str = "::/EFI/BOOT/BOOTX64.EFI";

/// How much is compared at once.
const PIECE: usize = 1 << 20;

/// Compares two files byte by byte.
///
/// # Errors
/// They differ; names the first place.
pub fn same_bytes(one: &Path, other: &Path) -> Result<()> {
    let open = |path: &Path| File::open(path).with_context(|| format!("opening {}", path.display()));
    let (mut first, mut second) = (open(one)?, open(other)?);
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    let mut offset = 0;
    loop {
        let lengths = (fill(&mut first, &mut left)?, fill(&mut second, &mut right)?);
        let (left, right) = (left.get(..lengths.0).unwrap_or_default(), right.get(..lengths.1).unwrap_or_default());
        if left != right {
            let place = left.iter().zip(right).take_while(|(a, b)| a == b).count();
            bail!("{} and {} differ from byte {} on", one.display(), other.display(), offset + place);
        }
        if left.is_empty() {
            return Ok(());
        }
        offset += left.len();
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).context("reading")? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

/// Finds the EFI partition in the ISO's partition table, takes it out into `folder`, and examines it.
///
/// # Errors
/// What is not ordinary about it, in the words of the tool that found it.
pub fn efi_partition_is_ordinary(iso: &Path, folder: &Path) -> Result<()> {
    require("mdir", "mtools")?;
    let table = run(Command::new("sfdisk").arg("-J").arg(iso))?;
    let (start, length) = efi_partition(&table)?;
    std::fs::create_dir_all(folder)?;
    let image = folder.join("efi-partition.img");
    let mut source = File::open(iso).with_context(|| format!("opening {}", iso.display()))?;
    source.seek(SeekFrom::Start(start))?;
    let copied = std::io::copy(&mut source.take(length), &mut File::create(&image)?)?;
    ensure!(copied == length, "the EFI partition goes on after the ISO's end: {copied} of {length} bytes");
    run(Command::new("fsck.fat").arg("-n").arg(&image))?;
    let listing = run(Command::new("mdir").args(["-b", "-/", "-i"]).arg(&image).arg("::"))?;
    let listing = String::from_utf8_lossy(&listing).to_uppercase();
    ensure!(listing.contains(&PROGRAM.to_uppercase()), "{PROGRAM} is not on the EFI partition: {listing}");
    Ok(())
}

/// Start and length in bytes, from `sfdisk -J`.
fn efi_partition(table: &[u8]) -> Result<(u64, u64)> {
    let table: serde_json::Value = serde_json::from_slice(table).context("reading sfdisk's answer")?;
    let sector = table.pointer("/partitiontable/sectorsize").and_then(serde_json::Value::as_u64).unwrap_or(512);
    let partitions = table.pointer("/partitiontable/partitions").and_then(serde_json::Value::as_array);
    for partition in partitions.into_iter().flatten() {
        let kind = partition.get("type").and_then(serde_json::Value::as_str).unwrap_or_default();
        let number = |key: &str| partition.get(key).and_then(serde_json::Value::as_u64);
        // The ISO's own file system may be listed as a partition of the same type; the EFI partition lies behind it.
        let named_efi = partition.get("name").and_then(serde_json::Value::as_str).is_none_or(|name| name != "ISO9660");
        if let (true, true, Some(start), Some(size)) =
            (TYPES.contains(&kind), named_efi, number("start"), number("size"))
        {
            return Ok((start * sector, size * sector));
        }
    }
    bail!("no EFI partition in {table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_efi_partition_is_found_by_its_type() {
        let table = br#"{"partitiontable": {"label": "gpt", "sectorsize": 512, "partitions": [
            {"node": "a1", "start": 64, "size": 1000, "type": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "name": "ISO9660"},
            {"node": "a2", "start": 1064, "size": 16, "type": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "name": "Appended2"}]}}"#;
        assert_eq!(efi_partition(table).unwrap(), (1064 * 512, 16 * 512));
        assert!(efi_partition(b"{}").is_err());
    }

    #[test]
    fn the_first_difference_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&one, vec![1; 100_000]).unwrap();
        let mut bytes = vec![1; 100_000];
        std::fs::write(&other, &bytes).unwrap();
        same_bytes(&one, &other).unwrap();
        bytes[70_000] = 2;
        std::fs::write(&other, &bytes).unwrap();
        assert!(same_bytes(&one, &other).unwrap_err().to_string().contains("70000"));
        std::fs::write(&other, vec![1; 99_999]).unwrap();
        assert!(same_bytes(&one, &other).is_err());
    }
}
