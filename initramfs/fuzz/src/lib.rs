//! What several fuzz targets share.

use sino_init::network::plan::{self, Plan, PortRule};
use std::collections::BTreeSet;

/// Lays pieces into an image of `length` zero bytes, so that inputs stay small: a piece is the number of its place (two
/// bytes, in units of 64 bytes, little-endian), its length (one byte, in units of 16 bytes, 1 to 127), and its bytes.
/// Ends at a length of zero, or of more than 127, or where the input ends. Returns the image and what follows the end.
#[must_use]
pub fn sparse(mut input: &[u8], length: usize) -> (Vec<u8>, &[u8]) {
    let mut image = vec![0; length];
    while let Some(([low, high, size @ 1..=127], rest)) = input.split_first_chunk::<3>() {
        let start = usize::from(u16::from_le_bytes([*low, *high])) * 64;
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*size) * 16));
        for (place, byte) in image.iter_mut().skip(start).zip(piece) {
            *place = *byte;
        }
        input = rest;
    }
    (image, input.get(3..).unwrap_or_default())
}

/// The CRC-32 of Ethernet, GPT and LVM, without inversions; bit by bit.
#[must_use]
pub fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0xedb8_8320 })
    })
}

/// Takes bytes from the front of an input; `None` if there are not so many.
pub fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*bytes)
}

/// Whether all that a plan of the network wants can be done, and its warnings can be told.
///
/// # Panics
/// It is not so.
pub fn check_plan(plan: &Plan, warnings: &[String]) {
    for warning in warnings {
        assert!(!warning.chars().any(char::is_control), "for the console: {warning:?}");
    }
    let names: Vec<&String> = plan.bridges.keys().chain(plan.bonds.keys()).chain(plan.vlans.keys()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "two links of one name: {names:?}");
    assert!(plan.bridges.contains_key("xenbr0"), "{names:?}");
    let mut ports = Vec::new();
    for (name, bridge) in &plan.bridges {
        if let PortRule::Named(named) = &bridge.ports {
            ports.extend(named);
        }
        assert!(plan::valid_name(&Plan::host_link(name, bridge)), "{name:?}: {bridge:?}");
        assert!(bridge.host_vlan.is_none_or(|id| (1..=4094).contains(&id)), "{bridge:?}");
        assert!(bridge.mtu.is_none_or(|mtu| (1280..=65_535).contains(&mtu)), "{bridge:?}");
        for address in &bridge.addresses {
            assert_eq!(plan::net(&address.to_string()).as_ref(), Ok(address));
        }
        let nets: BTreeSet<_> = bridge.routes.iter().map(|route| route.to).collect();
        assert_eq!(nets.len(), bridge.routes.len(), "two routes to one net: {bridge:?}");
        for route in &bridge.routes {
            assert_eq!(route.to.base(), route.to);
            assert!(route.gateway.is_none_or(|gateway| gateway.is_ipv4() == route.to.address.is_ipv4()), "{route:?}");
        }
    }
    ports.extend(plan.bonds.values().flat_map(|bond| &bond.ports));
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len(), "a port of two links: {ports:?}");
    for name in names.into_iter().chain(ports).chain(plan.vlans.values().map(|vlan| &vlan.below)) {
        assert!(plan::valid_name(name) && !plan::guest_name(name), "{name:?}");
    }
    assert!(plan.bridges.values().filter(|bridge| bridge.ports == PortRule::Auto).count() <= 1, "{plan:?}");
    assert!(plan.search.iter().all(|domain| plan::domain(domain)), "{plan:?}");
}
