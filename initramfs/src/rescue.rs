//! The rescue shell on every console, and the other ways out of a boot that cannot go on.
//!
//! The only part of stage one that executes a program: the initramfs's busybox.

use crate::uevent::{Received, Socket};
use crate::{device_mapper, lvm, mounts, verity};
use anyhow::{Context, Result};
use log::Level;
use rustix::system::{RebootCommand, reboot};
use sino_boot::options::{OnFailure, Options};
use sino_boot::rescue_shell::{Countdown, Left, Waker};
use sino_boot::{console, layout, rescue_shell};
use std::cell::RefCell;
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long the explanation stays readable before `sino.on-failure=reboot|poweroff` acts.
const READABLE: Duration = Duration::from_secs(10);

/// Does what the flags say when stage one cannot go on. Returns when the boot shall begin again.
pub fn after_failure(options: &Options) {
    let (what, command) = match options.on_failure {
        OnFailure::Shell => {
            let limit = Duration::from_secs(u64::from(options.rescue_timeout));
            let countdown = Countdown { limit, then: "the machine restarts" };
            let left = failure_shell((!limit.is_zero()).then_some(countdown));
            if left != Left::TimeUp {
                return;
            }
            ("restarting", RebootCommand::Restart)
        }
        OnFailure::Reboot => ("restarting", RebootCommand::Restart),
        OnFailure::Poweroff => ("switching off", RebootCommand::PowerOff),
    };
    if options.on_failure == OnFailure::Shell {
        console::say(&format!("{what}, because nobody pressed a key"), Level::Error);
    } else {
        console::say(&format!("{what} in {} s, because of sino.on-failure=", READABLE.as_secs()), Level::Error);
        std::thread::sleep(READABLE);
    }
    restart(command);
    console::say(&format!("{what} failed"), Level::Error);
    shell(AGAIN);
}

/// What leaving the shell after a failure does.
const AGAIN: &str = "exit begins the boot again";

/// Restarts the machine, or switches it off. Returns only if that failed.
pub fn restart(command: RebootCommand) {
    rustix::fs::sync();
    if let Err(error) = reboot(command) {
        console::say(&format!("the kernel refuses: {error}"), Level::Error);
    }
}

/// The shell after a failure: until somebody types, a disk that is plugged in begins the boot again.
fn failure_shell(countdown: Option<Countdown>) -> Left {
    let socket = Socket::open().inspect_err(|error| log::warn!("{error:#}")).ok().map(RefCell::new);
    let Some(socket) = socket else { return rescue_shell::open(AGAIN, &command, countdown, None) };
    let Ok(fd) = socket.borrow().fd().try_clone_to_owned() else {
        return rescue_shell::open(AGAIN, &command, countdown, None);
    };
    let mut wants = || match socket.borrow_mut().receive() {
        Ok(Received::Event(event)) if event.subsystem == "block" && event.action == "add" => {
            let name = event.devname.unwrap_or_default();
            let real = !["loop", "ram", "dm-"].iter().any(|prefix| name.starts_with(prefix));
            if real {
                console::say(&format!("{name} was plugged in: the boot begins again"), Level::Error);
            }
            real
        }
        Ok(_) => false,
        Err(error) => {
            log::warn!("{error:#}");
            false
        }
    };
    let waker = Waker { fd: rustix::fd::AsFd::as_fd(&fd), wants: &mut wants };
    rescue_shell::open(AGAIN, &command, countdown, Some(waker))
}

/// Opens a shell on every console and waits until one of them is left. `how` says what leaving does.
pub fn shell(how: &str) {
    rescue_shell::open(how, &command, None, None);
}

/// The shell: the initramfs's busybox; after the initramfs was given up, whatever the new root has.
fn command() -> Command {
    let busybox = [layout::BUSYBOX, "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let Some(busybox) = busybox else {
        let mut command = Command::new("setsid");
        command.args(["-c", "/bin/sh", "-i"]);
        return command;
    };
    if busybox == layout::BUSYBOX {
        // Links make its tools known by their names; the shell itself works without them.
        let linked = std::fs::create_dir_all("/bin")
            .and_then(|()| Command::new(busybox).args(["--install", "-s", "/bin"]).output());
        if let Err(error) = linked {
            console::say(&format!("rescue shell: {busybox}: {error}"), Level::Error);
        }
    }
    let profile = "alias report='cat /run/sino/report /run/sino/boot.json 2>/dev/null'\n";
    // Without it only the word "report" is missing.
    let _ = std::fs::write(PROFILE, profile);
    let mut command = Command::new(busybox);
    command.env("ENV", PROFILE).args(["setsid", "-c", busybox, "sh", "-i"]);
    command
}

/// What the shell reads when it starts.
const PROFILE: &str = "/run/sino/rescue-profile";

/// Undoes what the failed attempt left behind and starts stage one again.
///
/// # Errors
/// It cannot be executed.
pub fn begin_again() -> Result<Infallible> {
    // What was not mounted or made cannot be unmounted or removed.
    let release = |mount: &str| {
        let _ = mounts::release(mount);
    };
    [layout::NEW_ROOT, layout::OVERLAY, layout::LOWER].into_iter().for_each(release);
    let _ = verity::close();
    let detach = || {
        for number in 0..8 {
            let _ = crate::loop_device::detach(&format!("/dev/loop{number}"));
        }
    };
    // The loop device of an ISO file is below the medium, that of the root image above it.
    detach();
    [layout::RAM, layout::MEDIUM].into_iter().for_each(release);
    detach();
    release(layout::CARRIER);
    let _ = device_mapper::remove(lvm::NAME);
    Err(Command::new("/init").exec()).context("executing /init again")
}
