//! A host key for a host that has none, made by OpenSSH's own tool.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// It takes milliseconds, unless the kernel has no random numbers yet.
const DEADLINE_SECONDS: i64 = 30;

/// Makes the key that the image's sshd uses, if there is none.
///
/// # Errors
/// `ssh-keygen` is missing, fails, or takes too long.
pub(super) fn make_host_key(root: &Path) -> Result<()> {
    let key = root.join("etc/ssh/ssh_host_ed25519_key");
    let mut child = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(&key)
        // When the key came meanwhile it would ask whether to overwrite it.
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("executing ssh-keygen")?;
    let ended = wait(&child).context("waiting for ssh-keygen")?;
    if !ended {
        // It may have ended just now.
        let _ = child.kill();
    }
    let status = child.wait().context("waiting for ssh-keygen")?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    if !ended {
        bail!("ssh-keygen made no host key within {DEADLINE_SECONDS} s");
    }
    if key.exists() {
        return Ok(());
    }
    bail!("ssh-keygen made no host key ({status}): {}", said.trim())
}

/// Waits for the end of a process; `false` if the deadline came first.
fn wait(child: &std::process::Child) -> Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("it has no process number")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec { tv_sec: DEADLINE_SECONDS, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
