//! The folder of the results: what it must not be, and how finished files get there.
//!
//! Each file is copied to a temporary name beside its target and renamed, the ISO last, so whoever finds a new ISO
//! finds everything that belongs to it. This program never writes to devices.

use crate::build::Built;
use crate::cache::create_folder;
use crate::medium::{copy, write_sums};
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use sino_boot::layout;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The files beside the ISO that also lie on the medium, by their names there.
const BESIDE: &[&str] = &[
    "sino/vmlinuz",
    "sino/xen.gz",
    layout::INITRAMFS,
    layout::ISO_FILE_INITRAMFS,
    "sino/manifest.json",
    "sino/packages.txt",
];

/// Refuses an output that cannot be or must not be written, before any work is done.
///
/// # Errors
/// The folder or the ISO's name is a device or of another wrong kind, or nothing can be written there.
pub fn check(folder: &Path, iso: &str) -> Result<()> {
    for path in [folder.to_owned(), folder.join(iso)] {
        let Ok(facts) = fs::metadata(&path) else { continue };
        let kind = facts.file_type();
        if kind.is_block_device() || kind.is_char_device() {
            bail!(
                "{} is a device: this command makes files and never writes to devices; \
                 build an ISO and write it with: dd if=sino.iso of=/dev/sdX bs=1M",
                path.display()
            );
        }
    }
    if folder.exists() && !folder.is_dir() {
        bail!("the output {} is not a folder", folder.display());
    }
    if folder.join(iso).is_dir() {
        bail!("the output {} is a folder, not a file", folder.join(iso).display());
    }
    create_folder(folder).context("the output folder cannot be used")?;
    let probe = folder.join(".probe");
    fs::write(&probe, "").with_context(|| format!("the output folder {} cannot be written", folder.display()))?;
    fs::remove_file(&probe).with_context(|| format!("removing {}", probe.display()))
}

/// Puts the finished files into place.
///
/// # Errors
/// A file cannot be copied or renamed.
pub fn publish(built: &mut Built, medium: &Path, new_iso: &Path, progress: &Progress) -> Result<()> {
    let folder = built.iso.parent().context("the ISO has no folder")?.to_owned();
    let iso = built.iso.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let new = |name: &str| folder.join(format!(".{name}.new"));
    let rename = |name: &str| {
        fs::rename(new(name), folder.join(name)).with_context(|| format!("renaming {}", new(name).display()))
    };
    // An old ISO must not stand beside new files should this be interrupted.
    crate::cache::remove(&built.iso)?;
    let mut names: Vec<&str> = Vec::new();
    for path in BESIDE {
        let name = path.rsplit('/').next().unwrap_or(path);
        copy(&medium.join(path), &new(name))?;
        rename(name)?;
        names.push(name);
    }
    built.seconds = progress.durations();
    let json = serde_json::to_string_pretty(&built).context("writing the build's facts as JSON")? + "\n";
    fs::write(new("build.json"), json).with_context(|| format!("writing {}", new("build.json").display()))?;
    rename("build.json")?;
    fs::rename(new_iso, folder.join(&iso)).with_context(|| format!("renaming {}", new_iso.display()))?;
    let listed = |path: &str| path == iso || names.contains(&path);
    write_sums(&folder, &new("SHA256SUMS"), &listed)?;
    rename("SHA256SUMS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_that_cannot_be_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let refused = |folder: &Path, iso: &str| check(folder, iso).unwrap_err().to_string();
        assert!(refused(Path::new("/dev"), "null").contains("never writes to devices"));
        fs::write(place.path().join("file"), "").unwrap();
        assert!(refused(&place.path().join("file"), "x.iso").contains("is not a folder"));
        fs::create_dir(place.path().join("x.iso")).unwrap();
        assert!(refused(place.path(), "x.iso").contains("is a folder"));
        check(&place.path().join("new"), "x.iso").unwrap();
        assert!(place.path().join("new").is_dir());
    }
}
