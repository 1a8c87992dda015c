//! A few small files as one: a plain tar archive, which tar(1) lists and unpacks, too.
//!
//! Only what SINO itself writes is read: plain files and symbolic links with short names, the two empty blocks at the end,
//! and nothing behind them, so that an archive which is cut off or mixed up is noticed. Source: POSIX.1-2017, pax, "ustar
//! Interchange Format".

use std::collections::BTreeMap;

/// The unit of an archive, in bytes.
const BLOCK: usize = 512;
/// Longest path, and longest target of a link, in bytes.
const NAME: usize = 100;
/// Longest name of a group, in bytes.
const GROUP: usize = 31;

/// The files of an archive by their paths, which have no slash in front.
pub(super) type Entries = BTreeMap<String, Entry>;

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Permission bits; of no meaning for a link.
    pub(super) mode: u32,
    /// The name of its group, or the number where it has no name.
    pub(super) group: String,
    /// What it holds.
    pub(super) content: Content,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// These bytes.
    File(Vec<u8>),
    /// It is a symbolic link that leads there.
    Link(String),
}

/// The archive of these files; the same files make the same bytes.
///
/// # Errors
/// A name is too long, in words for people.
pub(super) fn pack(entries: &Entries) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for (path, entry) in entries {
        let (kind, content, target) = match &entry.content {
            Content::File(content) => (b'0', content.as_slice(), ""),
            Content::Link(target) => (b'2', [].as_slice(), target.as_str()),
        };
        if path.len() > NAME || target.len() > NAME || entry.group.len() > GROUP {
            return Err(format!("the name of /{path} is too long to be kept ({NAME} characters at most)"));
        }
        let mut header = Vec::with_capacity(BLOCK);
        // Owner and times are nobody's concern: zeros, so that only what counts makes a difference.
        field(&mut header, path, NAME);
        field(&mut header, &format!("{:07o}", entry.mode), 8);
        field(&mut header, "0000000", 8);
        field(&mut header, "0000000", 8);
        field(&mut header, &format!("{:011o}", content.len()), 12);
        field(&mut header, "00000000000", 12);
        // The sum is made with spaces in its own place.
        header.extend_from_slice(b"        ");
        header.push(kind);
        field(&mut header, target, NAME);
        header.extend_from_slice(b"ustar\x0000");
        field(&mut header, "root", 32);
        field(&mut header, &entry.group, 32);
        header.resize(BLOCK, 0);
        let sum = format!("{:06o}\0 ", sum(&header));
        for (place, byte) in header.iter_mut().skip(148).zip(sum.bytes()) {
            *place = byte;
        }
        bytes.extend(header);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    Ok(bytes)
}

/// The files of an archive.
///
/// # Errors
/// It is not one that [`pack`] makes, in words that follow "it".
pub(super) fn unpack(mut bytes: &[u8]) -> Result<Entries, String> {
    let mut entries = Entries::new();
    loop {
        let (header, rest) = bytes.split_at_checked(BLOCK).ok_or("is cut off")?;
        if header.iter().all(|&byte| byte == 0) {
            let is_end = rest.len() == BLOCK && rest.iter().all(|&byte| byte == 0);
            return if is_end { Ok(entries) } else { Err("does not end as a tar archive".to_owned()) };
        }
        let part = |from: usize, length: usize| header.get(from..from + length).unwrap_or_default();
        if part(257, 8) != b"ustar\x0000" || number(part(148, 8)) != Some(sum(header)) {
            return Err("is no tar archive, or damaged".to_owned());
        }
        let (Some(path), Some(target), Some(group)) = (text(part(0, NAME)), text(part(157, NAME)), text(part(297, 32)))
        else {
            return Err("has a name that is not text".to_owned());
        };
        let size = number(part(124, 12)).and_then(|size| usize::try_from(size).ok()).ok_or("has no right size")?;
        let mode = number(part(100, 8)).and_then(|mode| u32::try_from(mode).ok()).ok_or("has no right mode")?;
        let (content, rest) = rest.split_at_checked(size).ok_or("is cut off")?;
        let content = match part(156, 1) {
            b"0" => Content::File(content.to_vec()),
            b"2" if size == 0 => Content::Link(target.to_owned()),
            _ => return Err("has something else than files and links in it".to_owned()),
        };
        if entries.insert(path.to_owned(), Entry { mode, group: group.to_owned(), content }).is_some() {
            return Err("has a file twice".to_owned());
        }
        bytes = rest.get(size.next_multiple_of(BLOCK) - size..).ok_or("is cut off")?;
    }
}

