//! The layers on the host: reading each, and one configuration out of all.

use super::check;
use super::origins::{Layer, Lines, Origin, Problem, Severity, clean, dotted, quoted};
use super::reading::{Given, Reading, failed, read};
use super::schema::{Config, FIRST_BRIDGE};
use serde::{Deserialize, Serialize};
use sino_boot::{layout, options};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use toml::Value;

/// Largest file that is read, in bytes: a thousand times what a host needs, and nothing to memory.
const LARGEST: u64 = 256 << 10;

/// A table of TOML from another flag, and that flag as it was given.
pub type Extra = (toml::Table, String);

/// The configuration that holds, and how it came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// Where each value came from, by dotted key; what is not here is the default.
    pub origins: BTreeMap<String, Origin>,
    /// What of the layers could not be used, lowest layer first.
    pub problems: Vec<Problem>,
}

/// The layers of the configuration: image, stick, `/srv`, kernel flags.
#[derive(Clone, Copy, Debug)]
pub struct Layers;

impl Layers {
    /// Reads the layers below the folder `root` (`/`, or a test's) and merges them. Tables merge key by key; a list or a
    /// single value replaces that of the layer below. `with_srv`: whether `/srv` is mounted and its layer is to be read.
    /// `extra`: what other flags of the command line mean as tables; `sino.handover` and `sino.set` stand above it.
    ///
    /// It cannot fail: what cannot be used is a problem, and the rest holds.
    #[must_use]
    pub fn load(root: &Path, command_line: &str, with_srv: bool, extra: Vec<Extra>) -> Loaded {
        let mut merged = Merged::default();
        let srv = with_srv.then_some((Layer::Srv, layout::SRV_CONFIG));
        let files = [(Layer::Image, layout::IMAGE_CONFIG), (Layer::Stick, layout::STICK_CONFIG)];
        for (layer, path) in files.into_iter().chain(srv) {
            merged.add(read_file(&root.join(path.trim_start_matches('/')), layer).unwrap_or_default());
        }
        for (table, flag) in extra {
            merged.add(match toml::to_string(&table) {
                Ok(text) => read(&text, Layer::Flags, &flag, true),
                Err(error) => failed(&flag, &format!("cannot be used: {error}")),
            });
        }
        let (flags, _) = options::parse(command_line);
        if let Some(seconds) = flags.handover {
            let text = format!("boot.handover = {seconds}");
            merged.add(read(&text, Layer::Flags, &format!("sino.handover={seconds}"), true));
        }
        for assignment in &flags.set {
            merged.add(set(assignment));
        }
        merged.finish()
    }
}

/// Reads one file as a layer; `None` if there is none. A file that cannot be read, is too large or is not UTF-8 is a
/// problem and gives nothing.
#[must_use]
pub fn read_file(path: &Path, layer: Layer) -> Option<Reading> {
    let name = path.display().to_string();
    let skipped = |text: &str| Some(failed(&name, &format!("{text}; nothing of this file is used")));
    let missing = |error: &std::io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    // Looked at before it is opened: opening a pipe would wait for somebody who writes to it.
    match fs::metadata(path) {
        Err(error) if missing(&error) && fs::symlink_metadata(path).is_ok() => return skipped("is a link to nothing"),
        Err(error) if missing(&error) => return None,
        Err(error) => return skipped(&format!("cannot be read: {error}")),
        Ok(metadata) if metadata.is_dir() => return skipped("is a folder; remove it and put a file in its place"),
        Ok(metadata) if !metadata.is_file() => return skipped("is not a file; put a file in its place"),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    if let Err(error) = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)) {
        return skipped(&format!("cannot be read: {error}"));
    }
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST) {
        return skipped(&format!("is larger than {} KiB, so it is no sino.toml", LARGEST >> 10));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Some(read(text, layer, &name, false)),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).map(String::from_utf8_lossy).unwrap_or_default();
            let (line, column) = Lines::new(&good).locate(good.len());
            let mut reading = skipped("is not UTF-8 text from here on; save it as UTF-8")?;
            for problem in &mut reading.problems {
                (problem.line, problem.column) = (line, column);
            }
            Some(reading)
        }
    }
}

