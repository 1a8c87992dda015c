//! Process 1 between stage one and Debian's init: starts the supervisor, waits until the host is up or the deadline is over, and
//! executes `/sbin/init`. It never ends and never waits without a deadline.

use crate::bring_up::{self, Outcome};
use crate::config::Layers;
use crate::{adopt, supervisor, udev};
use anyhow::{Context, Result, anyhow};
use log::Level;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use sino_boot::options::{self, OnFailure, Options};
use sino_boot::record::BootRecord;
use sino_boot::rescue_shell::{Countdown, Left};
use sino_boot::stage::{Done, Fault, Stage, StepError, done, not_requested};
use sino_boot::{console, issue, layout, mounts, rescue_shell};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The number of steps in [`boot`].
pub const STEPS: usize = options::STAGE_TWO.len();

/// How long the explanation stays readable before `sino.on-failure=reboot|poweroff` acts.
const READABLE: Duration = Duration::from_secs(10);

/// Stage two, step by step.
///
/// # Errors
/// Debian's init is not there or not executable; that has been narrated by then.
pub fn boot(stage: &mut Stage, options: &Options) -> Result<(), StepError> {
    stage.step("take-over", |record| {
        let medium = record.medium.as_ref();
        let place = medium.map_or_else(|| "no record of stage one was found".to_owned(), issue::place);
        for result in [descriptor_links(Path::new("/dev")), mount_device_folders()] {
            if let Err(error) = result {
                log::warn!("{error:#}: xl may fail until Debian's init has done it");
            }
        }
        Ok(done((), format!("build {}. {place}", record.build_id)))
    })?;
    // Debian comes up without it, too; then the host has no network of ours, and systemd starts the supervisor.
    let _ = stage.step("bring-up", |_| bring_up(options));
    stage.step("hand-over", |_| {
        executable(layout::USERLAND_INIT).map_err(|cause| {
            Fault::from(cause)
                .hint("put it right in the shell, then leave the shell with \"exit\"")
                .hint("or boot the stick anew: what was changed in memory is gone then")
        })?;
        // The supervisor begins to rely on systemd's udev by it.
        let _ = std::fs::write(layout::HANDED_OVER, "");
        udev::end();
        Ok(done((), layout::USERLAND_INIT))
    })
}

