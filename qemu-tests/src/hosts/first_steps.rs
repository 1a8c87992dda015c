//! A blank disk becomes a host: the volume is made by hand, what makes the host itself is changed, and the next boot finds
//! everything, on the same address and without asking for another.

use super::check::{Check, fails, has, is};
use super::product::{
    BRIDGE, CONFIG, SRV_START, SRV_STOP, STATE, STATUS, STICK_CONFIG, VOLUME, facts, layer_is_skipped, mounted,
    prepare, up,
};
use crate::host::{Host, Setup};
use crate::lab::{LAN, Lab, Settings};
use anyhow::{Context, Result};
use sino_image::qemu::Bus;
use std::time::Duration;

/// How long a host may take to its lease.
const LEASE: Duration = Duration::from_secs(90);
/// What makes a host itself, as commands whose output must be the same after a reboot.
const IDENTITY: &[&str] = &[
    "hostname",
    "cat /etc/machine-id",
    "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
    "readlink -f /etc/localtime",
    "cat /root/.ssh/authorized_keys",
    "sha256sum /srv/hello",
];

/// The trial.
pub(super) fn run(lab: &mut Lab) -> Result<()> {
    lab.lan.start(&lab.namespace, &Settings::default())?;
    let card = lab.card("virtio-net-pci", Some(LAN))?;
    let disk = lab.disk("one", Bus::Virtio, 2048)?;
    let mut host = Host::boot(lab, &Setup::direct(&[card], std::slice::from_ref(&disk)))?;
    lab.expect(host.settle()? == "running", "the first boot is not \"running\"");
    let mac = host.mac(BRIDGE)?;
    let address = lab.lan.wait_for(0, &mac, "DHCPACK", LEASE)?.context("an ACK without an address")?;
    let wrong = host.check(&up())?;
    lab.note("first boot", wrong);
    let wrong = host.check(&[
        fails("findmnt /srv"),
        has("sino status", &["xvg"]),
        has("lvs 2>&1; echo end", &["end"]),
        has("cat /etc/resolv.conf", &[&format!("nameserver {}.1", LAN.1)]),
    ])?;
    lab.note("blank disk", wrong);
    let wrong = facts(&mut host);
    lab.note("blank disk", wrong);
    let written = host.written("one")?;
    lab.expect(written == 0, format!("{written} bytes were written to a blank disk before anybody asked for it"));

    prepare(&mut host, &["virtio-one"], true)?;
    for command in [
        "hostnamectl set-hostname first.lab.test",
        "timedatectl set-timezone Europe/Vienna",
        "mkdir -p /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /srv/id && cp /srv/id.pub /root/.ssh/authorized_keys",
        "head -c 3000000 /dev/urandom > /srv/hello",
        "echo root:another | chpasswd",
        "swapon -a; true",
    ] {
        host.do_(command)?;
    }
    host.passwords = vec!["another".to_owned()];
    let wrong = host.check(&mounted(false))?;
    lab.note("srv start", wrong);
    let wrong = busy(&mut host)?;
    lab.note("srv stop and start", wrong);
    let before = identity(&mut host)?;

    let mark = lab.lan.mark();
    host.reboot()?;
    lab.expect(host.settle()? == "running", "the second boot is not \"running\"");
    let again = lab.lan.wait_for(mark, &mac, "DHCPACK", LEASE)?;
    lab.expect(again.as_deref() == Some(&address), format!("the second boot has {again:?}, not {address}"));
    let asked = lab.lan.count(mark, &mac, "DHCPDISCOVER");
    lab.expect(asked == 0, format!("{asked} DHCPDISCOVER after the first boot: not INIT-REBOOT (RFC 2131, 3.2)"));
    let acknowledged = lab.lan.count(mark, &mac, "DHCPACK");
    lab.expect(acknowledged == 1, format!("{acknowledged} leases in one boot"));
    let wrong = host.check(&up())?;
    lab.note("second boot", wrong);
    let wrong = host.check(&mounted(true))?;
    lab.note("second boot", wrong);
    let wrong = facts(&mut host);
    lab.note("second boot", wrong);
    let same: Vec<Check> = IDENTITY.iter().zip(&before).map(|(command, text)| is(command, text)).collect();
    let wrong = host.check(&same)?;
    lab.note("second boot", wrong);
    // The new password is good on the console, where the second login was; by ssh it is not, now that there are keys.
    let said = host.ssh(lab, &address, "true").map_or_else(|error| format!("{error:#}"), |said| format!("{said:?}"));
    lab.expect(said.contains("Permission denied (publickey)"), format!("by ssh with the password: {said}"));
    let keyed = "ssh -i /srv/id -o BatchMode=yes -o StrictHostKeyChecking=no root@127.0.0.1 hostname";
    let wrong = host.check(&[has(keyed, &["first"])])?;
    lab.note("login with a key", wrong);

    host.write_file(CONFIG, "[network\nmanaged = false\n")?;
    host.power_off()?;
    let damage = disk.ext4_damage(VOLUME.0, VOLUME.1)?;
    lab.expect(damage.is_none(), format!("after an orderly shutdown: {damage:?}"));
    in_a_hurry(lab, &mut host)
}

