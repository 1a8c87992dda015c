//! Whether a guest answers ICMP echo requests.
//!
//! Source: RFC 792 (echo), RFC 4443 section 4 (echo of `ICMPv6`), RFC 1071 (checksum). A raw socket where that is allowed; the
//! kernel's ICMP sockets else, which before systemd sets `net.ipv4.ping_group_range` are closed even to root.

use super::cancel::Woken;
use super::tcp::words;
use super::{Cancel, Outcome};
use anyhow::{Context as _, Result};
use rustix::event::PollFlags;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send, socket_with,
};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Between two requests.
const INTERVAL: Duration = Duration::from_secs(1);
/// ICMP and `ICMPv6`: type of a request, type of an answer.
const TYPES: ((u8, u8), (u8, u8)) = ((8, 0), (128, 129));
/// Type, code, checksum, identifier, sequence number: 8 bytes.
const HEADER: usize = 8;
/// The largest answer that is looked at, in bytes: IPv4's longest header and our own request, with room to spare.
const LARGEST: usize = 512;

/// What belongs to one series of requests.
struct Series {
    address: IpAddr,
    id: u16,
    /// In every request, so that no answer to another's is taken for ours.
    token: [u8; 16],
    sent: u16,
}

struct Socket {
    fd: OwnedFd,
    /// The kernel makes identifier and checksum, and gives answers to this socket only.
    of_kernel: bool,
}

pub(super) fn wait(address: IpAddr, deadline: Instant, cancel: &Cancel) -> Result<Outcome> {
    let mut series = Series::new(address);
    let mut socket: Option<Socket> = None;
    let mut trouble = None;
    let began = Instant::now();
    loop {
        let next = deadline.min(Instant::now() + INTERVAL);
        // A route may come later, and a socket keeps the source address of the one that it was connected by.
        match ask(&mut series, &mut socket)? {
            Ok(()) => {}
            Err(error) => {
                trouble = Some(words(error));
                socket = None;
            }
        }
        loop {
            let event = socket.as_ref().map(|socket| (socket.fd.as_fd(), PollFlags::IN));
            match cancel.wait_with(event, next)? {
                Woken::Cancelled => return Ok(Outcome::Cancelled),
                Woken::Time => break,
                Woken::Event => {}
            }
            match socket.as_ref().map(|socket| answered(socket, &series)) {
                Some(Ok(true)) => return Ok(Outcome::Ready),
                Some(Ok(false)) | None => {}
                Some(Err(error)) => trouble = Some(words(error)),
            }
            // A flood of other packets does not keep it past its time.
            if Instant::now() >= next {
                break;
            }
        }
        if Instant::now() >= deadline {
            let last = trouble.map(|why| format!("; last: {why}")).unwrap_or_default();
            let (sent, seconds) = (series.sent, began.elapsed().as_secs());
            return Ok(Outcome::NotReady(format!("{address} has not answered {sent} pings in {seconds} s{last}")));
        }
    }
}

/// Sends the next request; inside, what may get better.
fn ask(series: &mut Series, socket: &mut Option<Socket>) -> Result<Result<(), Errno>> {
    if socket.is_none() {
        let fresh = open(series.address)?;
        if let Err(error) = connect(&fresh.fd, &SocketAddr::new(series.address, 0)) {
            return Ok(Err(error));
        }
        *socket = Some(fresh);
    }
    let Some(socket) = socket else { return Ok(Ok(())) };
    let packet = series.next();
    Ok(loop {
        match send(&socket.fd, &packet, SendFlags::empty()) {
            Ok(_) => break Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => break Err(error),
        }
    })
}

fn open(address: IpAddr) -> Result<Socket> {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match socket_with(family, SocketType::RAW, flags, Some(protocol)) {
        Ok(fd) => Ok(Socket { fd, of_kernel: false }),
        Err(Errno::PERM | Errno::ACCESS) => socket_with(family, SocketType::DGRAM, flags, Some(protocol))
            .map(|fd| Socket { fd, of_kernel: true })
            .context("opening a socket to ping with; that takes root"),
        Err(error) => Err(error).context("opening a socket to ping with"),
    }
}