/// `KEY=VALUE` of the flag `sino.set`: the value is TOML, or else a text.
fn set(assignment: &str) -> Reading {
    let flag = format!("sino.set={assignment}");
    let (key, value) = assignment.split_once('=').unwrap_or((assignment, ""));
    let as_toml = read(&format!("{key} = {value}"), Layer::Flags, &flag, true);
    if as_toml.problems.is_empty() {
        return as_toml;
    }
    // A host may be called "true", and a name needs no quotes of which the shell of a boot menu would eat half.
    let as_text = read(&format!("{key} = {}", quoted(value)), Layer::Flags, &flag, true);
    let is_toml = toml::from_str::<toml::Table>(&format!("x = {value}")).is_ok();
    if as_text.problems.is_empty() || !is_toml { as_text } else { as_toml }
}

/// The layers that were added so far, lowest first.
#[derive(Debug, Default)]
pub struct Merged {
    given: BTreeMap<Vec<String>, Given>,
    problems: Vec<Problem>,
}

impl Merged {
    /// Puts a layer on top.
    pub fn add(&mut self, reading: Reading) {
        self.given.extend(reading.given.into_iter().map(|given| (given.path.clone(), given)));
        self.problems.extend(reading.problems);
    }

    /// The configuration of all that was added.
    #[must_use]
    pub fn finish(mut self) -> Loaded {
        let mut root = toml::Table::new();
        let mut origins = BTreeMap::new();
        // A table of the layers that names another bridge must not take away the one that every host has.
        let first = ["network", "bridge", FIRST_BRIDGE].map(str::to_owned);
        insert(&mut root, &first, Value::Table(toml::Table::new()));
        for (path, given) in self.given {
            if !given.value.is_table() {
                origins.insert(dotted(&path), given.origin);
            }
            insert(&mut root, &path, given.value);
        }
        let config = Config::deserialize(Value::Table(root)).unwrap_or_else(|error| {
            let text =
                format!("the layers do not make a configuration (a defect of SINO's own): {error}; all defaults hold");
            self.problems.extend(failed("sino.toml", &text).problems);
            origins.clear();
            Config::default()
        });
        for (path, text) in check::clashes(&config.network) {
            let key = dotted(&path);
            let origin = origins.get(&key);
            self.problems.push(Problem {
                severity: Severity::Warning,
                file: origin.map_or_else(|| "sino.toml".to_owned(), |origin: &Origin| origin.file.clone()),
                line: origin.map_or(0, |origin| origin.line),
                column: usize::from(origin.is_some_and(|origin| origin.line > 0)),
                key: clean(&key, 200),
                text: clean(&text, 500),
            });
        }
        Loaded { config, origins, problems: self.problems }
    }
}

