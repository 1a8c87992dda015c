//! Brings `/srv` up: recognises its file system, has it checked, mounts it, and says what is wrong.
//!
//! What cannot be repaired safely is mounted read-only or not at all, with the command to run by hand; nothing is
//! repaired by force.

use super::lvm::Group;
use super::mounts::{self, Mount};
use super::shell::word;
use super::tools::{Call, SHORT};
use super::{Host, Problem, disk, ext, fault};
use crate::config::schema;
use anyhow::{Result, bail};
use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};
use sino_boot::layout;
use sino_boot::stage::{Done, Fault, done};
use std::collections::BTreeMap;
use std::path::Path;

/// How the warnings of a full file system begin.
const ROOM: [&str; 3] = ["/srv is full", "/srv is nearly full", "/srv has hardly any room"];
/// Above this many percent of use a warning is given.
const NEARLY_FULL: u64 = 95;

/// Whether `/srv` can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// There is no such volume: a new host.
    #[default]
    Absent,
    /// It is mounted.
    Mounted,
    /// It is mounted and cannot be written.
    ReadOnly,
    /// It could not be mounted.
    Failed,
    /// It was unmounted by `srv stop`.
    Stopped,
}

/// What is known of `/srv`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Srv {
    /// Whether it can be used.
    pub state: State,
    /// Its device.
    pub device: String,
    /// Its file system's type; empty if it is not known.
    pub fs: String,
    /// What is to be said of it: what was corrected, or why it is absent.
    pub note: String,
    /// What is wrong with it; the first is why it failed.
    pub problems: Vec<Problem>,
}

impl Srv {
    /// As the end of a step: a failure is a fault.
    ///
    /// # Errors
    /// [`State::Failed`].
    pub fn outcome(self) -> Result<Done<Self>, Fault> {
        let what = format!("{} ({}) on {}", self.device, self.fs, layout::SRV);
        let note = if self.note.is_empty() { String::new() } else { format!("; {}", self.note) };
        let detail = match self.state {
            State::Failed => return Err(fault(&self.problems)),
            State::Absent | State::Stopped => self.note.clone(),
            State::Mounted => format!("{what}{note}"),
            State::ReadOnly => format!("{what} READ-ONLY{note}"),
        };
        Ok(done(self, detail))
    }
}

/// Mounts `/srv` from its volume of `group`; see [`attempt`].
///
/// # Errors
/// The volume is there and cannot be mounted.
pub fn bring_up(
    host: Host<'_>,
    settings: &schema::Storage,
    group: &Group,
    progress: &dyn Fn(&str),
) -> Result<Done<Srv>, Fault> {
    attempt(host, settings, group, progress).outcome()
}

/// Mounts `/srv` and tells how it went, a failure too. `progress` gets lines of a long check. What is mounted already
/// is kept.
pub fn attempt(host: Host<'_>, settings: &schema::Storage, group: &Group, progress: &dyn Fn(&str)) -> Srv {
    let mut srv = Srv { device: group.device(&settings.srv), ..Srv::default() };
    match mounts::on(host, layout::SRV) {
        Ok(Some(mounted)) => return kept(srv, mounted),
        Ok(None) => {}
        Err(error) => return failed(srv, Problem::new(format!("{error:#}"), "see that /proc is mounted")),
    }
    let Some(volume) = group.volume(&settings.srv) else {
        srv.note = absent(group, &settings.srv);
        return srv;
    };
    if !volume.active {
        let path = format!("{}/{}", group.name, volume.name);
        let blamed = group.problems.iter().find(|problem| problem.what.contains(&volume.name));
        let known = blamed.or_else(|| group.problems.first()).cloned();
        let Problem { what, todo } = known
            .unwrap_or_else(|| Problem::new("LVM did not say why", format!("lvchange -ay {}; srv start", word(&path))));
        return failed(srv, Problem::new(format!("the volume {path} for /srv is not active: {what}"), todo));
    }
    mount(host, settings, srv, progress)
}

fn absent(group: &Group, volume: &str) -> String {
    if group.uuid.is_some() {
        let path = format!("{}/{volume}", group.name);
        return format!(
            "no volume {path}; to make it: lvcreate -n {} -L 20G {}; mkfs.ext4 {}; srv start",
            word(volume),
            word(&group.name),
            word(&format!("/dev/{path}"))
        );
    }
    format!("no volume group {} in use, so nothing is kept beyond this boot", group.name)
}

