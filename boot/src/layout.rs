//! Every path that two programs of SINO share, with who writes it.

/// The record of this boot as JSON ([`crate::record::BootRecord`]); begun by stage one, continued by stage two.
pub const BOOT_RECORD: &str = "/run/sino/boot.json";
/// SINO's folder in `/run`; it is a tmpfs that stage one mounts and that moves along into the new root.
pub const RUN: &str = "/run/sino";
/// Where the boot medium's file system is mounted read-only, for as long as it is in use.
pub const MEDIUM: &str = "/run/sino/medium";
/// Where the file system is mounted read-only that holds the medium as an ISO file.
pub const CARRIER: &str = "/run/sino/carrier";
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
/// The module table inside the initramfs ([`crate::modules::ModuleTable`]), written by the image builder.
pub const MODULE_TABLE: &str = "/sino/modules.table";
/// The folder inside the initramfs with one `NAME.ko` (or `NAME.ko.xz`) for each module of the table.
pub const MODULES: &str = "/sino/modules";
/// The statically linked busybox inside the initramfs; only the rescue shell uses it.
pub const BUSYBOX: &str = "/sino/busybox";
/// The root image's path on the medium.
pub const ROOT_IMAGE: &str = "sino/root.squashfs";
/// The build id as a line of text on the medium, for people and for other systems.
pub const BUILD_ID_FILE: &str = "sino/build-id";
/// Stage two inside the root image: what stage one executes unless `sino.init=` says otherwise.
pub const STAGE_TWO: &str = "/sbin/sino-init";
/// The init that stage two hands over to.
pub const USERLAND_INIT: &str = "/sbin/init";
