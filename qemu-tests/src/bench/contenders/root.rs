//! The common root image, SINO's image around it, and the medium of the others with the same bytes.

use super::{INIT, LABEL};
use crate::images::Paths;
use crate::tiny_root;
use anyhow::{Context, Result, ensure};
use sino_boot::layout;
use sino_image::build::{self, BuildPlan, Faults, Root};
use sino_image::cache::{Cache, Key, create_folder, remove};
use sino_image::command;
use sino_image::config::Config;
use sino_image::initramfs::Effort;
use sino_image::progress::Progress;
use sino_image::tree::{Tree, require_root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where live-boot looks for the root image.
pub(super) const LIVE_BOOT_IMAGE: &str = "live/filesystem.squashfs";
/// Where dracut's dmsquash-live does.
const DRACUT_IMAGE: &str = "LiveOS/squashfs.img";
/// Raised when the way these images are made changes.
const FORMAT: u32 = 1;
/// What the product's root image does not hold either, or what would be a device.
const LEFT_OUT: [&str; 4] = ["boot", "dev", "var/cache/apt", "var/lib/apt/lists"];

/// SINO's image in its folder.
#[derive(Clone, Debug)]
pub(super) struct Sino {
    pub(super) paths: Paths,
    folder: PathBuf,
    key: Key,
}

/// SINO's image around the Debian tree with the bench's init in it.
///
/// # Errors
/// The programs do not build, or the builder fails, in the tools' own words.
pub(super) fn sino(config: &Config, tree: &Tree, trees: &Cache, cache: &Cache) -> Result<Sino> {
    let programs = tiny_root::programs()?;
    let mut key = Key::new("sino", FORMAT).with("tree", &tree.id).with("left out", LEFT_OUT.join(","));
    for program in ["sino-stage-one", "sino-payload", "sino"] {
        key = key.with_file(program, &programs.join(program))?;
    }
    let key = key.with("config", format!("{config:?}"));
    let folder = cache.get("sino", &key, false, |folder| {
        require_root("the root image with its files' owners")?;
        create_folder(folder)?;
        let root = folder.join("root");
        let made = lay_out(&root, tree, &programs).and_then(|()| {
            let plan = BuildPlan {
                root: Root::Directory(root.clone()),
                output: folder.join("out"),
                cache: trees.clone(),
                binaries: programs.clone(),
                effort: Effort::Smallest,
                epoch: None,
                fresh: false,
                faults: Faults::default(),
            };
            build::build(config, &plan, &Progress::new(true))
        });
        remove(&root)?;
        made.map(drop)
    })?;
    Ok(Sino { paths: Paths::open(&folder.join("out"), "")?, folder, key })
}

fn lay_out(root: &Path, tree: &Tree, programs: &Path) -> Result<()> {
    command::run(Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(&tree.root).arg(root))?;
    for path in LEFT_OUT {
        remove(&root.join(path))?;
        create_folder(&root.join(path))?;
    }
    for (program, path) in [("sino-payload", INIT), ("sino", layout::STAGE_TWO)] {
        let (from, to) = (programs.join(program), root.join(path.trim_start_matches('/')));
        fs::copy(&from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// The root image in SINO's folder.
///
/// # Errors
/// It is not there.
pub(super) fn image(sino: &Sino) -> Result<PathBuf> {
    let image = sino.folder.join("out/root.squashfs");
    ensure!(image.is_file(), "{} is missing; remove {} and try again", image.display(), sino.folder.display());
    Ok(image)
}

/// An ISO with the root image under the names that the others look for; its bytes are there once.
///
/// # Errors
/// xorriso fails.
pub(super) fn medium(sino: &Sino, root: &Path, cache: &Cache) -> Result<PathBuf> {
    let key =
        Key::new("medium", FORMAT).with("sino", sino.key.hex()).with("names", [LIVE_BOOT_IMAGE, DRACUT_IMAGE].concat());
    cache.get("medium", &key, false, |path| {
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
    })
}
