//! A client of xenstored: values, folders, and watches.
//!
//! A [`Client`] talks over xenstored's socket, or over the kernel's `/dev/xen/xenbus` where there is none. Every request has a
//! deadline. Events of watches come between the answers; they are kept until they are asked for, and [`Client::fd`] is
//! readable when there are more. No transactions: SINO writes single values only. [`domains`] says which guests came and went, [`stops`] why.
//!
//! Source: Xen's `docs/misc/xenstore.txt`. Against what a bad server sends: payloads are at most 4096 bytes, unknown messages are passed
//! over, equal events are kept once, and too many different ones end the connection.

pub mod disks;
pub mod domains;
#[cfg(test)]
pub(crate) mod played;
pub mod stops;
pub(crate) mod wire;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};
use wire::{Decoder, Kind, Message, PATH_MAX, strings};

/// Where xenstored listens. Source: Xen's `tools/include/xen-tools/xenstore-common.h`.
pub const SOCKET: &str = "/run/xenstored/socket";
/// The kernel's way to xenstored, wherever that runs.
pub const DEVICE: &str = "/dev/xen/xenbus";
/// How long a request may take. xenstored answers in microseconds; a host that is short of memory takes longer.
pub const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// So many different events may wait. There are a few watches for each guest.
const EVENTS_MAX: usize = 8192;
/// Of so many parts a list may have; 32751 domains need fifty.
const PARTS_MAX: usize = 200;

/// Something below a watched path changed, or perhaps did: watches are also triggered once when they are set up, and spuriously.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What changed: the watched path, or one below it.
    pub path: String,
    /// The watch's token.
    pub token: String,
}

/// xenstored said no. The name is that of an error number, such as `EACCES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = match self.0.as_str() {
            "ENOENT" => "there is no such path",
            "EACCES" | "EPERM" => "not allowed",
            "EEXIST" => "it is there already",
            "EINVAL" => "it cannot be understood",
            "ENOSPC" | "EQUOTA" => "a quota is used up",
            other => return write!(f, "xenstored refused it: {other}"),
        };
        write!(f, "xenstored refused it: {known} ({})", self.0)
    }
}

impl std::error::Error for Refused {}

/// A connection to xenstored.
#[derive(Debug)]
pub struct Client {
    fd: OwnedFd,
    decoder: Decoder,
    last: u32,
    events: VecDeque<Event>,
    limit: Duration,
    /// Why the connection cannot be used any more.
    lost: Option<String>,
}

