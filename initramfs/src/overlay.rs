//! The writable root: an overlay of the root image and a tmpfs of limited size.

use crate::devices::Devices;
use crate::image::Lower;
use crate::keeper::Task;
use crate::mounts::{self, Mount};
use crate::switch_root::NewRoot;
use anyhow::{Context, anyhow};
use rustix::fd::AsFd;
use rustix::fs::OFlags;
use rustix::mount::MountAttrFlags;
use sino_boot::options::{Options, OverlaySize};
use sino_boot::stage::{Done, Fault, done};
use sino_boot::{in_root, layout};

/// A stacked root on [`layout::NEW_ROOT`], not looked at yet.
#[derive(Debug)]
pub struct Root(());

/// Bytes of the tmpfs for one file or folder, when the flags do not say how many it takes: an inode takes about 1 KiB of
/// memory that the tmpfs's size does not count.
const BYTES_PER_INODE: u64 = 8 << 10;
/// Fewer would not do for a package to be installed.
const FEWEST_INODES: u64 = 16_384;

/// The limits of the tmpfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub size: u64,
    /// Files and folders.
    pub inodes: u64,
}

impl Limits {
    /// The limits that the flags ask for, on a machine with so many bytes of memory.
    #[must_use]
    pub fn new(options: &Options, memory: u64) -> Self {
        let size = match options.overlay {
            OverlaySize::Bytes(bytes) => bytes,
            OverlaySize::Percent(percent) => memory / 100 * u64::from(percent),
        };
        let inodes = options.overlay_inodes.unwrap_or_else(|| (size / BYTES_PER_INODE).max(FEWEST_INODES));
        Self { size, inodes }
    }
}

/// Stacks a tmpfs on the root image.
///
/// # Errors
/// A mount failed.
pub fn stack(_lower: &Lower, options: &Options, devices: &Devices) -> Result<Done<Root>, Fault> {
    devices.driver("overlay")?;
    let info = rustix::system::sysinfo();
    let limits = Limits::new(options, info.totalram.saturating_mul(u64::from(info.mem_unit.max(1))));
    let root = mount(limits)?;
    Ok(done(root, format!("{} MiB and {} files for changes, in memory", limits.size >> 20, limits.inodes)))
}

/// The mounts of [`stack`]; the lower layer is on [`layout::LOWER`] already.
///
/// # Errors
/// A mount failed.
pub fn mount(limits: Limits) -> Result<Root, Fault> {
    let (size, inodes) = (limits.size.to_string(), limits.inodes.to_string());
    let attributes = MountAttrFlags::empty();
    let limits = [("size", size.as_str()), ("nr_inodes", inodes.as_str()), ("mode", "0755")];
    let upper = format!("{}/upper", layout::OVERLAY);
    let work = format!("{}/work", layout::OVERLAY);
    mounts::mount(&Mount {
        fs: "tmpfs",
        source: "sino-overlay",
        target: layout::OVERLAY,
        attributes,
        options: &limits,
    })?;
    for folder in [&upper, &work] {
        std::fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
    }
    let layers = [("lowerdir", layout::LOWER), ("upperdir", upper.as_str()), ("workdir", work.as_str())];
    mounts::mount(&Mount { fs: "overlay", source: "sino", target: layout::NEW_ROOT, attributes, options: &layers })?;
    Ok(Root(()))
}

impl Root {
    /// Makes sure that the init in the root is there and can be executed: the last chance for a rescue shell.
    ///
    /// # Errors
    /// It is missing, not executable, or cannot be read.
    pub fn checked(self, asked: Option<&str>, task: Task) -> Result<Done<NewRoot>, Fault> {
        let init = asked.unwrap_or(layout::STAGE_TWO);
        if let Err(cause) = executable(init) {
            let fault = Fault::from(cause.context(format!("the root image's {init} cannot be executed")));
            let listing = std::fs::read_dir(layout::NEW_ROOT).map(|entries| {
                let mut names: Vec<_> =
                    entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
                names.sort();
                names.join(" ")
            });
            let fault = fault.seen(format!("the root holds: {}", listing.unwrap_or_default()));
            return Err(if asked.is_some() {
                fault.hint("sino.init= names a program of the root image: correct it, or leave it out")
            } else {
                fault
                    .hint("the root image is not one of SINO's, or incomplete: build it again")
                    .hint(format!("sino.init={} starts Debian without stage two", layout::USERLAND_INIT))
            });
        }
        Ok(done(NewRoot { init: init.to_owned(), task }, init))
    }
}

/// Opens a program of the new root as the new root will see it, and reads its first bytes.
fn executable(init: &str) -> anyhow::Result<()> {
    let root = mounts::open_folder(layout::NEW_ROOT)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = in_root::open(root.as_fd(), init, flags).with_context(|| format!("opening {init} in the root"))?;
    let status = rustix::fs::fstat(&file).context("asking what it is")?;
    if rustix::fs::FileType::from_raw_mode(status.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(anyhow!("it is not a regular file"));
    }
    if status.st_mode & 0o111 == 0 {
        return Err(anyhow!("it has no permission to be executed (mode {:o})", status.st_mode & 0o7777));
    }
    let mut magic = [0; 4];
    let length = rustix::io::pread(&file, &mut magic, 0).context("reading it")?;
    let known = magic == *b"\x7fELF" || magic.starts_with(b"#!");
    if length < 4 || !known {
        return Err(anyhow!("it is neither an ELF program nor a script"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_from_the_flags_and_the_memory() {
        let limits =
            |overlay, overlay_inodes| Limits::new(&Options { overlay, overlay_inodes, ..Options::default() }, 1 << 30);
        let half = limits(OverlaySize::Percent(50), None);
        assert!((half.size.abs_diff(512 << 20) < 100) && half.inodes.abs_diff(65_536) < 2, "{half:?}");
        assert_eq!(limits(OverlaySize::Bytes(4 << 20), None), Limits { size: 4 << 20, inodes: FEWEST_INODES });
        assert_eq!(limits(OverlaySize::Bytes(4 << 20), Some(2000)).inodes, 2000);
    }
}
