//! Leases, from a dnsmasq at the other end of the cable.

use super::net::{Net, equal, ip};
use super::{LIMIT, Outcome, settle, silent};
use libtest_mimic::Failed;
use sino_init::dhcp::lease::Lease;
use sino_init::network::engine::{Command as Order, Engine, Report};
use sino_init::network::state::{self, Origin};
use std::fs;
use std::time::{Duration, Instant};

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

pub(super) fn lease(net: &mut Net) -> Outcome {
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

pub(super) fn kept_lease(net: &mut Net) -> Outcome {
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

pub(super) fn lease_of_another_card(net: &mut Net) -> Outcome {
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

pub(super) fn lease_taken_over(net: &mut Net) -> Outcome {
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

pub(super) fn claimed(net: &mut Net) -> Outcome {
    net.card("eth0", true)?;
    net.serve("eth0", 600, &[])?;
    net.start("")?;
    net.until("the lease", |report| matches!(report, Report::Addressed { .. }))?;
    net.synchronise()?;
    let address = net.addresses("xenbr0")?.first().cloned().ok_or("no address")?;
    let claim = "ip address add $0 dev p-eth0 && echo 1 > /proc/sys/net/ipv4/conf/p-eth0/arp_notify && \
                 ip link set p-eth0 address 02:00:00:00:00:99";
    net.at_switch(&["sh", "-c", claim, &address])?;
    let wanted = format!("xenbr0: {} is also claimed by 02:00:00:00:00:99", address.trim_end_matches("/24"));
    let told = |report: &Report| match report {
        Report::Changed(state) => state.warnings.iter().any(|warning| warning.starts_with(&wanted)),
        _ => false,
    };
    net.until("the other host", told)?;
    net.synchronise()?;
    equal("addresses", &net.addresses("xenbr0")?, &vec![address])
}
