//! Swap on the volumes of the group that are meant for it.

use super::lvm::Group;
use super::mounts::unescaped;
use super::shell::word;
use super::srv::probe;
use super::tools::{Call, SHORT};
use super::{Host, Problem};
use crate::config::schema;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use sino_boot::stage::{Done, Fault, done, not_requested};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A swap area in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Swap {
    /// Its device.
    pub device: String,
    /// Bytes.
    pub size: u64,
    /// Whether it was in use before.
    pub before: bool,
}

/// Puts to use: the volume of the settings' name if it is a swap area, and each swap area of the group that has this
/// name as its label. What is in use already is kept; none is no fault.
///
/// # Errors
/// There are areas, and none could be put to use.
pub fn enable(host: Host<'_>, settings: &schema::Storage, group: &Group) -> Result<Done<Vec<Swap>>, Fault> {
    let (swaps, problems) = attempt(host, settings, group)?;
    if swaps.is_empty() && !problems.is_empty() {
        return Err(super::fault(&problems));
    }
    if swaps.is_empty() {
        return Ok(not_requested(swaps));
    }
    let bytes: u64 = swaps.iter().map(|swap| swap.size).sum();
    let names = swaps.iter().map(|swap| swap.device.as_str()).collect::<Vec<_>>().join(", ");
    let problem = problems.first().map(|problem| format!("; {}", problem.what)).unwrap_or_default();
    Ok(done(swaps, format!("{names}, {} MiB{problem}", bytes >> 20)))
}

/// As [`enable`], with the problems of single areas beside what is in use.
///
/// # Errors
/// The kernel's list of swap areas or the group's volumes cannot be read.
pub fn attempt(host: Host<'_>, settings: &schema::Storage, group: &Group) -> anyhow::Result<(Vec<Swap>, Vec<Problem>)> {
    let (mut swaps, mut problems) = (Vec::new(), Vec::new());
    let active: Vec<_> = group.volumes.iter().filter(|volume| volume.active).collect();
    if active.is_empty() {
        return Ok((swaps, problems));
    }
    let on = in_use(host)?;
    for volume in active {
        let device = group.device(&volume.name);
        let path = host.path(&device);
        let named = volume.name == settings.swap;
        // A group may have hundreds of volumes: blkid is asked of few. (Of several at once it stops at the first that is
        // empty.)
        if !named && !looks_like_swap(&path) {
            continue;
        }
        let found = match probe(host, &path) {
            Ok(found) => found,
            Err(error) => {
                problems.push(Problem::new(
                    format!("{device} is not used for swap: {error:#}"),
                    "dmesg tells of a disk that fails; wipefs shows what is on it",
                ));
                continue;
            }
        };
        let get = |name: &str| found.get(name).map(String::as_str).unwrap_or_default();
        if get("TYPE") != "swap" {
            if named {
                problems.push(not_swap(&device, get("TYPE")));
            }
            continue;
        }
        if !named && get("LABEL") != settings.swap {
            continue;
        }
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let before = on.iter().any(|used| *used == real || *used == path);
        if !before {
            let priority = settings.swap_priority.unwrap_or_default().to_string();
            let mut words = vec!["swapon"];
            if settings.swap_priority.is_some() {
                words.extend(["--priority", &priority]);
            }
            let path = path.display().to_string();
            words.push(&path);
            let answer = host.tools.text(&Call::new(&words, SHORT));
            if let Err(error) = answer {
                problems.push(Problem::new(
                    format!("{device} is not used for swap: {error:#}"),
                    format!(
                        "dmesg says more; mkswap -L {} {} makes it anew (only if no guest uses it)",
                        word(&settings.swap),
                        word(&device)
                    ),
                ));
                continue;
            }
        }
        swaps.push(Swap { device, size: volume.size, before });
    }
    Ok((swaps, problems))
}

fn not_swap(device: &str, content: &str) -> Problem {
    if content.is_empty() {
        return Problem::new(
            format!("{device} holds no swap area"),
            format!("if it is new: mkswap {}; then: srv start", word(device)),
        );
    }
    Problem::new(
        format!("{device} is not used for swap: it holds {content}"),
        "nothing, if it is a guest's; else name another volume as storage.swap in sino.toml",
    )
}

