//! From a configuration to a bootable ISO, as one straight function.
//!
//! Tree, root image, initramfs, build id, menus, medium, ISO. The build id is made from the content of everything on
//! the medium that does not itself contain the id, so two media with the same id have the same system. Nothing is
//! renamed to its final name before it is whole.

use crate::cache::{Cache, Key, create_folder, lock, remove};
use crate::config::{Config, Microcode};
use crate::initramfs::{Effort, Parts, Sizes, Sources};
use crate::medium::{self, Contents};
use crate::menu::{self, Menu};
use crate::output;
use crate::progress::Progress;
use crate::root_tree::{self, Program};
use crate::squashfs::{self, Packing};
use crate::tree::{SPACE_FOR_IMAGE, Tree, check_space, require_root};
use crate::{efi, held, image_facts, iso, menu_grub, verity};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sino_boot::layout;
use sino_boot::manifest::{FORMAT, Manifest, RootImage};
use std::fs;
use std::path::{Path, PathBuf};

/// SINO's version, as on the medium.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Raised when the way root images are made changes.
const ROOT_FORMAT: u32 = 2;
/// What lies on the medium beside the root image and is not needed in it, or exists only while the system runs.
const EXCLUDED: &[&str] =
    &["boot/System.map-*", "boot/vmlinuz-*", "boot/xen-*", "boot/initrd*", "dev/*", "proc/*", "sys/*"];

/// What becomes the root image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// The Debian tree with SINO's files.
    Debian,
    /// This folder as it is, owned by root (for tests). Kernel, Xen, modules and busybox are the Debian tree's.
    Directory(PathBuf),
    /// This finished root image, with its dm-verity tree (for the bench). The same of the Debian tree.
    Packed(PathBuf),
}

/// Defects that a test wants on the medium.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Changes the manifest before it goes into the initramfs.
    pub manifest: Option<fn(&mut Manifest)>,
    /// Damages the root image on the medium, after it was hashed.
    pub root_image: Option<fn(&Path) -> Result<()>>,
}

/// How to build, apart from what the configuration says.
#[derive(Clone, Debug)]
pub struct BuildPlan {
    /// What becomes the root image.
    pub root: Root,
    /// The folder of the results.
    pub output: PathBuf,
    /// The cache.
    pub cache: Cache,
    /// The folder with the programs `sino-stage-one` and `sino`.
    pub binaries: PathBuf,
    /// How hard to compress the initramfs.
    pub effort: Effort,
    /// Every date in the image; without it, when the cached tree was made.
    pub epoch: Option<u64>,
    /// Makes the root image and the module archive anew even when they are cached.
    pub fresh: bool,
    /// Defects for tests.
    pub faults: Faults,
}

/// What was built.
#[derive(Clone, Debug, Serialize)]
pub struct Built {
    /// Names this build.
    pub build_id: String,
    /// Every date in the image.
    pub epoch: u64,
    /// `uname -r` of its kernel.
    pub kernel_release: String,
    /// The ISO.
    pub iso: PathBuf,
    /// The kernel, the hypervisor and the initramfs beside it.
    pub kernel: PathBuf,
    /// The hypervisor.
    pub xen: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// Bytes of the ISO.
    pub iso_bytes: u64,
    /// Bytes of the root image.
    pub root_bytes: u64,
    /// Bytes of the initramfs's parts.
    pub initramfs_bytes: Sizes,
    /// Seconds of each step.
    pub seconds: Vec<(String, f64)>,
    /// The menu, for tests that choose an entry.
    #[serde(skip)]
    pub menu: Menu,
}

