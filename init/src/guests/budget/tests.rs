use super::*;
use crate::guests::xl_config;
use proptest::prelude::*;

/// As Xen 4.20 prints it, shortened.
const INFO: &str = "host                   : sino\nrelease                : 6.12.48+deb13-amd64\nnr_cpus                : 4\ntotal_memory           : 8191\nfree_memory            : 5893\nsharing_freed_memory   : 0\noutstanding_claims     : 0\nxen_version            : 4.20.0\nxen_commandline        : placeholder dom0_mem=2G,max:2G console=com1 loglvl=all:\nxend_config_format     : 4\n";

fn config(text: &str) -> GuestConfig {
    xl_config::read(format!("name = 'g'\nkernel = 'k'\n{text}\n").as_bytes(), "f").config
}

#[test]
fn xl_info_is_read() {
    let xen = parse_xl_info(INFO).unwrap();
    assert_eq!((xen.total_mib, xen.free_mib), (8191, 5893));
    assert_eq!(xen.commandline, "placeholder dom0_mem=2G,max:2G console=com1 loglvl=all:");
    for (text, why) in [
        ("", "says nothing of total_memory; is this a host under Xen?"),
        ("total_memory : 5\n", "says nothing of free_memory"),
        ("total_memory : 5\nfree_memory : much\n", "xl info says free_memory is \"much\""),
        ("total_memory : -5\n", "xl info says total_memory is \"-5\""),
    ] {
        assert!(format!("{:#}", parse_xl_info(text).unwrap_err()).contains(why), "{text:?}");
    }
}

#[test]
fn whether_xl_would_balloon_is_what_xl_decides() {
    for (conf, line, expected) in [
        ("", "placeholder", true),
        ("", "placeholder dom0_mem=2G,max:2G", false),
        ("", "dom0_mem=512M", false),
        ("", "dom0_mem=min:1G,max:50%", false),
        ("", "dom0_mem=1G+10%", false),
        ("", "dom0_mem=-1G console=vga", false),
        ("", "dom0_mem=much", true),
        ("", "xdom0_mem=1G", true),
        ("", "dom0_mem=", true),
        ("# nothing\nautoballoon=\"auto\"\n", "dom0_mem=1G", false),
        ("autoballoon=\"off\"\n", "", false),
        ("autoballoon='on'\n", "dom0_mem=1G", true),
        ("autoballoon=0\n", "", false),
        ("autoballoon=sometimes\n", "", true),
    ] {
        assert_eq!(balloons_dom0(conf, line), expected, "{conf:?} {line:?}");
    }
}

#[test]
fn what_a_guest_needs_is_what_libxl_reckons() {
    // By hand, from the formula in libxl_create.c and libxl_mem.c; all in KiB, rounded up to 2 MiB.
    for (text, expected) in [
        // 512 MiB + 1 MiB for the CPU + 512 pages + 1 MiB = 516.
        ("memory = 512\nvcpus = 1", 516 * 1024),
        // 4096 + 4 + 16 + 1 = 4117.
        ("memory = 4096\nvcpus = 4", 4118 * 1024),
        ("memory = 4096\nvcpus = 4\nshadow_memory = 0", 4098 * 1024),
        // 4096 + 4 + 16 + 2 = 4118.
        ("type = 'pvh'\nmemory = 4096\nvcpus = 4", 4118 * 1024),
        ("type = 'hvm'\nmemory = 4096\nvcpus = 4\nvideoram = 64", 4118 * 1024),
        // Two pages for each MiB: 4096 + 4 + 32 + 2 = 4134.
        ("type = 'hvm'\nmemory = 4096\nvcpus = 4\nhap = 0", 4134 * 1024),
        // Of maxvcpus and maxmem: 1024 + 8 + 16 + 2 = 1050.
        ("type = 'hvm'\nmemory = 1024\nmaxmem = 4096\nvcpus = 2\nmaxvcpus = 8", 1050 * 1024),
        ("type = 'hvm'\nmemory = 1024\nvcpus = 2\nshadow_memory = 64", 1090 * 1024),
        // A device model's domain: 1024 + 1 + 4 + 2 + 128 + 8 = 1167.
        ("type = 'hvm'\nmemory = 1024\nvcpus = 1\ndevice_model_stubdomain_override = 1", 1168 * 1024),
        (
            "type = 'hvm'\nmemory = 1024\nvcpus = 1\ndevice_model_stubdomain_override = 1\nstubdomain_memory = 64\nvga = 'stdvga'",
            1112 * 1024,
        ),
        // 1024 MiB are 512 + 1 + 1 + 1 tables: 2060 KiB beside 1024 + 1 + 4 + 1 MiB.
        ("memory = 1024\nvcpus = 1\npci = [ '01:00.0' ]", 1034 * 1024),
        // The defaults: 32 + 1 + 1/8 + 1.
        ("", 36 * 1024),
    ] {
        assert_eq!(need_kib(&config(text)), expected, "{text}");
    }
}

