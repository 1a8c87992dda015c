//! What the value of a key may be, beyond its type.
//!
//! Each function takes a value whose type is right already; it says no more of the network than whether a value has the
//! right form, because what the parts of a network mean together is for its plan to say. Only names that meet without anybody
//! having written them twice are looked for here (`clashes`), so that a file can be corrected before it is used.

use super::schema::Network;
use std::net::IpAddr;
use toml::Value;

/// Why a value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which item of a list, from 0; `None`: the value as a whole.
    pub item: Option<usize>,
    /// What is wrong with it, as the rest of a sentence that begins with the value.
    pub why: &'static str,
}

/// The check of one key.
pub type Check = fn(&Value) -> Result<(), Refused>;

/// What key types of ssh an authorised key may begin with. Source: sshd(8), "`AUTHORIZED_KEYS` FILE FORMAT".
const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// Parts of names that LVM keeps for itself. Source: lvm(8), "VALID NAMES".
const LVM_RESERVED: [&str; 13] = [
    "_cdata", "_cmeta", "_corig", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta",
    "_vdata", "_vorigin",
];

/// A name of a host, with or without a domain.
pub(crate) fn host_name(value: &Value) -> Result<(), Refused> {
    // Linux takes no longer one (gethostname(2), HOST_NAME_MAX).
    let fits = |name: &str| name.len() <= 64 && is_host_name(name);
    one(value, fits, "is not a host name (letters, digits and hyphens, 64 characters at most; RFC 1123)")
}

/// Names of domains.
pub(crate) fn domains(value: &Value) -> Result<(), Refused> {
    each(value, |name| is_host_name(name.strip_suffix('.').unwrap_or(name)), "is not a domain's name")
}

/// A path below the folder of time zones.
pub(crate) fn time_zone(value: &Value) -> Result<(), Refused> {
    let part = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'.'))
    };
    let is_zone = |text: &str| text.len() < 256 && text.split('/').all(part);
    one(value, is_zone, "is not a name below /usr/share/zoneinfo; such as Europe/Vienna")
}

/// A keyboard layout.
pub(crate) fn keyboard(value: &Value) -> Result<(), Refused> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    let is_layout = |text: &str| (1..=64).contains(&text.len()) && text.bytes().all(letter);
    one(value, is_layout, "is not the name of a keyboard layout; such as us, de or fr")
}

/// The name of a volume group.
pub(crate) fn volume_group(value: &Value) -> Result<(), Refused> {
    one(value, is_lvm_name, "is not a name that LVM takes for a volume group (lvm(8), VALID NAMES)")
}

/// The name of a logical volume.
pub(crate) fn logical_volume(value: &Value) -> Result<(), Refused> {
    let is_volume = |name: &str| {
        is_lvm_name(name)
            && !name.starts_with("snapshot")
            && !name.starts_with("pvmove")
            && !LVM_RESERVED.iter().any(|part| name.contains(part))
    };
    one(value, is_volume, "is not a name that LVM takes for a logical volume (lvm(8), VALID NAMES)")
}

/// The priority of a swap area. Source: swapon(2).
pub(crate) fn swap_priority(value: &Value) -> Result<(), Refused> {
    range(value, 0, 32_767)
}

/// Seconds until the hand-over.
pub(crate) fn handover(value: &Value) -> Result<(), Refused> {
    range(value, 0, 600)
}

/// How many guests are created or shut down at the same time.
pub(crate) fn parallel(value: &Value) -> Result<(), Refused> {
    range(value, 1, 256)
}

/// A weight of Xen's schedulers, or 0. Source: xl(1), `sched-credit2`.
pub(crate) fn dom0_weight(value: &Value) -> Result<(), Refused> {
    range(value, 0, 65_535)
}

/// Seconds for stopping all guests: less than ten is not enough for asking them, and no UPS lasts longer than an hour.
pub(crate) fn stop_deadline(value: &Value) -> Result<(), Refused> {
    range(value, 10, 3600)
}

