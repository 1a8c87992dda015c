//! Builds tiny images from the cached Debian tree and looks at their bytes.
//!
//! Needs the tree and the stages' programs, so it is not part of a plain `cargo test`: after `make iso`, run
//! `cargo test -p sino-image --test built` (make test does). Without them it fails and says what to run.

use sino_boot::identity::{self, SECTOR_OFFSET, SECTOR_SIZE};
use sino_boot::manifest::Manifest;
use sino_image::build::{BuildPlan, Built, Faults, Root, build};
use sino_image::cache::Cache;
use sino_image::command;
use sino_image::config::Config;
use sino_image::initramfs::Effort;
use sino_image::progress::Progress;
use sino_image::tree::Tree;
use sino_image::workspace::Workspace;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// A root of one file.
fn tiny_root(folder: &Path) {
    fs::create_dir_all(folder.join("sbin")).unwrap();
    fs::write(folder.join("sbin/sino-init"), "#!/bin/true\n").unwrap();
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
    assert_eq!(manifest.root.blake3, sino_image::cache::file_hash(&medium.join("sino/root.squashfs")).unwrap());
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
