//! Whether a path of the xenstore exists, or has a value.

use super::cancel::Woken;
use super::{Cancel, Outcome};
use anyhow::{Context as _, Result};
use rustix::event::PollFlags;
use rustix::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Changes that come this soon after one another are looked at together.
const SETTLE: Duration = Duration::from_millis(10);

/// A connection to xenstored, as far as a probe needs it.
pub trait Xenstore: Send {
    /// What stands at this path; `None` if there is nothing.
    ///
    /// # Errors
    /// xenstored cannot be asked any more.
    fn read(&mut self, path: &str) -> Result<Option<String>>;

    /// From now on [`Xenstore::wakeups`] is readable after each change at this path.
    ///
    /// # Errors
    /// As with [`Xenstore::read`].
    fn watch(&mut self, path: &str) -> Result<()>;

    /// The descriptor to wait for.
    fn wakeups(&self) -> BorrowedFd<'_>;

    /// Takes what made the descriptor readable, without waiting.
    ///
    /// # Errors
    /// As with [`Xenstore::read`]: above all when xenstored has hung up, for the descriptor stays readable then.
    fn take_wakeups(&mut self) -> Result<()>;
}

/// A path as the configuration has it, below the guest's own folder if it does not begin with a slash.
pub(super) fn full(home: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", home.trim_end_matches('/')) }
}

pub(super) fn wait(
    client: &mut dyn Xenstore,
    path: &str,
    value: Option<&str>,
    deadline: Instant,
    cancel: &Cancel,
) -> Result<Outcome> {
    // Watched before it is read, so that no change is missed.
    client.watch(path).with_context(|| format!("watching {path} in the xenstore"))?;
    loop {
        let found = client.read(path).with_context(|| format!("reading {path} in the xenstore"))?;
        let seen = match (found, value) {
            (Some(found), Some(value)) if found != value => format!("{path} is {found:?}, not {value:?}"),
            (Some(_), _) => return Ok(Outcome::Ready),
            (None, _) => format!("there is no {path} in the xenstore"),
        };
        match cancel.wait_with(Some((client.wakeups(), PollFlags::IN)), deadline)? {
            Woken::Cancelled => return Ok(Outcome::Cancelled),
            Woken::Time => return Ok(Outcome::NotReady(seen)),
            Woken::Event => {}
        }
        if cancel.wait(deadline.min(Instant::now() + SETTLE))? == Woken::Cancelled {
            return Ok(Outcome::Cancelled);
        }
        client.take_wakeups().context("the xenstore's events")?;
        if Instant::now() >= deadline {
            return Ok(Outcome::NotReady(seen));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::{AsFd as _, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, Mutex};

    struct Fake {
        value: Arc<Mutex<Option<String>>>,
        reader: OwnedFd,
        reads: usize,
    }

    impl Xenstore for Fake {
        fn read(&mut self, path: &str) -> Result<Option<String>> {
            assert_eq!(path, "/local/domain/7/data/up");
            self.reads += 1;
            assert!(self.reads < 50, "it spins");
            Ok(self.value.lock().unwrap().clone())
        }
        fn watch(&mut self, _: &str) -> Result<()> {
            Ok(())
        }
        fn wakeups(&self) -> BorrowedFd<'_> {
            self.reader.as_fd()
        }
        fn take_wakeups(&mut self) -> Result<()> {
            rustix::io::read(&self.reader, &mut [0; 100])?;
            Ok(())
        }
    }

    #[test]
    fn a_value_that_comes_is_seen_at_its_event() {
        let (reader, writer) = UnixStream::pair().unwrap();
        let value = Arc::new(Mutex::new(None));
        let mut fake = Fake { value: value.clone(), reader: reader.into(), reads: 0 };
        let path = full("/local/domain/7/", "data/up");
        let cancel = Cancel::new().unwrap();
        let soon = |ms| Instant::now() + Duration::from_millis(ms);
        let outcome = wait(&mut fake, &path, None, soon(50), &cancel).unwrap();
        assert!(matches!(&outcome, Outcome::NotReady(seen) if seen.contains("no /local")), "{outcome}");
        let waiter = std::thread::spawn(move || {
            let outcome = wait(&mut fake, &path, Some("1"), soon(60_000), &cancel).unwrap();
            (outcome, wait(&mut fake, &path, Some("2"), soon(50), &cancel).unwrap())
        });
        for text in ["0", "1"] {
            *value.lock().unwrap() = Some(text.to_owned());
            rustix::io::write(&writer, b"!").unwrap();
        }
        let (first, second) = waiter.join().unwrap();
        assert_eq!(first, Outcome::Ready);
        assert!(matches!(&second, Outcome::NotReady(seen) if seen.contains("is \"1\", not \"2\"")), "{second}");
    }

    #[test]
    fn a_path_with_a_slash_is_as_it_is() {
        assert_eq!(full("/local/domain/7", "/vm/x"), "/vm/x");
    }
}
