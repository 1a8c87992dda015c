//! What SINO's two boot stages and its image builder must agree on, and nothing else.
//!
//! Kernel flags ([`options`]), the image's manifest ([`manifest`]), the table of kernel modules ([`modules`]),
//! the identity that a medium carries in its first sectors ([`identity`]), the names below `/run/sino`
//! ([`layout`]), what the kernel says of mounts ([`mounts`]), the record of a boot ([`record`]) and the narration of its steps ([`stage`]), with the watchdog that cuts
//! those that hang ([`watchdog`]).
//!
//! This is a library: it never exits, never mounts, and has no powers of a PID 1.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod block_hash;
pub mod console;
pub mod identity;
pub mod in_root;
pub mod issue;
pub mod layout;
pub mod manifest;
pub mod modules;
pub mod mounts;
pub mod options;
pub mod record;
pub mod rescue_shell;
pub mod stage;
pub mod watchdog;
