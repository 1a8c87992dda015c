//! What systemd starts for a process that was there before it: the process is moved into the service's own control group, and
//! systemd takes it for the service's main process by its PID file.
//!
//! Source: systemd.service(5), `Type=forking` and `PIDFile=`; a main process that is no child of the start command's is
//! accepted if the file belongs to root. The process must be in the unit's group before the start command ends.

use crate::command;
use crate::supervisor::{self, storage_lane};
use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sino_boot::layout;
use std::fs;
use std::io::{PipeReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the second version of control groups is mounted by systemd.
const GROUPS: &str = "/sys/fs/cgroup";
/// The device model that serves dom0; xen.service takes it.
const DOM0_QEMU: &str = "/run/qemu-dom0.pid";
/// How long a new supervisor may take until it has its PID file.
const BEGINS_WITHIN: Duration = Duration::from_secs(20);

/// Takes the supervisor into the service; starts one if there is none.
///
/// # Errors
/// This is no service, or no supervisor begins.
pub fn supervisor() -> Result<()> {
    take_guests();
    if let Some(pid) = living(layout::SUPERVISOR_PID, supervisor::NAME) {
        return take(pid);
    }
    // As a child it is in the service's control group from its beginning.
    let mut reader = supervisor::start()?;
    begins(&mut reader)
}

/// Waits for the supervisor's first words: it has its PID file then.
fn begins(reader: &mut PipeReader) -> Result<()> {
    let ready = {
        let mut fds = [PollFd::new(&*reader, PollFlags::IN)];
        poll(&mut fds, Timespec::try_from(BEGINS_WITHIN).ok().as_ref()).context("waiting for the supervisor")?
    };
    let mut byte = [0];
    ensure!(
        ready > 0 && reader.read(&mut byte).is_ok_and(|count| count > 0),
        "the supervisor ended as soon as it began"
    );
    Ok(())
}

/// Takes stage one's keeper into the service.
///
/// # Errors
/// There is none any more, or this is no service.
pub fn keeper() -> Result<()> {
    let pid = living(layout::KEEPER_PID, "").context("there is no keeper any more: nothing is left to keep")?;
    take(pid)
}

/// What the service does before systemd ends the supervisor: all guests are stopped, if it is the service that is stopped.
/// A restart, and a supervisor that was killed, leave them alone.
///
/// # Errors
/// Guests are still there.
pub fn stopping() -> Result<()> {
    // systemd.service(5): there is no main process any more when ExecStop= is executed after its end.
    if std::env::var_os("MAINPID").is_none() || !is_stopped()? {
        return Ok(());
    }
    let deadline = storage_lane::load(true).config.guests.stop_deadline;
    command::guests::stopping::stop_all(deadline, true).map(drop)
}

/// Whether the job of the service is a stop.
fn is_stopped() -> Result<bool> {
    let says = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("systemctl").args(arguments).output().context("executing systemctl")?;
        ensure!(output.status.success(), "systemctl: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let job = says(&["show", "-P", "Job", "sino.service"])?;
    let jobs = says(&["list-jobs", "--no-legend", "--plain"])?;
    Ok(type_of(&jobs, job.trim()) == Some("stop"))
}

/// The type of a job in the list: its number, unit, type and state.
fn type_of<'a>(jobs: &'a str, number: &str) -> Option<&'a str> {
    let mut lines = jobs.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|words| words.first() == Some(&number)).and_then(|words| words.get(2).copied())
}

/// The process that a PID file names, if it lives and has this name (any, if that is empty).
#[must_use]
pub fn living(file: &str, name: &str) -> Option<u32> {
    let pid: u32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let is = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.is_empty() || is.trim_end() == name).then_some(pid)
}

/// Takes what xl has left running for the guests of before systemd: itself, to see how each ends, and device models. They have
/// left the supervisor and are still where everything begins, in the root control group.
fn take_guests() {
    let Ok(group) = own_procs() else { return };
    let dom0s = fs::read_to_string(DOM0_QEMU).unwrap_or_default();
    let all = fs::read_to_string(Path::new(GROUPS).join("cgroup.procs")).unwrap_or_default();
    for pid in all.lines().filter(|pid| *pid != dom0s.trim()) {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if is_guests(&command) {
            // It may have ended meanwhile.
            let _ = fs::write(&group, pid);
        }
    }
}

