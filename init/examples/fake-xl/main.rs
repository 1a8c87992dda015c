//! A program that behaves as xl does, or misbehaves as a script says: for tests.
//!
//! `FAKE_XL` names the script, a TOML file (see [`script::Script`]); without it, the script is the file `xl.toml` beside the
//! path by which this was called, so that a test links to it as `xl` in a folder of its own. The domains are kept in a folder, so that calls may come at
//! once and from several processes. What it prints has xl's form (Xen 4.20).
#![allow(missing_docs, reason = "a program for tests")]

mod commands;
mod print;
mod script;
mod state;

use script::{Behaviour, Script};
use state::{State, now};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

/// The environment variable that names the script.
const SCRIPT: &str = "FAKE_XL";
/// A call that hangs ends after this at the latest, should its test have died: tests leave nothing behind.
const HANGS: Duration = Duration::from_secs(120);

/// How a call ends: status, and what is printed.
#[derive(Debug, Default)]
struct End {
    code: u8,
    out: Vec<u8>,
    err: String,
}

impl End {
    fn well() -> Self {
        Self::default()
    }

    fn prints(out: impl Into<Vec<u8>>) -> Self {
        Self { out: out.into(), ..Self::default() }
    }

    fn fails(code: u8, err: impl Into<String>) -> Self {
        Self { code, out: Vec::new(), err: err.into() }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let called = PathBuf::from(arguments.next().unwrap_or_default());
    let arguments: Vec<String> = arguments.collect();
    let path = std::env::var_os(SCRIPT).map_or_else(|| called.with_file_name("xl.toml"), PathBuf::from);
    let script = match Script::read(&path) {
        Ok(script) => script,
        Err(why) => {
            eprintln!("{}: {why}", path.display());
            return ExitCode::from(99);
        }
    };
    if let [daemon, guest] = arguments.as_slice()
        && daemon == "--daemon"
    {
        return watch(&script, guest);
    }
    let began = now();
    state::log(&script, &arguments, began, None);
    let end = commands::run(&script, &arguments);
    state::log(&script, &arguments, began, Some(end.code));
    let _ = std::io::stderr().write_all(end.err.as_bytes());
    let _ = std::io::stdout().write_all(&end.out);
    ExitCode::from(end.code)
}

/// What the script wants of every call before it does its work; `Some` ends the call.
fn misbehave(script: &Script, behaviour: &Behaviour, counter: &str) -> Option<End> {
    let tries = State::change(script, |state| {
        let count = state.tries.entry(counter.to_owned()).or_default();
        *count += 1;
        *count
    });
    sleep(Duration::from_millis(behaviour.ms));
    if behaviour.hang {
        for _ in 0..behaviour.children {
            // It holds this program's output open, as a hotplug script does.
            drop(Command::new("sleep").arg(HANGS.as_secs().to_string()).spawn());
        }
        sleep(HANGS);
        return Some(End::fails(98, "nobody ended this call\n"));
    }
    if tries <= behaviour.fail_first {
        return Some(End::fails(behaviour.code, behaviour.text.clone()));
    }
    if behaviour.garbage {
        return Some(End::prints(b"\x1b[31m\xff\xfe\0 garbage \r\n{[Name\n".as_slice()));
    }
    if behaviour.huge > 0 {
        return Some(End::prints(vec![b'x'; behaviour.huge]));
    }
    behaviour.lie.then(End::well)
}

/// The daemon that xl leaves behind for a domain: in a session of its own, until the domain is gone.
fn watch(script: &Script, guest: &str) -> ExitCode {
    if rustix::process::setsid().is_err() {
        return ExitCode::FAILURE;
    }
    // Whoever started it waits for its output to close.
    let Ok(null) = std::fs::File::options().write(true).open("/dev/null") else { return ExitCode::FAILURE };
    println!("ready");
    let _ = rustix::stdio::dup2_stdout(&null);
    let _ = rustix::stdio::dup2_stderr(&null);
    let file = script.state.join(format!("daemon-{guest}.pid"));
    let _ = std::fs::write(&file, std::process::id().to_string());
    let end = now() + u64::try_from(HANGS.as_millis()).unwrap_or(u64::MAX);
    while now() < end && State::change(script, |state| state.find(guest).is_some()) {
        sleep(Duration::from_millis(50));
    }
    let _ = std::fs::remove_file(&file);
    ExitCode::SUCCESS
}
