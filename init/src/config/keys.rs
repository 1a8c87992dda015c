//! The one table of what `sino.toml` may hold: for reading, for the example file and for `docs/CONFIG.md`.

use super::check::{self, Check};

/// The part of a name that stands for any name: of a bridge, a bond or a VLAN link.
pub const NAME: &str = "NAME";

/// Tables that a coming part will read; nothing in them is looked at.
pub const RESERVED: [&str; 2] = ["guests", "guest"];

/// A table of `sino.toml`.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Dotted name; the part `NAME` is free.
    pub name: &'static str,
    /// What stands for `NAME` in the example file.
    pub sample: &'static str,
    /// What it is about.
    pub help: &'static str,
}

/// A key of `sino.toml`.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted name; the part `NAME` is free.
    pub name: &'static str,
    /// What may be given, for people.
    pub values: &'static str,
    /// What holds when it is not given, for people.
    pub default: &'static str,
    /// A value in TOML for the example file: the default if there is a value that says it, else an example.
    pub sample: &'static str,
    /// What it does.
    pub help: &'static str,
    /// The check of a value that has the right type; `None`: its type says it all.
    pub check: Option<Check>,
}

/// Every table, in the order of the documentation.
pub const SECTIONS: &[Section] = &[
    Section { name: "system", sample: "", help: "Name, time zone and keyboard of the host." },
    Section { name: "network", sample: "", help: "What holds for the whole network." },
    Section {
        name: "network.bridge.NAME",
        sample: "xenbr0",
        help: "A bridge for guests, and the host's addresses on it. xenbr0 is always there; any other exists when its table does.",
    },
    Section {
        name: "network.bond.NAME",
        sample: "bond0",
        help: "Several network cards as one link. A bridge takes it as its port.",
    },
    Section {
        name: "network.vlan.NAME",
        sample: "vlan10",
        help: "A tagged VLAN of a card or bond as a link of its own. A bridge takes it as its port.",
    },
    Section { name: "storage", sample: "", help: "The volume group, and what is used of it." },
    Section { name: "access", sample: "", help: "Who may log in by ssh." },
    Section { name: "boot", sample: "", help: "The boot of stage two." },
];

