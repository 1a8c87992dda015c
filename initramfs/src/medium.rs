//! Finding the medium: the device that carries the build that this initramfs was made with.
//!
//! Waits on device events, never on time; ends at once when the right device appears. Mounts the medium read-only and
//! makes sure that the root image on it is there and as long as the manifest says.

mod holds;

pub use holds::Hold;

use crate::block_device::{self, BlockDevice, Content};
use crate::devices::{Devices, Event};
use crate::mounts::{self, Mount};
use crate::stick_config;
use crate::{carrier, loop_device, lvm, ventoy};
use anyhow::{Context, Result, anyhow, ensure};
use log::Level;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use sino_boot::manifest::Manifest;
use sino_boot::options::{IsoFile, OnFailure, Options, Selector};
use sino_boot::record::{self, BootRecord};
use sino_boot::stage::{Done, Fault, done};
use sino_boot::watchdog::Watchdog;
use sino_boot::{console, layout};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// After this time without the medium the consoles show what is waited for, and are told again each time it has passed once
/// more. The slowest sticks seen need some seconds.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How often the watchdog hears that the wait goes on; less than the shortest time after which it cuts a step.
const PULSE: Duration = Duration::from_secs(2);
/// How long a stick that hangs at an earlier port may take to show what it is, when a later one is the medium already. Only
/// then is there a wait; it makes the choice between two sticks of one build the same on every boot.
const EARLIER_PORT: Duration = Duration::from_secs(2);

/// The medium, mounted on [`layout::MEDIUM`], with its root image open.
#[derive(Debug)]
pub struct Medium {
    /// The device.
    pub device: BlockDevice,
    /// The root image.
    pub image: OwnedFd,
    /// Its path.
    pub path: String,
    holds: Vec<Hold>,
}

impl Medium {
    /// What must be let go of before the medium may be removed.
    #[must_use]
    pub fn holds(&self) -> Vec<Hold> {
        self.holds.clone()
    }

    /// Lets go of the medium: nothing of it is open or mounted afterwards.
    ///
    /// # Errors
    /// Something of it is still in use.
    pub fn release(self) -> Result<()> {
        drop(self.image);
        self.holds.iter().try_for_each(Hold::release)
    }
}

/// What a look at a device came to.
enum Finding {
    /// It is the medium.
    Medium(Box<Medium>),
    /// It is not, and this is what it is.
    Not(String),
}

struct Search<'a> {
    options: &'a Options,
    manifest: &'a Manifest,
    devices: &'a Devices,
    iso: Option<IsoFile>,
    volume: Option<lvm::Search>,
    /// What each device is, for people.
    seen: BTreeMap<String, String>,
    /// Events that arrived while something else was waited for.
    backlog: VecDeque<Event>,
    /// Devices with the same build that are not used.
    spare: Vec<BlockDevice>,
    told: bool,
}

/// Waits for the medium and mounts it.
///
/// # Errors
/// It did not appear in time; the fault lists every block device and what it is.
pub fn find(
    devices: &Devices,
    options: &Options,
    manifest: &Manifest,
    record: &mut BootRecord,
    watchdog: Option<&Watchdog>,
) -> Result<Done<Medium>, Fault> {
    let patience = Duration::from_secs(u64::from(options.medium_timeout));
    let began = Instant::now();
    let mut search = Search::new(options, manifest, devices);
    let mut due = REPORT_EVERY;
    loop {
        watchdog.inspect(|watchdog| watchdog.alive());
        let until = began + due.min(patience);
        let Some(event) = search.next(until.min(Instant::now() + PULSE)) else {
            if Instant::now() < until {
                continue;
            }
            if due >= patience {
                break;
            }
            search.report_waiting(due, patience);
            due += REPORT_EVERY;
            continue;
        };
        match event {
            Event::Block(device) => {
                if let Some(medium) = search.look(*device) {
                    return Ok(search.found(medium, record));
                }
            }
            Event::Gone(name) => {
                if search.seen.remove(&name).is_some() && search.told {
                    console::say(&format!("find-medium: {name} is gone"), Level::Warn);
                }
            }
            Event::Died(why) => return Err(search.explain(anyhow!("the search for devices ended: {why}"))),
        }
    }
    let only = options.medium.as_ref().map_or_else(String::new, |wanted| format!(" (only {wanted} was asked for)"));
    let file = search.iso.as_ref().map_or_else(String::new, |file| format!(" (nor a file {file})"));
    let cause = anyhow!("no device carries build {} after {} s{only}{file}", manifest.build_id, patience.as_secs());
    let failure = search
        .explain(cause)
        .hint("plug the right stick in: the boot begins again by itself, or leave the shell with \"exit\"")
        .hint("sino.medium-timeout=SECONDS waits longer; sino.iso=/PATH finds an ISO file on a file system");
    if search.iso.is_none() || Path::new(layout::CARRIER_MODULES).exists() {
        return Err(failure);
    }
    let image = layout::ISO_FILE_INITRAMFS;
    Err(failure.hint(format!(
        "an ISO file on NTFS, XFS or btrfs needs {image} of the ISO in place of this initramfs: boot/grub/loopback.cfg takes it, \
         and so does Ventoy in its \"grub2 mode\""
    )))
}

