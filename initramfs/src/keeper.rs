//! The keeper: the part of stage one that stays when the system runs, as a process of its own.
//!
//! It copies the root image to RAM in the background and then swaps the file below the running root; holds in memory what an
//! orderly shutdown needs when the medium is lost; and watches the medium and the overlay, and says on every console when
//! one of them fails. It runs from the initramfs's memory, so it needs no medium itself.
//!
//! Its name begins with '@', which tells systemd not to end it at a shutdown: the root lies on what it holds. Source:
//! systemd, "Using systemd in the initrd: storage daemons for the root file system".

use crate::block_device::{self, Content};
use crate::hold::Held;
use crate::kmsg_reader::{Kmsg, medium_error};
use crate::medium::Hold;
use crate::overlay_watch::OverlayWatch;
use crate::progress::Progress;
use crate::uevent::{Received, Socket, Uevent};
use crate::{exit_root, loop_device, mounts, switch_root, to_ram};
use anyhow::{Context, Result};
use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use sino_boot::manifest::Manifest;
use sino_boot::record::{BootRecord, Copy, Medium, Verified};
use sino_boot::{console, issue, layout, stage};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The first argument of a keeper.
const MODE: &str = "keep";
/// Its name in the list of processes.
const NAME: &str = "@sino-keeper";
/// How often the overlay is looked at: nothing tells when a tmpfs fills.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How nice the thread is that holds the root's files.
const NICE_HOLDER: i32 = 10;
/// The nicest that a process can be. Source: setpriority(2).
const NICEST: i32 = 19;

/// What there is to do besides watching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Whether files of the root must be held in memory, because the root lies on the medium.
    pub hold_files: bool,
    /// A copy in the background: the loop device below the root, the root image's path on the medium, and what to let go of
    /// afterwards.
    pub copy: Option<(String, String, Vec<Hold>)>,
}

impl Task {
    fn to_arguments(&self) -> Vec<String> {
        let mut words = vec![MODE.to_owned()];
        if self.hold_files {
            words.push("hold".to_owned());
        }
        if let Some((device, path, holds)) = &self.copy {
            words.extend([format!("copy={device}"), format!("from={path}")]);
            words.extend(holds.iter().map(ToString::to_string));
        }
        words
    }

    /// The task in a keeper's arguments (without the program's name); `None` if they are not a keeper's.
    #[must_use]
    pub fn from_arguments(arguments: &[OsString]) -> Option<Self> {
        let (mode, rest) = arguments.split_first()?;
        if mode != MODE {
            return None;
        }
        let words: Vec<String> = rest.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)).map(str::to_owned);
        let holds = words.iter().filter_map(|word| Hold::parse(word)).collect();
        Some(Self {
            hold_files: words.iter().any(|word| word == "hold"),
            copy: value("copy=").zip(value("from=")).map(|(device, path)| (device, path, holds)),
        })
    }
}

/// Starts the keeper as a child of this process, from this process's own program, which the kernel keeps in memory even after
/// its file is gone. `old_root` is the initramfs, which the keeper empties. What happens to the medium from here on is heard, however
/// late the keeper begins to listen.
///
/// # Errors
/// It cannot be executed, or the kernel's events or log cannot be had.
pub fn start(task: &Task, old_root: OwnedFd) -> Result<()> {
    let child = Command::new("/proc/self/exe")
        .arg0(NAME)
        .args(task.to_arguments())
        .stdin(old_root)
        .stdout(Socket::open()?.into_fd())
        .stderr(Kmsg::open()?.into_fd())
        .spawn()
        .context("starting the keeper")?;
    // The root's init comes first. Without it that only begins a little later.
    let pid = rustix::process::Pid::from_child(&child);
    let _ = rustix::process::setpriority_process(Some(pid), NICEST);
    fs::write(layout::KEEPER_PID, format!("{}\n", child.id())).context("writing the keeper's process number")
}

