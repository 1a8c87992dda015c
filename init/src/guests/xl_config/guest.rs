//! What SINO has to know of a guest, out of its settings.

use super::fields::Fields;
use super::{Disk, Notes, Setting, Vif, disk, keys, vif};
use std::fmt;

/// MiB that xl gives a guest whose file does not say (libxl's default).
const MEMORY: u64 = 32;
/// What xl can do when a guest ends.
const ACTIONS: &[&str] =
    &["destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart", "soft-reset"];

/// A value and the line that it is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// The line, from 1.
    pub line: usize,
}

/// How a guest is virtualised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Paravirtualised; xl's default on x86.
    #[default]
    Pv,
    /// Paravirtualised devices in a hardware container.
    Pvh,
    /// A whole machine, with a device model in dom0.
    Hvm,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pv => "PV",
            Self::Pvh => "PVH",
            Self::Hvm => "HVM",
        })
    }
}

/// What a guest's file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestConfig {
    /// The guest's name; without one xl refuses the file.
    pub name: Option<At<String>>,
    /// How it is virtualised, and the line that says so (0: none does).
    pub kind: At<Kind>,
    /// RAM at its start, in MiB.
    pub memory: Option<At<u64>>,
    /// RAM that it may be given later, in MiB.
    pub maxmem: Option<At<u64>>,
    /// CPUs at its start.
    pub vcpus: Option<At<u64>>,
    /// CPUs that it may be given later.
    pub maxvcpus: Option<At<u64>>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Its network interfaces.
    pub vifs: Vec<Vif>,
    /// Kernel; a path of the host, or with a boot loader one on the guest's disk.
    pub kernel: Option<At<String>>,
    /// Initial RAM disk, likewise.
    pub ramdisk: Option<At<String>>,
    /// Program that fetches kernel and RAM disk from the guest's first disk.
    pub bootloader: Option<At<String>>,
    /// Firmware: `pvgrub32`, `pvgrub64`; of HVM `bios`, `uefi`, `seabios`, `rombios`, `ovmf` or a path.
    pub firmware: Option<At<String>>,
    /// Device model instead of Xen's own qemu.
    pub device_model: Option<At<String>>,
    /// What xl does when the guest powers off.
    pub on_poweroff: Option<At<String>>,
    /// What xl does when it reboots.
    pub on_reboot: Option<At<String>>,
    /// What xl does when it crashes.
    pub on_crash: Option<At<String>>,
    /// Graphics card of an HVM guest: `stdvga`, `cirrus`, `qxl`, `none`.
    pub vga: Option<At<String>>,
    /// Video memory in MiB; it is a part of `memory`.
    pub videoram: Option<At<u64>>,
    /// Memory for page tables in Xen, in MiB, instead of what libxl reckons.
    pub shadow_memory: Option<At<u64>>,
    /// Whether Xen uses hardware-assisted paging for it.
    pub hap: bool,
    /// MiB of the domain that runs the device model, if one does.
    pub stubdomain: Option<u64>,
    /// Whether Xen needs page tables of its own for devices that are passed through.
    pub iommu_tables: bool,
    /// All settings, also those above.
    pub raw: Vec<Setting>,
}

impl GuestConfig {
    /// The setting of this name.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.raw.iter().find(|setting| setting.name == name)
    }

    /// RAM at the start in MiB, with libxl's default: `maxmem`, else 32.
    #[must_use]
    pub fn memory_mib(&self) -> u64 {
        self.memory.as_ref().or(self.maxmem.as_ref()).map_or(MEMORY, |memory| memory.value)
    }

    /// RAM that it may be given, in MiB.
    #[must_use]
    pub fn maxmem_mib(&self) -> u64 {
        self.maxmem.as_ref().map_or_else(|| self.memory_mib(), |maxmem| maxmem.value)
    }

    /// CPUs that it may be given, at least one.
    #[must_use]
    pub fn max_cpus(&self) -> u64 {
        let cpus = self.maxvcpus.as_ref().or(self.vcpus.as_ref());
        cpus.map_or(1, |cpus| cpus.value)
    }
}

