//! The network engine against the real kernel, each trial in a network namespace of its own.
//!
//! Needs root, `ip` (iproute2), `unshare` and `nsenter` (util-linux) and dnsmasq; what is missing fails with its remedy. Veth links
//! stand for network cards; their other ends are in a second namespace, which is the switch.

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::thread::UnshareFlags;
use sino_init::config::schema;
use sino_init::dhcp::lease::Lease;
use sino_init::netlink::{Connection, Events, Link};
use sino_init::network::engine::{Command as Order, Engine, EngineControl, EngineSettings, Report};
use sino_init::network::ports::CardRule;
use sino_init::network::state::{self, Origin};
use sino_init::network::world::Places;
use std::fs;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take here. Nothing waits for it but a trial that fails.
const LIMIT: Duration = Duration::from_secs(10);

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list && !rustix::process::geteuid().is_root() {
        eprintln!("root is needed; run: make check (it uses sudo), or this command with sudo");
        return ExitCode::FAILURE;
    }
    let trials = vec![
        trial("a_bridge_is_there_at_once_without_a_port", bridge_at_once),
        trial("a_card_becomes_the_port_when_its_carrier_comes", late_carrier),
        trial("of_two_cards_the_first_is_taken_and_never_both", first_of_two),
        trial("a_card_waits_until_udev_is_done", udev),
        trial("fixed_addresses_and_routes", fixed),
        trial("a_changed_configuration_changes_only_the_difference", reconfigured),
        trial("the_same_plan_twice_changes_nothing", same_plan),
        trial("a_new_supervisor_changes_nothing", restarted),
        trial("announcements_count_only_where_they_are_asked_for", announcements),
        trial("announced_addresses_come_and_go_with_the_configuration", announced),
        trial("guests_interfaces_are_left_alone", guests),
        trial("what_the_kernel_refuses_is_said_once_in_its_words", refused),
        trial("a_missing_cable_is_said_after_a_while", missing),
        trial("an_unmanaged_network_is_not_touched", unmanaged),
        trial("a_lease_gives_address_route_and_name_servers", lease),
        trial("a_kept_lease_is_asked_for_again", kept_lease),
        trial("a_lease_is_not_another_cards", lease_of_another_card),
        trial("a_lease_outlives_the_supervisor", lease_taken_over),
    ];
    // One after the other on this thread: each trial leaves the namespace of the one before it.
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials).exit_code()
}

fn trial(name: &str, run: fn(&mut Net) -> Outcome) -> Trial {
    Trial::test(name, move || run(&mut Net::new()?))
}

/// The namespace of a trial, with a switch.
struct Net {
    sysfs: OwnedFd,
    folder: tempfile::TempDir,
    switch: Child,
    kernel: Connection,
    server: Option<Child>,
    engine: Option<EngineControl>,
    reports: Vec<Report>,
}

impl Drop for Net {
    fn drop(&mut self) {
        self.stop_server();
        let _ = self.switch.kill();
        let _ = self.switch.wait();
    }
}

