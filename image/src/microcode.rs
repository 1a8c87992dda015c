//! The CPU microcode archive that goes in front of the initramfs: an uncompressed cpio with one file for each maker.
//!
//! Xen (`ucode=scan`) and Linux look for exactly these paths at the very start of the initramfs file. The archive does
//! not count towards the initramfs's limit: it is never unpacked, and can be left out with `microcode = "off"`.
//! Source: the kernel's Documentation/arch/x86/microcode.rst.

use crate::cpio::Archive;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// The folder of the tree's firmware, and the file that its content becomes.
const MAKERS: &[(&str, &str)] = &[("amd-ucode", "AuthenticAMD.bin"), ("intel-ucode", "GenuineIntel.bin")];

/// The archive, or nothing when no microcode is installed in the tree.
///
/// # Errors
/// The firmware cannot be read.
pub fn archive(tree: &Path, epoch: u64) -> Result<Option<Vec<u8>>> {
    let mut archive = Archive::new();
    let mut any = false;
    for (folder, file) in MAKERS {
        let content = joined(&tree.join("usr/lib/firmware").join(folder))?;
        if !content.is_empty() {
            archive.file(&format!("kernel/x86/microcode/{file}"), 0o644, content)?;
            any = true;
        }
    }
    any.then(|| archive.to_bytes(epoch)).transpose()
}

/// All files of a folder in the order of their names; nothing when there is no such folder.
fn joined(folder: &Path) -> Result<Vec<u8>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let reading = || format!("reading {}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Updates that misbehave when the running system loads them are named .initramfs: early loading is for them.
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        if path.is_file() && matches!(extension, "" | "bin" | "initramfs") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut content = Vec::new();
    for path in paths {
        content.extend(fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_that_are_there_are_in_it() {
        let tree = tempfile::tempdir().unwrap();
        assert_eq!(archive(tree.path(), 1).unwrap(), None);
        let folder = tree.path().join("usr/lib/firmware/amd-ucode");
        fs::create_dir_all(&folder).unwrap();
        for (name, content) in [("b.bin", "two"), ("a.bin", "one"), ("README.txt", "no")] {
            fs::write(folder.join(name), content).unwrap();
        }
        let bytes = archive(tree.path(), 1).unwrap().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("kernel/x86/microcode/AuthenticAMD.bin") && text.contains("onetwo"));
        assert!(!text.contains("GenuineIntel") && !text.contains("no\0"));
    }
}
