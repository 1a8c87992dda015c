//! The demo's disk: guests that a host starts by itself, in a cache, so that it is made once for an ISO.
//!
//! Making it needs root, using it does not: the machine only reads it ([`Drive::new`](crate::qemu::Drive::new)).

use crate::cache::{Cache, Key, create_folder, remove};
use crate::guests::show::{self, four};
use crate::guests::{Content, prepare_disk};
use crate::progress::Progress;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Raised when the way the disk is made changes.
const FORMAT: u32 = 1;
/// Its folder in the cache.
const KIND: &str = "demo-disks";
/// Its name in there.
const NAME: &str = "disk.img";
/// The network that QEMU's own DHCP server gives addresses of.
const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 0);
/// Size of the disk and of `/srv` on it, in MiB. The file is sparse.
const DISK_MIB: u64 = 1024;
const SRV_MIB: u64 = 256;

/// What the host is told of the guests. One at a time: the machine has one CPU, which is mostly emulated, and Xen's tools end a
/// script that attaches a disk after 40 s (`LIBXL_HOTPLUG_TIMEOUT` in `tools/libs/light/libxl_internal.h`).
fn configuration() -> String {
    format!("[guests]\nparallel = 1\n\n{}", show::configuration(NETWORK))
}

/// The names of the guests on it.
#[must_use]
pub fn names() -> Vec<String> {
    four(NETWORK).into_iter().map(|guest| guest.orders.name).collect()
}

/// What the disk is made of.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The finished ISO: the guests' kernel is its own.
    pub iso: &'a Path,
    /// The static program `sino-guest`.
    pub payload: &'a Path,
    /// Where the disk is kept.
    pub cache: &'a Cache,
}

impl Source<'_> {
    fn key(&self) -> Result<Key> {
        for (file, command) in [(self.iso, "make iso"), (self.payload, "make programs")] {
            ensure!(file.is_file(), "{} is not there; build it: {command}", file.display());
        }
        let guests: String = four(NETWORK).iter().map(crate::guests::Guest::config).collect();
        let sizes = format!("{DISK_MIB} {SRV_MIB}");
        let key = Key::new(KIND, FORMAT).with("configuration", configuration()).with("guests", guests);
        key.with("sizes", sizes).with_file("iso", self.iso)?.with_file("payload", self.payload)
    }

    /// The disk, if it has been made.
    ///
    /// # Errors
    /// What it is made of is not there, or cannot be read.
    pub fn made(&self) -> Result<Option<PathBuf>> {
        Ok(Some(self.cache.path(KIND, &self.key()?).join(NAME)).filter(|disk| disk.is_file()))
    }

    /// The disk, made if it is not there. Those of other ISOs are removed.
    ///
    /// # Errors
    /// What it is made of is not there; or it has to be made, and the user is not root or a tool fails.
    pub fn get(&self, progress: &Progress) -> Result<PathBuf> {
        let key = self.key()?;
        let folder =
            self.cache.get(KIND, &key, false, |folder| progress.step("a disk with guests", || self.make(folder)))?;
        self.forget_others(&folder)?;
        Ok(folder.join(NAME))
    }

    fn make(&self, folder: &Path) -> Result<()> {
        create_folder(folder)?;
        let content = Content {
            iso: self.iso,
            payload: self.payload,
            guests: &four(NETWORK),
            configuration: &configuration(),
            files: &[],
            volumes: &[],
            srv_mib: SRV_MIB,
        };
        let disk = folder.join(NAME);
        prepare_disk(&disk, DISK_MIB, &content)?;
        // Whoever runs the demo need not be who has made the disk.
        for (path, mode) in [(folder, 0o755), (&disk, 0o644)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
                .with_context(|| format!("making {} readable", path.display()))?;
        }
        Ok(())
    }

    fn forget_others(&self, ours: &Path) -> Result<()> {
        let parent = self.cache.folder().join(KIND);
        for entry in fs::read_dir(&parent).with_context(|| format!("reading the folder {}", parent.display()))? {
            let path = entry.with_context(|| format!("reading the folder {}", parent.display()))?.path();
            // A name with an extension is a lock, or something that another build makes now.
            if path != ours && path.extension().is_none() && path.is_dir() {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_command_that_builds_it() {
        let place = tempfile::tempdir().unwrap();
        let (iso, payload) = (place.path().join("x.iso"), place.path().join("sino-guest"));
        let cache = Cache::new(place.path().join("cache"));
        let source = Source { iso: &iso, payload: &payload, cache: &cache };
        assert!(source.made().unwrap_err().to_string().contains("x.iso is not there; build it: make iso"));
        fs::write(&iso, "iso").unwrap();
        assert!(source.made().unwrap_err().to_string().contains("make programs"));
        fs::write(&payload, "program").unwrap();
        assert_eq!(source.made().unwrap(), None);
    }

    #[test]
    fn the_configuration_is_one_and_has_every_guest() {
        let table: toml::Table = configuration().parse().unwrap();
        assert_eq!(table["guests"]["parallel"].as_integer(), Some(1));
        assert!(names().iter().all(|name| table["guest"].get(name).is_some()));
    }

    #[test]
    fn a_disk_is_found_as_long_as_nothing_that_it_is_made_of_has_changed() {
        let place = tempfile::tempdir().unwrap();
        let (iso, payload) = (place.path().join("x.iso"), place.path().join("sino-guest"));
        fs::write(&iso, "iso").unwrap();
        fs::write(&payload, "program").unwrap();
        let cache = Cache::new(place.path().join("cache"));
        let source = Source { iso: &iso, payload: &payload, cache: &cache };
        let put = || {
            let folder = cache.path(KIND, &source.key().unwrap());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(NAME), "disk").unwrap();
        };
        put();
        let first = source.made().unwrap().unwrap();
        assert_eq!(source.get(&Progress::silent()).unwrap(), first);
        fs::write(&iso, "another").unwrap();
        assert_eq!(source.made().unwrap(), None);
        put();
        let second = source.get(&Progress::silent()).unwrap();
        assert!(second.is_file() && !first.exists());
    }
}