/// Adds a text with zeros behind it.
fn field(header: &mut Vec<u8>, text: &str, length: usize) {
    let end = header.len() + length;
    header.extend_from_slice(text.as_bytes());
    header.resize(end, 0);
}

/// A text up to its first zero.
fn text(field: &[u8]) -> Option<&str> {
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
    std::str::from_utf8(text).ok()
}

/// An octal number.
fn number(field: &[u8]) -> Option<u64> {
    u64::from_str_radix(text(field)?.trim_end_matches(' '), 8).ok()
}

/// The sum of a header's bytes, with spaces in the place of the sum.
fn sum(header: &[u8]) -> u64 {
    let byte = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { u64::from(b' ') } else { u64::from(*byte) };
    header.iter().enumerate().map(byte).sum()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    pub(in super::super) fn file(mode: u32, text: &str) -> Entry {
        Entry { mode, group: "root".into(), content: Content::File(text.into()) }
    }

    #[test]
    fn tar_itself_reads_it() {
        let link = Entry { mode: 0o777, group: "root".into(), content: Content::Link("/dev/null".into()) };
        let secret = Entry { group: "systemd-network".into(), ..file(0o640, &"x".repeat(513)) };
        let entries = Entries::from([
            ("etc/a".to_owned(), file(0o644, "")),
            ("etc/b".to_owned(), link),
            ("etc/c".to_owned(), secret),
        ]);
        let bytes = pack(&entries).unwrap();
        assert_eq!(unpack(&bytes).unwrap(), entries);
        let mut tar = Command::new("tar")
            .args(["--list", "--verbose"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar is missing; install it: apt-get install tar");
        tar.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listed = tar.wait_with_output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.status.success(), "{text}");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<Vec<String>> = text.lines().map(words).collect();
        assert_eq!(lines[0][..3], ["-rw-r--r--", "root/root", "0"]);
        assert_eq!(lines[1][5..], ["etc/b", "->", "/dev/null"]);
        assert_eq!(lines[2][..3], ["-rw-r-----", "root/systemd-network", "513"]);
    }

    #[test]
    fn what_is_cut_off_or_changed_is_noticed() {
        let whole = pack(&Entries::from([("etc/a".to_owned(), file(0o644, "text"))])).unwrap();
        for length in 0..whole.len() {
            assert!(unpack(&whole[..length]).is_err(), "{length}");
        }
        // Behind the sum is a space that nobody reads.
        for at in (0..500).filter(|&at| at != 155) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(unpack(&changed).is_err(), "{at}");
        }
        assert!(unpack(&[whole.as_slice(), &[0]].concat()).is_err());
        let long = Entries::from([("x".repeat(101), file(0o644, ""))]);
        assert!(pack(&long).unwrap_err().contains("too long"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), fix: bool) {
            if fix && bytes.len() > BLOCK {
                bytes[257..265].copy_from_slice(b"ustar\x0000");
                let sum = format!("{:06o}\0 ", sum(&bytes[..BLOCK]));
                bytes[148..156].copy_from_slice(sum.as_bytes());
            }
            let _ = unpack(&bytes);
        }

        #[test]
        fn what_is_packed_comes_out_again(files in proptest::collection::btree_map("[a-z./]{1,100}", proptest::collection::vec(any::<u8>(), 0..1100), 0..5)) {
            let entry = |(path, bytes)| (path, Entry { mode: 0o600, group: String::new(), content: Content::File(bytes) });
            let entries: Entries = files.into_iter().map(entry).collect();
            prop_assert_eq!(unpack(&pack(&entries).unwrap()).unwrap(), entries);
        }
    }
}