/// A path that does not depend on a current folder.
pub(crate) fn absolute_path(value: &Value) -> Result<(), Refused> {
    let is_path = |text: &str| text.len() > 1 && text.starts_with('/') && !text.chars().any(char::is_control);
    one(value, is_path, "is not an absolute path")
}

/// Names of guests.
pub(crate) fn guests(value: &Value) -> Result<(), Refused> {
    let is_name = |text: &str| (1..=255).contains(&text.len()) && !text.chars().any(char::is_control);
    each(value, is_name, "is not a guest's name")
}

/// The order of a guest: a range that leaves room, and that no arithmetic overflows.
pub(crate) fn order(value: &Value) -> Result<(), Refused> {
    range(value, -1_000_000, 1_000_000)
}

/// Seconds before a guest starts.
pub(crate) fn delay(value: &Value) -> Result<(), Refused> {
    range(value, 0, 3600)
}

/// When a guest is ready; its type says it all, but for characters that no console can show.
pub(crate) fn ready(value: &Value) -> Result<(), Refused> {
    one(value, |text| !text.chars().any(char::is_control), "has control characters")
}

/// Seconds until a guest is late.
pub(crate) fn ready_timeout(value: &Value) -> Result<(), Refused> {
    range(value, 1, 86_400)
}

/// How often a guest is tried again.
pub(crate) fn retries(value: &Value) -> Result<(), Refused> {
    range(value, 0, 100)
}

/// Seconds for shutting a guest down.
pub(crate) fn stop_timeout(value: &Value) -> Result<(), Refused> {
    range(value, 1, 3600)
}

/// How often a guest is started again within an hour.
pub(crate) fn restarts_per_hour(value: &Value) -> Result<(), Refused> {
    range(value, 0, 60)
}

/// The number of a VLAN. Source: IEEE 802.1Q.
pub(crate) fn vlan(value: &Value) -> Result<(), Refused> {
    range(value, 1, 4094)
}

/// The largest packet. Source: RFC 791 for the least.
pub(crate) fn mtu(value: &Value) -> Result<(), Refused> {
    range(value, 1280, 65_535)
}

/// Public keys as lines of `authorized_keys`.
pub(crate) fn authorized_keys(value: &Value) -> Result<(), Refused> {
    let is_key = |line: &str| {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let data = words.next().unwrap_or_default();
        !line.chars().any(char::is_control)
            && KEY_TYPES.contains(&kind)
            && data.len() >= 16
            && data.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
    };
    each(value, is_key, "is not one line of a public key's file, which begins with its type, such as ssh-ed25519")
}

/// The ports of a bridge: the word `auto`, or names of links.
pub(crate) fn ports(value: &Value) -> Result<(), Refused> {
    match value {
        Value::String(_) => one(value, |word| word == "auto", "is not \"auto\", and names of cards stand in a list"),
        _ => links(value),
    }
}

/// Names of links.
pub(crate) fn links(value: &Value) -> Result<(), Refused> {
    each(value, is_link_name, "is not a name that a network link can have (1 to 15 characters)")
}

/// The name of a link.
pub(crate) fn link(value: &Value) -> Result<(), Refused> {
    one(value, is_link_name, "is not a name that a network link can have (1 to 15 characters)")
}

/// Addresses of the host.
pub(crate) fn addresses(value: &Value) -> Result<(), Refused> {
    let is_address = |text: &str| matches!(text, "dhcp" | "slaac") || prefixed(text);
    each(value, is_address, "is not \"dhcp\", \"slaac\", or an address with its prefix length")
}

/// Routes: `NETWORK/LENGTH via GATEWAY`.
pub(crate) fn routes(value: &Value) -> Result<(), Refused> {
    let is_route = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            [network, "via", gateway] => prefixed(network) && gateway.parse::<IpAddr>().is_ok(),
            _ => false,
        }
    };
    each(value, is_route, "is not of the form \"10.0.0.0/8 via 192.0.2.254\"")
}

