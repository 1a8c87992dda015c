//! What the image costs: the time to build it, its bytes, and both of other ways to pack the root.
//!
//! Built is the default configuration, into a folder of its own. Packed is what is in the finished image's root, with nothing
//! else of it: no dm-verity tree, which is the same for all.

use super::measures::BOOT_TIME;
use super::table::DEFAULT;
use super::{Recorder, SINO, Settings, Unit};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sino_boot::layout;
use sino_image::cache::remove;
use sino_image::command;
use sino_image::config::Config;
use sino_image::qemu::process::require;
use sino_image::squashfs::{self, Packing};
use sino_image::workspace::Workspace;
use std::fmt;
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

/// The names of the cases.
#[must_use]
pub fn cases() -> Vec<String> {
    [MAKE, PACKING].map(str::to_owned).to_vec()
}

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

/// Cold and warm. Each cold build is made once: they take minutes, and each is the same work.
fn builds(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    let workspace = Workspace { root: settings.workspace.clone() };
    let output = settings.work("image").join("iso");
    // The program that "make iso" runs, optimised as it is shipped.
    let program = workspace.root.join("target/release/sino-image");
    ensure!(program.is_file(), "{} is missing; make it: make iso", program.display());
    let timed = |cache: &Path, fresh: bool| -> Result<f64> {
        let mut command = Command::new(&program);
        command.args(["build", "--quiet", "--output"]).arg(&output).arg("--cache").arg(cache);
        command.args(fresh.then_some("--fresh")).current_dir(&workspace.root);
        let began = Instant::now();
        command::run(&mut command)?;
        Ok(began.elapsed().as_secs_f64())
    };
    let cache = workspace.cache();
    recorder.in_turns(MAKE, settings.rounds, &[SINO], |recorder, contender, round| {
        let mut record = |figure, unit, value| recorder.record(MAKE, contender, figure, round, unit, value);
        if round == 1 {
            record("cold, Debian's tree cached", Unit::Seconds, timed(&cache, true)?)?;
        } else if !output.exists() {
            // Of a bench that was ended; what is missing is not warm.
            timed(&cache, false)?;
        }
        record("warm", Unit::Seconds, timed(&cache, false)?)?;
        if round > 1 {
            return Ok(());
        }
        if !settings.short {
            // All that was made is gone, what was downloaded is there.
            let other = settings.work("image").join("cache");
            remove(&other)?;
            fs::create_dir_all(&other).with_context(|| format!("making {}", other.display()))?;
            command::run(Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(cache.join("debs")).arg(&other))?;
            record("cold, from downloaded packages", Unit::Seconds, timed(&other, false)?)?;
            remove(&other)?;
        }
        let mut record = |figure, bytes| record(figure, Unit::Bytes, bytes);
        let file = output.join("build.json");
        let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let built: Lengths = serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))?;
        record("ISO", length(&output.join("sino.iso"))?)?;
        record("root image", whole(built.root_bytes))?;
        record("initramfs", length(&output.join("initramfs.img"))?)?;
        record("initramfs for ISO files", length(&output.join("initramfs-iso-file.img"))?)?;
        record("kernel", length(&output.join("vmlinuz"))?)?;
        record("Xen", length(&output.join("xen.gz"))?)
    })?;
    remove(&output)
}

/// What the builder says of the image in `build.json`.
#[derive(Deserialize)]
struct Lengths {
    root_bytes: u64,
}

/// A way to pack.
struct Way {
    name: String,
    how: How,
}

