//! How far a long read is, on every console: a line for each tenth, and on the screen one that moves.

use log::Level;
use sino_boot::console;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the moving line is written; faster nobody reads.
const SHOW_EVERY: Duration = Duration::from_millis(500);

struct State {
    tenth: u64,
    shown: Instant,
    bytes: u64,
}

/// The progress of one read.
pub struct Progress {
    what: &'static str,
    total: u64,
    began: Instant,
    /// Whether it is also on the consoles, not only in the log.
    loud: bool,
    state: Mutex<State>,
}

impl Progress {
    /// A read of `total` bytes begins now.
    #[must_use]
    pub fn start(what: &'static str, total: u64, loud: bool) -> Self {
        let began = Instant::now();
        Self { what, total, began, loud, state: Mutex::new(State { tenth: 0, shown: began, bytes: 0 }) }
    }

    /// So many bytes are done. Returns whether another tenth is. May be called from several threads, in any order.
    pub fn at(&self, bytes: u64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes <= state.bytes {
            return false;
        }
        state.bytes = bytes;
        let tenth = bytes.saturating_mul(10) / self.total.max(1);
        let next = tenth > state.tenth;
        if next {
            state.tenth = tenth;
            if self.loud {
                console::show("");
                console::say(&self.line(bytes), Level::Info);
            } else {
                log::info!("{}", self.line(bytes));
            }
        } else if self.loud && state.shown.elapsed() >= SHOW_EVERY {
            console::show(&self.line(bytes));
            state.shown = Instant::now();
        }
        next
    }

    /// Takes the moving line away.
    pub fn end(&self) {
        if self.loud {
            console::show("");
        }
    }

    /// Megabytes (10^6) a second so far.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let bytes = self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        rate(bytes, self.began.elapsed())
    }

    fn line(&self, bytes: u64) -> String {
        line(self.what, bytes, self.total, self.began.elapsed())
    }
}

fn rate(bytes: u64, spent: Duration) -> f64 {
    bytes as f64 / 1e6 / spent.as_secs_f64().max(1e-3)
}

fn line(what: &str, bytes: u64, total: u64, spent: Duration) -> String {
    let rate = rate(bytes, spent);
    let left = total.saturating_sub(bytes) as f64 / 1e6 / rate.max(1e-3);
    let percent = bytes.saturating_mul(100) / total.max(1);
    format!("{what}: {percent} % of {} MiB, {rate:.1} MB/s, {left:.0} s left", total >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_rate_and_time_left_are_shown() {
        let text = line("copy-to-ram", 50 << 20, 200 << 20, Duration::from_secs(5));
        assert_eq!(text, "copy-to-ram: 25 % of 200 MiB, 10.5 MB/s, 15 s left");
    }

    #[test]
    fn each_tenth_counts_once_and_late_threads_do_not_go_back() {
        let progress = Progress::start("x", 100, false);
        let news: Vec<bool> = [5, 11, 10, 19, 35, 100].into_iter().map(|bytes| progress.at(bytes)).collect();
        assert_eq!(news, [false, true, false, false, true, true]);
    }
}
