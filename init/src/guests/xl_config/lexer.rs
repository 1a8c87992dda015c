//! The words of xl's grammar, as libxlu's lexer cuts them: names in lower case, numbers, strings of one line in either quote,
//! `#` comments. It goes on after a word that is none, as xl does.

use super::Notes;

/// A word of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Name(String),
    /// A string's text, or a number's digits.
    Text(String),
    Comma,
    Open,
    Close,
    Assign,
    Add,
    Semicolon,
    NewLine,
    End,
}

impl Word {
    /// What it is called in a problem.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Name(name) => format!("{name:?}"),
            Self::Text(text) => format!("the value {text:?}"),
            Self::Comma => "a comma".into(),
            Self::Open => "[".into(),
            Self::Close => "]".into(),
            Self::Assign => "=".into(),
            Self::Add => "+=".into(),
            Self::Semicolon => "a semicolon".into(),
            Self::NewLine => "the end of the line".into(),
            Self::End => "the end of the file".into(),
        }
    }
}

/// Where a word begins: line and character, from 1.
pub(super) type Place = (usize, usize);

/// Cuts a text into words, one after the other.
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Bytes that are behind.
    at: usize,
    line: usize,
    /// The place that was counted last in this line, in bytes and in characters: lines may be long.
    counted: (usize, usize),
    /// The last line with an error: one is told of each, as the others come of it.
    erroneous: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, counted: (0, 0), erroneous: 0 }
    }

    /// The next word and where it begins. What is no word is told and left out.
    pub(super) fn next(&mut self, notes: &mut Notes) -> (Word, Place) {
        loop {
            let place = self.here();
            let Some(byte) = self.byte(0) else { return (Word::End, place) };
            let word_begins = matches!(byte, b'a'..=b'z' | b'0'..=b'9') || b",[]=;\n".contains(&byte);
            if !word_begins && self.byte(1).is_none() {
                // xl's lexer never comes to refuse a single wrong byte at the very end.
                self.at += 1;
                continue;
            }
            let word = match byte {
                b'a'..=b'z' => Word::Name(self.take(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_'))),
                b'0'..=b'9' => Word::Text(self.take(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'x'))),
                b',' => self.sign(1, Word::Comma),
                b'[' => self.sign(1, Word::Open),
                b']' => self.sign(1, Word::Close),
                b'=' => self.sign(1, Word::Assign),
                b'+' if self.byte(1) == Some(b'=') => self.sign(2, Word::Add),
                b';' => self.sign(1, Word::Semicolon),
                b'\n' => self.new_line(),
                b'#' => {
                    self.skip(|byte| byte != b'\n');
                    if self.byte(0).is_none() {
                        let text = "this comment ends without a line end, and xl refuses the file for it; try: add an empty line";
                        self.error(notes, place, text);
                        continue;
                    }
                    self.new_line()
                }
                b'"' | b'\'' => match self.quoted(byte, place, notes) {
                    Some(text) => Word::Text(text),
                    None => continue,
                },
                _ => {
                    self.nonsense(place, notes);
                    continue;
                }
            };
            return (word, place);
        }
    }

    /// Goes on at the next line.
    pub(super) fn skip_line(&mut self) {
        self.skip(|byte| byte != b'\n');
        if self.byte(0).is_some() {
            self.new_line();
        }
    }

    /// Whether an assignment begins here.
    pub(super) fn at_assignment(&self) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default().trim_start_matches([' ', '\t']);
        let behind = rest.trim_start_matches(|character: char| matches!(character, 'a'..='z' | '0'..='9' | '.' | '_'));
        let after = behind.trim_start_matches([' ', '\t']);
        rest.starts_with(|first: char| first.is_ascii_lowercase())
            && (after.starts_with('=') || after.starts_with("+="))
    }

    /// Where the next word begins.
    pub(super) fn here(&mut self) -> Place {
        self.skip(|byte| byte == b' ' || byte == b'\t');
        self.place()
    }

    pub(super) fn at_end(&self) -> bool {
        self.byte(0).is_none()
    }

    /// Tells of an error, unless one of this line has been told of.
    pub(super) fn error(&mut self, notes: &mut Notes, (line, column): Place, text: &str) {
        if line > self.erroneous {
            notes.error(line, column, "", text);
            self.erroneous = line;
        }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn skip(&mut self, what: impl Fn(u8) -> bool) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|byte| !what(*byte)).unwrap_or(rest.len());
    }

    fn take(&mut self, what: impl Fn(u8) -> bool) -> String {
        let from = self.at;
        self.skip(what);
        self.text.get(from..self.at).unwrap_or_default().to_owned()
    }

    fn sign(&mut self, length: usize, word: Word) -> Word {
        self.at += length;
        word
    }

    fn new_line(&mut self) -> Word {
        self.at += 1;
        self.line += 1;
        self.counted = (self.at, 0);
        Word::NewLine
    }

    fn place(&mut self) -> Place {
        let (from, characters) = self.counted;
        let more = self.text.get(from..self.at).unwrap_or_default().chars().count();
        self.counted = (self.at, characters + more);
        (self.line, characters + more + 1)
    }

    /// A string, from its quote on. `None`: it has no end, and the rest of the line has been left out.
    fn quoted(&mut self, quote: u8, place: Place, notes: &mut Notes) -> Option<String> {
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        let mut text = String::new();
        let mut wrong = None;
        let mut characters = rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\n' => break,
                _ if character == char::from(quote) => {
                    self.at += 1 + at + 1;
                    if let Some(wrong) = wrong {
                        self.error(notes, place, wrong);
                    }
                    return Some(text);
                }
                '\\' => match characters.next() {
                    None | Some((_, '\n')) => break,
                    Some((_, escaped)) => match escape(escaped, &mut characters, quote) {
                        Ok(Some(character)) => text.push(character),
                        Ok(None) => {
                            let lost =
                                "xl leaves out what is written as a number after a backslash; try: write the character";
                            notes.warning(place.0, place.1, "", lost);
                        }
                        Err(why) => wrong = Some(why),
                    },
                },
                other => text.push(other),
            }
        }
        let text = format!("this string has no {} at its end in this line", char::from(quote));
        self.error(notes, place, &text);
        self.skip(|byte| byte != b'\n');
        None
    }

    /// Leaves out what xl leaves out: all up to the next blank.
    fn nonsense(&mut self, place: Place, notes: &mut Notes) {
        let from = self.at;
        self.skip(|byte| !matches!(byte, b' ' | b'\t' | b'\n'));
        let word = self.text.get(from..self.at).unwrap_or_default();
        let first = word.chars().next().unwrap_or_default();
        let why = match first {
            '\r' => "the lines end as on DOS (CR LF), which xl refuses; try: sed -i 's/\\r$//' FILE".to_owned(),
            '\u{feff}' => {
                "the file begins with a byte order mark, which xl refuses; try: sed -i '1s/^\\xef\\xbb\\xbf//' FILE"
                    .to_owned()
            }
            'A'..='Z' => format!("{word:?} is neither a name nor a value: names are in lower case, values in quotes"),
            '+' | '-' | '.' | '(' | ')' | ':' => {
                format!("{word:?} is not in xl's grammar: text must be in quotes, and Python is not read")
            }
            _ => format!("{word:?} is not in xl's grammar: text must be in quotes"),
        };
        self.error(notes, place, &why);
    }
}

/// What follows a backslash, as libxlu reads it. It takes numbers but leaves them out (its octal digits are read as decimal
/// ones and are then forgotten), and never reads a hexadecimal one.
fn escape(escaped: char, rest: &mut std::str::CharIndices<'_>, quote: u8) -> Result<Option<char>, &'static str> {
    Ok(Some(match escaped {
        '"' | '\'' | '\\' => escaped,
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        'x' => return Err("xl reads no \\x in a string (a defect of its own); try: write the character itself"),
        '0'..='7' => {
            let mut digits = 0;
            while digits < 3
                && rest.as_str().starts_with(|next: char| next.is_ascii_digit() && next != char::from(quote))
            {
                rest.next();
                digits += 1;
            }
            return if digits < 2 {
                Err("xl refuses a number of one or two digits after a backslash")
            } else {
                Ok(None)
            };
        }
        _ => {
            return Err(
                "a backslash in a string is followed by one of \\ \" ' a b f n r t v; try: double the backslash",
            );
        }
    }))
}
