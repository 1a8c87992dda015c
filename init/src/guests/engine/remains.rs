//! Domains that have shut down and are still there: as `on_crash = "preserve"` and the like want it, or because nobody takes
//! them away. Such a guest does not run, though it has its memory and its disks still; only an administrator, or the stop of
//! all guests, ends it.

use super::record::{Job, Record};
use super::{Action, Engine, How, Reason, State};
use crate::config::origins::clean;

impl Engine {
    /// A domain has shut down and stays.
    pub(super) fn remains(&mut self, name: &str, domid: u32, reason: Reason, now: u64) {
        let Some(guest) = self.guests.get_mut(name) else { return };
        if guest.job.is_some_and(Job::starts) {
            guest.remains_early = Some((domid, reason));
            return;
        }
        if guest.domid != Some(domid) {
            return;
        }
        match guest.state {
            State::Stopping { how: How::Queued | How::AfterCreate | How::Shutdown } => {
                self.destroy(name, "it has shut down, and its domain stays", now);
            }
            _ if guest.state.is_up() => guest.has_left(domid, reason, now, &mut self.actions),
            _ => {}
        }
    }

    /// Why a guest cannot be started before its old domain is gone.
    #[must_use]
    pub fn remainder(&self, name: &str) -> Option<String> {
        let guest = self.guests.get(name).filter(|guest| guest.has_remains())?;
        let domid = guest.domid?;
        Some(format!("its domain {domid}, which has shut down, is still there; sino guests stop NAME takes it away"))
    }

    /// Takes such domains away, because all guests are stopped.
    pub(super) fn clear_remains(&mut self, now: u64) {
        let left: Vec<String> =
            self.guests.iter().filter(|(_, guest)| guest.has_remains()).map(|(name, _)| name.clone()).collect();
        for name in left {
            self.destroy(&name, "its domain, which has shut down, is still there", now);
        }
    }
}

impl Record {
    /// Whether it does not run, and its domain is there.
    pub(super) fn has_remains(&self) -> bool {
        self.domid.is_some() && matches!(self.state, State::Crashed { .. } | State::Stopped { .. })
    }