/// Puts a value where its path leads; a table that is there already stays as it is.
fn insert(table: &mut toml::Table, path: &[String], value: Value) {
    let Some((name, below)) = path.split_first() else { return };
    if below.is_empty() && !value.is_table() {
        table.insert(name.clone(), value);
        return;
    }
    let entry = table.entry(name.clone()).or_insert_with(|| Value::Table(toml::Table::new()));
    if let Value::Table(inner) = entry {
        insert(inner, below, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::Ports;
    use super::*;
    use proptest::prelude::*;

    fn host(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        root
    }

    fn flags(command_line: &str) -> Loaded {
        Layers::load(host(&[]).path(), command_line, true, Vec::new())
    }

    #[test]
    fn a_host_that_nobody_configured_has_the_defaults() {
        assert_eq!(flags("quiet sino.ram"), Loaded::default());
    }

    #[test]
    fn a_higher_layer_replaces_values_and_adds_to_tables() {
        let root = host(&[
            (layout::IMAGE_CONFIG, b"[system]\nhostname = 'image'\ntimezone = 'UTC'\nkeyboard = 'us'\n[network]\ndns = ['192.0.2.1', '192.0.2.2']\n"),
            (layout::STICK_CONFIG, b"[system]\nhostname = 'stick'\ntimezone = 'Europe/Vienna'\n[network.bridge.xenbr1]\nmtu = 9000\n"),
            (layout::SRV_CONFIG, b"[system]\nhostname = 'srv'\n[network]\ndns = ['192.0.2.3']\n[network.bridge.xenbr1]\nports = ['eno2']\n"),
        ]);
        let loaded = Layers::load(root.path(), "sino.handover=7", true, Vec::new());
        assert_eq!(loaded.problems, []);
        let system = &loaded.config.system;
        let seen = [&system.hostname, &system.timezone, &system.keyboard].map(|text| text.as_deref().unwrap());
        assert_eq!(seen, ["srv", "Europe/Vienna", "us"]);
        assert_eq!(loaded.config.network.dns, ["192.0.2.3".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(loaded.config.network.bridge.keys().collect::<Vec<_>>(), ["xenbr0", "xenbr1"]);
        let bridge = &loaded.config.network.bridge["xenbr1"];
        assert_eq!((bridge.mtu, bridge.ports.clone()), (Some(9000), Some(Ports::Names(vec!["eno2".into()]))));
        assert_eq!(loaded.config.boot.handover, 7);
        let origin = |key: &str| loaded.origins[key].to_string().replace(root.path().to_str().unwrap(), "");
        assert_eq!(origin("system.hostname"), "srv /srv/sino/sino.toml:2");
        assert_eq!(origin("system.timezone"), "stick /run/sino/stick/sino.toml:3");
        assert_eq!(origin("network.bridge.xenbr1.mtu"), "stick /run/sino/stick/sino.toml:5");
        assert_eq!(origin("boot.handover"), "flag sino.handover=7");
        assert!(!loaded.origins.contains_key("storage.group"));

        let without = Layers::load(root.path(), "", false, Vec::new());
        assert_eq!(without.config.system.hostname.as_deref(), Some("stick"));
    }

    #[test]
    fn names_that_meet_across_layers_are_a_warning() {
        let root = host(&[
            (layout::STICK_CONFIG, b"[network.vlan.'xenbr0.10']\nlink = 'eno1'\nid = 10\n"),
            (layout::SRV_CONFIG, b"[network.bridge.xenbr0]\nhost_vlan = 10\n"),
        ]);
        let loaded = Layers::load(root.path(), "", true, Vec::new());
        let problem = loaded.problems[0].to_string().replace(root.path().to_str().unwrap(), "");
        let wanted = "/srv/sino/sino.toml:2:1: network.bridge.xenbr0.host_vlan: warning: the host's link";
        assert!(loaded.problems.len() == 1 && problem.starts_with(wanted), "{problem}");
    }

    #[test]
    fn a_layer_that_cannot_be_read_is_left_out_and_the_others_hold() {
        let cases: [(&[u8], &str); 4] = [
            (b"[boot]\nhandover = 5\nx = [", ":4"),
            (b"[boot]\nhandover = 5\n# \xff\xfe", ":3:3: is not UTF-8"),
            (b"\xff\xfe[\0b\0", ":1:1: is not UTF-8"),
            (&vec![b'#'; 300 << 10], ": is larger than 256 KiB"),
        ];
        for (bytes, expected) in cases {
            let root = host(&[(layout::IMAGE_CONFIG, b"[boot]\nhandover = 9\n"), (layout::SRV_CONFIG, bytes)]);
            let loaded = Layers::load(root.path(), "", true, Vec::new());
            assert_eq!((loaded.config.boot.handover, loaded.problems.len()), (9, 1));
            let problem = loaded.problems[0].to_string();
            let wanted = format!("/srv/sino/sino.toml{}", expected.trim_end_matches(":4"));
            assert!(problem.contains(&wanted) && problem.contains("nothing of this file is used"), "{problem}");
        }
    }

    #[test]
    fn a_folder_a_pipe_and_a_link_to_nothing_are_no_layers() {
        let root = host(&[]);
        let path = root.path().join("x");
        assert_eq!(read_file(&path, Layer::Srv), None);
        assert_eq!(read_file(&path.join("y"), Layer::Srv), None);
        let problem = || read_file(&path, Layer::Srv).unwrap().problems[0].to_string();
        fs::create_dir(&path).unwrap();
        assert!(problem().contains("is a folder"), "{}", problem());
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(problem().contains("is a link to nothing"), "{}", problem());
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(problem().contains("is not a file"), "{}", problem());
    }

    #[test]
    fn flags_set_any_key_as_toml_or_as_text() {
        let loaded = flags(
            "sino.set=system.hostname=2001 sino.set=system.timezone=UTC sino.set=network.dns=['192.0.2.1'] \
             sino.set=network.vlan.'eno1.5'.id=5 sino.set=boot.handover=8 sino.handover=9 sino.set=storage.check=false \
             sino.set=system.hostname=h2 sino.set=system.keyboard='de'",
        );
        assert_eq!(loaded.problems, []);
        let config = &loaded.config;
        assert_eq!(config.system.hostname.as_deref(), Some("h2"));
        assert_eq!(config.system.keyboard.as_deref(), Some("de"));
        assert_eq!((config.network.dns.len(), config.network.vlan["eno1.5"].id), (1, 5));
        assert_eq!((config.boot.handover, config.storage.check), (8, false));
        assert_eq!(loaded.origins["system.hostname"].to_string(), "flag sino.set=system.hostname=h2");
        assert_eq!(flags("sino.set=system.hostname=2001").config.system.hostname.as_deref(), Some("2001"));
    }

    #[test]
    fn flags_that_cannot_be_used_are_told_as_they_were_given() {
        for (flag, expected) in [
            ("sino.set=boot.handover=601", "sino.set=boot.handover=601: boot.handover: 601 is out of range"),
            (
                "sino.set=boot.handover=soon",
                "sino.set=boot.handover=soon: boot.handover: \"soon\" is of the wrong kind",
            ),
            ("sino.set=boot.hand=5", "sino.set=boot.hand=5: boot.hand: warning: is not known"),
            ("sino.set=[boot=5", "sino.set=[boot=5: is not TOML"),
            ("sino.set=network.dns=192.0.2.1", "sino.set=network.dns=192.0.2.1: network.dns: \"192.0.2.1\" is of the"),
        ] {
            let loaded = flags(flag);
            assert_eq!(loaded.config, Config::default(), "{flag}");
            assert!(loaded.problems.len() == 1 && loaded.problems[0].to_string().starts_with(expected), "{loaded:#?}");
        }
    }

    #[test]
    fn tables_of_other_flags_stand_above_the_files_and_below_sino_set() {
        let root = host(&[(layout::IMAGE_CONFIG, b"[network.bridge.xenbr0]\naddresses = ['dhcp']\nmtu = 1500\n")]);
        let table: toml::Table =
            toml::from_str("[network.bridge.xenbr0]\naddresses = ['192.0.2.9/24']\nmtu = 1400\nspeed = 1").unwrap();
        let extra = vec![(table, "ip=192.0.2.9".to_owned())];
        let loaded = Layers::load(root.path(), "sino.set=network.bridge.xenbr0.mtu=1300", true, extra);
        let bridge = &loaded.config.network.bridge["xenbr0"];
        assert_eq!(
            (bridge.addresses.as_deref(), bridge.mtu),
            (Some(["192.0.2.9/24".to_owned()].as_slice()), Some(1300))
        );
        assert_eq!(loaded.origins["network.bridge.xenbr0.addresses"].to_string(), "flag ip=192.0.2.9");
        assert_eq!(loaded.problems.len(), 1, "{:?}", loaded.problems);
    }

    proptest! {
        #[test]
        fn no_command_line_makes_it_panic(line in "(sino\\.set=|sino\\.handover=|system\\.hostname|boot|=|\\.|'|\\[|\\PC{0,4}| |\u{1b}){0,16}") {
            let merged = options::parse(&line).0.set.iter().fold(Merged::default(), |mut merged, assignment| {
                merged.add(set(assignment));
                merged
            });
            for problem in merged.finish().problems {
                prop_assert!(!problem.to_string().chars().any(char::is_control));
                prop_assert!(!problem.text.contains("defect"), "{problem}");
            }
        }
    }
}
