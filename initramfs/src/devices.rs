//! The machine's devices as they appear: drivers are loaded for them, and each block device is looked at once.
//!
//! A thread listens to the kernel's events; a few workers load drivers, and each block device is read by a thread of its
//! own, so that one slow device holds up no other. What they find arrives on one channel, on which the boot waits with a deadline. A thread that
//! dies says so on the same channel.

use crate::block_device::{self, BlockDevice};
use crate::driver_queue::{Job, Queue, Taken, Urgency};
use crate::drivers::Loader;
use crate::uevent::{Received, Socket, Uevent};
use anyhow::{Context, Result};
use sino_boot::modules::ModuleTable;
use sino_boot::stage::{Done, Fault, done};
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A device that does not answer holds a thread for as long as its driver tries; this many may do so at once.
const LOOKS_MAX: usize = 64;
/// Workers: at least this many even on one CPU, because most of their time is waiting for hardware.
const WORKERS_MIN: usize = 4;
/// More than this many only contend for the kernel's own locks.
const WORKERS_MAX: usize = 8;
/// Needed for every medium; loaded while USB devices are still being enumerated.
const SOON_NEEDED: [&str; 5] = ["isofs", "loop", "squashfs", "overlay", "dm_verity"];
/// Needed for a stick; loaded ahead where there is a USB host.
const NEEDED_FOR_A_STICK: [&str; 2] = ["usb_storage", "sd_mod"];
/// Asked for by every stick, because a modalias does not tell which of the two protocols it speaks; few speak this one. Loaded
/// after what all need.
const SECOND_FOR_A_STICK: &str = "uas";
/// How nice a worker is to the others and to the boot itself while it loads something of this [`Urgency`]: what a medium is
/// seldom behind takes only the time that is left over. Source: sched(7), setpriority(2), which is about threads on Linux.
const NICE: [i32; 5] = [0, 5, 10, 15, 19];
/// Buses of /sys whose devices have no drivers that could be loaded.
const WITHOUT_DRIVERS: [&str; 8] =
    ["clockevents", "clocksource", "event_source", "machinecheck", "memory", "memory_tiering", "node", "workqueue"];

/// Something that happened to a device.
#[derive(Debug)]
pub enum Event {
    /// A block device appeared or changed, and this is what it is.
    Block(Box<BlockDevice>),
    /// A block device is gone.
    Gone(String),
    /// A thread ended that must not; nothing more may arrive.
    Died(String),
}

/// Looks at block devices, each in a thread of its own, so that a disk that answers slowly holds up no other.
#[derive(Default)]
struct Looker(Mutex<Looks>);

#[derive(Default)]
struct Looks {
    running: usize,
    /// What waits for one of them to end.
    waiting: VecDeque<String>,
}

impl Looker {
    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(self: &Arc<Self>, name: String, sender: &Sender<Event>) {
        if !block_device::may_be_medium(&name) {
            return;
        }
        {
            let mut looks = self.looks();
            if looks.running >= LOOKS_MAX {
                looks.waiting.push_back(name);
                return;
            }
            looks.running += 1;
        }
        let (own, own_sender, title) = (Arc::clone(self), sender.clone(), format!("look {name}"));
        let body = move || {
            let mut next = Some(name);
            while let Some(name) = next {
                one_look(&name, &own_sender);
                next = own.next();
            }
        };
        if let Err(error) = start(&title, sender, body) {
            self.looks().running -= 1;
            log::warn!("{error:#}");
        }
    }

    /// What the thread that has just looked looks at next; without more it ends.
    fn next(&self) -> Option<String> {
        let mut looks = self.looks();
        let next = looks.waiting.pop_front();
        if next.is_none() {
            looks.running = looks.running.saturating_sub(1);
        }
        next
    }
}

fn one_look(name: &str, sender: &Sender<Event>) {
    let began = Instant::now();
    if let Some(device) = block_device::look(name) {
        if began.elapsed() > Duration::from_secs(5) {
            log::warn!("{name} took {} s to answer", began.elapsed().as_secs());
        }
        log::debug!("block device {device}");
        let _ = sender.send(Event::Block(Box::new(device)));
    }
}

/// The devices, and the threads that look after them.
pub struct Devices {
    loader: Arc<Loader>,
    queue: Arc<Queue>,
    events: Receiver<Event>,
    again: Box<dyn Fn()>,
}

impl std::fmt::Debug for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Devices").finish_non_exhaustive()
    }
}

