//! Every path that two programs of SINO share, with who writes it.

/// The record of this boot as JSON ([`crate::record::BootRecord`]); begun by stage one, continued by stage two.
pub const BOOT_RECORD: &str = "/run/sino/boot.json";
/// SINO's folder in `/run`; it is a tmpfs that stage one mounts and that moves along into the new root.
pub const RUN: &str = "/run/sino";
/// Where the boot medium's file system is mounted read-only, for as long as it is in use.
pub const MEDIUM: &str = "/run/sino/medium";
/// Where the file system is mounted read-only that holds the medium as an ISO file.
pub const CARRIER: &str = "/run/sino/carrier";
/// The text above the login prompt; `/etc/issue` of the image leads here.
pub const ISSUE: &str = "/run/sino/issue";
/// The last explanation of a failure, for the rescue shell's `report`.
pub const REPORT: &str = "/run/sino/report";
/// What the keeper's process number is, while it runs.
pub const KEEPER_PID: &str = "/run/sino/keeper.pid";
/// What executes systemd's last act from memory: it comes out of the root before that is unmounted. Source: systemd,
/// `bootup(7)`, "exitrd".
pub const EXIT_ROOT: &str = "/run/initramfs";
/// What the stick's FAT partition says: its `sino.toml`, copied by stage one, because the stick may be gone later.
pub const STICK_CONFIG: &str = "/run/sino/stick/sino.toml";
/// The image's own configuration.
pub const IMAGE_CONFIG: &str = "/etc/sino/sino.toml";
/// Where the volume of the host is mounted.
pub const SRV: &str = "/srv";
/// SINO's own folder on that volume: what makes this host itself.
pub const SRV_STATE: &str = "/srv/sino";
/// The configuration on that volume.
pub const SRV_CONFIG: &str = "/srv/sino/sino.toml";
/// The folder of the boots that are kept, a JSON file each; written by the supervisor.
pub const BOOTS: &str = "/srv/sino/boots";
/// What is known of the network, as JSON; written by the supervisor.
pub const NETWORK_STATE: &str = "/run/sino/network.json";
/// What is known of the volume group, `/srv` and swap, as JSON; written by the supervisor and by `sino srv`.
pub const STORAGE_STATE: &str = "/run/sino/storage.json";
/// The name servers in use, in the form of resolv.conf(5); `/etc/resolv.conf` of the image leads here.
pub const RESOLV_CONF: &str = "/run/sino/resolv.conf";
/// Further lines of the text above the login prompt: the host's address and what needs attention; written by the supervisor.
pub const ISSUE_LINES: &str = "/run/sino/issue.lines";
/// What the supervisor has made of the configuration, so that one that is started again goes on with it.
pub const SUPERVISOR_STATE: &str = "/run/sino/supervisor.json";
/// Held (flock) by whoever needs udev to stay: process 1 ends it only when nobody does.
pub const UDEV_LOCK: &str = "/run/sino/udev.lock";
/// Names of the guests that run, or null while that is not known.
pub const RUNNING_GUESTS: &str = "/run/sino/running-guests.json";
/// How the guests are, for people and programs.
pub const GUESTS_STATE: &str = "/run/sino/guests.json";
/// How the guests were after the last stop of all, as at a shutdown.
pub const GUESTS_LAST_STOP: &str = "/srv/sino/guests-last-stop.json";
/// What the guests' engine knows, for a supervisor that is started again.
pub const GUESTS_ENGINE: &str = "/run/sino/guests-engine.json";
/// There once Debian's init has been executed.
pub const HANDED_OVER: &str = "/run/sino/handed-over";
/// The supervisor's process number.
pub const SUPERVISOR_PID: &str = "/run/sino/supervisor.pid";
/// The socket on which the supervisor takes commands, one line of JSON each.
pub const CONTROL: &str = "/run/sino/control";
/// The files that must stay readable when the medium is gone, in the root image; one path a line.
pub const HELD_IN_RAM: &str = "/usr/lib/sino/held-in-ram";
/// The name of the device-mapper device that verifies what is read of the root image.
pub const VERITY_DEVICE: &str = "sino-root";
/// Where a copy of the root image lies when the boot is "on ram" (a tmpfs of its own).
pub const RAM: &str = "/run/sino/ram";
/// Where the root image's squashfs is mounted: the overlay's lower layer.
pub const LOWER: &str = "/run/sino/lower";
/// The tmpfs that holds the overlay's upper layer and work folder.
pub const OVERLAY: &str = "/run/sino/overlay";
/// Where stage one stacks the new root before it switches to it.
pub const NEW_ROOT: &str = "/sysroot";
/// The manifest inside the initramfs ([`crate::manifest::Manifest`]), written by the image builder.
pub const MANIFEST: &str = "/sino/manifest.json";
/// The manifest while the system runs, for the keeper and for people.
pub const RUN_MANIFEST: &str = "/run/sino/manifest.json";
/// The module table inside the initramfs ([`crate::modules::ModuleTable`]), written by the image builder.
pub const MODULE_TABLE: &str = "/sino/modules.table";
/// The folder inside the initramfs with one `NAME.ko` (or `NAME.ko.xz`) for each module of the table.
pub const MODULES: &str = "/sino/modules";
/// The archive inside the initramfs with the modules that few machines need: a squashfs.
pub const SELDOM_ARCHIVE: &str = "/sino/seldom.squashfs";
/// Where stage one mounts that archive when the first of them is asked for; their files in the table are `seldom/NAME.ko`.
pub const SELDOM_MODULES: &str = "/sino/modules/seldom";
/// The folder with the drivers of file systems that only an ISO file can lie on; only [`ISO_FILE_INITRAMFS`] has it. Their files in
/// the table are `carrier/NAME.ko`.
pub const CARRIER_MODULES: &str = "/sino/modules/carrier";
/// The initramfs on the medium.
pub const INITRAMFS: &str = "sino/initramfs.img";
/// The initramfs on the medium that has [`CARRIER_MODULES`], too: for a medium that is an ISO file.
pub const ISO_FILE_INITRAMFS: &str = "sino/initramfs-iso-file.img";
/// The statically linked busybox inside the initramfs; only the rescue shell uses it.
pub const BUSYBOX: &str = "/sino/busybox";
/// The root image's path on the medium.
pub const ROOT_IMAGE: &str = "sino/root.squashfs";
/// The BLAKE3 sums of the medium's files, in the form of b3sum(1): what `sino.check` compares with.
pub const FILE_SUMS: &str = "sino/B3SUMS";
/// BLAKE3 and length in bytes of the EFI partition, which is no file of the medium: `HEX LENGTH`.
pub const EFI_SUM: &str = "sino/efi-partition.b3";
/// The label of the EFI partition's FAT file system.
pub const EFI_LABEL: &str = "SINO-EFI";
/// The build id as a line of text on the medium, for people and for other systems.
pub const BUILD_ID_FILE: &str = "sino/build-id";
/// Stage two inside the root image: what stage one executes unless `sino.init=` says otherwise.
pub const STAGE_TWO: &str = "/sbin/sino-init";
/// The `sino` command inside the root image, without a slash in front; stage two is another name of it.
pub const COMMAND: &str = "usr/sbin/sino";
/// The init that stage two hands over to.
pub const USERLAND_INIT: &str = "/sbin/init";
