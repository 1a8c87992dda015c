use super::*;
use proptest::prelude::*;

const PLAIN: &str = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0  2048     2     r-----     123.4
web                                          1   512     1     -b----       5.6
two words  and more                         12  1024     4     ------       0.0
(null)                                      13     0     0     --p--d       0.1
a name that is longer than the forty columns of it     7 16384    16     ---s--  123456.7
crashed                                      8   256     1     ---sc-       1.0
";

const VERBOSE: &str = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label
Domain-0                                     0  2048     2     r-----     123.4 00000000-0000-0000-0000-000000000000        -                -
db one                                      12  1024     4     ---sr-       0.0 5A8D0B5C-6f0e-4c35-8a68-0f1d8e2f7c11        1 system_u:system_r:domU_t
";

const LONG: &str = r#"[
    {
        "domid": 0,
        "config": {
            "c_info": { "type": "pv", "name": "Domain-0", "uuid": "00000000-0000-0000-0000-000000000000" },
            "b_info": { "max_memkb": 17179869180, "target_memkb": 2097151, "sched_params": {}, "type.invalid": {} }
        }
    },
    {
        "domid": 3,
        "config": {
            "c_info": { "type": "pvh", "name": "a\nb", "uuid": "5a8d0b5c-6f0e-4c35-8a68-0f1d8e2f7c11", "run_hotplug_scripts": "True" },
            "b_info": { "max_vcpus": 4, "avail_vcpus": [0, 1], "max_memkb": 1048576, "target_memkb": 524288 },
            "disks": [], "on_poweroff": "destroy"
        }
    },
    { "domid": null, "config": {} }
]
"#;

#[test]
fn the_table_is_read_with_names_of_any_kind() {
    let domains = table(PLAIN.as_bytes()).unwrap();
    let names: Vec<&str> = domains.iter().map(|domain| domain.name.as_str()).collect();
    assert_eq!(
        names,
        ["Domain-0", "web", "two words  and more", "", "a name that is longer than the forty columns of it", "crashed"]
    );
    assert_eq!(
        domains[1],
        Domain {
            name: "web".into(),
            id: 1,
            memory_mib: 512,
            vcpus: 1,
            state: Some(State { blocked: true, ..State::default() }),
            cpu_time: Some(Duration::from_millis(5600)),
            uuid: None
        }
    );
    let states: Vec<State> = domains.iter().filter_map(|domain| domain.state).collect();
    assert!(states[0].running && states[0].is_up() && states[2].is_up());
    assert!(states[3].paused && states[3].dying && !states[3].is_up());
    assert_eq!(states[4].shutdown, Some(Shutdown::Poweroff));
    assert_eq!(states[5].shutdown, Some(Shutdown::Crash));
    assert!(!states[4].is_up() && !states[5].is_up());
}

#[test]
fn the_long_table_has_uuids() {
    let domains = table(format!("WARNING: something\n{VERBOSE}").as_bytes()).unwrap();
    assert_eq!(domains.len(), 2);
    assert_eq!(domains[1].name, "db one");
    assert_eq!(domains[1].uuid.as_deref(), Some("5a8d0b5c-6f0e-4c35-8a68-0f1d8e2f7c11"));
    assert_eq!(domains[1].state.unwrap().shutdown, Some(Shutdown::Reboot));
}

#[test]
fn the_json_is_read() {
    let domains = long(LONG.as_bytes()).unwrap();
    assert_eq!(domains.len(), 2);
    assert_eq!((domains[0].name.as_str(), domains[0].memory_mib, domains[0].vcpus), ("Domain-0", 2047, 1));
    assert_eq!((domains[1].name.as_str(), domains[1].id, domains[1].memory_mib, domains[1].vcpus), ("a\nb", 3, 512, 2));
    assert_eq!(domains[1].state, None);
}

#[test]
fn what_is_no_list_is_an_error_that_says_what_is_wrong() {
    let heading = PLAIN.lines().next().unwrap();
    let told = |text: &[u8]| format!("{:#}", table(text).unwrap_err());
    assert!(told(b"").contains("headings"), "{}", told(b""));
    assert!(told(b"\xff\xfe").contains("UTF-8"));
    assert!(told(heading.as_bytes()).contains("Domain-0 is always there"));
    for row in [
        "web 1 512 1 -b----",
        "web 1 512 1 -b---- x",
        "web 1 512 1 bbbbbb 1.0",
        "web -1 512 1 ------ 1.0",
        "web 1 512 1 ------ -1.0",
        "web 1 512 1 ------ NaN",
        "web 1 99999999999999999999999 1 ------ 1.0",
        "broken",
    ] {
        assert!(told(format!("{heading}\n{row}\n").as_bytes()).contains("the row"), "{row}");
    }
    for text in ["", "[]", "{}", "[{\"domid\": -1, \"config\": {}}]", "[{\"domid\": 1}]", "[[[[[[["] {
        assert!(long(text.as_bytes()).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, row in ".*") {
        let _ = table(&bytes);
        let _ = long(&bytes);
        let _ = table(format!("{}\n{row}\n", PLAIN.lines().next().unwrap()).as_bytes());
        let _ = table(format!("{}\n{row}\n", VERBOSE.lines().next().unwrap()).as_bytes());
    }

    #[test]
    fn what_xl_prints_is_read_back(
        name in "[a-zA-Z0-9_.]([ -~]{0,60}[!-~])?", id: u32, memory in 0_u64..1 << 40, vcpus in 0_u32..4096, tenths in 0_u32..u32::MAX
    ) {
        let heading = PLAIN.lines().next().unwrap();
        let row = format!("{name:<40} {id:>5} {memory:>5} {vcpus:>5}     -b----  {:>6}.{}", tenths / 10, tenths % 10);
        let domains = table(format!("{heading}\n{row}\n").as_bytes()).unwrap();
        prop_assert_eq!(&domains[0].name, &name);
        prop_assert_eq!((domains[0].id, domains[0].memory_mib, domains[0].vcpus), (id, memory, vcpus));
    }
}
