//! A logical volume that holds the medium as an ISO file: mapped read-only as soon as all physical volumes that it needs are
//! there.
//!
//! Only the volume that the flags name is mapped, under a name of ours, so that the system's own lvm activates the group
//! later as if nothing had been there. Nothing is written: not to the metadata, not to the volume.

use crate::block_device::BlockDevice;
use crate::device_mapper::{self, Target};
use crate::lvm_metadata::{self, Mapping, VolumeGroup};
use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::fs;

/// Bytes at the start of a physical volume that hold its label.
const LABEL_SECTORS: usize = 4 * 512;
/// Length of the header of a metadata area.
const AREA_HEADER: usize = 512;
/// The mapped volume's name in device-mapper.
pub const NAME: &str = "sino-carrier";

/// The search for one logical volume.
#[derive(Debug)]
pub struct Search {
    group: String,
    volume: String,
    /// Device numbers (`major:minor`) of the physical volumes seen so far, by UUID.
    physical: BTreeMap<String, String>,
    metadata: Option<VolumeGroup>,
    mapped: bool,
}

impl std::fmt::Display for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "logical volume {}/{}", self.group, self.volume)
    }
}

impl Search {
    /// Looks for this volume of this group.
    #[must_use]
    pub fn new(group: &str, volume: &str) -> Self {
        Self {
            group: group.to_owned(),
            volume: volume.to_owned(),
            physical: BTreeMap::new(),
            metadata: None,
            mapped: false,
        }
    }

    /// A physical volume appeared. Maps the volume once all is there; the kernel then announces it as a device of its own.
    /// Returns what there is to say of the physical volume.
    ///
    /// # Errors
    /// It cannot be read, or the volume cannot be mapped.
    pub fn add(&mut self, device: &BlockDevice) -> Result<String> {
        let file = rustix::fs::open(format!("/dev/{}", device.name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let head = read(&file, 0, LABEL_SECTORS)?;
        let label = lvm_metadata::label(&head).context("its LVM label is damaged")?;
        let number = fs::read_to_string(format!("/sys/class/block/{}/dev", device.name))?;
        self.physical.insert(label.pv_uuid.clone(), number.trim().to_owned());
        let mut newest: Option<VolumeGroup> = None;
        for area in label.metadata_areas {
            let group = metadata(&file, area).context("its LVM metadata")?;
            if newest.as_ref().is_none_or(|newest| newest.seqno < group.seqno) {
                newest = Some(group);
            }
        }
        let Some(group) = newest else {
            return self.map().map(|()| "without metadata of its own".to_owned());
        };
        let name = group.name.clone();
        if name == self.group && self.metadata.as_ref().is_none_or(|known| known.seqno < group.seqno) {
            self.metadata = Some(group);
        }
        self.map()?;
        Ok(format!("volume group {name:?}"))
    }

    fn map(&mut self) -> Result<()> {
        let Some(group) = self.metadata.as_ref().filter(|_| !self.mapped) else { return Ok(()) };
        let place = |pv: &str, start: u64| self.physical.get(pv).map(|number| format!("{number} {start}"));
        let mut targets = Vec::new();
        for target in group.targets(&self.volume)? {
            let (kind, parameters) = match target.mapping {
                Mapping::Linear { pv_id, start } => ("linear", place(&pv_id, start)),
                Mapping::Striped { chunk, stripes } => {
                    let places: Option<Vec<String>> = stripes.iter().map(|(pv, start)| place(pv, *start)).collect();
                    let line = places.map(|places| format!("{} {chunk} {}", places.len(), places.join(" ")));
                    ("striped", line)
                }
            };
            // Another physical volume has to appear first.
            let Some(parameters) = parameters else { return Ok(()) };
            targets.push(Target { start: target.start, length: target.length, kind, parameters });
        }
        device_mapper::create(NAME, "", &targets)
            .with_context(|| format!("mapping the volume {}/{}", self.group, self.volume))?;
        self.mapped = true;
        Ok(())
    }
}

fn metadata(file: &OwnedFd, area: (u64, u64)) -> Result<VolumeGroup> {
    let header = read(file, area.0, AREA_HEADER)?;
    let pieces = lvm_metadata::text_pieces(area, &header).context("no metadata where the label says")?;
    let mut text = Vec::new();
    for (offset, length) in pieces {
        text.extend(read(file, offset, usize::try_from(length)?)?);
    }
    anyhow::ensure!(lvm_metadata::is_whole(&header, &text), "the metadata's checksum is wrong");
    lvm_metadata::parse(&String::from_utf8_lossy(&text))
}

fn read(file: &OwnedFd, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        match rustix::io::pread(file, rest, offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
