//! Real guests under real Xen: a host boots unattended with a disk that has guests on it, and everything about them is seen
//! from outside: by ping and TCP from the network, by Xen's own tools over ssh, and by what the guests wrote on their disks.
//!
//! Two PV guests, of which beta comes after alpha; a PVH and an HVM guest; one that ignores a shutdown and is destroyed; one
//! that ignores it and is saved; one whose file is broken; one that is too large for any host. The machine is slow: a guest
//! takes a quarter of a minute to be created, a PVH guest another minute to boot.

mod seen;

use super::check::{Check, ends, has, is};
use super::product::{BRIDGE, SUPERVISOR, VOLUME, mounted, up};
use crate::guest_payload::{ASKED, CRASH, READY};
use crate::host::{Host, Setup};
use crate::lab::{Disk, LAN, Lab, Settings};
use crate::tiny_root;
use anyhow::{Context, Result};
use seen::{answer, moment, state_of, wait_for_answer, wait_for_state};
use sino_image::guests::config::Kind;
use sino_image::guests::show::{self, AUTOSTART};
use sino_image::guests::{Content, Guest, prepare_disk};
use sino_image::qemu::{Bus, EndReason};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long a host may take from power-on until all its guests are ready or reported.
const ALL_READY: Duration = Duration::from_secs(900);
/// How long a shutdown with all guests may take.
const ALL_STOPPED: Duration = Duration::from_secs(420);
/// How long one guest may take to be there again.
const AGAIN: Duration = Duration::from_secs(300);
/// The network of [`LAN`].
const NETWORK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
/// Ignores a shutdown, and is destroyed; ignores it, and is saved.
const STUBBORN: (&str, Ipv4Addr) = ("stubborn", Ipv4Addr::new(192, 0, 2, 64));
const KEPT: (&str, Ipv4Addr) = ("kept", Ipv4Addr::new(192, 0, 2, 65));
/// A file that is no configuration: the string of its third line does not end.
const BROKEN: (&str, &str) = ("broken", "name = \"broken\"\nmemory = 64\nkernel = \"/srv/guests/vmlinuz\n");
/// A guest that no host has the memory for, in MiB.
const HUGE: (&str, u32) = ("huge", 4 << 20);
/// What `sino.toml` says besides [`show::configuration`].
const CONFIGURATION: &str = "\n[guest.stubborn]\nstop_timeout = 15\nstop = \"destroy\"\n\n\
                             [guest.kept]\nstop_timeout = 15\nstop = \"save\"\n";
/// The words of the product for how a guest is.
const IS_READY: &str = "ready";
/// The table of the guests.
const GUESTS: &str = "sino guests";
/// Starts, and stops, what is named behind it.
const START: &str = "sino guests start";
const STOP: &str = "sino guests stop";

/// The trial.
pub(super) fn run(lab: &mut Lab) -> Result<()> {
    lab.lan.start(&lab.namespace, &Settings::default())?;
    let card = lab.card("virtio-net-pci", Some(LAN))?;
    let disk = prepared(lab)?;
    // Nobody logs in until the guests are there.
    let mut host = Host::begin(lab, &Setup::direct(&[card], std::slice::from_ref(&disk)).under_xen())?;
    let first = all_ready(lab, &mut host, "first boot")?;
    reported(lab, &mut host)?;
    crash(lab, &mut host)?;
    supervisor_killed(lab, &mut host)?;
    let before = answer(lab, KEPT.1)?.context("the guest that will be saved does not answer")?;
    power_off(&mut host)?;
    stopped_in_order(lab, &disk)?;

    host.power_on(None, None)?;
    let second = all_ready(lab, &mut host, "second boot")?;
    lab.expect(first.iter().zip(&second).all(|(one, other)| one != other), "a guest was not started anew");
    let after = answer(lab, KEPT.1)?.context("the guest that was saved does not answer")?;
    lab.expect(after.boot == before.boot, format!("not resumed but started anew: {before:?}, then {after:?}"));
    lab.expect(after.seconds > before.seconds, format!("not resumed where it was: {before:?}, then {after:?}"));
    power_off(&mut host)?;
    let damage = disk.ext4_damage(VOLUME.0, VOLUME.1)?;
    lab.expect(damage.is_none(), format!("in the end: {damage:?}"));
    Ok(())
}

