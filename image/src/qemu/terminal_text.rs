//! Takes terminal control sequences out of a stream of bytes, so that text can be searched for what a person reads.
//!
//! Knows ANSI escape sequences (ECMA-48) as far as boot menus, kernels and shells write them. Works on a stream: a
//! sequence may be cut between two pieces. Does not follow the cursor.

/// The state between two pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Escape,
    /// After `ESC [`: ends with a byte from `@` to `~`.
    Control,
    /// After `ESC ]`: ends with BEL or `ESC \`.
    Command,
    /// After `ESC (` and the like: one more byte.
    OneMore,
}

/// The filter.
#[derive(Debug, Default)]
pub struct Filter {
    state: State,
}

impl Filter {
    /// Adds the readable part of `bytes` to `text`: printable ASCII, newlines and tabs; other bytes become `?`.
    pub fn add(&mut self, bytes: &[u8], text: &mut String) {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::Text | State::Command, 0x1b) => State::Escape,
                (State::Text, b'\n' | b'\t' | 0x20..=0x7e) => {
                    text.push(char::from(byte));
                    State::Text
                }
                (State::Text, 0x80..) => {
                    text.push('?');
                    State::Text
                }
                (State::Escape, b'[') | (State::Control, 0..=0x3f | 0x7f..) => State::Control,
                (State::Escape, b']') | (State::Command, 0..=0x06 | 0x08..) => State::Command,
                (State::Escape, b'(' | b')' | b'#' | b'%') => State::OneMore,
                (State::Text | State::Escape | State::OneMore | State::Control | State::Command, _) => State::Text,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(pieces: &[&[u8]]) -> String {
        let (mut filter, mut text) = (Filter::default(), String::new());
        for piece in pieces {
            filter.add(piece, &mut text);
        }
        text
    }

    #[test]
    fn colours_and_cursor_moves_go_text_stays() {
        assert_eq!(filtered(&[b"\x1b[1;31mSINO\x1b[0m on \x1b[5;7Hram\r\n"]), "SINO on ram\n");
        assert_eq!(filtered(&[b"\x1b(0x\x1b]0;title\x07y\x1b]0;t\x1b\\z"]), "xyz");
    }

    #[test]
    fn a_sequence_may_be_cut_anywhere() {
        let whole: &[u8] = b"a\x1b[12;34Hb\x1b]0;t\x07c";
        for cut in 0..whole.len() {
            assert_eq!(filtered(&[&whole[..cut], &whole[cut..]]), "abc", "cut at {cut}");
        }
    }

    #[test]
    fn other_bytes_do_not_hide_text() {
        assert_eq!(filtered(&[b"a\0\xc4b"]), "a?b");
    }
}
