//! The network engine against the real kernel, each trial in a network namespace of its own.
//!
//! Needs root, `ip` (iproute2), `unshare` and `nsenter` (util-linux) and dnsmasq; what is missing fails with its remedy. Veth links
//! stand for network cards; their other ends are in a second namespace, which is the switch.

#[path = "network_namespace/engine_process.rs"]
mod engine_process;
#[path = "network_namespace/killed.rs"]
mod killed;
#[path = "network_namespace/leases.rs"]
mod leases;
#[path = "network_namespace/net.rs"]
mod net;
#[path = "network_namespace/played_server.rs"]
mod played_server;

use libtest_mimic::{Arguments, Failed, Trial};
use net::{Net, equal, ip, setting};
use sino_init::netlink::Events;
use sino_init::network::engine::{EngineSettings, Report};
use sino_init::network::state::{self, Origin};
use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// How long anything may take here. Nothing waits for it but a trial that fails.
const LIMIT: Duration = Duration::from_secs(10);

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let Some((engine_process::WORD, rest)) = given.split_first().map(|(word, rest)| (word.as_str(), rest)) {
        return match engine_process::run(rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
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
        trial("a_neighbour_that_knew_a_fixed_address_elsewhere_is_told", told),
        trial("a_changed_configuration_changes_only_the_difference", reconfigured),
        trial("the_same_plan_twice_changes_nothing", same_plan),
        trial("a_new_supervisor_changes_nothing", restarted),
        trial("announcements_count_only_where_they_are_asked_for", announcements),
        trial("announced_addresses_come_and_go_with_the_configuration", announced),
        trial("guests_interfaces_are_left_alone", guests),
        trial("many_guests_that_come_and_go_change_nothing", many_guests),
        trial("what_the_kernel_refuses_is_said_once_in_its_words", refused),
        trial("a_missing_cable_is_said_after_a_while", missing),
        trial("an_unmanaged_network_is_not_touched", unmanaged),
        trial("a_lease_gives_address_route_and_name_servers", leases::lease),
        trial("a_kept_lease_is_asked_for_again", leases::kept_lease),
        trial("a_lease_is_not_another_cards", leases::lease_of_another_card),
        trial("a_lease_outlives_the_supervisor", leases::lease_taken_over),
        trial("another_host_that_claims_the_address_is_named_in_the_state", leases::claimed),
        trial("killed_while_it_looks_for_a_server", killed::selecting),
        trial("killed_while_it_asks_for_an_offer", killed::requesting),
        trial("killed_while_it_probes_the_address", killed::probing),
        trial("killed_while_it_probes_an_address_that_is_taken_then", killed::probing_a_taken_address),
        trial("killed_while_it_has_a_lease", killed::in_use),
        trial("killed_while_it_renews", killed::renewing),
        trial("killed_while_it_asks_every_server", killed::rebinding),
        trial("killed_while_it_asks_for_the_last_address", killed::rebooting),
        trial("killed_while_it_verifies_the_lease", killed::verifying),
        trial("killed_and_away_until_the_lease_is_over", killed::expired),
    ];
    // One after the other on this thread: each trial leaves the namespace of the one before it.
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials).exit_code()
}

fn trial(name: &str, run: fn(&mut Net) -> Outcome) -> Trial {
    Trial::test(name, move || run(&mut Net::new()?))
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

/// The neighbour asks nothing: it only has what it knew before, and hears.
fn told(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    let knows = "ip address add 192.0.2.1/24 dev p-eth0 && \
                 ip neighbour replace 192.0.2.5 lladdr 02:00:00:00:00:99 dev p-eth0 nud stale";
    net.at_switch(&["sh", "-c", knows])?;
    net.start(FIXED)?;
    let hears = |mac: &str| {
        format!("timeout 10 sh -c 'until ip neighbour show 192.0.2.5 dev p-eth0 | grep -q {mac}; do sleep 0.1; done'")
    };
    net.at_switch(&["sh", "-c", &hears("00:16:3e:00:00:05")])?;
    net.reconfigure(&FIXED.replace("00:16:3e:00:00:05", "00:16:3e:00:00:06"))?;
    net.at_switch(&["sh", "-c", &hears("00:16:3e:00:00:06")])
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
    let servers = "--dhcp-option=option6:dns-server,[2001:db8:5::53]";
    net.serve("eth0", 600, &["--enable-ra", "--dhcp-range=2001:db8:5::,ra-only", servers])?;
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
    let named = |report: &Report| matches!(report, Report::Changed(state) if state.dns == ["2001:db8:5::53".parse::<std::net::IpAddr>().unwrap()]);
    net.until("the name server", named)?;
    net.synchronise()?;
    let resolv_conf = net.folder.path().join("resolv.conf");
    let servers = || -> Result<usize, Failed> {
        Ok(fs::read_to_string(&resolv_conf)?.matches("nameserver 2001:db8:5::53").count())
    };
    equal("resolv.conf", &servers()?, &1)?;
    // The next supervisor does not wait for the next announcement.
    net.stop()?;
    net.stop_server();
    net.start("[bridge.xenbr0]\naddresses = [\"slaac\"]\n")?;
    equal("resolv.conf", &servers()?, &1)?;
    net.reconfigure("[bridge.xenbr0]\naddresses = [\"192.0.2.5/24\"]\n")?;
    equal("addresses", &net.addresses("xenbr0")?, &vec!["192.0.2.5/24".to_owned()])?;
    equal("default routes", &default(net)?, &0)?;
    equal("resolv.conf", &servers()?, &0)
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

fn many_guests(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    net.start(FIXED)?;
    settle(net)?;
    let file = net.folder.path().join("network.json");
    let (before, mac) = (fs::read_to_string(&file)?, net.link("xenbr0")?.mac);
    let comes = (1..=100).flat_map(|number| {
        [
            format!("link add vif{number}.0 type veth peer name g{number}"),
            format!("link set vif{number}.0 address 00:00:00:00:00:01 master xenbr0 up"),
            format!("link set g{number} up"),
        ]
    });
    let goes = (1..=50).map(|number| format!("link delete vif{number}.0"));
    let batch = comes.chain(goes).collect::<Vec<_>>().join("\n") + "\n";
    let path = net.folder.path().join("batch");
    fs::write(&path, batch)?;
    net.reports.clear();
    ip(&["-batch", &path.display().to_string()])?;
    net.synchronise()?;
    equal("reports", &net.reports, &Vec::new())?;
    equal("ports", &net.ports("xenbr0")?.len(), &51)?;
    equal("MAC address", &net.link("xenbr0")?.mac, &mac)?;
    equal("network.json", &fs::read_to_string(&file)?, &before)
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
