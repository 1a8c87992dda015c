//! Words of a command that a person is to type, so that they can be pasted into a shell whatever a name holds.

/// A word as the shell takes it: as it is, or quoted. Control characters are written as bash reads them, since a console must
/// not see them.
#[must_use]
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.,:=+%@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    if !text.chars().any(char::is_control) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let letter = |c: char| match c {
        '\'' | '\\' => format!("\\{c}"),
        c if c.is_control() => {
            let mut buffer = [0; 4];
            c.encode_utf8(&mut buffer).bytes().flat_map(|byte| ["\\x".to_owned(), format!("{byte:02x}")]).collect()
        }
        c => c.to_string(),
    };
    // A hexadecimal digit behind an escape of two would not be taken for a third.
    format!("$'{}'", text.chars().map(letter).collect::<String>())
}

/// Several words.
#[must_use]
pub fn words<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    all.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn printed(text: &str) -> Vec<u8> {
        let output = Command::new("bash").args(["-c", &format!("printf %s {}", word(text))]).output();
        output.expect("bash is missing; install it: apt-get install bash").stdout
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for text in ["/dev/xvg/xvol", "a-b_c.d+e", "vg_uuid=x"] {
            assert_eq!(word(text), text);
        }
        for (text, quoted) in [("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("\x1b[J", r"$'\x1b[J'")] {
            assert_eq!(word(text), quoted);
        }
        assert_eq!(words(["a", "b c"]), "a 'b c'");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn the_shell_gets_the_word_as_it_was(text in "([a-z0-9]|[ $`\"'\\\\!*?;&|<>()#~\n\t\u{1b}\u{85}]|é){0,20}") {
            prop_assert!(!word(&text).chars().any(char::is_control));
            prop_assert_eq!(printed(&text), text.into_bytes());
        }
    }
}
