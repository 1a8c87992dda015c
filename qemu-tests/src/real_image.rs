//! The product itself: Debian under Xen, and whether an administrator can work with it.
//!
//! One boot serves all checks. Logs in on the serial console and waits there until the host is up; then works by ssh over
//! a forwarded port, because Xen and the kernel write between the lines of whoever reads on the serial port. Every
//! command and its output is in `commands.txt` of the artifacts. Ends with an orderly power-off.

use crate::runner::{Figures, Run, fill_in};
use crate::shell;
use anyhow::{Context, Result};
use sino_boot::layout;
use sino_image::qemu::process::require;
use sino_image::qemu::{Bus, EndReason};
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

/// The account that an administrator logs in with, and its password.
const ACCOUNT: (&str, &str) = ("root", "root");
/// How long one command may take; `xl` and `systemctl` take seconds under TCG.
const COMMAND: Duration = Duration::from_secs(120);
/// How long reading every file of the root may take: 670 MB have to be unpacked.
const READ_EVERYTHING: Duration = Duration::from_secs(480);
/// How long Debian may take to shut down.
const SHUTDOWN: Duration = Duration::from_secs(180);

/// A command with what must be true of its output.
struct Check {
    command: &'static str,
    judge: fn(&str) -> bool,
    wanted: &'static str,
}

/// What must end well on the serial console before anything else: Debian is up without a failed unit, and `xenbr0` has its
/// lease. Both wait on events.
const UP: [&str; 2] = ["systemctl is-system-running --wait", "sino network wait --timeout 60"];

const CHECKS: &[Check] = &[
    Check { command: "systemctl is-system-running", judge: |text| text.trim() == "running", wanted: "running" },
    Check { command: "systemctl --failed --no-legend --plain", judge: nothing, wanted: "no failed unit" },
    Check {
        command: "xl info",
        judge: |text| text.contains("xen_version") && text.contains("free_memory"),
        wanted: "Xen's version and memory",
    },
    Check { command: "xl list", judge: |text| text.contains("Domain-0"), wanted: "Domain-0" },
    Check { command: "findmnt -no FSTYPE /", judge: |text| text.trim() == "overlay", wanted: "overlay" },
    Check {
        command: "journalctl -b -q -p err -t sino -t sino-supervisor -t sino-stage-one -t kmsg",
        judge: nothing,
        wanted: "no error line of ours",
    },
    Check {
        command: "for file in /root/*.cfg; do xl -N create $file >/dev/null; done",
        judge: |text| {
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.clone().count() >= 2 && lines.all(|line| line.starts_with("Parsing config from /root/"))
        },
        wanted: "both examples accepted without a warning",
    },
    Check {
        command: "ip -4 route show default dev xenbr0",
        judge: |text| text.contains("via"),
        wanted: "a default route from DHCP",
    },
    Check {
        command: "sino status",
        judge: |text| {
            ["changes to the root", "/var/log", "by DHCP", "no volume group xvg"].iter().all(|part| text.contains(part))
        },
        wanted: "where it runs from, network, storage, and what fills the overlay",
    },
    Check {
        command: "for unit in sino sino-keeper; do systemctl show -P ActiveState -P ControlGroup $unit; done",
        judge: |text| {
            ["active", "/system.slice/sino.service", "/system.slice/sino-keeper.service"]
                .iter()
                .all(|part| text.contains(part))
        },
        wanted: "the supervisor and the keeper in control groups of their own",
    },
    Check {
        command: "systemctl show -P ActiveState system-xfs_scrub.slice; grep -cw cpu /sys/fs/cgroup/system.slice/cgroup.subtree_control || true",
        judge: |text| text.split_whitespace().eq(["inactive", "0"]),
        wanted: "no unit that has CPUs divided among the services",
    },
    Check {
        command: "while read p; do [ ! -e /proc/$p/exe ] || readlink /proc/$p/exe; done < /sys/fs/cgroup/cgroup.procs",
        judge: nothing,
        wanted: "no process in the first control group",
    },
    Check {
        command: "sino timeline",
        judge: |text| {
            ["stage-one", "stage-two", "network", "storage", "systemd"].iter().all(|lane| text.contains(lane))
        },
        wanted: "every lane of the boot",
    },
    Check {
        command: "sino config check; sino log | grep read-flags",
        judge: |text| text.contains("no problems") && text.contains("[1/9] read-flags"),
        wanted: "a configuration without problems, and lines of ours",
    },
    Check {
        command: "man -w sino sino-network-apply && ls /usr/share/bash-completion/completions/sino",
        judge: |text| text.lines().count() == 3,
        wanted: "manual pages and completions",
    },
    Check { command: "systemctl is-active ssh", judge: |text| text.trim() == "active", wanted: "active" },
];

