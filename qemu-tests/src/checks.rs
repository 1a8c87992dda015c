//! Judges what the payload reported: each check adds a sentence to a list of complaints; an empty list is a pass.
//!
//! Pure: takes the scenario, facts about the image and the report. Every check looks at an effect (what is mounted, what
//! the kernel displays, which device is in use), not at words that the boot was given.

use crate::report::{ReadAll, Report};
use crate::scenario::{Begin, Booted, Content, FirmwareKind, Scenario};
use sino_boot::layout;
use sino_boot::record::{BootRecord, Outcome, Verified};
use sino_image::qemu::Bus;
use sino_image::qemu::qmp::DriveStatistics;

/// Stage one's steps, in order; a boot record has all of them, whatever the flags.
pub const STAGE_ONE: [&str; 9] = [
    "read-flags",
    "read-manifest",
    "load-drivers",
    "find-medium",
    "check-medium",
    "copy-to-ram",
    "mount-image",
    "stack-root",
    "check-root",
];

/// Facts about the image that was booted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its build id.
    pub build_id: String,
    /// Its kernel.
    pub kernel_release: String,
    /// The random text in its root.
    pub marker: String,
    /// dom0's memory in MiB for the entry that was chosen; `None` without Xen.
    pub dom0_mib: Option<u64>,
    /// Length of the drive that the root must come from.
    pub medium_bytes: u64,
}

/// Part of dom0's memory that its kernel does not count as usable, at most, in percent and MiB.
const KERNEL_SHARE: (u64, u64) = (10, 128);

/// The largest screen that a console may have: any more is the firmware's choice, not ours.
const MOST_PIXELS: u32 = 1920 * 1200;

/// What is wrong with a boot that should have reached the payload. `screen` is the size of what the machine displays.
#[must_use]
pub fn booted(
    scenario: &Scenario,
    wanted: Booted,
    image: &ImageFacts,
    report: &Report,
    screen: (u32, u32),
) -> Vec<String> {
    let mut wrong = report.complaints.clone();
    let mut check = |right: bool, sentence: String| {
        if !right {
            wrong.push(sentence);
        }
    };
    let on_ram = wanted.in_ram.unwrap_or(scenario.begin.on_ram());
    let has = |flag: &str| report.command_line.split(' ').any(|word| word == flag);
    let said = if on_ram { "may be removed" } else { "DO NOT REMOVE" };
    check(report.issue.contains(said), format!("above the login stands {:?}", report.issue));
    check(report.pid == 1, format!("the payload is process {}, not 1", report.pid));
    check(
        report.kernel_release == image.kernel_release,
        format!("kernel {} runs, the image has {}", report.kernel_release, image.kernel_release),
    );
    check(
        report.marker == image.marker,
        format!("the root's marker is {:?}, not {:?}: another root", report.marker, image.marker),
    );
    check(report.root_write_error.is_empty(), format!("the root takes no writes: {}", report.root_write_error));
    check(report.open_files.is_empty(), format!("files were left open: {:?}", report.open_files));
    let root = report.mounted_at("/").map(|mount| mount.fs.as_str());
    check(root == Some("overlay"), format!("the root is {root:?}, not an overlay"));
    let lower = report.mounted_at(layout::LOWER).cloned().unwrap_or_default();
    check(lower.fs == "squashfs", format!("{} is {:?}, not a squashfs", layout::LOWER, lower.fs));
    let place = if on_ram { layout::RAM } else { layout::MEDIUM };
    // From the medium dm-verity lies between the squashfs and the loop device; a copy in RAM was verified as a whole.
    let verified = report.mapped.iter().find(|(device, ..)| lower.source == format!("/dev/{device}"));
    check(
        verified.is_some() == (!on_ram && !has("sino.verify=off")),
        format!("the lower layer is {}, mapped devices: {:?}", lower.source, report.mapped),
    );
    let below = match verified {
        Some((_, own, below)) if own == layout::VERITY_DEVICE => format!("/dev/{below}"),
        _ => lower.source.clone(),
    };
    let (device, file) = report
        .loops
        .iter()
        .find(|(device, _)| below == format!("/dev/{device}"))
        .cloned()
        .unwrap_or_else(|| (lower.source.clone(), "nothing".to_owned()));
    check(
        file.contains(place),
        format!("behind the lower layer ({device}) is {file}, not a file below {place}; loops: {:?}", report.loops),
    );
    let medium_mounted = report.mounted_at(layout::MEDIUM).is_some();
    check(medium_mounted != on_ram, format!("the medium is mounted: {medium_mounted}, root in RAM: {on_ram}"));
    if on_ram {
        let pages = wrong_pages(report);
        check(pages.is_none(), pages.unwrap_or_default());
    }
    for mount in &report.mounts {
        let writable = mount.options.split(',').any(|option| option == "rw");
        let real_device = mount.source.starts_with("/dev/") && mount.fs != "devtmpfs";
        check(!(writable && real_device), format!("{} is mounted writable on {}", mount.source, mount.target));
    }
    wrong.extend(platform(scenario, image, report));
    wrong.extend(picture(report, screen));
    wrong.extend(record(scenario, wanted, image, report));
    wrong
}

