//! The record of a boot: the same facts as on the console, as JSON in [`crate::layout::BOOT_RECORD`].

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The whole record. Times are microseconds since the kernel started (`CLOCK_BOOTTIME`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BootRecord {
    /// Format of the record; 1.
    pub format: u32,
    /// Build id of the initramfs, which is the medium's too.
    pub build_id: String,
    /// SINO's version.
    pub version: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// The kernel command line.
    pub command_line: String,
    /// Flags that could not be used, drivers that would not load, and the like.
    pub warnings: Vec<String>,
    /// Where the root image came from.
    pub medium: Option<Medium>,
    /// The steps of each stage so far, in order.
    pub steps: Vec<StepRecord>,
}

/// The medium that the host was booted from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Medium {
    /// Kernel name of the block device, for example `sdb`.
    pub device: String,
    /// Bus and model for people, for example `usb 1-2 "SanDisk Ultra"`.
    pub description: String,
    /// Build id that the medium carries.
    pub build_id: String,
    /// Whether the root image lies in RAM and the medium may be removed.
    pub in_ram: bool,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did what it is for.
    Done,
    /// It had nothing to do.
    NotRequested,
    /// It failed; `detail` holds the cause.
    Failed,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// `stage-one` or `stage-two`.
    pub stage: String,
    /// The step's name, for example `find-medium`.
    pub step: String,
    /// When it began, in microseconds since the kernel started.
    pub start_us: u64,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What it found or why it failed.
    pub detail: String,
}

impl BootRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// The file cannot be read, or is not such JSON.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a boot record", path.display()))
    }

    /// Writes the record, whole or not at all (a new file that is renamed over the old one).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("writing the boot record as JSON")?;
        text.push('\n');
        let new = path.with_extension("json.new");
        std::fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
        std::fs::rename(&new, path).with_context(|| format!("renaming {} to {}", new.display(), path.display()))
    }
}

/// Microseconds since the kernel started.
#[must_use]
pub fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let micros = u64::try_from(now.tv_nsec / 1000).unwrap_or_default();
    seconds.saturating_mul(1_000_000).saturating_add(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_older_records_with_fewer_fields_too() {
        let record = BootRecord {
            format: 1,
            steps: vec![StepRecord {
                stage: "stage-one".into(),
                step: "find-medium".into(),
                start_us: 5,
                duration_us: 7,
                outcome: Outcome::NotRequested,
                detail: String::new(),
            }],
            ..BootRecord::default()
        };
        let path = std::env::temp_dir().join(format!("sino-record-{}.json", std::process::id()));
        record.save(&path).unwrap();
        assert_eq!(BootRecord::load(&path).unwrap(), record);
        std::fs::write(&path, "{\"format\": 1}").unwrap();
        assert_eq!(BootRecord::load(&path).unwrap().steps, []);
        std::fs::write(&path, "{").unwrap();
        assert!(format!("{:#}", BootRecord::load(&path).unwrap_err()).contains("line 1"));
        std::fs::remove_file(&path).unwrap();
    }
}
