//! DHCP messages as bytes: what the client sends, and what it takes from an answer.
//!
//! `dhcproto` does the encoding and the decoding of each value. The header's plausibility, the list of options and the
//! two fields that may hold more of it are looked at here, because the crate stops at the first option that it cannot
//! read, knows no overload (RFC 2131, 4.1) and takes any magic number and any length of hardware address.

use dhcproto::v4::{DhcpOption, DhcpOptions, Flags, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The header with the magic number, in bytes; options follow.
const HEADER: usize = 240;
/// Relay agents and old servers drop what is shorter than a BOOTP message (RFC 1542, 2.1).
const SHORTEST: usize = 300;
/// The longest message that is welcome: one Ethernet frame, less the headers of IP and UDP.
const LONGEST: u16 = 1472;

/// What the client asks to be told: netmask, routers, name servers, host name, domain, MTU, time servers, lease time,
/// server, T1, T2, search list, routes. RFC 3442 wants the routes before the routers.
const ASKED: [OptionCode; 13] = [
    OptionCode::SubnetMask,
    OptionCode::ClasslessStaticRoute,
    OptionCode::Router,
    OptionCode::DomainNameServer,
    OptionCode::Hostname,
    OptionCode::DomainName,
    OptionCode::InterfaceMtu,
    OptionCode::NtpServers,
    OptionCode::AddressLeaseTime,
    OptionCode::ServerIdentifier,
    OptionCode::Renewal,
    OptionCode::Rebinding,
    OptionCode::DomainSearch,
];

/// What the client sends (RFC 2131, tables 4 and 5).
#[derive(Clone, Debug)]
pub struct Request {
    /// DISCOVER, REQUEST or DECLINE.
    pub kind: MessageType,
    /// Transaction, by which an answer is known.
    pub xid: u32,
    /// Of the interface.
    pub mac: [u8; 6],
    /// Seconds since the client began to ask.
    pub seconds: u16,
    /// The client's address, only if it is in use (renewing, rebinding).
    pub in_use: Option<Ipv4Addr>,
    /// The address that it wishes, was offered, or refuses.
    pub requested: Option<Ipv4Addr>,
    /// The server whose offer it takes or whose address it refuses.
    pub server: Option<Ipv4Addr>,
    /// The host's name, for the server's DNS.
    pub hostname: Option<String>,
}

impl Request {
    /// The bytes of the message.
    ///
    /// # Errors
    /// The codec cannot write it; no value of these fields is known to do that.
    pub fn encode(&self) -> anyhow::Result<Vec<u8>> {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(self.xid, self.in_use.unwrap_or(none), none, none, none, &self.mac);
        // No broadcast flag: raw sockets receive an answer to an address that is not set yet.
        message.set_secs(self.seconds).set_flags(Flags::default());
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(self.kind));
        // RFC 2132, 9.14: type of hardware and MAC address, as most clients do, so that a server's reservations by
        // MAC address or by this identifier both hit.
        options.insert(DhcpOption::ClientIdentifier([&[1], &self.mac[..]].concat()));
        if let Some(address) = self.requested {
            options.insert(DhcpOption::RequestedIpAddress(address));
        }
        if let Some(server) = self.server {
            options.insert(DhcpOption::ServerIdentifier(server));
        }
        if self.kind != MessageType::Decline {
            options.insert(DhcpOption::ParameterRequestList(ASKED.to_vec()));
            options.insert(DhcpOption::MaxMessageSize(LONGEST));
            if let Some(name) = self.hostname.as_deref().and_then(super::names::plain) {
                options.insert(DhcpOption::Hostname(name));
            }
        }
        let mut bytes = message.to_vec()?;
        bytes.resize(bytes.len().max(SHORTEST), 0);
        Ok(bytes)
    }
}

/// An answer of a server, as far as it is readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// OFFER, ACK or NAK; others come from nowhere that a client listens to.
    pub kind: MessageType,
    /// The transaction that it answers.
    pub xid: u32,
    /// Whom it is for.
    pub mac: [u8; 6],
    /// The address that is offered or confirmed.
    pub address: Ipv4Addr,
    /// What could be read of what was asked for, and the server's message for people.
    pub options: DhcpOptions,
}

/// Reads a message; `None` if it is not an answer of a server to an Ethernet host.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Reply> {
    let (header, options) = bytes.split_at_checked(HEADER)?;
    // Operation "reply", hardware Ethernet with addresses of 6 bytes, and the magic number of RFC 2131, 3.
    if !header.starts_with(&[2, 1, 6]) || !header.ends_with(&dhcproto::v4::MAGIC) {
        return None;
    }
    let message = Message::decode(&mut Decoder::new(header)).ok()?;
    let mut values = BTreeMap::new();
    collect(options, &mut values);
    let overload = values.get(&u8::from(OptionCode::OptionOverload)).and_then(|value| value.first()).copied();
    // RFC 3396, 5: the field "file" (bit 0) comes before "sname" (bit 1).
    for (bit, field) in [(1, 108..236), (2, 44..108)] {
        if overload.is_some_and(|overload| overload & bit != 0) {
            collect(header.get(field)?, &mut values);
        }
    }
    let mut options = DhcpOptions::new();
    for code in ASKED.into_iter().chain([OptionCode::MessageType, OptionCode::Message]) {
        if let Some(option) = values.get(&u8::from(code)).and_then(|value| decode(code, value)) {
            options.insert(option);
        }
    }
    let Some(DhcpOption::MessageType(kind)) = options.get(OptionCode::MessageType) else { return None };
    Some(Reply {
        kind: *kind,
        xid: message.xid(),
        mac: message.chaddr().try_into().ok()?,
        address: message.yiaddr(),
        options,
    })
}

