//! Disks in trouble, each at a boot of the same host: none (and no network card either), one of the group's disks missing, a
//! full volume with errors in its file system, two groups of the same name, a file system without its superblock. The host
//! comes up each time, says what is wrong, and writes to nothing that it does not understand.

use super::check::{Check, ends, has, has_none, is};
use super::product::{
    BRIDGE, KEPT_SECONDS, SRV_START, STATE, VOLUME, facts, mounted, not_mounted, prepare, prepare_by_command, up,
};
use crate::host::{Host, Setup};
use crate::lab::{Disk, LAN, Lab};
use anyhow::Result;
use sino_image::qemu::Bus;

/// What is looked at is there when Debian begins, however slow the machine is that plays the host.
const PATIENT: &str = "sino.handover=200";
/// The disks of the host's own group as the guest knows them.
const ONE: &str = "/dev/disk/by-id/virtio-one";
const TWO: &str = "/dev/disk/by-id/virtio-two";
/// What makes a host itself, as commands whose output must be the same at every boot.
const IDENTITY: [&str; 3] = ["hostname", "cat /etc/machine-id", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"];
/// Reads what [`own_group`] has written to its thin volume and to its mirror.
const THIN: &str = "head -c 4 /dev/xvg/thin";
const MIRROR: &str = "head -c 6 /dev/xvg/mirror";

/// The trial.
pub(super) fn run(lab: &mut Lab) -> Result<()> {
    let card = lab.card("virtio-net-pci", Some(LAN))?;
    let one = lab.disk("one", Bus::Virtio, 1024)?;
    let two = lab.disk("two", Bus::Virtio, 1024)?;
    let stranger = lab.disk("stranger", Bus::Sata, 1024)?;

    let mut host = Host::boot(lab, &Setup::direct(&[], &[]).with(PATIENT))?;
    let mut checks = not_mounted(&["xvg"]);
    checks.extend([
        is("ls -d /sys/class/net/*/device 2>/dev/null | wc -l", "0"),
        is(&format!("ls /sys/class/net/{BRIDGE}/brif"), ""),
        has(&format!("ip -brief link show up {BRIDGE}"), &[BRIDGE]),
        has("sino status", &[&format!("{BRIDGE} has no port: no network card was found")]),
        has("sino network show", &["no network card was found"]),
    ]);
    look(lab, &mut host, "no disk and no network card", &checks)?;
    host.pull_the_plug();

    // Another host's disk: a group of the same name.
    host.set_cards(&[card]);
    host.power_on(None, Some(std::slice::from_ref(&stranger)))?;
    host.settle()?;
    prepare(&mut host, &["ata-QEMU_HARDDISK_stranger"], false)?;
    host.do_("echo stranger > /srv/whose; sync")?;
    host.power_off()?;

    // The volume lies on the first disk, another one on the second.
    host.power_on(None, Some(&[one.clone(), two.clone()]))?;
    host.settle()?;
    let identity = own_group(lab, &mut host)?;
    let mut own: Vec<Check> = IDENTITY.iter().zip(&identity).map(|(command, text)| is(command, text)).collect();
    own.push(is("cat /srv/whose", "own"));
    host.power_off()?;

    host.power_on(None, Some(std::slice::from_ref(&one)))?;
    let mut checks = mounted(true);
    checks.extend(own.clone());
    checks.extend([
        has("sino status", &["missing", "on, with a part missing: mirror", "second", "thin"]),
        has("cat /run/sino/storage.json", &["missing"]),
        is(MIRROR, "mirror"),
    ]);
    look(lab, &mut host, "a disk of the group is missing", &checks)?;
    fill(&mut host)?;
    host.power_off()?;

    one.mark_ext4_as_broken(VOLUME.0, VOLUME.1)?;
    host.power_on(None, Some(&[one.clone(), two.clone()]))?;
    full_and_broken(lab, &mut host, own.clone())?;
    host.power_off()?;

    host.power_on(None, Some(&[one.clone(), two.clone(), stranger.clone()]))?;
    look(lab, &mut host, "two groups of the same name", &not_mounted(&["2 volume groups are called xvg"]))?;
    untouched(lab, &mut host, &[&one, &two, &stranger])?;
    host.pull_the_plug();

    let start = one.volume(VOLUME.0, VOLUME.1)?;
    one.write(start, &[0; 4096])?;
    host.power_on(None, Some(&[one.clone(), two.clone()]))?;
    look(lab, &mut host, "no superblock", &not_mounted(&["superblock"]))?;
    untouched(lab, &mut host, &[&one, &two])?;
    // The way out that e2fsck names: another copy of it.
    let checks = [
        ends("e2fsck -y -b 32768 -B 4096 /dev/xvg/xvol; [ $? -le 1 ]"),
        ends(SRV_START),
        is("cat /srv/whose", "own"),
        is("findmnt -no TARGET /srv", "/srv"),
    ];
    look(lab, &mut host, "repaired by hand", &checks)?;
    host.power_off()
}

/// The host's own group: made by the one command on a disk that holds something, then a second disk, a plain, a thin and a
/// mirrored volume. Returns what makes the host itself.
fn own_group(lab: &mut Lab, host: &mut Host) -> Result<Vec<String>> {
    let before = host.do_(IDENTITY[2])?;
    host.do_(&format!("mkfs.ext4 -q {ONE}"))?;
    let wrong = prepare_by_command(host, ONE)?;
    lab.note("sino disk prepare", wrong);
    let mut wrong = host.check(&mounted(true))?;
    wrong.extend(host.check(&[
        is(IDENTITY[2], &before),
        ends(&format!("cmp /etc/ssh/ssh_host_ed25519_key {STATE}/ssh_host_ed25519_key")),
        has(&format!("stat -c %a {STATE}"), &["700"]),
    ])?);
    lab.note("sino disk prepare", wrong);
    for command in [
        &format!("pvcreate -q {TWO}; vgextend -q xvg {TWO}"),
        &format!("lvcreate -q -L 100M -n second xvg {TWO}"),
        &format!("lvcreate -q --type thin -L 64M --thinpool pool -V 48M -n thin xvg {TWO}"),
        "lvcreate -q --type raid1 -m 1 -L 64M -n mirror xvg",
        "printf thin > /dev/xvg/thin; printf mirror > /dev/xvg/mirror",
        "timeout 100 sh -c 'until lvs --noheadings -o sync_percent xvg/mirror | grep -q 100.00; do sleep 1; done'",
        "hostnamectl set-hostname own.lab.test; echo own > /srv/whose",
    ] {
        host.do_(command)?;
    }
    host.do_(&format!("sleep {KEPT_SECONDS}; sync"))?;
    IDENTITY.iter().map(|command| host.do_(command)).collect()
}

/// Until the volume takes not one byte more, of what is held back for root neither.
fn fill(host: &mut Host) -> Result<()> {
    host.do_("fallocate -l $(df --output=avail -B1 /srv | tail -n 1) /srv/filler; cat /dev/zero > /srv/rest; sync")?;
    Ok(())
}

/// The volume is full, its file system has errors that are safe to correct, and the disk that was missing is back.
fn full_and_broken(lab: &mut Lab, host: &mut Host, own: Vec<Check>) -> Result<()> {
    let mut checks = mounted(true);
    checks.extend(own);
    checks.extend([
        has("sino status", &["corrected", "/srv is full", "5 of 5 volumes active"]),
        has("srv status", &["/srv is full"]),
        is("dumpe2fs -h /dev/xvg/xvol 2>/dev/null | grep -c 'with errors'", "0"),
        is("df --output=avail -B1 /srv | tail -n 1", "0"),
        is(THIN, "thin"),
        is(MIRROR, "mirror"),
    ]);
    look(lab, host, "full, with errors in the file system", &checks)?;
    // What cannot be kept is said, and costs nothing of what is.
    host.do_("hostnamectl set-hostname full.lab.test")?;
    let mut wrong = host.check(&[
        has(&format!("sleep {KEPT_SECONDS}; dmesg | tail -n 20"), &["hostname is not kept yet", "No space left"]),
        is(&format!("cat {STATE}/hostname"), "own.lab.test"),
        is(&format!("find {STATE} -name '*.new'"), ""),
    ])?;
    host.do_("rm /srv/filler /srv/rest; sync; hostnamectl set-hostname roomy.lab.test")?;
    wrong.extend(host.check(&[
        is(&format!("sleep {KEPT_SECONDS}; cat {STATE}/hostname"), "roomy.lab.test"),
        is(&format!("find {STATE} -name '*.new'"), ""),
        ends(SRV_START),
        has_none("srv status", &["full"]),
    ])?);
    lab.note("a full volume", wrong);
    // They are written to by being activated, which what comes next must tell from a fault.
    host.do_("lvremove -q -y xvg/mirror xvg/thin xvg/pool").map(drop)
}

/// The host is up, and these are true.
fn look(lab: &mut Lab, host: &mut Host, when: &str, checks: &[Check]) -> Result<()> {
    let state = host.settle()?;
    lab.expect(state == "running", format!("{when}: the host is {state:?}"));
    let mut wrong = host.check(&up())?;
    wrong.extend(host.check(checks)?);
    wrong.extend(facts(host));
    lab.note(when, wrong);
    Ok(())
}

/// Nothing was written to these disks since the host was switched on.
fn untouched(lab: &mut Lab, host: &mut Host, disks: &[&Disk]) -> Result<()> {
    for disk in disks {
        let written = host.written(&disk.name)?;
        lab.expect(written == 0, format!("{written} bytes were written to {}, which must not be touched", disk.name));
    }
    Ok(())
}
