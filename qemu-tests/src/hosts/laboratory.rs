//! The laboratory itself, with what any Debian does: a late DHCP server, a lease, ssh, DNS, disks that last and lose only
//! what was not written, a carrier that goes and comes, a VLAN trunk, and a reboot. If this fails, nothing else counts.

use super::check::{ends, has, is};
use crate::host::{Host, Setup};
use crate::lab::dhcp_server::NAME;
use crate::lab::{LAN, Lab, OTHER, Settings};
use anyhow::{Context, Result, bail, ensure};
use sino_image::qemu::{Backend, Bus};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// How long a client may take to ask again.
const ASK: Duration = Duration::from_secs(120);
/// The VLAN of the trunk.
const VLAN: u16 = 42;

/// The trial.
pub(super) fn run(lab: &mut Lab) -> Result<()> {
    let card = lab.card("virtio-net-pci", Some(LAN))?;
    let (trunk, vlan_server) = lab.trunk("e1000e", VLAN)?;
    let unplugged = lab.card("virtio-net-pci", None)?;
    let pair = [lab.card("virtio-net-pci", Some(OTHER))?, lab.card("e1000", Some(OTHER))?];
    let disks = [lab.disk("one", Bus::Virtio, 2048)?, lab.disk("two", Bus::Sata, 1024)?];
    let capture = lab.capture(LAN.0, "udp port 67", "dhcp")?;
    let mut host = Host::begin(lab, &Setup::direct(&[&[card, trunk, unplugged], pair.as_slice()].concat(), &disks))?;
    // The trunk's untagged frames are on the same segment; this host shall ask through its first card.
    for other in 1..5 {
        host.set_link(other, false)?;
    }
    host.log_in()?;
    host.settle()?;
    let (link, trunk_link) = (host.link(0)?, host.link(1)?);
    let mac = host.mac("xenbr0")?;
    let wrong = host.check(&[
        is(&format!("ip link set {link} up; cat /sys/class/net/{link}/carrier"), "1"),
        is(&format!("ip link set {trunk_link} up; cat /sys/class/net/{trunk_link}/carrier"), "0"),
        has("lsblk -dno NAME,SIZE,SERIAL", &["2G one", "1G two"]),
        is("ip -4 route show default", ""),
    ])?;
    lab.note("before the server", wrong);
    capture.wait_for(&["Request from", &mac], ASK)?;

    lab.lan.start(&lab.namespace, &Settings::default())?;
    let address = lab.lan.wait_for(0, &mac, "DHCPACK", ASK)?.context("an ACK without an address")?;
    lab.expect(lab.lan.count(0, &mac, "DHCPDISCOVER") > 0, "the lease came without a DHCPDISCOVER");
    let online = "/usr/lib/systemd/systemd-networkd-wait-online --interface=xenbr0:routable --timeout=60";
    let wrong = host.check(&[
        ends(online),
        has("ip -4 route show default", &[&format!("via {}.1", LAN.1)]),
        has(&format!("getent hosts {NAME}"), &[&format!("{}.1", LAN.1)]),
    ])?;
    lab.note("with a lease", wrong);
    ensure!(lab.ping(&address, 3)? > 0, "{address} does not answer");
    let said = host.ssh(lab, &address, "echo by ssh as $(id -un)")?;
    lab.expect(said.text.trim() == "by ssh as root", format!("ssh says {said:?}"));

    host.set_link(0, false)?;
    let wrong = host.check(&[is(&format!("cat /sys/class/net/{link}/carrier"), "0")])?;
    lab.note("without the carrier", wrong);
    lab.expect(lab.ping(&address, 3)? == 0, "a host without a cable answers");
    host.set_link(0, true)?;
    lab.expect(lab.ping(&address, 20)? > 0, "with the cable back, the host does not answer");

    vlan(lab, &mut host, &trunk_link)?;
    drop(vlan_server);
    bond(lab, &mut host)?;
    disks_last(lab, &mut host, &disks)?;

    lab.lan.stop();
    let mark = lab.lan.mark();
    host.reboot()?;
    // The server was gone for the whole boot; its leases are in its file.
    lab.lan.start(&lab.namespace, &Settings::default())?;
    host.settle()?;
    host.write_file("/run/lab/file", "a = [\"b\"] # it's\n\nend\n")?;
    let wrong = host.check(&[is("cat /run/lab/file", "a = [\"b\"] # it's\n\nend")])?;
    lab.note("a file written by typing", wrong);
    let mac = host.mac("xenbr0")?;
    let again = lab.lan.wait_for(mark, &mac, "DHCPACK", ASK)?;
    lab.expect(again.is_some(), format!("after a reboot the address is {again:?}"));
    host.power_off()
}

