//! Cuts a message into records of the kernel's log.
//!
//! Takes text piece by piece as the formatter produces it, in a buffer on the stack, and hands each finished record to
//! a function. Does not know where records go.

use log::Level;
use std::fmt;

/// The longest record, in bytes, with priority, tag and final newline.
///
/// The kernel refuses a longer `write()` with EINVAL (`devkmsg_write()` in `kernel/printk/printk.c`): beyond
/// `PRINTKRB_RECORD_MAX` = 1024 since Linux 6.3; before that beyond `LOG_LINE_MAX` = 1024 - `PREFIX_MAX`, which is 48
/// where `CONFIG_PRINTK_CALLER` is set and 32 elsewhere (`kernel/printk/internal.h`). This is the smallest of the three.
pub(crate) const RECORD_MAX: usize = 1024 - 48;

/// The priority of a record: facility "daemon" (3) times 8 plus the severity. The kernel keeps facility 0 for itself
/// and turns it into "user" (`Documentation/ABI/testing/dev-kmsg`), so a reader always knows that a program spoke.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<27>",
        Level::Warn => "<28>",
        Level::Info => "<30>",
        Level::Debug | Level::Trace => "<31>",
    }
}

/// A record without its priority, for people.
pub(crate) fn without_priority(record: &[u8]) -> &[u8] {
    record.get(priority(Level::Info).len()..).unwrap_or_default()
}

/// A character as a console may show it.
pub(crate) struct Visible {
    text: Buffer<8>,
}

impl Visible {
    pub(crate) fn as_str(&self) -> &str {
        // Only whole characters were added.
        std::str::from_utf8(self.text.filled()).unwrap_or_default()
    }
}

/// `character` itself, or the bytes of a control character as `\xNN`, which is how the kernel writes them to readers of
/// the log. Consoles get a record as it is: an escape sequence in a volume label must not reach them.
pub(crate) fn visible(character: char) -> Visible {
    let mut utf8 = [0; 4];
    let bytes = character.encode_utf8(&mut utf8).as_bytes();
    let mut text = Buffer::new();
    if character.is_control() {
        for byte in bytes {
            let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
            text.push(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
        }
    } else {
        text.push(bytes);
    }
    Visible { text }
}

/// Bytes with a fixed capacity.
struct Buffer<const CAPACITY: usize> {
    bytes: [u8; CAPACITY],
    length: usize,
}

impl<const CAPACITY: usize> Buffer<CAPACITY> {
    const fn new() -> Self {
        Self { bytes: [0; CAPACITY], length: 0 }
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.length)
    }

    /// Adds all of `part`, or nothing where it does not fit.
    fn push(&mut self, part: &[u8]) {
        let end = self.length.saturating_add(part.len());
        if let Some(space) = self.bytes.get_mut(self.length..end) {
            space.copy_from_slice(part);
            self.length = end;
        }
    }
}

/// Turns formatted text into records, each handed to `emit`.
pub(crate) struct Splitter<'a, Emit: FnMut(&[u8])> {
    level: Level,
    tag: &'a str,
    emit: Emit,
    record: Buffer<RECORD_MAX>,
    /// Whether the record has text after its tag.
    has_text: bool,
    /// Whether any record was emitted.
    emitted: bool,
}

impl<'a, Emit: FnMut(&[u8])> Splitter<'a, Emit> {
    /// A splitter for one message. `tag` must leave room for text.
    pub(crate) fn new(level: Level, tag: &'a str, emit: Emit) -> Self {
        let mut splitter = Self { level, tag, emit, record: Buffer::new(), has_text: false, emitted: false };
        splitter.begin();
        splitter
    }

    /// Emits what is left. A message without any text is one empty record.
    pub(crate) fn finish(mut self) {
        if self.has_text || !self.emitted {
            self.end();
        }
    }

    fn begin(&mut self) {
        self.record.length = 0;
        self.has_text = false;
        for part in [priority(self.level), self.tag, ": "] {
            self.record.push(part.as_bytes());
        }
    }

