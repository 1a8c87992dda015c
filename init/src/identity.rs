//! What makes this host itself: its ssh keys, root's password and keys, its name, machine id, time zone and keyboard, and
//! the files of a network that its administrator makes.
//!
//! The root is an overlay in memory, so they are kept on the host's volume ([`Store`]). [`restore`] puts them in place
//! before sshd and Debian's init look at them; [`save`] keeps what is new; [`watch`] does so whenever something changes.
//! [`access`] decides who may log in by ssh. Nothing here mounts, restarts a service, or asks for users by name.

pub mod access;
mod archive;
pub mod command;
mod file_set;
mod folder;
mod forgotten;
pub mod items;
mod keygen;
pub mod network_files;
#[cfg(test)]
mod power_cut;
mod running;
pub mod ssh_key;
mod store;
#[cfg(test)]
mod tests;
mod watch;
#[cfg(test)]
mod watch_tests;

pub use items::{Item, is_hostname, is_layout, is_zone_name};
pub use store::{NotMounted, Store};
pub use watch::{Notice, RETRY, watch};

use crate::config::schema::{self, Config};
use items::Files;
use running::System;
use serde::Serialize;
use sino_boot::layout;
use std::path::Path;
use std::time::SystemTime;

/// The keyboard file of an image that has none.
const KEYBOARD: &str = "XKBMODEL=\"pc105\"\nXKBLAYOUT=\"us\"\nXKBVARIANT=\"\"\nXKBOPTIONS=\"\"\nBACKSPACE=\"guess\"\n";

/// Where an item of the running system comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `sino.toml`.
    Configured,
    /// The store.
    Kept,
    /// An administrator changed it in this boot, before the store could be read.
    ThisBoot,
    /// The image, or Debian makes it.
    Image,
}

/// An item that [`restore`] dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RestoredItem {
    /// Which one.
    pub item: Item,
    /// Where it comes from now.
    pub source: Source,
    /// Whether something in the running system was changed for it.
    pub changed: bool,
}

/// What [`restore`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Every item with a place in the running system.
    pub items: Vec<RestoredItem>,
    /// What was damaged or could not be put in place, for people.
    pub problems: Vec<String>,
    /// Whether the store could be read. If not, call again when `/srv` is mounted.
    pub store_was_there: bool,
    /// sshd may have started with other host keys: restart it (connections that exist stay).
    pub needs_ssh_restart: bool,
}

/// Puts each item in its place below `root`: what `sino.toml` says, else what is kept, else the image's stays. Where
/// `root` is `/`, the kernel gets the host name, too.
///
/// Call it once when `/srv` is mounted, before sshd starts if that can be had, and only then [`save`] and [`watch`]. It
/// may be called earlier, without `/srv`, for what is configured. A supervisor that starts again does not call it.
pub fn restore(root: &Path, store: &Store, config: &Config) -> Restored {
    let mut restored = Restored::default();
    let system = match System::open(root) {
        Ok(system) => system,
        Err(error) => {
            restored.problems.push(format!("nothing of this host is restored: {error:#}"));
            return restored;
        }
    };
    restored.store_was_there = match store.check() {
        Ok(()) => true,
        // Whoever mounts /srv has said why.
        Err(error) if error.is::<NotMounted>() => false,
        Err(error) => {
            restored.problems.push(format!("what is kept of this host cannot be read: {error:#}"));
            false
        }
    };
    let image = image_of(root);
    for item in Item::PLACED {
        let (source, files, since) = choose(item, &system, image.as_ref(), store, config, &mut restored);
        let before = system.read(item).unwrap_or_default();
        let changed = match files.map(|files| system.place(item, &files, since)) {
            None => false,
            Some(Ok(changed)) => changed,
            Some(Err(error)) => {
                restored.problems.push(format!("{item} is not restored: {error:#}"));
                false
            }
        };
        if item == Item::SshHostKeys && changed {
            // sshd writes its number there when it has read its keys.
            let runs =
                system.folder("run").is_ok_and(|run| run.names().is_ok_and(|all| all.contains(&"sshd.pid".into())));
            restored.needs_ssh_restart = runs || !before.is_empty();
        }
        restored.items.push(RestoredItem { item, source, changed });
    }
    if root == Path::new("/") {
        set_kernel_hostname(&system, &mut restored);
    }
    restored
}

