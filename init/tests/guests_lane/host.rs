//! A played host from outside: its folders, what its supervisor reports and says, what its fake xl was asked.

use crate::lab::{Call, Lab};
use crate::machine;
use serde_json::json;
use sino_boot::record::BootRecord;
use sino_init::config::schema::Network;
use sino_init::guests::engine::GuestReport;
use sino_init::storage::srv::{Srv, State};
use sino_init::storage::state::StorageState;
use sino_init::supervisor::control::Answer;
use sino_init::supervisor::guests_lane::GuestsState;
use sino_init::supervisor::known::Known;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) struct Host {
    pub(crate) lab: Lab,
    /// Whether its clock begins when it is switched on, and not when this machine was.
    pub(crate) own_clock: bool,
    machine: Option<Child>,
    said: Arc<Mutex<String>>,
}

impl Host {
    /// A host that is not on yet, whose xl behaves as `script` says and whose `sino.toml` has these lines.
    pub(crate) fn new(script: &str, toml: &str) -> Self {
        let lab = Lab::new(script);
        assert!(
            lab.place.path().starts_with("/tmp"),
            "TMPDIR must be /tmp: other folders are hidden from the played host"
        );
        for folder in ["run/sino", "srv/autostart", "srv/sino", "auto", "state", "xen-log"] {
            fs::create_dir_all(lab.path(folder)).unwrap();
        }
        fs::write(lab.path("srv/vmlinuz"), "").unwrap();
        fs::write(lab.path("srv/sino/sino.toml"), format!("[network]\nmanaged = false\n{toml}")).unwrap();
        fs::write(lab.path("run/state-of-xl"), lab.path("state").to_str().unwrap()).unwrap();
        // As if storage and network had been looked after: this is about guests.
        let network = Some(Network { managed: false, ..Network::default() });
        let known = Known { network, brought_up: true, ..Known::default() };
        fs::write(lab.path("run/sino/supervisor.json"), serde_json::to_string(&known).unwrap()).unwrap();
        let srv = Srv { state: State::Mounted, ..Srv::default() };
        let storage = StorageState { srv, ..StorageState::default() };
        fs::write(lab.path("run/sino/storage.json"), serde_json::to_string(&storage).unwrap()).unwrap();
        let record = serde_json::to_string(&BootRecord::default()).unwrap();
        fs::write(lab.path("run/sino/boot.json"), record).unwrap();
        assert!(Command::new("mkfifo").arg(lab.path("kmsg")).status().unwrap().success());
        let host = Self { own_clock: false, machine: None, said: Arc::default(), lab };
        host.listen();
        host
    }

    /// A guest in `/srv/autostart`.
    pub(crate) fn guest(&self, name: &str, lines: &str) {
        let text = format!("name = \"{name}\"\nkernel = \"/srv/vmlinuz\"\nmemory = 64\n{lines}\n");
        self.file(&format!("srv/autostart/{name}.cfg"), text);
    }

