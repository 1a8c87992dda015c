//! Xen's own part of a boot, before dom0's kernel: from the times in its console ring, where it writes them.
//!
//! It does so with `console_timestamps=boot` on its command line (Xen's own documentation, "xen-command-line"), in seconds since
//! it set its clock, which is soon after it was started. Without that nothing tells how long it took: its version is kept then,
//! and its time is not known.

use serde::{Deserialize, Serialize};

/// The last lines that Xen writes before dom0 runs; each has one at least of them. Source: `xl dmesg` of Xen 4.17 to 4.20.
const LAST_LINES: [&str; 3] = ["Xen is relinquishing VGA console", "Serial input to DOM0", "kB init memory"];
/// Longer than this, in seconds, no Xen takes: a line of that time is one of another kind.
const LONGEST: u64 = 3600;

/// The Xen that a boot ran on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Xen {
    /// Its version, for example `4.20`.
    pub version: String,
    /// How long it ran before it let dom0 run, in microseconds; `None`: its console ring does not say.
    pub own_us: Option<u64>,
}

/// Reads the console ring: how long Xen ran before it let dom0 run, in microseconds.
#[must_use]
pub fn own_time(ring: &str) -> Option<u64> {
    let last = |line: &&str| LAST_LINES.iter().any(|words| line.contains(words));
    ring.lines().filter(last).filter_map(time).max()
}

/// The time of a line, in microseconds: `(XEN) [    1.234567] text`.
fn time(line: &str) -> Option<u64> {
    let (inside, _) = line.trim_start().strip_prefix("(XEN)")?.trim_start().strip_prefix('[')?.split_once(']')?;
    let (seconds, micros) = inside.trim().split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(micros) || micros.len() != 6 {
        return None;
    }
    let seconds: u64 = seconds.parse().ok().filter(|seconds| *seconds < LONGEST)?;
    Some(seconds * 1_000_000 + micros.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_time_before_dom0_is_that_of_the_last_line_before_it() {
        let ring = "(XEN) [    0.000000] Xen version 4.20.0\n(XEN) [    1.802113] *** Serial input to DOM0 (type 'CTRL-a' three times)\n\
                    (XEN) [    1.803000] Xen is relinquishing VGA console.\n(XEN) [    1.900250] Freed 2048kB init memory\n\
                    (XEN) [   30.000000] d1v0 something of a guest\n";
        assert_eq!(own_time(ring), Some(1_900_250));
    }

    #[test]
    fn without_times_it_is_not_known() {
        for ring in [
            "",
            "(XEN) Freed 2048kB init memory\n",
            "(XEN) [2026-11-23 20:05:11] Freed 2048kB init memory\n",
            "(XEN) [2026-11-23 20:05:11.123] Freed 2048kB init memory\n",
            "(XEN) [00000000deadbeef] Freed 2048kB init memory\n",
            "(XEN) [    1.802113] something else\n",
            "(XEN) [ 3600.000000] Freed 2048kB init memory\n",
            "(d1) [    1.000000] Freed 2048kB init memory\n",
        ] {
            assert_eq!(own_time(ring), None, "{ring}");
        }
    }

    proptest! {
        #[test]
        fn no_ring_makes_it_panic(ring in "((\\(XEN\\)| \\[|\\]|[0-9]{1,25}|\\.|kB init memory|\n|\\PC){0,30})") {
            let _ = own_time(&ring);
        }
    }
}
