//! What is said when a volume has no room: the same words from everybody who writes to it.

use anyhow::Error;
use rustix::fs::statvfs;
use std::io;
use std::path::Path;

/// Explains why something could not be written to the volume that is mounted on `volume`, if it is that there is no room; any
/// other error stays as it is.
#[must_use]
pub fn explained(volume: &Path, error: io::Error) -> Error {
    if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Error::new(error);
    }
    // Not counted by every file system; those that do have their files in a table of a fixed size.
    let no_files = statvfs(volume).is_ok_and(|facts| facts.f_files > 0 && facts.f_favail == 0);
    let (what, option) = if no_files { (" for one more file", "-i ") } else { ("", "-h ") };
    let name = volume.display();
    Error::new(error).context(format!(
        "{name} is full, no space is left{what}: see df {option}{name}, and remove what is not needed (du -x {name} tells where it is)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_volume_is_said_to_be_full() {
        let said = |kind: io::ErrorKind| format!("{:#}", explained(Path::new("/"), kind.into()));
        assert!(said(io::ErrorKind::StorageFull).contains("df "), "{}", said(io::ErrorKind::StorageFull));
        assert!(!said(io::ErrorKind::PermissionDenied).contains("full"));
    }
}
