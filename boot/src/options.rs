//! The kernel command line as typed [`Options`].
//!
//! Flags begin with `sino.`; others belong to the kernel or to systemd and are passed over. The last value of a flag
//! wins, but `sino.set` and `sino.net` add up. What stands after a lone `--` is for the init and is not read here. A flag that is unknown, or whose value
//! cannot be used, becomes a warning that names the nearest known flag or the allowed values; the boot goes on.

/// A flag that SINO knows, for the parser and for `docs/BOOT-FLAGS.md`.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Full name, with the `sino.` in front.
    pub name: &'static str,
    /// What may stand after `=`, for people.
    pub values: &'static str,
    /// What holds when the flag is not given.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

/// Every flag, in the order of the documentation.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "sino.ram",
        values: "copy | background | auto | off",
        default: "off",
        help: "copy (or no value): copy the root image to RAM, verify it, and let go of the medium before the boot goes on. \
               background: boot from the medium at once, copy while the host comes up, then let go of it. auto: copy if it \
               fits comfortably, else run from the medium.",
    },
    Flag {
        name: "sino.verify",
        values: "on | off",
        default: "on",
        help: "Check every block of the root image when it is read from the medium (dm-verity). off: take the medium's bytes \
               as they come; a damaged stick then gives wrong programs, not errors.",
    },
    Flag {
        name: "sino.check",
        values: "on | off",
        default: "off",
        help: "Read and verify every file of the medium before the boot goes on, and show the result. Without a value: on.",
    },
    Flag {
        name: "sino.medium",
        values: "/dev/NAME | LABEL=TEXT | UUID=TEXT | PARTUUID=TEXT | removable",
        default: "any device that carries this build",
        help: "Look for the medium only here. The values are those of blkid(8); removable: what hangs on USB, cards, discs, and \
               drives whose media are removable. The build must be right in any case.",
    },
    Flag {
        name: "sino.medium-timeout",
        values: "SECONDS (1 to 86400)",
        default: "60",
        help: "How long to wait for a device with this build before the step is reported as failed.",
    },
    Flag {
        name: "sino.iso",
        values: "/PATH | /dev/VG/LV/PATH",
        default: "none",
        help: "The medium is an ISO file with this path on some file system (vfat, exfat, ntfs, ext4, xfs, btrfs), or on that of \
               a logical volume. Also as findiso=, fromiso= and iso-scan/filename=, which multi-boot loaders pass.",
    },
    Flag {
        name: "sino.overlay",
        values: "SIZE[K|M|G] | PERCENT%",
        default: "50%",
        help: "Size of the tmpfs that takes what is written to the root, as bytes or as part of dom0's memory.",
    },
    Flag {
        name: "sino.overlay-inodes",
        values: "NUMBER (1024 or more)",
        default: "one for each 8 KiB of sino.overlay, 16384 at least",
        help: "How many files and folders that tmpfs takes.",
    },
    Flag {
        name: "sino.init",
        values: "/PATH",
        default: "/sbin/sino-init",
        help: "The program in the root that stage one executes.",
    },
    Flag {
        name: "sino.on-failure",
        values: "shell | reboot | poweroff",
        default: "shell",
        help: "What to do when stage one cannot go on. shell: a rescue shell on every console, and a restart after \
               sino.rescue-timeout unless a key is pressed. reboot, poweroff: that, after 10 s in which the reason can be read.",
    },
    Flag {
        name: "sino.rescue-timeout",
        values: "SECONDS (0 to 86400)",
        default: "300",
        help: "How long the rescue shell waits for a key before the machine restarts. 0: for ever.",
    },
    Flag {
        name: "sino.step-timeout",
        values: "SECONDS (5 to 86400)",
        default: "180",
        help: "How long a step may be without progress before it counts as failed.",
    },
    Flag {
        name: "sino.break",
        values: "STEP[,STEP...] | all",
        default: "none",
        help: "Open a rescue shell before these steps (for example find-medium); leaving the shell goes on.",
    },
    Flag {
        name: "sino.debug",
        values: "on | off",
        default: "off",
        help: "Say in the kernel's log what is tried and found, device by device and module by module. Without a value: on.",
    },
    Flag {
        name: "sino.handover",
        values: "SECONDS (0 to 600)",
        default: "boot.handover of sino.toml, which is 30",
        help: "How long stage two may take until Debian takes over whatever is not ready; see docs/CONFIG.md. 0: Debian takes over at \
               once, and starts the supervisor itself.",
    },
    Flag {
        name: "sino.set",
        values: "KEY=VALUE",
        default: "none",
        help: "Set a key of sino.toml for this boot, above every file; see docs/CONFIG.md for the keys. The value is TOML, with \
               single quotes where it needs any; what is not TOML is taken as text. May be given more than once.",
    },
    Flag {
        name: "sino.net",
        values: "TEXT",
        default: "none",
        help: "The network for this boot, in short; see docs/CONFIG.md. May be given more than once.",
    },
];

