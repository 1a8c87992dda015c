//! A host that an administrator works with: the real image, booted as often as a trial wants, with the same disks.
//!
//! Commands are typed on the serial console, which needs no network and is quick; [`Host::ssh`] goes through the lab's
//! network. Each command with its output is in `commands.txt` of the lab's folder, each boot's files are in `boot-N`.

mod commands;
mod power;
mod setup;

pub use setup::{FAST, Setup, Way};

use crate::shell;
use anyhow::{Context, Result};
use sino_image::qemu::{Guest, Machine};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a boot may take until its login prompt: without Xen, and through the menu and Xen.
const LOGIN: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(600));
/// A word that stage one says at the beginning of every boot.
const STAGE_ONE: &str = "read-flags";

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
    /// Whether there is a stage one of SINO's to be seen on it.
    stage_one: bool,
    /// Whether that of the last boot has been.
    stage_one_seen: bool,
    deadline: Instant,
}

impl Host {
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
            shell::run(&mut guest.watch, "dmesg -n 1", commands::COMMAND)?;
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

    /// Writes what a trial found out into the log of the commands.
    pub fn comment(&self, text: &str) {
        self.transcript("(the trial)", text);
    }

    fn transcript(&self, command: &str, text: &str) {
        let mut entry = String::new();
        let _ = writeln!(entry, "# {command}\n{text}\n");
        let file = OpenOptions::new().create(true).append(true).open(self.folder.join("commands.txt"));
        // For people who look later; the trial does not read it.
        let _ = file.and_then(|mut file| file.write_all(entry.as_bytes()));
    }
}