/// Keeps, until the machine is switched off. Returns only if it cannot watch anything.
///
/// # Errors
/// The kernel's events cannot be had.
pub fn keep(task: Task) -> Result<()> {
    // The last process to end when memory is short: without it nobody says why.
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    tidy_up();
    // Its standard output and error are what [`start`] has opened to be read.
    let taken = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    let socket = Socket::inherited(taken(io::stdout().as_fd()).context("taking the kernel's events over")?);
    let kmsg = Kmsg::inherited(taken(io::stderr().as_fd()).context("taking the kernel's log over")?);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    // At worst they stay open twice.
    let _ = null.and_then(|null| rustix::stdio::dup2_stdout(&null).and_then(|()| rustix::stdio::dup2_stderr(&null)));
    let record = BootRecord::load(Path::new(layout::BOOT_RECORD))?;
    let in_ram = Arc::new(AtomicBool::new(record.medium.as_ref().is_some_and(|medium| medium.in_ram)));
    let medium = record.medium.unwrap_or_default();
    let lost = Arc::new(AtomicBool::new(false));
    // What is held stays held for as long as this value lives.
    let (flag, gone, name) = (Arc::clone(&in_ram), Arc::clone(&lost), medium.clone());
    std::thread::Builder::new().name("keeper's work".to_owned()).spawn(move || {
        // What it reads would hold up the host's start where one CPU does everything; but a stick may be pulled soon.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE_HOLDER);
        let Task { hold_files, copy } = task;
        let held = hold_files.then(Held::read);
        if let Some(held) = &held {
            log::info!("{held}");
        }
        if let Some((device, path, holds)) = copy {
            in_background(&device, &path, &holds, &flag, &gone, &name);
        }
        if flag.load(Ordering::Acquire) {
            return;
        }
        loop {
            std::thread::park();
        }
    })?;
    // Whoever watches must not be late. At worst he is.
    let _ = rustix::process::setpriority_process(None, 0);
    watch(socket, kmsg, &medium, &in_ram, &lost)
}

/// Makes the root that a shutdown goes back to, and empties the initramfs, which is the standard input. The root's init need not
/// wait for either: it is done beside it, with what it leaves of the CPU.
fn tidy_up() {
    let tidy = || {
        lowest_priority();
        if let Err(error) = exit_root::prepare() {
            console::say(&format!("warning: {error:#}"), Level::Warn);
        }
        let old_root = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).context("taking the initramfs over");
        if let Err(error) = old_root.and_then(switch_root::empty) {
            // Worst case: some megabytes of memory stay in use.
            log::warn!("the initramfs could not be emptied: {error:#}");
        }
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        // At worst an empty folder stays open.
        let _ = null.and_then(rustix::stdio::dup2_stdin);
    };
    if let Err(error) = std::thread::Builder::new().name("tidy up".to_owned()).spawn(tidy) {
        log::warn!("the initramfs is not emptied: {error}");
    }
}

/// Says which other disks carry the same build, now and whenever one is plugged in: an administrator who pulls a stick must
/// know which one is in use.
fn look_for_twin(name: String, build: &str, own_disk: &str) {
    let (build, own_disk) = (build.to_owned(), own_disk.to_owned());
    // In a thread of its own: a disk that answers slowly must not hold up the watch. Without one, nothing is said.
    let _ = std::thread::Builder::new().name("twin".to_owned()).spawn(move || {
        let Some(device) = block_device::look(&name).filter(|device| device.disk == name && name != own_disk) else {
            return;
        };
        let is_twin = matches!(&device.content, Content::Volume(volume) if volume.is_sino() && volume.set_id == build);
        if !is_twin {
            return;
        }
        let twin = format!("{} ({})", device.name, device.place);
        change_medium(|medium| medium.also.push(twin.clone()));
        console::say(
            &format!("{twin} carries the same build and is not used; the host was booted from {own_disk}"),
            Level::Warn,
        );
    });
}

fn watch(mut socket: Socket, mut kmsg: Kmsg, medium: &Medium, in_ram: &AtomicBool, lost: &AtomicBool) -> Result<()> {
    let mut overlay = OverlayWatch::default();
    let disk = disk_of(&medium.device);
    let mut damaged = false;
    // It may have gone before anybody listened.
    if !in_ram.load(Ordering::Acquire) && !block_device::is_present(&medium.device) {
        lost.store(true, Ordering::Release);
        say_gone(medium);
    }
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        look_for_twin(entry.file_name().to_string_lossy().replace('!', "/"), &medium.build_id, &disk);
    }
    loop {
        let mut fds =
            [PollFd::from_borrowed_fd(socket.fd(), PollFlags::IN), PollFd::from_borrowed_fd(kmsg.fd(), PollFlags::IN)];
        let timeout = Timespec::try_from(LOOK_EVERY).ok();
        // A signal ends the wait early, which only costs a turn.
        let _ = poll(&mut fds, timeout.as_ref());
        let [has_event, has_line] = fds.map(|fd| !fd.revents().is_empty());
        let mut trouble = None;
        if has_event {
            let received = socket.receive()?;
            if let Received::Event(event) = &received
                && (event.subsystem == "block" && event.action == "add")
                && let Some(name) = &event.devname
            {
                look_for_twin(name.clone(), &medium.build_id, &disk);
            }
            match received {
                Received::Event(event) if !in_ram.load(Ordering::Acquire) => {
                    trouble = event_trouble(&event, &medium.device, &disk);
                }
                Received::Event(_) => {}
                Received::Overrun => {
                    trouble = (!in_ram.load(Ordering::Acquire) && !block_device::is_present(&medium.device))
                        .then_some(Trouble::Gone);
                }
            }
        }
        if has_line {
            while let Some(line) = kmsg.next_line() {
                if !in_ram.load(Ordering::Acquire) && medium_error(&line, &disk) {
                    // A device that is gone gives read errors, too, and sometimes before it is announced.
                    let gone = !block_device::is_present(&medium.device);
                    let news = if gone { Trouble::Gone } else { Trouble::Damaged(line) };
                    trouble = trouble.or(Some(news));
                }
            }
        }
        match trouble {
            Some(Trouble::Gone) if !lost.swap(true, Ordering::AcqRel) => say_gone(medium),
            Some(Trouble::Damaged(line)) if !damaged && !lost.load(Ordering::Acquire) => {
                damaged = true;
                say_damaged(medium, &line);
            }
            _ => {}
        }
        for warning in overlay.look() {
            update(|record| record.warnings.push(warning.clone()));
            console::say(&format!("warning: {warning}"), Level::Warn);
        }
    }
}

