//! Commands on a host: typed on its serial console, or by ssh.

use super::Host;
use crate::lab::Lab;
use crate::shell::{self, Output};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long one command may take.
pub(super) const COMMAND: Duration = Duration::from_secs(150);
/// The longest command that is typed, so that the terminal does not break its line.
const LONGEST_COMMAND: usize = 440;

impl Host {
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

    /// Types a command that asks, and what it is answered with.
    ///
    /// # Errors
    /// As [`Host::serial`].
    pub fn answer(&mut self, command: &str, question: &str, answer: &str) -> Result<Output> {
        ensure!(command.len() < LONGEST_COMMAND, "too long to be typed: {command}");
        let within = COMMAND.min(self.left());
        let output = shell::run_and_answer(&mut self.guest()?.watch, command, (question, answer), within)?;
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

    /// Types a line and waits for nothing.
    ///
    /// # Errors
    /// The host is off.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        self.transcript(&format!("{line} (typed)"), "");
        self.guest()?.watch.type_text(&format!("{line}\r"))
    }

    /// Runs a command by ssh from the lab, with the password; both its outputs are its text.
    ///
    /// # Errors
    /// ssh itself fails.
    pub fn ssh(&self, lab: &Lab, address: &str, command: &str) -> Result<Output> {
        let password = self.passwords.first().context("no password")?;
        self.ssh_by(lab, &["sshpass", "-p", password, "ssh", "-o", "PubkeyAuthentication=no"], address, command)
    }

    /// The same with the private key in this file, and nothing else.
    ///
    /// # Errors
    /// As [`Host::ssh`].
    pub fn ssh_with_key(&self, lab: &Lab, address: &str, key: &Path, command: &str) -> Result<Output> {
        let key = key.display().to_string();
        self.ssh_by(lab, &["ssh", "-o", "BatchMode=yes", "-i", &key], address, command)
    }

    fn ssh_by(&self, lab: &Lab, how: &[&str], address: &str, command: &str) -> Result<Output> {
        let mut ssh = lab.namespace.command("timeout");
        ssh.arg(COMMAND.as_secs().to_string())
            .args(how)
            .args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60"])
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
