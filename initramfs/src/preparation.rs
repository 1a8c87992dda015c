//! The first two steps: the flags of this boot, and what this initramfs was built with.
//!
//! Reads `/proc/cmdline`, the manifest and the module table; decides nothing but whether they belong to the running
//! kernel.

use anyhow::{Context, anyhow};
use sino_boot::layout;
use sino_boot::manifest::Manifest;
use sino_boot::modules::ModuleTable;
use sino_boot::options::{self, Options};
use sino_boot::record::BootRecord;
use sino_boot::stage::{Done, Fault, done};
use std::fs;

/// What this initramfs was built with.
#[derive(Clone, Debug)]
pub struct Build {
    /// The manifest that the image builder wrote.
    pub manifest: Manifest,
    /// The kernel modules that lie in this initramfs.
    pub modules: ModuleTable,
}

/// Reads the flags from the kernel's command line; those that cannot be used become warnings.
///
/// # Errors
/// `/proc/cmdline` cannot be read.
pub fn read_flags(record: &mut BootRecord) -> Result<Done<Options>, Fault> {
    let line = fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    line.trim_end().clone_into(&mut record.command_line);
    let (options, mut warnings) = options::parse(&line);
    warnings.extend(options.unknown_breaks(&crate::STEPS));
    let given = line.split_whitespace().filter(|word| options::is_ours(word)).collect::<Vec<_>>();
    let detail = if given.is_empty() { "no flags of ours".to_owned() } else { given.join(" ") };
    for warning in &warnings {
        log::warn!("{warning}");
    }
    record.warnings.extend(warnings);
    Ok(done(options, detail))
}

/// Reads the manifest and the module table, and checks that both belong to the running kernel.
///
/// # Errors
/// One of them is missing or damaged, or was made for another kernel.
pub fn read_manifest(record: &mut BootRecord) -> Result<Done<Build>, Fault> {
    let build = read_build().map_err(|cause| {
        Fault::from(cause)
            .hint("the initramfs is damaged or half written: write the stick again and compare SHA256SUMS")
    })?;
    let manifest = &build.manifest;
    record.format = 1;
    manifest.build_id.clone_into(&mut record.build_id);
    manifest.version.clone_into(&mut record.version);
    let running = rustix::system::uname().release().to_string_lossy().into_owned();
    record.kernel_release.clone_from(&running);
    for (what, release) in [("manifest", &manifest.kernel_release), ("module table", &build.modules.kernel_release)] {
        if *release != running {
            return Err(Fault::from(anyhow!(
                "the {what} of this initramfs is for kernel {release}, but kernel {running} is running"
            ))
            .seen(format!("build {}, version {}", manifest.build_id, manifest.version))
            .hint("the loader's menu names a kernel and an initramfs of two builds: take both from one medium")
            .hint("or write the stick again with one ISO"));
        }
    }
    let detail = format!("build {}, version {}, kernel {running}", manifest.build_id, manifest.version);
    Ok(done(build, detail))
}

fn read_build() -> anyhow::Result<Build> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
    let manifest = Manifest::parse(&read(layout::MANIFEST)?).with_context(|| format!("in {}", layout::MANIFEST))?;
    Ok(Build { manifest, modules: read_modules()? })
}

/// Reads the table of this initramfs's kernel modules.
///
/// # Errors
/// It is missing or damaged.
pub fn read_modules() -> anyhow::Result<ModuleTable> {
    let text = fs::read_to_string(layout::MODULE_TABLE).with_context(|| format!("reading {}", layout::MODULE_TABLE))?;
    ModuleTable::parse(&text).with_context(|| format!("in {}", layout::MODULE_TABLE))
}
