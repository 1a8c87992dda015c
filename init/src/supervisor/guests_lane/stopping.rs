//! All guests are stopped, and how that went is kept for the next boot.

use super::state::write_for_good;
use super::{GuestsLane, Phase};
use crate::guests::engine::{Event, GuestReport};
use serde::{Deserialize, Serialize};
use sino_boot::layout;
use sino_boot::record::now_us;
use std::path::Path;
use std::time::SystemTime;

/// A stop of all guests while it goes on; a supervisor that is started again goes on with it. Times in microseconds since the
/// kernel started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stop {
    /// When it began.
    pub began_us: u64,
    /// When it must be over.
    pub until_us: u64,
    /// The seconds that it was given.
    pub within: u32,
    /// Whether the supervisor ends then.
    pub end: bool,
    /// Whether the engine was told.
    pub told: bool,
}

/// How all guests were stopped last, in [`layout::GUESTS_LAST_STOP`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastStop {
    /// When it was over, by the machine's clock, in seconds since 1970; 0 where that is not known.
    pub ended: u64,
    /// The seconds that it was given.
    pub within: u32,
    /// When it began, in microseconds of the clock of the guests' times.
    pub began_us: u64,
    /// When it was over, by the same clock.
    pub ended_us: u64,
    /// Each guest as it was then.
    pub guests: Vec<GuestReport>,
}

impl GuestsLane {
    pub(super) fn stop_all(&mut self, deadline: u32, end: bool) -> String {
        let now = now_us();
        let until_us = now + u64::from(deadline) * 1_000_000;
        if self.state.without.is_some() {
            return "there are no guests".to_owned();
        }
        if self.phase == Phase::Waiting && !Path::new(layout::GUESTS_ENGINE).exists() {
            self.phase = Phase::Ended;
            return "no guest was started yet, and none is from now on".to_owned();
        }
        // One that goes on already began when it did.
        let began_us = self.state.stop.as_ref().map_or(now, |stop| stop.began_us);
        self.state.stop = Some(Stop { began_us, until_us, within: deadline, end, told: false });
        self.state.stopping = true;
        if self.running.is_some() {
            self.go_on_stopping();
        } else {
            self.publish();
        }
        format!("all guests are being stopped, within {deadline} s")
    }

    /// Has the engine begin with a stop that was asked for, unless it is at it. Whether there is one.
    pub(super) fn go_on_stopping(&mut self) -> bool {
        let Some(stop) = &mut self.state.stop else { return false };
        let until_us = stop.until_us;
        if !std::mem::replace(&mut stop.told, true) {
            self.step(Event::StopAll { until_us });
        }
        true
    }

    /// Looks whether a stop is over.
    pub(super) fn tend_stop(&mut self) {
        let Some(running) = &self.running else { return };
        let over = |stop: &mut Stop| stop.told && !running.engine.is_stopping();
        if let Some(stop) = self.state.stop.take_if(over) {
            self.all_stopped(&stop);
        }
    }

    /// All are stopped: how that went outlives this boot.
    fn all_stopped(&mut self, stop: &Stop) {
        self.state.stopping = false;
        self.publish();
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let last = LastStop {
            ended: since_1970.as_secs(),
            within: stop.within,
            began_us: stop.began_us,
            ended_us: now_us(),
            guests: self.state.guests.clone(),
        };
        if let Err(error) = write_for_good(Path::new(layout::GUESTS_LAST_STOP), &last) {
            log::warn!("how the guests were stopped is not kept: {error:#}");
        }
        if stop.end {
            self.phase = Phase::Ended;
            // The next supervisor begins as at power-up.
            let _ = std::fs::remove_file(layout::GUESTS_ENGINE);
        }
    }
}
