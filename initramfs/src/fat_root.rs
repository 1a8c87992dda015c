//! Whether a FAT's root directory may name a file, without its driver: that and its code pages take longer to load than all
//! else that is done with the medium. Source: Microsoft's "FAT32 File System Specification", directory structure.

use crate::block_device;

/// Whether the file system on this device may hold a file with this extension in its first folder. `true` for whatever cannot
/// be told, so that the file system itself is asked.
#[must_use]
pub fn may_hold(device: &str, extension: &str) -> bool {
    block_device::label_place(device, "vfat").is_none_or(|directory| may_name(&directory, extension))
}

/// Whether these bytes of a directory may name such a file: they do, or they do not reach to the directory's end. A long name
/// has a short one behind it, which ends with the first three letters of its extension.
fn may_name(directory: &[u8], extension: &str) -> bool {
    for entry in directory.chunks_exact(32) {
        let (first, own) = (entry.first().copied().unwrap_or_default(), entry.get(8..11).unwrap_or_default());
        if first == 0 {
            return false;
        }
        let short = extension.as_bytes().get(..3).unwrap_or(extension.as_bytes());
        if first != 0xe5 && own.trim_ascii_end().eq_ignore_ascii_case(short) {
            return true;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn entries(names: &[&[u8; 11]]) -> Vec<u8> {
        let mut bytes: Vec<u8> = names.iter().flat_map(|name| [name.as_slice(), &[0; 21]].concat()).collect();
        bytes.extend([0; 32]);
        bytes
    }

    #[test]
    fn only_a_directory_that_is_seen_to_its_end_lacks_a_file() {
        assert!(!may_name(&entries(&[b"SINO-EFI   ", b"EFI        "]), "toml"));
        assert!(may_name(&entries(&[b"EFI        ", b"SINO~1  TOM"]), "toml"));
        assert!(may_name(&entries(&[b"X       tom"]), "toml"));
        assert!(!may_name(&entries(&[b"\xe5INO~1  TOM"]), "toml"), "deleted");
        assert!(may_name(&[b"EFI        ".as_slice(), &[0; 21]].concat(), "toml"), "its end is not seen");
        assert!(may_name(&[], "toml") && may_name(&[1; 7], "toml"));
        assert!(may_hold("no-such-device", "toml"));
    }

    #[test]
    fn a_name_as_mtools_writes_it_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (image, file) = (folder.path().join("fat"), folder.path().join("SiNo.ToMl"));
        std::fs::write(&file, "").unwrap();
        std::fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
            let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
            let ended = Command::new(program).args(arguments).env("PATH", path).output();
            let ended = ended.unwrap_or_else(|error| panic!("{program}: {error}; apt install mtools dosfstools"));
            assert!(ended.status.success(), "{program}: {ended:?}");
        };
        let directory = || {
            let bytes = std::fs::read(&image).unwrap();
            let (offset, length) = crate::superblock::parse(&bytes).unwrap().label_place(&bytes).unwrap();
            bytes[usize::try_from(offset).unwrap()..][..length].to_vec()
        };
        run("mkfs.vfat", &["-n".as_ref(), "SINO-EFI".as_ref(), image.as_os_str()]);
        assert!(!may_name(&directory(), "toml"));
        run("mcopy", &["-i".as_ref(), image.as_os_str(), file.as_os_str(), "::".as_ref()]);
        assert!(may_name(&directory(), "toml"));
    }
}
