//! `resolv.conf`: the name servers of the configuration and then of the leases.

use super::plan::{Plan, domain};
use crate::dhcp::lease::Lease;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The resolver asks no more name servers than this. Source: resolv.conf(5), `MAXNS`.
const SERVERS: usize = 3;

/// The name servers and the domains to search, each once, the configuration's first. What a server on the network says is
/// taken only if it is a domain name.
#[must_use]
pub fn sources(plan: &Plan, leases: &BTreeMap<String, Lease>) -> (Vec<IpAddr>, Vec<String>) {
    let (mut dns, mut search) = (plan.dns.clone(), plan.search.clone());
    for (name, lease) in leases {
        if plan.bridges.get(name).is_some_and(|bridge| bridge.dhcp) {
            dns.extend(lease.dns.iter().copied().map(IpAddr::from));
            search.extend(lease.search.iter().chain(&lease.domain).filter(|name| domain(name)).cloned());
        }
    }
    dns.retain(|server| !server.is_unspecified());
    let mut seen = Vec::new();
    dns.retain(|server| {
        !seen.contains(server) && {
            seen.push(*server);
            true
        }
    });
    let mut seen = Vec::new();
    search.retain(|name| {
        !seen.contains(name) && {
            seen.push(name.clone());
            true
        }
    });
    (dns, search)
}

/// The file's text.
#[must_use]
pub fn text(dns: &[IpAddr], search: &[String]) -> String {
    let mut text = "# Written by SINO from sino.toml and the leases; change network.dns there.\n".to_owned();
    // Writing to a String cannot fail.
    for server in dns.iter().take(SERVERS) {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::Network;

    #[test]
    fn the_configurations_servers_come_first_and_nothing_strange_is_written() {
        let network = Network {
            dns: vec!["2001:db8::53".parse().unwrap()],
            search: vec!["example.org".into()],
            ..Network::default()
        };
        let (plan, _) = Plan::from(&network);
        let mut lease = crate::network::test_lease();
        lease.dns = vec!["192.0.2.53".parse().unwrap(), "192.0.2.53".parse().unwrap(), "0.0.0.0".parse().unwrap()];
        lease.domain = Some("lan\nnameserver 203.0.113.1".into());
        lease.search = vec!["example.org".into(), "home.arpa".into()];
        let (dns, search) = sources(&plan, &[("xenbr0".to_owned(), lease)].into());
        let text = text(&dns, &search);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines, ["nameserver 2001:db8::53", "nameserver 192.0.2.53", "search example.org home.arpa"]);
    }
}
