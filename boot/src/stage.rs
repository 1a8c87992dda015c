//! The narration of a stage: each step on one line, timed, recorded, and explained when it fails.

use crate::record::{BootRecord, Outcome, StepRecord, now_us};
use crate::watchdog::{Hung, Watchdog};
use anyhow::anyhow;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// What a step hands on: its value, and what the console says of it.
#[derive(Debug)]
pub struct Done<T> {
    value: T,
    detail: String,
    outcome: Outcome,
}

/// A step did what it is for; `detail` tells in a few words what it found.
pub fn done<T>(value: T, detail: impl Into<String>) -> Done<T> {
    Done { value, detail: detail.into(), outcome: Outcome::Done }
}

/// A step had nothing to do.
pub fn not_requested<T>(value: T) -> Done<T> {
    Done { value, detail: "not requested".into(), outcome: Outcome::NotRequested }
}

/// Why a step failed, with what an administrator needs: the cause, what was seen, what to try.
///
/// Any error converts into a fault (so `?` works); [`Fault::seen`] and [`Fault::hint`] add the rest.
#[derive(Debug)]
pub struct Fault {
    cause: anyhow::Error,
    seen: Vec<String>,
    hints: Vec<String>,
}

impl<E: Into<anyhow::Error>> From<E> for Fault {
    fn from(cause: E) -> Self {
        Self { cause: cause.into(), seen: Vec::new(), hints: Vec::new() }
    }
}

impl Fault {
    /// Adds a fact that was seen.
    #[must_use]
    pub fn seen(mut self, fact: impl Into<String>) -> Self {
        self.seen.push(fact.into());
        self
    }

    /// Adds something to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The cause with all its contexts on one line, outermost first.
    #[must_use]
    pub fn cause(&self) -> String {
        format!("{:#}", self.cause)
    }
}

/// Where the last panic of this process was.
static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the place of each panic for the explanation that follows it. For the `main` of a stage.
pub fn note_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
        log::error!("panic at {place}: {}", message(panic.payload()));
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }));
}

/// What a panic says.
#[must_use]
pub fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// A panic as a fault.
fn defect(panic: &(dyn Any + Send)) -> Fault {
    let place = LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Fault::from(anyhow!("a defect of SINO's own: {}", message(panic)))
        .seen(place.unwrap_or_else(|| "no place".to_owned()))
        .hint("report this block to the makers of SINO; another release of the stick may do without the defect")
}

/// The explanation of a step that was given up because it hung.
#[must_use]
pub fn hung(hung: &Hung, limit: std::time::Duration) -> StepError {
    let read = |name: &str| {
        let path = format!("/proc/self/task/{}/{name}", hung.thread);
        std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let mut fault = Fault::from(anyhow!("no progress for {} s: the step hangs", limit.as_secs()));
    let place = read("wchan");
    if place.len() > 1 {
        fault = fault.seen(format!("the kernel waits in {place}"));
    }
    for line in read("stack").lines().take(6) {
        fault = fault.seen(line.trim());
    }
    StepError {
        lane: "",
        number: hung.number,
        total: hung.total,
        step: hung.step.clone(),
        duration_us: u64::try_from(hung.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        fault: fault
            .hint("a device that does not answer: pull the stick and take another port or another stick")
            .hint("sino.step-timeout=SECONDS waits longer"),
    }
}

/// A step that failed. [`StepError::block`] is the text for the console.
#[derive(Debug)]
pub struct StepError {
    lane: &'static str,
    number: usize,
    total: usize,
    step: String,
    duration_us: u64,
    fault: Fault,
}

impl StepError {
    /// The step's name.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.step
    }

    /// The explanation, as lines without a newline.
    #[must_use]
    pub fn block(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "[{}{}/{}] {} FAILED after {}",
            self.lane,
            self.number,
            self.total,
            self.step,
            seconds(self.duration_us)
        )];
        lines.push(format!("  cause:  {}", self.fault.cause()));
        for (index, fact) in self.fault.seen.iter().enumerate() {
            lines.push(format!("  {}{fact}", if index == 0 { "seen:   " } else { "        " }));
        }
        for (index, hint) in self.fault.hints.iter().enumerate() {
            lines.push(format!("  {}{hint}", if index == 0 { "try:    " } else { "        " }));
        }
        lines
    }
}

impl std::fmt::Display for StepError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.fault.cause())
    }
}

