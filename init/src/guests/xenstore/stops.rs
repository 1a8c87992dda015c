//! Why a domain stopped, when it is gone already: what `xl`'s own process for the guest has written.
//!
//! Facts, from Xen's sources (`tools/xl/xl_vmcontrol.c`): unless it was started with `-e`, `xl create` leaves a process behind that
//! acts on the stop within moments, so that `xl list` mostly comes too late. That process writes what it saw and did to
//! `/var/log/xen/xl-NAME.log`, and moves an older file of that name out of the way (`xl-NAME.log.1`).

use crate::guests::xl::Shutdown;

/// The folder of `xl`'s logs.
pub const LOGS: &str = "/var/log/xen";

/// What `xl`'s process for a guest saw and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Why the domain stopped.
    pub reason: Shutdown,
    /// What was done with it, in xl's words: `destroy`, `restart`, `rename-restart`, `preserve`, `coredump-destroy`, `coredump-restart`,
    /// `soft-reset`.
    pub action: Option<String>,
}

/// Reads such a process's log: the last stop of this domain, if it is there.
#[must_use]
pub fn read_log(text: &str, id: u32) -> Option<Stop> {
    let mut last: Option<Stop> = None;
    let mut ours = false;
    for line in text.lines() {
        if let Some((number, code)) = stop(line) {
            ours = number == id;
            if ours {
                last = Some(Stop { reason: Shutdown::of_code(code), action: None });
            }
        } else if let Some((_, action)) = line.split_once("Action for shutdown reason code ")
            && let Some((_, action)) = action.split_once(" is ")
            && let Some(last) = last.as_mut().filter(|_| ours)
        {
            last.action = Some(action.trim().to_owned());
        }
    }
    last
}

/// `Domain 3 has shut down, reason code 0 0x0`
fn stop(line: &str) -> Option<(u32, u32)> {
    let (_, rest) = line.split_once("Domain ")?;
    let (id, rest) = rest.split_once(" has shut down, reason code ")?;
    Some((id.parse().ok()?, rest.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_stop_of_a_domain_is_found_in_its_log() {
        let log = "\
            Waiting for domain web (domid 3) to die [pid 812]\n\
            Domain 3 has shut down, reason code 1 0x1\n\
            Action for shutdown reason code 1 is restart\n\
            Domain 3 needs to be cleaned up: destroying the domain\n\
            Done. Rebooting now\n\
            Waiting for domain web (domid 4) to die [pid 812]\n\
            Domain 4 has shut down, reason code 3 0x3\n\
            Action for shutdown reason code 3 is destroy\n";
        let stop = |id| read_log(log, id).map(|stop| (stop.reason, stop.action.unwrap_or_default()));
        assert_eq!(stop(3), Some((Shutdown::Reboot, "restart".into())));
        assert_eq!(stop(4), Some((Shutdown::Crash, "destroy".into())));
        assert_eq!(stop(5), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(Domain |Action for shutdown reason code | has shut down, reason code | is |[ -~\\n]){0,30}") {
            let _ = read_log(&text, 3);
        }
    }
}
