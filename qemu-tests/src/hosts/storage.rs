//! Disks in trouble, each at a boot of the same host: none, one of two groups' disks missing, two groups of the same name,
//! a file system with errors, one without its superblock. The host comes up each time, says what is wrong, and writes to
//! nothing that it does not understand.

use super::check::{Check, ends, has, is};
use super::product::{SRV_START, VOLUME, facts, mounted, not_mounted, prepare, up};
use crate::host::{Host, Setup};
use crate::lab::{Disk, LAN, Lab};
use anyhow::Result;
use sino_image::qemu::Bus;

/// The trial.
pub(super) fn run(lab: &mut Lab) -> Result<()> {
    let card = lab.card("virtio-net-pci", Some(LAN))?;
    let one = lab.disk("one", Bus::Virtio, 1024)?;
    let two = lab.disk("two", Bus::Virtio, 1024)?;
    let stranger = lab.disk("stranger", Bus::Sata, 1024)?;

    let mut host = Host::boot(lab, &Setup::direct(&[card], &[]))?;
    look(lab, &mut host, "no disk", &not_mounted(&["xvg"]))?;
    host.pull_the_plug();

    // Another host's disk: a group of the same name.
    host.power_on(None, Some(std::slice::from_ref(&stranger)))?;
    host.settle()?;
    prepare(&mut host, &["ata-QEMU_HARDDISK_stranger"], false)?;
    host.do_("echo stranger > /srv/whose; sync")?;
    host.power_off()?;

    // The volume lies on the first disk, another one on the second.
    host.power_on(None, Some(&[one.clone(), two.clone()]))?;
    host.settle()?;
    prepare(&mut host, &["virtio-one", "virtio-two"], true)?;
    host.do_("lvcreate -q -L 100M -n second xvg /dev/disk/by-id/virtio-two")?;
    host.do_("echo own > /srv/whose; sync")?;
    let own = is("cat /srv/whose", "own");
    host.power_off()?;

    one.mark_ext4_as_broken(VOLUME.0, VOLUME.1)?;
    host.power_on(None, None)?;
    let mut checks = mounted(true);
    checks.extend([
        own.clone(),
        has("sino status", &["corrected"]),
        is("dumpe2fs -h /dev/xvg/xvol 2>/dev/null | grep -c 'with errors'", "0"),
    ]);
    look(lab, &mut host, "errors in the file system", &checks)?;
    host.power_off()?;

    host.power_on(None, Some(std::slice::from_ref(&one)))?;
    let mut checks = mounted(false);
    checks.extend([own.clone(), has("sino status", &["missing"]), has("cat /run/sino/storage.json", &["missing"])]);
    look(lab, &mut host, "a disk of the group is missing", &checks)?;
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
        own,
        is("findmnt -no TARGET /srv", "/srv"),
    ];
    look(lab, &mut host, "repaired by hand", &checks)?;
    host.power_off()
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