/// A MAC address.
pub(crate) fn mac(value: &Value) -> Result<(), Refused> {
    let is_pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_mac = |text: &str| text.split(':').count() == 6 && text.split(':').all(is_pair);
    one(value, is_mac, "is not a MAC address; such as 02:00:00:12:34:56")
}

/// The hosts' links in VLANs whose names somebody else has, with what is wrong: the path of the key, and a text.
pub(crate) fn clashes(network: &Network) -> Vec<([String; 4], String)> {
    let mut found = Vec::new();
    for (bridge, settings) in &network.bridge {
        let Some(id) = settings.host_vlan else { continue };
        let link = format!("{bridge}.{id}");
        let others = [
            ("vlan", network.vlan.contains_key(&link)),
            ("bridge", network.bridge.contains_key(&link)),
            ("bond", network.bond.contains_key(&link)),
        ];
        for (kind, _) in others.into_iter().filter(|(_, there)| *there) {
            let path = ["network", "bridge", bridge, "host_vlan"].map(str::to_owned);
            let text = format!(
                "the host's link in this VLAN is called {link}, and so is [network.{kind}.\"{link}\"]; only one of them can be \
                 made, so give the other one another name"
            );
            found.push((path, text));
        }
    }
    found
}

fn one(value: &Value, good: impl Fn(&str) -> bool, why: &'static str) -> Result<(), Refused> {
    match value.as_str() {
        Some(text) if good(text) => Ok(()),
        _ => Err(Refused { item: None, why }),
    }
}

fn each(value: &Value, good: impl Fn(&str) -> bool, why: &'static str) -> Result<(), Refused> {
    let Some(items) = value.as_array() else { return Err(Refused { item: None, why: "is not a list" }) };
    match items.iter().position(|item| !item.as_str().is_some_and(&good)) {
        None => Ok(()),
        item => Err(Refused { item, why }),
    }
}

fn range(value: &Value, least: i64, most: i64) -> Result<(), Refused> {
    match value.as_integer() {
        Some(number) if (least..=most).contains(&number) => Ok(()),
        _ => Err(Refused { item: None, why: "is out of range" }),
    }
}

/// Source: RFC 1123 section 2.1. An address is no name.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label) && name.parse::<IpAddr>().is_err()
}

/// Source: lvm(8), "VALID NAMES"; its library takes names of 127 bytes at most.
fn is_lvm_name(name: &str) -> bool {
    (1..=127).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.starts_with('-')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'_' | b'.' | b'-'))
}

/// What the kernel takes for the name of a link. Source: `dev_valid_name` of Linux.
fn is_link_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control())
}

