//! What Ventoy leaves for the system that it starts: on which disk, and under which path, the ISO file lies.
//!
//! Ventoy starts an ISO with the ISO's own boot loader and takes itself out of the way; Linux then sees a disk with
//! many files and no medium. A record of 512 bytes says which file it was. This module reads that record and nothing of
//! any disk: whether the file is there, and whether it carries the right build, is for the caller to find out.
//!
//! Sources: Ventoy's documentation, "Ventoy Information Format" and "How Ventoy Information Passed To OS"
//! (`doc_compatible_format.html`, `doc_compatible_pass.html`); for the ACPI table its GRUB command `vt_acpi_param`, and
//! for the file in the initramfs its `vt_load_cpio`, both as of 1.1.17.

use crate::carrier;
use crate::mounts::{self, Mount};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Length of the record in bytes.
pub const RECORD_SIZE: usize = 512;
/// What a record begins with: the text `  www.ventoy.net`, which Ventoy writes as a GUID.
pub const MAGIC: &[u8; 16] = b"  www.ventoy.net";
/// The file with the record in an initramfs that Ventoy has added its own files to. It does so only if it knows the
/// ISO's initramfs, which it looks for in lines that begin with `initrd`.
pub const INITRAMFS_FILE: &str = "ventoy/ventoy_os_param";
/// The ACPI table with the record. Ventoy makes it only if its own `VTOY_PARAM_NO_ACPI` is 0.
pub const ACPI_TABLE: &str = "sys/firmware/acpi/tables/VTOY";
/// Where efivarfs is mounted for the moment of reading; its driver of the same name must be loaded, or must be one that
/// the kernel can ask for.
pub const EFI_VARIABLES: &str = "/sys/firmware/efi/efivars";
/// The EFI variable with the record: below [`EFI_VARIABLES`]. It is volatile, so it is of this boot.
pub const EFI_VARIABLE: &str = "sys/firmware/efi/efivars/VentoyOsParam-77772020-2e77-6576-6e74-6f792e6e6574";
/// What says that the machine was started by EFI.
const EFI: &str = "sys/firmware/efi";
/// Where Ventoy leaves the record on a machine with a BIOS: on a multiple of 16 in this part of the memory.
const LOW_MEMORY: std::ops::Range<u64> = 0x8_0000..0xa_0000;

/// Length of the header of an ACPI table. Source: ACPI 6.5, section 5.2.6.
const ACPI_HEADER: usize = 36;
/// The attributes in front of a variable's bytes. Source: kernel, `Documentation/filesystems/efivarfs.rst`.
const EFI_ATTRIBUTES: usize = 4;

/// Where the ISO file of this boot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The ISO file's absolute path on its file system; without `..` and control characters.
    pub path: String,
    /// The ISO file's length in bytes.
    pub size: u64,
    /// The number of the partition, from 1.
    pub partition: u16,
    /// The partition's file system by the name of its driver's family, for people.
    pub file_system: &'static str,
    /// The disk's length in bytes as the firmware gave it; Ventoy advises against relying on it.
    pub disk_size: u64,
    /// The 16 bytes at [`DISK_GUID_OFFSET`] of the disk. Not the GUID of a GPT.
    pub disk_guid: [u8; 16],
    /// The 4 bytes at [`DISK_SIGNATURE_OFFSET`] of the disk.
    pub disk_signature: [u8; 4],
}

/// Where [`Handover::disk_guid`] lies on the disk.
pub const DISK_GUID_OFFSET: usize = 384;
/// Where [`Handover::disk_signature`] lies on the disk.
pub const DISK_SIGNATURE_OFFSET: usize = 440;

impl Handover {
    /// Whether the disk that begins with these bytes (at least 444) is the one that is meant.
    #[must_use]
    pub fn is_on(&self, first_sector: &[u8]) -> bool {
        let at = |start: usize, wanted: &[u8]| first_sector.get(start..).is_some_and(|rest| rest.starts_with(wanted));
        at(DISK_GUID_OFFSET, &self.disk_guid) && at(DISK_SIGNATURE_OFFSET, &self.disk_signature)
    }
}

