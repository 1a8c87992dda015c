//! Whether the guests fit into the memory that Xen has, before any is started.
//!
//! Reckons as libxl does before it creates a domain (`libxl_domain_need_memory` of Xen 4.17 to 4.20, the same in both) and never
//! with memory that dom0 would have to give back: xl would balloon dom0 for a guest, SINO leaves that to the administrator.
//! Numbers in, a plan out; nothing is asked here.

use super::xl_config::{GuestConfig, Kind, read_settings};
use crate::config::origins::clean;
use anyhow::{Context, Result};
use std::fmt;

/// KiB in a MiB.
const MIB: u64 = 1024;
/// KiB of a page.
const PAGE: u64 = 4;
/// KiB that libxl adds for a guest with a hardware container, and for a paravirtualised one (`libxl_internal.h`).
const EXTRA_HVM: u64 = 2 * MIB;
const EXTRA_PV: u64 = MIB;
/// KiB of Xen's large pages; libxl rounds up to them.
const LARGE_PAGE: u64 = 2 * MIB;
/// MiB of video memory that libxl gives with a device model's domain: of the standard card, and of cirrus.
const VIDEO: (u64, u64) = (16, 8);

/// What Xen has, as `xl info` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XenMemory {
    /// All memory of the host, in MiB.
    pub total_mib: u64,
    /// What no domain has, in MiB; claims that have not been used up are taken off already.
    pub free_mib: u64,
    /// Xen's command line.
    pub commandline: String,
}

/// Reads what `xl info` prints.
///
/// # Errors
/// There is no total or free memory in it.
pub fn parse_xl_info(text: &str) -> Result<XenMemory> {
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    };
    let number = |name: &str| {
        let value =
            value(name).with_context(|| format!("xl info says nothing of {name}; is this a host under Xen?"))?;
        value.parse::<u64>().with_context(|| format!("xl info says {name} is {:?}", clean(value, 40)))
    };
    Ok(XenMemory {
        total_mib: number("total_memory")?,
        free_mib: number("free_memory")?,
        commandline: value("xen_commandline").unwrap_or_default().to_owned(),
    })
}

/// Whether xl would take memory from dom0 for a guest. `xl_conf` is the text of `/etc/xen/xl.conf`. Its `autoballoon` decides; by
/// default xl does so unless Xen was started with a `dom0_mem` (`auto_autoballoon` in xl.c).
#[must_use]
pub fn balloons_dom0(xl_conf: &str, commandline: &str) -> bool {
    let (settings, _) = read_settings(xl_conf.as_bytes(), "xl.conf");
    let autoballoon = settings.iter().find(|setting| setting.name == "autoballoon");
    match autoballoon.and_then(|setting| setting.value.text()) {
        Some("on" | "1") => true,
        Some("off" | "0") => false,
        _ => !commandline.split(' ').filter_map(|word| word.strip_prefix("dom0_mem=")).any(is_dom0_mem),
    }
}

/// `SIZE`, `min:SIZE`, `max:SIZE` with commas between, where a size may be or have a share of all: `1G+10%`.
fn is_dom0_mem(text: &str) -> bool {
    let size = |text: &str| {
        let text = text.strip_prefix('-').unwrap_or(text);
        let digits = text.strip_suffix(['b', 'B', 'k', 'K', 'm', 'M', 'g', 'G', 't', 'T']).unwrap_or(text);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let share = |text: &str| {
        let percent = text.strip_suffix('%').unwrap_or_default();
        (1..=2).contains(&percent.len()) && percent.bytes().all(|byte| byte.is_ascii_digit())
    };
    let parts = text.strip_suffix(',').unwrap_or(text);
    parts.split(',').all(|part| {
        let part = part.strip_prefix("min:").or_else(|| part.strip_prefix("max:")).unwrap_or(part);
        let both = part.split_once('+').is_some_and(|(fixed, part)| size(fixed) && share(part));
        size(part) || share(part) || both
    })
}

/// What Xen must have free for a guest, in KiB.
#[must_use]
pub fn need_kib(config: &GuestConfig) -> u64 {
    let memory = config.memory_mib().saturating_mul(MIB);
    let most = config.maxmem_mib();
    // One MiB for each CPU, a page for each MiB for the map of its memory (or a PV guest's shadows), another if shadows are
    // what pages by: libxl__get_required_paging_memory. A PV guest gets none of it, but libxl wants it free.
    let shadows = config.kind.value == Kind::Pv || !config.hap;
    let pages = u64::from(config.kind.value != Kind::Pv) + u64::from(shadows);
    let paging = match &config.shadow_memory {
        Some(given) => given.value.saturating_mul(MIB),
        None => config.max_cpus().saturating_mul(MIB).saturating_add(most.saturating_mul(pages * PAGE)),
    };
    let iommu = if config.iommu_tables { iommu_kib(most.saturating_mul(MIB)) } else { 0 };
    let model = config.stubdomain.map_or(0, |domain| domain.saturating_add(video_mib(config)).saturating_mul(MIB));
    let extra = if config.kind.value == Kind::Pv { EXTRA_PV } else { EXTRA_HVM };
    [paging, iommu, model, extra]
        .into_iter()
        .fold(memory, u64::saturating_add)
        .div_ceil(LARGE_PAGE)
        .saturating_mul(LARGE_PAGE)
}

/// KiB of the IOMMU's own tables: four levels of 512 entries (`libxl__get_required_iommu_memory`).
fn iommu_kib(most: u64) -> u64 {
    let mut pages = most / PAGE;
    let mut tables: u64 = 0;
    for _ in 0..4 {
        pages = pages.div_ceil(512);
        tables = tables.saturating_add(pages);
    }
    tables.saturating_mul(PAGE)
}

fn video_mib(config: &GuestConfig) -> u64 {
    let card = config.vga.as_ref().map(|card| card.value.as_str());
    let (standard, cirrus) = VIDEO;
    match (&config.videoram, card) {
        (Some(given), _) => given.value,
        (None, Some("none")) => 0,
        (None, Some("qxl")) => 128,
        (None, Some("stdvga")) => standard,
        (None, _) => cirrus,
    }
}

/// What the guests are to fit into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// What Xen has.
    pub xen: XenMemory,
    /// What dom0 holds in MiB, if it is known; the system's image and overlay in RAM are a part of it.
    pub dom0_mib: Option<u64>,
    /// Whether xl would take memory from dom0 ([`balloons_dom0`]).
    pub balloons: bool,
}

