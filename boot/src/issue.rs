//! The text above the login prompt ([`layout::ISSUE`]): which build runs, from where, and whether the stick may be removed.
//!
//! Written by stage one, and again by whoever changes what it says. agetty(8) shows it.

use crate::layout;
use crate::record::{BootRecord, Medium, Verified};
use anyhow::{Context, Result};
use std::path::Path;

/// The text. Backslashes in what it names are doubled, because agetty(8) takes them for escapes; `\n` and `\l` are its
/// escapes for the host's name and the terminal.
#[must_use]
pub fn render(record: &BootRecord) -> String {
    let place = record.medium.as_ref().map_or_else(|| "The medium is not known.".to_owned(), place);
    let place = place.replace('\\', "\\\\");
    format!("\nSINO {} (build {}) on \\n, \\l\n{place}\n\n", record.version, record.build_id)
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
    std::fs::write(&new, render(record)).with_context(|| format!("writing {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("renaming {} to {}", new.display(), path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Copy;

    #[test]
    fn it_says_whether_the_stick_may_be_removed() {
        let mut medium = Medium { device: "sda1".into(), description: "usb 1-2 \"A\\B\"".into(), ..Medium::default() };
        let text = |medium: &Medium| {
            render(&BootRecord { version: "1.0".into(), medium: Some(medium.clone()), ..BootRecord::default() })
        };
        assert!(text(&medium).contains("DO NOT REMOVE THE STICK: runs from usb 1-2"), "{}", text(&medium));
        assert!(text(&medium).contains("A\\\\B"), "{}", text(&medium));
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
