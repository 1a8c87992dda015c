//! To RAM in the machine: how fast each contender copies the root image from a stick, and what memory the copy costs.
//!
//! The speed is seen from outside, in how QEMU's counter of the medium's bytes grows between a tenth and nine tenths of the
//! image's length, so that nothing depends on what a contender says of itself. Of a slow stick the copying's time
//! over the stick's own time is what counts; 1 is as fast as the stick. The counter is looked at so often that this is right to
//! about two percent, and a busy machine makes it worse. The memory is what is free after a boot from the medium, less what is
//! free after one to RAM, less the image. Pages that the kernel keeps at hand for a processor count as free: after a large copy
//! that can be an eighth of the memory, and which contender's copy ends like that is chance.

use super::{Reading, Trial, boot, folder, prepare};
use crate::bench::contenders::{Contender, Kit};
use crate::bench::{Recorder, Settings, Unit};
use anyhow::{Context, Result};
use sino_image::qemu::Bus;
use std::fs;
use std::path::Path;

/// The measure.
pub const NAME: &str = "to-ram";
/// The cases, with what the stick delivers in bytes a second; the short form has the first. That is the stick of the loader's
/// measure; one emulated CPU that also hashes is slower than the second.
const CASES: [(&str, Option<u64>); 3] =
    [("USB 20 MB/s", Some(20_000_000)), ("USB 40 MB/s", Some(40_000_000)), ("USB", None)];

/// The names of the cases.
#[must_use]
pub fn cases() -> Vec<String> {
    CASES.into_iter().map(|(case, _)| case.to_owned()).collect()
}

/// Measures it.
///
/// # Errors
/// What the contenders boot from cannot be made. A boot that fails is told, and its turn is left out.
pub fn measure(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    let kit = prepare()?;
    super::note_versions(recorder, kit)?;
    let image = fs::metadata(&kit.root)?.len();
    let cases = if settings.short { CASES.get(..1).unwrap_or_default() } else { &CASES };
    for &(case, limit) in cases.iter().filter(|(case, _)| settings.wants(case)) {
        recorder.in_turns(case, settings.rounds, &Contender::ALL, |recorder, &contender, round| {
            let figures = match copied(kit, contender, limit, image, &folder(settings, NAME, case, contender)) {
                Ok(figures) => figures,
                Err(error) => return recorder.failed(case, contender.name(), round, &error),
            };
            let mut record = |figure, unit, value| recorder.record(case, contender.name(), figure, round, unit, value);
            record("init-to-root", Unit::Seconds, figures.init_to_root)?;
            record("copying", Unit::MegabytesPerSecond, figures.speed / 1e6)?;
            if let Some(limit) = limit {
                record("copying over the stick's time", Unit::Ratio, float(limit) / figures.speed)?;
            }
            record("read of the medium", Unit::Bytes, float(figures.read))?;
            figures.beyond_kib.map_or(Ok(()), |kib| record("memory beyond the image", Unit::Kibibytes, kib))
        })?;
    }
    Ok(())
}

/// What one boot to RAM came to.
struct Figures {
    init_to_root: f64,
    /// Bytes a second.
    speed: f64,
    /// Bytes of the medium.
    read: u64,
    /// Memory beyond the image; it is the same from every stick, so a slow one does not tell.
    beyond_kib: Option<f64>,
}

/// Boots to RAM, and if the memory is asked for once more from the medium; one machine after the other.
fn copied(kit: &Kit, contender: Contender, limit: Option<u64>, image: u64, folder: &Path) -> Result<Figures> {
    let mut booted = boot(kit, &Trial { limit, ..Trial::new(contender, Bus::UsbStick, true) }, folder)?;
    let mut figures = Figures {
        init_to_root: booted.init_to_root(),
        speed: speed(&booted.readings, image).context("the medium was not read as a copy is made")?,
        read: booted.readings.last().map_or(0, |reading| reading.bytes),
        beyond_kib: None,
    };
    if limit.is_none() {
        let on_ram = booted.memory()?.free_kib;
        drop(booted);
        let normally = boot(kit, &Trial::new(contender, Bus::UsbStick, false), folder)?.memory()?.free_kib;
        figures.beyond_kib = Some(float(normally) - float(on_ram) - float(image) / 1024.0);
    }
    Ok(figures)
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
