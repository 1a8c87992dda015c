//! Whether a domain runs: xl may say that it made one and have made none.

use super::cancel::Woken;
use super::{Cancel, Outcome, Pauses};
use crate::guests::xl::{Domain, Failure, Target};
use anyhow::Result;
use std::time::{Duration, Instant};

/// Lists the domains, and ends at the deadline.
pub type ListDomains = Box<dyn FnMut(Instant) -> Result<Vec<Domain>, Failure> + Send>;

/// The first pause and the longest: the usual answer comes at the first question.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

pub(super) fn wait(target: &Target, list: &mut ListDomains, deadline: Instant, cancel: &Cancel) -> Result<Outcome> {
    let mut pauses = Pauses::new(PAUSES.0, PAUSES.1);
    let mut seen = "it was never looked".to_owned();
    loop {
        if cancel.is_cancelled() {
            return Ok(Outcome::Cancelled);
        }
        if Instant::now() < deadline {
            seen = match list(deadline) {
                Ok(domains) => match domains.iter().find(|domain| is(domain, target)) {
                    // Without a state there is no more to be known than that it is there.
                    Some(domain) if domain.state.is_none_or(|state| state.is_up()) => return Ok(Outcome::Ready),
                    Some(domain) => format!("its domain is there and does not run: {:?}", domain.state),
                    None => "there is no such domain".to_owned(),
                },
                Err(failure) => failure.to_string(),
            };
        }
        match cancel.wait(pauses.until(deadline))? {
            Woken::Cancelled => return Ok(Outcome::Cancelled),
            _ if Instant::now() >= deadline => return Ok(Outcome::NotReady(seen)),
            _ => {}
        }
    }
}

fn is(domain: &Domain, target: &Target) -> bool {
    match target {
        Target::Name(name) => domain.name == *name,
        Target::Id(id) => domain.id == *id,
    }
}
