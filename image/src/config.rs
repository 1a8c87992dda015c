//! The image's one configuration file: TOML, every key optional, with the defaults of `image/sino.toml`.
//!
//! Reading is pure. An error names the file, the line, the key and what is allowed there; a key that does not exist
//! is an error too. What a value means for the machine is decided where it is used; here it is only checked.

use crate::packages;
use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Debian suite.
    pub suite: String,
    /// Components of the archive.
    pub components: Vec<String>,
    /// What the running system is like.
    pub system: System,
    /// What the boot menus say.
    pub boot: Boot,
    /// How the image is packed.
    pub image: Image,
    /// Where the result goes.
    pub output: Output,
    /// What is installed.
    pub packages: Packages,
}

/// What the running system is like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct System {
    /// Host name, without a domain.
    pub hostname: String,
    /// Locale, as in `/usr/share/i18n/SUPPORTED`.
    pub locale: String,
    /// X keyboard layout for the console.
    pub keyboard: String,
    /// Time zone, as below `/usr/share/zoneinfo`.
    pub timezone: String,
    /// Password of root, on the console and by ssh.
    pub root_password: String,
}

/// What the boot menus say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Boot {
    /// Memory of dom0 in MiB; entries "on ram" get what the copy needs on top.
    pub dom0_memory: u64,
    /// What entries "on ram" get beyond the root image's own size, in MiB.
    pub ram_reserve: u64,
    /// Seconds until the first entry starts by itself.
    pub menu_timeout: u32,
    /// Further flags for the Linux kernel.
    pub kernel_flags: String,
    /// Further flags for Xen.
    pub xen_flags: String,
    /// Serial port of the menus and of Xen.
    pub serial_port: SerialPort,
    /// Speed of the serial port in baud.
    pub serial_speed: u32,
}

/// A serial port of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SerialPort {
    /// The first port, 0x3f8.
    Com1,
    /// The second port, 0x2f8.
    Com2,
}

/// Where the CPU microcode goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Microcode {
    /// In front of the initramfs, in the same file, when the packages are installed.
    Front,
    /// Nowhere.
    Off,
}

/// How the image is packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Image {
    /// zstd level of the root image.
    pub compression_level: u32,
    /// Block size of the root image in KiB.
    pub block_size: u32,
    /// Where the CPU microcode goes.
    pub microcode: Microcode,
}

/// Where the result goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Output {
    /// Folder; a relative one is below the workspace.
    pub directory: PathBuf,
    /// File name of the ISO.
    pub iso: String,
}

/// What is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Packages {
    /// Which groups are installed.
    pub enabled: Vec<String>,
    /// Packages beyond the groups.
    pub extra: Vec<String>,
    /// Groups by name; the ones that are not given here have their defaults.
    pub groups: BTreeMap<String, Vec<String>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            suite: "trixie".into(),
            components: vec!["main".into(), "non-free-firmware".into()],
            system: System::default(),
            boot: Boot::default(),
            image: Image::default(),
            output: Output::default(),
            packages: Packages::default(),
        }
    }
}

impl Default for System {
    fn default() -> Self {
        Self {
            hostname: "sino".into(),
            locale: "en_US.UTF-8".into(),
            keyboard: "us".into(),
            timezone: "Etc/UTC".into(),
            root_password: "root".into(),
        }
    }
}

impl Default for Boot {
    fn default() -> Self {
        Self {
            dom0_memory: 1024,
            ram_reserve: 64,
            menu_timeout: 5,
            kernel_flags: String::new(),
            xen_flags: String::new(),
            serial_port: SerialPort::Com1,
            serial_speed: 115_200,
        }
    }
}

impl Default for Image {
    fn default() -> Self {
        Self { compression_level: 15, block_size: 256, microcode: Microcode::Front }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self { directory: "target/sino".into(), iso: "sino.iso".into() }
    }
}

impl Default for Packages {
    fn default() -> Self {
        Self { enabled: packages::enabled_groups(), extra: Vec::new(), groups: packages::default_groups() }
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// The file cannot be read, or [`Config::parse`] refuses it.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a configuration; `file` is its name for error messages.
    ///
    /// # Errors
    /// Text that is not TOML, a key that does not exist, or a value that is not allowed.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let mut config: Self = toml::from_str(text).map_err(|error| anyhow!("{file}: {error}"))?;
        for (name, packages) in packages::default_groups() {
            config.packages.groups.entry(name).or_insert(packages);
        }
        config.check().map_err(|Refused { table, key, problem }| {
            let full = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
            match line_of(text, table, key) {
                Some(line) => anyhow!("{file}: line {line}: {full}: {problem}"),
                None => anyhow!("{file}: {full}: {problem}"),
            }
        })?;
        Ok(config)
    }

    /// The packages to install.
    ///
    /// # Errors
    /// As [`packages::resolve`].
    pub fn package_list(&self) -> Result<Vec<String>> {
        packages::resolve(&self.packages.groups, &self.packages.enabled, &self.packages.extra)
    }

