//! The initramfs files: archives behind one another, as the kernel accepts them.
//!
//! 1. CPU microcode, uncompressed, when installed (see [`crate::microcode`]).
//! 2. The kernel modules as one zstd: those that most machines need as unpacked `.ko` files, the others as a squashfs that stage
//!    one mounts when a device asks for one of them (`docs/decisions/0020`). The same for every image of one kernel, so it is cached.
//! 3. Stage one itself, its manifest and table, and the rescue shell's busybox: small, made for each image.
//! 4. Only in the initramfs for ISO files: the drivers of file systems that nothing but an ISO file boots from, as one zstd of
//!    unpacked `.ko` files (`docs/decisions/0023`).
//!
//! The second and the third together must not exceed [`LIMIT`].

use crate::cache::{Cache, Key, create_folder, remove};
use crate::closure::{self, CARRIER, Closure, DepmodTexts, SELDOM};
use crate::cpio::{Archive, Kind};
use crate::{command, microcode, module_set, squashfs};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sino_boot::layout;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the zstd parts of the initramfs may have together: a slow stick reads them before anything is on the screen. With AMD's
/// microcode in front it is below 6 MB. Not for what only the initramfs for ISO files has.
pub const LIMIT: u64 = 5_850_000;
/// Raised when the way segments are made changes.
const FORMAT: u32 = 3;

/// How hard to compress the modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// As small as it gets (about half a minute, cached).
    Smallest,
    /// Quick to make and not held to [`LIMIT`], for tests that make modules anew.
    Quick,
}

impl Effort {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Smallest => &["--ultra", "-22"],
            Self::Quick => &["-3"],
        }
    }
}

/// Where the parts come from.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// The Debian root tree: microcode, busybox.
    pub tree: &'a Path,
    /// The tree's folder of modules.
    pub modules: &'a Path,
    /// `uname -r` of the modules.
    pub kernel_release: &'a str,
    /// Stage one's program.
    pub stage_one: &'a Path,
    /// Whether the microcode goes in front.
    pub microcode: bool,
    /// The time of everything in the archives.
    pub epoch: u64,
}

/// The parts that do not depend on the build id.
#[derive(Clone, Debug)]
pub struct Parts {
    microcode: Vec<u8>,
    modules: Vec<u8>,
    carrier_modules: Vec<u8>,
    closure: Closure,
    effort: Effort,
}

/// Bytes of each part, for people.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sizes {
    /// The microcode archive (not compressed).
    pub microcode: u64,
    /// The modules (zstd).
    pub modules: u64,
    /// Those that only the initramfs for ISO files has (zstd).
    pub carrier_modules: u64,
    /// Stage one, manifest, table and busybox (zstd).
    pub stage_one: u64,
    /// How many modules there are.
    pub module_count: usize,
    /// The largest modules with their bytes as packaged.
    pub largest: Vec<(String, u64)>,
}

impl Parts {
    /// Chooses and packs the modules and the microcode.
    ///
    /// # Errors
    /// A file that cannot be read, or a tool that fails.
    pub fn make(sources: &Sources<'_>, effort: Effort, cache: &Cache, fresh: bool) -> Result<Self> {
        let closure = closure::resolve(
            sources.kernel_release,
            &depmod_texts(sources.modules)?,
            module_set::is_wanted,
            module_set::is_at_hand,
            module_set::is_for_carriers,
        )
        .context("choosing the initramfs's modules")?;
        let mut key = Key::new("modules", FORMAT)
            .with("effort", effort.options().join(" "))
            .with("epoch", sources.epoch.to_le_bytes())
            .with("table", closure.table.to_text());
        for (name, path) in &closure.sources {
            key = key.with_file(name, &sources.modules.join(path))?;
        }
        let segment = |key: &Key, make: &dyn Fn(&Path) -> Result<Archive>| -> Result<Vec<u8>> {
            let packed = cache.get("segments", key, fresh, |path| {
                compress(&make(path)?.to_bytes(sources.epoch)?, effort.options(), path)
            })?;
            fs::read(&packed).with_context(|| format!("reading {}", packed.display()))
        };
        let carrier_key = key.clone().with("for", "carriers");
        let modules = segment(&key, &|path| modules_archive(&closure, sources, &path.with_extension("seldom")))?;
        let carrier_modules = segment(&carrier_key, &|_| carrier_archive(&closure, sources))?;
        let microcode = if sources.microcode {
            microcode::archive(sources.tree, sources.epoch)?.unwrap_or_default()
        } else {
            Vec::new()
        };
        Ok(Self { microcode, modules, carrier_modules, closure, effort })
    }