/// `/srv` as it is mounted already: the supervisor was started again, or fstab has it.
fn kept(mut srv: Srv, mounted: mounts::Mounted) -> Srv {
    srv.state = if mounted.read_only { State::ReadOnly } else { State::Mounted };
    (srv.device, srv.fs) = (mounted.source, mounted.fs);
    "it was mounted before".clone_into(&mut srv.note);
    if mounted.read_only {
        srv.problems.push(read_only(&srv.device, &srv.fs));
    }
    fullness(&mut srv, Path::new(layout::SRV));
    srv
}

fn read_only(device: &str, fs: &str) -> Problem {
    let repair = if fs == "xfs" { "xfs_repair" } else { "e2fsck -f" };
    Problem::new(
        "/srv is mounted read-only: guests whose disks are files on it cannot write".to_owned(),
        format!("dmesg says why; then: srv stop; {repair} {}; srv start", word(device)),
    )
}

fn failed(mut srv: Srv, problem: Problem) -> Srv {
    srv.state = State::Failed;
    srv.problems.insert(0, problem);
    srv
}

/// What `blkid -p` finds on a device: names and values. Nothing on it: none.
///
/// # Errors
/// The device cannot be read, or carries the signatures of several things at once.
pub fn probe(host: Host<'_>, device: &Path) -> Result<BTreeMap<String, String>> {
    let path = device.display().to_string();
    let output = host.tools.run(&Call::new(&["blkid", "-p", "-o", "export", &path], SHORT))?;
    match output.code {
        Some(0) => {}
        Some(2) if output.err.trim().is_empty() => return Ok(BTreeMap::new()),
        Some(8) => bail!("{path} carries the signatures of several file systems (see: wipefs {path})"),
        _ => bail!("reading {path}: {}", output.said()),
    }
    Ok(pairs(&output.out))
}

/// Reads blkid's `NAME=VALUE` lines.
#[must_use]
pub fn pairs(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.replace('\\', "")));
    text.lines().filter_map(pair).collect()
}

fn mount(host: Host<'_>, settings: &schema::Storage, mut srv: Srv, progress: &dyn Fn(&str)) -> Srv {
    let device = host.path(&srv.device);
    let found = match probe(host, &device) {
        Ok(found) => found,
        Err(error) => {
            return failed(
                srv,
                Problem::new(format!("{error:#}"), "dmesg tells of a disk that fails; wipefs shows what is on it"),
            );
        }
    };
    srv.fs = found.get("TYPE").cloned().unwrap_or_default();
    match srv.fs.as_str() {
        "ext2" | "ext3" | "ext4" => mount_ext(host, settings, srv, &device, progress),
        "xfs" => mount_xfs(host, srv, &device),
        "" => {
            let problem = nothing(&srv.device, &device);
            failed(srv, problem)
        }
        other => {
            let problem = Problem::new(
                format!("{} holds {other}, and /srv can be ext4, ext3, ext2 or xfs", srv.device),
                "name another volume as storage.srv in sino.toml, or mount it by hand",
            );
            failed(srv, problem)
        }
    }
}

/// What to say of a volume on which no file system is recognised: a new one, or a destroyed one.
fn nothing(path: &str, device: &Path) -> Problem {
    match ext::spare_superblock(device) {
        Some((block, size)) => Problem::new(
            format!(
                "the superblock of the file system on {path} is destroyed, a copy of it is at block {block}; nothing was written"
            ),
            format!(
                "look first: e2fsck -n -b {block} -B {size} {0}; to repair: e2fsck -b {block} -B {size} {0}; then: srv start",
                word(path)
            ),
        ),
        None => Problem::new(
            format!("no file system is recognised on {path}"),
            format!(
                "if it is new: mkfs.ext4 {0}; srv start. If it held something, write nothing to it (e2fsck -n -b 32768 {0} \
                 looks for a lost ext4)",
                word(path)
            ),
        ),
    }
}

