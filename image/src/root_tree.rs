//! Configures a copy of the Debian root tree: SINO's files, locale, password, and no leftovers of the installation.
//!
//! Nothing of it depends on the clock or on chance, and times are never later than the image's own, so that the same
//! cached tree gives the same root image. No path is followed through a symbolic link out of the tree.

use crate::cache::remove;
use crate::command;
use crate::config::{Config, System};
use crate::held::{self, Held};
use crate::root_files::{self, Content};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use sino_boot::layout;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program to install into the root.
#[derive(Clone, Debug)]
pub struct Program {
    /// Where it lies now.
    pub source: PathBuf,
    /// Path below the root.
    pub target: &'static str,
}

/// What no image needs: caches, lists, logs, keys and backups of the installation.
const LEFTOVERS: &[&str] = &[
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "etc/.pwd.lock",
    "initrd.img",
    "initrd.img.old",
    "vmlinuz",
    "vmlinuz.old",
    "var/cache/apt",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig",
    "var/lib/apt/lists",
    "var/lib/apt/extended_states",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/statoverride-old",
    "var/lib/systemd/random-seed",
    "var/log/apt",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
    "run",
    "tmp",
];

/// Folders that must be there afterwards, with their modes.
const FOLDERS: &[(&str, u32)] = &[
    ("run", 0o755),
    ("tmp", 0o1777),
    ("var/cache/apt/archives/partial", 0o755),
    ("var/lib/apt/lists/partial", 0o755),
    ("srv", 0o755),
];

/// Copies `tree` to `root` and configures the copy. `facts` becomes `/etc/sino-build`. Returns what is to be held in
/// RAM.
///
/// # Errors
/// A value that the tree does not know (locale, time zone, keyboard), a file that cannot be written, a failed tool.
pub fn make(tree: &Path, root: &Path, config: &Config, programs: &[Program], facts: &str, epoch: u64) -> Result<Held> {
    check_system(tree, &config.system)?;
    command::run(Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(tree).arg(root))?;
    for leftover in LEFTOVERS {
        remove(&inside(root, leftover)?)?;
    }
    for (folder, mode) in FOLDERS {
        let path = inside(root, folder)?;
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        set_mode(&path, *mode)?;
    }
    remove_matching(&root.join("etc/ssh"), |name| name.starts_with("ssh_host_"))?;
    for file in root_files::all(config, facts) {
        put(root, &file.path, &file.content)?;
    }
    for program in programs {
        install(root, program)?;
        if program.target == layout::COMMAND {
            // Its pages, completions and example, which it makes itself.
            command::run(Command::new(&program.source).arg("manual").arg(root)).context("writing sino's manual")?;
        }
    }
    set_time_zone(root, &config.system.timezone)?;
    command::run(Command::new("chroot").arg(root).args(["locale-gen"]).env("LC_ALL", "C"))
        .context("generating the locale")?;
    command::run(Command::new("chroot").arg(root).args(["setupcon", "--save-only", "--force"]).env("LC_ALL", "C"))
        .context("preparing the console's keyboard and font")?;
    set_password(root, &config.system)?;
    mark_as_updated(root)?;
    let held = held::choose(root, held::ROOTS).context("choosing what is held in RAM")?;
    put(root, layout::HELD_IN_RAM.trim_start_matches('/'), &Content::File(0o644, held.text()))?;
    clamp_times(root, epoch)?;
    // Debian's console-setup would compile the keyboard at each start if the result were not newer than its source.
    for path in ["etc/default/keyboard", "etc/default/console-setup"] {
        clamp_times(&inside(root, path)?, epoch.saturating_sub(60))?;
    }
    Ok(held)
}

/// Tells systemd that what it does once after an update (ldconfig, users, catalogue) is done in this image.
fn mark_as_updated(root: &Path) -> Result<()> {
    for folder in ["etc", "var"] {
        put(root, &format!("{folder}/.updated"), &Content::File(0o644, String::new()))?;
    }
    command::run(Command::new("chroot").arg(root).arg("ldconfig")).context("listing the shared libraries")?;
    // Its second cache has times in it.
    remove(&inside(root, "var/cache/ldconfig")?)
}

/// Checks the values that only the tree can confirm.
fn check_system(tree: &Path, system: &System) -> Result<()> {
    let zone = tree.join("usr/share/zoneinfo").join(&system.timezone);
    ensure!(zone.is_file(), "system.timezone: there is no time zone {:?} in Debian's tzdata", system.timezone);
    let supported = tree.join("usr/share/i18n/SUPPORTED");
    let list = fs::read_to_string(&supported).with_context(|| format!("reading {}", supported.display()))?;
    let wanted = format!("{} UTF-8", system.locale);
    ensure!(
        list.lines().any(|line| line == wanted),
        "system.locale: {:?} is not a UTF-8 locale of Debian's; allowed: names such as en_US.UTF-8 or pt_BR.UTF-8",
        system.locale
    );
    let symbols = tree.join("usr/share/X11/xkb/symbols").join(&system.keyboard);
    ensure!(
        symbols.is_file(),
        "system.keyboard: there is no keyboard layout {:?} in Debian's xkb-data",
        system.keyboard
    );
    Ok(())
}

