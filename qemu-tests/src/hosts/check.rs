//! A command with what must be true of its output, as data.

use crate::host::Host;
use crate::shell::Output;
use anyhow::Result;

/// How much of an output a complaint shows, in characters; all of it is in the log of the commands.
const SHOWN: usize = 600;

/// What must be true of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It says exactly this, apart from white space around it.
    Is(String),
    /// It says all of these, somewhere.
    Has(Vec<String>),
    /// It says none of these.
    HasNone(Vec<String>),
    /// It ends with status 0.
    Ends,
    /// It ends with another status.
    Fails,
}

/// The command and what must be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The command line.
    pub command: String,
    /// What must be true.
    pub wanted: Wanted,
}

fn check(command: &str, wanted: Wanted) -> Check {
    Check { command: command.to_owned(), wanted }
}

fn all(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The command says exactly this.
#[must_use]
pub fn is(command: &str, text: &str) -> Check {
    check(command, Wanted::Is(text.to_owned()))
}

/// The command says all of these.
#[must_use]
pub fn has(command: &str, words: &[&str]) -> Check {
    check(command, Wanted::Has(all(words)))
}

/// The command says none of these.
#[must_use]
pub fn has_none(command: &str, words: &[&str]) -> Check {
    check(command, Wanted::HasNone(all(words)))
}

/// The command ends well.
#[must_use]
pub fn ends(command: &str) -> Check {
    check(command, Wanted::Ends)
}

/// The command fails.
#[must_use]
pub fn fails(command: &str) -> Check {
    check(command, Wanted::Fails)
}

impl Check {
    /// What is wrong with an output.
    #[must_use]
    pub fn judge(&self, output: &Output) -> Option<String> {
        let text = output.text.trim();
        let right = match &self.wanted {
            Wanted::Is(wanted) => text == wanted.trim(),
            Wanted::Has(words) => words.iter().all(|word| text.contains(word)),
            Wanted::HasNone(words) => !words.iter().any(|word| text.contains(word)),
            Wanted::Ends => output.status == 0,
            Wanted::Fails => output.status != 0,
        };
        if right {
            return None;
        }
        let shown: String = text.chars().take(SHOWN).collect();
        Some(format!("{}: wanted {:?}, got status {} and: {shown}", self.command, self.wanted, output.status))
    }
}

impl Host {
    /// Types the commands and returns what is wrong.
    ///
    /// # Errors
    /// A command does not end.
    pub fn check(&mut self, checks: &[Check]) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for check in checks {
            let output = self.serial(&check.command)?;
            wrong.extend(check.judge(&output));
        }
        Ok(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_check_can_fail() {
        let output = |status, text: &str| Output { status, text: text.to_owned() };
        for (check, good, bad) in [
            (is("x", "ext4"), output(0, " ext4\n"), output(0, "ext4 tmpfs")),
            (has("x", &["a", "b"]), output(1, "b a"), output(0, "a")),
            (has_none("x", &["a", "b"]), output(1, ""), output(0, "b")),
            (ends("x"), output(0, ""), output(1, "")),
            (fails("x"), output(1, ""), output(0, "")),
        ] {
            assert_eq!(check.judge(&good), None);
            assert!(check.judge(&bad).unwrap().contains("wanted"), "{check:?}");
        }
    }
}