    /// What the parts contribute to a build id.
    #[must_use]
    pub fn key(&self, key: Key) -> Key {
        key.with("microcode", &self.microcode)
            .with("modules", &self.modules)
            .with("carrier modules", &self.carrier_modules)
            .with("table", self.closure.table.to_text())
    }

    /// The whole initramfs with this manifest, written to `path`, and the one for ISO files to `iso_file`.
    ///
    /// # Errors
    /// Over the limit, or a file or tool fails.
    pub fn write(&self, sources: &Sources<'_>, manifest: &str, path: &Path, iso_file: &Path) -> Result<Sizes> {
        let small = path.with_extension("stage-one");
        let archive = self.stage_one_archive(sources, manifest)?;
        compress(&archive.to_bytes(sources.epoch)?, &["-19"], &small)?;
        let stage_one = fs::read(&small).with_context(|| format!("reading {}", small.display()))?;
        fs::remove_file(&small).with_context(|| format!("removing {}", small.display()))?;
        let sizes = Sizes {
            microcode: self.microcode.len() as u64,
            modules: self.modules.len() as u64,
            carrier_modules: self.carrier_modules.len() as u64,
            stage_one: stage_one.len() as u64,
            module_count: self.closure.sources.len(),
            largest: largest(&self.closure, sources.modules),
        };
        // What is compressed in haste is for tests only.
        if self.effort == Effort::Smallest {
            check_limit(&sizes)?;
        }
        let write = |path: &Path, parts: &[&[u8]]| {
            fs::write(path, parts.concat()).with_context(|| format!("writing {}", path.display()))
        };
        let parts = [self.microcode.as_slice(), &self.modules, &stage_one];
        write(path, &parts)?;
        write(iso_file, &[&parts[..], &[self.carrier_modules.as_slice()]].concat())?;
        Ok(sizes)
    }

    fn stage_one_archive(&self, sources: &Sources<'_>, manifest: &str) -> Result<Archive> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
        let mut archive = Archive::new();
        for folder in ["dev", "proc", "run", "sys", inner(layout::NEW_ROOT)] {
            archive.folder(folder)?;
        }
        // The kernel opens /dev/console for init before init can mount a /dev.
        archive.add("dev/console", 0o600, Kind::Device(5, 1))?;
        archive.add("dev/null", 0o666, Kind::Device(1, 3))?;
        archive.file("init", 0o755, read(sources.stage_one)?)?;
        archive.file(inner(layout::MANIFEST), 0o644, manifest)?;
        archive.file(inner(layout::MODULE_TABLE), 0o644, self.closure.table.to_text())?;
        let busybox = sources.tree.join("usr/bin/busybox");
        let busybox = if busybox.exists() { busybox } else { sources.tree.join("bin/busybox") };
        archive.file(inner(layout::BUSYBOX), 0o755, read(&busybox)?)?;
        Ok(archive)
    }
}

impl Sizes {
    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let names: Vec<String> =
            self.largest.iter().map(|(name, bytes)| format!("{name} {} kB", bytes / 1000)).collect();
        format!(
            "initramfs: {} kB zstd ({} modules {} kB, stage one {} kB) of {} kB, microcode {} kB in front; for ISO files {} kB more; largest as packaged: {}",
            (self.modules + self.stage_one) / 1000,
            self.module_count,
            self.modules / 1000,
            self.stage_one / 1000,
            LIMIT / 1000,
            self.microcode / 1000,
            self.carrier_modules / 1000,
            names.join(", ")
        )
    }
}

