//! `network.json`: what is known of the network, for programs, for people, and for a supervisor that is started anew.

use super::announced::AnnouncedServer;
use super::difference::Made;
use crate::dhcp::lease::Lease;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

/// The number of this file's form; a file with another is passed over.
pub const FORMAT: u32 = 1;

/// What is known of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// [`FORMAT`].
    pub format: u32,
    /// `false`: SINO leaves the network alone.
    pub managed: bool,
    /// Bridges by name.
    pub bridges: BTreeMap<String, BridgeState>,
    /// Name servers in use.
    pub dns: Vec<IpAddr>,
    /// Domains to search.
    pub search: Vec<String>,
    /// What is wrong at the moment: values that were left out, links that cannot be made.
    pub warnings: Vec<String>,
    /// What SINO made and may remove.
    pub made: Made,
}

/// What is known of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeState {
    /// Whether it is there and up.
    pub up: bool,
    /// Whether one of its own ports has a carrier; guests' do not count.
    pub carrier: bool,
    /// MAC address.
    pub mac: Option<String>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Its ports but for guests'.
    pub ports: Vec<PortState>,
    /// The link that bears the host's addresses: the bridge itself, or a VLAN link on it.
    pub host_link: String,
    /// The host's addresses but for link-local ones.
    pub addresses: Vec<AddressState>,
    /// Default gateways.
    pub gateways: Vec<IpAddr>,
    /// What DHCP does: the state's name of RFC 2131; none where no lease is asked for.
    pub dhcp: Option<String>,
    /// The lease.
    pub lease: Option<Lease>,
    /// A lease that was granted, and whose address is not in use yet because it is still probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven: Option<Lease>,
    /// Name servers that routers announced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub name_servers: Vec<AnnouncedServer>,
}

/// What is known of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// Name of the link.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Whether it has a carrier.
    pub carrier: bool,
    /// Whether SINO chose it.
    pub automatic: bool,
}

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressState {
    /// With its prefix length: `192.0.2.5/24`.
    pub address: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A lease.
    Dhcp,
    /// The configuration.
    Static,
    /// A router's announcement.
    Slaac,
    /// Somebody else's doing.
    Other,
}

/// Reads the file that an earlier supervisor left; `None` if there is none.
///
/// # Errors
/// It cannot be read, or is of another form.
pub fn read(path: &Path) -> Result<Option<NetworkState>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let state: NetworkState = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    if state.format != FORMAT {
        bail!("{} has form {}, not {FORMAT}", path.display(), state.format);
    }
    Ok(Some(state))
}

/// Writes a file so that a reader sees the old or the new one, never a part.
///
/// # Errors
/// The folder cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let fresh = path.with_extension("new");
    let written = fs::File::create(&fresh).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("writing {}", fresh.display()))?;
    fs::rename(&fresh, path).with_context(|| format!("putting {} in place", path.display()))
}