/// Whether a process with this command line belongs to a guest. Kernel threads have none.
fn is_guests(command: &[u8]) -> bool {
    let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name == b"xl" || name.starts_with(b"qemu-")
}

/// The file that moves a process into this process's control group.
fn own_procs() -> Result<PathBuf> {
    let group = own_group(&fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?)?;
    Ok(Path::new(GROUPS).join(group.trim_start_matches('/')).join("cgroup.procs"))
}

fn take(pid: u32) -> Result<()> {
    let file = own_procs()?;
    fs::write(&file, pid.to_string()).with_context(|| format!("moving process {pid} by {}", file.display()))?;
    for child in descendants(pid, &parents()) {
        // It may have ended meanwhile.
        let _ = fs::write(&file, child.to_string());
    }
    Ok(())
}

/// Every process with its parent. Source: proc(5), `/proc/PID/status`.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = |pid: u32| -> Option<(u32, u32)> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        Some((pid, line.trim().parse().ok()?))
    };
    numbers.filter_map(parent).collect()
}

/// What it has started, and what those have: a file system's check goes on while Debian takes over.
fn descendants(pid: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(&of) = all.get(next) {
        next += 1;
        let children: Vec<u32> = parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid).collect();
        for child in children {
            if !all.contains(&child) {
                all.push(child);
            }
        }
    }
    all.split_off(1)
}

/// The control group of this process, which must be a unit's. Source: cgroups(7), `/proc/PID/cgroup`.
fn own_group(text: &str) -> Result<String> {
    let group = text.lines().find_map(|line| line.strip_prefix("0::"));
    let group = group.context("this process is in no control group of version 2")?;
    ensure!(
        Path::new(group).extension().is_some_and(|kind| kind == "service"),
        "this is for systemd: systemctl start sino"
    );
    Ok(group.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xl_leaves_for_a_guest_is_known_by_its_program() {
        for guests in ["/usr/lib/xen-4.20/bin/xl\0create\0-f\0a.cfg\0", "xl\0", "/usr/bin/qemu-system-i386\0-xen\0"] {
            assert!(is_guests(guests.as_bytes()), "{guests:?}");
        }
        for other in ["", "/usr/sbin/xenconsoled\0", "/usr/sbin/udevd\0xl\0", "-bash\0"] {
            assert!(!is_guests(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn the_type_of_a_job_is_its_third_word() {
        let jobs = "71 poweroff.target start waiting\n 82 sino.service stop running\n";
        assert_eq!((type_of(jobs, "82"), type_of(jobs, "71"), type_of(jobs, "")), (Some("stop"), Some("start"), None));
    }

    #[test]
    fn only_a_service_adopts() {
        assert_eq!(own_group("0::/system.slice/sino.service\n").unwrap(), "/system.slice/sino.service");
        for other in ["0::/user.slice/session-1.scope\n", "0::/\n", "1:name=x:/\n", ""] {
            assert!(own_group(other).is_err(), "{other}");
        }
    }

    #[test]
    fn what_a_process_has_started_goes_with_it() {
        assert_eq!(descendants(5, &[(1, 0), (5, 1), (6, 5), (7, 6), (8, 1), (9, 5)]), [6, 9, 7]);
        assert!(parents().contains(&(std::process::id(), std::os::unix::process::parent_id())));
    }

    #[test]
    fn a_process_is_known_by_its_number_and_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let living_as = |name: &str| living(file.to_str().unwrap(), name);
        assert_eq!(living_as(""), None);
        fs::write(&file, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(living_as(""), Some(std::process::id()));
        assert_eq!(living_as("something-else"), None);
        fs::write(&file, "4194305\n").unwrap();
        assert_eq!(living_as(""), None);
    }
}