/// The disk with the guests of [`show::four`] and those that make trouble.
fn prepared(lab: &Lab) -> Result<Disk> {
    let disk = lab.disk("one", Bus::Virtio, 2048)?;
    let mut guests = show::four(NETWORK);
    for (name, address) in [STUBBORN, KEPT] {
        let device = format!("/dev/{}/{name}", VOLUME.0);
        let mut guest = Guest::new(Kind::Pv, name, 96).at(address, show::PORT).with_disk(&device);
        guest.orders.ignore_shutdown = true;
        guests.push(guest);
    }
    guests.push(Guest::new(Kind::Pv, HUGE.0, HUGE.1));
    let content = Content {
        iso: &lab.image.iso,
        payload: &tiny_root::programs()?.join("sino-guest"),
        guests: &guests,
        configuration: &(show::configuration(NETWORK) + CONFIGURATION),
        files: &[(format!("{AUTOSTART}/{}.cfg", BROKEN.0), BROKEN.1.into())],
        volumes: &[],
        srv_mib: 512,
    };
    prepare_disk(&disk.file, 2048, &content)?;
    Ok(disk)
}

/// Waits until every guest that can be ready is, as seen from the network and as the product says; returns the boots of
/// alpha, beta and gamma.
fn all_ready(lab: &mut Lab, host: &mut Host, when: &str) -> Result<Vec<String>> {
    let mut boots = Vec::new();
    for guest in show::four(NETWORK) {
        if let Some((address, _)) = guest.orders.address {
            let name = &guest.orders.name;
            let answer = wait_for_answer(lab, address, ALL_READY).with_context(|| format!("{when}: {name}"))?;
            lab.expect(answer.name == *name, format!("{when}: at {address} is not {name} but {answer:?}"));
            boots.push(answer.boot);
        }
    }
    if when == "first boot" {
        host.log_in()?;
    }
    let names = show::four(NETWORK).into_iter().map(|guest| guest.orders.name);
    for name in names.chain([STUBBORN.0.into(), KEPT.0.into()]) {
        wait_for_state(host, &name, &[IS_READY], ALL_READY).with_context(|| when.to_owned())?;
    }
    lab.expect(lab.ping(&STUBBORN.1.to_string(), 3)? > 0, format!("{when}: {} does not answer", STUBBORN.0));
    let systemd = host.do_("date -d \"$(systemctl show -P UserspaceTimestamp)\" +%s")?;
    let created = moment(host, "alpha")?;
    lab.expect(
        created < systemd.parse()?,
        format!("{when}: systemd was started at {systemd}, the first guest created at {created}"),
    );
    let mut wrong = host.check(&up())?;
    wrong.extend(host.check(&mounted(true))?);
    wrong.extend(host.check(&domains())?);
    lab.note(when, wrong);
    Ok(boots)
}

/// Each guest is one domain, and Debian's own way to start guests started none.
fn domains() -> Vec<Check> {
    vec![
        is("xl list | tail -n +3 | cut -d' ' -f1 | sort | xargs", "alpha beta delta gamma kept stubborn"),
        is(&format!("ls /sys/class/net/{BRIDGE}/brif | grep -c ^vif"), "5"),
        is("pgrep -c xenconsoled", "1"),
    ]
}

