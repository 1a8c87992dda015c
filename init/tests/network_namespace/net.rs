//! A trial's namespace: cards with their cables in a switch, the engine, and what the kernel says.

use super::{LIMIT, Outcome};
use libtest_mimic::Failed;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::thread::UnshareFlags;
use sino_init::config::schema;
use sino_init::netlink::{Connection, Link};
use sino_init::network::engine::{Command as Order, Engine, EngineControl, EngineSettings, Report};
use sino_init::network::ports::CardRule;
use sino_init::network::world::Places;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The namespace of a trial, with a switch.
pub(super) struct Net {
    sysfs: OwnedFd,
    pub(super) folder: tempfile::TempDir,
    switch: Child,
    pub(super) kernel: Connection,
    server: Option<Child>,
    pub(super) engine: Option<EngineControl>,
    pub(super) reports: Vec<Report>,
}

impl Drop for Net {
    fn drop(&mut self) {
        // Before its folder goes: a file that it writes then would keep the folder.
        if self.engine.is_some() {
            let _ = self.stop();
        }
        self.stop_server();
        let _ = self.switch.kill();
        let _ = self.switch.wait();
    }
}

impl Net {
    pub(super) fn new() -> Result<Self, Failed> {
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

    pub(super) fn settings(&self, config: &str) -> EngineSettings {
        let class = format!("/proc/self/fd/{}/class/net", self.sysfs.as_raw_fd());
        settings(self.folder.path(), class.into(), config)
    }

    /// The folder of this namespace's links, for another process.
    pub(super) fn class_of_others(&self) -> PathBuf {
        format!("/proc/{}/fd/{}/class/net", std::process::id(), self.sysfs.as_raw_fd()).into()
    }

    /// A process in the switch's namespace.
    pub(super) fn switch_pid(&self) -> u32 {
        self.switch.id()
    }

    pub(super) fn start(&mut self, config: &str) -> Outcome {
        let settings = self.settings(config);
        self.start_with(settings)
    }

    pub(super) fn start_with(&mut self, settings: EngineSettings) -> Outcome {
        let engine = Engine::start(settings)?;
        engine.tell(Order::BeginAddresses);
        self.engine = Some(engine);
        self.synchronise()
    }

    pub(super) fn reconfigure(&mut self, config: &str) -> Outcome {
        let network: schema::Network = toml::from_str(config).expect(config);
        self.order(Order::Reconfigure(Box::new(network), None))?;
        self.synchronise()
    }

    pub(super) fn order(&self, order: Order) -> Outcome {
        let engine = self.engine.as_ref().ok_or("no engine")?;
        if engine.tell(order) { Ok(()) } else { Err("the engine has ended".into()) }
    }

    /// Returns when the engine has nothing more to do for now: it has obeyed, and answered all events up to here.
    pub(super) fn synchronise(&mut self) -> Outcome {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.order(Order::Answer(sender))?;
        receiver.recv_timeout(LIMIT).map_err(|_| "the engine does not answer")?;
        self.hear();
        Ok(())
    }

    pub(super) fn hear(&mut self) {
        if let Some(reports) = self.engine.as_ref().and_then(EngineControl::take) {
            self.reports.extend(reports);
        }
    }

    /// Waits for a report.
    pub(super) fn until(&mut self, what: &str, is_it: impl Fn(&Report) -> bool) -> Outcome {
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
            let left = Timespec::try_from(left)?;
            poll(&mut [PollFd::from_borrowed_fd(ready, PollFlags::IN)], Some(&left))?;
        }
    }

