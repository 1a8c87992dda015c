//! `sino disk prepare`: makes the volume group on a disk, with `/srv` and swap, and shows each command before.
//!
//! A disk that holds anything is refused unless its name is typed; the boot medium and a disk in use always.

use super::plan::{self, Plan, Wish};
use super::shell::word;
use super::tools::{Call, SHORT};
use super::{Host, disk, lvm, lvm_report, mounts, size, swap};
use crate::config::schema;
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Mode, OFlags};
use sino_boot::layout;
use sino_boot::record::BootRecord;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// What the user asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The disk, as a path.
    pub disk: String,
    /// Bytes for `/srv`.
    pub srv: Option<u64>,
    /// Bytes for swap; 0: none.
    pub swap: Option<u64>,
    /// Whether what the disk holds may be erased: `Some("")` asks for the disk's name, `Some(NAME)` is the name.
    pub erase: Option<String>,
    /// Whether an empty disk is taken without a question.
    pub yes: bool,
}

/// Asks the user and returns what was typed; `None` when there is no terminal to ask on.
pub type Ask<'a> = &'a dyn Fn(&str) -> Result<Option<String>>;

/// What was found of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its kernel name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Its maker's name for it.
    pub model: String,
    /// Its partitions.
    pub partitions: Vec<String>,
    /// What it holds.
    pub holds: Vec<String>,
    /// Why it must not be touched, whatever the user says.
    pub in_use: Vec<String>,
}

/// Looks at a disk, and writes nothing.
///
/// # Errors
/// It is no whole disk, or it cannot be read.
pub fn inspect(host: Host<'_>, device: &str) -> Result<Found> {
    ensure!(device.starts_with("/dev/"), "{device} is no device: give a path such as /dev/sdb");
    ensure!(host.path(device).exists(), "there is no {device}; lsblk shows the disks");
    let name = disk::kernel_name(host, device);
    ensure!(disk::folder(host, &name).exists(), "{device} is no block device; lsblk shows the disks");
    let whole = disk::whole(host, &name);
    ensure!(whole == name, "{device} is a partition: give the whole disk, /dev/{whole}, or use pvcreate by hand");
    for kind in ["dm-", "sr", "zram", "ram", "fd"] {
        ensure!(!name.starts_with(kind), "{device} ({name}) is no disk; lsblk shows the disks");
    }
    let sectors: u64 = disk::attribute(host, &name, "size").parse().unwrap_or_default();
    let mut found = Found {
        size: sectors.saturating_mul(512),
        model: disk::attribute(host, &name, "device/model"),
        partitions: disk::partitions(host, &name),
        name,
        ..Found::default()
    };
    ensure!(found.size > 0, "{device} has no medium, or no size");
    found.in_use = uses(host, &found)?;
    found.holds = contents(host, &found)?;
    Ok(found)
}

/// Why the disk must not be touched.
fn uses(host: Host<'_>, found: &Found) -> Result<Vec<String>> {
    let mut uses = Vec::new();
    if disk::attribute(host, &found.name, "ro") == "1" {
        uses.push("it is read-only".to_owned());
    }
    if let Some(device) = boot_medium(host, &found.name)? {
        uses.push(format!("this host was booted from it ({device})"));
    }
    let table = mounts::table(host)?;
    let swaps = swap::in_use(host)?;
    for name in [&found.name].into_iter().chain(&found.partitions) {
        let number = disk::attribute(host, name, "dev");
        for mount in table.iter().filter(|mount| mount.number == number || mount.source == format!("/dev/{name}")) {
            uses.push(format!("{name} is mounted on {}", mount.target));
        }
        let swaps_to =
            |path: &std::path::PathBuf| path.to_str().is_some_and(|path| disk::kernel_name(host, path) == **name);
        if swaps.iter().any(swaps_to) {
            uses.push(format!("{name} is used for swap"));
        }
        for holder in disk::holders(host, name) {
            let label = disk::attribute(host, &holder, "dm/name");
            let label = if label.is_empty() { holder } else { label };
            uses.push(format!("{name} is used by {label} (LVM, RAID or encryption)"));
        }
    }
    if uses.is_empty() {
        // The kernel refuses an exclusive opening of what anybody holds, a partition of it too.
        let path = host.path(&format!("/dev/{}", found.name));
        match rustix::fs::open(&path, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
            Ok(_) => {}
            Err(rustix::io::Errno::BUSY) => uses.push("the kernel says that it is in use".to_owned()),
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        }
    }
    Ok(uses)
}

