//! Stage one: from the kernel to the root's init, from each medium, with and without a copy to RAM.

use super::{Trial, boot, folder, prepare, seconds};
use crate::bench::contenders::{Contender, bus_name};
use crate::bench::{Recorder, Settings, Unit};
use anyhow::{Context, Result};
use sino_boot::record::{BootRecord, StepRecord};
use sino_image::qemu::Bus;

/// The measure.
pub const NAME: &str = "stage-one";

/// The cases; the short form has the first.
const CASES: [(Bus, bool); 6] = [
    (Bus::UsbStick, false),
    (Bus::UsbStick, true),
    (Bus::Virtio, false),
    (Bus::Virtio, true),
    (Bus::Cdrom, false),
    (Bus::Cdrom, true),
];

fn case((bus, ram): (Bus, bool)) -> String {
    format!("{} {}", bus_name(bus), if ram { "to RAM" } else { "normal" })
}

/// The names of the cases.
#[must_use]
pub fn cases() -> Vec<String> {
    CASES.into_iter().map(case).collect()
}

/// Measures it.
///
/// # Errors
/// What the contenders boot from cannot be made. A boot that fails is told, and its turn is left out.
pub fn measure(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    let kit = prepare()?;
    super::note_versions(recorder, kit)?;
    let cases = if settings.short { CASES.get(..1).unwrap_or_default() } else { &CASES };
    for &(bus, ram) in cases {
        let case = case((bus, ram));
        if !settings.wants(&case) {
            continue;
        }
        let takes_part = |contender: &Contender| settings.wants_contender(contender.name());
        let contenders: Vec<Contender> = Contender::ALL.into_iter().filter(takes_part).collect();
        recorder.in_turns(&case, settings.rounds, &contenders, |recorder, &contender, round| {
            let name = contender.name();
            let folder = folder(settings, NAME, &case, contender);
            let booted = boot(kit, &Trial::new(contender, bus, ram), &folder).and_then(|booted| {
                let steps = if contender == Contender::Sino { steps(&booted.report.boot_record)? } else { Vec::new() };
                Ok((booted, steps))
            });
            let (booted, steps) = match booted {
                Ok(booted) => booted,
                Err(error) => return recorder.failed(&case, name, round, &error),
            };
            recorder.record(&case, name, "init-to-root", round, Unit::Seconds, booted.init_to_root())?;
            recorder.record(&case, name, "kernel-to-root", round, Unit::Seconds, booted.kernel_to_root())?;
            recorder.record(&case, name, "kernel-to-init", round, Unit::Seconds, seconds(booted.report.init_us))?;
            for (figure, value) in steps {
                recorder.record(&case, name, &figure, round, Unit::Seconds, value)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Where SINO's time goes, as its own record says: figures and seconds.
fn steps(record: &serde_json::Value) -> Result<Vec<(String, f64)>> {
    let record: BootRecord = serde_json::from_value(record.clone()).context("SINO's record of the boot")?;
    let of = |step: StepRecord| (format!("phase {}", step.step), seconds(step.duration_us));
    Ok(record.steps.into_iter().map(of).collect())
}