impl<'a> Search<'a> {
    fn new(options: &'a Options, manifest: &'a Manifest, devices: &'a Devices) -> Self {
        let iso = options.iso.clone().or_else(|| {
            let handover = ventoys_file(devices)?;
            log::info!("Ventoy started this boot from its file {}", handover.path);
            Some(IsoFile { volume: None, path: handover.path })
        });
        let asked = match (&iso, &options.medium) {
            (Some(IsoFile { volume: Some(volume), .. }), _) => Some(volume.clone()),
            (_, Some(Selector::Device(name))) => name.split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())),
            _ => None,
        };
        Self {
            options,
            manifest,
            devices,
            iso,
            volume: asked.map(|(group, volume)| lvm::Search::new(&group, &volume)),
            seen: BTreeMap::new(),
            backlog: VecDeque::new(),
            spare: Vec::new(),
            told: false,
        }
    }

    fn next(&mut self, deadline: Instant) -> Option<Event> {
        self.backlog.pop_front().or_else(|| self.devices.next(deadline))
    }

    /// Looks at a device that appeared; returns the medium if it is that.
    fn look(&mut self, device: BlockDevice) -> Option<Medium> {
        let name = device.name.clone();
        let text = device.to_string();
        let remark = match self.consider(device) {
            Ok(Finding::Medium(medium)) => return Some(*medium),
            Ok(Finding::Not(remark)) => remark,
            Err(error) => {
                let remark = format!("{text}, but it cannot be used: {error:#}");
                log::warn!("{remark}");
                remark
            }
        };
        if self.told && self.seen.get(&name) != Some(&remark) {
            console::say(&format!("find-medium: seen {remark}"), Level::Warn);
        }
        self.seen.insert(name, remark);
        // A second medium of this build that was put aside for a first one that failed.
        let next = self.spare.pop()?;
        self.look(next)
    }

    /// Says on every console what is waited for and what there is, long before the wait ends.
    fn report_waiting(&mut self, waited: Duration, patience: Duration) {
        let then = match self.options.on_failure {
            OnFailure::Shell => "the rescue shell",
            OnFailure::Reboot => "the restart",
            OnFailure::Poweroff => "the power-off",
        };
        let left = patience.saturating_sub(waited).as_secs();
        let build = &self.manifest.build_id;
        let waited = waited.as_secs();
        if self.told {
            console::say(&format!("find-medium: still waiting, {left} s until {then}"), Level::Warn);
            return;
        }
        self.told = true;
        console::say(
            &format!("find-medium: no device carries build {build} after {waited} s; {left} s until {then}"),
            Level::Warn,
        );
        for remark in self.seen.values() {
            console::say(&format!("find-medium: seen {remark}"), Level::Warn);
        }
        if self.seen.is_empty() {
            console::say("find-medium: no block device has appeared", Level::Warn);
        }
        console::say("find-medium: plug the right stick in, the boot goes on by itself", Level::Warn);
        // A reader or disk that was not ready when it was looked at first.
        self.devices.rescan();
    }

    fn is_asked_for(&self, device: &BlockDevice) -> bool {
        let has = |wanted: &str, field: fn(&crate::superblock::Superblock) -> &str| {
            device.superblock.as_ref().is_some_and(|superblock| field(superblock).eq_ignore_ascii_case(wanted))
        };
        match &self.options.medium {
            None => true,
            Some(Selector::Device(name)) => {
                *name == device.name
                    || device.place == format!("device-mapper {}", name.strip_prefix("mapper/").unwrap_or(name))
                    || name.contains('/') && device.place == format!("device-mapper {}", lvm::NAME)
            }
            Some(Selector::Label(label)) => {
                device.superblock.as_ref().is_some_and(|superblock| superblock.label == *label)
            }
            Some(Selector::Uuid(uuid)) => has(uuid, |superblock| &superblock.uuid),
            Some(Selector::PartUuid(uuid)) => device.part_uuid().is_some_and(|own| own.eq_ignore_ascii_case(uuid)),
            Some(Selector::Removable) => device.removable,
        }
    }

    /// Decides what a device is, and mounts it if it is the medium.
    fn consider(&mut self, device: BlockDevice) -> Result<Finding> {
        if let (Content::Other("LVM2 member"), Some(volume)) = (&device.content, self.volume.as_mut()) {
            self.devices.driver("dm_mod")?;
            let group = volume.add(&device)?;
            return Ok(Finding::Not(format!("{device}, {group}")));
        }
        if !self.is_asked_for(&device) {
            let wanted = self.options.medium.as_ref().map(ToString::to_string).unwrap_or_default();
            return Ok(Finding::Not(format!("{device}: passed over, because sino.medium={wanted} was given")));
        }
        if self.is_ours(&device) {
            let device = self.first_of(device);
            let device = self.narrowed(device);
            return self.whole(device).map(|medium| Finding::Medium(Box::new(medium)));
        }
        if let Content::Volume(volume) = &device.content {
            let other = if volume.is_sino() { self.another_release() } else { String::new() };
            return Ok(Finding::Not(format!("{device}{other}")));
        }
        if let (Some(file), true) = (self.iso.clone(), carrier::may_hold_file(&device)) {
            let mapped = device.place == format!("device-mapper {}", lvm::NAME);
            if file.volume.is_none() || mapped {
                return self.in_file(device, &file.path);
            }
        }
        if carrier::may_hold_copy(&device) {
            return self.as_copy(device);
        }
        Ok(Finding::Not(device.to_string()))
    }

    fn is_ours(&self, device: &BlockDevice) -> bool {
        matches!(&device.content, Content::Volume(volume) if volume.is_sino() && volume.set_id == self.manifest.build_id)
    }

    fn another_release(&self) -> String {
        format!(", another release than this initramfs ({}, build {})", self.manifest.version, self.manifest.build_id)
    }

    /// Of all devices with this build that are there by now, the one that hangs first; the others are kept in reserve. The
    /// same stick is taken on every boot, whichever answers first.
    fn first_of(&mut self, device: BlockDevice) -> BlockDevice {
        let mut best = device;
        let deadline = Instant::now() + EARLIER_PORT;
        loop {
            let pending = block_device::is_one_pending_before(&best.order);
            let until = if pending { deadline } else { Instant::now() };
            match self.devices.next(until) {
                Some(Event::Block(other)) if self.is_ours(&other) && self.is_asked_for(&other) => {
                    let other = *other;
                    if other.disk == best.disk {
                        continue;
                    }
                    let (first, second) = if other.order < best.order { (other, best) } else { (best, other) };
                    best = first;
                    if !self.spare.iter().any(|spare| spare.disk == second.disk) {
                        self.spare.push(second);
                    }
                }
                Some(Event::Gone(name)) => {
                    self.spare.retain(|spare| spare.name != name);
                    self.backlog.push_back(Event::Gone(name));
                }
                Some(event) => self.backlog.push_back(event),
                None => return best,
            }
        }
    }

    /// The partition of a stick that holds the medium, when the stick as a whole looks like it, too: the kernel lets nobody
    /// mount the stick's other partitions while the whole stick is mounted. The partitions are known by the time that the
    /// kernel announces the disk.
    fn narrowed(&self, disk: BlockDevice) -> BlockDevice {
        if matches!(self.options.medium, Some(Selector::Device(_))) {
            return disk;
        }
        let partitions = block_device::partitions(&disk.name);
        let mut found = partitions.iter().filter_map(|name| block_device::look(name));
        found.find(|device| self.is_ours(device)).unwrap_or(disk)
    }

    /// The medium is the whole device.
    fn whole(&self, device: BlockDevice) -> Result<Medium> {
        if let Content::Volume(volume) = &device.content {
            let there = block_device::size(&device.disk).unwrap_or(device.size).max(device.size);
            ensure!(
                there >= volume.bytes,
                "it has {} MiB of the image's {} MiB: the medium is half written, or smaller than the image",
                there >> 20,
                volume.bytes.div_ceil(1 << 20)
            );
        }
        let image = self.open(&format!("/dev/{}", device.name))?;
        Ok(self.medium(device, image, Vec::new()))
    }

    fn medium(&self, device: BlockDevice, image: OwnedFd, below: Vec<Hold>) -> Medium {
        let mut holds = vec![Hold::Mount(layout::MEDIUM.to_owned())];
        holds.extend(below);
        if device.place == format!("device-mapper {}", lvm::NAME) {
            holds.push(Hold::Mapper(lvm::NAME.to_owned()));
        }
        Medium { device, image, path: format!("{}/{}", layout::MEDIUM, self.manifest.root.path), holds }
    }

    /// The ISO as a file on the device.
    fn in_file(&self, device: BlockDevice, path: &str) -> Result<Finding> {
        let Some((volume, loop_device)) = carrier::open_file(&device, path, self.devices)? else {
            if carrier::may_hold_copy(&device) {
                return self.as_copy(device);
            }
            return Ok(Finding::Not(format!("{device}, without a file {path}")));
        };
        let opened = if volume.is_sino() && volume.set_id == self.manifest.build_id {
            self.open(&loop_device)
        } else if volume.is_sino() {
            let other = self.another_release();
            Err(anyhow!("its {path} is SINO {}, build {}{other}", volume.version(), volume.set_id))
        } else {
            Err(anyhow!("its {path} is {:?}, not SINO", volume.volume_id))
        };
        match opened {
            Ok(image) => {
                let below = vec![Hold::Loop(loop_device), Hold::Mount(layout::CARRIER.to_owned())];
                Ok(Finding::Medium(Box::new(self.medium(device, image, below))))
            }
            Err(error) => {
                loop_device::detach(&loop_device)?;
                mounts::release(layout::CARRIER)?;
                Err(error)
            }
        }
    }

    /// The ISO's content as files on the device.
    fn as_copy(&self, device: BlockDevice) -> Result<Finding> {
        let Some(build) = carrier::open_copy(&device, self.devices)? else {
            return Ok(Finding::Not(device.to_string()));
        };
        let opened = if build == self.manifest.build_id {
            self.open_image()
        } else {
            Err(anyhow!("it holds the files of build {build}{}", self.another_release()))
        };
        match opened {
            Ok(image) => Ok(Finding::Medium(Box::new(self.medium(device, image, Vec::new())))),
            Err(error) => {
                mounts::release(layout::MEDIUM)?;
                Err(error)
            }
        }
    }

    fn explain(&self, cause: anyhow::Error) -> Fault {
        let mut fault = Fault::from(cause);
        if self.seen.is_empty() {
            fault = fault.seen(format!("no block device at all; {} drivers were loaded", self.devices.loaded()));
        }
        for remark in self.seen.values() {
            fault = fault.seen(remark);
        }
        for failure in self.devices.failures() {
            fault = fault.seen(failure);
        }
        fault
    }

    fn found(&self, medium: Medium, record: &mut BootRecord) -> Done<Medium> {
        let device = &medium.device;
        let is_file = medium.holds.iter().any(|hold| matches!(hold, Hold::Loop(_)));
        let file = match &self.iso {
            Some(file) if is_file => format!(", file {file}"),
            _ => String::new(),
        };
        let place = match &self.volume {
            Some(volume) if device.place == format!("device-mapper {}", lvm::NAME) => volume.to_string(),
            _ => device.place.clone(),
        };
        let mut detail = format!("{place} {}{file}", device.name);
        for spare in &self.spare {
            // Writing to a String cannot fail.
            let _ = write!(detail, "; {} ({}) carries the same build and is not used", spare.name, spare.place);
        }
        match stick_config::keep(&medium, self.devices) {
            Ok(None) => {}
            Ok(Some(place)) => {
                let _ = write!(detail, ", sino.toml from {place}");
            }
            Err(error) => {
                let text = format!("the configuration on the medium is not used: {error:#}");
                console::say(&format!("warning: {text}"), Level::Warn);
                record.warnings.push(text);
            }
        }
        record.medium = Some(record::Medium {
            device: device.name.clone(),
            description: format!("{place}{file}"),
            build_id: record.build_id.clone(),
            ..record::Medium::default()
        });
        done(medium, detail)
    }

    /// Mounts the ISO on a block device and opens the root image on it.
    fn open(&self, source: &str) -> Result<OwnedFd> {
        self.devices.driver("isofs")?;
        let attributes = carrier::READ_ONLY;
        // The names are Rock Ridge's; for Joliet's the kernel would ask for a character set, which is a module more.
        let options = &[("nojoliet", "")];
        mounts::mount(&Mount { fs: "iso9660", source, target: layout::MEDIUM, attributes, options })?;
        self.open_image().inspect_err(|_| {
            // The next device with this build needs the place; a mount that stays is reported by its own error.
            let _ = mounts::release(layout::MEDIUM);
        })
    }

    fn open_image(&self) -> Result<OwnedFd> {
        let root = &self.manifest.root;
        let path = format!("{}/{}", layout::MEDIUM, root.path);
        let image = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("opening the root image {}", root.path))?;
        let size = rustix::fs::fstat(&image).context("asking for the root image's length")?.st_size;
        ensure!(
            u64::try_from(size) == Ok(root.size),
            "the root image {} has {size} bytes instead of {}: the medium is half written or damaged",
            root.path,
            root.size
        );
        Ok(image)
    }
}

/// What Ventoy says of this boot. On EFI machines that is a variable, and the variables need a driver.
fn ventoys_file(devices: &Devices) -> Option<ventoy::Handover> {
    if std::path::Path::new("/sys/firmware/efi").exists()
        && let Err(error) = devices.driver("efivarfs")
    {
        // There is still the ACPI table.
        log::debug!("Ventoy's EFI variable cannot be looked for: {error:#}");
    }
    ventoy::handover()
}
