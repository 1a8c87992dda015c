//! The hybrid ISO: one file that BIOS and UEFI start from a disc and, written as it is, from a stick.
//!
//! ISOLINUX for BIOS (`isohdpfx.bin` in the first sector for sticks), the EFI partition's image appended as a real
//! partition that both the El Torito record and the partition table name. Dates, ids and order are fixed.

use crate::cache::{Key, create_folder};
use crate::{command, efi};
use anyhow::{Context, Result};
use sino_boot::identity::VOLUME_ID;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ISOLINUX: &str = "/usr/lib/ISOLINUX";
const SYSLINUX_MODULES: &str = "/usr/lib/syslinux/modules/bios";
/// Microsoft's basic data: the type that every system mounts by itself; firmware looks for FAT, not for a type.
const PARTITION_TYPE: &str = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7";

/// What identifies a medium.
#[derive(Clone, Debug)]
pub struct Identity<'a> {
    /// The build id; becomes the volume set identifier.
    pub build_id: &'a str,
    /// SINO's version; becomes part of the application identifier.
    pub version: &'a str,
    /// Every date on the medium.
    pub epoch: u64,
}

/// Copies ISOLINUX into the folder that becomes the medium.
///
/// # Errors
/// The packages isolinux or syslinux-common are not installed, or a copy fails.
pub fn add_isolinux(medium: &Path) -> Result<()> {
    let folder = medium.join("isolinux");
    create_folder(&folder)?;
    for (from, file, package) in [
        (ISOLINUX, "isolinux.bin", "isolinux"),
        (SYSLINUX_MODULES, "ldlinux.c32", "syslinux-common"),
        (SYSLINUX_MODULES, "libcom32.c32", "syslinux-common"),
        (SYSLINUX_MODULES, "libutil.c32", "syslinux-common"),
        (SYSLINUX_MODULES, "mboot.c32", "syslinux-common"),
        (SYSLINUX_MODULES, "menu.c32", "syslinux-common"),
    ] {
        let source = Path::new(from).join(file);
        fs::copy(&source, folder.join(file)).with_context(|| {
            format!("copying {}; if it is missing, install it with: apt-get install {package}", source.display())
        })?;
    }
    Ok(())
}

/// Makes the ISO `iso` from the folder `medium` and the EFI partition's image.
///
/// # Errors
/// xorriso fails.
pub fn make(iso: &Path, medium: &Path, efi_image: &Path, identity: &Identity<'_>) -> Result<()> {
    set_times(medium, identity.epoch)?;
    command::run(&mut command_line(iso, medium, efi_image, identity)?)?;
    Ok(())
}

fn command_line(iso: &Path, medium: &Path, efi_image: &Path, identity: &Identity<'_>) -> Result<Command> {
    let date = date(identity.epoch)?;
    let mut command = Command::new("xorriso");
    command
        .args(["-no_rc", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-full-iso9660-filenames"])
        .args(["-rational-rock", "-joliet", "-V", VOLUME_ID, "-volset", identity.build_id])
        .args(["-A", &format!("SINO {}", identity.version), "-publisher", "SINO", "-p", "SINO IMAGE BUILDER"])
        .arg(format!("--modification-date={date}00"))
        .args(["--gpt_disk_guid", &guid(identity.build_id)])
        .args(["-isohybrid-mbr", &format!("{ISOLINUX}/isohdpfx.bin"), "-partition_offset", "16"])
        // Some BIOSes start only a stick with an active partition; no-pad: nothing behind the last partition.
        .args(["--mbr-force-bootable", "-no-pad"])
        .args(["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"])
        .args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
        .args(["-append_partition", "2", PARTITION_TYPE])
        .arg(efi_image)
        .args(["-appended_part_as_gpt", "-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::"])
        .args(["-no-emul-boot", "-o"])
        .arg(iso)
        .arg(medium)
        .env("SOURCE_DATE_EPOCH", identity.epoch.to_string())
        .env("TZ", "UTC");
    Ok(command)
}

/// `YYYYMMDDhhmmss` in UTC.
///
/// # Errors
/// A time that does not fit.
pub fn date(epoch: u64) -> Result<String> {
    let days = i64::try_from(epoch / 86_400).context("the time is too large")?;
    let (year, month, day) = civil(days);
    let second = epoch % 86_400;
    Ok(format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60))
}

/// Year, month and day of a day count since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// 32 hexadecimal digits that follow from the build id.
fn guid(build_id: &str) -> String {
    let hex = Key::new("guid", 1).with("build", build_id).hex();
    hex.get(..32).unwrap_or(&hex).to_owned()
}

/// Gives every file and folder of the medium the same time.
fn set_times(path: &Path, epoch: u64) -> Result<()> {
    let mut paths: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path).with_context(|| format!("reading the folder {}", path.display()))? {
                paths.push(entry.with_context(|| format!("reading the folder {}", path.display()))?.path());
            }
            let folder = fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(epoch);
            folder.set_modified(time).with_context(|| format!("setting the time of {}", path.display()))?;
        } else {
            efi::set_time(&path, epoch)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        for (epoch, expected) in [
            (0, "19700101000000"),
            (951_782_400, "20000229000000"),
            (1_795_413_569, "20261123055929"),
            (4_102_444_799, "20991231235959"),
        ] {
            assert_eq!(date(epoch).unwrap(), expected);
        }
    }

    #[test]
    fn the_medium_carries_the_build() {
        let identity = Identity { build_id: "20261123-a1b2c3", version: "0.1.0", epoch: 0 };
        let command = command_line(Path::new("o"), Path::new("m"), Path::new("e"), &identity).unwrap();
        let line = command::line(&command);
        for part in ["-V SINO -volset 20261123-a1b2c3", "-A 'SINO 0.1.0'", "--modification-date=1970010100000000"] {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(guid("a").len(), 32);
        assert_ne!(guid("a"), guid("b"));
    }
}
