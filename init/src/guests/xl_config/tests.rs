use super::*;
use proptest::prelude::*;

fn told(text: &str) -> Vec<String> {
    read(text.as_bytes(), "f").problems.iter().map(ToString::to_string).collect()
}

fn parsed(text: &str) -> Vec<String> {
    let (settings, problems) = read_settings(text.as_bytes(), "f");
    assert_eq!(problems, [], "{text:?}");
    settings.iter().map(ToString::to_string).collect()
}

#[test]
fn settings_are_read_as_xl_reads_them() {
    for (text, expected) in [
        ("", vec![]),
        ("\n;; \t\n# all of it a comment\n", vec![]),
        ("a=1", vec!["a = \"1\""]),
        ("a=1\n#", vec!["a = \"1\""]),
        ("a = 0x1f ; b.c_2 = 'x' # end\n", vec!["a = \"0x1f\"", "b.c_2 = \"x\""]),
        ("a = \"it's\"\nb = 'a\\'b\\\\\\t\\n\\v'\n", vec!["a = \"it's\"", "b = \"a'b\\\\\\t\\n\u{b}\""]),
        ("a = 'x#y;z'\n", vec!["a = \"x#y;z\""]),
        ("a = []\nb = [ ]\n", vec!["a = [ ]", "b = [ ]"]),
        ("a = [ 1, 'b', ]\n", vec!["a = [ \"1\", \"b\" ]"]),
        ("a = [ # one\n 'x' # two\n , # three\n\n 'y',\n]\n", vec!["a = [ \"x\", \"y\" ]"]),
        ("a = [ [ 'x', 1 ], [ [] ] ]\n", vec!["a = [ [ \"x\", \"1\" ], [ [ ] ] ]"]),
        ("a += 'x'\n", vec!["a += \"x\""]),
        ("a = 'x'\na += 'y'\na += 'z'\n", vec!["a += \"xyz\""]),
        ("a = [ 1 ]\na += [ 2, 3 ]\n", vec!["a += [ \"1\", \"2\", \"3\" ]"]),
    ] {
        assert_eq!(parsed(text), expected, "{text:?}");
    }
}

#[test]
fn each_error_has_its_place_and_the_rest_is_read() {
    for (text, expected, kept) in [
        ("a = b\nc = 1\n", "f:1:5: a value is a number, a list in [ ], or text in quotes; try: \"b\"", "c"),
        ("Memory = 1\nc = 1\n", "f:1:1: \"Memory\" is neither a name nor a value: names are in lower case", "c"),
        ("a = 512M\nc = 1\n", "f:1:8: \"M\" is neither a name nor a value", "a c"),
        (
            "a = -1\nc = 1\n",
            "f:1:5: \"-1\" is not in xl's grammar: text must be in quotes, and Python is not read",
            "c",
        ),
        ("a 1\nc = 1\n", "f:1:3: after \"a\" there must be =, not the value \"1\"", "c"),
        ("a\nc = 1\n", "f:1:2: after \"a\" there must be =, not the end of the line", "c"),
        ("a = \nc = 1\n", "f:1:5: there must be a value here, not the end of the line", "c"),
        (
            "a = 'x' b = 2\nc = 1\n",
            "f:1:9: after a value there must be the end of the line or a semicolon, not \"b\"",
            "a c",
        ),
        ("= 5\nc = 1\n", "f:1:1: a setting begins with its name, in lower case and not with =", "c"),
        ("a = 'x\nc = 1\n", "f:1:5: this string has no ' at its end in this line", "c"),
        ("a = \"x\\\nc = 1\n", "f:1:5: this string has no \" at its end in this line", "c"),
        ("a = 'x\\q'\nc = 1\n", "f:1:5: a backslash in a string is followed by one of", "a c"),
        ("a = '\\x41'\nc = 1\n", "f:1:5: xl reads no \\x in a string", "a c"),
        ("a = '\\012'\nc = 1\n", "f:1:5: warning: xl leaves out what is written as a number", "a c"),
        ("a = '\\0'\nc = 1\n", "f:1:5: xl refuses a number of one or two digits", "a c"),
        ("c = 1\n# end", "f:2:1: this comment ends without a line end, and xl refuses the file for it", "c"),
        ("a = 1\r\nc = 1\r\n", "f:1:6: the lines end as on DOS", "a c"),
        ("\u{feff}a = 1\nc = 1\n", "f:1:1: the file begins with a byte order mark", "c"),
        (
            "a = [ 'x' 'y' ]\nc = 1\n",
            "f:1:11: there must be a comma or ] after an item of a list, not the value \"y\"",
            "c",
        ),
        ("a = [ , ]\nc = 1\n", "f:1:7: there must be an item of the list or ] here, not a comma", "c"),
        (
            "a = [ 'x',\n y,\n 'z' ]\nc = 1\n",
            "f:2:2: an item of a list is a number, a list, or text in quotes; try: \"y\"",
            "c",
        ),
        ("a = [ 'x',\nc = 1\n", "f:2:1: the list that begins in line 1 has no ] before this", "c"),
        ("c = 1\na = [ 'x'", "f:2:10: the list that begins in line 2 has no ] at its end", "c"),
        ("c = 1\nc += [ 2 ]\n", "f:2:1: c: += adds text to text or a list to a list; line 1 has the other", "c"),
        ("c = 1\nc = 2\n", "f:2:1: c: warning: is given again; this holds, and line 1 has no effect", "c"),
        ("ä = 1\nc = 1\n", "f:1:1: \"ä\" is not in xl's grammar", "c"),
        ("a = 'ä' ü\nc = 1\n", "f:1:9: \"ü\" is not in xl's grammar", "a c"),
    ] {
        let (settings, problems) = read_settings(text.as_bytes(), "f");
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(told.first().is_some_and(|told| told.starts_with(expected)), "{text:?}: {told:#?}");
        // Both lines of the file with DOS line ends are wrong.
        assert!(told.len() == 1 || text.contains('\r'), "{text:?}: {told:#?}");
        let names: Vec<_> = settings.iter().map(|setting| setting.name.as_str()).collect();
        assert_eq!(names.join(" "), kept, "{text:?}");
    }
}