/// Adds the options in `bytes` to `values`; the parts of one that comes several times are joined (RFC 3396).
fn collect(mut bytes: &[u8], values: &mut BTreeMap<u8, Vec<u8>>) {
    loop {
        bytes = match bytes {
            [0, rest @ ..] => rest,
            [255, ..] => return,
            [code, length, rest @ ..] => {
                // The rest of a message that was cut off in the middle of an option means nothing.
                let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { return };
                values.entry(*code).or_default().extend(value);
                rest
            }
            _ => return,
        }
    }
}

/// A value by itself, so that a bad one spoils no other.
fn decode(code: OptionCode, value: &[u8]) -> Option<DhcpOption> {
    let code = u8::from(code);
    let mut bytes = Vec::with_capacity(value.len().saturating_add(16));
    let mut parts = value.chunks(usize::from(u8::MAX)).peekable();
    if parts.peek().is_none() {
        bytes.extend([code, 0]);
    }
    for part in parts {
        bytes.extend([code, u8::try_from(part.len()).ok()?]);
        bytes.extend(part);
    }
    bytes.push(u8::from(OptionCode::End));
    DhcpOption::decode(&mut Decoder::new(&bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn reply(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..3].copy_from_slice(&[2, 1, 6]);
        bytes[4..8].copy_from_slice(&7_u32.to_be_bytes());
        bytes[16..20].copy_from_slice(&[192, 0, 2, 7]);
        bytes[28..34].copy_from_slice(&MAC);
        bytes[236..].copy_from_slice(&dhcproto::v4::MAGIC);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn a_request_holds_what_the_tables_of_rfc_2131_want() {
        let request = Request {
            kind: MessageType::Request,
            xid: 7,
            mac: MAC,
            seconds: 3,
            in_use: None,
            requested: Some(Ipv4Addr::new(192, 0, 2, 7)),
            server: Some(Ipv4Addr::new(192, 0, 2, 1)),
            hostname: Some("host".into()),
        };
        let bytes = request.encode().unwrap();
        assert!(bytes.len() >= 300);
        let message = Message::from_bytes(&bytes).unwrap();
        assert_eq!((message.xid(), message.secs(), message.chaddr()), (7, 3, &MAC[..]));
        assert!(message.ciaddr().is_unspecified() && !message.flags().broadcast());
        let identifier = DhcpOption::ClientIdentifier(vec![1, 2, 0, 0, 0, 0, 7]);
        assert_eq!(message.opts().get(OptionCode::ClientIdentifier), Some(&identifier));
        assert_eq!(message.opts().get(OptionCode::Hostname), Some(&DhcpOption::Hostname("host".into())));
        let bytes =
            Request { kind: MessageType::Decline, hostname: Some("bad name".into()), ..request }.encode().unwrap();
        let message = Message::from_bytes(&bytes).unwrap();
        assert!(!message.opts().contains(OptionCode::ParameterRequestList));
        assert!(!message.opts().contains(OptionCode::Hostname));
    }

    #[test]
    fn a_bad_option_spoils_no_other_and_parts_are_joined() {
        // A host name that is not UTF-8, a mask that is too short; then what counts, in parts.
        let options =
            [53, 1, 5, 12, 2, 0xff, 0xfe, 1, 3, 255, 255, 255, 6, 2, 192, 0, 0, 6, 2, 2, 53, 51, 4, 0, 0, 1, 0, 255];
        let reply = parse(&reply(&options)).unwrap();
        assert_eq!((reply.kind, reply.xid, reply.mac), (MessageType::Ack, 7, MAC));
        assert!(!reply.options.contains(OptionCode::Hostname) && !reply.options.contains(OptionCode::SubnetMask));
        let servers = DhcpOption::DomainNameServer(vec![Ipv4Addr::new(192, 0, 2, 53)]);
        assert_eq!(reply.options.get(OptionCode::DomainNameServer), Some(&servers));
        assert_eq!(reply.options.get(OptionCode::AddressLeaseTime), Some(&DhcpOption::AddressLeaseTime(256)));
    }

    #[test]
    fn options_in_the_fields_file_and_sname_are_found() {
        let mut bytes = reply(&[53, 1, 2, 52, 1, 3, 255]);
        bytes[108..115].copy_from_slice(&[51, 4, 0, 0, 2, 0, 255]);
        bytes[44..51].copy_from_slice(&[54, 4, 192, 0, 2, 1, 255]);
        let reply = parse(&bytes).unwrap();
        assert_eq!(reply.options.get(OptionCode::AddressLeaseTime), Some(&DhcpOption::AddressLeaseTime(512)));
        assert!(reply.options.contains(OptionCode::ServerIdentifier));
    }

    #[test]
    fn what_is_no_answer_is_passed_over() {
        let good = reply(&[53, 1, 2, 255]);
        assert!(parse(&good).is_some());
        // The client's own kind of message, other hardware, a length that the codec would believe, another magic.
        for (at, value) in [(0, 1), (1, 6), (2, 16), (2, 255), (236, 0)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(parse(&bytes), None, "byte {at} = {value}");
        }
        assert_eq!(parse(&reply(&[])), None);
        assert_eq!(parse(&reply(&[53, 2, 2])), None);
        for length in 0..HEADER {
            assert_eq!(parse(&good[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            options in proptest::collection::vec((0_u8..125, proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
        ) {
            let _ = parse(&bytes);
            let _ = parse(&reply(&bytes));
            let mut list = vec![53, 1, 2];
            for (code, value) in options {
                list.extend([code, u8::try_from(value.len()).unwrap()]);
                list.extend(value);
            }
            let _ = parse(&reply(&list));
        }
    }
}
