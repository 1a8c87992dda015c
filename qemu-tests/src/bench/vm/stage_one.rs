//! Stage one: from the kernel to the root's init, from each medium, with and without a copy to RAM.

use super::{Trial, boot, folder, prepare, seconds};
use crate::bench::contenders::{Contender, bus_name};
use crate::bench::rounds::interleaved;
use crate::bench::{Recorder, Settings, Unit};
use anyhow::Result;
use sino_boot::record::BootRecord;
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

/// Measures it.
///
/// # Errors
/// What the contenders boot from cannot be made. A contender that does not boot is a note, and its turn is left out.
pub fn measure(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    let kit = prepare()?;
    super::note_versions(recorder, &kit)?;
    let cases = if settings.short { CASES.get(..1).unwrap_or_default() } else { &CASES };
    for &(bus, ram) in cases {
        let case = format!("{} {}", bus_name(bus), if ram { "to RAM" } else { "normal" });
        if !settings.wants(&case) {
            continue;
        }
        interleaved(settings.rounds, &Contender::ALL, |&contender, round| {
            let name = contender.name();
            let booted = match boot(&kit, &Trial::new(contender, bus, ram), &folder(settings, NAME, &case, contender)) {
                Ok(booted) => booted,
                Err(error) => return recorder.note(&format!("{case}, {name}, round {round}: did not boot: {error:#}")),
            };
            recorder.record(&case, name, "init-to-root", round, Unit::Seconds, booted.init_to_root())?;
            recorder.record(&case, name, "kernel-to-root", round, Unit::Seconds, booted.kernel_to_root())?;
            recorder.record(&case, name, "kernel-to-init", round, Unit::Seconds, seconds(booted.report.init_us))?;
            if contender == Contender::Sino {
                steps(recorder, &case, round, &booted.report.boot_record)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Where SINO's time goes, as its own record says.
fn steps(recorder: &mut Recorder, case: &str, round: u32, record: &serde_json::Value) -> Result<()> {
    let record: BootRecord = serde_json::from_value(record.clone())?;
    for step in record.steps {
        let figure = format!("phase {}", step.step);
        recorder.record(case, Contender::Sino.name(), &figure, round, Unit::Seconds, seconds(step.duration_us))?;
    }
    Ok(())
}
