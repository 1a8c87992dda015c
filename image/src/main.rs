//! The command `sino-image`: builds the SINO live image.

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use sino_image::build::{self, BuildPlan, Built, Faults, Root};
use sino_image::cache::Cache;
use sino_image::config::{self, Config};
use sino_image::demo::disk::Source;
use sino_image::demo::{self, Demo};
use sino_image::initramfs::Effort;
use sino_image::progress::Progress;
use sino_image::workspace::Workspace;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Builds the SINO live image and runs it.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build the ISO.
    Build(BuildArguments),
    /// Boot the finished ISO in QEMU, with a disk from which the host starts guests.
    #[command(visible_alias = "boot")]
    Demo(DemoArguments),
    /// Make that disk, which needs root; it is kept in the cache.
    DemoDisk {
        /// The ISO; target/sino/sino.iso of the workspace by default.
        #[arg(value_name = "ISO")]
        iso: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct DemoArguments {
    /// The ISO; target/sino/sino.iso of the workspace by default.
    #[arg(value_name = "ISO")]
    iso: Option<PathBuf>,
    /// Until the guests are ready and then off, without a terminal; prints the time of each stage.
    #[arg(long)]
    headless: bool,
    /// With UEFI firmware instead of a BIOS.
    #[arg(long)]
    uefi: bool,
    /// Without that disk: an empty host.
    #[arg(long)]
    without_guests: bool,
}

#[derive(Debug, Args)]
struct BuildArguments {
    /// Configuration file; without it, every key has its default (image/sino.toml shows them).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the results, instead of the configuration's output.directory.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Cache of root trees, packages and images; target/cache of the workspace by default.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Folder of the static programs; target/x86_64-unknown-linux-gnu/release of the workspace by default.
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Make the root image anew even when it is cached.
    #[arg(long)]
    fresh: bool,
    /// One plain line for each step, for logs.
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Action::Build(arguments) => build_image(&arguments),
        Action::Demo(arguments) => boot_image(&arguments),
        Action::DemoDisk { iso } => make_disk(iso.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sino-image: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build_image(arguments: &BuildArguments) -> Result<()> {
    let current = std::env::current_dir().context("asking for the current folder")?;
    let workspace = Workspace::around(&current);
    let mut config = arguments.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
    let mut output = workspace.resolve(&config.output.directory);
    if let Some(given) = &arguments.output {
        output = current.join(given);
        // A name that ends in .iso is the file itself.
        if output.extension().is_some_and(|extension| extension == "iso") {
            config.output.iso = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
            output.pop();
        }
    }
    let plan = BuildPlan {
        root: Root::Debian,
        output,
        cache: Cache::new(arguments.cache.clone().unwrap_or_else(|| workspace.cache())),
        binaries: arguments.binaries.clone().unwrap_or_else(|| workspace.binaries()),
        effort: Effort::Smallest,
        epoch: config::source_date_epoch(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref())?,
        fresh: arguments.fresh,
        faults: Faults::default(),
    };
    let progress = Progress::new(arguments.quiet);
    let built = build::build(&config, &plan, &progress)?;
    summarise(&built, &progress);
    Ok(())
}

fn boot_image(arguments: &DemoArguments) -> Result<()> {
    let workspace = workspace()?;
    let iso = iso(&workspace, arguments.iso.as_deref());
    let demo = Demo { headless: arguments.headless, uefi: arguments.uefi };
    let progress = Progress::new(false);
    let disk = if arguments.without_guests { None } else { Some(disk(&workspace, &iso, false, &progress)?) };
    demo::run(demo, &iso, disk.as_deref(), &workspace.resolve(Path::new("target/qemu/demo")), &progress)
}

fn make_disk(given: Option<&Path>) -> Result<()> {
    let workspace = workspace()?;
    disk(&workspace, &iso(&workspace, given), true, &Progress::new(false)).map(drop)
}

/// The demo's disk: made if it is asked for or the user is root, else it must be there.
fn disk(workspace: &Workspace, iso: &Path, make: bool, progress: &Progress) -> Result<PathBuf> {
    let (payload, cache) = (workspace.binaries().join("sino-guest"), Cache::new(workspace.cache()));
    let source = Source { iso, payload: &payload, cache: &cache };
    if make || rustix::process::geteuid().is_root() {
        return source.get(progress);
    }
    source.made()?.with_context(|| {
        let program = std::env::current_exe().unwrap_or_else(|_| "sino-image".into());
        let (program, iso) = (program.display(), iso.display());
        format!("there is no disk with guests for {iso} yet; make it: sudo {program} demo-disk {iso}; or use --without-guests")
    })
}

fn workspace() -> Result<Workspace> {
    Ok(Workspace::around(&std::env::current_dir().context("asking for the current folder")?))
}

fn iso(workspace: &Workspace, given: Option<&Path>) -> PathBuf {
    let output = config::Output::default();
    given.map_or_else(|| workspace.resolve(&output.directory).join(&output.iso), Path::to_owned)
}

fn summarise(built: &Built, progress: &Progress) {
    let seconds: f64 = built.seconds.iter().map(|(_, seconds)| seconds).sum();
    progress.say(&format!(
        "{} is ready: build {}, {} MB (root image {} MB), {seconds:.0} s",
        built.iso.display(),
        built.build_id,
        built.iso_bytes / 1_000_000,
        built.root_bytes / 1_000_000
    ));
    progress.say(&format!("write a stick with: dd if={} of=/dev/sdX bs=1M", built.iso.display()));
}
