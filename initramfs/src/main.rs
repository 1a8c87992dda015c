//! `/init` of the initramfs: runs stage one, then enters the new root, or explains why not. The same program stays behind as
//! the keeper, answers the kernel's requests for modules, and ends the system after its root is gone.

use kmsg_logger::KmsgLogger;
use log::Level;
use sino_boot::options::{self, Options};
use sino_boot::record::BootRecord;
use sino_boot::stage::{self, Stage};
use sino_boot::watchdog::{Hung, Watchdog};
use sino_boot::{console, issue, layout};
use sino_initramfs::keeper::{self, Task};
use sino_initramfs::{STEPS, boot, exit_root, kernel_fs, kernel_request, rescue, switch_root};
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if !rustix::process::getpid().is_init() {
        if let Some(name) = kernel_request::requested(&arguments) {
            // The kernel only needs to know whether it came to something; it says itself what it lacks.
            return if kernel_request::serve(&name).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        if let Some(task) = Task::from_arguments(&arguments) {
            log_to_kernel();
            let error = keeper::keep(task).err();
            let why = error.map(|error| format!("{error:#}")).unwrap_or_default();
            console::say(&format!("warning: the medium and the overlay are not watched: {why}"), Level::Warn);
            return ExitCode::FAILURE;
        }
        eprintln!("sino-stage-one is the /init of SINO's initramfs: it runs as process 1 only, and does nothing here.");
        return ExitCode::from(2);
    }
    if exit_root::is_called(std::env::args_os().next().as_deref()) {
        log_to_kernel();
        exit_root::finish(arguments.first().map(std::ffi::OsString::as_os_str));
    }
    let mounted = kernel_fs::mount_all();
    log_to_kernel();
    if let Err(error) = mounted {
        console::say(&format!("the kernel's own file systems: {error:#}"), Level::Error);
    }
    kernel_request::offer();
    loop {
        // Nothing that stage one meets may end process 1: that would be a kernel panic.
        let outcome = catch_unwind(AssertUnwindSafe(stage_one));
        if let Err(panic) = outcome {
            let why = stage::message(panic.as_ref());
            console::say(&format!("stage one FAILED by a defect of its own: {why}"), Level::Error);
        }
        let again = catch_unwind(AssertUnwindSafe(|| -> anyhow::Result<Infallible> {
            rescue::after_failure(&flags());
            rescue::begin_again()
        }));
        if let Ok(Err(error)) = again {
            console::say(&format!("{error:#}"), Level::Error);
        }
    }
}

fn log_to_kernel() {
    stage::note_panics();
    // A second logger is never installed; without one the consoles are still written to.
    let _ = KmsgLogger::new("sino").install(log::LevelFilter::Info);
}

fn flags() -> Options {
    options::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default()).0
}

/// Says a line; what explains a failure is also kept for the rescue shell.
fn narrate(line: &str, failed: bool) {
    console::say(line, if failed { Level::Error } else { Level::Info });
    if failed {
        use std::io::Write as _;
        let report = std::fs::OpenOptions::new().create(true).append(true).open(layout::REPORT);
        // At worst the shell's report lacks a line that stands on the console.
        let _ = report.and_then(|mut report| writeln!(report, "{line}"));
    }
}

/// Runs the stage. Returns only after a failure, which has been narrated by then.
fn stage_one() {
    let options = flags();
    let _ = std::fs::remove_file(layout::REPORT);
    let mut stage = Stage::new("stage-one", STEPS.len(), BootRecord::default(), Box::new(narrate));
    match watchdog(&options) {
        Ok(watchdog) => stage.watch(watchdog),
        Err(error) => console::say(&format!("warning: no watchdog, a step may hang: {error}"), Level::Warn),
    }
    stage.before_each(Box::new(move |step| {
        if options.breaks_before(step) {
            rescue::shell(&format!("sino.break={step}; exit goes on"));
        }
    }));
    let result = boot(&mut stage);
    if let Err(error) = stage.record.save(Path::new(layout::BOOT_RECORD)) {
        console::say(&format!("warning: the boot record could not be kept: {error:#}"), Level::Warn);
    }
    if let Ok(root) = result {
        prepare_what_stays(&stage.record);
        kernel_request::withdraw();
        let arguments = std::env::args_os().skip(1).collect();
        let error = switch_root::enter(&root, arguments);
        console::say(&format!("FAILED: {error:#}"), Level::Error);
    }
}

/// What the running system needs of the initramfs. Nothing of it is worth a rescue shell.
fn prepare_what_stays(record: &BootRecord) {
    let manifest = std::fs::copy(layout::MANIFEST, layout::RUN_MANIFEST).map(drop).map_err(anyhow::Error::from);
    for result in [manifest, issue::save(record)] {
        if let Err(error) = result {
            console::say(&format!("warning: {error:#}"), Level::Warn);
        }
    }
}

/// Starts the watchdog, which takes over the machine when a step hangs.
fn watchdog(options: &Options) -> std::io::Result<Watchdog> {
    let limit = Duration::from_secs(u64::from(options.step_timeout));
    let own = Arc::new(OnceLock::<Watchdog>::new());
    let (policy, inside) = (options.clone(), Arc::clone(&own));
    let watchdog = Watchdog::start(limit, move |hung| take_over(&hung, limit, &policy, inside.get()))?;
    // The thread waits for a step, and no step begins before this.
    let _ = own.set(watchdog.clone());
    Ok(watchdog)
}

fn take_over(hung: &Hung, limit: Duration, options: &Options, watchdog: Option<&Watchdog>) {
    for line in stage::hung(hung, limit).block() {
        narrate(&line, true);
    }
    let again = catch_unwind(AssertUnwindSafe(|| -> anyhow::Result<Infallible> {
        rescue::after_failure(options);
        if watchdog.is_none_or(|watchdog| !watchdog.has_returned()) {
            console::say("the step still hangs in the kernel: the machine restarts", Level::Error);
            rescue::restart(rustix::system::RebootCommand::Restart);
        }
        rescue::begin_again()
    }));
    if let Ok(Err(error)) = again {
        console::say(&format!("{error:#}"), Level::Error);
    }
    loop {
        std::thread::park();
    }
}

#[cfg(feature = "bench-without-hash")]
compile_error!("stage one must verify what it copies: bench-without-hash is for the example copy-speed alone");