enum Trouble {
    Gone,
    Damaged(String),
}

fn event_trouble(event: &Uevent, device: &str, disk: &str) -> Option<Trouble> {
    if event.subsystem != "block" {
        return None;
    }
    if let Some(block) = &event.verity_error {
        return Some(Trouble::Damaged(format!("dm-verity: {block} is not what was built")));
    }
    let name = event.devname.as_deref()?;
    (event.action == "remove" && (name == device || name == disk)).then_some(Trouble::Gone)
}

/// The disk of a partition.
fn disk_of(name: &str) -> String {
    block_device::look(name).map_or_else(|| name.to_owned(), |device| device.disk)
}

fn update(change: impl FnOnce(&mut BootRecord)) {
    match BootRecord::update(Path::new(layout::BOOT_RECORD), change) {
        Ok(record) => {
            if let Err(error) = issue::save(&record) {
                log::warn!("{error:#}");
            }
        }
        Err(error) => log::warn!("the boot record could not be kept: {error:#}"),
    }
}

fn change_medium(change: impl FnOnce(&mut Medium)) {
    update(|record| change(record.medium.get_or_insert_default()));
}

fn say_gone(medium: &Medium) {
    let name = format!("{} ({})", medium.description, medium.device);
    let lines = [
        format!("THE MEDIUM IS GONE: {name} was pulled or does not answer any more"),
        "  what is in memory goes on: the guests run, and so does what a shutdown needs; other programs may fail"
            .to_owned(),
        "  try:    shut the guests down (xl shutdown -a -w), then \"reboot\" with the stick plugged in again"
            .to_owned(),
        "          plugging it in now does not bring it back; \"SINO on ram\" runs without a stick".to_owned(),
    ];
    change_medium(|medium| {
        medium.trouble =
            Some("IT IS GONE. Shut the guests down (xl shutdown -a -w), plug it in again, and reboot.".to_owned());
    });
    for line in lines {
        console::say(&line, Level::Error);
    }
    // From here on the kernel reports every read that fails, many a second; the log has them, a console must stay usable.
    let _ = fs::write("/proc/sys/kernel/printk", "2");
}

fn say_damaged(medium: &Medium, what: &str) {
    let name = format!("{} ({})", medium.description, medium.device);
    let lines = [
        format!("THE MEDIUM IS DAMAGED: {name}: {what}"),
        "  what lies there cannot be read and gives an I/O error; wrong bytes are never used".to_owned(),
        "  try:    write the stick again or take another one, and reboot; sino.check at the boot verifies a whole stick".to_owned(),
    ];
    change_medium(|medium| {
        medium.trouble = Some("IT IS DAMAGED. Write it again or take another one, and reboot.".to_owned());
    });
    for line in lines {
        console::say(&line, Level::Error);
    }
}

