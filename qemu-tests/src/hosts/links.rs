//! A network that comes late: no carrier at boot, then no DHCP server, then both; two cards of which one is used; and a
//! supervisor that is killed before and after the hand-over, without anything changing.

use super::check::{ends, has, is};
use super::product::{BREAK_BEFORE_HANDOVER, BRIDGE, SHELL, SUPERVISOR, facts, up};
use crate::host::{Host, Setup};
use crate::lab::{LAN, Lab, Settings};
use anyhow::{Context, Result};
use std::time::Duration;

/// A client that nobody answers asks again after 64 s at the latest (RFC 2131, 4.1), and may have just asked.
const ASK: Duration = Duration::from_secs(150);
/// The shortest lease that dnsmasq gives, in seconds; it is renewed after half of it.
const SHORT_LEASE: u32 = 120;

/// The trial.
pub(super) fn run(lab: &mut Lab) -> Result<()> {
    let cards = [lab.card("virtio-net-pci", Some(LAN))?, lab.card("e1000", Some(LAN))?];
    let capture = lab.capture(LAN.0, "udp port 67", "dhcp")?;
    let mut host = Host::begin(lab, &Setup::direct(&cards, &[]))?;
    host.set_link(0, false)?;
    host.set_link(1, false)?;
    // Nothing to wait for: the boot goes on without any network.
    host.log_in()?;
    lab.expect(host.settle()? == "running", "without a network the host is not \"running\"");
    let wrong = host.check(&up())?;
    lab.note("without a carrier", wrong);
    let wrong = host.check(&[has("sino status", &["no carrier"])])?;
    lab.note("without a carrier", wrong);
    lab.expect(capture.count(&["Request from"]) == 0, "frames came out of a card without a carrier");

    host.set_link(0, true)?;
    let first = host.link(0)?;
    capture.wait_for(&["DHCP-Message", "Discover"], ASK)?;
    let mac = host.mac(BRIDGE)?;
    // A wait on time: the server is to be missed for a minute.
    std::thread::sleep(Duration::from_secs(60));
    let asked = capture.count(&["DHCP-Message", "Discover"]);
    lab.expect((3..=12).contains(&asked), format!("{asked} times asked in a minute (RFC 2131, 4.1: about 5)"));
    lab.lan.start(&lab.namespace, &Settings { lease_seconds: SHORT_LEASE, ..Settings::default() })?;
    let address = lab.lan.wait_for(0, &mac, "DHCPACK", ASK)?.context("an ACK without an address")?;
    let mark = lab.lan.mark();
    let wrong = host.check(&[
        ends(&format!("timeout 20 sh -c 'until ip -4 address show {BRIDGE} | grep -q {address}/; do sleep 1; done'")),
        has("ip -4 route show default", &[&format!("via {}.1 dev {BRIDGE}", LAN.1)]),
    ])?;
    lab.note("with a late lease", wrong);

    // Both cards are on the same segment: with both in the bridge it would be a loop.
    host.set_link(1, true)?;
    let wrong = host.check(&[is(&format!("sleep 3; ls /sys/class/net/{BRIDGE}/brif"), &first)])?;
    lab.note("two cards", wrong);

    let wrong = killed(lab, &mut host, &address)?;
    lab.note("supervisor killed", wrong);
    let wrong = facts(&mut host);
    lab.note("supervisor killed", wrong);

    lab.lan.wait_for(mark, &mac, "DHCPREQUEST", Duration::from_secs(u64::from(SHORT_LEASE)))?;
    let asked = lab.lan.count(mark, &mac, "DHCPDISCOVER");
    lab.expect(asked == 0, format!("{asked} DHCPDISCOVER after the lease"));
    host.set_link(0, false)?;
    lab.expect(lab.ping(&address, 3)? == 0, "a host without a cable answers");
    host.set_link(0, true)?;
    lab.expect(lab.ping(&address, 20)? > 0, "with the cable back, the host does not answer");

    // The same before the hand-over, in a shell of stage two.
    host.pull_the_plug();
    let mark = lab.lan.mark();
    host.switch_on_with(BREAK_BEFORE_HANDOVER)?;
    host.wait_for_console(SHELL, Duration::from_secs(200))?;
    lab.lan.wait_for(mark, &mac, "DHCPACK", ASK)?;
    // Before it is bound there is nothing that another supervisor could go on with.
    let bound = format!("until ip -4 address show {BRIDGE} | grep -q inet; do sleep 1; done");
    host.type_line(&format!("{bound}; kill -9 {SUPERVISOR}; exit"))?;
    host.log_in()?;
    host.settle()?;
    let wrong = host.check(&up())?;
    lab.note("killed before the hand-over", wrong);
    let asked = lab.lan.count(mark, &mac, "DHCPDISCOVER");
    lab.expect(asked <= 1, format!("{asked} DHCPDISCOVER in one boot"));
    Ok(())
}

/// The supervisor is killed while somebody pings: another takes over, and nothing else changes.
fn killed(lab: &mut Lab, host: &mut Host, address: &str) -> Result<Vec<String>> {
    let addresses =
        format!("ip -o address show {BRIDGE} | tr -s ' ' | cut -d' ' -f2-4; ls /sys/class/net/{BRIDGE}/brif");
    let processes = "ps -eo pid=,comm= | grep -e xenstored -e xenconsoled -e sshd -e sino-keeper | sort";
    let before = (host.do_(&addresses)?, host.do_(processes)?, host.do_(&format!("echo {SUPERVISOR}"))?);
    host.do_(&format!("(sleep 2; kill -9 {SUPERVISOR}) >/dev/null 2>&1 & disown"))?;
    let answered = lab.ping(address, 30)?;
    let mut wrong = Vec::new();
    if answered < 29 {
        wrong.push(format!("only {answered} of 30 pings were answered"));
    }
    let old = &before.2;
    wrong.extend(host.check(&[
        ends(&format!("timeout 60 sh -c 'exec 2>/dev/null; until p={SUPERVISOR} && [ \"$p\" != \"{old}\" ] && kill -0 $p; do sleep 1; done'")),
        is(&addresses, &before.0),
        is(processes, &before.1),
    ])?);
    wrong.extend(host.check(&up())?);
    Ok(wrong)
}
