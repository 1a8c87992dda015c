//! QEMU's command line for a [`Machine`]: a pure function.
//!
//! The machine always has one virtual CPU (two under TCG crash a guest kernel now and then), a standard VGA, a serial
//! port, and a virtio-serial port named [`REPORT_PORT`]. QEMU connects to sockets that exist before it starts, so nobody
//! has to wait for a socket to appear. Does not look at the file system and starts nothing.

use super::firmware::UefiFiles;
use super::machine::{Accelerator, Bus, Drive, Firmware, Machine, NetworkCard, Start};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Name of the virtio-serial port on which a test payload reports.
pub const REPORT_PORT: &str = "sino.report";
/// A drive's device is named like the drive with this behind it, for [`super::qmp::Qmp::unplug`].
pub const DEVICE_SUFFIX: &str = "-device";
/// The processor that boots both Linux and Xen under TCG; `max` and `EPYC` break dom0.
const TCG_PROCESSOR: &str = "qemu64,+ssse3,+sse4.1,+sse4.2,+svm,+npt";

/// Where the machine's serial port, report port and control channel lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channels {
    /// To the listening sockets `serial`, `report` and `control` in this folder.
    Sockets(PathBuf),
    /// Serial port and monitor to the terminal (Ctrl-A c changes between them), report port to nowhere.
    Terminal,
}

/// The arguments for the machine.
#[must_use]
pub fn arguments(machine: &Machine, channels: &Channels) -> Vec<OsString> {
    let mut line = Line::default();
    line.option("-name", [&*machine.name]);
    line.words(["-nodefaults", "-no-user-config", "-machine", "pc", "-smp", "1"]);
    match machine.accelerator {
        Accelerator::Tcg => line.words(["-accel", "tcg", "-cpu", TCG_PROCESSOR]),
        Accelerator::Kvm => line.words(["-accel", "kvm", "-cpu", "host"]),
    }
    line.words(["-m", &machine.memory_mib.to_string(), "-display", "none", "-vga", "std", "-rtc", "base=utc"]);
    if machine.reset_ends {
        line.words(["-no-reboot"]);
    }
    firmware(&mut line, &machine.firmware);
    start(&mut line, &machine.start);
    drives(&mut line, machine);
    for (index, card) in machine.network.iter().enumerate() {
        network(&mut line, index, card);
    }
    wire(&mut line, channels);
    line.0
}

/// The arguments under construction.
#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn words<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.0.extend(words.into_iter().map(OsString::from));
    }

    /// An option whose value is a comma-separated list; a comma inside a part is doubled, as QEMU wants it.
    fn option<'a>(&mut self, name: &str, parts: impl IntoIterator<Item = &'a str>) {
        let value: Vec<String> = parts.into_iter().map(|part| part.replace(',', ",,")).collect();
        self.words([name, &value.join(",")]);
    }

    fn path(&mut self, name: &str, path: &Path) {
        self.words([name]);
        self.0.push(path.as_os_str().to_owned());
    }

    fn device(&mut self, parts: &[&str]) {
        self.option("-device", parts.iter().copied());
    }
}

fn firmware(line: &mut Line, firmware: &Firmware) {
    match firmware {
        Firmware::Bios => {}
        Firmware::Uefi(UefiFiles::Whole(file)) => line.path("-bios", file),
        Firmware::Uefi(UefiFiles::Flash { code, variables }) => {
            let (code, variables) = (format!("file={}", code.display()), format!("file={}", variables.display()));
            line.option("-drive", ["if=pflash", "unit=0", "format=raw", "readonly=on", &*code]);
            line.option("-drive", ["if=pflash", "unit=1", "format=raw", "snapshot=on", &*variables]);
        }
    }
}

fn start(line: &mut Line, start: &Start) {
    if let Start::Kernel { kernel, initrd, append } = start {
        line.path("-kernel", kernel);
        line.path("-initrd", initrd);
        line.words(["-append", append]);
    }
}

