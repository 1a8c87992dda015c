//! Why a call of xl failed: what was run, what it said, what to do.

use crate::guests::probe::lines;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

/// The longest line of a cause, in characters.
const LONGEST: usize = 300;
/// The most lines of a cause.
const MOST: usize = 3;

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The command line.
    pub command: String,
    /// In which way.
    pub kind: Kind,
    /// How long it ran.
    pub took: Duration,
    /// What it said, the lines that matter: at most three, without control characters.
    pub said: Vec<String>,
    /// What to do now.
    pub advice: &'static str,
    no_such_domain: bool,
    no_pv_drivers: bool,
}

/// In which way a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It cannot be started or watched; why.
    CannotRun(String),
    /// It had not ended at its deadline and was killed. What it did until then is not undone.
    Deadline,
    /// It was cancelled, and killed. What it did until then is not undone.
    Cancelled,
    /// It ended with this status.
    Status(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// It ended well and said something that cannot be read; what is wrong with it.
    Unreadable(String),
    /// It was not run, because it would do something else than meant; why.
    Refused(String),
}

impl Kind {
    /// The way in which this status is a failure, if it is one.
    pub(super) fn of(status: ExitStatus) -> Option<Self> {
        if status.success() {
            return None;
        }
        Some(status.signal().map_or(Self::Status(status.code().unwrap_or(-1)), Self::Signal))
    }
}

impl Failure {
    pub(super) fn new(command: String, kind: Kind, took: Duration, stdout: &[u8], stderr: &[u8]) -> Self {
        let said = cause(stdout, stderr);
        let words = String::from_utf8_lossy(stderr);
        let advice = advice(&kind, &command, &words);
        let no_such_domain = words.contains("invalid domain identifier") || words.contains("does not exist");
        let no_pv_drivers = words.contains("PV control interface not available");
        Self { command, kind, took, said, advice, no_such_domain, no_pv_drivers }
    }

    /// xl knows no domain of that name or number.
    #[must_use]
    pub fn no_such_domain(&self) -> bool {
        self.no_such_domain
    }

    /// The guest has no PV drivers: only ACPI (`-F`) reaches it.
    #[must_use]
    pub fn no_pv_drivers(&self) -> bool {
        self.no_pv_drivers
    }