/// Whether one of the packets that are there is an answer to us.
fn answered(socket: &Socket, series: &Series) -> Result<bool, Errno> {
    let mut buffer = [0; LARGEST];
    loop {
        match recv(&socket.fd, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, length)) => {
                let packet = buffer.get(..length).unwrap_or_default();
                return Ok(series.is_answer(packet, socket.of_kernel));
            }
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

impl Series {
    fn new(address: IpAddr) -> Self {
        // Hash seeds are the random numbers of the standard library.
        let random = || RandomState::new().build_hasher().finish();
        let mut token = [0; 16];
        let bytes = random().to_ne_bytes().into_iter().chain(random().to_ne_bytes());
        token.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        let id = u16::from_ne_bytes([token[0], token[1]]);
        Self { address, id, token, sent: 0 }
    }

    fn types(&self) -> (u8, u8) {
        if self.address.is_ipv4() { TYPES.0 } else { TYPES.1 }
    }

    fn next(&mut self) -> Vec<u8> {
        self.sent = self.sent.wrapping_add(1);
        let (request, _) = self.types();
        let mut packet = vec![request, 0, 0, 0];
        packet.extend(self.id.to_be_bytes());
        packet.extend(self.sent.to_be_bytes());
        packet.extend(self.token);
        if self.address.is_ipv4() {
            let sum = checksum(&packet).to_be_bytes();
            packet.splice(2..4, sum);
        }
        // The kernel makes the checksum of ICMPv6, which is over the addresses, too.
        packet
    }

    fn is_answer(&self, packet: &[u8], of_kernel: bool) -> bool {
        // Only a raw socket of IPv4 is given the header of IP.
        let raw4 = self.address.is_ipv4() && !of_kernel;
        let header = if raw4 { packet.first().map_or(0, |first| usize::from(first & 15) * 4) } else { 0 };
        let Some(message) = packet.get(header..) else { return false };
        let Some((head, payload)) = message.split_at_checked(HEADER) else { return false };
        let &[kind, code, _, _, id0, id1, seq0, seq1] = head else { return false };
        let (id, sequence) = (u16::from_be_bytes([id0, id1]), u16::from_be_bytes([seq0, seq1]));
        kind == self.types().1
            && code == 0
            && (of_kernel || id == self.id)
            && (1..=self.sent).contains(&sequence)
            && payload == self.token
            && (!raw4 || checksum(message) == 0)
    }
}

/// The Internet checksum; 0 over a message that has its own in it.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let high = u32::from(pair.first().copied().unwrap_or(0)) << 8;
        sum += high + u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(series: &mut Series) -> Vec<u8> {
        let mut message = series.next();
        message[0] = series.types().1;
        if series.address.is_ipv6() {
            return message;
        }
        message[2..4].fill(0);
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let mut packet = vec![0x46; 24];
        packet.extend(message);
        packet
    }

    #[test]
    fn only_an_answer_to_us_is_one() {
        let mut series = Series::new("192.0.2.5".parse().unwrap());
        let right = answer(&mut series);
        assert!(series.is_answer(&right, false));
        for at in 24..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 1;
            assert!(!series.is_answer(&wrong, false), "byte {at}");
        }
        assert!(series.is_answer(&right[24..], true), "an ICMP socket gives no header");
        let request = series.next();
        assert!(!series.is_answer(&request, true), "our own request");
        assert_eq!(checksum(&request), 0);
        let mut series = Series::new("2001:db8::1".parse().unwrap());
        let right = answer(&mut series);
        assert!(series.is_answer(&right, false) && !Series::new(series.address).is_answer(&right, false));
    }

    proptest! {
        #[test]
        fn no_packet_panics(packet: Vec<u8>, of_kernel: bool) {
            for address in ["192.0.2.5", "2001:db8::1"] {
                prop_assert!(!Series::new(address.parse().unwrap()).is_answer(&packet, of_kernel));
            }
        }
    }
}
