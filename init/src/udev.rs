//! Debian's own udevd in stage two: it loads the drivers, gives network cards their lasting names, and knows the volumes, so that
//! what it has written below `/run/udev` is there for systemd's udevd. Debian's initramfs does the same.
//!
//! Source: udevadm(8), systemd-udevd.service(8).

use crate::child;
use anyhow::{Context, Result, anyhow, ensure};
use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, inotify};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sino_boot::stage::{Done, Fault, done};
use sino_boot::{console, layout};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const DAEMON: &str = "/usr/lib/systemd/systemd-udevd";
/// The daemon's socket: there while one runs.
const SOCKET: &str = "/run/udev/control";
/// udevd is ready, or has asked the kernel for all its devices, within this.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// What is announced in stage two, because network and storage hang on it: controllers of networks, disks and USB. Displays,
/// sound and the rest wait for systemd. Source: PCI Code and ID Assignment Specification, base classes.
const PCI_CLASSES: [&str; 3] = ["0x02", "0x01", "0x0c03"];
/// The same below those controllers, and of buses that need none. Volumes last, as they lie on disks.
const SUBSYSTEMS: [&str; 11] = [
    "bus/virtio/devices",
    "bus/vmbus/devices",
    "bus/xen/devices",
    "class/net",
    "class/ata_port",
    "bus/scsi/devices",
    "class/nvme",
    "bus/mmc/devices",
    "bus/memstick/devices",
    "bus/usb/devices",
    "class/block",
];
/// How long Debian's udevd may take when it is that which is waited for.
const DEBIANS_WITHIN: Duration = Duration::from_secs(120);
/// How long the hand-over waits for whoever needs udev, in seconds. Volumes are activated in far less, unless a disk hangs.
const HELD_FOR: u32 = 30;
/// How long Debian's udevd waits for them after that, in seconds; then both run.
const MAKES_WAY_WITHIN: u32 = 120;
/// How long it waits for udevd's end.
const END_WITHIN: Duration = Duration::from_secs(8);
/// The daemon's name as a process.
const NAME: &str = "systemd-udevd";
/// The service, and control group, of Debian's.
const SERVICE: &str = "/system.slice/systemd-udevd.service";
/// Says whether Debian's udevd has processes, once systemd has started it. Source: the kernel's admin-guide/cgroup-v2.rst.
const DEBIANS: &str = "/sys/fs/cgroup/system.slice/systemd-udevd.service/cgroup.events";
/// How often it is looked whether Debian's udevd runs, when nothing else tells.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// Starts udevd and has the kernel announce disks and network cards again. Once Debian has begun to take over, its own is
/// waited for instead.
///
/// # Errors
/// It cannot be started, or Debian's does not come.
pub fn start() -> Result<Done<()>, Fault> {
    // Whoever hands over says so first, and then waits for this: there are never two daemons.
    let held = hold()?;
    if held.late {
        drop(held);
        wait_for_debians()?;
        return Ok(done((), "Debian's udevd runs"));
    }
    if runs() {
        return Ok(done((), "udevd runs already"));
    }
    let mut daemon = Command::new(DAEMON);
    let status = child::run(daemon.arg("--daemon"), ANSWERS_WITHIN)?;
    if !status.success() {
        return Err(anyhow!("{} ended with {status}", child::words(&daemon)).into());
    }
    let announced = announce(Path::new("/sys"));
    Ok(done((), format!("{announced} disks, network cards and what they hang on are announced")))
}

/// Has the kernel announce devices again, as `udevadm trigger --action=add` does, in the order in which they are needed. Returns how
/// many. Source: kernel `Documentation/ABI/testing/sysfs-uevent`.
fn announce(sys: &Path) -> usize {
    let listed = |folder: PathBuf| {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        // Volumes behind the disks.
        paths.sort_by_key(|path| (is_named(path, "dm-"), path.clone()));
        paths
    };
    let is_of =
        |card: &Path, class: &str| std::fs::read_to_string(card.join("class")).is_ok_and(|own| own.starts_with(class));
    let cards = listed(sys.join("bus/pci/devices"));
    let controllers = PCI_CLASSES.iter().flat_map(|class| cards.iter().filter(|card| is_of(card, class)).cloned());
    let others = SUBSYSTEMS.iter().flat_map(|folder| listed(sys.join(folder)));
    // Debian announces these, too, and there is nothing to do for them now.
    let idle = |path: &Path| path.ends_with("lo") || is_named(path, "loop") && !path.join("loop/backing_file").exists();
    let devices = controllers.chain(others.filter(|path| !idle(path)));
    // One that has gone meanwhile needs nothing.
    devices.filter(|device| std::fs::write(device.join("uevent"), "add").is_ok()).count()
}

