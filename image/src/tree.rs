//! The Debian root tree: what mmdebstrap installs, unconfigured, cached by the hash of everything it is made from.
//!
//! A cached tree is never modified; [`crate::root_tree`] configures a copy. With the tree lie the list of its packages
//! with versions and a stamp of when it was made, which is the image's date unless `SOURCE_DATE_EPOCH` says otherwise.

use crate::cache::{Cache, Key, create_folder, remove};
use crate::config::Config;
use crate::{command, local_repository, packages};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Raised when the way trees are made changes.
const FORMAT: u32 = 1;
/// The environment variable with the URL of the archive to install from.
pub const MIRROR_VARIABLE: &str = "SINO_MIRROR";
/// Free space that a new tree with its packages and the image made from it needs.
const SPACE_FOR_TREE: u64 = 4 << 30;
/// Free space that an image from a cached tree needs.
pub const SPACE_FOR_IMAGE: u64 = 2 << 30;

/// A Debian root tree in the cache.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The tree itself.
    pub root: PathBuf,
    /// Lines of `package version`.
    pub packages: String,
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// Names the tree: equal ids, equal content.
    pub id: String,
    /// `uname -r` of its kernel.
    pub kernel_release: String,
}

#[derive(Serialize, Deserialize)]
struct Stamp {
    made: u64,
}

/// What a tree is made from.
struct Recipe<'a> {
    config: &'a Config,
    packages: Vec<String>,
    mirror: Option<String>,
}

impl Tree {
    /// The tree that `config` asks for, from the cache or newly made.
    ///
    /// # Errors
    /// Not root, too little space, an unknown package, no network: the last three in the tools' own words.
    pub fn get(config: &Config, cache: &Cache) -> Result<Self> {
        let recipe = Recipe::new(config)?;
        let key = recipe.key();
        create_folder(cache.folder())?;
        let there = cache.path("trees", &key).exists();
        check_space(cache.folder(), if there { SPACE_FOR_IMAGE } else { SPACE_FOR_TREE })?;
        let folder = cache.get("trees", &key, false, |folder| recipe.make(folder, cache))?;
        Self::open(&folder)
    }

    /// Whether the cache holds the tree that `config` asks for.
    ///
    /// # Errors
    /// The configuration's packages do not resolve.
    pub fn is_cached(config: &Config, cache: &Cache) -> Result<bool> {
        Ok(cache.path("trees", &Recipe::new(config)?.key()).exists())
    }

    /// Opens a finished tree's folder.
    fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let stamp: Stamp = serde_json::from_str(&read("stamp.json")?).context("reading the tree's stamp")?;
        let packages = read("packages.txt")?;
        let id = Key::new("tree", FORMAT)
            .with("folder", folder.file_name().unwrap_or_default().as_encoded_bytes())
            .with("made", stamp.made.to_le_bytes())
            .with("packages", &packages)
            .hex();
        let root = folder.join("root");
        let kernel_release = kernel_release(&root)?;
        Ok(Self { root, packages, made: stamp.made, id, kernel_release })
    }

    /// The kernel in the tree.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.kernel_release))
    }

    /// The hypervisor in the tree.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn xen(&self) -> Result<PathBuf> {
        let boot = self.root.join("boot");
        let is_xen = |name: &str| name.strip_prefix("xen-").is_some_and(|rest| rest.ends_with("-amd64.gz"));
        let found: Vec<String> = names(&boot)?.into_iter().filter(|name| is_xen(name)).collect();
        match found.as_slice() {
            [name] => Ok(boot.join(name)),
            _ => anyhow::bail!("{} holds {} hypervisors, not one: {found:?}", boot.display(), found.len()),
        }
    }

    /// The folder with the kernel's modules.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.root.join("usr/lib/modules").join(&self.kernel_release)
    }
}

impl<'a> Recipe<'a> {
    fn new(config: &'a Config) -> Result<Self> {
        let mirror = std::env::var(MIRROR_VARIABLE).ok().filter(|url| !url.is_empty());
        Ok(Self { config, packages: config.package_list()?, mirror })
    }

    fn key(&self) -> Key {
        // The mirror is not an input: every mirror has the same packages.
        Key::new("tree", FORMAT)
            .with("suite", &self.config.suite)
            .with("components", self.config.components.join(","))
            .with("packages", self.packages.join(","))
    }

    fn make(&self, folder: &Path, cache: &Cache) -> Result<()> {
        require_root("a Debian root tree")?;
        create_folder(folder)?;
        let debs = cache.folder().join("debs").join(&self.config.suite);
        create_folder(&debs)?;
        let absolute = |path: &Path| fs::canonicalize(path).with_context(|| format!("resolving {}", path.display()));
        let (folder, debs) = (absolute(folder)?, absolute(&debs)?);
        let repository = folder.join("repository");
        create_folder(&repository)?;
        let source = local_repository::make(&repository)?;
        let root = folder.join("root");
        let started = SystemTime::now();
        command::run(&mut self.mmdebstrap(&root, &debs, &source)).context("installing Debian with mmdebstrap")?;
        remove(&repository)?;
        write_facts(&folder, started)
    }

