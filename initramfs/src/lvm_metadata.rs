//! LVM2's on-disk metadata, read-only: enough to find where a linear or striped volume's data lies.
//!
//! The caller reads, this understands: [`label`] takes a physical volume's first bytes, [`text_pieces`] a metadata
//! area's header, [`parse`] the text, and [`VolumeGroup::targets`] says what device-mapper is to be told. Nothing is
//! changed or activated, and thin, RAID, cached and snapshot volumes are refused: their data is not where it seems.
//! Sources: the documentation of libvslvm, "Logical Volume Manager (LVM) format"; lvm2's man pages; the kernel's
//! `Documentation/admin-guide/device-mapper` (linear and striped).

use crate::lvm_text::{self, Section, Value};
use crate::superblock::number;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;

/// How much of a physical volume's beginning [`label`] wants, in bytes: the label is in one of four sectors.
pub const HEAD: usize = 4 * SECTOR;
/// How much [`text_pieces`] wants of a metadata area's beginning, in bytes.
pub const AREA_HEADER: usize = 512;
const SECTOR: usize = 512;
/// A text is a few KiB for each volume, and areas have 1 MiB unless somebody asked for more.
const LONGEST_TEXT: u64 = 16 << 20;

/// What a physical volume's label says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The physical volume's UUID: 32 characters, without LVM's dashes.
    pub pv_uuid: String,
    /// Offset and size of its metadata areas, in bytes on the device. May be empty: other volumes of the group have it.
    pub metadata_areas: Vec<(u64, u64)>,
}

/// Reads the label from a device's first [`HEAD`] bytes; `None` if it is not a physical volume of LVM2.
#[must_use]
pub fn label(head: &[u8]) -> Option<Label> {
    head.chunks(SECTOR).take(HEAD / SECTOR).zip(0..).find_map(|(sector, index)| label_in(sector, index))
}

fn label_in(sector: &[u8], index: u64) -> Option<Label> {
    let is_label = sector.get(..8)? == b"LABELONE"
        && sector.get(24..32)? == b"LVM2 001"
        && number(sector, 8, 8)? == index
        && number(sector, 16, 4)? == u64::from(crc32(CRC_SEED, sector.get(20..SECTOR)?));
    if !is_label {
        return None;
    }
    let header = sector.get(usize::try_from(number(sector, 20, 4)?).ok()?..)?;
    let id = header.get(..32)?;
    let is_id = id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'!' | b'#'));
    // After the UUID and the device's size: the data areas, a zero pair, the metadata areas, a zero pair.
    let mut at = 40;
    let mut areas = || {
        let mut found = Vec::new();
        loop {
            let area = (number(header, at, 8)?, number(header, at + 8, 8)?);
            at += 16;
            match area {
                (0, _) => return Some(found),
                area => found.push(area),
            }
        }
    };
    areas()?;
    let metadata_areas = areas()?;
    Some(Label { pv_uuid: is_id.then(|| String::from_utf8_lossy(id).into_owned())?, metadata_areas })
}

/// Where the current text lies, from the [`AREA_HEADER`] bytes at the start of `area`, one of a label's.
///
/// One or two pieces, (offset, length) in bytes on the device, to be read and joined: the area is a ring. `None` if the
/// area holds no text, is marked as out of use, or is damaged.
#[must_use]
pub fn text_pieces(area: (u64, u64), header: &[u8]) -> Option<Vec<(u64, u64)>> {
    let (start, size) = area;
    let header = header.get(..AREA_HEADER)?;
    let is_area = header.get(4..20)? == b" LVM2 x[5A%r0N*>"
        && number(header, 20, 4)? == 1
        && number(header, 0, 4)? == u64::from(crc32(CRC_SEED, header.get(4..)?));
    // The first place is the text that counts; the second one that was being written. Flag 1: ignore this area.
    let (offset, length, flags) = (number(header, 40, 8)?, number(header, 48, 8)?, number(header, 60, 4)?);
    let ring = AREA_HEADER as u64;
    if !is_area || flags & 1 != 0 || offset < ring || offset >= size || !(1..=LONGEST_TEXT).contains(&length) {
        return None;
    }
    start.checked_add(size)?;
    let first = length.min(size - offset);
    let rest = length - first;
    if rest > offset - ring {
        return None;
    }
    let pieces = [(start + offset, first), (start + ring, rest)];
    Some(pieces.into_iter().filter(|(_, length)| *length > 0).collect())
}

