//! The parsers of superblocks and partition tables against the tools that make and read them: real file systems and
//! tables in files, and what libblkid says of them.
//!
//! Needs no root. A missing tool fails with the command that installs it.

use sino_initramfs::{partition_table, superblock};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a command line (no quoting) with `input`, and returns what it prints. `package` has the command.
fn run(package: &str, line: &str, file: &Path, input: &str) -> String {
    let mut words = line.split(' ');
    let program = words.next().unwrap();
    // Debian keeps some of them where only root's PATH leads.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let child = Command::new(program)
        .args(words)
        .arg(file)
        .env("PATH", path)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{program}: {error}; install it: apt-get install {package}"));
    // A program that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn sparse(mebibytes: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(mebibytes << 20).unwrap();
    file
}

fn head(file: &Path, length: usize) -> Vec<u8> {
    let mut head = Vec::new();
    File::open(file).unwrap().take(length as u64).read_to_end(&mut head).unwrap();
    head
}

/// blkid's value of a tag; empty if it gives none.
fn blkid(file: &Path, tag: &str) -> String {
    run("util-linux", &format!("blkid -p -o value -s {tag}"), file, "").trim_end_matches('\n').to_owned()
}

/// Parses a file as a boot would, with the second read for a label that lies beyond the head.
fn parsed(file: &Path) -> superblock::Superblock {
    let head = head(file, superblock::HEAD);
    let mut found = superblock::parse(&head).expect("a superblock");
    if let Some((offset, length)) = found.label_place(&head) {
        let mut bytes = vec![0; length];
        let length = File::open(file).unwrap().read_at(&mut bytes, offset).unwrap();
        found.read_label(&bytes[..length]);
    }
    found
}

/// The parser must say what blkid says, and it must say this.
fn agrees(file: &Path, kind: &str, blkid_type: &str, label: &str) {
    let found = parsed(file);
    assert_eq!(blkid(file, "TYPE"), blkid_type);
    assert_eq!((found.kind, found.label.as_str()), (kind, label));
    assert_eq!((found.label, found.uuid), (blkid(file, "LABEL"), blkid(file, "UUID")));
}

fn made(mebibytes: u64, package: &str, line: &str, kind: &str, blkid_type: &str, label: &str) {
    let file = sparse(mebibytes);
    run(package, line, file.path(), "");
    agrees(file.path(), kind, blkid_type, label);
    assert!(!parsed(file.path()).uuid.is_empty() || kind == "squashfs", "{line}: no UUID");
}

#[test]
fn ext() {
    made(8, "e2fsprogs", "mkfs.ext2 -q", "ext2/3/4", "ext2", "");
    made(8, "e2fsprogs", "mkfs.ext3 -q -L root", "ext2/3/4", "ext3", "root");
    made(16, "e2fsprogs", "mkfs.ext4 -q -b 4096 -L sixteen-letters!", "ext2/3/4", "ext4", "sixteen-letters!");
}

#[test]
fn vfat() {
    made(2, "dosfstools", "mkfs.vfat -F 12", "vfat", "vfat", "");
    made(2, "dosfstools", "mkfs.vfat -F 12 -n FLOPPY", "vfat", "vfat", "FLOPPY");
    made(64, "dosfstools", "mkfs.vfat -F 16 -n SIXTEEN", "vfat", "vfat", "SIXTEEN");
    made(300, "dosfstools", "mkfs.vfat -F 32 -n THIRTY-TWO", "vfat", "vfat", "THIRTY-TWO");
    made(300, "dosfstools", "mkfs.vfat -F 32 -S 4096 -s 1 -n BIG", "vfat", "vfat", "BIG");
}

#[test]
fn a_fat_relabelled_by_windows_has_the_label_in_its_directory_only() {
    let file = sparse(300);
    run("dosfstools", "mkfs.vfat -F 32 -n STALE", file.path(), "");
    let directory = parsed(file.path()).label_place(&head(file.path(), superblock::HEAD)).unwrap().0;
    assert!(directory > superblock::HEAD as u64);
    file.as_file().write_all_at(b"NEW NAME   ", directory).unwrap();
    agrees(file.path(), "vfat", "vfat", "NEW NAME");
    // And none at all.
    file.as_file().write_all_at(&[0; 32], directory).unwrap();
    agrees(file.path(), "vfat", "vfat", "");
}