impl Net {
    fn new() -> Result<Self, Failed> {
        // SAFETY: only the network namespace is unshared; no file descriptor table or memory.
        #[allow(unsafe_code)]
        unsafe {
            rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
        }
        // The kernel's view of this namespace's links, without a mount that anybody else could see.
        let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let sysfs = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let mut switch = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}; install it: apt-get install util-linux"))?;
        // The namespace is there when the shell in it speaks.
        let mut ready = [0; 6];
        std::io::Read::read_exact(switch.stdout.as_mut().ok_or("no output")?, &mut ready)?;
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("udev"))?;
        Ok(Self { sysfs, folder, switch, kernel: Connection::open()?, server: None, engine: None, reports: Vec::new() })
    }

    fn settings(&self, config: &str) -> EngineSettings {
        let folder = self.folder.path();
        EngineSettings {
            network: toml::from_str(config).expect(config),
            cards: CardRule::AnyEthernet,
            places: Places {
                class: format!("/proc/self/fd/{}/class/net", self.sysfs.as_raw_fd()).into(),
                udev: folder.join("udev"),
            },
            udev_patience: Duration::ZERO,
            state: folder.join("network.json"),
            resolv_conf: folder.join("resolv.conf"),
            ..EngineSettings::default()
        }
    }

    fn start(&mut self, config: &str) -> Outcome {
        let settings = self.settings(config);
        self.start_with(settings)
    }

    fn start_with(&mut self, settings: EngineSettings) -> Outcome {
        let engine = Engine::start(settings)?;
        engine.tell(Order::BeginAddresses);
        self.engine = Some(engine);
        self.synchronise()
    }

    fn reconfigure(&mut self, config: &str) -> Outcome {
        let network: schema::Network = toml::from_str(config).expect(config);
        self.order(Order::Reconfigure(Box::new(network), None))?;
        self.synchronise()
    }

    fn order(&self, order: Order) -> Outcome {
        let engine = self.engine.as_ref().ok_or("no engine")?;
        if engine.tell(order) { Ok(()) } else { Err("the engine has ended".into()) }
    }

    /// Returns when the engine has nothing more to do for now: it has obeyed, and answered all events up to here.
    fn synchronise(&mut self) -> Outcome {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.order(Order::Answer(sender))?;
        receiver.recv_timeout(LIMIT).map_err(|_| "the engine does not answer")?;
        self.hear();
        Ok(())
    }

    fn hear(&mut self) {
        if let Some(reports) = self.engine.as_ref().and_then(EngineControl::take) {
            self.reports.extend(reports);
        }
    }

    /// Waits for a report.
    fn until(&mut self, what: &str, is_it: impl Fn(&Report) -> bool) -> Outcome {
        let end = Instant::now() + LIMIT;
        loop {
            self.hear();
            if self.reports.iter().any(&is_it) {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("no report of {what}: {:#?}", self.reports).into());
            }
            let ready = self.engine.as_ref().ok_or("no engine")?.ready();
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            poll(&mut [PollFd::from_borrowed_fd(ready, PollFlags::IN)], Some(&left))?;
        }
    }

    /// Stops the engine as a killed supervisor would: without a word to anybody.
    fn stop(&mut self) -> Outcome {
        self.order(Order::Stop)?;
        let end = Instant::now() + LIMIT;
        while self.engine.as_ref().is_some_and(|engine| engine.take().is_some()) {
            if Instant::now() > end {
                return Err("the engine does not end".into());
            }
            std::thread::yield_now();
        }
        self.engine = None;
        self.reports.clear();
        Ok(())
    }

    fn chosen(&self) -> Vec<&str> {
        self.reports
            .iter()
            .filter_map(|report| match report {
                Report::PortChosen { port, .. } => Some(port.as_str()),
                _ => None,
            })
            .collect()
    }

    fn warnings(&self) -> Vec<&str> {
        self.reports
            .iter()
            .filter_map(|report| match report {
                Report::Say { text, warning: true } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Makes a card with its cable in the switch; `plugged`: it has a carrier once it is up.
    fn card(&self, name: &str, plugged: bool) -> Outcome {
        let peer = format!("p-{name}");
        let switch = self.switch.id().to_string();
        ip(&["link", "add", name, "type", "veth", "peer", "name", &peer, "netns", &switch])?;
        if plugged { self.plug(name, true) } else { Ok(()) }
    }

    fn plug(&self, name: &str, plugged: bool) -> Outcome {
        let word = if plugged { "up" } else { "down" };
        self.at_switch(&["ip", "link", "set", &format!("p-{name}"), word])
    }

    fn at_switch(&self, arguments: &[&str]) -> Outcome {
        let net = format!("--net=/proc/{}/ns/net", self.switch.id());
        run(Command::new("nsenter").arg(net).args(arguments), "util-linux")
    }

    /// Starts a DHCP server at the switch's end of a card's cable.
    fn serve(&mut self, card: &str, lease_s: u32, more: &[&str]) -> Outcome {
        self.at_switch(&["ip", "address", "add", "192.0.2.1/24", "dev", &format!("p-{card}")])?;
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let net = format!("--net=/proc/{}/ns/net", self.switch.id());
        let server = Command::new("nsenter")
            .args([&net, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--bind-interfaces"])
            .args(["--user=root", "--dhcp-authoritative", "--no-ping", "--leasefile-ro"])
            .arg(format!("--interface=p-{card}"))
            .arg(format!("--pid-file={}", file("dnsmasq.pid")))
            .arg(format!("--log-facility={}", file("dnsmasq.log")))
            .arg(format!("--dhcp-range=192.0.2.100,192.0.2.200,255.255.255.0,{lease_s}"))
            .args(["--dhcp-option=6,192.0.2.53", "--dhcp-option=15,lan.example", "--dhcp-option=26,1400"])
            .arg("--dhcp-option=121,0.0.0.0/0,192.0.2.1,10.0.0.0/8,192.0.2.2,203.0.113.0/24,198.51.100.1")
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("nsenter: {error}; install it: apt-get install util-linux"))?;
        let server = self.server.insert(server);
        let end = Instant::now() + LIMIT;
        let log = self.folder.path().join("dnsmasq.log");
        while !fs::read_to_string(&log).is_ok_and(|text| text.contains("DHCP, IP range")) {
            if server.try_wait()?.is_some() || Instant::now() > end {
                return Err("dnsmasq does not start; install it: apt-get install dnsmasq-base".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn stop_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    fn link(&mut self, name: &str) -> Result<Link, Failed> {
        let links = self.kernel.links()?;
        links.into_iter().find(|link| link.name == name).ok_or_else(|| format!("there is no {name}").into())
    }

    /// The names of a link's ports.
    fn ports(&mut self, bridge: &str) -> Result<Vec<String>, Failed> {
        let index = self.link(bridge)?.index;
        Ok(self.kernel.links()?.into_iter().filter(|link| link.master == Some(index)).map(|link| link.name).collect())
    }

    /// Addresses but for link-local ones, in order.
    fn addresses(&mut self, link: &str) -> Result<Vec<String>, Failed> {
        let index = self.link(link)?.index;
        let addresses = self.kernel.addresses()?;
        let here = addresses.into_iter().filter(|address| address.index == index && !address.link_local);
        let mut texts: Vec<String> = here.map(|address| format!("{}/{}", address.address, address.prefix)).collect();
        texts.sort();
        Ok(texts)
    }

    /// Routes with a router, in order.
    fn routes(&mut self) -> Result<Vec<String>, Failed> {
        let routes = self.kernel.routes()?;
        let text = |route: sino_init::netlink::Route| {
            Some(format!("{}/{} via {}", route.destination, route.prefix, route.gateway?))
        };
        let mut texts: Vec<String> = routes.into_iter().filter_map(text).collect();
        texts.sort();
        Ok(texts)
    }

    fn bridge_attribute(&self, bridge: &str, name: &str) -> Result<String, Failed> {
        let path = self.settings("").places.class.join(bridge).join("bridge").join(name);
        Ok(fs::read_to_string(path)?.trim().to_owned())
    }
}

fn ip(arguments: &[&str]) -> Outcome {
    run(Command::new("ip").args(arguments), "iproute2")
}

fn run(command: &mut Command, package: &str) -> Outcome {
    let output =
        command.output().map_err(|error| format!("{command:?}: {error}; install it: apt-get install {package}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

fn setting(path: &str) -> Result<String, Failed> {
    Ok(fs::read_to_string(format!("/proc/sys/net/{path}"))?.trim().to_owned())
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, wanted: &T) -> Outcome {
    if seen == wanted { Ok(()) } else { Err(format!("{what}: {seen:?} instead of {wanted:?}").into()) }
}

fn bridge_at_once(net: &mut Net) -> Outcome {
    net.start("")?;
    net.until("the bridge", |report| matches!(report, Report::BridgeUp { bridge, .. } if bridge == "xenbr0"))?;
    let bridge = net.link("xenbr0")?;
    equal("kind and state", &(bridge.kind.as_deref(), bridge.up), &(Some("bridge"), true))?;
    equal("spanning tree", &net.bridge_attribute("xenbr0", "stp_state")?, &"0".to_owned())?;
    equal("forward delay", &net.bridge_attribute("xenbr0", "forward_delay")?, &"0".to_owned())?;
    equal("warnings", &net.warnings(), &Vec::new())
}

fn late_carrier(net: &mut Net) -> Outcome {
    net.card("eth0", false)?;
    net.start("")?;
    equal("ports", &net.ports("xenbr0")?, &Vec::new())?;
    equal("eth0 is up", &net.link("eth0")?.up, &true)?;
    net.plug("eth0", true)?;
    net.until("the port", |report| matches!(report, Report::PortChosen { port, .. } if port == "eth0"))?;
    net.synchronise()?;
    equal("ports", &net.ports("xenbr0")?, &vec!["eth0".to_owned()])?;
    equal("MAC address", &net.link("xenbr0")?.mac, &net.link("eth0")?.mac)?;
    equal("IPv6 on the port", &setting("ipv6/conf/eth0/disable_ipv6")?, &"1".to_owned())?;
    let state = state::read(&net.folder.path().join("network.json"))?.ok_or("no state")?;
    let port = &state.bridges["xenbr0"].ports[0];
    equal("recorded port", &(port.name.as_str(), port.carrier, port.automatic), &("eth0", true, true))?;
    equal("made", &state.made.links.into_iter().collect(), &vec!["xenbr0".to_owned()])?;
    // udev may come late and give the port another name.
    ip(&["link", "set", "eth0", "name", "enp1s0"])?;
    net.synchronise()?;
    equal("ports", &net.ports("xenbr0")?, &vec!["enp1s0".to_owned()])?;
    equal("choices", &net.chosen(), &vec!["eth0"])?;
    net.reconfigure("[bridge.xenbr0]\nports = []\n")?;
    equal("ports", &net.ports("xenbr0")?, &Vec::new())
}

fn first_of_two(net: &mut Net) -> Outcome {
    for name in ["eth10", "eth9"] {
        net.card(name, true)?;
        // Both are up before the choice, so that both have a carrier at it.
        ip(&["link", "set", name, "up"])?;
    }
    net.start("")?;
    equal("ports", &net.ports("xenbr0")?, &vec!["eth9".to_owned()])?;
    net.plug("eth9", false)?;
    net.synchronise()?;
    equal("ports without a carrier", &net.ports("xenbr0")?, &vec!["eth9".to_owned()])?;
    // The card itself goes: now the other one is taken.
    ip(&["link", "delete", "eth9"])?;
    net.until("the other port", |report| matches!(report, Report::PortChosen { port, .. } if port == "eth10"))?;
    net.synchronise()?;
    equal("ports", &net.ports("xenbr0")?, &vec!["eth10".to_owned()])?;
    equal("MAC address", &net.link("xenbr0")?.mac, &net.link("eth10")?.mac)?;
    // And it stays when the first one comes back.
    net.card("eth9", true)?;
    net.synchronise()?;
    equal("ports", &net.ports("xenbr0")?, &vec!["eth10".to_owned()])?;
    equal("choices", &net.chosen(), &vec!["eth9", "eth10"])
}

fn udev(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    net.card("eth1", true)?;
    let index = net.link("eth1")?.index;
    fs::write(net.folder.path().join("udev").join(format!("n{index}")), "")?;
    let patience = Duration::from_secs(3600);
    net.start_with(EngineSettings { udev_patience: patience, ..net.settings("") })?;
    net.until("the port", |report| matches!(report, Report::PortChosen { port, .. } if port == "eth1"))?;
    equal("eth0 is up", &net.link("eth0")?.up, &false)?;
    net.stop()?;
    ip(&["link", "delete", "xenbr0"])?;
    ip(&["link", "delete", "eth1"])?;
    // Without udev it goes on after the time it is given.
    net.start_with(EngineSettings { udev_patience: Duration::from_millis(300), ..net.settings("") })?;
    equal("choices", &net.chosen(), &Vec::new())?;
    net.until("the port", |report| matches!(report, Report::PortChosen { port, .. } if port == "eth0"))
}

const FIXED: &str = r#"
    dns = ["192.0.2.53"]
    search = ["example.org"]
    [bridge.xenbr0]
    ports = ["eth0"]
    addresses = ["192.0.2.5/24", "198.51.100.5/24", "2001:db8::5/64"]
    gateways = ["192.0.2.1", "fe80::1"]
    routes = ["10.0.0.0/8 via 192.0.2.2", "2001:db8:1::/48 via 2001:db8::2", "203.0.113.0/24 via 10.9.9.9"]
    mtu = 1400
    mac = "00:16:3e:00:00:05"
"#;

fn fixed(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    net.start(FIXED)?;
    equal("warnings", &net.warnings(), &Vec::new())?;
    equal("ports", &net.ports("xenbr0")?, &vec!["eth0".to_owned()])?;
    let wanted = ["192.0.2.5/24", "198.51.100.5/24", "2001:db8::5/64"].map(str::to_owned).to_vec();
    equal("addresses", &net.addresses("xenbr0")?, &wanted)?;
    let wanted = [
        "0.0.0.0/0 via 192.0.2.1",
        "10.0.0.0/8 via 192.0.2.2",
        "2001:db8:1::/48 via 2001:db8::2",
        "203.0.113.0/24 via 10.9.9.9",
        "::/0 via fe80::1",
    ];
    equal("routes", &net.routes()?, &wanted.map(str::to_owned).to_vec())?;
    let bridge = net.link("xenbr0")?;
    equal("MTU and MAC address", &(bridge.mtu, bridge.mac), &(1400, Some([0, 0x16, 0x3e, 0, 0, 5])))?;
    equal("MTU of the port", &net.link("eth0")?.mtu, &1400)?;
    let text = fs::read_to_string(net.folder.path().join("resolv.conf"))?;
    equal("resolv.conf", &text.lines().skip(1).collect(), &vec!["nameserver 192.0.2.53", "search example.org"])?;
    let state = state::read(&net.folder.path().join("network.json"))?.ok_or("no state")?;
    let bridge = &state.bridges["xenbr0"];
    equal("origins", &bridge.addresses.iter().all(|address| address.origin == Origin::Static), &true)?;
    equal("gateways", &bridge.gateways, &vec!["192.0.2.1".parse()?, "fe80::1".parse()?])
}

fn reconfigured(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    net.card("eth1", true)?;
    net.start(FIXED)?;
    // Somebody else's address and route stay.
    ip(&["address", "add", "172.16.0.1/24", "dev", "xenbr0"])?;
    ip(&["route", "add", "172.17.0.0/16", "via", "172.16.0.2"])?;
    net.synchronise()?;
    let log = net.folder.path().join("monitor");
    let mut monitor =
        Command::new("ip").args(["-o", "monitor", "address", "link"]).stdout(fs::File::create(&log)?).spawn()?;
    // The monitor hears when it tells of a link that is made for it.
    let heard = |word: &str| fs::read_to_string(&log).is_ok_and(|text| text.contains(word));
    let end = Instant::now() + LIMIT;
    while !heard("probe") && Instant::now() < end {
        let _ = ip(&["link", "add", "probe", "type", "bridge"]);
        ip(&["link", "delete", "probe"])?;
    }
    let before = fs::read_to_string(&log)?.len();
    net.reconfigure(
        &FIXED
            .replace("\"198.51.100.5/24\"", "\"198.51.100.6/24\"")
            .replace("10.0.0.0/8 via 192.0.2.2", "10.0.0.0/8 via 192.0.2.3")
            .replace("mtu = 1400", ""),
    )?;
    ip(&["link", "add", "last", "type", "bridge"])?;
    while !heard("last") && Instant::now() < end {
        std::thread::yield_now();
    }
    let _ = monitor.kill();
    monitor.wait()?;
    let wanted = ["172.16.0.1/24", "192.0.2.5/24", "198.51.100.6/24", "2001:db8::5/64"].map(str::to_owned).to_vec();
    equal("addresses", &net.addresses("xenbr0")?, &wanted)?;
    let routes = net.routes()?;
    for wanted in ["10.0.0.0/8 via 192.0.2.3", "172.17.0.0/16 via 172.16.0.2", "0.0.0.0/0 via 192.0.2.1"] {
        equal(wanted, &routes.iter().any(|route| route == wanted), &true)?;
    }
    equal("routes", &routes.len(), &6)?;
    equal("MTU", &(net.link("xenbr0")?.mtu, net.link("eth0")?.mtu), &(1500, 1500))?;
    let log = fs::read_to_string(&log)?;
    let seen = log[before..].lines().filter(|line| !line.contains(" last: ")).collect::<Vec<_>>().join("\n");
    for kept in ["192.0.2.5", "2001:db8::5", "172.16.0.1", "state DOWN"] {
        equal(&format!("{kept} in\n{seen}"), &seen.contains(kept), &false)?;
    }
    equal(&seen, &(seen.matches("Deleted").count(), seen.contains("198.51.100.6")), &(1, true))?;
    // Another port, and a second bridge that comes and goes.
    net.reconfigure(&(FIXED.replace("eth0", "eth1") + "[bridge.lan]\nports = [\"eth0\"]\n"))?;
    equal("ports", &(net.ports("xenbr0")?, net.ports("lan")?), &(vec!["eth1".into()], vec!["eth0".into()]))?;
    equal("IPv6 of the host on lan", &setting("ipv6/conf/lan/disable_ipv6")?, &"1".to_owned())?;
    net.reconfigure(FIXED)?;
    equal("ports", &net.ports("xenbr0")?, &vec!["eth0".to_owned()])?;
    equal("lan is gone", &net.link("lan").is_err(), &true)
}

/// Whether the kernel tells of any change while `act` is done.
fn silent(net: &mut Net, act: impl FnOnce(&mut Net) -> Outcome) -> Outcome {
    let mut events = Events::of_everything()?;
    act(net)?;
    net.synchronise()?;
    equal("events", &events.drain()?, &0)
}

fn same_plan(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    net.start(FIXED)?;
    settle(net)?;
    silent(net, |net| net.reconfigure(FIXED))
}

/// Waits until IPv6 has found its addresses to be nobody else's: that is told as a change.
fn settle(net: &mut Net) -> Outcome {
    let end = Instant::now() + LIMIT;
    loop {
        net.synchronise()?;
        let output = Command::new("ip").args(["-6", "address", "show", "tentative"]).output()?;
        if output.stdout.is_empty() {
            break;
        }
        if Instant::now() > end {
            return Err("IPv6 addresses stay tentative".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    net.synchronise()
}

fn restarted(net: &mut Net) -> Outcome {
    for name in ["eth0", "eth1"] {
        net.card(name, true)?;
    }
    let config = "[bridge.xenbr0]\naddresses = [\"192.0.2.5/24\", \"2001:db8::5/64\"]\ngateways = [\"192.0.2.1\"]\n";
    net.start(config)?;
    net.until("the port", |report| matches!(report, Report::PortChosen { .. }))?;
    settle(net)?;
    let port = net.ports("xenbr0")?;
    let before = fs::read_to_string(net.folder.path().join("network.json"))?;
    net.stop()?;
    silent(net, |net| net.start(config))?;
    equal("ports", &net.ports("xenbr0")?, &port)?;
    equal("choices", &net.chosen(), &Vec::new())?;
    equal("network.json", &fs::read_to_string(net.folder.path().join("network.json"))?, &before)?;
    // What the engine before it made is still known to be ours.
    net.reconfigure("[bridge.xenbr0]\naddresses = []\n")?;
    equal("addresses", &net.addresses("xenbr0")?, &Vec::new())
}

fn announcements(net: &mut Net) -> Outcome {
    net.start("[bridge.xenbr0]\naddresses = [\"dhcp\"]\n[bridge.lan]\naddresses = [\"slaac\"]\n")?;
    let settings = |bridge: &str| -> Result<(String, String), Failed> {
        let of = |name: &str| setting(&format!("ipv6/conf/{bridge}/{name}"));
        Ok((of("accept_ra")?, of("autoconf")?))
    };
    equal("xenbr0", &settings("xenbr0")?, &("0".into(), "0".into()))?;
    equal("lan", &settings("lan")?, &("2".into(), "1".into()))
}

fn announced(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    net.at_switch(&["ip", "address", "add", "2001:db8:5::1/64", "dev", "p-eth0", "nodad"])?;
    net.serve("eth0", 600, &["--enable-ra", "--dhcp-range=2001:db8:5::,ra-only"])?;
    net.start("[bridge.xenbr0]\naddresses = [\"slaac\"]\n")?;
    net.until("the address", |report| match report {
        Report::Changed(state) => {
            let mut addresses = state.bridges["xenbr0"].addresses.iter();
            addresses.any(|address| address.origin == Origin::Slaac && address.address.starts_with("2001:db8:5:"))
        }
        _ => false,
    })?;
    let default = |net: &mut Net| -> Result<usize, Failed> {
        Ok(net.kernel.routes()?.iter().filter(|route| route.prefix == 0 && route.destination.is_ipv6()).count())
    };
    net.synchronise()?;
    equal("default routes", &default(net)?, &1)?;
    net.reconfigure("[bridge.xenbr0]\naddresses = [\"192.0.2.5/24\"]\n")?;
    equal("addresses", &net.addresses("xenbr0")?, &vec!["192.0.2.5/24".to_owned()])?;
    equal("default routes", &default(net)?, &0)
}

fn guests(net: &mut Net) -> Outcome {
    for name in ["eth0", "eth1", "vif1.0", "vif2.0"] {
        net.card(name, true)?;
    }
    net.start("[bridge.xenbr0]\nports = [\"eth0\"]\n[bridge.lan]\nports = [\"eth1\"]\n")?;
    ip(&["link", "set", "vif1.0", "master", "xenbr0", "mtu", "1450", "up"])?;
    ip(&["link", "set", "vif2.0", "master", "lan"])?;
    net.synchronise()?;
    net.reconfigure("[bridge.xenbr0]\nports = [\"eth1\"]\nmtu = 1300\n")?;
    let vif = net.link("vif1.0")?;
    equal("the guest's interface", &(vif.mtu, vif.up, net.link("vif2.0")?.up), &(1450, true, false))?;
    let mut ports = net.ports("xenbr0")?;
    ports.sort();
    equal("ports", &ports, &vec!["eth1".to_owned(), "vif1.0".to_owned()])?;
    equal("MAC address", &net.link("xenbr0")?.mac, &net.link("eth1")?.mac)?;
    // Its bridge stays for the guest's sake, and goes after it.
    equal("lan", &net.ports("lan")?, &vec!["vif2.0".to_owned()])?;
    equal("warning", &net.warnings().iter().any(|text| text.contains("guests are on it (vif2.0)")), &true)?;
    ip(&["link", "delete", "vif2.0"])?;
    net.synchronise()?;
    equal("lan is gone", &net.link("lan").is_err(), &true)
}

fn refused(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    ip(&["link", "add", "lan", "type", "veth", "peer", "name", "other"])?;
    // The router is the broadcast address, and a bridge's name is taken.
    let config = "[bridge.xenbr0]\nports = [\"eth0\"]\naddresses = [\"192.0.2.5/24\"]\ngateways = [\"192.0.2.255\"]\n[bridge.lan]\n";
    net.start(config)?;
    for part in [
        "xenbr0: adding route 0.0.0.0/0 via 192.0.2.255: Invalid argument",
        "because: Nexthop has invalid gateway",
        "there is a veth of this name",
    ] {
        let count = net.warnings().iter().filter(|text| text.contains(part)).count();
        equal(&format!("{part} in {:?}", net.warnings()), &count, &1)?;
    }
    net.plug("eth0", false)?;
    net.synchronise()?;
    let lost = net.warnings().iter().filter(|text| text.contains("eth0 has lost its carrier")).count();
    equal("warnings", &(net.warnings().len(), lost), &(3, 1))?;
    equal("addresses", &net.addresses("xenbr0")?, &vec!["192.0.2.5/24".to_owned()])?;
    // When the reason goes, so does the trouble.
    ip(&["link", "delete", "lan"])?;
    net.reconfigure(&config.replace("gateways = [\"192.0.2.255\"]", "gateways = [\"192.0.2.1\"]"))?;
    let state = state::read(&net.folder.path().join("network.json"))?.ok_or("no state")?;
    equal("troubles", &state.warnings, &Vec::new())
}

fn missing(net: &mut Net) -> Outcome {
    net.card("eth0", false)?;
    net.start_with(EngineSettings { missing_patience: Duration::from_millis(500), ..net.settings("") })?;
    equal("warnings", &net.warnings(), &Vec::new())?;
    let state = state::read(&net.folder.path().join("network.json"))?.ok_or("no state")?;
    equal("in the state at once", &state.warnings.len(), &1)?;
    net.until(
        "the cable",
        |report| matches!(report, Report::Say { text, warning: true } if text.contains("none of eth0 has a carrier")),
    )?;
    net.plug("eth0", true)?;
    net.until("the port", |report| matches!(report, Report::PortChosen { .. }))?;
    net.reconfigure("[bridge.xenbr0]\nports = [\"eth7\"]\n")?;
    equal("no card", &net.warnings().iter().any(|text| text.contains("no network card eth7")), &true)
}

/// How often the engine's thread has gone to sleep.
fn sleeps() -> Result<u64, Failed> {
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "network") {
            let status = fs::read_to_string(path.join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            return Ok(line.ok_or("no count")?.trim().parse()?);
        }
    }
    Err("the engine has no thread".into())
}

fn unmanaged(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    silent(net, |net| {
        net.start("managed = false\n")?;
        net.synchronise()
    })?;
    equal("eth0 is up", &net.link("eth0")?.up, &false)?;
    let said =
        net.reports.iter().filter(|report| matches!(report, Report::Say { text, .. } if text.contains("managed")));
    equal("said", &said.count(), &1)
}

fn lease(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    net.serve("eth0", 600, &[])?;
    // Nothing is asked before the configuration is complete.
    let settings = net.settings("");
    net.engine = Some(Engine::start(settings)?);
    net.until("the port", |report| matches!(report, Report::PortChosen { .. }))?;
    net.synchronise()?;
    equal("resolv.conf", &net.folder.path().join("resolv.conf").exists(), &false)?;
    let begun = Instant::now();
    net.order(Order::BeginAddresses)?;
    net.until("the lease", |report| matches!(report, Report::Addressed { .. }))?;
    // A first question that is lost is repeated after three seconds at the soonest.
    equal("the first question was answered", &(begun.elapsed() < Duration::from_secs(3)), &true)?;
    net.synchronise()?;
    let index = net.link("xenbr0")?.index;
    let addresses = net.kernel.addresses()?;
    let mut leased = addresses.iter().filter(|address| address.index == index && address.address.is_ipv4());
    let address = leased.next().ok_or("no address")?;
    let valid = address.valid_s.is_some_and(|seconds| (590..=600).contains(&seconds));
    equal("prefix and lifetime", &(address.prefix, valid), &(24, true))?;
    let routes = ["0.0.0.0/0 via 192.0.2.1", "10.0.0.0/8 via 192.0.2.2", "203.0.113.0/24 via 198.51.100.1"];
    equal("routes", &net.routes()?, &routes.map(str::to_owned).to_vec())?;
    equal("MTU", &(net.link("xenbr0")?.mtu, net.link("eth0")?.mtu), &(1400, 1500))?;
    let text = fs::read_to_string(net.folder.path().join("resolv.conf"))?;
    equal("resolv.conf", &text.lines().skip(1).collect(), &vec!["nameserver 192.0.2.53", "search lan.example"])?;
    let state = state::read(&net.folder.path().join("network.json"))?.ok_or("no state")?;
    let bridge = &state.bridges["xenbr0"];
    equal("origin", &bridge.addresses.first().map(|address| address.origin), &Some(Origin::Dhcp))?;
    equal("lease and state", &(bridge.lease.is_some(), bridge.dhcp.as_deref()), &(true, Some("bound")))?;
    // With that done it sleeps.
    settle(net)?;
    let end = Instant::now() + LIMIT;
    loop {
        let before = sleeps()?;
        std::thread::sleep(Duration::from_millis(700));
        if sleeps()? == before {
            break;
        }
        equal("it wakes without a cause", &(Instant::now() > end), &false)?;
    }
    // Another name of the host leaves the lease alone.
    let network = Box::new(toml::from_str("")?);
    silent(net, |net| net.order(Order::Reconfigure(network, Some("other".to_owned()))))?;
    // A fixed address instead of the lease takes all of that away.
    net.reconfigure("[bridge.xenbr0]\naddresses = [\"192.0.2.5/24\"]\n")?;
    equal("addresses", &net.addresses("xenbr0")?, &vec!["192.0.2.5/24".to_owned()])?;
    equal("routes", &net.routes()?, &Vec::new())?;
    equal("MTU", &net.link("xenbr0")?.mtu, &1500)
}

fn kept_lease(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    net.serve("eth0", 600, &[])?;
    let kept: Lease = serde_json::from_value(serde_json::json!({
        "address": "192.0.2.150", "prefix": 24, "routers": [], "routes": [], "dns": [], "domain": null, "search": [],
        "hostname": null, "ntp": [], "mtu": null, "server": "192.0.2.1", "obtained_at": u64::MAX / 2, "began": 5,
        "lease_s": 600, "renew_s": 300, "rebind_s": 500,
    }))?;
    let settings = net.settings("");
    net.engine = Some(Engine::start(settings)?);
    net.order(Order::KnownLease([("xenbr0".to_owned(), kept)].into()))?;
    net.order(Order::BeginAddresses)?;
    net.until("the lease", |report| matches!(report, Report::Addressed { .. }))?;
    net.synchronise()?;
    equal("addresses", &net.addresses("xenbr0")?, &vec!["192.0.2.150/24".to_owned()])
}

fn lease_of_another_card(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    net.serve("eth0", 600, &[])?;
    net.start("")?;
    net.until("the lease", |report| matches!(report, Report::Addressed { .. }))?;
    net.synchronise()?;
    equal("addresses", &net.addresses("xenbr0")?.len(), &1)?;
    net.card("eth1", true)?;
    ip(&["link", "delete", "eth0"])?;
    net.until("the other port", |report| matches!(report, Report::PortChosen { port, .. } if port == "eth1"))?;
    // Nobody answers on its cable.
    let end = Instant::now() + LIMIT;
    while !net.addresses("xenbr0")?.is_empty() {
        net.synchronise()?;
        equal("the address of the first card stays", &(Instant::now() > end), &false)?;
    }
    equal("routes", &net.routes()?, &Vec::new())
}

fn lease_taken_over(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    net.serve("eth0", 600, &[])?;
    net.start("")?;
    net.until("the lease", |report| matches!(report, Report::Addressed { .. }))?;
    settle(net)?;
    let before = fs::read_to_string(net.folder.path().join("network.json"))?;
    net.stop()?;
    // There is no server to be asked, and none is needed.
    net.stop_server();
    silent(net, |net| net.start(""))?;
    equal("network.json", &fs::read_to_string(net.folder.path().join("network.json"))?, &before)?;
    net.reconfigure("[bridge.xenbr0]\naddresses = []\n")?;
    equal("addresses", &net.addresses("xenbr0")?, &Vec::new())
}
