//! What is SINO's own in these trials: its commands, its files, its words. All of it stands here, so that a change of the
//! product is a change of this file.

use super::check::{Check, ends, fails, has, is};
use crate::host::Host;
use anyhow::{Result, ensure};

/// The bridge that every host has.
pub(super) const BRIDGE: &str = "xenbr0";
/// The group, and its volume that is mounted on `/srv`.
pub(super) const VOLUME: (&str, &str) = ("xvg", "xvol");
/// The configuration of the stick, as it is copied into memory.
pub(super) const STICK_CONFIG: &str = "/run/sino/stick/sino.toml";
/// The image's own configuration.
pub(super) const IMAGE_CONFIG: &str = "/etc/sino/sino.toml";
/// Where what makes a host itself is kept, on the volume.
pub(super) const STATE: &str = "/srv/sino/state";
/// The configuration on the volume.
pub(super) const CONFIG: &str = "/srv/sino/sino.toml";
/// Mounts the volume and takes what it keeps into use, and the other way round.
pub(super) const SRV_START: &str = "srv start";
/// Unmounts it.
pub(super) const SRV_STOP: &str = "srv stop";
/// Everything about the host, as JSON.
pub(super) const STATUS: &str = "sino status --json";
/// The supervisor's process number.
pub(super) const SUPERVISOR: &str = "$(cat /run/sino/supervisor.pid)";
/// Takes a changed network configuration into use, for a minute unless it is confirmed.
pub(super) const NETWORK_APPLY: &str = "sino network apply";
/// Keeps it.
pub(super) const NETWORK_CONFIRM: &str = "sino network confirm";
/// How long it takes back an unconfirmed configuration after, in seconds.
pub(super) const REVERT_SECONDS: u64 = 60;
/// How long after a change at the latest it is on the volume, in seconds.
pub(super) const KEPT_SECONDS: u64 = 10;
/// The rescue shell's prompt.
pub(super) const SHELL: &str = "sino rescue# ";
/// A boot that stops in a shell of stage one when the root is complete, and where that root is then.
pub(super) const BREAK_WITH_ROOT: (&str, &str) = ("sino.break=check-root", "/sysroot");
/// A boot that stops in a shell of stage two while the supervisor is at work already.
pub(super) const BREAK_BEFORE_HANDOVER: &str = "sino.break=hand-over";

/// True of every host that is up, whatever its network and disks are.
pub(super) fn up() -> Vec<Check> {
    vec![
        is("systemctl is-active sino.service sino-keeper.service ssh.service | sort -u", "active"),
        is("systemctl --failed --no-legend --plain", ""),
        is(&format!("cat /proc/{SUPERVISOR}/comm"), "sino-supervisor"),
        // systemd has adopted it.
        is(&format!("systemctl show -P MainPID sino.service | grep -cx {SUPERVISOR}"), "1"),
        is("pgrep -xc sino-supervisor", "1"),
        // One udevd: stage two ended its own before Debian's began, or soon after.
        is("pgrep -xc systemd-udevd", "1"),
        // One DHCP client, not two: networkd does not touch what is SINO's.
        is("networkctl list --no-legend 2>/dev/null | grep -c configured", "0"),
    ]
}

/// The volume is mounted, with swap if the host has any.
pub(super) fn mounted(swap: bool) -> Vec<Check> {
    let (group, volume) = VOLUME;
    let mut checks = vec![
        is("findmnt -no SOURCE,FSTYPE /srv | tr -s ' '", &format!("/dev/{group}/{volume} ext4")),
        // Not another mount on top of it.
        is("findmnt -no TARGET /srv | wc -l", "1"),
        has("udevadm info --query=property /dev/xvg/xvol", &["DM_NAME=xvg-xvol"]),
        is("systemctl is-active srv.mount", "active"),
        ends("srv status"),
    ];
    if swap {
        checks.push(is("swapon --show=NAME --noheadings | wc -l", "1"));
    }
    checks
}

/// The volume is not mounted, and the host says why, with these words.
pub(super) fn not_mounted(words: &[&str]) -> Vec<Check> {
    vec![fails("findmnt /srv"), has("sino status", words), has("cat /run/sino/storage.json", words)]
}

