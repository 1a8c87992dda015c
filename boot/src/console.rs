//! Every console of the machine: who they are, and how a line reaches each of them exactly once.
//!
//! A line goes to the kernel's log (so that journald has it), and the kernel prints it on its consoles if the log level
//! allows. Where the kernel does not print it, it is written to the console directly. The screen (tty0) is always one
//! of them, even when the command line names only a serial console.

use log::Level;
use rustix::fs::{Mode, OFlags};
use std::fs;

/// The names below `/dev` of the kernel's active consoles, from `/sys/class/tty/console/active`.
#[must_use]
pub fn active() -> Vec<String> {
    let text = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// The active consoles, and the screen.
#[must_use]
pub fn all() -> Vec<String> {
    let mut names = active();
    if !names.iter().any(|name| name == "tty0") {
        names.push("tty0".to_owned());
    }
    names
}

/// Says one line on every console and in the kernel's log.
pub fn say(line: &str, level: Level) {
    log::log!(level, "{line}");
    let printed = kernel_prints(level);
    let active = active();
    for name in all() {
        if !(printed && active.contains(&name)) {
            write(&name, &format!("sino: {line}\r\n"));
        }
    }
}

/// Shows a line on the screen that the next one replaces, for progress; nothing of it goes to a log or a serial line. An
/// empty text takes it away.
pub fn show(text: &str) {
    write("tty0", &format!("\r\x1b[K{text}"));
}

/// Writes to one console without ever blocking on it; a console that is not there is passed over.
fn write(name: &str, text: &str) {
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(format!("/dev/{name}"), flags, Mode::empty()) {
        let mut rest = text.as_bytes();
        // At worst the end of a line is missing on a console that takes no more; the log has it whole.
        while let Ok(count @ 1..) = rustix::io::write(&file, rest) {
            rest = rest.get(count..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
        }
    }
}

/// Whether the kernel prints a record of this level on its consoles (`/proc/sys/kernel/printk`, first number).
fn kernel_prints(level: Level) -> bool {
    let text = fs::read_to_string("/proc/sys/kernel/printk").unwrap_or_default();
    let threshold: u32 = text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(7);
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    severity < threshold
}