/// Builds an ISO.
///
/// # Errors
/// Whatever is missing, wrong or fails, with what to do about it where that is known.
pub fn build(config: &Config, plan: &BuildPlan, progress: &Progress) -> Result<Built> {
    output::check(&plan.output, &config.output.iso)?;
    let stage_one = program(&plan.binaries, "sino-stage-one")?;
    let tree = progress.step("Debian root tree", || Tree::get(config, &plan.cache))?;
    let epoch = plan.epoch.unwrap_or(tree.made);
    create_folder(&plan.output)?;
    check_space(&plan.output, SPACE_FOR_IMAGE / 2)?;

    let root_image = progress.step("root image", || root_image(config, plan, &tree, epoch, progress))?;
    let root = progress.step("root image's hashes", || image_facts::of(&root_image))?;
    let root_bytes = root.size;
    let modules = tree.modules();
    let sources = Sources {
        tree: &tree.root,
        modules: &modules,
        kernel_release: &tree.kernel_release,
        stage_one: &stage_one,
        microcode: config.image.microcode == Microcode::Front,
        epoch,
    };
    let parts = progress.step("kernel modules", || Parts::make(&sources, plan.effort, &plan.cache, plan.fresh))?;
    let build_id = build_id(config, &tree, &parts, &stage_one, &root, epoch)?;
    let menu = menu::menu(&config.boot, VERSION, &build_id, root_bytes);
    let mut manifest = Manifest {
        format: FORMAT,
        build_id: build_id.clone(),
        version: VERSION.to_owned(),
        kernel_release: tree.kernel_release.clone(),
        root,
    };
    if let Some(spoil) = plan.faults.manifest {
        spoil(&mut manifest);
    }
    let manifest = manifest.to_text()?;

    let _lock = lock(&plan.output.join(".lock"))?;
    let work = plan.output.join(".build");
    remove(&work)?;
    create_folder(&work)?;
    let (initramfs, iso_file_initramfs) = (work.join("initramfs.img"), work.join("initramfs-iso-file.img"));
    let sizes = progress.step("initramfs", || parts.write(&sources, &manifest, &initramfs, &iso_file_initramfs))?;
    progress.say(&sizes.line());
    let xen = tree.xen()?;
    let (folder, efi_image, new_iso) = (work.join("medium"), work.join("efi.img"), work.join("new.iso"));
    let contents = Contents {
        efi_image: &efi_image,
        menu: &menu,
        root_image: &root_image,
        kernel: &tree.kernel(),
        xen: &xen,
        initramfs: &initramfs,
        iso_file_initramfs: &iso_file_initramfs,
        manifest: &manifest,
        packages: &tree.packages,
        damage: plan.faults.root_image,
    };
    let identity = iso::Identity { build_id: &build_id, version: VERSION, epoch };
    progress.step("medium", || {
        efi::make(&efi_image, &work, &menu_grub::embedded(&menu), &[], epoch)?;
        medium::lay_out(&folder, &contents)
    })?;
    progress.step("ISO", || iso::make(&new_iso, &folder, &efi_image, &identity))?;
    let iso = plan.output.join(&config.output.iso);
    let mut built = Built {
        build_id,
        epoch,
        kernel_release: tree.kernel_release.clone(),
        kernel: plan.output.join("vmlinuz"),
        xen: plan.output.join("xen.gz"),
        initramfs: plan.output.join("initramfs.img"),
        iso_bytes: size(&new_iso)?,
        root_bytes,
        initramfs_bytes: sizes,
        seconds: Vec::new(),
        menu,
        iso,
    };
    progress.step("checksums", || output::publish(&mut built, &folder, &new_iso, progress))?;
    remove(&work)?;
    Ok(built)
}

/// The root image with its dm-verity tree, in the cache.
fn root_image(config: &Config, plan: &BuildPlan, tree: &Tree, epoch: u64, progress: &Progress) -> Result<PathBuf> {
    let image = &config.image;
    let flat = matches!(plan.root, Root::Directory(_));
    let packing = Packing { level: image.compression_level, block: image.block_size, epoch, flat };
    if let Root::Packed(path) = &plan.root {
        ensure!(path.is_file(), "{} is no finished root image", path.display());
        return Ok(path.clone());
    }
    if let Root::Directory(folder) = &plan.root {
        ensure!(folder.is_dir(), "{} is not a folder", folder.display());
        // A folder made by hand is small and changes at will: it is packed each time.
        create_folder(&plan.output)?;
        let path = plan.output.join("root.squashfs");
        remove(&path)?;
        squashfs::pack(folder, &path, packing, &[])?;
        verity::append(&path)?;
        return Ok(path);
    }
    let programs = [Program { source: program(&plan.binaries, "sino")?, target: layout::COMMAND }];
    let tree_id = tree.id.get(..12).unwrap_or(&tree.id);
    let facts = format!("VERSION={VERSION}\nSUITE={}\nTREE={tree_id}\n", config.suite);
    let mut key = Key::new("root", ROOT_FORMAT)
        .with("tree", &tree.id)
        .with("system", toml::to_string(&config.system).context("writing the system's configuration")?)
        .with("files", format!("{:?}", crate::root_files::all(config, &facts)))
        .with("held", format!("{:?}", held::ROOTS))
        .with("packing", format!("{packing:?} {EXCLUDED:?}"));
    for program in &programs {
        key = key.with_file(program.target, &program.source)?;
    }
    plan.cache.get("images", &key, plan.fresh, |path| {
        require_root("the root image with its files' owners")?;
        let copy = path.with_extension("root.partial");
        remove(&copy)?;
        let packed = root_tree::make(&tree.root, &copy, config, &programs, &facts, epoch).and_then(|held| {
            progress.say(&held.line());
            squashfs::pack(&copy, path, packing, EXCLUDED)
        });
        remove(&copy)?;
        packed?;
        verity::append(path)?;
        Ok(())
    })
}

/// The date and eight digits of a hash over all content.
fn build_id(
    config: &Config,
    tree: &Tree,
    parts: &Parts,
    stage_one: &Path,
    root: &RootImage,
    epoch: u64,
) -> Result<String> {
    // The menu without an id: its flags and texts are content too.
    let menu = menu::menu(&config.boot, VERSION, "", root.size);
    let key = parts
        .key(Key::new("build", 1))
        .with("root", &root.blake3)
        .with("menu", format!("{menu:?}"))
        .with("epoch", epoch.to_le_bytes())
        .with_file("stage-one", stage_one)?
        .with_file("kernel", &tree.kernel())?
        .with_file("xen", &tree.xen()?)?;
    let date = iso::date(epoch)?;
    Ok(format!("{}-{}", date.get(..8).unwrap_or(&date), key.hex().get(..8).unwrap_or_default()))
}

/// A built program, or how to build it.
fn program(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is missing; build it with:\n  RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build --release \
         --target x86_64-unknown-linux-gnu -p sino-initramfs -p sino-init",
        path.display()
    );
    Ok(path)
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len())
}