fn check_limit(sizes: &Sizes) -> Result<()> {
    let total = sizes.modules + sizes.stage_one;
    ensure!(
        total <= LIMIT,
        "the initramfs has {total} bytes, more than the {LIMIT} that are allowed\n  {}\n  \
         leave modules out in image/src/module_set.rs",
        sizes.line()
    );
    Ok(())
}

/// A path inside the initramfs, as cpio wants it.
fn inner(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn depmod_texts(folder: &Path) -> Result<DepmodTexts> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    Ok(DepmodTexts {
        dep: read("modules.dep")?,
        alias: read("modules.alias")?,
        softdep: read("modules.softdep")?,
        builtin: read("modules.builtin")?,
    })
}

fn modules_archive(closure: &Closure, sources: &Sources<'_>, work: &Path) -> Result<Archive> {
    let seldom = work.join("modules");
    create_folder(&seldom)?;
    let mut archive = Archive::new();
    for (name, module) in &closure.table.modules {
        let source = closure.sources.get(name).with_context(|| format!("module {name} has no file"))?;
        let bytes = unpacked(&sources.modules.join(source))?;
        if module.file.starts_with(CARRIER) {
            continue;
        }
        if let Some(file) = module.file.strip_prefix(SELDOM) {
            let path = seldom.join(file);
            fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        } else {
            archive.file(&format!("{}/{}", inner(layout::MODULES), module.file), 0o644, bytes)?;
        }
    }
    let packed = work.join("squashfs");
    squashfs::pack_smallest(&seldom, &packed, sources.epoch)?;
    let bytes = fs::read(&packed).with_context(|| format!("reading {}", packed.display()))?;
    archive.file(inner(layout::SELDOM_ARCHIVE), 0o644, bytes)?;
    remove(work)?;
    Ok(archive)
}

fn carrier_archive(closure: &Closure, sources: &Sources<'_>) -> Result<Archive> {
    let mut archive = Archive::new();
    for (name, module) in closure.table.modules.iter().filter(|(_, module)| module.file.starts_with(CARRIER)) {
        let source = closure.sources.get(name).with_context(|| format!("module {name} has no file"))?;
        let path = format!("{}/{}", inner(layout::MODULES), module.file);
        archive.file(&path, 0o644, unpacked(&sources.modules.join(source))?)?;
    }
    Ok(archive)
}

/// A module as the linker wrote and the distribution signed it.
pub(crate) fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("reading {}", path.display())),
    };
    command::run(Command::new(tool).args(["-d", "-c", "-q", "--"]).arg(path))
}

/// Compresses into a file. The whole input's size goes into the frame, so the kernel takes no more memory than that.
fn compress(bytes: &[u8], options: &[&str], path: &Path) -> Result<()> {
    let plain: PathBuf = path.with_extension("cpio");
    fs::write(&plain, bytes).with_context(|| format!("writing {}", plain.display()))?;
    let result =
        command::run(Command::new("zstd").args(["-q", "-f", "-T1"]).args(options).arg(&plain).arg("-o").arg(path));
    fs::remove_file(&plain).with_context(|| format!("removing {}", plain.display()))?;
    result.map(|_| ())
}

fn largest(closure: &Closure, folder: &Path) -> Vec<(String, u64)> {
    let mut sizes: Vec<(String, u64)> = closure
        .sources
        .iter()
        .filter_map(|(name, path)| Some((name.clone(), fs::metadata(folder.join(path)).ok()?.len())))
        .collect();
    sizes.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    sizes.truncate(8);
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_with_numbers() {
        let sizes = Sizes { modules: LIMIT, stage_one: 1, microcode: 99_000_000, ..Sizes::default() };
        let error = check_limit(&sizes).unwrap_err().to_string();
        assert!(error.contains("5850001 bytes") && error.contains("module_set"), "{error}");
        // The microcode does not count.
        assert!(check_limit(&Sizes { microcode: 99_000_000, ..Sizes::default() }).is_ok());
    }

    #[test]
    fn compressed_bytes_are_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        compress(b"some bytes", &["-19"], &one).unwrap();
        compress(b"some bytes", &["-19"], &other).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&other).unwrap());
        assert!(!folder.path().join("one.cpio").exists());
    }
}
