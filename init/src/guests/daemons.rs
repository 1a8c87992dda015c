//! The Xen daemons that guests need: started before systemd, found running by Debian's scripts, watched as long as they live.
//!
//! [`Daemons::start`] is a lane of [`STEPS`] steps, the last of which ([`Rest`]) no guest waits for. What runs already is found and left alone, so a supervisor that was started again calls
//! it too. [`Daemons::tend`] is called when one of [`Daemons::fds`] is readable or [`Daemons::next`] has come.
//!
//! Facts, from Debian's `/etc/init.d/xen` (the same in Debian 12 and 13), and seen with Debian 13's Xen 4.20:
//! - Its order: modules (xenfs, xen-evtchn, xen-gntdev, xen-acpi-processor), xenfs on `/proc/xen`, `control_d` in
//!   `/proc/xen/capabilities`, `/run/xen`, xenstored (and after it, only then, `xen-init-dom0`), xenconsoled, and
//!   `xen-qemu-system-i386` for domain 0 if it is installed. Programs are those of `/usr/lib/xen-VERSION/bin`.
//! - A daemon runs, for the script, when the process in its PID file executes its program: then nothing is started. A xenstored
//!   that is found also leaves out `xen-init-dom0`, so that must have been done.
//! - `OCaml` xenstored comes before the C one unless `/etc/default/xen` sets `XENSTORED`. The script waits for it in steps of 1 s.
//! - `stop` ends qemu and xenconsoled, removes their PID files, and lets xenstored run. xenconsoled itself never removes its file: a
//!   dead one with a PID file has not been stopped on purpose.
//! - `xen.service` is `Type=forking` with `RemainAfterExit=yes`, `GuessMainPID=no`, `KillMode=process`: active without a process, too. A
//!   drop-in of the image takes the daemons into its control group and waits for [`LOCK`] before it looks.
//! - In one virtual machine under TCG the script (with the OCaml xenstored) took 11.3 s at boot. These steps, by hand after the boot and
//!   with the C one, took 4.0 s, of which guests need the first 2.1 s: no comparison, but the order of it.
//! - xenstored cannot be started again: who was connected and what was watched is gone with it, and guests do not connect anew. Without
//!   it `xl` waits for ever: where nobody answers on the socket, it asks the kernel's `/dev/xen/xenbus`. xenconsoled lives on.

mod hypervisor;
mod launch;
mod process;
mod settings;
mod tending;

pub use hypervisor::{Below, Xen};
pub use process::Process;
pub use tending::Event;

use super::xenstore::{Client, SOCKET};
use crate::storage::tools::{Call, SHORT};
use crate::storage::{Host, Problem};
use crate::supervisor::lane::Lane;
use anyhow::{Context, Result, anyhow};
use launch::Launch;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use settings::Settings;
use sino_boot::stage::{Done, Fault, done, not_requested};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many steps the lane has.
pub const STEPS: usize = 6;
/// What is known of the daemons, as JSON ([`State`]); written by the supervisor.
pub const STATE: &str = "/run/sino/xen.json";
/// Held (flock) while daemons are started: `xen.service` waits for it, so that none is started twice.
pub const LOCK: &str = "/run/sino/xen.lock";
/// Where the consoles of guests are logged, one file `guest-NAME.log` for each.
pub const CONSOLE_LOGS: &str = "/var/log/xen/console";
/// How long xenstored may take until it answers; Debian's script waits as long.
const XENSTORED_WITHIN: Duration = Duration::from_secs(30);
/// How long another daemon may take until it has its PID file.
const DAEMON_WITHIN: Duration = Duration::from_secs(15);
/// How long qemu may take: it is large, comes from the stick, and starts while everything else does. Ended too early, it would only be
/// started once more by Debian's script.
const QEMU_WITHIN: Duration = Duration::from_secs(180);
/// How long somebody else may hold [`LOCK`], who only looks whether it is free.
const LOCK_WITHIN: Duration = Duration::from_secs(2);
/// The device model that serves disks of domain 0's guests. Source: Debian's /etc/init.d/xen.
const QEMU: &str = "/usr/libexec/xen-qemu-system-i386";
/// Its arguments. Source: as above.
const QEMU_ARGUMENTS: &str =
    "-xen-domid 0 -xen-attach -name dom0 -nographic -M xenpv -daemonize -monitor none -serial none -parallel none";
