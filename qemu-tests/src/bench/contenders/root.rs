//! The common root image, SINO's image around it, and the medium of the others with the same bytes.

use super::{INIT, LABEL};
use crate::images::Paths;
use crate::tiny_root;
use anyhow::{Context, Result};
use sino_image::build::{self, BuildPlan, Faults, Root};
use sino_image::cache::{Cache, Key, create_folder, remove};
use sino_image::command;
use sino_image::config::Config;
use sino_image::initramfs::Effort;
use sino_image::progress::Progress;
use sino_image::squashfs::{self, Packing};
use sino_image::tree::{Tree, require_root};
use sino_image::verity;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where live-boot looks for the root image.
pub(super) const LIVE_BOOT_IMAGE: &str = "live/filesystem.squashfs";
/// Where dracut's dmsquash-live does.
const DRACUT_IMAGE: &str = "LiveOS/squashfs.img";
/// Raised when the way these images are made changes.
const FORMAT: u32 = 2;
/// What the product's root image does not hold either, or what would be a device.
const LEFT_OUT: [&str; 4] = ["boot", "dev", "var/cache/apt", "var/lib/apt/lists"];

/// The common root image, and what it is made from.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) image: PathBuf,
    key: Key,
}

/// The Debian tree with the bench's init in it, packed as the product's is and with its dm-verity tree. Only what is in it is in
/// its key: another SINO boots the same bytes.
///
/// # Errors
/// The bench's init does not build, or it cannot be packed, in the tools' own words.
pub(super) fn common(config: &Config, tree: &Tree, cache: &Cache) -> Result<Common> {
    let init = tiny_root::programs()?.join("sino-payload");
    let (level, block) = (config.image.compression_level, config.image.block_size);
    let packing = Packing { level, block, epoch: tree.made, flat: true };
    let key = Key::new("root", FORMAT)
        .with("tree", &tree.id)
        .with("left out", LEFT_OUT.join(","))
        .with("packing", format!("{packing:?}"))
        .with_file(INIT, &init)?;
    let image = cache.get("root", &key, false, |path| {
        require_root("the root image with its files' owners")?;
        let folder = path.with_extension("folder");
        remove(&folder)?;
        let packed = lay_out(&folder, tree, &init).and_then(|()| squashfs::pack(&folder, path, packing, &[]));
        remove(&folder)?;
        packed?;
        verity::append(path).map(drop)
    })?;
    Ok(Common { image, key })
}

/// SINO's image around the common root image: made anew, because nothing but the builder itself knows all that is in it.
///
/// # Errors
/// The programs do not build, or the builder fails, in the tools' own words.
pub(super) fn sino(config: &Config, common: &Common, trees: &Cache, cache: &Cache) -> Result<Paths> {
    let plan = BuildPlan {
        root: Root::Packed(common.image.clone()),
        output: cache.folder().join("image"),
        cache: trees.clone(),
        binaries: tiny_root::programs()?,
        effort: Effort::Smallest,
        epoch: None,
        fresh: false,
        faults: Faults::default(),
    };
    build::build(config, &plan, &Progress::silent())?;
    Paths::open(&plan.output, "")
}

fn lay_out(root: &Path, tree: &Tree, init: &Path) -> Result<()> {
    command::run(Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(&tree.root).arg(root))?;
    for path in LEFT_OUT {
        remove(&root.join(path))?;
        create_folder(&root.join(path))?;
    }
    let to = root.join(INIT.trim_start_matches('/'));
    fs::copy(init, &to).with_context(|| format!("copying {} to {}", init.display(), to.display())).map(drop)
}

/// An ISO with the root image under the names that the others look for; its bytes are there once.
///
/// # Errors
/// xorriso fails.
pub(super) fn medium(common: &Common, cache: &Cache) -> Result<PathBuf> {
    let key = Key::new("medium", FORMAT)
        .with("root", common.key.hex())
        .with("names", [LABEL, LIVE_BOOT_IMAGE, DRACUT_IMAGE].join(","));
    cache.get("medium", &key, false, |path| write_medium(&common.image, path))
}

/// Removes the things of this kind that earlier programs were in: hundreds of megabytes each, which nobody asks for again.
///
/// # Errors
/// The cache cannot be read, or something in it cannot be removed.
pub(super) fn keep_only(cache: &Cache, kind: &str, used: &Path) -> Result<()> {
    let folder = cache.folder().join(kind);
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        // Those with an extension are locks, and what is being made.
        if path != used && path.extension().is_none() {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Writes that ISO to `path`.
///
/// # Errors
/// xorriso fails, or the root image lies on another file system.
pub(in crate::bench) fn write_medium(root: &Path, path: &Path) -> Result<()> {
    let folder = path.with_extension("folder");
    remove(&folder)?;
    for name in [LIVE_BOOT_IMAGE, DRACUT_IMAGE] {
        let to = folder.join(name);
        create_folder(to.parent().context("a path without a folder")?)?;
        // Two names of one file, whose bytes xorriso writes once.
        fs::hard_link(root, &to).with_context(|| format!("linking {} to {}", root.display(), to.display()))?;
    }
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-no_rc", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-rational-rock", "-V", LABEL, "-o"]);
    let made = command::run(xorriso.arg(path).arg(&folder));
    remove(&folder)?;
    made.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_kind_only_what_is_used_stays() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::new(place.path());
        let make =
            |name: &str| cache.get("root", &Key::new(name, 1), false, |path| Ok(fs::write(path, name)?)).unwrap();
        let (old, used) = (make("old"), make("used"));
        keep_only(&cache, "root", &used).unwrap();
        assert!(used.exists() && !old.exists());
        assert!(fs::read_dir(place.path().join("root")).unwrap().count() > 1, "the locks stay");
    }
}
