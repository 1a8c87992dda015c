//! On what the bench ran: without that, its figures say nothing.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The machine and the versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// How many processors there are.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel of the build machine.
    pub kernel: String,
    /// How virtual machines were run: `tcg` or `kvm`.
    pub accelerator: String,
    /// What was used, with its version: QEMU, Debian's packages on the image and of the contenders.
    pub versions: Vec<(String, String)>,
    /// SINO's revision, with `+` when files were changed since.
    pub revision: String,
    /// When, as `2026-11-24 00:10 UTC`.
    pub date: String,
}

impl Machine {
    /// Where values are made that may stand beside each other.
    #[must_use]
    pub fn place(&self) -> String {
        let Self { cpu, cores, memory_mib, accelerator, .. } = self;
        format!("{cpu}, {cores} processors, {memory_mib} MiB of memory, {accelerator}")
    }

    /// Looks. What cannot be found out stays empty.
    #[must_use]
    pub fn look(workspace: &Path) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = kibibytes(&meminfo, "MemTotal").unwrap_or(0);
        let git = |arguments: &[&str]| {
            said(Command::new("git").arg("-C").arg(workspace).args(["-c", "safe.directory=*"]).args(arguments))
        };
        let changed = if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { "+" };
        Self {
            cpu: field(&cpuinfo, "model name"),
            cores: processors(&cpuinfo),
            memory_mib: kib / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            accelerator: std::env::var("SINO_QEMU_ACCEL").unwrap_or_else(|_| "tcg".to_owned()),
            versions: tools(),
            revision: format!("{}{changed}", git(&["rev-parse", "--short=12", "HEAD"])),
            date: said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
        }
    }
}

/// How much memory a new program can have, in bytes. Source: proc(5), `MemAvailable`.
///
/// # Errors
/// The kernel does not tell.
pub fn available_memory() -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    Ok(kibibytes(&meminfo, "MemAvailable").context("/proc/meminfo has no MemAvailable")? << 10)
}

/// The value of a line `NAME: VALUE` of /proc; nothing if there is none.
fn field(text: &str, name: &str) -> String {
    let value = |line: &str| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim().to_owned());
    text.lines().find_map(value).unwrap_or_default()
}

fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    field(meminfo, name).split(' ').next()?.parse().ok()
}

/// How many processors there are, whichever of them this process may use.
fn processors(cpuinfo: &str) -> usize {
    cpuinfo.lines().filter(|line| line.split(':').next().is_some_and(|name| name.trim() == "processor")).count()
}

/// Debian's packages of the build machine that figures depend on.
const PACKAGES: [&str; 8] =
    ["qemu-system-x86", "squashfs-tools", "erofs-utils", "xorriso", "coreutils", "rsync", "b3sum", "mmdebstrap"];

/// What is used of the build machine, with versions.
fn tools() -> Vec<(String, String)> {
    // One that is not installed is told on the error output, and the others are listed.
    let installed = said(Command::new("dpkg-query").args(["-W", "-f", "${Package} ${Version}\\n"]).args(PACKAGES));
    let mut all: Vec<(String, String)> = installed
        .lines()
        .filter_map(|line| line.split_once(' ').map(|(name, version)| (name.to_owned(), version.to_owned())))
        .filter(|(_, version)| !version.is_empty())
        .collect();
    let rustc = version(&said(Command::new("rustc").arg("--version")));
    all.extend((!rustc.is_empty()).then(|| ("rustc".to_owned(), rustc)));
    all
}

/// The first word with a digit at its beginning, `v` aside.
fn version(line: &str) -> String {
    let plain = |word: &str| word.trim_start_matches('v').trim_end_matches([',', ';']).to_owned();
    line.split_whitespace().map(plain).find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or_default()
}

/// What a command says; nothing if it fails or is not there.
fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_from_first_lines() {
        assert_eq!(version("QEMU emulator version 7.2.19 (Debian 1:7.2)"), "7.2.19");
        assert_eq!(version("mksquashfs version 4.5.1 (2022/03/17)"), "4.5.1");
        assert_eq!(version("b3sum v1.2"), "1.2");
        assert_eq!(version("no digit"), "");
    }

    #[test]
    fn lines_of_proc_are_read() {
        let meminfo = "MemTotal:       24684096 kB\nMemAvailable:    1234 kB\nMemOdd: x\n";
        assert_eq!(field("model name\t: AMD EPYC\n", "model name"), "AMD EPYC");
        assert_eq!(
            ["MemTotal", "MemAvailable", "MemOdd", "Mem"].map(|name| kibibytes(meminfo, name)),
            [Some(24_684_096), Some(1234), None, None]
        );
        assert!(available_memory().unwrap() > 0);
    }

    #[test]
    fn processors_are_counted() {
        assert_eq!(processors("processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n"), 2);
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::look(&crate::images::workspace());
        assert!(machine.cores > 0 && machine.memory_mib > 0 && !machine.kernel.is_empty(), "{machine:?}");
        assert!(machine.date.ends_with("UTC"), "{machine:?}");
    }
}
