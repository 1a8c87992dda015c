//! The guests that a host is shown and tested with, and the disk with all that is theirs.

use super::boot_sector::boot_sector;
use super::config::{Guest, INITRAMFS, KERNEL, Kind};
use super::disk::{self, Filling, GROUP, Volume};
use super::initramfs::initramfs;
use super::kernel::Kernel;
use crate::cache::{create_folder, remove};
use anyhow::{Context, Result};
use sino_boot::layout;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

/// What a guest may use of the host's memory, in MiB: with 64 xl refuses the kernel, with 80 it runs.
const MEMORY_MIB: u32 = 96;
/// The HVM guest's: its BIOS and one sector.
const HVM_MEMORY_MIB: u32 = 32;
/// Size of a guest's disk in MiB: one extent.
const DISK_MIB: u64 = 4;
/// The port on which the guests answer.
pub const PORT: u16 = 7000;
/// How long a guest may take until it is ready, in seconds: emulated, a PVH guest boots for more than a minute.
const READY_WITHIN: u32 = 400;
/// The folder whose configuration files a host starts without being told more.
pub const AUTOSTART: &str = "/srv/autostart";

/// Two PV guests, a PVH and an HVM guest, with the host's volumes as their disks. `network` is an address of the network of
/// 256 that the host is on; theirs end with 61, 62 and 63.
#[must_use]
pub fn four(network: Ipv4Addr) -> Vec<Guest> {
    let [a, b, c, _] = network.octets();
    let mut last = 60;
    [(Kind::Pv, "alpha"), (Kind::Pv, "beta"), (Kind::Pvh, "gamma"), (Kind::Hvm, "delta")]
        .map(|(kind, name)| {
            last += 1;
            let memory = if kind == Kind::Hvm { HVM_MEMORY_MIB } else { MEMORY_MIB };
            let guest = Guest::new(kind, name, memory).with_disk(&format!("/dev/{GROUP}/{name}"));
            if kind == Kind::Hvm { guest } else { guest.at(Ipv4Addr::new(a, b, c, last), PORT) }
        })
        .into()
}

/// What the host is told of [`four`]: when each is ready, in a different way each, and that beta wants alpha.
#[must_use]
pub fn configuration(network: Ipv4Addr) -> String {
    let [a, b, c, _] = network.octets();
    let ready = [
        ("alpha", format!("ready = \"tcp {a}.{b}.{c}.61:{PORT}\"")),
        ("beta", format!("after = [\"alpha\"]\nready = \"ping {a}.{b}.{c}.62\"")),
        ("gamma", "ready = \"xenstore data/ready=1\"".to_owned()),
        ("delta", "ready = 'console \"guest delta ready\"'".to_owned()),
    ];
    let table = |(name, ready)| format!("[guest.{name}]\n{ready}\nready_timeout = {READY_WITHIN}\n");
    ready.map(table).join("\n")
}

/// What goes onto a disk.
#[derive(Clone, Debug)]
pub struct Content<'a> {
    /// The finished ISO: the guests' kernel and drivers are its own.
    pub iso: &'a Path,
    /// The static program `sino-guest`.
    pub payload: &'a Path,
    /// The guests that the host starts. A volume [`GROUP`]`/NAME` is made for each with a disk.
    pub guests: &'a [Guest],
    /// The host's `sino.toml`.
    pub configuration: &'a str,
    /// More files, by their paths on the host, below `/srv`.
    pub files: &'a [(String, Vec<u8>)],
    /// More volumes.
    pub volumes: &'a [Volume],
    /// Size of `/srv` in MiB.
    pub srv_mib: u64,
}

/// Makes the disk `path` of so many MiB with [`Content`]; what was there is gone.
///
/// # Errors
/// The user is not root, a tool is missing or fails, or there is too little room.
pub fn prepare_disk(path: &Path, mib: u64, content: &Content<'_>) -> Result<()> {
    let (work, srv) = (path.with_extension("work"), path.with_extension("srv"));
    let made = lay_out(&srv, &work, content).and_then(|()| {
        let srv = Filling::Ext4 { label: "srv".into(), folder: srv.clone() };
        let mut volumes = vec![Volume::new("xvol", content.srv_mib, srv), Volume::new("swap", 64, Filling::Swap)];
        for guest in content.guests.iter().filter(|guest| guest.disk.is_some()) {
            let name = &guest.orders.name;
            let filling =
                if guest.kind == Kind::Hvm { Filling::Bytes(boot_sector(name)?.into()) } else { Filling::Empty };
            volumes.push(Volume::new(name, DISK_MIB, filling));
        }
        volumes.extend(content.volumes.iter().cloned());
        disk::prepare(path, mib, &volumes)
    });
    remove(&work)?;
    remove(&srv)?;
    made
}

/// Makes the folder that becomes `/srv`.
fn lay_out(srv: &Path, work: &Path, content: &Content<'_>) -> Result<()> {
    remove(srv)?;
    let kernel = Kernel::of_iso(content.iso, work)?;
    let put = |path: &str, bytes: &[u8]| -> Result<()> {
        let inner = Path::new(path).strip_prefix(layout::SRV).with_context(|| format!("{path} is not on /srv"))?;
        let file = srv.join(inner);
        file.parent().map_or(Ok(()), create_folder)?;
        fs::write(&file, bytes).with_context(|| format!("writing {}", file.display()))
    };
    put(KERNEL, &fs::read(&kernel.file)?)?;
    put(INITRAMFS, &initramfs(&kernel, content.payload)?)?;
    put(layout::SRV_CONFIG, content.configuration.as_bytes())?;
    for guest in content.guests {
        put(&format!("{AUTOSTART}/{}.cfg", guest.orders.name), guest.config().as_bytes())?;
    }
    content.files.iter().try_for_each(|(path, bytes)| put(path, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_that_the_host_is_told_of_exists_once() {
        assert!(configuration(Ipv4Addr::LOCALHOST).contains("ready = 'console \"guest delta ready\"'\n"));
        let network = Ipv4Addr::new(192, 0, 2, 0);
        let told: toml::Table = configuration(network).parse().unwrap();
        let told: Vec<&String> = told["guest"].as_table().unwrap().keys().collect();
        let mut names: Vec<String> = four(network).into_iter().map(|guest| guest.orders.name).collect();
        names.sort();
        assert!(told.into_iter().eq(&names), "{names:?}");
    }

    #[test]
    fn addresses_are_of_the_network_and_no_two_alike() {
        let guests = four(Ipv4Addr::new(10, 0, 2, 0));
        let mut addresses: Vec<Ipv4Addr> =
            guests.iter().filter_map(|guest| guest.orders.address.map(|(address, _)| address)).collect();
        addresses.dedup();
        assert_eq!(addresses.len(), 3);
        assert!(addresses.iter().all(|address| address.to_string().starts_with("10.0.2.6")));
    }
}
