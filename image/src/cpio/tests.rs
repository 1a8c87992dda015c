use super::*;
use crate::command;
use std::process::Command;

fn sample() -> Archive {
    let mut archive = Archive::new();
    archive.file("sino/modules/b.ko", 0o644, *b"12345").unwrap();
    archive.file("init", 0o755, *b"#!").unwrap();
    archive.folder("proc").unwrap();
    archive.add("bin", 0o777, Kind::Link("usr/bin".into())).unwrap();
    archive.add("dev/console", 0o600, Kind::Device(5, 1)).unwrap();
    archive
}

/// Path, mode, content, device numbers, inode number, time.
type Read = (String, u32, Vec<u8>, (u32, u32), u32, u32);

/// Reads an archive as the kernel does.
fn parse(bytes: &[u8]) -> Vec<Read> {
    let mut entries = Vec::new();
    let mut at = 0;
    loop {
        assert_eq!(&bytes[at..at + 6], b"070701", "a header at {at}");
        let field = |index: usize| {
            let start = at + 6 + index * 8;
            u32::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
        };
        let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
        let (device, inode, time) = ((field(9), field(10)), field(0), field(5));
        let name = at + 110;
        let path = std::str::from_utf8(&bytes[name..name + name_size - 1]).unwrap().to_owned();
        assert_eq!(bytes[name + name_size - 1], 0);
        let content = (name + name_size).next_multiple_of(4);
        at = (content + size).next_multiple_of(4);
        if path == "TRAILER!!!" {
            assert!(bytes[at..].iter().all(|&byte| byte == 0) && bytes.len().is_multiple_of(512));
            return entries;
        }
        entries.push((path, mode, bytes[content..content + size].to_vec(), device, inode, time));
    }
}

#[test]
fn what_is_written_is_read_sorted_with_parents_and_fixed_facts() {
    let entries = parse(&sample().to_bytes(77).unwrap());
    let paths: Vec<&str> = entries.iter().map(|entry| entry.0.as_str()).collect();
    assert_eq!(paths, ["bin", "dev", "dev/console", "init", "proc", "sino", "sino/modules", "sino/modules/b.ko"]);
    let modes: Vec<u32> = entries.iter().map(|entry| entry.1).collect();
    let folder = 0o040_755;
    assert_eq!(modes, [0o120_777, folder, 0o020_600, 0o100_755, folder, folder, folder, 0o100_644]);
    assert_eq!((entries[7].2.as_slice(), entries[0].2.as_slice()), (&b"12345"[..], &b"usr/bin"[..]));
    assert_eq!(entries[2].3, (5, 1));
    assert!(entries.iter().zip(1..).all(|(entry, number)| (entry.4, entry.5) == (number, 77)));
}

#[test]
fn the_order_of_adding_does_not_matter() {
    let mut one = Archive::new();
    one.file("b", 0o644, *b"x").unwrap();
    one.file("a", 0o644, *b"y").unwrap();
    let mut other = Archive::new();
    other.file("a", 0o644, *b"y").unwrap();
    other.file("b", 0o644, *b"x").unwrap();
    assert_eq!(one.to_bytes(1).unwrap(), other.to_bytes(1).unwrap());
}

#[test]
fn the_cpio_program_agrees() {
    let bytes = sample().to_bytes(0).unwrap();
    let list = command::run_with_input(Command::new("cpio").args(["-t", "--quiet"]), &bytes).unwrap();
    let list = String::from_utf8(list).unwrap();
    assert_eq!(list.lines().count(), 8);
    assert!(list.contains("sino/modules/b.ko"));
}

#[test]
fn paths_that_lead_out_or_come_twice_are_refused() {
    let mut archive = sample();
    for path in ["/init", "a/../b", "", "a//b", "TRAILER!!!", "init"] {
        assert!(archive.file(path, 0o644, *b"").is_err(), "{path}");
    }
    assert!(sample().to_bytes(u64::MAX).is_err());
}