/// Whether `text` is the one that the area's header speaks of, whole and unchanged since.
#[must_use]
pub fn is_whole(header: &[u8], text: &[u8]) -> bool {
    number(header, 56, 4) == Some(u64::from(crc32(CRC_SEED, text)))
}

const CRC_SEED: u32 = 0xf597_a6cf;

/// The CRC-32 of Ethernet and GPT, without the usual inversions of `seed` and result, which LVM does not make.
pub(crate) fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// A volume group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeGroup {
    /// Its name.
    pub name: String,
    /// Counts the changes: of two texts, the one with the higher number counts.
    pub seqno: u64,
    /// Length of an extent in 512-byte sectors.
    pub extent_sectors: u64,
    /// Its physical volumes, by their names in the text (`pv0`).
    pub physical: BTreeMap<String, Physical>,
    /// Its logical volumes by name, LVM's internal ones among them.
    pub logical: BTreeMap<String, Logical>,
    /// The volumes that take part in a snapshot in such a way that their data is not to be read alone, and why.
    pub entangled: BTreeMap<String, &'static str>,
}

/// A physical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Physical {
    /// Its UUID as in [`Label::pv_uuid`].
    pub id: String,
    /// Where its first extent begins, in 512-byte sectors.
    pub pe_start: u64,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logical {
    /// Its segments, in the order of their first extents.
    pub segments: Vec<Segment>,
}

/// A part of a logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first extent, counted in the logical volume.
    pub start_extent: u64,
    /// Its length in extents.
    pub extents: u64,
    /// LVM's segment type: `striped`, `thin`, `raid1` and so on.
    pub kind: String,
    /// Length of a stripe's chunk in 512-byte sectors; 0 if there is one stripe.
    pub stripe_sectors: u64,
    /// Each stripe's physical volume and the extent in it where the stripe begins. One stripe: a linear segment.
    pub stripes: Vec<(String, u64)>,
}

/// A device-mapper target; all numbers are 512-byte sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it begins in the volume.
    pub start: u64,
    /// Its length.
    pub length: u64,
    /// Where its data lies.
    pub mapping: Mapping,
}

/// Where a target's data lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// On one physical volume, from `start` on.
    Linear {
        /// The physical volume's UUID.
        pv_id: String,
        /// The first sector.
        start: u64,
    },
    /// In turns of `chunk` sectors on several.
    Striped {
        /// How many sectors of a stripe come in one piece.
        chunk: u64,
        /// Each stripe's physical volume (its UUID) and first sector.
        stripes: Vec<(String, u64)>,
    },
}

impl VolumeGroup {
    /// The device-mapper targets of volume `lv`, in order and without gaps.
    ///
    /// # Errors
    /// There is no such volume; it is neither linear nor striped; or the metadata contradict themselves.
    pub fn targets(&self, lv: &str) -> Result<Vec<Target>> {
        self.mapped(lv).with_context(|| format!("logical volume {}/{lv}", self.name))
    }

    fn mapped(&self, lv: &str) -> Result<Vec<Target>> {
        let volume = self.logical.get(lv).with_context(|| {
            let names: Vec<&str> = self.logical.keys().map(String::as_str).collect();
            format!("there is no such volume; the volume group has: {}", names.join(", "))
        })?;
        if let Some(why) = self.entangled.get(lv) {
            bail!("it is {why}; only linear and striped volumes can carry a medium");
        }
        ensure!(!volume.segments.is_empty(), "it has no segments");
        let mut next = 0;
        let mut targets = Vec::new();
        for segment in &volume.segments {
            ensure!(segment.start_extent == next, "a gap or an overlap at extent {next}");
            next = segment.start_extent.checked_add(segment.extents).context("it is too long")?;
            targets.push(self.target(segment)?);
        }
        Ok(targets)
    }

