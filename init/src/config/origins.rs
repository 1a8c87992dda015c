//! Where a value came from, and what is wrong with one.

use serde::Serialize;
use std::fmt::{self, Write as _};
use std::path::Path;

/// A layer, lowest first. Values of a higher one replace those of a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The image's own file.
    Image,
    /// The file on the stick.
    Stick,
    /// The file on the host's volume.
    Srv,
    /// The kernel's command line.
    Flags,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Stick => "stick",
            Self::Srv => "srv",
            Self::Flags => "flag",
        })
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Its layer.
    pub layer: Layer,
    /// The file, or the flag as it was given.
    pub file: String,
    /// The line in the file, from 1; 0 for a flag.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{} {}", self.layer, self.file),
            line => write!(f, "{} {}:{line}", self.layer, self.file),
        }
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// What is given has no effect and does no harm.
    Warning,
    /// What was wanted is not what holds.
    Error,
}

/// Something in a layer that could not be used. Its texts have no control characters, whatever the layer held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, or the flag as it was given.
    pub file: String,
    /// The line in the file, from 1; 0 for a flag or a file as a whole.
    pub line: usize,
    /// The character in the line, from 1; 0 where the line is.
    pub column: usize,
    /// The dotted key; empty where it is not about one key.
    pub key: String,
    /// What is wrong, what follows, and what to do.
    pub text: String,
}

impl Problem {
    /// Whether it is about what guests' tables say, or about a whole file, in which their tables may be.
    #[must_use]
    pub fn is_of_guests(&self) -> bool {
        let of_a_file = self.key.is_empty() && Path::new(&self.file).extension().is_some_and(|ending| ending == "toml");
        of_a_file || ["guest", "guests"].contains(&self.key.split('.').next().unwrap_or_default())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.text)
    }
}

/// A text that can go to a console: without control characters, and not longer than `length` characters.
#[must_use]
pub(crate) fn clean(text: &str, length: usize) -> String {
    let mut characters = text.chars().map(|character| if character.is_control() { '?' } else { character });
    let mut cleaned: String = characters.by_ref().take(length).collect();
    if characters.next().is_some() {
        cleaned.push_str("...");
    }
    cleaned
}

/// The names of a path as one dotted key of TOML.
#[must_use]
pub(crate) fn dotted(path: &[String]) -> String {
    path.iter().map(|name| key(name)).collect::<Vec<_>>().join(".")
}

/// A name as a key of TOML: bare if that is allowed, else quoted.
#[must_use]
pub(crate) fn key(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { quoted(name) }
}

/// A basic string of TOML, on one line and without control characters.
#[must_use]
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Finds the line and column of an offset in a text.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Looks for the lines of a text, once.
    pub(crate) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The line and the character in it, both from 1, of a byte's offset.
    pub(crate) fn locate(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        let end = offset.min(self.text.len());
        // Only within the line, or a file of many keys takes minutes. A character is counted by its first byte (RFC 3629).
        let before = self.text.as_bytes().get(start..end).unwrap_or_default();
        let characters = before.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        (line, characters + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_guests_is_told_beside_them() {
        let of = |file: &str, key: &str| {
            let (file, key, text) = (file.to_owned(), key.to_owned(), String::new());
            Problem { severity: Severity::Error, file, line: 0, column: 0, key, text }.is_of_guests()
        };
        assert!(of("/srv/sino/sino.toml", "guest.db.after") && of("sino.set=x", "guests.parallel"));
        assert!(of("/srv/sino/sino.toml", ""), "the whole file may have their tables");
        assert!(!of("kernel flags", "") && !of("/srv/sino/sino.toml", "network.dns") && !of("f", "guestbook"));
    }

    #[test]
    fn an_offset_has_its_line_and_character() {
        let lines = Lines::new("a\nüb = 1\n\nc");
        assert_eq!(
            [0, 1, 2, 4, 9, 10, 11, 99].map(|offset| lines.locate(offset)),
            [(1, 1), (1, 2), (2, 1), (2, 2), (2, 7), (3, 1), (4, 1), (4, 2)]
        );
    }

    #[test]
    fn names_that_toml_would_not_read_are_quoted() {
        assert_eq!(dotted(&["vlan".into(), "eno1.5".into(), "a\"\u{1b}".into()]), r#"vlan."eno1.5"."a\"\u001B""#);
        assert_eq!((key(""), clean("a\u{1b}[2J\nb", 4)), ("\"\"".into(), "a?[2...".into()));
    }
}
