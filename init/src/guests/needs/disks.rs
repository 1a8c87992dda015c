//! Disks: whether they are there, and whether two guests, or a guest and the host, would write to one.

use super::files::{Kind, Seen};
use super::{Found, Host};
use crate::guests::budget::Candidate;
use crate::guests::xl_config::{Access, Disk, Format};
use std::collections::HashMap;
use std::io::ErrorKind;

/// Where xl looks for scripts without a slash.
const SCRIPTS: &str = "/etc/xen/scripts";

/// What a disk is on the host, whatever path leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backing {
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A file: number of its device, and inode.
    File(u64, u64),
}

impl Backing {
    /// Of a file that was looked at; `None` for what cannot be a disk.
    #[must_use]
    pub fn of(seen: &Seen) -> Option<Self> {
        match seen.kind {
            Kind::Block { major, minor } => Some(Self::Block(major, minor)),
            Kind::File { device, inode } => Some(Self::File(device, inode)),
            Kind::Folder | Kind::Other => None,
        }
    }
}

/// A disk that a running domain has, from the xenstore (`backend/vbd/DOMAIN/DEVICE`: `params`, `mode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The domain's name.
    pub domain: String,
    /// Path of the device or file.
    pub path: String,
    /// Whether it may write (`mode` is `w`).
    pub writable: bool,
}

/// Who has a disk.
#[derive(Clone, Debug)]
struct Owner {
    name: String,
    runs: bool,
    writable: bool,
    shares: Shares,
}

/// Whether others may write to the disk too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shares {
    No,
    /// `w!`.
    Said,
    /// qemu serves it by request, and so Xen's block script does not look at it: the one way of xl's to share a disk.
    Qdisk,
}

/// Who has which disk.
pub(super) struct Claims<'a> {
    host: Host<'a>,
    taken: HashMap<Backing, Vec<Owner>>,
    /// What is mounted or swapped to on the host: where, and whether it is written.
    mounted: HashMap<Backing, (String, bool)>,
}

impl<'a> Claims<'a> {
    pub(super) fn new(host: Host<'a>, running: &[Use]) -> Self {
        let mut taken: HashMap<_, Vec<_>> = HashMap::new();
        for Use { domain, path, writable } in running {
            let Some(backing) = host.files.see(path).ok().as_ref().and_then(Backing::of) else { continue };
            let owner = Owner { name: domain.clone(), runs: true, writable: *writable, shares: Shares::No };
            taken.entry(backing).or_default().push(owner);
        }
        Self { host, taken, mounted: mounted(host) }
    }

    /// The guest has its disks from now on.
    pub(super) fn take(&mut self, guest: &Candidate<'_>) {
        for disk in &guest.config.disks {
            let seen = disk.path().and_then(|path| self.host.files.see(&path).ok());
            let Some(backing) = seen.as_ref().and_then(Backing::of) else { continue };
            let writable = disk.access != Access::Read;
            let owner = Owner { name: guest.name.to_owned(), runs: guest.running, writable, shares: shares(disk) };
            self.taken.entry(backing).or_default().push(owner);
        }
    }

