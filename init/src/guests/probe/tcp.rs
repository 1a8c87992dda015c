//! Whether a guest accepts a connection.

use super::cancel::Woken;
use super::{Cancel, Outcome, Pauses};
use anyhow::{Context as _, Result};
use rustix::event::PollFlags;
use rustix::fd::AsFd as _;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, getpeername, getsockname, socket_with, sockopt};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The first pause between two tries and the longest; a refusal comes at once.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long one try may take: a guest that comes up in between does not answer a segment that was lost before.
const TRY: Duration = Duration::from_secs(3);

enum Answer {
    Accepted,
    NotYet(String),
    Cancelled,
}

pub(super) fn wait(address: SocketAddr, deadline: Instant, cancel: &Cancel) -> Result<Outcome> {
    let mut pauses = Pauses::new(PAUSES.0, PAUSES.1);
    let mut seen = "it was never tried".to_owned();
    loop {
        if cancel.is_cancelled() {
            return Ok(Outcome::Cancelled);
        }
        if Instant::now() < deadline {
            match attempt(address, deadline.min(Instant::now() + TRY), cancel)? {
                Answer::Accepted => return Ok(Outcome::Ready),
                Answer::Cancelled => return Ok(Outcome::Cancelled),
                Answer::NotYet(why) => seen = format!("{address}: {why}"),
            }
        }
        match cancel.wait(pauses.until(deadline))? {
            Woken::Cancelled => return Ok(Outcome::Cancelled),
            _ if Instant::now() >= deadline => return Ok(Outcome::NotReady(seen)),
            _ => {}
        }
    }
}

fn attempt(address: SocketAddr, until: Instant, cancel: &Cancel) -> Result<Answer> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None).context("opening a TCP socket")?;
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            match cancel.wait_with(Some((socket.as_fd(), PollFlags::OUT)), until)? {
                Woken::Cancelled => return Ok(Answer::Cancelled),
                Woken::Time => return Ok(Answer::NotYet("no answer".into())),
                Woken::Event => {}
            }
            if let Err(error) = sockopt::socket_error(&socket).context("the state of a TCP socket")? {
                return Ok(Answer::NotYet(words(error)));
            }
        }
        Err(error) => return Ok(Answer::NotYet(words(error))),
    }
    // The kernel connects a socket with itself if the port is a free one of this host's.
    if let (Ok(here), Ok(Some(there))) = (getsockname(&socket), getpeername(&socket))
        && here == there
    {
        return Ok(Answer::NotYet("nobody listens".into()));
    }
    Ok(Answer::Accepted)
}

/// An error without its number.
pub(super) fn words(error: Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn soon(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    #[test]
    fn a_port_that_opens_later_is_ready_then() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let cancel = Cancel::new().unwrap();
        assert_eq!(wait(address, soon(60_000), &cancel).unwrap(), Outcome::Ready);
        drop(held);
        let outcome = wait(address, soon(300), &cancel).unwrap();
        assert!(matches!(&outcome, Outcome::NotReady(seen) if seen.contains("refused")), "{outcome}");
        let waiter = thread::spawn({
            let cancel = cancel.clone();
            move || wait(address, soon(60_000), &cancel).unwrap()
        });
        thread::sleep(Duration::from_millis(150));
        let _listener = TcpListener::bind(address).unwrap();
        assert_eq!(waiter.join().unwrap(), Outcome::Ready);
    }

    #[test]
    fn ipv6_and_cancel() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = Cancel::new().unwrap();
        assert_eq!(wait(address, soon(60_000), &cancel).unwrap(), Outcome::Ready);
        drop(listener);
        let waiter = thread::spawn({
            let cancel = cancel.clone();
            move || wait(address, soon(60_000), &cancel).unwrap()
        });
        cancel.cancel();
        assert_eq!(waiter.join().unwrap(), Outcome::Cancelled);
    }
}
