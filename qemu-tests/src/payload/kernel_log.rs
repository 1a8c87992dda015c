//! The kernel's own log as a clock: when the initramfs's `/init` was executed, and when this program began.
//!
//! Both times are the log's, so that whatever initramfs was booted is measured by the same clock, which begins with the
//! kernel. Source: the kernel's Documentation/ABI/testing/dev-kmsg.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

const LOG: &str = "/dev/kmsg";
/// What this program writes into the log when it begins.
const OWN: &str = "sino-payload: begins";
/// What the kernel writes before it executes the initramfs's init.
const INIT: &str = "Run /init as init process";

/// Writes into the log that this program begins; `false`: there is no log yet. Without the newline the record would not be
/// complete, and nobody could read it, until the next one comes.
pub(super) fn mark() -> bool {
    let log = OpenOptions::new().write(true).open(LOG);
    log.and_then(|mut log| log.write_all(format!("<6>{OWN}\n").as_bytes())).is_ok()
}

/// When `/init` was executed and when this program began, in microseconds since the kernel started; 0: the log does not say.
pub(super) fn times() -> (u64, u64) {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let Ok(mut log) = OpenOptions::new().read(true).custom_flags(flags).open(LOG) else { return (0, 0) };
    let mut times = (0, 0);
    let mut record = [0; 8192];
    loop {
        match log.read(&mut record) {
            Ok(0) => return times,
            Ok(length) => {
                let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                let Some((time, line)) = parse(&text) else { continue };
                match line {
                    INIT => times.0 = time,
                    OWN => times.1 = time,
                    _ => {}
                }
            }
            // The oldest records were overwritten while they were being read; the next read goes on behind them.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            // All is read.
            Err(_) => return times,
        }
    }
}

/// The time of a record and its first line: `6,339,5140900,-;text`.
fn parse(record: &str) -> Option<(u64, &str)> {
    let (head, text) = record.split_once(';')?;
    Some((head.split(',').nth(2)?.parse().ok()?, text.lines().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_its_time_and_line() {
        let record = "6,339,5140900,-;Run /init as init process\n SUBSYSTEM=x\n";
        assert_eq!(parse(record), Some((5_140_900, INIT)));
        assert_eq!(parse("nonsense"), None);
        assert_eq!(parse("6,1;x"), None);
    }
}
