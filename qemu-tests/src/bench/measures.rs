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
    /// The names of its cases, part by part.
    pub cases: &'static [fn() -> Vec<String>],
    /// Its parts, in their order.
    pub parts: &'static [Part],
}

/// Seconds from "Run /init" to the root's init with this root image (squashfs, or erofs by its superblock) on a USB stick.
pub type BootTime = fn(&Settings, &Path) -> Result<f64>;

/// What `image` asks for the boot time of each root image that it packed; `None`: that column is left out.
pub const BOOT_TIME: Option<BootTime> = Some(vm::boot_time::measure);

/// All measures, in the order of the report.
pub const MEASURES: &[Measure] = &[
    Measure {
        name: "stage-one",
        title: "Stage one",
        about: "From the kernel's \"Run /init\", and from the kernel's start, to the root's init. The floor is a hand-made script that \
            inserts exactly the modules that this one machine needs. The others' initramfs are made by Debian's own tools, for any machine.",
        cases: &[vm::stage_one::cases],
        parts: &[vm::stage_one::measure],
    },
    Measure {
        name: "loader",
        title: "Loader",
        about: "What a boot loader must read before any kernel runs, and how long ISOLINUX on a BIOS and GRUB under UEFI take for it from a \
            stick of 20 MB/s, all of it at that speed: ISOLINUX until the kernel's first word, GRUB until the last byte is read.",
        cases: &[vm::loader::cases],
        parts: &[vm::loader::measure],
    },
    Measure {
        name: "to-ram",
        title: "To RAM",
        about: "The root image copied into memory. Natively: a file of random bytes (1 GiB; 256 MiB in the short form), nothing of \
            it in the page cache, into a tmpfs of the build machine; SINO with the hash that it always makes, the others with none except \
            \"cp, then b3sum\". In the machine: how fast QEMU sees the stick being read in the middle of the copy, and what memory is gone \
            beyond the image's length, which may be less than nothing by what a boot from the medium itself has in use.",
        cases: &[super::native_copy::cases, vm::to_ram::cases],
        parts: &[super::native_copy::measure, vm::to_ram::measure],
    },
    Measure {
        name: "guests",
        title: "Power-on to guest",
        about: "The product's image under Xen with PV guests, from \"Run /init\" in domain 0 until xl has created the first one, all are ready \
            (network, xenstore and disk work) and Debian is up; and from \"poweroff\" until the machine is off. Beside it the same root without \
            SINO, started by live-boot, with Debian's xendomains, told to shut guests down and not to save them.",
        cases: &[super::guests::cases],
        parts: &[super::guests::measure],
    },
    Measure {
        name: "scale",
        title: "Scale",
        about: "Many guests started, with a fake xl whose every create takes 0.5 s. SINO has four under way at once, and so has the \
            ideal; xendomains (the script that Debian's unit runs, with its settings) starts one after the other. The ideal takes \
            0.5 s for each; the critical path takes what each call really took here, where all those processes are started.",
        cases: &[super::scale::case_names],
        parts: &[super::scale::start],
    },
    Measure {
        name: "shutdown",
        title: "Shutdown",
        about: "The same guests stopped. Each is gone one second after it was asked, however many others are; so the ideal is one \
            second, whatever their number, and one for each step where some stop after others. SINO asks 64 at a time, so that a host is not overrun; xendomains asks all. But it saves guests \
            one by one, unless its settings are changed so that it shuts them down; saving one takes a second here, too, and cannot go faster \
            than the disk in reality. How long a real host takes until it is off is in \"Power-on to guest\".",
        cases: &[super::scale::case_names],
        parts: &[super::scale::stop],
    },
    Measure {
        name: "image",
        title: "Image",
        about: "Cold: all is made, but for Debian's tree or for the download of its packages. Warm: nothing has changed. Then other ways to \
            pack the same root, each packed once; and booted, by the floor from a USB stick, which then reads the programs and libraries that a \
            running host is made of.",
        cases: &[super::image_cost::cases],
        parts: &[super::image_cost::measure],
    },
    Measure {
        name: "trust",
        title: "Cost of trust",
        about: "dm-verity on and off: until the root's init, and then reading every file of the root. And natively, as in \"To RAM\", the copy \
            with its hash and without; SINO itself has no such switch.",
        cases: &[super::native_copy::cases, vm::trust::cases],
        parts: &[super::native_copy::measure_hash, vm::trust::measure],
    },
];

impl Measure {
    /// The names of all its cases.
    #[must_use]
    pub fn case_names(&self) -> Vec<String> {
        self.cases.iter().flat_map(|part| part()).collect()
    }
}

/// The measure of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_its_cases() {
        for measure in MEASURES {
            assert_eq!(measure.cases.len(), measure.parts.len(), "{}", measure.name);
            let names = measure.case_names();
            assert!(names.len() == names.iter().collect::<std::collections::BTreeSet<_>>().len(), "{names:?}");
        }
    }
}
