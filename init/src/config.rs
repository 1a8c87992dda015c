//! What an administrator decides: `sino.toml` in layers, and the kernel's flags on top of them.
//!
//! [`layers`] reads every layer and merges them key by key; [`keys`] is the one table of what may be given, behind the
//! checks, the example file and `docs/CONFIG.md`. A part that is wrong is left out and told as a [`origins::Problem`], and
//! everything else holds: a typing error in a file must not keep a host from its network.

pub mod check;
pub mod command;
pub mod example;
pub mod keys;
pub mod layers;
pub mod origins;
pub mod reading;
pub mod schema;
pub mod show;

pub use example::example;
pub use layers::{Layers, Loaded};
pub use origins::{Layer, Origin, Problem, Severity};
