//! Name servers that routers announce by IPv6 (RFC 8106). The kernel passes them on and keeps none of them, so that their
//! time is counted here.

use crate::netlink::Announcement;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// Servers that are kept of each link: more than the resolver uses, and few enough that a flood of announcements does no
/// harm.
const MOST: usize = 8;

/// A name server that a router announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedServer {
    /// Number of the link.
    pub index: u32,
    /// Its address.
    pub address: Ipv6Addr,
    /// Until when it may be used, in seconds of `CLOCK_BOOTTIME`; `None`: for ever.
    pub until_s: Option<u64>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct AnnouncedServers(BTreeMap<u32, Vec<AnnouncedServer>>);

impl AnnouncedServers {
    /// Those that an earlier engine knew of.
    pub(super) fn take_over(&mut self, known: impl IntoIterator<Item = AnnouncedServer>) {
        for server in known {
            self.0.entry(server.index).or_default().push(server);
        }
    }

    /// Takes an announcement in. Returns whether there are other servers now; a longer time alone is no news.
    pub(super) fn hear(&mut self, announcement: &Announcement, now_s: u64) -> bool {
        let servers = self.0.entry(announcement.index).or_default();
        let before = servers.len();
        let mut changed = false;
        for &address in announcement.servers.iter().filter(|address| usable(address)) {
            let until_s = announcement.lifetime_s.map(|seconds| now_s.saturating_add(seconds.into()));
            if announcement.lifetime_s == Some(0) {
                servers.retain(|server| server.address != address);
            } else if let Some(known) = servers.iter_mut().find(|server| server.address == address) {
                known.until_s = until_s;
            } else if servers.len() < MOST {
                servers.push(AnnouncedServer { index: announcement.index, address, until_s });
                changed = true;
            }
        }
        changed || servers.len() != before
    }

    /// Forgets those whose time is over.
    pub(super) fn forget_old(&mut self, now_s: u64) {
        for servers in self.0.values_mut() {
            servers.retain(|server| server.until_s.is_none_or(|until| until > now_s));
        }
        self.0.retain(|_, servers| !servers.is_empty());
    }

    /// Those of one link, in the order in which they came.
    pub(super) fn of(&self, index: u32) -> &[AnnouncedServer] {
        self.0.get(&index).map(Vec::as_slice).unwrap_or_default()
    }

    /// When the next one's time is over, in seconds of `CLOCK_BOOTTIME`.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.0.values().flatten().filter_map(|server| server.until_s).min()
    }
}

/// A link-local server would need its link's name beside its address, which `resolv.conf` has room for and
/// `network.json` has not.
fn usable(address: &Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_servers_are_used_for_their_time() {
        let mut known = AnnouncedServers::default();
        let say = |servers: &[&str], lifetime_s| Announcement {
            index: 7,
            servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            lifetime_s,
        };
        let seen = |known: &AnnouncedServers| -> Vec<String> {
            known.of(7).iter().map(|server| server.address.to_string()).collect()
        };
        assert!(known.hear(&say(&["2001:db8::1", "fe80::1", "ff02::1", "::", "::1", "2001:db8::2"], Some(60)), 100));
        assert_eq!((seen(&known), known.next_end()), (vec!["2001:db8::1".into(), "2001:db8::2".into()], Some(160)));
        // Again, for longer: no news, but they stay longer.
        assert!(!known.hear(&say(&["2001:db8::1"], Some(90)), 100));
        known.forget_old(160);
        assert_eq!((seen(&known), known.next_end()), (vec!["2001:db8::1".into()], Some(190)));
        // A router takes it back; another is for ever.
        assert!(known.hear(&say(&["2001:db8::1"], Some(0)), 170));
        assert!(known.hear(&say(&["2001:db8::3"], None), 170));
        assert_eq!((seen(&known), known.next_end(), known.of(8).len()), (vec!["2001:db8::3".into()], None, 0));
        // A flood.
        for number in 0..1000 {
            known.hear(&say(&[&format!("2001:db8:1::{number:x}")], Some(u32::MAX)), u64::MAX);
        }
        assert_eq!(known.of(7).len(), MOST);
        let mut other = AnnouncedServers::default();
        other.take_over(known.of(7).to_vec());
        assert_eq!(seen(&other), seen(&known));
    }
}
