//! IPv4, UDP and ARP by hand: as much as a DHCP client needs before the kernel has an address to do it with.
//!
//! Sources: RFC 791, RFC 768, RFC 1071 (checksum), RFC 826 and RFC 5227 (ARP). Nothing here allocates by what a packet
//! says of its length, and nothing trusts it.

use std::net::Ipv4Addr;

/// Port of DHCP servers.
pub const SERVER_PORT: u16 = 67;
/// Port of DHCP clients.
pub const CLIENT_PORT: u16 = 68;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
/// The usual initial value, so that a server behind a relay or router answers to it as to any other host.
const TIME_TO_LIVE: u8 = 64;

/// A UDP datagram in an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: Ipv4Addr,
    /// From which port.
    pub source_port: u16,
    /// To whom.
    pub destination: Ipv4Addr,
    /// To which port.
    pub destination_port: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Reads an IPv4 packet that holds a UDP datagram; `None` if it is anything else, a fragment, or damaged.
///
/// The checksum of the IP header must be right. UDP's is not looked at: a sender on the same machine (a guest, or the
/// other end of a veth pair) leaves it to a network card that the packet never passes, so that a wrong one is normal.
#[must_use]
pub fn parse_udp(packet: &[u8]) -> Option<Datagram<'_>> {
    let first = *packet.first()?;
    let header_length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_length < IP_HEADER {
        return None;
    }
    // What follows the total length is padding of a short Ethernet frame.
    let packet = packet.get(..usize::from(number(packet, 2)?))?;
    let header = packet.get(..header_length)?;
    let fragment = number(header, 6)? & 0x3fff;
    if checksum(header) != 0 || fragment != 0 || *header.get(9)? != UDP {
        return None;
    }
    let datagram = packet.get(header_length..)?;
    let payload = datagram.get(UDP_HEADER..usize::from(number(datagram, 4)?))?;
    Some(Datagram {
        source: address(header, 12)?,
        source_port: number(datagram, 0)?,
        destination: address(header, 16)?,
        destination_port: number(datagram, 2)?,
        payload,
    })
}

/// Writes a DHCP message from a client's port to a server's as an IPv4 packet.
#[must_use]
pub fn build_udp(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = |extra: usize| u16::try_from(payload.len().saturating_add(extra)).unwrap_or(u16::MAX);
    let mut header = Vec::with_capacity(IP_HEADER + UDP_HEADER + payload.len());
    // Version and length of the header, type of service; then identification and fragment, both 0.
    header.extend([0x45, 0]);
    header.extend(length(IP_HEADER + UDP_HEADER).to_be_bytes());
    header.extend([0, 0, 0, 0, TIME_TO_LIVE, UDP]);
    let mut addresses = source.octets().to_vec();
    addresses.extend(destination.octets());
    let sum = checksum_of([&header[..], &addresses]);
    header.extend(sum.to_be_bytes());
    header.extend(&addresses);

    let mut datagram = Vec::with_capacity(UDP_HEADER);
    datagram.extend(CLIENT_PORT.to_be_bytes());
    datagram.extend(SERVER_PORT.to_be_bytes());
    datagram.extend(length(UDP_HEADER).to_be_bytes());
    let mut pseudo_header = vec![0, UDP];
    pseudo_header.extend(length(UDP_HEADER).to_be_bytes());
    // RFC 768: a sum of 0 is sent as all ones, because 0 means "none".
    let sum = match checksum_of([&addresses[..], &pseudo_header, &datagram, payload]) {
        0 => u16::MAX,
        sum => sum,
    };
    datagram.extend(sum.to_be_bytes());

    header.extend(datagram);
    header.extend(payload);
    header
}

/// What an ARP packet for IPv4 on Ethernet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 is a request, 2 a reply.
    pub operation: u16,
    /// MAC address of who sent it.
    pub sender_mac: [u8; 6],
    /// Its address; 0.0.0.0 in a probe.
    pub sender: Ipv4Addr,
    /// Whose MAC address is asked for or was.
    pub target: Ipv4Addr,
}

/// Ethernet, IPv4, and the lengths of their addresses.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u16 = 1;

/// Reads an ARP packet; `None` if it is not a request or reply for IPv4 on Ethernet.
#[must_use]
pub fn parse_arp(packet: &[u8]) -> Option<Arp> {
    let operation = number(packet, 6)?;
    // The target's MAC address, at 18, tells a client nothing, but must be there.
    let target = address(packet, 24)?;
    (packet.starts_with(&ARP_KIND) && matches!(operation, 1 | 2)).then_some(Arp {
        operation,
        sender_mac: packet.get(8..14)?.try_into().ok()?,
        sender: address(packet, 14)?,
        target,
    })
}

