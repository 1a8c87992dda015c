//! Finds and activates the volume group, and says what is wrong with it.

use super::lvm_report::{FULL_REPORT, Found, Lv, copies, parse};
use super::shell::{self, word};
use super::tools::{ACTIVATE, Call, LONG, Output, SHORT};
use super::{Host, Problem, disk, lvm_config, plan};
use crate::config::schema;
use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use sino_boot::stage::{Done, Fault, done};

/// The volume group of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its UUID; `None` when there is no such group, or none that may be used.
    pub uuid: Option<String>,
    /// Bytes in all.
    pub size: u64,
    /// Bytes that no volume had when it was found.
    pub free: u64,
    /// The devices of its physical volumes.
    pub disks: Vec<String>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// A logical volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Whether its device is there.
    pub active: bool,
}

impl Group {
    /// A volume of the group, by name.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// The path of a volume's device.
    #[must_use]
    pub fn device(&self, volume: &str) -> String {
        format!("/dev/{}/{volume}", self.name)
    }
}

/// Finds the group by one reading of all disks, activates what is complete, and waits for the devices. No such group is
/// no fault: a new host has none. What is wrong with a part is a problem of the group, and the rest goes on.
///
/// # Errors
/// LVM's program is missing, hangs, or says nothing that can be understood.
pub fn activate(host: Host<'_>, settings: &schema::Storage) -> Result<Done<Group>, Fault> {
    attempt(host, settings).map(|(group, detail)| done(group, detail))
}

/// As [`activate`], with the words for the console beside the group.
///
/// # Errors
/// As [`activate`].
pub fn attempt(host: Host<'_>, settings: &schema::Storage) -> Result<(Group, String), Fault> {
    plan::valid("storage.group", &settings.group)
        .map_err(|error| Fault::from(error).hint("correct it in sino.toml"))?;
    let mut group = Group { name: settings.group.clone(), ..Group::default() };
    match lvm_config::keep_to(host, &settings.group) {
        Ok(problem) => group.problems.extend(problem),
        Err(error) => group.problems.push(Problem::new(
            format!("LVM is not kept to the group {}: {error:#}", settings.group),
            "other groups may be activated by udev; see that /etc/lvm can be written",
        )),
    }
    let (found, warnings) = scan(host)?;
    let Some(found) = choose(host, &mut group, found) else {
        let detail = match group.problems.last() {
            Some(problem) => format!("not used: {}", problem.what),
            None => format!("no volume group {}; sino disk prepare makes one on an empty disk", group.name),
        };
        return Ok((group, detail));
    };
    group.uuid = Some(found.uuid.clone());
    (group.size, group.free) = (found.size, found.free);
    group.disks = found.disks.iter().filter(|disk| !disk.missing()).map(|disk| disk.device.clone()).collect();
    let before = found.volumes.iter().filter(|lv| lv.active()).count();
    let activated = if found.volumes.iter().all(|lv| lv.active() || !lv.has_device()) {
        Output { code: Some(0), ..Output::default() }
    } else {
        host.tools.run(&Call::new(&["lvm", "vgchange", "-ay", "--select", &select(&found.uuid)], ACTIVATE))?
    };
    devices(host, &mut group, &found, &activated);
    copied_disks(&mut group, &found, &copies(&format!("{warnings}{}", activated.err)));
    missing_disks(&mut group, &found);
    let active = group.volumes.iter().filter(|volume| volume.active).count();
    let mut detail = format!("{}: {active} of {} volumes active", group.name, group.volumes.len());
    if before > 0 {
        detail = format!("{detail} ({before} were before)");
    }
    if let Some(problem) = group.problems.first() {
        detail = format!("{detail}; {}", problem.what);
    }
    Ok((group, detail))
}

/// LVM's selection of one group, whatever its name.
fn select(uuid: &str) -> String {
    format!("vg_uuid={uuid}")
}