/// Whether a device's name begins so.
fn is_named(path: &Path, beginning: &str) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(beginning.as_bytes()))
}

/// Keeps udevd from being ended, as [`hold`]; between the two daemons, waits for the second: a volume that is activated without
/// one has no entry in udev's database, and whoever activates it waits for ever.
///
/// # Errors
/// It does not come, or the lock's file cannot be made.
pub fn secure(held: Option<Held>) -> Result<Held> {
    let held = held.map_or_else(hold, Ok)?;
    if !held.late {
        return Ok(held);
    }
    // Not while the hand-over waits for this very lock.
    drop(held);
    wait_for_debians()?;
    hold()
}

/// Waits until systemd has started its udevd and that answers. Its socket alone would not do: it may be the last udevd's, and
/// systemd makes it before anybody listens to the kernel.
fn wait_for_debians() -> Result<()> {
    let deadline = Instant::now() + DEBIANS_WITHIN;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .context("asking for changes of files")?;
    // Its folder may not be there yet; a folder that is watched already only stays so.
    let folders = ["/run", "/run/udev"];
    while !debians_runs() {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "Debian's udevd does not run after {} s", DEBIANS_WITHIN.as_secs());
        for folder in folders {
            let _ = inotify::add_watch(&watch, folder, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO);
        }
        let mut fds = [PollFd::new(&watch, PollFlags::IN)];
        // A signal ends the wait early, which only costs a turn.
        let _ = poll(&mut fds, Timespec::try_from(left.min(LOOKS_EVERY)).ok().as_ref());
        // Empty when it was the time.
        let _ = rustix::io::read(&watch, &mut [0; 4096]);
    }
    let left = deadline.saturating_duration_since(Instant::now()).as_secs().max(1);
    let mut ping = Command::new("udevadm");
    let status =
        child::run(ping.args(["control", "--ping", &format!("--timeout={left}")]), Duration::from_secs(left + 5))?;
    ensure!(status.success(), "Debian's udevd runs and does not answer: {status}");
    Ok(())
}

/// Whether systemd has started its udevd.
fn debians_runs() -> bool {
    // Not there before systemd has mounted the control groups.
    std::fs::read_to_string(DEBIANS).is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
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

/// Ends stage two's udevd, so that systemd's can take over. Not while somebody [`hold`]s it: the events that he waits for would
/// be lost, and he would wait for ever. Held for too long, it stays, and [`end_left`] ends it later; Debian's begins after that
/// ([`make_way`]).
pub fn end() {
    if !Path::new(DAEMON).exists() {
        return;
    }
    if !is_free_within(0) {
        let text =
            format!("Debian waits up to {HELD_FOR} s: drivers or volumes wait for udev, which must not be cut off");
        console::say(&text, Level::Warn);
        if !is_free_within(HELD_FOR) {
            let text = "drivers or volumes are still waited for; a disk may hang: dmesg, lsblk";
            return console::say(text, Level::Warn);
        }
    }
    // Whoever needs it from here on finds that Debian takes over, and waits for its udevd.
    terminate();
}

/// What Debian's udevd waits for before it begins: that nobody holds stage two's, which then ends. Two that see to the same volume
/// at the same time may leave udev's database with what the first event says of it, which is that it is not ready.
pub fn make_way() {
    if Path::new(layout::UDEV_LOCK).exists() && !is_free_within(MAKES_WAY_WITHIN) {
        let text = format!(
            "drivers or volumes are still waited for after {MAKES_WAY_WITHIN} s; Debian's udevd begins beside stage two's, and a \
             volume may lack its links below /dev: dmesg, lsblk, then udevadm trigger"
        );
        return console::say(&text, Level::Warn);
    }
    end_left();
}

/// Ends stage two's udevd if it is still there beside Debian's.
pub fn end_left() {
    if Path::new(layout::HANDED_OVER).exists() {
        terminate();
    }
}

/// Whether nobody holds udevd, now or within so many seconds.
fn is_free_within(seconds: u32) -> bool {
    let mut command = Command::new("flock");
    command.args(["--timeout", &seconds.to_string(), layout::UDEV_LOCK, "true"]);
    let result = child::run(&mut command, Duration::from_secs(u64::from(seconds) + 5));
    result.inspect_err(|error| log::warn!("{error:#}")).is_ok_and(|status| status.success())
}

/// Has udevd end, as soon as it has worked off what it has begun, and waits for that. Not by `udevadm control`, which gives up at
/// once while another `udevadm` waits at the same socket.
fn terminate() {
    let deadline = Instant::now() + END_WITHIN;
    for pid in left_over(Path::new("/proc")).into_iter().filter_map(rustix::process::Pid::from_raw) {
        // It may have ended meanwhile.
        let Ok(ended) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let _ = pidfd_send_signal(&ended, Signal::TERM);
        let mut fds = [PollFd::new(&ended, PollFlags::IN)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(1..) => break,
                _ => {
                    log::warn!("udevd is still busy and ends later; systemd starts its own in any case");
                    return;
                }
            }
        }
    }
}

