//! The programs of the root: each has a deadline, and what it wrote is kept for the error.

use super::shell;
use crate::config::origins::clean;
use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where programs are looked for: a supervisor that process 1 started may have no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a program may take after SIGKILL. One that waits for a dead disk takes for ever and is left behind.
const AFTER_KILL: Duration = Duration::from_secs(2);
/// At most so much of each output is kept.
const KEPT: usize = 4 << 20;
/// A program without a deadline is said to be quiet each time it wrote nothing for so long.
pub const QUIET: Duration = Duration::from_secs(60);
/// For what looks at a device or changes a few sectors. A disk that spins up or retries takes half a minute.
pub const SHORT: Duration = Duration::from_secs(60);
/// For LVM: it reads every disk of the machine.
pub const LONG: Duration = Duration::from_secs(180);
/// For what activates volumes: the check of a large thin pool takes minutes.
pub const ACTIVATE: Duration = Duration::from_secs(900);

/// A program to execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// What it reads.
    pub input: String,
    /// When it is killed; `None`: never.
    pub limit: Option<Duration>,
}

impl Call {
    /// A program with its arguments, which is killed after `limit`.
    #[must_use]
    pub fn new(words: &[&str], limit: Duration) -> Self {
        Self { words: words.iter().map(|&word| word.to_owned()).collect(), input: String::new(), limit: Some(limit) }
    }

    /// The same without a deadline: for what does harm when it is killed.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.limit = None;
        self
    }

    /// The same, reading `input`.
    #[must_use]
    pub fn reading(mut self, input: &str) -> Self {
        input.clone_into(&mut self.input);
        self
    }

    /// The call as one would type it.
    #[must_use]
    pub fn line(&self) -> String {
        let line = shell::words(self.words.iter().map(String::as_str));
        if self.input.is_empty() {
            return line;
        }
        let input = self.input.trim_end();
        // Always with quotes: so it is plain where the text ends.
        let quoted = shell::word(input);
        let quoted = if quoted == input { format!("'{input}'") } else { quoted };
        format!("echo {quoted} | {line}")
    }
}

/// What a program left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub out: String,
    /// What it wrote to its standard error.
    pub err: String,
}

impl Output {
    /// Whether it says that it succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// The last lines that it wrote, errors before the rest, on one line.
    #[must_use]
    pub fn said(&self) -> String {
        let text = if self.err.trim().is_empty() { &self.out } else { &self.err };
        let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        // LVM says some things once for each volume.
        lines.dedup();
        let last = lines.get(lines.len().saturating_sub(6)..).unwrap_or_default().join("; ");
        match (last.is_empty(), self.code) {
            // What is on a disk is in the messages of those who read it, whatever it is.
            (false, _) => clean(&last, usize::MAX),
            (true, Some(code)) => format!("exit code {code} without a word"),
            (true, None) => "a signal ended it".to_owned(),
        }
    }
}

/// What is heard from a program while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A line of its standard output.
    Line(&'a str),
    /// It wrote nothing for [`QUIET`].
    Nothing,
}