/// Names by which multi-boot loaders pass the path of an ISO file; each means `sino.iso`.
const ISO_ALIASES: [&str; 3] = ["findiso", "fromiso", "iso-scan/filename"];

/// Whether a word of a command line is a flag of ours, known or not.
#[must_use]
pub fn is_ours(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    name.starts_with("sino.") || ISO_ALIASES.contains(&name)
}

/// What to do when a stage cannot go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// A rescue shell on every console.
    #[default]
    Shell,
    /// Restart the machine.
    Reboot,
    /// Switch the machine off.
    Poweroff,
}

/// When the root image goes to RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ram {
    /// Never: the host runs from the medium.
    #[default]
    Off,
    /// Before the boot goes on.
    Copy,
    /// While the host comes up.
    Background,
    /// Before the boot goes on if it fits comfortably, else never.
    Auto,
}

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

/// Size of the overlay's tmpfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlaySize {
    /// Bytes.
    Bytes(u64),
    /// Part of the memory, 1 to 100.
    Percent(u8),
}

/// The flags of one boot. Every field has a safe default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// When the root image goes to RAM (`sino.ram`).
    pub ram: Ram,
    /// Whether what is read from the medium is verified (`sino.verify`).
    pub verify: bool,
    /// Whether the whole medium is read and verified first (`sino.check`).
    pub check: bool,
    /// The only devices to look at (`sino.medium`).
    pub medium: Option<Selector>,
    /// The ISO file that is the medium (`sino.iso` and its aliases).
    pub iso: Option<IsoFile>,
    /// Seconds to wait for the medium (`sino.medium-timeout`).
    pub medium_timeout: u32,
    /// Size of the overlay's tmpfs (`sino.overlay`).
    pub overlay: OverlaySize,
    /// Its most files and folders (`sino.overlay-inodes`); `None`: computed from its size.
    pub overlay_inodes: Option<u64>,
    /// What stage one executes in the new root (`sino.init`); `None` is [`crate::layout::STAGE_TWO`].
    pub init: Option<String>,
    /// What to do on failure (`sino.on-failure`).
    pub on_failure: OnFailure,
    /// Seconds until the rescue shell restarts the machine, 0 for never (`sino.rescue-timeout`).
    pub rescue_timeout: u32,
    /// Seconds that a step may be without progress (`sino.step-timeout`).
    pub step_timeout: u32,
    /// The steps to stop before (`sino.break`).
    pub break_before: Vec<String>,
    /// More detail in the log (`sino.debug`).
    pub debug: bool,
    /// Seconds until Debian takes over, 0 to 600; 0 leaves the start of the supervisor to it (`sino.handover`); `None`: what the configuration says.
    pub handover: Option<u32>,
    /// Each `KEY=VALUE` for the configuration, in order (`sino.set`).
    pub set: Vec<String>,
    /// Each short form of a network, in order and not read further here (`sino.net`).
    pub net: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ram: Ram::default(),
            verify: true,
            check: false,
            medium: None,
            iso: None,
            medium_timeout: 60,
            overlay: OverlaySize::Percent(50),
            overlay_inodes: None,
            init: None,
            on_failure: OnFailure::default(),
            rescue_timeout: 300,
            step_timeout: 180,
            break_before: Vec::new(),
            debug: false,
            handover: None,
            set: Vec::new(),
            net: Vec::new(),
        }
    }
}

impl Options {
    /// Whether to stop before this step.
    #[must_use]
    pub fn breaks_before(&self, step: &str) -> bool {
        self.break_before.iter().any(|wanted| wanted == step || wanted == "all")
    }
}