/// Where an item comes from, and what is to be placed, with the time of its last change.
fn choose(
    item: Item,
    system: &System,
    image: Option<&System>,
    store: &Store,
    config: &Config,
    restored: &mut Restored,
) -> (Source, Option<Files>, SystemTime) {
    let now = SystemTime::now();
    match configured(item, system, &config.system) {
        Some(Ok(files)) => return (Source::Configured, Some(files), now),
        Some(Err(why)) => restored.problems.push(why),
        None => {}
    }
    let kept = if restored.store_was_there { store.look(item) } else { return (Source::Image, None, now) };
    let kept = match kept {
        Ok(kept) => kept,
        Err(error) => {
            restored.problems.push(format!("{item} is not restored: {error:#}"));
            return (Source::Image, None, now);
        }
    };
    restored.problems.extend(kept.damaged.iter().map(|damage| store.set_aside(item, damage)));
    restored.problems.extend(kept.unread.into_iter().map(|why| format!("{item} is not restored: {why}")));
    if kept.files.is_empty() {
        return (Source::Image, None, now);
    }
    let since = kept.since.unwrap_or(now);
    let (running, image) =
        (system.read(item).unwrap_or_default(), image.map(|image| image.read(item).unwrap_or_default()));
    let changed_meanwhile = !running.is_empty() && running != kept.files && image.is_some_and(|image| image != running);
    match item {
        _ if item.is_generated() || !changed_meanwhile => (Source::Kept, Some(kept.files), since),
        // A key that was added while /srv was being checked must not cost those that are kept.
        Item::AuthorizedKeys => (Source::ThisBoot, Some(united(&kept.files, &running)), since),
        Item::NetworkFiles => (Source::ThisBoot, Some(together(&kept.files, &running)), since),
        _ => (Source::ThisBoot, None, now),
    }
}

/// The lines of both, each once.
fn united(kept: &Files, running: &Files) -> Files {
    let mut files = kept.clone();
    for (name, bytes) in running {
        let all = files.entry(name.clone()).or_default();
        let known: Vec<Vec<u8>> = all.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        if !all.is_empty() && !all.ends_with(b"\n") {
            all.push(b'\n');
        }
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !known.iter().any(|old| old == line)) {
            all.extend_from_slice(line);
            all.push(b'\n');
        }
    }
    files
}

/// The files of both sets, each once; where both have one, that of the second.
fn together(kept: &Files, running: &Files) -> Files {
    let mut files = kept.clone();
    for (name, bytes) in running {
        let united = kept.get(name).and_then(|kept| file_set::united(kept, bytes));
        files.insert(name.clone(), united.unwrap_or_else(|| bytes.clone()));
    }
    files
}

/// What `sino.toml` says of an item.
fn configured(item: Item, system: &System, wanted: &schema::System) -> Option<Result<Files, String>> {
    let (key, value, right) = match item {
        Item::Hostname => ("hostname", wanted.hostname.as_deref()?, is_hostname as fn(&str) -> bool),
        Item::Timezone => ("timezone", wanted.timezone.as_deref()?, is_zone_name as fn(&str) -> bool),
        Item::Keyboard => ("keyboard", wanted.keyboard.as_deref()?, is_layout as fn(&str) -> bool),
        _ => return None,
    };
    if !right(value) {
        return Some(Err(format!(
            "system.{key} = {value:?} in sino.toml is no {key} and has no effect; correct it there"
        )));
    }
    let text = match item {
        Item::Keyboard => with_layout(system.read(item).ok().and_then(|files| files.into_values().next()), value),
        _ => format!("{value}\n"),
    };
    Some(Ok(Files::from([(item.file()?.to_owned(), text.into_bytes())])))
}

/// The keyboard file with this layout; a variant belongs to the layout it was chosen for.
fn with_layout(file: Option<Vec<u8>>, layout: &str) -> String {
    let text = file.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| KEYBOARD.to_owned());
    let ours = format!("XKBLAYOUT=\"{layout}\"");
    if text.lines().any(|line| line.trim() == ours) {
        return text;
    }
    let changed = |line: &str| match line.trim().split_once('=') {
        Some(("XKBLAYOUT", _)) => format!("{ours}\n"),
        Some(("XKBVARIANT", _)) => "XKBVARIANT=\"\"\n".to_owned(),
        _ => format!("{line}\n"),
    };
    text.lines().map(changed).collect()
}

