//! The identity of a medium: what the ISO 9660 primary volume descriptor of a SINO image says.
//!
//! One read of [`SECTOR_SIZE`] bytes at [`SECTOR_OFFSET`] tells whether a device is a SINO medium and of which build,
//! without mounting anything. Source: ECMA-119, section 8.4 (primary volume descriptor).

/// Where the primary volume descriptor lies, in bytes from the start of the device.
pub const SECTOR_OFFSET: u64 = 32_768;
/// Length of the descriptor in bytes.
pub const SECTOR_SIZE: usize = 2048;
/// The volume identifier of every SINO image.
pub const VOLUME_ID: &str = "SINO";

/// What a primary volume descriptor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Volume identifier: `SINO` on our media.
    pub volume_id: String,
    /// Volume set identifier: the build id on our media.
    pub set_id: String,
    /// Application identifier: `SINO VERSION` on our media.
    pub application_id: String,
    /// Length of the volume in bytes; a medium that is shorter was not written to its end.
    pub bytes: u64,
}

impl Volume {
    /// Whether the volume is a SINO medium, of whatever build.
    #[must_use]
    pub fn is_sino(&self) -> bool {
        self.volume_id == VOLUME_ID && self.application_id.starts_with("SINO ")
    }

    /// SINO's version on the medium, or an empty text when it is another volume.
    #[must_use]
    pub fn version(&self) -> &str {
        self.application_id.strip_prefix("SINO ").unwrap_or_default()
    }
}

/// Reads a primary volume descriptor; `None` if `sector` is not one.
#[must_use]
pub fn parse(sector: &[u8]) -> Option<Volume> {
    // Byte 0: type 1 (primary). Bytes 1 to 5: "CD001". Byte 6: version 1.
    if sector.get(..7)? != b"\x01CD001\x01" {
        return None;
    }
    Some(Volume {
        volume_id: field(sector, 40, 32)?,
        set_id: field(sector, 190, 128)?,
        application_id: field(sector, 574, 128)?,
        // The number of logical blocks of 2048 bytes, in both byte orders.
        bytes: u64::from(u32::from_le_bytes(*sector.get(80..)?.first_chunk()?)) * SECTOR_SIZE as u64,
    })
}

/// A space-padded text field; bytes that are not printable ASCII become '?', so that it can go to a console.
fn field(sector: &[u8], start: usize, length: usize) -> Option<String> {
    let bytes = sector.get(start..start.checked_add(length)?)?;
    let text: String = bytes
        .iter()
        .map(|&byte| {
            if byte == 0 {
                ' '
            } else if (0x20..0x7f).contains(&byte) {
                char::from(byte)
            } else {
                '?'
            }
        })
        .collect();
    Some(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn descriptor(volume: &str, set: &str, application: &str) -> Vec<u8> {
        let mut sector = vec![b' '; SECTOR_SIZE];
        for (at, text) in [(0, "\x01CD001\x01"), (40, volume), (190, set), (574, application)] {
            sector[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        sector
    }

    #[test]
    fn a_sino_medium_is_known_by_its_descriptor() {
        let volume = parse(&descriptor("SINO", "20261123-a1b2c3", "SINO 0.1.0")).unwrap();
        assert!(volume.is_sino());
        assert_eq!((volume.set_id.as_str(), volume.version()), ("20261123-a1b2c3", "0.1.0"));
        let mut sector = descriptor("SINO", "x", "SINO 1");
        sector[80..88].copy_from_slice(&[0, 1, 0, 0, 0, 0, 1, 0]);
        assert_eq!(parse(&sector).unwrap().bytes, 256 * 2048);
    }

    #[test]
    fn other_volumes_are_not() {
        assert!(!parse(&descriptor("Debian 13", "", "")).unwrap().is_sino());
        assert!(!parse(&descriptor("SINO", "x", "OTHER")).unwrap().is_sino());
        assert_eq!(parse(b"\x01CD001"), None);
        assert_eq!(parse(&[0; SECTOR_SIZE]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_put_control_characters_on_the_console(mut bytes in proptest::collection::vec(any::<u8>(), 0..2100)) {
            if bytes.len() > 7 { bytes[..7].copy_from_slice(b"\x01CD001\x01"); }
            if let Some(volume) = parse(&bytes) {
                prop_assert!(!volume.set_id.chars().any(char::is_control));
            }
        }
    }
}