/// Reads a command line. Returns the options and one warning for each flag of ours that could not be used.
#[must_use]
pub fn parse(command_line: &str) -> (Options, Vec<String>) {
    let mut options = Options::default();
    let mut warnings = Vec::new();
    for word in words(command_line) {
        if word == "--" {
            break;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        // The kernel takes '-' and '_' in a flag's name for the same; so do we.
        let name = if ISO_ALIASES.contains(&name) { "sino.iso".to_owned() } else { name.replace('_', "-") };
        if !name.starts_with("sino.") {
            continue;
        }
        match FLAGS.iter().find(|flag| flag.name == name) {
            None => warnings.push(unknown(&name)),
            Some(flag) => {
                if options.set(flag.name, value).is_none() {
                    let given = value.map_or_else(|| "no value".to_owned(), |value| format!("the value {value:?}"));
                    let allowed = if flag.values.is_empty() { "no value" } else { flag.values };
                    warnings.push(format!(
                        "flag {name}: {given} cannot be used; allowed: {allowed}; going on with the default ({})",
                        flag.default
                    ));
                }
            }
        }
    }
    (options, warnings)
}

impl Options {
    /// Sets one flag; `None` if the value cannot be used (the flag then has its default).
    fn set(&mut self, name: &str, value: Option<&str>) -> Option<()> {
        let default = Self::default();
        match name {
            "sino.ram" => {
                self.ram = default.ram;
                self.ram = match value {
                    None | Some("copy" | "on" | "1") => Ram::Copy,
                    Some("background") => Ram::Background,
                    Some("auto") => Ram::Auto,
                    Some("off" | "0") => Ram::Off,
                    Some(_) => return None,
                };
            }
            "sino.verify" => {
                self.verify = default.verify;
                self.verify = switch(value)?;
            }
            "sino.check" => {
                self.check = default.check;
                self.check = switch(value)?;
            }
            "sino.medium" => {
                self.medium = None;
                self.medium = Some(selector(value?)?);
            }
            "sino.iso" => {
                self.iso = None;
                self.iso = Some(iso_file(value?)?);
            }
            "sino.medium-timeout" => {
                self.medium_timeout = default.medium_timeout;
                self.medium_timeout = value?.parse().ok().filter(|seconds| (1..=86_400).contains(seconds))?;
            }
            "sino.overlay" => {
                self.overlay = default.overlay;
                self.overlay = overlay_size(value?)?;
            }
            "sino.overlay-inodes" => {
                self.overlay_inodes = None;
                self.overlay_inodes = Some(value?.parse().ok().filter(|number| *number >= 1024)?);
            }
            "sino.init" => {
                self.init = None;
                self.init = Some(value.filter(|path| path.starts_with('/') && path.len() > 1)?.to_owned());
            }
            "sino.on-failure" => {
                self.on_failure = default.on_failure;
                self.on_failure = match value? {
                    "shell" => OnFailure::Shell,
                    "reboot" => OnFailure::Reboot,
                    "poweroff" => OnFailure::Poweroff,
                    _ => return None,
                };
            }
            "sino.rescue-timeout" => {
                self.rescue_timeout = default.rescue_timeout;
                self.rescue_timeout = value?.parse().ok().filter(|seconds| (0..=86_400).contains(seconds))?;
            }
            "sino.step-timeout" => {
                self.step_timeout = default.step_timeout;
                self.step_timeout = value?.parse().ok().filter(|seconds| (5..=86_400).contains(seconds))?;
            }
            "sino.break" => {
                self.break_before.clear();
                let steps: Vec<String> = value?.split(',').map(str::to_owned).collect();
                let plain = |step: &String| {
                    !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                };
                self.break_before = Some(steps).filter(|steps| steps.iter().all(plain))?;
            }
            "sino.debug" => {
                self.debug = false;
                self.debug = switch(value)?;
            }
            "sino.handover" => {
                self.handover = None;
                self.handover = Some(value?.parse().ok().filter(|seconds| (0..=600).contains(seconds))?);
            }
            "sino.set" => {
                let has_key = |text: &&str| text.split_once('=').is_some_and(|(key, _)| !key.is_empty());
                self.set.push(value.filter(has_key)?.to_owned());
            }
            "sino.net" => self.net.push(value.filter(|text| !text.is_empty())?.to_owned()),
            _ => return None,
        }
        Some(())
    }
}

/// A flag that is on or off; without a value it is on.
fn switch(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("on" | "1") => Some(true),
        Some("off" | "0") => Some(false),
        Some(_) => None,
    }
}

