//! A host that an administrator works with: the real image, booted as often as a trial wants, with the same disks.
//!
//! Commands are typed on the serial console, which needs no network and is quick; [`Host::ssh`] goes through the lab's
//! network. Each command with its output is in `commands.txt` of the lab's folder, each boot's files are in `boot-N`.

use crate::boot_menu;
use crate::lab::{Disk, Lab};
use crate::runner::DIRECT_FLAGS;
use crate::scenario::Entry;
use crate::shell::{self, Output};
use anyhow::{Context, Result, bail, ensure};
use sino_image::qemu::{Accelerator, Bus, Drive, EndReason, Firmware, Guest, Machine, NetworkCard, Start};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// What is left out of a boot for these trials, because it takes a quarter of the processor's time until the shell and none
/// of them looks at it.
pub const FAST: &str = "systemd.mask=systemd-timesyncd.service systemd.mask=systemd-binfmt.service \
                        systemd.mask=modprobe@drm.service systemd.mask=modprobe@efi_pstore.service \
                        systemd.mask=getty@tty1.service systemd.mask=user@0.service systemd.mask=console-setup.service \
                        systemd.mask=cron.service systemd.mask=sino-network-online.service";
/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(150);
/// How long Debian may take to shut down.
const SHUTDOWN: Duration = Duration::from_secs(180);
/// How long a boot may take until its login prompt: without Xen, and through the menu and Xen.
const LOGIN: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(600));
/// A word that stage one says at the beginning of every boot.
const STAGE_ONE: &str = "read-flags";
/// The longest command that is typed, so that the terminal does not break its line.
const LONGEST_COMMAND: usize = 440;

/// How the host boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// QEMU loads kernel and initramfs; no Xen. The quickest.
    Direct,
    /// From a stick, by this entry of the menu, under Xen.
    Menu(Entry),
}

/// What the host is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How it boots.
    pub way: Way,
    /// More kernel flags; for [`Way::Direct`] only.
    pub flags: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Network cards.
    pub cards: Vec<NetworkCard>,
    /// Disks that last.
    pub disks: Vec<Disk>,
}

impl Setup {
    /// A small host without Xen, with these cards and disks.
    #[must_use]
    pub fn direct(cards: &[NetworkCard], disks: &[Disk]) -> Self {
        Self { way: Way::Direct, flags: String::new(), memory_mib: 2048, cards: cards.to_vec(), disks: disks.to_vec() }
    }

    /// The same with more kernel flags.
    #[must_use]
    pub fn with(mut self, flags: &str) -> Self {
        flags.clone_into(&mut self.flags);
        self
    }

    /// The same host under Xen, from a stick.
    #[must_use]
    pub fn under_xen(mut self) -> Self {
        self.way = Way::Menu(Entry::Normal);
        self.memory_mib = 4096;
        self
    }
}

/// The host.
pub struct Host {
    /// root's password. More than one: any of them may be it; [`Host::log_in`] puts the right one first.
    pub passwords: Vec<String>,
    /// Seconds that each boot took until its login prompt.
    pub boots: Vec<f64>,
    machine: Machine,
    way: Way,
    folder: PathBuf,
    guest: Option<Guest>,
    started: u32,
    /// When the machine was switched on, or reset.
    began: Instant,
    /// Where the last boot's text on the serial console begins.
    text_from: usize,
    /// Whether stage one of the last boot has been seen on it.
    stage_one_seen: bool,
    deadline: Instant,
}

impl Host {
    /// Switches a host on, waits for the login prompt and logs in.
    ///
    /// # Errors
    /// It does not come up.
    pub fn boot(lab: &Lab, setup: &Setup) -> Result<Self> {
        let mut host = Self::begin(lab, setup)?;
        host.log_in()?;
        Ok(host)
    }

