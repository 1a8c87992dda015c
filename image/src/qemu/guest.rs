//! A running machine: its process, what is seen of it, and its control channel in one hand.
//!
//! Its files (command line, serial log, QEMU's own messages) go to a folder that the caller names and that stays; its
//! sockets go to a temporary folder that goes away with it. Dropping a guest ends it.

use super::arguments::{Channels, arguments, later_devices};
use super::machine::Machine;
use super::process::{Process, QEMU};
use super::qmp::{DriveStatistics, Qmp};
use super::watch::Watch;
use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long QEMU may take until it has made all its connections.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);

/// The raw output of the serial port, in the guest's folder.
pub const SERIAL_LOG: &str = "serial.log";
/// The command line as a script that runs the same machine in a terminal.
pub const COMMAND_SCRIPT: &str = "qemu.sh";
/// What QEMU itself said.
pub const QEMU_LOG: &str = "qemu.log";

/// The guest.
pub struct Guest {
    /// What is seen of it.
    pub watch: Watch,
    /// Its control channel.
    pub qmp: Qmp,
    process: Process,
    folder: PathBuf,
    machine: Machine,
    _sockets: SocketFolder,
}

impl Guest {
    /// Switches a machine on. Its files go to `folder`; after `limit` it is ended whatever it does.
    ///
    /// # Errors
    /// QEMU is missing or refuses the machine, in its own words.
    pub fn start(machine: &Machine, folder: &Path, limit: Duration) -> Result<Self> {
        Self::begin(machine, folder, limit)
            .with_context(|| format!("starting the machine {:?} in {}", machine.name, folder.display()))
    }

    fn begin(machine: &Machine, folder: &Path, limit: Duration) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let sockets = SocketFolder::make()?;
        let listen = |name: &str| UnixListener::bind(sockets.0.join(name)).context("making a socket for QEMU");
        let (control, serial, report) = (listen("control")?, listen("serial")?, listen("report")?);
        write_script(&folder.join(COMMAND_SCRIPT), machine, &sockets.0)?;
        let words = arguments(machine, &Channels::Sockets(sockets.0.clone()));
        let mut process = Process::start(&words, limit, &folder.join(QEMU_LOG))?;
        let control = process.accept(&control, CONNECT_WITHIN)?;
        let serial = process.accept(&serial, CONNECT_WITHIN)?;
        let report = process.accept(&report, CONNECT_WITHIN)?;
        let watch = Watch::start(serial, report, &folder.join(SERIAL_LOG))?;
        let qmp = Qmp::greet(control).with_context(|| process.words())?;
        Ok(Self { watch, qmp, process, folder: folder.to_owned(), machine: machine.clone(), _sockets: sockets })
    }

    /// What the guest did to each of the machine's drives.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn drive_statistics(&mut self) -> Result<Vec<DriveStatistics>> {
        self.qmp.drive_statistics()
    }

    /// Plugs in a drive that was not there when the machine was switched on.
    ///
    /// # Errors
    /// The machine has no such drive, or QEMU refuses.
    pub fn plug(&mut self, drive: &str) -> Result<()> {
        let devices = later_devices(&self.machine, drive);
        ensure!(!devices.is_empty(), "the machine has no drive {drive} to be plugged in later");
        for device in devices {
            // The monitor's command takes what `-device` takes, and answers with a text only if it refuses.
            let answer = self.qmp.human(&format!("device_add {device}"))?;
            ensure!(answer.trim().is_empty(), "plugging in {device}: {}", answer.trim());
        }
        Ok(())
    }

    /// Saves the screen as `NAME.png` in the guest's folder and returns the file.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn screenshot(&mut self, name: &str) -> Result<PathBuf> {
        let file = self.absolute(&format!("{name}.png"))?;
        self.qmp.screenshot(&file)?;
        Ok(file)
    }

    /// What is in the VGA's text memory ([`Qmp::text_screen`]); it stays as `screen.vga` in the guest's folder.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn text_screen(&mut self) -> Result<Vec<String>> {
        let file = self.absolute("screen.vga")?;
        self.qmp.text_screen(&file)
    }

    /// Waits until the machine is off.
    ///
    /// # Errors
    /// It is still on after `within`, or QEMU failed.
    pub fn wait_for_end(&mut self, within: Duration) -> Result<()> {
        self.process.wait_for_end(within)
    }

    /// A file in the guest's folder; absolute, because QEMU need not share our working directory.
    fn absolute(&self, name: &str) -> Result<PathBuf> {
        Ok(fs::canonicalize(&self.folder)?.join(name))
    }
}

/// A folder with a short name, because a socket's path must fit into 108 bytes.
struct SocketFolder(PathBuf);

impl SocketFolder {
    fn make() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sino-qemu-{}-{number}", std::process::id()));
        // Left over from a process of the same number that was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(Self(path))
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        // At worst three dead sockets stay in the temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A script that runs the same machine with its serial port in the terminal; the exact command line stands above.
fn write_script(file: &Path, machine: &Machine, sockets: &Path) -> Result<()> {
    let exact = quoted(&arguments(machine, &Channels::Sockets(sockets.to_owned())), " ");
    let by_hand = quoted(&arguments(machine, &Channels::Terminal), " \\\n    ");
    let text = format!(
        "#!/bin/sh\n# The machine {:?} with its serial port in this terminal (Ctrl-A x ends it). It was started as:\n# {QEMU} \
         {exact}\nexec {QEMU} \\\n    {by_hand} \"$@\"\n",
        machine.name
    );
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Words for a shell; an option and its value stay on one line.
fn quoted(words: &[OsString], separator: &str) -> String {
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        let word = word.to_string_lossy();
        if index > 0 {
            text.push_str(if word.starts_with('-') { separator } else { " " });
        }
        let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=+./,:".contains(&byte));
        if plain && !word.is_empty() {
            text.push_str(&word);
        } else {
            text.push('\'');
            text.push_str(&word.replace('\'', "'\\''"));
            text.push('\'');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        let words = ["-append", "a b 'c' \"d\"", "-m", "512"].map(OsString::from);
        let text = quoted(&words, " \\\n  ");
        let script = format!("printf '%s\\n' {text}");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "-append\na b 'c' \"d\"\n-m\n512\n");
    }
}
