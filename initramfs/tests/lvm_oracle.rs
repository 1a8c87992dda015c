//! The parser of LVM2's metadata against LVM2: a volume group on two loop devices, made and reported by `lvm`.
//!
//! Needs root (loop devices), but not device-mapper: nothing is activated. What is missing fails with its remedy.

use sino_initramfs::lvm_metadata::{self, Mapping, Target, VolumeGroup};
use sino_initramfs::superblock;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

/// A loop device on a file of its own, freed in the end.
struct Disk {
    device: String,
    _file: tempfile::NamedTempFile,
}

impl Disk {
    fn new() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(128 << 20).unwrap();
        let device = run("mount", Command::new("losetup").args(["--find", "--show"]).arg(file.path()));
        Self { device: device.trim().to_owned(), _file: file }
    }

    fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        File::open(&self.device).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

fn run(package: &str, command: &mut Command) -> String {
    // Debian keeps them where only root's PATH leads.
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    let program = command.get_program().display().to_string();
    let output = command.env("LC_ALL", "C").env("LVM_SUPPRESS_FD_WARNINGS", "1").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install it: apt-get install {package}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Two disks, and the volume group on them.
struct Group {
    name: String,
    disks: [Disk; 2],
}

impl Group {
    /// Runs `lvm` on the two disks only, without device-mapper and without leaving backups; "VG" is the group's name.
    fn lvm(&self, line: &str) -> String {
        let [one, two] = self.disks.each_ref().map(|disk| &disk.device);
        let filter = format!("\"a|^{one}$|\",\"a|^{two}$|\",\"r|.*|\"");
        let config = format!("devices{{use_devicesfile=0 scan_lvs=0 filter=[{filter}]}} backup{{backup=0 archive=0}}");
        let line = line.replace("VG", &self.name);
        let mut words = line.split(' ');
        let mut command = Command::new("lvm");
        command.arg(words.next().unwrap()).args(["--driverloaded", "n", "--config", &config]).args(words);
        run("lvm2", &mut command)
    }

    /// A report's rows.
    fn report(&self, line: &str) -> Vec<Vec<String>> {
        let printed = self.lvm(&format!("{line} --noheadings --nosuffix --units s --separator |"));
        printed.lines().map(|line| line.trim().split('|').map(str::to_owned).collect()).collect()
    }

    /// The targets of every volume, made from LVM's own reports.
    fn expected(&self) -> BTreeMap<String, Vec<Target>> {
        let extent: u64 = self.report("vgs VG -o vg_extent_size")[0][0].parse().unwrap();
        let physical: BTreeMap<String, (String, u64)> = self
            .report("pvs -o pv_name,pv_uuid,pe_start")
            .into_iter()
            .map(|row| (row[0].clone(), (row[1].replace('-', ""), row[2].parse().unwrap())))
            .collect();
        let mut volumes = BTreeMap::<String, Vec<Target>>::new();
        for row in self.report(
            "lvs VG --segments -O lv_name,seg_start_pe -o lv_name,seg_start_pe,seg_size_pe,stripe_size,seg_pe_ranges",
        ) {
            let mut stripes: Vec<(String, u64)> = row[4]
                .split(' ')
                .map(|range| {
                    let (device, extents) = range.split_once(':').unwrap();
                    let first: u64 = extents.split_once('-').unwrap().0.parse().unwrap();
                    let (id, start) = &physical[device];
                    (id.clone(), start + first * extent)
                })
                .collect();
            let mapping = if stripes.len() == 1 {
                let (pv_id, start) = stripes.remove(0);
                Mapping::Linear { pv_id, start }
            } else {
                Mapping::Striped { chunk: row[3].parse().unwrap(), stripes }
            };
            let (start, length) = (row[1].parse::<u64>().unwrap() * extent, row[2].parse::<u64>().unwrap() * extent);
            volumes.entry(row[0].clone()).or_default().push(Target { start, length, mapping });
        }
        volumes
    }

    /// What the parser reads from each metadata area, and in how many pieces the texts lay.
    fn parsed(&self) -> (Vec<VolumeGroup>, usize) {
        let (mut groups, mut most_pieces) = (Vec::new(), 0);
        for disk in &self.disks {
            for area in lvm_metadata::label(&disk.read(0, lvm_metadata::HEAD)).unwrap().metadata_areas {
                let header = disk.read(area.0, lvm_metadata::AREA_HEADER);
                let Some(pieces) = lvm_metadata::text_pieces(area, &header) else { continue };
                most_pieces = most_pieces.max(pieces.len());
                let text: Vec<u8> =
                    pieces.iter().flat_map(|(at, length)| disk.read(*at, usize::try_from(*length).unwrap())).collect();
                assert!(lvm_metadata::is_whole(&header, &text));
                groups.push(lvm_metadata::parse(std::str::from_utf8(&text).unwrap()).unwrap());
            }
        }
        (groups, most_pieces)
    }
}

#[test]
fn volumes_are_mapped_as_lvm_maps_them() {
    assert!(
        rustix::process::geteuid().is_root(),
        "root is needed (loop devices); run: sudo cargo test -p sino-initramfs --test lvm_oracle"
    );
    let group = Group { name: format!("sino_test_{}", std::process::id()), disks: [Disk::new(), Disk::new()] };
    let [one, two] = &group.disks;
    group.lvm(&format!("pvcreate -q --dataalignment 1536k --pvmetadatacopies 2 {}", one.device));
    // Small areas, so that their rings come round soon.
    group.lvm(&format!("pvcreate -q --labelsector 3 --dataalignment 64k --metadatasize 60k {}", two.device));
    let (groups, _) = group.parsed();
    assert!(groups.is_empty(), "no volume group yet");
    for row in group.report("pvs -o pv_name,pv_uuid") {
        let disk = group.disks.iter().find(|disk| disk.device == row[0]).unwrap();
        let label = lvm_metadata::label(&disk.read(0, lvm_metadata::HEAD)).unwrap();
        assert_eq!(label.pv_uuid, row[1].replace('-', ""));
        assert_eq!(label.metadata_areas.len(), if disk.device == one.device { 2 } else { 1 });
        let found = superblock::parse(&disk.read(0, superblock::HEAD)).unwrap();
        assert_eq!((found.kind, found.uuid.as_str()), ("LVM2 member", row[1].as_str()));
        let printed = run("util-linux", Command::new("blkid").args(["-p", "-o", "value", "-s", "UUID", &disk.device]));
        assert_eq!(found.uuid, printed.trim());
    }

    // A machine that activates what it sees must not activate this.
    group.lvm(&format!("vgcreate -q --setautoactivation n -s 1m VG {} {}", one.device, two.device));
    group.lvm("lvcreate -q -an -Zn -Wn -l 20 -n line VG");
    group.lvm("lvcreate -q -an -Zn -Wn -l 20 -i 2 -I 64k -n stripes VG");
    // A second segment for each, of another kind.
    group.lvm(&format!("lvextend -q -l +8 VG/line {}", two.device));
    group.lvm("lvextend -q -l +10 -i 2 -I 128k VG/line");
    group.lvm("lvextend -q -l +6 -i 1 VG/stripes");
    let expected = group.expected();
    assert_eq!(expected["line"].len(), 3);
    assert_eq!(expected["stripes"].len(), 2);

    let mut wrapped = 0;
    for round in 0..24 {
        if round > 0 {
            group.lvm(&format!("vgchange -q --addtag {round}{} VG", "x".repeat(900)));
        }
        let seqno: u64 = group.report("vgs VG -o vg_seqno")[0][0].parse().unwrap();
        let (groups, pieces) = group.parsed();
        assert_eq!(groups.len(), 3, "two areas on one disk, one on the other");
        for found in groups {
            assert_eq!((found.name.as_str(), found.seqno), (group.name.as_str(), seqno));
            for (name, targets) in &expected {
                assert_eq!(found.targets(name).unwrap(), *targets, "{name}");
            }
            assert!(found.logical.keys().eq(expected.keys()));
        }
        wrapped += usize::from(pieces > 1);
    }
    assert!(wrapped > 0, "no text lay round the end of its area");
}
