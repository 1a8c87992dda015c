//! Disks, in the syntax of xl-disk-configuration(5): parameters by position or by name, and the prefixes of old.

use super::Notes;
use super::fields::Fields;
use std::collections::HashMap;

/// What a guest may do to a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    #[default]
    Write,
    /// Read and write, as others may too: `w!`. xm knew it; xl refuses it in a guest's file.
    SharedWrite,
}

/// Format of a disk's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As it is; block devices have no other.
    Raw,
    /// qemu's old.
    Qcow,
    /// qemu's.
    Qcow2,
    /// Microsoft's.
    Vhd,
    /// qemu's, given up.
    Qed,
    /// A drive without a medium.
    Empty,
}

/// A disk of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Path of a block device or image as it is written; below `/dev` without a leading slash; empty for a drive without a
    /// medium. With `script`, whatever that makes of it.
    pub target: String,
    /// The guest's name for it.
    pub vdev: String,
    /// Format of the image.
    pub format: Format,
    /// What the guest may do to it.
    pub access: Access,
    /// Whether it is a CD drive.
    pub cdrom: bool,
    /// Who serves it: `phy`, `tap`, `qdisk`, `standalone`; not given: libxl chooses.
    pub backendtype: Option<String>,
    /// The domain that serves it, if not dom0.
    pub backend: Option<String>,
    /// Script that makes a device of the target.
    pub script: Option<String>,
    /// Prefix of old, such as `phy` or `file`; it has no effect but for the order of parameters.
    pub prefix: Option<String>,
    /// Line in the guest's file.
    pub line: usize,
}

impl Disk {
    /// The path on the host; `None` where the target is none (no medium, a script's, another domain's).
    #[must_use]
    pub fn path(&self) -> Option<String> {
        if self.target.is_empty()
            || self.script.is_some()
            || self.backend.as_deref().is_some_and(|name| !name.is_empty())
        {
            return None;
        }
        Some(if self.target.starts_with('/') { self.target.clone() } else { format!("/dev/{}", self.target) })
    }
}

/// The disks of a guest; one that cannot be read is told and left out.
pub(super) fn disks(fields: &Fields<'_>, notes: &mut Notes) -> Vec<Disk> {
    let mut disks: Vec<Disk> = Vec::new();
    let mut vdevs = HashMap::new();
    for (text, item) in fields.texts("disk", notes) {
        match parse(text) {
            Ok(mut disk) => {
                disk.line = item.line;
                if disk.access == Access::SharedWrite {
                    let text = "access w! was xm's; xl refuses it; try: w, with backendtype=qdisk for both guests if they share it";
                    notes.error(item.line, item.column, "disk", text);
                }
                if let Some(line) = vdevs.insert(disk.vdev.clone(), item.line) {
                    let text = format!("{} is in line {line} too; the guest can have one of the name", disk.vdev);
                    notes.error(item.line, item.column, "disk", &text);
                }
                disks.push(disk);
            }
            Err(why) => notes.error(item.line, item.column, "disk", &format!("{why} (in {text:?}); xl refuses it")),
        }
    }
    disks
}

#[derive(Default)]
struct Parts {
    target: Option<String>,
    format: Option<Format>,
    vdev: Option<String>,
    access: Option<Access>,
    cdrom: Option<bool>,
    backendtype: Option<String>,
    backend: Option<String>,
    script: Option<String>,
    prefix: Option<String>,
    /// Whether the position of access has been used.
    access_by_place: bool,
}

/// Reads a disk; its line is 0.
fn parse(text: &str) -> Result<Disk, String> {
    let mut parts = Parts::default();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n']);
        if let Some(target) = rest.strip_prefix("target=") {
            // The rest of the text, whatever is in it; one comma at its end does not count.
            once("target", &mut parts.target, target.strip_suffix(',').unwrap_or(target))?;
            break;
        }
        if let Some(behind) = parts.prefix(rest)? {
            rest = behind;
            continue;
        }
        let (word, behind) = match rest.split_once(',') {
            Some((word, behind)) => (word, Some(behind)),
            None => (rest, None),
        };
        match word.split_once('=') {
            Some((name, value)) => parts.named(name, value)?,
            // What is empty counts only before a comma.
            None if !word.is_empty() || behind.is_some() => parts.flag_or_placed(word)?,
            None => {}
        }
        match behind {
            Some(behind) => rest = behind,
            None => break,
        }
    }
    parts.finish()
}