/// What the kernel has for guests' disks and network cards, and what `xl` uses if it is there. Loaded here, because
/// udev would do so only when the first guest waits for it.
const BACKENDS: [&str; 6] = ["xen-blkback", "xen-netback", "xen-gntalloc", "tun", "loop", "xen-acpi-processor"];

/// One of the daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Daemon {
    /// Keeps the xenstore, without which nothing works.
    Xenstored,
    /// Serves and logs the consoles of guests.
    Xenconsoled,
    /// Serves disks of guests that the kernel does not, such as qcow2 images.
    Qemu,
}

impl Daemon {
    /// All of them, in the order in which they start.
    pub const ALL: [Self; 3] = [Self::Xenstored, Self::Xenconsoled, Self::Qemu];

    /// Where it writes its process number. Source: Debian's /etc/init.d/xen.
    #[must_use]
    pub fn pid_file(self) -> &'static str {
        match self {
            Self::Xenstored => "/run/xenstore.pid",
            Self::Xenconsoled => "/run/xenconsoled.pid",
            Self::Qemu => "/run/qemu-dom0.pid",
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Xenstored => "xenstored",
            Self::Xenconsoled => "xenconsoled",
            Self::Qemu => "domain 0's qemu",
        }
    }
}

/// What is known of the daemons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The Xen below; `None`: there is none, or this is not its host.
    pub xen: Option<Xen>,
    /// Why there is none, or why it cannot be used.
    pub without: Option<String>,
    /// The daemons that run, as far as is known.
    pub running: BTreeMap<Daemon, Process>,
    /// The xenstored that died in this boot, after which no other can take its place.
    pub lost: Option<Process>,
    /// Whether `xen-init-dom0` has done its work: guests may be started.
    pub ready: bool,
    /// When xenconsoled was started again, in microseconds since the kernel started.
    pub restarts_us: Vec<u64>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl State {
    /// What the supervisor has written; nothing before it has.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(host: Host<'_>) -> Result<Option<Self>> {
        match fs::read_to_string(host.path(STATE)) {
            Ok(text) => serde_json::from_str(&text).map(Some).with_context(|| format!("reading {STATE}")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {STATE}")),
        }
    }

    fn save(&self, host: Host<'_>) {
        let path = host.path(STATE);
        let new = path.with_extension("new");
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &path)) {
            log::warn!("what is known of the Xen daemons is not kept: {}: {error}", path.display());
        }
    }
}

/// The daemons while they are watched.
#[derive(Debug)]
pub struct Daemons {
    state: State,
    /// Readable when one has ended.
    ends: BTreeMap<Daemon, OwnedFd>,
    /// Changes of the PID files.
    changes: Option<OwnedFd>,
    /// A daemon that died, and when it is started again.
    due: Option<(Process, Instant)>,
}

impl Daemons {
    /// Finds out whether there is a Xen, and starts what does not run yet. What fails is narrated by the lane, and
    /// left out. What is left to be done afterwards comes with them; as soon as it is done, they notice.
    #[must_use]
    pub fn start<'h>(host: Host<'h>, lane: &mut Lane) -> (Self, Rest<'h>) {
        let before = State::load(host).unwrap_or_else(|error| {
            lane.warn(&format!("{error:#}; the Xen daemons are looked for anew"));
            None
        });
        let before = before.unwrap_or_default();
        let mut state = State { restarts_us: before.restarts_us.clone(), ..State::default() };
        match lane.step("xen", || hypervisor::below(host)) {
            Some(Below::Xen(xen)) => state.xen = Some(xen),
            Some(Below::Nothing(why)) => state.without = Some(why),
            None => state.without = Some("the host cannot work with it: see the lane \"xen\"".to_owned()),
        }
        let held = state.xen.as_ref().map(|_| hold(host));
        if let Some(Err(error)) = &held {
            lane.warn(&format!("{error:#}; Debian's xen.service may start the daemons, too"));
        }
        let whole = state.xen.clone().map(|xen| Parts { host, xen, settings: settings(host) });
        let parts = whole.as_ref();
        // One that ran before this supervisor did, and does not run now, has died.
        let before = before.running.get(&Daemon::Xenstored).or(before.lost.as_ref());
        let xenstored = step(lane, "xenstored", parts, |parts| parts.xenstored(before)).flatten();
        state.lost = before.filter(|_| xenstored.is_none()).cloned();
        // Without xenstored, what follows would only wait for it.
        let parts = parts.filter(|_| xenstored.is_some());
        state.ready = step(lane, "dom0", parts, Parts::dom0).is_some() && xenstored.is_some();
        let xenconsoled = step(lane, "xenconsoled", parts, Parts::xenconsoled).flatten();
        step(lane, "backends", parts, Parts::backends);
        let goes_on = parts.is_some();
        let found = Daemon::ALL.into_iter().zip([xenstored, xenconsoled]);
        state.running = found.filter_map(|(daemon, process)| Some((daemon, process?))).collect();
        if state.xen.is_some() && !state.running.contains_key(&Daemon::Xenstored) {
            state.problems.push(Problem::new(
                "xenstored does not run, so no guest can be started, stopped or seen",
                "see the lane \"xen\" in sino log; reboot the host",
            ));
        }
        state.save(host);
        (Self::watch(host, state), Rest { parts: whole.filter(|_| goes_on), _held: held })
    }

    /// What is known of them.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether guests can be started.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.state.ready && self.state.running.contains_key(&Daemon::Xenstored)
    }
}