/// The copy's tmpfs has huge pages, but not in a PV dom0, whose kernel has none.
fn wrong_pages(report: &Report) -> Option<String> {
    let Some(mount) = report.mounted_at(layout::RAM) else { return Some("nothing is mounted for the copy".to_owned()) };
    let huge = mount.fs_options.split(',').any(|option| option == "huge=always");
    let wrong = huge != report.hypervisor.is_none();
    wrong.then(|| format!("the copy's tmpfs has the options {}, hypervisor {:?}", mount.fs_options, report.hypervisor))
}

/// Xen, flags, video, memory.
fn platform(scenario: &Scenario, image: &ImageFacts, report: &Report) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |right: bool, sentence: String| {
        if !right {
            wrong.push(sentence);
        }
    };
    let has = |flag: &str| report.command_line.split(' ').any(|word| word == flag);
    match scenario.begin {
        Begin::Direct(_) => {
            check(report.hypervisor.is_none(), format!("hypervisor {:?} without Xen", report.hypervisor));
        }
        Begin::Menu(entry) => {
            check(report.hypervisor.as_deref() == Some("xen"), format!("hypervisor {:?}, not Xen", report.hypervisor));
            check(has("sino.ram") == entry.on_ram(), format!("flags of another entry: {}", report.command_line));
            check(has("nomodeset") == entry.advanced(), format!("flags of another entry: {}", report.command_line));
            check(
                has("sino.autostart=off") == entry.without_guests(),
                format!("flags of another entry: {}", report.command_line),
            );
            check(report.consoles.contains("hvc0"), format!("consoles {:?} without hvc0", report.consoles));
            let (screen, framebuffers) = (&report.screen_consoles, &report.framebuffers);
            let text = framebuffers.is_empty() && screen.iter().any(|name| name.contains("VGA"));
            let graphics = !framebuffers.is_empty() && screen.iter().any(|name| name.contains("frame buffer"));
            match (scenario.firmware, entry.advanced()) {
                (FirmwareKind::Bios, true) => {
                    check(text, format!("no text mode: framebuffers {framebuffers:?}, screen {screen:?}"));
                }
                // UEFI has no text mode: "advanced" keeps the firmware's own framebuffer and no driver's.
                (FirmwareKind::Uefi, true) => {
                    let own = framebuffers.iter().all(|line| line.contains("EFI VGA"));
                    check(own, format!("\"advanced\" has the framebuffers {framebuffers:?}, not only the firmware's"));
                }
                (_, false) => {
                    check(graphics, format!("no framebuffer: {framebuffers:?}, screen {screen:?}"));
                }
            }
        }
    }
    if let Some(mib) = image.dom0_mib {
        let (percent, fixed) = KERNEL_SHARE;
        let (most, seen) = (mib * 1024, report.memory_kib);
        let least = most - most * percent / 100 - fixed * 1024;
        check((least..=most).contains(&seen), format!("dom0 has {seen} KiB, the entry says {mib} MiB"));
    }
    wrong
}