/// Starts to load drivers for every device that there is or will be. Does not wait for them: a slow controller that
/// holds no medium must not hold up the boot.
///
/// # Errors
/// The kernel's events cannot be listened to, or no thread can be started.
pub fn coldplug(modules: ModuleTable, debug: bool) -> Result<Done<Devices>, Fault> {
    if debug {
        log::set_max_level(log::LevelFilter::Debug);
    }
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let at_hand = modules.modules.len();
    let loader = Arc::new(Loader::new(modules, &line));
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let queue = Arc::new(Queue::new(cpus == 1));
    let (sender, events) = mpsc::channel();
    // The socket is open before the first look at /sys, so that no device falls between the two.
    let socket = Socket::open()?;
    let looker = Arc::new(Looker::default());
    start("uevents", &sender, {
        let (queue, looker, sender) = (Arc::clone(&queue), Arc::clone(&looker), sender.clone());
        move || listen(socket, &queue, &looker, &sender)
    })?;
    for number in 0..cpus.clamp(WORKERS_MIN, WORKERS_MAX) {
        let (loader, queue) = (Arc::clone(&loader), Arc::clone(&queue));
        start(&format!("worker {number}"), &sender, move || work(&loader, &queue))?;
    }
    let aliases = enqueue_all(&queue);
    for module in SOON_NEEDED {
        queue.push(Urgency::Soon, Job::Module(module));
    }
    look_at_all(&looker, &sender);
    let again = Box::new(move || look_at_all(&looker, &sender));
    let detail = format!("{aliases} device aliases, {at_hand} drivers at hand");
    Ok(done(Devices { loader, queue, events, again }, detail))
}

impl Devices {
    /// Waits for the next event; `None` when the deadline has passed.
    pub fn next(&self, deadline: Instant) -> Option<Event> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.events.recv_timeout(left) {
            Ok(event) => Some(event),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => Some(Event::Died("every device thread ended".to_owned())),
        }
    }

    /// Asks every storage controller for devices that were not ready before, and looks at all block devices again.
    pub fn rescan(&self) {
        for host in entries("/sys/class/scsi_host") {
            // The controller's own threads do the work; one that refuses has no more to show.
            let _ = fs::write(format!("{host}/scan"), "- - -");
        }
        (self.again)();
    }

    /// Loads a driver that a step needs now, for example a file system's.
    ///
    /// # Errors
    /// The reason why it is not there.
    pub fn driver(&self, name: &str) -> Result<()> {
        self.loader.load(name).map_err(|why| anyhow::anyhow!("driver {name}: {why}"))
    }

    /// The drivers that would not load so far.
    pub fn failures(&self) -> Vec<String> {
        self.loader.failures()
    }

    /// How many drivers were loaded so far.
    pub fn loaded(&self) -> usize {
        self.loader.loaded()
    }

    /// No device is waited for any more: the rest of the boot has the CPU to itself. What a step needs is still loaded. After a
    /// failure, when this value is dropped, the work goes on, because a rescue shell needs a keyboard.
    pub fn pause(&self) {
        // The queue first: what the loader gives up goes back there, and is not to be taken again.
        self.queue.pause(true);
        self.loader.pause(true);
    }

    /// Ends the work: what is not begun is left to the new root's udev. Returns the drivers that would not load.
    pub fn finish(self) -> Vec<String> {
        let failures = self.loader.failures();
        self.queue.close();
        self.loader.stop();
        // The root's init takes everything away at once; to free the module table first takes a hundredth of a second on one emulated
        // CPU.
        std::mem::forget(self);
        failures
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        self.loader.pause(false);
        self.queue.pause(false);
    }
}

/// Starts a thread whose panic becomes an event.
fn start(name: &str, sender: &Sender<Event>, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let (title, sender) = (name.to_owned(), sender.clone());
    let guarded = move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            let why = sino_boot::stage::message(panic.as_ref());
            log::error!("the thread {title:?} panicked: {why}");
            // Nobody waits any more: then the log is all there is.
            let _ = sender.send(Event::Died(format!("the thread {title:?} panicked: {why}")));
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(256 << 10)
        .spawn(guarded)
        .with_context(|| format!("starting the thread {name:?}"))?;
    Ok(())
}

/// Puts every device that is there now into the queue; returns the number of aliases.
fn enqueue_all(queue: &Queue) -> usize {
    let mut aliases = BTreeSet::new();
    for bus in entries("/sys/bus") {
        if WITHOUT_DRIVERS.iter().any(|without| bus.ends_with(&format!("/{without}"))) {
            continue;
        }
        for device in entries(&format!("{bus}/devices")) {
            if let Ok(alias) = fs::read_to_string(format!("{device}/modalias")) {
                aliases.insert(alias.trim_end().to_owned());
            }
        }
    }
    aliases.remove("");
    let (count, usb) = (aliases.len(), aliases.iter().any(|alias| is_usb_host(alias)));
    for alias in aliases {
        announce(queue, alias);
    }
    for module in NEEDED_FOR_A_STICK.into_iter().filter(|_| usb) {
        queue.push(Urgency::Stick, Job::Module(module));
    }
    count
}

fn look_at_all(looker: &Arc<Looker>, sender: &Sender<Event>) {
    for device in entries("/sys/class/block") {
        if let Some(name) = device.rsplit('/').next() {
            looker.look(name.replace('!', "/"), sender);
        }
    }
}

