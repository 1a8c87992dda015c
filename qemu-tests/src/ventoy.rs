//! What Ventoy leaves in memory for the system that it starts: the record with the path of the ISO file.
//!
//! Source: Ventoy's documentation, "Ventoy Information Format". Of the ways in which it is handed over, QEMU can do the ACPI
//! table.

use crate::carriers::ISO_PATH;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Length of the record in bytes.
const LENGTH: usize = 512;

/// Writes the record for an ISO file at [`ISO_PATH`] on the first partition of an exFAT disk; `file` becomes what follows the
/// table's header.
///
/// # Errors
/// The file cannot be written.
pub fn record(iso: &Path, file: &Path) -> Result<PathBuf> {
    let length = fs::metadata(iso).with_context(|| format!("looking at {}", iso.display()))?.len();
    let mut bytes = vec![0_u8; LENGTH];
    let mut put = |at: usize, value: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(value) {
            *to = *from;
        }
    };
    put(0, b"  www.ventoy.net");
    put(41, &1_u16.to_le_bytes());
    put(45, ISO_PATH.as_bytes());
    put(429, &length.to_le_bytes());
    // The byte at 16 makes the sum of all bytes zero.
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes.iter_mut().skip(16).take(1).for_each(|byte| *byte = 0_u8.wrapping_sub(sum));
    fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))?;
    Ok(file.to_owned())
}