/// Whether the kernel draws into the picture that the machine displays. If it believes in another size, the screen shows
/// nothing that a person can read; and a picture of many more pixels than asked for makes the console slow.
fn picture(report: &Report, (width, height): (u32, u32)) -> Vec<String> {
    let drawn = &report.framebuffer_size;
    if drawn.is_empty() || *drawn == format!("{width},{height}") {
        let large = !drawn.is_empty() && width * height > MOST_PIXELS;
        return large.then(|| format!("the screen has {width}x{height} pixels")).into_iter().collect();
    }
    vec![format!("the kernel draws into {drawn}, the machine displays {width}x{height}: unreadable")]
}

/// What `/run/sino/boot.json` says.
fn record(scenario: &Scenario, wanted: Booted, image: &ImageFacts, report: &Report) -> Vec<String> {
    let record: BootRecord = match serde_json::from_value(report.boot_record.clone()) {
        Ok(record) => record,
        Err(error) => return vec![format!("{} is not a boot record: {error}", layout::BOOT_RECORD)],
    };
    let mut wrong = Vec::new();
    let mut check = |right: bool, sentence: String| {
        if !right {
            wrong.push(sentence);
        }
    };
    check(record.build_id == image.build_id, format!("build {:?}, not {:?}", record.build_id, image.build_id));
    check(record.command_line == report.command_line, "the record has another command line".to_owned());
    let medium = record.medium.clone().unwrap_or_default();
    check(medium.build_id == image.build_id, format!("the medium in the record is {medium:?}"));
    let in_ram = wanted.in_ram.unwrap_or(scenario.begin.on_ram());
    check(medium.in_ram == in_ram, format!("the medium in the record is {medium:?}"));
    let verified = match (in_ram, report.command_line.split(' ').any(|word| word == "sino.verify=off")) {
        (true, _) => Verified::Blake3,
        (false, true) => Verified::No,
        (false, false) => Verified::DmVerity,
    };
    check(medium.verified == verified, format!("the medium in the record is {medium:?}, not {verified:?}"));
    let drive = scenario.drives.iter().find(|drive| drive.name == wanted.medium);
    let on_volume = drive.is_some_and(|drive| matches!(drive.content, Content::IsoOnVolume(_)));
    let device = report
        .block_devices
        .iter()
        .filter(|(name, _)| medium.device.strip_prefix("/dev/").unwrap_or(&medium.device).starts_with(name.as_str()))
        .max_by_key(|(name, _)| name.len());
    check(
        on_volume || device.is_some_and(|(_, bytes)| *bytes == image.medium_bytes),
        format!("the medium {medium:?} has not the {} bytes of ours: {device:?}", image.medium_bytes),
    );
    if on_volume {
        let said = &medium.description;
        check(said.starts_with("logical volume xvg/xvol"), format!("the medium is described as {said:?}"));
    } else if let Some(drive) = drive {
        let bus = bus_word(drive.bus);
        let said = medium.description.to_lowercase();
        check(said.contains(bus), format!("the medium is described as {said:?}, but it is on {bus}"));
    }
    let steps: Vec<&str> =
        record.steps.iter().filter(|step| step.stage == "stage-one").map(|step| step.step.as_str()).collect();
    check(steps == STAGE_ONE, format!("stage one's steps were {steps:?}"));
    check(record.steps.iter().any(|step| step.stage == "stage-two"), "stage two left no step in the record".to_owned());
    for step in record.steps.iter().filter(|step| step.outcome == Outcome::Failed) {
        check(false, format!("step {} failed: {}", step.step, step.detail));
    }
    let mut unexpected = record.warnings.clone();
    for text in wanted.warnings {
        match unexpected.iter().position(|warning| warning.contains(text)) {
            Some(index) => drop(unexpected.remove(index)),
            None => check(false, format!("no warning has {text:?}: {:?}", record.warnings)),
        }
    }
    check(unexpected.is_empty(), format!("warnings: {unexpected:?}"));
    wrong
}

