//! A Debian repository of one empty package for the time of a tree's build.
//!
//! Debian's kernel package depends on a program that makes an initramfs. SINO makes its own, so the package
//! `sino-initramfs` provides that name and keeps initramfs-tools, and the initramfs that it would make, out of the tree.

use crate::cache::create_folder;
use crate::command;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The package's name.
pub const PACKAGE: &str = "sino-initramfs";

const CONTROL: &str = "\
Package: sino-initramfs
Version: 1.0
Architecture: all
Maintainer: SINO <sino@localhost>
Provides: linux-initramfs-tool
Description: stands for the initramfs that SINO's image builder makes
 Debian's kernel asks for a program that makes an initramfs. SINO brings its
 own initramfs on the boot medium, so this package is empty.
";

const FILE: &str = "sino-initramfs_1.0_all.deb";

/// Makes the repository in `folder` and returns its line for apt's sources.
///
/// # Errors
/// The folder cannot be written, or dpkg-deb fails.
pub fn make(folder: &Path) -> Result<String> {
    let source = folder.join("source");
    create_folder(&source.join("DEBIAN"))?;
    let control = source.join("DEBIAN/control");
    fs::write(&control, CONTROL).with_context(|| format!("writing {}", control.display()))?;
    let package = folder.join(FILE);
    command::run(Command::new("dpkg-deb").args(["--root-owner-group", "-Zxz", "--build"]).arg(&source).arg(&package))?;
    let sum = command::run(Command::new("sha256sum").arg("--").arg(&package))?;
    let size = fs::metadata(&package).with_context(|| format!("reading {}", package.display()))?.len();
    let index = index(CONTROL, size, &String::from_utf8_lossy(&sum));
    let packages = folder.join("Packages");
    fs::write(&packages, index).with_context(|| format!("writing {}", packages.display()))?;
    Ok(format!("deb [trusted=yes] copy:{} ./", folder.display()))
}

/// The package's entry in a repository's index.
fn index(control: &str, size: u64, sha256sum: &str) -> String {
    let sum = sha256sum.split(' ').next().unwrap_or_default();
    format!("{control}Filename: ./{FILE}\nSize: {size}\nSHA256: {sum}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_has_what_apt_wants() {
        let text = index(CONTROL, 700, "abc  /x/y.deb\n");
        assert!(text.contains("\nProvides: linux-initramfs-tool\n") && text.ends_with("\nSize: 700\nSHA256: abc\n"));
        assert!(!text.contains("\n\n"));
    }
}
