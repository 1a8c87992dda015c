//! What happened to a guest, on its disk: a line a sector, so that a line is there or not, whatever happens, and that it
//! can be read from outside without any file system.

use anyhow::{Context, Result, ensure};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a sector.
const SECTOR: usize = 512;

/// The record.
#[derive(Debug)]
pub struct Record {
    disk: File,
    /// Where it begins on the disk, in bytes.
    from: u64,
}

impl Record {
    /// The record on a guest's disk.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(disk: &Path) -> Result<Self> {
        let disk = OpenOptions::new().read(true).write(true).open(disk).with_context(|| disk.display().to_string())?;
        Ok(Self { disk, from: 0 })
    }

    /// The record of a guest whose disk is a part of the host's disk, which begins so many bytes after its beginning. To be
    /// read only.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn within(disk: &Path, from: u64) -> Result<Self> {
        let disk = File::open(disk).with_context(|| disk.display().to_string())?;
        Ok(Self { disk, from })
    }

    /// Adds a line, and waits until it is on the disk.
    ///
    /// # Errors
    /// The line is too long, or the disk is full or refuses.
    pub fn add(&self, line: &str) -> Result<()> {
        ensure!(line.len() < SECTOR, "{line:?} is too long");
        let at = self.lines()?.len() * SECTOR;
        let mut sector = line.as_bytes().to_vec();
        sector.resize(SECTOR, 0);
        self.disk.write_all_at(&sector, self.from + at as u64).context("writing the record")?;
        self.disk.sync_all().context("writing the record")
    }

    /// All its lines. It ends at the first sector that begins with a zero.
    ///
    /// # Errors
    /// The disk ends, or cannot be read.
    pub fn lines(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut sector = [0; SECTOR];
        loop {
            let at = self.from + (lines.len() * SECTOR) as u64;
            self.disk.read_exact_at(&mut sector, at).context("reading the record")?;
            let line = sector.split(|byte| *byte == 0).next().unwrap_or_default();
            if line.is_empty() {
                return Ok(lines);
            }
            lines.push(String::from_utf8_lossy(line).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_follow_one_another_and_are_read_from_outside() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let record = Record::open(file.path()).unwrap();
        assert!(record.lines().unwrap().is_empty());
        record.add("1.000 started").unwrap();
        Record::open(file.path()).unwrap().add("2.000 ready").unwrap();
        assert_eq!(record.lines().unwrap(), ["1.000 started", "2.000 ready"]);
        assert_eq!(Record::within(file.path(), 512).unwrap().lines().unwrap(), ["2.000 ready"]);
        assert!(record.add(&"x".repeat(512)).is_err());
    }
}
