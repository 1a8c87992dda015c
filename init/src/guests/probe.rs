//! Finds out whether a guest is ready.
//!
//! [`wait`] asks until the answer is yes, the deadline, or [`Cancel`]. Nothing here spins: each
//! probe waits for an event, or for the next time that it is polite to ask.

mod cancel;
mod console;
pub mod lines;
mod ping;
mod running;
mod tcp;
mod xenstore;

pub use cancel::Cancel;
pub use console::Console;
pub use running::ListDomains;
pub use xenstore::Xenstore;

use super::ready::Ready;
use super::xl::Target;
use anyhow::{Context as _, Result};
use std::fmt;
use std::time::{Duration, Instant};

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest is ready.
    Ready,
    /// The deadline came first; what was seen until then.
    NotReady(String),
    /// It was cancelled.
    Cancelled,
    /// It cannot be found out; why.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::NotReady(seen) => write!(f, "not ready in time: {seen}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Failed(why) => write!(f, "cannot tell whether it is ready: {why}"),
        }
    }
}

/// What a probe needs beside the question; each kind needs its own only.
#[derive(Default)]
pub struct Sources {
    /// For `running`: which domain, and how to list them ([`super::xl::Xl::list`]).
    pub domains: Option<(Target, ListDomains)>,
    /// For `xenstore`: the client, and the guest's own folder, such as `/local/domain/7`.
    pub xenstore: Option<(Box<dyn Xenstore>, String)>,
    /// For `console`: the guest's log. Made before the guest is, so that its first lines are seen.
    pub console: Option<Console>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("console", &self.console).finish_non_exhaustive()
    }
}

/// Whether the question can be asked at all.
///
/// # Errors
/// Its regular expression is none.
pub fn check(ready: &Ready) -> Result<()> {
    match ready {
        Ready::Console(pattern) => console::pattern(pattern).map(drop),
        _ => Ok(()),
    }
}

/// Asks until the guest is ready, `deadline`, or `cancel`.
pub fn wait(ready: &Ready, sources: &mut Sources, deadline: Instant, cancel: &Cancel) -> Outcome {
    let outcome = match ready {
        Ready::Running => sources
            .domains
            .as_mut()
            .context("nobody lists the domains")
            .and_then(|(target, list)| running::wait(target, list, deadline, cancel)),
        Ready::Ping(address) => ping::wait(*address, deadline, cancel),
        Ready::Tcp(address) => tcp::wait(*address, deadline, cancel),
        Ready::Xenstore { path, value } => {
            sources.xenstore.as_mut().context("there is no connection to xenstored").and_then(|(client, home)| {
                xenstore::wait(client.as_mut(), &xenstore::full(home, path), value.as_deref(), deadline, cancel)
            })
        }
        Ready::Console(pattern) => sources
            .console
            .as_mut()
            .context("nobody knows where the log of its console is")
            .and_then(|console| console.wait(pattern, deadline, cancel)),
    };
    outcome.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
}

/// Times between questions that get longer.
struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// When to ask again, and at the latest at the deadline.
    fn until(&mut self, deadline: Instant) -> Instant {
        let pause = self.next;
        self.next = self.longest.min(pause * 2);
        deadline.min(Instant::now() + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_is_told() {
        assert!(check(&Ready::Console("login: $".into())).is_ok());
        let error = check(&Ready::Console("(".into())).unwrap_err();
        assert!(format!("{error:#}").contains("regular expression"), "{error:#}");
        let (cancel, deadline) = (Cancel::new().unwrap(), Instant::now() + Duration::from_secs(60));
        let xenstore = Ready::Xenstore { path: "a".into(), value: None };
        for ready in [Ready::Running, xenstore, Ready::Console("a".into())] {
            let outcome = wait(&ready, &mut Sources::default(), deadline, &cancel);
            assert!(matches!(outcome, Outcome::Failed(_)), "{outcome}");
        }
    }
}
