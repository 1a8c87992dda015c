//! Programs and firmware that xl runs or loads for a guest: boot loader, device model, pvgrub.

use super::files::Kind as FileKind;
use super::{Found, Host};
use crate::guests::xl_config::{GuestConfig, Kind};

/// Where programs are looked for by name, as systemd's services and the hand-over have it.
const PATH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Debian's device model for Xen (package qemu-system-xen), and those that libxl takes elsewhere.
const DEVICE_MODELS: &[&str] = &[
    "/usr/libexec/xen-qemu-system-i386",
    "/usr/lib/xen/bin/qemu-system-i386",
    "/usr/bin/qemu-system-i386",
    "/usr/bin/qemu-system-x86_64",
];
/// What `firmware` of an HVM guest says without naming a file.
const FIRMWARE_WORDS: &[&str] = &["bios", "uefi", "seabios", "rombios", "ovmf"];

pub(super) fn check(host: Host<'_>, config: &GuestConfig, found: &mut Found) {
    let xen = xen_folders(host);
    let program = |path: &str| {
        host.files.see(path).is_ok_and(|seen| matches!(seen.kind, FileKind::File { .. }) && seen.executable)
    };
    let hvm = config.kind.value == Kind::Hvm;
    if let (Some(loader), false) = (&config.bootloader, hvm) {
        bootloader(&loader.value, loader.line, &xen, &program, found);
    }
    if let Some(firmware) = &config.firmware {
        let word = firmware.value.as_str();
        if !hvm {
            let there = xen.iter().any(|folder| host.files.see(&format!("{folder}/boot/{word}.bin")).is_ok());
            if !there {
                let what = format!("firmware {word} is not installed ({word}.bin)");
                found.refuse(firmware.line, &what, "bootloader = \"pygrub\", or kernel and ramdisk of the host");
            }
        } else if word.starts_with('/') && host.files.see(word).is_err() {
            let what = format!("firmware {word} does not exist");
            found.refuse(firmware.line, &what, &format!("correct the path, or one of {}", FIRMWARE_WORDS.join(", ")));
        }
    }
    if !hvm {
        return;
    }
    match &config.device_model {
        Some(model) if !program(&model.value) => {
            let what = format!("device_model_override {} is not there, or no program", model.value);
            found.refuse(model.line, &what, "correct the path, or leave it out");
        }
        Some(_) => {}
        None => {
            let of_xen = xen.iter().any(|folder| program(&format!("{folder}/bin/qemu-system-i386")));
            if !of_xen && !DEVICE_MODELS.iter().any(|path| program(path)) {
                // Only a warning: libxl's own path is built in and may differ.
                let what = "no device model is seen, which an HVM guest needs";
                found.warn(config.kind.line, what, "an image with the package qemu-system-xen; or type = \"pvh\"");
            }
        }
    }
}

/// A boot loader: a path, or a name in Xen's own folder or in `PATH`.
fn bootloader(name: &str, line: usize, xen: &[String], program: &dyn Fn(&str) -> bool, found: &mut Found) {
    if name.starts_with('/') {
        if !program(name) {
            let base = name.rsplit('/').next().unwrap_or(name);
            let what =
                format!("bootloader {name} is not there, or no program (paths with Xen's version change with it)");
            found.refuse(line, &what, &format!("bootloader = \"{base}\", which xl finds by itself"));
        }
        return;
    }
    let folders =
        xen.iter().map(|folder| format!("{folder}/bin")).chain(PATH.iter().map(|folder| (*folder).to_owned()));
    if name.is_empty() || !folders.into_iter().any(|folder| program(&format!("{folder}/{name}"))) {
        let what = format!("bootloader {name:?} is neither in Xen's own folder nor in PATH");
        found.refuse(line, &what, "\"pygrub\" (package xen-utils), or kernel and ramdisk of the host");
    }
}

/// The folders of Xen's programs and firmware; Debian has one for each version.
fn xen_folders(host: Host<'_>) -> Vec<String> {
    let mut folders: Vec<_> = ["/usr/lib", "/usr/libexec", "/usr/local/lib", "/usr/local/libexec"]
        .iter()
        .flat_map(|above| {
            let names = host.files.list(above).into_iter();
            names.filter(|name| name == "xen" || name.starts_with("xen-")).map(move |name| format!("{above}/{name}"))
        })
        .collect();
    folders.sort();
    folders
}
