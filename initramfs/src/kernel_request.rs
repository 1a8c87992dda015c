//! `modprobe` for the kernel itself: a file system that needs a code page, or a checksum that lives in a module, makes the
//! kernel execute the program named in `/proc/sys/kernel/modprobe`. In the initramfs that is this program.
//!
//! The kernel calls it as `PROGRAM -q -- NAME`. Source: kernel `kernel/module/kmod.c`.

use crate::drivers::Loader;
use crate::preparation;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs;

/// Where the kernel keeps the program's path.
const SETTING: &str = "/proc/sys/kernel/modprobe";
/// The program while stage one runs.
const OURS: &str = "/init";
/// What the kernel has from its configuration (`CONFIG_MODPROBE_PATH`), and what the new root needs again.
const DEBIANS: &str = "/sbin/modprobe";

/// Makes this program the kernel's modprobe. Where that fails, a file system's helper modules may be missing: the mount
/// then says so.
pub fn offer() {
    set(OURS);
}

/// Gives the task back to the new root's modprobe.
pub fn withdraw() {
    set(DEBIANS);
}

fn set(program: &str) {
    if let Err(error) = fs::write(SETTING, program) {
        log::warn!("{SETTING} could not be set to {program}: {error}");
    }
}

/// The name that the kernel asks for, if these are the arguments of such a call.
#[must_use]
pub fn requested(arguments: &[OsString]) -> Option<String> {
    match arguments {
        [quiet, dashes, name] if quiet == "-q" && dashes == "--" => name.to_str().map(str::to_owned),
        _ => None,
    }
}

/// Loads what the kernel asked for: a module, or whatever has that alias.
///
/// # Errors
/// The module table cannot be read, or nothing could be loaded.
pub fn serve(name: &str) -> Result<()> {
    let table = preparation::read_modules()?;
    let line = fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    let loader = Loader::new(table, &line);
    loader.load(name).map_err(anyhow::Error::msg)?;
    loader.load_for_alias(name, None);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_form_is_a_request() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(requested(&words(&["-q", "--", "nls_cp437"])).as_deref(), Some("nls_cp437"));
        assert_eq!(requested(&words(&["-q", "--"])), None);
        assert_eq!(requested(&words(&["--help"])), None);
    }
}
