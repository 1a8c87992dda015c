//! What keeps `/srv` from being unmounted, and how to end each.

use super::mounts::{self, Mounted};
use super::shell::word;
use super::{Host, disk, swap};
use anyhow::Result;
use std::fs;
use std::path::Path;

/// At most so many files of one process are named.
const SHOWN: usize = 3;

/// Something that holds the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What it is.
    pub what: String,
    /// How to end it.
    pub end: String,
}

/// All that holds something below `folder`: processes, loop devices, swap files and mounts. This process is left out.
///
/// # Errors
/// The kernel's tables cannot be read.
pub fn of(host: Host<'_>, folder: &str) -> Result<Vec<Holder>> {
    let mut holders = below(&mounts::table(host)?, folder);
    for path in swap::in_use(host)? {
        let path = path.display().to_string();
        if inside(&path, folder) {
            holders.push(Holder { what: format!("the swap file {path}"), end: format!("swapoff {}", word(&path)) });
        }
    }
    holders.extend(loops(host, folder));
    holders.extend(processes(host, folder));
    Ok(holders)
}

/// Whether a path is the folder or below it; as /proc tells it, with ` (deleted)` behind a file that has no name.
fn inside(path: &str, folder: &str) -> bool {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn below(table: &[Mounted], folder: &str) -> Vec<Holder> {
    let mounts = table.iter().filter(|mount| mount.target != folder && inside(&mount.target, folder));
    mounts
        .map(|mount| Holder {
            what: format!("{} is mounted on {}", mount.source, mount.target),
            end: format!("umount {}", word(&mount.target)),
        })
        .collect()
}

fn loops(host: Host<'_>, folder: &str) -> Vec<Holder> {
    let Ok(entries) = fs::read_dir(host.path("/sys/class/block")) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with("loop"));
    names.sort();
    let holder = |name: &String| {
        let file = disk::attribute(host, name, "loop/backing_file");
        inside(&file, folder).then(|| match guest_of(host, &disk::attribute(host, name, "dev")) {
            Some(domain) => Holder {
                what: format!("the guest with domain number {domain} has {file} as its disk (/dev/{name})"),
                end: format!("xl shutdown -w {domain}"),
            },
            None => Holder {
                what: format!("the loop device /dev/{name} uses {file}"),
                end: format!("umount {0}; losetup -d {0}", word(&format!("/dev/{name}"))),
            },
        })
    };
    names.iter().filter_map(holder).collect()
}

/// The number of the guest whose disk is the block device with this number (`7:0`). The kernel's block backend tells it
/// in hexadecimal.
fn guest_of(host: Host<'_>, number: &str) -> Option<String> {
    let (major, minor) = number.split_once(':')?;
    let hex = format!("{:x}:{:x}", major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
    let entries = fs::read_dir(host.path("/sys/bus/xen-backend/devices")).ok()?;
    let found = entries
        .flatten()
        .find(|entry| fs::read_to_string(entry.path().join("physical_device")).is_ok_and(|text| text.trim() == hex))?;
    // vbd-DOMAIN-DEVICE
    found.file_name().to_string_lossy().split('-').nth(1).map(str::to_owned)
}

fn processes(host: Host<'_>, folder: &str) -> Vec<Holder> {
    let Ok(entries) = fs::read_dir(host.path("/proc")) else { return Vec::new() };
    let own = std::process::id();
    let mut pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.retain(|pid| *pid != own);
    pids.sort_unstable();
    pids.into_iter().filter_map(|pid| process(&host.path("/proc").join(pid.to_string()), pid, folder)).collect()
}

fn process(proc: &Path, pid: u32, folder: &str) -> Option<Holder> {
    let mut files = Vec::new();
    for (link, word) in [("cwd", "works in"), ("root", "has its root in"), ("exe", "executes")] {
        let target = fs::read_link(proc.join(link)).unwrap_or_default().display().to_string();
        if inside(&target, folder) {
            files.push(format!("{word} {target}"));
        }
    }
    for entry in fs::read_dir(proc.join("fd")).into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        if inside(&target, folder) {
            push(&mut files, format!("has {target} open"));
        }
    }
    for line in fs::read_to_string(proc.join("maps")).unwrap_or_default().lines() {
        // ADDRESS PERMISSIONS OFFSET DEVICE INODE PATH
        let path = line.split_ascii_whitespace().nth(5).and_then(|word| line.find(word).and_then(|at| line.get(at..)));
        if path.is_some_and(|path| inside(path, folder)) {
            push(&mut files, format!("maps {}", path.unwrap_or_default()));
        }
    }
    if files.is_empty() {
        return None;
    }
    let more = files.len().saturating_sub(SHOWN);
    files.truncate(SHOWN);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let name = fs::read_to_string(proc.join("comm")).unwrap_or_default().trim().to_owned();
    let list = files.join(", ");
    Some(match guest_name(proc, &name) {
        Some(guest) => Holder {
            what: format!("the guest {guest} (process {pid}, {name}) {list}{more}"),
            end: format!("xl shutdown -w {}", word(&guest)),
        },
        None => Holder { what: format!("process {pid} ({name}) {list}{more}"), end: format!("kill {pid}") },
    })
}

