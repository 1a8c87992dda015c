//! A network namespace of a scenario's own, and programs in it.
//!
//! It has no name and lives as long as a process in it: a `cat` that ends when we do, in whatever way. With it go all
//! bridges, taps and links; nothing is left to clean up. Needs root.

use anyhow::{Context, Result, ensure};
use sino_image::qemu::process::require;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The namespace.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// Makes one, with its loopback link up.
    ///
    /// # Errors
    /// A tool is missing, or the user is not root.
    pub fn make() -> Result<Self> {
        require("unshare", "util-linux")?;
        require("nsenter", "util-linux")?;
        require("ip", "iproute2")?;
        ensure!(rustix::process::geteuid().is_root(), "a network namespace needs root: run the tests as root");
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting unshare")?;
        let output = holder.stdout.take().context("the output of unshare")?;
        let namespace = Self { holder };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("waiting for the network namespace")?;
        ensure!(line.trim() == "ready", "unshare --net could not make a network namespace (needs root)");
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The file that stands for it.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    /// A program in it, which dies with the thread that starts it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.file().display())).args(["setpriv", "--pdeathsig", "KILL", program]);
        command
    }

    /// Runs `ip` in it with these words, and returns its output.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip(&self, words: &str) -> Result<String> {
        let output = self.command("ip").args(words.split_whitespace()).output().context("running ip")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {words}: {}", said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
