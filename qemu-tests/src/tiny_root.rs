//! The tiny root: a few files that make a boot cost seconds, and an image made of it by the ordinary builder.
//!
//! Its `/sbin/init` is the test payload, its `/sbin/sino-init` the real stage two. Kernel, Xen, modules and stage one are
//! the product's own. The programs are built first, so that a test never runs an old one.

use crate::images::{Paths, target, workspace};
use crate::report::MARKER_FILE;
use crate::scenario::Image;
use anyhow::{Context, Result, anyhow, bail};
use sino_image::build::{self, BuildPlan, Faults, Root};
use sino_image::cache::Cache;
use sino_image::command;
use sino_image::config::Config;
use sino_image::initramfs::Effort;
use sino_image::progress::Progress;
use sino_image::workspace::Workspace;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The target that a static glibc program needs to be built for explicitly.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Folders that must be there for what is mounted on them.
const EMPTY: [&str; 7] = ["dev", "proc", "sys", "run", "tmp", "root", "var"];
/// Bytes of a file that makes reading the root worth its name.
const BALLAST: usize = 4 << 20;
/// The same for the image to measure with: much more than the figures may be off.
const LARGE_BALLAST: usize = 128 << 20;

/// Makes the image in its place among the artifacts.
///
/// # Errors
/// As [`build_into`].
pub fn image(image: Image) -> Result<Paths> {
    build_into(image, &target().join("qemu/images").join(format!("{image:?}")))
}

/// Makes a tiny image in `folder`.
///
/// # Errors
/// The programs do not build, or the builder fails, in the tools' own words.
pub fn build_into(image: Image, folder: &Path) -> Result<Paths> {
    let programs = programs()?;
    let root = folder.join("root");
    let marker = format!("the tiny root {image:?}");
    lay_out(&root, image, &marker, &programs).with_context(|| format!("laying out {}", root.display()))?;
    let workspace = Workspace::around(&workspace());
    let plan = BuildPlan {
        root: Root::Directory(root),
        output: folder.join("out"),
        cache: Cache::new(workspace.cache()),
        binaries: programs,
        effort: Effort::Smallest,
        epoch: None,
        fresh: false,
        faults: Faults::default(),
    };
    build::build(&Config::default(), &plan, &Progress::new(true))?;
    Paths::open(&plan.output, &marker)
}

/// Builds the programs once a run; returns their folder.
///
/// # Errors
/// They do not build, in cargo's own words.
pub(crate) fn programs() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_programs().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!(error)).context("building the programs that the tests boot")
}

fn build_programs() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(cargo);
    cargo
        .current_dir(workspace())
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .args(["build", "--release", "--quiet", "--target", TARGET])
        .args(["-p", "sino-initramfs", "-p", "sino-init", "-p", "sino-qemu-tests"])
        .args(["--bin", "sino-stage-one", "--bin", "sino", "--bin", "sino-payload", "--bin", "sino-guest"]);
    command::run(&mut cargo)?;
    Ok(target().join(TARGET).join("release"))
}

fn lay_out(root: &Path, image: Image, marker: &str, programs: &Path) -> Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    for folder in EMPTY.into_iter().chain(["etc", "sbin"]) {
        fs::create_dir_all(root.join(folder))?;
    }
    let install = |from: &str, to: &str| -> Result<()> {
        let (from, to) = (programs.join(from), root.join(to));
        fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).context("making it executable")
    };
    if image != Image::WithoutInit {
        install("sino-payload", "sbin/init")?;
    }
    match image {
        Image::Tiny | Image::OtherBuild | Image::Large | Image::WithoutInit => {
            install("sino", "sbin/sino-init")?;
            // There is nothing in it that could be supervised.
            fs::create_dir_all(root.join("etc/sino"))?;
            fs::write(root.join("etc/sino/sino.toml"), "[boot]\nhandover = 0\n")?;
        }
        Image::WithoutStageTwo => {}
        Image::Real => bail!("the real image is not made here"),
    }
    fs::write(root.join(MARKER_FILE), format!("{marker}\n"))?;
    let ballast_bytes = if image == Image::Large { LARGE_BALLAST } else { BALLAST };
    fs::write(root.join("ballast"), ballast(ballast_bytes))?;
    Ok(())
}

/// Bytes that do not compress, the same every time: a linear congruential generator (Knuth's MMIX constants).
fn ballast(bytes: usize) -> Vec<u8> {
    let mut state: u64 = 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap_or_default()
    };
    std::iter::repeat_with(next).take(bytes).collect()
}
