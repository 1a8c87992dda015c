//! An initramfs as Debian's own tools make it: in a minimal Debian that exists only while mmdebstrap works on it.
//!
//! The kernel's modules are not installed as a package but put in from SINO's tree, so that they are the same files. The
//! result is a folder with the initramfs and the list of packages that made it.

use anyhow::{Context, Result};
use sino_image::cache::{Cache, Key, create_folder};
use sino_image::command;
use sino_image::config::Config;
use sino_image::tree::{MIRROR_VARIABLE, Tree, require_root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The initramfs in the folder.
pub(super) const INITRAMFS: &str = "initramfs.img";
/// The list of packages in the folder.
const PACKAGES: &str = "packages.txt";
/// Raised when the way these initramfs are made changes.
const FORMAT: u32 = 1;

/// How an initramfs is made.
pub(super) struct Recipe {
    name: &'static str,
    packages: &'static [&'static str],
    /// What is executed in the chroot; `RELEASE` is the kernel's release, the result is `/initramfs.img`.
    command: &'static str,
}

/// initramfs-tools with live-boot, with Debian's own settings.
pub(super) const LIVE_BOOT: Recipe = Recipe {
    name: "live-boot",
    packages: &["live-boot", "live-boot-initramfs-tools", "initramfs-tools", "busybox", "zstd", "kmod", "udev"],
    command: "mkinitramfs -o /initramfs.img RELEASE",
};

/// dracut with dmsquash-live, for any machine.
pub(super) const DRACUT: Recipe = Recipe {
    name: "dracut",
    packages: &["dracut-core", "dracut-live", "systemd-sysv", "dmsetup", "zstd", "kmod", "udev"],
    command: "dracut --no-hostonly --no-hostonly-cmdline --add dmsquash-live --force --kver RELEASE /initramfs.img",
};

/// The folder with the initramfs, from the cache or newly made.
///
/// # Errors
/// Not root, no network, or a tool fails, in its own words.
pub(super) fn initramfs(
    recipe: &Recipe,
    config: &Config,
    tree: &Tree,
    trees: &Cache,
    cache: &Cache,
) -> Result<PathBuf> {
    let key = Key::new("initramfs", FORMAT)
        .with("tree", &tree.id)
        .with("suite", &config.suite)
        .with("packages", recipe.packages.join(","))
        .with("command", recipe.command);
    cache.get(recipe.name, &key, false, |folder| make(recipe, config, tree, trees, folder))
}

/// The packages that made an initramfs, as lines of `package version`.
///
/// # Errors
/// The list cannot be read.
pub(super) fn packages(folder: &Path) -> Result<String> {
    let path = folder.join(PACKAGES);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

fn make(recipe: &Recipe, config: &Config, tree: &Tree, trees: &Cache, folder: &Path) -> Result<()> {
    require_root("another live system's initramfs")?;
    create_folder(folder)?;
    let debs = trees.folder().join("debs").join(&config.suite);
    create_folder(&debs)?;
    let absolute = |path: &Path| fs::canonicalize(path).with_context(|| format!("resolving {}", path.display()));
    let (folder, debs, root) = (absolute(folder)?, absolute(&debs)?, absolute(&tree.root)?);
    let mut mmdebstrap = mmdebstrap(recipe, config, &tree.kernel_release, &root, &debs, &folder);
    command::run(&mut mmdebstrap)
        .with_context(|| format!("making {}'s initramfs in a Debian of its own", recipe.name))?;
    Ok(())
}

fn mmdebstrap(recipe: &Recipe, config: &Config, release: &str, root: &Path, debs: &Path, folder: &Path) -> Command {
    let (root, debs, folder) = (root.display(), debs.display(), folder.display());
    let mut command = Command::new("mmdebstrap");
    command
        // Only what the hooks take out of it is kept.
        .args(["--mode=root", "--variant=minbase", "--format=null", "--architectures=amd64"])
        .arg(format!("--components={}", config.components.join(",")))
        .arg(format!("--include={}", recipe.packages.join(",")))
        .args(["--aptopt=Apt::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\""])
        .arg("--aptopt=APT::Sandbox::User \"root\"")
        .args(["--skip=essential/unlink", "--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives/"])
        .arg(format!("--setup-hook=sync-in '{debs}' /var/cache/apt/archives/"))
        .arg(format!("--customize-hook=sync-out /var/cache/apt/archives '{debs}'"))
        .arg(format!("--customize-hook=mkdir -p \"$1\"/usr/lib/modules/{release} \"$1\"/boot"))
        .arg(format!("--customize-hook=sync-in '{root}/usr/lib/modules/{release}' /usr/lib/modules/{release}"))
        .arg(format!("--customize-hook=upload '{root}/boot/config-{release}' /boot/config-{release}"))
        .arg(format!("--customize-hook=chroot \"$1\" {}", recipe.command.replace("RELEASE", release)))
        .arg(format!("--customize-hook=download /initramfs.img '{folder}/{INITRAMFS}'"))
        .arg(format!("--customize-hook=chroot \"$1\" dpkg-query --show > '{folder}/{PACKAGES}'"))
        .arg(&config.suite)
        .arg("-");
    command.args(std::env::var(MIRROR_VARIABLE).ok().filter(|url| !url.is_empty()));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_are_those_of_sinos_tree() {
        let config = Config::default();
        let command = mmdebstrap(&DRACUT, &config, "6.1", Path::new("/t"), Path::new("/d"), Path::new("/o"));
        let line = command::line(&command);
        assert!(line.contains("sync-in '\\''/t/usr/lib/modules/6.1'\\'' /usr/lib/modules/6.1"), "{line}");
        assert!(line.contains("--kver 6.1 /initramfs.img") && !line.contains("linux-image"), "{line}");
    }
}
