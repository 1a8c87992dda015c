//! The commands.

use crate::script::{Guest, Script};
use crate::state::{Domain, State, now};
use crate::{End, SCRIPT, misbehave, print};
use std::fmt::Write as _;
use std::io::Read as _;
use std::process::{Command, Stdio};

/// What a saved state begins with. Source: xen `tools/xl/xl.h`.
const MAGIC: &[u8; 32] = b"Xen saved domain, xl format\n \0 \r";

pub(crate) fn run(script: &Script, arguments: &[String]) -> End {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        // The last of these, and of those of create, is Debian's xendomains'.
        ["-N", "create", "-f", file]
        | ["create", "-n", "-f", file]
        | ["create", "-n", file]
        | ["create", "--quiet", "--dryrun", "--defconfig", file] => dry_run(script, file),
        ["create", "-f", file] | ["create", file] | ["create", "--quiet", "--defconfig", file] => create(script, file),
        ["domid", guest] => domid(script, guest),
        ["list"] => list(script, "list", |domains| print::table(domains, false)),
        ["list", "-v"] => list(script, "list", |domains| print::table(domains, true)),
        ["list", "-l"] => list(script, "list -l", print::json),
        ["shutdown", "-F", guest] => ask(script, guest, true, false),
        ["shutdown", guest] => ask(script, guest, false, false),
        ["reboot", "-F", guest] => ask(script, guest, true, true),
        ["reboot", guest] => ask(script, guest, false, true),
        ["destroy", guest] => destroy(script, guest),
        ["save", guest, file] => save(script, guest, file),
        ["restore", file] => restore(script, file),
        ["info"] => general(script, "info", || print::info(script, State::change(script, |state| state.used_mib()))),
        [command @ ("sched-credit2" | "sched-credit"), "-d", "Domain-0", "-w", _] => {
            general(script, command, String::new)
        }
        ["dmesg"] => general(script, "dmesg", || print::RING.to_owned()),
        _ => End::fails(1, "command not implemented\n"),
    }
}

fn general(script: &Script, command: &str, print: impl FnOnce() -> String) -> End {
    let behaviour = script.command.get(command).cloned().unwrap_or_default();
    misbehave(script, &behaviour, command).unwrap_or_else(|| End::prints(print()))
}

fn list(script: &Script, command: &str, print: impl FnOnce(&[Domain]) -> String) -> End {
    general(script, command, || print(&State::change(script, |state| state.domains.clone())))
}

fn domid(script: &Script, guest: &str) -> End {
    let behaviour = script.command.get("domid").cloned().unwrap_or_default();
    misbehave(script, &behaviour, "domid").unwrap_or_else(|| {
        found(script, guest).map_or_else(|end| end, |domain| End::prints(format!("{}\n", domain.id)))
    })
}

/// A guest's file, as far as the fake cares: `key = value` on a line of its own.
fn read(file: &str) -> Result<Domain, End> {
    let bytes = std::fs::read(file)
        .map_err(|_| End::fails(3, format!("Failed to read config file: {file}: No such file or directory\n")))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
    };
    let parsing = format!("Parsing config from {file}\n");
    if let Some(at) =
        text.lines().position(|line| !line.trim().is_empty() && !line.starts_with('#') && !line.contains('='))
    {
        let why = "syntax error, unexpected end of file, expecting =";
        return Err(End::fails(
            1,
            format!(
                "{parsing}{file}:{}: config parsing error near `': {why}\nFailed to parse config: Invalid argument\n",
                at + 1
            ),
        ));
    }
    let Some(name) = value("name") else {
        return Err(End::fails(1, format!("{parsing}Domain name must be specified.\n")));
    };
    let number = |key: &str, default: u64| value(key).and_then(|text| text.parse().ok()).unwrap_or(default);
    let hash = name.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    Ok(Domain {
        id: 0,
        uuid: format!("{:08x}-0000-4000-8000-{:012x}", hash >> 32, hash & 0xffff_ffff_ffff),
        kind: value("type").unwrap_or_else(|| "pv".into()),
        memory_mib: number("memory", 128),
        vcpus: u32::try_from(number("vcpus", 1)).unwrap_or(1),
        name,
        building: true,
        made: now(),
        ends: None,
        crashes: None,
        reboots: None,
        preserve: false,
        disks: disks(&text),
    })
}

/// What stands in quotes in the line with the disks.
fn disks(text: &str) -> Vec<String> {
    let line = text.lines().find(|line| line.trim_start().starts_with("disk")).unwrap_or_default();
    line.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
}

fn dry_run(script: &Script, file: &str) -> End {
    match read(file) {
        Ok(domain) => {
            let behaviour = script.guest(&domain.name).dry_run;
            let end = misbehave(script, &behaviour, &format!("dry run {}", domain.name));
            let end = end.unwrap_or_else(|| End::prints(print::dry_run(&domain)));
            End { err: format!("Parsing config from {file}\n{}", end.err), ..end }
        }
        Err(end) => end,
    }
}

fn create(script: &Script, file: &str) -> End {
    let domain = match read(file) {
        Ok(domain) => domain,
        Err(end) => return end,
    };
    let guest = script.guest(&domain.name);
    let behaviour = guest.create.clone();
    let counter = format!("create {}", domain.name);
    let end = make(script, &guest, domain, |script| misbehave(script, &behaviour, &counter), behaviour.lie);
    End { err: format!("Parsing config from {file}\n{}", end.err), ..end }
}

