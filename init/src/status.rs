//! `sino status`: the host on one screen.

use crate::command::{guests, network};
use crate::config::origins::clean;
use crate::identity::access;
use crate::network::state as network_state;
use crate::overlay_use::OverlayUse;
use crate::storage::Host;
use crate::storage::srv_command::Now;
use crate::storage::state::StorageState;
use crate::supervisor::guests_lane::GuestsState;
use crate::supervisor::{login_text, running_guests};
use anyhow::{Context, Result};
use sino_boot::record::{BootRecord, Outcome};
use sino_boot::{issue, layout};
use std::fmt::Write as _;
use std::path::Path;

/// Prints it.
///
/// # Errors
/// There is no record of this boot.
pub fn run(json: bool) -> Result<()> {
    let record = BootRecord::load(Path::new(layout::BOOT_RECORD))?;
    let overlay = OverlayUse::now();
    let network = network_state::read(Path::new(layout::NETWORK_STATE)).ok().flatten();
    let storage = StorageState::load(Host::this()).unwrap_or_default();
    let guests = guests::state().unwrap_or_default();
    let access = access::look(Path::new("/"));
    if json {
        let mut value = serde_json::to_value(&record).context("writing JSON")?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("overlay".to_owned(), serde_json::json!(overlay.ok()));
            fields.insert("network".to_owned(), serde_json::json!(network));
            fields.insert("storage".to_owned(), serde_json::json!(storage));
            fields.insert("guests".to_owned(), serde_json::json!(guests));
            fields.insert("running_guests".to_owned(), serde_json::json!(running_guests::known()));
            fields.insert("memory".to_owned(), serde_json::json!(memory(&meminfo())));
            fields.insert("default_password".to_owned(), serde_json::json!(access.map(|it| it.default_password)));
        }
        println!("{}", serde_json::to_string_pretty(&value).context("writing JSON")?);
        return Ok(());
    }
    print!("{}", head(&record));
    println!("\nnetwork");
    match &network {
        Some(network) => indent(&network::render(network)),
        None => println!("  not known: the supervisor has not begun; systemctl status sino"),
    }
    println!("\nstorage");
    indent(&storage_text(&storage));
    println!("\nguests");
    indent(&guests_text(&guests));
    println!("\nmemory of this domain");
    let (total, available, swap) = memory(&meminfo());
    println!("  {} of {} MiB available, {} MiB of swap", available >> 10, total >> 10, swap >> 10);
    match overlay {
        Ok(overlay) => print!("{}", overlay.render()),
        Err(error) => println!("\nchanges to the root: not known: {error:#}"),
    }
    print!("{}", warnings(&record));
    if let Some(warning) = access.and_then(|access| access.warning()) {
        println!("\nwarning: {warning}");
    }
    println!("\nsteps of the boot, and how long each took: sino timeline");
    Ok(())
}

fn indent(text: &str) {
    for line in text.lines() {
        println!("  {line}");
    }
}

fn meminfo() -> String {
    std::fs::read_to_string("/proc/meminfo").unwrap_or_default()
}

/// KiB in all, available, and of swap. Source: proc(5), `/proc/meminfo`.
fn memory(text: &str) -> (u64, u64, u64) {
    let number = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
    };
    (number("MemTotal:"), number("MemAvailable:"), number("SwapTotal:"))
}

/// SINO's guests, and those that somebody else started.
fn guests_text(state: &GuestsState) -> String {
    let mut text = guests::text(state);
    let others: Vec<String> = running_guests::known()
        .unwrap_or_default()
        .into_iter()
        .filter(|name| !state.guests.iter().any(|guest| guest.name == *name))
        .map(|name| clean(&name, 64))
        .collect();
    if !others.is_empty() {
        let _ = writeln!(text, "not started by SINO: {}", others.join(", "));
    }
    text
}

fn storage_text(storage: &StorageState) -> String {
    if storage.group.name.is_empty() {
        return "not known yet: stage two still looks for the disks, or has failed to: sino log\n".to_owned();
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match &storage.group.uuid {
        Some(_) => {
            let active = storage.group.volumes.iter().filter(|volume| volume.active).count();
            writeln!(
                text,
                "{} on {}: {active} of {} volumes active, {} GiB free",
                storage.group.name,
                storage.group.disks.join(", "),
                storage.group.volumes.len(),
                storage.group.free >> 30
            )
        }
        None => writeln!(text, "no volume group {}", storage.group.name),
    };
    let _ = writeln!(text, "{}", login_text::storage_line(storage));
    if !storage.srv.note.is_empty() {
        let _ = writeln!(text, "{}", storage.srv.note);
    }
    if let Ok(now) = Now::look(Host::this())
        && now.mounted
    {
        let _ = writeln!(text, "{} of {} MiB used", now.used >> 20, now.size >> 20);
    }
    for swap in &storage.swaps {
        let _ = writeln!(text, "swap on {}", swap.device);
    }
    for problem in storage.problems() {
        let _ = writeln!(text, "warning: {problem}");
    }
    text
}

/// Which build runs, and from where.
#[must_use]
pub fn head(record: &BootRecord) -> String {
    let mut text = format!("SINO {}, build {}, kernel {}\n", record.version, record.build_id, record.kernel_release);
    // Writing to a String cannot fail.
    let _ = match &record.medium {
        Some(medium) => {
            let mut also = String::new();
            for twin in &medium.also {
                let _ = writeln!(also, "{twin} carries the same build and is not used");
            }
            write!(text, "{}\n{also}", issue::place(medium))
        }
        None => writeln!(text, "the medium is not known: stage one left no record"),
    };
    if let Some(failed) = record.steps.iter().find(|step| step.outcome == Outcome::Failed) {
        let _ = writeln!(text, "FAILED in this boot: {} {}: {}", failed.stage, failed.step, failed.detail);
    }
    text
}

/// The warnings of this boot.
#[must_use]
pub fn warnings(record: &BootRecord) -> String {
    let mut text = String::new();
    if !record.warnings.is_empty() {
        text.push_str("\nwarnings of this boot\n");
    }
    for warning in &record.warnings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {warning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sino_boot::record::{Medium, StepRecord};

    #[test]
    fn memory_is_read_from_the_kernels_table() {
        let text = "MemTotal:        1000 kB\nMemFree: 1 kB\nMemAvailable:     600 kB\nSwapTotal:           0 kB\n";
        assert_eq!(memory(text), (1000, 600, 0));
        assert_eq!(memory(""), (0, 0, 0));
    }

    #[test]
    fn what_an_administrator_asks_first_is_on_it() {
        let step = StepRecord {
            stage: "stage-one".into(),
            step: "find-medium".into(),
            start_us: 1_500_000,
            duration_us: 250_000,
            outcome: Outcome::Failed,
            detail: "usb 1-2 sdb".into(),
        };
        let medium =
            Medium { device: "sdb".into(), description: "usb 1-2".into(), may_be_removed: true, ..Medium::default() };
        let mut record =
            BootRecord { version: "0.1.0".into(), build_id: "b1".into(), steps: vec![step], ..BootRecord::default() };
        record.medium = Some(medium);
        record.warnings.push("flag sino.x is not known".into());
        let text = head(&record) + &warnings(&record);
        for part in
            ["SINO 0.1.0, build b1", "may be removed", "FAILED in this boot: stage-one find-medium", "flag sino.x"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        record.medium.as_mut().unwrap().may_be_removed = false;
        assert!(head(&record).contains("DO NOT REMOVE"));
    }
}