enum How {
    Squashfs(Packing),
    /// Arguments of mkfs.erofs.
    Erofs(Vec<String>),
    /// The image of the way of this name once more: what differs is the noise of the machine.
    Again(String),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn packings(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    require("mkfs.erofs", "erofs-utils")?;
    let work = settings.work("image");
    let (root, images) = (work.join("root"), work.join("packed"));
    fs::create_dir_all(&images).with_context(|| format!("making {}", images.display()))?;
    // Some releases call a question for help an error.
    let help = Command::new("mkfs.erofs").arg("--help").output().context("running mkfs.erofs")?;
    let help = String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).into_owned();
    let ways = ways(settings.short, &help);
    // What a bench that was ended left may be of another build, or cut short.
    remove(&root)?;
    recorder.in_turns(PACKING, settings.rounds, &ways, |recorder, way, round| {
        let file = |name: &str| images.join(name.replace([' ', ','], "-"));
        let image = file(if let How::Again(name) = &way.how { name } else { &way.name });
        let mut record = |figure, unit, value| recorder.record(PACKING, &way.name, figure, round, unit, value);
        let again = matches!(way.how, How::Again(_));
        if !again && (round == 1 || !image.exists()) {
            if !root.exists() {
                unpack(&settings.image.join("sino.iso"), &work, &root)?;
                // The first one must not be the only one that reads from the disk.
                command::run(Command::new("tar").args(["-cf", "/dev/null", "-C"]).arg(&root).arg("."))?;
            }
            let next = images.join("next");
            remove(&next)?;
            let began = Instant::now();
            match &way.how {
                How::Squashfs(packing) => squashfs::pack(&root, &next, *packing, &[])?,
                How::Erofs(arguments) => {
                    command::run(Command::new("mkfs.erofs").args(arguments).arg(&next).arg(&root))?;
                }
                How::Again(name) => bail!("{name} is packed already"),
            }
            let spent = began.elapsed().as_secs_f64();
            // Whole or not at all.
            fs::rename(&next, &image).with_context(|| format!("keeping {}", image.display()))?;
            // Packed once more for a bench that was ended: the time is known.
            if round == 1 {
                record("time to pack", Unit::Seconds, spent)?;
                record("size", Unit::Bytes, length(&image)?)?;
            }
        }
        let Some(boot_time) = BOOT_TIME else { return Ok(()) };
        match boot_time(settings, &image) {
            Ok(seconds) => record("boot", Unit::Seconds, seconds),
            Err(error) => recorder.failed(PACKING, &way.name, round, &error),
        }
    })?;
    remove(&images)?;
    remove(&root)
}

/// The ways: each level with the default block size, and each block size with the default level. `help` is that of mkfs.erofs,
/// which names its compressors.
fn ways(short: bool, help: &str) -> Vec<Way> {
    let image = Config::default().image;
    let default = (image.compression_level, image.block_size);
    let levels = LEVELS.into_iter().filter(|level| !short || *level <= default.0).map(|level| (level, default.1));
    let blocks = BLOCKS.into_iter().filter(|_| !short).map(|block| (default.0, block));
    let mut packings: Vec<(u32, u32)> = levels.chain(blocks).collect();
    if !packings.contains(&default) {
        packings.push(default);
    }
    packings.sort_unstable();
    packings.dedup();
    let squashfs = packings.into_iter().map(|(level, block)| {
        let mark = if (level, block) == default { format!(" {DEFAULT}") } else { String::new() };
        let packing = Packing { level, block, epoch: 0, flat: false };
        Way { name: format!("squashfs zstd {level}, {block} KiB{mark}"), how: How::Squashfs(packing) }
    });
    let mut ways: Vec<Way> = squashfs.collect();
    let mut compressors = vec!["lz4hc,12"];
    if help.contains("zstd") {
        compressors.push("zstd,15");
    }
    for compressor in compressors {
        for cluster in CLUSTERS.into_iter().filter(|cluster| !short || *cluster == CLUSTERS[0]) {
            let name = format!("erofs {}, {cluster} KiB", compressor.replace(',', " "));
            let arguments = vec![format!("-z{compressor}"), format!("-C{}", cluster << 10), "-T0".to_owned()];
            ways.push(Way { name, how: How::Erofs(arguments) });
        }
    }
    if let Some(own) = ways.iter().find(|way| way.name.ends_with(DEFAULT)).map(|way| way.name.clone()) {
        ways.push(Way { name: format!("{own} again"), how: How::Again(own) });
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
            let names: Vec<String> = ways(short, HELP).into_iter().map(|way| way.name).collect();
            assert_eq!(names.iter().filter(|name| name.ends_with(DEFAULT)).count(), 1, "{names:?}");
            assert!(names.iter().any(|name| name.starts_with("erofs lz4hc")), "{names:?}");
        }
        let full = ways(false, HELP).len();
        assert!(full > ways(true, HELP).len());
        assert_eq!(ways(false, "lz4 zstd deflate").len(), full + CLUSTERS.len());
    }
}
