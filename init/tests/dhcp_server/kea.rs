//! The same questions to ISC's Kea, which differs from dnsmasq where a client notices: it allots addresses by its own order,
//! sends T1 and T2 as they are configured, does not probe, and keeps what was declined to itself.

use super::lab::{Lab, SERVER};
use super::{Outcome, acquire, address, ensure, same};
use sino_init::dhcp::{Event, LeaseRoute};
use std::time::Duration;

/// The server, where Debian has it.
pub(super) const PROGRAM: &str = "/usr/sbin/kea-dhcp4";
/// Lines of its log, at a level that has every message.
const DISCOVER: &str = "DHCPDISCOVER (type 1) received";
const REQUEST: &str = "DHCPREQUEST (type 3) received";
const DECLINE: &str = "DHCPDECLINE (type 4) received";
/// 10.9.0.254 as the default router, and 172.16.0.0/12 by 10.9.0.253 (RFC 3442), as bytes: how they are written as text
/// has changed between Kea's releases.
const ROUTES: &str = "000a0900fe0cac100a0900fd";

/// Starts Kea, in the place of the server that runs; its leases stay.
fn serve(lab: &mut Lab, pool: &str) -> Outcome {
    // Its program cannot be replaced while it runs.
    lab.stop_server().ok();
    let folder = lab.folder.path().to_owned();
    let file = |name: &str| folder.join(name).display().to_string();
    let config = serde_json::json!({ "Dhcp4": {
        "interfaces-config": { "interfaces": ["s0"] },
        // Without an interval it starts no other process to tidy its file up.
        "lease-database": { "type": "memfile", "name": file("kea-leases4.csv"), "lfc-interval": 0 },
        "authoritative": true,
        "valid-lifetime": 120,
        "renew-timer": 40,
        "rebind-timer": 80,
        "loggers": [{
            "name": "kea-dhcp4",
            "severity": "DEBUG",
            "debuglevel": 99,
            "output_options": [{ "output": "stdout" }],
        }],
        "subnet4": [{
            "id": 1,
            "subnet": "10.9.0.0/24",
            "pools": [{ "pool": pool }],
            "option-data": [
                { "name": "routers", "data": "10.9.0.1" },
                { "name": "domain-name-servers", "data": "10.9.0.2, 10.9.0.3" },
                { "name": "domain-name", "data": "lab.example" },
                { "code": 121, "space": "dhcp4", "csv-format": false, "data": ROUTES },
            ],
        }],
    }});
    std::fs::write(folder.join("kea.json"), config.to_string()).map_err(|error| error.to_string())?;
    // Where it may write. The second: newer releases keep leases only below their own folder.
    let pid_files = format!("KEA_PIDFILE_DIR={}", folder.display());
    let leases = format!("KEA_DHCP_DATA_DIR={}", folder.display());
    let (config, program) = (file("kea.json"), file("kea-dhcp4"));
    // Debian's AppArmor profile is for the program at its own place, and allows it no file in a trial's folder.
    std::fs::copy(PROGRAM, &program).map_err(|error| format!("copying {PROGRAM}: {error}"))?;
    let command = ["env", &pid_files, &leases, "KEA_LOCKFILE_DIR=none", &program, "-c", &config];
    lab.launch(&command, "DHCP4_STARTED")
}

const POOL: &str = "10.9.0.50 - 10.9.0.60";
const OTHER_POOL: &str = "10.9.0.100 - 10.9.0.110";

pub(super) fn lease() -> Outcome {
    let mut lab = Lab::new()?;
    serve(&mut lab, POOL)?;
    let (endpoint, lease) = acquire(&mut lab)?;
    same(&(lease.address, lease.prefix, lease.server), &(address(50), 24, SERVER))?;
    same(&(lease.lease_s, lease.renew_s, lease.rebind_s), &(120, 40, 80))?;
    let route = |destination: [u8; 4], prefix, gateway| LeaseRoute { destination: destination.into(), prefix, gateway };
    let routes = vec![route([0; 4], 0, Some(address(254))), route([172, 16, 0, 0], 12, Some(address(253)))];
    same(&(lease.routes, lease.routers), &(routes, vec![]))?;
    same(&(lease.dns, lease.domain.as_deref()), &(vec![address(2), address(3)], Some("lab.example")))?;
    same(&(endpoint.state(), lab.count(DISCOVER), lab.count(REQUEST)), &("bound", 1, 1))
}

