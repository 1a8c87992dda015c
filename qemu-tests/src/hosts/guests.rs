//! Real guests under real Xen: a host boots unattended with a disk that has guests on it, and everything about them is seen
//! from outside: by ping and TCP from the network, by Xen's own tools over ssh, and by what the guests wrote on their disks.
//!
//! Two PV guests, of which beta comes after alpha; one whose file is broken; one that is too large for any host. In the long set
//! also a PVH and an HVM guest; one that ignores a shutdown and is destroyed; one that ignores it and is saved. The machine is slow: a guest
//! takes a quarter of a minute to be created, a PVH guest another minute to boot. So Xen is loaded without firmware and menu
//! (which other scenarios go through), the hand-over may take longer than on hardware, and the second boot starts two guests.

pub(crate) mod seen;

use super::check::{Check, ends, has, is};
use super::product::{BRIDGE, SUPERVISOR, VOLUME, mounted, up};
use crate::guest_payload::{ASKED, CRASH, READY};
use crate::host::{Host, Setup};
use crate::lab::{Disk, LAN, Lab, Settings};
use crate::tiny_root;
use anyhow::{Context, Result};
use seen::{answer, moment, state_of, wait_for_answer, wait_for_state};
use sino_image::guests::config::{CONSOLE_LOGS, Kind};
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
const CONFIGURATION: &str = "\n[guest.stubborn]\nstop_timeout = 60\nstop = \"destroy\"\n\n\
                             [guest.kept]\nstop_timeout = 60\nstop = \"save\"\n";
/// The flags of both boots: the first guest is created later than half a minute after stage two began here.
const FLAGS: &str = "sino.handover=240";
/// The guests of both sets.
const FEW: [&str; 2] = ["alpha", "beta"];
/// The words of the product for how a guest is.
const IS_READY: &str = "ready";
/// The table of the guests.
const GUESTS: &str = "sino guests";
/// Starts, and stops, what is named behind it.
const START: &str = "sino guests start";
const STOP: &str = "sino guests stop";

/// The trial with few guests.
pub(super) fn run(lab: &mut Lab) -> Result<()> {
    play(lab, false)
}

/// The trial with all of them.
pub(super) fn run_long(lab: &mut Lab) -> Result<()> {
    play(lab, true)
}

fn play(lab: &mut Lab, many: bool) -> Result<()> {
    lab.lan.start(&lab.namespace, &Settings::default())?;
    let card = lab.card("virtio-net-pci", Some(LAN))?;
    let disk = prepared(lab, many)?;
    // Nobody logs in until the guests are there.
    let setup = Setup::direct(&[card], std::slice::from_ref(&disk)).on_xen().with(FLAGS);
    let mut host = Host::begin(lab, &setup)?;
    let answering = if many { &["alpha", "beta", "gamma"][..] } else { &FEW };
    let boots = answers(lab, "first boot", answering)?;
    host.log_in()?;
    let more = if many { &["gamma", "delta", STUBBORN.0, KEPT.0][..] } else { &[] };
    let all: Vec<&str> = FEW.iter().chain(more).copied().collect();
    all_ready(lab, &mut host, "first boot", &all)?;
    if many {
        // It is "ready" as soon as it is created; what is in it boots afterwards.
        let pings = lab.ping(&STUBBORN.1.to_string(), 60)?;
        lab.expect(pings > 0, format!("{} does not answer", STUBBORN.0));
    }
    reported(lab, &mut host, &all)?;
    crash(lab, &mut host)?;
    supervisor_killed(lab, &mut host, &all)?;
    let before =
        if many { Some(answer(lab, KEPT.1)?.context("the guest that will be saved does not answer")?) } else { None };
    host.type_line("poweroff")?;
    off(&mut host)?;
    stopped_in_order(lab, &disk, &all)?;

    let second = if many { &["alpha", KEPT.0][..] } else { &["alpha"] };
    host.switch_on_with(&format!("{FLAGS} sino.autostart={}", second.join(",")))?;
    let again = answers(lab, "second boot", &["alpha"])?;
    lab.expect(again.first() != boots.first(), "alpha was not started anew");
    host.log_in()?;
    all_ready(lab, &mut host, "second boot", second)?;
    if let Some(before) = before {
        let after = answer(lab, KEPT.1)?.context("the guest that was saved does not answer")?;
        lab.expect(after.boot == before.boot, format!("not resumed but started anew: {before:?}, then {after:?}"));
        lab.expect(after.seconds > before.seconds, format!("not resumed where it was: {before:?}, then {after:?}"));
    }
    let stopped: Vec<&str> = all.iter().filter(|name| !matches!(**name, "gamma" | "delta")).copied().collect();
    let wrong = host.check(&[has("sino guests last", &stopped)])?;
    lab.note("what is told of the shutdown", wrong);
    host.guest()?.qmp.power_button()?;
    off(&mut host)?;
    let damage = disk.ext4_damage(VOLUME.0, VOLUME.1)?;
    lab.expect(damage.is_none(), format!("in the end: {damage:?}"));
    Ok(())
}