/// This file of the configuration is skipped, which is said with file, line and column by whatever tells of the host.
pub(super) fn layer_is_skipped(file: &str) -> Vec<Check> {
    let place = format!("{file}:[0-9]+:[0-9]+: ");
    vec![
        is(&format!("sino config check 2>&1 | grep -cE '^{place}.*nothing of this file is used'"), "1"),
        ends(&format!("{STATUS} | grep -E '\"{place}'")),
        ends(&format!("sino status | grep -E '{place}'")),
    ]
}

/// SINO's facts can be read by programs.
pub(super) fn facts(host: &mut Host) -> Vec<String> {
    let mut wrong = Vec::new();
    for command in [STATUS, "cat /run/sino/boot.json", "cat /run/sino/network.json", "cat /run/sino/storage.json"] {
        match host.json(command) {
            Ok(value) if value.is_object() => {}
            Ok(value) => wrong.push(format!("{command}: not an object: {value}")),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    wrong
}

/// What an administrator types on a new host to give it its volume.
pub(super) fn prepare(host: &mut Host, disks: &[&str], swap: bool) -> Result<()> {
    let devices: Vec<String> = disks.iter().map(|disk| format!("/dev/disk/by-id/{disk}")).collect();
    let (devices, (group, volume)) = (devices.join(" "), VOLUME);
    host.do_(&format!("pvcreate -q {devices} && vgcreate -q {group} {devices}"))?;
    host.do_(&format!("lvcreate -q -L 600M -n {volume} {group} && mkfs.ext4 -q /dev/{group}/{volume}"))?;
    if swap {
        host.do_(&format!("lvcreate -q -L 128M -n swap {group} && mkswap -q /dev/{group}/swap"))?;
    }
    host.do_(SRV_START).map(drop)
}

/// The same by the one command, for a disk that holds an ext4: refused, refused again for a wrong name, and done for the right
/// one. Returns what is not as it must be.
///
/// # Errors
/// A command does not end, or the disk is not prepared in the end.
pub(super) fn prepare_by_command(host: &mut Host, disk: &str) -> Result<Vec<String>> {
    let (group, volume) = VOLUME;
    let command = format!("sino disk prepare {disk} --srv 600M --swap 128M");
    let still_there = is(&format!("blkid -po value -s TYPE {disk}"), "ext4");
    let mut wrong = host.check(&[
        has(&format!("{command} --yes 2>&1; echo ended $?"), &["holds something: ", "ext4", "--erase", "ended 1"]),
        still_there.clone(),
    ])?;
    let name = host.do_(&format!("basename $(readlink -f {disk})"))?;
    let question = format!("type the disk's name to erase it ({name}): ");
    let refused = host.answer(&format!("{command} --erase"), &question, "sdx")?;
    wrong.extend(has("a wrong name typed", &["\"sdx\" is not", "nothing was written"]).judge(&refused));
    wrong.extend(fails("a wrong name typed").judge(&refused));
    wrong.extend(host.check(&[still_there])?);
    let done = host.answer(&format!("{command} --erase"), &question, &name)?;
    ensure!(done.status == 0, "{command}: status {}: {}", done.status, done.text);
    let (plan, _) = done.text.split_once(&question).unwrap_or_default();
    for part in ["THIS WILL BE LOST: ", "ext4", "600", "128", "pvcreate", "vgcreate", "lvcreate", "mkfs.ext4", "mkswap"]
    {
        if !plan.contains(part) {
            wrong.push(format!("before the question {part:?} is not shown: {plan}"));
        }
    }
    wrong.extend(host.check(&[
        // What is on the disk, not what udev knows: it may miss a signature that is written right after lvcreate.
        is(
            &format!(
                "for d in $(lsblk -lnpo NAME {disk}); do blkid -po value -s TYPE $d; done | LC_ALL=C sort | tr -d ' \\n'"
            ),
            "LVM2_memberext4swap",
        ),
        is(&format!("lvs --noheadings --units m --nosuffix -o lv_size {group}/{volume} | tr -d ' '"), "600.00"),
    ])?);
    Ok(wrong)
}
