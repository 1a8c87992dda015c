//! xl's own opinion of guests' files, without anything being made.

use super::{Failure, Xl};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

impl Xl {
    /// Has xl read each of these files (absolute paths), two at a time, each for `within` at the most. The results are in the
    /// order of the files.
    #[must_use]
    pub fn dry_runs(&self, files: &[PathBuf], within: Duration) -> Vec<Result<(), Failure>> {
        let next = AtomicUsize::new(0);
        let results: Vec<OnceLock<_>> = files.iter().map(|_| OnceLock::new()).collect();
        let work = || {
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let (Some(file), Some(result)) = (files.get(turn), results.get(turn)) else { break };
                // Each turn is one thread's alone.
                let _ = result.set(self.dry_run(file, Instant::now() + within).map(drop));
            }
        };
        std::thread::scope(|scope| {
            // Without a second thread it takes longer, and that is all.
            let _ = std::thread::Builder::new().name("xl".into()).spawn_scoped(scope, work);
            work();
        });
        results.into_iter().filter_map(OnceLock::into_inner).collect()
    }
}
