//! Why a domain stopped: what `xl list` says while it is there, and what `xl`'s own process for the guest has written when it is not.
//!
//! Facts, from Xen's sources (`tools/xl/xl_info.c`, `xl_vmcontrol.c`, `xen/include/public/sched.h`):
//! - The column "State" of `xl list` has six letters: running, blocked, paused, shut down (`s`), the reason, dying. The reason
//!   is one of `-` (power off), `r` (reboot), `s` (suspend), `c` (crash), `w` (watchdog), `S` (soft reset), and means something only after `s`.
//!   `xl list -v` adds the reason as a number; `xl list -l` has the configuration, and no state at all.
//! - Unless it was started with `-e`, `xl create` leaves a process behind that acts on the stop within moments, so
//!   that `xl list` mostly comes too late. That process writes what it saw and did to `/var/log/xen/xl-NAME.log`, and moves an older
//!   file of that name out of the way (`xl-NAME.log.1`).

use serde::{Deserialize, Serialize};

/// The folder of `xl`'s logs.
pub const LOGS: &str = "/var/log/xen";

/// Why a domain stopped. Source: Xen's `xen/include/public/sched.h`, `SHUTDOWN_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It shut down.
    PowerOff,
    /// It wants to be started again.
    Reboot,
    /// It was saved or moved to another host.
    Suspend,
    /// Its kernel, or Xen, saw that it cannot go on.
    Crash,
    /// Its watchdog was not fed.
    Watchdog,
    /// It wants to be started again in the same domain (kexec).
    SoftReset,
    /// A reason that this release of SINO does not know.
    Other,
}

impl Reason {
    /// By its number.
    #[must_use]
    pub fn of_code(code: u32) -> Self {
        match code {
            0 => Self::PowerOff,
            1 => Self::Reboot,
            2 => Self::Suspend,
            3 => Self::Crash,
            4 => Self::Watchdog,
            5 => Self::SoftReset,
            _ => Self::Other,
        }
    }

    fn of_letter(letter: char) -> Self {
        match letter {
            '-' => Self::PowerOff,
            'r' => Self::Reboot,
            's' => Self::Suspend,
            'c' => Self::Crash,
            'w' => Self::Watchdog,
            'S' => Self::SoftReset,
            _ => Self::Other,
        }
    }
}

/// A line of `xl list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The domain's number.
    pub id: u32,
    /// Its name; `(null)` when it has none.
    pub name: String,
    /// MiB.
    pub memory: u64,
    /// Processors that it uses.
    pub vcpus: u32,
    /// Whether it is paused.
    pub paused: bool,
    /// Why it stopped, if it did.
    pub stopped: Option<Reason>,
    /// Whether it is being destroyed.
    pub dying: bool,
}

/// Reads what `xl list` wrote, without options. Lines that are none are passed over.
#[must_use]
pub fn read_list(text: &str) -> Vec<Listed> {
    text.lines().filter_map(listed).collect()
}

fn listed(line: &str) -> Option<Listed> {
    // Only the name may hold spaces, and it comes first.
    let (rest, _time) = last_word(line)?;
    let (rest, state) = last_word(rest)?;
    let (rest, vcpus) = last_word(rest)?;
    let (rest, memory) = last_word(rest)?;
    let (name, id) = last_word(rest)?;
    let letters: Vec<char> = state.chars().collect();
    let [_, _, paused, stopped, reason, dying] = letters.as_slice() else { return None };
    Some(Listed {
        id: id.parse().ok()?,
        name: name.trim_end().to_owned(),
        memory: memory.parse().ok()?,
        vcpus: vcpus.parse().ok()?,
        paused: *paused == 'p',
        stopped: (*stopped == 's').then(|| Reason::of_letter(*reason)),
        dying: *dying == 'd',
    })
}

/// The last word of a line, and what stands before it.
fn last_word(line: &str) -> Option<(&str, &str)> {
    line.trim_end().rsplit_once(char::is_whitespace)
}

/// What `xl`'s process for a guest saw and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Why the domain stopped.
    pub reason: Reason,
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
                last = Some(Stop { reason: Reason::of_code(code), action: None });
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
    fn states_of_domains_are_read() {
        let text = "\
            Name                                        ID   Mem VCPUs\tState\tTime(s)\n\
            Domain-0                                     0  1024     1     r-----     138.4\n\
            two words                                   12   512     2     -b----    1234.5\n\
            held                                        13   512     2     --p---       0.0\n\
            kept after a crash                          14   256     1     ---sc-       3.1\n\
            off                                         15     0     1     ---s-d       3.1\n\
            (null)                                       3     0     1     --ps-d       0.0\n";
        let all = read_list(text);
        let ids: Vec<u32> = all.iter().map(|domain| domain.id).collect();
        assert_eq!(ids, [0, 12, 13, 14, 15, 3]);
        assert_eq!((all[1].name.as_str(), all[1].memory, all[1].vcpus, all[1].stopped), ("two words", 512, 2, None));
        assert!(all[2].paused && !all[1].paused);
        assert_eq!(all[3].stopped, Some(Reason::Crash));
        assert_eq!((all[4].stopped, all[4].dying), (Some(Reason::PowerOff), true));
    }

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
        assert_eq!(stop(3), Some((Reason::Reboot, "restart".into())));
        assert_eq!(stop(4), Some((Reason::Crash, "destroy".into())));
        assert_eq!(stop(5), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(Domain |Action for shutdown reason code | has shut down, reason code | is |[ -~\\n]){0,30}") {
            let _ = read_list(&text);
            let _ = read_log(&text, 3);
        }
    }
}