/// How people call what a drive hangs on.
fn bus_word(bus: Bus) -> &'static str {
    match bus {
        Bus::UsbStick | Bus::UsbStickBehindHub | Bus::UsbUas | Bus::UsbReader => "usb",
        Bus::Cdrom | Bus::Ide | Bus::Sata => "ata",
        Bus::Nvme => "nvme",
        Bus::Virtio | Bus::VirtioScsi => "virtio",
        Bus::SdCard => "mmc",
    }
}

/// What is wrong with the reading of every file.
#[must_use]
pub fn all_read(result: &ReadAll) -> Vec<String> {
    let mut wrong: Vec<String> = result.errors.iter().take(5).map(|error| format!("unreadable: {error}")).collect();
    if result.files == 0 {
        wrong.push("the root has no files".to_owned());
    }
    wrong
}

/// What is wrong when exactly these files give I/O errors.
#[must_use]
pub fn all_read_but(result: &ReadAll, files: &[&str]) -> Vec<String> {
    let concerns = |error: &str, file: &str| error.starts_with(&format!("{file}: ")) && error.contains("os error 5");
    let mut wrong: Vec<String> = result
        .errors
        .iter()
        .filter(|error| !files.iter().any(|file| concerns(error, file)))
        .map(|error| format!("unreadable: {error}"))
        .collect();
    let silent = files.iter().filter(|file| !result.errors.iter().any(|error| concerns(error, file)));
    wrong.extend(silent.map(|file| format!("{file} was read without an I/O error")));
    wrong
}

/// What is wrong when the medium is gone: there must be errors.
#[must_use]
pub fn some_unread(result: &ReadAll) -> Vec<String> {
    if result.errors.is_empty() {
        vec!["every file was read, although the medium is gone".to_owned()]
    } else {
        Vec::new()
    }
}

fn record_of(report: &Report) -> BootRecord {
    serde_json::from_value(report.boot_record.clone()).unwrap_or_default()
}

/// What is wrong when a copy in the background is complete.
#[must_use]
pub fn may_be_removed(report: &Report) -> Vec<String> {
    let medium = record_of(report).medium.unwrap_or_default();
    let mut wrong = Vec::new();
    if !(medium.in_ram && medium.may_be_removed && medium.copy.is_none() && medium.trouble.is_none()) {
        wrong.push(format!("the record says {medium:?}"));
    }
    if !report.issue.contains("may be removed") {
        wrong.push(format!("above the login stands {:?}", report.issue));
    }
    for place in [layout::MEDIUM, layout::CARRIER] {
        if report.mounted_at(place).is_some() {
            wrong.push(format!("{place} is still mounted"));
        }
    }
    let elsewhere =
        report.loops.iter().filter(|(_, file)| !file.contains("sino-ram") && !file.starts_with(layout::RAM));
    wrong.extend(
        elsewhere.filter(|(_, file)| file != "/root.squashfs").map(|it| format!("a loop device is still over {it:?}")),
    );
    wrong
}

/// What is wrong when this must be said of the medium.
#[must_use]
pub fn trouble(report: &Report, text: &str) -> Vec<String> {
    let trouble = record_of(report).medium.and_then(|medium| medium.trouble).unwrap_or_default();
    let mut wrong = Vec::new();
    for (place, said) in [("the record", &trouble), ("the text above the login", &report.issue)] {
        if !said.contains(text) {
            wrong.push(format!("{place} says {said:?}, without {text:?}"));
        }
    }
    wrong
}

/// What is wrong when the record must have a warning with this text.
#[must_use]
pub fn warns(report: &Report, text: &str) -> Vec<String> {
    let warnings = record_of(report).warnings;
    if warnings.iter().any(|warning| warning.contains(text)) {
        return Vec::new();
    }
    vec![format!("no warning has {text:?}: {warnings:?}")]
}