    /// Stops the engine as a killed supervisor would: without a word to anybody.
    pub(super) fn stop(&mut self) -> Outcome {
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

    pub(super) fn chosen(&self) -> Vec<&str> {
        self.reports
            .iter()
            .filter_map(|report| match report {
                Report::PortChosen { port, .. } => Some(port.as_str()),
                _ => None,
            })
            .collect()
    }

    pub(super) fn warnings(&self) -> Vec<&str> {
        self.reports
            .iter()
            .filter_map(|report| match report {
                Report::Say { text, warning: true } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Makes a card with its cable in the switch; `plugged`: it has a carrier once it is up.
    pub(super) fn card(&self, name: &str, plugged: bool) -> Outcome {
        let peer = format!("p-{name}");
        let switch = self.switch.id().to_string();
        ip(&["link", "add", name, "type", "veth", "peer", "name", &peer, "netns", &switch])?;
        if plugged { self.plug(name, true) } else { Ok(()) }
    }

    pub(super) fn plug(&self, name: &str, plugged: bool) -> Outcome {
        let word = if plugged { "up" } else { "down" };
        self.at_switch(&["ip", "link", "set", &format!("p-{name}"), word])
    }

    pub(super) fn at_switch(&self, arguments: &[&str]) -> Outcome {
        let net = format!("--net=/proc/{}/ns/net", self.switch.id());
        run(Command::new("nsenter").arg(net).args(arguments), "util-linux")
    }

    /// Starts a DHCP server at the switch's end of a card's cable.
    pub(super) fn serve(&mut self, card: &str, lease_s: u32, more: &[&str]) -> Outcome {
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

    pub(super) fn stop_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    pub(super) fn link(&mut self, name: &str) -> Result<Link, Failed> {
        let links = self.kernel.links()?;
        links.into_iter().find(|link| link.name == name).ok_or_else(|| format!("there is no {name}").into())
    }

    /// The names of a link's ports.
    pub(super) fn ports(&mut self, bridge: &str) -> Result<Vec<String>, Failed> {
        let index = self.link(bridge)?.index;
        Ok(self.kernel.links()?.into_iter().filter(|link| link.master == Some(index)).map(|link| link.name).collect())
    }

    /// Addresses but for link-local ones, in order.
    pub(super) fn addresses(&mut self, link: &str) -> Result<Vec<String>, Failed> {
        let index = self.link(link)?.index;
        let addresses = self.kernel.addresses()?;
        let here = addresses.into_iter().filter(|address| address.index == index && !address.link_local);
        let mut texts: Vec<String> = here.map(|address| format!("{}/{}", address.address, address.prefix)).collect();
        texts.sort();
        Ok(texts)
    }

    /// Routes with a router, in order.
    pub(super) fn routes(&mut self) -> Result<Vec<String>, Failed> {
        let routes = self.kernel.routes()?;
        let text = |route: sino_init::netlink::Route| {
            Some(format!("{}/{} via {}", route.destination, route.prefix, route.gateway?))
        };
        let mut texts: Vec<String> = routes.into_iter().filter_map(text).collect();
        texts.sort();
        Ok(texts)
    }

    pub(super) fn bridge_attribute(&self, bridge: &str, name: &str) -> Result<String, Failed> {
        let path = self.settings("").places.class.join(bridge).join("bridge").join(name);
        Ok(fs::read_to_string(path)?.trim().to_owned())
    }
}

/// An engine's settings whose files are in `folder`, and whose links are in `class`.
pub(super) fn settings(folder: &Path, class: PathBuf, config: &str) -> EngineSettings {
    EngineSettings {
        network: toml::from_str(config).expect(config),
        cards: CardRule::AnyEthernet,
        places: Places { class, udev: folder.join("udev") },
        udev_patience: Duration::ZERO,
        state: folder.join("network.json"),
        resolv_conf: folder.join("resolv.conf"),
        ..EngineSettings::default()
    }
}

pub(super) fn ip(arguments: &[&str]) -> Outcome {
    run(Command::new("ip").args(arguments), "iproute2")
}

pub(super) fn run(command: &mut Command, package: &str) -> Outcome {
    let output =
        command.output().map_err(|error| format!("{command:?}: {error}; install it: apt-get install {package}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

pub(super) fn setting(path: &str) -> Result<String, Failed> {
    Ok(fs::read_to_string(format!("/proc/sys/net/{path}"))?.trim().to_owned())
}

pub(super) fn equal<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, wanted: &T) -> Outcome {
    if seen == wanted { Ok(()) } else { Err(format!("{what}: {seen:?} instead of {wanted:?}").into()) }
}