/// Runs a step that has nothing to do where there is no Xen, or no xenstored.
fn step<'a, 'h, T: Default>(
    lane: &mut Lane,
    name: &str,
    parts: Option<&'a Parts<'h>>,
    work: impl FnOnce(&'a Parts<'h>) -> Result<Done<T>, Fault>,
) -> Option<T> {
    lane.step(name, || parts.map_or_else(|| Ok(not_requested(T::default())), work))
}

/// What is left to be done when guests can be started.
pub struct Rest<'h> {
    /// `None`: nothing, because there is no Xen, or no xenstored.
    parts: Option<Parts<'h>>,
    /// Debian's service waits until all daemons run.
    _held: Option<Result<OwnedFd>>,
}

impl Rest<'_> {
    /// Does it. What fails is narrated by the lane.
    pub fn run(self, lane: &mut Lane) {
        step(lane, "qemu", self.parts.as_ref(), Parts::qemu);
    }
}

/// What the steps need.
struct Parts<'a> {
    host: Host<'a>,
    xen: Xen,
    settings: Settings,
}

impl Parts<'_> {
    /// The programs that could be xenstored, the wanted one first.
    fn xenstoreds(&self) -> Vec<PathBuf> {
        let own = ["oxenstored", "xenstored"].map(|name| self.xen.programs.join(name));
        let chosen = self.settings.xenstored.as_ref().map(|path| self.host.path(path));
        chosen.into_iter().chain(own).collect()
    }

    fn xenstored(&self, before: Option<&Process>) -> Result<Done<Option<Process>>, Fault> {
        let programs = self.xenstoreds();
        let pid_file = Daemon::Xenstored.pid_file();
        for program in &programs {
            if let Some(process) = process::find(self.host, program, pid_file) {
                if !launch::answers(self.host, XENSTORED_WITHIN) {
                    return Err(Fault::from(anyhow!("{process} runs and does not answer"))
                        .seen(format!("its socket: {SOCKET}"))
                        .hint("it cannot be started again while guests run: reboot the host"));
                }
                let detail = format!("{process}, runs already");
                return Ok(done(Some(process), detail));
            }
        }
        if let Some(before) = before {
            return Err(
                Fault::from(anyhow!("{before} has died, and cannot be started again")).hint(tending::WITHOUT_XENSTORED)
            );
        }
        // One that was chosen is the only one that is tried, as by Debian's script.
        let choices = if self.settings.xenstored.is_some() { programs.get(..1).unwrap_or_default() } else { &programs };
        let Some(program) = choices.iter().find(|program| is_program(program)) else {
            let names: Vec<String> = choices.iter().map(|program| program.display().to_string()).collect();
            return Err(Fault::from(anyhow!("there is no xenstored"))
                .seen(format!("looked for: {}", names.join(", ")))
                .hint(format!("correct XENSTORED in {}", settings::FILE)));
        };
        for (folder, mode) in [("/run/xen", 0o700), (launch::XENSTORED_FOLDER, 0o755)] {
            make(&self.host.path(folder), mode)?;
        }
        let mut arguments = self.settings.xenstored_args.clone();
        arguments.extend(["--pid-file".to_owned(), self.host.path(pid_file).display().to_string()]);
        let launch = Launch { program, arguments, pid_file, answers: true, oom: -1000, waits: false };
        let process = launch.run(self.host, XENSTORED_WITHIN)?;
        let detail = process.to_string();
        Ok(done(Some(process), detail))
    }

    /// Domain 0's own entries, which `xl` needs. xen-init-dom0 does nothing the second time.
    fn dom0(&self) -> Result<Done<()>, Fault> {
        let mut client = Client::by_socket(&self.host.path(SOCKET))?;
        if client.text("/local/domain/0/name")?.is_some_and(|name| !name.is_empty()) {
            return Ok(done((), "known already"));
        }
        let program = self.xen.programs.join("xen-init-dom0");
        self.host.tools.text(&Call::new(&[&program.to_string_lossy()], SHORT))?;
        let name = client.text("/local/domain/0/name")?.unwrap_or_default();
        Ok(done((), crate::config::origins::clean(&name, 80)))
    }

    fn xenconsoled(&self) -> Result<Done<Option<Process>>, Fault> {
        let (program, pid_file) = (self.xen.programs.join("xenconsoled"), Daemon::Xenconsoled.pid_file());
        if let Some(process) = process::find(self.host, &program, pid_file) {
            let detail = format!("{process}, runs already");
            return Ok(done(Some(process), detail));
        }
        let process = self.launch_xenconsoled(&program).run(self.host, DAEMON_WITHIN)?;
        let detail = format!("{process}, logs to {CONSOLE_LOGS}");
        Ok(done(Some(process), detail))
    }

    fn launch_xenconsoled<'a>(&self, program: &'a Path) -> Launch<'a> {
        let logs = self.host.path(CONSOLE_LOGS);
        if let Err(error) = make(&logs, 0o750) {
            log::warn!("the consoles of guests are not logged: {error:#}");
        }
        let pid_file = Daemon::Xenconsoled.pid_file();
        let mut arguments = vec!["--log=guest".to_owned(), format!("--log-dir={}", logs.display())];
        arguments.extend(self.settings.xenconsoled_args.iter().cloned());
        arguments.push(format!("--pid-file={}", self.host.path(pid_file).display()));
        Launch { program, arguments, pid_file, answers: false, oom: -900, waits: false }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is a step like the others")]
    fn backends(&self) -> Result<Done<()>, Fault> {
        let mut call = vec!["modprobe", "-a", "-q"];
        call.extend(BACKENDS);
        // Each may be built in, or unfit for this machine; the guest that needs it says so.
        if let Ok(output) = self.host.tools.run(&Call::new(&call, SHORT))
            && !output.succeeded()
        {
            log::info!("modprobe: {}", output.said());
        }
        Ok(done((), "the kernel's"))
    }

    /// Domain 0's qemu, which serves disks of domain 0 itself: what a boot loader of a guest reads of an image file. Guests have their
    /// own.
    fn qemu(&self) -> Result<Done<Option<Process>>, Fault> {
        let program = self.host.path(QEMU);
        if !is_program(&program) {
            return Ok(done(None, "none in this image"));
        }
        let pid_file = Daemon::Qemu.pid_file();
        // Guests have a qemu of their own of the same program: only the PID file tells which is domain 0's.
        if let Some(process) = process::by_file(self.host, &program, pid_file) {
            let detail = format!("{process}, runs already");
            return Ok(done(Some(process), detail));
        }
        let mut arguments: Vec<String> = QEMU_ARGUMENTS.split(' ').map(str::to_owned).collect();
        arguments.extend(["-pidfile".to_owned(), self.host.path(pid_file).display().to_string()]);
        // It takes seconds of a CPU that the first guests need meanwhile.
        let launch = Launch { program: &program, arguments, pid_file, answers: false, oom: -900, waits: true };
        let process = launch.run(self.host, QEMU_WITHIN)?;
        let detail = process.to_string();
        Ok(done(Some(process), detail))
    }
}

fn settings(host: Host<'_>) -> Settings {
    Settings::read(&fs::read_to_string(host.path(settings::FILE)).unwrap_or_default())
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn make(folder: &Path, mode: u32) -> Result<()> {
    let result = fs::DirBuilder::new().recursive(true).mode(mode).create(folder);
    result.with_context(|| format!("making {}", folder.display()))
}

/// Says to `xen.service` that daemons are being started. Whoever else holds it only looks whether it is free.
fn hold(host: Host<'_>) -> Result<OwnedFd> {
    let doing = || format!("locking {LOCK}");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let lock = rustix::fs::open(host.path(LOCK), flags, Mode::from_raw_mode(0o600)).with_context(doing)?;
    let deadline = Instant::now() + LOCK_WITHIN;
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            // The kernel has no wait for a lock with a deadline.
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error).with_context(doing),
        }
    }
}
