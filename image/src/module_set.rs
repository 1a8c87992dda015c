//! Which kernel modules a live medium can need before its root is mounted, as rules over paths.
//!
//! Storage, USB hosts, keyboards and file systems; no network, no Fibre Channel, no iSCSI, no parallel SCSI, no `FireWire`:
//! no stick or disc hangs on those, and the root has them. What these modules need in turn is found by [`crate::closure`].

/// Folders and single modules below `kernel/`, without `.ko`; a folder ends with `/`.
const WANTED: &[&str] = &[
    "drivers/ata/",
    "drivers/block/loop",
    "drivers/block/virtio_blk",
    "drivers/block/xen-blkfront",
    "drivers/cdrom/",
    "drivers/char/virtio_console",
    "drivers/hid/hid",
    "drivers/hid/hid-apple",
    "drivers/hid/hid-cherry",
    "drivers/hid/hid-chicony",
    "drivers/hid/hid-generic",
    "drivers/hid/hid-holtek-kbd",
    "drivers/hid/hid-hyperv",
    "drivers/hid/hid-lenovo",
    "drivers/hid/hid-logitech",
    "drivers/hid/hid-logitech-dj",
    "drivers/hid/hid-microsoft",
    "drivers/hid/usbhid/",
    "drivers/input/evdev",
    "drivers/input/keyboard/atkbd",
    "drivers/input/serio/hyperv-keyboard",
    "drivers/input/serio/i8042",
    "drivers/input/serio/serio",
    "drivers/input/misc/xen-kbdfront",
    "drivers/md/dm-mod",
    "drivers/md/dm-verity",
    "drivers/message/fusion/mptsas",
    "drivers/message/fusion/mptspi",
    "drivers/misc/cardreader/",
    "drivers/mmc/",
    "drivers/nvme/host/nvme",
    "drivers/pci/controller/pci-hyperv",
    "drivers/pci/controller/vmd",
    "drivers/scsi/",
    "drivers/usb/common/",
    "drivers/usb/core/usbcore",
    "drivers/usb/host/",
    "drivers/usb/storage/",
    "drivers/virtio/virtio_mmio",
    "drivers/virtio/virtio_pci",
    "fs/btrfs/",
    "fs/efivarfs/",
    "fs/exfat/",
    "fs/ext4/",
    "fs/fat/",
    "fs/isofs/",
    "fs/nls/nls_ascii",
    "fs/nls/nls_cp437",
    "fs/nls/nls_iso8859-1",
    "fs/nls/nls_utf8",
    "fs/ntfs3/",
    "fs/overlayfs/",
    "fs/squashfs/",
    "fs/xfs/",
];