/// What cannot start is reported, with the reason, and nothing else is held up by it.
fn reported(lab: &mut Lab, host: &mut Host) -> Result<()> {
    for (name, cause) in [(BROKEN.0, "line 3"), (HUGE.0, "memory")] {
        let (state, all) = state_of(host, name)?;
        lab.expect(state != IS_READY, format!("{name} is {state}"));
        lab.expect(all.to_string().contains(cause), format!("{name}: {cause:?} is not said: {all}"));
    }
    let wrong = host.check(&[
        has(GUESTS, &["alpha", "beta", "gamma", "delta", STUBBORN.0, KEPT.0, BROKEN.0, HUGE.0]),
        has("sino guests plan", &[HUGE.0]),
        has("sino guests log delta", &["guest delta ready"]),
        has("sino timeline", &["alpha", "gamma"]),
        ends("test -n \"$(ls /srv/sino/boots)\""),
    ])?;
    lab.note("what is reported", wrong);
    // beta was created when alpha had answered, not before.
    let (alpha, beta) = (moment(host, "alpha")?, moment(host, "beta")?);
    lab.expect(alpha < beta, format!("beta, which wants alpha, was created at {beta}, alpha at {alpha}"));
    Ok(())
}

/// A guest that crashes is there again, and is counted.
fn crash(lab: &mut Lab, host: &mut Host) -> Result<()> {
    let address = Ipv4Addr::new(192, 0, 2, 62);
    let before = answer(lab, address)?.context("beta does not answer")?;
    seen::tell(lab, address, CRASH)?;
    let after = seen::wait_for_another(lab, address, &before.boot, AGAIN)?;
    lab.expect(after.name == "beta", format!("instead of beta: {after:?}"));
    let (_, all) = state_of(host, "beta")?;
    lab.expect(all.to_string().contains("\"restarts\":1"), format!("one restart is not in {all}"));
    Ok(())
}

/// The supervisor is killed while guests start: each starts all the same, and once.
fn supervisor_killed(lab: &mut Lab, host: &mut Host) -> Result<()> {
    let untouched = answer(lab, KEPT.1)?.context("kept does not answer")?;
    let stop = host.serial_within(&format!("{STOP} alpha beta"), AGAIN)?;
    lab.expect(stop.status == 0, format!("{STOP}: {stop:?}"));
    host.do_(&format!("({START} alpha beta >/dev/null 2>&1 & disown); sleep 4; kill -9 {SUPERVISOR}"))?;
    for (name, last) in [("alpha", 61), ("beta", 62)] {
        let found = wait_for_answer(lab, Ipv4Addr::new(192, 0, 2, last), AGAIN)?;
        lab.expect(found.name == name, format!("instead of {name}: {found:?}"));
        wait_for_state(host, name, &[IS_READY], AGAIN)?;
    }
    let still = answer(lab, KEPT.1)?.context("kept does not answer any more")?;
    lab.expect(still.boot == untouched.boot, "another guest was started anew");
    let wrong = host.check(&domains())?;
    lab.note("supervisor killed while guests start", wrong);
    Ok(())
}

/// Types `poweroff` and waits, with time for the guests.
fn power_off(host: &mut Host) -> Result<()> {
    host.type_line("poweroff")?;
    let reason = host.guest()?.wait_for_end_reason(ALL_STOPPED).context("shutting down with guests")?;
    anyhow::ensure!(reason == EndReason::Off, "poweroff reset the machine");
    host.pull_the_plug();
    Ok(())
}

/// By the records on the guests' disks: each was asked, beta before alpha, which it wants.
fn stopped_in_order(lab: &mut Lab, disk: &Disk) -> Result<()> {
    let mut asked = Vec::new();
    for name in ["beta", "alpha", "gamma", STUBBORN.0, KEPT.0] {
        let record = seen::record(disk, name)?;
        let last =
            |what: &str| record.iter().rev().find_map(|line| line.strip_suffix(what)?.trim().parse::<f64>().ok());
        lab.expect(last(READY).is_some(), format!("{name} was never ready: {record:?}"));
        match last(ASKED) {
            Some(time) => asked.push((name, time)),
            None => lab.expect(false, format!("{name} was not asked to shut down: {record:?}")),
        }
    }
    let time = |name: &str| asked.iter().find(|(asked, _)| *asked == name).map(|(_, time)| *time);
    if let (Some(beta), Some(alpha)) = (time("beta"), time("alpha")) {
        lab.expect(beta < alpha, format!("alpha was asked at {alpha}, beta, which wants it, at {beta}"));
    }
    Ok(())
}
