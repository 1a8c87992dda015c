//! Process 1's wait for the supervisor: started, started again when it dies, and not waited for longer than the deadline.
//!
//! The supervisor says on its standard output, a pipe to here, one line each: `begin NAME` and `done NAME` of a lane, and
//! `ready`. Whatever is not done then goes on in the supervisor, which outlives the hand-over.

use crate::supervisor;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, wait};
use std::collections::BTreeSet;
use std::io::{PipeReader, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How often the supervisor is started before the boot goes on without it; systemd then tries on.
const STARTS: usize = 3;

/// How the wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All lanes are done.
    Ready,
    /// These were not done at the deadline.
    Deadline(Vec<String>),
    /// It died, again and again.
    Died,
}

/// Starts the supervisor and waits for it.
///
/// # Errors
/// It cannot be executed at all.
pub fn wait_for_supervisor(limit: Duration) -> Result<Outcome> {
    let deadline = Instant::now() + limit;
    let mut children = Children::watch()?;
    for _ in 0..STARTS {
        let mut lines = Lines { pipe: supervisor::start()?, text: String::new(), open: BTreeSet::new() };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Outcome::Deadline(lines.open.into_iter().collect()));
            }
            let mut fds = [PollFd::new(&lines.pipe, PollFlags::IN), PollFd::new(&children.0, PollFlags::IN)];
            // A signal ends the wait early, which only costs a turn.
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
            let [said, ended] = fds.map(|fd| !fd.revents().is_empty());
            if ended {
                children.reap();
            }
            if said {
                match lines.read() {
                    Said::Ready => return Ok(Outcome::Ready),
                    Said::Something => {}
                    // Its end of the pipe closes with its death.
                    Said::Nothing => break,
                }
            }
        }
        children.reap();
        log::error!("the supervisor ended before it was ready; it is started again and goes on where it was");
    }
    Ok(Outcome::Died)
}

enum Said {
    Something,
    Ready,
    Nothing,
}

struct Lines {
    pipe: PipeReader,
    text: String,
    open: BTreeSet<String>,
}

impl Lines {
    fn read(&mut self) -> Said {
        let mut buffer = [0; 1024];
        let count = self.pipe.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            return Said::Nothing;
        }
        self.text.push_str(&String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()));
        while let Some((line, rest)) = self.text.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            self.text = rest;
            match line.split_once(' ') {
                Some(("begin", name)) => drop(self.open.insert(name.to_owned())),
                Some(("done", name)) => drop(self.open.remove(name)),
                _ if line == supervisor::READY => return Said::Ready,
                _ => {}
            }
        }
        Said::Something
    }
}

/// Children of process 1 that ended: a byte comes for each `SIGCHLD`.
struct Children(UnixStream);

impl Children {
    fn watch() -> Result<Self> {
        let (ours, signals) = UnixStream::pair().context("making a pair of sockets for signals")?;
        ours.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGCHLD, signals)
            .context("asking for the signals of ended processes")?;
        Ok(Self(ours))
    }

    /// Takes note of every process that ended. Process 1 inherits those whose parents are gone.
    fn reap(&mut self) {
        let mut buffer = [0; 64];
        while self.0.read(&mut buffer).is_ok_and(|count| count == buffer.len()) {}
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}