/// The disk with the guests of [`show::four`] and those that make trouble.
fn prepared(lab: &Lab, many: bool) -> Result<Disk> {
    let disk = lab.disk("one", Bus::Virtio, 2048)?;
    let mut guests = show::four(NETWORK);
    guests.retain(|guest| many || FEW.contains(&guest.orders.name.as_str()));
    for (name, address) in [STUBBORN, KEPT].into_iter().filter(|_| many) {
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
        configuration: &(show::configuration(NETWORK) + if many { CONFIGURATION } else { "" }),
        files: &[(format!("{AUTOSTART}/{}.cfg", BROKEN.0), BROKEN.1.into())],
        volumes: &[],
        srv_mib: 512,
    };
    prepare_disk(&disk.file, 2048, &content)?;
    Ok(disk)
}

/// Waits until these of [`show::four`] answer on the network; returns their boots.
fn answers(lab: &mut Lab, when: &str, names: &[&str]) -> Result<Vec<String>> {
    let mut boots = Vec::new();
    for guest in show::four(NETWORK) {
        let name = guest.orders.name.as_str();
        let Some((address, _)) = guest.orders.address.filter(|_| names.contains(&name)) else { continue };
        let answer = wait_for_answer(lab, address, ALL_READY).with_context(|| format!("{when}: {name}"))?;
        lab.expect(answer.name == name, format!("{when}: at {address} is not {name} but {answer:?}"));
        boots.push(answer.boot);
    }
    Ok(boots)
}

/// Waits until the product says of these guests that they are ready, and looks at the host.
fn all_ready(lab: &mut Lab, host: &mut Host, when: &str, names: &[&str]) -> Result<()> {
    for name in names {
        wait_for_state(host, name, &[IS_READY], ALL_READY).with_context(|| when.to_owned())?;
    }
    let systemd = host.do_("date -d \"$(systemctl show -P UserspaceTimestamp)\" +%s")?;
    let created = moment(host, "alpha")?;
    lab.expect(
        created < systemd.parse()?,
        format!("{when}: systemd was started at {systemd}, the first guest created at {created}"),
    );
    let state = host.settle()?;
    lab.expect(state == "running", format!("{when}: systemd says {state}"));
    let mut wrong = host.check(&up())?;
    wrong.extend(host.check(&mounted(true))?);
    wrong.extend(host.check(&domains(names))?);
    lab.note(when, wrong);
    Ok(())
}

/// Each guest is one domain, and Debian's own way to start guests started none.
fn domains(names: &[&str]) -> Vec<Check> {
    let mut names = names.to_vec();
    names.sort_unstable();
    // All but the HVM guest have a card.
    let cards = names.iter().filter(|name| **name != "delta").count();
    vec![
        is("xl list | tail -n +3 | cut -d' ' -f1 | sort | xargs", &names.join(" ")),
        is(&format!("ls /sys/class/net/{BRIDGE}/brif | grep -c ^vif"), &cards.to_string()),
        is("pgrep -c xenconsoled", "1"),
    ]
}