#[test]
fn exfat() {
    made(32, "exfatprogs", "mkfs.exfat", "exfat", "exfat", "");
    made(600, "exfatprogs", "mkfs.exfat -L Ventöy", "exfat", "exfat", "Ventöy");
}

#[test]
fn ntfs() {
    made(16, "ntfs-3g", "mkntfs -q -Q -F", "ntfs", "ntfs", "");
    made(16, "ntfs-3g", "mkntfs -q -Q -F -c 65536 -L Daten_€", "ntfs", "ntfs", "Daten_€");
    made(16, "ntfs-3g", "mkntfs -q -Q -F -s 4096 -L four", "ntfs", "ntfs", "four");
}

#[test]
fn xfs() {
    made(512, "xfsprogs", "mkfs.xfs -q -L twelve-chars", "xfs", "xfs", "twelve-chars");
}

#[test]
fn btrfs() {
    made(256, "btrfs-progs", "mkfs.btrfs -q -L data", "btrfs", "btrfs", "data");
}

#[test]
fn swap() {
    made(4, "util-linux", "mkswap -L swapped", "swap", "swap", "swapped");
    made(4, "util-linux", "mkswap -p 65536", "swap", "swap", "");
}

#[test]
fn iso9660_with_its_hybrid_forms() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "text").unwrap();
    let iso = tempfile::NamedTempFile::new().unwrap();
    let make = |options: &str| {
        let line = format!("xorriso -as mkisofs -quiet {options} -o {}", iso.path().display());
        run("xorriso", &line, folder.path(), "");
    };
    make("-V SINO");
    agrees(iso.path(), "iso9660", "iso9660", "SINO");
    make("-V Sino_with_a_long_name -J --modification-date=2026112308000000");
    agrees(iso.path(), "iso9660", "iso9660", "Sino_with_a_long_name");
    assert_eq!(parsed(iso.path()).uuid, "2026-11-23-08-00-00-00");

    // An MBR without a protective entry counts, whatever GPT follows; with one, the GPT counts.
    let mbr = "/usr/lib/ISOLINUX/isohdpfx.bin";
    assert!(Path::new(mbr).exists(), "{mbr} is missing; install it: apt-get install isolinux");
    make(&format!("-V SINO -e /file -no-emul-boot -isohybrid-mbr {mbr} -isohybrid-gpt-basdat"));
    assert_eq!(head(iso.path(), 600)[512..520], *b"EFI PART");
    assert_eq!(partitions_agree(iso.path(), 512), 2);
    agrees(iso.path(), "iso9660", "iso9660", "SINO");
    make(&format!("-V SINO -append_partition 2 0xef {mbr} -appended_part_as_gpt"));
    assert_eq!(partitions_agree(iso.path(), 512), 3);
}

#[test]
fn squashfs() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    let image = folder.path().join("image");
    let line = format!("mksquashfs {}", folder.path().join("in").display());
    run("squashfs-tools", &line, &image, "");
    agrees(&image, "squashfs", "squashfs", "");
}

