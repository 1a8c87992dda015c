//! Lets the kernel pick, of all ARP packets on a link, those by which another host claims our address: a busy net sends
//! hundreds in a second, and a host with a lease is not to be woken by them.
//!
//! The filter is a program of classic BPF (kernel `Documentation/networking/filter.rst`) over the ARP packet without its
//! Ethernet header, as RFC 826 lays it out for Ethernet and IPv4: the sender's MAC address at 8, its address at 14.

use anyhow::{Context, Result};
use rustix::fd::{AsRawFd, BorrowedFd};
use std::net::Ipv4Addr;

/// Load a word, load half a word, jump if equal, return. Source: `include/uapi/linux/bpf_common.h`.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Whatever is sent from `address`, but not by `mac`.
fn program(address: Ipv4Addr, mac: [u8; 6]) -> [libc::sock_filter; 8] {
    let [first, second, third, fourth, rest @ ..] = mac;
    [
        instruction(LOAD_WORD, 0, 0, 14),
        instruction(JUMP_IF_EQUAL, 0, 4, address.to_bits()),
        instruction(LOAD_WORD, 0, 0, 8),
        instruction(JUMP_IF_EQUAL, 0, 3, u32::from_be_bytes([first, second, third, fourth])),
        instruction(LOAD_HALF, 0, 0, 12),
        instruction(JUMP_IF_EQUAL, 0, 1, u16::from_be_bytes(rest).into()),
        instruction(RETURN, 0, 0, 0),
        instruction(RETURN, 0, 0, u32::MAX),
    ]
}

/// Has `socket`, a packet socket for ARP without Ethernet headers, receive nothing but claims of `address` by others than
/// `mac`.
///
/// # Errors
/// The kernel refuses the filter.
pub(super) fn attach(socket: BorrowedFd<'_>, address: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
    let mut program = program(address, mac);
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).context("the size of a filter")?;
    let filter = libc::sock_fprog { len: u16::try_from(program.len())?, filter: program.as_mut_ptr() };
    // SAFETY: the option takes a `sock_fprog` of this length, whose pointer and count are those of an array that lives
    // until the call returns; the kernel copies it. Neither rustix nor another crate in use has this option.
    #[allow(unsafe_code)]
    let done = unsafe {
        let value = (&raw const filter).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, length)
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).context("attaching a filter") }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{arp_announcement, arp_probe};
    use super::*;

    /// What the kernel would do with the packet.
    fn passes(program: &[libc::sock_filter], packet: &[u8]) -> bool {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let instruction = program[at];
            at += 1;
            let from = instruction.k as usize;
            match instruction.code {
                LOAD_WORD => accumulator = u32::from_be_bytes(packet[from..from + 4].try_into().unwrap()),
                LOAD_HALF => accumulator = u16::from_be_bytes(packet[from..from + 2].try_into().unwrap()).into(),
                JUMP_IF_EQUAL if accumulator == instruction.k => at += usize::from(instruction.jt),
                JUMP_IF_EQUAL => at += usize::from(instruction.jf),
                RETURN => return instruction.k != 0,
                code => panic!("{code}"),
            }
        }
    }

    #[test]
    fn only_claims_of_the_address_by_others_pass() {
        let address = Ipv4Addr::new(192, 0, 2, 7);
        let other_address = Ipv4Addr::new(192, 0, 2, 8);
        let mac = [2, 0xff, 0, 0x80, 0, 7];
        let program = program(address, mac);
        assert!(!passes(&program, &arp_announcement(mac, address)));
        for other in [[2, 0xff, 0, 0x80, 0, 8], [2, 0xff, 0, 0x81, 0, 7], [0; 6]] {
            assert!(passes(&program, &arp_announcement(other, address)));
            assert!(!passes(&program, &arp_announcement(other, other_address)));
            // Who only asks whether it is free, or where it is, claims nothing.
            assert!(!passes(&program, &arp_probe(other, address)));
        }
    }
}
