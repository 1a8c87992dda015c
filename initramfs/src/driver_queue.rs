//! The queue of drivers to load: the most urgent first, and on one CPU one class after the other.
//!
//! `docs/decisions/0019` and `0021` say why.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// On one CPU, what is less urgent is not begun while something more urgent is being loaded, and what needs no hardware is loaded
/// one after the other: the kernel checks a module's signature in one go, whatever its loader's nice is, and what is needed
/// first would be ready last. A driver that takes longer than this waits for hardware, not for the CPU.
const WAITS_FOR_URGENT: Duration = Duration::from_secs(1);
/// On one CPU, drivers of other storage are not begun for this long after a stick has appeared: it is most likely the medium, and
/// needs some tenths of a second until it can be read.
const WAITS_FOR_A_STICK: Duration = Duration::from_secs(1);

/// How soon something is to be loaded: what is most likely to be between the boot and its medium comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// USB hosts, whose devices take longest to answer, and what has appeared behind one; disks of hypervisors.
    Now,
    /// What a stick needs.
    Stick,
    /// What the boot needs once it has its medium.
    Soon,
    /// Other controllers of storage.
    Storage,
    /// Everything else.
    Rest,
}

/// Work for the workers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Load the drivers for an alias.
    Alias(String),
    /// Load a module by name.
    Module(&'static str),
}

/// The work, most urgent first.
#[derive(Default)]
pub(crate) struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
    /// One class after the other, as on one CPU.
    in_turn: bool,
}

#[derive(Default)]
struct Jobs {
    /// By urgency, and within one in the order in which they came.
    waiting: BTreeMap<Urgency, VecDeque<Job>>,
    /// What is being done, and since when.
    running: Vec<(Urgency, Instant)>,
    /// When a stick appeared last.
    stick: Option<Instant>,
    /// Nothing is taken for now.
    paused: bool,
    closed: bool,
}

impl Queue {
    /// An empty queue; `in_turn`: for a machine with one CPU.
    pub(crate) fn new(in_turn: bool) -> Self {
        Self { in_turn, ..Self::default() }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One job more.
    pub(crate) fn push(&self, urgency: Urgency, job: Job) {
        self.jobs().waiting.entry(urgency).or_default().push_back(job);
        self.more.notify_one();
    }

    /// The most urgent job; `None` once the queue is closed. Whoever has done it says so with [`Queue::done`].
    pub(crate) fn pop(&self) -> Option<Taken> {
        let mut jobs = self.jobs();
        loop {
            if jobs.closed {
                return None;
            }
            let first = jobs.waiting.iter().find(|(_, waiting)| !waiting.is_empty()).map(|(urgency, _)| *urgency);
            let Some(urgency) = first.filter(|_| !jobs.paused) else {
                jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now = Instant::now();
            if let Some(left) =
                jobs.not_before(urgency).filter(|_| self.in_turn).and_then(|at| at.checked_duration_since(now))
            {
                jobs = self.more.wait_timeout(jobs, left).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if let Some(job) = jobs.waiting.get_mut(&urgency).and_then(VecDeque::pop_front) {
                jobs.running.push((urgency, now));
                return Some(Taken { urgency, job, began: now });
            }
        }
    }

    /// A job that was taken is done.
    pub(crate) fn done(&self, urgency: Urgency, began: Instant) {
        self.jobs().running.retain(|running| *running != (urgency, began));
        self.more.notify_all();
    }

    /// A stick has appeared.
    pub(crate) fn stick(&self) {
        self.jobs().stick = Some(Instant::now());
    }

    /// Whether nothing is taken for now.
    pub(crate) fn pause(&self, paused: bool) {
        self.jobs().paused = paused;
        self.more.notify_all();
    }

    /// Nothing is taken any more.
    pub(crate) fn close(&self) {
        self.jobs().closed = true;
        self.more.notify_all();
    }
}

impl Jobs {
    /// When something of this urgency may be begun, where one class comes after the other.
    fn not_before(&self, urgency: Urgency) -> Option<Instant> {
        // These wait for no hardware of their own.
        let by_name = matches!(urgency, Urgency::Stick | Urgency::Soon);
        let before = |running: Urgency| running < urgency || by_name && running == urgency;
        let running = self.running.iter().filter(|(running, _)| before(*running));
        let urgent = running.map(|(_, began)| *began + WAITS_FOR_URGENT).max();
        let stick = self.stick.filter(|_| urgency >= Urgency::Storage).map(|at| at + WAITS_FOR_A_STICK);
        urgent.max(stick)
    }
}

/// A job that is being done.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) urgency: Urgency,
    pub(crate) job: Job,
    /// When it was begun.
    pub(crate) began: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};

    #[test]
    fn the_most_urgent_job_is_next_and_none_when_it_is_over() {
        let queue = Queue::default();
        let module = |name| Job::Module(name);
        queue.push(Urgency::Rest, module("d"));
        queue.push(Urgency::Soon, module("b"));
        queue.push(Urgency::Soon, module("c"));
        queue.push(Urgency::Now, module("a"));
        let order: Vec<Job> = std::iter::from_fn(|| queue.pop().map(|taken| taken.job)).take(4).collect();
        assert_eq!(order, ["a", "b", "c", "d"].map(module));
        queue.push(Urgency::Now, module("a"));
        queue.close();
        assert!(queue.pop().is_none());
    }

    #[test]
    fn on_one_cpu_one_class_comes_after_the_other_and_a_stick_before_other_storage() {
        let queue = Arc::new(Queue { in_turn: true, ..Queue::default() });
        let module = |name| Job::Module(name);
        queue.push(Urgency::Now, module("host"));
        queue.push(Urgency::Now, module("other-host"));
        queue.push(Urgency::Soon, module("loop"));
        let (host, other) = (queue.pop().unwrap(), queue.pop().unwrap());
        assert_eq!((host.job, other.job), (module("host"), module("other-host")), "one class is loaded side by side");
        let (sender, takes) = mpsc::channel();
        let worker = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                while sender.send(queue.pop().map(|taken| taken.job)).is_ok_and(|()| !queue.jobs().closed) {}
            })
        };
        let began = Instant::now();
        queue.done(host.urgency, host.began);
        assert!(takes.recv_timeout(Duration::from_millis(200)).is_err(), "the second host is still loaded");
        queue.done(other.urgency, other.began);
        assert_eq!(takes.recv_timeout(WAITS_FOR_URGENT * 10).unwrap(), Some(module("loop")));
        queue.jobs().running.clear();
        queue.stick();
        queue.push(Urgency::Storage, module("disks"));
        queue.push(Urgency::Now, module("stick"));
        assert_eq!(takes.recv_timeout(Duration::from_secs(30)).unwrap(), Some(module("stick")));
        // Neither the stick nor a driver that hangs is waited for without end.
        assert_eq!(takes.recv_timeout(Duration::from_secs(30)).unwrap(), Some(module("disks")));
        assert!(began.elapsed() >= WAITS_FOR_A_STICK);
        queue.close();
        worker.join().unwrap();
    }
}
