//! Every QEMU scenario as a test of its own, and the checks of the ISO itself.
//!
//! `cargo test -p sino-qemu-tests --test scenarios -- [FILTER] [--list]`. Two machines run side by side unless
//! `--test-threads` says otherwise. Scenarios of the long set run only with `SINO_TEST_LONG=1`; without it they are not
//! in the list at all, so nothing is counted that did not run. The figures go to `target/qemu/summary.json`.

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use sino_qemu_tests::images::{Images, target};
use sino_qemu_tests::runner::{self, Figures};
use sino_qemu_tests::scenario::{Image, Scenario};
use sino_qemu_tests::{hosts, iso_checks, list, tiny_root};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// Two machines with one CPU each use the two cores of a small build machine.
const MACHINES: usize = 2;
/// Asks for the long set too.
const LONG_VARIABLE: &str = "SINO_TEST_LONG";

type Summary = Arc<Mutex<Vec<Figures>>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(MACHINES);
    let images = Images::default();
    let summary = Summary::default();
    let wish = std::env::var(LONG_VARIABLE).unwrap_or_default();
    let wanted = |long: bool| match wish.as_str() {
        "only" => long,
        "1" => true,
        _ => !long,
    };
    // The longest first, so that both machines are busy until the end.
    let mut trials: Vec<Trial> = Vec::new();
    for trial in hosts::TRIALS.iter().filter(|trial| wanted(trial.long)) {
        let images = images.clone();
        trials.push(Trial::test(trial.name, move || failed(hosts::run(trial, &images))));
    }
    if wanted(false) {
        trials.extend(iso_trials(&images));
    }
    for scenario in list::scenarios().into_iter().filter(|scenario| wanted(scenario.long)) {
        let (images, summary) = (images.clone(), Arc::clone(&summary));
        trials.push(Trial::test(scenario.name.clone(), move || boot(&scenario, &images, &summary)));
    }
    if wanted(false) {
        let summary = Arc::clone(&summary);
        trials.push(Trial::test("memory-on-ram-overhead", move || failed(on_ram_overhead(&images, &summary))));
    }
    let listing = arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !listing && let Err(error) = write(&summary) {
        eprintln!("the summary could not be written: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn boot(scenario: &Scenario, images: &Images, summary: &Summary) -> Result<(), Failed> {
    let mut figures = Figures::default();
    let result = runner::run(scenario, images, &mut figures);
    println!(
        "  {}: stage one at {:.1} s, stage two at {:.1} s of the guest's clock, {:.1} s in all",
        figures.name, figures.stage_one_at_s, figures.stage_two_at_s, figures.wall_s
    );
    summary.lock().unwrap_or_else(PoisonError::into_inner).push(figures);
    failed(result)
}

fn failed(result: Result<()>) -> Result<(), Failed> {
    result.map_err(|error| Failed::from(format!("{error:#}")))
}

fn iso_trials(images: &Images) -> Vec<Trial> {
    let of = |image: Image| {
        let images = images.clone();
        move || {
            let paths = images.get(image)?;
            iso_checks::efi_partition_is_ordinary(&paths.iso, &target().join(format!("qemu/iso-efi-{image:?}")))
        }
    };
    let (tiny, real) = (of(Image::Tiny), of(Image::Real));
    let images = images.clone();
    vec![
        Trial::test("iso-same-inputs-same-bytes", move || failed(same_bytes(&images))),
        Trial::test("iso-efi-partition-is-ordinary", move || failed(tiny())),
        Trial::test("iso-efi-partition-of-the-real-image-is-ordinary", move || failed(real())),
    ]
}

/// On ram may take the image and at most so much more memory than the same boot from the medium.
const OVERHEAD_KIB: u64 = 24 << 10;

/// Boots a large image from the medium (with and without dm-verity) and in RAM, one after the other, and compares what memory
/// is left after all files were read. The figures of all three are in the summary.
fn on_ram_overhead(images: &Images, summary: &Summary) -> Result<()> {
    let image_kib = images.get(Image::Large)?.manifest.root.size / 1024;
    let mut all = Vec::new();
    for scenario in list::compared() {
        let mut figures = Figures::default();
        runner::run(&scenario, images, &mut figures)?;
        println!("  {}: {} KiB free, read in {} ms", figures.name, figures.free_kib, figures.read_all_ms);
        all.push(figures);
    }
    let free = |index: usize| all.get(index).map_or(0, |figures| figures.free_kib);
    let in_tmpfs = |index: usize| all.get(index).map_or(0, |figures| figures.tmpfs_kib);
    let taken = free(0).saturating_sub(free(2));
    let copied = in_tmpfs(2).saturating_sub(in_tmpfs(0));
    summary.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
    println!("  on ram takes {taken} KiB ({copied} KiB in a tmpfs), the image has {image_kib} KiB");
    anyhow::ensure!(
        taken <= image_kib + OVERHEAD_KIB,
        "on ram takes {taken} KiB of memory for an image of {image_kib} KiB: more than {OVERHEAD_KIB} KiB over it"
    );
    // Not by what is available: dm-verity's buffers, which only the boot from the medium has, make up for a part of the copy.
    anyhow::ensure!(
        copied >= image_kib,
        "on ram {copied} KiB more lie in a tmpfs, for an image of {image_kib} KiB: it is not in memory"
    );
    Ok(())
}

/// Builds the tiny image a second time in another folder.
fn same_bytes(images: &Images) -> Result<()> {
    let first = images.get(Image::Tiny)?;
    let second = tiny_root::build_into(Image::Tiny, &target().join("qemu/images/TinyAgain"))?;
    iso_checks::same_bytes(&first.initramfs, &second.initramfs)?;
    iso_checks::same_bytes(&first.iso, &second.iso)
}

fn write(summary: &Summary) -> Result<()> {
    let mut figures = summary.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if figures.is_empty() {
        return Ok(());
    }
    figures.sort_by(|one, other| one.name.cmp(&other.name));
    let file = target().join("qemu/summary.json");
    std::fs::write(&file, serde_json::to_string_pretty(&figures)? + "\n")
        .with_context(|| format!("writing {}", file.display()))
}