    pub(crate) fn file(&self, path: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.lab.path(path), bytes).unwrap();
    }

    /// Collects what it writes to the kernel's log.
    fn listen(&self) {
        let kmsg = fs::File::options().read(true).write(true).open(self.lab.path("kmsg")).unwrap();
        let said = Arc::clone(&self.said);
        std::thread::spawn(move || {
            for line in BufReader::new(kmsg).lines().map_while(Result::ok) {
                let mut said = said.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        });
    }

    pub(crate) fn on(&mut self) {
        let this = std::env::current_exe().unwrap();
        let fake = this.parent().and_then(std::path::Path::parent).unwrap().join("examples/fake-xl");
        let mut command = Command::new("unshare");
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let seconds: u64 = uptime.split('.').next().unwrap().parse().unwrap();
        // A boot is not kept any more an hour after the kernel's start. Source: time_namespaces(7); what is left of the uptime
        // is a minute.
        if self.own_clock && seconds > 40 * 60 {
            command.args(["--time", "--boottime", &format!("-{}", seconds.saturating_sub(60))]);
        }
        command
            .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c"])
            .arg(include_str!("machine.sh"))
            .arg("sh")
            .arg(self.lab.place.path())
            .arg(&this)
            .arg(env!("CARGO_BIN_EXE_sino"))
            .arg(fake)
            .stdin(Stdio::piped());
        self.machine =
            Some(command.spawn().expect("unshare cannot be executed; install it: apt-get install util-linux"));
    }

    /// Has process 1 do something; see [`machine`].
    pub(crate) fn tell(&mut self, word: &str) {
        let stdin = self.machine.as_mut().unwrap().stdin.as_mut().unwrap();
        stdin
            .write_all(format!("{word}\n").as_bytes())
            .unwrap_or_else(|error| panic!("{} ended: {error}", machine::WORD));
    }

    /// Kills the supervisor, and waits until the next one has looked at the guests.
    pub(crate) fn kill(&mut self) {
        let surveys = |host: &Self| host.said().matches("] survey ...").count();
        let before = surveys(self);
        self.tell("kill");
        self.until("it is taken up again", |_| surveys(self) > before);
    }

    /// A new boot: nothing in `/run` but what the other lanes have found.
    pub(crate) fn reboot(&mut self) {
        self.tell("stop");
        let pid = self.lab.path("run/supervisor");
        self.until("the supervisor is gone", |_| !pid.exists());
        for file in ["guests.json", "guests-engine.json"] {
            let _ = fs::remove_file(self.lab.path("run/sino").join(file));
        }
        self.tell("start");
    }

    /// Executes a command there, such as `sino guests`; returns its exit status, and what it printed.
    pub(crate) fn sino(&mut self, command: &str) -> (i32, String) {
        let ended = self.lab.path("run/ended");
        let _ = fs::remove_file(&ended);
        self.tell(command);
        self.until(&format!("{command} has ended"), |_| ended.exists());
        let status = fs::read_to_string(ended).unwrap().trim().parse().unwrap();
        (status, String::from_utf8_lossy(&fs::read(self.lab.path("run/printed")).unwrap()).into_owned())
    }

    pub(crate) fn stop_all(&self, deadline: u32) -> Answer {
        self.request(&json!({"guests": {"stop-all": {"deadline": deadline, "end": false}}}))
    }

    pub(crate) fn start(&self, name: &str) -> Answer {
        self.request(&json!({"guests": {"start": {"name": name}}}))
    }

    /// As `sino guests` asks; words and not types, because that is what another release sends.
    fn request(&self, request: &serde_json::Value) -> Answer {
        let mut stream = UnixStream::connect(self.lab.path("run/sino/control")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn state(&self) -> GuestsState {
        let text = fs::read_to_string(self.lab.path("run/sino/guests.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(crate) fn report(&self, name: &str) -> GuestReport {
        self.state().guests.into_iter().find(|guest| guest.name == name).unwrap_or_default()
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Looks until it is so, two minutes at most.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&GuestsState) -> bool) -> GuestsState {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let state = self.state();
            if is_so(&state) {
                return state;
            }
            assert!(Instant::now() < end, "never so: {what}\n{state:#?}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until each guest is in one of these states.
    pub(crate) fn until_all(&self, number: usize, states: &[&str]) -> GuestsState {
        let all = |state: &GuestsState| {
            state.guests.len() == number && state.guests.iter().all(|guest| states.contains(&guest.state.as_str()))
        };
        self.until(&format!("{number} guests are {states:?}"), all)
    }

    /// Calls of xl for each guest: when each began and, if it has ended, ended (ms), and with what.
    pub(crate) fn calls(&self, command: &str) -> BTreeMap<String, Vec<Call>> {
        let mut calls: BTreeMap<String, Vec<Call>> = BTreeMap::new();
        let mut lines = self.lab.calls();
        lines.retain(|call| call.arguments[0] == command);
        let (ends, begins): (Vec<Call>, Vec<Call>) = lines.into_iter().partition(|call| call.code.is_some());
        for begin in begins {
            let last = PathBuf::from(begin.arguments.last().unwrap());
            let end = ends.iter().find(|end| end.pid == begin.pid && end.arguments == begin.arguments);
            let call = Call { ended: end.and_then(|end| end.ended), code: end.and_then(|end| end.code), ..begin };
            calls.entry(last.file_stem().unwrap().to_string_lossy().into_owned()).or_default().push(call);
        }
        calls
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut machine) = self.machine.take() {
            // Its process 1 ends with its input, and with that everything there.
            drop(machine.stdin.take());
            let end = Instant::now() + Duration::from_secs(5);
            while machine.try_wait().is_ok_and(|ended| ended.is_none()) {
                if Instant::now() > end {
                    let _ = machine.kill();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}
