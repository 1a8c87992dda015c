//! The command `sino-bench`: measures SINO beside other live systems. `make bench` runs it.

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use sino_qemu_tests::bench::check::{self, Bounds};
use sino_qemu_tests::bench::machine::Machine;
use sino_qemu_tests::bench::measures::{self, MEASURES, Measure};
use sino_qemu_tests::bench::sample::{Begin, Failure, Results};
use sino_qemu_tests::bench::{Recorder, Settings, guests, report, table, vm};
use std::path::Path;
use std::process::ExitCode;

/// Measures whose contenders can be chosen.
const WITH_CONTENDERS: [&str; 2] = [vm::stage_one::NAME, guests::NAME];

/// Measures SINO beside other live systems, on the same bytes in the same run.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Everything, measure after measure.
    All(Options),
    /// From the kernel to the root's init, from each medium, with and without a copy to RAM.
    StageOne(Options),
    /// What a boot loader must read, and how long a BIOS takes for it from a slow stick.
    Loader(Options),
    /// The root image copied into memory.
    ToRam(Options),
    /// From power-on to the guests, under Xen, and off again.
    Guests(Options),
    /// Many guests started with a fake xl.
    Scale(Options),
    /// Many guests stopped with a fake xl.
    Shutdown(Options),
    /// How long the image takes to build, and how large it is.
    Image(Options),
    /// dm-verity on and off.
    Trust(Options),
    /// Make docs/BENCHMARKS.md and its pictures from target/bench/*.json, and from docs/benchmarks what is not there.
    Report,
    /// Two rounds of stage one on USB; fails if SINO is too far from the floor.
    Check,
}

#[derive(Clone, Debug, Args)]
struct Options {
    /// How often each contender runs; 5 by default, 2 in the short form.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Fewer cases and smaller files.
    #[arg(long)]
    short: bool,
    /// Only cases with this text in their name, or with this name behind "="; the values of the others stay as they were.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Only contenders of stage-one or guests with one of these texts in their name, for example SINO,floor.
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    contenders: Vec<String>,
    /// Measure anew what is there of the same build; by default the bench goes on where it was ended.
    #[arg(long)]
    fresh: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sino-bench: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Action) -> Result<()> {
    let (name, options) = match command {
        Action::All(options) => return all(&options),
        Action::Report => {
            let settings = Settings::new(false);
            report::write(&settings.results(), &settings.workspace.join("docs"))?;
            println!("docs/BENCHMARKS.md is written");
            return Ok(());
        }
        Action::Check => return check(),
        Action::StageOne(options) => ("stage-one", options),
        Action::Loader(options) => ("loader", options),
        Action::ToRam(options) => ("to-ram", options),
        Action::Guests(options) => ("guests", options),
        Action::Scale(options) => ("scale", options),
        Action::Shutdown(options) => ("shutdown", options),
        Action::Image(options) => ("image", options),
        Action::Trust(options) => ("trust", options),
    };
    let measure = measures::find(name).with_context(|| format!("there is no measure {name}"))?;
    let settings = settings(&options);
    one(measure, &settings, &settings.results()).map(drop)
}

fn settings(options: &Options) -> Settings {
    let defaults = Settings::new(options.short);
    Settings {
        rounds: options.rounds.unwrap_or(defaults.rounds),
        only: options.only.clone(),
        contenders: options.contenders.clone(),
        fresh: options.fresh,
        ..defaults
    }
}

/// All measures; one that fails, in whole or in part, does not keep the others from being measured.
fn all(options: &Options) -> Result<()> {
    let settings = settings(options);
    println!("what is measured is kept at once: a bench that is ended (Ctrl-C) goes on with the same command");
    ensure!(
        settings.contenders.is_empty(),
        "--contenders is for one measure: {}; the others always run all of their contenders",
        WITH_CONTENDERS.join(" or ")
    );
    let meant = |measure: &&Measure| measure.case_names().iter().any(|case| settings.wants(case));
    let measures: Vec<&Measure> = MEASURES.iter().filter(meant).collect();
    ensure!(
        !measures.is_empty(),
        "no measure has a case that is meant by --only {}",
        options.only.as_deref().unwrap_or("")
    );
    let mut failed = Vec::new();
    for measure in measures {
        if let Err(error) = one(measure, &settings, &settings.results()) {
            eprintln!("sino-bench: {}: {error:#}", measure.name);
            failed.push(measure.name);
        }
    }
    ensure!(failed.is_empty(), "not measured to the end: {}", failed.join(", "));
    Ok(())
}

fn one(measure: &Measure, settings: &Settings, folder: &Path) -> Result<Results> {
    let cases = measure.case_names();
    ensure!(
        cases.iter().any(|case| settings.wants(case)),
        "no case of {} is meant by --only {:?}; there are: {}",
        measure.name,
        settings.only.as_deref().unwrap_or_default(),
        cases.join("; ")
    );
    ensure!(
        settings.contenders.is_empty() || WITH_CONTENDERS.contains(&measure.name),
        "--contenders is for {}; {} always runs all of its contenders",
        WITH_CONTENDERS.join(" and "),
        measure.name
    );
    println!("{}: {}", measure.title, measure.about);
    let machine = Machine::look(&settings.workspace);
    let what = build_id(&settings.image)?;
    let (short, only, fresh) = (settings.short, settings.only.as_deref(), settings.fresh);
    let mut recorder = Recorder::begin(folder, measure.name, machine, Begin { short, only, fresh, what: &what })?;
    for part in measure.parts {
        part(&mut recorder, settings).with_context(|| format!("measuring {}", measure.name))?;
    }
    ensure!(recorder.met(), "the short form of {} has none of these cases; leave --short away", measure.name);
    let results = recorder.finish()?;
    println!("\n{}", table::text(&results.samples));
    if let Some(noise) = report::noise(&results) {
        println!("noise: SINO again took {} times SINO's\n", table::times(noise));
    }
    let meant = |failure: &&Failure| settings.wants(&failure.case);
    let failed: Vec<String> = results.failed.iter().filter(meant).map(ToString::to_string).collect();
    ensure!(
        failed.is_empty(),
        "{} of the runs failed and are not in these figures:\n  {}\nthe others are kept; the same command again makes these rounds once more",
        failed.len(),
        failed.join("\n  ")
    );
    Ok(results)
}

/// The build that is measured, as the image's builder has named it.
fn build_id(image: &Path) -> Result<String> {
    let file = image.join("build.json");
    let text = std::fs::read(&file).with_context(|| format!("reading {}; make it: make iso", file.display()))?;
    let build: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))?;
    let id = build.get("build_id").and_then(|id| id.as_str());
    Ok(id.with_context(|| format!("{} names no build_id; make it anew: make iso", file.display()))?.to_owned())
}

fn check() -> Result<()> {
    let contenders = ["SINO", "floor", "live-boot"].map(str::to_owned).to_vec();
    let settings = Settings { only: Some(check::CASE.to_owned()), contenders, ..Settings::new(true) };
    let bounds = Bounds::read(&settings.workspace.join("qemu-tests/bench-bounds.toml"))?;
    let measure = measures::find("stage-one").context("there is no measure stage-one")?;
    // In a folder of its own: the results of a whole run stay.
    let folder = settings.results().join("check");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    println!("{}", bounds.check(&one(measure, &settings, &folder)?)?);
    Ok(())
}