fn mount_ext(host: Host<'_>, settings: &schema::Storage, mut srv: Srv, device: &Path, progress: &dyn Fn(&str)) -> Srv {
    if disk::attribute(host, &disk::kernel_name(host, &srv.device), "ro") == "1" {
        srv.problems.push(Problem::new(
            format!("the device is read-only, and so is /srv: {}", srv.device),
            format!("lvs shows whether the volume is (lvchange -pw {}), dmesg whether the disk is", word(&srv.device)),
        ));
        return mount_first(host, srv, device, &[(true, &[]), (true, &["noload"])]);
    }
    if settings.check {
        match ext::check(host, device, progress) {
            Ok(ext::Checked::Sound(note)) => srv.note = note,
            Ok(ext::Checked::Corrected(said)) => {
                srv.note = format!("its file system had errors, which were corrected: {said}");
            }
            Ok(ext::Checked::Bad(said)) => {
                srv.problems.push(ext::to_repair(Path::new(&srv.device), &said));
                return mount_first(host, srv, device, &[(true, &[]), (true, &["noload"])]);
            }
            Err(error) => srv
                .problems
                .push(Problem::new(format!("{} is not checked: {error:#}", srv.device), "install e2fsprogs")),
        }
    }
    let safe: &[&str] = &["errors=remount-ro"];
    mount_first(host, srv, device, &[(false, safe), (true, &[]), (true, &["noload"])])
}

fn mount_xfs(host: Host<'_>, srv: Srv, device: &Path) -> Srv {
    // The mount itself replays the log.
    mount_first(host, srv, device, &[(false, &[]), (true, &[]), (true, &["norecovery"])])
}

/// Mounts in the first of these ways (read-only or not, options) that the kernel takes.
fn mount_first(host: Host<'_>, mut srv: Srv, device: &Path, ways: &[(bool, &[&str])]) -> Srv {
    let target = host.path(layout::SRV);
    let mut words = Vec::new();
    for &(read_only, options) in ways {
        let fs = srv.fs.clone();
        match host.tools.mount(&Mount { device, fs: &fs, target: &target, read_only, options }) {
            Ok(()) => {
                srv.state = if read_only { State::ReadOnly } else { State::Mounted };
                if read_only {
                    srv.problems.extend(refusal(&srv, &words));
                    if let Some(option) = options.first() {
                        srv.note = format!("mounted with {option}: what its journal held is not there");
                    }
                }
                fullness(&mut srv, &target);
                return srv;
            }
            Err(error) => words.push(format!("{error:#}")),
        }
    }
    let problem = refusal(&srv, &words).unwrap_or_default();
    let what = format!("{} cannot be mounted, read-only neither: {}", srv.device, problem.what);
    failed(srv, Problem::new(what, problem.todo))
}

/// Why the kernel refused to mount it for writing.
fn refusal(srv: &Srv, words: &[String]) -> Option<Problem> {
    let first = words.first()?;
    let look = if srv.fs == "xfs" { "xfs_repair -n" } else { "e2fsck -n -f" };
    let repair = if srv.fs == "xfs" { "xfs_repair" } else { "e2fsck -f" };
    Some(Problem::new(
        format!("the kernel refuses it: {first}"),
        format!("srv stop; {look} {0} shows the damage, {repair} {0} repairs it; srv start", word(&srv.device)),
    ))
}

/// Looks again whether a mounted `/srv` has room: what was said of that before may be so no longer.
pub fn look_at_room(host: Host<'_>, srv: &mut Srv) {
    if matches!(srv.state, State::Mounted | State::ReadOnly) {
        let of_room = |problem: &Problem| ROOM.iter().any(|words| problem.what.starts_with(words));
        srv.problems.retain(|problem| !of_room(problem));
        fullness(srv, &host.path(layout::SRV));
    }
}

/// Warns of a file system that is full; the texts begin with one of [`ROOM`].
fn fullness(srv: &mut Srv, target: &Path) {
    let Ok(facts) = statvfs(target) else { return };
    let percent = |free: u64, all: u64| 100_u64.saturating_sub(free.saturating_mul(100) / all.max(1));
    let (used, files) = (percent(facts.f_bavail, facts.f_blocks), percent(facts.f_favail, facts.f_files));
    let grow = format!(
        "see df -h /srv and delete something, or make it larger while it is in use: lvextend --resizefs -L +10G {}",
        word(&srv.device)
    );
    if facts.f_bavail == 0 && facts.f_blocks > 0 {
        srv.problems.push(Problem::new("/srv is full", grow));
    } else if used >= NEARLY_FULL && facts.f_blocks > 0 {
        srv.problems.push(Problem::new(format!("/srv is nearly full: {used} % are used"), grow));
    } else if files >= NEARLY_FULL && facts.f_files > 0 {
        srv.problems.push(Problem::new(
            format!("/srv has hardly any room for files: {files} % of them are in use"),
            "see df -i /srv, and delete files that are not needed",
        ));
    }
}

#[cfg(test)]
#[path = "srv_tests.rs"]
mod tests;
