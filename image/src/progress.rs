//! Tells what the build is doing, and keeps how long each step took.
//!
//! On a terminal a step is a spinner with its elapsed time; elsewhere, and in the quiet mode, it is one plain line
//! when the step ends. Durations go into `build.json`, never into the image.

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Where the build's narration goes.
#[derive(Debug)]
pub struct Progress {
    spinner: bool,
    silent: bool,
    durations: RefCell<Vec<(String, f64)>>,
}

impl Progress {
    /// Narration for a person, or (`quiet`) plain lines for a log.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self { spinner: !quiet && std::io::stderr().is_terminal(), silent: false, durations: RefCell::default() }
    }

    /// No narration at all; only durations are kept.
    #[must_use]
    pub fn silent() -> Self {
        Self { spinner: false, silent: true, durations: RefCell::default() }
    }

    /// Does `work` under the name `step`.
    ///
    /// # Errors
    /// The error of `work`, with the step's name.
    pub fn step<T>(&self, step: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let bar = self.spinner.then(|| spinner(step));
        let result = work();
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let seconds = start.elapsed().as_secs_f64();
        self.durations.borrow_mut().push((step.to_owned(), seconds));
        if result.is_ok() {
            self.say(&format!("{step}: {seconds:.1} s"));
        }
        result.with_context(|| format!("{step} failed"))
    }

    /// Says one line.
    pub fn say(&self, line: &str) {
        if !self.silent {
            eprintln!("sino-image: {line}");
        }
    }

    /// The steps so far with their durations in seconds.
    #[must_use]
    pub fn durations(&self) -> Vec<(String, f64)> {
        self.durations.borrow().clone()
    }
}

fn spinner(step: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(step.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_timed_and_errors_name_them() {
        let progress = Progress::silent();
        assert_eq!(progress.step("counting", || Ok(3)).unwrap(), 3);
        let error = progress.step("failing", || -> Result<()> { anyhow::bail!("why") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "failing failed: why");
        let names: Vec<String> = progress.durations().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["counting", "failing"]);
    }
}
