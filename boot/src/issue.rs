//! The text above the login prompt ([`layout::ISSUE`]): which build runs, from where, and whether the stick may be removed.
//!
//! Written by stage one, and again by whoever changes what it says. agetty(8) shows it, and shows it anew when it changes.

use crate::layout;
use crate::record::{BootRecord, Medium, Verified};
use anyhow::{Context, Result};
use std::path::Path;

/// What stands above it all. agetty(8) takes a backslash for an escape, so each is doubled.
const LOGO: &str = r"
  ___ ___ _  _  ___
 / __|_ _| \\| |/ _ \\
 \\__ \\| || .` | (_) |
 |___/___|_|\\_|\\___/
";

/// What agetty(8) looks at: a change of its time makes it show the text again (`agetty --reload`).
const AGETTY: &str = "/run/agetty.reload";

/// Columns of a line: those of a plain console, less the last one, at which some terminals break by themselves.
const COLUMNS: usize = 79;

/// The text; `lines` are further ones, as they stand in [`layout::ISSUE_LINES`], folded already. Backslashes in what it names
/// are doubled, because agetty(8) takes them for escapes; `\n` and `\l` are its escapes for the host's name and the terminal.
#[must_use]
pub fn render(record: &BootRecord, lines: &str) -> String {
    let place = record.medium.as_ref().map_or_else(|| "The medium is not known.".to_owned(), place);
    let place = fold(&place).replace('\\', "\\\\");
    let lines = lines.trim_end().replace('\\', "\\\\");
    let lines = if lines.is_empty() { lines } else { lines + "\n" };
    format!("{LOGO}\nSINO {} (build {}) on \\n, \\l\n{place}\n{lines}\n", record.version, record.build_id)
}

/// The line in lines of at most 79 characters, broken at spaces, because a console may cut what is longer; a word that is
/// longer stays whole. Further lines are indented.
#[must_use]
pub fn fold(line: &str) -> String {
    const INDENT: &str = "  ";
    let mut folded = String::new();
    let mut used = 0;
    for word in line.split(' ') {
        let length = word.chars().count();
        if !folded.is_empty() {
            if used + 1 + length > COLUMNS {
                folded += "\n";
                folded += INDENT;
                used = INDENT.len();
            } else {
                folded.push(' ');
                used += 1;
            }
        }
        folded += word;
        used += length;
    }
    folded
}

/// Where the host runs from, in one line for people. What matters most comes first: a console of 80 columns was seen to cut
/// the line.
#[must_use]
pub fn place(medium: &Medium) -> String {
    let name = format!("{} ({})", medium.description, medium.device);
    let unverified = if medium.verified == Verified::No { " Nothing is verified (sino.verify=off)." } else { "" };
    if let Some(trouble) = &medium.trouble {
        return format!("THE MEDIUM: {trouble} It is {name}.");
    }
    if medium.may_be_removed {
        return format!("Runs in RAM: the stick may be removed. It was {name}.");
    }
    match medium.copy {
        Some(copy) if !copy.failed => format!(
            "DO NOT REMOVE THE STICK yet: a copy to RAM is under way ({} %). Runs from {name}.{unverified}",
            copy.done.saturating_mul(100) / copy.total.max(1)
        ),
        _ => format!("DO NOT REMOVE THE STICK: runs from {name}.{unverified}"),
    }
}

/// Writes the text to its place.
///
/// # Errors
/// It cannot be written.
pub fn save(record: &BootRecord) -> Result<()> {
    let (path, new) = (Path::new(layout::ISSUE), Path::new(layout::ISSUE).with_extension("new"));
    let text = render(record, &std::fs::read_to_string(layout::ISSUE_LINES).unwrap_or_default());
    let old = std::fs::read_to_string(path).unwrap_or_default();
    std::fs::write(&new, &text).with_context(|| format!("writing {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("renaming {} to {}", new.display(), path.display()))?;
    // Not for a percentage that counts up: that would fill a serial console.
    let words = |text: &str| text.split(|c: char| c.is_ascii_digit()).collect::<String>();
    let counts = old.contains(" %)") && text.contains(" %)");
    if text != old && !(counts && words(&old) == words(&text)) {
        refresh();
    }
    Ok(())
}

/// Has every agetty that waits for a name show the text again.
fn refresh() {
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(AGETTY);
    // Without a /run there is no agetty either.
    if let Ok(file) = file {
        let _ = file.set_modified(std::time::SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Copy;

    #[test]
    fn long_lines_are_folded() {
        let short = "xenbr0: 192.0.2.5/24  by DHCP";
        assert_eq!(fold(short), short);
        let word = "x".repeat(100);
        assert_eq!(fold(&word), word);
        assert_eq!(fold(&format!("a {word} b")), format!("a\n  {word}\n  b"));
        let device = "usb 1-2 \"QEMU\" serial 1-0000:00:04.0-2, ISO of 2026-11-29 (sda1)";
        let medium = Medium { description: device.into(), device: "sda1".into(), ..Medium::default() };
        let record = BootRecord { version: "1.0".into(), medium: Some(medium), ..BootRecord::default() };
        let text = render(&record, short);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.replace("\n  ", " ").contains("ISO of 2026-11-29 (sda1) (sda1)"), "{text}");
    }

    #[test]
    fn it_says_whether_the_stick_may_be_removed() {
        let mut medium = Medium { device: "sda1".into(), description: "usb 1-2 \"A\\B\"".into(), ..Medium::default() };
        let text = |medium: &Medium| {
            let record = BootRecord { version: "1.0".into(), medium: Some(medium.clone()), ..BootRecord::default() };
            render(&record, "xenbr0: 192.0.2.5/24\n")
        };
        assert!(text(&medium).contains("DO NOT REMOVE THE STICK: runs from usb 1-2"), "{}", text(&medium));
        assert!(text(&medium).contains("A\\\\B"), "{}", text(&medium));
        assert!(text(&medium).ends_with("xenbr0: 192.0.2.5/24\n\n"), "{}", text(&medium));
        medium.verified = Verified::DmVerity;
        medium.copy = Some(Copy { done: 30, total: 100, failed: false });
        assert!(
            text(&medium).contains("DO NOT REMOVE THE STICK yet: a copy to RAM is under way (30 %)"),
            "{}",
            text(&medium)
        );
        medium.may_be_removed = true;
        assert!(text(&medium).contains("the stick may be removed"), "{}", text(&medium));
        medium.trouble = Some("it is gone".into());
        assert!(text(&medium).contains("it is gone"), "{}", text(&medium));
    }
}
