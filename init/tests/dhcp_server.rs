//! The DHCP client against real servers (dnsmasq and Kea), each in a network namespace of its own with a veth pair between
//! them.
//!
//! Needs root, iproute2, util-linux, dnsmasq and Kea; what is missing fails with its remedy. Time that would be long (a
//! lease) passes by a clock that runs ahead; the servers do not notice.

#[path = "dhcp_server/kea.rs"]
mod kea;
#[path = "dhcp_server/lab.rs"]
mod lab;

use lab::{Lab, SERVER};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::thread::UnshareFlags;
use sino_init::dhcp::{Endpoint, Event, Lease, LeaseRoute};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list {
        // Before any thread starts: a namespace belongs to the thread that asks for it and those it starts later.
        if let Err(why) = enter_namespace() {
            eprintln!("the DHCP tests cannot run: {why}");
            return ExitCode::FAILURE;
        }
    }
    let trial = |name: &str, run: fn() -> Outcome| Trial::test(name, move || run().map_err(Failed::from));
    let trials = vec![
        trial("a_lease_with_all_its_options", options),
        trial("routes_take_the_place_of_the_router", routes),
        trial("a_reboot_gives_the_same_address_without_a_discover", reboot),
        trial("a_nak_leads_to_another_address", nak),
        trial("a_server_that_forgot_the_lease_is_asked_for_any", forgotten),
        trial("a_lease_is_renewed_rebound_and_lost", lifetime),
        trial("a_server_that_comes_late_is_found", late),
        trial("an_address_in_use_is_declined", conflict),
        trial("an_address_that_another_claims_is_defended", claimed),
        trial("a_carrier_that_comes_back_has_the_lease_verified", carrier),
        trial("a_bridge_gets_a_lease_through_its_port", bridge),
        trial("kea_gives_a_lease_with_its_times_and_routes", kea::lease),
        trial("kea_gives_the_same_address_after_a_reboot_of_both", kea::reboot),
        trial("kea_renews_a_lease_and_confirms_it_to_all", kea::lifetime),
        trial("kea_refuses_an_address_that_is_no_longer_its_own", kea::nak),
        trial("kea_gives_another_address_for_one_in_use", kea::conflict),
        trial("an_interface_that_is_not_there_is_named", nowhere),
        trial("an_interface_that_goes_away_is_told_of_once", gone),
    ];
    // The trials share the names of the links.
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials).exit_code()
}

fn enter_namespace() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("root is needed; run this command with sudo".to_owned());
    }
    lab::tools()?;
    // SAFETY: only the network namespace is unshared; no file descriptor table or memory.
    #[allow(unsafe_code)]
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|error| format!("making a network namespace: {error}"))
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what()) }
}

fn same<T: PartialEq + std::fmt::Debug>(is: &T, should: &T) -> Outcome {
    ensure(is == should, || format!("{is:?} instead of {should:?}"))
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, last)
}

/// A client without a past has its lease.
fn acquire(lab: &mut Lab) -> Result<(Endpoint, Lease), String> {
    let mut endpoint = lab.open(None)?;
    let lease = lab.bound(&mut endpoint, false)?;
    Ok((endpoint, lease))
}