/// Copies the root image to RAM, puts the copy below the running root, and lets go of the medium.
fn in_background(device: &str, path: &str, holds: &[Hold], in_ram: &AtomicBool, lost: &AtomicBool, medium: &Medium) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| copy_and_swap(device, path, holds, in_ram)));
    let result = result
        .unwrap_or_else(|panic| Err(anyhow::anyhow!("a defect of SINO's own: {}", stage::message(panic.as_ref()))));
    let Err(error) = result else { return };
    if in_ram.load(Ordering::Acquire) {
        // The root is in RAM; only the medium is still held.
        console::say(&format!("copy to RAM: done, but the medium is still in use: {error:#}"), Level::Error);
        console::say("  DO NOT REMOVE THE STICK before \"umount /run/sino/medium\" succeeds", Level::Error);
        return;
    }
    let gone = lost.load(Ordering::Acquire) || !block_device::is_present(&medium.device);
    let _ = mounts::release(layout::RAM);
    let why = if gone { "the medium was pulled before the copy was complete" } else { "the medium is damaged" };
    update(|record| {
        record.warnings.push(format!("not copied to RAM: {why}: {error:#}"));
        if let Some(copy) = record.medium.as_mut().and_then(|medium| medium.copy.as_mut()) {
            copy.failed = true;
        }
    });
    console::say(&format!("copy to RAM FAILED: {why}: {error:#}"), Level::Error);
    let hint = if gone {
        "  try:    shut the guests down, plug the stick in again, and reboot; leave it until the screen says that it may be removed"
    } else {
        "  the host goes on from the medium: DO NOT REMOVE THE STICK; write it again soon, or take another one"
    };
    console::say(hint, Level::Error);
}

fn copy_and_swap(device: &str, path: &str, holds: &[Hold], in_ram: &AtomicBool) -> Result<()> {
    lowest_priority();
    let text = fs::read_to_string(layout::RUN_MANIFEST).with_context(|| format!("reading {}", layout::RUN_MANIFEST))?;
    let manifest = Manifest::parse(&text)?;
    let total = manifest.root.size;
    let image = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {path}"))?;
    let progress = Progress::start("copy to RAM", total, false);
    let (copy, _) = to_ram::into_ram(&image, &manifest, &|bytes| {
        if progress.at(bytes) {
            change_medium(|medium| medium.copy = Some(Copy { done: bytes, total, failed: false }));
        }
    })?;
    drop(image);
    loop_device::change(device, &copy)?;
    in_ram.store(true, Ordering::Release);
    change_medium(|medium| medium.in_ram = true);
    for hold in holds {
        hold.release()?;
    }
    change_medium(|medium| {
        medium.copy = None;
        // It was read to its end before it was pulled.
        medium.trouble = None;
        medium.may_be_removed = true;
        medium.verified = Verified::Blake3;
    });
    let rate = progress.rate();
    console::say(
        &format!("copy to RAM: {} MiB at {rate:.0} MB/s, verified; the stick may be removed", total >> 20),
        Level::Warn,
    );
    Ok(())
}

/// This thread's reads, writes and computations come after everybody else's.
fn lowest_priority() {
    /// `IOPRIO_WHO_PROCESS`; the thread itself is 0.
    const WHO_PROCESS: libc::c_long = 1;
    /// `IOPRIO_CLASS_IDLE` in the place where the class stands. Source: kernel `include/uapi/linux/ioprio.h`.
    const IDLE: libc::c_long = 3 << 13;
    // SAFETY: ioprio_set takes three numbers and touches no memory; setpriority likewise.
    #[allow(unsafe_code)]
    unsafe {
        // At worst the copy takes its share like any other program.
        libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE);
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_survives_its_arguments() {
        let holds = vec![Hold::Mount("/run/sino/medium".into()), Hold::Loop("/dev/loop1".into())];
        for task in [
            Task::default(),
            Task { hold_files: true, copy: None },
            Task { hold_files: true, copy: Some(("/dev/loop0".into(), "/run/sino/medium/x".into(), holds)) },
        ] {
            let words: Vec<OsString> = task.to_arguments().into_iter().map(OsString::from).collect();
            assert_eq!(Task::from_arguments(&words), Some(task));
        }
        assert_eq!(Task::from_arguments(&["-q".into()]), None);
    }

    #[test]
    fn only_what_happens_to_the_medium_is_its_trouble() {
        let event = |action: &str, name: &str, error: Option<&str>| Uevent {
            action: action.into(),
            subsystem: "block".into(),
            devname: Some(name.into()),
            verity_error: error.map(str::to_owned),
            ..Uevent::default()
        };
        let trouble = |event: &Uevent| event_trouble(event, "sdb1", "sdb").is_some();
        assert!(trouble(&event("remove", "sdb1", None)) && trouble(&event("remove", "sdb", None)));
        assert!(!trouble(&event("remove", "sdc", None)) && !trouble(&event("change", "sdb", None)));
        assert!(trouble(&event("change", "dm-0", Some("data block 7"))));
    }
}
