//! Command lines as people and boot loaders write them.

use super::*;
use proptest::prelude::*;

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(parse("BOOT_IMAGE=/x console=hvc0 ro quiet\n"), (Options::default(), Vec::new()));
}

#[test]
fn the_last_value_wins_and_what_follows_the_dashes_is_not_read() {
    let (options, warnings) = parse("sino.ram sino.ram=off sino.overlay=10% sino.overlay=300M -- sino.debug");
    assert!(options.ram == Ram::Off && !options.debug);
    assert_eq!(options.overlay, OverlaySize::Bytes(300 << 20));
    assert!(warnings.is_empty());
}

#[test]
fn every_flag_is_read() {
    let (options, warnings) = parse(
        "sino.ram=background sino.medium=/dev/sdb sino.iso=/iso/sino.iso sino.medium-timeout=5 sino.overlay=20% \
         sino.overlay-inodes=2000 sino.init=/bin/x sino.on_failure=reboot sino.rescue-timeout=0 sino.step-timeout=9 \
         sino.break=find-medium,check-root sino.debug sino.verify=off sino.check sino.handover=45 \
         sino.set=system.hostname=h sino.set=network.dns=['192.0.2.1'] sino.net=dhcp sino.net=off",
    );
    assert_eq!(warnings, Vec::<String>::new());
    let expected = Options {
        ram: Ram::Background,
        verify: false,
        check: true,
        medium: Some(Selector::Device("sdb".into())),
        iso: Some(IsoFile { volume: None, path: "/iso/sino.iso".into() }),
        medium_timeout: 5,
        overlay: OverlaySize::Percent(20),
        overlay_inodes: Some(2000),
        init: Some("/bin/x".into()),
        on_failure: OnFailure::Reboot,
        rescue_timeout: 0,
        step_timeout: 9,
        break_before: vec!["find-medium".into(), "check-root".into()],
        debug: true,
        handover: Some(45),
        set: vec!["system.hostname=h".into(), "network.dns=['192.0.2.1']".into()],
        net: vec!["dhcp".into(), "off".into()],
        autostart: Autostart::All,
    };
    assert!(options.breaks_before("check-root") && !options.breaks_before("copy-to-ram"));
    assert!(parse("sino.break=all").0.breaks_before("copy-to-ram"));
    assert_eq!(options, expected);
}

#[test]
fn a_medium_is_named_as_blkid_names_it() {
    for (word, selector) in [
        ("/dev/disk/by-label/SINO", Selector::Label("SINO".into())),
        ("LABEL=SINO", Selector::Label("SINO".into())),
        ("UUID=2026-11-23-08-00-00-00", Selector::Uuid("2026-11-23-08-00-00-00".into())),
        ("PARTUUID=0a1b-01", Selector::PartUuid("0a1b-01".into())),
        ("removable", Selector::Removable),
        ("/dev/xvg/iso", Selector::Device("xvg/iso".into())),
    ] {
        assert_eq!(parse(&format!("sino.medium={word}")).0.medium, Some(selector), "{word}");
    }
    for word in ["sdb", "LABEL=", "/dev/", "/dev/../x", ""] {
        assert_eq!(parse(&format!("sino.medium={word}")).1.len(), 1, "{word}");
    }
}

#[test]
fn every_documented_flag_is_one_that_set_knows() {
    for flag in FLAGS {
        let known = ["copy", "/dev/x", "5", "5000", "5%", "/x", "shell", "1", "find-medium", "a.b=c"]
            .iter()
            .any(|value| Options::default().set(flag.name, Some(value)).is_some());
        assert!(known, "{}", flag.name);
    }
}

