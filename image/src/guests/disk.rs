//! A disk as an administrator would have prepared it: a GPT with one partition for LVM, a group, volumes, and what is on
//! them. Made in seconds as a sparse file, without device-mapper: LVM's tools write their metadata and say where the
//! volumes lie (the module `lvm`), and what is on a volume is written there.

use super::lvm::{EXTENT, Group};
use crate::command;
use crate::tree::require_root;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The group's name.
pub const GROUP: &str = "xvg";
/// Where the partition begins, in bytes; as much is left free behind it, where the copy of the table is.
const AROUND: u64 = 1 << 20;
/// Bytes of a page of memory, the unit of swap.
const PAGE: usize = 4096;
/// The partition's type: LVM.
const LVM_PARTITION: &str = "E6D6D379-F507-44C2-A23C-238F2A3DF928";

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its size in MiB.
    pub mib: u64,
    /// What is on it.
    pub filling: Filling,
}

/// What is on a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filling {
    /// Nothing.
    Empty,
    /// These bytes at its beginning.
    Bytes(Vec<u8>),
    /// An ext4 with this label and the content of this folder, as root's.
    Ext4 {
        /// The label.
        label: String,
        /// The folder.
        folder: PathBuf,
    },
    /// Swap, with the volume's name as its label.
    Swap,
}

impl Volume {
    /// A volume of so many MiB.
    #[must_use]
    pub fn new(name: &str, mib: u64, filling: Filling) -> Self {
        Self { name: name.to_owned(), mib, filling }
    }
}

/// Makes the disk `path`, of so many MiB, with the group [`GROUP`] of these volumes. What was there is gone.
///
/// # Errors
/// The user is not root, a tool is missing or fails, or the volumes are more than the disk.
pub fn prepare(path: &Path, mib: u64, volumes: &[Volume]) -> Result<()> {
    require_root("a disk with logical volumes")?;
    let length = mib << 20;
    let partition = length.checked_sub(2 * AROUND).context("too small for a disk")?;
    let wanted: u64 = volumes.iter().map(|volume| (volume.mib << 20).next_multiple_of(EXTENT)).sum();
    ensure!(wanted + EXTENT <= partition, "{} MiB of volumes are too much for a disk of {mib} MiB", wanted >> 20);
    File::create(path)?.set_len(length).with_context(|| format!("making {}", path.display()))?;
    let table = format!("start={}, size={}, type={LVM_PARTITION}\n", AROUND / 512, partition / 512);
    let mut sfdisk = Command::new("sfdisk");
    command::run_with_input(sfdisk.args(["--quiet", "--label", "gpt"]).arg(path), table.as_bytes())?;
    let folder = path.with_extension("lvm");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let made = make(path, partition, volumes, &folder);
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    for (volume, start) in volumes.iter().zip(made?) {
        fill(path, AROUND + start, volume).with_context(|| format!("filling the volume {}", volume.name))?;
    }
    Ok(())
}

/// Makes the group; returns where its volumes begin in the partition, in bytes.
fn make(path: &Path, partition: u64, volumes: &[Volume], folder: &Path) -> Result<Vec<u64>> {
    let group = Group::make(GROUP, path, AROUND, partition, folder)?;
    volumes.iter().map(|volume| group.volume(&volume.name, volume.mib << 20)).collect()
}

fn fill(path: &Path, start: u64, volume: &Volume) -> Result<()> {
    match &volume.filling {
        Filling::Empty => Ok(()),
        Filling::Bytes(bytes) => {
            ensure!(bytes.len() as u64 <= volume.mib << 20, "{} bytes are too many", bytes.len());
            write(path, start, bytes)
        }
        Filling::Ext4 { label, folder } => {
            let mut mkfs = Command::new("mkfs.ext4");
            mkfs.args(["-q", "-F", "-L", label, "-E", &format!("offset={start},root_owner=0:0"), "-d"]).arg(folder);
            command::run(mkfs.arg(path).arg(format!("{}k", volume.mib << 10))).map(drop)
        }
        Filling::Swap => {
            // mkswap knows no offset; what it writes is one page.
            let alone = path.with_extension("swap");
            File::create(&alone)?.set_len(volume.mib << 20).with_context(|| format!("making {}", alone.display()))?;
            let made = command::run(Command::new("mkswap").args(["--quiet", "--label", &volume.name]).arg(&alone));
            let mut page = vec![0; PAGE];
            let read = File::open(&alone).and_then(|file| file.read_exact_at(&mut page, 0));
            fs::remove_file(&alone)?;
            made?;
            read.context("reading what mkswap wrote")?;
            write(path, start, &page)
        }
    }
}

fn write(path: &Path, start: u64, bytes: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, start).with_context(|| format!("writing {}", path.display()))
}
