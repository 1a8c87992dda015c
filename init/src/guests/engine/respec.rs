//! The guests' files and tables were looked at again.

use super::record::Record;
use super::{Engine, Spec, State, lay_out};
use crate::config::origins::clean;
use std::collections::BTreeMap;

impl Engine {
    /// Takes what is wanted of the guests now. New ones are there from now on and are not started by this; what runs goes on, and
    /// is treated as is wanted now. One that is gone from the specs is forgotten once it is down.
    ///
    /// A reason why one must not be started counts when it is to be started the next time: it is no word on one that was stopped.
    ///
    /// Nothing is to be done at once: what changes for a guest shows when it is started or stopped next.
    pub fn respec(&mut self, mut specs: Vec<Spec>, now_us: u64) {
        let now = self.clock(now_us);
        let (graph, dependents) = lay_out(&mut specs);
        (self.graph, self.dependents) = (graph, dependents);
        let mut specs: BTreeMap<String, Spec> = specs.into_iter().rev().map(|spec| (spec.name.clone(), spec)).collect();
        self.guests.retain(|name, guest| {
            if let Some(spec) = specs.remove(name) {
                guest.respec(spec, now);
                return true;
            }
            guest.managed = false;
            let stays = guest.domid.is_some() || guest.job.is_some() || !guest.state.is_settled();
            if stays {
                // As one without a configuration: it is shown, and stopped with the others.
                self.graph.sequence.push(name.clone());
                self.graph.after.insert(name.clone(), Vec::new());
            }
            stays
        });
        for (name, spec) in specs {
            self.guests.insert(name, Record::new(spec, now));
        }
    }
}

impl Record {
    fn respec(&mut self, spec: Spec, now: u64) {
        let refused = spec.refused.as_ref().map(|why| clean(why, 500));
        let down = self.domid.is_none() && self.job.is_none();
        if down {
            self.saved = spec.saved;
        }
        self.managed = true;
        self.spec = spec;
        match (refused, &self.state) {
            (Some(why), State::Refused { .. }) if down => self.enter(State::Refused { why }, now),
            (None, State::Refused { .. }) => self.enter(State::Stopped { how: "not started yet".into() }, now),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::engine::tests::specs;
    use crate::guests::engine::{Action, Event, Filter};

    fn state(engine: &Engine, name: &str) -> String {
        engine.report().into_iter().find(|guest| guest.name == name).map(|guest| guest.state).unwrap_or_default()
    }

    #[test]
    fn what_runs_goes_on_and_what_is_new_can_be_started() {
        let mut engine = Engine::new(specs("[db]\n[old]\n[never]\n"), 4, 0);
        let _ = engine.step(Event::DaemonsUp, 1);
        let _ = engine.step(Event::StartAll { filter: Filter::Only(vec!["db".into(), "old".into()]) }, 2);
        for (name, domid) in [("db", 1), ("old", 2)] {
            let _ = engine.step(Event::Created { name: name.into(), result: Ok(domid) }, 3);
        }
        engine.respec(specs("[db]\nafter = ['web']\n[web]\n"), 4);
        assert_eq!((state(&engine, "db"), state(&engine, "old")), ("ready".to_owned(), "ready".to_owned()));
        assert_eq!((state(&engine, "web"), state(&engine, "never")), ("stopped".to_owned(), String::new()));
        let actions = engine.step(Event::Start { name: "web".into() }, 5);
        assert!(matches!(&actions[..], [Action::Create { name, .. }] if name == "web"), "{actions:?}");
        // The new order counts for the stop, and what has no file any more is stopped, too.
        let _ = engine.step(Event::Created { name: "web".into(), result: Ok(3) }, 6);
        let actions = engine.step(Event::StopAll { until_us: 900_000_000 }, 7);
        let asked: Vec<&str> = actions
            .iter()
            .filter_map(|action| if let Action::Shutdown { name } = action { Some(name.as_str()) } else { None })
            .collect();
        assert_eq!(asked, ["old", "db"]);
    }

    #[test]
    fn a_refusal_comes_and_goes_with_its_reason() {
        let mut engine = Engine::new(specs("[db]\n"), 4, 0);
        let mut without = specs("[db]\n");
        without[0].refused = Some("no disk".into());
        engine.respec(without, 1);
        assert_eq!((state(&engine, "db"), engine.refusal("db")), ("stopped".to_owned(), Some("no disk")));
        let actions = engine.step(Event::StartAll { filter: Filter::All }, 2);
        assert!(matches!(&actions[..], [Action::Note { text, .. }] if text.contains("no disk")), "{actions:?}");
        assert_eq!(state(&engine, "db"), "refused");
        engine.respec(specs("[db]\n"), 3);
        assert_eq!((state(&engine, "db"), engine.refusal("db")), ("stopped".to_owned(), None));
    }
}
