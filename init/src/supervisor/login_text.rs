//! The supervisor's lines of the text above the login: the host's addresses, `/srv`, and what needs attention.

use super::running_guests;
use crate::network::state::{BridgeState, NetworkState, Origin};
use crate::storage::srv::State;
use crate::storage::state::StorageState;
use anyhow::{Context, Result};
use sino_boot::record::BootRecord;
use sino_boot::{issue, layout};
use std::path::Path;

/// Longest text that is broken into such lines.
const LONGEST: usize = 400;

/// The lines.
#[must_use]
pub fn render(
    network: Option<&NetworkState>,
    storage: Option<&StorageState>,
    guests: Option<&[String]>,
    warnings: &[String],
) -> String {
    let mut text = String::new();
    for line in network.map(network_lines).unwrap_or_default() {
        add(&mut text, &line);
    }
    if let Some(storage) = storage {
        add(&mut text, &storage_line(storage));
    }
    if let Some(names) = guests {
        add(&mut text, &running_guests::line(names));
    }
    for warning in warnings {
        add(&mut text, warning);
    }
    text
}

/// One line for each bridge that has, or should have, an address of the host.
#[must_use]
pub fn network_lines(network: &NetworkState) -> Vec<String> {
    if !network.managed {
        return vec!["The network is not SINO's (network.managed = false).".to_owned()];
    }
    network.bridges.iter().filter_map(|(name, bridge)| bridge_line(name, bridge)).collect()
}

fn bridge_line(name: &str, bridge: &BridgeState) -> Option<String> {
    let ports: Vec<&str> = bridge.ports.iter().map(|port| port.name.as_str()).collect();
    let place = if ports.is_empty() { name.to_owned() } else { format!("{name} ({})", ports.join(", ")) };
    let addresses: Vec<String> = bridge
        .addresses
        .iter()
        .map(|address| match address.origin {
            Origin::Dhcp => format!("{} by DHCP", address.address),
            Origin::Slaac => format!("{} by SLAAC", address.address),
            Origin::Static | Origin::Other => address.address.clone(),
        })
        .collect();
    if !addresses.is_empty() {
        return Some(format!("{place}: {}", addresses.join(", ")));
    }
    let wanted = bridge.dhcp.as_ref()?;
    Some(if ports.is_empty() {
        format!("{place}: no address yet: no network card has a carrier; is the cable in?")
    } else if bridge.carrier {
        format!("{place}: no address yet: DHCP is {wanted}, and goes on asking")
    } else {
        format!("{place}: no address yet: no carrier; is the cable in?")
    })
}

/// What is to be said of `/srv`.
#[must_use]
pub fn storage_line(storage: &StorageState) -> String {
    match storage.srv.state {
        State::Mounted => format!("{} is mounted from {}.", layout::SRV, storage.srv.device),
        State::ReadOnly => format!("{} IS READ-ONLY: see \"srv status\".", layout::SRV),
        State::Absent => {
            format!("No {}: nothing is kept until \"sino disk prepare\" has set up a disk.", storage.srv.device)
        }
        State::Stopped => format!("{} was unmounted by \"srv stop\"; \"srv start\" mounts it.", layout::SRV),
        State::Failed => format!("{} IS NOT MOUNTED: see \"srv status\".", layout::SRV),
    }
}

fn add(text: &mut String, line: &str) {
    let plain: String = line.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    text.push_str(&issue::fold(&plain));
    text.push('\n');
}

/// Puts the lines in place, and has the login prompts show them.
///
/// # Errors
/// A file in `/run/sino` cannot be read or written.
pub fn show(lines: &str) -> Result<()> {
    let new = format!("{}.new", layout::ISSUE_LINES);
    std::fs::write(&new, lines).with_context(|| format!("writing {new}"))?;
    std::fs::rename(&new, layout::ISSUE_LINES).with_context(|| format!("renaming {new}"))?;
    issue::save(&BootRecord::load(Path::new(layout::BOOT_RECORD))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::state::{AddressState, PortState};

    #[test]
    fn the_address_or_the_reason_why_there_is_none_is_shown() {
        let mut network = NetworkState { managed: true, ..NetworkState::default() };
        let mut bridge = BridgeState { dhcp: Some("selecting".into()), ..BridgeState::default() };
        let line = |bridge: &BridgeState, network: &mut NetworkState| {
            network.bridges.insert("xenbr0".into(), bridge.clone());
            render(Some(network), None, None, &[])
        };
        assert!(line(&bridge, &mut network).contains("xenbr0: no address yet: no network card has a carrier"));
        bridge.ports.push(PortState { name: "enp1s0".into(), ..PortState::default() });
        bridge.carrier = true;
        assert!(line(&bridge, &mut network).contains("xenbr0 (enp1s0): no address yet: DHCP is selecting"));
        bridge.addresses.push(AddressState { address: "192.0.2.5/24".into(), origin: Origin::Dhcp });
        assert_eq!(line(&bridge, &mut network), "xenbr0 (enp1s0): 192.0.2.5/24 by DHCP\n");
    }

    #[test]
    fn control_characters_and_long_lines_do_not_reach_the_console() {
        let text = render(None, None, Some(&[]), &[format!("\u{1b}[2J{}", "many words ".repeat(99))]);
        assert!(!text.contains('\u{1b}') && text.len() < 2 * LONGEST, "{text}");
        assert!(text.lines().count() > 3 && text.lines().all(|line| line.chars().count() < 80), "{text}");
    }
}
