//! The demo without a terminal: says when each stage of the boot is reached and how each guest is, logs in, prints what the host
//! says of itself, and switches it off.

use crate::progress::Progress;
use crate::qemu::machine::Machine;
use crate::qemu::{EndReason, Guest};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the boot may take until the login prompt. On a slow machine without KVM it takes some five minutes.
const BOOT: Duration = Duration::from_secs(900);
/// How long the guests may take after that: without KVM a PVH guest boots for more than a minute.
const GUESTS: Duration = Duration::from_secs(600);
/// How long the host may take for an answer to what is typed.
const ANSWER: Duration = Duration::from_secs(120);
/// How long the way down may take: the guests' default of 180 s, and the host's own.
const POWER_OFF: Duration = Duration::from_secs(300);
/// Between two questions how the guests are, so that the questions take no time from their boot. What they say of
/// themselves after the hand-over goes to the host's log, not to its console.
const PAUSE: Duration = Duration::from_secs(10);

/// What the serial port says when a stage begins, and what that stage is.
const STAGES: [(&str, &str); 4] = [
    ("SINO advanced on ram", "the boot menu is up"),
    ("] read-flags", "Xen and the kernel are up, stage one begins"),
    ("] take-over", "the root is mounted, stage two begins"),
    ("] hand-over", "the host is up, Debian's init takes over"),
];
/// The last of them.
const LOGIN: &str = "login: ";
/// What is said of a guest on the console, and what it means.
const SAID: [(&str, &str); 2] = [(": created as domain", "is created"), (": ready", "is ready")];
/// Where a guest may stay, as the host's table says it.
const SETTLED: [&str; 7] = ["ready", "not ready", "failed", "held", "refused", "stopped", "crashed"];
/// What is shown in the end.
const SHOWN: [&str; 4] =
    ["sino status", "sino guests", "sino timeline", "xl info | grep -E '^(xen_version|total_memory)'"];

/// Boots the machine and ends it; `guests` are the names of those that should start by themselves.
pub(super) fn run(machine: &Machine, guests: &[String], folder: &Path, progress: &Progress) -> Result<()> {
    let limit = BOOT + GUESTS + ANSWER * 10 + POWER_OFF;
    let guest = Guest::start(machine, folder, limit)?;
    progress.say(&format!("the machine is on; its console is in {}/serial.log", folder.display()));
    let mut host = Host { guest, progress, began: Instant::now(), asked: 0 };
    host.boot()?;
    let mut not_ready = Vec::new();
    if !guests.is_empty() {
        not_ready = host.guests(guests)?;
    }
    for command in SHOWN {
        println!("\n# {command}\n{}", host.ask(command)?);
    }
    host.power_off()?;
    if not_ready.is_empty() {
        return Ok(());
    }
    bail!(
        "guests that should be ready are not: {}; the console is in {}/serial.log",
        not_ready.join("; "),
        folder.display()
    )
}

/// The host while it is watched.
struct Host<'a> {
    guest: Guest,
    progress: &'a Progress,
    began: Instant,
    /// How many commands were typed.
    asked: u32,
}

