//! The measures by name, and the functions that each one consists of.

use super::{Recorder, Settings, vm};
use anyhow::Result;
use std::path::Path;

/// A part of a measure: records its samples.
pub type Part = fn(&mut Recorder, &Settings) -> Result<()>;

/// A measure.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its name on the command line and in its file.
    pub name: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What it measures, how, and what the contenders are: a paragraph of the report.
    pub about: &'static str,
    /// Its parts, in their order.
    pub parts: &'static [Part],
}

/// Seconds from "Run /init" to the root's init with this root image (squashfs, or erofs by its superblock) on a USB stick.
pub type BootTime = fn(&Settings, &Path) -> Result<f64>;

/// What `image` asks for the boot time of each root image that it packed; `None`: that column is left out.
pub const BOOT_TIME: Option<BootTime> = None;

/// All measures, in the order of the report.
pub const MEASURES: &[Measure] = &[
    Measure {
        name: "stage-one",
        title: "Stage one",
        about: "From the kernel's \"Run /init\", and from the kernel's start, to the root's init.",
        parts: &[vm::stage_one::measure],
    },
    Measure {
        name: "loader",
        title: "Loader",
        about: "What BIOS and GRUB must read before any kernel runs, and how long it takes from a slow stick.",
        parts: &[vm::loader::measure],
    },
    Measure {
        name: "to-ram",
        title: "To RAM",
        about: "The root image copied into memory.",
        parts: &[vm::to_ram::measure],
    },
    Measure {
        name: "guests",
        title: "Power-on to guest",
        about: "The real image under Xen, from power-on until its guests run.",
        parts: &[],
    },
    Measure {
        name: "scale",
        title: "Scale",
        about: "Many guests started, with a fake xl that costs the same each time.",
        parts: &[],
    },
    Measure { name: "shutdown", title: "Shutdown", about: "Many guests stopped, with the same fake xl.", parts: &[] },
    Measure {
        name: "image",
        title: "Image",
        about: "How long the image takes to build, and how large it is.",
        parts: &[],
    },
    Measure {
        name: "trust",
        title: "Cost of trust",
        about: "dm-verity and the hash of the copy, on and off.",
        parts: &[vm::trust::measure],
    },
];

/// The measure of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.name == name)
}
