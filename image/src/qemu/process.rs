//! QEMU's process: started with a hard deadline, ended with its owner.
//!
//! Three nets keep a QEMU from being left behind: dropping [`Process`] kills its process group; `setpriv --pdeathsig`
//! lets the kernel kill it when the thread that started it dies in whatever way; and `timeout` ends it at the deadline.
//! So a process must be started by a thread that lives as long as it is needed. Nothing is retried.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use rustix::time::Timespec;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";
/// After the deadline QEMU is asked to end; this many seconds later it is killed.
const GRACE_SECONDS: u64 = 5;

/// Says which Debian package brings a tool that is not there.
///
/// # Errors
/// `tool` is in no folder of `PATH`.
pub fn require(tool: &str, package: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()) {
        return Ok(());
    }
    bail!("{tool} is not installed; install it: apt-get install {package}")
}

/// A running QEMU.
#[derive(Debug)]
pub struct Process {
    child: Child,
    handle: OwnedFd,
    messages: PathBuf,
}

impl Process {
    /// Starts QEMU, in a network namespace if one is named by its file; what it says on standard output and error goes to
    /// the file `messages`.
    ///
    /// # Errors
    /// A tool is missing, or the file cannot be written.
    pub fn start(arguments: &[OsString], namespace: Option<&Path>, limit: Duration, messages: &Path) -> Result<Self> {
        require(QEMU, "qemu-system-x86")?;
        require("setpriv", "util-linux")?;
        require("timeout", "coreutils")?;
        let output = File::create(messages).with_context(|| format!("writing {}", messages.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "timeout"]);
        command.args([format!("--kill-after={GRACE_SECONDS}"), limit.as_secs().max(1).to_string()]);
        if let Some(file) = namespace {
            require("nsenter", "util-linux")?;
            command.arg("nsenter").arg(format!("--net={}", file.display()));
        }
        command.args(["setpriv", "--pdeathsig", "KILL", QEMU]).args(arguments);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let child = command.spawn().context("starting QEMU")?;
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).context("watching QEMU's process")?;
        Ok(Self { child, handle, messages: messages.to_owned() })
    }

    /// Takes the connection that QEMU makes to `listener`.
    ///
    /// # Errors
    /// QEMU ends before, with its own words; or the deadline.
    pub fn accept(&mut self, listener: &UnixListener, within: Duration) -> Result<UnixStream> {
        let deadline = Instant::now() + within;
        loop {
            let mut events = [PollFd::new(listener, PollFlags::IN), PollFd::new(&self.handle, PollFlags::IN)];
            let ready = poll(&mut events, Some(&timespec(deadline.saturating_duration_since(Instant::now()))));
            let [connection, death] = events.map(|event| event.revents().contains(PollFlags::IN));
            if connection {
                return Ok(listener.accept().context("taking QEMU's connection")?.0);
            }
            if death {
                bail!("QEMU ended at once: {}", self.words());
            }
            match ready {
                Ok(0) => bail!("QEMU did not connect within {} s: {}", within.as_secs(), self.words()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for QEMU to connect"),
            }
        }
    }

    /// Waits for QEMU to end by itself.
    ///
    /// # Errors
    /// It has not within that time; or it ended with an error, with its own words.
    pub fn wait_for_end(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let mut events = [PollFd::new(&self.handle, PollFlags::IN)];
            match poll(&mut events, Some(&timespec(deadline.saturating_duration_since(Instant::now())))) {
                Ok(0) => bail!("the machine is still running after {} s", within.as_secs()),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for QEMU to end"),
            }
        }
        let status: ExitStatus = self.child.wait().context("waiting for QEMU to end")?;
        if status.success() {
            return Ok(());
        }
        bail!("QEMU ended with {status}: {}", self.words())
    }

    /// What QEMU said itself, on one line.
    pub fn words(&self) -> String {
        let text = fs::read_to_string(&self.messages).unwrap_or_default();
        let text = text.trim().replace('\n', "; ");
        if text.is_empty() { "(it said nothing)".to_owned() } else { text }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A group that is gone already is what is wanted; the wait then only collects the exit status.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let error = require("no-such-tool-anywhere", "some-package").unwrap_err().to_string();
        assert!(error.contains("apt-get install some-package"), "{error}");
        require("sh", "dash").unwrap();
    }
}
