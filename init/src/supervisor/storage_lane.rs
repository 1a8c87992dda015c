//! The storage lane: devices, the volume group, `/srv`, swap, and the identity that is kept there.

use super::lane::{self, Lane};
use super::own_network;
use super::{News, Sender};
use crate::config::{Layers, Loaded, Severity};
use crate::dhcp::lease::Lease;
use crate::identity::access::{self, AccessState};
use crate::identity::{self, Item, Occasion, Store};
use crate::network::flags;
use crate::storage::lvm::Group;
use crate::storage::srv::State;
use crate::storage::state::{self, StorageState};
use crate::storage::{Host, lvm, lvm_config, srv, swap};
use crate::udev;
use anyhow::{Context, Result, anyhow};
use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use sino_boot::layout;
use sino_boot::stage::{Done, Fault, done};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How long udev may take for the devices that were there when the lane began; one that takes longer is late.
const SETTLES_WITHIN: Duration = Duration::from_secs(25);
/// How long devices may keep coming after the first, before they are looked at.
const QUIET: Duration = Duration::from_millis(500);

/// What the lane found.
#[derive(Debug)]
pub struct Found {
    /// The configuration with all its layers.
    pub loaded: Loaded,
    /// Group, `/srv` and swap.
    pub storage: StorageState,
    /// Who may log in.
    pub access: AccessState,
    /// Leases that were kept.
    pub leases: BTreeMap<String, Lease>,
    /// What should be kept and could not be.
    pub unsaved: Vec<Item>,
}

/// Runs the lane, and tells the supervisor; then waits for a group that was not there, and does it again.
pub fn run(boot: bool, news: &Sender) {
    let mut lane = Lane::new(super::STORAGE, "storage ", 5, boot);
    // From the first driver to the last volume: what udevd has begun waits for what udevd does next.
    let held = udev::hold().inspect_err(|error| log::warn!("{error:#}")).ok().filter(|held| boot && !held.late);
    lane.step("devices", || devices(boot));
    let events = Events::subscribe();
    once(&mut lane, news, held);
    let mut events = match events {
        Ok(events) => events,
        Err(error) => return log::warn!("disks that come later are not noticed: {error:#}"),
    };
    // Only what says nothing twice: a lane of its own, in the log.
    while needs_more() {
        if let Err(error) = events.wait() {
            return log::warn!("disks that come later are not noticed: {error:#}");
        }
        // Not while a command is at work: what comes then is its own.
        if needs_more() && may_be_complete() && state::claim(Host::this()).is_ok() {
            lane::say("a disk came: looking for the volume group again", Level::Info);
            once(&mut Lane::new(super::STORAGE, "storage ", 5, false), news, None);
        }
    }
}

fn devices(boot: bool) -> Result<Done<()>, Fault> {
    if !boot {
        return Ok(done((), "known"));
    }
    // Before udevd, which activates what is complete as soon as it sees it.
    let group = load(false).config.storage.group;
    let kept_to = lvm_config::keep_to(Host::this(), &group);
    let started = udev::start()?;
    if let Err(error) = kept_to {
        log::warn!("LVM may activate other groups than {group}: {error:#}");
    }
    let settled = udev::settle(SETTLES_WITHIN)?;
    if !settled {
        return Err(Fault::from(anyhow!("udev is still busy after {} s", SETTLES_WITHIN.as_secs()))
            .seen("some disk or controller answers slowly")
            .hint("its volumes come when it answers: this goes on waiting; udevadm monitor, dmesg"));
    }
    Ok(started)
}

/// Whether the group or `/srv` could still come, as far as the last look tells.
fn needs_more() -> bool {
    StorageState::load(Host::this())
        .is_ok_and(|state| state.group.uuid.is_none() || state.group.volumes.iter().any(|volume| !volume.active))
}

/// Whether the group is there now and was not, by a short look.
fn may_be_complete() -> bool {
    let known = StorageState::load(Host::this()).unwrap_or_default();
    let Ok((found, _)) = lvm::scan(Host::this()) else { return false };
    found.iter().any(|group| group.name == known.group.name)
}

fn once(lane: &mut Lane, news: &Sender, held: Option<udev::Held>) {
    let before = load(false);
    let settings = before.config.storage.clone();
    let host = Host::this();
    let mut storage = StorageState::default();
    {
        // Whoever activates volumes waits for udev's word, so udevd must not go meanwhile.
        let _claim = state::claim(host).inspect_err(|error| log::warn!("{error:#}"));
        let held = udev::secure(held);
        if let Err(error) = &held {
            lane.warn(&format!("{error:#}; volumes may lack their links below /dev"));
        }
        let group = lane.step("volume-group", || lvm::activate(host, &settings));
        drop(held);
        udev::end_left();
        storage.group = group.unwrap_or_else(|| Group { name: settings.group.clone(), ..Group::default() });
        for problem in &storage.group.problems {
            lane.warn(&problem.to_string());
        }
        lane.step("srv", || {
            let say = |line: &str| lane::say(&format!("srv: {line}"), Level::Info);
            storage.srv = srv::attempt(host, &settings, &storage.group, &say);
            storage.srv.clone().outcome()
        });
        if storage.srv.state != State::Failed {
            for problem in &storage.srv.problems {
                lane.warn(&problem.to_string());
            }
        }
        lane.step("swap", || {
            let (swaps, problems) = swap::attempt(host, &settings, &storage.group)?;
            let names: Vec<&str> = swaps.iter().map(|swap| swap.device.as_str()).collect();
            let detail = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            (storage.swaps, storage.swap_problems) = (swaps, problems);
            Ok(done((), detail))
        });
        for problem in &storage.swap_problems {
            lane.warn(&problem.to_string());
        }
        if let Err(error) = storage.save(host) {
            log::warn!("{error:#}");
        }
    }
    let mut problems = Vec::new();
    let found = lane.step("identity", || {
        let (host, said) = identity(&storage);
        problems = said;
        let detail = host.summary();
        Ok(done(host, detail))
    });
    for problem in problems {
        lane.warn(&problem);
    }
    if let Some(found) = found {
        news.send(News::Storage(Box::new(found)));
    }
}

