//! The kernel's flags that stand for keys of `sino.toml`: `ip=` as the kernel knows it, and `sino.net=`. Pure.
//!
//! All of it is about the first bridge. A part that cannot be used is left out with a warning that names it and what is
//! allowed; the rest holds. `sino.net` goes before `ip`.

mod kernel_ip;

use super::plan::{net, valid_name};
use crate::config::schema::FIRST_BRIDGE;
use std::net::IpAddr;
use toml::{Table, Value};

/// Modes of a bond.
const MODES: [&str; 3] = ["active-backup", "802.3ad", "balance-xor"];
/// The bond that `bond=` makes.
const BOND: &str = "bond0";
/// What `sino.net` is made of.
const ALLOWED: &str = "dhcp, slaac, off, ADDRESS/PREFIX, gw=ADDRESS, dns=ADDRESS, port=NAME[+NAME], vlan=ID, \
                       bond=MODE:NAME+NAME, mtu=N";

/// What the flags say, part by part; what is empty was not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    off: bool,
    /// `dhcp`, `slaac`, or addresses; `Some` of none: the host has no address.
    addresses: Option<Vec<String>>,
    gateways: Vec<IpAddr>,
    dns: Vec<IpAddr>,
    ports: Vec<String>,
    vlan: Option<u16>,
    bond: Option<(String, Vec<String>)>,
    mtu: Option<u32>,
    hostname: Option<String>,
}

/// The keys that the flags of a kernel's command line stand for, as a table with `network` and `system`; `None` if there are
/// no such flags. The warnings begin with the flag's name.
#[must_use]
pub fn from_command_line(command_line: &str) -> (Option<Table>, Vec<String>) {
    let mut warnings = Vec::new();
    let values = |name: &str| -> Vec<String> {
        let words = command_line.split_whitespace().map(|word| word.trim_matches('"'));
        words
            .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.replace('"', ""))
            .collect()
    };
    let (kernel, own) = (values("ip"), values("sino.net"));
    if kernel.is_empty() && own.is_empty() {
        return (None, warnings);
    }
    if kernel.len() > 1 {
        warnings.push("ip: given more than once; only the last one holds".to_owned());
    }
    let mut said = kernel.last().map(|value| kernel_ip::read(value, &mut warnings)).unwrap_or_default();
    if !own.is_empty() {
        said = own_flag(&own.join(","), said, &mut warnings);
    }
    (Some(said.table()), warnings)
}

/// `sino.net` on top of what `ip` said.
fn own_flag(value: &str, below: Said, warnings: &mut Vec<String>) -> Said {
    let mut said = Said::default();
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if let Err(why) = own_part(part, &mut said) {
            warnings.push(format!("sino.net: {:?} {why}", part.escape_default().to_string()));
        }
    }
    if said.bond.is_some() && !said.ports.is_empty() {
        warnings.push("sino.net: port= beside bond= is left out: the bond is the port".to_owned());
        said.ports.clear();
    }
    let addressed = said.addresses.is_some();
    Said {
        off: said.off,
        gateways: if addressed || !said.gateways.is_empty() { said.gateways } else { below.gateways },
        addresses: said.addresses.or(below.addresses),
        dns: if said.dns.is_empty() { below.dns } else { said.dns },
        ports: if said.ports.is_empty() && said.bond.is_none() { below.ports } else { said.ports },
        hostname: below.hostname,
        ..said
    }
}

fn own_part(part: &str, said: &mut Said) -> Result<(), String> {
    let address = |value: &str| -> Result<IpAddr, String> {
        value.trim_matches(['[', ']']).parse().map_err(|_| "has no IP address".to_owned())
    };
    match part.split_once('=') {
        None if part == "off" => said.off = true,
        None if matches!(part, "dhcp" | "slaac") => said.addresses.get_or_insert_default().push(part.to_owned()),
        None if part.contains('/') => {
            let net = net(&part.replace(['[', ']'], ""))?;
            said.addresses.get_or_insert_default().push(net.to_string());
        }
        Some(("gw", value)) => said.gateways.push(address(value)?),
        Some(("dns", value)) => said.dns.push(address(value)?),
        Some(("port", value)) => said.ports = names(value)?,
        Some(("vlan", value)) => {
            let id = value.parse().ok().filter(|id| (1..=4094).contains(id));
            said.vlan = Some(id.ok_or("is no VLAN number: use 1 to 4094")?);
        }
        Some(("bond", value)) => {
            let (mode, cards) =
                value.split_once(':').ok_or("has no mode: use for example bond=active-backup:eth0+eth1")?;
            if !MODES.contains(&mode) {
                return Err(format!("has an unknown mode: use {}", MODES.join(", ")));
            }
            said.bond = Some((mode.to_owned(), names(cards)?));
        }
        Some(("mtu", value)) => {
            let mtu = value.parse().ok().filter(|mtu| (1280..=65_535).contains(mtu));
            said.mtu = Some(mtu.ok_or("is no usable MTU: use 1280 to 65535")?);
        }
        _ => return Err(format!("is not known: use {ALLOWED}")),
    }
    Ok(())
}

fn names(value: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = value.split('+').map(str::to_owned).collect();
    match names.iter().find(|name| !valid_name(name)) {
        Some(_) => Err("has a name that no network card can have: use names as `ip link` shows them".to_owned()),
        None => Ok(names),
    }
}

impl Said {
    fn table(self) -> Table {
        let list = |items: &[IpAddr]| Value::Array(items.iter().map(|item| Value::String(item.to_string())).collect());
        let texts = |items: Vec<String>| Value::Array(items.into_iter().map(Value::String).collect());
        let mut network = Table::new();
        let mut bridge = Table::new();
        if self.off {
            network.insert("managed".into(), false.into());
        }
        if let Some(addresses) = self.addresses {
            bridge.insert("addresses".into(), texts(addresses));
            // What a configuration below says of gateways belongs to its addresses.
            bridge.insert("gateways".into(), list(&self.gateways));
        } else if !self.gateways.is_empty() {
            bridge.insert("gateways".into(), list(&self.gateways));
        }
        if let Some((mode, cards)) = self.bond {
            let bond = Table::from_iter([("mode".to_owned(), Value::String(mode)), ("ports".to_owned(), texts(cards))]);
            network.insert("bond".into(), Value::Table(Table::from_iter([(BOND.to_owned(), Value::Table(bond))])));
            bridge.insert("ports".into(), texts(vec![BOND.to_owned()]));
        } else if !self.ports.is_empty() {
            bridge.insert("ports".into(), texts(self.ports));
        }
        if let Some(id) = self.vlan {
            bridge.insert("host_vlan".into(), i64::from(id).into());
        }
        if let Some(mtu) = self.mtu {
            bridge.insert("mtu".into(), i64::from(mtu).into());
        }
        if !self.dns.is_empty() {
            network.insert("dns".into(), list(&self.dns));
        }
        if !bridge.is_empty() {
            let bridges = Table::from_iter([(FIRST_BRIDGE.to_owned(), Value::Table(bridge))]);
            network.insert("bridge".into(), Value::Table(bridges));
        }
        let mut table = Table::new();
        if !network.is_empty() {
            table.insert("network".into(), Value::Table(network));
        }
        if let Some(name) = self.hostname {
            let system = Table::from_iter([("hostname".to_owned(), Value::String(name))]);
            table.insert("system".into(), Value::Table(system));
        }
        table
    }
}

#[cfg(test)]
mod tests;