    /// The final newline is not decoration: without it the kernel keeps the record open for a continuation, and readers
    /// do not see it until another one follows (`vprintk_store()`).
    fn end(&mut self) {
        self.record.push(b"\n");
        (self.emit)(self.record.filled());
        self.emitted = true;
        self.begin();
    }
}

impl<Emit: FnMut(&[u8])> fmt::Write for Splitter<'_, Emit> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character == '\n' {
                // Empty lines carry nothing.
                if self.has_text {
                    self.end();
                }
                continue;
            }
            let visible = visible(character);
            let bytes = visible.as_str().as_bytes();
            // One byte stays free for the newline.
            if self.record.room() <= bytes.len() && self.has_text {
                self.end();
            }
            self.record.push(bytes);
            self.has_text = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write as _;

    fn records(tag: &str, parts: &[&str]) -> Vec<String> {
        let mut records = Vec::new();
        let mut splitter = Splitter::new(Level::Info, tag, |record: &[u8]| {
            records.push(String::from_utf8(record.to_vec()).unwrap());
        });
        for part in parts {
            splitter.write_str(part).unwrap();
        }
        splitter.finish();
        records
    }

    #[test]
    fn a_line_is_a_record() {
        assert_eq!(records("sino", &["hello"]), ["<30>sino: hello\n"]);
        assert_eq!(records("sino", &["he", "llo\n"]), ["<30>sino: hello\n"]);
        assert_eq!(records("sino", &["one\n\ntwo\n\n"]), ["<30>sino: one\n", "<30>sino: two\n"]);
        assert_eq!(records("sino", &[""]), ["<30>sino: \n"]);
        assert_eq!(records("sino", &["\n\n"]), ["<30>sino: \n"]);
    }

    #[test]
    fn every_level_has_the_daemon_facility() {
        let severities = [(Level::Error, 3), (Level::Warn, 4), (Level::Info, 6), (Level::Debug, 7), (Level::Trace, 7)];
        for (level, severity) in severities {
            assert_eq!(priority(level), format!("<{}>", 3 * 8 + severity));
        }
    }

    #[test]
    fn control_characters_are_escaped_and_other_text_is_kept() {
        assert_eq!(
            records("t", &["a\x1b[2Jb\rc\0d\u{7f}e\u{9b}f\tñ\\"]),
            ["<30>t: a\\x1b[2Jb\\x0dc\\x00d\\x7fe\\xc2\\x9bf\\x09ñ\\\n"]
        );
    }

    #[test]
    fn a_record_may_be_full_to_the_last_byte_and_goes_on_in_the_next() {
        let room = RECORD_MAX - "<30>t: \n".len();
        assert_eq!(records("t", &[&"x".repeat(room)]), [format!("<30>t: {}\n", "x".repeat(room))]);
        assert_eq!(records("t", &[&"x".repeat(room)])[0].len(), RECORD_MAX);
        let two = records("t", &[&"x".repeat(room + 1)]);
        assert_eq!(two, [format!("<30>t: {}\n", "x".repeat(room)), "<30>t: x\n".to_owned()]);
    }

    #[test]
    fn the_fallback_shows_no_priority() {
        assert_eq!(without_priority(b"<30>sino: x\n"), b"sino: x\n");
        assert_eq!(without_priority(b""), b"");
    }

    proptest! {
        #[test]
        fn no_text_is_lost_no_record_is_too_long_and_each_has_its_prefix(
            parts in proptest::collection::vec("(?s)(.|[\\x00-\\x1f]|é|𝄞){0,700}", 0..5),
            tag in "[a-z]{0,64}",
        ) {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let prefix = format!("<30>{tag}: ");
            let mut text = String::new();
            for record in records(&tag, &parts) {
                prop_assert!(record.len() <= RECORD_MAX);
                let body = record.strip_prefix(&prefix).and_then(|body| body.strip_suffix('\n'));
                let body = body.ok_or_else(|| TestCaseError::fail(format!("prefix or newline missing: {record:?}")))?;
                prop_assert!(!body.chars().any(char::is_control));
                text.push_str(body);
            }
            let expected: String =
                parts.concat().chars().filter(|&c| c != '\n').map(|c| visible(c).as_str().to_owned()).collect();
            prop_assert_eq!(text, expected);
        }
    }
}