/// What is left out of the folders above.
const UNWANTED: &[&str] = &[
    // PC cards: no machine that Xen runs on has the slot.
    "drivers/ata/pata_pcmcia",
    "drivers/mmc/host/sdricoh_cs",
    "drivers/scsi/pcmcia/",
    "drivers/usb/host/sl811_cs",
    "drivers/usb/host/sl811-hcd",
    // ISA disks claim ports by guess.
    "drivers/ata/pata_legacy",
    // Controllers of boards and cards from before 64-bit processors.
    "drivers/ata/pata_artop",
    "drivers/ata/pata_cmd64x",
    "drivers/ata/pata_efar",
    "drivers/ata/pata_hpt366",
    "drivers/ata/pata_hpt37x",
    "drivers/ata/pata_it8213",
    "drivers/ata/pata_mpiix",
    "drivers/ata/pata_netcell",
    "drivers/ata/pata_ninja32",
    "drivers/ata/pata_ns87410",
    "drivers/ata/pata_ns87415",
    "drivers/ata/pata_oldpiix",
    "drivers/ata/pata_pdc2027x",
    "drivers/ata/pata_pdc202xx_old",
    "drivers/ata/pata_radisys",
    "drivers/ata/pata_rz1000",
    "drivers/ata/pata_triflex",
    "drivers/ata/pdc_adma",
    "drivers/ata/sata_qstor",
    "drivers/ata/sata_sx4",
    // Parallel SCSI: older than any machine that Xen runs on, and no medium hangs there. What virtual machines have stays.
    "drivers/scsi/a100u2w",
    "drivers/scsi/advansys",
    "drivers/scsi/aic7xxx/",
    "drivers/scsi/atp870u",
    "drivers/scsi/BusLogic",
    "drivers/scsi/dc395x",
    "drivers/scsi/dmx3191d",
    "drivers/scsi/initio",
    "drivers/scsi/qla1280",
    "drivers/scsi/qlogicfas408",
    "drivers/scsi/wd719x",
    // RAID cards and on-board SAS that have not been made for ten years and more: the root has their drivers, and only an ISO as a file on
    // their disks would need them here.
    "drivers/scsi/3w-9xxx",
    "drivers/scsi/3w-sas",
    "drivers/scsi/3w-xxxx",
    "drivers/scsi/aic94xx/",
    "drivers/scsi/esas2r/",
    "drivers/scsi/hptiop",
    "drivers/scsi/ipr",
    "drivers/scsi/ips",
    "drivers/scsi/isci/",
    "drivers/scsi/megaraid",
    "drivers/scsi/megaraid/megaraid_mbox",
    "drivers/scsi/mvumi",
    "drivers/scsi/myrb",
    "drivers/scsi/myrs",
    "drivers/scsi/pmcraid",
    "drivers/scsi/stex",
    // Fibre Channel and FCoE.
    "drivers/scsi/bfa/",
    "drivers/scsi/bnx2fc/",
    "drivers/scsi/csiostor/",
    "drivers/scsi/fcoe/",
    "drivers/scsi/fnic/",
    "drivers/scsi/libfc/",
    "drivers/scsi/lpfc/",
    "drivers/scsi/qedf/",
    "drivers/scsi/qla2xxx/",
    "drivers/scsi/scsi_transport_fc",
    "drivers/scsi/snic/",
    // iSCSI and SRP.
    "drivers/scsi/be2iscsi/",
    "drivers/scsi/bnx2i/",
    "drivers/scsi/cxgbi/",
    "drivers/scsi/iscsi_boot_sysfs",
    "drivers/scsi/iscsi_tcp",
    "drivers/scsi/libiscsi",
    "drivers/scsi/libiscsi_tcp",
    "drivers/scsi/qedi/",
    "drivers/scsi/qla4xxx/",
    "drivers/scsi/scsi_transport_iscsi",
    "drivers/scsi/scsi_transport_srp",
    // Not for the medium: changers, tapes, enclosures, multipath, tests, generic access.
    "drivers/scsi/ch",
    "drivers/scsi/device_handler/",
    "drivers/scsi/megaraid/megaraid_mm",
    "drivers/scsi/scsi_debug",
    "drivers/scsi/ses",
    "drivers/scsi/sg",
    "drivers/scsi/st",
    "drivers/mmc/core/sdio_uart",
];

/// What lies unpacked in the initramfs: what most machines need for their medium and a keyboard, and for every root. The rest is in an
/// archive that stage one opens when a device asks for something in it. The same rules as for all modules.
const AT_HAND: &[&str] = &[
    "drivers/ata/ahci",
    "drivers/ata/ata_generic",
    "drivers/ata/ata_piix",
    "drivers/block/",
    "drivers/cdrom/",
    "drivers/char/",
    "drivers/hid/hid",
    "drivers/hid/hid-generic",
    "drivers/hid/usbhid/",
    "drivers/input/",
    "drivers/md/",
    "drivers/nvme/",
    "drivers/scsi/scsi_mod",
    "drivers/scsi/sd_mod",
    "drivers/scsi/sr_mod",
    "drivers/scsi/virtio_scsi",
    "drivers/scsi/vmw_pvscsi",
    "drivers/usb/common/",
    "drivers/usb/core/",
    "drivers/usb/host/",
    "drivers/usb/storage/uas",
    "drivers/usb/storage/usb-storage",
    "drivers/virtio/",
    "fs/efivarfs/",
    "fs/fat/",
    "fs/isofs/",
    "fs/nls/",
    "fs/overlayfs/",
    "fs/squashfs/",
];

/// What only a medium that is an ISO file can need: the file systems that it may lie on, apart from those that are small or that sticks
/// are made with. Only the initramfs for ISO files has them. The same rules as for all modules.
const FOR_CARRIERS: &[&str] = &["fs/btrfs/", "fs/ntfs3/", "fs/xfs/"];

