//! The same host as the product boots it: from a stick, through the menu, under Xen.

use super::check::{ends, has};
use super::product::{BRIDGE, facts, mounted, prepare, up};
use crate::host::{Host, Setup};
use crate::lab::{LAN, Lab, Settings};
use anyhow::{Context, Result};
use sino_image::qemu::Bus;
use std::time::Duration;

/// How long a host may take to its lease.
const LEASE: Duration = Duration::from_secs(120);

/// The trial.
pub(super) fn run(lab: &mut Lab) -> Result<()> {
    lab.lan.start(&lab.namespace, &Settings::default())?;
    let card = lab.card("e1000e", Some(LAN))?;
    let disk = lab.disk("one", Bus::Sata, 2048)?;
    let mut host = Host::boot(lab, &Setup::direct(&[card], &[disk]).under_xen())?;
    lab.expect(host.settle()? == "running", "the first boot is not \"running\"");
    let mac = host.mac(BRIDGE)?;
    let address = lab.lan.wait_for(0, &mac, "DHCPACK", LEASE)?.context("an ACK without an address")?;
    let said = host.ssh(lab, &address, "xl list")?;
    lab.expect(said.text.contains("Domain-0"), format!("xl list by ssh: {said:?}"));
    let wrong = host.check(&up())?;
    lab.note("first boot", wrong);
    prepare(&mut host, &["ata-QEMU_HARDDISK_one"], true)?;

    let mark = lab.lan.mark();
    host.reboot()?;
    lab.expect(host.settle()? == "running", "the second boot is not \"running\"");
    let again = lab.lan.wait_for(mark, &mac, "DHCPACK", LEASE)?;
    lab.expect(again.as_deref() == Some(&address), format!("the second boot has {again:?}, not {address}"));
    let mut wrong = host.check(&up())?;
    wrong.extend(host.check(&mounted(true))?);
    wrong.extend(host.check(&[has("xl list", &["Domain-0"]), ends("xenstore-ls /local/domain/0")])?);
    wrong.extend(facts(&mut host));
    lab.note("second boot", wrong);
    host.power_off()
}
