//! The one table of what `sino.toml` may hold: for reading, for the example file and for `docs/CONFIG.md`.

mod table;

use super::check::Check;

pub use table::{KEYS, SECTIONS};

/// The part of a name that stands for any name: of a bridge, a bond, a VLAN link or a guest.
pub const NAME: &str = "NAME";

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
    /// Nothing that is known.
    Unknown,
}

/// Looks a path up.
pub(crate) fn place(path: &[String]) -> Place {
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
    use crate::guests::settings::Guest;
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
        config.guests.parallel = Some(2);
        config.guest.insert("g".into(), Guest { config: Some("/g".into()), ..Guest::default() });
        config
    }

    fn names(table: &toml::Table, prefix: &str, found: &mut BTreeSet<String>) {
        for (name, value) in table {
            let free = ["network.bridge", "network.bond", "network.vlan", "guest"].contains(&prefix);
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
    fn what_the_table_calls_a_default_of_a_guest_is_the_schemas() {
        let defaults = toml::Value::try_from(Guest::default()).unwrap();
        for key in KEYS.iter().filter(|key| key.section() == "guest.NAME") {
            if let Some(value) = defaults.get(key.short()) {
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
        assert!(matches!(place(&path("guest.x")), Place::Table { free: true }));
        for unknown in ["network.bridge.x.mtu.y", "netwrk", "guest.x.memory", "network.bridge.x.speed"] {
            assert!(matches!(place(&path(unknown)), Place::Unknown), "{unknown}");
        }
        assert_eq!(below(&path("system")), ["hostname", "timezone", "keyboard"]);
        assert_eq!(below(&[]), ["system", "network", "storage", "access", "boot", "guests", "guest"]);
    }
}
