//! Debian's own udevd in stage two: it loads the drivers, gives network cards their lasting names, and knows the volumes, so that
//! what it has written below `/run/udev` is there for systemd's udevd. Debian's initramfs does the same.
//!
//! Source: udevadm(8), systemd-udevd.service(8).

use crate::child;
use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, inotify};
use sino_boot::layout;
use sino_boot::stage::{Done, Fault, done};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const DAEMON: &str = "/usr/lib/systemd/systemd-udevd";
/// The daemon's socket: there while one runs.
const SOCKET: &str = "/run/udev/control";
/// udevd is ready, or has asked the kernel for all its devices, within this.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// What is announced in stage two, because network and storage hang on it: controllers of disks, networks and USB. Displays,
/// sound and the rest wait for systemd. Source: PCI Code and ID Assignment Specification, base classes.
const PCI_CLASSES: [&str; 3] = ["0x01*", "0x02*", "0x0c03*"];
/// The same below those controllers, and of buses that need none.
const SUBSYSTEMS: [&str; 11] =
    ["ata_port", "block", "memstick", "mmc", "net", "nvme", "scsi", "usb", "virtio", "vmbus", "xen"];
/// How long Debian's udevd may take when it is that which is waited for.
const DEBIANS_WITHIN: Duration = Duration::from_secs(120);
/// How long the hand-over waits for whoever needs udev, and for its end.
const END_WITHIN: &str = "8";

/// Starts udevd and has the kernel announce disks and network cards again. Once Debian has begun to take over, its own is
/// waited for instead.
///
/// # Errors
/// It cannot be started, or Debian's does not come.
pub fn start() -> Result<Done<()>, Fault> {
    // Whoever hands over says so first, and then waits for this: there are never two daemons.
    let held = hold()?;
    if Path::new(layout::HANDED_OVER).exists() {
        drop(held);
        wait_for_debians()?;
        return Ok(done((), "Debian's udevd runs"));
    }
    if runs() {
        return Ok(done((), "udevd runs already"));
    }
    let run = |program: &str, arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(program);
        let status = child::run(command.args(arguments), ANSWERS_WITHIN)?;
        ensure!(status.success(), "{} ended with {status}", child::words(&command));
        Ok(())
    };
    run(DAEMON, &["--daemon"])?;
    for class in PCI_CLASSES {
        let class = format!("--attr-match=class={class}");
        run("udevadm", &["trigger", "--action=add", "--subsystem-match=pci", &class])?;
    }
    let mut others = vec!["trigger".to_owned(), "--action=add".to_owned()];
    others.extend(SUBSYSTEMS.iter().map(|name| format!("--subsystem-match={name}")));
    run("udevadm", &others.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(done((), "disks and network cards are announced"))
}

/// Between the two daemons, waits for the second: a volume that is activated without one has no entry in udev's database.
///
/// # Errors
/// It does not come.
pub fn bridge_the_gap() -> Result<()> {
    if Path::new(layout::HANDED_OVER).exists() { wait_for_debians() } else { Ok(()) }
}

/// Waits until systemd has started its udevd.
fn wait_for_debians() -> Result<()> {
    let deadline = Instant::now() + DEBIANS_WITHIN;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).context("asking for changes of files")?;
    while !runs() {
        // Its folder may not be there yet; a folder that is watched already only stays so.
        for folder in ["/run", "/run/udev"] {
            let _ = inotify::add_watch(&watch, folder, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "Debian's udevd does not run after {} s", DEBIANS_WITHIN.as_secs());
        if runs() {
            break;
        }
        let mut fds = [PollFd::new(&watch, PollFlags::IN)];
        // A signal ends the wait early, which only costs a turn.
        let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        if fds.iter().any(|fd| !fd.revents().is_empty()) {
            let mut buffer = [0; 4096];
            rustix::io::read(&watch, &mut buffer).context("reading changes of files")?;
        }
    }
    Ok(())
}

/// Whether a udevd runs.
#[must_use]
pub fn runs() -> bool {
    Path::new(SOCKET).exists()
}

/// Waits until udevd has worked off what was announced so far, for so long at most. Returns whether it has.
///
/// # Errors
/// `udevadm` cannot be executed.
pub fn settle(limit: Duration) -> Result<bool> {
    let mut command = Command::new("udevadm");
    let status = child::run(
        command.args(["settle", &format!("--timeout={}", limit.as_secs())]),
        limit + Duration::from_secs(5),
    )?;
    Ok(status.success())
}

/// Ends stage two's udevd, so that systemd's can take over. Not while somebody [`hold`]s it, but after the deadline.
pub fn end() {
    if !Path::new(DAEMON).exists() {
        return;
    }
    let mut command = Command::new("flock");
    command.args(["--timeout", END_WITHIN, layout::UDEV_LOCK]);
    // None runs, or none yet: whoever starts it holds the file.
    let end = format!("[ ! -e {SOCKET} ] || exec udevadm control --exit --timeout {END_WITHIN}");
    command.args(["sh", "-c", &end]);
    let result = child::run(&mut command, Duration::from_secs(20));
    if !result.as_ref().is_ok_and(std::process::ExitStatus::success) {
        log::warn!("udevd did not end in time ({result:?}); systemd starts its own in any case");
        let mut command = Command::new("udevadm");
        let _ = child::run(command.args(["control", "--exit", "--timeout", "2"]), Duration::from_secs(5));
    }
}

/// Keeps udevd from being ended for as long as the result lives: for work that waits for udev's answer.
///
/// # Errors
/// The lock's file cannot be made.
pub fn hold() -> Result<impl Drop> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(layout::UDEV_LOCK, flags, Mode::RUSR | Mode::WUSR)
        .with_context(|| format!("opening {}", layout::UDEV_LOCK))?;
    rustix::fs::flock(&file, FlockOperation::LockShared).context("locking udev's file")?;
    Ok(Held(file))
}

struct Held(#[allow(dead_code)] rustix::fd::OwnedFd);

impl Drop for Held {
    fn drop(&mut self) {}
}