fn options() -> Outcome {
    let mut lab = Lab::new()?;
    lab.serve(&[
        "--dhcp-range=10.9.0.50,10.9.0.60,255.255.255.0,1h",
        "--dhcp-host=02:00:00:00:00:07,10.9.0.77,rack7",
        "--dhcp-option=3,10.9.0.1",
        "--dhcp-option=6,10.9.0.2,10.9.0.3",
        "--domain=lab.example",
        "--dhcp-option=option:domain-search,a.example,b.example",
        "--dhcp-option=42,10.9.0.4",
        "--dhcp-option=26,1400",
    ])?;
    let began = Instant::now();
    let (mut endpoint, lease) = acquire(&mut lab)?;
    let took = began.elapsed();
    lab.set_address(&lease)?;
    // Three probes 200 ms apart are part of it.
    ensure(took > Duration::from_millis(600) && took < Duration::from_secs(2), || format!("it took {took:?}"))?;
    same(&(lease.address, lease.prefix, lease.server), &(address(77), 24, SERVER))?;
    same(&lease.routers, &vec![SERVER])?;
    same(&lease.dns, &vec![address(2), address(3)])?;
    same(&(lease.domain.as_deref(), lease.hostname.as_deref()), &(Some("lab.example"), Some("rack7")))?;
    same(&lease.search, &vec!["a.example".to_owned(), "b.example".to_owned()])?;
    same(&(lease.ntp, lease.mtu, lease.lease_s), &(vec![address(4)], Some(1400), 3600))?;
    ensure(lease.renew_s < lease.rebind_s && lease.rebind_s < 3600, || "T1 and T2 are not in order".to_owned())?;
    // A host with a lease is not woken by its traffic: only another's claim of its address can be heard.
    lab.talk()?;
    same(&(endpoint.fds().len(), Lab::readable(&endpoint)?, endpoint.state()), &(1, false, "bound"))?;
    same(&lab.turn(&mut endpoint), &vec![])?;
    lab.wait_for_log("client provides name: sino-test")?;
    Ok(())
}

fn routes() -> Outcome {
    let mut lab = Lab::new()?;
    lab.serve(&[
        "--dhcp-range=10.9.0.50,10.9.0.60,255.255.255.0,infinite",
        "--dhcp-option=3,10.9.0.1",
        "--dhcp-option=121,0.0.0.0/0,10.9.0.254,172.16.0.0/12,10.9.0.253,203.0.113.9/32,0.0.0.0",
    ])?;
    let (endpoint, lease) = acquire(&mut lab)?;
    let route = |destination: [u8; 4], prefix, gateway| LeaseRoute { destination: destination.into(), prefix, gateway };
    let expected = vec![
        route([0; 4], 0, Some(address(254))),
        route([172, 16, 0, 0], 12, Some(address(253))),
        route([203, 0, 113, 9], 32, None),
    ];
    same(&(lease.routes, lease.routers), &(expected, vec![]))?;
    same(&(lease.lease_s, endpoint.deadline()), &(u32::MAX, None))
}

const RANGE: &str = "--dhcp-range=10.9.0.50,10.9.0.60,255.255.255.0,2m";

fn reboot() -> Outcome {
    let mut lab = Lab::new()?;
    lab.serve(&[RANGE])?;
    let (_, lease) = acquire(&mut lab)?;
    let before = lab.count("DHCPDISCOVER");
    ensure(before > 0, || "the first lease needed no DISCOVER".to_owned())?;
    let began = Instant::now();
    let mut endpoint = lab.open(Some(lease.clone()))?;
    same(&lab.bound(&mut endpoint, false)?.address, &lease.address)?;
    ensure(began.elapsed() < Duration::from_millis(600), || format!("it took {:?}", began.elapsed()))?;
    lab.wait_for_log_times("DHCPACK", 2)?;
    same(&lab.count("DHCPDISCOVER"), &before)?;

    // The process is killed and comes back: silence until T1.
    let mut endpoint = lab.resume(lease.clone())?;
    lab.set_address(&lease)?;
    same(&(endpoint.state(), endpoint.deadline(), lab.turn(&mut endpoint)), &("bound", lease.renewal(), vec![]))?;
    lab.ahead(Duration::from_secs(lease.renew_s.into()));
    same(&lab.bound(&mut endpoint, true)?.address, &lease.address)
}

fn nak() -> Outcome {
    let mut lab = Lab::new()?;
    lab.serve(&[RANGE, "--dhcp-authoritative"])?;
    let (_, lease) = acquire(&mut lab)?;
    lab.serve(&["--dhcp-range=10.9.0.100,10.9.0.110,255.255.255.0,2m", "--dhcp-authoritative"])?;
    let mut endpoint = lab.open(Some(lease.clone()))?;
    let other = lab.bound(&mut endpoint, false)?;
    lab.wait_for_log("DHCPNAK")?;
    ensure((100..=110).contains(&other.address.octets()[3]), || format!("{} is not in the new range", other.address))?;

    // The same while the address is in use.
    lab.set_address(&other)?;
    lab.serve(&[RANGE, "--dhcp-authoritative"])?;
    lab.ahead(Duration::from_secs(other.rebind_s.into()));
    let events = lab.until(&mut endpoint, |event| matches!(event, Event::Lost { .. }))?;
    ensure(format!("{events:?}").contains("took 10.9.0.1"), || format!("{events:?}"))?;
    let again = lab.bound(&mut endpoint, false)?;
    ensure((50..=60).contains(&again.address.octets()[3]), || format!("{} is not in the new range", again.address))
}