fn nothing(text: &str) -> bool {
    text.trim().is_empty()
}

/// Waits for Debian and works with it; returns what is wrong.
///
/// # Errors
/// It cannot be worked with at all: no login, no shell, no answer.
pub(crate) fn check(run: &mut Run<'_>, figures: &mut Figures) -> Result<Vec<String>> {
    require("ssh", "openssh-client")?;
    require("sshpass", "sshpass")?;
    let mut transcript = String::new();
    let result = work(run, figures, &mut transcript);
    std::fs::write(run.folder.join("commands.txt"), transcript).context("writing commands.txt")?;
    result
}

fn work(run: &mut Run<'_>, figures: &mut Figures, transcript: &mut String) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let left = run.left();
    shell::log_in(&mut run.guest.watch, ACCOUNT.0, ACCOUNT.1, left)?;
    for command in UP {
        let within = COMMAND.min(run.left());
        let output = shell::run(&mut run.guest.watch, command, within)?;
        let _ = writeln!(transcript, "# {command} (serial)\n{}\n(status {})\n", output.text.trim_end(), output.status);
        if output.status != 0 {
            wrong.push(format!("{command}: status {}: {}", output.status, output.text.trim()));
        }
    }
    let port = run.guest.qmp.forwarded_port(22)?;
    let mut ask = |command: &str| -> Result<shell::Output> {
        let output = ssh(port, command, COMMAND)?;
        let _ = writeln!(transcript, "# {command}\n{}\n(status {})\n", output.text.trim_end(), output.status);
        Ok(output)
    };
    let record = ask(&format!("cat {}", layout::BOOT_RECORD))?.text;
    match serde_json::from_str::<serde_json::Value>(&record) {
        Ok(value) => {
            fill_in(figures, &value);
            if value.pointer("/warnings") != Some(&serde_json::json!([])) {
                wrong.push(format!("warnings in the boot record: {:?}", value.pointer("/warnings")));
            }
        }
        Err(error) => wrong.push(format!("{} is not JSON: {error}: {record}", layout::BOOT_RECORD)),
    }
    for check in CHECKS {
        let output = ask(check.command)?;
        if output.status != 0 && !nothing(&output.text) || !(check.judge)(&output.text) {
            wrong.push(format!(
                "{}: wanted {}, got status {} and: {}",
                check.command,
                check.wanted,
                output.status,
                output.text.trim()
            ));
        }
    }
    ask("systemd-analyze; systemd-analyze blame | head -15")?;
    let kernel = ask("uname -r")?;
    if kernel.text.trim() != run.image.manifest.kernel_release {
        wrong.push(format!("uname -r by ssh: {:?}", kernel.text));
    }
    run.guest.screenshot("login")?;
    wrong.extend(run.written()?);
    let on_stick = run.scenario.drives.iter().any(|drive| drive.bus == Bus::UsbStick);
    let (command, wanted) = match (on_stick, run.scenario.begin.on_ram()) {
        (true, true) => {
            wrong.extend(without_the_stick(run, port, transcript)?);
            ("systemctl poweroff", EndReason::Off)
        }
        (true, false) if !run.scenario.long => {
            wrong.extend(lose_the_stick(run, transcript)?);
            ("reboot", EndReason::Reset)
        }
        _ => ("systemctl poweroff", EndReason::Off),
    };
    run.guest.watch.type_text(&format!("{command}\r"))?;
    match run.guest.wait_for_end_reason(SHUTDOWN) {
        Ok(reason) if reason == wanted => {}
        Ok(reason) => wrong.push(format!("{command}: the machine ended by {reason:?}")),
        Err(error) => wrong.push(format!("{command}: {error:#}")),
    }
    Ok(wrong)
}

