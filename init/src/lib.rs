//! SINO's stage two: what happens between "root file system mounted" and Debian's own init.
//!
//! For now it reports the boot so far and hands over. [`hand_over`] is process 1's part; [`bridge_port`] and [`status`]
//! are behind the `sino` command.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod bridge_port;
pub mod config;
pub mod dhcp;
pub mod hand_over;
pub mod identity;
pub mod netlink;
pub mod network;
pub mod overlay_use;
pub mod status;
pub mod storage;
pub mod timeline;