    /// Whether the same call would fail in the same way again: nothing but a correction helps.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let unreadable = |line: &String| FINAL.iter().any(|words| line.contains(words));
        matches!(self.kind, Kind::CannotRun(_) | Kind::Refused(_)) || self.said.iter().any(unreadable)
    }

    /// Whether a domain may be left half made, to be destroyed before another try.
    #[must_use]
    pub fn may_leave_a_domain(&self) -> bool {
        matches!(self.kind, Kind::Deadline | Kind::Cancelled | Kind::Signal(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        write!(f, "{}: ", self.command)?;
        match &self.kind {
            Kind::CannotRun(why) => write!(f, "cannot be run: {why}")?,
            Kind::Deadline => write!(f, "no end after {seconds:.1} s, so it was killed")?,
            Kind::Cancelled => write!(f, "cancelled after {seconds:.1} s")?,
            Kind::Status(code) => write!(f, "failed with status {code} after {seconds:.1} s")?,
            Kind::Signal(signal) => write!(f, "ended by signal {signal} after {seconds:.1} s")?,
            Kind::Unreadable(why) => write!(f, "what it prints cannot be read: {why}")?,
            Kind::Refused(why) => write!(f, "not run: {why}")?,
        }
        if !self.said.is_empty() {
            write!(f, "; it said: {}", self.said.join(" | "))?;
        }
        write!(f, "; try: {}", self.advice)
    }
}

impl std::error::Error for Failure {}

/// What xl says of its ordinary work, and libxl and libxc below the level of a warning.
/// Source: xen `tools/xl/xl_vmcontrol.c`, `xl_saverestore.c`, `tools/libs/toollog/xtl_core.c`.
const ORDINARY: [&str; 15] = [
    "Parsing config from ",
    "Shutting down domain ",
    "Rebooting domain ",
    "Loading new save file ",
    "Savefile contains ",
    "Saving to ",
    "Waiting for ",
    "libxl: notice: ",
    "libxl: info: ",
    "libxl: detail: ",
    "libxl: debug: ",
    "libxl: progress: ",
    "xc: notice: ",
    "xc: info: ",
    "xc: progress: ",
];

/// The lines that say why. libxl reports the cause first and then what followed from it while it cleans up; xl itself has the
/// last word. So the first two errors and the last line are kept.
fn cause(stdout: &[u8], stderr: &[u8]) -> Vec<String> {
    let mut lines = telling(stderr);
    if lines.is_empty() {
        lines = telling(stdout);
    }
    let Some(last) = lines.pop() else { return Vec::new() };
    let errors = lines.iter().filter(|line| line.to_ascii_lowercase().contains("error"));
    let mut said: Vec<String> = errors.take(MOST - 1).cloned().collect();
    if said.is_empty() {
        said = lines.split_off(lines.len().saturating_sub(MOST - 1));
    }
    if !said.contains(&last) {
        said.push(last);
    }
    said.iter().map(|line| without_place(line).chars().take(LONGEST).collect()).collect()
}

fn telling(stream: &[u8]) -> Vec<String> {
    let lines = lines::all(stream).into_iter().map(|line| line.trim().to_owned());
    lines.filter(|line| !line.is_empty() && !ORDINARY.iter().any(|start| line.starts_with(start))).collect()
}

/// `libxl: error: libxl_dm.c:3131:function: Domain 5:text` without the place in libxl's source.
fn without_place(line: &str) -> String {
    if let Some((before, rest)) = line.split_once(": libxl_")
        && let Some((place, text)) = rest.split_once(": ")
        && place.contains(".c:")
    {
        return format!("{before}: {text}");
    }
    line.to_owned()
}

/// Words of xl (Xen 4.20) for what only a correction of the guest's file helps against.
const FINAL: [&str; 2] = ["config parsing error", "Failed to parse config"];

/// Words of xl and libxl (Xen 4.20), and what helps.
const REMEDIES: [(&[&str], &str); 9] = [
    (
        &["cannot init xl context", "privcmd", "xencall", "xenstore", "libxl_list_domain failed"],
        "is this host booted under Xen, and does xenstored run? `sino status` says so",
    ),
    (
        &["failed to free memory", "enough free memory", "enough memory", "ENOMEM"],
        "give it or another guest less memory, or stop one; `sino guests plan` shows what fits",
    ),
    (&["PV control interface not available"], "ask it by ACPI (`xl shutdown -F`), or destroy it"),
    (&["invalid domain identifier", "does not exist"], "`xl list` shows the domains that there are"),
    (&["already exists"], "`xl list` shows the domain that has the name; shut it down, or rename the guest"),
    (
        &["config parsing error", "Failed to parse config"],
        "correct that line of its configuration; `sino guests check`",
    ),
    (
        &["bridge", "vif-", "nic"],
        "does the bridge that it names exist? `ip link`; see also /var/log/xen/xen-hotplug.log",
    ),
    (&["disk", "hotplug", "vbd"], "are its disks there? `sino guests check`; see also /var/log/xen/xen-hotplug.log"),
    (
        &["wrong magic", "truncated", "restore file"],
        "the saved state cannot be used: move it away, and start the guest anew",
    ),
];

fn advice(kind: &Kind, command: &str, said: &str) -> &'static str {
    let changing = [" create ", " restore ", " save "].iter().any(|verb| command.contains(verb));
    match kind {
        Kind::CannotRun(_) => "is xl installed (package xen-utils-common and xen-utils of this Xen's version)?",
        Kind::Deadline | Kind::Cancelled | Kind::Signal(_) if changing => {
            "`xl list`; a domain that was left half way is ended with `xl destroy NAME`"
        }
        Kind::Deadline | Kind::Cancelled | Kind::Signal(_) => "do xenstored and xl answer? `xl list`, `sino status`",
        Kind::Refused(_) => "give the guest a name that xl cannot take for something else, or use its number",
        Kind::Unreadable(_) => "run it by hand and look at what it prints",
        Kind::Status(_) => REMEDIES
            .iter()
            .find(|(words, _)| words.iter().any(|word| said.contains(word)))
            .map_or("run it by hand with `xl -vvv`; logs are in /var/log/xen", |(_, remedy)| remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DISK: &str = "Parsing config from /srv/autostart/web.cfg\n\
        libxl: error: libxl_device.c:1109:device_backend_callback: Domain 5:unable to add device with path /local/domain/0/backend/vbd/5/51712\n\
        libxl: error: libxl_create.c:1862:domcreate_launch_dm: Domain 5:unable to add disk devices\n\
        libxl: error: libxl_domain.c:1183:libxl__destroy_domid: Domain 5:Non-existant domain\n\
        libxl: error: libxl_domain.c:1137:domain_destroy_callback: Domain 5:Unable to destroy guest\n";

    #[test]
    fn the_first_errors_and_the_last_line_are_the_cause() {
        let failure =
            Failure::new("xl create -f x".into(), Kind::Status(3), Duration::from_millis(420), b"", DISK.as_bytes());
        assert_eq!(
            failure.to_string(),
            "xl create -f x: failed with status 3 after 0.4 s; it said: \
             libxl: error: Domain 5:unable to add device with path /local/domain/0/backend/vbd/5/51712 | \
             libxl: error: Domain 5:unable to add disk devices | \
             libxl: error: Domain 5:Unable to destroy guest; \
             try: are its disks there? `sino guests check`; see also /var/log/xen/xen-hotplug.log"
        );
        let memory = b"Parsing config from a\nfailed to free memory for the domain\n";
        let failure = Failure::new("xl create -f x".into(), Kind::Status(3), Duration::ZERO, b"", memory);
        assert_eq!(failure.said, ["failed to free memory for the domain"]);
        assert!(failure.advice.contains("less memory"));
        let failure =
            Failure::new("xl list".into(), Kind::Status(1), Duration::ZERO, b"only\nhere\n", b"Saving to x\n");
        assert_eq!(failure.said, ["only", "here"]);
    }

    #[test]
    fn the_usual_cases_are_told_apart() {
        let of =
            |text: &str| Failure::new("xl shutdown a".into(), Kind::Status(1), Duration::ZERO, b"", text.as_bytes());
        assert!(of("web is an invalid domain identifier (rc=-6)\n").no_such_domain());
        let acpi = of("Shutting down domain 4\nPV control interface not available: external graceful shutdown not \
                       possible.\nUse \"-F\" to fallback to ACPI power event.\nshutdown failed (rc=-16)\n");
        assert!(acpi.no_pv_drivers() && !acpi.no_such_domain(), "{acpi}");
        assert!(acpi.advice.contains("ACPI"));
        assert!(!acpi.is_final() && of("a.cfg:3: config parsing error near `x': lexical error\n").is_final());
    }

    proptest! {
        #[test]
        fn whatever_it_says_the_message_is_short_and_printable(out: Vec<u8>, err: Vec<u8>) {
            let failure = Failure::new("xl".into(), Kind::Status(1), Duration::ZERO, &out, &err);
            prop_assert!(failure.said.len() <= MOST);
            prop_assert!(failure.to_string().chars().all(|c| c == '\t' || !c.is_control()));
        }
    }
}