/// The links to a process's own descriptors that every program may take for granted and that only Debian's init makes. Xen's
/// hotplug scripts, for example, look at `/dev/stdin` for their lock, again and again until it is there.
/// Source: the Filesystem Hierarchy Standard 3.0 (6.1.3), `tools/hotplug/Linux/locking.sh` of Xen.
fn descriptor_links(folder: &Path) -> Result<()> {
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let path = folder.join(name);
        match std::os::unix::fs::symlink(target, &path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("making the link {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Mounts below `/dev` what Debian's init mounts there, in the same way, and then finds mounted: xenconsoled needs
/// pseudoterminals for the guests' consoles, and device models shared memory.
/// Source: systemd 257, `src/shared/mount-setup.c`; kernel `Documentation/filesystems/devpts.rst`.
fn mount_device_folders() -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let mounted = mounts::parse(&table);
    let plain = MountFlags::NOSUID;
    for (place, kind, flags, options) in [
        ("/dev/pts", "devpts", plain | MountFlags::NOEXEC, c"mode=0620,gid=5"),
        ("/dev/shm", "tmpfs", plain | MountFlags::NODEV | MountFlags::STRICTATIME, c"mode=01777"),
    ] {
        if mounted.iter().any(|mount| mount.target == place) {
            continue;
        }
        std::fs::create_dir_all(place).with_context(|| format!("making {place}"))?;
        mount(kind, place, kind, flags, options).with_context(|| format!("mounting {place}"))?;
    }
    Ok(())
}

fn bring_up(options: &Options) -> Result<Done<()>, Fault> {
    let seconds = options.handover.unwrap_or_else(|| {
        let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        // What /srv says cannot be known yet.
        Layers::load(Path::new("/"), &command_line, false, Vec::new()).config.boot.handover
    });
    if seconds == 0 {
        return Ok(not_requested(()));
    }
    if adopt::living(layout::SUPERVISOR_PID, supervisor::NAME).is_some() {
        return Ok(done((), "the supervisor is at work"));
    }
    let limit = Duration::from_secs(u64::from(seconds));
    match bring_up::wait_for_supervisor(limit)? {
        Outcome::Ready => Ok(done((), "the host is up")),
        Outcome::Deadline(open) => Ok(done(
            (),
            format!(
                "not done after {} s (sino.handover): {}; that goes on while Debian comes up",
                limit.as_secs(),
                if open.is_empty() { "anything".to_owned() } else { open.join(", ") }
            ),
        )),
        Outcome::Died => Err(Fault::from(anyhow!("the supervisor ends as soon as it begins"))
            .seen("the lines above say why")
            .hint("systemd starts it again later: systemctl status sino; sino log")),
    }
}

fn executable(path: &str) -> Result<()> {
    let status = std::fs::metadata(path).with_context(|| format!("{path} is not in the root image"))?;
    if !status.is_file() || status.permissions().mode() & 0o111 == 0 {
        return Err(anyhow!("{path} is not an executable file"));
    }
    Ok(())
}

/// Runs the stage and executes Debian's init. Returns only after a failure, when the rescue shell has been left.
pub fn run(arguments: Vec<OsString>) {
    let path = Path::new(layout::BOOT_RECORD);
    let (record, missing) = match BootRecord::load(path) {
        Ok(record) => (record, None),
        Err(error) => {
            (BootRecord::default(), Some(format!("{error:#}; the record of this boot begins with stage two")))
        }
    };
    let narrator =
        Box::new(|line: &str, failed: bool| console::say(line, if failed { Level::Error } else { Level::Info }));
    let (steps, warnings) = (record.steps.len(), record.warnings.len());
    let mut stage = Stage::new("stage-two", STEPS, record, narrator);
    if let Some(missing) = missing {
        stage.warn(&missing);
    }
    let options = options::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default()).0;
    let break_before = options.break_before.clone();
    stage.before_each(Box::new(move |step| {
        // "all" means stage one's: what comes after them is Debian's to look at.
        if break_before.iter().any(|wanted| wanted == step) {
            let reason = format!("sino.break={step}; exit goes on");
            // Whoever asked for it is there, so nothing restarts by itself.
            let _ = rescue_shell::open(&reason, &shell, None, None);
        }
    }));
    let result = boot(&mut stage, &options);
    // The keeper and the supervisor write to the record, too: only what is new is added.
    let saved = BootRecord::update(path, |record| {
        record.steps.extend(stage.record.steps.iter().skip(steps).cloned());
        record.warnings.extend(stage.record.warnings.iter().skip(warnings).cloned());
    });
    if let Err(error) = saved {
        console::say(&format!("warning: the boot record could not be kept: {error:#}"), Level::Warn);
    }
    if result.is_ok() {
        let error = Command::new(layout::USERLAND_INIT).args(arguments).exec();
        let _ = std::fs::remove_file(layout::HANDED_OVER);
        console::say(&format!("FAILED: executing {}: {error}", layout::USERLAND_INIT), Level::Error);
    }
    let limit = Duration::from_secs(u64::from(options.rescue_timeout));
    let countdown = (!limit.is_zero()).then_some(Countdown { limit, then: "the machine restarts" });
    let (what, command) = match options.on_failure {
        OnFailure::Shell => {
            if rescue_shell::open("exit tries the hand-over again", &shell, countdown, None) != Left::TimeUp {
                return;
            }
            ("restarting, because nobody pressed a key", RebootCommand::Restart)
        }
        OnFailure::Reboot => ("restarting, because of sino.on-failure=", RebootCommand::Restart),
        OnFailure::Poweroff => ("switching off, because of sino.on-failure=", RebootCommand::PowerOff),
    };
    console::say(what, Level::Error);
    if options.on_failure != OnFailure::Shell {
        std::thread::sleep(READABLE);
    }
    rustix::fs::sync();
    if let Err(error) = reboot(command) {
        console::say(&format!("the kernel refuses: {error}"), Level::Error);
    }
}

fn shell() -> Command {
    let mut command = Command::new("setsid");
    command.args(["-c", "/bin/sh", "-i"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_finds_its_descriptors_and_links_that_are_there_stay() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("stderr"), "kept").unwrap();
        descriptor_links(folder.path()).unwrap();
        assert!(folder.path().join("stdin").metadata().is_ok());
        assert!(folder.path().join("fd/0").symlink_metadata().is_ok());
        assert_eq!(std::fs::read_to_string(folder.path().join("stderr")).unwrap(), "kept");
        assert!(descriptor_links(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn only_an_executable_file_is_handed_over_to() {
        let folder = tempfile::tempdir().unwrap();
        let init = folder.path().join("init");
        let refused = |path: &Path| format!("{:#}", executable(path.to_str().unwrap()).unwrap_err());
        assert!(refused(&init).contains("is not in the root image"));
        std::fs::write(&init, "x").unwrap();
        assert!(refused(&init).contains("is not an executable file"));
        assert!(refused(folder.path()).contains("is not an executable file"));
        std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755)).unwrap();
        executable(init.to_str().unwrap()).unwrap();
    }
}
