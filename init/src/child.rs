//! Programs of the root that stage two runs: each with a deadline.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Runs a program to its end. What it says goes where this process's own words go.
///
/// # Errors
/// It cannot be started, or is still running after `limit` (it is killed then).
pub fn run(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let words = words(command);
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| format!("executing {words}"))?;
    if !ends_within(&child, limit)? {
        // Already dead is fine, too.
        let _ = child.kill();
        let _ = child.wait();
        bail!("{words}: no end after {} s, so it was killed", limit.as_secs());
    }
    child.wait().with_context(|| format!("waiting for {words}"))
}

/// A command line for people.
#[must_use]
pub fn words(command: &Command) -> String {
    let mut words = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        words.push(' ');
        words.push_str(&argument.to_string_lossy());
    }
    words
}

fn ends_within(child: &Child, limit: Duration) -> Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the process has no number")?;
    let ended = pidfd_open(pid, PidfdFlags::empty()).context("watching the process")?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&ended, PollFlags::IN)];
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_its_deadline() {
        assert!(run(&mut Command::new("true"), Duration::from_secs(10)).unwrap().success());
        let began = Instant::now();
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("sleep 60: no end after 0 s"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(30));
        assert!(
            format!("{:#}", run(&mut Command::new("/no/such"), Duration::from_secs(1)).unwrap_err())
                .contains("/no/such")
        );
    }
}
