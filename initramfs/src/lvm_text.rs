//! The text form of LVM's metadata: sections in sections, with numbers, quoted texts and lists.
//!
//! Knows the form and not the meaning ([`crate::lvm_metadata`]). Keeps the line of each section for messages. Source: lvm(8) and
//! lvm.conf(5), whose form is the same.

use anyhow::{Result, bail, ensure};

/// Sections in sections: a text has five levels.
const DEEPEST: usize = 16;

/// A section of a text: the line where it begins, for messages, and what it holds.
#[derive(Debug)]
pub(crate) struct Section {
    /// Where it begins.
    pub(crate) line: usize,
    entries: Vec<(String, Value)>,
}

/// What stands behind a name.
#[derive(Debug)]
pub(crate) enum Value {
    Section(Section),
    Number(u64),
    Text(String),
    List(Vec<Value>),
    /// What no caller asks for, for example a negative number.
    Other,
}

impl Section {
    fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(crate) fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.entries.iter().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }

    pub(crate) fn section(&self, key: &str) -> Option<&Section> {
        self.sections().find(|(name, _)| *name == key).map(|(_, section)| section)
    }

    pub(crate) fn number(&self, key: &str) -> Result<u64> {
        match self.get(key) {
            Some(Value::Number(number)) => Ok(*number),
            _ => bail!("line {}: the section has no number {key:?}", self.line),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<&str> {
        match self.get(key) {
            Some(Value::Text(text)) => Ok(text),
            _ => bail!("line {}: the section has no text {key:?}", self.line),
        }
    }

    pub(crate) fn list(&self, key: &str) -> Result<&[Value]> {
        match self.get(key) {
            Some(Value::List(list)) => Ok(list),
            _ => bail!("line {}: the section has no list {key:?}", self.line),
        }
    }
}

/// Reads a text.
///
/// # Errors
/// It is not well-formed; the message gives the line.
pub(crate) fn read(text: &str) -> Result<Section> {
    // A text ends with a zero byte on disk.
    Reader { rest: text.trim_end_matches('\0'), line: 1 }.section(0)
}

/// Reads a text from its beginning to its end.
struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    /// What stands in a section; its '{' has been read. Depth 0 is the whole text, which needs no braces.
    fn section(&mut self, depth: usize) -> Result<Section> {
        let line = self.line;
        ensure!(depth <= DEEPEST, "line {line}: more than {DEEPEST} sections in each other");
        let mut entries = Vec::new();
        loop {
            self.skip_space();
            if self.rest.is_empty() {
                ensure!(depth == 0, "line {line}: the section that begins here does not end");
                return Ok(Section { line, entries });
            }
            if depth > 0 && self.take('}') {
                return Ok(Section { line, entries });
            }
            let name = self.word()?.to_owned();
            self.skip_space();
            let value = if self.take('{') {
                Value::Section(self.section(depth + 1)?)
            } else if self.take('=') {
                self.value()?
            } else {
                bail!("line {}: neither '=' nor '{{' after {name:?}", self.line);
            };
            entries.push((name, value));
        }
    }

    fn value(&mut self) -> Result<Value> {
        self.skip_space();
        if !self.take('[') {
            return self.scalar();
        }
        let line = self.line;
        let mut list = Vec::new();
        loop {
            self.skip_space();
            if self.take(']') {
                return Ok(Value::List(list));
            }
            ensure!(!self.rest.is_empty(), "line {line}: the list that begins here does not end");
            list.push(self.scalar()?);
            self.skip_space();
            ensure!(self.take(',') || self.rest.starts_with(']'), "line {}: no ',' between values", self.line);
        }
    }

    fn scalar(&mut self) -> Result<Value> {
        if self.take('"') {
            return self.quoted().map(Value::Text);
        }
        Ok(self.word()?.parse().map_or(Value::Other, Value::Number))
    }

    /// The rest of a quoted text; a backslash takes the next character as it is.
    fn quoted(&mut self) -> Result<String> {
        let line = self.line;
        let mut text = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Ok(text);
                }
                '\\' => text.extend(characters.next().map(|(_, c)| c)),
                c => {
                    self.line += usize::from(c == '\n');
                    text.push(c);
                }
            }
        }
        bail!("line {line}: the quoted text that begins here does not end")
    }

    fn word(&mut self) -> Result<&'a str> {
        let is_end = |c: char| !(c.is_ascii_alphanumeric() || "_.+-/@:".contains(c));
        let (word, rest) =
            self.rest.split_at_checked(self.rest.find(is_end).unwrap_or(self.rest.len())).unwrap_or_default();
        match self.rest.chars().next() {
            Some(c) if word.is_empty() => bail!("line {}: unexpected {c:?}", self.line),
            None => bail!("line {}: the text ends too early", self.line),
            _ => {}
        }
        self.rest = rest;
        Ok(word)
    }

    fn take(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => self.rest = rest,
            None => return false,
        }
        true
    }

    /// Goes to what is neither white space nor a comment.
    fn skip_space(&mut self) {
        loop {
            let rest = self.rest.trim_start();
            let skipped = self.rest.get(..self.rest.len() - rest.len()).unwrap_or_default();
            self.line += skipped.matches('\n').count();
            self.rest = rest;
            if !rest.starts_with('#') {
                return;
            }
            self.rest = rest.find('\n').and_then(|end| rest.get(end..)).unwrap_or_default();
        }
    }
}
