//! What the kernel says of mounts: which there are, and why it refuses one.
//!
//! Both stages mount, each in its own way; this only reads. A file-system context (`fsopen`, Linux 5.2) hands out the messages
//! that mount(2) puts into the kernel's log alone.

use anyhow::anyhow;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// More messages than a file system has to say; it guards against a kernel that never ends.
const MOST: usize = 16;

/// The refusal of a file-system context, with the kernel's own messages where it has any.
#[must_use]
pub fn explained(context: BorrowedFd<'_>, error: Errno) -> anyhow::Error {
    let messages = messages(context);
    if messages.is_empty() { anyhow!(error) } else { anyhow!("{error} ({})", messages.join("; ")) }
}

/// The messages of a file-system context.
fn messages(context: BorrowedFd<'_>) -> Vec<String> {
    let mut messages = Vec::new();
    let mut buffer = [0_u8; 1024];
    // Each read returns one message; ENODATA ends them.
    while messages.len() < MOST {
        match rustix::io::read(context, &mut buffer) {
            Ok(length) if length > 0 => messages.push(message(buffer.get(..length).unwrap_or_default())),
            _ => break,
        }
    }
    messages
}

/// A message without its class, which is a letter and a space in front. Source: kernel `fs/fs_context.c`, `logfc`.
fn message(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let text = text.trim_end();
    let classes = ["e ", "w ", "i "];
    classes.iter().find_map(|class| text.strip_prefix(class)).unwrap_or(text).to_owned()
}

/// A mount of a process's mount namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounted {
    /// Number of its device, as `MAJOR:MINOR`.
    pub number: String,
    /// The folder that it is on.
    pub target: String,
    /// The file system's type.
    pub fs: String,
    /// What it was mounted from.
    pub source: String,
    /// Whether it, or the whole file system, is read-only.
    pub read_only: bool,
}

/// The mounts of `/proc/PID/mountinfo`, in its order; a line of another form is left out. Source: `proc_pid_mountinfo(5)`.
#[must_use]
pub fn parse(table: &str) -> Vec<Mounted> {
    table.lines().filter_map(line).collect()
}

fn line(text: &str) -> Option<Mounted> {
    let (mount, device) = text.split_once(" - ")?;
    let mut words = mount.split(' ').skip(2);
    let (number, _root, target, options) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let mut words = device.split(' ');
    let (fs, source, whole) = (words.next()?, words.next()?, words.next()?);
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mounted {
        number: number.to_owned(),
        target: unescaped(target),
        fs: fs.to_owned(),
        source: unescaped(source),
        read_only: read_only(options) || read_only(whole),
    })
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
#[must_use]
pub fn unescaped(text: &str) -> String {
    // The backslash last: the others have one, too.
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let text = r"36 35 98:0 / /srv/a\040b rw,relatime shared:1 - ext4 /dev/mapper/xvg-xvol ro,errors=remount-ro";
        let mount = Mounted {
            number: "98:0".into(),
            target: "/srv/a b".into(),
            fs: "ext4".into(),
            source: "/dev/mapper/xvg-xvol".into(),
            read_only: true,
        };
        assert_eq!(parse(&format!("odd\n{text}\ngarbage - a b\n")), std::slice::from_ref(&mount));
        let writable = parse(&text.replace("ro,errors=remount-ro", "rw,errors=remount-ro"));
        assert_eq!(writable, [Mounted { read_only: false, ..mount }]);
    }

    #[test]
    fn a_message_loses_its_class_and_nothing_else() {
        assert_eq!(message(b"e ext4: VFS: Can't find ext4 filesystem\n"), "ext4: VFS: Can't find ext4 filesystem");
        assert_eq!(message(b"no class"), "no class");
        assert_eq!(message("\u{e9}\u{e9}".as_bytes()), "\u{e9}\u{e9}");
        assert_eq!(message(b""), "");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in ".*", bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = parse(&text);
            let _ = message(&bytes);
        }
    }
}
