//! The record of a boot: the same facts as on the console, as JSON in [`crate::layout::BOOT_RECORD`].

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};
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
    /// Whether the root image lies in RAM.
    pub in_ram: bool,
    /// Whether the medium may be removed: nothing of it is mounted or open.
    pub may_be_removed: bool,
    /// What makes sure that the root image's bytes are those that were built.
    pub verified: Verified,
    /// How a copy in the background goes; `None` when there is none.
    pub copy: Option<Copy>,
    /// Other devices that carry the same build; they are not used.
    pub also: Vec<String>,
    /// What went wrong with the medium after the boot: it was pulled too early, or its bytes are damaged.
    pub trouble: Option<String>,
}

/// What makes sure that the root image's bytes are those that were built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verified {
    /// Nothing: `sino.verify=off`.
    #[default]
    No,
    /// Every block is checked when it is read.
    DmVerity,
    /// All of it was checked when it was copied to RAM.
    Blake3,
}

/// A copy to RAM in the background.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Copy {
    /// Bytes that are copied and verified.
    pub done: u64,
    /// Bytes of the root image.
    pub total: u64,
    /// Whether it ended without success.
    pub failed: bool,
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

    /// Changes the record on the disk: reads it, lets `change` have it, writes it, and lets no other program do so
    /// meanwhile. A record that is not there begins empty.
    ///
    /// # Errors
    /// The file cannot be locked, read or written.
    pub fn update(path: &Path, change: impl FnOnce(&mut Self)) -> Result<Self> {
        let lock = path.with_extension("lock");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::open(&lock, flags, Mode::RUSR | Mode::WUSR)
            .with_context(|| format!("opening {}", lock.display()))?;
        // The lock goes with the file descriptor.
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("locking {}", lock.display()))?;
        let mut record = if path.exists() { Self::load(path)? } else { Self::default() };
        change(&mut record);
        record.save(path)?;
        Ok(record)
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
        let updated = BootRecord::update(&path, |record| record.warnings.push("w".into())).unwrap();
        assert_eq!(BootRecord::load(&path).unwrap(), updated);
        std::fs::remove_file(path.with_extension("lock")).unwrap();
        std::fs::write(&path, "{").unwrap();
        assert!(format!("{:#}", BootRecord::load(&path).unwrap_err()).contains("line 1"));
        std::fs::remove_file(&path).unwrap();
    }
}