fn drives(line: &mut Line, machine: &Machine) {
    let drives = &machine.drives;
    let any = |buses: &[Bus]| drives.iter().any(|drive| buses.contains(&drive.bus));
    if any(&[Bus::UsbStick, Bus::UsbStickBehindHub, Bus::UsbUas]) {
        line.device(&["qemu-xhci", "id=xhci", "p2=8", "p3=8"]);
    }
    if any(&[Bus::UsbStickBehindHub]) {
        line.device(&["usb-hub", "id=hub", "bus=xhci.0", "port=8"]);
    }
    if any(&[Bus::Sata]) {
        line.device(&["ich9-ahci", "id=ahci"]);
    }
    if any(&[Bus::VirtioScsi]) {
        line.device(&["virtio-scsi-pci", "id=scsi"]);
    }
    for (index, drive) in drives.iter().enumerate() {
        let place = drives.iter().take(index).filter(|other| other.bus == drive.bus).count();
        // QEMU takes the kernel that it loads itself for the first in the boot order.
        let boot_index = drive.boot_index.filter(|_| machine.start == Start::FromDrives);
        attach(line, drive, boot_index, place);
    }
}

/// One drive; `place` counts the drives before it on the same bus.
fn attach(line: &mut Line, drive: &Drive, boot_index: Option<u32>, place: usize) {
    let file = format!("file={}", drive.file.display());
    let id = format!("id={}", drive.name);
    let mut parts = vec!["if=none", "format=raw", &*id, &*file];
    match (drive.bus, drive.keep_writes) {
        (Bus::Cdrom, _) => parts.extend(["media=cdrom", "readonly=on"]),
        (_, false) => parts.push("snapshot=on"),
        (_, true) => {}
    }
    line.option("-drive", parts);
    if !drive.plugged_later {
        for device in devices(drive, boot_index, place) {
            line.words(["-device", &device]);
        }
    }
}

/// What has to be plugged in for a drive of the machine that is not there from the beginning, in order.
#[must_use]
pub fn later_devices(machine: &Machine, name: &str) -> Vec<String> {
    let drive = machine.drives.iter().position(|drive| drive.name == name && drive.plugged_later);
    let Some((index, drive)) = drive.and_then(|index| Some((index, machine.drives.get(index)?))) else {
        return Vec::new();
    };
    let place = machine.drives.iter().take(index).filter(|other| other.bus == drive.bus).count();
    devices(drive, None, place)
}

/// The values of `-device` for a drive, with the devices between it and its bus in front.
fn devices(drive: &Drive, boot_index: Option<u32>, place: usize) -> Vec<String> {
    let port = place + 1;
    let mut devices = Vec::new();
    let on = match drive.bus {
        Bus::UsbStick => "usb-storage,bus=xhci.0,removable=on".to_owned(),
        Bus::UsbStickBehindHub => format!("usb-storage,bus=xhci.0,removable=on,port=8.{port}"),
        Bus::UsbUas => {
            devices.push(format!("usb-uas,bus=xhci.0,id=uas{place}"));
            format!("scsi-hd,bus=uas{place}.0")
        }
        Bus::Cdrom => format!("ide-cd,bus=ide.{}", 1 - place.min(1)),
        Bus::Ide => format!("ide-hd,bus=ide.{},unit={}", place / 2, place % 2),
        Bus::Sata => format!("ide-hd,bus=ahci.{place}"),
        Bus::Nvme => "nvme".to_owned(),
        Bus::Virtio => "virtio-blk-pci".to_owned(),
        Bus::VirtioScsi => "scsi-hd,bus=scsi.0".to_owned(),
        Bus::SdCard => {
            devices.push(format!("sdhci-pci,id=reader{place}"));
            "sd-card".to_owned()
        }
    };
    let name = &drive.name;
    let mut device = format!("{on},id={name}{DEVICE_SUFFIX},drive={name}");
    if drive.bus != Bus::SdCard {
        // An SD card has neither a serial number nor a place in the boot order.
        device.extend([",serial=", name]);
        device.extend(boot_index.map(|index| format!(",bootindex={index}")));
    }
    devices.push(device);
    devices
}

