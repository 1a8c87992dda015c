//! `sino log`: what SINO has said, from the kernel's log and the journal.

use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Shows it. Does not return if the journal can be asked.
///
/// # Errors
/// There is no `journalctl`.
pub fn run(follow: bool) -> Result<ExitCode> {
    let mut command = Command::new("journalctl");
    command.args(["--boot", "--quiet", "--no-hostname", "--output=short-monotonic"]);
    if follow {
        command.arg("--follow");
    }
    // Both stages and the supervisor write to the kernel's log, each line with this in front, which the journal takes for the name.
    command.arg("--identifier=sino");
    let error = command.exec();
    Err(error).context("executing journalctl; \"dmesg | grep sino\" shows the same while the kernel's buffer lasts")
}