fn push(files: &mut Vec<String>, what: String) {
    if !files.contains(&what) {
        files.push(what);
    }
}

/// The guest whose device model the process is: QEMU's option `-name`.
fn guest_name(proc: &Path, name: &str) -> Option<String> {
    if !name.starts_with("qemu") {
        return None;
    }
    let line = fs::read(proc.join("cmdline")).ok()?;
    let mut words = line.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    words.find(|word| word == "-name")?;
    let value = words.next()?.into_owned();
    let value = value.split(',').next().unwrap_or_default();
    Some(value.strip_prefix("guest=").unwrap_or(value).to_owned()).filter(|guest| !guest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fake::{Fake, file, root};
    use std::os::unix::fs::symlink;

    #[test]
    fn each_kind_of_holder_is_named_with_the_way_to_end_it() {
        let (root, fake) = (root(), Fake::default());
        let at = root.path();
        let line = "9 1 0:9 / /srv/iso ro - tmpfs tmpfs rw\n8 1 7:9 / /srv rw - ext4 /dev/x rw\n7 1 0:7 / /srvx rw - tmpfs t rw\n";
        file(at, "proc/self/mountinfo", line);
        file(at, "proc/swaps", "Filename\n/srv/swapfile file 8 0 -2\n");
        for (name, image) in [("loop3", "/srv/a.img"), ("loop4", "/srv/b.img"), ("loop5", "/home/c.img")] {
            file(at, &format!("sys/class/block/{name}/loop/backing_file"), &format!("{image}\n"));
        }
        file(at, "sys/class/block/loop4/dev", "7:20\n");
        file(at, "sys/bus/xen-backend/devices/vbd-5-51712/physical_device", "7:14\n");
        file(at, "proc/77/comm", "bash\n");
        file(at, "proc/77/maps", "7f00-7f01 r-xp 00000000 07:09 12         /srv/lib x.so (deleted)\n");
        symlink("/srv", at.join("proc/77/cwd")).unwrap();
        file(at, "proc/88/comm", "qemu-system-i38\n");
        file(at, "proc/88/cmdline", "qemu-system-i386\0-xen-domid\09\0-name\0mail,debug\0");
        fs::create_dir_all(at.join("proc/88/fd")).unwrap();
        symlink("/srv/disks/mail.raw", at.join("proc/88/fd/12")).unwrap();
        let holders = of(Host::new(&fake, at.to_str().unwrap()), "/srv").unwrap();
        let expected = [
            ("tmpfs is mounted on /srv/iso", "umount /srv/iso"),
            ("the swap file /srv/swapfile", "swapoff /srv/swapfile"),
            ("the loop device /dev/loop3 uses /srv/a.img", "umount /dev/loop3; losetup -d /dev/loop3"),
            ("the guest with domain number 5 has /srv/b.img as its disk (/dev/loop4)", "xl shutdown -w 5"),
            ("process 77 (bash) works in /srv, maps /srv/lib x.so (deleted)", "kill 77"),
            ("the guest mail (process 88, qemu-system-i38) has /srv/disks/mail.raw open", "xl shutdown -w mail"),
        ];
        let found: Vec<_> = holders.iter().map(|holder| (holder.what.as_str(), holder.end.as_str())).collect();
        assert_eq!(found, expected);
    }
}