/// The path below `root` with every folder on the way checked not to be an absolute link out of it.
fn inside(root: &Path, path: &str) -> Result<PathBuf> {
    let full = root.join(path);
    let Some(parent) = full.parent() else { bail!("{path:?} has no folder") };
    if parent.exists() {
        let (real, real_root) = (fs::canonicalize(parent)?, fs::canonicalize(root)?);
        ensure!(real.starts_with(&real_root), "{} leads out of the tree to {}", parent.display(), real.display());
    }
    Ok(full)
}

fn put(root: &Path, path: &str, content: &Content) -> Result<()> {
    let target = inside(root, path)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    remove(&target)?;
    let writing = || format!("writing {}", target.display());
    match content {
        Content::File(mode, text) => {
            fs::write(&target, text).with_context(writing)?;
            set_mode(&target, *mode)
        }
        Content::Link(to) => symlink(to, &target).with_context(writing),
    }
}

fn install(root: &Path, program: &Program) -> Result<()> {
    let target = inside(root, program.target)?;
    fs::copy(&program.source, &target)
        .with_context(|| format!("copying {} to {}", program.source.display(), target.display()))?;
    set_mode(&target, 0o755)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))
}

fn remove_matching(folder: &Path, matching: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))? {
        let entry = entry.with_context(|| format!("reading the folder {}", folder.display()))?;
        if matching(&entry.file_name().to_string_lossy()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn set_time_zone(root: &Path, zone: &str) -> Result<()> {
    let path = inside(root, "etc/localtime")?;
    remove(&path)?;
    symlink(format!("/usr/share/zoneinfo/{zone}"), &path).with_context(|| format!("writing {}", path.display()))
}

/// Puts the password's hash into the shadow file. The salt follows from the host's name, not from chance, so that the
/// same configuration gives the same image.
fn set_password(root: &Path, system: &System) -> Result<()> {
    let salt = blake3::hash(format!("sino {}", system.hostname).as_bytes()).to_hex();
    let salt = salt.get(..16).unwrap_or_default();
    let script = "chomp(my $p = <STDIN>); my $h = crypt($p, \"\\$6\\$\" . shift() . \"\\$\"); print $h";
    let mut command = Command::new("perl");
    let hash = command::run_with_input(command.args(["-e", script, salt]), system.root_password.as_bytes())
        .context("hashing root's password")?;
    let hash = String::from_utf8(hash).context("reading the hash of root's password")?;
    ensure!(hash.starts_with("$6$"), "this machine's crypt(3) makes no SHA-512 hashes");
    let path = inside(root, "etc/shadow")?;
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let text = with_password(&text, &hash).with_context(|| format!("changing {}", path.display()))?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// The shadow file's text with root's hash replaced.
fn with_password(shadow: &str, hash: &str) -> Result<String> {
    let mut found = false;
    let mut lines = Vec::new();
    for line in shadow.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        if let ["root", password, ..] = fields.as_mut_slice() {
            *password = hash;
            found = true;
        }
        lines.push(fields.join(":"));
    }
    ensure!(found, "it has no line for root");
    Ok(lines.join("\n") + "\n")
}

/// Sets every time that is later than `epoch` to it.
fn clamp_times(path: &Path, epoch: u64) -> Result<()> {
    let facts = fs::symlink_metadata(path).with_context(|| format!("reading {}", path.display()))?;
    let seconds = i64::try_from(epoch).context("the image's time is too large")?;
    if facts.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("reading the folder {}", path.display()))? {
            clamp_times(&entry.with_context(|| format!("reading the folder {}", path.display()))?.path(), epoch)?;
        }
    }
    if facts.mtime() > seconds {
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("setting the time of {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_roots_password_changes() {
        let shadow = "root:*:1:0:99999:7:::\ndaemon:*:1:0:99999:7:::\n";
        assert_eq!(with_password(shadow, "H").unwrap(), "root:H:1:0:99999:7:::\ndaemon:*:1:0:99999:7:::\n");
        assert!(with_password("daemon:*:1\n", "H").is_err());
    }

    #[test]
    fn a_link_out_of_the_tree_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        fs::create_dir_all(root.join("usr/etc")).unwrap();
        symlink("/tmp", root.join("out")).unwrap();
        symlink("usr/etc", root.join("etc")).unwrap();
        assert!(inside(&root, "out/file").unwrap_err().to_string().contains("leads out of the tree"));
        put(&root, "etc/file", &Content::File(0o644, "x".into())).unwrap();
        assert_eq!(fs::read_to_string(root.join("usr/etc/file")).unwrap(), "x");
        // A link at the path itself is replaced, not written through.
        symlink("/nonexistent/file", root.join("etc/link")).unwrap();
        put(&root, "etc/link", &Content::File(0o600, "y".into())).unwrap();
        assert!(root.join("usr/etc/link").symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn times_are_never_later_than_the_image() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("new"), "").unwrap();
        clamp_times(place.path(), 1_000_000_000).unwrap();
        assert_eq!(fs::metadata(place.path().join("new")).unwrap().mtime(), 1_000_000_000);
    }
}