/// Every drive that was written to.
#[must_use]
pub fn nothing_written(drives: &[DriveStatistics], expected: usize) -> Vec<String> {
    let mut wrong: Vec<String> = drives
        .iter()
        .filter(|drive| drive.written_bytes > 0 || drive.writes > 0)
        .map(|drive| format!("{} bytes in {} writes went to drive {}", drive.written_bytes, drive.writes, drive.name))
        .collect();
    if drives.len() < expected {
        wrong.push(format!("QEMU has statistics of {} drives, the machine has {expected}", drives.len()));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Mounted;
    use crate::scenario::{Entry, Expect};

    fn scenario(entry: Entry) -> Scenario {
        let all = crate::list::scenarios();
        let is_it = |scenario: &Scenario| {
            scenario.begin == Begin::Menu(entry)
                && scenario.firmware == FirmwareKind::Bios
                && matches!(scenario.expect, Expect::Booted(_))
        };
        all.into_iter().find(is_it).unwrap()
    }

    fn wanted(scenario: &Scenario) -> Booted {
        match scenario.expect {
            Expect::Booted(wanted) => wanted,
            other => panic!("{other:?}"),
        }
    }

    fn facts() -> ImageFacts {
        ImageFacts {
            build_id: "20261123-a1".into(),
            kernel_release: "6.12".into(),
            marker: "tiny".into(),
            dom0_mib: Some(1024),
            medium_bytes: 4096,
        }
    }

    fn mount(target: &str, fs: &str, source: &str, options: &str) -> Mounted {
        Mounted {
            target: target.into(),
            fs: fs.into(),
            source: source.into(),
            options: options.into(),
            fs_options: String::new(),
        }
    }

    /// What a good boot of the entry "SINO" from a stick reports.
    fn good() -> Report {
        let step = |stage: &str, step: &str| serde_json::json!({"stage": stage, "step": step, "start_us": 1, "duration_us": 1, "outcome": "done", "detail": ""});
        let mut steps: Vec<_> = STAGE_ONE.iter().map(|name| step("stage-one", name)).collect();
        steps.push(step("stage-two", "hand-over"));
        Report {
            pid: 1,
            command_line: "console=tty0 console=hvc0".into(),
            kernel_release: "6.12".into(),
            hypervisor: Some("xen".into()),
            mounts: vec![
                mount("/", "overlay", "overlay", "rw"),
                mount(layout::LOWER, "squashfs", "/dev/dm-0", "ro"),
                mount(layout::MEDIUM, "iso9660", "/dev/sda", "ro"),
            ],
            marker: "tiny".into(),
            memory_kib: 980_000,
            framebuffers: vec!["0 VESA VGA".into()],
            framebuffer_size: "1024,768".into(),
            screen_consoles: vec!["(M) frame buffer device".into()],
            consoles: "tty0 hvc0".into(),
            boot_record: serde_json::json!({
                "build_id": "20261123-a1", "command_line": "console=tty0 console=hvc0", "warnings": [], "steps": steps,
                "medium": {"device": "sda1", "description": "usb 2-1", "build_id": "20261123-a1", "in_ram": false, "verified": "dm-verity"},
            }),
            loops: vec![("loop0".into(), "/run/sino/medium/sino/root.squashfs".into())],
            mapped: vec![("dm-0".into(), layout::VERITY_DEVICE.into(), "loop0".into())],
            issue: "DO NOT REMOVE THE STICK".into(),
            block_devices: vec![("sda".into(), 4096), ("loop0".into(), 1)],
            ..Report::default()
        }
    }

    fn judge(report: &Report) -> Vec<String> {
        let scenario = scenario(Entry::Normal);
        booted(&scenario, wanted(&scenario), &facts(), report, (1024, 768))
    }

    #[test]
    fn a_good_boot_passes() {
        assert_eq!(judge(&good()), Vec::<String>::new());
    }

    #[test]
    fn every_effect_that_is_missing_is_noticed() {
        type Spoil = fn(&mut Report);
        let cases: [(&str, Spoil); 18] = [
            ("not 1", |report| report.pid = 7),
            ("another root", |report| report.marker = "other".into()),
            ("kernel 6.1", |report| report.kernel_release = "6.1".into()),
            ("not an overlay", |report| report.mounts[0].fs = "tmpfs".into()),
            ("not a squashfs", |report| report.mounts[1].fs = "ext4".into()),
            ("not a file below", |report| report.loops[0].1 = "/run/sino/ram/root.squashfs".into()),
            ("mapped devices", |report| report.mapped.clear()),
            ("above the login", |report| report.issue.clear()),
            ("mounted writable", |report| report.mounts[2].options = "rw".into()),
            ("medium is mounted: false", |report| drop(report.mounts.pop())),
            ("not Xen", |report| report.hypervisor = None),
            ("another entry", |report| report.command_line.push_str(" sino.ram")),
            ("no framebuffer", |report| report.framebuffers.clear()),
            ("unreadable", |report| report.framebuffer_size = "1280,800".into()),
            ("dom0 has", |report| report.memory_kib = 2_000_000),
            ("has not the 4096 bytes", |report| report.block_devices[0].1 = 8192),
            ("warnings", |report| report.boot_record["warnings"] = serde_json::json!(["odd"])),
            ("but it is on usb", |report| report.boot_record["medium"]["description"] = "ata".into()),
        ];
        for (word, spoil) in cases {
            let mut report = good();
            spoil(&mut report);
            let wrong = judge(&report);
            assert!(wrong.iter().any(|sentence| sentence.contains(word)), "{word}: {wrong:?}");
        }
    }

    #[test]
    fn a_copy_in_pages_of_the_wrong_size_is_noticed() {
        let mut report = good();
        assert!(wrong_pages(&report).is_some(), "no copy at all");
        report.mounts.push(mount(layout::RAM, "tmpfs", "sino-ram", "rw"));
        assert_eq!(wrong_pages(&report), None);
        report.hypervisor = None;
        assert!(wrong_pages(&report).is_some());
        report.mounts[3].fs_options = "rw,size=1024k,huge=always".into();
        assert_eq!(wrong_pages(&report), None);
    }

    #[test]
    fn failed_and_missing_steps_are_noticed() {
        let mut report = good();
        report.boot_record["steps"][3]["outcome"] = "failed".into();
        assert!(judge(&report).iter().any(|sentence| sentence.contains("find-medium failed")));
        report.boot_record["steps"] = serde_json::json!([]);
        let wrong = judge(&report);
        assert!(wrong.iter().any(|sentence| sentence.contains("steps were []")), "{wrong:?}");
        assert!(wrong.iter().any(|sentence| sentence.contains("stage two left no step")), "{wrong:?}");
    }

    #[test]
    fn one_written_byte_is_noticed_and_so_is_a_drive_without_statistics() {
        let drive = |writes| DriveStatistics { name: "m".into(), read_bytes: 9, written_bytes: writes, writes };
        assert_eq!(nothing_written(&[drive(0)], 1), Vec::<String>::new());
        assert_eq!(nothing_written(&[drive(1)], 1).len(), 1);
        assert_eq!(nothing_written(&[drive(0)], 2).len(), 1);
    }

    #[test]
    fn an_unreadable_file_is_noticed() {
        let read = |files, errors: &[&str]| ReadAll {
            files,
            bytes: 1,
            errors: errors.iter().map(ToString::to_string).collect(),
            ..ReadAll::default()
        };
        assert_eq!(all_read(&read(3, &[])), Vec::<String>::new());
        assert_eq!(all_read(&read(3, &["/x"])).len(), 1);
        assert_eq!(all_read(&read(0, &[])).len(), 1);
    }
}
