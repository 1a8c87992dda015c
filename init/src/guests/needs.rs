//! What a guest needs of the host before it is started: disks, bridges, files.
//!
//! Looks and never changes anything. What is found missing here, xl would find after having made half of the domain, and would
//! say in a way that names neither the guest nor the way out. Targets that a script makes, and backends in other domains, are
//! theirs to check.

mod disks;
mod files;
mod programs;

pub use disks::{Backing, Use};
pub use files::{Files, Kind, Root, Seen};

use super::budget::Candidate;
use super::xl_config::{At, GuestConfig, Kind as GuestKind, Vif};
use crate::config::origins::clean;
use crate::storage::lvm::Group;
use disks::Claims;
use serde::Serialize;
use std::fmt;
use std::io::ErrorKind;

/// Where links of the network are.
const LINKS: &str = "/sys/class/net";

/// Something that a guest needs and the host has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The guest, by its name as it is.
    pub guest: String,
    /// The line in its file; 0 where no line says it.
    pub line: usize,
    /// Whether the guest cannot start with it; otherwise it is only odd.
    pub refuse: bool,
    /// What is wrong.
    pub what: String,
    /// What to do.
    #[serde(rename = "try")]
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean(&self.guest, 64))?;
        if self.line > 0 {
            write!(f, " (line {})", self.line)?;
        }
        write!(f, ": {}; try: {}", self.what, self.remedy)
    }
}

/// The host.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Its files.
    pub files: &'a dyn Files,
    /// Its volume groups as LVM told them; with none, a volume that is missing cannot be told from one that is not active.
    pub groups: &'a [Group],
}

/// Checks guests in the order in which they start: of two that exclude each other the later one is refused. `running` is what
/// the disks of running domains are, from the xenstore; a guest that is marked as running is not checked, and without a word
/// there its file tells what it uses.
#[must_use]
pub fn check(host: Host<'_>, guests: &[Candidate<'_>], running: &[Use]) -> Vec<Problem> {
    let mut claims = Claims::new(host, running);
    for guest in guests.iter().filter(|guest| guest.running) {
        if !running.iter().any(|taken| taken.domain == guest.name) {
            claims.take(guest);
        }
    }
    let mut problems = Vec::new();
    for guest in guests.iter().filter(|guest| !guest.running) {
        let mut found = Found { guest: guest.name.to_owned(), problems: Vec::new() };
        claims.check(guest, &mut found);
        for vif in &guest.config.vifs {
            bridge(host, vif, &mut found);
        }
        boot_files(host, guest.config, &mut found);
        programs::check(host, guest.config, &mut found);
        // A guest that does not start leaves its disks to the others.
        if !found.problems.iter().any(|problem| problem.refuse) {
            claims.take(guest);
        }
        problems.append(&mut found.problems);
    }
    problems
}

/// What was found of a guest.
struct Found {
    guest: String,
    problems: Vec<Problem>,
}

impl Found {
    fn refuse(&mut self, line: usize, what: &str, remedy: &str) {
        self.add(line, true, what, remedy);
    }

    fn warn(&mut self, line: usize, what: &str, remedy: &str) {
        self.add(line, false, what, remedy);
    }

    fn add(&mut self, line: usize, refuse: bool, what: &str, remedy: &str) {
        let (what, remedy) = (clean(what, 500), clean(remedy, 300));
        self.problems.push(Problem { guest: self.guest.clone(), line, refuse, what, remedy });
    }
}

/// The bridge of an interface.
fn bridge(host: Host<'_>, vif: &Vif, found: &mut Found) {
    let Some(name) = vif.needs_bridge() else { return };
    let valid = !name.is_empty() && name.len() < 16 && !name.contains('/') && name != "." && name != "..";
    if !valid {
        return found.refuse(
            vif.line,
            &format!("{name:?} cannot be the name of a bridge"),
            "correct bridge= in its vif",
        );
    }
    let is_bridge = |name: &str| host.files.see(&format!("{LINKS}/{name}/bridge")).is_ok();
    // Xen's vif-bridge takes ethN for a xenbrN of old.
    let of_old = name.strip_prefix("xenbr").is_some_and(|number| is_bridge(&format!("eth{number}")));
    if is_bridge(name) {
        return;
    }
    if host.files.see(&format!("{LINKS}/{name}")).is_ok() {
        let remedy = "name the bridge and not its port, in the guest's vif";
        return found.refuse(vif.line, &format!("{name} is a network link, but no bridge"), remedy);
    }
    if of_old {
        return;
    }
    let mut there: Vec<_> = host.files.list(LINKS).into_iter().filter(|link| is_bridge(link)).collect();
    there.sort();
    let there = if there.is_empty() { "none".into() } else { there.join(", ") };
    let remedy = format!("[network.bridge.{name}] in sino.toml, or another bridge in the guest's file");
    found.refuse(vif.line, &format!("there is no bridge {name} (there are: {there})"), &remedy);
}

/// Kernel and RAM disk, where they are the host's: a boot loader looks for both on the guest's own disk.
fn boot_files(host: Host<'_>, config: &GuestConfig, found: &mut Found) {
    let hvm = config.kind.value == GuestKind::Hvm;
    if config.bootloader.is_some() && !hvm {
        return;
    }
    // xl reads over the firmware that HVM guests of old named so.
    let of_old = |path: &&At<String>| hvm && path.value.rsplit('/').next() == Some("hvmloader");
    boot_file(host, "kernel", config.kernel.as_ref().filter(|path| !of_old(path)), found);
    boot_file(host, "ramdisk", config.ramdisk.as_ref(), found);
}

/// A kernel or RAM disk of the host.
fn boot_file(host: Host<'_>, name: &str, path: Option<&At<String>>, found: &mut Found) {
    let Some(At { value: path, line }) = path else { return };
    let line = *line;
    if path.is_empty() {
        return found.refuse(line, &format!("{name} is empty"), &format!("a path, or leave {name} out"));
    }
    if !path.starts_with('/') {
        let what = format!("{name} {path:?} is looked for in whatever folder xl is started from");
        return found.warn(line, &what, "a path that begins with a slash");
    }
    match host.files.see(path) {
        Ok(Seen { kind: Kind::File { .. }, .. }) => {}
        Ok(_) => found.refuse(line, &format!("{name} {path} is no file"), "the path of the file itself"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let remedy = "put the file there (below /srv it outlives a new stick), or correct the path";
            found.refuse(line, &format!("{name} {path} does not exist"), remedy);
        }
        Err(error) => found.refuse(line, &format!("{name} {path} cannot be looked at: {error}"), "correct the path"),
    }
}

#[cfg(test)]
mod tests;