    fn mmdebstrap(&self, root: &Path, debs: &Path, source: &str) -> Command {
        let mut command = Command::new("mmdebstrap");
        let include = format!("{},{}", local_repository::PACKAGE, self.packages.join(","));
        command
            .args(["--mode=root", "--variant=minbase", "--architectures=amd64"])
            .arg(format!("--components={}", self.config.components.join(",")))
            .arg(format!("--include={include}"))
            .args(APT_OPTIONS.iter().map(|option| format!("--aptopt={option}")))
            .args(DPKG_OPTIONS.iter().map(|option| format!("--dpkgopt={option}")))
            // The folder of the packages is kept between builds, so that a new tree downloads only what is new.
            .args(["--skip=essential/unlink", "--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives/"])
            .arg(format!("--setup-hook=sync-in '{}' /var/cache/apt/archives/", debs.display()))
            .args(self.sources_hooks(source).iter().map(|hook| format!("--setup-hook={hook}")))
            .arg(format!("--customize-hook=sync-out /var/cache/apt/archives '{}'", debs.display()))
            .arg("--customize-hook=cd \"$1\"/etc/apt && rm -f sources.list.d/sino-*.list preferences.d/sino-build")
            .arg(&self.config.suite)
            .arg(root);
        command.args(self.mirror.as_deref());
        command
    }

    /// Shell lines that add the sources needed only while the tree is made.
    fn sources_hooks(&self, source: &str) -> Vec<String> {
        let mut hooks = vec![format!("echo '{source}' > \"$1\"/etc/apt/sources.list.d/sino-local.list")];
        let mut pins = String::new();
        for (package, suite) in packages::borrowed(&self.config.suite, &self.packages) {
            // The first line of the sources is the archive itself; the other suite is on the same mirror.
            hooks.push(format!(
                "sed -n 's/ {own} / {suite} /p;1q' \"$1\"/etc/apt/sources.list > \"$1\"/etc/apt/sources.list.d/sino-{suite}.list",
                own = self.config.suite
            ));
            if pins.is_empty() {
                pins = format!("Package: *\\nPin: release n={suite}\\nPin-Priority: -1\\n");
            }
            // Writing to a String cannot fail.
            let _ = write!(pins, "\\nPackage: {package}\\nPin: release n={suite}\\nPin-Priority: 500\\n");
        }
        if !pins.is_empty() {
            hooks.push(format!("printf '{pins}' > \"$1\"/etc/apt/preferences.d/sino-build"));
        }
        hooks
    }
}

const APT_OPTIONS: &[&str] =
    &["Apt::Install-Recommends \"false\"", "Acquire::Languages \"none\"", "APT::Sandbox::User \"root\""];

/// Policy 12.3 lets documentation go, but not copyright notices.
const DPKG_OPTIONS: &[&str] = &[
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
];

/// Says what to do when the work ahead is root's.
///
/// # Errors
/// This program is not run by root.
pub fn require_root(what: &str) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "{what} can only be made by root; run this command as root or with sudo"
    );
    Ok(())
}

fn write_facts(folder: &Path, started: SystemTime) -> Result<()> {
    let list = command::run(
        Command::new("dpkg-query")
            .arg(format!("--admindir={}", folder.join("root/var/lib/dpkg").display()))
            .args(["--show", "--showformat=${Package} ${Version}\n"]),
    )?;
    let seconds = started.duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    let stamp = serde_json::to_string(&Stamp { made: seconds }).context("writing the tree's stamp")?;
    for (name, content) in [("packages.txt", list.as_slice()), ("stamp.json", stamp.as_bytes())] {
        let path = folder.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn kernel_release(root: &Path) -> Result<String> {
    let folder = root.join("usr/lib/modules");
    let releases = names(&folder)?;
    match releases.as_slice() {
        [release] => Ok(release.clone()),
        _ => anyhow::bail!("{} holds {} kernels, not one: {releases:?}", folder.display(), releases.len()),
    }
}

/// The sorted names in a folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("reading the folder {}", folder.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Refuses to begin what would end with a full disk.
///
/// # Errors
/// Less than `needed` bytes are free in `folder`.
pub fn check_space(folder: &Path, needed: u64) -> Result<()> {
    let facts = rustix::fs::statvfs(folder).with_context(|| format!("asking for the space in {}", folder.display()))?;
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    ensure!(
        free >= needed,
        "too little space in {}: {} MiB are free, the build needs {} MiB",
        folder.display(),
        free >> 20,
        needed >> 20
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command_line(config: &Config) -> String {
        let mut recipe = Recipe::new(config).unwrap();
        recipe.mirror = None;
        command::line(&recipe.mmdebstrap(Path::new("/t/root"), Path::new("/t/debs"), "deb copy:/t/r ./"))
    }

    #[test]
    fn xen_tools_comes_from_the_suite_that_has_it() {
        let line = command_line(&Config::default());
        assert!(line.contains("s/ trixie / bookworm /p") && line.contains("Package: xen-tools"), "{line}");
        assert!(line.ends_with("trixie /t/root"), "{line}");
        let line = command_line(&Config { suite: "bookworm".into(), ..Config::default() });
        assert!(!line.contains("preferences.d/sino-build'") || !line.contains("Pin-Priority"), "{line}");
    }

    #[test]
    fn the_key_follows_what_is_installed_and_nothing_else() {
        let key = |config: &Config| Recipe::new(config).unwrap().key().hex();
        let mut config = Config::default();
        let first = key(&config);
        config.system.hostname = "other".into();
        config.boot.dom0_memory = 2048;
        assert_eq!(key(&config), first);
        config.packages.extra.push("zsh".into());
        assert_ne!(key(&config), first);
    }

    #[test]
    fn space_is_checked_with_numbers() {
        assert!(check_space(Path::new("/"), 1).is_ok());
        let error = check_space(Path::new("/"), u64::MAX).unwrap_err().to_string();
        assert!(error.contains("too little space in /:") && error.contains("needs"), "{error}");
    }
}
