//! Swap on the volumes of the group that are meant for it.

use super::lvm::Group;
use super::mounts::unescaped;
use super::srv::pairs;
use super::tools::{Call, LONG, SHORT};
use super::{Host, Problem};
use crate::config::schema;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use sino_boot::stage::{Done, Fault, done, not_requested};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

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
    // One call for all volumes: a group may have hundreds.
    let mut words = vec!["blkid".to_owned(), "-p".to_owned(), "-o".to_owned(), "export".to_owned()];
    words.extend(active.iter().map(|volume| host.path(&group.device(&volume.name)).display().to_string()));
    let output = host.tools.run(&Call { words, input: String::new(), limit: Some(LONG) })?;
    let contents = contents(&output.out);
    for volume in active {
        let device = group.device(&volume.name);
        let path = host.path(&device);
        let found = contents.get(path.display().to_string().as_str());
        let get = |name: &str| found.and_then(|found| found.get(name)).map(String::as_str).unwrap_or_default();
        let named = volume.name == settings.swap;
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
                        "dmesg says more; mkswap -L {} {device} makes it anew (only if no guest uses it)",
                        settings.swap
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
            format!("if it is new: mkswap {device}; then: srv start"),
        );
    }
    Problem::new(
        format!("{device} is not used for swap: it holds {content}"),
        "nothing, if it is a guest's; else name another volume as storage.swap in sino.toml",
    )
}

/// Reads blkid's answer for several devices: blocks that begin with `DEVNAME=`.
fn contents(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let block = |block: &str| {
        let pairs = pairs(block);
        Some((pairs.get("DEVNAME")?.clone(), pairs))
    };
    text.split("\n\n").filter_map(block).collect()
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

    fn blkid(root: &str) -> &'static str {
        let block = |name: &str, rest: &str| format!("DEVNAME={root}/dev/xvg/{name}\n{rest}\n");
        let text = [
            block("swap", "UUID=a\nTYPE=swap"),
            block("more", "LABEL=swap\nTYPE=swap"),
            block("guest-swap", "LABEL=guest\nTYPE=swap"),
            block("xvol", "LABEL=swap\nTYPE=ext4"),
        ];
        Box::leak(text.join("\n").into_boxed_str())
    }

    #[test]
    fn areas_of_the_name_and_of_the_label_are_used_and_no_other() {
        let root = root();
        let at = root.path().to_str().unwrap();
        let fake = Fake::default().answer("blkid", 0, blkid(at), "").answer("swapon", 0, "", "");
        let settings = schema::Storage { swap_priority: Some(7), ..schema::Storage::default() };
        let group = group(&["swap", "more", "guest-swap", "xvol"]);
        let (swaps, problems) = attempt(Host::new(&fake, at), &settings, &group).unwrap();
        let names: Vec<_> = swaps.iter().map(|swap| swap.device.as_str()).collect();
        assert_eq!((names, problems), (vec!["/dev/xvg/swap", "/dev/xvg/more"], vec![]));
        assert!(fake.executed(&format!("swapon --priority 7 {at}/dev/xvg/swap")) && !fake.executed("guest-swap\0"));
        assert_eq!(fake.log.borrow().iter().filter(|line| line.starts_with("swapon")).count(), 2);
    }

    #[test]
    fn what_is_in_use_is_kept_and_what_is_no_swap_is_left_alone() {
        let root = root();
        let at = root.path().to_str().unwrap();
        file(root.path(), "proc/swaps", &format!("Filename\tType\n{at}/dev/xvg/swap\tpartition\t8\t0\t-2\n"));
        let fake = Fake::default().answer("blkid", 0, blkid(at), "");
        let (swaps, _) = attempt(Host::new(&fake, at), &schema::Storage::default(), &group(&["swap"])).unwrap();
        assert!(swaps[0].before && !fake.executed("swapon"));
        let text = blkid(at).replace("TYPE=swap", "TYPE=ext4");
        let fake = Fake::default().answer("blkid", 0, Box::leak(text.into_boxed_str()), "");
        let (swaps, problems) = attempt(Host::new(&fake, at), &schema::Storage::default(), &group(&["swap"])).unwrap();
        assert!(swaps.is_empty() && problems[0].what.contains("it holds ext4"), "{problems:?}");
        assert!(!fake.executed("swapon"));
        let fake = Fake::default();
        assert!(enable(Host::new(&fake, at), &schema::Storage::default(), &group(&[])).is_ok());
    }
}