fn forgotten() -> Outcome {
    let mut lab = Lab::new()?;
    lab.serve(&[RANGE])?;
    let (_, lease) = acquire(&mut lab)?;
    // Without --dhcp-authoritative dnsmasq says nothing to what it does not know.
    lab.forget()?;
    lab.serve(&[RANGE])?;
    let mut endpoint = lab.open(Some(lease.clone()))?;
    lab.wait_for_log("client provides name")?;
    same(&(lab.turn(&mut endpoint), endpoint.state()), &(vec![], "rebooting"))?;
    lab.ahead(Duration::from_secs(8));
    same(&lab.bound(&mut endpoint, false)?.address, &lease.address)
}

fn lifetime() -> Outcome {
    let mut lab = Lab::new()?;
    lab.serve(&[RANGE, "--dhcp-authoritative"])?;
    let (mut endpoint, lease) = acquire(&mut lab)?;
    same(&lease.lease_s, &120)?;
    lab.set_address(&lease)?;
    lab.ahead(Duration::from_secs(lease.renew_s.into()));
    let lease = lab.bound(&mut endpoint, true)?;
    lab.wait_for_log_times("DHCPACK", 2)?;

    // The server dies; another takes its place only when every server is asked.
    lab.stop_server()?;
    lab.ahead(Duration::from_secs(lease.renew_s.into()));
    lab.turn(&mut endpoint);
    same(&endpoint.state(), &"renewing")?;
    lab.serve(&[RANGE, "--dhcp-authoritative"])?;
    lab.ahead(Duration::from_secs((lease.rebind_s - lease.renew_s).into()));
    let lease = lab.bound(&mut endpoint, true)?;
    // By broadcast, so dnsmasq did not see it before.
    lab.wait_for_log("DHCPACK")?;

    lab.stop_server()?;
    lab.ahead(Duration::from_secs(lease.rebind_s.into()));
    lab.turn(&mut endpoint);
    same(&endpoint.state(), &"rebinding")?;
    lab.ahead(Duration::from_secs((lease.lease_s - lease.rebind_s).into()));
    let events = lab.turn(&mut endpoint);
    ensure(matches!(events.as_slice(), [Event::Lost { .. }]), || format!("no loss but {events:?}"))?;
    same(&endpoint.state(), &"selecting")?;
    lab.serve(&[RANGE, "--dhcp-authoritative"])?;
    lab.ahead(Duration::from_secs(5));
    lab.bound(&mut endpoint, false).map(drop)
}

fn late() -> Outcome {
    let mut lab = Lab::new()?;
    let mut endpoint = lab.open(None)?;
    let mut said = vec![];
    for _ in 0..60 {
        lab.ahead(Duration::from_secs(1));
        said.extend(lab.turn(&mut endpoint));
    }
    ensure(format!("{said:?}").contains("no DHCP server has answered"), || format!("{said:?}"))?;
    same(&(said.len(), endpoint.state()), &(1, "selecting"))?;
    lab.serve(&[RANGE])?;
    // Not more than the ceiling of the back-off.
    lab.ahead(Duration::from_secs(65));
    lab.bound(&mut endpoint, false).map(drop)
}

