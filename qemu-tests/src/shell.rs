//! A shell on the serial port, driven like a person would: log in, type a command, read its output and exit status.

use anyhow::{Context, Result, ensure};
use sino_image::qemu::watch::Watch;
use std::time::Duration;

/// The end of a command's output; typed with the number as an expression, so that the echo of what is typed is not it.
const END: &str = "sino-end-";

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: u32,
    /// What it said.
    pub text: String,
}

/// Logs in at a `login:` prompt that may still have to come.
///
/// # Errors
/// No prompt, or the password is not accepted.
pub fn log_in(watch: &mut Watch, user: &str, password: &str, boot_within: Duration) -> Result<()> {
    const ANSWER: Duration = Duration::from_secs(90);
    watch.wait_for("login: ", boot_within).context("waiting for the login prompt")?;
    watch.type_text(&format!("{user}\r"))?;
    watch.wait_for("assword: ", ANSWER).context("waiting for the password prompt")?;
    watch.type_text(&format!("{password}\r"))?;
    let (which, _) =
        watch.wait_for_any(&["# ", "Login incorrect"], ANSWER).context("waiting for the shell after the password")?;
    ensure!(which == 0, "{user} cannot log in: Login incorrect");
    // Wide enough that the echo of a command is never broken into lines; no control sequences in what is read.
    run(watch, "stty cols 500", ANSWER)?;
    run(watch, "bind 'set enable-bracketed-paste off'; export TERM=dumb PAGER=cat SYSTEMD_COLORS=0", ANSWER).map(drop)
}

/// Runs a command line in a shell that has shown its prompt.
///
/// # Errors
/// It does not end within that time.
pub fn run(watch: &mut Watch, command: &str, within: Duration) -> Result<Output> {
    watch.type_text(&format!("{command}; echo {END}$?.\r"))?;
    // The echo has "$?" where the output has digits.
    let echo = format!("{END}$?.");
    let attempt = |watch: &mut Watch| -> Result<Output> {
        watch.wait_for(&echo, within)?;
        let text = watch.wait_for(END, within)?;
        let digits = watch.wait_for(".", within)?;
        let status = digits.trim().parse().with_context(|| format!("the exit status {digits:?}"))?;
        Ok(Output { status, text: text.trim_start_matches('\n').to_owned() })
    };
    attempt(watch).with_context(|| format!("running {command:?} on the serial console"))
}