/// All groups of the machine, and LVM's warnings.
///
/// # Errors
/// As [`activate`].
pub fn scan(host: Host<'_>) -> Result<(Vec<Found>, String), Fault> {
    let output = host
        .tools
        .run(&Call::new(&FULL_REPORT, LONG))
        .context("looking for volume groups")
        .map_err(|error| Fault::from(error).hint("lvm fullreport, in a shell, shows where it hangs or fails"))?;
    // A group that cannot be read makes the exit code 5, and the others are reported.
    let groups = parse(&output.out)
        .map_err(|error| Fault::from(error).seen(output.said()).hint("try by hand: lvm vgs; lvm pvs"))?;
    if groups.is_empty() && !output.succeeded() {
        return Err(
            Fault::from(anyhow!("LVM cannot read the disks: {}", output.said())).hint("try by hand: lvm pvs -a")
        );
    }
    Ok((groups, output.err))
}

/// The group to activate, or none with the reason among the problems.
fn choose(host: Host<'_>, group: &mut Group, found: Vec<Found>) -> Option<Found> {
    let name = group.name.clone();
    let mut same: Vec<Found> = found.into_iter().filter(|found| found.name == name).collect();
    if same.len() > 1 {
        let list = same.iter().map(describe).collect::<Vec<_>>().join(" and ");
        let inner = |found: &Found| !found.disks.iter().any(|pv| pv.missing() || disk::removable(host, &pv.device));
        let many = same.len();
        let rename = "give the other one a new name: vgrename UUID NEWNAME (with the UUID, not the name)";
        let (inside, outside): (Vec<Found>, Vec<Found>) = same.into_iter().partition(inner);
        if inside.len() != 1 {
            group.problems.push(Problem::new(
                format!("{many} volume groups are called {name}: {list}; none is activated"),
                format!("unplug the wrong one, or {rename}; then: srv start"),
            ));
            return None;
        }
        let left = outside.iter().map(|found| found.uuid.as_str()).collect::<Vec<_>>().join(", ");
        group.problems.push(Problem::new(
            format!(
                "{many} volume groups are called {name}: {list}; the one on built-in disks is taken, not {left}, which \
                 is on a removable or incomplete disk"
            ),
            rename,
        ));
        same = inside;
    }
    let found = same.pop()?;
    if found.exported {
        group.problems.push(Problem::new(
            format!("the volume group {name} is exported: it was made ready to move to another machine"),
            format!("vgimport {}; then: srv start", word(&name)),
        ));
        return None;
    }
    if !found.system.is_empty() && foreign(host, &found) {
        group.problems.push(Problem::new(
            format!("the volume group {name} belongs to the system \"{}\"", found.system),
            format!(
                "if this host takes it over: vgchange --yes --config {} --systemid '' {}; then: srv start",
                word(&format!("global/system_id_source=\"lvmlocal\" local/system_id=\"{}\"", found.system)),
                word(&name)
            ),
        ));
        return None;
    }
    Some(found)
}

/// Whether LVM on this host refuses a group that names a system: without `--foreign` it is not listed then.
fn foreign(host: Host<'_>, found: &Found) -> bool {
    let selection = select(&found.uuid);
    let call = Call::new(&["lvm", "vgs", "--noheadings", "-o", "vg_uuid", "--select", &selection], LONG);
    !host.tools.run(&call).is_ok_and(|output| output.out.contains(&found.uuid))
}

/// A group as it is named among others of its name.
fn describe(found: &Found) -> String {
    let disks = found.disks.iter().map(|disk| disk.device.as_str()).collect::<Vec<_>>().join(", ");
    format!("{} on {disks}", found.uuid)
}

fn missing_disks(group: &mut Group, found: &Found) {
    let missing: Vec<&str> = found.disks.iter().filter(|disk| disk.missing()).map(|disk| disk.uuid.as_str()).collect();
    if missing.is_empty() {
        return;
    }
    let (degraded, off): (Vec<&Lv>, Vec<&Lv>) = found
        .volumes
        .iter()
        .filter(|lv| lv.partial())
        .partition(|lv| group.volume(&lv.name).is_some_and(|volume| volume.active));
    let names = |volumes: &[&Lv]| volumes.iter().map(|lv| lv.name.as_str()).collect::<Vec<_>>().join(", ");
    let off = if off.is_empty() { "no volume is off".to_owned() } else { format!("off: {}", names(&off)) };
    let degraded =
        if degraded.is_empty() { String::new() } else { format!("; on, with a part missing: {}", names(&degraded)) };
    // It is the cause of others.
    let problem = Problem::new(
        format!(
            "{} of {} disks of the volume group {} missing ({}); {off}{degraded}",
            missing.len(),
            found.disks.len(),
            if missing.len() == 1 { format!("{} is", group.name) } else { format!("{} are", group.name) },
            missing.join(", ")
        ),
        format!(
            "connect the disk, then: srv start; if it is gone for good, vgreduce --removemissing {} drops it (and with \
             --force the volumes that need it)",
            word(&group.name)
        ),
    );
    group.problems.insert(0, problem);
}