fn selector(value: &str) -> Option<Selector> {
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
fn iso_file(value: &str) -> Option<IsoFile> {
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

fn overlay_size(value: &str) -> Option<OverlaySize> {
    if let Some(percent) = value.strip_suffix('%') {
        return percent.parse().ok().filter(|percent| (1..=100).contains(percent)).map(OverlaySize::Percent);
    }
    let (digits, shift) = match value.char_indices().last()? {
        (at, 'K' | 'k') => (value.get(..at)?, 10),
        (at, 'M' | 'm') => (value.get(..at)?, 20),
        (at, 'G' | 'g') => (value.get(..at)?, 30),
        _ => (value, 0),
    };
    let number: u64 = digits.parse().ok()?;
    let bytes = number.checked_mul(1 << shift)?;
    // A root that nothing at all can be written to does not reach a login.
    (bytes >= 1 << 20).then_some(OverlaySize::Bytes(bytes))
}

/// The words of a command line; double quotes keep spaces together, as the kernel's own `next_arg` does.
fn words(command_line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut begun) = (false, false);
    for character in command_line.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            c if c.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                // What is shown of a flag must not move the cursor of a console.
                word.push(if c.is_control() { '?' } else { c });
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

fn unknown(name: &str) -> String {
    let nearest = FLAGS.iter().map(|flag| (distance(name, flag.name), flag.name)).min();
    match nearest {
        // A third of the name wrong is still a typing error; more is another word.
        Some((far, known)) if far * 3 <= name.len() => {
            format!("flag {name} is not known and has no effect; did you mean {known}?")
        }
        _ => format!("flag {name} is not known and has no effect; docs/BOOT-FLAGS.md lists the flags"),
    }
}

/// Levenshtein's distance between two ASCII words, in letters: for "did you mean".
#[must_use]
pub fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, a) in from.bytes().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        let mut next = vec![left];
        for (b, above) in to.bytes().zip(row.iter().skip(1)) {
            let cost = (diagonal + usize::from(a != b)).min(left + 1).min(above + 1);
            diagonal = *above;
            left = cost;
            next.push(cost);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(parse("BOOT_IMAGE=/x console=hvc0 ro quiet\n"), (Options::default(), Vec::new()));
    }

    #[test]
    fn the_last_value_wins_and_what_follows_the_dashes_is_not_read() {
        let (options, warnings) = parse("sino.ram sino.ram=off sino.overlay=10% sino.overlay=300M -- sino.debug");
        assert!(options.ram == Ram::Off && !options.debug);
        assert_eq!(options.overlay, OverlaySize::Bytes(300 << 20));
        assert!(warnings.is_empty());
    }

    #[test]
    fn every_flag_is_read() {
        let (options, warnings) = parse(
            "sino.ram=background sino.medium=/dev/sdb sino.iso=/iso/sino.iso sino.medium-timeout=5 sino.overlay=20% \
             sino.overlay-inodes=2000 sino.init=/bin/x sino.on_failure=reboot sino.rescue-timeout=0 sino.step-timeout=9 \
             sino.break=find-medium,check-root sino.debug sino.verify=off sino.check sino.handover=45 \
             sino.set=system.hostname=h sino.set=network.dns=['192.0.2.1'] sino.net=dhcp sino.net=off",
        );
        assert_eq!(warnings, Vec::<String>::new());
        let expected = Options {
            ram: Ram::Background,
            verify: false,
            check: true,
            medium: Some(Selector::Device("sdb".into())),
            iso: Some(IsoFile { volume: None, path: "/iso/sino.iso".into() }),
            medium_timeout: 5,
            overlay: OverlaySize::Percent(20),
            overlay_inodes: Some(2000),
            init: Some("/bin/x".into()),
            on_failure: OnFailure::Reboot,
            rescue_timeout: 0,
            step_timeout: 9,
            break_before: vec!["find-medium".into(), "check-root".into()],
            debug: true,
            handover: Some(45),
            set: vec!["system.hostname=h".into(), "network.dns=['192.0.2.1']".into()],
            net: vec!["dhcp".into(), "off".into()],
        };
        assert!(options.breaks_before("check-root") && !options.breaks_before("copy-to-ram"));
        assert!(parse("sino.break=all").0.breaks_before("copy-to-ram"));
        assert_eq!(options, expected);
    }

    #[test]
    fn a_medium_is_named_as_blkid_names_it() {
        for (word, selector) in [
            ("/dev/disk/by-label/SINO", Selector::Label("SINO".into())),
            ("LABEL=SINO", Selector::Label("SINO".into())),
            ("UUID=2026-11-23-08-00-00-00", Selector::Uuid("2026-11-23-08-00-00-00".into())),
            ("PARTUUID=0a1b-01", Selector::PartUuid("0a1b-01".into())),
            ("removable", Selector::Removable),
            ("/dev/xvg/iso", Selector::Device("xvg/iso".into())),
        ] {
            assert_eq!(parse(&format!("sino.medium={word}")).0.medium, Some(selector), "{word}");
        }
        for word in ["sdb", "LABEL=", "/dev/", "/dev/../x", ""] {
            assert_eq!(parse(&format!("sino.medium={word}")).1.len(), 1, "{word}");
        }
    }

    #[test]
    fn every_documented_flag_is_one_that_set_knows() {
        for flag in FLAGS {
            let known = ["copy", "/dev/x", "5", "5000", "5%", "/x", "shell", "1", "find-medium", "a.b=c"]
                .iter()
                .any(|value| Options::default().set(flag.name, Some(value)).is_some());
            assert!(known, "{}", flag.name);
        }
    }

    #[test]
    fn the_names_that_other_loaders_use_are_known() {
        for word in ["findiso=/a/b.iso", "iso-scan/filename=/a/b.iso", "fromiso=/dev/sda1/a/b.iso", "sino.iso=/a/b.iso"]
        {
            let (options, warnings) = parse(word);
            let expected = IsoFile { volume: None, path: "/a/b.iso".into() };
            assert_eq!((options.iso, warnings.len()), (Some(expected), 0), "{word}");
        }
        let volume = |group: &str| Some((group.to_owned(), "xvol".to_owned()));
        for (word, volume) in [
            ("fromiso=/dev/xvg/xvol/iso/x.iso", volume("xvg")),
            ("findiso=/dev/mapper/x--vg-xvol/iso/x.iso", volume("x-vg")),
            ("findiso=/dev/nvme0n1p3/iso/x.iso", None),
            ("findiso=/dev/srv1/xvol/iso/x.iso", volume("srv1")),
        ] {
            assert_eq!(parse(word).0.iso, Some(IsoFile { volume, path: "/iso/x.iso".into() }), "{word}");
        }
        for word in [
            "findiso=",
            "findiso=b.iso",
            "findiso=/../x",
            "sino.iso",
            "fromiso=/dev/sda1",
            "sino.iso=/a//b",
            "sino.iso=/dev/xvg/x",
        ] {
            let (options, warnings) = parse(word);
            assert_eq!((options.iso, warnings.len()), (None, 1), "{word}");
        }
    }

    #[test]
    fn a_typing_error_names_the_nearest_flag() {
        let (options, warnings) = parse("sino.rma sino.completely-different=1");
        assert_eq!(options, Options::default());
        assert!(warnings[0].contains("did you mean sino.ram?"), "{warnings:?}");
        assert!(warnings[1].contains("BOOT-FLAGS"), "{warnings:?}");
    }

    #[test]
    fn a_value_that_cannot_be_used_leaves_the_default_and_says_what_is_allowed() {
        for bad in [
            "sino.ram=please",
            "sino.overlay=0%",
            "sino.overlay=12Q",
            "sino.medium=sdb",
            "sino.init=x",
            "sino.on-failure",
            "sino.medium-timeout=0",
            "sino.break=",
            "sino.debug=x",
            "sino.overlay=99999999999999999999G",
            "sino.overlay=",
            "sino.handover=-1",
            "sino.handover=601",
            "sino.set",
            "sino.set=x",
            "sino.set==x",
            "sino.net",
            "sino.net=",
        ] {
            let (options, warnings) = parse(bad);
            assert_eq!(options, Options::default(), "{bad}");
            assert!(warnings.len() == 1 && warnings[0].contains("allowed:"), "{bad}: {warnings:?}");
        }
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(words("a \"b c\" d=\"e f\""), ["a", "b c", "d=e f"]);
    }

    proptest! {
        #[test]
        fn no_command_line_makes_it_panic(line in "(sino\\.[a-z=-]{0,12}|\\PC{0,8}| |\"|é|%|\u{1b}){0,12}") {
            for warning in parse(&line).1 {
                prop_assert!(!warning.chars().any(char::is_control));
            }
        }
    }
}
