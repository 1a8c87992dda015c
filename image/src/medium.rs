//! Lays out the folder that becomes the medium: the system, the menus, the boot programs, checksums.

use crate::cache::{create_folder, file_hash};
use crate::menu::Menu;
use crate::{command, iso, menu_grub, menu_isolinux};
use anyhow::{Context, Result};
use sino_boot::layout;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What goes onto the medium.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The menu, which knows the build id.
    pub menu: &'a Menu,
    /// The root image.
    pub root_image: &'a Path,
    /// The EFI partition's content, whose sum goes onto the medium.
    pub efi_image: &'a Path,
    /// The kernel.
    pub kernel: &'a Path,
    /// The hypervisor.
    pub xen: &'a Path,
    /// The initramfs.
    pub initramfs: &'a Path,
    /// The initramfs for a medium that is an ISO file.
    pub iso_file_initramfs: &'a Path,
    /// The manifest's text.
    pub manifest: &'a str,
    /// The list of packages.
    pub packages: &'a str,
    /// Damages the root image (for tests).
    pub damage: Option<fn(&Path) -> Result<()>>,
}

const README: &str = "\
SINO, a live system for Xen hosts.

Write this medium to a stick:   dd if=sino.iso of=/dev/sdX bs=1M
Check its files:                sha256sum -c SHA256SUMS
sino/packages.txt lists the Debian packages in it; their source code is in the Debian archive.
";

/// Fills the new folder `folder`.
///
/// # Errors
/// A file cannot be written or read.
pub fn lay_out(folder: &Path, contents: &Contents<'_>) -> Result<()> {
    let menu = contents.menu;
    for name in ["sino/build", "boot/grub"] {
        create_folder(&folder.join(name))?;
    }
    let id_line = format!("{}\n", menu.build_id);
    for (name, text) in [
        (layout::BUILD_ID_FILE, id_line.as_str()),
        (&menu_grub::marker(&menu.build_id), &id_line),
        ("sino/manifest.json", contents.manifest),
        ("sino/packages.txt", contents.packages),
        ("boot/grub/grub.cfg", &menu_grub::config(menu)),
        ("boot/grub/loopback.cfg", &menu_grub::loopback(menu)),
        ("README.txt", README),
        // Tells Ventoy that this system finds its ISO file by itself (Ventoy's documentation, "Ventoy Compatible").
        ("ventoy.dat", ""),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let length = fs::metadata(contents.efi_image).context("looking at the EFI partition's content")?.len();
    let sum = folder.join(layout::EFI_SUM);
    fs::write(&sum, format!("{} {length}\n", file_hash(contents.efi_image)?))
        .with_context(|| format!("writing {}", sum.display()))?;
    for (source, name) in [
        (contents.kernel, "sino/vmlinuz"),
        (contents.xen, "sino/xen.gz"),
        (contents.initramfs, layout::INITRAMFS),
        (contents.iso_file_initramfs, layout::ISO_FILE_INITRAMFS),
    ] {
        copy(source, &folder.join(name))?;
    }
    let root_image = folder.join(layout::ROOT_IMAGE);
    if contents.damage.is_none() {
        link_or_copy(contents.root_image, &root_image)?;
    } else {
        copy(contents.root_image, &root_image)?;
    }
    iso::add_isolinux(folder)?;
    let config = folder.join("isolinux/isolinux.cfg");
    fs::write(&config, menu_isolinux::config(menu)).with_context(|| format!("writing {}", config.display()))?;
    // isolinux.bin is left out: the ISO's own copy gets a table of where it lies.
    let covered = |path: &str| path != "isolinux/isolinux.bin";
    write_file_sums(folder, &covered)?;
    write_sums(folder, &folder.join("SHA256SUMS"), &covered)?;
    // Last, so that every list tells of the damage.
    contents.damage.map_or(Ok(()), |damage| damage(&root_image))
}

/// Writes the SHA-256 sums of all files below `folder` that `wanted` takes, sorted, with relative paths.
///
/// # Errors
/// A file cannot be read, or the list not be written.
pub fn write_sums(folder: &Path, list: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    let files = files(folder, wanted)?;
    let sums = command::run(Command::new("sha256sum").arg("--").args(&files).current_dir(folder))?;
    fs::write(list, sums).with_context(|| format!("writing {}", list.display()))
}

/// Writes the BLAKE3 sums of all files below `folder` that `wanted` takes to [`layout::FILE_SUMS`], sorted, with
/// relative paths.
fn write_file_sums(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    let mut text = String::new();
    for file in files(folder, wanted)? {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {file}", file_hash(&folder.join(&file))?);
    }
    let list = folder.join(layout::FILE_SUMS);
    fs::write(&list, text).with_context(|| format!("writing {}", list.display()))
}

/// The files below `folder` that `wanted` takes, as sorted relative paths.
fn files(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut files = Vec::new();
    collect(folder, folder, &mut files)?;
    files.retain(|path| wanted(path));
    files.sort();
    Ok(files)
}

fn collect(top: &Path, folder: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading the folder {}", folder.display()))?.path();
        if path.is_dir() {
            collect(top, &path, files)?;
        } else if let Ok(relative) = path.strip_prefix(top) {
            files.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Copies a file.
///
/// # Errors
/// It cannot be read or written.
pub fn copy(source: &Path, target: &Path) -> Result<()> {
    fs::copy(source, target).with_context(|| format!("copying {} to {}", source.display(), target.display()))?;
    Ok(())
}

/// The same file under a second name where the file system can do that.
fn link_or_copy(source: &Path, target: &Path) -> Result<()> {
    if fs::hard_link(source, target).is_ok() { Ok(()) } else { copy(source, target) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_relative_sorted_and_checkable() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("b")).unwrap();
        for name in ["b/file", "a", "skip"] {
            fs::write(place.path().join(name), name).unwrap();
        }
        let list = place.path().join("SHA256SUMS");
        write_sums(place.path(), &list, &|path| path != "skip").unwrap();
        let text = fs::read_to_string(&list).unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| line.split("  ").nth(1)).collect();
        assert_eq!(names, ["a", "b/file"]);
        command::run(Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(place.path())).unwrap();
        fs::create_dir(place.path().join("sino")).unwrap();
        write_file_sums(place.path(), &|path| path.starts_with('b') || path == "a").unwrap();
        let sums = ["a", "b/file"].map(|name| format!("{}  {name}\n", blake3::hash(name.as_bytes()).to_hex())).concat();
        assert_eq!(fs::read_to_string(place.path().join(layout::FILE_SUMS)).unwrap(), sums);
    }
}
