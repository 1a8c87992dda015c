//! The engine in a process of its own, which a trial can kill as the kernel or an administrator would.

use super::net::{Net, settings};
use super::{LIMIT, Outcome};
use libtest_mimic::Failed;
use rustix::event::{PollFd, PollFlags, poll};
use sino_init::network::engine::{Command as Order, Engine, Report};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

/// The first argument of the process.
pub(super) const WORD: &str = "the-engine-of-a-trial";
/// In the trial's folder: leases of an earlier boot, as `/srv` would have them.
pub(super) const KEPT: &str = "kept.json";

/// What the process does: it runs the engine, and writes the state of `xenbr0`'s client to its output when that changes.
pub(super) fn run(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [folder, class] = arguments else { return Err("a folder and the folder of the links are needed".into()) };
    let engine = Engine::start(settings(Path::new(folder), class.into(), ""))?;
    if let Ok(text) = fs::read_to_string(Path::new(folder).join(KEPT)) {
        engine.tell(Order::KnownLease(serde_json::from_str(&text)?));
    }
    engine.tell(Order::BeginAddresses);
    let mut last = String::new();
    while let Some(reports) = engine.take() {
        for report in reports {
            let Report::Changed(state) = report else { continue };
            let state = state.bridges.get("xenbr0").and_then(|bridge| bridge.dhcp.clone()).unwrap_or_default();
            if state != last {
                writeln!(std::io::stdout(), "{state}")?;
                last = state;
            }
        }
        poll(&mut [PollFd::from_borrowed_fd(engine.ready(), PollFlags::IN)], None)?;
    }
    Ok(())
}

/// The process, killed with its value.
pub(super) struct EngineProcess {
    process: Child,
    states: Receiver<String>,
    /// Every state that it was seen in.
    pub(super) seen: Vec<String>,
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl EngineProcess {
    pub(super) fn start(net: &Net) -> Result<Self, Failed> {
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(std::env::current_exe()?)
            .arg(WORD)
            .arg(net.folder.path())
            .arg(net.class_of_others())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("setpriv: {error}; install it: apt-get install util-linux"))?;
        let output = process.stdout.take().ok_or("no output")?;
        let (sender, states) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        Ok(Self { process, states, seen: Vec::new() })
    }

    /// Waits until its client is in this state.
    pub(super) fn until(&mut self, state: &str) -> Outcome {
        let end = Instant::now() + LIMIT;
        while self.seen.last().is_none_or(|last| last != state) {
            match self.states.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(seen) => self.seen.push(seen),
                Err(RecvTimeoutError::Timeout) => return Err(format!("not {state:?} but {:?}", self.seen).into()),
                Err(RecvTimeoutError::Disconnected) => return Err(format!("it ended; {:?}", self.seen).into()),
            }
        }
        Ok(())
    }

    /// Kills it (SIGKILL), and returns when it is gone.
    pub(super) fn kill(mut self) -> Outcome {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}