    /// Switches a host on; [`Host::log_in`] does the rest.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn begin(lab: &Lab, setup: &Setup) -> Result<Self> {
        let bus = if setup.way == Way::Direct { Bus::Virtio } else { Bus::UsbStick };
        let medium = Drive::new("medium", bus, &lab.image.iso).boot(0);
        let start = match setup.way {
            Way::Direct => Start::Kernel {
                kernel: lab.image.kernel.clone(),
                initrd: lab.image.initramfs.clone(),
                append: append(&setup.flags),
            },
            Way::Menu(_) => {
                ensure!(setup.flags.is_empty(), "flags are for a direct boot only");
                Start::FromDrives
            }
        };
        let machine = Machine {
            name: format!("sino-{}", lab.name),
            accelerator: Accelerator::from_environment()?,
            firmware: Firmware::Bios,
            start,
            memory_mib: setup.memory_mib,
            drives: std::iter::once(medium).chain(setup.disks.iter().map(Disk::drive)).collect(),
            network: setup.cards.clone(),
            namespace: Some(lab.namespace.file()),
            acpi_tables: Vec::new(),
            reset_ends: false,
        };
        let mut host = Self {
            passwords: vec!["root".to_owned()],
            boots: Vec::new(),
            machine,
            way: setup.way,
            folder: lab.folder.clone(),
            guest: None,
            started: 0,
            began: Instant::now(),
            text_from: 0,
            stage_one_seen: false,
            deadline: lab.deadline(),
        };
        host.switch_on()?;
        Ok(host)
    }

    fn switch_on(&mut self) -> Result<()> {
        ensure!(self.guest.is_none(), "the host is on already");
        self.started += 1;
        let folder = self.folder.join(format!("boot-{}", self.started));
        self.began = Instant::now();
        self.text_from = 0;
        self.stage_one_seen = false;
        self.guest = Some(Guest::start(&self.machine, &folder, self.left() + Duration::from_secs(15))?);
        self.enter()
    }

    /// Through the boot menu, if there is one.
    fn enter(&mut self) -> Result<()> {
        let (way, deadline) = (self.way, self.deadline);
        match way {
            Way::Direct => Ok(()),
            Way::Menu(entry) => boot_menu::choose(self.guest()?, entry, deadline).context("choosing in the boot menu"),
        }
    }

    /// What is left of the trial's time.
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The running machine.
    ///
    /// # Errors
    /// It is off.
    pub fn guest(&mut self) -> Result<&mut Guest> {
        self.guest.as_mut().context("the host is off")
    }

    /// Waits for the login prompt of this boot and logs in.
    ///
    /// # Errors
    /// It does not come, or the password is not accepted.
    pub fn log_in(&mut self) -> Result<()> {
        let (direct, xen) = LOGIN;
        let within = self.left().min(if self.way == Way::Direct { direct } else { xen });
        let (passwords, began) = (self.passwords.clone(), self.began);
        let number = self.boots.len() + 1;
        self.see_stage_one(within)?;
        let attempt = |guest: &mut Guest| -> Result<(f64, usize)> {
            shell::wait_for_prompt(&mut guest.watch, within)?;
            let seconds = began.elapsed().as_secs_f64();
            let right = shell::enter_with_one_of(&mut guest.watch, "root", &passwords)?;
            shell::run(&mut guest.watch, "dmesg -n 1", COMMAND)?;
            Ok((seconds, right))
        };
        let (seconds, right) = attempt(self.guest()?).with_context(|| format!("boot number {number}"))?;
        self.passwords.swap(0, right);
        self.boots.push(seconds);
        self.transcript(&format!("boot number {number}"), &format!("login prompt after {seconds:.1} s"));
        Ok(())
    }

    /// What the boot before said at its end is over when stage one speaks.
    fn see_stage_one(&mut self, within: Duration) -> Result<()> {
        if !self.stage_one_seen {
            self.guest()?.watch.wait_for(STAGE_ONE, within).context("waiting for stage one")?;
            self.stage_one_seen = true;
        }
        Ok(())
    }

    /// What this boot has said on the serial console so far.
    ///
    /// # Errors
    /// The host is off.
    pub fn console(&mut self) -> Result<String> {
        let from = self.text_from;
        Ok(self.guest()?.watch.text().get(from..).unwrap_or_default().to_owned())
    }

    /// Waits until this boot says this text on the serial console, after what was waited for before.
    ///
    /// # Errors
    /// It does not.
    pub fn wait_for_console(&mut self, text: &str, within: Duration) -> Result<()> {
        let within = within.min(self.left());
        self.see_stage_one(within)?;
        self.guest()?.watch.wait_for(text, within).map(drop)
    }

    /// Types a command on the serial console; both its outputs are its text.
    ///
    /// # Errors
    /// It does not end, or is too long to be typed.
    pub fn serial(&mut self, command: &str) -> Result<Output> {
        self.serial_within(command, COMMAND)
    }

    /// The same for a command that may take longer.
    ///
    /// # Errors
    /// As [`Host::serial`].
    pub fn serial_within(&mut self, command: &str, within: Duration) -> Result<Output> {
        ensure!(command.len() < LONGEST_COMMAND, "too long to be typed: {command}");
        let within = within.min(self.left());
        let mut output = shell::run(&mut self.guest()?.watch, command, within)?;
        output.text = without_hypervisor(&output.text);
        self.transcript(command, &format!("{}\n(status {})", output.text.trim_end(), output.status));
        Ok(output)
    }

    /// Types a command that must end well, and returns what it says.
    ///
    /// # Errors
    /// It ends with another status than 0.
    pub fn do_(&mut self, command: &str) -> Result<String> {
        let output = self.serial(command)?;
        ensure!(output.status == 0, "{command}: status {}: {}", output.status, output.text.trim());
        Ok(output.text.trim().to_owned())
    }

    /// Runs a command by ssh from the lab, with the password; both its outputs are its text.
    ///
    /// # Errors
    /// ssh itself fails.
    pub fn ssh(&self, lab: &Lab, address: &str, command: &str) -> Result<Output> {
        let mut ssh = lab.namespace.command("timeout");
        let password = self.passwords.first().context("no password")?;
        ssh.args([&COMMAND.as_secs().to_string(), "sshpass", "-p", password, "ssh", "-F", "none"])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .args(["-o", "PubkeyAuthentication=no", "-o", "ConnectTimeout=60"])
            .args([&format!("root@{address}"), &format!("{{ {command}; }} 2>&1")]);
        let output = by_ssh(&mut ssh, command)?;
        self.transcript(
            &format!("{command} (ssh)"),
            &format!("{}\n(status {})", output.text.trim_end(), output.status),
        );
        Ok(output)
    }

    /// Waits until Debian is up and all devices are known; returns what systemd says, `running` or `degraded`.
    ///
    /// # Errors
    /// It does not end.
    pub fn settle(&mut self) -> Result<String> {
        let state = self.serial("systemctl is-system-running --wait")?.text.trim().to_owned();
        self.do_("udevadm settle")?;
        Ok(state)
    }

    /// The name that the guest gave its network card number `card`, counted from 0.
    ///
    /// # Errors
    /// There is none with the card's MAC address.
    pub fn link(&mut self, card: usize) -> Result<String> {
        let mac = self.machine.network.get(card).and_then(|card| card.mac.clone()).context("no such card")?;
        // A card, not a bridge or bond that has its address.
        let command =
            "for d in /sys/class/net/*; do [ ! -e $d/device ] || ! grep -q MAC $d/address || echo ${d##*/}; done";
        let name = self.do_(&command.replace("MAC", &mac))?;
        ensure!(!name.is_empty(), "the guest has no network card {mac}");
        Ok(name)
    }

    /// The MAC address of a link of the guest: of `xenbr0` it is what the DHCP server knows the host by.
    ///
    /// # Errors
    /// There is no such link.
    pub fn mac(&mut self, link: &str) -> Result<String> {
        self.do_(&format!("cat /sys/class/net/{link}/address"))
    }

    /// Writes a file in the guest, whatever is in it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_file(&mut self, path: &str, text: &str) -> Result<()> {
        self.do_(&format!("mkdir -p $(dirname {path}) && : > {path}"))?;
        for line in text.lines() {
            let quoted = line.replace('\'', "'\\''");
            self.do_(&format!("printf '%s\\n' '{quoted}' >> {path}"))?;
        }
        self.do_("sync").map(drop)
    }

    /// What a command says, as JSON.
    ///
    /// # Errors
    /// It fails, or says something else.
    pub fn json(&mut self, command: &str) -> Result<serde_json::Value> {
        let text = self.do_(command)?;
        serde_json::from_str(&text).with_context(|| format!("{command} does not say JSON: {text}"))
    }

    /// How many bytes the guest wrote to a disk since it was switched on.
    ///
    /// # Errors
    /// The host is off or has no such disk.
    pub fn written(&mut self, disk: &str) -> Result<u64> {
        let all = self.guest()?.drive_statistics()?;
        let statistics = all.into_iter().find(|statistics| statistics.name == disk);
        statistics.map(|statistics| statistics.written_bytes).with_context(|| format!("no disk {disk}"))
    }

    /// Gives a network card (counted from 0) its carrier, or takes it.
    ///
    /// # Errors
    /// The host is off or has no such card.
    pub fn set_link(&mut self, card: usize, up: bool) -> Result<()> {
        self.transcript(&format!("(card {card}: carrier {up})"), "");
        self.guest()?.set_link(card, up)
    }

    /// The power fails and comes back; then the host is logged in to again. What the guest's kernel had not sent to its
    /// disks is lost ([`Guest::reset`]).
    ///
    /// # Errors
    /// It does not come up again.
    pub fn power_cut(&mut self) -> Result<()> {
        self.cut()?;
        self.log_in()
    }

    /// The same without waiting for the login.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn cut(&mut self) -> Result<()> {
        self.guest()?.reset()?;
        self.again()
    }

    fn again(&mut self) -> Result<()> {
        self.began = Instant::now();
        self.text_from = self.guest()?.watch.text().len();
        self.stage_one_seen = false;
        self.enter()
    }

    /// Types `reboot` and logs in again.
    ///
    /// # Errors
    /// It does not come up again.
    pub fn reboot(&mut self) -> Result<()> {
        let guest = self.guest()?;
        guest.watch.type_text("reboot\r")?;
        guest.wait_for_restart(SHUTDOWN)?;
        self.again()?;
        self.log_in()
    }

    /// Types `poweroff` and waits until the machine is off.
    ///
    /// # Errors
    /// It does not go off by itself.
    pub fn power_off(&mut self) -> Result<()> {
        let mut guest = self.guest.take().context("the host is off")?;
        guest.watch.type_text("poweroff\r")?;
        match guest.wait_for_end_reason(SHUTDOWN)? {
            EndReason::Off => Ok(()),
            EndReason::Reset => bail!("poweroff reset the machine"),
        }
    }

    /// Pulls the plug: the machine is off at once. For the end of a trial's step that needs no orderly shutdown.
    pub fn pull_the_plug(&mut self) {
        self.guest = None;
    }

    /// Switches the host on again with these flags, without waiting for the login.
    ///
    /// # Errors
    /// It is on, or QEMU refuses.
    pub fn switch_on_with(&mut self, flags: &str) -> Result<()> {
        if let Start::Kernel { append: line, .. } = &mut self.machine.start {
            *line = append(flags);
        }
        self.switch_on()
    }

    /// Types a line and waits for nothing.
    ///
    /// # Errors
    /// The host is off.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        self.transcript(&format!("{line} (typed)"), "");
        self.guest()?.watch.type_text(&format!("{line}\r"))
    }

    /// Switches the host on again with these flags and disks (none given: as before), and logs in.
    ///
    /// # Errors
    /// It is on, or does not come up.
    pub fn power_on(&mut self, flags: Option<&str>, disks: Option<&[Disk]>) -> Result<()> {
        if let (Some(flags), Start::Kernel { append: line, .. }) = (flags, &mut self.machine.start) {
            *line = append(flags);
        }
        if let Some(disks) = disks {
            self.machine.drives.truncate(1);
            self.machine.drives.extend(disks.iter().map(Disk::drive));
        }
        self.switch_on()?;
        self.log_in()
    }

    fn transcript(&self, command: &str, text: &str) {
        let mut entry = String::new();
        let _ = writeln!(entry, "# {command}\n{text}\n");
        let file = OpenOptions::new().create(true).append(true).open(self.folder.join("commands.txt"));
        // For people who look later; the trial does not read it.
        let _ = file.and_then(|mut file| file.write_all(entry.as_bytes()));
    }
}

