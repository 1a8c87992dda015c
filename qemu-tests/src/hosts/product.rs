//! What is SINO's own in these trials: its commands, its files, its words. All of it stands here, so that a change of the
//! product is a change of this file.

use super::check::{Check, ends, fails, has, is};
use crate::host::Host;
use anyhow::Result;

/// The bridge that every host has.
pub(super) const BRIDGE: &str = "xenbr0";
/// The group, and its volume that is mounted on `/srv`.
pub(super) const VOLUME: (&str, &str) = ("xvg", "xvol");
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