/// The question "does anyone use this address?", which enters no one's table (RFC 5227, 2.1.1).
#[must_use]
pub fn arp_probe(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    build_arp(mac, Ipv4Addr::UNSPECIFIED, address)
}

/// "This address is mine": tables that hold another owner of it change (RFC 5227, 2.3).
#[must_use]
pub fn arp_announcement(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    build_arp(mac, address, address)
}

fn build_arp(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = ARP_KIND.to_vec();
    packet.extend(ARP_REQUEST.to_be_bytes());
    packet.extend(mac);
    packet.extend(sender.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    packet
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(octets.into())
}

fn checksum(bytes: &[u8]) -> u16 {
    checksum_of([bytes])
}

/// RFC 1071, over several parts; each but the last must have an even length.
fn checksum_of<const N: usize>(parts: [&[u8]; N]) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let high = pair.first().copied().unwrap_or_default();
            let low = pair.get(1).copied().unwrap_or_default();
            sum = sum.saturating_add(u64::from(u16::from_be_bytes([high, low])));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    #[test]
    fn what_is_built_is_read() {
        for payload in [&b""[..], b"x", b"even", &[0xff; 1400]] {
            let packet = build_udp(HERE, THERE, payload);
            let expected =
                Datagram { source: HERE, source_port: 68, destination: THERE, destination_port: 67, payload };
            assert_eq!(parse_udp(&packet), Some(expected));
            // Padding of a short frame is not payload.
            let padded: Vec<u8> = packet.iter().copied().chain([0; 18]).collect();
            assert_eq!(parse_udp(&padded), Some(expected));
        }
    }

    #[test]
    fn the_checksums_are_those_of_a_known_packet() {
        // The header that textbooks use: 4500 0073 0000 4000 4011 .... c0a8 0001 c0a8 00c7 has b861.
        let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(checksum(&header), 0xb861);
        // UDP's sum over the pseudo header, its own header and data comes out as "right" (0) at the receiver.
        let packet = build_udp(HERE, THERE, b"odd");
        let pseudo: Vec<u8> = packet[12..20].iter().chain(&[0, 17]).chain(&packet[24..26]).copied().collect();
        assert_eq!(checksum_of([&pseudo[..], &packet[20..]]), 0);
    }

    #[test]
    fn fragments_damage_and_other_protocols_are_passed_over() {
        let good = build_udp(HERE, THERE, b"payload");
        let changed = |at: usize, value: u8| {
            let mut packet = good.clone();
            packet[at] = value;
            // So that only the change itself is wrong.
            packet[10..12].copy_from_slice(&[0, 0]);
            let sum = checksum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet
        };
        assert!(parse_udp(&changed(1, 8)).is_some(), "the type of service does not matter");
        for (at, value) in [(0, 0x65), (0, 0x44), (3, 200), (6, 0x20), (7, 1), (9, 6), (25, 200), (25, 7)] {
            assert_eq!(parse_udp(&changed(at, value)), None, "byte {at} = {value:#x}");
        }
        let mut damaged = good.clone();
        damaged[15] ^= 1;
        assert_eq!(parse_udp(&damaged), None);
        for length in 0..good.len() {
            assert_eq!(parse_udp(&good[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn arp_is_built_and_read() {
        let mac = [2, 0, 0, 0, 0, 1];
        let probe = arp_probe(mac, HERE);
        assert_eq!(probe.len(), 28);
        let expected = Arp { operation: 1, sender_mac: mac, sender: Ipv4Addr::UNSPECIFIED, target: HERE };
        assert_eq!(parse_arp(&probe), Some(expected));
        assert_eq!(parse_arp(&arp_announcement(mac, HERE)), Some(Arp { sender: HERE, ..expected }));
        assert_eq!(parse_arp(&probe[..27]), None);
        let mut other = probe.clone();
        other[7] = 3;
        assert_eq!(parse_arp(&other), None);
        other = probe;
        other[1] = 6;
        assert_eq!(parse_arp(&other), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in 0_usize..36,
            value: u8,
            length in 0_usize..36,
        ) {
            let _ = parse_udp(&bytes);
            let _ = parse_arp(&bytes);
            let mut near = build_udp(HERE, THERE, b"payload!");
            near[at] = value;
            near.truncate(length);
            let _ = parse_udp(&near);
            let _ = parse_arp(&near);
        }
    }
}