impl Parts {
    /// A prefix of old, and what is behind it.
    fn prefix<'t>(&mut self, rest: &'t str) -> Result<Option<&'t str>, String> {
        // Only up to the parameter's own end: a text may have any number of them.
        let end = rest.find([':', ',']).unwrap_or(rest.len());
        let Some((word, behind)) =
            rest.split_at_checked(end).and_then(|(word, behind)| Some((word, behind.strip_prefix(':')?)))
        else {
            return Ok(None);
        };
        match word {
            "raw" | "qcow" | "qcow2" | "vhd" => self.format(word)?,
            "iscsi" | "nbd" | "enbd" | "drbd" => once("script", &mut self.script, &format!("block-{word}"))?,
            "tapdisk" | "tap" | "tap2" | "aio" | "ioemu" | "file" | "phy" => {}
            word => {
                // A word and a colon, and behind them no letter or digit in lower case, is what libxlu takes for a prefix.
                let name = word.starts_with(|first: char| first.is_ascii_lowercase())
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
                let path = !behind.starts_with(|next: char| next.is_ascii_lowercase() || next.is_ascii_digit());
                return if name && path { Err(format!("{word:?} is no prefix that is known")) } else { Ok(None) };
            }
        }
        self.prefix = Some(word.to_owned());
        Ok(Some(behind))
    }

    fn named(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "format" => self.format(value),
            "vdev" => once("vdev", &mut self.vdev, value),
            "access" => self.access(value),
            "script" => once("script", &mut self.script, value),
            "backend" => once("backend", &mut self.backend, value),
            "backendtype" if self.backendtype.as_deref() == Some(value) => Ok(()),
            "backendtype" if ["phy", "tap", "qdisk", "standalone"].contains(&value) => {
                once("backendtype", &mut self.backendtype, value)
            }
            "devtype" if ["cdrom", "disk"].contains(&value) => {
                self.cdrom = Some(value == "cdrom");
                Ok(())
            }
            "specification" if ["xen", "virtio"].contains(&value) => Ok(()),
            "backendtype" | "devtype" | "specification" => Err(format!("{value:?} is no {name} that is known")),
            "colo-host" | "colo-port" | "colo-export" | "active-disk" | "hidden-disk" | "grant_usage" => Ok(()),
            _ => Err(format!("{name:?} is no parameter that is known")),
        }
    }

    fn flag_or_placed(&mut self, word: &str) -> Result<(), String> {
        match word {
            "cdrom" => self.cdrom = Some(true),
            "direct-io-safe" | "discard" | "no-discard" | "colo" | "no-colo" | "trusted" | "untrusted" => {}
            word if self.target.is_none() => self.target = Some(word.to_owned()),
            word if self.prefix.is_none() && self.format.is_none() => {
                if self.target.as_deref() == Some("") && self.vdev_and_type(word)? {
                    self.format = Some(Format::Empty);
                } else {
                    self.format(word)?;
                }
            }
            word if self.vdev.is_none() => {
                if !self.vdev_and_type(word)? {
                    self.vdev = Some(word.to_owned());
                }
            }
            word if !self.access_by_place => {
                self.access_by_place = true;
                self.access(word)?;
            }
            word => return Err(format!("{word:?} is one parameter too many")),
        }
        Ok(())
    }

    /// `VDEV:cdrom` of old. Returns whether it is one.
    fn vdev_and_type(&mut self, word: &str) -> Result<bool, String> {
        let Some((vdev, kind)) = word.rsplit_once(':') else { return Ok(false) };
        once("vdev", &mut self.vdev, vdev)?;
        self.cdrom = match kind {
            "cdrom" => Some(true),
            "disk" => Some(false),
            other => return Err(format!("{other:?} is neither cdrom nor disk")),
        };
        Ok(true)
    }

    fn format(&mut self, word: &str) -> Result<(), String> {
        let format = match word {
            "" | "raw" => Format::Raw,
            "qcow" => Format::Qcow,
            "qcow2" => Format::Qcow2,
            "vhd" => Format::Vhd,
            "qed" => Format::Qed,
            "empty" => Format::Empty,
            other => {
                return Err(format!(
                    "{other:?} is no format; the order is TARGET,FORMAT,VDEV,ACCESS, without FORMAT only behind phy: or file:"
                ));
            }
        };
        if self.format.is_some_and(|earlier| earlier != format) {
            return Err("there are two formats".into());
        }
        self.format = Some(format);
        Ok(())
    }

    fn access(&mut self, word: &str) -> Result<(), String> {
        self.access = Some(match word {
            "r" | "ro" => Access::Read,
            "" | "w" | "rw" => Access::Write,
            "w!" | "rw!" => Access::SharedWrite,
            other => return Err(format!("{other:?} is no access (r or w)")),
        });
        Ok(())
    }

    fn finish(self) -> Result<Disk, String> {
        let vdev = self.vdev.ok_or("there is no vdev, the guest's name for the disk")?;
        let cdrom = self.cdrom == Some(true);
        let target = match self.target {
            Some(target) => target,
            None if cdrom => String::new(),
            None => return Err("there is no target, and it is no cdrom".into()),
        };
        let empty = cdrom && target.is_empty();
        Ok(Disk {
            target,
            vdev,
            format: if empty { Format::Empty } else { self.format.unwrap_or(Format::Raw) },
            access: match self.access {
                Some(Access::SharedWrite) => Access::SharedWrite,
                _ if cdrom => Access::Read,
                access => access.unwrap_or_default(),
            },
            cdrom,
            backendtype: self.backendtype,
            backend: self.backend,
            script: self.script,
            prefix: self.prefix,
            line: 0,
        })
    }
}

