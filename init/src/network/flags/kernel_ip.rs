//! The kernel's `ip=`. Source: kernel `Documentation/admin-guide/nfs/nfsroot.rst`:
//! `CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS0:DNS1:NTP0`, or AUTOCONF alone. IPv6 addresses stand in
//! brackets, a prefix length may stand for the netmask, and `DEVICE:AUTOCONF` is read, too: that is how initramfs programs
//! have widened it.

use super::Said;
use crate::network::plan::{domain, net, valid_name};
use std::net::{IpAddr, Ipv4Addr};

/// Reads the value.
pub(super) fn read(value: &str, warnings: &mut Vec<String>) -> Said {
    let mut said = Said::default();
    let mut warn = |part: &str, why: &str| {
        warnings.push(format!("ip: {:?} {why}", part.escape_default().to_string()));
    };
    let fields = fields(value);
    let field = |number: usize| fields.get(number).map(String::as_str).unwrap_or_default();
    let short = fields.len() == 2 && field(0).parse::<IpAddr>().is_err();
    let whole = fields.len() > 1 && !short;
    let (device, method) = match fields.len() {
        1 => ("", field(0)),
        _ if short => (field(0), field(1)),
        _ => (field(5), field(6)),
    };
    let mut fixed = false;
    match method {
        "dhcp" | "on" | "any" | "both" => said.addresses = Some(vec!["dhcp".to_owned()]),
        "bootp" | "rarp" => {
            warn(method, "is done by DHCP: use dhcp");
            said.addresses = Some(vec!["dhcp".to_owned()]);
        }
        "auto6" | "slaac" => said.addresses = Some(vec!["slaac".to_owned()]),
        "off" | "none" | "static" => {
            fixed = true;
            said.addresses = Some(Vec::new());
        }
        "" if whole => fixed = true,
        // An address alone is a client without anything else.
        _ if fields.len() == 1 && method.parse::<IpAddr>().is_ok() => fixed = true,
        _ => warn(method, "is no way to an address: use dhcp, off, none or slaac"),
    }
    if !device.is_empty() {
        if valid_name(device) {
            said.ports = vec![device.to_owned()];
        } else {
            warn(device, "is no name of a network card");
        }
    }
    if whole || (fields.len() == 1 && fixed) {
        client(&fields, fixed, &mut said, &mut warn);
    }
    said
}

/// The fields of the whole form.
fn client(fields: &[String], fixed: bool, said: &mut Said, warn: &mut dyn FnMut(&str, &str)) {
    let field = |number: usize| fields.get(number).map(String::as_str).unwrap_or_default();
    let (address, gateway, mask, hostname) = (field(0), field(2), field(3), field(4));
    let is_address = address.parse::<IpAddr>().is_ok();
    if fixed && is_address {
        match prefix(mask).map(|prefix| net(&format!("{address}/{prefix}"))) {
            Some(Ok(net)) => said.addresses = Some(vec![net.to_string()]),
            Some(Err(why)) => warn(address, &why),
            None => warn(mask, "is no netmask: use for example 255.255.255.0 or 24"),
        }
    } else if !address.is_empty() && !is_address && !matches!(address, "off" | "none") {
        warn(address, "is no address");
    }
    if !gateway.is_empty() {
        match gateway.parse() {
            Ok(gateway) => said.gateways.push(gateway),
            Err(_) => warn(gateway, "is no gateway's address"),
        }
    }
    if !hostname.is_empty() && hostname.parse::<IpAddr>().is_err() {
        if domain(hostname) {
            said.hostname = Some(hostname.to_owned());
        } else {
            warn(hostname, "is no host name");
        }
    }
    for server in [field(7), field(8)].into_iter().filter(|server| !server.is_empty()) {
        match server.parse() {
            Ok(server) => said.dns.push(server),
            Err(_) => warn(server, "is no name server's address"),
        }
    }
    if !field(9).is_empty() {
        warn(field(9), "is not used: time servers are the userland's affair");
    }
    if fields.len() > 10 {
        warn(field(10), "is one field too many");
    }
}

/// A netmask or a prefix length as a prefix length.
fn prefix(mask: &str) -> Option<u32> {
    if let Ok(mask) = mask.parse::<Ipv4Addr>() {
        let ones = mask.to_bits().leading_ones();
        return (mask.to_bits().count_ones() == ones).then_some(ones);
    }
    mask.parse().ok().filter(|prefix| *prefix <= 128)
}

/// The fields between colons; those in brackets are one field.
fn fields(value: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut bracket = false;
    for character in value.chars() {
        match character {
            '[' => bracket = true,
            ']' => bracket = false,
            ':' if !bracket => fields.push(String::new()),
            other => fields.iter_mut().last().into_iter().for_each(|field| field.push(other)),
        }
    }
    fields
}