impl Host<'_> {
    fn say(&self, text: &str) {
        self.progress.say(&format!("{:7.1} s  {text}", self.began.elapsed().as_secs_f64()));
    }

    /// To the shell of root.
    fn boot(&mut self) -> Result<()> {
        let mut stages = STAGES.into_iter().peekable();
        loop {
            let left = BOOT.saturating_sub(self.began.elapsed());
            let (next, stage) = stages.peek().copied().unwrap_or((LOGIN, "login prompt"));
            let texts = [next, LOGIN, SAID[0].0, SAID[1].0];
            let wait = self.guest.watch.wait_for_any(&texts, left);
            let (which, before) = wait.with_context(|| format!("before: {stage}"))?;
            match which {
                0 | 1 if which == 1 || next == LOGIN => break self.say("login prompt"),
                0 => {
                    self.say(stage);
                    stages.next();
                }
                said => {
                    if let (Some(name), Some((_, what))) = (name_in(&before), SAID.get(said - 2)) {
                        self.say(&format!("guest {name} {what}"));
                    }
                }
            }
        }
        for (answer, prompt) in [("root\n", "assword: "), ("root\n", "# ")] {
            self.guest.watch.type_text(answer)?;
            self.guest.watch.wait_for(prompt, ANSWER).context("logging in as root")?;
        }
        self.say("logged in as root");
        Ok(())
    }

    /// Waits until every guest is in a state that stays; returns what is wrong.
    fn guests(&mut self, names: &[String]) -> Result<Vec<String>> {
        let deadline = Instant::now() + GUESTS;
        let mut known = BTreeMap::new();
        loop {
            let table = self.ask("sino guests")?;
            for (name, line) in rows(names, &table) {
                let state = state_in(name, line).to_owned();
                if known
                    .insert(name.to_owned(), (state.clone(), line.to_owned()))
                    .is_none_or(|(before, _)| before != state)
                {
                    self.say(&format!("guest {name} is {state}"));
                }
            }
            let settled = |name: &&String| known.get(*name).is_some_and(|(state, _)| SETTLED.contains(&state.as_str()));
            let open: Vec<&String> = names.iter().filter(|name| !settled(name)).collect();
            if open.is_empty() {
                // A guest that this host cannot run, as an HVM guest without QEMU in the image, is no failure of the host.
                let bad = known.values().filter(|(state, _)| !["ready", "refused"].contains(&state.as_str()));
                return Ok(bad.map(|(_, line)| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect());
            }
            if Instant::now() > deadline {
                let open: Vec<&str> = open.into_iter().map(String::as_str).collect();
                bail!(
                    "after {} s the host does not know yet what becomes of {}: {table}",
                    GUESTS.as_secs(),
                    open.join(", ")
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Types a command and returns what it says.
    fn ask(&mut self, command: &str) -> Result<String> {
        self.asked += 1;
        let number = self.asked;
        // The second half of each mark is not in what the terminal echoes.
        let line = format!("echo begin\"\"-{number}-; {command}; echo end\"\"-{number}-\n");
        self.guest.watch.type_text(&line)?;
        self.guest.watch.wait_for(&format!("begin-{number}-"), ANSWER).with_context(|| format!("typing {command}"))?;
        let text = self.guest.watch.wait_for(&format!("end-{number}-"), ANSWER);
        let text = text.with_context(|| format!("waiting for the end of {command}"))?;
        Ok(text.trim_matches(['\n', ' ']).to_owned())
    }

    /// Switches it off as an administrator does.
    fn power_off(&mut self) -> Result<()> {
        let asked = Instant::now();
        self.say("poweroff");
        self.guest.watch.type_text("poweroff\n")?;
        match self.guest.wait_for_end_reason(POWER_OFF).context("waiting for the host to switch itself off")? {
            EndReason::Off => {
                self.say(&format!("the machine is off, {:.1} s after poweroff", asked.elapsed().as_secs_f64()));
            }
            EndReason::Reset => bail!("poweroff has restarted the machine instead of switching it off"),
        }
        Ok(())
    }
}

/// The name at the end of a console line's beginning, as in `sino: guest alpha`.
fn name_in(before: &str) -> Option<&str> {
    let line = before.rsplit('\n').next()?;
    line.rsplit_once("guest ").map(|(_, name)| name)
}

/// The rows of the host's table with their guests. A line that something else on the console has broken is none.
fn rows<'a>(names: &'a [String], table: &'a str) -> Vec<(&'a str, &'a str)> {
    let row = |line: &'a str| {
        let name =
            names.iter().find(|name| line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(' ')))?;
        Some((name.as_str(), line))
    };
    table.lines().filter_map(row).collect()
}

/// The second column: columns are two spaces or more apart.
fn state_in<'a>(name: &str, line: &'a str) -> &'a str {
    let rest = line.get(name.len()..).unwrap_or_default().trim_start();
    rest.split("  ").next().unwrap_or(rest).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "GUEST  STATE        SINCE  MEMORY  VCPUS  UP      READY  RESTARTS  WHY\n\
                         alpha  ready        3.0 s  96 MiB  1      12.0 s  9.1 s  0\n\
                         beta   backing off  1.0 s  -       -      -       -      0         no bridge; again at 9.0 s\n\
                         gam[  12.3] some kernel message\n\
                         delta  refused      1.0 s  -       -      -       -      0         no qemu\n";

    #[test]
    fn the_state_is_the_second_column_of_a_guests_row() {
        let names = ["alpha", "beta", "gamma", "delta"].map(str::to_owned);
        let states: Vec<(&str, &str)> =
            rows(&names, TABLE).into_iter().map(|(name, line)| (name, state_in(name, line))).collect();
        assert_eq!(states, [("alpha", "ready"), ("beta", "backing off"), ("delta", "refused")]);
    }

    #[test]
    fn a_guest_is_named_on_the_console_before_what_is_said_of_it() {
        assert_eq!(name_in("x\nsino: guest beta: waits\nsino: guest alpha"), Some("alpha"));
        assert_eq!(name_in("sino: network"), None);
    }
}
