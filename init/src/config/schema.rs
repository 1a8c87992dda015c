//! The keys of `sino.toml` as types, with the defaults of a host that nobody has configured.

use crate::guests::settings::{Guest, Guests};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The bridge that every host has.
pub const FIRST_BRIDGE: &str = "xenbr0";

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Name, time zone and keyboard of the host.
    pub system: System,
    /// Bridges, what is below them, and the host's addresses.
    pub network: Network,
    /// The volume group and what is used of it.
    pub storage: Storage,
    /// Who may log in.
    pub access: Access,
    /// The boot of stage two.
    pub boot: Boot,
    /// What holds for all guests.
    pub guests: Guests,
    /// What is wanted of single guests, by name.
    pub guest: BTreeMap<String, Guest>,
}

/// Name, time zone and keyboard of the host. What is not given is what is kept on `/srv`, else the image's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct System {
    /// Host name; with a domain after a dot if wished.
    pub hostname: Option<String>,
    /// Time zone, as below `/usr/share/zoneinfo`.
    pub timezone: Option<String>,
    /// X keyboard layout for the console.
    pub keyboard: Option<String>,
}

/// Bridges, what is below them, and the host's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// `false`: SINO leaves all of the network to the administrator's ifupdown or networkd.
    pub managed: bool,
    /// Bridges by name.
    pub bridge: BTreeMap<String, Bridge>,
    /// Bonds by name; a bridge takes one as its port.
    pub bond: BTreeMap<String, Bond>,
    /// VLAN links by name; a bridge takes one as its port.
    pub vlan: BTreeMap<String, Vlan>,
    /// Name servers, before those that a lease names.
    pub dns: Vec<IpAddr>,
    /// Domains to search, before those that a lease names.
    pub search: Vec<String>,
    /// Whether the host takes its name from a lease when it is not configured or kept.
    pub hostname_from_lease: bool,
}

/// A bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bridge {
    /// Its ports: `"auto"` (the first network card with a carrier), or names of cards, bonds or VLAN links. Not given: `"auto"` for
    /// `xenbr0`, none for any other.
    pub ports: Option<Ports>,
    /// The host's addresses on it: `"dhcp"`, `"slaac"`, or an address with its prefix length. Not given: `["dhcp"]` for
    /// `xenbr0`, none for any other.
    pub addresses: Option<Vec<String>>,
    /// Default gateways, one of each family.
    pub gateways: Vec<IpAddr>,
    /// Routes: `"10.0.0.0/8 via 192.0.2.254"`.
    pub routes: Vec<String>,
    /// The host's addresses are on this VLAN of the bridge, tagged (1 to 4094); guests stay untagged.
    pub host_vlan: Option<u16>,
    /// Largest packet in bytes; of the bridge, its ports and what is below them.
    pub mtu: Option<u32>,
    /// MAC address. Not given: its first port's.
    pub mac: Option<String>,
}

/// The ports of a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ports {
    /// A word; `auto` is the only one that is allowed.
    Word(String),
    /// These links.
    Names(Vec<String>),
}

/// A bond.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bond {
    /// The cards in it.
    pub ports: Vec<String>,
    /// How it distributes.
    pub mode: BondMode,
}

/// How a bond distributes what it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BondMode {
    /// One card works, another takes over.
    #[default]
    #[serde(rename = "active-backup")]
    ActiveBackup,
    /// LACP with the switch.
    #[serde(rename = "802.3ad")]
    Lacp,
    /// By addresses; the switch must have a static trunk.
    #[serde(rename = "balance-xor")]
    BalanceXor,
}

/// A VLAN link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vlan {
    /// The card or bond that it is on.
    pub link: String,
    /// VLAN number, 1 to 4094.
    pub id: u16,
}

/// The volume group and what is used of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// The volume group.
    pub group: String,
    /// The logical volume that is mounted on `/srv`.
    pub srv: String,
    /// The logical volume to swap to; also the label of a swap area anywhere in the group.
    pub swap: String,
    /// Priority of the swap, 0 to 32767. Not given: the kernel's choice.
    pub swap_priority: Option<u16>,
    /// Whether the file system of `/srv` is checked (`e2fsck -p`) before it is mounted.
    pub check: bool,
}

/// Who may log in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Whether a password is enough by ssh. Not given: only while there are no authorised keys.
    pub ssh_password: Option<bool>,
    /// Public keys that may log in as root, beside those in `/root/.ssh/authorized_keys`.
    pub authorized_keys: Vec<String>,
}

/// The boot of stage two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Boot {
    /// Seconds after which Debian takes over whatever is not ready.
    pub handover: u32,
}

impl Default for Boot {
    fn default() -> Self {
        Self { handover: 30 }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            managed: true,
            bridge: BTreeMap::from([(FIRST_BRIDGE.to_owned(), Bridge::default())]),
            bond: BTreeMap::new(),
            vlan: BTreeMap::new(),
            dns: Vec::new(),
            search: Vec::new(),
            hostname_from_lease: true,
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { group: "xvg".into(), srv: "xvol".into(), swap: "swap".into(), swap_priority: None, check: true }
    }
}
