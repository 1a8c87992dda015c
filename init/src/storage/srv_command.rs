//! `srv start`, `srv stop` and `srv status`: what an administrator does by hand with `/srv`.

use super::srv::{Srv, State};
use super::state::{StorageState, claim};
use super::tools::{Call, SHORT};
use super::{Host, full, holders, lvm, mounts, size, srv, swap};
use crate::config::schema;
use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, statvfs};
use rustix::mount::{UnmountFlags, unmount};
use serde::Serialize;
use sino_boot::layout;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The folders of `/srv`, with their modes: links or configurations of guests to start, images of CDs, SINO's own.
const FOLDERS: [(&str, u32); 3] = [("/srv/autostart", 0o755), ("/srv/iso", 0o755), (layout::SRV_STATE, 0o700)];

/// Activates the group, mounts `/srv`, makes its folders, puts swap to use, and writes the state. `say` gets what is
/// done, line by line. Returns the state, in which [`Srv::state`] tells whether `/srv` can be written.
///
/// # Errors
/// Another program is at work on the storage; LVM cannot be asked; `/srv` cannot be mounted.
pub fn start(host: Host<'_>, settings: &schema::Storage, say: &dyn Fn(&str)) -> Result<StorageState> {
    let _claim = claim(host)?;
    let (group, detail) = lvm::attempt(host, settings).map_err(|fault| anyhow::anyhow!("{}", fault.cause()))?;
    say(&detail);
    let srv = srv::attempt(host, settings, &group, say);
    let (swaps, swap_problems) = swap::attempt(host, settings, &group)?;
    // What is not kept is told anew by those who keep it.
    let state = StorageState { group, srv, swaps, swap_problems, not_kept: Vec::new() };
    state.save(host)?;
    for problem in state.problems() {
        say(&format!("problem: {problem}"));
    }
    match state.srv.state {
        State::Mounted => {
            say(&format!("{} ({}) is mounted on {}{}", state.srv.device, state.srv.fs, layout::SRV, noted(&state.srv)));
            match folders(host) {
                Ok(made) => made.iter().for_each(|folder| say(&format!("made {folder}"))),
                // What is there is used all the same.
                Err(error) => say(&format!("problem: {error:#}")),
            }
        }
        State::ReadOnly => {
            say(&format!("{} is mounted on {} READ-ONLY{}", state.srv.device, layout::SRV, noted(&state.srv)));
        }
        State::Absent | State::Stopped => bail!("{}", state.srv.note),
        State::Failed => {
            bail!(
                "{} is not mounted: {}",
                layout::SRV,
                state.srv.problems.first().map(ToString::to_string).unwrap_or_default()
            )
        }
    }
    for swap in &state.swaps {
        let before = if swap.before { " was in use before" } else { "" };
        say(&format!("swap {} ({}){before}", swap.device, size::text(swap.size)));
    }
    Ok(state)
}

fn noted(srv: &Srv) -> String {
    if srv.note.is_empty() { String::new() } else { format!(" ({})", srv.note) }
}

