//! The flags that name the medium: a device, or an ISO file on one.

/// Which devices may be the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// This kernel name below `/dev`, or `VG/LV`.
    Device(String),
    /// The file system with this label.
    Label(String),
    /// The file system with this UUID.
    Uuid(String),
    /// The partition with this UUID.
    PartUuid(String),
    /// Devices that can be pulled out.
    Removable,
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(name) => write!(f, "/dev/{name}"),
            Self::Label(text) => write!(f, "LABEL={text}"),
            Self::Uuid(text) => write!(f, "UUID={text}"),
            Self::PartUuid(text) => write!(f, "PARTUUID={text}"),
            Self::Removable => f.write_str("removable"),
        }
    }
}

/// An ISO file that is the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsoFile {
    /// The logical volume that holds the file system: volume group and volume.
    pub volume: Option<(String, String)>,
    /// The file's path on its file system, beginning with a slash.
    pub path: String,
}

impl std::fmt::Display for IsoFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.volume {
            Some((group, volume)) => write!(f, "/dev/{group}/{volume}{}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

/// What a value of `sino.medium` names.
pub(super) fn selector(value: &str) -> Option<Selector> {
    type Tag = (&'static str, &'static str, fn(String) -> Selector);
    if value == "removable" {
        return Some(Selector::Removable);
    }
    let tags: [Tag; 3] = [
        ("LABEL=", "/dev/disk/by-label/", Selector::Label),
        ("UUID=", "/dev/disk/by-uuid/", Selector::Uuid),
        ("PARTUUID=", "/dev/disk/by-partuuid/", Selector::PartUuid),
    ];
    for (tag, link, make) in tags {
        if let Some(text) = value.strip_prefix(tag).or_else(|| value.strip_prefix(link)) {
            return (!text.is_empty()).then(|| make(text.to_owned()));
        }
    }
    let name = value.strip_prefix("/dev/")?;
    plain(name).then(|| Selector::Device(name.to_owned()))
}

/// Whether a path without its first slash stays where it is.
fn plain(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// An ISO file: its absolute path, without `..`. With a logical volume in front (`/dev/VG/LV/PATH`) only that volume is
/// looked at; another device in front (`/dev/sda1/PATH`, as live-boot takes it) is left out, because the build id finds the
/// right one and kernel names change.
pub(super) fn iso_file(value: &str) -> Option<IsoFile> {
    let path = value.strip_prefix('/').filter(|path| plain(path))?;
    let Some(rest) = path.strip_prefix("dev/") else {
        return Some(IsoFile { volume: None, path: value.to_owned() });
    };
    let (first, after) = rest.split_once('/')?;
    if is_disk_name(first) {
        return Some(IsoFile { volume: None, path: format!("/{after}") });
    }
    let (volume, file) = if first == "mapper" {
        // VG-LV, in which a hyphen of a name is doubled.
        let (name, file) = after.split_once('/')?;
        let at = name.match_indices('-').map(|(at, _)| at).find(|at| {
            let hyphen = |index: Option<usize>| index.and_then(|index| name.as_bytes().get(index)) == Some(&b'-');
            !hyphen(Some(at + 1)) && !hyphen(at.checked_sub(1))
        })?;
        let (group, volume) = (name.get(..at)?, name.get(at + 1..)?);
        ((group.replace("--", "-"), volume.replace("--", "-")), file)
    } else {
        let (volume, file) = after.split_once('/')?;
        ((first.to_owned(), volume.to_owned()), file)
    };
    (!volume.0.is_empty() && !volume.1.is_empty()).then(|| IsoFile { volume: Some(volume), path: format!("/{file}") })
}

/// Whether a name is one that the kernel gives to disks and their partitions, such as `sda1`, `nvme0n1p2` or `sr0`.
fn is_disk_name(name: &str) -> bool {
    let lettered = ["sd", "hd", "vd", "xvd"].iter().filter_map(|prefix| name.strip_prefix(prefix)).any(|rest| {
        let letters = rest.trim_end_matches(|c: char| c.is_ascii_digit());
        !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase())
    });
    let numbered = ["sr", "nvme", "mmcblk"].iter().filter_map(|prefix| name.strip_prefix(prefix)).any(|rest| {
        let parts = |c: char| c.is_ascii_digit() || matches!(c, 'n' | 'p');
        rest.starts_with(|c: char| c.is_ascii_digit()) && rest.chars().all(parts)
    });
    lettered || numbered
}
