//! The images that scenarios boot, each made at most once a run, when the first scenario asks for it.
//!
//! The tiny images are made here by `sino_image` from the cached Debian tree's kernel, modules and Xen, and a root of a
//! few files ([`crate::tiny_root`]). The real image is not made here: it must be there.

use crate::scenario::Image;
use anyhow::{Context, Result, anyhow, ensure};
use sino_boot::manifest::Manifest;
use sino_image::config::Config;
use sino_image::menu;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A finished image.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The hybrid ISO.
    pub iso: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The hypervisor.
    pub xen: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The initramfs for a medium that is an ISO file.
    pub iso_file_initramfs: PathBuf,
    /// What the initramfs was built with.
    pub manifest: Manifest,
    /// The text of `/etc/sino-test` in the root; empty in the real image.
    pub marker: String,
}

impl Paths {
    /// Opens the folder of a finished image.
    ///
    /// # Errors
    /// A file is missing.
    pub fn open(folder: &Path, marker: &str) -> Result<Self> {
        let file = |name: &str| {
            let path = folder.join(name);
            ensure!(path.is_file(), "{} is missing", path.display());
            Ok(path)
        };
        let manifest = file("manifest.json")?;
        let text = std::fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
        Ok(Self {
            iso: file("sino.iso")?,
            kernel: file("vmlinuz")?,
            xen: file("xen.gz")?,
            initramfs: file("initramfs.img")?,
            iso_file_initramfs: file("initramfs-iso-file.img")?,
            manifest: Manifest::parse(&text)?,
            marker: marker.to_owned(),
        })
    }

    /// dom0's memory in MiB for the menu's entries that boot from the medium, or from a copy in RAM.
    #[must_use]
    pub fn dom0_memory(&self, on_ram: bool) -> u64 {
        menu::dom0_memory(&Config::default().boot, self.manifest.root.size, on_ram)
    }
}

/// Where everything goes: `target` of the workspace, or what `CARGO_TARGET_DIR` says.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The workspace's folder.
#[must_use]
pub fn workspace() -> PathBuf {
    let member =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    member.parent().map(Path::to_path_buf).unwrap_or(member)
}

type Slot = Arc<Mutex<Option<Result<Paths, String>>>>;

/// The images of this run.
#[derive(Clone, Debug, Default)]
pub struct Images {
    slots: Arc<Mutex<BTreeMap<Image, Slot>>>,
}

impl Images {
    /// An image; made if this is the first time that it is asked for.
    ///
    /// # Errors
    /// Why it cannot be made; the same for everybody who asks.
    pub fn get(&self, image: Image) -> Result<Paths> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(image).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let result = slot.get_or_insert_with(|| make(image).map_err(|error| format!("{error:#}")));
        result.clone().map_err(|error| anyhow!(error)).with_context(|| format!("the image {image:?} is not to be had"))
    }
}

fn make(image: Image) -> Result<Paths> {
    match image {
        Image::Real => {
            // make iso puts it there whatever folder cargo builds the tests in.
            let folder = workspace().join("target/sino");
            Paths::open(&folder, "")
                .with_context(|| format!("no real image in {}; make it: make iso", folder.display()))
        }
        Image::Tiny | Image::OtherBuild | Image::Large | Image::WithoutInit | Image::WithoutStageTwo => {
            crate::tiny_root::image(image)
        }
    }
}
