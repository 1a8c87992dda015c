//! Lines out of what a terminal is sent: escape sequences and control characters left out, long lines cut.
//!
//! Escape sequences: ECMA-48, sections 5.3 to 5.6.

/// The longest line, in bytes; what is beyond is left out.
pub const LONGEST: usize = 4096;
const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;
const DELETE: u8 = 0x7f;

/// Takes bytes as they come and gives lines.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Text,
    /// After ESC, and its intermediate bytes.
    Escape,
    /// A control sequence: ends with a letter or the like.
    Control,
    /// A string, such as a window title: ends with BEL or ESC \.
    String,
    /// ESC within a string.
    StringEscape,
}

impl Lines {
    /// Calls `each` with every line that ends in these bytes. A carriage return ends a line, too: progress is written so.
    /// Empty lines are left out.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for &byte in bytes {
            if let b'\n' | b'\r' = byte {
                self.end(&mut each);
                self.state = State::Text;
                continue;
            }
            self.state = match self.state {
                State::Text => self.text(byte),
                State::Escape => match byte {
                    b'[' => State::Control,
                    b']' | b'P' | b'X' | b'^' | b'_' => State::String,
                    ESCAPE | 0x20..=0x2f => State::Escape,
                    _ => State::Text,
                },
                State::Control => match byte {
                    ESCAPE => State::Escape,
                    0x40..=0x7e => State::Text,
                    _ => State::Control,
                },
                State::String => match byte {
                    ESCAPE => State::StringEscape,
                    BELL => State::Text,
                    _ => State::String,
                },
                State::StringEscape => State::Text,
            };
        }
    }

    fn text(&mut self, byte: u8) -> State {
        if byte == ESCAPE {
            return State::Escape;
        }
        if (byte >= b' ' || byte == b'\t') && byte != DELETE && self.line.len() < LONGEST {
            self.line.push(byte);
        }
        State::Text
    }

    /// The line that has begun but not ended: a prompt, for example. Empty if there is none.
    #[must_use]
    pub fn begun(&self) -> String {
        clean(&self.line)
    }

    fn end(&mut self, each: &mut impl FnMut(&str)) {
        if !self.line.is_empty() {
            each(&clean(&self.line));
            self.line.clear();
        }
    }
}

/// All lines of `bytes`, the last one whether it ends or not.
#[must_use]
pub fn all(bytes: &[u8]) -> Vec<String> {
    let (mut lines, mut found) = (Lines::default(), Vec::new());
    lines.push(bytes, |line| found.push(line.to_owned()));
    lines.push(b"\n", |line| found.push(line.to_owned()));
    found
}

/// UTF-8, with what is none replaced, and without the control characters beyond ASCII.
fn clean(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().filter(|&c| c == '\t' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_not_show_is_left_out() {
        let bytes = b"\x1b[2J\x1b[1;31mred\x1b[0m line\r\n\r\n\x1b]0;title\x07one\x1b]2;t\x1b\\ more\n 50%\r100%\rd\xff\x00\x08e\x1b(B!\x1b7\n\x1b[?25hlogin: ";
        assert_eq!(all(bytes), ["red line", "one more", " 50%", "100%", "d\u{fffd}e!", "login: "]);
    }

    #[test]
    fn a_line_is_cut_and_a_begun_one_is_seen() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; 100_000], |_| panic!("no line has ended"));
        assert_eq!(lines.begun().len(), LONGEST);
        lines.push(b"\nlog", |line| assert_eq!(line.len(), LONGEST));
        assert_eq!(lines.begun(), "log");
    }

    proptest! {
        #[test]
        fn how_bytes_are_split_makes_no_difference(bytes: Vec<u8>, at: usize) {
            let at = if bytes.is_empty() { 0 } else { at % bytes.len() };
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for part in [&bytes[..at], &bytes[at..], b"\n"] {
                lines.push(part, |line| found.push(line.to_owned()));
            }
            prop_assert_eq!(&found, &all(&bytes));
            prop_assert!(found.iter().all(|line| line.chars().all(|c| c == '\t' || !c.is_control())));
        }
    }
}
