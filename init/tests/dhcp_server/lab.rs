//! A link between the client's namespace and one with a DHCP server, and a clock that can run ahead.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sino_init::dhcp::{Endpoint, Event, Lease, Settings};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The server's address.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// MAC address of [`Lab::squatter`].
pub(crate) const SQUATTER: &str = "02:00:00:00:00:99";
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// What happens at once takes no longer than this on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether what the tests call is there.
pub(crate) fn tools() -> Result<(), String> {
    let needed = [("ip", "iproute2"), ("unshare", "util-linux"), ("nsenter", "util-linux"), ("setpriv", "util-linux")];
    for (tool, package) in
        needed.into_iter().chain([("dnsmasq", "dnsmasq-base"), (super::kea::PROGRAM, "kea-dhcp4-server")])
    {
        let found = Command::new(tool).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            return Err(format!("{tool} is missing; install it: apt-get install {package}"));
        }
    }
    Ok(())
}

/// What the client of the tests is told.
pub(crate) fn settings(previous: Option<Lease>) -> Settings {
    Settings { mac: MAC, hostname: Some("sino-test".into()), previous, unproven: false }
}

/// A process that ends with this one, or with its value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(arguments: &[&str], set_up: impl FnOnce(&mut Command) -> &mut Command) -> Result<Process, String> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(arguments);
    set_up(&mut command).spawn().map(Process).map_err(|error| format!("{arguments:?}: {error}"))
}

fn run(arguments: &[&str]) -> Result<(), String> {
    let (program, rest) = arguments.split_first().ok_or("nothing to run")?;
    let output = Command::new(program).args(rest).output().map_err(|error| format!("{arguments:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn index(interface: &str) -> Result<u32, String> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    let index = socket.and_then(|socket| rustix::net::netdevice::name_to_index(&socket, interface));
    index.map_err(|error| format!("{interface}: {error}"))
}

/// A network namespace that lives as long as the process in it.
struct Namespace(Process);

impl Namespace {
    fn new() -> Result<Self, String> {
        let script = "echo there; exec sleep infinity";
        let mut process = spawn(&["unshare", "--net", "sh", "-c", script], |command| command.stdout(Stdio::piped()))?;
        let stdout = process.0.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        if line != "there\n" {
            return Err("unshare --net failed; it needs root and a kernel with network namespaces".to_owned());
        }
        Ok(Self(process))
    }

    fn pid(&self) -> String {
        self.0.0.id().to_string()
    }

    fn path(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.pid())
    }

    /// Waits until the kernel passes packets on an interface; Kea looks only once.
    fn wait_for_carrier(&self, interface: &str) -> Result<(), String> {
        let limit = Instant::now() + PATIENCE;
        let path = self.path();
        while Instant::now() < limit {
            let output = Command::new("nsenter").args([&path, "ip", "-o", "link", "show", interface]).output();
            let output = output.map_err(|error| format!("nsenter: {error}"))?;
            if String::from_utf8_lossy(&output.stdout).contains("state UP") {
                return Ok(());
            }
        }
        Err(format!("{interface} gets no carrier"))
    }

    fn run(&self, arguments: &[&str]) -> Result<(), String> {
        let path = self.path();
        run(&[&["nsenter", &path], arguments].concat())
    }
}

/// What the server said.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

/// Both ends of the link.
pub(crate) struct Lab {
    // In the order in which they are to end.
    server: Option<Process>,
    log: Arc<Log>,
    others: Vec<Namespace>,
    namespace: Namespace,
    pub(super) folder: TempDir,
    ahead: Duration,
    /// The client's interface.
    interface: &'static str,
    index: u32,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_log();
        }
        let _ = run(&["ip", "link", "delete", "c0"]);
        if self.interface != "c0" {
            let _ = run(&["ip", "link", "delete", self.interface]);
        }
    }
}

impl Lab {
    /// `c0` here, and `s0` with the server's address there.
    pub(crate) fn new() -> Result<Self, String> {
        let namespace = Namespace::new()?;
        let pid = namespace.pid();
        let veth = ["ip", "link", "add", "c0", "address", "02:00:00:00:00:07", "type", "veth"];
        run(&[&veth[..], &["peer", "name", "s0", "netns", &pid]].concat())?;
        run(&["ip", "link", "set", "c0", "up"])?;
        namespace.run(&["ip", "address", "add", "10.9.0.1/24", "dev", "s0"])?;
        namespace.run(&["ip", "link", "set", "s0", "up"])?;
        namespace.wait_for_carrier("s0")?;
        let index = index("c0")?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        Ok(Self {
            server: None,
            log: Arc::default(),
            others: vec![],
            namespace,
            folder,
            ahead: Duration::ZERO,
            interface: "c0",
            index,
        })
    }