/// Every key, in the order of the documentation: table by table, as in [`SECTIONS`].
pub const KEYS: &[Key] = &[
    Key {
        name: "system.hostname",
        values: "a host name (RFC 1123), with a domain if wished",
        default: "the name that /srv keeps, else that of a lease, else the image's",
        sample: "\"xen1.example.org\"",
        help: "Name of the host.",
        check: Some(check::host_name),
    },
    Key {
        name: "system.timezone",
        values: "a name below /usr/share/zoneinfo",
        default: "the time zone that /srv keeps, else the image's",
        sample: "\"Europe/Vienna\"",
        help: "Time zone of the host.",
        check: Some(check::time_zone),
    },
    Key {
        name: "system.keyboard",
        values: "an X keyboard layout in small letters",
        default: "the layout that /srv keeps, else the image's",
        sample: "\"de\"",
        help: "Keyboard of the console.",
        check: Some(check::keyboard),
    },
    Key {
        name: "network.managed",
        values: "true | false",
        default: "true",
        sample: "true",
        help: "false: SINO leaves the network to systemd-networkd or ifupdown, keeps their files on /srv and starts them.",
        check: None,
    },
    Key {
        name: "network.dns",
        values: "list of addresses",
        default: "none",
        sample: "[]",
        help: "Name servers, before those that a lease names.",
        check: None,
    },
    Key {
        name: "network.search",
        values: "list of domains",
        default: "none",
        sample: "[]",
        help: "Domains to search for short names, before those that a lease names.",
        check: Some(check::domains),
    },
    Key {
        name: "network.hostname_from_lease",
        values: "true | false",
        default: "true",
        sample: "true",
        help: "Whether the host takes its name from a lease when it is neither configured nor kept on /srv.",
        check: None,
    },
    Key {
        name: "network.bridge.NAME.ports",
        values: "\"auto\" | list of cards, bonds or VLAN links",
        default: "\"auto\" for xenbr0, none for any other",
        sample: "\"auto\"",
        help: "The links in the bridge. auto: the first network card that has a carrier.",
        check: Some(check::ports),
    },
    Key {
        name: "network.bridge.NAME.addresses",
        values: "list of \"dhcp\", \"slaac\", \"ADDRESS/LENGTH\"",
        default: "[\"dhcp\"] for xenbr0, none for any other",
        sample: "[\"dhcp\"]",
        help: "The host's addresses on the bridge, of either family.",
        check: Some(check::addresses),
    },
    Key {
        name: "network.bridge.NAME.gateways",
        values: "list of addresses, at most one of each family",
        default: "none, or what a lease names",
        sample: "[]",
        help: "Default gateways.",
        check: None,
    },
    Key {
        name: "network.bridge.NAME.routes",
        values: "list of \"NETWORK/LENGTH via GATEWAY\"",
        default: "none",
        sample: "[]",
        help: "More routes, such as \"10.0.0.0/8 via 192.0.2.254\".",
        check: Some(check::routes),
    },
    Key {
        name: "network.bridge.NAME.host_vlan",
        values: "1 to 4094",
        default: "untagged",
        sample: "10",
        help: "The host's addresses are on this VLAN of the bridge, tagged; guests stay untagged.",
        check: Some(check::vlan),
    },
    Key {
        name: "network.bridge.NAME.mtu",
        values: "bytes, 1280 to 65535",
        default: "what its ports have",
        sample: "1500",
        help: "Largest packet of the bridge, its ports and what is below them.",
        check: Some(check::mtu),
    },
    Key {
        name: "network.bridge.NAME.mac",
        values: "six pairs of hexadecimal digits with colons",
        default: "that of its first port",
        sample: "\"02:00:00:12:34:56\"",
        help: "MAC address of the bridge.",
        check: Some(check::mac),
    },
    Key {
        name: "network.bond.NAME.ports",
        values: "list of cards",
        default: "none",
        sample: "[\"eno1\", \"eno2\"]",
        help: "The cards in the bond.",
        check: Some(check::links),
    },
    Key {
        name: "network.bond.NAME.mode",
        values: "\"active-backup\" | \"802.3ad\" | \"balance-xor\"",
        default: "\"active-backup\"",
        sample: "\"active-backup\"",
        help: "active-backup: one card works, another takes over. 802.3ad: LACP with the switch. balance-xor: a static trunk of \
               the switch.",
        check: None,
    },
    Key {
        name: "network.vlan.NAME.link",
        values: "a card or bond",
        default: "must be given",
        sample: "\"eno1\"",
        help: "The link that the VLAN is on.",
        check: Some(check::link),
    },
    Key {
        name: "network.vlan.NAME.id",
        values: "1 to 4094",
        default: "must be given",
        sample: "10",
        help: "Number of the VLAN.",
        check: Some(check::vlan),
    },
    Key {
        name: "storage.group",
        values: "a volume group's name (lvm(8))",
        default: "\"xvg\"",
        sample: "\"xvg\"",
        help: "The volume group that SINO uses. Disks of any other are never written to.",
        check: Some(check::volume_group),
    },
    Key {
        name: "storage.srv",
        values: "a logical volume's name (lvm(8))",
        default: "\"xvol\"",
        sample: "\"xvol\"",
        help: "The logical volume that is mounted on /srv.",
        check: Some(check::logical_volume),
    },
    Key {
        name: "storage.swap",
        values: "a logical volume's name (lvm(8))",
        default: "\"swap\"",
        sample: "\"swap\"",
        help: "The logical volume to swap to; also the label of a swap area anywhere in the group.",
        check: Some(check::logical_volume),
    },
    Key {
        name: "storage.swap_priority",
        values: "0 to 32767",
        default: "the kernel's choice",
        sample: "10",
        help: "Priority of the swap; areas of a higher one are used first.",
        check: Some(check::swap_priority),
    },
    Key {
        name: "storage.check",
        values: "true | false",
        default: "true",
        sample: "true",
        help: "Whether the file system of /srv is checked (e2fsck -p) before it is mounted.",
        check: None,
    },
    Key {
        name: "access.ssh_password",
        values: "true | false",
        default: "true only while there are no authorised keys",
        sample: "false",
        help: "Whether a password is enough to log in by ssh.",
        check: None,
    },
    Key {
        name: "access.authorized_keys",
        values: "list of lines of public keys' files",
        default: "none",
        sample: "[]",
        help: "Public keys that may log in as root by ssh, beside those in /root/.ssh/authorized_keys.",
        check: Some(check::authorized_keys),
    },
    Key {
        name: "boot.handover",
        values: "seconds, 0 to 600",
        default: "30",
        sample: "30",
        help: "How long stage two may take; after that Debian takes over whatever is not ready.",
        check: Some(check::handover),
    },
];

impl Key {
    /// The table that it is in.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.name.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Its name without that of its table.
    #[must_use]
    pub fn short(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, short)| short)
    }
}