impl std::error::Error for StepError {}

/// Where the narration goes. One line a call, without a newline; `failed` marks the lines of an error block.
pub type Narrator = Box<dyn FnMut(&str, bool)>;

/// Called with a step's name.
pub type Hook = Box<dyn FnMut(&str)>;

/// A stage while it runs: counts, times, narrates and records its steps.
pub struct Stage {
    name: &'static str,
    /// What stands before a step's number: empty, or a lane's name and a space.
    lane: &'static str,
    total: usize,
    next: usize,
    narrator: Narrator,
    before: Option<Hook>,
    watchdog: Option<Watchdog>,
    /// What is known of this boot so far.
    pub record: BootRecord,
}

impl Stage {
    /// A stage of `total` steps that adds to `record`.
    #[must_use]
    pub fn new(name: &'static str, total: usize, record: BootRecord, narrator: Narrator) -> Self {
        Self { name, lane: "", total, next: 1, narrator, before: None, watchdog: None, record }
    }

    /// One of several stages that run side by side: its lines begin with `label`, which ends with a space.
    #[must_use]
    pub fn lane(name: &'static str, label: &'static str, total: usize, narrator: Narrator) -> Self {
        Self { lane: label, ..Self::new(name, total, BootRecord::default(), narrator) }
    }

    /// Calls `hook` with each step's name before the step begins (for `sino.break`).
    pub fn before_each(&mut self, hook: Hook) {
        self.before = Some(hook);
    }

    /// Has each step watched. Without a watchdog a step may hang for ever.
    pub fn watch(&mut self, watchdog: Watchdog) {
        self.watchdog = Some(watchdog);
    }

    /// The watchdog, for steps that have to tell it of their progress.
    #[must_use]
    pub fn watchdog(&self) -> Option<Watchdog> {
        self.watchdog.clone()
    }

    /// Runs one step. A panic in it is a fault like any other.
    ///
    /// # Errors
    /// The step's own fault, with its name, number and duration.
    pub fn step<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut BootRecord) -> Result<Done<T>, Fault>,
    ) -> Result<T, StepError> {
        if let Some(hook) = self.before.as_mut() {
            hook(name);
        }
        let number = self.next;
        self.next += 1;
        let start_us = now_us();
        if let Some(watchdog) = &self.watchdog {
            watchdog.begin(number, self.total, name);
        }
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut self.record)))
            .unwrap_or_else(|panic| Err(defect(panic.as_ref())));
        if let Some(watchdog) = &self.watchdog {
            watchdog.end();
        }
        let duration_us = now_us().saturating_sub(start_us);
        let mut entry = StepRecord {
            stage: self.name.to_owned(),
            step: name.to_owned(),
            start_us,
            duration_us,
            outcome: Outcome::Failed,
            detail: String::new(),
        };
        match result {
            Ok(done) => {
                let line = line(self.lane, number, self.total, name, &done.detail, duration_us);
                (self.narrator)(&line, false);
                entry.outcome = done.outcome;
                entry.detail = done.detail;
                self.record.steps.push(entry);
                Ok(done.value)
            }
            Err(fault) => {
                entry.detail = fault.cause();
                self.record.steps.push(entry);
                let (lane, total, step) = (self.lane, self.total, name.to_owned());
                let error = StepError { lane, number, total, step, duration_us, fault };
                for line in error.block() {
                    (self.narrator)(&line, true);
                }
                Err(error)
            }
        }
    }

    /// Narrates and records something that was waited for elsewhere, as a step that ends now.
    pub fn reached(&mut self, name: &str, since_us: u64, detail: impl Into<String>) {
        let (number, detail) = (self.next, detail.into());
        self.next += 1;
        let duration_us = now_us().saturating_sub(since_us);
        (self.narrator)(&line(self.lane, number, self.total, name, &detail, duration_us), false);
        self.record.steps.push(StepRecord {
            stage: self.name.to_owned(),
            step: name.to_owned(),
            start_us: since_us,
            duration_us,
            outcome: Outcome::Done,
            detail,
        });
    }

    /// Says something outside a step, for example a warning.
    pub fn say(&mut self, line: &str) {
        (self.narrator)(line, false);
    }

    /// Says a warning and records it.
    pub fn warn(&mut self, warning: &str) {
        (self.narrator)(&format!("warning: {warning}"), true);
        self.record.warnings.push(warning.to_owned());
    }
}

