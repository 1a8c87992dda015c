//! Builds tiny images from the cached Debian tree and looks at their bytes.
//!
//! Needs the tree and the stages' programs, so it is not part of a plain `cargo test`: after `make iso`, run
//! `cargo test -p sino-image --test built` (make test does). Without them it fails and says what to run.

use sino_boot::identity::{self, SECTOR_OFFSET, SECTOR_SIZE};
use sino_boot::manifest::Manifest;
use sino_boot::{block_hash, layout};
use sino_image::build::{BuildPlan, Built, Faults, Root, build};
use sino_image::cache::{Cache, file_hash};
use sino_image::closure::{self, DepmodTexts};
use sino_image::config::Config;
use sino_image::initramfs::Effort;
use sino_image::progress::Progress;
use sino_image::root_tree::{self, Program};
use sino_image::tree::Tree;
use sino_image::workspace::Workspace;
use sino_image::{command, module_set};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// A root of two files; the second does not compress and makes the image some blocks long.
fn tiny_root(folder: &Path) {
    fs::create_dir_all(folder.join("sbin")).unwrap();
    fs::write(folder.join("sbin/sino-init"), "#!/bin/true\n").unwrap();
    let mut bytes = vec![0; 2_500_000];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    fs::write(folder.join("filler"), bytes).unwrap();
}

fn tiny(place: &Path, name: &str, faults: Faults) -> Built {
    let workspace = Workspace::around(&std::env::current_dir().unwrap());
    let cache = Cache::new(workspace.cache());
    let config = Config::default();
    assert!(Tree::is_cached(&config, &cache).unwrap(), "there is no Debian tree in the cache; run: make iso");
    let root = place.join("root");
    tiny_root(&root);
    let plan = BuildPlan {
        root: Root::Directory(root),
        output: place.join(name),
        cache,
        binaries: workspace.binaries(),
        effort: Effort::Quick,
        epoch: None,
        fresh: true,
        faults,
    };
    build(&config, &plan, &Progress::silent()).unwrap()
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let place = tempfile::tempdir().unwrap();
    let one = tiny(place.path(), "one", Faults::default());
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let other = tiny(place.path(), "other", Faults::default());
    assert_eq!(one.build_id, other.build_id);
    command::run(Command::new("cmp").arg(&one.iso).arg(&other.iso)).unwrap();
    command::run(Command::new("cmp").arg(&one.initramfs).arg(&other.initramfs)).unwrap();
}

