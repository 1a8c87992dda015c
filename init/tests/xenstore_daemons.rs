//! The Xen daemons against programs that play them: this test program, linked to their names below a root of its own.
//!
//! What they do is what counts: they leave a process behind, write PID files, answer on the socket. Needs start-stop-daemon
//! (package dpkg), by which Debian's script looks for them, and no root.

use libtest_mimic::{Arguments, Failed, Trial};
use sino_init::guests::daemons::{Daemon, Daemons, Event, Process, STEPS, State};
use sino_init::guests::xenstore::Client;
use sino_init::storage::Host;
use sino_init::storage::mounts::Mount;
use sino_init::storage::tools::{Call, Heard, Output, Programs, Tools};
use sino_init::supervisor::lane::Lane;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BIN: &str = "usr/lib/xen-4.20/bin";
/// Set for the process that a played daemon leaves behind.
const BEHIND: &str = "PLAYED_DAEMON";

fn main() -> ExitCode {
    let program = std::env::current_exe().unwrap();
    let name = program.file_name().unwrap().to_string_lossy().into_owned();
    match name.as_str() {
        "xenstored" | "oxenstored" | "xenconsoled" | "xen-qemu-system-i386" => daemon(&program, &name),
        "xen-init-dom0" => {
            let mut client = Client::by_socket(&root_of(&program).join("run/xenstored/socket")).unwrap();
            client.write("/local/domain/0/name", "Domain-0").unwrap();
            ExitCode::SUCCESS
        }
        _ => {
            let trial = |name: &str, test: fn()| {
                Trial::test(name, move || {
                    test();
                    Ok::<(), Failed>(())
                })
            };
            let trials = vec![
                trial("a_plain_kernel_has_no_daemons", plain),
                trial("a_guest_of_xen_has_no_daemons", guest_of_xen),
                trial("all_are_started_once_and_debians_script_finds_them", all),
                trial("the_xenstored_of_the_settings_is_taken", chosen),
                trial("a_dead_xenconsoled_is_started_again_three_times", restarts),
                trial("what_somebody_stopped_is_left_and_found_again", stopped),
                trial("what_ends_while_the_host_goes_down_has_not_died", shutdown),
                trial("a_dead_xenstored_is_told_and_not_started_again", dead_xenstored),
                trial("a_xenstored_that_cannot_start_is_told_with_its_words", broken),
                trial("a_daemon_without_its_pid_file_is_not_started_twice", lost_file),
            ];
            libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
        }
    }
}

// What the daemons play.

fn root_of(program: &Path) -> PathBuf {
    let depth = if program.to_string_lossy().contains(BIN) { 5 } else { 3 };
    program.ancestors().nth(depth).unwrap().to_owned()
}