impl Found {
    fn summary(&self) -> String {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let kept = match self.storage.srv.state {
            State::Mounted | State::ReadOnly => format!("from {}", layout::SRV_STATE),
            State::Absent | State::Stopped | State::Failed => "the image's own: nothing is kept".to_owned(),
        };
        format!("{name}, {kept}")
    }
}

/// Where sshd leaves its number once it has read its configuration; before that there is nothing to read again.
const SSHD: &str = "/run/sshd.pid";

/// Puts the host's identity in place and reads the whole configuration. Returns what there is to say of them, too.
pub fn identity(storage: &StorageState) -> (Found, Vec<String>) {
    let mounted = matches!(storage.srv.state, State::Mounted | State::ReadOnly);
    let loaded = load(mounted);
    let mut problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    let (root, store) = (Path::new("/"), Store::on_host());
    let restored = identity::restore(root, &store, &loaded.config);
    problems.extend(restored.problems);
    let access = access::apply(root, &loaded.config.access);
    problems.extend(access.problems.iter().cloned());
    let mut leases = BTreeMap::new();
    let mut unsaved = Vec::new();
    if restored.store_was_there {
        match known_leases(&store) {
            Ok((known, said)) => {
                leases = known;
                problems.extend(said);
            }
            Err(error) => problems.push(format!("{error:#}")),
        }
        if storage.srv.state == State::Mounted {
            let saved = identity::save(root, &store, &loaded.config, &Item::ALL, Occasion::Start);
            unsaved.extend(saved.failed.iter().map(|(item, _)| *item));
            problems.extend(saved.failed.into_iter().map(|(item, why)| format!("{item} is not kept: {why}")));
        }
    }
    if Path::new(layout::HANDED_OVER).exists() {
        if restored.needs_ssh_restart {
            super::systemctl(&["try-restart", "ssh.service"]);
        } else if access.changed && Path::new(SSHD).exists() {
            super::systemctl(&["try-reload-or-restart", "ssh.service"]);
        }
    }
    if !loaded.config.network.managed {
        let changed = restored.items.iter().any(|item| item.item == Item::NetworkFiles && item.changed);
        problems.extend(own_network::begin(root, &loaded.config.network, changed));
    }
    (Found { loaded, storage: storage.clone(), access, leases, unsaved }, problems)
}

pub(super) fn known_leases(store: &Store) -> Result<(BTreeMap<String, Lease>, Vec<String>)> {
    let (values, mut said) = store.leases().context("reading the leases that are kept")?;
    let mut leases = BTreeMap::new();
    for (bridge, value) in values {
        match serde_json::from_value(value) {
            Ok(lease) => drop(leases.insert(bridge, lease)),
            Err(error) => said.push(format!("the lease of {bridge:?} that is kept is not used: {error}")),
        }
    }
    Ok((leases, said))
}

/// The configuration; with the layer of `/srv` only when that is mounted.
#[must_use]
pub fn load(with_srv: bool) -> Loaded {
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let (tables, warnings) = flags::from_command_line(&command_line);
    let extra = tables.map(|table| (table, "ip= or sino.net=".to_owned())).into_iter().collect();
    let mut loaded = Layers::load(Path::new("/"), &command_line, with_srv, extra);
    loaded.problems.extend(warnings.into_iter().map(|text| crate::config::Problem {
        severity: Severity::Warning,
        file: "kernel flags".to_owned(),
        line: 0,
        column: 0,
        key: String::new(),
        text,
    }));
    loaded
}

/// The kernel's events of block devices.
struct Events(rustix::fd::OwnedFd);

impl Events {
    fn subscribe() -> Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(KOBJECT_UEVENT))
            .context("opening the socket for the kernel's events")?;
        // Group 1 is the kernel's own; source: lib/kobject_uevent.c.
        bind(&socket, &SocketAddrNetlink::new(0, 1)).context("subscribing to the kernel's events")?;
        Ok(Self(socket))
    }

    /// Waits for a block device, until there was none for a moment, and until udev has seen to them.
    fn wait(&mut self) -> Result<()> {
        let mut buffer = vec![0; 16 << 10];
        let mut came = false;
        loop {
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            let quiet = Timespec::try_from(QUIET).ok().filter(|_| came);
            match poll(&mut fds, quiet.as_ref()) {
                Ok(0) => break,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error).context("waiting for the kernel's events"),
            }
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((_, length)) => {
                    let text = buffer.get(..length).unwrap_or_default();
                    let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
                    // Not a change, which is somebody who writes to a disk that has been there; and not what udevadm asks the
                    // kernel to announce again. Source: Documentation/ABI/testing/sysfs-uevent.
                    let is_new = has(b"ACTION=add\0") && !has(b"SYNTH_UUID=");
                    came |= has(b"SUBSYSTEM=block\0") && is_new && !has(b"DEVNAME=dm-");
                }
                // Events were lost: perhaps one of them.
                Err(rustix::io::Errno::NOBUFS) => came = true,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("receiving the kernel's events"),
            }
        }
        // At worst the look comes too early, and the next event brings another.
        let _ = udev::settle(SETTLES_WITHIN);
        Ok(())
    }
}
