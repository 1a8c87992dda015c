//! The domains that `xl list` shows: from its table, or from its JSON.
//!
//! Source: xen `tools/xl/xl_info.c`, `list_domains` and `list_domains_details`; the same in Xen 4.17 to 4.21.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A domain that Xen has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// Its name; empty while xl knows none (it is just being made, or taken down).
    pub name: String,
    /// Its number; a guest that is rebooted has another.
    pub id: u32,
    /// The memory that it has, in MiB.
    pub memory_mib: u64,
    /// The virtual CPUs that are online.
    pub vcpus: u32,
    /// How it is; `None` where only the JSON could be read, which does not say.
    pub state: Option<State>,
    /// The CPU time that it has used; `None` as with the state.
    pub cpu_time: Option<Duration>,
    /// Its UUID, as `01234567-89ab-...`, if told.
    pub uuid: Option<String>,
}

/// How a domain is, as the letters `rbpscd` in the table say. None of them set: it could run, and waits for a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "they are Xen's own flags, each independent of the others")]
pub struct State {
    /// On a CPU at this moment.
    pub running: bool,
    /// Waits for something to happen.
    pub blocked: bool,
    /// Paused: by an administrator, or still being made.
    pub paused: bool,
    /// Has shut down, and for what; it still has its memory.
    pub shutdown: Option<Shutdown>,
    /// Is being taken down.
    pub dying: bool,
}

/// For what a domain has shut down. Source: xen `xen/include/public/sched.h`, `SHUTDOWN_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shutdown {
    /// It has switched itself off.
    Poweroff,
    /// It wants to begin anew.
    Reboot,
    /// It was saved.
    Suspend,
    /// It has crashed.
    Crash,
    /// Its watchdog was not fed.
    Watchdog,
    /// It wants to be reset without losing its memory.
    SoftReset,
    /// Something that neither xl nor this release of SINO has a word for.
    Other,
}

impl Shutdown {
    /// By its number, as logs of xl have it.
    #[must_use]
    pub fn of_code(code: u32) -> Self {
        match code {
            0 => Self::Poweroff,
            1 => Self::Reboot,
            2 => Self::Suspend,
            3 => Self::Crash,
            4 => Self::Watchdog,
            5 => Self::SoftReset,
            _ => Self::Other,
        }
    }
}

impl State {
    /// It has been made, is not paused, has not shut down and is not being taken down.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.paused && self.shutdown.is_none() && !self.dying
    }

    /// The six letters of the table.
    fn read(text: &str) -> Result<Self> {
        let [running, blocked, paused, shutdown, reason, dying] = text.as_bytes() else {
            bail!("{text:?} is no state")
        };
        let flag = |byte: &u8, letter: u8| match *byte {
            b'-' => Ok(false),
            byte if byte == letter => Ok(true),
            _ => bail!("{text:?} is no state"),
        };
        let reason = match reason {
            b'-' => Shutdown::Poweroff,
            b'r' => Shutdown::Reboot,
            b's' => Shutdown::Suspend,
            b'c' => Shutdown::Crash,
            b'w' => Shutdown::Watchdog,
            b'S' => Shutdown::SoftReset,
            b'?' => Shutdown::Other,
            _ => bail!("{text:?} is no state"),
        };
        Ok(Self {
            running: flag(running, b'r')?,
            blocked: flag(blocked, b'b')?,
            paused: flag(paused, b'p')?,
            shutdown: flag(shutdown, b's')?.then_some(reason),
            dying: flag(dying, b'd')?,
        })
    }
}

