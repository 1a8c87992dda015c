//! Network interfaces, in the syntax of xl-network-configuration(5).

use super::Notes;
use super::fields::Fields;

/// The bridge of an interface that names none (`libxl__device_nic_setdefault`).
pub(super) const BRIDGE: &str = "xenbr0";

/// A network interface of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vif {
    /// The bridge that is named.
    pub bridge: Option<String>,
    /// MAC address, with colons, as it is written.
    pub mac: Option<String>,
    /// Addresses that the guest may use, as they are written.
    pub ip: Option<String>,
    /// Script that connects it, if not `vif-bridge`.
    pub script: Option<String>,
    /// `vif` or `ioemu`.
    pub kind: Option<String>,
    /// Model of an emulated card.
    pub model: Option<String>,
    /// Name of it in dom0.
    pub vifname: Option<String>,
    /// The domain that serves it, if not dom0.
    pub backend: Option<String>,
    /// VLAN setting, as it is written.
    pub vlan: Option<String>,
    /// Line in the guest's file.
    pub line: usize,
}

impl Vif {
    /// The bridge that dom0 must have; `None` where its script decides.
    #[must_use]
    pub fn needs_bridge(&self) -> Option<&str> {
        let elsewhere = self.backend.as_deref().is_some_and(|name| !name.is_empty());
        let script = self.script.as_deref().and_then(|script| script.rsplit('/').next());
        match script {
            _ if elsewhere => None,
            None | Some("" | "vif-bridge") => Some(self.bridge.as_deref().unwrap_or(BRIDGE)),
            // Open vSwitch and routes have no bridge of the kernel's.
            Some(_) => None,
        }
    }
}

/// Parameters that xl knows and SINO has no use for; those of COLO begin with `colo_`.
const OTHERS: &[&str] = &["rate", "gatewaydev", "netdev", "forwarddev", "accel", "devid", "mtu"];

/// The interfaces of a guest. What cannot be read is told; xl goes on over it.
pub(super) fn vifs(fields: &Fields<'_>, notes: &mut Notes) -> Vec<Vif> {
    let mut vifs = Vec::new();
    for (text, item) in fields.texts("vif", notes) {
        let (mut vif, wrong) = parse(text);
        vif.line = item.line;
        for wrong in wrong {
            notes.warning(item.line, item.column, "vif", &format!("{wrong} (in {text:?}); xl reads over it"));
        }
        vifs.push(vif);
    }
    vifs
}

fn parse(text: &str) -> (Vif, Vec<String>) {
    let (mut vif, mut wrong) = (Vif::default(), Vec::new());
    for word in text.split(',').filter(|word| !word.is_empty()).map(|word| word.trim_start_matches(' ')) {
        let Some((name, value)) = word.split_once('=') else {
            if !["trusted", "untrusted"].contains(&word) {
                wrong.push(format!("{word:?} is no NAME=VALUE"));
            }
            continue;
        };
        let place = match name {
            "bridge" => &mut vif.bridge,
            "mac" if is_mac(value) => &mut vif.mac,
            "mac" => {
                wrong.push(format!("{value:?} is no MAC address"));
                continue;
            }
            "ip" => &mut vif.ip,
            "script" => &mut vif.script,
            "type" if ["vif", "ioemu"].contains(&value) => &mut vif.kind,
            "type" => {
                wrong.push(format!("{value:?} is neither vif nor ioemu"));
                continue;
            }
            "model" => &mut vif.model,
            "vifname" => &mut vif.vifname,
            "backend" => &mut vif.backend,
            "vlan" => &mut vif.vlan,
            name if OTHERS.contains(&name) || name.starts_with("colo_") => continue,
            name => {
                wrong.push(format!("{name:?} is no parameter that is known"));
                continue;
            }
        };
        *place = Some(value.to_owned());
    }
    (vif, wrong)
}

fn is_mac(text: &str) -> bool {
    let bytes: Vec<_> = text.split([':', '-']).collect();
    bytes.len() == 6 && bytes.iter().all(|byte| u8::from_str_radix(byte, 16).is_ok() && !byte.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_and_what_is_wrong_is_told() {
        let (vif, wrong) = parse(
            "mac=00:16:3E:aa:bb:cc, bridge=xenbr1,ip=10.0.0.1 10.0.0.2,rate=10Mb/s,type=ioemu,model=e1000,trusted",
        );
        assert_eq!(wrong, [""; 0]);
        assert_eq!(vif.mac.as_deref(), Some("00:16:3E:aa:bb:cc"));
        assert_eq!(vif.needs_bridge(), Some("xenbr1"));
        assert_eq!((vif.ip.as_deref(), vif.kind.as_deref()), (Some("10.0.0.1 10.0.0.2"), Some("ioemu")));
        for (text, bridge, told) in [
            ("", Some("xenbr0"), ""),
            (",,", Some("xenbr0"), ""),
            ("script=vif-route", None, ""),
            ("script=/etc/xen/scripts/vif-bridge,bridge=b", Some("b"), ""),
            ("script=vif-openvswitch,bridge=ovs0", None, ""),
            ("bridge=b,backend=net", None, ""),
            ("bridge", Some("xenbr0"), "\"bridge\" is no NAME=VALUE"),
            ("mac=00:16:3e", Some("xenbr0"), "\"00:16:3e\" is no MAC address"),
            ("mac=00:16:3e:00:00:+1", Some("xenbr0"), "\"00:16:3e:00:00:+1\" is no MAC address"),
            ("type=tap", Some("xenbr0"), "\"tap\" is neither vif nor ioemu"),
            ("brigde=b", Some("xenbr0"), "\"brigde\" is no parameter that is known"),
        ] {
            let (vif, wrong) = parse(text);
            assert_eq!((vif.needs_bridge(), wrong.join("; ")), (bridge, told.to_owned()), "{text:?}");
        }
    }
}