/// What was typed for, without the lines of the hypervisor, which writes to the same serial port whenever it likes, in the middle
/// of a line, too.
fn without_hypervisor(text: &str) -> String {
    let mut rest = text;
    let mut own = String::new();
    while let Some((before, after)) = rest.split_once("(XEN) ") {
        own.push_str(before);
        rest = after.split_once('\n').map_or("", |(_, next)| next);
    }
    own + rest
}

fn append(flags: &str) -> String {
    format!("{DIRECT_FLAGS} {FAST} {flags}").trim_end().to_owned()
}

fn by_ssh(ssh: &mut Command, command: &str) -> Result<Output> {
    /// What ssh itself ends with when it could not work.
    const SSH_FAILED: i32 = 255;
    let output = ssh.output().context("running ssh")?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let status = output.status.code().filter(|code| *code != SSH_FAILED);
    let status = status.with_context(|| format!("{command:?} by ssh ended with {}: {said}", output.status))?;
    Ok(Output {
        status: u32::try_from(status).unwrap_or(u32::MAX),
        text: String::from_utf8_lossy(&output.stdout).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hypervisors_lines_are_taken_out() {
        let text = "{\n  \"a\": 1,\n(XEN) uart interrupt taking more than 4ms\n  \"b\"(XEN) x\n: 2\n}\n";
        assert_eq!(without_hypervisor(text), "{\n  \"a\": 1,\n  \"b\": 2\n}\n");
        assert_eq!(without_hypervisor("no such line\n(XEN) end"), "no such line\n");
    }
}