/// Makes a guest of its settings.
pub(super) fn interpret(raw: Vec<Setting>, notes: &mut Notes) -> GuestConfig {
    keys::note_near_misses(&raw, notes);
    let fields = Fields::new(&raw);
    let kind = kind(&fields, notes);
    let mut config = GuestConfig {
        name: fields.text("name", notes),
        kind,
        memory: fields.positive("memory", notes),
        maxmem: fields.positive("maxmem", notes),
        vcpus: fields.positive("vcpus", notes),
        maxvcpus: fields.positive("maxvcpus", notes),
        disks: disk::disks(&fields, notes),
        vifs: vif::vifs(&fields, notes),
        kernel: fields.text("kernel", notes),
        ramdisk: fields.text("ramdisk", notes),
        bootloader: fields.text("bootloader", notes),
        firmware: fields.text("firmware", notes),
        device_model: fields.text("device_model_override", notes),
        on_poweroff: action("on_poweroff", &fields, notes),
        on_reboot: action("on_reboot", &fields, notes),
        on_crash: action("on_crash", &fields, notes),
        vga: fields.text("vga", notes),
        videoram: fields.number("videoram", notes).and_then(whole),
        shadow_memory: fields.number("shadow_memory", notes).and_then(whole),
        hap: fields.flag("hap", notes) != Some(false),
        ..GuestConfig::default()
    };
    // Linux as a device model's domain has 128 MiB, the old one 28 (libxl_internal.h, libxl_create.c).
    let stubdomain = fields.flag("device_model_stubdomain_override", notes) == Some(true);
    config.stubdomain = (stubdomain && kind_is(&config, Kind::Hvm)).then(|| {
        let old = fields.text("device_model_version", notes).is_some_and(|text| text.value == "qemu-xen-traditional");
        let given = fields.number("stubdomain_memory", notes).and_then(whole);
        given.map_or(if old { 28 } else { 128 }, |given| given.value)
    });
    config.iommu_tables = iommu_tables(&config, &fields, notes);
    check(&config, &fields, notes);
    drop(fields);
    config.raw = raw;
    config
}

fn kind_is(config: &GuestConfig, kind: Kind) -> bool {
    config.kind.value == kind
}

fn whole(At { value, line }: At<i64>) -> Option<At<u64>> {
    u64::try_from(value).ok().filter(|value| *value < 1 << 40).map(|value| At { value, line })
}

/// `type`, else the `builder` of old; xl compares no more letters than are given.
fn kind(fields: &Fields<'_>, notes: &mut Notes) -> At<Kind> {
    let mut of = |name: &str, kinds: &[(&str, Kind)]| {
        let At { value, line } = fields.text(name, notes)?;
        let kind = kinds.iter().find(|(word, _)| word.starts_with(&value)).map(|(_, kind)| *kind);
        if kind.is_none() {
            let words: Vec<_> = kinds.iter().map(|(word, _)| *word).collect();
            let text = format!("{value:?} is none of {}; xl refuses it", words.join(", "));
            notes.error(line, 1, name, &text);
        }
        kind.map(|value| At { value, line })
    };
    let kind = of("type", &[("hvm", Kind::Hvm), ("pv", Kind::Pv), ("pvh", Kind::Pvh)]);
    let builder = of("builder", &[("hvm", Kind::Hvm), ("generic", Kind::Pv)]);
    if let (Some(kind), Some(builder)) = (&kind, &builder)
        && kind.value != builder.value
    {
        let text =
            format!("says {}, but type in line {} says {}; xl refuses that", builder.value, kind.line, kind.value);
        notes.error(builder.line, 1, "builder", &text);
    }
    if let (Some(pvh), None) = (fields.get("pvh"), &kind) {
        let text = "xl since 4.10 reads over this, and the guest is no PVH guest; try: type = \"pvh\"";
        notes.warning(pvh.line, pvh.column, "pvh", text);
    }
    kind.or(builder).unwrap_or_default()
}

fn action(name: &str, fields: &Fields<'_>, notes: &mut Notes) -> Option<At<String>> {
    let action = fields.text(name, notes)?;
    if !ACTIONS.contains(&action.value.as_str()) {
        let text = format!("{:?} is none of {}; xl refuses it", action.value, ACTIONS.join(", "));
        notes.error(action.line, 1, name, &text);
    }
    Some(action)
}

