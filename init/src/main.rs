//! One program with three names: `sino-init` is process 1 from stage one's end until Debian's init takes over, and the
//! supervisor; `srv` is `sino srv`; any other name is the `sino` command.

use kmsg_logger::KmsgLogger;
use log::Level;
use sino_boot::{console, stage};
use sino_init::{adopt, command, process_one, supervisor, udev};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name()).unwrap_or_default().to_owned();
    let mode = arguments.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    if rustix::process::getpid().is_init() {
        log_to_kernel();
        process_one(&arguments);
    }
    match (name.to_str().unwrap_or_default(), mode) {
        (supervisor::NAME, supervisor::MODE) => {
            log_to_kernel();
            result(supervisor::run())
        }
        ("sino-init", "adopt") => result(adopt::supervisor()),
        ("sino-init", "adopt-keeper") => result(adopt::keeper()),
        ("sino-init", "stopping") => result(adopt::stopping()),
        ("sino-init", "make-way") => {
            log_to_kernel();
            udev::make_way();
            ExitCode::SUCCESS
        }
        ("sino-init", _) => {
            eprintln!("sino-init is started by SINO's initramfs as process 1; to see how this boot went: sino status");
            ExitCode::from(2)
        }
        (name, _) => command::main(name, &arguments),
    }
}

fn result(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_kernel() {
    stage::note_panics();
    // A second logger is never installed; without one the consoles are still written to.
    let _ = KmsgLogger::new("sino").install(log::LevelFilter::Info);
}

/// Process 1 never returns.
fn process_one(arguments: &[OsString]) -> ! {
    let arguments: Vec<OsString> = arguments.iter().skip(1).cloned().collect();
    loop {
        // Nothing that stage two meets may end process 1: that would be a kernel panic.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| process_one::run(arguments.clone()))) {
            let why = stage::message(panic.as_ref());
            console::say(&format!("stage two FAILED by a defect of its own: {why}"), Level::Error);
        }
    }
}