/// A guest that is to start.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// What its file says.
    pub config: &'a GuestConfig,
    /// Whether its domain is there already: then it needs nothing more.
    pub running: bool,
}

/// Whether a guest fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It runs already.
    Running,
    /// It fits.
    Fits,
    /// It does not.
    Short {
        /// What is left of Xen's free memory when it is its turn, in KiB.
        left_kib: u64,
        /// The guests before it that have had the rest.
        after: Vec<String>,
    },
}

/// A guest's part of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// How it is virtualised.
    pub kind: Kind,
    /// Its memory at the start, in MiB.
    pub memory_mib: u64,
    /// What it may grow to, in MiB, if that is more.
    pub maxmem_mib: Option<u64>,
    /// What Xen must have free for it, in KiB, with all that is added.
    pub need_kib: u64,
    /// Whether it fits.
    pub verdict: Verdict,
}

/// Which guests fit, in the order in which they start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The guests, in that order.
    pub guests: Vec<Share>,
    /// What those need that are to start, in KiB.
    pub wanted_kib: u64,
    /// What is left when all that fit have started, in KiB.
    pub left_kib: u64,
    /// What it was made for.
    pub host: Host,
}

/// Makes the plan. A guest that does not fit takes nothing from those behind it.
#[must_use]
pub fn plan(host: &Host, guests: &[Candidate<'_>]) -> Plan {
    let mut plan = Plan { left_kib: host.xen.free_mib.saturating_mul(MIB), host: host.clone(), ..Plan::default() };
    let mut taken: Vec<String> = Vec::new();
    for guest in guests {
        let need_kib = need_kib(guest.config);
        let verdict = if guest.running {
            Verdict::Running
        } else {
            plan.wanted_kib = plan.wanted_kib.saturating_add(need_kib);
            if need_kib <= plan.left_kib {
                plan.left_kib -= need_kib;
                taken.push(guest.name.to_owned());
                Verdict::Fits
            } else {
                Verdict::Short { left_kib: plan.left_kib, after: taken.clone() }
            }
        };
        let (memory_mib, maxmem_mib) = (guest.config.memory_mib(), guest.config.maxmem_mib());
        plan.guests.push(Share {
            name: guest.name.to_owned(),
            kind: guest.config.kind.value,
            memory_mib,
            maxmem_mib: (maxmem_mib > memory_mib).then_some(maxmem_mib),
            need_kib,
            verdict,
        });
    }
    plan
}

impl Share {
    /// Why it does not fit; `None` if it does.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let Verdict::Short { left_kib, after } = &self.verdict else { return None };
        let after = if after.is_empty() { String::new() } else { format!(" after {}", listed(after)) };
        let need = self.need_kib.div_ceil(MIB);
        Some(format!("needs {need} MiB of Xen's memory, {} MiB are left{after}", left_kib / MIB))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = clean(&self.name, 64);
        write!(f, "{name}: {} {} MiB", self.kind, self.memory_mib)?;
        if let Some(maxmem) = self.maxmem_mib {
            // What is not there at the start is not reserved either.
            write!(f, " (may grow to {maxmem} MiB, for which nothing is kept free)")?;
        }
        match (&self.verdict, self.refusal()) {
            (Verdict::Running, _) => f.write_str(", runs"),
            (_, Some(refusal)) => write!(f, ", does not fit: {refusal}"),
            (_, None) => write!(f, ", fits with {} MiB", self.need_kib / MIB),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Host { xen, dom0_mib, balloons } = &self.host;
        write!(f, "memory: {} MiB, free in Xen {} MiB", xen.total_mib, xen.free_mib)?;
        if let Some(dom0) = dom0_mib {
            write!(f, ", dom0 {dom0} MiB")?;
        }
        for guest in &self.guests {
            write!(f, "\n{guest}")?;
        }
        let wanted = self.wanted_kib.div_ceil(MIB);
        write!(f, "\nall guests that are to start need {wanted} MiB; {} MiB stay free", self.left_kib / MIB)?;
        let short = self.guests.iter().any(|guest| matches!(guest.verdict, Verdict::Short { .. }));
        if short && *balloons {
            f.write_str("\ntry: dom0_mem=SIZE,max:SIZE on Xen's command line (dom0 has all of the memory that Xen did not keep), or less memory in a guest's file; or xl create by hand, which takes memory from dom0")?;
        } else if short {
            f.write_str(
                "\ntry: less memory in a guest's file, a smaller dom0_mem on Xen's command line, or another order",
            )?;
        }
        Ok(())
    }
}

/// The names, or the first of them and how many more there are.
fn listed(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(5).map(|name| clean(name, 64)).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