/// Flags that give the address, flags that are garbage, a configuration on the volume that is no TOML, one on the stick that
/// is good, and a hand-over long before anything is ready: what cannot be used is told of and skipped, the good flags and the
/// stick hold through all of Debian, and what was not ready comes while Debian starts.
fn in_a_hurry(lab: &mut Lab, host: &mut Host) -> Result<()> {
    let (key, public) = lab.ssh_key("of-the-stick")?;
    let stick = lab.stick(
        "configured",
        &format!("[system]\nhostname = \"from-the-stick\"\n\n[access]\nauthorized_keys = [\"{public}\"]\n"),
    )?;
    host.set_medium(&stick);
    let address = format!("{}.60", LAN.1);
    let garbage = "sino.set=garbage sino.set=boot.handover=soon";
    let flags = format!("sino.handover=1 {garbage} ip={address}::{0}.1:255.255.255.0::ens5:none:{0}.1", LAN.1);
    // The login prompt may be there before the volume with the host's own password is.
    host.passwords.push("root".to_owned());
    host.power_on(Some(&flags), None)?;
    let srv = "timeout 140 sh -c 'until findmnt /srv; do sleep 1; done'";
    host.do_(srv).context("waiting for /srv after a hand-over that did not")?;
    lab.expect(host.settle()? == "running", "handed over after a second, the host is not \"running\"");
    let mut wrong = host.check(&up())?;
    wrong.extend(host.check(&mounted(true))?);
    wrong.extend(host.check(&[
        has("cat /run/sino/boot.json", &["not done after 1 s (sino.handover)", "storage"]),
        has("sino status", &[&address, "configured", "flag sino.set: the value \"garbage\" cannot be used"]),
        has(STATUS, &["flag sino.set: the value \\\"garbage\\\" cannot be used"]),
        has(STATUS, &["sino.set=boot.handover=soon: boot.handover: "]),
        fails("sino config check"),
        has("sino config check 2>&1", &["sino.set=boot.handover=soon: boot.handover: "]),
        has("sino config show", &["flag sino.handover=1", &format!("stick {STICK_CONFIG}:2")]),
        has("cat /etc/resolv.conf", &[&format!("nameserver {}.1", LAN.1)]),
        is("hostname", "from-the-stick"),
        // The stick's is not kept in the place of the host's own.
        is(&format!("cat {STATE}/hostname"), "first.lab.test"),
    ])?);
    wrong.extend(host.check(&layer_is_skipped(CONFIG))?);
    lab.note("handed over after a second", wrong);
    let said = host.ssh_with_key(lab, &address, &key, "hostname");
    let said = said.map_or_else(|error| format!("{error:#}"), |said| said.text);
    lab.expect(said.trim() == "from-the-stick", format!("by ssh with the key that the stick brings: {said}"));
    lab.expect(lab.ping(&address, 5)? > 0, format!("{address}, given by a flag, does not answer"));
    host.power_off()
}

/// A volume that is in use stays; then it goes, and comes again.
fn busy(host: &mut Host) -> Result<Vec<String>> {
    let mut wrong = host.check(&[
        has(&format!("(cd /srv; exec sleep 300) & sleep 1; {SRV_STOP} 2>&1; echo ended $?"), &["sleep", "ended 1"]),
        is("findmnt -no TARGET /srv", "/srv"),
    ])?;
    host.do_("kill %1; wait; true")?;
    host.do_(SRV_STOP)?;
    wrong.extend(host.check(&[fails("findmnt /srv")])?);
    host.do_(SRV_START)?;
    wrong.extend(host.check(&[is("findmnt -no TARGET /srv", "/srv")])?);
    Ok(wrong)
}

fn identity(host: &mut Host) -> Result<Vec<String>> {
    IDENTITY.iter().map(|command| host.do_(command)).collect()
}
