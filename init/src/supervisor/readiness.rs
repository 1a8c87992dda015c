//! What the supervisor tells process 1 on its standard output, until nobody listens any more.

use super::READY;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// The lanes that the hand-over waits for.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<BTreeSet<&'static str>>);

impl Readiness {
    /// These lanes begin.
    #[must_use]
    pub fn of(lanes: &[&'static str]) -> Self {
        for lane in lanes {
            tell(&format!("begin {lane}"));
        }
        Self(Mutex::new(lanes.iter().copied().collect()))
    }

    /// A lane has done what the hand-over waits for.
    pub fn done(&self, lane: &'static str) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.remove(lane) {
            tell(&format!("done {lane}"));
            if open.is_empty() {
                tell(READY);
            }
        }
    }
}

fn tell(line: &str) {
    // Nobody listens after the hand-over, which is no fault.
    let _ = writeln!(std::io::stdout(), "{line}");
    let _ = std::io::stdout().flush();
}