fn network(line: &mut Line, index: usize, card: &NetworkCard) {
    let (id, netdev) = (format!("id=net{index}"), format!("netdev=net{index}"));
    // Port 0: the host picks a free one, and `Guest::forwarded_port` asks which.
    let forwards: Vec<String> = card.forward.iter().map(|port| format!("hostfwd=tcp:127.0.0.1:0-:{port}")).collect();
    line.option("-netdev", ["user", &*id].into_iter().chain(forwards.iter().map(String::as_str)));
    line.device(&[&card.model, &netdev]);
}

fn wire(line: &mut Line, channels: &Channels) {
    match channels {
        Channels::Sockets(folder) => {
            for name in ["control", "serial", "report"] {
                let path = format!("path={}", folder.join(name).display());
                line.option("-chardev", ["socket", &format!("id={name}"), &path]);
            }
            line.words(["-mon", "chardev=control,mode=control", "-serial", "chardev:serial"]);
        }
        Channels::Terminal => {
            line.words(["-serial", "mon:stdio", "-chardev", "null,id=report"]);
        }
    }
    line.words(["-device", "virtio-serial-pci"]);
    line.device(&["virtserialport", "chardev=report", &format!("name={REPORT_PORT}")]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            name: "test".into(),
            accelerator: Accelerator::Tcg,
            firmware: Firmware::Bios,
            start: Start::FromDrives,
            memory_mib: 1024,
            drives: Vec::new(),
            network: Vec::new(),
            reset_ends: true,
        }
    }

    fn text(machine: &Machine) -> String {
        let words = arguments(machine, &Channels::Sockets("/s".into()));
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_processor_under_tcg_that_boots_xen() {
        let text = text(&machine());
        assert!(text.contains("-smp 1 -accel tcg -cpu qemu64,+ssse3,+sse4.1,+sse4.2,+svm,+npt"), "{text}");
        assert!(text.contains("-nodefaults") && text.contains("-display none -vga std") && text.contains("-no-reboot"));
    }

    #[test]
    fn every_bus_has_its_controller_once_and_its_drive() {
        let cases = [
            (Bus::UsbStick, "usb-storage,bus=xhci.0,removable=on,id=m-device,drive=m,serial=m,bootindex=0"),
            (
                Bus::UsbStickBehindHub,
                "usb-storage,bus=xhci.0,removable=on,port=8.1,id=m-device,drive=m,serial=m,bootindex=0",
            ),
            (
                Bus::UsbUas,
                "usb-uas,bus=xhci.0,id=uas0 -device scsi-hd,bus=uas0.0,id=m-device,drive=m,serial=m,bootindex=0",
            ),
            (Bus::Cdrom, "ide-cd,bus=ide.1,id=m-device,drive=m,serial=m,bootindex=0"),
            (Bus::Ide, "ide-hd,bus=ide.0,unit=0,id=m-device,drive=m,serial=m,bootindex=0"),
            (Bus::Sata, "ich9-ahci,id=ahci -drive"),
            (Bus::Nvme, "-device nvme,id=m-device,drive=m,serial=m,bootindex=0"),
            (Bus::Virtio, "-device virtio-blk-pci,id=m-device,drive=m,serial=m,bootindex=0"),
            (Bus::VirtioScsi, "-device scsi-hd,bus=scsi.0,id=m-device,drive=m,serial=m,bootindex=0"),
            (Bus::SdCard, "-device sdhci-pci,id=reader0 -device sd-card,id=m-device,drive=m -"),
        ];
        for (bus, wanted) in cases {
            let mut machine = machine();
            machine.drives = vec![Drive::new("m", bus, "/x.iso").boot(0), Drive::new("n", Bus::UsbStick, "/y")];
            let text = text(&machine);
            assert!(text.contains(wanted), "{bus:?}: {text}");
            assert_eq!(text.matches("qemu-xhci").count(), 1, "{bus:?}: {text}");
        }
    }

    #[test]
    fn a_drive_that_comes_later_has_its_file_and_controller_but_no_device() {
        let mut machine = machine();
        let later = Drive { plugged_later: true, ..Drive::new("b", Bus::UsbUas, "/b") };
        machine.drives = vec![Drive::new("a", Bus::UsbUas, "/a"), later];
        let text = text(&machine);
        assert!(text.contains("id=b,file=/b") && !text.contains("b-device"), "{text}");
        assert_eq!(
            later_devices(&machine, "b"),
            ["usb-uas,bus=xhci.0,id=uas1", "scsi-hd,bus=uas1.0,id=b-device,drive=b,serial=b"]
        );
        assert!(later_devices(&machine, "a").is_empty());
    }

    #[test]
    fn what_a_guest_writes_never_reaches_a_medium() {
        let mut machine = machine();
        machine.drives = vec![Drive::new("a", Bus::UsbStick, "/a"), Drive::new("b", Bus::Cdrom, "/b")];
        let text = text(&machine);
        assert!(text.contains("if=none,format=raw,id=a,file=/a,snapshot=on"), "{text}");
        assert!(text.contains("if=none,format=raw,id=b,file=/b,media=cdrom,readonly=on"), "{text}");
    }

    #[test]
    fn a_kernel_with_its_command_line_is_one_argument_with_its_commas() {
        let mut machine = machine();
        machine.drives = vec![Drive::new("m", Bus::Virtio, "/x").boot(0)];
        let append = "console=ttyS0,115200 sino.ram".to_owned();
        machine.start = Start::Kernel { kernel: "/k".into(), initrd: "/i".into(), append: append.clone() };
        let words = arguments(&machine, &Channels::Terminal);
        assert!(words.contains(&OsString::from(append)));
        // QEMU refuses the index 0 of a drive beside a kernel.
        assert!(!words.iter().any(|word| word.to_string_lossy().contains("bootindex")));
    }

    #[test]
    fn uefi_as_one_file_or_as_flash_that_keeps_nothing() {
        let mut machine = machine();
        machine.firmware = Firmware::Uefi(UefiFiles::Whole("/f.fd".into()));
        assert!(text(&machine).contains("-bios /f.fd"));
        machine.firmware = Firmware::Uefi(UefiFiles::Flash { code: "/c".into(), variables: "/v".into() });
        let text = text(&machine);
        assert!(text.contains("if=pflash,unit=0,format=raw,readonly=on,file=/c"), "{text}");
        assert!(text.contains("if=pflash,unit=1,format=raw,snapshot=on,file=/v"), "{text}");
    }

    #[test]
    fn a_comma_in_a_path_does_not_end_it() {
        let mut machine = machine();
        machine.drives = vec![Drive::new("a", Bus::Virtio, "/odd,name")];
        assert!(text(&machine).contains("file=/odd,,name,snapshot=on"));
    }

    #[test]
    fn a_forwarded_port_is_the_hosts_choice() {
        let mut machine = machine();
        machine.network = vec![NetworkCard { model: "e1000".into(), forward: vec![22] }];
        let text = text(&machine);
        assert!(text.contains("-netdev user,id=net0,hostfwd=tcp:127.0.0.1:0-:22 -device e1000,netdev=net0"), "{text}");
    }

    #[test]
    fn the_channels_are_sockets_or_the_terminal() {
        let text = text(&machine());
        assert!(text.contains("-chardev socket,id=serial,path=/s/serial"), "{text}");
        assert!(text.contains("-mon chardev=control,mode=control -serial chardev:serial"), "{text}");
        assert!(text.contains("virtserialport,chardev=report,name=sino.report"), "{text}");
        let terminal = arguments(&machine(), &Channels::Terminal);
        assert!(terminal.contains(&OsString::from("mon:stdio")));
    }
}