/// Reads the table of `xl list` or `xl list -v`.
///
/// Rows are read from their right end, where no field has a blank in it, so that a name may have any.
///
/// # Errors
/// It has no heading, no row (Domain-0 is always there), or one that is no row: a name with a line break, or garbage.
pub fn table(text: &[u8]) -> Result<Vec<Domain>> {
    let text = std::str::from_utf8(text).context("the table is not UTF-8")?;
    let mut lines = text.lines().skip_while(|line| !is_heading(line));
    let heading = lines.next().context("there is no line with the headings Name, ID, Mem, VCPUs, State, Time")?;
    let long = heading.contains("UUID");
    let rows: Vec<Domain> = lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| row(line, long).with_context(|| format!("the row {:?}", shortened(line))))
        .collect::<Result<_>>()?;
    if rows.is_empty() {
        bail!("the table is empty, though Domain-0 is always there");
    }
    Ok(rows)
}

fn is_heading(line: &str) -> bool {
    line.split_whitespace().take(6).eq(["Name", "ID", "Mem", "VCPUs", "State", "Time(s)"])
}

fn row(line: &str, long: bool) -> Result<Domain> {
    let mut rest = line.trim_end();
    let mut last = || -> Result<&str> {
        let (before, field) = rest.rsplit_once(char::is_whitespace).context("too few fields")?;
        rest = before.trim_end();
        Ok(field)
    };
    let uuid = if long {
        let (_label, _reason) = (last()?, last()?);
        Some(uuid(last()?)?)
    } else {
        None
    };
    let time: f64 = last()?.parse().context("the time")?;
    let state = State::read(last()?)?;
    let vcpus = last()?.parse().context("the number of CPUs")?;
    let memory_mib = last()?.parse().context("the memory")?;
    let id = last()?.parse().context("the number of the domain")?;
    let name = if rest == NO_NAME { "" } else { rest };
    let cpu_time = Some(Duration::try_from_secs_f64(time).context("the time")?);
    Ok(Domain { name: name.to_owned(), id, memory_mib, vcpus, state: Some(state), cpu_time, uuid })
}

/// What the C library prints for a name that is none.
const NO_NAME: &str = "(null)";

fn uuid(text: &str) -> Result<String> {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    if parts != [8, 4, 4, 4, 12] || !text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()) {
        bail!("{text:?} is no UUID");
    }
    Ok(text.to_ascii_lowercase())
}

fn shortened(line: &str) -> String {
    line.chars().take(120).collect()
}

#[derive(Deserialize)]
struct Long {
    domid: Option<u32>,
    config: Config,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    c_info: Created,
    #[serde(default)]
    b_info: Built,
}

#[derive(Default, Deserialize)]
struct Created {
    name: Option<String>,
    uuid: Option<String>,
}

#[derive(Default, Deserialize)]
struct Built {
    max_vcpus: Option<u32>,
    #[serde(default)]
    avail_vcpus: Vec<u32>,
    target_memkb: Option<u64>,
    max_memkb: Option<u64>,
}

/// Reads the JSON of `xl list -l`: names exactly as they are, but neither state nor time, and memory and CPUs as configured.
///
/// # Errors
/// It is not what xl prints, or shows no domain.
pub fn long(text: &[u8]) -> Result<Vec<Domain>> {
    let all: Vec<Long> = serde_json::from_slice(text).context("the JSON of xl list -l")?;
    let domains: Vec<Domain> = all.into_iter().filter_map(from_long).collect();
    if domains.is_empty() {
        bail!("it shows no domain, though Domain-0 is always there");
    }
    Ok(domains)
}

fn from_long(long: Long) -> Option<Domain> {
    let Config { c_info, b_info } = long.config;
    let kib = b_info.target_memkb.or(b_info.max_memkb).unwrap_or(0);
    let online = u32::try_from(b_info.avail_vcpus.len()).ok().filter(|&count| count > 0);
    Some(Domain {
        name: c_info.name.unwrap_or_default(),
        id: long.domid?,
        memory_mib: kib / 1024,
        vcpus: online.or(b_info.max_vcpus).unwrap_or(1),
        state: None,
        cpu_time: None,
        uuid: c_info.uuid.and_then(|text| uuid(&text).ok()),
    })
}

#[cfg(test)]
#[path = "domain_tests.rs"]
mod tests;