#[test]
fn guests_fit_in_their_order_and_the_plan_says_why_not() {
    let sizes = ["memory = 2048", "memory = 4096", "memory = 1024\nmaxmem = 2048", "memory = 64000", "memory = 3072"];
    let configs: Vec<_> = sizes.iter().map(|size| config(&format!("type = 'pvh'\nvcpus = 1\n{size}"))).collect();
    let names = ["web", "db", "mail", "big", "old"];
    let guests: Vec<_> =
        names.iter().zip(&configs).map(|(name, config)| Candidate { name, config, running: *name == "old" }).collect();
    let host = Host { xen: parse_xl_info(INFO).unwrap(), dom0_mib: Some(2048), balloons: false };
    let plan = plan(&host, &guests);
    assert_eq!(plan.guests[0].verdict, Verdict::Fits);
    assert_eq!(plan.guests[1].verdict, Verdict::Short { left_kib: 3833 * 1024, after: vec!["web".into()] });
    assert_eq!(plan.guests[2].verdict, Verdict::Fits, "a smaller one behind it still fits");
    assert_eq!(plan.guests[4].verdict, Verdict::Running);
    assert_eq!(
        plan.to_string(),
        "memory: 8191 MiB, free in Xen 5893 MiB, dom0 2048 MiB\n\
         web: PVH 2048 MiB, fits with 2060 MiB\n\
         db: PVH 4096 MiB, does not fit: needs 4116 MiB of Xen's memory, 3833 MiB are left after web\n\
         mail: PVH 1024 MiB (may grow to 2048 MiB, for which nothing is kept free), fits with 1036 MiB\n\
         big: PVH 64000 MiB, does not fit: needs 64254 MiB of Xen's memory, 2797 MiB are left after web, mail\n\
         old: PVH 3072 MiB, runs\n\
         all guests that are to start need 71466 MiB; 2797 MiB stay free\n\
         try: less memory in a guest's file, a smaller dom0_mem on Xen's command line, or another order"
    );
}

#[test]
fn many_guests_are_named_by_the_first() {
    let config = config("memory = 100");
    let names: Vec<_> = (0..8).map(|number| format!("g{number}")).collect();
    let guests: Vec<_> = names.iter().map(|name| Candidate { name, config: &config, running: false }).collect();
    let host = Host { xen: XenMemory { total_mib: 1000, free_mib: 750, ..XenMemory::default() }, ..Host::default() };
    let plan = plan(&host, &guests);
    assert_eq!(
        plan.guests[7].refusal().unwrap(),
        "needs 104 MiB of Xen's memory, 22 MiB are left after g0, g1, g2, g3, g4 and 2 more"
    );
}

proptest! {
    #[test]
    fn no_more_is_planned_than_there_is(free in 0..100_000_u64, sizes in proptest::collection::vec((1..1_u64 << 40, any::<bool>()), 0..20)) {
        let configs: Vec<_> = sizes.iter().map(|(size, small)| config(&format!("memory = {}", if *small { size % 9000 + 1 } else { *size }))).collect();
        let guests: Vec<_> = configs.iter().map(|config| Candidate { name: "g", config, running: false }).collect();
        let host = Host { xen: XenMemory { total_mib: free, free_mib: free, ..XenMemory::default() }, ..Host::default() };
        let plan = plan(&host, &guests);
        let started: u64 = plan.guests.iter().filter(|guest| guest.verdict == Verdict::Fits).map(|guest| guest.need_kib).sum();
        prop_assert_eq!(started + plan.left_kib, free * 1024);
        for guest in &plan.guests {
            prop_assert!(guest.need_kib > guest.memory_mib * 1024);
            prop_assert_eq!(guest.verdict == Verdict::Fits, guest.refusal().is_none());
        }
    }

    #[test]
    fn any_text_may_come_from_xl(text in "(total_memory|free_memory|:| |\n|[0-9]{1,30}|\\PC){0,20}") {
        let _ = parse_xl_info(&text);
        let _ = balloons_dom0(&text, &text);
    }
}
