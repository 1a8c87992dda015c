//! The last act of a shutdown: systemd goes back to a root in memory, so that the real one can be taken down in order, and
//! with it the loop device, dm-verity and the medium.
//!
//! [`prepare`] puts this program there; systemd executes it as process 1 with what to do as its first argument, and the old
//! root below `/oldroot`. Source: systemd, bootup(7) and "The exitrd interface".

use crate::{device_mapper, loop_device};
use anyhow::{Context, Result};
use log::Level;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Signal, WaitOptions, kill_process, wait};
use rustix::system::{RebootCommand, reboot};
use sino_boot::{console, layout};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The name by which systemd executes it.
const PROGRAM: &str = "/shutdown";
/// Where systemd leaves the root that was.
const OLD_ROOT: &str = "/oldroot";
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

/// Ends what systemd let be: the keeper, and nothing else usually.
fn end_processes() {
    let own = rustix::process::getpid();
    let Ok(entries) = fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A thread of the kernel has no command line, and cannot be ended.
        let is_program = fs::read(entry.path().join("cmdline")).is_ok_and(|line| !line.is_empty());
        if let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|pid| *pid != own && is_program) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    // All of them are children of process 1 by now; the last one's end is an event.
    while let Ok(Some(_)) = wait(WaitOptions::empty()) {}
}

/// Unmounts everything below the old root, then takes down what was below that; returns what is left.
fn take_down() -> Vec<String> {
    for _ in 0..ROUNDS {
        let mounts = old_mounts();
        if mounts.is_empty() {
            break;
        }
        for place in mounts.iter().rev() {
            // What is still in use now may be free in the next round.
            let _ = unmount(place.as_str(), UnmountFlags::empty());
        }
        let _ = device_mapper::remove(layout::VERITY_DEVICE);
        for number in 0..16 {
            let _ = loop_device::detach(&format!("/dev/loop{number}"));
        }
        let _ = device_mapper::remove(crate::lvm::NAME);
    }
    old_mounts()
}

/// The places below the old root where something is mounted, and those of ours that moved along with /run, in the order in
/// which they were mounted. Source: proc(5), mountinfo.
fn old_mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ours = |place: &str| {
        place.starts_with(OLD_ROOT) || place.strip_prefix(layout::RUN).is_some_and(|rest| rest.starts_with('/'))
    };
    table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|place| ours(place)).map(str::to_owned).collect()
}