impl Client {
    /// Connects to xenstored: by its socket, or by the kernel where there is no socket.
    ///
    /// # Errors
    /// Neither is there: there is no Xen, or xenstored does not run.
    pub fn connect() -> Result<Self> {
        if Path::new(SOCKET).exists() {
            return Self::by_socket(Path::new(SOCKET));
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(DEVICE, flags, Mode::empty())
            .with_context(|| format!("there is no {SOCKET}, and opening {DEVICE}"))
            .context("xenstored cannot be asked")?;
        Ok(Self::over(fd))
    }

    /// Connects by a socket.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn by_socket(path: &Path) -> Result<Self> {
        let doing = || format!("connecting to xenstored at {}", path.display());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).context("opening a socket")?;
        let address = SocketAddrUnix::new(path).with_context(doing)?;
        // A stream socket of this family connects at once, or says EAGAIN when too many others wait.
        connect(&fd, &address).with_context(doing)?;
        Ok(Self::over(fd))
    }

    /// A client over something that is connected, and does not block.
    #[must_use]
    pub fn over(fd: OwnedFd) -> Self {
        Self { fd, decoder: Decoder::default(), last: 0, events: VecDeque::new(), limit: ANSWERS_WITHIN, lost: None }
    }

    /// The same with another deadline for each request.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Readable when events may have come; then [`Client::event`] until there is none. Also when the connection is lost.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The value at a path; `None` when there is none.
    ///
    /// # Errors
    /// The path cannot be one, xenstored refuses it, does not answer in time, or is gone. So of all that follow.
    pub fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        let answer = self.ask(Kind::Read, &[path, ""]).or_else(missing);
        answer.with_context(|| format!("reading {path} from the xenstore"))
    }

    /// As [`Client::read`], as text; bytes that are none are replaced.
    ///
    /// # Errors
    /// See [`Client::read`].
    pub fn text(&mut self, path: &str) -> Result<Option<String>> {
        Ok(self.read(path)?.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    /// Writes a value; missing folders are made.
    ///
    /// # Errors
    /// See [`Client::read`].
    pub fn write(&mut self, path: &str, value: &str) -> Result<()> {
        self.ask(Kind::Write, &[path, value]).map(drop).with_context(|| format!("writing {path} to the xenstore"))
    }

    /// The names in a folder; `None` when there is no such path.
    ///
    /// # Errors
    /// See [`Client::read`].
    pub fn directory(&mut self, path: &str) -> Result<Option<Vec<String>>> {
        let answer = match self.ask(Kind::Directory, &[path, ""]) {
            Err(error) if refusal(&error) == Some("E2BIG") => self.parts(path),
            other => other,
        };
        let answer = answer.or_else(missing).with_context(|| format!("listing {path} in the xenstore"))?;
        Ok(answer.map(|names| strings(&names)))
    }

    /// A list of names that is longer than one answer. Begins again when it changes meanwhile.
    fn parts(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        let (mut names, mut generation) = (Vec::new(), None);
        for _ in 0..PARTS_MAX {
            let offset = names.len().to_string();
            let answer = self.ask(Kind::DirectoryPart, &[path, &offset, ""])?.unwrap_or_default();
            let end = answer.iter().position(|&byte| byte == 0).context("a part without its generation")?;
            let (number, part) = answer.split_at(end);
            let part = part.get(1..).unwrap_or_default();
            if generation.get_or_insert_with(|| number.to_vec()) != number {
                (names, generation) = (Vec::new(), None);
                continue;
            }
            // An empty name ends the list. Source: Xen's tools/xenstored/core.c, send_directory_part.
            let last = part.is_empty() || part == [0] || part.ends_with(&[0, 0]);
            names.extend_from_slice(if last { part.strip_suffix(&[0]).unwrap_or(part) } else { part });
            if last {
                return Ok(Some(names));
            }
        }
        bail!("the list has no end")
    }

    /// Makes a folder, with those above it; one that is there stays as it is.
    ///
    /// # Errors
    /// See [`Client::read`].
    pub fn mkdir(&mut self, path: &str) -> Result<()> {
        self.ask(Kind::Mkdir, &[path, ""]).map(drop).with_context(|| format!("making {path} in the xenstore"))
    }

    /// Removes a path with all below it; one that is not there is none.
    ///
    /// # Errors
    /// See [`Client::read`].
    pub fn remove(&mut self, path: &str) -> Result<()> {
        let answer = self.ask(Kind::Remove, &[path, ""]).or_else(missing);
        answer.map(drop).with_context(|| format!("removing {path} from the xenstore"))
    }

    /// Watches a path with all below it, or `@introduceDomain` or `@releaseDomain`. The first event comes at once. A watch with the same
    /// path and token that is there already is none the worse.
    ///
    /// # Errors
    /// See [`Client::read`].
    pub fn watch(&mut self, path: &str, token: &str) -> Result<()> {
        match self.ask(Kind::Watch, &[path, token, ""]) {
            Err(error) if refusal(&error) == Some("EEXIST") => Ok(()),
            other => other.map(drop).with_context(|| format!("watching {path} in the xenstore")),
        }
    }

    /// Ends a watch, and forgets its events.
    ///
    /// # Errors
    /// See [`Client::read`]. A watch that is not there is no error.
    pub fn unwatch(&mut self, path: &str, token: &str) -> Result<()> {
        let answer = self.ask(Kind::Unwatch, &[path, token, ""]).or_else(missing);
        self.events.retain(|event| event.token != token || !is_below(&event.path, path));
        answer.map(drop).with_context(|| format!("ending the watch of {path} in the xenstore"))
    }

    /// A domain's own folder.
    ///
    /// # Errors
    /// See [`Client::read`].
    pub fn domain_path(&mut self, domain: u32) -> Result<String> {
        let answer = self.ask(Kind::GetDomainPath, &[&domain.to_string(), ""]);
        let answer = answer.with_context(|| format!("asking for the folder of domain {domain}"))?.unwrap_or_default();
        strings(&answer).into_iter().next().with_context(|| format!("domain {domain} has no folder"))
    }

    /// Whether xenstored is in contact with a domain: from its making until it is destroyed.
    ///
    /// # Errors
    /// See [`Client::read`].
    pub fn is_introduced(&mut self, domain: u32) -> Result<bool> {
        let answer = self.ask(Kind::IsDomainIntroduced, &[&domain.to_string(), ""]);
        let answer = answer.with_context(|| format!("asking whether domain {domain} is there"))?.unwrap_or_default();
        Ok(answer.first() == Some(&b'T'))
    }

    /// The next event of a watch, without waiting.
    ///
    /// # Errors
    /// The connection is lost: the caller connects again and sets its watches anew.
    pub fn event(&mut self) -> Result<Option<Event>> {
        if self.events.is_empty() {
            // An answer that nobody waits for any more is passed over.
            while self.take(None)?.is_some() {}
        }
        Ok(self.events.pop_front())
    }

    /// Sends a request of strings, all but the last ended by NUL, and waits for its answer.
    fn ask(&mut self, kind: Kind, words: &[&str]) -> Result<Option<Vec<u8>>> {
        let path = words.first().copied().unwrap_or_default();
        ensure!(path.len() <= PATH_MAX, "a path of {} bytes is too long (at most {PATH_MAX})", path.len());
        let (value, strings) = words.split_last().unwrap_or((&"", &[]));
        // Only a value, which is the last, may hold NUL.
        ensure!(strings.iter().all(|word| !word.contains('\0')), "a path or token must not hold a NUL");
        let mut payload = strings.join("\0").into_bytes();
        payload.push(0);
        payload.extend_from_slice(value.as_bytes());
        // 0 is the number of events.
        self.last = self.last.checked_add(1).unwrap_or(1);
        let request = self.last;
        let bytes = Message { kind: kind.number(), request, transaction: 0, payload }.bytes()?;
        if let Some(why) = &self.lost {
            bail!("the connection to xenstored is lost: {why}");
        }
        let deadline = Instant::now() + self.limit;
        self.send(&bytes, deadline)?;
        loop {
            if let Some(answer) = self.take(Some(request))? {
                return answer_of(kind, answer);
            }
            self.wait(PollFlags::IN, deadline)?;
        }
    }

    fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(&self.fd, rest) {
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if let Err(error) = self.wait(PollFlags::OUT, deadline) {
                        // Half a message went out, perhaps: nothing can be said after it.
                        return Err(self.lose(format!("{error:#}")));
                    }
                }
                Err(error) => return Err(self.lose(error.to_string())),
            }
        }
        Ok(())
    }

    /// Takes what has come, without waiting: events are kept, and the answer to `request` (to any, if that is `None`) is returned.
    fn take(&mut self, request: Option<u32>) -> Result<Option<Message>> {
        if let Some(why) = &self.lost {
            bail!("the connection to xenstored is lost: {why}");
        }
        loop {
            loop {
                let message = match self.decoder.next() {
                    Ok(message) => message,
                    Err(error) => return Err(self.lose(error.to_string())),
                };
                let Some(message) = message else { break };
                if message.kind == Kind::WatchEvent.number() {
                    self.keep(&message)?;
                } else if request.is_none_or(|request| request == message.request) {
                    return Ok(Some(message));
                }
                // Else it answers a request that was given up.
            }
            let mut buffer = [0_u8; 4096];
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(0) => return Err(self.lose("xenstored has ended it".to_owned())),
                Ok(length) => self.decoder.push(buffer.get(..length).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(self.lose(error.to_string())),
            }
        }
    }

    fn keep(&mut self, message: &Message) -> Result<()> {
        let mut fields = strings(&message.payload).into_iter();
        let (Some(path), Some(token)) = (fields.next(), fields.next()) else { return Ok(()) };
        let event = Event { path, token };
        // Whoever is told looks for himself what there is now; the same twice tells nothing more.
        if !self.events.contains(&event) {
            self.events.push_back(event);
        }
        if self.events.len() > EVENTS_MAX {
            return Err(self.lose(format!("more than {EVENTS_MAX} events wait")));
        }
        Ok(())
    }

    fn lose(&mut self, why: String) -> anyhow::Error {
        let error = anyhow!("the connection to xenstored is lost: {why}");
        self.lost = Some(why);
        error
    }

    fn wait(&self, flags: PollFlags, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(
                !left.is_zero(),
                "xenstored does not answer within {} s: see systemctl status xen",
                self.limit.as_secs_f32()
            );
            let mut fds = [PollFd::new(&self.fd, flags)];
            match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error).context("waiting for xenstored"),
            }
        }
    }
}

/// Whether `path` is `of` or below it.
fn is_below(path: &str, of: &str) -> bool {
    let of = of.trim_end_matches('/');
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn answer_of(kind: Kind, message: Message) -> Result<Option<Vec<u8>>> {
    if message.kind == Kind::Error.number() {
        let name = strings(&message.payload).into_iter().next().unwrap_or_default();
        return Err(Refused(crate::config::origins::clean(&name, 40)).into());
    }
    ensure!(message.kind == kind.number(), "xenstored answered something else (type {})", message.kind);
    Ok(Some(message.payload))
}

fn refusal(error: &anyhow::Error) -> Option<&str> {
    error.downcast_ref::<Refused>().map(|refused| refused.0.as_str())
}

/// What is not there is no error.
fn missing(error: anyhow::Error) -> Result<Option<Vec<u8>>> {
    if refusal(&error) == Some("ENOENT") { Ok(None) } else { Err(error) }
}

#[cfg(test)]
mod tests;
