//! The port of `xenbr0`: the first network card that has a carrier, and never a second one.
//!
//! Waits for link events of the kernel; puts one card into the bridge and ends. The bridge itself and its address belong
//! to the userland's network service.

use anyhow::{Context, Result, bail};
use rustix::fd::AsFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::fs;
use std::path::Path;
use std::process::Command;

/// `RTMGRP_LINK` of `include/uapi/linux/rtnetlink.h`: changes of links.
const LINK_GROUP: u32 = 1;
/// `IFF_UP` of `include/uapi/linux/if.h`.
const UP: u32 = 1;

/// Waits for the first card with a carrier and makes it the port of `bridge`. Returns its name, or the name of the port
/// that the bridge has already.
///
/// # Errors
/// The kernel's link events cannot be had.
pub fn attach(bridge: &str) -> Result<String> {
    let class = Path::new("/sys/class/net");
    // Protocol 0 of netlink is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .context("opening the socket for link events")?;
    bind(&socket, &SocketAddrNetlink::new(0, LINK_GROUP)).context("subscribing to link events")?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let ports: Vec<String> = names(&class.join(bridge).join("brif"));
        if let Some(port) = ports.first() {
            return Ok(port.clone());
        }
        match choose(class) {
            Choice::Port(name) if class.join(bridge).exists() => {
                match ip(&["link", "set", "dev", &name, "master", bridge]) {
                    Ok(()) => return Ok(name),
                    Err(error) => eprintln!("{error:#}; waiting for the next change of a link"),
                }
            }
            Choice::Raise(cards) => {
                for card in cards {
                    if let Err(error) = ip(&["link", "set", "dev", &card, "up"]) {
                        eprintln!("{error:#}");
                    }
                }
            }
            Choice::Port(_) | Choice::Nothing => {}
        }
        // Any message is reason enough to look again; an overrun of the buffer is one, too.
        match recv(socket.as_fd(), &mut buffer[..], RecvFlags::empty()) {
            Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("receiving link events"),
        }
    }
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// This card has a carrier.
    Port(String),
    /// These cards must be up before they can tell whether they have a carrier.
    Raise(Vec<String>),
    /// Wait.
    Nothing,
}

fn choose(class: &Path) -> Choice {
    let cards: Vec<String> = names(class).into_iter().filter(|name| is_card(&class.join(name))).collect();
    let text = |card: &str, attribute: &str| fs::read_to_string(class.join(card).join(attribute)).unwrap_or_default();
    let down = |card: &&String| {
        let flags = text(card, "flags");
        u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).is_ok_and(|flags| flags & UP == 0)
    };
    let lowered: Vec<String> = cards.iter().filter(down).cloned().collect();
    if !lowered.is_empty() {
        return Choice::Raise(lowered);
    }
    cards.into_iter().find(|card| text(card, "carrier").trim() == "1").map_or(Choice::Nothing, Choice::Port)
}

/// Whether it is a wired network card: a device of its own, of Ethernet type (1), not wireless, not a bridge, and not
/// the host's end of a guest's interface.
fn is_card(path: &Path) -> bool {
    let ethernet = fs::read_to_string(path.join("type")).is_ok_and(|kind| kind.trim() == "1");
    let backend = path.join("device/devtype").exists()
        || fs::read_to_string(path.join("device/modalias")).is_ok_and(|alias| alias.trim() == "xen-backend:vif");
    ethernet
        && path.join("device").exists()
        && !path.join("wireless").exists()
        && !path.join("bridge").exists()
        && !backend
}

/// The names in a folder, sorted, so that the choice is the same on every boot.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn ip(arguments: &[&str]) -> Result<()> {
    let line = format!("ip {}", arguments.join(" "));
    let output = Command::new("ip").args(arguments).output().with_context(|| format!("executing {line}"))?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(class: &Path, name: &str, flags: &str, carrier: &str) {
        let path = class.join(name);
        fs::create_dir_all(path.join("device")).unwrap();
        for (file, text) in [("type", "1\n"), ("flags", flags), ("carrier", carrier)] {
            fs::write(path.join(file), text).unwrap();
        }
    }

    #[test]
    fn cards_are_raised_then_the_first_with_a_carrier_is_taken() {
        let class = tempfile::tempdir().unwrap();
        assert_eq!(choose(class.path()), Choice::Nothing);
        card(class.path(), "enp1s0", "0x1002\n", "");
        card(class.path(), "enp2s0", "0x1003\n", "1\n");
        assert_eq!(choose(class.path()), Choice::Raise(vec!["enp1s0".into()]));
        fs::write(class.path().join("enp1s0/flags"), "0x1003\n").unwrap();
        assert_eq!(choose(class.path()), Choice::Port("enp2s0".into()));
        fs::write(class.path().join("enp2s0/carrier"), "0\n").unwrap();
        assert_eq!(choose(class.path()), Choice::Nothing);
    }

    #[test]
    fn bridges_wireless_cards_and_loopback_are_no_cards() {
        let class = tempfile::tempdir().unwrap();
        for (name, extra) in [("xenbr0", "bridge"), ("wlan0", "wireless")] {
            card(class.path(), name, "0x1003\n", "1\n");
            fs::create_dir(class.path().join(name).join(extra)).unwrap();
        }
        fs::create_dir(class.path().join("lo")).unwrap();
        assert_eq!(choose(class.path()), Choice::Nothing);
    }
}