/// What Ventoy left for this boot, if the machine was started by it. What cannot be read is not there.
#[must_use]
pub fn handover() -> Option<Handover> {
    let root = Path::new("/");
    if let Some(found) = handover_in(root) {
        return Some(found);
    }
    if !root.join(EFI).exists() {
        return None;
    }
    let attributes = carrier::READ_ONLY;
    let variables = Mount { fs: "efivarfs", source: "efivarfs", target: EFI_VARIABLES, attributes, options: &[] };
    if let Err(error) = mounts::mount(&variables) {
        log::debug!("Ventoy's EFI variable cannot be looked for: {error:#}");
        return None;
    }
    let found = handover_in(root);
    // The new root's systemd mounts it again, for writing. If this one stayed, nobody could set a variable.
    let _ = mounts::release(EFI_VARIABLES);
    found
}

/// [`handover`] below another root folder, without mounting anything.
#[must_use]
pub fn handover_in(root: &Path) -> Option<Handover> {
    let from = |file: &str, read: fn(&[u8]) -> Option<Handover>| read(&fs::read(root.join(file)).ok()?);
    from(INITRAMFS_FILE, parse)
        .or_else(|| from(ACPI_TABLE, from_acpi))
        .or_else(|| from(EFI_VARIABLE, from_efi_variable))
        .or_else(|| if root.join(EFI).exists() { None } else { from_memory(&low_memory(&root.join("dev/mem"))?) })
}

/// The kernel shows pages of RAM as zeros here, and the others as they are: Ventoy takes its page out of the RAM.
/// Source: kernel, `devmem_is_allowed` in `arch/x86/mm/init.c`.
fn low_memory(device: &Path) -> Option<Vec<u8>> {
    let mut area = vec![0; usize::try_from(LOW_MEMORY.end - LOW_MEMORY.start).ok()?];
    File::open(device).ok()?.read_exact_at(&mut area, LOW_MEMORY.start).ok()?;
    Some(area)
}

/// Reads a record; what follows it is not looked at. `None` if it is none, or if its path cannot be used.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Handover> {
    let record = bytes.get(..RECORD_SIZE)?;
    // The byte at 16 makes the sum of all bytes zero.
    let sum = record.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    if !record.starts_with(MAGIC) || sum != 0 {
        return None;
    }
    Some(Handover {
        disk_guid: field(record, 17)?,
        disk_size: u64::from_le_bytes(field(record, 33)?),
        partition: u16::from_le_bytes(field(record, 41)?),
        file_system: file_system(u16::from_le_bytes(field(record, 43)?)),
        path: path(record.get(45..429)?)?,
        size: u64::from_le_bytes(field(record, 429)?),
        // 437 to 449: where Ventoy has put the file's extents, which nobody needs who mounts the file system. 449 to
        // 481: Ventoy's own.
        disk_signature: field(record, 481)?,
    })
}

/// Reads the ACPI table: header, record, and extents, which are not looked at.
#[must_use]
pub fn from_acpi(table: &[u8]) -> Option<Handover> {
    let length = usize::try_from(u32::from_le_bytes(field(table, 4)?)).ok()?;
    if !table.starts_with(b"VTOY") {
        return None;
    }
    parse(table.get(..length)?.get(ACPI_HEADER..)?)
}

/// Reads the EFI variable as efivarfs shows it.
#[must_use]
pub fn from_efi_variable(file: &[u8]) -> Option<Handover> {
    parse(file.get(EFI_ATTRIBUTES..)?)
}

/// Searches a piece of memory for the record.
#[must_use]
pub fn from_memory(area: &[u8]) -> Option<Handover> {
    (0..area.len()).step_by(16).find_map(|start| parse(area.get(start..)?))
}