/// What cannot start is reported, with the reason, and nothing else is held up by it.
fn reported(lab: &mut Lab, host: &mut Host, names: &[&str]) -> Result<()> {
    for (name, cause) in [(BROKEN.0, "broken.cfg:3"), (HUGE.0, "memory")] {
        let (state, all) = state_of(host, name)?;
        lab.expect(state != IS_READY, format!("{name} is {state}"));
        lab.expect(all.to_string().contains(cause), format!("{name}: {cause:?} is not said: {all}"));
    }
    let table: Vec<&str> = names.iter().copied().chain([BROKEN.0, HUGE.0]).collect();
    let last = names.last().copied().unwrap_or_default();
    let mut checks = vec![
        has(GUESTS, &table),
        has("sino guests plan", &[HUGE.0]),
        has("sino timeline", &["alpha", last]),
        ends("test -n \"$(ls /srv/sino/boots)\""),
    ];
    // The only one whose console is a serial port.
    checks.extend(names.contains(&"delta").then(|| has("sino guests log delta", &["guest delta ready"])));
    let wrong = host.check(&checks)?;
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
fn supervisor_killed(lab: &mut Lab, host: &mut Host, names: &[&str]) -> Result<()> {
    let others = names.contains(&KEPT.0);
    let untouched = if others { Some(answer(lab, KEPT.1)?.context("kept does not answer")?) } else { None };
    let before = ["alpha", "beta"].map(|name| moment(host, name));
    for name in ["beta", "alpha"] {
        let stop = host.serial_within(&format!("{STOP} {name} --wait"), AGAIN)?;
        if stop.status != 0 {
            let seen = host.serial_within(&asked_in_vain(name), AGAIN)?;
            lab.expect(false, format!("{STOP} {name}: {stop:?}; {}", seen.text));
        }
    }
    host.do_(&format!("for g in alpha beta; do {START} $g; done; sleep 4; kill -9 {SUPERVISOR}"))?;
    for (name, last) in [("alpha", 61), ("beta", 62)] {
        let found = wait_for_answer(lab, Ipv4Addr::new(192, 0, 2, last), AGAIN)?;
        lab.expect(found.name == name, format!("instead of {name}: {found:?}"));
        wait_for_state(host, name, &[IS_READY], AGAIN)?;
    }
    for (name, before) in ["alpha", "beta"].into_iter().zip(before) {
        let (before, after) = (before?, moment(host, name)?);
        lab.expect(after > before, format!("{name} was created at {before}, and still at {after} after its start"));
    }
    if let Some(untouched) = untouched {
        let still = answer(lab, KEPT.1)?.context("kept does not answer any more")?;
        lab.expect(still.boot == untouched.boot, "another guest was started anew");
    }
    let wrong = host.check(&domains(names))?;
    lab.note("supervisor killed while guests start", wrong);
    Ok(())
}

/// What tells why a guest does not go down: whether its kernel has taken the request (then it is empty), whether it gets the
/// processor, what it says, what its `/sbin/poweroff` waits for (the kernel's list of tasks), and how its disk is.
fn asked_in_vain(name: &str) -> String {
    let log = format!("{CONSOLE_LOGS}/guest-{name}.log");
    format!(
        "id=$(xl domid {name}); xenstore-ls /local/domain/$id/control; xl vcpu-list $id | tail -n 1; tail -n 3 {log}; \
         xl sysrq $id 9; xl sysrq $id t; sleep 5; xl vcpu-list $id | tail -n 1; grep -a -A 14 task:poweroff {log} | tail -n 30; \
         xenstore-ls /local/domain/0/backend/vbd/$id | grep -w state"
    )
}

/// Waits until the host is off, with time for the guests.
fn off(host: &mut Host) -> Result<()> {
    let reason = host.guest()?.wait_for_end_reason(ALL_STOPPED).context("shutting down with guests")?;
    anyhow::ensure!(reason == EndReason::Off, "the machine was reset instead");
    host.pull_the_plug();
    Ok(())
}

/// By the records on the guests' disks: each was asked, beta before alpha, which it wants.
fn stopped_in_order(lab: &mut Lab, disk: &Disk, names: &[&str]) -> Result<()> {
    let mut asked = Vec::new();
    // The HVM guest keeps no record.
    for &name in names.iter().filter(|name| **name != "delta") {
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