/// Whether a text has these words, wherever its lines are folded.
fn contains(text: &str, wanted: &str) -> bool {
    text.split_whitespace().collect::<Vec<_>>().join(" ").contains(wanted)
}

/// From RAM: the stick is pulled, every file of the root is read, and another login works.
fn without_the_stick(run: &mut Run<'_>, port: u16, transcript: &mut String) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    run.guest.unplug("medium").context("pulling the stick of a system that runs from RAM")?;
    for (command, wanted) in [
        ("cat /etc/issue", "the stick may be removed"),
        ("sino status", "the stick may be removed"),
        (
            "echo 3 > /proc/sys/vm/drop_caches; find / -xdev -type f -print0 | xargs -0 cat > /dev/null && echo all read",
            "all read",
        ),
        ("losetup -ln -O NAME,BACK-FILE", "/run/sino/ram/"),
    ] {
        let output = ssh(port, command, READ_EVERYTHING)?;
        let _ = writeln!(transcript, "# {command}\n{}\n(status {})\n", output.text.trim_end(), output.status);
        if !contains(&output.text, wanted) {
            wrong.push(format!("{command}: no {wanted:?} in: {}", output.text.trim()));
        }
    }
    Ok(wrong)
}

/// From the stick: it is pulled, and nothing that was read before stays in memory by chance. What an administrator who is
/// logged in needs to take the host down must still work.
fn lose_the_stick(run: &mut Run<'_>, transcript: &mut String) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    run.guest.unplug("medium").context("pulling the stick of a running system")?;
    run.guest
        .watch
        .wait_for("\"SINO on ram\" runs without a stick", COMMAND)
        .context("waiting for the console to say so")?;
    for (command, wanted) in [
        ("sync; echo 3 > /proc/sys/vm/drop_caches; cat /etc/issue", "IT IS GONE"),
        ("xl list", "Domain-0"),
        ("sino status", "changes to the root"),
        ("mount | grep sino", "/run/sino/lower"),
        ("cat /usr/share/doc/base-files/README", "Input/output error"),
    ] {
        let output = shell::run(&mut run.guest.watch, command, COMMAND)?;
        let _ = writeln!(transcript, "# {command} (serial)\n{}\n(status {})\n", output.text.trim_end(), output.status);
        if !contains(&output.text, wanted) {
            wrong.push(format!("{command}: no {wanted:?} in: {}", output.text.trim()));
        }
    }
    Ok(wrong)
}

/// Runs a command by ssh with the password, for so long at most; both its outputs are its text.
fn ssh(port: u16, command: &str, within: Duration) -> Result<shell::Output> {
    /// What ssh itself ends with when it could not work.
    const SSH_FAILED: i32 = 255;
    let output = Command::new("timeout")
        .args([&within.as_secs().to_string(), "sshpass", "-p", ACCOUNT.1, "ssh", "-p", &port.to_string(), "-F", "none"])
        .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
        .args(["-o", "PubkeyAuthentication=no", "-o", "ConnectTimeout=60"])
        .args([&format!("{}@127.0.0.1", ACCOUNT.0), &format!("{{ {command}; }} 2>&1")])
        .output()
        .context("running sshpass")?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let status = output.status.code().filter(|code| *code != SSH_FAILED);
    let status = status.with_context(|| format!("{command:?} by ssh ended with {}: {said}", output.status))?;
    Ok(shell::Output {
        status: u32::try_from(status).unwrap_or(u32::MAX),
        text: String::from_utf8_lossy(&output.stdout).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_check_sees_a_warning_and_a_missing_file() {
        let check = CHECKS.iter().find(|check| check.command.contains("xl -N")).unwrap();
        assert!((check.judge)("Parsing config from /root/a.cfg\nParsing config from /root/b.cfg\n"));
        assert!(!(check.judge)("Parsing config from /root/a.cfg\n"));
        assert!(!(check.judge)("Parsing config from /root/a.cfg\nwarning: x\nParsing config from /root/b.cfg\n"));
    }
}