/// Containers made by hand: their tools want root or a good deal of time.
#[test]
fn containers() {
    let uuid = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";
    let file = sparse(8);
    let dashed = b"01234567-89ab-cdef-0123-456789abcdef";
    file.as_file().write_all_at(b"LUKS\xba\xbe\0\x02\0\0\0\0\0\0\x40\0", 0).unwrap();
    file.as_file().write_all_at(b"secret", 24).unwrap();
    file.as_file().write_all_at(dashed, 168).unwrap();
    agrees(file.path(), "LUKS", "crypto_LUKS", "secret");

    for start in [0, 4096] {
        let mut md = [0; 256];
        md[..8].copy_from_slice(b"\xfc\x4e\x2b\xa9\x01\0\0\0");
        md[16..32].copy_from_slice(&uuid);
        md[32..38].copy_from_slice(b"host:0");
        md[144..152].copy_from_slice(&(start / 512_u64).to_le_bytes());
        let words = md.chunks_exact(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
        let sum: u64 = words.sum();
        let sum = u32::try_from((sum >> 32) + (sum & 0xffff_ffff)).unwrap();
        md[216..220].copy_from_slice(&sum.to_le_bytes());
        let file = sparse(8);
        file.as_file().write_all_at(&md, start).unwrap();
        agrees(file.path(), "Linux RAID member", "linux_raid_member", "host:0");
    }
}

/// Compares every partition that libblkid finds (partx prints its answers); returns how many they are.
fn partitions_agree(file: &Path, sector_size: u32) -> usize {
    let line = format!("partx --raw --noheadings --sector-size {sector_size} --output NR,UUID");
    let printed = run("util-linux", &line, file, "");
    let head = head(file, partition_table::HEAD);
    for line in printed.lines() {
        let (number, uuid) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let own = partition_table::part_uuid(&head, sector_size, number.parse().unwrap());
        assert_eq!(own.unwrap_or_default(), uuid, "partition {number}");
    }
    printed.lines().count()
}

#[test]
fn gpt() {
    let file = sparse(64);
    let table = "label: gpt\n1: size=8M\n2: size=8M, uuid=0D2F3A4B-1111-4222-8333-ABCDEFABCDEF\n128: size=1M\n";
    run("fdisk", "sfdisk -q", file.path(), table);
    assert_eq!(partitions_agree(file.path(), 512), 3);
    let head = head(file.path(), partition_table::HEAD);
    assert_eq!(partition_table::part_uuid(&head, 512, 2).unwrap(), "0d2f3a4b-1111-4222-8333-abcdefabcdef");
    assert_eq!(partition_table::part_uuid(&head, 512, 3), None);
    assert_eq!(parsed(file.path()).kind, "GPT partition table");
    assert_eq!(blkid(file.path(), "PTTYPE"), "gpt");
}

#[test]
fn gpt_with_sectors_of_4_kib() {
    let file = sparse(64);
    run("fdisk", "fdisk -b 4096", file.path(), "g\nn\n1\n\n+8M\nn\n7\n\n+8M\nw\n");
    assert_eq!(partitions_agree(file.path(), 4096), 2);
    assert_eq!(parsed(file.path()).kind, "GPT partition table");
}

#[test]
fn mbr_with_logical_partitions() {
    let file = sparse(64);
    let table = "label: dos\nlabel-id: 0x0badcafe\n1: size=8M\n3: type=5\n5: size=4M\n6: size=4M\n7: size=4M\n";
    run("fdisk", "sfdisk -q", file.path(), table);
    assert_eq!(partitions_agree(file.path(), 512), 5);
    let head = head(file.path(), partition_table::HEAD);
    assert_eq!(partition_table::part_uuid(&head, 512, 7).unwrap(), "0badcafe-07");
    assert_eq!(partition_table::part_uuid(&head, 512, 2), None);
    assert_eq!(parsed(file.path()).kind, "MBR partition table");
    assert_eq!(blkid(file.path(), "PTTYPE"), "dos");
    // Without a signature there is no PARTUUID.
    file.as_file().write_all_at(&[0; 4], 440).unwrap();
    assert_eq!(partitions_agree(file.path(), 512), 5);
}

#[test]
fn a_fats_boot_sector_is_no_partition_table() {
    let file = sparse(64);
    run("dosfstools", "mkfs.vfat -F 32 -n STICK", file.path(), "");
    // Boot code often leaves bytes where a table would have them.
    file.as_file().write_all_at(&[0x80, 1, 1, 0, 7, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0], 446).unwrap();
    assert_eq!(blkid(file.path(), "PTTYPE"), "");
    assert_eq!(partition_table::part_uuid(&head(file.path(), partition_table::HEAD), 512, 1), None);
    agrees(file.path(), "vfat", "vfat", "STICK");
}

#[test]
fn a_cut_off_file_is_still_recognised() {
    let file = sparse(300);
    run("dosfstools", "mkfs.vfat -F 32 -n SHORT", file.path(), "");
    for length in [512, 4096, 40_000] {
        let found = superblock::parse(&head(file.path(), length)).unwrap();
        assert_eq!((found.kind, found.label.as_str()), ("vfat", "SHORT"));
    }
}
