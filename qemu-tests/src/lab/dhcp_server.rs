//! A real DHCP server (dnsmasq) on a segment of the lab, and what it says of each exchange.
//!
//! It can be started late, stopped, and started again with other settings; its leases stay in a file in between, so a
//! client that asks for its old address gets it. It answers DNS too, for [`NAME`].

use super::lines::Lines;
use super::namespace::Namespace;
use anyhow::{Context, Result, ensure};
use sino_image::qemu::process::require;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// The one name that its DNS server knows; the address is the server's own.
pub const NAME: &str = "server.lab.test";
/// How long it may take to start.
const START: Duration = Duration::from_secs(20);

/// What it offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a lease is, in seconds; dnsmasq gives none shorter than 120.
    pub lease_seconds: u32,
    /// Addresses that belong to a MAC address.
    pub reservations: Vec<(String, String)>,
    /// More options of dnsmasq.
    pub more: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lease_seconds: 3600, reservations: Vec::new(), more: Vec::new() }
    }
}

/// A message of an exchange, as the server's log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// For example `DHCPDISCOVER`.
    pub kind: String,
    /// The address in it, if there is one.
    pub address: Option<String>,
    /// The client's MAC address.
    pub mac: String,
}

/// The server.
#[derive(Debug)]
pub struct DhcpServer {
    link: String,
    prefix: String,
    folder: PathBuf,
    lines: Lines,
    child: Option<Child>,
}

impl DhcpServer {
    /// The server for a link of the lab, not started. `prefix` is the first three numbers of the link's network, in which
    /// the server's machine is number 1 and clients get 100 to 150.
    #[must_use]
    pub fn new(link: &str, prefix: &str, folder: &Path) -> Self {
        let lines = Lines::new(&folder.join(format!("dnsmasq-{link}.log")));
        Self { link: link.to_owned(), prefix: prefix.to_owned(), folder: folder.to_owned(), lines, child: None }
    }

    /// Starts it, or starts it again with other settings.
    ///
    /// # Errors
    /// dnsmasq is missing or refuses, in its own words.
    pub fn start(&mut self, namespace: &Namespace, settings: &Settings) -> Result<()> {
        require("dnsmasq", "dnsmasq-base")?;
        self.stop();
        let from = self.lines.len();
        let Self { link, prefix, .. } = &*self;
        let mut command = namespace.command("dnsmasq");
        command.args([
            "--conf-file=/dev/null",
            "--keep-in-foreground",
            "--log-facility=-",
            "--pid-file=",
            "--user=root",
        ]);
        command.args(["--log-dhcp", "--dhcp-authoritative", "--no-resolv", "--no-hosts", "--bind-interfaces"]);
        // Answers at once, instead of asking the network for 3 s whether an address is free.
        command.arg("--no-ping");
        command.args([format!("--interface={link}"), "--except-interface=lo".to_owned()]);
        command.arg(format!("--address=/{NAME}/{prefix}.1"));
        command.arg(format!("--dhcp-range={prefix}.100,{prefix}.150,{}", settings.lease_seconds));
        command.arg(format!("--dhcp-leasefile={}", self.folder.join(format!("dnsmasq-{link}.leases")).display()));
        command.args([format!("--dhcp-option=3,{prefix}.1"), format!("--dhcp-option=6,{prefix}.1")]);
        command.arg("--dhcp-option=15,lab.test");
        for (mac, address) in &settings.reservations {
            command.arg(format!("--dhcp-host={mac},{address}"));
        }
        command.args(&settings.more);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting dnsmasq")?;
        let output = child.stderr.take().context("the output of dnsmasq")?;
        self.child = Some(child);
        self.lines.follow(output)?;
        let started = |line: &str| -> Option<bool> {
            let words = line.trim();
            if words.contains("DHCP, IP range") { Some(true) } else { words.contains("FAILED").then_some(false) }
        };
        let well = self.lines.wait_for("dnsmasq to start", from, START, started)?;
        ensure!(well, "dnsmasq did not start: {:?}", self.lines.since(from, |line| Some(line.to_owned())));
        Ok(())
    }

