//! To RAM in the machine: how fast each contender copies the root image from a stick, and what memory the copy costs.
//!
//! The speed is seen from outside, in how QEMU's counter of the medium's bytes grows between a tenth and nine tenths of the
//! image's length, so that nothing depends on what a contender says of itself. Of a slow stick ([`LIMIT`]) the copying's time
//! over the stick's own time is what counts; 1 is as fast as the stick. The counter is looked at so often that this is right to
//! about two percent, and a busy machine makes it worse. The memory is what is free after a boot from the medium, less what is
//! free after one to RAM, less the image.

use super::{Booted, Reading, Trial, boot, folder, prepare};
use crate::bench::contenders::Contender;
use crate::bench::rounds::interleaved;
use crate::bench::{Recorder, Settings, Unit};
use anyhow::{Context, Result};
use sino_image::qemu::Bus;
use std::fs;

/// The measure.
pub const NAME: &str = "to-ram";
/// What the slow stick delivers, in bytes a second.
const LIMIT: u64 = 40_000_000;
/// The cases; the short form has the first.
const CASES: [(&str, Option<u64>); 2] = [("USB 40 MB/s", Some(LIMIT)), ("USB", None)];

/// Measures it.
///
/// # Errors
/// What the contenders boot from cannot be made. A contender that does not boot is a note, and its turn is left out.
pub fn measure(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    let kit = prepare()?;
    super::note_versions(recorder, &kit)?;
    let image = fs::metadata(&kit.root)?.len();
    let cases = if settings.short { CASES.get(..1).unwrap_or_default() } else { &CASES };
    for &(case, limit) in cases.iter().filter(|(case, _)| settings.wants(case)) {
        interleaved(settings.rounds, &Contender::ALL, |&contender, round| {
            let folder = folder(settings, NAME, case, contender);
            let trial = Trial { limit, ..Trial::new(contender, Bus::UsbStick, true) };
            let result = boot(&kit, &trial, &folder).and_then(|booted| {
                // The memory is the same from every stick.
                let normal = Trial::new(contender, Bus::UsbStick, false);
                let free = limit.is_none().then(|| free_kib(boot(&kit, &normal, &folder)?)).transpose()?;
                record(recorder, case, contender, round, booted, limit, image, free)
            });
            match result {
                Ok(()) => Ok(()),
                Err(error) => recorder.note(&format!("{case}, {contender}, round {round}: left out: {error:#}")),
            }
        })?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the facts of one boot, written down once")]
fn record(
    recorder: &mut Recorder,
    case: &str,
    contender: Contender,
    round: u32,
    booted: Booted,
    limit: Option<u64>,
    image: u64,
    free_normally: Option<u64>,
) -> Result<()> {
    let name = contender.name();
    let speed = speed(&booted.readings, image).context("the medium was not read as a copy is made")?;
    recorder.record(case, name, "init-to-root", round, Unit::Seconds, booted.init_to_root())?;
    recorder.record(case, name, "copying", round, Unit::MegabytesPerSecond, speed / 1e6)?;
    if let Some(limit) = limit {
        recorder.record(case, name, "copying over the stick's time", round, Unit::Ratio, float(limit) / speed)?;
    }
    let read = booted.readings.last().map_or(0, |reading| reading.bytes);
    recorder.record(case, name, "read of the medium", round, Unit::Bytes, float(read))?;
    if let Some(free) = free_normally {
        let beyond = float(free) - float(free_kib(booted)?) - float(image / 1024);
        recorder.record(case, name, "memory beyond the image", round, Unit::Kibibytes, beyond)?;
    }
    Ok(())
}

fn free_kib(mut booted: Booted) -> Result<u64> {
    Ok(booted.memory()?.free_kib)
}

/// Bytes a second between a tenth and nine tenths of the image; `None`: that much was not read, or in no time.
fn speed(readings: &[Reading], image: u64) -> Option<f64> {
    let first = readings.iter().find(|reading| reading.bytes >= image / 10)?;
    let last = readings.iter().find(|reading| reading.bytes >= image / 10 * 9)?;
    let spent = last.at_s - first.at_s;
    (spent > 0.0).then(|| float(last.bytes - first.bytes) / spent)
}

#[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_that_of_the_middle() {
        let at = |at_s, bytes| Reading { at_s, bytes };
        let readings = [at(1.0, 0), at(2.0, 0), at(3.0, 100), at(4.0, 500), at(5.0, 900), at(9.0, 1000)];
        assert_eq!(speed(&readings, 1000), Some(400.0));
        assert_eq!(speed(&readings[..4], 1000), None);
        assert_eq!(speed(&[at(1.0, 5000)], 1000), None);
    }
}