fn daemon(program: &Path, name: &str) -> ExitCode {
    let root = root_of(program);
    let play = fs::read_to_string(root.join(format!("play-{name}"))).unwrap_or_default();
    if play == "fail" {
        eprintln!("cannot map the ring: no such device");
        return ExitCode::FAILURE;
    }
    // Process 1 waits for what is left behind.
    #[allow(clippy::zombie_processes)]
    if std::env::var_os(BEHIND).is_none() {
        Command::new(program).args(std::env::args().skip(1)).env(BEHIND, "1").stdin(Stdio::null()).spawn().unwrap();
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().collect();
    let file = arguments.iter().find_map(|argument| argument.strip_prefix("--pid-file="));
    let file = file.or_else(|| {
        let at = arguments.iter().position(|argument| argument == "--pid-file" || argument == "-pidfile")?;
        Some(arguments[at + 1].as_str())
    });
    fs::write(root.join(format!("arguments-{name}")), arguments.join("\n")).unwrap();
    fs::write(file.unwrap(), format!("{}\n", std::process::id())).unwrap();
    if play == "die" {
        eprintln!("the ring is in use");
        return ExitCode::FAILURE;
    }
    if name.ends_with("xenstored") {
        serve(&root);
    }
    // Until it is killed; at most as long as a test could take.
    std::thread::sleep(Duration::from_secs(120));
    ExitCode::SUCCESS
}

fn serve(root: &Path) {
    let listener = UnixListener::bind(root.join("run/xenstored/socket")).unwrap();
    let values = Arc::new(Mutex::new(BTreeMap::from([("/".to_owned(), vec![])])));
    for stream in listener.incoming() {
        let values = Arc::clone(&values);
        std::thread::spawn(move || answer(stream.unwrap(), &values));
    }
}

fn answer(mut stream: UnixStream, values: &Mutex<BTreeMap<String, Vec<u8>>>) -> std::io::Result<()> {
    loop {
        let mut header = [0; 16];
        stream.read_exact(&mut header)?;
        let number = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let mut payload = vec![0; number(12) as usize];
        stream.read_exact(&mut payload)?;
        let at = payload.iter().position(|&byte| byte == 0).unwrap();
        let path = String::from_utf8(payload[..at].to_vec()).unwrap();
        let mut values = values.lock().unwrap();
        let (kind, answer) = match number(0) {
            2 => values.get(&path).map_or((16, b"ENOENT\0".to_vec()), |value| (2, value.clone())),
            11 => {
                values.insert(path, payload[at + 1..].to_vec());
                (11, b"OK\0".to_vec())
            }
            _ => (16, b"ENOSYS\0".to_vec()),
        };
        for number in [kind, number(4), 0, u32::try_from(answer.len()).unwrap()] {
            stream.write_all(&number.to_ne_bytes())?;
        }
        stream.write_all(&answer)?;
    }
}

// The host.

/// A root whose daemons are killed at the end.
struct Root {
    folder: tempfile::TempDir,
    path: String,
    log: RefCell<Vec<String>>,
    /// Whether systemd is shutting it down.
    goes_down: Cell<bool>,
}

impl Root {
    /// A host on Xen 4.20, with both kinds of xenstored.
    fn on_xen() -> Self {
        let root = Self::plain();
        root.write("sys/hypervisor/type", "xen\n");
        root.write("sys/hypervisor/version/major", "4\n");
        root.write("sys/hypervisor/version/minor", "20\n");
        for name in ["xenstored", "oxenstored", "xenconsoled", "xen-init-dom0"] {
            root.link(&format!("{BIN}/{name}"));
        }
        root
    }

    fn plain() -> Self {
        // On the same file system as this program: a link of its own is what makes it another program.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        let root = Self { folder, path, log: RefCell::default(), goes_down: Cell::default() };
        root.write("run/sino/x", "");
        root
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::hard_link(std::env::current_exe().unwrap(), path).unwrap();
    }

    fn host(&self) -> Host<'_> {
        Host::new(self, &self.path)
    }

    fn start(&self) -> Daemons {
        let mut lane = Lane::new("xen", "xen ", STEPS, false);
        let (mut daemons, rest) = Daemons::start(self.host(), &mut lane);
        rest.run(&mut lane);
        daemons.tend(self.host(), Instant::now());
        daemons
    }

    fn pid_file(&self, daemon: Daemon) -> PathBuf {
        self.folder.path().join(daemon.pid_file().trim_start_matches('/'))
    }

    fn arguments(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("arguments-{name}"))).unwrap()
    }

    /// What Debian's script asks: whether start-stop-daemon would start it.
    fn debian_would_start(&self, daemon: Daemon, program: &str) -> bool {
        let status = Command::new("start-stop-daemon")
            .args(["--start", "--quiet", "--test", "--pidfile", self.pid_file(daemon).to_str().unwrap()])
            .args(["--exec", self.folder.path().join(program).to_str().unwrap()])
            .stdout(Stdio::null())
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .status()
            .expect("start-stop-daemon cannot be executed; install it: apt-get install dpkg");
        match status.code() {
            Some(0) => true,
            Some(1) => false,
            other => panic!("start-stop-daemon ended with {other:?}"),
        }
    }

    /// Waits until there is something to do, and does it. Waits that only the clock ends are not waited for.
    fn tend(&self, daemons: &mut Daemons) -> Vec<Event> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let mut fds: Vec<_> = daemons
                .fds()
                .into_iter()
                .map(|fd| rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN))
                .collect();
            let limit =
                rustix::event::Timespec { tv_sec: i64::from(daemons.next().is_none()) * 30, tv_nsec: 100_000_000 };
            rustix::event::poll(&mut fds, Some(&limit)).unwrap();
            drop(fds);
            let now = daemons.next().unwrap_or_else(Instant::now);
            let events = daemons.tend(self.host(), now);
            if !events.is_empty() {
                return events;
            }
            assert!(Instant::now() < deadline, "nothing happened");
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for daemon in Daemon::ALL {
            if let Ok(text) = fs::read_to_string(self.pid_file(daemon)) {
                // Only what this test has started: a program below this root.
                let exe = fs::read_link(format!("/proc/{}/exe", text.trim()));
                if exe.is_ok_and(|exe| exe.starts_with(self.folder.path())) {
                    kill(text.trim().parse().unwrap());
                }
            }
        }
    }
}

