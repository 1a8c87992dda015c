//! SINO's stage two: what happens between "root file system mounted" and Debian's own init, and what stays afterwards.
//!
//! [`process_one`] starts the [`supervisor`], waits for it ([`bring_up`]) and executes Debian's init; [`adopt`] is how systemd
//! then takes the supervisor in. The `sino` command is [`command`].
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod adopt;
pub mod boots;
pub mod bring_up;
pub mod child;
pub mod command;
pub mod config;
pub mod dhcp;
pub mod guests;
pub mod identity;
pub mod manual;
pub mod netlink;
pub mod network;
pub mod overlay_use;
pub mod process_one;
pub mod status;
pub mod storage;
pub mod supervisor;
pub mod timeline;
pub mod udev;
