//! Does what the difference says.

use super::difference::{Act, Made};
use crate::netlink::Connection;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Does one thing, and notes in `made` what may be removed later.
///
/// # Errors
/// The kernel refuses; the text names the link and what was tried.
pub(super) fn apply(connection: &mut Connection, act: &Act, made: &mut Made) -> Result<()> {
    match act {
        Act::Create { name, link, mac } => {
            connection.create(name, link, *mac)?;
            made.links.insert(name.clone());
        }
        Act::Delete { link } => {
            connection.delete(link)?;
            made.links.remove(&link.name);
            made.mtus.remove(&link.name);
        }
        Act::Up { link, up } => connection.set_up(link, *up)?,
        Act::Port { link, master: Some((index, name)) } => {
            connection.set_master(link, Some(*index))?;
            made.ports.insert(link.name.clone(), name.clone());
        }
        Act::Port { link, master: None } => {
            connection.set_master(link, None)?;
            made.ports.remove(&link.name);
        }
        Act::Mtu { link, mtu, own } => {
            if link.mtu != *mtu {
                connection.set_mtu(link, *mtu)?;
            }
            if *own {
                made.mtus.insert(link.name.clone(), *mtu);
            } else {
                made.mtus.remove(&link.name);
            }
        }
        Act::Mac { link, mac } => connection.set_mac(link, *mac)?,
        Act::Setting { path, value } => {
            let path = Path::new("/proc/sys/net").join(path);
            fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))?;
        }
        Act::PutAddress { link, address, prefix, lifetime } => {
            connection.put_address(link, *address, *prefix, *lifetime)?;
        }
        Act::DropAddress { link, address } => connection.delete_address(link, address)?,
        Act::AddRoute { link, route, onlink } => connection.add_route(link, route, *onlink)?,
        Act::DropRoute { link, route } => connection.delete_route(link, route)?,
    }
    Ok(())
}
