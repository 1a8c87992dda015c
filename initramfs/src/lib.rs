//! SINO's stage one: from "kernel started" to "root file system mounted".
//!
//! [`boot`] is the whole of it, one line a step; each step takes what it needs as a value and returns what the next
//! one needs. `main` calls it, and either enters the new root ([`switch_root`]) or opens a rescue shell ([`rescue`]).
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod block_device;
pub mod carrier;
pub mod devices;
pub mod drivers;
pub mod image;
pub mod ioctl;
pub mod kernel_fs;
pub mod kernel_request;
pub mod loop_device;
pub mod medium;
pub mod mounts;
pub mod overlay;
pub mod preparation;
pub mod rescue;
pub mod switch_root;
pub mod to_ram;
pub mod uevent;

use sino_boot::stage::{Stage, StepError};
use switch_root::NewRoot;

/// The number of steps in [`boot`].
pub const STEPS: usize = 8;

/// Stage one, step by step. The root that it returns is complete and checked; entering it is the caller's.
///
/// # Errors
/// The first step that failed and that the boot cannot do without. It has been narrated by then.
pub fn boot(stage: &mut Stage) -> Result<NewRoot, StepError> {
    let options = stage.step("read-flags", preparation::read_flags)?;
    let build = stage.step("read-manifest", preparation::read_manifest)?;
    let mut devices = stage.step("load-drivers", |_| devices::coldplug(&build, options.debug))?;
    let medium = stage.step("find-medium", |record| medium::find(&mut devices, &options, &build.manifest, record))?;
    let source = stage.step("copy-to-ram", |record| to_ram::copy(medium, &options, &build.manifest, record))?;
    let lower = stage.step("mount-image", |_| image::mount(source, &devices))?;
    let root = stage.step("stack-root", |_| overlay::stack(&lower, &options, &devices))?;
    let root = stage.step("check-root", |_| root.checked(options.init.as_deref()))?;
    stage.record.warnings.extend(devices.finish());
    Ok(root)
}
