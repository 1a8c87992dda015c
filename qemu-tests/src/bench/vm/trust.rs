//! The cost of trust: SINO with and without what makes sure of the root image's bytes.
//!
//! From the medium dm-verity checks each block when it is read: that costs at the mount, and then at each read, so every file of
//! the root is read too. A copy to RAM is hashed whatever the flags say; what that costs [`crate::bench::native_copy`] measures.

use super::{Trial, boot, folder, prepare};
use crate::bench::contenders::Contender;
use crate::bench::{Recorder, Settings, Unit};
use anyhow::Result;
use sino_image::qemu::Bus;
use std::fmt;
use std::time::Duration;

/// The measure.
pub const NAME: &str = "trust";
/// The case.
const CASE: &str = "USB normal";

/// SINO in one of its forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Verified,
    Unverified,
    VerifiedAgain,
}

impl Form {
    const ALL: [Self; 3] = [Self::Verified, Self::Unverified, Self::VerifiedAgain];

    fn flags(self) -> &'static str {
        match self {
            Self::Verified | Self::VerifiedAgain => "",
            Self::Unverified => "sino.verify=off",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Verified => crate::bench::SINO,
            Self::Unverified => "SINO unverified",
            Self::VerifiedAgain => crate::bench::SINO_AGAIN,
        })
    }
}

/// The names of the cases.
#[must_use]
pub fn cases() -> Vec<String> {
    vec![CASE.to_owned()]
}

/// Measures it.
///
/// # Errors
/// SINO's image cannot be made. A boot that fails is told, and its turn is left out.
pub fn measure(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    if !settings.wants(CASE) {
        return Ok(());
    }
    let kit = prepare()?;
    super::note_versions(recorder, kit)?;
    recorder.in_turns(CASE, settings.rounds, &Form::ALL, |recorder, form, round| {
        let name = form.to_string();
        let folder = folder(settings, NAME, CASE, Contender::Sino);
        let trial = Trial { flags: form.flags(), ..Trial::new(Contender::Sino, Bus::UsbStick, false) };
        let booted = boot(kit, &trial, &folder).and_then(|mut booted| {
            let spent = if settings.short { None } else { Some(booted.read_all()?.spent_ms) };
            Ok((booted.init_to_root(), spent))
        });
        let (init_to_root, spent) = match booted {
            Ok(figures) => figures,
            Err(error) => return recorder.failed(CASE, &name, round, &error),
        };
        recorder.record(CASE, &name, "init-to-root", round, Unit::Seconds, init_to_root)?;
        spent.map(Duration::from_millis).map_or(Ok(()), |spent| {
            recorder.record(CASE, &name, "every file read", round, Unit::Seconds, spent.as_secs_f64())
        })
    })
}