/// The trunk without a guest: a question with the tag gets an answer with the tag.
pub(super) fn trunk(lab: &mut Lab) -> Result<()> {
    let (card, _server) = lab.trunk("e1000e", VLAN)?;
    let Backend::Datagrams { local, remote } = card.backend else { bail!("a trunk is on sockets: {card:?}") };
    let guest = UnixDatagram::bind(local)?;
    guest.set_read_timeout(Some(Duration::from_secs(1)))?;
    let (own, all) = ([0x52, 0x54, 0, 0, 0, 0x77], [0xff; 6]);
    // ARP (RFC 826): who has 203.0.113.1, tell 203.0.113.77?
    let head = [0x81, 0, 0, 42, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    let question = [&all[..], &own, &head, &own, &[203, 0, 113, 77], &[0; 6], &[203, 0, 113, 1]].concat();
    let mut frame = [0; 2048];
    // Until socat is there.
    for _ in 0..20 {
        guest.send_to(&question, &remote)?;
        while let Ok(length) = guest.recv(&mut frame) {
            let frame = frame.get(..length).unwrap_or_default();
            if frame.starts_with(&own) && frame.get(12..18) == Some(&[0x81, 0, 0, 42, 8, 6]) {
                lab.expect(lab.frames_in_vlan(VLAN) > 0, "the trunk counted no frame");
                return Ok(());
            }
        }
    }
    bail!("no answer with the tag")
}

/// A VLAN link made by hand: both ways through the trunk.
fn vlan(lab: &mut Lab, host: &mut Host, link: &str) -> Result<()> {
    host.set_link(1, true)?;
    host.do_(&format!("ip link set {link} nomaster up; ip link add link {link} name v42 type vlan id {VLAN}"))?;
    host.do_("ip address add 203.0.113.77/24 dev v42 && ip link set v42 up")?;
    lab.expect(lab.ping("203.0.113.77", 10)? > 0, "no answer through the trunk");
    lab.expect(lab.frames_in_vlan(VLAN) > 0, "the guest sent no frame with the tag");
    host.do_("ip link del v42").map(drop)
}

/// A bond made by hand of the two cards on the other segment: either of them may lose its cable.
fn bond(lab: &mut Lab, host: &mut Host) -> Result<()> {
    let address = format!("{}.77", OTHER.1);
    host.do_("ip link add both type bond mode active-backup miimon 100")?;
    for card in [3, 4] {
        host.set_link(card, true)?;
        let link = host.link(card)?;
        host.do_(&format!("ip link set {link} down; ip link set {link} master both"))?;
    }
    host.do_(&format!("ip address add {address}/24 dev both && ip link set both up"))?;
    lab.expect(lab.ping(&address, 10)? > 0, "no answer over the bond");
    for card in [3, 4] {
        host.set_link(card, false)?;
        let answered = lab.ping(&address, 20)?;
        // Evidence for whoever reads the log.
        host.serial("grep -e Status -e Active -e Interface /proc/net/bonding/both; dmesg | tail -5")?;
        lab.expect(answered >= 15, format!("with card {card} dead {answered} of 20 pings were answered"));
        host.set_link(card, true)?;
        let up =
            r#"timeout 20 sh -c 'until [ $(grep -c "MII Status: up" /proc/net/bonding/both) = 3 ]; do sleep 1; done'"#;
        host.do_(up)?;
    }
    host.do_("ip link del both").map(drop)
}

/// Both disks: what was synced survives a power cut, what the host's tools write is there, and damage is seen.
fn disks_last(lab: &mut Lab, host: &mut Host, disks: &[crate::lab::Disk; 2]) -> Result<()> {
    let [one, two] = disks;
    for command in [
        "pvcreate -q /dev/disk/by-id/virtio-one",
        "vgcreate -q labvg /dev/disk/by-id/virtio-one",
        "lvcreate -q -n labvol -L 512M labvg",
        "mkfs.ext4 -q /dev/labvg/labvol",
        "mount /dev/labvg/labvol /mnt",
        "echo kept > /mnt/kept && sync",
        "echo lost > /mnt/lost",
    ] {
        host.do_(command)?;
    }
    host.power_cut()?;
    let activate = "vgchange -q -ay labvg; udevadm settle";
    host.do_(activate)?;
    let wrong = host.check(&[
        ends("mount /dev/labvg/labvol /mnt"),
        is("cat /mnt/kept", "kept"),
        // The guest's kernel had not sent it yet: the power cut is a real one.
        is("cat /mnt/lost 2>/dev/null | wc -c", "0"),
    ])?;
    lab.note("after a power cut", wrong);
    host.do_("umount /mnt; vgchange -q -an labvg; sync")?;
    host.power_off()?;

    let damage = one.ext4_damage("labvg", "labvol")?;
    lab.expect(damage.is_none(), format!("unmounted in order, but {damage:?}"));
    one.mark_ext4_as_broken("labvg", "labvol")?;
    two.write(4096, b"from the host")?;
    host.power_on(None, None)?;
    let wrong = host.check(&[
        ends(activate),
        has("dumpe2fs -h /dev/labvg/labvol", &["clean with errors"]),
        has("e2fsck -p /dev/labvg/labvol", &["contains a file system with errors"]),
        is("dd if=/dev/disk/by-id/ata-QEMU_HARDDISK_two bs=1 skip=4096 count=13 status=none", "from the host"),
    ])?;
    lab.note("altered while it was off", wrong);
    Ok(())
}
