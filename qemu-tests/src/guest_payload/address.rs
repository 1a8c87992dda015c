//! Gives a network card its address and switches it on, by the two netlink messages that this takes.
//!
//! Sources: `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_addr.h`; rtnetlink(7).

use anyhow::{Context, Result, bail};
use rustix::fd::OwnedFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};
use std::fs;
use std::net::Ipv4Addr;

/// Message types.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
/// Request, acknowledge, create.
const FLAGS: u16 = 0x1 | 0x4 | 0x400;
/// The two attributes with which an address of a broadcast link is given.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// A link that is up.
const IFF_UP: u32 = 1;
/// IPv4.
const INET: u8 = 2;

/// Gives the card its address, and switches it on.
///
/// # Errors
/// There is no such card, or the kernel refuses.
pub(super) fn set(card: &str, address: Ipv4Addr, prefix: u8) -> Result<()> {
    let path = format!("/sys/class/net/{card}/ifindex");
    let index: u32 = fs::read_to_string(&path).with_context(|| path.clone())?.trim().parse().context(path)?;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0)).context("binding a netlink socket")?;
    ask(&socket, &new_address(index, address, prefix)).with_context(|| format!("giving {card} {address}/{prefix}"))?;
    ask(&socket, &link_up(index)).with_context(|| format!("switching {card} on"))
}

/// `RTM_NEWADDR`: a `struct ifaddrmsg` and the address, as the local one and as the one of the link.
fn new_address(index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![INET, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        body.extend(8_u16.to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend(address.octets());
    }
    message(RTM_NEWADDR, &body)
}

/// `RTM_NEWLINK`: a `struct ifinfomsg` that sets one flag.
fn link_up(index: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for word in [index, IFF_UP, IFF_UP] {
        body.extend(word.to_ne_bytes());
    }
    message(RTM_NEWLINK, &body)
}

/// A `struct nlmsghdr` and what it is about.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(FLAGS.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// Sends a message and reads what the kernel says of it.
fn ask(socket: &OwnedFd, message: &[u8]) -> Result<()> {
    send(socket, message, SendFlags::empty()).context("sending")?;
    let mut answer = [0; 1024];
    let (_, length) = recv(socket, &mut answer[..], RecvFlags::empty()).context("receiving")?;
    verdict(answer.get(..length).unwrap_or_default())
}

/// `NLMSG_ERROR` with the number 0 is an acknowledgement.
fn verdict(answer: &[u8]) -> Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => {
            Err(std::io::Error::from_raw_os_error(error.saturating_neg())).context("the kernel refuses")
        }
        _ => bail!("the kernel's answer is none: {answer:x?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_long_as_they_say() {
        let address = new_address(2, Ipv4Addr::new(192, 0, 2, 61), 24);
        assert_eq!((address.len(), address[0], &address[16..18]), (40, 40, &[2, 24][..]));
        assert!(address.ends_with(&[8, 0, 1, 0, 192, 0, 2, 61]));
        let up = link_up(2);
        assert_eq!((up.len(), up[0], &up[20..]), (32, 32, &[2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0][..]));
    }

    #[test]
    fn refusals_are_told() {
        let answer = |error: i32| [&[36, 0, 0, 0, 2, 0, 0, 0][..], &[0; 8], &error.to_ne_bytes()].concat();
        assert!(verdict(&answer(0)).is_ok());
        assert!(format!("{:#}", verdict(&answer(-17)).unwrap_err()).contains("File exists"));
        assert!(verdict(&[]).is_err());
    }
}
