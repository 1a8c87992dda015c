//! Boots the built SINO image in QEMU and checks what the booted system really is.
//!
//! A scenario is data ([`scenario`]); all of them are listed in [`list`]; [`runner`] boots one and [`checks`] judges it.
//! The tiny root's init is [`payload`], which reports over a virtio-serial port ([`report`]). What can be said of an ISO
//! without booting it is in [`iso_checks`].
//!
//! What stage two is for needs several boots with the same disks and a real network: a [`lab`], a [`host`] in it, and the
//! trials in [`hosts`].

pub mod bench;
mod boot_menu;
pub mod carriers;
pub mod checks;
pub mod faults;
pub mod guest_payload;
pub mod host;
pub mod hosts;
pub mod images;
pub mod iso_checks;
pub mod lab;
pub mod list;
pub mod payload;
mod real_image;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod shell;
pub mod tiny_root;
pub mod ventoy;
