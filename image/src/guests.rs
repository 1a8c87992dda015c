//! Guests to show and to test a host with: small, ours, and real: they run under the Xen of a booted SINO.
//!
//! A PV or PVH guest is the image's own kernel with an [`initramfs`] of one program (`sino-guest`) and the two drivers
//! that it needs; an HVM guest is a [`boot_sector`]. [`orders`] is what such a guest is told on its kernel's command line,
//! [`config`] its file for xl. [`disk`] makes a whole disk with `xvg`, `/srv` and what the guests need on it. [`kernel`]
//! takes kernel and drivers from a finished ISO, so that they always fit the host that is booted.

pub mod boot_sector;
pub mod config;
pub mod disk;
pub mod initramfs;
pub mod kernel;
mod lvm;
pub mod orders;
pub mod show;

pub use config::{Guest, Kind};
pub use disk::{Filling, Volume, prepare};
pub use kernel::Kernel;
pub use orders::Orders;
pub use show::{Content, prepare_disk};