#[test]
fn what_is_no_text_is_told_in_one_line() {
    let binary = read(b"name = 'x'\n\x7fELF\0\0\n", "f");
    assert!(binary.problems.len() == 1 && binary.config == GuestConfig::default(), "only the cause: {binary:?}");
    assert!(binary.problems[0].line == 2 && binary.problems[0].text.contains("binary"), "{binary:?}");
    let large = read(&vec![b'\n'; LARGEST + 1], "f");
    assert!(large.problems.len() == 1 && large.config == GuestConfig::default(), "only the cause: {large:?}");
    assert!(large.problems[0].text.contains("(1025 KiB; at most 1024 KiB are read)"), "{large:?}");
    let latin = read(b"name = 'x'\n# \xe4\xf6\nkernel = 'k'\nmemory = 5\n", "f");
    assert_eq!(latin.problems.len(), 1, "{latin:?}");
    assert!(latin.problems[0].to_string().starts_with("f:2:3: warning: is not UTF-8"), "{latin:?}");
    assert_eq!(latin.config.memory_mib(), 5);
    let noise = read("x y\n".repeat(1000).as_bytes(), "f");
    assert_eq!(noise.problems.len(), TOLD + 1);
    assert!(noise.problems.last().unwrap().text.ends_with("more problems"));
}