/// Daemons that systemd has not started. It moves what was there before it into a group of its own. Sources: proc(5), cgroups(7).
fn left_over(proc: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let text =
        |pid: i32, file: &str| std::fs::read_to_string(proc.join(pid.to_string()).join(file)).unwrap_or_default();
    pids.filter(|pid| text(*pid, "comm").trim_end() == NAME && !text(*pid, "cgroup").contains(SERVICE)).collect()
}

/// Keeps udevd from being ended for as long as the result lives: for work that waits for udev's answer.
///
/// # Errors
/// The lock's file cannot be made.
pub fn hold() -> Result<Held> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(layout::UDEV_LOCK, flags, Mode::RUSR | Mode::WUSR)
        .with_context(|| format!("opening {}", layout::UDEV_LOCK))?;
    rustix::fs::flock(&file, FlockOperation::LockShared).context("locking udev's file")?;
    // Process 1 says that it hands over before it looks at the lock.
    let late = Path::new(layout::HANDED_OVER).exists();
    Ok(Held { _file: file, late })
}

/// A lock on udevd's life.
#[derive(Debug)]
pub struct Held {
    _file: rustix::fd::OwnedFd,
    /// Whether the hand-over had begun already: stage two's udevd may be gone then.
    pub late: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_network_cards_are_announced_and_what_is_idle_is_not() {
        let sys = tempfile::tempdir().unwrap();
        let device = |path: &str, class: &str| {
            let folder = sys.path().join(path);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("uevent"), "").unwrap();
            std::fs::write(folder.join("class"), format!("{class}\n")).unwrap();
        };
        device("bus/pci/devices/0000:00:01.1", "0x010180");
        device("bus/pci/devices/0000:00:02.0", "0x030000");
        device("bus/pci/devices/0000:00:03.0", "0x020000");
        for name in ["class/net/lo", "class/net/eth0", "class/block/vda", "class/block/dm-0", "class/block/loop0"] {
            device(name, "");
        }
        device("class/block/loop1", "");
        device("class/block/loop1/loop", "");
        std::fs::write(sys.path().join("class/block/loop1/loop/backing_file"), "/x\n").unwrap();
        assert_eq!(announce(sys.path()), 6);
        let told = |path: &str| std::fs::read_to_string(sys.path().join(path).join("uevent")).unwrap() == "add";
        assert!(told("bus/pci/devices/0000:00:01.1") && told("class/net/eth0") && told("class/block/loop1"));
        assert!(!told("bus/pci/devices/0000:00:02.0") && !told("class/net/lo") && !told("class/block/loop0"));
    }

    #[test]
    fn only_a_udevd_that_systemd_did_not_start_is_left_over() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: &str, comm: &str, group: &str| {
            std::fs::create_dir(proc.path().join(pid)).unwrap();
            std::fs::write(proc.path().join(pid).join("comm"), format!("{comm}\n")).unwrap();
            std::fs::write(proc.path().join(pid).join("cgroup"), format!("{group}\n")).unwrap();
        };
        process("17", "systemd-udevd", "0::/");
        process("18", "systemd-udevd", "0::/system.slice/systemd-udevd.service/udev");
        process("19", "sleep", "0::/");
        process("20", "systemd-udevd", "0::/init.scope");
        std::fs::create_dir(proc.path().join("sys")).unwrap();
        let mut left = left_over(proc.path());
        left.sort_unstable();
        assert_eq!(left, [17, 20]);
    }
}
