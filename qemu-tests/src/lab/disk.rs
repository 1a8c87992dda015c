//! A disk that lasts as long as the scenario: a sparse file that every boot finds as the one before left it, and that can
//! be altered while the machine is off.

use crate::carriers;
use anyhow::{Context, Result, bail, ensure};
use sino_image::qemu::process::require;
use sino_image::qemu::{Bus, Drive};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its name, and the serial number that the guest sees.
    pub name: String,
    /// What it hangs on.
    pub bus: Bus,
    /// Its file.
    pub file: PathBuf,
}

impl Disk {
    /// A blank disk of so many MiB, in a file of `folder`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn blank(folder: &Path, name: &str, bus: Bus, mib: u64) -> Result<Self> {
        let file = folder.join(format!("{name}.img"));
        File::create(&file)?.set_len(mib << 20).with_context(|| format!("making {}", file.display()))?;
        Ok(Self { name: name.to_owned(), bus, file })
    }

    /// A disk with the same content under another name.
    ///
    /// # Errors
    /// The file cannot be copied.
    pub fn copy(&self, name: &str) -> Result<Self> {
        let file = self.file.with_file_name(format!("{name}.img"));
        let status = Command::new("cp").arg("--sparse=always").args([&self.file, &file]).status()?;
        ensure!(status.success(), "{} could not be copied", self.file.display());
        Ok(Self { name: name.to_owned(), bus: self.bus, file })
    }

    /// The drive of a machine.
    #[must_use]
    pub fn drive(&self) -> Drive {
        Drive { keep_writes: true, ..Drive::new(&self.name, self.bus, &self.file) }
    }

    /// Writes bytes at an offset of the disk.
    ///
    /// # Errors
    /// The file cannot be written, or ends before.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.file)?;
        ensure!(offset + bytes.len() as u64 <= file.metadata()?.len(), "{} ends before {offset}", self.name);
        file.write_all_at(bytes, offset).with_context(|| format!("writing {}", self.file.display()))
    }

    /// Where a logical volume of one piece, with LVM's own extents of 4 MiB, begins on the disk, in bytes. The disk is the
    /// group's only one, or all of the volume is on it.
    ///
    /// # Errors
    /// There is none, it is in pieces, a tool is missing, or the user is not root.
    pub fn volume(&self, group: &str, volume: &str) -> Result<u64> {
        let places = carriers::volume_places(&self.file, group, volume)?;
        match places.as_slice() {
            [(start, _)] => Ok(*start),
            _ => bail!("the volume {group}/{volume} is not in one piece: {places:?}"),
        }
    }

    /// The volume as the tools of ext4 take it: a file with an offset.
    fn ext4(&self, group: &str, volume: &str) -> Result<String> {
        Ok(format!("{}?offset={}", self.file.display(), self.volume(group, volume)?))
    }

    /// Marks the ext4 of a logical volume as one with errors, with a right checksum, as its kernel does when it meets any.
    ///
    /// # Errors
    /// As [`Disk::volume`]; or what debugfs says.
    pub fn mark_ext4_as_broken(&self, group: &str, volume: &str) -> Result<()> {
        require("debugfs", "e2fsprogs")?;
        let output =
            Command::new("debugfs").args(["-w", "-R", "ssv state 2"]).arg(self.ext4(group, volume)?).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        // Its first line is its version.
        ensure!(output.status.success() && said.lines().count() <= 1, "debugfs: {}", said.trim());
        Ok(())
    }

    /// Whether the ext4 of a logical volume was unmounted in order, or at least has a journal that puts it right: a copy
    /// of the disk is checked as at a boot (`e2fsck -p`), then completely (`e2fsck -f -n`). Returns what is wrong.
    ///
    /// # Errors
    /// As [`Disk::volume`].
    pub fn ext4_damage(&self, group: &str, volume: &str) -> Result<Option<String>> {
        require("e2fsck", "e2fsprogs")?;
        let copy = self.copy(&format!("{}-checked", self.name))?;
        let place = copy.ext4(group, volume)?;
        let mut damage = None;
        for options in [["-p", "-E", "journal_only"].as_slice(), &["-f", "-n"]] {
            let output = Command::new("e2fsck").args(options).arg(&place).output()?;
            // 1: put right, which for the journal is as it should be.
            if !matches!(output.status.code(), Some(0 | 1)) {
                let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                damage = Some(format!("e2fsck {options:?} ended with {}: {said}", output.status));
                break;
            }
        }
        std::fs::remove_file(&copy.file)?;
        Ok(damage)
    }
}