    fn has_left(&mut self, domid: u32, reason: Reason, now: u64, actions: &mut Vec<Action>) {
        self.end_probe(actions);
        self.wanted = false;
        let what = match reason {
            Reason::Crash => "crashed",
            Reason::PowerOff => "powered itself off",
            Reason::Reboot | Reason::NoReboot => "wanted to reboot",
            Reason::Suspend | Reason::Destroyed | Reason::Unknown => "has shut down",
        };
        let why =
            format!("{what}; its domain {domid} stays, for you to look at it; sino guests stop NAME takes it away");
        let why = clean(&why, 500);
        self.note(&why, true, actions);
        self.cause.clear();
        let state = if reason == Reason::Crash { State::Crashed { why } } else { State::Stopped { how: why } };
        self.enter(state, now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{specs, started, state};
    use super::super::{Domain, Event, Filter};
    use super::*;

    fn ready() -> Engine {
        let mut engine = Engine::new(specs("[a]\n[b]\nafter = ['a']\n"), 2, 0);
        let _ = engine.step(Event::DaemonsUp, 0);
        let _ = engine.step(Event::StartAll { filter: Filter::All }, 0);
        let _ = engine.step(Event::Created { name: "a".into(), result: Ok(7) }, 1);
        engine
    }

    fn remains(domid: u32, reason: Reason) -> Event {
        Event::Remains { name: "a".into(), domid, reason }
    }

    fn destroys(actions: &[Action]) -> bool {
        actions.iter().any(|action| matches!(action, Action::Destroy { name } if name == "a"))
    }

    #[test]
    fn what_stays_is_not_ready_is_not_started_and_goes_when_it_is_stopped() {
        let mut engine = ready();
        let _ = engine.step(remains(6, Reason::Crash), 2);
        assert_eq!(engine.state("a").unwrap().word(), "ready", "that was another domain");
        let _ = engine.step(remains(7, Reason::Crash), 2);
        assert_eq!(engine.state("a").unwrap().word(), "crashed");
        assert!(engine.report()[0].cause.starts_with("crashed; its domain 7 stays"));
        assert!(engine.remainder("a").unwrap().contains("domain 7"));
        for event in [Event::Start { name: "a".into() }, Event::StartAll { filter: Filter::All }] {
            let actions = engine.step(event, 3);
            assert!(actions.iter().all(|action| !matches!(action, Action::Create { name, .. } if name == "a")));
            assert_eq!(engine.state("a").unwrap().word(), "crashed");
        }
        // A supervisor that is started again knows of it.
        let mut engine = Engine::from_json(&engine.to_json().unwrap()).unwrap();
        let there = [Domain { name: "a".into(), domid: 7, paused: false }];
        let _ = engine.reconcile(&there, 4);
        assert_eq!(engine.state("a").unwrap().word(), "crashed");
        let _ = engine.step(Event::DaemonsUp, 4);
        assert!(destroys(&engine.step(Event::Stop { name: "a".into() }, 5)));
        let _ = engine.step(Event::DestroyEnded { name: "a".into(), result: Ok(()) }, 6);
        assert_eq!((engine.state("a").unwrap().word(), engine.remainder("a")), ("stopped", None));
    }

    #[test]
    fn a_restart_takes_it_away_and_starts_it_again() {
        let mut engine = ready();
        let _ = engine.step(remains(7, Reason::PowerOff), 2);
        assert_eq!(engine.state("a").unwrap().word(), "stopped");
        assert!(destroys(&engine.step(Event::Restart { name: "a".into() }, 3)));
        let actions = engine.step(Event::DestroyEnded { name: "a".into(), result: Ok(()) }, 4);
        assert!(
            actions.iter().any(|action| matches!(action, Action::Create { name, .. } if name == "a")),
            "{actions:?}"
        );
    }

    #[test]
    fn the_stop_of_all_takes_it_away_and_somebody_else_may() {
        let mut engine = ready();
        let _ = engine.step(remains(7, Reason::Crash), 2);
        assert!(destroys(&engine.step(Event::StopAll { until_us: 60_000_000 }, 3)));
        let _ = engine.step(Event::DestroyEnded { name: "a".into(), result: Ok(()) }, 4);
        assert_eq!(engine.state("a").unwrap().word(), "stopped");
        let mut engine = ready();
        let _ = engine.step(remains(7, Reason::Crash), 2);
        let _ = engine.step(Event::Gone { name: "a".into(), domid: 7, reason: Reason::Crash }, 3);
        assert_eq!((engine.state("a").unwrap().word(), engine.remainder("a")), ("stopped", None));
        // One that was asked to shut down, and has, is taken away.
        let mut engine = ready();
        let _ = engine.step(Event::Stop { name: "a".into() }, 2);
        assert!(destroys(&engine.step(remains(7, Reason::PowerOff), 3)));
        // Before xl has told of its creation.
        let mut engine = Engine::new(specs("[a]\n"), 2, 0);
        let _ = engine.step(Event::DaemonsUp, 0);
        let _ = engine.step(Event::StartAll { filter: Filter::All }, 0);
        let _ = engine.step(remains(7, Reason::Crash), 1);
        let _ = engine.step(Event::Created { name: "a".into(), result: Ok(7) }, 2);
        assert_eq!(engine.state("a").unwrap().word(), "crashed");
    }

    #[test]
    fn a_reboot_that_the_guests_file_forbids_is_no_crash() {
        use super::super::tests::ends;
        for (restart, lived, reason, expected) in [
            ("on-crash", 60, Reason::NoReboot, "stopped: wanted to reboot, and on_reboot in its file does not let it"),
            ("no", 2, Reason::NoReboot, "stopped: wanted to reboot, and on_reboot in its file does not let it"),
            ("always", 60, Reason::NoReboot, "ready"),
            ("no", 2, Reason::Reboot, "stopped: wanted to reboot 2 s after its start"),
            ("no", 60, Reason::Reboot, "ready"),
            ("on-crash", 2, Reason::Reboot, "ready"),
        ] {
            let mut world = started(&format!("[a]\nrestart = '{restart}'\n"), &[("a", ends(&[(lived, reason)]))]);
            world.settle();
            assert_eq!(state(&world, "a"), expected, "{restart} {lived} {reason:?}");
        }
    }
}
