//! `/init` of the initramfs: runs stage one, then enters the new root, or explains why not.

use kmsg_logger::KmsgLogger;
use log::Level;
use sino_boot::options::{self, OnFailure};
use sino_boot::record::BootRecord;
use sino_boot::stage::Stage;
use sino_boot::{console, layout};
use sino_initramfs::{STEPS, boot, kernel_fs, kernel_request, rescue, switch_root};
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if !rustix::process::getpid().is_init() {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        if let Some(name) = kernel_request::requested(&arguments) {
            // The kernel only needs to know whether it came to something; it says itself what it lacks.
            return if kernel_request::serve(&name).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        eprintln!("sino-stage-one is the /init of SINO's initramfs: it runs as process 1 only, and does nothing here.");
        return ExitCode::from(2);
    }
    let mounted = kernel_fs::mount_all();
    // A second logger is never installed; without one the consoles are still written to.
    let _ = KmsgLogger::new("sino").install(log::LevelFilter::Info);
    if let Err(error) = mounted {
        console::say(&format!("the kernel's own file systems: {error:#}"), Level::Error);
    }
    kernel_request::offer();
    loop {
        // Nothing that stage one meets may end process 1: that would be a kernel panic.
        let outcome = catch_unwind(AssertUnwindSafe(stage_one));
        if let Err(panic) = outcome {
            let why =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            console::say(
                &format!("stage one FAILED by a defect of its own: {}", why.unwrap_or("no message")),
                Level::Error,
            );
        }
        let again = catch_unwind(AssertUnwindSafe(|| -> anyhow::Result<Infallible> {
            rescue::after_failure(policy());
            rescue::begin_again()
        }));
        if let Ok(Err(error)) = again {
            console::say(&format!("{error:#}"), Level::Error);
        }
    }
}

fn policy() -> OnFailure {
    options::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default()).0.on_failure
}

/// Runs the stage. Returns only after a failure, which has been narrated by then.
fn stage_one() {
    let narrator =
        Box::new(|line: &str, failed: bool| console::say(line, if failed { Level::Error } else { Level::Info }));
    let mut stage = Stage::new("stage-one", STEPS, BootRecord::default(), narrator);
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if let Some(wanted) = options::parse(&line).0.break_before {
        stage.before_each(Box::new(move |step| {
            if step == wanted {
                rescue::shell(&format!("sino.break={step}; exit goes on"));
            }
        }));
    }
    let result = boot(&mut stage);
    if let Err(error) = stage.record.save(Path::new(layout::BOOT_RECORD)) {
        console::say(&format!("warning: the boot record could not be kept: {error:#}"), Level::Warn);
    }
    if let Ok(root) = result {
        kernel_request::withdraw();
        let arguments = std::env::args_os().skip(1).collect();
        let error = switch_root::enter(&root, arguments);
        console::say(&format!("FAILED: {error:#}"), Level::Error);
    }
}
