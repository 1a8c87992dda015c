//! What an administrator decides: `sino.toml` in layers, and the kernel's flags on top of them.

pub mod schema;
