//! Cuts a step that hangs: a thread that knows which step runs and when it last made progress.
//!
//! A thread of this process that hangs in the kernel cannot be ended from outside, so the watchdog leaves it where it is
//! and lets its caller go on without it. A step that ends after it was given up never returns to its stage.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A step that was given up.
#[derive(Clone, Debug)]
pub struct Hung {
    /// Its number, from 1.
    pub number: usize,
    /// How many there are.
    pub total: usize,
    /// Its name.
    pub step: String,
    /// When it began.
    pub began: Instant,
    /// The thread that ran it, as the kernel numbers it.
    pub thread: i32,
}

#[derive(Default)]
struct State {
    running: Option<(Hung, Instant)>,
    given_up: bool,
}

struct Shared {
    limit: Duration,
    state: Mutex<State>,
    changed: Condvar,
    returned: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watchdog of a stage.
#[derive(Clone)]
pub struct Watchdog(Arc<Shared>);

impl std::fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watchdog").field("limit", &self.0.limit).finish_non_exhaustive()
    }
}

impl Watchdog {
    /// Starts the thread. `hung` runs in it, once, when a step has been without progress for `limit`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(limit: Duration, hung: impl FnOnce(Hung) + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            limit,
            state: Mutex::default(),
            changed: Condvar::new(),
            returned: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        std::thread::Builder::new().name("watchdog".to_owned()).stack_size(256 << 10).spawn(move || {
            hung(own.wait());
        })?;
        Ok(Self(shared))
    }

    /// A step begins in this thread.
    pub(crate) fn begin(&self, number: usize, total: usize, step: &str) {
        let now = Instant::now();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let running = Hung { number, total, step: step.to_owned(), began: now, thread };
        self.0.state().running = Some((running, now));
        self.0.changed.notify_all();
    }

    /// The step made progress.
    pub fn alive(&self) {
        if let Some((_, last)) = self.0.state().running.as_mut() {
            *last = Instant::now();
        }
    }

    /// The step ended. Does not return if it was given up before.
    pub(crate) fn end(&self) {
        let given_up = {
            let mut state = self.0.state();
            state.running = None;
            state.given_up
        };
        if given_up {
            self.0.returned.store(true, Ordering::Release);
            loop {
                std::thread::park();
            }
        }
    }

    /// Whether a step that was given up has ended after all, so that nothing hangs in the kernel any more.
    #[must_use]
    pub fn has_returned(&self) -> bool {
        self.0.returned.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Waits until a step hangs.
    fn wait(&self) -> Hung {
        let mut state = self.state();
        loop {
            state = match &state.running {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some((hung, last)) => {
                    let left = self.limit.saturating_sub(last.elapsed());
                    if left.is_zero() {
                        let hung = hung.clone();
                        state.given_up = true;
                        return hung;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_step_that_hangs_is_given_up_and_one_that_makes_progress_is_not() {
        let (sender, receiver) = mpsc::channel();
        let watchdog = Watchdog::start(Duration::from_millis(200), move |hung| sender.send(hung).unwrap()).unwrap();
        watchdog.begin(1, 2, "busy");
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(50));
            watchdog.alive();
        }
        watchdog.end();
        assert!(receiver.recv_timeout(Duration::from_millis(400)).is_err());
        let other = watchdog.clone();
        std::thread::spawn(move || {
            other.begin(2, 2, "stuck");
            std::thread::sleep(Duration::from_millis(500));
            other.end();
        });
        assert_eq!(receiver.recv_timeout(Duration::from_secs(5)).unwrap().step, "stuck");
        while !watchdog.has_returned() {
            std::thread::yield_now();
        }
    }
}