/// The boot medium's device, if it lies on this disk.
fn boot_medium(host: Host<'_>, name: &str) -> Result<Option<String>> {
    let path = host.path(layout::BOOT_RECORD);
    if !path.exists() {
        return Ok(None);
    }
    let record = BootRecord::load(&path).context("which disk is the boot medium is not known")?;
    let device = record.medium.map(|medium| medium.device).filter(|device| !device.is_empty());
    Ok(device
        .filter(|device| disk::disks_below(host, &disk::kernel_name(host, &format!("/dev/{device}"))).contains(name)))
}

/// What the disk and its partitions hold.
fn contents(host: Host<'_>, found: &Found) -> Result<Vec<String>> {
    let mut holds = Vec::new();
    for name in [&found.name].into_iter().chain(&found.partitions) {
        let path = host.path(&format!("/dev/{name}")).display().to_string();
        let call = Call::new(&["wipefs", "--no-act", "--parsable", "--output", "TYPE,OFFSET,LABEL", &path], SHORT);
        for line in
            host.tools.text(&call)?.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let mut words = line.splitn(3, ',');
            let (kind, _, label) = (words.next().unwrap_or_default(), words.next(), words.next().unwrap_or_default());
            let label = if label.is_empty() { String::new() } else { format!(" \"{label}\"") };
            let what = format!("{name}: {kind}{label}");
            if !holds.contains(&what) {
                holds.push(what);
            }
        }
        if name != &found.name && !holds.iter().any(|what| what.starts_with(&format!("{name}:"))) {
            holds.push(format!("{name}: a partition"));
        }
    }
    if holds.is_empty() && written(host, &found.name)? {
        holds.push(format!("{}: data of a kind that is not known (it may be encrypted)", found.name));
    }
    Ok(holds)
}