fn field<const LENGTH: usize>(bytes: &[u8], start: usize) -> Option<[u8; LENGTH]> {
    bytes.get(start..)?.first_chunk().copied()
}

fn file_system(number: u16) -> &'static str {
    match number {
        0 => "exfat",
        1 => "ntfs",
        2 => "ext2/3/4",
        3 => "xfs",
        4 => "udf",
        5 => "vfat",
        6 => "btrfs",
        _ => "another file system",
    }
}

/// The text up to the first zero byte, if it is an absolute path that stays where it is and can be shown.
fn path(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|&byte| byte == 0).next().filter(|text| text.len() < bytes.len())?;
    let path = std::str::from_utf8(text).ok()?;
    let plain = path.strip_prefix('/')?.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (plain && !path.chars().any(char::is_control)).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Handover {
        Handover {
            path: "/iso/sino 0.1 (ü).iso".into(),
            size: 308_314_112,
            partition: 1,
            file_system: "exfat",
            disk_size: 1 << 35,
            disk_guid: *b"0123456789abcdef",
            disk_signature: [0xde, 0xad, 0xbe, 0xef],
        }
    }

    fn record(handover: &Handover) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_SIZE];
        let fields: [(usize, &[u8]); 8] = [
            (0, MAGIC),
            (17, &handover.disk_guid),
            (33, &handover.disk_size.to_le_bytes()),
            (41, &handover.partition.to_le_bytes()),
            (45, handover.path.as_bytes()),
            (429, &handover.size.to_le_bytes()),
            (445, &40_u32.to_le_bytes()),
            (481, &handover.disk_signature),
        ];
        for (start, field) in fields {
            bytes[start..start + field.len()].copy_from_slice(field);
        }
        seal(&mut bytes);
        bytes
    }

    fn seal(bytes: &mut [u8]) {
        bytes[16] = 0;
        bytes[16] = bytes[..RECORD_SIZE].iter().fold(0_u8, |sum, &byte| sum.wrapping_sub(byte));
    }

    fn table(record: &[u8]) -> Vec<u8> {
        let mut table = b"VTOY\0\0\0\0\x01\0VENTOYOSPARAMS\x01\0\0\0\x01\0\0\0\x01\0\0\0".to_vec();
        assert_eq!(table.len(), ACPI_HEADER);
        table.extend_from_slice(record);
        table.extend_from_slice(MAGIC);
        let length = u32::try_from(table.len()).unwrap();
        table[4..8].copy_from_slice(&length.to_le_bytes());
        table
    }

    #[test]
    fn the_four_forms_are_read() {
        let bytes = record(&sample());
        assert_eq!(parse(&bytes), Some(sample()));
        assert_eq!(from_acpi(&table(&bytes)), Some(sample()));
        assert_eq!(from_efi_variable(&[&[6, 0, 0, 0], bytes.as_slice()].concat()), Some(sample()));
        assert_eq!(from_memory(&[&[0xff; 160], bytes.as_slice(), &[0xff; 5]].concat()), Some(sample()));
    }

    #[test]
    fn what_is_cut_short_or_altered_is_not_believed() {
        let bytes = record(&sample());
        for at in [0, 15, 16, 20, 45, 100, 500, 511] {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert_eq!(parse(&altered), None, "{at}");
        }
        assert_eq!(parse(&bytes[..511]), None);
        assert_eq!(parse(&[0; RECORD_SIZE]), None);
        let table = table(&bytes);
        assert_eq!(from_acpi(&table[..table.len() - 1]), None);
        assert_eq!(from_acpi(&[b"SSDT", &table[4..]].concat()), None);
        assert_eq!(from_efi_variable(&bytes), None);
        assert_eq!(from_memory(&[&[0; 8], bytes.as_slice()].concat()), None);
    }

    #[test]
    fn a_path_that_leads_elsewhere_or_cannot_be_shown_is_not_taken() {
        for path in ["", "/", "x.iso", "/../x.iso", "/a/./x", "/a//x", "/a/..", "/a\n", "/\u{9b}2J"] {
            assert_eq!(parse(&record(&Handover { path: path.into(), ..sample() })), None, "{path:?}");
        }
        let long = |length: usize| record(&Handover { path: format!("/{}", "x".repeat(length - 1)), ..sample() });
        assert_eq!(parse(&long(383)).map(|handover| handover.path.len()), Some(383));
        assert_eq!(parse(&long(384)), None);
        let mut bytes = record(&sample());
        bytes[46] = 0xff;
        seal(&mut bytes);
        assert_eq!(parse(&bytes), None);
    }

    #[test]
    fn the_disk_is_known_by_its_first_sector() {
        let mut sector = vec![0; 512];
        sector[384..400].copy_from_slice(&sample().disk_guid);
        assert!(!sample().is_on(&sector));
        sector[440..444].copy_from_slice(&sample().disk_signature);
        assert!(sample().is_on(&sector) && sample().is_on(&sector[..444]));
        assert!(!sample().is_on(&sector[..443]) && !sample().is_on(&[]));
    }

    #[test]
    fn it_is_found_wherever_ventoy_leaves_it() {
        let bytes = record(&sample());
        let mut memory = vec![0; 0xa_0000];
        memory[0x9_d7a0..][..RECORD_SIZE].copy_from_slice(&bytes);
        for (file, content, found) in [
            ("ventoy/ventoy_os_param", [&bytes[..], &[0; 700]].concat(), true),
            ("sys/firmware/acpi/tables/VTOY", table(&bytes), true),
            (EFI_VARIABLE, [&[6, 0, 0, 0], &bytes[..]].concat(), true),
            ("dev/mem", memory, true),
            ("dev/mem", bytes.clone(), false),
            ("sys/firmware/acpi/tables/SSDT", table(&bytes), false),
        ] {
            let root = tempfile::tempdir().unwrap();
            assert_eq!(handover_in(root.path()), None);
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
            assert_eq!(handover_in(root.path()), found.then(sample), "{file}");
            if file == "dev/mem" {
                fs::create_dir_all(root.path().join(EFI)).unwrap();
                assert_eq!(handover_in(root.path()), None);
            }
        }
    }

    #[test]
    fn the_folder_of_the_variables_is_the_one_that_is_read() {
        let (folder, name) = EFI_VARIABLE.rsplit_once('/').unwrap();
        assert_eq!(format!("/{folder}"), EFI_VARIABLES);
        // The bytes of a GUID in its text form: three little-endian numbers, then bytes.
        let guid: String = name.strip_prefix("VentoyOsParam-").unwrap().replace('-', "");
        let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        let bytes = order.map(|at| u8::from_str_radix(&guid[2 * at..2 * at + 2], 16).unwrap());
        assert_eq!(&bytes, MAGIC);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(path in "(/[a-zA-Z0-9äß _-]{1,20}){1,6}", size: u64, disk_size: u64, partition: u16, disk_guid: [u8; 16], disk_signature: [u8; 4]) {
            let handover = Handover { path, size, partition, file_system: "exfat", disk_size, disk_guid, disk_signature };
            prop_assert_eq!(parse(&record(&handover)), Some(handover));
        }

        #[test]
        fn no_bytes_make_it_panic_or_lead_elsewhere(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), names in "[/.a\n\u{9b}]{0,8}", good: bool) {
            if good && bytes.len() >= RECORD_SIZE {
                bytes[..16].copy_from_slice(MAGIC);
                bytes[45..46 + names.len()].copy_from_slice(&[names.as_bytes(), &[0]].concat());
                seal(&mut bytes);
            }
            for found in [parse(&bytes), from_acpi(&bytes), from_efi_variable(&bytes), from_memory(&bytes)].into_iter().flatten() {
                prop_assert!(found.path.starts_with('/') && !found.path.chars().any(char::is_control));
                prop_assert!(!Path::new(&found.path).components().any(|part| part == std::path::Component::ParentDir));
            }
        }
    }
}
