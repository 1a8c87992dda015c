//! How long the client waits: back-off, jitter, and the times within a lease.

use std::time::Duration;

/// The longest pause between two messages to servers that do not answer (RFC 2131, 4.1).
const CEILING: u32 = 64;
/// RFC 2131, 4.4.5: a renewal is not repeated sooner than this, in seconds.
const LONGEST_FLOOR: u32 = 60;
/// Of a short lease that would leave no repetition at all, so the floor is this part of it.
const PARTS_OF_A_SHORT_LEASE: u32 = 20;

/// Transaction numbers and jitter. Not for secrets: it only keeps hosts that were switched on together apart.
///
/// The generator is `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn xid(&mut self) -> u32 {
        // The upper half.
        u32::try_from(self.next() >> 32).unwrap_or_default()
    }

    /// How long to wait for an answer to the message number `tries` (1 is the first): 4, 8, 16, 32, then 64 seconds,
    /// each up to a second shorter or longer (RFC 2131, 4.1).
    pub(super) fn back_off(&mut self, tries: u32) -> Duration {
        let seconds = 2_u32.saturating_pow(tries.saturating_add(1)).min(CEILING);
        let jitter = Duration::from_millis(self.next() % 2001);
        Duration::from_secs(seconds.into()).saturating_sub(Duration::from_secs(1)).saturating_add(jitter)
    }
}

/// How long to wait before a renewal is repeated: half of the time that is left until `end`, but not less than a
/// minute, or a twentieth of a lease that is shorter than 20 minutes.
pub(super) fn half_of_the_rest(now: Duration, end: Duration, lease_s: u32) -> Duration {
    let floor = (lease_s / PARTS_OF_A_SHORT_LEASE).clamp(1, LONGEST_FLOOR);
    (end.saturating_sub(now) / 2).max(Duration::from_secs(floor.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_are_those_of_rfc_2131() {
        let mut random = Random::new(1);
        for (tries, seconds) in [(1, 4), (2, 8), (3, 16), (4, 32), (5, 64), (6, 64), (1000, 64)] {
            let pauses: Vec<_> = (0..1000).map(|_| random.back_off(tries).as_millis()).collect();
            let (least, most) = (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap());
            assert!(least >= seconds * 1000 - 1000 && most <= seconds * 1000 + 1000, "{least} to {most}");
            assert!(most - least > 1500, "no jitter: {least} to {most}");
        }
    }

    #[test]
    fn renewals_are_repeated_at_half_of_what_is_left() {
        let s = Duration::from_secs;
        assert_eq!(half_of_the_rest(s(1000), s(2000), 7200), s(500));
        assert_eq!(half_of_the_rest(s(1950), s(2000), 7200), s(60));
        assert_eq!(half_of_the_rest(s(60), s(105), 120), Duration::from_millis(22_500));
        assert_eq!(half_of_the_rest(s(100), s(105), 120), s(6));
        assert_eq!(half_of_the_rest(s(9), s(5), 10), s(1));
    }

    #[test]
    fn transactions_differ() {
        let mut random = Random::new(7);
        let numbers: std::collections::BTreeSet<_> = (0..100).map(|_| random.xid()).collect();
        assert_eq!(numbers.len(), 100);
    }
}
