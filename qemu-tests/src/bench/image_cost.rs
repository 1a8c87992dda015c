//! What the image costs: the time to build it, its bytes, and both of other ways to pack the root.
//!
//! Built is the default configuration, into a folder of its own. Packed is what is in the finished image's root, with nothing
//! else of it: no dm-verity tree, which is the same for all.

use super::measures::BOOT_TIME;
use super::table::DEFAULT;
use super::{Recorder, SINO, Settings, Unit};
use anyhow::{Context, Result, ensure};
use sino_boot::layout;
use sino_image::build::{self, BuildPlan, Built, Faults, Root};
use sino_image::cache::{Cache, remove};
use sino_image::command;
use sino_image::config::{self, Config};
use sino_image::initramfs::Effort;
use sino_image::progress::Progress;
use sino_image::qemu::process::require;
use sino_image::squashfs::{self, Packing};
use sino_image::workspace::Workspace;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The case of the builds.
const MAKE: &str = "make iso";
/// The case of the packings.
const PACKING: &str = "root image";
/// zstd levels and block sizes in KiB of the full form.
const LEVELS: [u32; 4] = [6, 15, 19, 22];
const BLOCKS: [u32; 3] = [128, 256, 1024];
/// Physical clusters of erofs in KiB.
const CLUSTERS: [u32; 2] = [64, 1024];

/// Measures it.
///
/// # Errors
/// Not root, a tool is missing or fails, too little space.
pub fn measure(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "root is needed for the files' owners; run: make bench (it uses sudo)"
    );
    if settings.wants(MAKE) {
        builds(recorder, settings)?;
    }
    if settings.wants(PACKING) {
        packings(recorder, settings)?;
    }
    Ok(())
}

/// Cold and warm. Each build is made once: they take minutes, and each is the same work.
fn builds(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    let workspace = Workspace { root: settings.workspace.clone() };
    let output = settings.work("image").join("iso");
    let plan = |cache: Cache, fresh: bool| -> Result<BuildPlan> {
        Ok(BuildPlan {
            root: Root::Debian,
            output: output.clone(),
            cache,
            binaries: workspace.binaries(),
            effort: Effort::Smallest,
            epoch: config::source_date_epoch(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref())?,
            fresh,
            faults: Faults::default(),
        })
    };
    let mut timed = |figure: &str, round: u32, plan: &BuildPlan| -> Result<Built> {
        let began = Instant::now();
        let built = build::build(&Config::default(), plan, &Progress::silent())?;
        recorder.record(MAKE, SINO, figure, round, Unit::Seconds, began.elapsed().as_secs_f64())?;
        Ok(built)
    };
    let cache = workspace.cache();
    timed("cold, Debian installed", 1, &plan(Cache::new(&cache), true)?)?;
    let warm = plan(Cache::new(&cache), false)?;
    for round in 2..=settings.rounds {
        timed("warm", round - 1, &warm)?;
    }
    let built = timed("warm", settings.rounds, &warm)?;
    if !settings.short {
        // All that was made is gone, what was downloaded is there.
        let other = settings.work("image").join("cache");
        remove(&other)?;
        fs::create_dir_all(&other).with_context(|| format!("making {}", other.display()))?;
        command::run(Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(cache.join("debs")).arg(&other))?;
        timed("from downloaded packages", 1, &plan(Cache::new(&other), false)?)?;
        remove(&other)?;
    }
    let mut record = |figure, bytes| recorder.record(MAKE, SINO, figure, 1, Unit::Bytes, bytes);
    record("ISO", length(&built.iso)?)?;
    record("root image", whole(built.root_bytes))?;
    record("initramfs", length(&built.initramfs)?)?;
    let for_iso_files = output.join("initramfs-iso-file.img");
    record("initramfs for ISO files", length(&for_iso_files)?)?;
    record("kernel", length(&built.kernel)?)?;
    record("Xen", length(&built.xen)?)?;
    remove(&output)
}

/// A way to pack.
enum Way {
    Squashfs(Packing),
    /// Arguments of mkfs.erofs.
    Erofs(Vec<String>),
}

