//! The laboratory itself, with what any Debian does: a late DHCP server, a lease, ssh, DNS, disks that last and lose only
//! what was not written, a carrier that goes and comes, a VLAN trunk, and a reboot. If this fails, nothing else counts.

use super::check::{ends, has, is};
use crate::host::{Host, Setup};
use crate::lab::dhcp_server::NAME;
use crate::lab::{LAN, Lab, Settings};
use anyhow::{Context, Result, ensure};
use sino_image::qemu::Bus;
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
    let disks = [lab.disk("one", Bus::Virtio, 2048)?, lab.disk("two", Bus::Sata, 1024)?];
    let capture = lab.capture(LAN.0, "udp port 67", "dhcp")?;
    let mut host = Host::begin(lab, &Setup::direct(&[card, trunk, unplugged], &disks))?;
    // The trunk's untagged frames are on the same segment; this host shall ask through its first card.
    host.set_link(1, false)?;
    host.set_link(2, false)?;
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
    disks_last(lab, &mut host, &disks)?;

    lab.lan.stop();
    let mark = lab.lan.mark();
    host.reboot()?;
    // The server was gone for the whole boot; its leases are in its file.
    lab.lan.start(&lab.namespace, &Settings::default())?;
    let mac = host.mac("xenbr0")?;
    let again = lab.lan.wait_for(mark, &mac, "DHCPACK", ASK)?;
    lab.expect(again.is_some(), format!("after a reboot the address is {again:?}"));
    host.power_off()
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
