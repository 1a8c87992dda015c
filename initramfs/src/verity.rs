//! dm-verity over the root image: every block is compared with the tree behind it when it is read, and the tree with the
//! root hash of the manifest. A wrong block is an I/O error, never wrong bytes.
//!
//! Source: kernel `Documentation/admin-guide/device-mapper/verity.rst`.

use crate::device_mapper::{self, Target};
use anyhow::{Context, Result};
use sino_boot::layout;
use sino_boot::manifest::{VERITY_BLOCK, Verity};
use std::fs;

/// Begins the UUID of a device that veritysetup(8) knows as its own, so that its `status` works.
const UUID_PREFIX: &str = "CRYPT-VERITY-";

/// Makes the verified device over `device` (a `/dev/loopN` with the root image) and returns its path.
///
/// # Errors
/// The kernel's refusal.
pub fn open(device: &str, verity: &Verity) -> Result<String> {
    let uuid = format!("{UUID_PREFIX}{}-{}", verity.root_hash.get(..32).unwrap_or_default(), layout::VERITY_DEVICE);
    device_mapper::create(layout::VERITY_DEVICE, &uuid, &[target(&number(device)?, verity)])
}

/// The line of the table: version 1, data and hash device, both block sizes, number of data blocks, first hash block (behind
/// the superblock), algorithm, root hash, salt.
fn target(device: &str, verity: &Verity) -> Target {
    let blocks = verity.data_size / VERITY_BLOCK;
    let salt = if verity.salt.is_empty() { "-" } else { &verity.salt };
    let parameters = format!(
        "1 {device} {device} {VERITY_BLOCK} {VERITY_BLOCK} {blocks} {} sha256 {} {salt}",
        blocks + 1,
        verity.root_hash
    );
    Target { start: 0, length: verity.data_size / 512, kind: "verity", parameters }
}

fn number(device: &str) -> Result<String> {
    let name = device.strip_prefix("/dev/").unwrap_or(device);
    let number = fs::read_to_string(format!("/sys/class/block/{name}/dev"))
        .with_context(|| format!("asking for the number of {device}"))?;
    Ok(number.trim().to_owned())
}

/// Removes the verified device.
///
/// # Errors
/// It is not there, or in use.
pub fn close() -> Result<()> {
    device_mapper::remove(layout::VERITY_DEVICE)
}

/// Whether a wrong block was read.
#[must_use]
pub fn has_seen_damage() -> bool {
    device_mapper::status(layout::VERITY_DEVICE).is_ok_and(|status| status.starts_with('C'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_that_veritysetup_makes() {
        let verity = Verity { data_size: 40_960, root_hash: "ab".repeat(32), salt: "5a".into() };
        let target = target("7:0", &verity);
        assert_eq!((target.start, target.length, target.kind), (0, 80, "verity"));
        assert_eq!(target.parameters, format!("1 7:0 7:0 4096 4096 10 11 sha256 {} 5a", "ab".repeat(32)));
    }
}