fn copied_disks(group: &mut Group, found: &Found, copies: &[(String, String)]) {
    for (device, uuid) in copies {
        let Some(used) = found.disks.iter().find(|disk| disk.uuid == *uuid) else { continue };
        let problem = Problem::new(
            format!("{device} is a copy of {}: both are the physical volume {uuid}", used.device),
            format!(
                "LVM activates nothing new while both are there: unplug the one that is not needed, or hide it \
                 (devices/global_filter in /etc/lvm/lvm.conf), or wipefs --all it; then: srv start (vgimportclone keeps \
                 both as different groups, {device} as the copy)"
            ),
        );
        group.problems.insert(0, problem);
    }
}

/// Waits for the volumes' devices, and names what has none.
fn devices(host: Host<'_>, group: &mut Group, found: &Found, activated: &Output) {
    let wanted: Vec<&Lv> = found.volumes.iter().filter(|lv| lv.has_device() && !lv.skipped()).collect();
    let there = |lv: &Lv| host.path(&group.device(&lv.name)).exists();
    if activated.succeeded() && !wanted.iter().all(|lv| there(lv)) {
        // vgchange waits for udev; what a udev that was just started still has in its queue, settle waits for.
        let _ = host.tools.run(&Call::new(&["udevadm", "settle", "--timeout=20"], SHORT));
        if !wanted.iter().all(|lv| there(lv)) {
            let _ = host.tools.run(&Call::new(&["lvm", "vgmknodes", &group.name], LONG));
        }
    }
    let volumes = found.volumes.iter().filter(|lv| lv.has_device()).map(|lv| Volume {
        name: lv.name.clone(),
        size: lv.size(),
        active: there(lv),
    });
    let volumes: Vec<Volume> = volumes.collect();
    let blamed: Vec<&Lv> = wanted.into_iter().filter(|lv| !there(lv) && !lv.partial()).collect();
    group.volumes = volumes;
    // One problem for all volumes of a kind: the reason is the same for each.
    let mut kinds: Vec<Option<&str>> = blamed.iter().map(|lv| kind(lv)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for of in kinds {
        let names: Vec<&str> = blamed.iter().filter(|lv| kind(lv) == of).map(|lv| lv.name.as_str()).collect();
        group.problems.push(off(&group.name, &names, of, activated));
    }
}

/// What a volume needs beyond plain mapping.
fn kind(lv: &Lv) -> Option<&'static str> {
    ["thin", "cache", "vdo", "raid", "writecache", "integrity"]
        .into_iter()
        .find(|kind| lv.layout.split(',').any(|word| word.starts_with(kind)))
}

/// Why volumes that are complete are off.
fn off(group: &str, names: &[&str], kind: Option<&str>, activated: &Output) -> Problem {
    let why = if activated.succeeded() {
        "LVM reported success, but there is no device".to_owned()
    } else {
        activated.said()
    };
    let paths = names.iter().map(|name| format!("{group}/{name}")).collect::<Vec<_>>();
    let (list, words) = (paths.join(", "), shell::words(paths.iter().map(String::as_str)));
    let of = kind.map(|kind| format!(" ({kind})")).unwrap_or_default();
    let todo = match kind {
        Some("thin" | "cache") => {
            format!(
                "see that thin_check is installed (thin-provisioning-tools), then: lvchange -ay {words}; a pool that fails its \
                 check: lvconvert --repair {}/POOL (read lvmthin(7) first)",
                word(group)
            )
        }
        Some(kind) => {
            format!("see that the kernel has the module dm-{kind} (modprobe dm-{kind}), then: lvchange -ay {words}")
        }
        None => format!("try: lvchange -ay {words}; dmesg and lvs -a say more"),
    };
    Problem::new(format!("not active: {list}{of}: {why}"), todo)
}

#[cfg(test)]
#[path = "lvm_tests.rs"]
mod tests;
