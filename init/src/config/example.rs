//! A `sino.toml` in which everything is a comment, to begin from.

use super::keys::{KEYS, NAME, SECTIONS};
use std::fmt::Write as _;

/// Every key with what it does and its default (or an example), all commented out. It is the image's own layer, so that an
/// administrator finds on the host what can be set; a copy of it is what to put on the stick or on `/srv`.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# The configuration of a SINO host. Everything here is a comment: the defaults hold.\n\
         # To change something, put a file of this name on the stick's FAT partition SINO-EFI, or on the host's volume as\n\
         # /srv/sino/sino.toml, with nothing in it but what is to be different. `sino config show` says what holds and\n\
         # why, `sino config check FILE` finds mistakes.\n",
    );
    for section in SECTIONS {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## {}\n#[{}]\n", section.help, section.name.replace(NAME, section.sample));
        for key in KEYS.iter().filter(|key| key.section() == section.name) {
            let _ = writeln!(text, "\n# {}\n# Values: {}. Default: {}.", key.help, key.values, key.default);
            let _ = writeln!(text, "#{} = {}", key.short(), key.sample);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::layers::{Loaded, Merged};
    use super::super::origins::Layer;
    use super::super::reading::read;
    use super::*;

    fn loaded(text: &str) -> Loaded {
        let mut merged = Merged::default();
        merged.add(read(text, Layer::Image, "/etc/sino/sino.toml", false));
        merged.finish()
    }

    #[test]
    fn as_it_is_it_changes_nothing() {
        assert_eq!(loaded(&example()), Loaded::default());
    }

    #[test]
    fn without_the_comment_signs_every_key_is_given_and_right() {
        let bare = |line: &str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        };
        let loaded = loaded(&example().lines().map(bare).collect::<String>());
        assert_eq!(loaded.problems, []);
        assert_eq!(loaded.origins.len(), KEYS.len());
    }

    #[test]
    fn its_lines_can_be_read_on_a_console() {
        for line in example().lines() {
            assert!(line.chars().count() <= 160, "{line}");
        }
    }
}