    /// Ends it, if it runs; the leases stay.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A place in the log: now.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.lines.len()
    }

    /// The messages since a place in the log, from and to one client.
    #[must_use]
    pub fn messages(&self, mark: usize, mac: &str) -> Vec<Message> {
        self.lines.since(mark, |line| message(line).filter(|message| message.mac.eq_ignore_ascii_case(mac)))
    }

    /// How many messages of a kind there were since a place in the log.
    #[must_use]
    pub fn count(&self, mark: usize, mac: &str, kind: &str) -> usize {
        self.messages(mark, mac).iter().filter(|message| message.kind == kind).count()
    }

    /// Waits for a message of this kind after a place in the log, and returns the address in it.
    ///
    /// # Errors
    /// There is none within that time.
    pub fn wait_for(&self, mark: usize, mac: &str, kind: &str, within: Duration) -> Result<Option<String>> {
        let what = format!("{kind} with {mac} on {}", self.link);
        self.lines.wait_for(&what, mark, within, |line| {
            let message = message(line)?;
            (message.kind == kind && message.mac.eq_ignore_ascii_case(mac)).then_some(message.address)
        })
    }

    /// The address that it gave a client last.
    #[must_use]
    pub fn address_of(&self, mac: &str) -> Option<String> {
        self.messages(0, mac).into_iter().rfind(|message| message.kind == "DHCPACK").and_then(|ack| ack.address)
    }
}

impl Drop for DhcpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads `dnsmasq-dhcp: 3741 DHCPACK(lan) 192.0.2.101 52:54:00:12:34:56 sino`.
fn message(line: &str) -> Option<Message> {
    let start =
        line.find("DHCP").filter(|at| line.get(at + 4..).is_some_and(|rest| rest.starts_with(char::is_uppercase)))?;
    let mut words = line.get(start..)?.split_whitespace();
    let (kind, _) = words.next()?.split_once('(')?;
    let first = words.next()?;
    let is_mac = |word: &str| word.len() == 17 && word.bytes().filter(|byte| *byte == b':').count() == 5;
    let (address, mac) = if is_mac(first) { (None, first) } else { (Some(first.to_owned()), words.next()?) };
    is_mac(mac).then(|| Message { kind: kind.to_owned(), address, mac: mac.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_a_message_or_nothing() {
        let mac = "52:54:00:12:34:56";
        let read = |line: &str| message(line).map(|message| (message.kind, message.address, message.mac));
        let expected =
            |kind: &str, address: Option<&str>| Some((kind.to_owned(), address.map(str::to_owned), mac.to_owned()));
        for (line, wanted) in [
            (format!("dnsmasq-dhcp: 37 DHCPDISCOVER(lan) {mac} "), expected("DHCPDISCOVER", None)),
            (
                format!("dnsmasq-dhcp: 37 DHCPDISCOVER(lan) 192.0.2.7 {mac} "),
                expected("DHCPDISCOVER", Some("192.0.2.7")),
            ),
            (format!("dnsmasq-dhcp: 37 DHCPACK(lan) 192.0.2.101 {mac} sino"), expected("DHCPACK", Some("192.0.2.101"))),
            (
                format!("dnsmasq-dhcp: 37 DHCPNAK(lan) 192.0.2.9 {mac} wrong network"),
                expected("DHCPNAK", Some("192.0.2.9")),
            ),
            ("dnsmasq-dhcp: DHCP, IP range 192.0.2.100 -- 192.0.2.150".to_owned(), None),
            ("dnsmasq-dhcp: 37 client provides name: sino".to_owned(), None),
        ] {
            assert_eq!(read(&line), wanted, "{line}");
        }
    }
}
