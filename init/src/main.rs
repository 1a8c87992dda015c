//! `/sbin/sino-init`: process 1 from stage one's end until Debian's init takes over.

use kmsg_logger::KmsgLogger;
use log::Level;
use sino_boot::console;
use sino_init::hand_over;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    if !rustix::process::getpid().is_init() {
        eprintln!("sino-init is started by SINO's initramfs as process 1; to see how this boot went: sino status");
        return ExitCode::from(2);
    }
    // A second logger is never installed; without one the consoles are still written to.
    let _ = KmsgLogger::new("sino").install(log::LevelFilter::Info);
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    loop {
        // Nothing that stage two meets may end process 1: that would be a kernel panic.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| hand_over::run(arguments.clone()))) {
            let why =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            console::say(
                &format!("stage two FAILED by a defect of its own: {}", why.unwrap_or("no message")),
                Level::Error,
            );
        }
    }
}
