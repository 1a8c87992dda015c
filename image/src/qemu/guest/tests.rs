//! Tests of the guest against a real QEMU, with a boot sector for an operating system: seconds each.

use super::*;
use crate::qemu::arguments::tests::machine;
use crate::qemu::{Backend, Bus, Drive, DriveFault, NetworkCard};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

/// How long anything here may take on a busy host.
const LIMIT: Duration = Duration::from_secs(60);
/// The sector that the boot sector writes to.
const WRITTEN: u64 = 2000;

/// Ends of a boot sector, in machine code.
const RESET: &[u8] = b"\xb0\xfe\xe6\x64\xf4"; // mov al,0xfe; out 0x64,al; hlt: the keyboard controller's reset line
const OFF: &[u8] = b"\xba\x04\x06\xb8\x00\x20\xef\xf4"; // mov dx,0x604; mov ax,0x2000; out dx,ax; hlt: ACPI's S5
const STAY: &[u8] = b"\xf4\xeb\xfd"; // hlt; jmp to it

/// A 4 MiB drive that boots: it writes to the sector [`WRITTEN`], says "W" on the serial port, or "w" if it could not,
/// reads the sector `read`, says "R" or "r" and a newline, and ends as `end` has it.
fn boots(file: &Path, read: u64, end: &[u8]) {
    let mut code = b"\x31\xc0\x8e\xd8\x88\xd3".to_vec(); // xor ax,ax; mov ds,ax; mov bl,dl
    for (packet, function, good, bad) in [(0x80, 0x43, b'W', b'w'), (0x90, 0x42, b'R', b'r')] {
        code.extend([0xbe, packet, 0x7c, 0xb8, 0, function]); // mov si,packet; mov ax,function
        code.extend([0x88, 0xda, 0xcd, 0x13]); // mov dl,bl; int 0x13
        code.extend([0xb0, good, 0x73, 2, 0xb0, bad]); // mov al,good; jnc over; mov al,bad
        code.extend([0xba, 0xf8, 3, 0xee]); // mov dx,0x3f8; out dx,al
    }
    code.extend([0xb0, b'\n', 0xee]); // mov al,'\n'; out dx,al
    code.extend(end);
    code.resize(0x80, 0);
    for sector in [WRITTEN, read] {
        code.extend([16, 0, 1, 0, 0, 0x80, 0, 0]); // one sector, to or from 0:0x8000
        code.extend(sector.to_le_bytes());
    }
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    let mut file = File::create(file).unwrap();
    file.write_all(&code).unwrap();
    file.seek(SeekFrom::Start((4 << 20) - 1)).unwrap();
    file.write_all(&[1]).unwrap();
}

/// A guest whose only medium is the drive "m" with bad sectors 1000 to 1007.
fn start(folder: &Path, bus: Bus, read: u64, end: &[u8], reset_ends: bool) -> Guest {
    let file = folder.join("m.img");
    boots(&file, read, end);
    let faults = vec![DriveFault::ReadError { sector_from: 1000, sectors: 8 }, DriveFault::BytesPerSecond(1 << 20)];
    let mut drives = vec![Drive { faults, ..Drive::new("m", bus, file).boot(1) }];
    if bus == Bus::UsbReader {
        drives.insert(0, Drive::empty("slot", bus));
    }
    let card = NetworkCard { model: "virtio-net-pci".to_owned(), mac: None, backend: Backend::None };
    let machine = Machine { drives, reset_ends, memory_mib: 64, network: vec![card], ..machine() };
    Guest::start(&machine, folder, LIMIT * 3).unwrap()
}

/// Bytes that the guest has written to the drive "m", and that it has read.
fn traffic(guest: &mut Guest) -> (u64, u64) {
    let all = guest.drive_statistics().unwrap();
    let drive = all.iter().find(|drive| drive.name == "m").unwrap();
    (drive.written_bytes, drive.read_bytes)
}

#[test]
fn a_read_beside_bad_sectors_succeeds_writes_are_counted_and_lost_and_off_is_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = start(folder.path(), Bus::Virtio, 1008, STAY, true);
    let before = fs::read(folder.path().join("m.img")).unwrap();
    guest.watch.wait_for("WR\n", LIMIT).unwrap();
    assert_eq!(traffic(&mut guest).0, 512);
    drop(guest);
    assert!(fs::read(folder.path().join("m.img")).unwrap() == before);
    let mut guest = start(folder.path(), Bus::Virtio, 999, OFF, true);
    assert_eq!(guest.wait_for_end_reason(LIMIT).unwrap(), EndReason::Off);
}

#[test]
fn a_read_of_a_bad_sector_fails_and_a_reset_is_the_end_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = start(folder.path(), Bus::UsbStick, 1003, RESET, true);
    guest.watch.wait_for("Wr\n", LIMIT).unwrap();
    assert_eq!(guest.wait_for_end_reason(LIMIT).unwrap(), EndReason::Reset);
    let mut guest = start(folder.path(), Bus::UsbStick, 1007, RESET, false);
    for _ in 0..2 {
        guest.watch.wait_for("Wr\n", LIMIT).unwrap();
        guest.wait_for_restart(LIMIT).unwrap();
    }
}

#[test]
fn the_reset_button_begins_again_and_a_cable_can_be_pulled() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = start(folder.path(), Bus::Virtio, 1008, STAY, false);
    for _ in 0..2 {
        guest.watch.wait_for("WR\n", LIMIT).unwrap();
        guest.reset().unwrap();
    }
    guest.set_link(0, false).unwrap();
    assert!(guest.set_link(1, false).is_err());
    let mut guest = start(folder.path(), Bus::Virtio, 1008, STAY, true);
    assert!(guest.reset().unwrap_err().to_string().contains("would end"));
}

#[test]
fn a_card_reader_is_pulled_and_plugged_in_again_and_its_statistics_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = start(folder.path(), Bus::UsbReader, 1003, STAY, false);
    guest.watch.wait_for("Wr\n", LIMIT).unwrap();
    assert!(guest.plug("m").unwrap_err().to_string().contains("no drive m that could be plugged in now"));
    guest.throttle("m", 1).unwrap();
    for _ in 0..2 {
        guest.unplug("m").unwrap();
        assert_eq!(traffic(&mut guest).0, 512);
        assert!(guest.unplug("slot").unwrap_err().to_string().contains("not plugged in"));
        guest.plug("slot").unwrap();
        assert_eq!(traffic(&mut guest).0, 512);
    }
    assert_eq!(guest.drive_statistics().unwrap().len(), 2);
    guest.throttle("m", 0).unwrap();
    assert!(guest.throttle("x", 0).is_err());
    assert!(guest.unplug("x").is_err());
    // What is plugged in boots as before: the node with the read errors stayed.
    guest.qmp.command("system_reset", &json!({})).unwrap();
    guest.watch.wait_for("Wr\n", LIMIT).unwrap();
    assert_eq!(traffic(&mut guest).0, 1024);
}

#[test]
fn words_survive_a_shell() {
    let words = ["-append", "a b 'c' \"d\"", "-m", "512"].map(OsString::from);
    let text = quoted(&words, " \\\n  ");
    let script = format!("printf '%s\\n' {text}");
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "-append\na b 'c' \"d\"\n-m\n512\n");
}
