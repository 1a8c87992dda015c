//! The xl of a supervisor that was killed: it works on, and what becomes of its guest is known only when it has ended.

use crate::child::words;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use sino_boot::record::now_us;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The commands that change a domain.
const CHANGING: [&str; 5] = ["create", "restore", "shutdown", "save", "destroy"];
/// Where processes' times are told in hundredths of a second. Source: proc(5), `sysconf(_SC_CLK_TCK)` on x86.
const TICK_US: u64 = 10_000;
/// Process 1 takes in those whose parent has ended.
const INIT: i32 = 1;

/// An xl without a parent that waits for it.
struct Orphan {
    pid: Pid,
    command: String,
    age: Duration,
}

/// Waits until each xl that changes a domain and has lost its parent has ended. One that is older than `limit` (from its own
/// start) is killed with its process group, as its parent would have done. What `xl create` leaves behind for a domain that runs
/// leads a session of its own and is not meant, nor is an xl that somebody has typed.
pub fn wait_for_orphans(limit: Duration) {
    for Orphan { pid, command, age } in orphans() {
        // It may have ended by now.
        let Ok(ended) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        log::info!("{command} of the supervisor before this one is at work still, process {}", pid.as_raw_nonzero());
        let deadline = Instant::now() + limit.saturating_sub(age);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Timespec::try_from(left).ok().as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(1..) => break,
                Ok(0) | Err(_) => {
                    log::warn!("{command} has not ended after {} s, and is killed", limit.as_secs());
                    let _ = kill_process_group(pid, Signal::KILL);
                    break;
                }
            }
        }
    }
}

fn orphans() -> Vec<Orphan> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(orphan).collect()
}

fn orphan(pid: i32) -> Option<Orphan> {
    let folder = Path::new("/proc").join(pid.to_string());
    let command = of_xl(&fs::read(folder.join("cmdline")).ok()?)?;
    let since_us = alone(pid, &fs::read_to_string(folder.join("stat")).ok()?)?;
    let age = Duration::from_micros(now_us().saturating_sub(since_us));
    Some(Orphan { pid: Pid::from_raw(pid)?, command, age })
}

/// The command line, if it is that of an xl, or of a shell that will be one, that changes a domain.
fn of_xl(cmdline: &[u8]) -> Option<String> {
    let arguments: Vec<&OsStr> =
        cmdline.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(OsStr::from_bytes).collect();
    let is = |at: usize, name: &str| {
        arguments.get(at).is_some_and(|word| Path::new(word).file_name() == Some(OsStr::new(name)))
    };
    // Debian's /usr/sbin/xl is a script.
    let shell = ["sh", "dash", "bash"].iter().any(|shell| is(0, shell));
    let at = usize::from(shell);
    if !is(at, "xl") {
        return None;
    }
    let verb = arguments.get(at + 1)?.to_str()?;
    let mut command = Command::new(arguments.get(at)?);
    command.args(arguments.get(at + 1..)?);
    CHANGING.contains(&verb).then(|| words(&command))
}

/// Since when a process runs, in microseconds since the kernel started, if it leads a process group in a session of others, has
/// lost its parent, and has not ended. Source: proc(5), `/proc/PID/stat`.
fn alone(pid: i32, stat: &str) -> Option<u64> {
    // The name is in brackets and may hold anything; then: state, parent, group, session, and 16 more before the time.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse::<i32>().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    let started: u64 = fields.nth(15)?.parse().ok()?;
    let alone = parent == INIT && group == pid && session != pid && !matches!(state, "Z" | "X");
    alone.then(|| started.saturating_mul(TICK_US))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_xl_that_changes_a_domain_is_known_by_its_words() {
        let of = |text: &str| of_xl(text.replace(' ', "\0").as_bytes());
        assert_eq!(of("/usr/sbin/xl create -f /srv/a.cfg ").unwrap(), "/usr/sbin/xl create -f /srv/a.cfg");
        assert_eq!(of("/bin/sh /usr/sbin/xl save a /srv/a.save ").unwrap(), "/usr/sbin/xl save a /srv/a.save");
        for other in
            ["/usr/sbin/xl console a ", "/usr/sbin/xl list -v ", "/usr/sbin/xl ", "vi xl create ", "", "vi create "]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn an_orphan_is_told_from_daemons_and_from_what_was_typed() {
        let stat = |state: &str, parent: i32, group: i32, session: i32| {
            format!("40 (x) l) {state} {parent} {group} {session} 0 -1 1 2 3 4 5 6 7 8 9 20 0 1 0 2525 1 2")
        };
        assert_eq!(alone(40, &stat("S", 1, 40, 7)), Some(25_250_000));
        for other in [stat("Z", 1, 40, 7), stat("S", 9, 40, 7), stat("S", 1, 39, 7), stat("S", 1, 40, 40)] {
            assert_eq!(alone(40, &other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_process_is_too_odd(cmdline: Vec<u8>, stat in "\\PC*") {
            let _ = (of_xl(&cmdline), alone(1, &stat));
        }
    }
}
