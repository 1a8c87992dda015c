//! Which names of a DHCP message may go into files and onto a terminal.
//!
//! A name from the network ends up in `/etc/resolv.conf`, in a prompt, in scripts. So only letters, digits, hyphens,
//! underscores and dots pass; whatever could be an option, a path, an escape sequence or a second line does not.

use dhcproto::Name;

/// Longest name and longest part of it, in bytes (RFC 1035, 2.3.4; without the leading length and the root).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// A host or domain name, without the NUL bytes or the dot that some servers end it with; `None` if it is not plain.
pub(super) fn plain(text: &str) -> Option<String> {
    let text = text.trim_end_matches('\0');
    let text = text.strip_suffix('.').unwrap_or(text);
    (text.len() <= LONGEST_NAME && text.split('.').all(|label| is_label(label.as_bytes()))).then(|| text.to_owned())
}

/// A name in DNS's own format (RFC 3397).
pub(super) fn from_dns(name: &Name) -> Option<String> {
    // Label by label: as text, a label that holds a dot could not be told from two labels.
    let labels: Vec<&str> = name
        .iter()
        .map(|label| if is_label(label) { std::str::from_utf8(label).ok() } else { None })
        .collect::<Option<_>>()?;
    plain(&labels.join("."))
}

/// What a server says for people (option 56), fit for a terminal.
pub(super) fn for_people(text: &str) -> String {
    text.chars().filter(|letter| letter.is_ascii_graphic() || *letter == ' ').take(100).collect()
}

fn is_label(label: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    label.len() <= LONGEST_LABEL && label.iter().all(allowed) && edge(label.first()) && edge(label.last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::str::FromStr;

    #[test]
    fn plain_names_pass_and_others_do_not() {
        for name in ["host", "host-1.example.org", "_ldap._tcp.example", "192-0-2-7", "x"] {
            assert_eq!(plain(name).as_deref(), Some(name));
        }
        assert_eq!(plain("example.org.").as_deref(), Some("example.org"));
        assert_eq!(plain("example.org\0\0").as_deref(), Some("example.org"));
        let long = "a.".repeat(128);
        for name in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a\nb",
            "$(reboot)",
            "`x`",
            "a;b",
            "../etc",
            "-rf",
            "a-",
            "\x1b[2J",
            "a\0b",
            "höst",
            &"x".repeat(64),
            &long,
        ] {
            assert_eq!(plain(name), None, "{name:?}");
        }
        assert_eq!(plain(&long[..253]).map(|name| name.len()), Some(253));
    }

    #[test]
    fn names_in_the_format_of_dns() {
        assert_eq!(from_dns(&Name::from_str("example.org.").unwrap()).as_deref(), Some("example.org"));
        let odd = Name::from_labels([&b"a.b"[..], b"org"]).unwrap();
        assert_eq!(from_dns(&odd), None);
        assert_eq!(from_dns(&Name::root()), None);
    }

    #[test]
    fn text_for_people_cannot_move_the_cursor() {
        assert_eq!(for_people("wrong net\x1b[31m\r\n"), "wrong net[31m");
        assert_eq!(for_people(&"x".repeat(1000)).len(), 100);
    }

    proptest! {
        #[test]
        fn what_passes_is_one_plain_word(text: String) {
            if let Some(name) = plain(&text) {
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
            }
        }
    }
}
