//! QEMU's command line for a [`Machine`]: a pure function.
//!
//! The machine always has one virtual CPU (two under TCG crash a guest kernel now and then), a standard VGA, a serial
//! port, and a virtio-serial port named [`REPORT_PORT`]. QEMU connects to sockets that exist before it starts, so nobody
//! has to wait for a socket to appear. Does not look at the file system and starts nothing.

use super::drives;
use super::firmware::UefiFiles;
use super::machine::{Accelerator, AcpiTable, Backend, Firmware, Machine, NetworkCard, Start};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Name of the virtio-serial port on which a test payload reports.
pub const REPORT_PORT: &str = "sino.report";
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
    for table in &machine.acpi_tables {
        acpi_table(&mut line, table);
    }
    for (option, value) in drives::arguments(machine) {
        line.words([option, &value]);
    }
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
    match start {
        Start::FromDrives => {}
        Start::Kernel { kernel, initrd, append } => {
            line.path("-kernel", kernel);
            line.path("-initrd", initrd);
            line.words(["-append", append]);
        }
        Start::Xen { xen, options, kernel, append, initrd } => {
            line.path("-kernel", xen);
            line.words(["-append", options]);
            // A list of modules: a comma within one is written twice.
            line.option("-initrd", [&*format!("{} {append}", kernel.display()), &*initrd.display().to_string()]);
        }
    }
}

fn acpi_table(line: &mut Line, table: &AcpiTable) {
    let (signature, data) = (format!("sig={}", table.signature), format!("data={}", table.data.display()));
    line.option("-acpitable", [&*signature, &data]);
}

fn network(line: &mut Line, index: usize, card: &NetworkCard) {
    let (id, netdev) = (format!("id=net{index}"), format!("netdev=net{index}"));
    let backend: Vec<String> = match &card.backend {
        // Port 0: the host picks a free one, and `Qmp::forwarded_port` asks which.
        Backend::User { forward } => ["user".to_owned(), id]
            .into_iter()
            .chain(forward.iter().map(|port| format!("hostfwd=tcp:127.0.0.1:0-:{port}")))
            .collect(),
        Backend::Tap(name) => {
            ["tap", &id, &format!("ifname={name}"), "script=no", "downscript=no", "vhost=off"].map(str::to_owned).into()
        }
        Backend::Datagrams { local, remote } => {
            let socket = |side: &str, path: &Path| {
                [format!("{side}.type=unix"), format!("{side}.path={}", path.display())].into_iter()
            };
            ["dgram".to_owned(), id].into_iter().chain(socket("local", local)).chain(socket("remote", remote)).collect()
        }
        // A hub of its own: a card without any backend could not lose its carrier.
        Backend::None => ["hubport".to_owned(), id, format!("hubid={index}")].into(),
    };
    line.option("-netdev", backend.iter().map(String::as_str));
    let (device, mac) = (format!("id={}", card_id(index)), card.mac.as_ref().map(|mac| format!("mac={mac}")));
    let parts: Vec<&str> = [&*card.model, &netdev, &device].into_iter().chain(mac.as_deref()).collect();
    line.device(&parts);
}

/// What QEMU calls a machine's network card; it counts from 0.
#[must_use]
pub fn card_id(index: usize) -> String {
    format!("card{index}")
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
pub(super) mod tests {
    use super::*;
    use crate::qemu::{Bus, Drive};

    /// A machine with nothing in it.
    pub(in crate::qemu) fn machine() -> Machine {
        Machine {
            name: "test".into(),
            accelerator: Accelerator::Tcg,
            firmware: Firmware::Bios,
            start: Start::FromDrives,
            memory_mib: 1024,
            drives: Vec::new(),
            network: Vec::new(),
            namespace: None,
            acpi_tables: Vec::new(),
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
    fn xen_has_the_kernel_with_its_command_line_and_the_initramfs_as_modules() {
        let mut machine = machine();
        machine.start = Start::Xen {
            xen: "/xen".into(),
            options: "com1=115200,8n1".into(),
            kernel: "/k".into(),
            append: "console=hvc0 a=1,2".into(),
            initrd: "/i".into(),
        };
        let words = arguments(&machine, &Channels::Terminal);
        for word in ["/xen", "com1=115200,8n1", "/k console=hvc0 a=1,,2,/i"] {
            assert!(words.contains(&OsString::from(word)), "{word}: {words:?}");
        }
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
    fn an_acpi_table_is_a_signature_and_data() {
        let mut machine = machine();
        machine.acpi_tables = vec![AcpiTable { signature: "VTOY".into(), data: "/odd,name".into() }];
        assert!(text(&machine).contains("-acpitable sig=VTOY,data=/odd,,name"));
    }

    #[test]
    fn a_forwarded_port_is_the_hosts_choice() {
        let mut machine = machine();
        machine.network = vec![NetworkCard::user("e1000", &[22])];
        let text = text(&machine);
        assert!(
            text.contains("-netdev user,id=net0,hostfwd=tcp:127.0.0.1:0-:22 -device e1000,netdev=net0,id=card0"),
            "{text}"
        );
    }

    #[test]
    fn a_card_is_on_a_tap_on_sockets_or_on_nothing() {
        let mut machine = machine();
        let card =
            |backend| NetworkCard { model: "virtio-net-pci".into(), mac: Some("52:54:00:00:00:01".into()), backend };
        machine.network = vec![
            card(Backend::Tap("tap0".into())),
            card(Backend::Datagrams { local: "/s/q".into(), remote: "/s/t".into() }),
            card(Backend::None),
        ];
        let text = text(&machine);
        assert!(text.contains("-netdev tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off"), "{text}");
        assert!(text.contains("-device virtio-net-pci,netdev=net0,id=card0,mac=52:54:00:00:00:01"), "{text}");
        let datagrams = "dgram,id=net1,local.type=unix,local.path=/s/q,remote.type=unix,remote.path=/s/t";
        assert!(text.contains(datagrams), "{text}");
        assert!(text.contains("-netdev hubport,id=net2,hubid=2 -device virtio-net-pci,netdev=net2,id=card2"), "{text}");
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
