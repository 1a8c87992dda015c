//! `sino.check`: reads and verifies every file of the medium, and says what is wrong. The boot goes on in any case: what
//! matters for it is verified again when it is used.

use crate::block_copy::{self, Plan};
use crate::medium::Medium;
use crate::progress::Progress;
use crate::stick_config;
use anyhow::{Context, Result, ensure};
use log::Level;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use sino_boot::manifest::Manifest;
use sino_boot::options::Options;
use sino_boot::record::BootRecord;
use sino_boot::stage::{Done, Fault, done, not_requested};
use sino_boot::watchdog::Watchdog;
use sino_boot::{block_hash, console, layout};

/// Bytes read at a time from files other than the root image.
const PIECE: usize = 1 << 20;

/// Verifies the medium if the flags say so.
///
/// # Errors
/// None that ends the boot: what is wrong with the medium becomes a warning.
pub fn medium(
    medium: Medium,
    options: &Options,
    manifest: &Manifest,
    record: &mut BootRecord,
    watchdog: Option<&Watchdog>,
) -> Result<Done<Medium>, Fault> {
    if !options.check {
        return Ok(not_requested(medium));
    }
    let alive = || {
        watchdog.inspect(|watchdog| watchdog.alive());
    };
    let mut wrong = Vec::new();
    let (files, bytes) = others(manifest, &mut wrong, &alive);
    let efi = efi_partition(&medium, &mut wrong, &alive);
    let progress = Progress::start("check-medium", manifest.root.size, true);
    let root = block_hash::parse(&manifest.root.blocks).and_then(|blocks| {
        let plan = Plan { from: &medium.image, to: None, size: manifest.root.size, blocks: &blocks };
        block_copy::copy(plan, &|bytes| {
            alive();
            progress.at(bytes);
        })
    });
    progress.end();
    if let Err(error) = root {
        wrong.push(format!("{}: {error:#}", manifest.root.path));
    }
    let all = format!("{} files{efi}, {} MiB", files + 1, (bytes + manifest.root.size) >> 20);
    if wrong.is_empty() {
        return Ok(done(medium, format!("{all}: every byte is what was built")));
    }
    for one in &wrong {
        let text = format!("check-medium: the medium is DAMAGED: {one}");
        console::say(&format!("{text}; write the stick again, or take another one"), Level::Error);
        record.warnings.push(text);
    }
    Ok(done(medium, format!("{all}: {} are DAMAGED, going on", wrong.len())))
}

/// Verifies the files besides the root image by the list that lies beside them; returns their number and bytes.
fn others(manifest: &Manifest, wrong: &mut Vec<String>, alive: &dyn Fn()) -> (u64, u64) {
    let list = match std::fs::read_to_string(format!("{}/{}", layout::MEDIUM, layout::FILE_SUMS)) {
        Ok(list) => list,
        Err(error) => {
            wrong.push(format!("{}: {error}", layout::FILE_SUMS));
            return (0, 0);
        }
    };
    let (mut files, mut bytes) = (0, 0);
    for (number, line) in list.lines().enumerate() {
        let Some((sum, path)) = line.split_once("  ").filter(|(_, path)| is_plain(path)) else {
            wrong.push(format!("{}, line {}: not a sum and a path", layout::FILE_SUMS, number + 1));
            continue;
        };
        if path == manifest.root.path {
            continue;
        }
        files += 1;
        match hash(path, alive) {
            Ok((found, length)) => {
                bytes += length;
                if found != sum {
                    wrong.push(format!("{path}: its BLAKE3 is {found} instead of {sum}"));
                }
            }
            Err(error) => wrong.push(format!("{path}: {error:#}")),
        }
    }
    (files, bytes)
}

/// Verifies the EFI partition of a stick; returns what there is to say of it. A disc has no partitions, and an ISO file's are
/// not looked at.
fn efi_partition(medium: &Medium, wrong: &mut Vec<String>, alive: &dyn Fn()) -> &'static str {
    let Some(partition) = stick_config::efi_partition(&medium.device) else { return "" };
    let checked = (|| -> Result<()> {
        let text =
            std::fs::read_to_string(format!("{}/{}", layout::MEDIUM, layout::EFI_SUM)).context(layout::EFI_SUM)?;
        let (sum, length) =
            text.trim().split_once(' ').with_context(|| format!("{}: not a sum and a length", layout::EFI_SUM))?;
        let length: u64 = length.parse().with_context(|| format!("{}: {length:?} is no length", layout::EFI_SUM))?;
        let file =
            rustix::fs::open(format!("/dev/{}", partition.name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let found = hash_of(&file, length, alive)?.0;
        ensure!(found == sum, "its BLAKE3 is {found} instead of {sum}");
        Ok(())
    })();
    if let Err(error) = checked {
        if std::path::Path::new(layout::STICK_CONFIG).exists() {
            // Somebody has written to it, rightly: what it should be now is not known.
            return " (not the EFI partition: it was changed, and carries a sino.toml)";
        }
        wrong.push(format!("the EFI partition {}: {error:#}", partition.name));
    }
    " and the EFI partition"
}

fn is_plain(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn hash(path: &str, alive: &dyn Fn()) -> Result<(String, u64)> {
    let full = format!("{}/{path}", layout::MEDIUM);
    let file: OwnedFd = rustix::fs::open(&full, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .context("opening it")?;
    let status = rustix::fs::fstat(&file)?;
    let regular = rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::RegularFile;
    ensure!(regular, "it is not a regular file");
    hash_of(&file, u64::MAX, alive)
}

/// The BLAKE3 of a file's first bytes, and how many there were.
fn hash_of(file: &OwnedFd, limit: u64, alive: &dyn Fn()) -> Result<(String, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    let mut offset = 0_u64;
    loop {
        let wanted = usize::try_from(limit - offset).unwrap_or(PIECE).min(PIECE);
        let rest = buffer.get_mut(..wanted).unwrap_or_default();
        let length = rustix::io::pread(file, rest, offset).with_context(|| format!("reading at byte {offset}"))?;
        if length == 0 {
            return Ok((hasher.finalize().to_hex().to_string(), offset));
        }
        hasher.update(buffer.get(..length).unwrap_or_default());
        offset += length as u64;
        alive();
    }
}