#[test]
fn the_names_that_other_loaders_use_are_known() {
    for word in ["findiso=/a/b.iso", "iso-scan/filename=/a/b.iso", "fromiso=/dev/sda1/a/b.iso", "sino.iso=/a/b.iso"] {
        let (options, warnings) = parse(word);
        let expected = IsoFile { volume: None, path: "/a/b.iso".into() };
        assert_eq!((options.iso, warnings.len()), (Some(expected), 0), "{word}");
    }
    let volume = |group: &str| Some((group.to_owned(), "xvol".to_owned()));
    for (word, volume) in [
        ("fromiso=/dev/xvg/xvol/iso/x.iso", volume("xvg")),
        ("findiso=/dev/mapper/x--vg-xvol/iso/x.iso", volume("x-vg")),
        ("findiso=/dev/nvme0n1p3/iso/x.iso", None),
        ("findiso=/dev/srv1/xvol/iso/x.iso", volume("srv1")),
    ] {
        assert_eq!(parse(word).0.iso, Some(IsoFile { volume, path: "/iso/x.iso".into() }), "{word}");
    }
    for word in [
        "findiso=",
        "findiso=b.iso",
        "findiso=/../x",
        "sino.iso",
        "fromiso=/dev/sda1",
        "sino.iso=/a//b",
        "sino.iso=/dev/xvg/x",
    ] {
        let (options, warnings) = parse(word);
        assert_eq!((options.iso, warnings.len()), (None, 1), "{word}");
    }
}

#[test]
fn a_typing_error_names_the_nearest_flag() {
    let (options, warnings) = parse("sino.rma sino.completely-different=1");
    assert_eq!(options, Options::default());
    assert!(warnings[0].contains("did you mean sino.ram?"), "{warnings:?}");
    assert!(warnings[1].contains("BOOT-FLAGS"), "{warnings:?}");
}

#[test]
fn a_value_that_cannot_be_used_leaves_the_default_and_says_what_is_allowed() {
    for bad in [
        "sino.ram=please",
        "sino.overlay=0%",
        "sino.overlay=12Q",
        "sino.medium=sdb",
        "sino.init=x",
        "sino.on-failure",
        "sino.medium-timeout=0",
        "sino.break=",
        "sino.debug=x",
        "sino.overlay=99999999999999999999G",
        "sino.overlay=",
        "sino.handover=-1",
        "sino.handover=601",
        "sino.set",
        "sino.set=x",
        "sino.set==x",
        "sino.net",
        "sino.net=",
    ] {
        let (options, warnings) = parse(bad);
        assert_eq!(options, Options::default(), "{bad}");
        assert!(warnings.len() == 1 && warnings[0].contains("allowed:"), "{bad}: {warnings:?}");
    }
}

#[test]
fn quotes_keep_words_together() {
    assert_eq!(words("a \"b c\" d=\"e f\""), ["a", "b c", "d=e f"]);
}

proptest! {
    #[test]
    fn no_command_line_makes_it_panic(line in "(sino\\.[a-z=-]{0,12}|\\PC{0,8}| |\"|é|%|\u{1b}){0,12}") {
        for warning in parse(&line).1 {
            prop_assert!(!warning.chars().any(char::is_control));
        }
    }
}

#[test]
fn guests_that_start_are_all_none_or_named() {
    let autostart = |text: &str| parse(text).0.autostart;
    assert_eq!(autostart(""), Autostart::All);
    assert_eq!(autostart("sino.autostart=off"), Autostart::Off);
    assert_eq!(autostart("sino.autostart=db,web"), Autostart::Only(vec!["db".into(), "web".into()]));
    for wrong in ["sino.autostart", "sino.autostart=", "sino.autostart=a,,b"] {
        let (options, warnings) = parse(wrong);
        assert_eq!((options.autostart, warnings.len()), (Autostart::All, 1), "{wrong}");
    }
}

#[test]
fn a_break_before_what_is_no_step_is_told() {
    let unknown = |line: &str| parse(line).0.unknown_breaks(&["find-medium", "check-root"]);
    assert_eq!(unknown("sino.break=find-medium,all,hand-over"), [""; 0]);
    assert_eq!(
        unknown("sino.break=check-root,find-medum"),
        [
            "sino.break: there is no step find-medum; there are find-medium, check-root, take-over, bring-up, hand-over, and all"
        ]
    );
}
