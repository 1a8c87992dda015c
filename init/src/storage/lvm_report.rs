//! What `lvm fullreport` says of the groups, their disks and volumes: all of it from one reading of the disks.

use crate::config::origins::clean;
use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer};

/// The command whose output [`parse`] reads. It names the groups of other systems too, and reads all disks: LVM's hints
/// would leave out the copy of a disk.
pub const FULL_REPORT: [&str; 21] = [
    "lvm",
    "fullreport",
    "--nohints",
    "--foreign",
    "--reportformat",
    "json",
    "--units",
    "b",
    "--nosuffix",
    "--configreport",
    "vg",
    "-o",
    "vg_name,vg_uuid,vg_size,vg_free,vg_exported,vg_systemid",
    "--configreport",
    "pv",
    "-o",
    "pv_name,pv_uuid,pv_missing",
    "--configreport",
    "lv",
    "-o",
    "lv_name,lv_attr,lv_size,lv_layout",
];

/// A volume group as LVM reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its UUID, in LVM's form with hyphens.
    pub uuid: String,
    /// Bytes in all.
    pub size: u64,
    /// Bytes that no volume has.
    pub free: u64,
    /// Whether it is exported.
    pub exported: bool,
    /// The system that it belongs to; empty: any.
    pub system: String,
    /// Its physical volumes.
    pub disks: Vec<Disk>,
    /// Its volumes, without LVM's internal ones.
    pub volumes: Vec<Lv>,
}

/// A physical volume of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Disk {
    /// Its device, or `[unknown]`.
    #[serde(default, rename = "pv_name", deserialize_with = "plain")]
    pub device: String,
    /// Its UUID.
    #[serde(default, rename = "pv_uuid", deserialize_with = "plain")]
    pub uuid: String,
    /// `missing` when it is.
    #[serde(default, rename = "pv_missing")]
    missing: String,
}

impl Disk {
    /// Whether it cannot be found.
    #[must_use]
    pub fn missing(&self) -> bool {
        !self.missing.is_empty()
    }
}

/// A logical volume as LVM reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Lv {
    /// Its name.
    #[serde(default, rename = "lv_name", deserialize_with = "plain")]
    pub name: String,
    /// LVM's ten letters; see lvs(8).
    #[serde(default, rename = "lv_attr")]
    attributes: String,
    #[serde(default, rename = "lv_size")]
    size: String,
    /// What it is made of, for example `linear` or `thin,pool`.
    #[serde(default, rename = "lv_layout", deserialize_with = "plain")]
    pub layout: String,
}

impl Lv {
    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.parse().unwrap_or_default()
    }

    fn letter(&self, index: usize) -> char {
        self.attributes.chars().nth(index).unwrap_or('-')
    }

    /// Whether it is active.
    #[must_use]
    pub fn active(&self) -> bool {
        self.letter(4) == 'a'
    }

    /// Whether a part of it lies on a disk that is missing.
    #[must_use]
    pub fn partial(&self) -> bool {
        self.letter(8) == 'p'
    }

    /// Whether activation leaves it out on purpose: a thin snapshot.
    #[must_use]
    pub fn skipped(&self) -> bool {
        self.letter(9) == 'k'
    }

    /// Whether it has a device of its own that people use; pools have none.
    #[must_use]
    pub fn has_device(&self) -> bool {
        !self.layout.split(',').any(|word| word == "pool")
    }
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    vg: Vec<Vg>,
    #[serde(default)]
    pv: Vec<Disk>,
    #[serde(default)]
    lv: Vec<Lv>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Vg {
    #[serde(rename = "vg_name", deserialize_with = "plain")]
    name: String,
    #[serde(rename = "vg_uuid", deserialize_with = "plain")]
    uuid: String,
    #[serde(rename = "vg_size")]
    size: String,
    #[serde(rename = "vg_free")]
    free: String,
    #[serde(rename = "vg_exported")]
    exported: String,
    #[serde(rename = "vg_systemid", deserialize_with = "plain")]
    systemid: String,
}

/// A text that can go to a console. Names come from disks, and LVM does not look at each of them.
fn plain<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(clean(&String::deserialize(from)?, usize::MAX))
}

