//! A network that an administrator has configured: an address of its own, tried out and taken back; then a bond, a tagged
//! VLAN and a second bridge, found at the next boot; then the host itself in a VLAN of its bridge.

use super::check::{ends, fails, has, is};
use super::product::{
    BREAK_WITH_ROOT, BRIDGE, CONFIG, IMAGE_CONFIG, NETWORK_APPLY, NETWORK_CONFIRM, REVERT_SECONDS, SHELL, STATUS,
    STICK_CONFIG, facts, layer_is_skipped, prepare, up,
};
use crate::host::{Host, Setup};
use crate::lab::{LAN, Lab, OTHER, Settings};
use anyhow::{Context, Result};
use sino_image::qemu::Bus;
use std::time::Duration;

/// How long a host may take to its lease.
const LEASE: Duration = Duration::from_secs(90);
/// The VLAN of the trunk.
const VLAN: u16 = 42;
/// The address that the administrator gives.
const FIXED: &str = "192.0.2.50";

/// How long the boot without the lower layers may take to the hand-over, in seconds: told by a flag.
const HANDOVER: u32 = 60;

/// The trial.
pub(super) fn run(lab: &mut Lab) -> Result<()> {
    lab.lan.start(&lab.namespace, &Settings::default())?;
    let (trunk, mut tagged) = lab.trunk("e1000e", VLAN)?;
    tagged.start(&lab.namespace, &Settings::default())?;
    let cards = [
        lab.card("virtio-net-pci", Some(LAN))?,
        lab.card("virtio-net-pci", Some(LAN))?,
        trunk,
        lab.card("virtio-net-pci", Some(OTHER))?,
    ];
    let disk = lab.disk("one", Bus::Virtio, 2048)?;
    let mut host = Host::boot(lab, &Setup::direct(&cards, &[disk]))?;
    host.settle()?;
    let mac = host.mac(BRIDGE)?;
    let leased = lab.lan.wait_for(0, &mac, "DHCPACK", LEASE)?.context("an ACK without an address")?;
    prepare(&mut host, &["virtio-one"], false)?;
    fixed(lab, &mut host, &leased)?;

    let links: Vec<String> = (0..cards.len()).map(|card| host.link(card)).collect::<Result<_>>()?;
    let [one, two, trunk, other] = links.as_slice() else { anyhow::bail!("not four cards: {links:?}") };
    host.write_file(
        CONFIG,
        &format!(
            "[network.bond.bond0]\nports = [\"{one}\", \"{two}\"]\nmode = \"active-backup\"\n\n\
         [network.vlan.tag]\nlink = \"{trunk}\"\nid = {VLAN}\n\n\
         [network.bridge.xenbr0]\nports = [\"bond0\"]\naddresses = [\"{FIXED}/24\"]\ngateways = [\"{}.1\"]\n\n\
         [network.bridge.xenbr1]\nports = [\"{other}\"]\n\n\
         [network.bridge.xenbr2]\nports = [\"tag\"]\naddresses = [\"dhcp\"]\n",
            LAN.1,
        ),
    )?;
    let wrong = host.check(&[ends("sino config check")])?;
    lab.note("checking the configuration", wrong);
    host.reboot()?;
    bond_and_vlan(lab, &mut host, &tagged, [one.as_str(), trunk, other])?;

    host.write_file(
        CONFIG,
        &format!("[network.bridge.xenbr0]\nports = [\"{trunk}\"]\naddresses = [\"dhcp\"]\nhost_vlan = {VLAN}\n"),
    )?;
    host.power_off()?;
    let mark = tagged.mark();
    without_the_layers_below(lab, &mut host)?;
    let state = host.settle()?;
    lab.expect(state == "running", format!("in a VLAN of its bridge the host is {state:?}"));
    let leased = tagged.wait_for(mark, &host.mac(BRIDGE)?, "DHCPACK", LEASE)?.context("an ACK without an address")?;
    lab.expect(lab.ping(&leased, 5)? > 0, format!("{leased}, in a VLAN of the bridge, does not answer"));
    let mut wrong = host.check(&up())?;
    wrong.extend(host.check(&layer_is_skipped(IMAGE_CONFIG))?);
    wrong.extend(host.check(&layer_is_skipped(STICK_CONFIG))?);
    wrong.extend(host.check(&[
        fails("sino config check"),
        has("sino config show", &[&format!("flag sino.handover={HANDOVER}"), &format!("srv {CONFIG}:4")]),
    ])?);
    lab.note("in a VLAN of its bridge", wrong);
    host.power_off()
}

/// A boot with configurations in the image and on the stick that are no TOML: those of the volume and the flags hold. The
/// image's is spoilt in stage one's shell, above the read-only image, before anything of stage two has read it.
fn without_the_layers_below(lab: &Lab, host: &mut Host) -> Result<()> {
    let stick = lab.stick("broken", "[system]\nhostname = \"without-an-end\nkeyboard = 7\n")?;
    host.set_medium(&stick);
    let (flag, root) = BREAK_WITH_ROOT;
    host.switch_on_with(&format!("{flag} sino.handover={HANDOVER}"))?;
    host.wait_for_console(SHELL, Duration::from_secs(200))?;
    host.type_line(&format!("mkdir -p {root}/etc/sino; echo '[boot' > {root}{IMAGE_CONFIG}; exit"))?;
    host.log_in()
}