/// Without it the name would only be there after systemd has read it.
fn set_kernel_hostname(system: &System, restored: &mut Restored) {
    let ours = restored.items.iter().any(|item| item.item == Item::Hostname && item.source != Source::Image);
    let name = system.read(Item::Hostname).unwrap_or_default().into_values().next().unwrap_or_default();
    if ours
        && !name.is_empty()
        && let Err(error) = rustix::system::sethostname(name.trim_ascii())
    {
        restored.problems.push(format!("the kernel refuses the host name: {error}"));
    }
}

/// The image as it was built, below the overlay; `None` if it cannot be seen.
fn image_of(root: &Path) -> Option<System> {
    let image = System::open(&root.join(layout::LOWER.trim_start_matches('/'))).ok()?;
    image.folder("etc").is_ok().then_some(image)
}

/// Why [`save`] is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// [`restore`] has just put everything in place, or the supervisor started again: what is the image's own is not
    /// kept, and what the host made by itself never replaces what is kept.
    Start,
    /// These items have changed.
    Change,
}

/// What [`save`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Saved {
    /// Items that were written.
    pub kept: Vec<Item>,
    /// Items that should have been, with why they were not, for people.
    pub failed: Vec<(Item, String)>,
    /// Nothing could be written because nothing is mounted.
    pub not_mounted: bool,
}

/// Keeps items of the system below `root`, as far as they differ from what is kept and from what `sino.toml` says. A host
/// that has no ssh key is given one, which is kept.
///
/// Call it only after a [`restore`] that could read the store: what runs before is not yet this host.
pub fn save(root: &Path, store: &Store, config: &Config, what: &[Item], occasion: Occasion) -> Saved {
    let mut saved = Saved::default();
    if let Err(error) = store.check() {
        saved.not_mounted = error.is::<NotMounted>();
        let why = format!("{error:#}");
        saved.failed = what.iter().map(|item| (*item, why.clone())).collect();
        return saved;
    }
    for item in what {
        match save_one(root, store, config, *item, occasion) {
            Ok(true) => saved.kept.push(*item),
            Ok(false) => {}
            Err(error) => saved.failed.push((*item, format!("{error:#}"))),
        }
    }
    saved
}

fn save_one(root: &Path, store: &Store, config: &Config, item: Item, occasion: Occasion) -> anyhow::Result<bool> {
    let system = System::open(root)?;
    let mut files = system.read(item)?;
    if item == Item::SshHostKeys && files.is_empty() && occasion == Occasion::Start {
        keygen::make_host_key(root)?;
        files = system.read(item)?;
    }
    if matches!(configured(item, &system, &config.system), Some(Ok(wanted)) if wanted == files) {
        return Ok(false);
    }
    match occasion {
        Occasion::Change => {
            // Keys that were removed must not let anybody in after the next boot.
            if files.is_empty()
                && item == Item::AuthorizedKeys
                && let Some(name) = item.file()
                && !store.look(item)?.files.is_empty()
            {
                files.insert(name.to_owned(), Vec::new());
            }
            // The last file of the set was removed.
            if files.is_empty() && item == Item::NetworkFiles {
                return store.forget(item);
            }
        }
        Occasion::Start => {
            if forgotten::read(root).contains(&item) {
                return Ok(false);
            }
            let kept = store.look(item)?;
            if item.is_generated() {
                let there =
                    |name: &String| kept.files.contains_key(name) || kept.unread.iter().any(|why| why.contains(name));
                files.retain(|name, _| !there(name));
            } else {
                // Without the image to compare with, only what is missing is kept.
                let is_the_images =
                    image_of(root).is_none_or(|image| image.read(item).is_ok_and(|built| built == files));
                let nothing_kept = kept.files.is_empty() && kept.unread.is_empty();
                if is_the_images && (image_of(root).is_some() || !nothing_kept) {
                    return Ok(false);
                }
                // What could not be put in its place is no less kept for that.
                if item == Item::NetworkFiles && !files.is_empty() {
                    files = together(&kept.files, &files);
                }
            }
        }
    }
    if files.is_empty() { Ok(false) } else { store.keep(item, &files) }
}