pub(super) fn reboot() -> Outcome {
    let mut lab = Lab::new()?;
    serve(&mut lab, POOL)?;
    let (_, lease) = acquire(&mut lab)?;
    serve(&mut lab, POOL)?;
    let mut endpoint = lab.open(Some(lease.clone()))?;
    same(&lab.bound(&mut endpoint, false)?.address, &lease.address)?;
    same(&(lab.count(DISCOVER), lab.count(REQUEST)), &(0, 1))?;

    // A host that has forgotten its lease: the server has not.
    let (_, again) = acquire(&mut lab)?;
    same(&again.address, &lease.address)
}

pub(super) fn lifetime() -> Outcome {
    let mut lab = Lab::new()?;
    serve(&mut lab, POOL)?;
    let (mut endpoint, lease) = acquire(&mut lab)?;
    lab.set_address(&lease)?;
    lab.ahead(Duration::from_secs(40));
    same(&lab.turn(&mut endpoint), &vec![])?;
    same(&endpoint.state(), &"renewing")?;
    same(&lab.bound(&mut endpoint, true)?.address, &lease.address)?;

    // Silence at T1, and another that answers to all at T2.
    lab.stop_server()?;
    lab.ahead(Duration::from_secs(40));
    lab.turn(&mut endpoint);
    same(&endpoint.state(), &"renewing")?;
    serve(&mut lab, POOL)?;
    lab.ahead(Duration::from_secs(40));
    lab.turn(&mut endpoint);
    same(&endpoint.state(), &"rebinding")?;
    same(&lab.bound(&mut endpoint, true)?.address, &lease.address)?;
    same(&lab.count(DISCOVER), &0)
}

pub(super) fn nak() -> Outcome {
    let mut lab = Lab::new()?;
    serve(&mut lab, POOL)?;
    let (_, lease) = acquire(&mut lab)?;
    lab.stop_server()?;
    // The administrator moved the pool, and the old leases are gone with it.
    std::fs::remove_file(lab.folder.path().join("kea-leases4.csv")).map_err(|error| error.to_string())?;
    serve(&mut lab, OTHER_POOL)?;
    let mut endpoint = lab.open(Some(lease.clone()))?;
    let other = lab.bound(&mut endpoint, false)?;
    ensure((100..=110).contains(&other.address.octets()[3]), || format!("{} is not in the new pool", other.address))?;
    lab.wait_for_log("DHCPNAK (type 6)")?;
    same(&(lab.count(REQUEST), lab.count(DISCOVER)), &(2, 1))?;

    // While the address is in use it does not refuse but says nothing, so that the host has it until its lease is over.
    lab.set_address(&other)?;
    serve(&mut lab, POOL)?;
    for (times, state) in [(1, "renewing"), (2, "rebinding")] {
        lab.ahead(Duration::from_secs(40));
        lab.turn(&mut endpoint);
        same(&endpoint.state(), &state)?;
        lab.wait_for_log_times("client requested an unknown address", times)?;
    }
    lab.ahead(Duration::from_secs(40));
    let events = lab.until(&mut endpoint, |event| matches!(event, Event::Lost { .. }))?;
    ensure(format!("{events:?}").contains(&format!("{} is over", other.address)), || format!("{events:?}"))?;
    let again = lab.bound(&mut endpoint, false)?;
    ensure((50..=60).contains(&again.address.octets()[3]), || format!("{} is not in the new pool", again.address))
}

pub(super) fn conflict() -> Outcome {
    let mut lab = Lab::new()?;
    let squatter = lab.squatter("10.9.0.50/24")?;
    serve(&mut lab, POOL)?;
    let mut endpoint = lab.open(None)?;
    let in_use = |event: &Event| matches!(event, Event::Say { warning: true, text } if text.contains("is in use by"));
    let events = lab.until(&mut endpoint, in_use)?;
    ensure(format!("{events:?}").contains(&format!("10.9.0.50 is in use by {squatter}")), || format!("{events:?}"))?;
    lab.wait_for_log(DECLINE)?;
    same(&endpoint.state(), &"waiting")?;
    lab.ahead(Duration::from_secs(10));
    let lease = lab.bound(&mut endpoint, false)?;
    ensure((51..=60).contains(&lease.address.octets()[3]), || format!("{} is not another", lease.address))?;
    // And it stays so, also for the server's part after a restart.
    serve(&mut lab, POOL)?;
    let mut endpoint = lab.open(Some(lease.clone()))?;
    same(&lab.bound(&mut endpoint, false)?.address, &lease.address)
}