    /// A host on the server's side of the link that has an address already; returns its MAC address.
    pub(crate) fn squatter(&mut self, address: &str) -> Result<&'static str, String> {
        let other = Namespace::new()?;
        let pid = other.pid();
        // The server's end becomes a port beside the squatter's; the bridge takes its name.
        self.namespace.run(&["ip", "link", "set", "s0", "down"])?;
        self.namespace.run(&["ip", "link", "set", "s0", "name", "port0"])?;
        self.namespace.run(&["ip", "address", "flush", "dev", "port0"])?;
        self.namespace.run(&["ip", "link", "add", "s0", "type", "bridge", "forward_delay", "0"])?;
        let veth =
            ["ip", "link", "add", "port1", "type", "veth", "peer", "name", "q0", "address", SQUATTER, "netns", &pid];
        self.namespace.run(&veth)?;
        for port in ["port0", "port1"] {
            self.namespace.run(&["ip", "link", "set", port, "master", "s0", "up"])?;
        }
        self.namespace.run(&["ip", "address", "add", "10.9.0.1/24", "dev", "s0"])?;
        self.namespace.run(&["ip", "link", "set", "s0", "up"])?;
        other.run(&["ip", "address", "add", address, "dev", "q0"])?;
        other.run(&["ip", "link", "set", "q0", "up"])?;
        self.others.push(other);
        self.namespace.wait_for_carrier("s0")?;
        Ok(SQUATTER)
    }

    /// The squatter takes this address, and tells everybody; the server believes it.
    pub(crate) fn claim(&self, address: Ipv4Addr) -> Result<(), String> {
        let squatter = self.others.first().ok_or("no squatter")?;
        let address = address.to_string();
        self.namespace.run(&[
            "ip",
            "neighbour",
            "replace",
            &address,
            "lladdr",
            SQUATTER,
            "dev",
            "s0",
            "nud",
            "stale",
        ])?;
        squatter.run(&["ip", "address", "add", &format!("{address}/24"), "dev", "q0"])?;
        // The kernel announces its addresses when the MAC address is set, even to what it was.
        squatter.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/q0/arp_notify"])?;
        squatter.run(&["ip", "link", "set", "q0", "address", SQUATTER])
    }

    /// Waits until the server has `address` at this MAC address.
    pub(crate) fn wait_for_neighbour(&self, address: Ipv4Addr, mac: &str) -> Result<(), String> {
        let limit = Instant::now() + PATIENCE;
        let (path, address) = (self.namespace.path(), address.to_string());
        let mut seen = String::new();
        while Instant::now() < limit {
            let output = Command::new("nsenter").args([&path, "ip", "neighbour", "show", &address]).output();
            seen = String::from_utf8_lossy(&output.map_err(|error| error.to_string())?.stdout).into_owned();
            if seen.contains(mac) {
                return Ok(());
            }
        }
        Err(format!("{address} is not at {mac}: {seen}"))
    }

    /// The server asks for the client's and for other addresses, and the client's side answers.
    pub(crate) fn talk(&self) -> Result<(), String> {
        for last in [77, 78] {
            let say = format!("echo > /dev/udp/10.9.0.{last}/9");
            self.namespace.run(&["bash", "-c", &say])?;
        }
        self.wait_for_neighbour(Ipv4Addr::new(10, 9, 0, 77), "02:00:00:00:00:07")
    }

    /// Starts dnsmasq, in the place of the server that runs; its leases stay. The log begins anew.
    pub(crate) fn serve(&mut self, arguments: &[&str]) -> Result<(), String> {
        let leases = format!("--dhcp-leasefile={}", self.folder.path().join("leases").display());
        // --no-ping: the server would look for a conflict itself, for 3 s.
        let fixed = [
            "dnsmasq",
            "--no-daemon",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=s0",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
            "--log-dhcp",
            "--no-ping",
            &leases,
        ];
        self.launch(&[&fixed[..], arguments].concat(), "sockets bound exclusively to interface s0")
    }

    /// Starts a server, in the place of the one that runs, and returns when its log has the text `ready`. Its log is
    /// what it writes to its standard output and error.
    pub(super) fn launch(&mut self, arguments: &[&str], ready: &str) -> Result<(), String> {
        self.server = None;
        self.log = Arc::default();
        let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
        let also = writer.try_clone().map_err(|error| error.to_string())?;
        let path = self.namespace.path();
        let server = spawn(&[&["nsenter", &path], arguments].concat(), |command| command.stdout(writer).stderr(also))?;
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if let Ok(mut lines) = log.lines.lock() {
                    lines.push(line);
                    log.more.notify_all();
                }
            }
        });
        self.server = Some(server);
        self.wait_for_log(ready)
    }

    pub(crate) fn stop_server(&mut self) -> Result<(), String> {
        self.server.take().map(drop).ok_or("no server runs".to_owned())
    }

    /// Stops the server, and its leases are gone.
    pub(crate) fn forget(&mut self) -> Result<(), String> {
        self.stop_server()?;
        std::fs::remove_file(self.folder.path().join("leases")).map_err(|error| error.to_string())
    }

    pub(crate) fn wait_for_log(&self, text: &str) -> Result<(), String> {
        self.wait_for_log_times(text, 1)
    }

    /// Until `text` is on as many lines of the server's log.
    pub(crate) fn wait_for_log_times(&self, text: &str, times: usize) -> Result<(), String> {
        let lines = self.log.lines.lock().map_err(|error| error.to_string())?;
        let missing = |lines: &mut Vec<String>| lines.iter().filter(|line| line.contains(text)).count() < times;
        let (lines, waited) =
            self.log.more.wait_timeout_while(lines, PATIENCE, missing).map_err(|error| error.to_string())?;
        if waited.timed_out() {
            return Err(format!("not {times} times {text:?} in the server's log:\n{}", lines.join("\n")));
        }
        Ok(())
    }

    /// How many lines of the server's log have `text`. What was not answered yet may be missing.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.log.lines.lock().map(|lines| lines.iter().filter(|line| line.contains(text)).count()).unwrap_or_default()
    }

    fn print_log(&self) {
        if let Ok(lines) = self.log.lines.lock() {
            eprintln!("the server's log:\n{}", lines.join("\n"));
        }
    }

    /// Sets one end of the link up or down.
    pub(crate) fn link(&self, side: &str, state: &str) -> Result<(), String> {
        if side == "the interface" {
            run(&["ip", "link", "set", "c0", state])
        } else {
            self.namespace.run(&["ip", "link", "set", "s0", state])
        }
    }

    /// `c0` becomes the port of a bridge, which is the client's interface from now on.
    pub(crate) fn put_below_a_bridge(&mut self) -> Result<(), String> {
        let bridge =
            ["ip", "link", "add", "br0", "address", "02:00:00:00:00:07", "type", "bridge", "forward_delay", "0"];
        run(&bridge)?;
        self.interface = "br0";
        run(&["ip", "link", "set", "c0", "master", "br0"])?;
        run(&["ip", "link", "set", "br0", "up"])?;
        self.index = index("br0")?;
        Ok(())
    }

    /// The interface is taken away.
    pub(crate) fn delete_link(&self) -> Result<(), String> {
        run(&["ip", "link", "delete", self.interface])
    }

    /// Whether a poll would return at once.
    pub(crate) fn readable(endpoint: &Endpoint) -> Result<bool, String> {
        let fds = endpoint.fds();
        let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let wait = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut polled, Some(&wait)).map(|ready| ready > 0).map_err(|error| error.to_string())
    }

    /// What the network code does with a lease.
    pub(crate) fn set_address(&self, lease: &Lease) -> Result<(), String> {
        run(&["ip", "address", "replace", &format!("{}/{}", lease.address, lease.prefix), "dev", self.interface])
    }

    pub(crate) fn now(&self) -> Duration {
        Duration::from_micros(sino_boot::record::now_us()) + self.ahead
    }

    /// The clock jumps.
    pub(crate) fn ahead(&mut self, by: Duration) {
        self.ahead += by;
    }

    pub(crate) fn open(&self, previous: Option<Lease>) -> Result<Endpoint, String> {
        Endpoint::open(self.interface, self.index, settings(previous), self.now()).map_err(|error| format!("{error:#}"))
    }

    pub(crate) fn resume(&self, lease: Lease) -> Result<Endpoint, String> {
        Endpoint::resume(self.interface, self.index, settings(None), lease, self.now())
            .map_err(|error| format!("{error:#}"))
    }

    pub(crate) fn turn(&self, endpoint: &mut Endpoint) -> Vec<Event> {
        endpoint.turn(self.now())
    }

    /// Polls and turns as the supervisor does, until an event that is `wanted`; returns that and those before it.
    pub(crate) fn until(&self, endpoint: &mut Endpoint, wanted: impl Fn(&Event) -> bool) -> Result<Vec<Event>, String> {
        let limit = Instant::now() + PATIENCE;
        let mut events = vec![];
        let mut turns = 0;
        while Instant::now() < limit {
            turns += 1;
            if turns > 1000 {
                return Err(format!("it spins in state {}; events {events:?}", endpoint.state()));
            }
            let left = limit.saturating_duration_since(Instant::now());
            let wait = endpoint.deadline().map_or(left, |at| at.saturating_sub(self.now()).min(left));
            let fds = endpoint.fds();
            let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            let wait = Timespec::try_from(wait).map_err(|error| error.to_string())?;
            poll(&mut polled, Some(&wait)).map_err(|error| error.to_string())?;
            for event in self.turn(endpoint) {
                let found = wanted(&event);
                events.push(event);
                if found {
                    return Ok(events);
                }
            }
        }
        self.print_log();
        Err(format!("it did not come within {} s; state {}, events {events:?}", PATIENCE.as_secs(), endpoint.state()))
    }

    /// Until there is a lease.
    pub(crate) fn bound(&self, endpoint: &mut Endpoint, renewed_as_expected: bool) -> Result<Lease, String> {
        let events = self.until(endpoint, |event| matches!(event, Event::Bound { .. }))?;
        match events.last() {
            Some(Event::Bound { lease, renewed }) if *renewed == renewed_as_expected => Ok(lease.clone()),
            other => Err(format!("renewed should be {renewed_as_expected}: {other:?}")),
        }
    }
}
