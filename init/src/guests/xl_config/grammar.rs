//! xl's grammar: assignments, lists within lists, and what is left of a file after an error.

use super::lexer::{Lexer, Place, Word};
use super::{Content, Notes, Setting, Value};
use std::collections::HashMap;

/// Lists within each other that are followed; xl's own settings have two.
pub(super) const DEEPEST: usize = 16;

/// The settings of a file, each name once, in the order of their first assignment.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) settings: Vec<Setting>,
}

/// Reads a text that has no NUL byte.
pub(super) fn parse(text: &str, notes: &mut Notes) -> Parsed {
    let mut parser = Parser { lexer: Lexer::new(text), notes, parsed: Parsed::default(), places: HashMap::new() };
    while parser.statement() {}
    parser.parsed
}

/// A value could not be read; it has been told, and what follows it begins a line.
struct Failed;

struct Parser<'a, 'n> {
    lexer: Lexer<'a>,
    notes: &'n mut Notes,
    parsed: Parsed,
    /// Names and their places in `parsed`.
    places: HashMap<String, usize>,
}

impl Parser<'_, '_> {
    /// One statement. Returns whether more may follow.
    fn statement(&mut self) -> bool {
        let (word, place) = self.next();
        match word {
            Word::End => return false,
            Word::NewLine | Word::Semicolon => {}
            Word::Name(name) => {
                let added = match self.next() {
                    (Word::Assign, _) => false,
                    (Word::Add, _) => true,
                    (other, at) => {
                        let text = format!("after {name:?} there must be =, not {}", other.shown());
                        return self.leave(&other, at, &text);
                    }
                };
                let Ok(value) = self.value() else { return true };
                self.store(name, added, value, place);
                match self.next() {
                    (Word::NewLine | Word::Semicolon, _) => {}
                    (Word::End, _) => return false,
                    (other, at) => {
                        let text = format!(
                            "after a value there must be the end of the line or a semicolon, not {}",
                            other.shown()
                        );
                        return self.leave(&other, at, &text);
                    }
                }
            }
            other => {
                let text = format!("a setting begins with its name, in lower case and not with {}", other.shown());
                return self.leave(&other, place, &text);
            }
        }
        true
    }

    fn next(&mut self) -> (Word, Place) {
        self.lexer.next(self.notes)
    }

    /// Tells of an error and goes on at the next line. Returns whether more may follow.
    fn leave(&mut self, found: &Word, place: Place, text: &str) -> bool {
        self.lexer.error(self.notes, place, text);
        if !matches!(found, Word::NewLine | Word::End) {
            self.lexer.skip_line();
        }
        *found != Word::End
    }

    fn value(&mut self) -> Result<Value, Failed> {
        let (word, place) = self.next();
        match word {
            Word::Text(text) => Ok(value(Content::Text(text), place)),
            Word::Open => self.list(place),
            other => {
                let text = match &other {
                    Word::Name(name) => {
                        format!("a value is a number, a list in [ ], or text in quotes; try: \"{name}\"")
                    }
                    other => format!("there must be a value here, not {}", other.shown()),
                };
                self.leave(&other, place, &text);
                Err(Failed)
            }
        }
    }

    /// A list, from behind its bracket on; not by recursion, as a file may hold any number of brackets.
    fn list(&mut self, place: Place) -> Result<Value, Failed> {
        let mut open = vec![(Vec::new(), place)];
        // Whether an item may stand here; otherwise a comma must.
        let mut item = true;
        loop {
            if self.lexer.at_assignment() {
                let at = self.lexer.here();
                let text = format!("the list that begins in line {} has no ] before this", place.0);
                self.lexer.error(self.notes, at, &text);
                return Err(Failed);
            }
            let (word, at) = self.next();
            let why = match word {
                Word::NewLine => continue,
                Word::Text(text) if item => {
                    push(&mut open, value(Content::Text(text), at));
                    item = false;
                    continue;
                }
                Word::Open if item && open.len() < DEEPEST => {
                    open.push((Vec::new(), at));
                    continue;
                }
                Word::Open if item => format!("these are more than {DEEPEST} lists within each other"),
                Word::Comma if !item => {
                    item = true;
                    continue;
                }
                Word::Close => {
                    let Some((items, began)) = open.pop() else { return Err(Failed) };
                    let list = value(Content::List(items), began);
                    if open.is_empty() {
                        return Ok(list);
                    }
                    push(&mut open, list);
                    item = false;
                    continue;
                }
                Word::End => format!("the list that begins in line {} has no ] at its end", place.0),
                Word::Name(name) => {
                    format!("an item of a list is a number, a list, or text in quotes; try: \"{name}\"")
                }
                other if item => format!("there must be an item of the list or ] here, not {}", other.shown()),
                other => format!("there must be a comma or ] after an item of a list, not {}", other.shown()),
            };
            self.lexer.error(self.notes, at, &why);
            // The rest of the list makes no sense by itself.
            self.lexer.skip_line();
            while !self.lexer.at_end() && !self.lexer.at_assignment() {
                self.lexer.skip_line();
            }
            return Err(Failed);
        }
    }

    /// Keeps a setting as xl does: the last assignment holds, `+=` puts values of one kind together.
    fn store(&mut self, name: String, added: bool, mut value: Value, (line, column): Place) {
        let earlier = self.places.get(&name).and_then(|place| self.parsed.settings.get_mut(*place));
        let Some(earlier) = earlier else {
            self.places.insert(name.clone(), self.parsed.settings.len());
            self.parsed.settings.push(Setting { name, value, added, line, column });
            return;
        };
        if added {
            match (&mut earlier.value.content, &mut value.content) {
                (Content::Text(before), Content::Text(more)) => before.push_str(more),
                (Content::List(before), Content::List(more)) => before.append(more),
                _ => {
                    let text = format!("+= adds text to text or a list to a list; line {} has the other", earlier.line);
                    self.notes.error(line, column, &name, &text);
                    return;
                }
            }
        } else {
            let text = format!("is given again; this holds, and line {} has no effect", earlier.line);
            self.notes.warning(line, column, &name, &text);
            earlier.value = value;
        }
        (earlier.added, earlier.line, earlier.column) = (added, line, column);
    }
}

fn value(content: Content, (line, column): Place) -> Value {
    Value { content, line, column }
}

fn push(open: &mut [(Vec<Value>, Place)], value: Value) {
    if let Some((items, _)) = open.last_mut() {
        items.push(value);
    }
}
