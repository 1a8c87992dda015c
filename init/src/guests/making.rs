//! Which domains SINO's own xl is making: told by who runs xl, asked by who watches the domains.
//!
//! xl tells by its end that a domain runs. Without this the watch would ask for that with `xl list`, over and over for as long
//! as each guest is being built, at the very time when domain 0 has the most to do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is known of them. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Making(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Names of guests whose xl is at work.
    under_way: BTreeSet<String>,
    /// Numbers of the domains that came of it, for as long as they are there.
    made: BTreeSet<u32>,
}

/// An xl that makes a domain, until this is dropped.
#[derive(Debug)]
pub struct UnderWay {
    making: Making,
    name: String,
}

impl Making {
    /// An xl begins to make this guest's domain.
    #[must_use]
    pub fn begin(&self, name: &str) -> UnderWay {
        self.known().under_way.insert(name.to_owned());
        UnderWay { making: self.clone(), name: name.to_owned() }
    }

    /// Whether an xl of SINO's makes this guest's domain.
    #[must_use]
    pub fn is_under_way(&self, name: &str) -> bool {
        self.known().under_way.contains(name)
    }

    /// Whether an xl of SINO's has made this domain, and ended well.
    #[must_use]
    pub fn has_made(&self, domid: u32) -> bool {
        self.known().made.contains(&domid)
    }

    /// The domain is gone.
    pub fn forget(&self, domid: u32) {
        self.known().made.remove(&domid);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    /// xl has ended well, and this is the domain.
    pub fn made(self, domid: u32) {
        self.making.known().made.insert(domid);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.making.known().under_way.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_under_way_until_its_xl_has_ended_and_made_until_it_is_gone() {
        let making = Making::default();
        let (one, other) = (making.begin("one"), making.clone().begin("other"));
        assert!(making.is_under_way("one") && making.is_under_way("other") && !making.has_made(3));
        one.made(3);
        drop(other);
        assert!(!making.is_under_way("one") && !making.is_under_way("other") && making.has_made(3));
        making.forget(3);
        assert!(!making.has_made(3));
    }
}