fn conflict() -> Outcome {
    let mut lab = Lab::new()?;
    let squatter = lab.squatter("10.9.0.50/24")?;
    lab.serve(&[RANGE, "--dhcp-sequential-ip"])?;
    let mut endpoint = lab.open(None)?;
    let in_use = |event: &Event| matches!(event, Event::Say { warning: true, text } if text.contains("is in use by"));
    let events = lab.until(&mut endpoint, in_use)?;
    ensure(format!("{events:?}").contains(&format!("10.9.0.50 is in use by {squatter}")), || format!("{events:?}"))?;
    lab.wait_for_log("DHCPDECLINE(s0) 10.9.0.50")?;
    same(&endpoint.state(), &"waiting")?;
    lab.ahead(Duration::from_secs(10));
    let lease = lab.bound(&mut endpoint, false)?;
    ensure(lease.address != address(50), || "the address in use was taken".to_owned())
}

fn claimed() -> Outcome {
    let mut lab = Lab::new()?;
    lab.squatter("10.9.0.200/24")?;
    lab.serve(&[RANGE])?;
    let (mut endpoint, lease) = acquire(&mut lab)?;
    lab.set_address(&lease)?;
    lab.claim(lease.address)?;
    let claimed =
        |event: &Event| matches!(event, Event::Say { warning: true, text } if text.contains("also claimed by"));
    let events = lab.until(&mut endpoint, claimed)?;
    let named = format!("{} is also claimed by {}", lease.address, lab::SQUATTER);
    ensure(format!("{events:?}").contains(&named), || format!("{events:?}"))?;
    ensure(endpoint.conflict().is_some_and(|text| text.contains(&named)), || "it is not told as wrong".to_owned())?;
    // Who believed the other believes this host again.
    lab.wait_for_neighbour(lease.address, "02:00:00:00:00:07")?;
    same(&(endpoint.state(), lab.count("DHCPDECLINE")), &("bound", 0))
}

fn carrier() -> Outcome {
    let mut lab = Lab::new()?;
    lab.serve(&[RANGE])?;
    let (mut endpoint, lease) = acquire(&mut lab)?;
    lab.set_address(&lease)?;
    for side in ["the other end", "the interface"] {
        lab.link(side, "down")?;
        let now = lab.now();
        same(&(endpoint.link(false, now), lab.turn(&mut endpoint)), &(vec![], vec![]))?;
        lab.link(side, "up")?;
        let before = lab.count("DHCPACK");
        let now = lab.now();
        same(&(endpoint.link(true, now), endpoint.state()), &(vec![], "verifying"))?;
        same(&lab.bound(&mut endpoint, true)?.address, &lease.address)?;
        lab.wait_for_log_times("DHCPACK", before + 1)?;
    }
    // While it asks, with its sockets open.
    let mut endpoint = lab.open(None)?;
    lab.link("the interface", "down")?;
    let now = lab.now();
    endpoint.link(false, now);
    lab.turn(&mut endpoint);
    lab.link("the interface", "up")?;
    let now = lab.now();
    endpoint.link(true, now);
    lab.bound(&mut endpoint, false).map(drop)
}

fn nowhere() -> Outcome {
    let lab = Lab::new()?;
    let settings = lab::settings(None);
    let Err(error) = Endpoint::open("gone0", 9999, settings, lab.now()) else {
        return Err("it opened".to_owned());
    };
    ensure(format!("{error:#}").contains("gone0"), || format!("{error:#}"))
}

/// As `xenbr0` does.
fn bridge() -> Outcome {
    let mut lab = Lab::new()?;
    lab.serve(&[RANGE])?;
    lab.put_below_a_bridge()?;
    let (mut endpoint, lease) = acquire(&mut lab)?;
    lab.set_address(&lease)?;
    lab.ahead(Duration::from_secs(lease.renew_s.into()));
    lab.bound(&mut endpoint, true).map(drop)
}

fn gone() -> Outcome {
    let lab = &mut Lab::new()?;
    let mut endpoint = lab.open(None)?;
    lab.delete_link()?;
    let mut said = vec![];
    for _ in 0..100 {
        said.extend(lab.turn(&mut endpoint));
        lab.ahead(Duration::from_secs(1));
    }
    let errors = said.iter().filter(|event| format!("{event:?}").contains("sending a DHCP message on c0")).count();
    same(&(errors, said.len()), &(1, 2))?;
    ensure(!Lab::readable(&endpoint)?, || "its socket wakes whoever polls it, for ever".to_owned())
}