    fn check(&self) -> Result<(), Refused> {
        let (system, boot) = (&self.system, &self.boot);
        rule("", "suite", packages::SUITES.contains(&self.suite.as_str()), || {
            format!("{:?} is not a suite that is known to work; allowed: {}", self.suite, packages::SUITES.join(", "))
        })?;
        let components = !self.components.is_empty() && self.components.iter().all(|name| is_word(name, "-"));
        rule("", "components", components, || "allowed: names such as main, non-free-firmware".into())?;
        rule("system", "hostname", is_hostname(&system.hostname), || {
            format!("{:?}; allowed: 1 to 63 lower-case letters, digits or inner hyphens, no dots", system.hostname)
        })?;
        rule("system", "locale", is_word(&system.locale, "._@-"), || "allowed: a name such as en_US.UTF-8".into())?;
        rule("system", "keyboard", is_word(&system.keyboard, "_-"), || "allowed: a layout such as us or br".into())?;
        let zone = system.timezone.split('/').all(|part| is_word(part, "_-+"));
        rule("system", "timezone", zone, || "allowed: a name such as Etc/UTC or America/Sao_Paulo".into())?;
        let password = !system.root_password.is_empty() && !system.root_password.contains(['\n', '\0']);
        rule("system", "root_password", password, || "allowed: one line that is not empty".into())?;
        let range = |key, value: u64, low: u64, high: u64| {
            rule("boot", key, (low..=high).contains(&value), || format!("{value}; allowed: {low} to {high}"))
        };
        range("dom0_memory", boot.dom0_memory, 256, 1 << 20)?;
        range("ram_reserve", boot.ram_reserve, 64, 1 << 20)?;
        range("menu_timeout", boot.menu_timeout.into(), 1, 600)?;
        let speeds = [9600, 19_200, 38_400, 57_600, 115_200];
        rule("boot", "serial_speed", speeds.contains(&boot.serial_speed), || format!("allowed: {speeds:?}"))?;
        for (key, flags) in [("kernel_flags", &boot.kernel_flags), ("xen_flags", &boot.xen_flags)] {
            rule("boot", key, is_flags(flags), || FLAGS_RULE.into())?;
        }
        let (level, block) = (self.image.compression_level, self.image.block_size);
        rule("image", "compression_level", (1..=22).contains(&level), || format!("{level}; allowed: 1 to 22"))?;
        rule("image", "block_size", block.is_power_of_two() && (4..=1024).contains(&block), || {
            format!("{block}; allowed: a power of two from 4 to 1024 (KiB)")
        })?;
        let iso = is_word(&self.output.iso, "._-")
            && Path::new(&self.output.iso).extension().is_some_and(|extension| extension == "iso");
        rule("output", "iso", iso, || "allowed: a file name that ends in .iso, without a folder".into())?;
        self.check_packages()
    }

    fn check_packages(&self) -> Result<(), Refused> {
        let refused = |key, error: &anyhow::Error| Refused { table: "packages", key, problem: error.to_string() };
        let groups = &self.packages.groups;
        packages::resolve(groups, &self.packages.enabled, &[]).map_err(|error| refused("enabled", &error))?;
        let everything: Vec<String> = groups.keys().cloned().collect();
        packages::resolve(groups, &everything, &[]).map_err(|error| refused("groups", &error))?;
        self.package_list().map_err(|error| refused("extra", &error))?;
        Ok(())
    }
}

const FLAGS_RULE: &str = "allowed: printable ASCII without quotes, backslash, '$', '#', ';', '{', '}' and \"---\"";

/// A value that is not allowed.
struct Refused {
    table: &'static str,
    key: &'static str,
    problem: String,
}

fn rule(table: &'static str, key: &'static str, good: bool, problem: impl Fn() -> String) -> Result<(), Refused> {
    if good { Ok(()) } else { Err(Refused { table, key, problem: problem() }) }
}

fn is_word(text: &str, also: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

fn is_hostname(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

/// Flags go unquoted into three menu languages; none of them may read more into them than a flag.
fn is_flags(text: &str) -> bool {
    text.chars().all(|c| (' '..='~').contains(&c) && !"\"'\\$#;{}".contains(c)) && !text.contains("---")
}

/// The line (from 1) where `key` of `table` is given.
fn line_of(text: &str, table: &str, key: &str) -> Option<usize> {
    let mut current = String::new();
    let mut header = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            name.trim().clone_into(&mut current);
            if current == format!("{table}.{key}") {
                header = Some(index + 1);
            }
            continue;
        }
        let given = line.split_once('=').map(|(name, _)| name.trim().trim_matches('"').to_owned());
        if current == table && given.as_deref() == Some(key) {
            return Some(index + 1);
        }
    }
    header
}

/// Reads `SOURCE_DATE_EPOCH`'s value.
///
/// # Errors
/// Anything but seconds since 1970 that an ISO 9660 date can hold.
pub fn source_date_epoch(value: Option<&str>) -> Result<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    let seconds: u64 = value.trim().parse().ok().context("SOURCE_DATE_EPOCH is not a number of seconds since 1970")?;
    ensure!(seconds < 4_102_444_800, "SOURCE_DATE_EPOCH is after the year 2099");
    Ok(Some(seconds))
}

#[cfg(test)]
mod tests;
