//! Guest configuration files in xl's grammar: what SINO has to know of a guest before xl starts it.
//!
//! [`read`] takes a file's bytes and gives a [`GuestConfig`] and what is wrong with the file; nothing is opened there.
//! [`discover()`] finds the files. xl has the last word: an error here is a report, and what could be read is used. Facts of
//! xl are those of Xen 4.17 to 4.20 (libxlu's lexer and grammar, `xl_parse.c`, xl.cfg(5)).

pub mod discover;
mod disk;
mod fields;
mod grammar;
mod guest;
mod keys;
mod lexer;
mod value;
mod vif;

pub use discover::{Found, Guest, discover};
pub use disk::{Access, Disk, Format};
pub use guest::{At, GuestConfig, Kind};
pub use value::{Content, Setting, Value};
pub use vif::Vif;

use crate::config::{Problem, Severity};
use grammar::Parsed;

/// Largest file that is read, in bytes. A guest's file has some hundred.
pub const LARGEST: usize = 1 << 20;
/// Problems of one file that are told; a file that is no guest configuration must not fill the console.
const TOLD: usize = 30;

/// What a file says, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What could be read.
    pub config: GuestConfig,
    /// What is wrong, by line. An error is what xl refuses the file for; a warning is what xl takes otherwise than it looks.
    pub problems: Vec<Problem>,
}

/// Reads a guest's file. `file` is its name in the problems.
#[must_use]
pub fn read(bytes: &[u8], file: &str) -> Reading {
    let mut notes = Notes::new(file);
    // What is no text has no settings, and that they are missing is no news.
    let config = settings(bytes, &mut notes).map(|parsed| guest::interpret(parsed.settings, &mut notes));
    Reading { config: config.unwrap_or_default(), problems: notes.finish() }
}

/// Reads only the settings of a file in xl's grammar, such as `/etc/xen/xl.conf`.
#[must_use]
pub fn read_settings(bytes: &[u8], file: &str) -> (Vec<Setting>, Vec<Problem>) {
    let mut notes = Notes::new(file);
    let parsed = settings(bytes, &mut notes);
    (parsed.unwrap_or_default().settings, notes.finish())
}

/// Why a file of so many bytes is not read; `None`: it is. Whoever reads a file asks before, because bytes that were read no
/// longer tell how many there are.
#[must_use]
pub fn too_large(bytes: u64) -> Option<String> {
    let most = u64::try_from(LARGEST).unwrap_or(u64::MAX);
    let (size, most) = (bytes.div_ceil(1 << 10), (bytes > most).then_some(most >> 10)?);
    Some(format!("is too large for a guest's file ({size} KiB; at most {most} KiB are read); nothing of it is used"))
}

/// The settings; `None`, and why: there are none to be had.
fn settings(bytes: &[u8], notes: &mut Notes) -> Option<Parsed> {
    if let Some(text) = too_large(u64::try_from(bytes.len()).unwrap_or(u64::MAX)) {
        notes.error(0, 0, "", &text);
        return None;
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let line = bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        notes.error(line, 1, "", "is binary, not text (there is a NUL byte); xl refuses it, and nothing of it is used");
        return None;
    }
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = str::from_utf8(bytes) {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        let column = String::from_utf8_lossy(before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default());
        let text = "is not UTF-8; xl takes the bytes as they are, SINO cannot show or compare them; try: iconv -f latin1 -t utf8";
        notes.warning(line, column.chars().count() + 1, "", text);
    }
    Some(grammar::parse(&text, notes))
}

/// The problems of a file, as they are found.
#[derive(Debug)]
pub(crate) struct Notes {
    file: String,
    problems: Vec<Problem>,
    /// Problems beyond those that are told, and the worst of them.
    more: usize,
    worst: Severity,
}

impl Notes {
    pub(crate) fn new(file: &str) -> Self {
        let file = crate::config::origins::clean(file, 300);
        Self { file, problems: Vec::new(), more: 0, worst: Severity::Warning }
    }

    pub(crate) fn error(&mut self, line: usize, column: usize, key: &str, text: &str) {
        self.add(Severity::Error, line, column, key, text);
    }

    pub(crate) fn warning(&mut self, line: usize, column: usize, key: &str, text: &str) {
        self.add(Severity::Warning, line, column, key, text);
    }

    fn add(&mut self, severity: Severity, line: usize, column: usize, key: &str, text: &str) {
        if self.problems.len() >= TOLD {
            self.more += 1;
            self.worst = self.worst.max(severity);
            return;
        }
        let (key, text) = (crate::config::origins::clean(key, 100), crate::config::origins::clean(text, 500));
        self.problems.push(Problem { severity, file: self.file.clone(), line, column, key, text });
    }

    pub(crate) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        if self.more > 0 {
            let text = format!("and {} more problems", self.more);
            let (severity, file) = (self.worst, self.file);
            self.problems.push(Problem { severity, file, line: 0, column: 0, key: String::new(), text });
        }
        self.problems
    }
}

#[cfg(test)]
mod tests;
