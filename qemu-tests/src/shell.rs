//! A shell on the serial port, driven like a person would: log in, type a command, read its output and exit status.

use anyhow::{Context, Result, bail, ensure};
use sino_image::qemu::watch::Watch;
use std::time::Duration;

/// The end of a command's output; typed with the number as an expression, so that the echo of what is typed is not it.
const END: &str = "sino-end-";

/// The prompt, so that nothing is typed before the shell listens: what is typed earlier is echoed twice.
const PROMPT: &str = "sino-shell> ";
/// Sets the prompt and a width at which no echo is broken into lines. In two pieces, so that its echo is not the prompt.
const SET_PROMPT: &str = "stty cols 500; PS1='sino-''shell> '\r";

/// What systemd says when the serial port's device did not appear in time: a prompt will never come.
const NO_GETTY: &str = "Dependency failed for serial-getty";

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
    wait_for_prompt(watch, boot_within)?;
    enter(watch, user, password)
}

/// Waits for a `login:` prompt that may still have to come.
///
/// # Errors
/// There is none, or there will be none.
pub fn wait_for_prompt(watch: &mut Watch, within: Duration) -> Result<()> {
    let (which, _) = watch.wait_for_any(&["login: ", NO_GETTY], within).context("waiting for the login prompt")?;
    ensure!(which == 0, "there will be no login prompt: systemd says \"{NO_GETTY}...\"");
    Ok(())
}

/// Logs in at a prompt that is there.
///
/// # Errors
/// The password is not accepted, or the shell does not answer.
pub fn enter(watch: &mut Watch, user: &str, password: &str) -> Result<()> {
    enter_with_one_of(watch, user, &[password.to_owned()]).map(drop)
}

/// Logs in at a prompt that is there with one of these passwords; returns which.
///
/// # Errors
/// None is accepted, or the shell does not answer.
pub fn enter_with_one_of(watch: &mut Watch, user: &str, passwords: &[String]) -> Result<usize> {
    const ANSWER: Duration = Duration::from_secs(90);
    for (which, password) in passwords.iter().enumerate() {
        if which > 0 {
            wait_for_prompt(watch, ANSWER)?;
        }
        watch.type_text(&format!("{user}\r"))?;
        watch.wait_for("assword: ", ANSWER).context("waiting for the password prompt")?;
        watch.type_text(&format!("{password}\r"))?;
        let (refused, _) = watch
            .wait_for_any(&["# ", "Login incorrect"], ANSWER)
            .context("waiting for the shell after the password")?;
        if refused != 0 {
            continue;
        }
        watch.type_text(SET_PROMPT)?;
        watch.wait_for(PROMPT, ANSWER).context("setting the shell's prompt")?;
        // No control sequences and no pager in what is read.
        let quiet = "bind 'set enable-bracketed-paste off'; export TERM=dumb PAGER=cat SYSTEMD_COLORS=0";
        run(watch, quiet, ANSWER)?;
        return Ok(which);
    }
    bail!("{user} cannot log in: Login incorrect")
}

/// Runs a command line in a shell that [`log_in`] has prepared.
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
        watch.wait_for(PROMPT, within)?;
        let status = digits.trim().parse().with_context(|| format!("the exit status {digits:?}"))?;
        Ok(Output { status, text: text.trim_start_matches('\n').to_owned() })
    };
    attempt(watch).with_context(|| format!("running {command:?} on the serial console"))
}

/// As [`run`], for a command that asks on the terminal: when `question` is there, this answer is typed. A command that ends
/// without asking is an output like any other.
///
/// # Errors
/// It does not end within that time.
pub fn run_and_answer(
    watch: &mut Watch,
    command: &str,
    (question, answer): (&str, &str),
    within: Duration,
) -> Result<Output> {
    watch.type_text(&format!("{command}; echo {END}$?.\r"))?;
    let attempt = |watch: &mut Watch| -> Result<Output> {
        watch.wait_for(&format!("{END}$?."), within)?;
        let (which, mut text) = watch.wait_for_any(&[question, END], within)?;
        if which == 0 {
            watch.type_text(&format!("{answer}\r"))?;
            text = format!("{text}{question}{}", watch.wait_for(END, within)?);
        }
        let digits = watch.wait_for(".", within)?;
        watch.wait_for(PROMPT, within)?;
        let status = digits.trim().parse().with_context(|| format!("the exit status {digits:?}"))?;
        Ok(Output { status, text: text.trim_start_matches('\n').to_owned() })
    };
    attempt(watch).with_context(|| format!("running {command:?} on the serial console and answering {answer:?}"))
}