/// Takes a text that may be given once; an empty one does not count.
fn once(what: &str, place: &mut Option<String>, value: &str) -> Result<(), String> {
    if place.as_deref().is_some_and(|earlier| !earlier.is_empty()) {
        return Err(format!("there are two values of {what}"));
    }
    *place = Some(value.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Err(why) => why,
            Ok(disk) => format!(
                "{:?} {} {:?} {:?}{}{}{}{}",
                disk.target,
                disk.vdev,
                disk.format,
                disk.access,
                if disk.cdrom { " cdrom" } else { "" },
                disk.script.map(|script| format!(" script {script}")).unwrap_or_default(),
                disk.backendtype.map(|kind| format!(" by {kind}")).unwrap_or_default(),
                disk.prefix.map(|prefix| format!(" old {prefix}")).unwrap_or_default(),
            ),
        }
    }

    #[test]
    fn disks_are_read_as_libxlu_reads_them() {
        // The first nine are the manual's own examples.
        for (text, expected) in [
            ("/dev/vg/guest-volume,,hda", "\"/dev/vg/guest-volume\" hda Raw Write"),
            ("/dev/vg/guest-volume,raw,hda,rw", "\"/dev/vg/guest-volume\" hda Raw Write"),
            ("format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume", "\"/dev/vg/guest-volume\" hda Raw Write"),
            ("raw:/dev/vg/guest-volume,hda,w", "\"/dev/vg/guest-volume\" hda Raw Write old raw"),
            ("/root/image.iso,,hdc,cdrom", "\"/root/image.iso\" hdc Raw Read cdrom"),
            ("/root/image.iso,,hdc,,cdrom", "\"/root/image.iso\" hdc Raw Read cdrom"),
            ("/root/image.iso,raw,hdc,devtype=cdrom", "\"/root/image.iso\" hdc Raw Read cdrom"),
            (
                "format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso",
                "\"/root/image.iso\" hdc Raw Read cdrom",
            ),
            ("raw:/root/image.iso,hdc:cdrom,ro", "\"/root/image.iso\" hdc Raw Read cdrom old raw"),
            ("phy:/dev/xvg/web,xvda2,w", "\"/dev/xvg/web\" xvda2 Raw Write old phy"),
            ("phy:xvg/web,xvda2,r", "\"xvg/web\" xvda2 Raw Read old phy"),
            ("file:/srv/a.img,xvda,w!", "\"/srv/a.img\" xvda Raw SharedWrite old file"),
            ("tap:aio:/srv/a.img,xvda,w", "\"/srv/a.img\" xvda Raw Write old aio"),
            ("tap:qcow2:/srv/a.img,xvda,w", "\"/srv/a.img\" xvda Qcow2 Write old qcow2"),
            ("drbd:web,xvda,w", "\"web\" xvda Raw Write script block-drbd old drbd"),
            ("script=block-drbd,vdev=xvda,target=web", "\"web\" xvda Raw Write script block-drbd"),
            (",hdc:cdrom,r", "\"\" hdc Empty Read cdrom"),
            ("vdev=hdc,cdrom", "\"\" hdc Empty Read cdrom"),
            ("/a,qcow2,xvda,backendtype=qdisk,discard", "\"/a\" xvda Qcow2 Write by qdisk"),
            ("vdev=xvda,target=/a,b=c, d ", "\"/a,b=c, d \" xvda Raw Write"),
            (",,xvda,,target=/a", "\"/a\" xvda Raw Write"),
            ("hdc:x,raw,xvda", "\"hdc:x\" xvda Raw Write"),
            (
                "/a,xvda,w",
                "\"xvda\" is no format; the order is TARGET,FORMAT,VDEV,ACCESS, without FORMAT only behind phy: or file:",
            ),
            ("/a,raw,xvda,x", "\"x\" is no access (r or w)"),
            ("/a,raw,xvda,w,r", "\"r\" is one parameter too many"),
            ("/a,raw", "there is no vdev, the guest's name for the disk"),
            ("", "there is no vdev, the guest's name for the disk"),
            ("vdev=xvda", "there is no target, and it is no cdrom"),
            ("/a,raw,xvda,backendtype=phy,backendtype=phy", "\"/a\" xvda Raw Write by phy"),
            ("/a,raw,xvda,backendtype=phy,backendtype=tap", "there are two values of backendtype"),
            ("vdev=xvda,foo:", "\"foo\" is no prefix that is known"),
            ("nfs:/a,xvda,w", "\"nfs\" is no prefix that is known"),
            ("vdev=xvda,vdev=xvdb,target=/a", "there are two values of vdev"),
            ("raw:qcow2:/a,xvda,w", "there are two formats"),
            ("/a,raw,xvda,color=red", "\"color\" is no parameter that is known"),
            ("/a,raw,xvda,backendtype=nfs", "\"nfs\" is no backendtype that is known"),
            ("phy:/a,hdc:floppy,r", "\"floppy\" is neither cdrom nor disk"),
        ] {
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_path_is_below_dev_and_nothing_is_looked_for_elsewhere() {
        for (text, expected) in [
            ("phy:xvg/web,xvda,w", Some("/dev/xvg/web")),
            ("/srv/a,raw,xvda", Some("/srv/a")),
            (",hdc:cdrom,r", None),
            ("drbd:web,xvda,w", None),
            ("vdev=xvda,backend=storage,target=/a", None),
        ] {
            assert_eq!(parse(text).unwrap().path().as_deref(), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(text in "(phy:|raw:|vdev=|target=|cdrom|[a-z:/=, ]{0,6}|\\PC){0,8}") {
            if let Ok(disk) = parse(&text) {
                prop_assert!(disk.path().is_none_or(|path| path.starts_with('/')));
            }
        }
    }
}
