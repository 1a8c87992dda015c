//! `resolv.conf`: the name servers of the configuration, then of the leases, then of routers' announcements.

use super::announced::AnnouncedServer;
use super::plan::{Plan, domain};
use crate::dhcp::lease::Lease;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The resolver asks no more name servers than this. Source: resolv.conf(5), `MAXNS`.
const SERVERS: usize = 3;

/// The name servers and the domains to search, each once, the configuration's first; `announced` is by bridge. What a server on the network says is
/// taken only if it is a domain name.
#[must_use]
pub fn sources(
    plan: &Plan,
    leases: &BTreeMap<String, Lease>,
    announced: &BTreeMap<String, Vec<AnnouncedServer>>,
) -> (Vec<IpAddr>, Vec<String>) {
    let (mut dns, mut search) = (plan.dns.clone(), plan.search.clone());
    for (name, lease) in leases {
        if plan.bridges.get(name).is_some_and(|bridge| bridge.dhcp) {
            dns.extend(lease.dns.iter().copied().map(IpAddr::from));
            search.extend(lease.search.iter().chain(&lease.domain).filter(|name| domain(name)).cloned());
        }
    }
    for (name, servers) in announced {
        if plan.bridges.get(name).is_some_and(|bridge| bridge.slaac) {
            dns.extend(servers.iter().map(|server| IpAddr::from(server.address)));
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
    let mut text =
        "# Written by SINO from sino.toml, leases and routers' announcements; change network.dns there.\n".to_owned();
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
        let server = AnnouncedServer { index: 3, address: "2001:db8::54".parse().unwrap(), until_s: None };
        let announced = BTreeMap::from([("xenbr0".to_owned(), vec![server])]);
        let leases = BTreeMap::from([("xenbr0".to_owned(), lease)]);
        // Only where announcements are asked for.
        assert_eq!(sources(&plan, &leases, &announced).0.len(), 2);
        let mut asking = plan.clone();
        asking.bridges.get_mut("xenbr0").unwrap().slaac = true;
        assert_eq!(sources(&asking, &leases, &announced).0[2].to_string(), "2001:db8::54");
        let (dns, search) = sources(&plan, &leases, &announced);
        let text = text(&dns, &search);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines, ["nameserver 2001:db8::53", "nameserver 192.0.2.53", "search example.org home.arpa"]);
    }
}
