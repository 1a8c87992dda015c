//! A running machine: its process, what is seen of it, and its control channel in one hand.
//!
//! Its files (command line, serial log, QEMU's own messages) go to a folder that the caller names and that stays; its
//! sockets go to a temporary folder that goes away with it. Dropping a guest ends it. Drives can be plugged in and out
//! and slowed down while it runs.

use super::arguments::{Channels, arguments, card_id};
use super::drives::{self, Step};
use super::machine::Machine;
use super::process::{Process, QEMU};
use super::qmp::{DriveStatistics, Qmp};
use super::watch::Watch;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
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

/// How long QEMU may take to end when the guest has ended.
const END_WITHIN: Duration = Duration::from_secs(30);

/// What QEMU calls a reset by the guest.
const GUEST_RESET: &str = "guest-reset";

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// It reset the machine: a reboot, also one after a panic or a triple fault.
    Reset,
    /// It switched the machine off.
    Off,
}

/// Where a drive is that is not plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absent {
    /// QEMU has its image: it has not been plugged in yet, or is of a kind that leaves its image behind.
    WithImage,
    /// It was unplugged, and its image went with it.
    WithoutImage,
}

/// The guest.
pub struct Guest {
    /// What is seen of it.
    pub watch: Watch,
    /// Its control channel.
    pub qmp: Qmp,
    process: Process,
    folder: PathBuf,
    machine: Machine,
    absent: BTreeMap<String, Absent>,
    /// What the guest did to drives before they were unplugged.
    past: Vec<DriveStatistics>,
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
        let mut process = Process::start(&words, machine.namespace.as_deref(), limit, &folder.join(QEMU_LOG))?;
        let control = process.accept(&control, CONNECT_WITHIN)?;
        let serial = process.accept(&serial, CONNECT_WITHIN)?;
        let report = process.accept(&report, CONNECT_WITHIN)?;
        let watch = Watch::start(serial, report, &folder.join(SERIAL_LOG))?;
        let qmp = Qmp::greet(control).with_context(|| process.words())?;
        let later = machine.drives.iter().filter(|drive| drives::comes_later(machine, drive));
        Ok(Self {
            watch,
            qmp,
            process,
            folder: folder.to_owned(),
            machine: machine.clone(),
            absent: later.map(|drive| (drive.name.clone(), Absent::WithImage)).collect(),
            past: Vec::new(),
            _sockets: sockets,
        })
    }

    /// What the guest did to each of the machine's drives, also to those that have been unplugged.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn drive_statistics(&mut self) -> Result<Vec<DriveStatistics>> {
        let mut drives = self.qmp.drive_statistics()?;
        for past in &self.past {
            match drives.iter_mut().find(|drive| drive.name == past.name) {
                Some(drive) => drive.add(past),
                None => drives.push(past.clone()),
            }
        }
        Ok(drives)
    }

    /// Plugs in a drive that was not there when the machine was switched on, or that was unplugged.
    ///
    /// What the guest had written to it is lost (of an `NVMe` drive it stays), and it is as slow again as the machine's
    /// description says. A drive in a card reader comes with the reader and its other drives.
    ///
    /// # Errors
    /// The machine has no such drive, it is plugged in, or QEMU refuses.
    pub fn plug(&mut self, drive: &str) -> Result<()> {
        let Some(absent) = self.absent.get(drive).copied() else {
            bail!("the machine has no drive {drive} that could be plugged in now");
        };
        for step in drives::plugging(&self.machine, drive, absent == Absent::WithoutImage) {
            self.take(&step).with_context(|| format!("plugging in {drive}: {step:?}"))?;
        }
        for name in self.unit(drive)?.1 {
            self.absent.remove(&name);
            let drive = self.machine.drives.iter().find(|drive| drive.name == name && drive.file.is_some());
            if let Some(drive) = drive.filter(|_| absent == Absent::WithImage) {
                self.qmp.throttle(&name, drives::bytes_per_second(drive).unwrap_or_default())?;
            }
        }
        Ok(())
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        // The monitor's commands take what the command line takes.
        let (line, wanted) = match step {
            Step::Image(value) => {
                let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
                (format!("drive_add 0 \"{quoted}\""), "OK")
            }
            Step::Device(value) => (format!("device_add {value}"), ""),
            Step::Connect(device) => {
                let path = format!("/machine/peripheral/{device}");
                let arguments = json!({"path": path, "property": "attached", "value": true});
                return self.qmp.command("qom-set", &arguments).map(drop);
            }
        };
        let answer = self.qmp.human(&line)?;
        ensure!(answer.trim() == wanted, "{}", answer.trim());
        Ok(())
    }

    /// Pulls a drive out of the running machine and waits until it is gone. A drive in a card reader goes with the
    /// reader and its other drives; one on PCI (virtio-blk, `NVMe`) goes when the guest's kernel lets go of it.
    ///
    /// # Errors
    /// The machine has no such drive, it is not plugged in, its bus cannot do it, or the guest does not let go.
    pub fn unplug(&mut self, drive: &str) -> Result<()> {
        let (device, names) = self.unit(drive)?;
        ensure!(!self.absent.contains_key(drive), "the drive {drive} is not plugged in");
        let before = self.qmp.drive_statistics()?;
        for name in &names {
            // QEMU stands still until the reads that wait at a USB device that goes are done, however slow it is.
            self.qmp.hurry(name)?;
        }
        self.qmp.remove(&device).with_context(|| format!("pulling {drive}"))?;
        let after = self.qmp.drive_statistics()?;
        for name in names {
            let kept = after.iter().any(|drive| drive.name == name);
            if let Some(statistics) = before.iter().find(|drive| drive.name == name && !kept) {
                match self.past.iter_mut().find(|past| past.name == name) {
                    Some(past) => past.add(statistics),
                    None => self.past.push(statistics.clone()),
                }
            }
            self.absent.insert(name, if kept { Absent::WithImage } else { Absent::WithoutImage });
        }
        Ok(())
    }

    /// The device that a drive is plugged in and out with, and the names of the drives that go with it.
    fn unit(&self, drive: &str) -> Result<(String, Vec<String>)> {
        let unit = drives::unit(&self.machine, drive);
        let unit = unit.with_context(|| format!("the machine has no drive {drive}"))?;
        Ok((unit.device, unit.drives.iter().map(|drive| drive.name.clone()).collect()))
    }

    /// Lets the guest read at most so many bytes a second from a drive; 0: as fast as it can, 1: as good as never.
    ///
    /// A read waits for the time that the one before it costs. On virtio (also SCSI) it waits as long as that takes. On
    /// USB, SATA and `NVMe` the guest's kernel gives it up (Linux: after 30 s) and cancels it, and then QEMU itself
    /// stands still until the time is over, its control channel too: let such a drive be no slower than 40000 bytes a
    /// second (26 s for a read of 1 MiB, the longest), or free it within 30 s. On IDE (also discs) each cancelled read
    /// gets through.
    ///
    /// # Errors
    /// There is no such drive, or it is not plugged in.
    pub fn throttle(&mut self, drive: &str, bytes_per_second: u64) -> Result<()> {
        self.qmp.throttle(drive, bytes_per_second)
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

    /// Waits until the guest has ended and QEMU with it, and says how. Of a machine of which a reset is no end
    /// ([`Machine::reset_ends`]) only [`EndReason::Off`] can come.
    ///
    /// # Errors
    /// It still runs after `within`, or it was not the guest that ended it.
    pub fn wait_for_end_reason(&mut self, within: Duration) -> Result<EndReason> {
        let event = self.qmp.wait_for_event("SHUTDOWN", within).context("waiting for the guest to end")?;
        self.process.wait_for_end(END_WITHIN)?;
        match event.pointer("/data/reason").and_then(Value::as_str) {
            Some(GUEST_RESET) => Ok(EndReason::Reset),
            Some("guest-shutdown") => Ok(EndReason::Off),
            _ => bail!("it was not the guest that ended the machine: {event}"),
        }
    }

    /// Waits until the guest has reset a machine that goes on then ([`Machine::reset_ends`]); a reset that was not
    /// waited for yet counts too, each once.
    ///
    /// # Errors
    /// It has not after `within`, or QEMU is gone.
    pub fn wait_for_restart(&mut self, within: Duration) -> Result<()> {
        let event = self.qmp.wait_for_event_with("RESET", "/data/reason", GUEST_RESET, within);
        event.map(drop).context("waiting for the guest to restart")
    }

    /// Resets the machine as its reset button does: the CPU and all memory begin again, at once, whatever the guest was
    /// doing. What QEMU had taken for a drive stays, flushed by the guest or not: a drive's own volatile cache is not
    /// played, only the loss of what the guest's kernel had not sent yet. Not for a machine of which a reset is the end.
    ///
    /// # Errors
    /// QEMU does not answer, or does not reset.
    pub fn reset(&mut self) -> Result<()> {
        ensure!(!self.machine.reset_ends, "a reset would end this machine");
        self.qmp.command("system_reset", &json!({}))?;
        self.qmp.wait_for_event_with("RESET", "/data/reason", "host-qmp-system-reset", END_WITHIN).map(drop)
    }

    /// Gives a network card (counted from 0) its carrier, or takes it, as if the cable were pulled. On an `e1000e` the guest
    /// does not notice that the carrier goes (seen with QEMU 7.2 and Linux 6.12; also virt-manager/virt-manager#66), only
    /// whether it is there when its driver starts; `virtio-net-pci` and `e1000` are right.
    ///
    /// # Errors
    /// QEMU does not answer, or the machine has no such card.
    pub fn set_link(&mut self, card: usize, up: bool) -> Result<()> {
        self.qmp.command("set_link", &json!({"name": card_id(card), "up": up})).map(drop)
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
    let place = match machine.namespace {
        Some(_) => "# It ran in a network namespace: its tap devices have to be made before.\n",
        None => "",
    };
    let text = format!(
        "#!/bin/sh\n# The machine {:?} with its serial port in this terminal (Ctrl-A x ends it). It was started as:\n# {QEMU} \
         {exact}\n{place}exec {QEMU} \\\n    {by_hand} \"$@\"\n",
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
mod tests;
