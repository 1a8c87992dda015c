//! A shell on every console, for both stages. Which program the shell is, the caller says.

use crate::console;
use anyhow::{Context, Result};
use log::Level;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use std::fs::OpenOptions;
use std::process::{Command, Stdio};

/// Opens a shell on every console and waits until one of them is left; the others are ended then. `command` makes the
/// command of one shell; it must begin a session and take its standard input as controlling terminal (`setsid -c`).
///
/// Reaps every child that ends meanwhile, so only process 1 may call it. Where no shell can be opened it says so and
/// never returns: the explanation stays on the consoles.
pub fn open(how: &str, command: &dyn Fn() -> Command) {
    console::say(&format!("rescue shell on every console: {how}"), Level::Error);
    let mut shells = Vec::new();
    for name in console::all() {
        // tty0 is whichever terminal is in front; a shell needs one of its own.
        let tty = if name == "tty0" { "tty1".to_owned() } else { name };
        match open_on(&tty, command()) {
            Ok(pid) => shells.push(pid),
            Err(error) => console::say(&format!("no rescue shell on {tty}: {error:#}"), Level::Warn),
        }
    }
    if shells.is_empty() {
        console::say("no rescue shell could be opened; the machine waits to be switched off or reset", Level::Error);
        loop {
            std::thread::park();
        }
    }
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if shells.contains(&pid) => {
                shells.retain(|other| *other != pid);
                break;
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    for pid in shells {
        // It may have ended in the same moment.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn open_on(tty: &str, mut command: Command) -> Result<Pid> {
    let path = format!("/dev/{tty}");
    let terminal = OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("opening {path}"))?;
    let output = || terminal.try_clone().map(Stdio::from).with_context(|| format!("opening {path}"));
    command
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .env("PS1", "sino rescue# ")
        .env("HOME", "/")
        .env("TERM", "linux");
    let child = command.stdin(output()?).stdout(output()?).stderr(output()?).spawn().context("executing the shell")?;
    Pid::from_raw(i32::try_from(child.id()).context("a process id that is too large")?).context("no process id")
}
