//! The kernel of a finished ISO and the drivers that a guest of ours needs: files of the ISO itself, so that they fit.

use super::initramfs::DRIVERS;
use crate::cache::{create_folder, remove};
use crate::command;
use anyhow::{Context, Result, ensure};
use sino_boot::layout;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kernel's place on the ISO.
const KERNEL: &str = "sino/vmlinuz";

/// Kernel and drivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel.
    pub file: PathBuf,
    /// The drivers of [`DRIVERS`], as packaged.
    pub drivers: Vec<PathBuf>,
}

impl Kernel {
    /// Takes them from an ISO; they stay in `folder`, whatever was in it.
    ///
    /// # Errors
    /// A tool is missing, or the ISO lacks one of them.
    pub fn of_iso(iso: &Path, folder: &Path) -> Result<Self> {
        remove(folder)?;
        create_folder(folder)?;
        let (kernel, image, tree) = (folder.join("vmlinuz"), folder.join("root.squashfs"), folder.join("tree"));
        let mut xorriso = Command::new("xorriso");
        xorriso.args(["-osirrox", "on", "-indev"]).arg(iso);
        for (from, to) in [(KERNEL, &kernel), (layout::ROOT_IMAGE, &image)] {
            xorriso.arg("-extract").arg(format!("/{from}")).arg(to);
        }
        command::run(&mut xorriso).with_context(|| format!("taking the kernel from {}", iso.display()))?;
        let names = DRIVERS.map(|driver| format!("usr/lib/modules/*/kernel/drivers/{driver}.ko*"));
        command::run(Command::new("unsquashfs").args(["-n", "-q", "-d"]).arg(&tree).arg(&image).args(names))
            .with_context(|| format!("taking drivers from {}", image.display()))?;
        remove(&image)?;
        let releases = entries(&tree.join("usr/lib/modules"))?;
        ensure!(releases.len() == 1, "the ISO has not one kernel's modules but {}", releases.len());
        let mut drivers = Vec::new();
        for driver in DRIVERS {
            let found = releases.iter().flat_map(|release| {
                ["", ".xz", ".zst"].map(|packed| release.join(format!("kernel/drivers/{driver}.ko{packed}")))
            });
            let mut found = found.filter(|path| path.is_file());
            drivers.push(found.next().with_context(|| format!("{} has no driver {driver}", iso.display()))?);
        }
        Ok(Self { file: kernel, drivers })
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
