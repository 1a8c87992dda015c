//! A host's power: on, off, a reset, and what is changed while it is off.

use super::setup::{XEN_OPTIONS, append};
use super::{Host, Setup, Way};
use crate::boot_menu;
use crate::lab::{Disk, Lab};
use anyhow::{Context, Result, bail, ensure};
use sino_image::qemu::{Accelerator, Bus, Drive, EndReason, Firmware, Guest, Machine, NetworkCard, Start};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long Debian may take to shut down.
const SHUTDOWN: Duration = Duration::from_secs(180);

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
        let bus = if matches!(setup.way, Way::Menu(_)) { Bus::UsbStick } else { Bus::Virtio };
        let medium = Drive::new("medium", bus, &lab.image.iso).boot(0);
        let start = match setup.way {
            Way::Direct => Start::Kernel {
                kernel: lab.image.kernel.clone(),
                initrd: lab.image.initramfs.clone(),
                append: append(setup.way, &setup.flags),
            },
            Way::Xen => Start::Xen {
                xen: decompressed(&lab.image.xen, &lab.folder)?,
                options: XEN_OPTIONS.to_owned(),
                kernel: lab.image.kernel.clone(),
                append: append(setup.way, &setup.flags),
                initrd: lab.image.initramfs.clone(),
            },
            Way::Menu(_) => {
                ensure!(setup.flags.is_empty(), "flags are for a boot without a menu only");
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
            stage_one: setup.stage_one,
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
        self.stage_one_seen = !self.stage_one;
        self.guest = Some(Guest::start(&self.machine, &folder, self.left() + Duration::from_secs(15))?);
        self.enter()
    }

    /// Through the boot menu, if there is one.
    fn enter(&mut self) -> Result<()> {
        let (way, deadline) = (self.way, self.deadline);
        match way {
            Way::Direct | Way::Xen => Ok(()),
            Way::Menu(entry) => boot_menu::choose(self.guest()?, entry, deadline).context("choosing in the boot menu"),
        }
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
        self.stage_one_seen = !self.stage_one;
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

    /// The network cards that the host has when it is switched on the next time.
    pub fn set_cards(&mut self, cards: &[NetworkCard]) {
        self.machine.network = cards.to_vec();
    }

    /// The medium that the host boots from the next time, for example one of [`Lab::stick`].
    pub fn set_medium(&mut self, iso: &Path) {
        if let Some(medium) = self.machine.drives.first_mut() {
            medium.file = Some(iso.to_owned());
        }
    }

    /// Pulls the plug: the machine is off at once. For the end of a trial's step that needs no orderly shutdown.
    pub fn pull_the_plug(&mut self) {
        self.guest = None;
    }

    fn set_flags(&mut self, flags: &str) {
        if let Start::Kernel { append: line, .. } | Start::Xen { append: line, .. } = &mut self.machine.start {
            *line = append(self.way, flags);
        }
    }

    /// Switches the host on again with these flags, without waiting for the login.
    ///
    /// # Errors
    /// It is on, or QEMU refuses.
    pub fn switch_on_with(&mut self, flags: &str) -> Result<()> {
        self.set_flags(flags);
        self.switch_on()
    }

    /// Switches the host on again with these flags and disks (none given: as before), and logs in.
    ///
    /// # Errors
    /// It is on, or does not come up.
    pub fn power_on(&mut self, flags: Option<&str>, disks: Option<&[Disk]>) -> Result<()> {
        if let Some(flags) = flags {
            self.set_flags(flags);
        }
        if let Some(disks) = disks {
            self.machine.drives.truncate(1);
            self.machine.drives.extend(disks.iter().map(Disk::drive));
        }
        self.switch_on()?;
        self.log_in()
    }
}

/// Xen as QEMU can load it, in this folder.
fn decompressed(xen: &Path, folder: &Path) -> Result<PathBuf> {
    let file = folder.join("xen");
    let to = File::create(&file).with_context(|| format!("creating {}", file.display()))?;
    let mut gzip = Command::new("gzip");
    gzip.arg("-dc").arg(xen).stdout(to);
    ensure!(gzip.status().context("running gzip")?.success(), "gzip cannot decompress {}", xen.display());
    Ok(file)
}
