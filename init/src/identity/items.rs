//! The items that make a host itself: their names, the files that hold them, and what such a file may contain.

use super::network_files;
use super::ssh_key;
use crate::config::origins::clean;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The contents of an item, by the names of the files in the store. Empty: there is no such item.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// Something that makes a host itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// The keys by which ssh clients know the host.
    SshHostKeys,
    /// The hash of root's password.
    RootPassword,
    /// The public keys that may log in as root.
    AuthorizedKeys,
    /// The host's name.
    Hostname,
    /// The machine id of machine-id(5).
    MachineId,
    /// The time zone.
    Timezone,
    /// The console's keyboard.
    Keyboard,
    /// The files of an administrator's own networkd or ifupdown.
    NetworkFiles,
    /// The leases that were had last, for a boot on which no server answers.
    Leases,
}

impl Item {
    /// Those with a place in the running system, in the order in which they are put there.
    pub const PLACED: [Self; 8] = [
        Self::MachineId,
        Self::Hostname,
        Self::SshHostKeys,
        Self::RootPassword,
        Self::AuthorizedKeys,
        Self::Timezone,
        Self::Keyboard,
        Self::NetworkFiles,
    ];

    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::MachineId,
        Self::Hostname,
        Self::SshHostKeys,
        Self::RootPassword,
        Self::AuthorizedKeys,
        Self::Timezone,
        Self::Keyboard,
        Self::NetworkFiles,
        Self::Leases,
    ];

    /// Its name in commands and texts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SshHostKeys => "ssh-host-keys",
            Self::RootPassword => "root-password",
            Self::AuthorizedKeys => "authorized-keys",
            Self::Hostname => "hostname",
            Self::MachineId => "machine-id",
            Self::Timezone => "timezone",
            Self::Keyboard => "keyboard",
            Self::NetworkFiles => "network-files",
            Self::Leases => "leases",
        }
    }

    /// The file in the store that holds it; `None` for host keys, of which there may be several.
    pub(super) fn file(self) -> Option<&'static str> {
        match self {
            Self::SshHostKeys => None,
            Self::RootPassword => Some("root-password"),
            Self::AuthorizedKeys => Some("authorized_keys"),
            Self::Hostname => Some("hostname"),
            Self::MachineId => Some("machine-id"),
            Self::Timezone => Some("timezone"),
            Self::Keyboard => Some("keyboard"),
            Self::NetworkFiles => Some("network-files.tar"),
            Self::Leases => Some("leases.json"),
        }
    }

    /// Permission bits of its files in the store.
    pub(super) fn mode(self) -> u32 {
        match self {
            // Passwords of wireless nets and keys of tunnels may be in the files.
            Self::SshHostKeys | Self::RootPassword | Self::NetworkFiles => 0o600,
            _ => 0o644,
        }
    }

    /// Whether a host makes it by itself when it has none. What was made so before `/srv` came never replaces what is
    /// kept there; what an administrator changed meanwhile does.
    pub(super) fn is_generated(self) -> bool {
        matches!(self, Self::SshHostKeys | Self::MachineId)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// Whether a file name is that of a host's private key: `ssh_host_KIND_key`.
pub(super) fn is_host_key_name(name: &str) -> bool {
    name.strip_prefix("ssh_host_").and_then(|rest| rest.strip_suffix("_key")).is_some_and(|kind| {
        !kind.is_empty() && kind.len() <= 32 && kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Checks what a file of the store, or its like in the running system, holds.
///
/// # Errors
/// What is wrong, in words that follow "it". The content is never part of them.
pub fn check(item: Item, bytes: &[u8]) -> Result<(), String> {
    match item {
        Item::SshHostKeys => return ssh_key::public_line(bytes).map(|_| ()),
        Item::AuthorizedKeys => return check_lines(bytes),
        Item::Leases => return leases(bytes).map(|_| ()),
        Item::Keyboard => return check_keyboard(bytes),
        Item::NetworkFiles => return network_files::FILES.check(bytes),
        Item::RootPassword | Item::Hostname | Item::MachineId | Item::Timezone => {}
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_owned())?;
    // Without its end of line it may be cut off.
    let line = text.strip_suffix('\n').ok_or("does not end with an end of line")?;
    let (right, wanted) = match item {
        Item::RootPassword => (is_password_hash(line), "the hash of one password, as crypt(5) has it"),
        Item::Hostname => (is_hostname(line), "a host name (RFC 1123, 64 characters at most)"),
        Item::MachineId => (is_machine_id(line), "a machine id (32 hexadecimal digits)"),
        _ => (is_zone_name(line), "the name of a time zone"),
    };
    if right { Ok(()) } else { Err(format!("is not {wanted}")) }
}

/// The leases that a file holds, by their bridges.
///
/// # Errors
/// It is not such JSON.
pub fn leases(bytes: &[u8]) -> Result<BTreeMap<String, serde_json::Value>, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("is not JSON with a lease for each bridge: {error}"))
}

/// RFC 1123 section 2.1: labels of letters, digits and inner hyphens. Linux takes 64 characters in all.
#[must_use]
pub fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 64 && name.split('.').all(label)
}

/// machine-id(5). All zeros is not allowed there.
fn is_machine_id(id: &str) -> bool {
    id.len() == 32
        && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && id.bytes().any(|byte| byte != b'0')
}

/// A name below `/usr/share/zoneinfo` that cannot lead out of it.
#[must_use]
pub fn is_zone_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+'))
    };
    name.len() <= 64 && name.split('/').all(part)
}

