//! What a file in xl's grammar consists of: settings, and their values.

use std::fmt;

/// A setting, as it holds at the end of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value; after `+=` all that was put together.
    pub value: Value,
    /// Whether the last assignment was `+=`; xl reads no number from such a setting.
    pub added: bool,
    /// The line of the last assignment, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// What it is.
    pub content: Content,
    /// The line where it begins, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

/// What a value is. xl makes no difference between a number and a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A string without its quotes, or a number as it is written.
    Text(String),
    /// A list; at most 16 within each other.
    List(Vec<Value>),
}

impl Value {
    /// The text; `None` for a list.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            Content::List(_) => None,
        }
    }

    /// The items; `None` for a text.
    #[must_use]
    pub fn list(&self) -> Option<&[Value]> {
        match &self.content {
            Content::Text(_) => None,
            Content::List(items) => Some(items),
        }
    }

    /// As a whole number: as C's `strtol` of base 0 reads it, so `0x` is hexadecimal and a leading 0 octal.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        number(self.text()?)
    }
}

/// A whole number as C's `strtol` of base 0 reads it (C17, 7.22.1.4), with nothing behind it.
fn number(text: &str) -> Option<i64> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    // Rust would take another sign here.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

impl fmt::Display for Value {
    /// In xl's grammar: a text is quoted, a list is on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Text(text) => quote(f, text),
            Content::List(items) => {
                f.write_str("[")?;
                for (number, item) in items.iter().enumerate() {
                    f.write_str(if number == 0 { " " } else { ", " })?;
                    item.fmt(f)?;
                }
                f.write_str(" ]")
            }
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, if self.added { "+=" } else { "=" }, self.value)
    }
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(f, "\\{character}")?,
            // Any other control character may stand for itself.
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            other => write!(f, "{other}")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_strtol_reads_them() {
        for (text, expected) in [
            ("512", Some(512)),
            ("0", Some(0)),
            ("0x200", Some(512)),
            ("0X1f", Some(31)),
            ("010", Some(8)),
            ("-5", Some(-5)),
            ("+7", Some(7)),
            (" 12", Some(12)),
            ("08", None),
            ("12 ", None),
            ("1f", None),
            ("0x", None),
            ("", None),
            ("-", None),
            ("--5", None),
            ("0x-5", None),
            ("512M", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