    /// Checks a guest's disks against the host and against all that has been taken.
    pub(super) fn check(&self, guest: &Candidate<'_>, found: &mut Found) {
        for disk in &guest.config.disks {
            script(self.host, disk, found);
            let Some(path) = disk.path() else { continue };
            match self.host.files.see(&path) {
                Ok(seen) => {
                    self.fit(disk, &path, &seen, found);
                    if let Some(backing) = Backing::of(&seen) {
                        self.free(guest.name, disk, &path, backing, found);
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound => missing(self.host, disk, &path, found),
                Err(error) => {
                    let what = format!("disk {path} cannot be looked at: {error}");
                    found.refuse(disk.line, &what, "correct the path in its disk");
                }
            }
        }
    }

    /// Whether it is what a disk must be.
    fn fit(&self, disk: &Disk, path: &str, seen: &Seen, found: &mut Found) {
        let line = disk.line;
        let phy = disk.backendtype.as_deref() == Some("phy");
        match seen.kind {
            Kind::Folder | Kind::Other => {
                return found.refuse(
                    line,
                    &format!("disk {path} is neither a block device nor a file"),
                    "correct the path in its disk",
                );
            }
            Kind::File { .. } if seen.path.starts_with("/dev/") => {
                let what = format!("disk {path} is a file in /dev and no device; whatever wrote it missed the device");
                return found.refuse(line, &what, &format!("rm {path}, then: lvs, lsblk"));
            }
            Kind::File { .. } if phy => {
                let what = format!("disk {path} is a file, which backendtype=phy does not serve");
                return found.refuse(line, &what, "leave backendtype out");
            }
            Kind::File { .. } if disk.prefix.as_deref() == Some("phy") => {
                found.warn(
                    line,
                    &format!("disk {path} is a file and no block device, despite phy:"),
                    "file: or no prefix",
                );
            }
            Kind::Block { .. } if phy && !matches!(disk.format, Format::Raw | Format::Empty) => {
                let what = format!("disk {path} has a format other than raw, which backendtype=phy does not serve");
                return found.refuse(line, &what, "leave backendtype out, or format=raw");
            }
            Kind::File { .. } | Kind::Block { .. } => {}
        }
        let read_only = match seen.kind {
            Kind::Block { major, minor } => {
                let text = self.host.files.read(&format!("/sys/dev/block/{major}:{minor}/ro"));
                text.is_ok_and(|text| text.trim() == "1")
            }
            _ => !seen.writable,
        };
        if read_only && disk.access != Access::Read {
            let what = format!("disk {path} cannot be written, and the guest is to write to it");
            found.refuse(
                line,
                &what,
                "access r in its disk, or make it writable (lvchange -prw, chmod u+w, mount -o remount,rw)",
            );
        }
    }

    /// Whether nobody has it whom the guest would harm, or who would harm the guest.
    fn free(&self, guest: &str, disk: &Disk, path: &str, backing: Backing, found: &mut Found) {
        let writes = disk.access != Access::Read;
        if let Some((place, written)) = self.mounted.get(&backing)
            && (writes || *written)
        {
            let what = format!("disk {path} is in use by this host itself ({place})");
            return found.refuse(disk.line, &what, &format!("end that ({place}), or another disk in the guest's file"));
        }
        let others = self.taken.get(&backing).into_iter().flatten();
        let Some(other) = others.filter(|other| other.name != guest).find(|other| writes || other.writable) else {
            return;
        };
        let name = &other.name;
        let both = if other.runs { "the running domain" } else { "the guest" };
        let what = format!(
            "disk {path} of {guest} is also that of {both} {name}, and {}",
            match (writes, other.writable) {
                (true, true) => "both write to it",
                (true, false) => "it would be written while the other reads it",
                _ => "the other writes to it",
            }
        );
        // What a running domain has been allowed to share cannot be seen of it.
        let shared = match (shares(disk), other.shares) {
            (Shares::No, _) => false,
            (mine, theirs) => mine == theirs || other.runs,
        };
        if shared {
            found.warn(disk.line, &what, "nothing, if the file system on it is made for that (OCFS2, GFS2)");
        } else {
            let remedy = "a disk of its own; or access r for both; or, with a file system made for sharing, backendtype=qdisk for both";
            found.refuse(disk.line, &what, remedy);
        }
    }
}

fn shares(disk: &Disk) -> Shares {
    match (disk.access, disk.backendtype.as_deref()) {
        (Access::SharedWrite, _) => Shares::Said,
        (_, Some("qdisk")) => Shares::Qdisk,
        _ => Shares::No,
    }
}

/// A script that is to make the device.
fn script(host: Host<'_>, disk: &Disk, found: &mut Found) {
    let Some(script) = disk.script.as_deref().filter(|script| !script.is_empty()) else { return };
    let path = if script.starts_with('/') { script.to_owned() } else { format!("{SCRIPTS}/{script}") };
    if !host.files.see(&path).is_ok_and(|seen| matches!(seen.kind, Kind::File { .. }) && seen.executable) {
        let what = format!("the script {path} of disk {} is not there, or no program", disk.target);
        found.refuse(
            disk.line,
            &what,
            "install what it belongs to (drbd-utils, open-iscsi, nbd-client), or correct its name",
        );
    }
}

/// Says why a disk is not there.
fn missing(host: Host<'_>, disk: &Disk, path: &str, found: &mut Found) {
    let line = disk.line;
    let Some((group, volume)) = logical_volume(host, path) else {
        if path.starts_with("/dev/") {
            return found.refuse(
                line,
                &format!("disk {path} does not exist"),
                "lvs and lsblk show what there is; correct its disk",
            );
        }
        return found.refuse(
            line,
            &format!("disk {path} does not exist"),
            "correct the path, or make the image (truncate -s 10G FILE)",
        );
    };
    let known = host.groups.iter().find(|known| known.name == group);
    let active =
        known.and_then(|known| known.volumes.iter().find(|known| known.name == volume)).map(|known| known.active);
    match (known, active) {
        (Some(_), Some(false)) => {
            let what = format!("disk {path}: the logical volume {volume} of {group} is there, but not active");
            found.refuse(line, &what, &format!("lvchange -ay {group}/{volume}"));
        }
        (Some(_), Some(true)) => {
            let what =
                format!("disk {path}: the logical volume {volume} of {group} is active, but it has no device node");
            found.refuse(line, &what, "udevadm trigger --settle, or vgscan --mknodes");
        }
        (Some(_), None) => {
            let what = format!("disk {path}: the group {group} has no logical volume {volume}");
            found.refuse(
                line,
                &what,
                &format!("lvs {group} shows those that there are; correct the name, or lvcreate"),
            );
        }
        (None, _) => {
            let groups: Vec<_> = host.groups.iter().map(|group| group.name.as_str()).collect();
            let seen = if groups.is_empty() {
                String::new()
            } else {
                format!(" (groups that are seen: {})", groups.join(", "))
            };
            let what = format!("disk {path} does not exist: no logical volume {volume} of a group {group}{seen}");
            found.refuse(line, &what, "lvs and vgs show what there is; plug in the missing disk, or correct the path");
        }
    }
}

/// Group and volume of `/dev/GROUP/VOLUME` or `/dev/mapper/GROUP-VOLUME`, if the path looks so.
fn logical_volume(host: Host<'_>, path: &str) -> Option<(String, String)> {
    let below = path.strip_prefix("/dev/")?;
    let (folder, name) = below.split_once('/')?;
    if name.is_empty() || name.contains('/') {
        return None;
    }
    if folder != "mapper" {
        // A folder that is there and no group: disk, input and the like.
        let devices = [
            "disk", "block", "bus", "char", "cpu", "dri", "input", "loop", "md", "net", "nbd", "pts", "shm", "snd",
            "zvol",
        ];
        let known = host.groups.iter().any(|group| group.name == folder);
        return (known || !devices.contains(&folder)).then(|| (folder.to_owned(), name.to_owned()));
    }
    // The device mapper writes a hyphen within a name twice.
    let mut characters = name.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if character == '-' && characters.next_if(|(_, next)| *next == '-').is_none() {
            let (group, volume) = name.split_at_checked(at)?;
            return Some((group.replace("--", "-"), volume.strip_prefix('-')?.replace("--", "-")));
        }
    }
    None
}

/// What the host itself has mounted (proc(5), mountinfo) or swaps to.
fn mounted(host: Host<'_>) -> HashMap<Backing, (String, bool)> {
    let mut mounted: HashMap<_, (String, bool)> = HashMap::new();
    let text = host.files.read("/proc/self/mountinfo").unwrap_or_default();
    for line in text.lines() {
        let fields: Vec<_> = line.split(' ').take(6).collect();
        let [_, _, device, _, place, options] = fields.as_slice() else { continue };
        let Some((major, minor)) = device.split_once(':') else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        // A mount may be read-only where its file system is not.
        let of_all = line.rsplit(' ').next().unwrap_or_default();
        let written =
            !(options.split(',').any(|option| option == "ro") && of_all.split(',').any(|option| option == "ro"));
        let entry =
            mounted.entry(Backing::Block(major, minor)).or_insert_with(|| (format!("mounted on {place}"), false));
        entry.1 |= written;
    }
    let text = host.files.read("/proc/swaps").unwrap_or_default();
    for path in text.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        if let Some(backing) = host.files.see(path).ok().as_ref().and_then(Backing::of) {
            mounted.insert(backing, ("swap".into(), true));
        }
    }
    mounted
}