/// A layout of X, or several with commas.
#[must_use]
pub fn is_layout(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b',');
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// A hash of crypt(5), or that of an account which no password opens (`*`, `!`, or `!` before a hash). The length is
/// checked where the method fixes it: a hash that is cut off would lock root out. No hash at all, which lets everybody
/// in, is refused.
fn is_password_hash(hash: &str) -> bool {
    let open = hash.trim_start_matches('!');
    if hash.len() - open.len() > 2 || hash.len() > 384 {
        return false;
    }
    if matches!(open, "" | "*") {
        return !hash.is_empty();
    }
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    let mut parts = open.split('$');
    let (first, method, last) = (parts.next(), parts.next(), open.rsplit('$').next().unwrap_or_default());
    let Some(method) = method else {
        // The oldest method: two characters of salt, eleven of hash.
        return open.len() == 13 && open.bytes().all(base64);
    };
    let (length, fields) = match method {
        "y" | "gy" => (43, 5..=5),
        "7" => (43, 4..=4),
        "6" => (86, 4..=5),
        "5" => (43, 4..=5),
        "2a" | "2b" | "2y" => (53, 4..=4),
        "1" => (22, 4..=4),
        _ => return false,
    };
    let plain = |byte: u8| base64(byte) || matches!(byte, b'$' | b'=' | b',' | b'-' | b'_' | b'+' | b'*' | b'@');
    first == Some("")
        && fields.contains(&open.split('$').count())
        && last.len() == length
        && last.bytes().all(base64)
        && open.bytes().all(plain)
}

/// Lines of text, in whatever character set.
fn check_lines(bytes: &[u8]) -> Result<(), String> {
    let control = |byte: u8| (byte < b' ' && !matches!(byte, b'\t' | b'\r' | b'\n')) || byte == 0x7f;
    match bytes.iter().position(|&byte| control(byte)) {
        Some(at) => Err(format!("has a control character, at byte {at}")),
        None => Ok(()),
    }
}

/// Whether Debian's keyboard file has such a name: keyboard(5).
fn is_keyboard_name(name: &str) -> bool {
    name == "BACKSPACE"
        || name.strip_prefix("XKB").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_uppercase()))
}