#[test]
fn a_file_of_any_make_takes_no_long_time() {
    let begun = std::time::Instant::now();
    for unit in
        ["[", "a=[", "a", "a=1 ", "a+='x'\n", "'", "\\", "#", "]\n", "x=[[]]\n", "disk+=['cdrom,vdev=a']\n", "disk+=['"]
    {
        let text = unit.repeat(LARGEST / unit.len());
        let _ = read(text.as_bytes(), "f");
    }
    let many: Vec<_> = (0..60_000).map(|number| format!("a{number:x} = 1")).collect();
    let _ = read(many.join("\n").as_bytes(), "f");
    let flags = format!("disk=['{}']\n", "cdrom,".repeat(LARGEST / 7));
    let _ = read(flags.as_bytes(), "f");
    // Some two seconds without optimisation; what is quadratic takes minutes.
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

fn guest(rest: &str) -> Reading {
    read(format!("name = 'g'\n{rest}").as_bytes(), "f")
}

#[test]
fn the_kind_is_what_xl_takes() {
    for (text, kind, problem) in [
        ("kernel = 'k'", Kind::Pv, ""),
        ("type = 'pv'\nkernel = 'k'", Kind::Pv, ""),
        ("type = 'pvh'\nkernel = 'k'", Kind::Pvh, ""),
        ("type = 'hvm'", Kind::Hvm, ""),
        ("type = 'h'", Kind::Hvm, ""),
        ("builder = 'hvm'", Kind::Hvm, ""),
        ("builder = 'generic'\nkernel = 'k'", Kind::Pv, ""),
        ("type = 'pvh'\nbuilder = 'hvm'\nkernel = 'k'", Kind::Pvh, "builder: says HVM, but type in line 2 says PVH"),
        ("type = 'HVM'\nkernel = 'k'", Kind::Pv, "type: \"HVM\" is none of hvm, pv, pvh; xl refuses it"),
        ("pvh = 1\nkernel = 'k'", Kind::Pv, "pvh: warning: xl since 4.10 reads over this"),
    ] {
        let reading = guest(&format!("{text}\nmemory = 64\n"));
        let told: Vec<_> = reading.problems.iter().map(ToString::to_string).collect();
        assert_eq!(reading.config.kind.value, kind, "{text:?}");
        assert_eq!(told.len(), usize::from(!problem.is_empty()), "{text:?}: {told:?}");
        assert!(told.iter().all(|told| told.contains(problem)), "{text:?}: {told:?}");
    }
}

#[test]
fn what_xl_refuses_or_reads_over_is_told() {
    for (text, expected) in [
        ("memory = 64", "f: kernel: is not given, nor bootloader, and this is a PV guest"),
        ("type = 'hvm'", "f: memory: warning: is not given; xl makes it 32 MiB"),
        ("type = 'hvm'\nmemory = '512M'", "f:3:1: memory: warning: \"512M\" is no number"),
        ("type = 'hvm'\nmemory = '-5'", "f:3:1: memory: -5 is out of range"),
        ("type = 'hvm'\nmemory = [ 5 ]", "f:3:1: memory: warning: is a list where xl wants one value"),
        ("type = 'hvm'\nmemory = 5\nmemory += 5", "f:4:1: memory: warning: is made with +="),
        ("type = 'hvm'\nmemory = 64\nmaxmem = 32", "f:4:1: maxmem: 32 MiB are less than memory, 64 MiB"),
        ("type = 'hvm'\nmemory = 64\nvcpus = 2\nmaxvcpus = 1", "f:5:1: maxvcpus: 1 are fewer than vcpus, 2"),
        (
            "type = 'hvm'\nmemory = 64\nmemmory = 5",
            "f:4:1: memmory: warning: xl does not know this and reads over it; did you mean memory?",
        ),
        ("type = 'hvm'\nmemory = 64\non_crash = 'reboot'", "f:4:1: on_crash: \"reboot\" is none of destroy, restart"),
        (
            "type = 'hvm'\nmemory = 64\ndisk = 'phy:/a,xvda,w'",
            "f:4:1: disk: warning: must be a list; xl leaves it out; try: disk = [ \"phy:/a,xvda,w\" ]",
        ),
        ("type = 'hvm'\nmemory = 64\nvif = [ '', [ 'x' ], 'y' ]", "f:4:13: vif: warning: this item is a list"),
        ("type = 'hvm'\nmemory = 64\ndisk = [\n '/a,xvda,w' ]", "f:5:2: disk: \"xvda\" is no format"),
        ("type = 'hvm'\nmemory = 64\ndisk = [ '/a,,xvda', '/b,,xvda' ]", "f:4:22: disk: xvda is in line 4 too"),
        ("type = 'hvm'\nmemory = 64\ndisk = [ 'phy:/a,xvda,w!' ]", "f:4:10: disk: access w! was xm's"),
        ("type = 'hvm'\nmemory = 64\nvif = [ 'brigde=b' ]", "f:4:9: vif: warning: \"brigde\" is no parameter"),
        ("memory = 64\nkernel = 'k'\nfirmware = 'pvgrub64'", "f:4:1: firmware: is given beside kernel in line 3"),
        ("memory = 64\nfirmware = 'ovmf'", "f:3:1: firmware: a PV guest has pvgrub32 or pvgrub64"),
    ] {
        let told = told(&format!("name = 'g'\n{text}\n"));
        assert_eq!(told.len(), 1, "{text:?}: {told:#?}");
        assert!(told[0].starts_with(expected), "{text:?}: {told:#?}");
    }
    for (name, expected) in [
        ("''", "is empty"),
        ("'a/b'", "has a slash in it; xl fails over it"),
        ("'a b'", "warning: has blanks in it"),
        ("'a\\nb'", "has control characters in it"),
        ("17", "warning: consists of digits"),
        (&format!("'{}'", "n".repeat(64)), "has 64 bytes"),
    ] {
        let told = told(&format!("type = 'hvm'\nmemory = 64\nname = {name}\n"));
        assert_eq!(told.len(), 1, "{name}: {told:?}");
        assert!(told[0].starts_with(&format!("f:3:1: name: {expected}")), "{name}: {told:?}");
    }
}

/// Files as they are found on hosts, with what SINO has to know of them.
#[test]
fn files_of_real_life_are_read() {
    for (file, text, expected) in [
        (
            "xen-create-image",
            include_str!("fixtures/xen-create-image.cfg"),
            "web.example.org PV 512/512 MiB 2/2 xvda2:/dev/xvg/web.example.org-disk xvda1:/dev/xvg/web.example.org-swap xenbr0 pygrub=yes",
        ),
        (
            "ganeti",
            include_str!("fixtures/ganeti.cfg"),
            "instance1.example.org PV 1024/1024 MiB 2/2 xvda:/var/run/ganeti/instance-disks/instance1.example.org:0 xen-br0 pygrub=no",
        ),
        (
            "hvm",
            include_str!("fixtures/hvm.cfg"),
            "win10 HVM 4096/8192 MiB 2/4 hda:/dev/xvg/win10 hdb:/srv/img/data.qcow2 hdc:/srv/iso/win.iso hdd: xenbr0 lan0 pygrub=no",
        ),
        (
            "pvh",
            include_str!("fixtures/pvh.cfg"),
            "router PVH 256/256 MiB 1/1 xvda:/dev/xvg/router-root xenbr0 xenbr1 pygrub=no",
        ),
    ] {
        let Reading { config, problems } = read(text.as_bytes(), file);
        assert_eq!(problems, [], "{file}");
        let disks = config.disks.iter().map(|disk| format!("{}:{}", disk.vdev, disk.path().unwrap_or_default()));
        let bridges = config.vifs.iter().map(|vif| vif.needs_bridge().unwrap_or("-").to_owned());
        let shown = format!(
            "{} {} {}/{} MiB {}/{} {} pygrub={}",
            config.name.as_ref().unwrap().value,
            config.kind.value,
            config.memory_mib(),
            config.maxmem_mib(),
            config.vcpus.as_ref().map_or(1, |cpus| cpus.value),
            config.max_cpus(),
            disks.chain(bridges).collect::<Vec<_>>().join(" "),
            if config.bootloader.as_ref().is_some_and(|loader| loader.value.contains("pygrub")) { "yes" } else { "no" },
        );
        assert_eq!(shown, expected, "{file}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let text = "[^\0]{0,12}".prop_map(Content::Text);
    let content = text.prop_recursive(5, 40, 5, |inner| {
        let item = inner.prop_map(|content| Value { content, line: 0, column: 0 });
        proptest::collection::vec(item, 0..5).prop_map(Content::List)
    });
    content.prop_map(|content| Value { content, line: 0, column: 0 })
}

/// Without places.
fn plain(value: &Value) -> Value {
    let content = match &value.content {
        Content::List(items) => Content::List(items.iter().map(plain).collect()),
        text @ Content::Text(_) => text.clone(),
    };
    Value { content, line: 0, column: 0 }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(settings in proptest::collection::btree_map("[a-z][a-z0-9_.]{0,8}", (value(), any::<bool>()), 0..6)) {
        let settings: Vec<_> = settings
            .into_iter()
            .map(|(name, (value, added))| Setting { name, value, added, line: 0, column: 0 })
            .collect();
        let text = settings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let (read, problems) = read_settings(text.as_bytes(), "f");
        prop_assert_eq!(problems, vec![]);
        let read: Vec<_> = read
            .into_iter()
            .map(|setting| Setting { value: plain(&setting.value), line: 0, column: 0, ..setting })
            .collect();
        prop_assert_eq!(read, settings);
    }

    #[test]
    fn bytes_of_any_kind_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn text_that_is_nearly_right_is_survived(text in "(disk|vif|name|memory|type|[a-z]{1,3}|=|\\+=|\\[|\\]|,|;|\n|#|'[^']{0,5}'|\"phy:/a,xvda,w\"|[0-9]{1,3}|\\PC| ){0,40}") {
        check(text.as_bytes());
    }
}

fn check(bytes: &[u8]) {
    let reading = read(bytes, "f");
    let lines = bytes.split(|byte| *byte == b'\n').count();
    for problem in &reading.problems {
        assert!(problem.line <= lines, "{problem:?}");
        assert!(!problem.to_string().chars().any(char::is_control), "{problem:?}");
    }
    assert!(reading.config.raw.iter().all(|setting| (1..=lines).contains(&setting.line)));
}