/// `[4/8] find-medium ........ usb 1-2 "SanDisk Ultra" sdb1, 0.8 s`
fn line(lane: &str, number: usize, total: usize, step: &str, detail: &str, duration_us: u64) -> String {
    let dots = ".".repeat(16_usize.saturating_sub(step.len()).max(2));
    let comma = if detail.is_empty() { "" } else { ", " };
    format!("[{lane}{number}/{total}] {step} {dots} {detail}{comma}{}", seconds(duration_us))
}

/// A duration for people: `12.3 s`, or `4 ms` below a tenth of a second.
fn seconds(us: u64) -> String {
    if us < 100_000 {
        format!("{} ms", us.div_ceil(1000))
    } else {
        format!("{}.{} s", us / 1_000_000, us / 100_000 % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use std::{cell::RefCell, rc::Rc};

    fn stage() -> (Stage, Rc<RefCell<Vec<String>>>) {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&lines);
        let narrator = Box::new(move |line: &str, _failed| sink.borrow_mut().push(line.to_owned()));
        (Stage::new("stage-one", 8, BootRecord::default(), narrator), lines)
    }

    #[test]
    fn a_step_is_narrated_and_recorded() {
        let (mut stage, lines) = stage();
        let value = stage.step("find-medium", |_| Ok(done(7, "sdb1"))).unwrap();
        stage.step("copy-to-ram", |_| Ok(not_requested(()))).unwrap();
        assert_eq!(value, 7);
        assert!(lines.borrow()[0].starts_with("[1/8] find-medium ..... sdb1, "), "{:?}", lines.borrow());
        assert!(lines.borrow()[1].starts_with("[2/8] copy-to-ram ..... not requested"), "{:?}", lines.borrow());
        assert_eq!(stage.record.steps[1].outcome, Outcome::NotRequested);
    }

    #[test]
    fn a_lane_is_told_apart_by_its_name() {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&lines);
        let narrator = Box::new(move |line: &str, _failed| sink.borrow_mut().push(line.to_owned()));
        let mut lane = Stage::lane("storage", "storage ", 3, narrator);
        lane.step("volume-group", |_| Ok(done((), "xvg"))).unwrap();
        lane.step("srv", |_| -> Result<Done<()>, Fault> { Err(Fault::from(anyhow!("broken"))) }).unwrap_err();
        assert!(lines.borrow()[0].starts_with("[storage 1/3] volume-group "), "{:?}", lines.borrow());
        assert!(lines.borrow()[1].starts_with("[storage 2/3] srv FAILED after "), "{:?}", lines.borrow());
        assert_eq!(lane.record.steps[0].stage, "storage");
        lane.reached("late", 0, "at last");
        assert!(
            lines.borrow().last().is_some_and(|line| line.starts_with("[storage 3/3] late ")),
            "{:?}",
            lines.borrow()
        );
    }

    #[test]
    fn a_failure_is_explained_once() {
        let (mut stage, lines) = stage();
        let error = stage
            .step("find-medium", |_| -> Result<Done<()>, Fault> {
                Err(Fault::from(anyhow!("no medium").context("looking")).seen("sda").seen("sdb").hint("plug it in"))
            })
            .unwrap_err();
        assert_eq!(error.block(), *lines.borrow());
        assert!(lines.borrow()[0].contains("find-medium FAILED after "));
        assert_eq!(
            lines.borrow()[1..],
            ["  cause:  looking: no medium", "  seen:   sda", "          sdb", "  try:    plug it in"]
        );
        assert_eq!(stage.record.steps[0].outcome, Outcome::Failed);
    }

    #[test]
    fn a_panic_is_explained_like_any_other_failure() {
        let (mut stage, lines) = stage();
        let error = stage.step("copy-to-ram", |_| -> Result<Done<()>, Fault> { panic!("number {}", 7) }).unwrap_err();
        assert!(error.to_string().contains("a defect of SINO's own: number 7"), "{error}");
        assert!(lines.borrow()[0].contains("copy-to-ram FAILED after "), "{:?}", lines.borrow());
        assert!(lines.borrow().iter().any(|line| line.contains("try:")), "{:?}", lines.borrow());
    }

    #[test]
    fn durations_are_for_people() {
        assert_eq!((seconds(0), seconds(3_200), seconds(1_250_000)), ("0 ms".into(), "4 ms".into(), "1.2 s".into()));
    }
}
