//! The rescue shell on every console, and the other ways out of a boot that cannot go on.
//!
//! The only part of stage one that executes a program: the initramfs's busybox.

use crate::mounts;
use anyhow::{Context, Result};
use log::Level;
use rustix::system::{RebootCommand, reboot};
use sino_boot::options::OnFailure;
use sino_boot::{console, layout, rescue_shell};
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long the explanation stays readable before `sino.on-failure=reboot|poweroff` acts.
const READABLE: Duration = Duration::from_secs(10);

/// Does what the flags say when stage one cannot go on. Returns when the boot shall begin again.
pub fn after_failure(policy: OnFailure) {
    let command = match policy {
        OnFailure::Shell => {
            shell("exit begins the boot again");
            return;
        }
        OnFailure::Reboot => ("restarting", RebootCommand::Restart),
        OnFailure::Poweroff => ("switching off", RebootCommand::PowerOff),
    };
    console::say(&format!("{} in {} s, because of sino.on-failure=", command.0, READABLE.as_secs()), Level::Error);
    std::thread::sleep(READABLE);
    rustix::fs::sync();
    if let Err(error) = reboot(command.1) {
        console::say(&format!("{} failed: {error}", command.0), Level::Error);
        shell("exit begins the boot again");
    }
}

/// Opens a shell on every console and waits until one of them is left. `how` says what leaving does.
pub fn shell(how: &str) {
    rescue_shell::open(how, &command);
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
    let mut command = Command::new(busybox);
    command.args(["setsid", "-c", busybox, "sh", "-i"]);
    command
}

/// Undoes what the failed attempt left behind and starts stage one again.
///
/// # Errors
/// It cannot be executed.
pub fn begin_again() -> Result<Infallible> {
    for mount in [layout::NEW_ROOT, layout::OVERLAY, layout::LOWER, layout::RAM, layout::MEDIUM, layout::CARRIER] {
        // What was not mounted cannot be unmounted.
        let _ = mounts::release(mount);
    }
    for number in 0..8 {
        let _ = crate::loop_device::detach(&format!("/dev/loop{number}"));
    }
    Err(Command::new("/init").exec()).context("executing /init again")
}
