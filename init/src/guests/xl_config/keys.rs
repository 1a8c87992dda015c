//! The names that xl knows, so that a typing error can be told from a name of somebody else's.

use super::{Notes, Setting};
use sino_boot::options::distance;

/// What xl reads (Xen 4.17 to 4.20, `xl_parse.c` and xl.cfg(5)), sorted. It reads over any other name without a word.
const KEYS: &[&str] = &[
    "acpi",
    "acpi_firmware",
    "acpi_laptop_slate",
    "acpi_s3",
    "acpi_s4",
    "altp2m",
    "altp2mhvm",
    "apic",
    "bios",
    "bios_path_override",
    "boot",
    "bootloader",
    "bootloader_args",
    "bootloader_restrict",
    "bootloader_user",
    "builder",
    "cap",
    "channel",
    "cmdline",
    "cpu_weight",
    "cpuid",
    "cpus",
    "cpus_soft",
    "device_model",
    "device_model_args",
    "device_model_args_hvm",
    "device_model_args_pv",
    "device_model_override",
    "device_model_stubdomain_override",
    "device_model_stubdomain_seclabel",
    "device_model_user",
    "device_model_version",
    "device_tree",
    "disk",
    "display",
    "dm_restrict",
    "driver_domain",
    "dtdev",
    "e820_host",
    "extra",
    "extratime",
    "firmware",
    "firmware_override",
    "gfx_passthru",
    "gic_version",
    "hap",
    "hdtype",
    "hpet",
    "hvm_pirq",
    "init_seclabel",
    "iomem",
    "ioports",
    "irqs",
    "kernel",
    "keymap",
    "latency",
    "llc_colors",
    "localtime",
    "max_event_channels",
    "max_grant_frames",
    "max_grant_version",
    "max_maptrack_frames",
    "maxmem",
    "maxvcpus",
    "mca_caps",
    "memory",
    "mmio_hole",
    "ms_vm_genid",
    "msr_relaxed",
    "name",
    "nestedhvm",
    "nographic",
    "nomigrate",
    "nr_spis",
    "nx",
    "on_crash",
    "on_poweroff",
    "on_reboot",
    "on_soft_reset",
    "on_watchdog",
    "oos",
    "opengl",
    "p9",
    "pae",
    "passthrough",
    "pci",
    "pci_msitranslate",
    "pci_permissive",
    "pci_power_mgmt",
    "pci_seize",
    "period",
    "pool",
    "pvcalls",
    "pvshim",
    "pvshim_cmdline",
    "pvshim_extra",
    "pvshim_path",
    "ramdisk",
    "rdm",
    "rdm_mem_boundary",
    "root",
    "rtc_timeoffset",
    "sdl",
    "seclabel",
    "serial",
    "shadow_memory",
    "slice",
    "smbios",
    "smbios_firmware",
    "soundhw",
    "spice",
    "spice_clipboard_sharing",
    "spice_image_compression",
    "spice_streaming_video",
    "spiceagent_mouse",
    "spicedisable_ticketing",
    "spicehost",
    "spicepasswd",
    "spiceport",
    "spicetls_port",
    "spiceusbredirection",
    "spicevdagent",
    "stdvga",
    "stubdomain_cmdline",
    "stubdomain_kernel",
    "stubdomain_memory",
    "stubdomain_ramdisk",
    "sve",
    "tee",
    "timer_mode",
    "tsc_mode",
    "type",
    "usb",
    "usbctrl",
    "usbdev",
    "usbdevice",
    "usbversion",
    "uuid",
    "vcpus",
    "vdispl",
    "vendor_device",
    "vfb",
    "vga",
    "videoram",
    "vif",
    "vif2",
    "viridian",
    "virtio",
    "vkb",
    "vkb_device",
    "vmtrace_buf_kb",
    "vnc",
    "vncdisplay",
    "vnclisten",
    "vncpasswd",
    "vncunused",
    "vncviewer",
    "vnuma",
    "vpmu",
    "vpt_align",
    "vsnd",
    "vtpm",
    "vuart",
    "xauthority",
    "xen_platform_pci",
    "xend_suspend_evtchn_compat",
];

/// Unknown names that are looked at; a file may hold some hundred thousand.
const LOOKED_AT: usize = 200;

/// Tells of names that xl does not know but that look like one it does. Any other unknown name is somebody's own.
pub(super) fn note_near_misses(settings: &[Setting], notes: &mut Notes) {
    let unknown = settings.iter().filter(|setting| KEYS.binary_search(&setting.name.as_str()).is_err());
    for setting in unknown.take(LOOKED_AT) {
        if let Some(meant) = meant(&setting.name) {
            let text = format!("xl does not know this and reads over it; did you mean {meant}?");
            notes.warning(setting.line, setting.column, &setting.name, &text);
        }
    }
}

fn meant(name: &str) -> Option<&'static str> {
    // Below four letters nearly everything is near to something, and a name longer than all is near to none.
    if !(4..=40).contains(&name.len()) {
        return None;
    }
    let far = |key: &&&str| distance(name, key);
    KEYS.iter().filter(|key| **key != "vif2").min_by_key(far).filter(|key| far(key) * 4 <= name.len()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_sorted_and_only_typing_errors_are_near_to_one() {
        assert!(KEYS.is_sorted());
        for (name, expected) in [
            ("memmory", Some("memory")),
            ("vcpu", Some("vcpus")),
            ("disks", Some("disk")),
            ("on_reebot", Some("on_reboot")),
            ("bootlaoder", Some("bootloader")),
            ("dhcp", None),
            ("netmask", None),
            ("ip", None),
            ("comment", None),
            ("x.y", None),
        ] {
            assert_eq!(meant(name), expected, "{name}");
        }
    }
}
