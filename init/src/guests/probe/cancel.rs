//! Ends a wait from outside: a flag that `poll` can see.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// Given to whoever waits, kept by whoever may want the wait to end. Clones are the same flag; once set it stays set.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<OwnedFd>);

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The descriptor has something.
    Event,
    /// The time is over.
    Time,
    /// [`Cancel::cancel`] was called.
    Cancelled,
}

impl Cancel {
    /// A flag that is not set.
    ///
    /// # Errors
    /// There are no file descriptors left.
    pub fn new() -> io::Result<Self> {
        // The counter is never read, so that every waiter sees it, at any time.
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Sets the flag: every wait for it ends.
    pub fn cancel(&self) {
        // Fails only when the counter is full, and then it has long been set.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let mut fds = [PollFd::new(&*self.0, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1))
    }

    /// Readable once it is set; never read it.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Waits until `time`, or until it is set.
    pub(crate) fn wait(&self, time: Instant) -> io::Result<Woken> {
        self.wait_with(None, time)
    }

    /// Waits for an event on the descriptor, until `time`, or until it is set; which has the first word.
    pub(crate) fn wait_with(&self, event: Option<(BorrowedFd<'_>, PollFlags)>, time: Instant) -> io::Result<Woken> {
        loop {
            let left = Timespec::try_from(time.saturating_duration_since(Instant::now())).ok();
            let (fd, flags) = event.unwrap_or((self.fd(), PollFlags::IN));
            let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::IN), PollFd::from_borrowed_fd(fd, flags)];
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(Woken::Time),
                Ok(_) if self.is_cancelled() => return Ok(Woken::Cancelled),
                Ok(_) => return Ok(Woken::Event),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_is_seen_by_all_who_wait_and_later_ones() {
        let cancel = Cancel::new().unwrap();
        assert!(!cancel.is_cancelled());
        assert_eq!(cancel.wait(Instant::now() + Duration::from_millis(10)).unwrap(), Woken::Time);
        let waiter = std::thread::spawn({
            let cancel = cancel.clone();
            move || cancel.wait(Instant::now() + Duration::from_secs(60)).unwrap()
        });
        cancel.cancel();
        assert_eq!(waiter.join().unwrap(), Woken::Cancelled);
        assert_eq!(cancel.wait(Instant::now() + Duration::from_secs(60)).unwrap(), Woken::Cancelled);
        assert!(cancel.is_cancelled());
    }
}