/// Whether a text is an address with its prefix length.
fn prefixed(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.bytes().all(|byte| byte.is_ascii_digit()) && length.parse::<u8>().is_ok_and(|length| length <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        let table: toml::Table = toml::from_str(&format!("x = {text}")).unwrap();
        table["x"].clone()
    }

    #[test]
    fn good_values_pass_and_bad_ones_do_not() {
        let cases: &[(Check, &[&str], &[&str])] = &[
            (
                host_name,
                &["'h'", "'xen1.example.org'", "'3com'"],
                &["''", "'a_b'", "'-a'", "'a-'", "'a..b'", "'1.2.3.4'"],
            ),
            (domains, &["[]", "['example.org.', 'lan']"], &["['.']", "['a b']", "['']"]),
            (
                time_zone,
                &["'UTC'", "'Etc/GMT+1'", "'America/Argentina/Ushuaia'"],
                &["''", "'/etc/x'", "'a/../b'", "'a//b'", "'a b'"],
            ),
            (keyboard, &["'de'", "'us-intl_2'"], &["''", "'DE'", "'de(x)'", "'de,us'"]),
            (volume_group, &["'xvg'", "'a+b_c.d-e'"], &["''", "'-a'", "'.'", "'..'", "'a b'", "'ä'"]),
            (logical_volume, &["'xvol'"], &["'snapshot'", "'pvmove0'", "'a_rimage_0'", "'-x'"]),
            (swap_priority, &["0", "32767"], &["-1", "32768"]),
            (handover, &["0", "600"], &["-1", "601"]),
            (vlan, &["1", "4094"], &["0", "4095"]),
            (mtu, &["1280", "9000"], &["1279", "65536"]),
            (
                authorized_keys,
                &["[]", "['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@x', 'ssh-rsa AAAAB3NzaC1yc2EAAAADAQ']"],
                &[
                    "['ssh-dss AAAAB3NzaC1kc3MAAACBAJ']",
                    "['ssh-rsa']",
                    "[\"ssh-rsa AAAAB3NzaC1yc2EAAAADAQ x\\nssh-rsa y\"]",
                    "['']",
                ],
            ),
            (ports, &["'auto'", "[]", "['eno1', 'bond0']"], &["'eno1'", "['']", "['a/b']", "['abcdefghijklmnop']"]),
            (
                addresses,
                &["['dhcp', 'slaac', '192.0.2.1/24', '2001:db8::1/64']"],
                &["['192.0.2.1']", "['192.0.2.1/33']", "['static']", "['1.2.3.4/+5']"],
            ),
            (
                routes,
                &["['10.0.0.0/8 via 192.0.2.254', '::/0 via fe80::1']"],
                &["['10.0.0.0/8']", "['10.0.0.0 via 192.0.2.1']"],
            ),
            (parallel, &["1", "256"], &["0", "257"]),
            (stop_deadline, &["10", "3600"], &["9", "3601"]),
            (dom0_weight, &["0", "65535"], &["-1", "65536"]),
            (absolute_path, &["'/srv/a b.cfg'"], &["''", "'/'", "'a.cfg'", "\"/a\\u001b\""]),
            (guests, &["[]", "['a b', 'ä']"], &["['']", "[\"a\\n\"]", "'a'"]),
            (order, &["-1000000", "1000000"], &["-1000001", "1000001"]),
            (delay, &["0", "3600"], &["-1", "3601"]),
            (ready, &["'running'"], &["\"console a\\u001b\""]),
            (ready_timeout, &["1", "86400"], &["0", "86401"]),
            (retries, &["0", "100"], &["-1", "101"]),
            (stop_timeout, &["1", "3600"], &["0", "3601"]),
            (restarts_per_hour, &["0", "60"], &["-1", "61"]),
            (mac, &["'02:00:00:aB:cd:ef'"], &["'02:00:00:ab:cd'", "'02-00-00-ab-cd-ef'", "'02:00:00:ab:cd:eg'"]),
        ];
        for (index, (check, good, bad)) in cases.iter().enumerate() {
            for text in *good {
                assert_eq!(check(&value(text)), Ok(()), "{index}: {text}");
            }
            for text in *bad {
                assert!(check(&value(text)).is_err(), "{index}: {text}");
            }
        }
    }

    #[test]
    fn a_name_that_two_links_would_have_is_told() {
        let clashes = |text: &str| {
            let network: Network = toml::from_str(text).unwrap();
            super::clashes(&network)
                .into_iter()
                .map(|(path, text)| format!("{}: {text}", path.join(".")))
                .collect::<Vec<_>>()
        };
        assert_eq!(clashes("[bridge.xenbr0]\nhost_vlan = 10\n[vlan.'xenbr0.11']\nlink = 'eno1'\nid = 11"), [""; 0]);
        for kind in ["vlan", "bridge", "bond"] {
            let found = clashes(&format!("[bridge.xenbr0]\nhost_vlan = 10\n[{kind}.'xenbr0.10']"));
            assert_eq!(found.len(), 1, "{found:?}");
            let wanted = format!("and so is [network.{kind}.\"xenbr0.10\"]");
            assert!(
                found[0].starts_with("network.bridge.xenbr0.host_vlan: ") && found[0].contains(&wanted),
                "{found:?}"
            );
        }
    }

    #[test]
    fn the_item_that_is_wrong_is_told() {
        assert_eq!(links(&value("['a', 'b', 'c d']")).unwrap_err().item, Some(2));
    }
}