impl Tools for Root {
    fn listen(&self, call: &Call, hear: &mut dyn FnMut(Heard<'_>)) -> anyhow::Result<Output> {
        self.log.borrow_mut().push(call.line());
        // The modules of this machine, and its systemd, are not this test's.
        match call.words[0].as_str() {
            "modprobe" => Ok(Output { code: Some(0), ..Output::default() }),
            "systemctl" => {
                let (code, out) = if self.goes_down.get() { (1, "stopping\n") } else { (0, "running\n") };
                Ok(Output { code: Some(code), out: out.to_owned(), ..Output::default() })
            }
            _ => Programs.listen(call, hear),
        }
    }

    fn mount(&self, mount: &Mount<'_>) -> anyhow::Result<()> {
        self.log.borrow_mut().push(format!("mount {} {}", mount.fs, mount.target.display()));
        self.write("proc/xen/capabilities", "control_d\n");
        Ok(())
    }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn running(daemons: &Daemons, daemon: Daemon) -> Process {
    daemons.state().running.get(&daemon).unwrap_or_else(|| panic!("{daemon:?} does not run: {daemons:?}")).clone()
}

// The trials.

fn plain() {
    let root = Root::plain();
    let mut daemons = root.start();
    assert!(!daemons.ready() && daemons.fds().is_empty() && daemons.next().is_none());
    assert!(daemons.state().without.as_ref().unwrap().contains("started without it"));
    assert!(daemons.state().problems.is_empty() && root.log.borrow().is_empty());
    assert_eq!(daemons.tend(root.host(), Instant::now()), []);
}

fn guest_of_xen() {
    let root = Root::on_xen();
    root.write("proc/xen/capabilities", "\n");
    let daemons = root.start();
    assert!(!daemons.ready());
    assert!(daemons.state().without.as_ref().unwrap().contains("guest of Xen"));
    assert!(!root.pid_file(Daemon::Xenstored).exists());
}

fn all() {
    let root = Root::on_xen();
    root.link("usr/libexec/xen-qemu-system-i386");
    assert!(root.debian_would_start(Daemon::Xenstored, &format!("{BIN}/oxenstored")));
    let daemons = root.start();
    assert!(daemons.ready(), "{daemons:?}");
    assert_eq!(running(&daemons, Daemon::Xenstored).name(), "oxenstored");
    assert!(root.arguments("xenconsoled").contains(&format!("--log-dir={}/var/log/xen/console", root.path)));
    assert!(root.arguments("xenconsoled").contains("--log=guest"));
    assert!(root.arguments("xen-qemu-system-i386").contains("-xen-domid\n0\n-xen-attach"));
    let log = root.log.borrow().join("\n");
    assert!(log.starts_with("modprobe -a xenfs xen-evtchn xen-gntdev\nmount xenfs "), "{log}");
    assert!(log.contains("xen-init-dom0\nmodprobe -a -q xen-blkback"), "{log}");
    for (daemon, program) in [(Daemon::Xenstored, "oxenstored"), (Daemon::Xenconsoled, "xenconsoled")] {
        assert!(!root.debian_would_start(daemon, &format!("{BIN}/{program}")));
    }
    assert!(!root.debian_would_start(Daemon::Qemu, "usr/libexec/xen-qemu-system-i386"));
    // A supervisor that was started again.
    root.log.borrow_mut().clear();
    let again = root.start();
    assert_eq!(again.state(), daemons.state());
    assert_eq!(State::load(root.host()).unwrap().as_ref(), Some(daemons.state()));
    assert!(again.ready() && !root.log.borrow().iter().any(|line| line.contains("xen-init-dom0")));
}

fn chosen() {
    let root = Root::on_xen();
    root.write(
        "etc/default/xen",
        &format!("XENSTORED=/{BIN}/xenstored\nXENSTORED_ARGS=\"-W 200\"\nXENCONSOLED_ARGS=--log=all\n"),
    );
    let daemons = root.start();
    assert_eq!(running(&daemons, Daemon::Xenstored).name(), "xenstored");
    assert!(root.arguments("xenstored").contains("-W\n200\n--pid-file\n"));
    assert!(root.arguments("xenconsoled").contains("--log=all"));
}

fn restarts() {
    let root = Root::on_xen();
    let mut daemons = root.start();
    let mut last = running(&daemons, Daemon::Xenconsoled);
    for _ in 0..3 {
        kill(last.pid);
        let events = root.tend(&mut daemons);
        let [Event::Died { process: dead, .. }, Event::Restarted { process, .. }] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert!(*dead == last && *process != last);
        last = process.clone();
        assert_eq!(State::load(root.host()).unwrap().as_ref(), Some(daemons.state()));
    }
    kill(last.pid);
    let events = root.tend(&mut daemons);
    assert!(matches!(events.as_slice(), [Event::Died { .. }, Event::GaveUp { .. }]), "{events:?}");
    assert!(events[1].to_string().contains("it died 4 times within 60 s"), "{}", events[1]);
    assert!(daemons.ready() && daemons.next().is_none());
    // The next supervisor tries again, as an administrator would expect of a restart.
    assert!(root.start().state().running.contains_key(&Daemon::Xenconsoled));
}

fn stopped() {
    let root = Root::on_xen();
    let mut daemons = root.start();
    let old = running(&daemons, Daemon::Xenconsoled);
    kill(old.pid);
    let deadline = Instant::now() + Duration::from_secs(30);
    while daemons.next().is_none() {
        assert_eq!(daemons.tend(root.host(), Instant::now()), []);
        assert!(Instant::now() < deadline, "its end was not noticed");
    }
    fs::remove_file(root.pid_file(Daemon::Xenconsoled)).unwrap();
    let events = root.tend(&mut daemons);
    assert!(matches!(events.as_slice(), [Event::Stopped { process, .. }] if *process == old), "{events:?}");
    assert_eq!(daemons.next(), None);
    // systemctl start xen
    let file = format!("--pid-file={}", root.pid_file(Daemon::Xenconsoled).display());
    Command::new(root.folder.path().join(BIN).join("xenconsoled")).arg(file).status().unwrap();
    let events = root.tend(&mut daemons);
    let [Event::Found { process, .. }] = events.as_slice() else { panic!("{events:?}") };
    assert_ne!(*process, old);
    assert_eq!(running(&daemons, Daemon::Xenconsoled), *process);
}

fn shutdown() {
    let root = Root::on_xen();
    root.link("usr/libexec/xen-qemu-system-i386");
    let mut daemons = root.start();
    root.goes_down.set(true);
    for daemon in [Daemon::Qemu, Daemon::Xenconsoled, Daemon::Xenstored] {
        let old = running(&daemons, daemon);
        kill(old.pid);
        let events = root.tend(&mut daemons);
        let expected = Event::WentDown { daemon, process: old };
        assert_eq!(events.as_slice(), std::slice::from_ref(&expected));
        assert!(!expected.to_string().contains("DIED"), "{expected}");
    }
    // Nothing is started again, and a xenstored that ended at the wrong time is not used any more.
    assert!(daemons.next().is_none() && daemons.state().running.is_empty() && !daemons.ready());
    assert!(daemons.state().problems.is_empty() && daemons.state().restarts_us.is_empty());
}

fn dead_xenstored() {
    let root = Root::on_xen();
    let mut daemons = root.start();
    let xenstored = running(&daemons, Daemon::Xenstored);
    kill(xenstored.pid);
    let events = root.tend(&mut daemons);
    assert!(matches!(events.as_slice(), [Event::Died { daemon: Daemon::Xenstored, .. }]), "{events:?}");
    assert!(!daemons.ready() && daemons.state().problems.len() == 1);
    assert!(events[0].to_string().contains("DIED (oxenstored, process "));
    kill(running(&daemons, Daemon::Xenconsoled).pid);
    let events = root.tend(&mut daemons);
    assert!(matches!(events.as_slice(), [Event::Died { .. }, Event::GaveUp { .. }]), "{events:?}");
    // Supervisors that are started again, and one that was not there when it died.
    let mut unaware = daemons.state().clone();
    (unaware.lost, unaware.problems) = (None, vec![]);
    unaware.running.insert(Daemon::Xenstored, xenstored.clone());
    for state in [None, None, Some(unaware), None] {
        if let Some(state) = state {
            root.write("run/sino/xen.json", &serde_json::to_string(&state).unwrap());
        }
        let again = root.start();
        assert!(!again.ready() && again.state().running.is_empty(), "{again:?}");
        assert_eq!(again.state().lost.as_ref(), Some(&xenstored));
        assert_eq!(again.state().problems.len(), 1);
    }
}

fn broken() {
    for (play, words) in [("fail", "cannot map the ring"), ("die", "the ring is in use")] {
        let root = Root::on_xen();
        root.write("play-oxenstored", play);
        let mut lane = Lane::new("xen", "xen ", STEPS, false);
        let (daemons, rest) = Daemons::start(root.host(), &mut lane);
        rest.run(&mut lane);
        assert!(!daemons.ready() && !daemons.state().problems.is_empty());
        let log = fs::read_to_string(root.folder.path().join("run/sino/xen/oxenstored.log")).unwrap();
        assert!(log.contains(words), "{play}: {log}");
        assert!(!root.pid_file(Daemon::Xenconsoled).exists());
    }
}

fn lost_file() {
    let root = Root::on_xen();
    let first = root.start();
    fs::remove_file(root.pid_file(Daemon::Xenstored)).unwrap();
    fs::write(root.pid_file(Daemon::Xenconsoled), "1\n").unwrap();
    fs::remove_file(root.folder.path().join("run/sino/xen.json")).unwrap();
    let second = root.start();
    assert_eq!(second.state().running, first.state().running);
    assert!(!root.debian_would_start(Daemon::Xenstored, &format!("{BIN}/oxenstored")));
    assert!(!root.debian_would_start(Daemon::Xenconsoled, &format!("{BIN}/xenconsoled")));
}