/// An address of the administrator's own: taken back without a confirmation, kept with one, and refused when it is wrong.
fn fixed(lab: &mut Lab, host: &mut Host, leased: &str) -> Result<()> {
    host.write_file(CONFIG, &format!(
        "[network]\ndns = [\"{0}.1\"]\n\n[network.bridge.xenbr0]\naddresses = [\"{FIXED}/24\"]\ngateways = [\"{0}.1\"]\n",
        LAN.1
    ))?;
    let wrong = host.check(&[ends("sino config check"), ends(NETWORK_APPLY)])?;
    lab.note("a fixed address", wrong);
    lab.expect(lab.ping(FIXED, 10)? > 0, format!("{FIXED} was applied, but does not answer"));
    // A wait on time: nobody confirms.
    std::thread::sleep(Duration::from_secs(REVERT_SECONDS + 5));
    lab.expect(lab.ping(leased, 20)? > 0, format!("not confirmed, but {leased} is not back"));
    lab.expect(lab.ping(FIXED, 2)? == 0, format!("not confirmed, but {FIXED} still answers"));
    let wrong = host.check(&[ends(NETWORK_APPLY), ends(NETWORK_CONFIRM)])?;
    lab.note("a fixed address, confirmed", wrong);
    std::thread::sleep(Duration::from_secs(REVERT_SECONDS + 5));
    lab.expect(lab.ping(FIXED, 10)? > 0, format!("confirmed, but {FIXED} does not answer"));
    let wrong = host.check(&[
        is(&format!("ip -4 -o address show {BRIDGE} | wc -l"), "1"),
        has("ip -4 route show default", &[&format!("via {}.1 dev {BRIDGE}", LAN.1)]),
        has("cat /etc/resolv.conf", &[&format!("nameserver {}.1", LAN.1)]),
        has(STATUS, &[FIXED]),
        has("sino network show", &[FIXED]),
    ])?;
    lab.note("a fixed address", wrong);
    host.do_(&format!("cp {CONFIG} /root/good.toml"))?;
    host.write_file(CONFIG, "[network.bridge.xenbr0]\naddresses = [\"192.0.2.500/24\"]\n")?;
    let wrong = host.check(&[
        fails("sino config check"),
        has("sino config check 2>&1", &["192.0.2.500", "addresses"]),
        fails(NETWORK_APPLY),
    ])?;
    lab.note("an address that is none", wrong);
    lab.expect(lab.ping(FIXED, 2)? > 0, "a wrong configuration took the address away");
    host.do_(&format!("cp /root/good.toml {CONFIG}; sync")).map(drop)
}

/// Two cards as one, of which either may fail; a VLAN, tagged on the wire; a bridge for guests alone.
fn bond_and_vlan(
    lab: &mut Lab,
    host: &mut Host,
    tagged: &crate::lab::DhcpServer,
    [one, trunk, other]: [&str; 3],
) -> Result<()> {
    let state = host.settle()?;
    lab.expect(state == "running", format!("with bond and VLAN the host is {state:?}"));
    let mut wrong = host.check(&up())?;
    wrong.extend(facts(host));
    wrong.extend(host.check(&[
        is("cat /sys/class/net/bond0/bonding/mode", "active-backup 1"),
        is("ls /sys/class/net/xenbr0/brif", "bond0"),
        is("ls /sys/class/net/xenbr1/brif", other),
        is("ip -4 -o address show xenbr1", ""),
        is("ls /sys/class/net/xenbr2/brif", "tag"),
        has("ip -d link show tag", &[&format!("id {VLAN}"), &format!("tag@{trunk}")]),
    ])?);
    lab.note("bond and VLAN", wrong);
    let leased = tagged.wait_for(0, &host.mac("xenbr2")?, "DHCPACK", LEASE)?.context("an ACK without an address")?;
    lab.expect(lab.ping(&leased, 5)? > 0, format!("{leased}, in the VLAN, does not answer"));
    lab.expect(lab.frames_in_vlan(VLAN) > 0, "no frame with the VLAN's tag");

    lab.expect(lab.ping(FIXED, 5)? > 0, "the host does not answer over its bond");
    for card in [0, 1] {
        host.set_link(card, false)?;
        let answered = lab.ping(FIXED, 30)?;
        lab.expect(answered >= 20, format!("with card {card} dead only {answered} of 30 pings were answered"));
        host.set_link(card, true)?;
        let back =
            r#"timeout 20 sh -c 'until [ $(grep -c "MII Status: up" /proc/net/bonding/bond0) = 3 ]; do sleep 1; done'"#;
        let wrong = host.check(&[ends(back)])?;
        lab.note(&format!("with {one} and its other back"), wrong);
    }
    Ok(())
}