/// Whether libxl reserves memory for the IOMMU's page tables: it does if these are not those of the guest itself
/// (`libxl__arch_passthrough_mode_setdefault`; hosts that could share but cannot are rare and not known here).
fn iommu_tables(config: &GuestConfig, fields: &Fields<'_>, notes: &mut Notes) -> bool {
    let passed = ["pci", "dtdev"].iter().filter_map(|name| fields.get(name)?.value.list());
    let passed = passed.map(<[_]>::len).sum::<usize>() > 0;
    let own = kind_is(config, Kind::Pv) || !config.hap;
    match fields.text("passthrough", notes).map(|text| text.value).as_deref() {
        Some("sync_pt") => true,
        Some("enabled") => own,
        Some("disabled" | "share_pt") => false,
        _ => passed && own,
    }
}

/// What xl refuses, or takes otherwise than it looks.
fn check(config: &GuestConfig, fields: &Fields<'_>, notes: &mut Notes) {
    match &config.name {
        None => notes.error(0, 0, "name", "is not given; xl refuses a guest without a name"),
        Some(At { value, line }) => check_name(value, *line, notes),
    }
    if config.memory.is_none() && fields.get("memory").is_none() {
        let text = format!("is not given; xl makes it {} MiB", config.memory_mib());
        notes.warning(0, 0, "memory", &text);
    }
    if let (Some(memory), Some(maxmem)) = (&config.memory, &config.maxmem)
        && maxmem.value < memory.value
    {
        let text = format!("{} MiB are less than memory, {} MiB; xl fails over that", maxmem.value, memory.value);
        notes.error(maxmem.line, 1, "maxmem", &text);
    }
    if let (Some(cpus), Some(most)) = (&config.vcpus, &config.maxvcpus)
        && most.value < cpus.value
    {
        let text = format!("{} are fewer than vcpus, {}; xl refuses that", most.value, cpus.value);
        notes.error(most.line, 1, "maxvcpus", &text);
    }
    if kind_is(config, Kind::Hvm) {
        return;
    }
    if let Some(firmware) = &config.firmware {
        if let Some(kernel) = &config.kernel {
            let text = format!("is given beside kernel in line {}; xl refuses both", kernel.line);
            notes.error(firmware.line, 1, "firmware", &text);
        }
        if !["pvgrub32", "pvgrub64"].iter().any(|known| known.starts_with(&firmware.value)) {
            let kind = config.kind.value;
            notes.error(
                firmware.line,
                1,
                "firmware",
                &format!("a {kind} guest has pvgrub32 or pvgrub64; xl refuses others"),
            );
        }
    } else if config.kernel.is_none() && config.bootloader.is_none() {
        let kind = config.kind.value;
        let text = format!(
            "is not given, nor bootloader, and this is a {kind} guest; xl refuses it; try: kernel, bootloader or type = \"hvm\""
        );
        notes.error(config.kind.line, usize::from(config.kind.line > 0), "kernel", &text);
    }
}

fn check_name(name: &str, line: usize, notes: &mut Notes) {
    if name.is_empty() {
        notes.error(line, 1, "name", "is empty; no command could name the guest");
    } else if name.contains('/') {
        // xl keeps the log of each guest in a file of its name.
        notes.error(line, 1, "name", "has a slash in it; xl fails over it, as it cannot make the guest's log file");
    } else if name.len() > 63 {
        let text = format!("has {} bytes; 63 are safe, for files and the device model get it too", name.len());
        notes.error(line, 1, "name", &text);
    } else if name.chars().any(char::is_control) {
        notes.error(line, 1, "name", "has control characters in it; no command could name the guest");
    } else if name.bytes().all(|byte| byte.is_ascii_digit()) {
        notes.warning(line, 1, "name", "consists of digits; xl takes such a word for a domain's number");
    } else if name.chars().any(char::is_whitespace) {
        notes.warning(line, 1, "name", "has blanks in it; each command needs it in quotes");
    }
}
