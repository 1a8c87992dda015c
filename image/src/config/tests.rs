use super::*;

fn refused(text: &str) -> String {
    format!("{:#}", Config::parse(text, "x.toml").unwrap_err())
}

#[test]
fn the_reference_sample_is_the_default() {
    let sample = include_str!("../../sino.toml");
    assert_eq!(Config::parse(sample, "sino.toml").unwrap(), Config::default());
    assert_eq!(Config::parse("", "empty").unwrap(), Config::default());
    // Every key is in the sample, so that it is a reference: without its lines nothing but the tables is left.
    let given: toml::Table = toml::from_str(sample).unwrap();
    let all = toml::Table::try_from(Config::default()).unwrap();
    assert_eq!(given, all);
}

#[test]
fn an_error_names_file_line_key_and_what_is_allowed() {
    for (text, parts) in [
        ("suite = \"sid\"\n", &["x.toml: line 1: suite", "trixie, bookworm"][..]),
        ("[system]\n\nhostname = \"a.b\"\n", &["line 3: system.hostname", "no dots"]),
        ("[boot]\ndom0_memory = 12\n", &["line 2: boot.dom0_memory", "256 to"]),
        ("[boot]\nserial_port = \"com3\"\n", &["x.toml", "line 2", "serial_port", "`com1`"]),
        ("[boot]\nkernel_flags = \"a;reboot\"\n", &["line 2: boot.kernel_flags", "allowed"]),
        ("[packages]\nenabled = [\"base\", \"hmv\"]\n", &["line 2: packages.enabled", "\"hmv\"", "admin, base"]),
        ("[packages]\nenabled = []\n", &["line 2: packages.enabled", "cannot be left out"]),
        ("[packages.groups]\nmine = [\"A\"]\n", &["line 1: packages.groups", "not a package name"]),
        ("[image]\nblock_size = 100\n", &["line 2: image.block_size", "power of two"]),
        ("[output]\niso = \"../x.iso\"\n", &["line 2: output.iso", "without a folder"]),
        ("[system]\nhostnam = \"a\"\n", &["x.toml", "line 2", "hostnam", "`hostname`"]),
        ("suite = 3\n", &["x.toml", "line 1", "suite = 3", "expected a string"]),
        ("suite = \n", &["x.toml", "line 1"]),
    ] {
        let error = refused(text);
        for part in parts {
            assert!(error.contains(part), "{text:?}: {part:?} is not in {error}");
        }
    }
}

#[test]
fn a_group_can_be_replaced_or_added_and_the_others_stay() {
    let text = "[packages]\nenabled = [\"base\", \"mine\"]\n[packages.groups]\nmine = [\"zsh\"]\nadmin = []\n";
    let config = Config::parse(text, "x").unwrap();
    let packages = config.package_list().unwrap();
    assert!(packages.contains(&"zsh".to_owned()) && packages.contains(&"lvm2".to_owned()));
    assert!(config.packages.groups["admin"].is_empty() && config.packages.groups.contains_key("hvm"));
}

#[test]
fn source_date_epoch_is_seconds() {
    assert_eq!(source_date_epoch(None).unwrap(), None);
    assert_eq!(source_date_epoch(Some("1700000000")).unwrap(), Some(1_700_000_000));
    assert!(source_date_epoch(Some("yesterday")).is_err() && source_date_epoch(Some("99999999999")).is_err());
}
