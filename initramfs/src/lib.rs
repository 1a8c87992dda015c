//! SINO's stage one: from "kernel started" to "root file system mounted".
//!
//! [`boot`] is the whole of it, one line a step; each step takes what it needs as a value and returns what the next
//! one needs. `main` calls it, and either enters the new root ([`switch_root`]) or opens a rescue shell ([`rescue`]).
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod block_copy;
pub mod block_device;
pub mod carrier;
pub mod check;
pub mod device_mapper;
pub mod devices;
mod driver_queue;
pub mod drivers;
pub mod exit_root;
pub mod fat_root;
pub mod hold;
pub mod image;
pub mod ioctl;
pub mod keeper;
pub mod kernel_fs;
pub mod kernel_request;
pub mod kmsg_reader;
pub mod loop_device;
pub mod lvm;
pub mod lvm_metadata;
mod lvm_text;
pub mod medium;
pub mod mounts;
pub mod overlay;
pub mod overlay_watch;
pub mod partition_table;
pub mod preparation;
pub mod progress;
pub mod rescue;
pub mod seldom;
pub mod stick_config;
pub mod superblock;
pub mod switch_root;
pub mod to_ram;
pub mod uevent;
pub mod ventoy;
pub mod verity;

use preparation::Build;
use sino_boot::stage::{Stage, StepError};
use switch_root::NewRoot;

/// The steps of [`boot`], in order.
pub const STEPS: [&str; 9] = [
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

/// Stage one, step by step. The root that it returns is complete and checked; entering it is the caller's.
///
/// # Errors
/// The first step that failed and that the boot cannot do without. It has been narrated by then.
pub fn boot(stage: &mut Stage) -> Result<NewRoot, StepError> {
    let dog = stage.watchdog();
    let dog = dog.as_ref();
    let options = stage.step("read-flags", preparation::read_flags)?;
    let Build { manifest, modules } = stage.step("read-manifest", preparation::read_manifest)?;
    let manifest = &manifest;
    let devices = stage.step("load-drivers", |_| devices::coldplug(modules, options.debug))?;
    let medium = stage.step("find-medium", |record| medium::find(&devices, &options, manifest, record, dog))?;
    let medium = stage.step("check-medium", |record| check::medium(medium, &options, manifest, record, dog))?;
    let source = stage.step("copy-to-ram", |record| to_ram::copy(medium, &options, manifest, record, dog))?;
    devices.pause();
    let lower = stage.step("mount-image", |_| image::mount(source, &options, manifest, &devices))?;
    let root = stage.step("stack-root", |_| overlay::stack(&lower, &options, &devices))?;
    let root = stage.step("check-root", |_| root.checked(options.init.as_deref(), lower.task))?;
    stage.record.warnings.extend(devices.finish());
    Ok(root)
}