/// Makes the domain as xl does: first paused, then, if all went well, running.
fn make(
    script: &Script,
    guest: &Guest,
    mut domain: Domain,
    work: impl FnOnce(&Script) -> Option<End>,
    lie: bool,
) -> End {
    let name = domain.name.clone();
    if lie {
        return work(script).unwrap_or_else(End::well);
    }
    domain.preserve = guest.preserve;
    let begun = State::change(script, |state| {
        if state.find(&name).is_some() {
            return Err(End::fails(
                3,
                format!(
                    "libxl: error: libxl_create.c:725:libxl__domain_make: Domain with name \"{name}\" already exists\n"
                ),
            ));
        }
        if state.used_mib() + domain.memory_mib > script.memory_mib {
            return Err(End::fails(3, "failed to free memory for the domain\n"));
        }
        domain.id = state.next_id();
        state.domains.push(domain);
        Ok(())
    });
    if let Err(end) = begun {
        return end;
    }
    if let Some(end) = work(script) {
        if end.code != 0 {
            State::change(script, |state| state.remove(&name));
            return end;
        }
        // Odd things were printed, and still it was made.
        run_on(script, guest, &name);
        return end;
    }
    run_on(script, guest, &name);
    End::well()
}

fn run_on(script: &Script, guest: &Guest, name: &str) {
    State::change(script, |state| {
        if let Some(domain) = state.find(name) {
            domain.building = false;
            domain.made = now();
            domain.crashes = guest.crash_after.map(|ms| now() + ms);
            domain.reboots = guest.reboot_after.map(|ms| now() + ms);
        }
    });
    if guest.daemon {
        leave_daemon(script, name);
    }
}

/// Returns when the daemon is in a session of its own, as xl does.
fn leave_daemon(script: &Script, name: &str) {
    let Ok(this) = std::env::current_exe() else { return };
    let child = Command::new(this)
        .env(SCRIPT, &script.path)
        .args(["--daemon", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    if let Ok(mut child) = child
        && let Some(mut output) = child.stdout.take()
    {
        let _ = output.read_to_string(&mut String::new());
    }
}

fn unknown(guest: &str) -> End {
    End::fails(1, format!("{guest} is an invalid domain identifier (rc=-6)\n"))
}

fn found(script: &Script, guest: &str) -> Result<Domain, End> {
    State::change(script, |state| state.find(guest).cloned()).ok_or_else(|| unknown(guest))
}

/// `shutdown` and `reboot`.
fn ask(script: &Script, which: &str, acpi: bool, reboot: bool) -> End {
    let domain = match found(script, which) {
        Ok(domain) => domain,
        Err(end) => return end,
    };
    let guest = script.guest(&domain.name);
    let (verb, behaviour, doing, button) = if reboot {
        ("reboot", &guest.reboot, "Rebooting", "reset")
    } else {
        ("shutdown", &guest.shutdown, "Shutting down", "power")
    };
    if let Some(end) = misbehave(script, behaviour, &format!("{verb} {}", domain.name)) {
        return end;
    }
    let mut err = format!("{doing} domain {}\n", domain.id);
    if guest.no_pv && !acpi {
        let _ = writeln!(
            err,
            "PV control interface not available: external graceful {verb} not possible.\n\
             Use \"-F\" to fallback to ACPI {button} event.\n{verb} failed (rc=-16)"
        );
        return End::fails(1, err);
    }
    if guest.no_pv {
        let _ = writeln!(err, "PV control interface not available: sending ACPI {button} button event.");
    }
    if !guest.ignores {
        State::change(script, |state| {
            let next = state.next_id();
            if let Some(domain) = state.find(which) {
                if reboot {
                    domain.id = next;
                    domain.made = now();
                } else {
                    domain.ends = Some(now() + guest.obeys_after);
                }
            }
        });
    }
    End { err, ..End::well() }
}

fn destroy(script: &Script, which: &str) -> End {
    let domain = match found(script, which) {
        Ok(domain) => domain,
        Err(end) => return end,
    };
    if let Some(end) = misbehave(script, &script.guest(&domain.name).destroy, &format!("destroy {}", domain.name)) {
        return end;
    }
    State::change(script, |state| state.remove(&domain.name));
    End::well()
}

fn save(script: &Script, which: &str, file: &str) -> End {
    let domain = match found(script, which) {
        Ok(domain) => domain,
        Err(end) => return end,
    };
    let mut bytes = MAGIC.to_vec();
    // Begun before it goes wrong, if it does.
    let _ = std::fs::write(file, &bytes);
    if let Some(end) = misbehave(script, &script.guest(&domain.name).save, &format!("save {}", domain.name)) {
        return end;
    }
    bytes.extend(serde_json::to_vec(&domain).unwrap_or_default());
    if std::fs::write(file, bytes).is_err() {
        return End::fails(1, format!("Failed to open temp file {file} for writing\n"));
    }
    State::change(script, |state| state.remove(&domain.name));
    End { err: format!("Saving to {file} new xl format (info 0x3/0x0/{})\n", domain.name.len()), ..End::well() }
}

fn restore(script: &Script, file: &str) -> End {
    let Ok(bytes) = std::fs::read(file) else {
        return End::fails(1, "Can't open restore file: No such file or directory\n");
    };
    let Some(rest) = bytes.strip_prefix(MAGIC.as_slice()) else {
        return End::fails(1, "File has wrong magic number - corrupt or for a different tool?\n");
    };
    let Ok(mut domain) = serde_json::from_slice::<Domain>(rest) else {
        return End::fails(1, "Savefile truncated.\n");
    };
    domain.building = true;
    domain.ends = None;
    let guest = script.guest(&domain.name);
    let counter = format!("restore {}", domain.name);
    let end = make(script, &guest, domain, |script| misbehave(script, &guest.restore, &counter), guest.restore.lie);
    End { err: format!("Loading new save file {file} (new xl fmt info 0x3/0x0/9)\n{}", end.err), ..end }
}