    fn target(&self, segment: &Segment) -> Result<Target> {
        let kind = segment.kind.as_str();
        ensure!(
            matches!(kind, "striped" | "linear"),
            "it is of type {kind:?}; only linear and striped volumes can carry a medium"
        );
        let count = u64::try_from(segment.stripes.len())?;
        ensure!(count > 0 && segment.extents > 0, "a segment is empty");
        ensure!(
            segment.extents.is_multiple_of(count),
            "{} extents cannot be divided by {count} stripes",
            segment.extents
        );
        let stripes = segment.stripes.iter().map(|(pv, extent)| self.place(pv, *extent)).collect::<Result<Vec<_>>>()?;
        let mapping = match <[(String, u64); 1]>::try_from(stripes) {
            Ok([(pv_id, start)]) => Mapping::Linear { pv_id, start },
            Err(stripes) => {
                ensure!(segment.stripe_sectors > 0, "its stripes have no length");
                Mapping::Striped { chunk: segment.stripe_sectors, stripes }
            }
        };
        Ok(Target { start: self.sectors(segment.start_extent)?, length: self.sectors(segment.extents)?, mapping })
    }

    /// The UUID of a physical volume and the sector where one of its extents begins.
    fn place(&self, pv: &str, extent: u64) -> Result<(String, u64)> {
        let physical = self.physical.get(pv).with_context(|| {
            if self.logical.contains_key(pv) {
                format!("its data lies on volume {pv}, not on a disk (is a pvmove unfinished?)")
            } else {
                format!("there is no physical volume {pv:?}")
            }
        })?;
        let start = physical.pe_start.checked_add(self.sectors(extent)?).context("an extent is out of range")?;
        Ok((physical.id.clone(), start))
    }

    fn sectors(&self, extents: u64) -> Result<u64> {
        extents.checked_mul(self.extent_sectors).context("an extent is out of range")
    }
}

/// Understands a metadata text.
///
/// # Errors
/// The text is not well-formed or something needed is missing; the message gives the line.
pub fn parse(text: &str) -> Result<VolumeGroup> {
    ensure!(text.len() as u64 <= LONGEST_TEXT, "the text is longer than {} MiB", LONGEST_TEXT >> 20);
    let root = lvm_text::read(text)?;
    let (name, group) = root.sections().next().context("the text has no volume group")?;
    let mut volumes = VolumeGroup {
        name: name.to_owned(),
        seqno: group.number("seqno")?,
        extent_sectors: group.number("extent_size")?,
        physical: BTreeMap::new(),
        logical: BTreeMap::new(),
        entangled: BTreeMap::new(),
    };
    ensure!(volumes.extent_sectors > 0, "line {}: extent_size is 0", group.line);
    for (name, physical) in group.section("physical_volumes").into_iter().flat_map(Section::sections) {
        let id = physical.text("id")?.replace('-', "");
        volumes.physical.insert(name.to_owned(), Physical { id, pe_start: physical.number("pe_start")? });
    }
    for (name, logical) in group.section("logical_volumes").into_iter().flat_map(Section::sections) {
        let parts = || logical.sections().filter(|(name, _)| name.starts_with("segment")).map(|(_, part)| part);
        let mut segments = parts().map(segment).collect::<Result<Vec<_>>>()?;
        segments.sort_by_key(|segment| segment.start_extent);
        volumes.logical.insert(name.to_owned(), Logical { segments });
        for part in parts() {
            if let Ok(store) = part.text("cow_store") {
                volumes.entangled.insert(store.to_owned(), "a snapshot");
            }
            if let (Ok(store), Ok(origin)) = (part.text("merging_store"), part.text("origin")) {
                volumes.entangled.insert(store.to_owned(), "a snapshot");
                volumes.entangled.insert(origin.to_owned(), "being merged with a snapshot");
            }
        }
    }
    Ok(volumes)
}

fn segment(part: &Section) -> Result<Segment> {
    let kind = part.text("type")?.to_owned();
    let mut stripes = Vec::new();
    // Other types have other lists, and are not mapped.
    if matches!(kind.as_str(), "striped" | "linear") {
        for pair in part.list("stripes")?.chunks(2) {
            match pair {
                [Value::Text(pv), Value::Number(extent)] => stripes.push((pv.clone(), *extent)),
                _ => bail!("line {}: stripes are not pairs of a physical volume and an extent", part.line),
            }
        }
    }
    Ok(Segment {
        start_extent: part.number("start_extent")?,
        extents: part.number("extent_count")?,
        kind,
        stripe_sectors: part.number("stripe_size").unwrap_or(0),
        stripes,
    })
}

#[cfg(test)]
mod tests;
