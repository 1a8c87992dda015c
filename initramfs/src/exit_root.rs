//! The last act of a shutdown: systemd goes back to a root in memory, so that the real one can be taken down in order, and
//! with it the loop device, dm-verity and the medium.
//!
//! [`prepare`] puts this program there; systemd executes it as process 1 with what to do as its first argument, and the old
//! root below `/oldroot`. Source: systemd, bootup(7) and "The exitrd interface".

use crate::{device_mapper, loop_device};
use anyhow::{Context, Result};
use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::system::{RebootCommand, reboot};
use sino_boot::{console, layout};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// The name by which systemd executes it.
const PROGRAM: &str = "/shutdown";
/// Where systemd leaves the root that was.
const OLD_ROOT: &str = "/oldroot";
/// How long a process may take to end after it was killed; one that waits for a device that is gone never does.
const PATIENCE: Duration = Duration::from_secs(5);
/// Mounts lie over each other; as often as this they are gone through.
const ROUNDS: usize = 8;

/// Whether this process was executed for the last act.
#[must_use]
pub fn is_called(name: Option<&OsStr>) -> bool {
    name.is_some_and(|name| name == PROGRAM)
}

/// Puts this program where systemd looks for it.
///
/// # Errors
/// There is no room, or the folder cannot be made.
pub fn prepare() -> Result<()> {
    fs::create_dir_all(layout::EXIT_ROOT).with_context(|| format!("making {}", layout::EXIT_ROOT))?;
    let program = format!("{}{PROGRAM}", layout::EXIT_ROOT);
    fs::copy("/proc/self/exe", &program).with_context(|| format!("copying stage one to {program}"))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {program} executable"))
}

/// Takes the old root down, and then the machine. Never returns.
pub fn finish(verb: Option<&OsStr>) -> ! {
    let verb = verb.unwrap_or_default().to_string_lossy().into_owned();
    end_processes();
    let left = take_down();
    if left.is_empty() {
        console::say("everything is unmounted; the medium may be removed", Level::Warn);
    } else {
        console::say(&format!("still mounted: {}", left.join(", ")), Level::Warn);
    }
    rustix::fs::sync();
    let command = match verb.as_str() {
        "poweroff" => RebootCommand::PowerOff,
        "halt" => RebootCommand::Halt,
        "kexec" => RebootCommand::Kexec,
        _ => RebootCommand::Restart,
    };
    if let Err(error) = reboot(command) {
        console::say(&format!("{verb}: {error}; restarting instead"), Level::Error);
        let _ = reboot(RebootCommand::Restart);
    }
    loop {
        std::thread::park();
    }
}

/// Ends what systemd let be: the keeper, and nothing else usually. Waits until all have ended, or [`PATIENCE`].
fn end_processes() {
    let own = rustix::process::getpid();
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let mut ending = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A thread of the kernel has no command line, and cannot be ended.
        let is_program = fs::read(entry.path().join("cmdline")).is_ok_and(|line| !line.is_empty());
        if let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|pid| *pid != own && is_program) {
            ending.extend(pidfd_open(pid, PidfdFlags::empty()));
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while !ending.is_empty() {
        let mut fds: Vec<PollFd<'_>> =
            ending.iter().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || poll(&mut fds, Timespec::try_from(left).ok().as_ref()).is_err() {
            // What does not end hangs in the kernel; what it holds stays mounted.
            return;
        }
        let mut alive = fds.iter().map(|fd| fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
        ending.retain(|_| alive.next().unwrap_or(false));
    }
}

/// Unmounts everything below the old root, then takes down what was below that; returns what is still mounted from a device.
fn take_down() -> Vec<String> {
    let take_down_devices = || {
        // What is not there cannot be removed.
        let _ = device_mapper::remove(layout::VERITY_DEVICE);
        for number in 0..16 {
            let _ = loop_device::detach(&format!("/dev/loop{number}"));
        }
        let _ = device_mapper::remove(crate::lvm::NAME);
    };
    for round in 0..ROUNDS {
        let mounts = old_mounts();
        if mounts.is_empty() {
            break;
        }
        // What is in use now may be free in the next round; what systemd itself still holds is let go of at the end.
        let flags = if round + 2 < ROUNDS { UnmountFlags::empty() } else { UnmountFlags::DETACH };
        for mount in mounts.iter().rev() {
            let _ = unmount(mount.place.as_str(), flags);
        }
        take_down_devices();
    }
    let devices = old_mounts().into_iter().filter(|mount| mount.source.starts_with("/dev/"));
    devices.map(|mount| format!("{} on {}", mount.source, mount.place)).collect()
}

struct OldMount {
    place: String,
    source: String,
}

/// What is mounted below the old root, and what of ours moved along with /run, in the order in which it was mounted.
fn old_mounts() -> Vec<OldMount> {
    parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Source: proc(5), mountinfo.
fn parse(table: &str) -> Vec<OldMount> {
    let ours = |place: &str| {
        place.starts_with(OLD_ROOT) || place.strip_prefix(layout::RUN).is_some_and(|rest| rest.starts_with('/'))
    };
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let place = before.split(' ').nth(4).filter(|place| ours(place))?;
        Some(OldMount { place: place.to_owned(), source: after.split(' ').nth(1)?.to_owned() })
    };
    table.lines().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_old_root_and_what_is_ours_is_taken_down() {
        let table = "21 1 0:19 / / rw - tmpfs tmpfs rw\n22 21 0:20 / /oldroot rw shared:1 - overlay sino rw\n\
                     23 21 7:0 / /run/sino/lower ro - squashfs /dev/dm-0 ro\n24 21 0:5 / /proc rw - proc proc rw\nodd\n";
        let found: Vec<(String, String)> = parse(table).into_iter().map(|mount| (mount.place, mount.source)).collect();
        let wanted = [("/oldroot", "sino"), ("/run/sino/lower", "/dev/dm-0")];
        assert_eq!(found, wanted.map(|(place, source)| (place.to_owned(), source.to_owned())));
    }
}
