//! Work that waits, off the thread that must not: each piece in a small thread of its own.

use super::Failure;
use super::run::{self, Finished};
use crate::guests::probe::Cancel;
use std::io;
use std::process::Command;
use std::thread::Builder;
use std::time::Instant;

/// Nothing here is deep; the default of 2 MiB would be a lot of address space for hundreds of guests. In bytes.
const STACK: usize = 256 << 10;

/// A piece of work under way. It goes on when this is dropped.
#[derive(Debug)]
pub struct Job {
    cancel: Cancel,
}

impl Job {
    /// Runs `command` until `deadline`; `done` is given the result, in the job's own thread, exactly once.
    ///
    /// # Errors
    /// No thread or no file descriptor is to be had; `done` is not called then.
    pub fn spawn(
        mut command: Command,
        deadline: Instant,
        done: impl FnOnce(Result<Finished, Failure>) + Send + 'static,
    ) -> io::Result<Self> {
        Self::start("command", move |cancel| run::run(&mut command, run::WORDS, deadline, Some(cancel)), done)
    }

    /// Does `work`, which heeds the flag that it is given; `done` is given what it returns, in the job's own thread.
    ///
    /// # Errors
    /// As with [`Job::spawn`].
    pub fn start<T: 'static>(
        name: &str,
        work: impl FnOnce(&Cancel) -> T + Send + 'static,
        done: impl FnOnce(T) + Send + 'static,
    ) -> io::Result<Self> {
        let cancel = Cancel::new()?;
        let flag = cancel.clone();
        // Not joined: the caller hears of the end through `done`.
        Builder::new().name(name.into()).stack_size(STACK).spawn(move || done(work(&flag)))?;
        Ok(Self { cancel })
    }

    /// Ends the work soon: a program and its process group are killed. `done` is still called.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::xl::Kind;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_job_tells_its_end_however_it_ends() {
        let (sender, receiver) = channel();
        let give = |name: &'static str| {
            let sender = sender.clone();
            move |result| sender.send((name, result)).unwrap()
        };
        let soon = Instant::now() + Duration::from_secs(60);
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        let stopped = Job::spawn(sleep, soon, give("stopped")).unwrap();
        stopped.cancel();
        let (name, result) = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!((name, result.unwrap_err().kind), ("stopped", Kind::Cancelled));
        drop(Job::spawn(Command::new("true"), soon, give("dropped")).unwrap());
        let (name, result) = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(name == "dropped" && result.is_ok());
    }
}
