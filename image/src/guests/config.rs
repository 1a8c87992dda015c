//! A guest of ours as data, and its configuration file for xl.
//!
//! Source: xl.cfg(5).

use super::orders::Orders;
use std::fmt::Write as _;

/// Where xenconsoled logs the consoles of PV and PVH guests, and where an HVM guest's serial port goes: `sino guests log` and
/// `ready = console` look there.
pub const CONSOLE_LOGS: &str = "/var/log/xen/console";

/// Where the guests' kernel lies on the host.
pub const KERNEL: &str = "/srv/guests/vmlinuz";
/// Where their initramfs lies.
pub const INITRAMFS: &str = "/srv/guests/initramfs.img";
/// The bridge that their network cards are on.
const BRIDGE: &str = "xenbr0";

/// What Xen offers a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Paravirtual.
    Pv,
    /// Hardware virtualisation without emulated devices.
    Pvh,
    /// A whole PC, with a BIOS that boots [`super::boot_sector`] from the guest's disk.
    Hvm,
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// What Xen offers it.
    pub kind: Kind,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// The block device of the host that is its disk.
    pub disk: Option<String>,
    /// What it is told (an HVM guest knows nothing but its name).
    pub orders: Orders,
}

impl Guest {
    /// A guest that is only ready.
    #[must_use]
    pub fn new(kind: Kind, name: &str, memory_mib: u32) -> Self {
        Self { kind, memory_mib, disk: None, orders: Orders { name: name.to_owned(), ..Orders::default() } }
    }

    /// On the network, with this address (of a network of 256) and TCP port.
    #[must_use]
    pub fn at(mut self, address: std::net::Ipv4Addr, port: u16) -> Self {
        self.orders.address = Some((address, 24));
        self.orders.port = Some(port);
        self
    }

    /// With a disk, on which a PV or PVH guest keeps its record.
    #[must_use]
    pub fn with_disk(mut self, device: &str) -> Self {
        self.disk = Some(device.to_owned());
        self.orders.disk = true;
        self
    }

    /// Its file for xl.
    #[must_use]
    pub fn config(&self) -> String {
        let mut text = format!("name = \"{}\"\nmemory = {}\nvcpus = 1\n", self.orders.name, self.memory_mib);
        let kind = match self.kind {
            Kind::Pv => "pv",
            Kind::Pvh => "pvh",
            Kind::Hvm => "hvm",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "type = \"{kind}\"");
        if self.kind == Kind::Hvm {
            let serial = format!("serial = \"file:{CONSOLE_LOGS}/guest-{}.log\"\n", self.orders.name);
            text.push_str("boot = \"c\"\nacpi = 1\nvnc = 0\nvga = \"none\"\n");
            text.push_str(&serial);
        } else {
            let _ = writeln!(text, "kernel = \"{KERNEL}\"\nramdisk = \"{INITRAMFS}\"");
            let _ = writeln!(text, "extra = \"console=hvc0 quiet sysrq_always_enabled {}\"", self.orders);
        }
        if let Some(device) = &self.disk {
            let drive = if self.kind == Kind::Hvm { "hda" } else { "xvda" };
            let _ = writeln!(text, "disk = [\"phy:{device},{drive},w\"]");
        }
        if let Some((address, _)) = self.orders.address {
            // Xen's own prefix, and an end as singular as the address.
            let [.., second, third, last] = address.octets();
            let _ = writeln!(text, "vif = [\"bridge={BRIDGE},mac=00:16:3e:{second:02x}:{third:02x}:{last:02x}\"]");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_pv_guest_has_kernel_network_and_disk() {
        let guest = Guest::new(Kind::Pv, "alpha", 64).at(Ipv4Addr::new(192, 0, 2, 61), 7).with_disk("/dev/xvg/alpha");
        let text = guest.config();
        for line in [
            "name = \"alpha\"",
            "type = \"pv\"",
            "memory = 64",
            "extra = \"console=hvc0 quiet sysrq_always_enabled guest.name=alpha guest.ip=192.0.2.61/24 guest.port=7 guest.disk\"",
            "disk = [\"phy:/dev/xvg/alpha,xvda,w\"]",
            "vif = [\"bridge=xenbr0,mac=00:16:3e:00:02:3d\"]",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn an_hvm_guest_boots_its_disk_and_speaks_on_its_serial_port() {
        let text = Guest::new(Kind::Hvm, "delta", 32).with_disk("/dev/xvg/delta").config();
        assert!(
            text.contains("serial = \"file:/var/log/xen/console/guest-")
                && text.contains("hda")
                && !text.contains("kernel"),
            "{text}"
        );
    }
}
