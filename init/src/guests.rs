//! The guests: which there are, in what order they start, whether they fit, how each is.
//!
//! [`settings`] is what `sino.toml` says of them, [`xl_config`] what their own files say, [`budget`] whether they fit, [`needs`]
//! whether the host has what they need; [`survey`] puts that together. [`graph`] and [`engine`] decide what happens next, without
//! doing any of it; [`driver`] does it by [`xl`], [`probe`] finds out whether a guest is ready, [`watch`] what becomes of domains;
//! [`xenstore`] and [`daemons`] are what they need of Xen. The supervisor's lane for guests joins them.

pub mod budget;
pub mod daemons;
pub mod driver;
pub mod engine;
pub mod graph;
pub mod making;
pub mod needs;
pub mod probe;
pub mod ready;
pub mod settings;
pub mod survey;
pub mod watch;
pub mod xenstore;
pub mod xl;
pub mod xl_config;