/// Makes the folders that are missing, and returns them.
///
/// # Errors
/// One cannot be made.
pub fn folders(host: Host<'_>) -> Result<Vec<&'static str>> {
    let mut made = Vec::new();
    for (folder, mode) in FOLDERS {
        let path = host.path(folder);
        if path.exists() {
            continue;
        }
        fs::create_dir(&path)
            .map_err(|error| full::explained(&host.path(layout::SRV), error))
            .with_context(|| format!("making {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("setting the mode of {}", path.display()))?;
        made.push(folder);
    }
    Ok(made)
}

/// Unmounts `/srv`, unless something holds it.
///
/// # Errors
/// What holds it, with the way to end each; the kernel's refusal.
pub fn stop(host: Host<'_>, say: &dyn Fn(&str)) -> Result<()> {
    let _claim = claim(host)?;
    let target = host.path(layout::SRV);
    let Some(mounted) = mounts::on(host, layout::SRV)? else {
        say(&format!("{} is not mounted", layout::SRV));
        return Ok(());
    };
    // This command may have been started in /srv.
    rustix::process::chdir("/").context("leaving the working directory")?;
    let holders = holders::of(host, layout::SRV)?;
    if !holders.is_empty() {
        let mut text = format!("{} is in use and stays mounted:", layout::SRV);
        for holder in &holders {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  {}\n      to end it: {}", holder.what, holder.end);
        }
        bail!("{text}");
    }
    let folder = rustix::fs::open(&target, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {}", target.display()))?;
    rustix::fs::syncfs(&folder)
        .with_context(|| format!("writing what is not yet on the disk of {}", target.display()))?;
    drop(folder);
    unmount(&target, UnmountFlags::empty()).with_context(|| {
        format!(
            "unmounting {}: if it is busy, no process holds it, but the kernel may (an NFS export: exportfs -v)",
            layout::SRV
        )
    })?;
    let mut state = StorageState::load(host).unwrap_or_default();
    state.srv.state = State::Stopped;
    "unmounted by srv stop".clone_into(&mut state.srv.note);
    state.srv.problems.clear();
    state.not_kept.clear();
    state.save(host)?;
    say(&format!("{} is unmounted from {}; srv start mounts it again", mounted.source, layout::SRV));
    Ok(())
}

/// `/srv` as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Now {
    /// Whether it is mounted.
    pub mounted: bool,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Its device.
    pub device: String,
    /// Its file system.
    pub fs: String,
    /// Bytes that fit.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that can be written.
    pub free: u64,
    /// When its file system was checked last, in e2fsck's words; empty if it is not known.
    pub checked: String,
}

impl Now {
    /// Looks.
    ///
    /// # Errors
    /// The table of mounts cannot be read.
    pub fn look(host: Host<'_>) -> Result<Self> {
        let Some(mounted) = mounts::on(host, layout::SRV)? else { return Ok(Self::default()) };
        let mut now = Self {
            mounted: true,
            read_only: mounted.read_only,
            device: mounted.source,
            fs: mounted.fs,
            ..Self::default()
        };
        if let Ok(facts) = statvfs(host.path(layout::SRV)) {
            let bytes = |blocks: u64| blocks.saturating_mul(facts.f_frsize);
            now.size = bytes(facts.f_blocks);
            now.used = bytes(facts.f_blocks.saturating_sub(facts.f_bfree));
            now.free = bytes(facts.f_bavail);
        }
        if now.fs.starts_with("ext") {
            now.checked = last_check(host, Path::new(&now.device)).unwrap_or_default();
        }
        Ok(now)
    }

    /// For people, with what the last start left.
    #[must_use]
    pub fn render(&self, state: &StorageState) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        if self.mounted {
            let mode = if self.read_only { ", READ-ONLY" } else { "" };
            let _ = writeln!(text, "{} is mounted from {} ({}{mode})", layout::SRV, self.device, self.fs);
            let percent = self.used.saturating_mul(100) / self.size.max(1);
            let _ = writeln!(
                text,
                "  {} in all, {} used ({percent} %), {} free",
                size::text(self.size),
                size::text(self.used),
                size::text(self.free)
            );
            if !self.checked.is_empty() {
                let _ = writeln!(text, "  last checked: {}", self.checked);
            }
        } else {
            let _ = writeln!(text, "{} is not mounted{}", layout::SRV, noted(&state.srv));
        }
        for problem in state.problems() {
            let _ = writeln!(text, "  problem: {problem}");
        }
        text
    }
}

/// When the file system was checked last: from its superblock, as dumpe2fs prints it.
fn last_check(host: Host<'_>, device: &Path) -> Option<String> {
    let path = device.display().to_string();
    let text = host.tools.text(&Call::new(&["dumpe2fs", "-h", &path], SHORT)).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Last checked:")).map(|when| when.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fake::{Fake, file, root};

    #[test]
    fn status_tells_what_is_mounted_and_what_is_wrong() {
        let root = root();
        let fake = Fake::default().answer(
            "dumpe2fs -h",
            0,
            "Mount count:  1\nLast checked:             Mon Nov 23 2026\n",
            "",
        );
        let host = Host::new(&fake, root.path().to_str().unwrap());
        let mut state = StorageState::default();
        "unmounted by srv stop".clone_into(&mut state.srv.note);
        let off = Now::look(host).unwrap();
        assert_eq!(off.render(&state), "/srv is not mounted (unmounted by srv stop)\n");
        file(root.path(), "proc/self/mountinfo", "9 1 253:0 / /srv ro - ext4 /dev/mapper/xvg-xvol ro\n");
        fs::create_dir(root.path().join("srv")).unwrap();
        state.srv.problems.push(super::super::Problem::new("it is broken", "repair it"));
        let text = Now::look(host).unwrap().render(&state);
        for part in [
            "/dev/mapper/xvg-xvol (ext4, READ-ONLY)",
            "last checked: Mon Nov 23 2026",
            "it is broken; to do: repair it",
            " free\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn folders_are_made_once_and_the_state_is_roots_alone() {
        let (root, fake) = (root(), Fake::default());
        let host = Host::new(&fake, root.path().to_str().unwrap());
        fs::create_dir(root.path().join("srv")).unwrap();
        assert_eq!(folders(host).unwrap(), ["/srv/autostart", "/srv/iso", "/srv/sino"]);
        assert_eq!(folders(host).unwrap(), Vec::<&str>::new());
        let mode = fs::metadata(root.path().join("srv/sino")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
