//! The frames on a link of the lab, as tcpdump prints them: one line a frame.

use super::lines::Lines;
use super::namespace::Namespace;
use anyhow::{Context, Result};
use sino_image::qemu::process::require;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// How long tcpdump may take to start.
const START: Duration = Duration::from_secs(20);

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    lines: Lines,
}

impl Capture {
    /// Begins to capture what the filter (pcap-filter(7)) lets through on a link; lines go to `NAME.pcap.txt` in `folder`.
    ///
    /// # Errors
    /// tcpdump is missing or refuses, in its own words.
    pub fn start(namespace: &Namespace, link: &str, filter: &str, folder: &Path, name: &str) -> Result<Self> {
        require("tcpdump", "tcpdump")?;
        let mut command = namespace.command("tcpdump");
        command.args(["-i", link, "-e", "-nn", "-l", "-v", "--immediate-mode", filter]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting tcpdump")?;
        let (frames, words) = (child.stdout.take(), child.stderr.take());
        let capture = Self { child, lines: Lines::new(&folder.join(format!("{name}.pcap.txt"))) };
        let said = Lines::new(&folder.join(format!("{name}.tcpdump.log")));
        said.follow(words.context("what tcpdump says")?)?;
        capture.lines.follow(frames.context("the output of tcpdump")?)?;
        let listening = |line: &str| line.contains("listening on").then_some(());
        said.wait_for("tcpdump to listen", 0, START, listening)?;
        Ok(capture)
    }

    /// How many lines so far have all these words.
    #[must_use]
    pub fn count(&self, words: &[&str]) -> usize {
        self.lines.since(0, |line| words.iter().all(|word| line.contains(word)).then_some(())).len()
    }

    /// Waits for a line that has all these words.
    ///
    /// # Errors
    /// There is none within that time.
    pub fn wait_for(&self, words: &[&str], within: Duration) -> Result<String> {
        let has = |line: &str| words.iter().all(|word| line.contains(word)).then(|| line.to_owned());
        self.lines.wait_for(&format!("a frame with {words:?}"), 0, within, has)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