/// How soon the drivers for an alias are to be loaded. Sources: the kernel's file2alias.c; PCI Code and ID Assignment Specification
/// (0c03: USB hosts, 01: storage, 0805: SD hosts); 1af4 is virtio's vendor; USB class 08 is mass storage.
fn urgency(alias: &str) -> Urgency {
    let bus = alias.split(':').next().unwrap_or_default();
    let is_now = match bus {
        "pci" => is_usb_host(alias) || alias.starts_with("pci:v00001AF4"),
        "usb" => is_stick(alias),
        "virtio" | "xen" | "vmbus" | "scsi" => true,
        _ => false,
    };
    if is_now {
        Urgency::Now
    } else if bus == "mmc" || bus == "pci" && (alias.contains("bc01") || alias.contains("bc08sc05")) {
        Urgency::Storage
    } else {
        Urgency::Rest
    }
}

fn is_usb_host(alias: &str) -> bool {
    alias.starts_with("pci:") && alias.contains("bc0Csc03")
}

fn is_stick(alias: &str) -> bool {
    alias.starts_with("usb:") && alias.contains("ic08")
}

/// Has the drivers for a device loaded.
fn announce(queue: &Queue, alias: String) {
    let is_stick = is_stick(&alias);
    if is_stick {
        queue.stick();
    }
    queue.push(urgency(&alias), Job::Alias(alias));
    if is_stick {
        queue.push(Urgency::Soon, Job::Module(SECOND_FOR_A_STICK));
    }
}

/// The full paths in a folder; none if it cannot be read.
fn entries(folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.path().to_str().map(str::to_owned)).collect()
}

fn listen(mut socket: Socket, queue: &Queue, looker: &Arc<Looker>, sender: &Sender<Event>) {
    loop {
        match socket.receive() {
            Ok(Received::Event(event)) => handle(event, queue, looker, sender),
            Ok(Received::Overrun) => {
                log::warn!("device events were lost in a burst; looking at all devices again");
                enqueue_all(queue);
                look_at_all(looker, sender);
            }
            Err(error) => {
                let _ = sender.send(Event::Died(format!("{error:#}")));
                return;
            }
        }
    }
}

fn handle(event: Uevent, queue: &Queue, looker: &Arc<Looker>, sender: &Sender<Event>) {
    let appeared = matches!(event.action.as_str(), "add" | "change");
    if event.action == "add"
        && let Some(alias) = event.modalias
    {
        announce(queue, alias);
    }
    if let (true, Some(name)) = (event.subsystem == "block", event.devname) {
        if appeared {
            looker.look(name, sender);
        } else if event.action == "remove" {
            let _ = sender.send(Event::Gone(name));
        }
    }
}

fn work(loader: &Loader, queue: &Queue) {
    let mut own = None;
    while let Some(Taken { urgency, job, began }) = queue.pop() {
        if own.replace(urgency) != Some(urgency) {
            let nice = NICE.get(urgency as usize).copied().unwrap_or_default();
            // Without it everything is only as soon as everything else.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
        }
        match job {
            Job::Alias(alias) => {
                let later = is_stick(&alias).then_some(SECOND_FOR_A_STICK);
                if !loader.load_for_alias(&alias, later) {
                    queue.push(urgency, Job::Alias(alias));
                }
            }
            Job::Module(name) => {
                // The step that needs it asks again and gets the error.
                let _ = loader.load(name);
            }
        }
        queue.done(urgency, began);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_medium_is_most_likely_behind_comes_first() {
        for (alias, expected) in [
            ("pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30", Urgency::Now),
            ("pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00", Urgency::Now),
            ("usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00", Urgency::Now),
            ("virtio:d00000002v00001AF4", Urgency::Now),
            ("scsi:t-0x00", Urgency::Now),
            ("pci:v00008086d00007010sv00001AF4sd00001100bc01sc01i80", Urgency::Storage),
            ("usb:v046Dp0825d0012dcEFdsc02dp01ic0Eisc01ip00in00", Urgency::Rest),
            ("acpi:PNP0C0A:", Urgency::Rest),
            ("", Urgency::Rest),
        ] {
            assert_eq!(urgency(alias), expected, "{alias}");
        }
    }

    #[test]
    fn nothing_is_taken_in_a_pause_and_a_failure_ends_it() {
        let (_sender, events) = mpsc::channel();
        let (loader, queue) = (Arc::new(Loader::new(ModuleTable::default(), "")), Arc::new(Queue::default()));
        let devices = Devices { loader, queue: Arc::clone(&queue), events, again: Box::new(|| {}) };
        devices.pause();
        queue.push(Urgency::Rest, Job::Module("keyboard"));
        let (sender, takes) = mpsc::channel();
        let worker = std::thread::spawn(move || sender.send(queue.pop()));
        assert!(takes.recv_timeout(Duration::from_millis(200)).is_err(), "taken in the pause");
        drop(devices);
        let next = takes.recv_timeout(Duration::from_secs(30)).unwrap().unwrap();
        assert_eq!((next.urgency, next.job), (Urgency::Rest, Job::Module("keyboard")));
        worker.join().unwrap().unwrap();
    }
}