/// What stands at a path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// A key.
    Key(&'static Key),
    /// A table that holds other tables or keys; `free`: its own name is free.
    Table { free: bool },
    /// Nothing looks at it.
    Reserved,
    /// Nothing that is known.
    Unknown,
}

/// Looks a path up.
pub(crate) fn place(path: &[String]) -> Place {
    if path.first().is_some_and(|first| RESERVED.contains(&first.as_str())) {
        return Place::Reserved;
    }
    let mut found = Place::Unknown;
    for key in KEYS {
        let mut parts = key.name.split('.');
        let mut last = "";
        let matches = path.iter().all(|name| {
            last = parts.next().unwrap_or_default();
            last == NAME || last == name
        });
        if matches {
            match parts.next() {
                None => return Place::Key(key),
                Some(_) => found = Place::Table { free: last == NAME },
            }
        }
    }
    found
}

/// The names that may stand below a path of tables.
pub(crate) fn below(path: &[String]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in KEYS {
        let mut parts = key.name.split('.');
        if path.iter().all(|name| parts.next().is_some_and(|part| part == NAME || part == name)) {
            match parts.next() {
                Some(name) if !names.contains(&name) => names.push(name),
                _ => {}
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::schema::{BondMode, Bridge, Config, Ports};
    use super::*;
    use std::collections::BTreeSet;

    /// A configuration in which no field is left out when it is written.
    fn filled() -> Config {
        let mut config = Config::default();
        config.system.hostname = Some("h".into());
        config.system.timezone = Some("UTC".into());
        config.system.keyboard = Some("us".into());
        let bridge = Bridge {
            ports: Some(Ports::Word("auto".into())),
            addresses: Some(vec![]),
            host_vlan: Some(1),
            mtu: Some(1500),
            mac: Some(String::new()),
            ..Bridge::default()
        };
        config.network.bridge.insert("xenbr0".into(), bridge);
        config.network.bond.insert("bond0".into(), super::super::schema::Bond { ports: vec![], mode: BondMode::Lacp });
        config.network.vlan.insert("vlan1".into(), super::super::schema::Vlan::default());
        config.storage.swap_priority = Some(1);
        config.access.ssh_password = Some(true);
        config
    }

    fn names(table: &toml::Table, prefix: &str, found: &mut BTreeSet<String>) {
        for (name, value) in table {
            let free = ["network.bridge", "network.bond", "network.vlan"].contains(&prefix);
            let name = if free { NAME } else { name };
            let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            match value {
                toml::Value::Table(table) => names(table, &name, found),
                _ => assert!(found.insert(name)),
            }
        }
    }

    #[test]
    fn the_table_has_every_field_of_the_schema_and_nothing_else() {
        let mut found = BTreeSet::new();
        names(&toml::Table::try_from(filled()).unwrap(), "", &mut found);
        assert_eq!(KEYS.iter().map(|key| key.name.to_owned()).collect::<BTreeSet<_>>(), found);
    }

    #[test]
    fn every_key_is_in_a_section_and_they_have_the_same_order() {
        let mut order: Vec<&str> = KEYS.iter().map(Key::section).collect();
        order.dedup();
        assert_eq!(order, SECTIONS.iter().map(|section| section.name).collect::<Vec<_>>());
    }

    #[test]
    fn what_the_table_calls_a_default_is_the_schemas() {
        let defaults = toml::Value::try_from(Config::default()).unwrap();
        for key in KEYS.iter().filter(|key| !key.name.contains(NAME)) {
            let value = key.name.split('.').try_fold(&defaults, |value, name| value.get(name));
            if let Some(value) = value {
                assert_eq!(value.to_string(), key.sample, "{}", key.name);
                assert!(key.default == key.sample || (key.default, key.sample) == ("none", "[]"), "{}", key.name);
            }
        }
    }

    #[test]
    fn paths_lead_to_their_places() {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        assert!(
            matches!(place(&path("network.bridge.x.mtu")), Place::Key(key) if key.name == "network.bridge.NAME.mtu")
        );
        assert!(matches!(place(&path("network.bridge.x")), Place::Table { free: true }));
        assert!(matches!(place(&path("network.bridge")), Place::Table { free: false }));
        assert!(matches!(place(&path("guest.x.memory")), Place::Reserved));
        for unknown in ["network.bridge.x.mtu.y", "netwrk", "network.bridge.x.speed"] {
            assert!(matches!(place(&path(unknown)), Place::Unknown), "{unknown}");
        }
        assert_eq!(below(&path("system")), ["hostname", "timezone", "keyboard"]);
        assert_eq!(below(&[]), ["system", "network", "storage", "access", "boot"]);
    }
}