fn packings(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    require("mkfs.erofs", "erofs-utils")?;
    let work = settings.work("image");
    let (root, image) = (work.join("root"), work.join("packed"));
    unpack(&settings.image.join("sino.iso"), &work, &root)?;
    // The first one must not be the only one that reads from the disk.
    command::run(Command::new("tar").args(["-cf", "/dev/null", "-C"]).arg(&root).arg("."))?;
    // Some releases call a question for help an error.
    let help = Command::new("mkfs.erofs").arg("--help").output().context("running mkfs.erofs")?;
    let help = String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).into_owned();
    for (name, way) in ways(settings.short, &help) {
        remove(&image)?;
        let began = Instant::now();
        match way {
            Way::Squashfs(packing) => squashfs::pack(&root, &image, packing, &[])?,
            Way::Erofs(arguments) => {
                command::run(Command::new("mkfs.erofs").args(arguments).arg(&image).arg(&root))?;
            }
        }
        recorder.record(PACKING, &name, "time to pack", 1, Unit::Seconds, began.elapsed().as_secs_f64())?;
        recorder.record(PACKING, &name, "size", 1, Unit::Bytes, length(&image)?)?;
        if let Some(boot_time) = BOOT_TIME {
            for round in 1..=settings.rounds {
                match boot_time(settings, &image) {
                    Ok(seconds) => recorder.record(PACKING, &name, "boot", round, Unit::Seconds, seconds)?,
                    Err(error) => recorder.failed(PACKING, &name, round, &error)?,
                }
            }
        }
    }
    remove(&image)?;
    remove(&root)
}

/// Names and ways. `help` is that of mkfs.erofs, which names its compressors.
fn ways(short: bool, help: &str) -> Vec<(String, Way)> {
    let image = Config::default().image;
    let default = (image.compression_level, image.block_size);
    let all = LEVELS.into_iter().flat_map(|level| BLOCKS.map(|block| (level, block)));
    let mut ways = Vec::new();
    // The short form has two of a block size; the default is in both forms, whatever it is.
    let wanted = |&(level, block): &(u32, u32)| !short || block == default.1 && level <= default.0;
    let mut packings: Vec<(u32, u32)> = all.filter(wanted).collect();
    if !packings.contains(&default) {
        packings.push(default);
    }
    for (level, block) in packings {
        let mark = if (level, block) == default { format!(" {DEFAULT}") } else { String::new() };
        let packing = Packing { level, block, epoch: 0, flat: false };
        ways.push((format!("squashfs zstd {level}, {block} KiB{mark}"), Way::Squashfs(packing)));
    }
    let mut compressors = vec!["lz4hc,12"];
    if help.contains("zstd") {
        compressors.push("zstd,15");
    }
    for compressor in compressors {
        for cluster in CLUSTERS.into_iter().filter(|cluster| !short || *cluster == CLUSTERS[0]) {
            let name = format!("erofs {}, {cluster} KiB", compressor.replace(',', " "));
            let arguments = vec![format!("-z{compressor}"), format!("-C{}", cluster << 10), "-T0".to_owned()];
            ways.push((name, Way::Erofs(arguments)));
        }
    }
    ways
}

/// Unpacks the root image of a finished ISO into the folder `root`; `work` is for what is needed on the way.
///
/// # Errors
/// The ISO is missing, or a tool fails.
pub(super) fn unpack(iso: &Path, work: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(work).with_context(|| format!("making {}", work.display()))?;
    remove(root)?;
    ensure!(iso.is_file(), "{} is missing; make it: make iso", iso.display());
    let packed = work.join("root.squashfs");
    remove(&packed)?;
    let inside = PathBuf::from("/").join(layout::ROOT_IMAGE);
    command::run(
        Command::new("xorriso").args(["-osirrox", "on", "-indev"]).arg(iso).arg("-extract").arg(inside).arg(&packed),
    )?;
    command::run(Command::new("unsquashfs").args(["-quiet", "-no-progress", "-dest"]).arg(root).arg(&packed))?;
    remove(&packed)
}

fn length(path: &Path) -> Result<f64> {
    Ok(whole(fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len()))
}

#[expect(clippy::cast_precision_loss, reason = "files are far below 2^52 bytes")]
fn whole(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_is_the_default_in_both_forms() {
        const HELP: &str = "Available compressors are: lz4hc, lz4";
        for short in [true, false] {
            let names: Vec<String> = ways(short, HELP).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names.iter().filter(|name| name.ends_with(DEFAULT)).count(), 1, "{names:?}");
            assert!(names.iter().any(|name| name.starts_with("erofs lz4hc")), "{names:?}");
        }
        let full = ways(false, HELP).len();
        assert!(full > ways(true, HELP).len());
        assert_eq!(ways(false, "lz4 zstd deflate").len(), full + CLUSTERS.len());
    }
}