/// Whether the beginning or the end of the disk holds anything but zeros: encrypted data has no signature.
fn written(host: Host<'_>, name: &str) -> Result<bool> {
    const LENGTH: usize = 1 << 20;
    let path = host.path(&format!("/dev/{name}"));
    let doing = || format!("reading {}", path.display());
    let file = File::open(&path).with_context(doing)?;
    let mut seeker = &file;
    let size = std::io::Seek::seek(&mut seeker, std::io::SeekFrom::End(0)).with_context(doing)?;
    let length = LENGTH.min(usize::try_from(size).unwrap_or(LENGTH));
    let mut block = vec![0_u8; length];
    for offset in [0, size.saturating_sub(length as u64)] {
        file.read_exact_at(&mut block, offset).with_context(doing)?;
        if block.iter().any(|&byte| byte != 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Prepares a disk: shows what it finds and what it will do by `say`, asks, and does it.
///
/// # Errors
/// The disk or the group's name is refused, the user did not agree, or a command failed; with what was done so far.
pub fn prepare(
    host: Host<'_>,
    settings: &schema::Storage,
    request: &Request,
    ask: Ask<'_>,
    say: &mut dyn FnMut(&str),
) -> Result<Plan> {
    let found = inspect(host, &request.disk)?;
    let path = format!("/dev/{}", found.name);
    ensure!(
        found.in_use.is_empty(),
        "{path} is left alone: {}; a disk in use is never prepared, whatever is typed",
        found.in_use.join(", ")
    );
    let holding = !found.holds.is_empty();
    if holding && request.erase.is_none() {
        bail!(
            "{path} holds something: {}; nothing was written. If it is not needed any more: sino disk prepare {} \
             --erase (asks for the disk's name), or --erase={}",
            found.holds.join(", "),
            word(&path),
            word(&found.name)
        );
    }
    let group = &settings.group;
    let (groups, _) = lvm::scan(host).map_err(|fault| anyhow::anyhow!("{}", fault.cause()))?;
    if let Some(there) = groups.iter().find(|there| there.name == *group) {
        let disks = there.disks.iter().map(|disk| disk.device.as_str()).collect::<Vec<_>>().join(", ");
        bail!(
            "there is a volume group {group} already, on {disks}; to add this disk to it: pvcreate {0}; vgextend {1} {0}; \
             to begin anew, look at lvs {1} and remove it first: vgremove {1}",
            word(&path),
            word(group)
        );
    }
    let wish = Wish {
        disk: found.name.clone(),
        size: found.size,
        partitions: found.partitions.clone(),
        erase: holding,
        srv: request.srv,
        swap: request.swap,
        names: settings.clone(),
    };
    let plan = plan::make(&wish)?;
    for what in found.holds.iter().chain(&lost_groups(host, &found, &groups)) {
        say(&format!("THIS WILL BE LOST: {what}"));
    }
    show(&found, &plan, settings, say);
    agree(&found, request, ask)?;
    // Between the question and the answer the disk may have been mounted, or another one put in its place.
    ensure!(inspect(host, &request.disk)? == found, "{path} changed while the question was open; nothing was written");
    execute(host, &plan, say)?;
    Ok(plan)
}

/// The groups that have a physical volume on the disk, with their volumes.
fn lost_groups(host: Host<'_>, found: &Found, groups: &[lvm_report::Found]) -> Vec<String> {
    let on_disk = |device: &str| {
        let name = disk::kernel_name(host, device);
        name == found.name || found.partitions.contains(&name)
    };
    let lost = groups.iter().filter(|group| group.disks.iter().any(|pv| on_disk(&pv.device)));
    lost.map(|group| {
        let volumes = group.volumes.iter().map(|lv| lv.name.as_str()).collect::<Vec<_>>().join(", ");
        let elsewhere = group.disks.iter().filter(|pv| !on_disk(&pv.device)).count();
        let rest =
            if elsewhere > 0 { format!("; {elsewhere} more of its disks will miss this one") } else { String::new() };
        format!("the volume group {} with the volumes {volumes}{rest}", group.name)
    })
    .collect()
}

fn show(found: &Found, plan: &Plan, settings: &schema::Storage, say: &mut dyn FnMut(&str)) {
    let model = if found.model.is_empty() { String::new() } else { format!(" ({})", found.model) };
    say(&format!("/dev/{}, {}{model}", found.name, size::text(found.size)));
    say(&format!(
        "volume group {}: {} for /srv, {} for swap, {} free for guests",
        settings.group,
        size::text(plan.srv),
        size::text(plan.swap),
        size::text(plan.free)
    ));
    for call in &plan.calls {
        say(&format!("  {}", call.line()));
    }
}

/// Has the user agree.
fn agree(found: &Found, request: &Request, ask: Ask<'_>) -> Result<()> {
    let name = &found.name;
    match request.erase.as_deref() {
        Some(typed) if !typed.is_empty() => {
            ensure!(typed == name, "--erase={typed} does not name the disk, which is {name}; nothing was written");
        }
        Some(_) => match ask(&format!("type the disk's name to erase it ({name}): "))? {
            Some(typed) => ensure!(typed.trim() == name, "{:?} is not {name}; nothing was written", typed.trim()),
            None => {
                bail!("there is no terminal to ask on: --erase={name} says it without a question; nothing was written")
            }
        },
        None if request.yes => {}
        None => match ask("go on? type yes: ")? {
            Some(typed) => ensure!(typed.trim() == "yes", "not confirmed; nothing was written"),
            None => bail!(
                "there is no terminal to ask on: --yes takes an empty disk without a question; nothing was written"
            ),
        },
    }
    Ok(())
}

fn execute(host: Host<'_>, plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<()> {
    for (index, call) in plan.calls.iter().enumerate() {
        // What it waits for is tested by the next command.
        let waits = call.words.first().is_some_and(|word| word == "udevadm");
        match host.tools.text(call) {
            Ok(_) => say(&format!("done: {}", call.line())),
            Err(_) if waits => {}
            Err(error) => {
                let lines = |calls: &[Call]| calls.iter().map(Call::line).collect::<Vec<_>>().join("\n  ");
                let before = plan.calls.get(..index).unwrap_or_default();
                let done = if before.is_empty() { "nothing".to_owned() } else { lines(before) };
                let left = lines(plan.calls.get(index..).unwrap_or_default());
                bail!(
                    "{error:#}\ndone so far:\n  {done}\nleft to do, by hand once the cause is gone:\n  {left}\n  srv start"
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