/// Modules that another asks for by name while it works, when no program could load them: (module, what it asks for).
///
/// FAT asks for character sets, ext4 for a checksum, dm-verity for a hash.
pub const ASKS_FOR: &[(&str, &[&str])] = &[
    ("vfat", &["nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8"]),
    ("exfat", &["nls_utf8"]),
    ("ext4", &["crypto-crc32c"]),
    ("dm_verity", &["crypto-sha256"]),
];

/// Whether the module at this path (below the release's folder, such as `kernel/fs/fat/vfat.ko.xz`) is wanted.
#[must_use]
pub fn is_wanted(path: &str) -> bool {
    listed(path, WANTED) && !listed(path, UNWANTED)
}

/// Whether a wanted module lies unpacked in the initramfs.
#[must_use]
pub fn is_at_hand(path: &str) -> bool {
    is_wanted(path) && listed(path, AT_HAND)
}

/// Whether a wanted module is only in the initramfs for ISO files.
#[must_use]
pub fn is_for_carriers(path: &str) -> bool {
    listed(path, FOR_CARRIERS)
}

fn listed(path: &str, rules: &[&str]) -> bool {
    let Some(path) = path.strip_prefix("kernel/") else { return false };
    let plain = path.split(".ko").next().unwrap_or(path);
    rules.iter().any(|rule| if rule.ends_with('/') { plain.starts_with(rule) } else { plain == *rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_sorted_and_bite() {
        assert!(WANTED.iter().all(|rule| rule.starts_with("drivers/") || rule.starts_with("fs/")));
        for rule in UNWANTED {
            let member = if rule.ends_with('/') { format!("kernel/{rule}x.ko") } else { format!("kernel/{rule}.ko") };
            assert!(!is_wanted(&member), "{rule}");
            assert!(WANTED.iter().any(|wanted| rule.starts_with(wanted)), "{rule} is not wanted anyway");
        }
    }

    #[test]
    fn media_drivers_are_in_and_others_out() {
        for (path, expected) in [
            ("kernel/drivers/usb/storage/uas.ko.xz", true),
            ("kernel/fs/fat/vfat.ko", true),
            ("kernel/drivers/scsi/sd_mod.ko.xz", true),
            ("kernel/drivers/scsi/st.ko.xz", false),
            ("kernel/drivers/scsi/hpsa.ko.xz", true),
            ("kernel/drivers/scsi/megaraid.ko.xz", false),
            ("kernel/drivers/scsi/megaraid/megaraid_sas.ko.xz", true),
            ("kernel/drivers/net/ethernet/intel/e1000/e1000.ko.xz", false),
            ("kernel/drivers/nvme/host/nvme-tcp.ko.xz", false),
            ("updates/drivers/ata/ahci.ko", false),
        ] {
            assert_eq!(is_wanted(path), expected, "{path}");
        }
    }

    #[test]
    fn only_what_an_iso_file_alone_can_lie_on_is_for_carriers() {
        for (path, expected) in [
            ("kernel/fs/xfs/xfs.ko.xz", true),
            ("kernel/fs/btrfs/btrfs.ko", true),
            ("kernel/fs/ntfs3/ntfs3.ko.xz", true),
            ("kernel/fs/exfat/exfat.ko.xz", false),
            ("kernel/fs/ext4/ext4.ko.xz", false),
        ] {
            assert!(is_wanted(path) && is_for_carriers(path) == expected, "{path}");
        }
    }

    #[test]
    fn what_most_machines_need_is_at_hand() {
        for (path, expected) in [
            ("kernel/drivers/usb/storage/usb-storage.ko.xz", true),
            ("kernel/drivers/usb/storage/ums-karma.ko.xz", false),
            ("kernel/drivers/block/loop.ko", true),
            ("kernel/fs/squashfs/squashfs.ko.xz", true),
            ("kernel/drivers/scsi/mpt3sas/mpt3sas.ko.xz", false),
            ("kernel/drivers/block/nbd.ko", false),
        ] {
            assert_eq!(is_at_hand(path), expected, "{path}");
        }
    }
}