/// keyboard(5). Debian's scripts execute the file, so only plain assignments are let through, and only those that belong
/// there: another name would be a variable of those scripts.
fn check_keyboard(bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_owned())?;
    for (number, line) in text.split('\n').enumerate() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-,:+./".contains(&byte);
        let assigned = |line: &'_ str| -> Option<String> {
            let (name, value) = line.split_once('=')?;
            let name_is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let value_is_plain = match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
                Some(quoted) => quoted.bytes().all(|byte| plain(byte) || matches!(byte, b'(' | b')')),
                None => value.bytes().all(plain),
            };
            (!name.is_empty() && name_is_plain && value_is_plain).then(|| name.to_owned())
        };
        // Any other space is for a shell the beginning of a command's name, and what follows `#` there no comment.
        let line = line.trim_matches([' ', '\t']);
        let comment = line.starts_with('#') && !line.chars().any(char::is_control);
        if line.is_empty() || comment {
            continue;
        }
        match assigned(line) {
            None => return Err(format!("has something else than NAME=\"value\" in line {}", number + 1)),
            Some(name) if !is_keyboard_name(&name) => {
                return Err(format!(
                    "sets {} in line {}, and only XKBMODEL, XKBLAYOUT, XKBVARIANT, XKBOPTIONS and BACKSPACE belong there",
                    clean(&name, 40),
                    number + 1
                ));
            }
            Some(_) => {}
        }
    }
    if text.lines().any(|line| line.trim_matches([' ', '\t']).starts_with("XKBLAYOUT=")) {
        return Ok(());
    }
    Err("names no layout (XKBLAYOUT)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hashes_are_told_from_what_would_lock_root_out_or_let_everybody_in() {
        let sha512 = format!("$6$0123456789abcdef${}", "a".repeat(86));
        let yescrypt = format!("$y$j9T$Jq1qv1mDkxAz5oL8PQa0n/${}", "B".repeat(43));
        for right in [sha512.clone(), format!("!{sha512}"), yescrypt, "*".into(), "!".into(), "!*".into()] {
            assert_eq!(check(Item::RootPassword, format!("{right}\n").as_bytes()), Ok(()), "{right}");
        }
        let rounds = format!("$6$rounds=5000$salt${}", "a".repeat(86));
        assert!(is_password_hash(&rounds));
        for wrong in [
            "\n".to_owned(),
            sha512.clone(),
            format!("{}\n", &sha512[..90]),
            format!("{sha512}:0\n"),
            format!("{sha512}\n{sha512}\n"),
            format!("{sha512}\n\n"),
            format!("$6$sa lt${}\n", "a".repeat(86)),
            format!("$99$salt${}\n", "a".repeat(86)),
            "password\n".into(),
            format!("{sha512}\0\n"),
        ] {
            assert!(check(Item::RootPassword, wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_ids_zones_and_keyboards() {
        let cases: [(Item, &[&str], &[&str]); 4] = [
            (
                Item::Hostname,
                &["a\n", "node7\n", "node7.example.org\n", "7x\n"],
                &["", "\n", "a", "-a\n", "a-\n", "a..b\n", "a b\n", "a\nb\n", "ä\n", "\x1b[2J\n"],
            ),
            (
                Item::MachineId,
                &["0123456789abcdef0123456789abcdef\n"],
                &["", "uninitialized\n", "0123456789abcdef0123456789abcde\n", "00000000000000000000000000000000\n"],
            ),
            (
                Item::Timezone,
                &["Etc/UTC\n", "America/Argentina/Buenos_Aires\n", "Etc/GMT+3\n"],
                &["", "/etc/shadow\n", "../../etc/shadow\n", "Etc//UTC\n", "Etc/UTC", "a\0\n"],
            ),
            (
                Item::Keyboard,
                &["# x\n\nXKBMODEL=\"pc105\"\nXKBLAYOUT=\"br,us(x)\"\nXKBOPTIONS=\"\"\n", " \tXKBLAYOUT=us "],
                &[
                    "",
                    "XKBLAYOUT=\"$(reboot)\"\n",
                    "XKBLAYOUT=us; reboot\n",
                    "XKBLAYOUT=us\nreboot\n",
                    "XKBLAYOUT=\"`x`\"\n",
                    "XKBLAYOUT=us\n\u{a0}#; reboot\n",
                    "XKBLAYOUT=us\n\x0b#; reboot\n",
                    "\r#; reboot\nXKBLAYOUT=us\n",
                    "XKBLAYOUT=us(intl)\n",
                    "XKBLAYOUT=us\r\n",
                    "XKBLAYOUT=us\nPATH=/tmp\n",
                    "XKBLAYOUT=us\nXKB_X=1\n",
                    "XKBLAYOUT=us\nLD_PRELOAD=/srv/x.so\n",
                ],
            ),
        ];
        for (item, right, wrong) in cases {
            for text in right {
                assert_eq!(check(item, text.as_bytes()), Ok(()), "{item} {text:?}");
            }
            for text in wrong {
                assert!(check(item, text.as_bytes()).is_err(), "{item} {text:?}");
            }
        }
        let long = format!("{}\n", "a".repeat(64));
        assert!(check(Item::Hostname, long.as_bytes()).is_err());
        assert!(is_host_key_name("ssh_host_ed25519_key"));
        for name in ["ssh_host__key", "ssh_host_a/b_key", "ssh_host_rsa_key.pub", "ssh_host_rsa_key.damaged"] {
            assert!(!is_host_key_name(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for item in Item::ALL {
                let _ = check(item, &bytes);
            }
        }

        #[test]
        fn what_is_right_has_no_control_character(text in "[$!*a-zA-Z0-9./:\n\x00-\x1f-]{0,40}") {
            for item in [Item::RootPassword, Item::Hostname, Item::MachineId, Item::Timezone] {
                if check(item, text.as_bytes()).is_ok() {
                    let line = text.strip_suffix('\n').unwrap();
                    prop_assert!(!line.chars().any(|letter| letter.is_control() || letter == ':'));
                }
            }
        }
    }
}
