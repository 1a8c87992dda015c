//! Process 1 of the played host: it keeps a supervisor running, kills what it is told to, and takes in orphans.
//!
//! Namespaces of its own for mounts, processes, network and names; when it ends, everything in them ends.

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::fs;
use std::io::{BufRead as _, stdin};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// The argument that makes this program process 1.
pub(crate) const WORD: &str = "--machine";
/// Process numbers that there can be; each gets its link below `/proc`.
const PIDS: u32 = 16000;

/// Whether a supervisor is started again when it has ended.
static AGAIN: AtomicBool = AtomicBool::new(true);

pub(crate) fn run(folder: &Path) -> ExitCode {
    let proc = folder.join("proc");
    for name in ["self", "thread-self", "cmdline", "meminfo", "cpuinfo", "stat", "uptime", "sys", "mounts", "version"] {
        symlink(proc.join(name), Path::new("/proc").join(name)).unwrap();
    }
    for pid in 1..PIDS {
        symlink(proc.join(pid.to_string()), format!("/proc/{pid}")).unwrap();
    }
    fs::create_dir("/proc/xen").unwrap();
    fs::write("/proc/xen/capabilities", "control_d\n").unwrap();
    std::thread::spawn(obey);
    supervise();
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if supervisor() == Some(pid) => {
                let _ = fs::remove_file("/run/supervisor");
                if AGAIN.load(Ordering::SeqCst) {
                    supervise();
                }
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // The last has ended: a new one comes by the thread that obeys.
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
}

fn supervisor() -> Option<Pid> {
    Pid::from_raw(fs::read_to_string("/run/supervisor").ok()?.trim().parse().ok()?)
}

fn supervise() {
    let mut command = Command::new("/usr/sbin/sino-supervisor");
    command.arg0("sino-supervisor").arg("supervise").stdin(Stdio::null()).stdout(Stdio::null());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    // Waited for with all others.
    #[allow(clippy::zombie_processes)]
    let child = command.spawn().unwrap();
    fs::write("/run/supervisor", child.id().to_string()).unwrap();
}

/// One command a line, from the test; its end is the host's.
fn obey() {
    for line in stdin().lock().lines().map_while(Result::ok) {
        match line.as_str() {
            "kill" => kill(supervisor()),
            "stop" => {
                AGAIN.store(false, Ordering::SeqCst);
                kill(supervisor());
            }
            // As systemd does it.
            "end" => {
                AGAIN.store(false, Ordering::SeqCst);
                if let Some(pid) = supervisor() {
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
            "start" => {
                AGAIN.store(true, Ordering::SeqCst);
                supervise();
            }
            "kill xenstored" => kill(pid_of("/run/xenstore.pid")),
            "start xenstored" => {
                let program = "/usr/lib/xen-4.20/bin/oxenstored";
                #[allow(clippy::zombie_processes)]
                Command::new(program).args(["--pid-file", "/run/xenstore.pid"]).stdin(Stdio::null()).spawn().unwrap();
            }
            // Process 1 takes in every child, and so the shell tells how it ended.
            other if other.starts_with("sino ") => {
                let ended = "echo $? >/run/ended.new; mv /run/ended.new /run/ended";
                let line = format!("{other} >/run/printed 2>&1; {ended}");
                #[allow(clippy::zombie_processes)]
                Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).spawn().unwrap();
            }
            other => panic!("{other}"),
        }
    }
    std::process::exit(0);
}

fn pid_of(file: &str) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(file).ok()?.trim().parse().ok()?)
}

fn kill(pid: Option<Pid>) {
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::KILL);
    }
}
