//! The writable root: an overlay of the root image and a tmpfs of limited size.

use crate::devices::Devices;
use crate::image::Lower;
use crate::mounts::{self, Mount};
use crate::switch_root::NewRoot;
use anyhow::{Context, anyhow};
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::MountAttrFlags;
use sino_boot::layout;
use sino_boot::options::{Options, OverlaySize};
use sino_boot::stage::{Done, Fault, done};

/// A stacked root on [`layout::NEW_ROOT`], not looked at yet.
#[derive(Debug)]
pub struct Root(());

/// Stacks a tmpfs on the root image.
///
/// # Errors
/// A mount failed.
pub fn stack(_lower: &Lower, options: &Options, devices: &Devices) -> Result<Done<Root>, Fault> {
    devices.driver("overlay")?;
    let root = mount(options)?;
    Ok(done(root, format!("up to {} of memory for changes", size(options))))
}

fn size(options: &Options) -> String {
    match options.overlay {
        OverlaySize::Bytes(bytes) => bytes.to_string(),
        OverlaySize::Percent(percent) => format!("{percent}%"),
    }
}

/// The mounts of [`stack`]; the lower layer is on [`layout::LOWER`] already.
///
/// # Errors
/// A mount failed.
pub fn mount(options: &Options) -> Result<Root, Fault> {
    let size = size(options);
    let attributes = MountAttrFlags::empty();
    let limits = [("size", size.as_str()), ("mode", "0755")];
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
    pub fn checked(self, asked: Option<&str>) -> Result<Done<NewRoot>, Fault> {
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
        Ok(done(NewRoot { init: init.to_owned() }, init))
    }
}

/// Opens a program of the new root as the new root will see it, and reads its first bytes.
fn executable(init: &str) -> anyhow::Result<()> {
    let root = mounts::open_folder(layout::NEW_ROOT)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(root.as_fd(), init, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        .with_context(|| format!("opening {init} in the root"))?;
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
