//! What an administrator asks of the lane, and its answers.

use super::look::filter;
use super::{GuestsLane, Wish};
use crate::config::origins::clean;
use crate::guests::engine::{Event, Filter};
use crate::guests::settings::nearest;
use crate::guests::survey::Wanted;
use crate::supervisor::control::Answer;
use crate::supervisor::storage_lane;
use anyhow::{Result, anyhow, bail};
use std::sync::mpsc;

impl GuestsLane {
    /// Does what an administrator asks, and answers; before something is started it is looked at again what there is.
    pub fn ask(&mut self, wish: Wish, answer: mpsc::Sender<Answer>) {
        let starts = matches!(wish, Wish::Start { .. } | Wish::Restart { .. } | Wish::StartAll);
        if !starts || self.running.is_none() || self.state.without.is_some() {
            return reply(&answer, self.obey(&wish));
        }
        self.asked.push_back((wish, answer));
        self.look_for_asked();
    }

    /// Looks again at what there is, for the first who waits: what one takes, the next cannot have.
    fn look_for_asked(&mut self) {
        let (Some((wish, _)), Some(running)) = (self.asked.front(), &self.running) else { return };
        if self.looks {
            return;
        }
        let mut wanted = Wanted { first: running.engine.on_their_way(), filter: filter() };
        match wish {
            Wish::Start { name } | Wish::Restart { name } => wanted.first.push(name.clone()),
            _ => wanted.filter = Filter::All,
        }
        match self.survey(wanted, || storage_lane::load(true)) {
            Ok(()) => self.looks = true,
            Err(error) => {
                let why = format!("{error:#}");
                for (_, answer) in std::mem::take(&mut self.asked) {
                    reply(&answer, Err(anyhow!("{why}; try again")));
                }
            }
        }
    }

    /// It was looked at.
    pub(super) fn seen_for_asked(&mut self) {
        if !std::mem::take(&mut self.looks) {
            return;
        }
        if let Some((wish, answer)) = self.asked.pop_front() {
            reply(&answer, self.obey(&wish));
        }
        self.look_for_asked();
    }

    pub(super) fn obey(&mut self, wish: &Wish) -> Result<String> {
        if let Wish::StopAll { deadline, end } = wish {
            return Ok(self.stop_all(*deadline, *end));
        }
        if let Some(why) = &self.state.without {
            bail!("no guests: {why}");
        }
        let Some(running) = &self.running else { bail!("the guests are still being looked for; try again") };
        if let Wish::Start { name } | Wish::Stop { name } | Wish::Restart { name } = wish
            && running.engine.state(name).is_none()
        {
            let names: Vec<String> = running.engine.report().into_iter().map(|guest| guest.name).collect();
            let meant = nearest(name, names.iter().map(String::as_str));
            let meant = meant.map(|meant| format!("; did you mean {}?", clean(meant, 64))).unwrap_or_default();
            bail!("there is no guest {}{meant}; sino guests check names what is wrong with the files", clean(name, 64));
        }
        if let Wish::Start { name } | Wish::Restart { name } = wish
            && let Some(why) = running.engine.refusal(name)
        {
            bail!("{} cannot be started: {}", clean(name, 64), clean(why, 700));
        }
        if let Wish::Start { name } = wish
            && let Some(why) = running.engine.remainder(name)
        {
            bail!("{0} cannot be started: {1}", clean(name, 64), why.replace("NAME", &clean(name, 64)));
        }
        let (event, text) = match wish.clone() {
            Wish::Start { name } => (Event::Start { name: name.clone() }, format!("{name} is being started")),
            Wish::Stop { name } => (Event::Stop { name: name.clone() }, format!("{name} is being stopped")),
            Wish::Restart { name } => (Event::Restart { name: name.clone() }, format!("{name} is being restarted")),
            Wish::StartAll | Wish::StopAll { .. } => {
                (Event::StartAll { filter: Filter::All }, "the guests are being started".to_owned())
            }
        };
        self.step(event);
        Ok(format!("{text}; sino guests shows how it goes"))
    }
}

/// Answers who asked.
fn reply(answer: &mpsc::Sender<Answer>, result: Result<String>) {
    let (ok, text) = match result {
        Ok(text) => (true, text),
        Err(error) => (false, format!("{error:#}")),
    };
    // Who asked may be gone.
    let _ = answer.send(Answer { ok, text });
}
