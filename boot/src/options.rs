//! The kernel command line as typed [`Options`].
//!
//! Flags begin with `sino.`; others belong to the kernel or to systemd and are passed over. The last value of a flag
//! wins. What stands after a lone `--` is for the init and is not read here. A flag that is unknown, or whose value
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
        values: "copy | off",
        default: "off",
        help: "Copy the root image to RAM, verify it, and let go of the medium. Without a value: copy.",
    },
    Flag {
        name: "sino.medium",
        values: "/dev/NAME",
        default: "any device that carries this build",
        help: "Look for the medium on this device only.",
    },
    Flag {
        name: "sino.medium-timeout",
        values: "SECONDS (1 to 86400)",
        default: "60",
        help: "How long to wait for a device with this build before the step is reported as failed.",
    },
    Flag {
        name: "sino.iso",
        values: "/PATH",
        default: "none",
        help: "The medium is an ISO file with this path on some file system (vfat, exfat, ntfs, ext4). Also as findiso=, \
               fromiso= and iso-scan/filename=, which multi-boot loaders pass.",
    },
    Flag {
        name: "sino.overlay",
        values: "SIZE[K|M|G] | PERCENT%",
        default: "50%",
        help: "Size of the tmpfs that takes what is written to the root, as bytes or as part of dom0's memory.",
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
        help: "What to do when stage one cannot go on. shell: a rescue shell on every console.",
    },
    Flag {
        name: "sino.break",
        values: "STEP",
        default: "none",
        help: "Open a rescue shell before this step (for example find-medium); leaving the shell goes on.",
    },
    Flag {
        name: "sino.debug",
        values: "",
        default: "off",
        help: "Say in the kernel's log what is tried and found, device by device and module by module.",
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
    /// Copy the root image to RAM (`sino.ram`).
    pub ram: bool,
    /// The only device to look at (`sino.medium`).
    pub medium: Option<String>,
    /// Path of the ISO file that is the medium (`sino.iso` and its aliases).
    pub iso: Option<String>,
    /// Seconds to wait for the medium (`sino.medium-timeout`).
    pub medium_timeout: u32,
    /// Size of the overlay's tmpfs (`sino.overlay`).
    pub overlay: OverlaySize,
    /// What stage one executes in the new root (`sino.init`); `None` is [`crate::layout::STAGE_TWO`].
    pub init: Option<String>,
    /// What to do on failure (`sino.on-failure`).
    pub on_failure: OnFailure,
    /// The step to stop before (`sino.break`).
    pub break_before: Option<String>,
    /// More detail in the log (`sino.debug`).
    pub debug: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ram: false,
            medium: None,
            iso: None,
            medium_timeout: 60,
            overlay: OverlaySize::Percent(50),
            init: None,
            on_failure: OnFailure::default(),
            break_before: None,
            debug: false,
        }
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
                    None | Some("copy" | "on" | "1") => true,
                    Some("off" | "0") => false,
                    Some(_) => return None,
                };
            }
            "sino.medium" => {
                self.medium = None;
                self.medium = Some(value.filter(|path| path.starts_with("/dev/") && path.len() > 5)?.to_owned());
            }
            "sino.iso" => {
                self.iso = None;
                self.iso = Some(iso_path(value?)?);
            }
            "sino.medium-timeout" => {
                self.medium_timeout = default.medium_timeout;
                self.medium_timeout = value?.parse().ok().filter(|seconds| (1..=86_400).contains(seconds))?;
            }
            "sino.overlay" => {
                self.overlay = default.overlay;
                self.overlay = overlay_size(value?)?;
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
            "sino.break" => {
                self.break_before = None;
                self.break_before = Some(value.filter(|step| !step.is_empty())?.to_owned());
            }
            "sino.debug" => {
                self.debug = false;
                self.debug = match value {
                    None | Some("1" | "on") => true,
                    Some("0" | "off") => false,
                    Some(_) => return None,
                };
            }
            _ => return None,
        }
        Some(())
    }
}

/// The path of an ISO file on its file system: absolute, without `..`. A device in front (`/dev/sda1/PATH`, as live-boot
/// takes it) is left out, because the build id finds the right one.
fn iso_path(value: &str) -> Option<String> {
    let path = match value.strip_prefix("/dev/") {
        Some(rest) => rest.get(rest.find('/')?..)?,
        None => value,
    };
    let plain = path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    (path.starts_with('/') && path.len() > 1 && plain).then(|| path.to_owned())
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
                word.push(c);
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

/// Levenshtein's distance between two ASCII words.
fn distance(from: &str, to: &str) -> usize {
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
        assert!(!options.ram && !options.debug);
        assert_eq!(options.overlay, OverlaySize::Bytes(300 << 20));
        assert!(warnings.is_empty());
    }

    #[test]
    fn every_flag_is_read() {
        let (options, warnings) = parse(
            "sino.ram sino.medium=/dev/sdb sino.iso=/iso/sino.iso sino.medium-timeout=5 sino.overlay=20% sino.init=/bin/x \
             sino.on_failure=reboot sino.break=find-medium sino.debug",
        );
        assert_eq!(warnings, Vec::<String>::new());
        let expected = Options {
            ram: true,
            medium: Some("/dev/sdb".into()),
            iso: Some("/iso/sino.iso".into()),
            medium_timeout: 5,
            overlay: OverlaySize::Percent(20),
            init: Some("/bin/x".into()),
            on_failure: OnFailure::Reboot,
            break_before: Some("find-medium".into()),
            debug: true,
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn every_documented_flag_is_one_that_set_knows() {
        for flag in FLAGS {
            let known = ["copy", "/dev/x", "5", "5%", "/x", "shell", "1"]
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
            assert_eq!((options.iso.as_deref(), warnings.len()), (Some("/a/b.iso"), 0), "{word}");
        }
        for word in ["findiso=", "findiso=b.iso", "findiso=/../x", "sino.iso", "fromiso=/dev/sda1", "sino.iso=/a//b"] {
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
        fn no_command_line_makes_it_panic(line in "(sino\\.[a-z=-]{0,12}|\\PC{0,8}| |\"|é|%){0,12}") {
            let _ = parse(&line);
        }
    }
}