/// What executes programs.
pub trait Tools {
    /// Executes a program and waits for its end; `hear` gets each line of its standard output at once.
    ///
    /// # Errors
    /// It is not there, or its deadline passed; with what it wrote so far. Not: it failed.
    fn listen(&self, call: &Call, hear: &mut dyn FnMut(Heard<'_>)) -> Result<Output>;

    /// Mounts `device`; see [`super::mounts::mount`].
    ///
    /// # Errors
    /// The kernel's refusal.
    fn mount(&self, mount: &super::mounts::Mount<'_>) -> Result<()> {
        super::mounts::mount(mount)
    }

    /// Executes a program and waits for its end.
    ///
    /// # Errors
    /// As [`Tools::listen`].
    fn run(&self, call: &Call) -> Result<Output> {
        self.listen(call, &mut |_| {})
    }

    /// Executes a program that must succeed, and returns what it wrote to its standard output.
    ///
    /// # Errors
    /// As [`Tools::listen`], and when it fails.
    fn text(&self, call: &Call) -> Result<String> {
        let output = self.run(call)?;
        if !output.succeeded() {
            bail!("{}: {}", call.line(), output.said());
        }
        Ok(output.out)
    }
}

/// The programs of this machine.
pub struct Programs;

impl Tools for Programs {
    fn listen(&self, call: &Call, hear: &mut dyn FnMut(Heard<'_>)) -> Result<Output> {
        let (name, arguments) = call.words.split_first().context("no program is named")?;
        let mut command = Command::new(name);
        command
            .args(arguments)
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            // LVM warns of each file descriptor that it inherits.
            .env("LVM_SUPPRESS_FD_WARNINGS", "1")
            .current_dir("/")
            .stdin(if call.input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its children end with it, and Ctrl-C at the terminal does not end a check of a file system.
            .process_group(0);
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow!("the program {name} is not installed"),
            _ => anyhow!(error).context(format!("executing {}", call.line())),
        })?;
        follow(child, call, hear).with_context(|| call.line())
    }
}

/// Hears a program until it ends, or its deadline.
fn follow(mut child: Child, call: &Call, hear: &mut dyn FnMut(Heard<'_>)) -> Result<Output> {
    let pid = Pid::from_child(&child);
    let end = pidfd_open(pid, PidfdFlags::empty()).context("watching the program")?;
    if let Some(mut input) = child.stdin.take() {
        // Small enough for the pipe; a program that does not read it says so by its exit code.
        let _ = input.write_all(call.input.as_bytes());
    }
    let mut out = Pipe::new(child.stdout.take().map(OwnedFd::from));
    let mut err = Pipe::new(child.stderr.take().map(OwnedFd::from));
    let deadline = call.limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let left = deadline.map_or(QUIET, |deadline| deadline.saturating_duration_since(Instant::now()));
        let ready = wait(&[Some(end.as_fd()), out.fd(), err.fd()], left)?;
        let [ended, out_ready, err_ready] = ready;
        if out_ready {
            out.read(&mut |line| hear(Heard::Line(line)));
        }
        if err_ready {
            err.read(&mut |_| {});
        }
        if out_ready || err_ready {
            continue;
        }
        if ended {
            // Both pipes are empty: what is still open belongs to a process that it left behind.
            let code = child.wait().context("asking for the exit code")?.code();
            return Ok(Output { code, out: out.text(), err: err.text() });
        }
        if call.limit.is_none() {
            hear(Heard::Nothing);
        } else if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
    }
    // At worst it ended meanwhile.
    let _ = kill_process_group(pid, Signal::KILL);
    let [ended, _, _] = wait(&[Some(end.as_fd()), None, None], AFTER_KILL)?;
    if ended {
        let _ = child.wait();
    }
    let wrote = Output { code: None, out: out.text(), err: err.text() };
    let limit = call.limit.unwrap_or_default().as_secs();
    bail!(
        "no end within {limit} s{}; it wrote: {}",
        if ended { "" } else { ", and it cannot be killed: it waits for a device" },
        wrote.said()
    )
}

/// Waits until one of the files is ready, and says which.
fn wait(files: &[Option<BorrowedFd<'_>>; 3], limit: Duration) -> Result<[bool; 3]> {
    let mut list: Vec<PollFd<'_>> =
        files.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let limit = Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: 1_000_000 };
    match poll(&mut list, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error).context("waiting for the program"),
    }
    let mut ready = list.iter().map(|entry| !entry.revents().is_empty());
    Ok(files.each_ref().map(|file| file.is_some() && ready.next().unwrap_or(false)))
}

/// The reading end of a program's output.
struct Pipe {
    fd: Option<OwnedFd>,
    kept: Vec<u8>,
    line: Vec<u8>,
}

impl Pipe {
    fn new(fd: Option<OwnedFd>) -> Self {
        Self { fd, kept: Vec::new(), line: Vec::new() }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is there, and passes each whole line on.
    fn read(&mut self, hear: &mut dyn FnMut(&str)) {
        let mut buffer = [0_u8; 8192];
        let length = match self.fd.as_ref().map(|fd| rustix::io::read(fd, &mut buffer)) {
            Some(Ok(length)) if length > 0 => length,
            Some(Err(rustix::io::Errno::INTR)) => return,
            _ => {
                self.fd = None;
                return;
            }
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        let room = KEPT.saturating_sub(self.kept.len()).min(length);
        self.kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
        for &byte in bytes {
            if byte == b'\n' {
                hear(&String::from_utf8_lossy(&self.line));
                self.line.clear();
            } else if self.line.len() < 4096 {
                self.line.push(byte);
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<Output> {
        Programs.run(&Call::new(&["sh", "-c", script], limit))
    }

    #[test]
    fn output_and_exit_code_are_kept_and_lines_are_heard() {
        let mut lines = Vec::new();
        let call = Call::new(&["sh", "-c", "cat; echo two; echo bad >&2; exit 3"], SHORT).reading("one\n");
        let output = Programs
            .listen(&call, &mut |heard| {
                if let Heard::Line(line) = heard {
                    lines.push(line.to_owned());
                }
            })
            .unwrap();
        assert_eq!((output.code, output.out.as_str(), output.err.as_str()), (Some(3), "one\ntwo\n", "bad\n"));
        assert_eq!(lines, ["one", "two"]);
        let error = Programs.text(&call).unwrap_err().to_string();
        assert!(error.starts_with("echo 'one' | sh -c ") && error.ends_with(": bad"), "{error}");
    }

    #[test]
    fn what_a_program_said_is_fit_for_a_console() {
        let output = Output { code: Some(5), out: "x".into(), err: "bad name \x1b[2J\n\n  of\tx \n".into() };
        assert_eq!(output.said(), "bad name ?[2J; of?x");
    }

    #[test]
    fn a_deadline_kills_the_program_with_its_children_and_keeps_what_it_wrote() {
        let began = Instant::now();
        let error = format!("{:#}", shell("echo so far; sleep 600 & wait", Duration::from_secs(1)).unwrap_err());
        assert!(error.contains("no end within 1 s; it wrote: so far"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_process_that_is_left_behind_does_not_keep_it_waiting() {
        let began = Instant::now();
        let output = shell("echo done; sleep 20 & echo $!", SHORT).unwrap();
        assert!(began.elapsed() < Duration::from_secs(15));
        let pid = output.out.lines().nth(1).unwrap().to_owned();
        shell(&format!("kill {pid}"), SHORT).unwrap();
        assert_eq!(output.out.lines().next(), Some("done"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Programs.run(&Call::new(&["no-such-program"], SHORT)).unwrap_err();
        assert_eq!(format!("{error:#}"), "the program no-such-program is not installed");
    }
}