/// Reads the report.
///
/// # Errors
/// It is not such JSON.
pub fn parse(text: &str) -> Result<Vec<Found>> {
    let report: Report = serde_json::from_str(text).context("LVM's report is not as expected")?;
    let mut groups = Vec::new();
    for entry in report.report {
        let Some(vg) = entry.vg.into_iter().next().filter(|vg| !vg.name.is_empty()) else { continue };
        groups.push(Found {
            name: vg.name,
            uuid: vg.uuid,
            size: vg.size.parse().unwrap_or_default(),
            free: vg.free.parse().unwrap_or_default(),
            exported: !vg.exported.is_empty(),
            system: vg.systemid,
            disks: entry.pv,
            volumes: entry.lv,
        });
    }
    Ok(groups)
}

/// The devices that LVM does not use because each is a copy of another one, with the UUID that they share. Only its
/// warnings tell: `WARNING: Not using device /dev/sdb for PV UUID.`
#[must_use]
pub fn copies(warnings: &str) -> Vec<(String, String)> {
    let pair = |line: &str| {
        let (device, uuid) = line.split_once("Not using device ")?.1.split_once(" for PV ")?;
        Some((clean(device, usize::MAX), clean(uuid.trim_end().trim_end_matches('.'), usize::MAX)))
    };
    warnings.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_with_its_disks_and_volumes() {
        let groups = parse(include_str!("fixtures/plain.json")).unwrap();
        let [group] = groups.as_slice() else { panic!("{groups:?}") };
        assert_eq!((group.name.as_str(), group.size, group.free), ("xvg", 125_829_120, 46_137_344));
        assert_eq!(group.uuid, "FmXyA8-3Dd3-pvcR-vyrL-teYy-NWma-n21t25");
        assert_eq!(
            group.disks.iter().map(|disk| disk.device.as_str()).collect::<Vec<_>>(),
            ["/dev/loop2", "/dev/loop3"]
        );
        let volumes: Vec<_> = group.volumes.iter().map(|lv| (lv.name.as_str(), lv.size() >> 20)).collect();
        assert_eq!(volumes, [("guest1", 48), ("swap", 8), ("xvol", 20)]);
        assert!(group.volumes.iter().all(|lv| lv.has_device() && !lv.active() && !lv.partial() && !lv.skipped()));
    }

    #[test]
    fn what_is_missing_exported_foreign_or_a_copy_is_told() {
        let xvg = |text| parse(text).unwrap().into_iter().find(|group| group.name == "xvg").unwrap();
        let missing = xvg(include_str!("fixtures/missing.json"));
        assert_eq!(missing.disks.iter().filter(|disk| disk.missing()).count(), 1);
        let partial: Vec<_> = missing.volumes.iter().filter(|lv| lv.partial()).map(|lv| lv.name.as_str()).collect();
        assert_eq!(partial, ["guest1"]);
        let other = |text| parse(text).unwrap().into_iter().find(|group| group.name == "other").unwrap();
        assert!(other(include_str!("fixtures/exported.json")).exported);
        assert_eq!(other(include_str!("fixtures/foreign.json")).system, "elsewhere");
        let copies = copies(include_str!("fixtures/duplicate-pv.err"));
        assert_eq!(copies, [("/dev/loop7".to_owned(), "zZvpTc-QLft-HQ3E-0393-TzMy-TFF6-xBcU33".to_owned())]);
        assert_eq!(parse("{\"report\": [\n]}").unwrap(), []);
        assert!(format!("{:#}", parse("").unwrap_err()).contains("LVM's report"));
    }

    #[test]
    fn names_from_disks_cannot_move_the_cursor() {
        let text = r#"{"report": [{"vg": [{"vg_name": "xvg", "vg_systemid": "a\u001b[2J"}],
            "pv": [{"pv_name": "/dev/a\n"}], "lv": [{"lv_name": "b\u0085", "lv_layout": "\t"}]}]}"#;
        let groups = parse(text).unwrap();
        let group = &groups[0];
        assert_eq!((group.system.as_str(), group.disks[0].device.as_str()), ("a?[2J", "/dev/a?"));
        assert_eq!((group.volumes[0].name.as_str(), group.volumes[0].layout.as_str()), ("b?", "?"));
        let copies = copies("Not using device /dev/a\x1b[2J for PV x\x07.");
        assert_eq!(copies, [("/dev/a?[2J".to_owned(), "x?".to_owned())]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = parse(&text);
            let _ = copies(&text);
        }
    }
}