/// Whether the first page ends with the mark of a swap area; see mkswap(8).
fn looks_like_swap(device: &Path) -> bool {
    let mut mark = [0_u8; 10];
    File::open(device).is_ok_and(|file| file.read_exact_at(&mut mark, 4086).is_ok()) && mark == *b"SWAPSPACE2"
}

/// The swap areas in use; see `proc_swaps(5)`.
///
/// # Errors
/// The kernel's list cannot be read.
pub fn in_use(host: Host<'_>) -> anyhow::Result<Vec<PathBuf>> {
    let path = host.path("/proc/swaps");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let name = |line: &str| line.split_ascii_whitespace().next().map(unescaped);
    Ok(text.lines().skip(1).filter_map(name).map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fake::{Fake, file, root};
    use crate::storage::lvm::Volume;

    fn group(names: &[&str]) -> Group {
        let volume = |name: &&str| Volume { name: (*name).into(), size: 8 << 20, active: true };
        Group { name: "xvg".into(), volumes: names.iter().map(volume).collect(), ..Group::default() }
    }

    /// The volume's device, with or without the mark of a swap area.
    fn device(root: &Path, name: &str, mark: &str) {
        file(root, &format!("dev/xvg/{name}"), &format!("{}{mark}", "\0".repeat(4086)));
    }

    const SWAP: &str = "UUID=a\nLABEL=swap\nTYPE=swap\n";

    #[test]
    fn areas_of_the_name_and_of_the_label_are_used_and_no_other() {
        let root = root();
        let at = root.path().to_str().unwrap();
        for (name, mark) in [("swap", "SWAPSPACE2"), ("more", "SWAPSPACE2"), ("guest-swap", "SWAPSPACE2"), ("xvol", "")]
        {
            device(root.path(), name, mark);
        }
        let guest = Box::leak(format!("blkid -p -o export {at}/dev/xvg/guest-swap").into_boxed_str());
        let fake = Fake::default()
            .answer(guest, 0, "LABEL=guest\nTYPE=swap\n", "")
            .answer("blkid", 0, SWAP, "")
            .answer("swapon", 0, "", "");
        let settings = schema::Storage { swap_priority: Some(7), ..schema::Storage::default() };
        let group = group(&["swap", "more", "guest-swap", "xvol"]);
        let (swaps, problems) = attempt(Host::new(&fake, at), &settings, &group).unwrap();
        let names: Vec<_> = swaps.iter().map(|swap| swap.device.as_str()).collect();
        assert_eq!((names, problems), (vec!["/dev/xvg/swap", "/dev/xvg/more"], vec![]));
        assert!(fake.executed(&format!("swapon --priority 7 {at}/dev/xvg/swap")) && !fake.executed("xvg/xvol"));
        assert_eq!(fake.log.borrow().iter().filter(|line| line.starts_with("swapon")).count(), 2);
    }

    #[test]
    fn what_is_in_use_is_kept_and_what_is_no_swap_is_left_alone() {
        let root = root();
        let at = root.path().to_str().unwrap();
        file(root.path(), "proc/swaps", &format!("Filename\tType\n{at}/dev/xvg/swap\tpartition\t8\t0\t-2\n"));
        let fake = Fake::default().answer("blkid", 0, SWAP, "");
        let (swaps, _) = attempt(Host::new(&fake, at), &schema::Storage::default(), &group(&["swap"])).unwrap();
        assert!(swaps[0].before && !fake.executed("swapon"));
        let fake = Fake::default().answer("blkid", 0, "TYPE=ext4\n", "");
        let (swaps, problems) = attempt(Host::new(&fake, at), &schema::Storage::default(), &group(&["swap"])).unwrap();
        assert!(swaps.is_empty() && problems[0].what.contains("it holds ext4"), "{problems:?}");
        assert!(!fake.executed("swapon"));
        let fake = Fake::default();
        assert!(enable(Host::new(&fake, at), &schema::Storage::default(), &group(&[])).is_ok());
    }
}
