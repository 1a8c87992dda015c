//! The kernel command line as typed [`Options`].
//!
//! Flags begin with `sino.`; others belong to the kernel or to systemd and are passed over. The last value of a flag
//! wins, but `sino.set` and `sino.net` add up. What stands after a lone `--` is for the init and is not read here. A flag that is unknown, or whose value
//! cannot be used, becomes a warning that names the nearest known flag or the allowed values; the boot goes on.

mod flags;
mod medium;
mod words;

pub use flags::{FLAGS, Flag};
pub use medium::{IsoFile, Selector};
pub use words::distance;

use medium::{iso_file, selector};
use words::words;

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
    /// Which guests start by themselves (`sino.autostart`).
    pub autostart: Autostart,
}

/// Which guests start by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Autostart {
    /// As configured.
    #[default]
    All,
    /// None.
    Off,
    /// These, whether they would start by themselves or not.
    Only(Vec<String>),
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
            autostart: Autostart::All,
        }
    }
}

/// The steps of stage two, in order.
pub const STAGE_TWO: [&str; 3] = ["take-over", "bring-up", "hand-over"];

impl Options {
    /// What `sino.break` names that is no step, for people; `stage_one` are the steps of stage one.
    #[must_use]
    pub fn unknown_breaks(&self, stage_one: &[&str]) -> Vec<String> {
        let known = |step: &str| step == "all" || stage_one.contains(&step) || STAGE_TWO.contains(&step);
        let wrong = self.break_before.iter().filter(|step| !known(step));
        let told = |step: &String| {
            let steps: Vec<&str> = stage_one.iter().chain(&STAGE_TWO).copied().collect();
            format!("sino.break: there is no step {step}; there are {}, and all", steps.join(", "))
        };
        wrong.map(told).collect()
    }

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
            "sino.autostart" => {
                self.autostart = Autostart::All;
                self.autostart = match value? {
                    "on" | "all" => Autostart::All,
                    "off" | "0" => Autostart::Off,
                    names => {
                        let names: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
                        names.iter().all(|name| !name.is_empty()).then_some(Autostart::Only(names))?
                    }
                };
            }
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

#[cfg(test)]
mod tests;