#[test]
fn the_medium_is_what_stage_one_and_other_computers_expect() {
    let place = tempfile::tempdir().unwrap();
    let built = tiny(place.path(), "out", Faults::default());
    let mut sector = vec![0; SECTOR_SIZE];
    fs::File::open(&built.iso).unwrap().read_exact_at(&mut sector, SECTOR_OFFSET).unwrap();
    let volume = identity::parse(&sector).unwrap();
    assert!(volume.is_sino());
    assert_eq!((volume.set_id, volume.application_id), (built.build_id.clone(), format!("SINO {}", built_version())));
    // The FAT partition, found through the partition table, is whole and holds the EFI program.
    let table = command::run(Command::new("sfdisk").arg("--json").arg(&built.iso)).unwrap();
    let table: serde_json::Value = serde_json::from_slice(&table).unwrap();
    let start = table["partitiontable"]["partitions"][1]["start"].as_u64().unwrap();
    let size = table["partitiontable"]["partitions"][1]["size"].as_u64().unwrap();
    let fat = place.path().join("fat.img");
    let mut bytes = vec![0; usize::try_from(size * 512).unwrap()];
    fs::File::open(&built.iso).unwrap().read_exact_at(&mut bytes, start * 512).unwrap();
    fs::write(&fat, bytes).unwrap();
    command::run(Command::new("fsck.fat").arg("-n").arg(&fat)).unwrap();
    let list = command::run(Command::new("mdir").arg("-i").arg(&fat).args(["-b", "::/EFI/BOOT"])).unwrap();
    assert_eq!(String::from_utf8(list).unwrap().trim(), "::/EFI/BOOT/BOOTX64.EFI");
    // The checksums on the medium and beside it hold.
    let medium = place.path().join("medium");
    command::run(
        Command::new("xorriso").args(["-osirrox", "on", "-indev"]).arg(&built.iso).args(["-extract", "/"]).arg(&medium),
    )
    .unwrap();
    for folder in [&medium, &place.path().join("out")] {
        command::run(Command::new("sha256sum").args(["-c", "--strict", "SHA256SUMS"]).current_dir(folder)).unwrap();
    }
    let manifest = Manifest::parse(&fs::read_to_string(medium.join("sino/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest.build_id, built.build_id);
    let root_image = medium.join(&manifest.root.path);
    assert_eq!(manifest.root.blake3, file_hash(&root_image).unwrap());
    assert_eq!(manifest.root.size, fs::metadata(&root_image).unwrap().len());
    let values = block_hash::parse(&manifest.root.blocks).unwrap();
    assert_eq!(block_hash::merge(&values).unwrap(), manifest.root.blake3);
    let verity = &manifest.root.verity;
    command::run(
        Command::new("veritysetup")
            .arg("verify")
            .args([&root_image, &root_image])
            .arg(&verity.root_hash)
            .arg(format!("--hash-offset={}", verity.data_size)),
    )
    .unwrap();
    file_sums_hold(&medium);
}

/// The list that stage one checks has every file but itself, the list for other systems, and what the ISO changes.
fn file_sums_hold(medium: &Path) {
    let text = fs::read_to_string(medium.join(layout::FILE_SUMS)).unwrap();
    let mut paths = Vec::new();
    for line in text.lines() {
        let (hash, path) = line.split_once("  ").unwrap();
        assert_eq!(hash, file_hash(&medium.join(path)).unwrap(), "{path}");
        paths.push(path);
    }
    assert!(paths.is_sorted());
    let list =
        command::run(Command::new("find").args([".", "-type", "f", "-printf", "%P\\n"]).current_dir(medium)).unwrap();
    let list = String::from_utf8(list).unwrap();
    let left_out = [layout::FILE_SUMS, "SHA256SUMS", "isolinux/isolinux.bin", "isolinux/boot.cat"];
    let mut expected: Vec<&str> = list.lines().filter(|path| !left_out.contains(path)).collect();
    expected.sort_unstable();
    assert_eq!(paths, expected);
    let sums = fs::read_to_string(medium.join("SHA256SUMS")).unwrap();
    assert!(sums.contains("  sino/B3SUMS\n"), "{sums}");
}

/// The folder of the Debian tree's root in the cache.
fn debian() -> Tree {
    let workspace = Workspace::around(&std::env::current_dir().unwrap());
    let (config, cache) = (Config::default(), Cache::new(workspace.cache()));
    assert!(Tree::is_cached(&config, &cache).unwrap(), "there is no Debian tree in the cache; run: make iso");
    Tree::get(&config, &cache).unwrap()
}

#[test]
fn dm_verity_and_loop_are_in_the_initramfs_with_what_they_ask_for() {
    let tree = debian();
    let read = |name: &str| fs::read_to_string(tree.modules().join(name)).unwrap();
    let texts = DepmodTexts {
        dep: read("modules.dep"),
        alias: read("modules.alias"),
        softdep: read("modules.softdep"),
        builtin: read("modules.builtin"),
    };
    let builtin = |name: &str| texts.builtin.contains(&format!("/{name}.ko\n"));
    let table = closure::resolve(
        &tree.kernel_release,
        &texts,
        module_set::is_wanted,
        module_set::is_at_hand,
        module_set::is_for_carriers,
    )
    .unwrap()
    .table;
    // What every root needs is not in the archive that some of it opens.
    for name in ["loop", "squashfs", "overlay", "isofs", "dm_verity", "usb_storage", "sd_mod"] {
        assert!(builtin(name) || table.modules[name].file == format!("{name}.ko"), "{name}");
    }
    for name in ["dm_bufio", "dm_mod", "dm_verity", "exfat", "loop", "nls_ascii", "nls_cp437", "nls_utf8", "ntfs3"] {
        assert!(table.modules.contains_key(name) || builtin(name), "{name}");
    }
    let verity = &table.modules["dm_verity"];
    assert!(verity.needs.contains(&"dm_mod".to_owned()) && verity.needs.contains(&"dm_bufio".to_owned()));
    // The plain SHA-256 works on every processor, the other is faster.
    for name in ["sha256_generic", "sha256_ssse3"] {
        assert!(verity.before.contains(&name.to_owned()) || builtin(name), "{name}: {verity:?}");
    }
}

/// What must work when nothing but what is held in RAM can be read.
const WITHOUT_MEDIUM: &[&str] = &[
    // Each program and library finds all that it links.
    "for file in /usr/bin/* /usr/sbin/* /usr/lib/systemd/systemd* /usr/lib/openssh/* /usr/lib/xen-*/bin/* \
         /usr/lib/x86_64-linux-gnu/*.so.* /usr/lib/x86_64-linux-gnu/security/*; do \
         if head -c 4 $file | grep -q ELF; then ld=$(/lib64/ld-linux-x86-64.so.2 --list $file) || test $? = 1; \
         case $ld in *'not found'*) echo $file: $ld; exit 1; esac; fi; done",
    // Logging in.
    "bash -lic true",
    "for program in agetty sulogin login; do $program --version || $program -h || test $? = 1; done",
    "test $(id -un) = root; /usr/sbin/sshd -G",
    "for term in linux vt100 vt220 xterm xterm-256color; do TERM=$term tput cols; done",
    "journalctl --version; dmesg --version; ip -V; lsblk --version; test $(ls / | grep -c usr) = 1",
    // Stopping guests.
    "/usr/lib/xen-*/bin/xl help 2>&1 | grep 'cannot init xl context'",
    ". /lib/init/vars.sh; . /lib/lsb/init-functions; log_action_begin_msg x; log_action_end_msg 0",
    "sino guests --help; /etc/init.d/xen stop",
    "test \"$(printf 'a 1\\nb 2\\n' | sed s/a/c/ | awk '{ print $1 }' | sort | head -1 | tr a-z A-Z)\" = B",
    "seq 0 2; basename /a/b; readlink -f /bin/sh; brctl --version; flock --version; sleep 0",
    "xenstore-ls -h || test $? = 1",
    // Shutting down.
    "/usr/lib/systemd/systemd --version; reboot --help; shutdown --help; udevadm --version; loginctl --version",
    "dbus-daemon --version",
    "start-stop-daemon --version; service --version; sync; umount --version; losetup --version; swapoff --version",
];

#[test]
fn what_is_held_in_ram_is_enough_to_end_a_host() {
    let workspace = Workspace::around(&std::env::current_dir().unwrap());
    let place = tempfile::tempdir().unwrap();
    let (root, left) = (place.path().join("root"), place.path().join("left"));
    let program = |name, target| Program { source: workspace.binaries().join(name), target };
    let programs = [program("sino", layout::COMMAND)];
    let tree = debian();
    let held = root_tree::make(&tree.root, &root, &Config::default(), &programs, "", tree.made).unwrap();
    eprintln!("{}", held.line());
    assert!(held.bytes() < 52 << 20, "{}", held.line());
    let list = fs::read_to_string(root.join(layout::HELD_IN_RAM.trim_start_matches('/'))).unwrap();
    for path in ["/bin", "/etc/issue", "/etc/shadow", "/usr/sbin/sino", "/usr/sbin/sino-init", "/usr/sbin/reboot"] {
        assert!(list.lines().any(|line| line == path), "{path}");
    }
    fs::create_dir(&left).unwrap();
    let mut copy = Command::new("cpio");
    copy.args(["-p", "-d", "--quiet"]).arg(&left).current_dir(&root);
    let relative = list.lines().flat_map(|path| [".", path, "\n"]).collect::<String>();
    command::run_with_input(&mut copy, relative.as_bytes()).unwrap();
    for folder in ["dev", "tmp"] {
        fs::create_dir(left.join(folder)).unwrap();
    }
    fs::write(left.join("dev/null"), "").unwrap();
    for script in WITHOUT_MEDIUM {
        let script = format!("set -e; {script}");
        let mut shell = Command::new("chroot");
        shell.arg(&left).args(["/bin/sh", "-c", &script]).env("LANG", "en_US.UTF-8");
        command::run(&mut shell).unwrap();
    }
}

#[test]
fn debians_way_to_start_and_stop_guests_is_off() {
    let workspace = Workspace::around(&std::env::current_dir().unwrap());
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    let sino = Program { source: workspace.binaries().join("sino"), target: layout::COMMAND };
    let tree = debian();
    assert!(tree.root.join("etc/init.d/xendomains").is_file(), "Debian starts guests in another way now");
    root_tree::make(&tree.root, &root, &Config::default(), &[sino], "", tree.made).unwrap();
    let state = |unit: &str| {
        let mut systemctl = Command::new("chroot");
        systemctl.arg(&root).args(["systemctl", "is-enabled", unit]);
        String::from_utf8(systemctl.output().unwrap().stdout).unwrap().trim().to_owned()
    };
    assert_eq!(state("xendomains.service"), "masked");
    assert_eq!(state("sino-guests.service"), "enabled");
    assert_eq!(state("sino.service"), "enabled");
    // The supervisor reads its folder.
    assert!(root.join("etc/xen").is_dir());
}

#[test]
fn faults_change_what_they_are_meant_to() {
    let place = tempfile::tempdir().unwrap();
    let faults = Faults {
        manifest: Some(|manifest| manifest.kernel_release = "0.0.0-none".into()),
        root_image: Some(|path| Ok(fs::write(path, "damaged")?)),
    };
    let built = tiny(place.path(), "out", faults);
    let medium = place.path().join("medium");
    command::run(
        Command::new("xorriso")
            .args(["-osirrox", "on", "-indev"])
            .arg(&built.iso)
            .args(["-extract", "/sino"])
            .arg(&medium),
    )
    .unwrap();
    let manifest = fs::read_to_string(medium.join("manifest.json")).unwrap();
    assert!(manifest.contains("0.0.0-none"), "{manifest}");
    assert_eq!(fs::read(medium.join("root.squashfs")).unwrap(), b"damaged");
}

fn built_version() -> &'static str {
    sino_image::build::VERSION
}
