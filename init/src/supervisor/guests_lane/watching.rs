//! What becomes of domains, from a thread that waits for it.

use super::GuestsLane;
use crate::guests::watch::Watch;
use crate::guests::xenstore::{Client, domains::Domains};
use crate::guests::xl::Xl;
use crate::supervisor::{News, running_guests};
use anyhow::Result;
use std::time::{Duration, Instant};

/// A connection to xenstored that was lost sooner than this is not replaced at once.
const LIVES: Duration = Duration::from_secs(2);

impl GuestsLane {
    /// Has the engine told what becomes of domains, from a thread that waits for it.
    pub(super) fn watch(&self) {
        let (news, making) = (self.sender.clone(), self.making.clone());
        let watch = move || -> Result<()> {
            let mut watch = Watch::new(Domains::watch(Client::connect()?)?, Xl::find()?, making);
            loop {
                let since = Instant::now();
                let lost = loop {
                    match watch.wait() {
                        Ok(events) if events.is_empty() => {}
                        Ok(events) => news.send(News::Domains(events)),
                        Err(error) => break error,
                    }
                };
                log::warn!("what becomes of guests is not seen until xenstored answers again: {lost:#}");
                // No event tells when one that ends each connection no longer does.
                std::thread::sleep(LIVES.saturating_sub(since.elapsed()));
                while let Err(error) = running_guests::wait_for_xenstored().and_then(|client| watch.again(client)) {
                    log::warn!("{error:#}");
                    std::thread::sleep(LIVES);
                }
                log::info!("what becomes of guests is seen again");
            }
        };
        let started = std::thread::Builder::new().name("domains".into()).spawn(move || {
            if let Err(error) = watch() {
                log::error!("what becomes of guests is no longer seen: {error:#}; sino log");
            }
        });
        if let Err(error) = started {
            log::error!("what becomes of guests is not seen: {error}; systemctl restart sino");
        }
    }
}
