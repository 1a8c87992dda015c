//! The guests: which there are, in what order they start, whether they fit, how each is.
//!
//! [`settings`] is what `sino.toml` says of them, [`xl_config`] what their own files say, [`budget`] whether they fit;
//! [`graph`] and [`engine`] decide what happens next, without doing any of it; [`xl`] does it, [`probe`] finds out whether a
//! guest is ready, [`xenstore`] and [`daemons`] are what they need of Xen.

pub mod budget;
pub mod daemons;
pub mod driver;
pub mod engine;
pub mod graph;
pub mod needs;
pub mod probe;
pub mod ready;
pub mod settings;
pub mod survey;
pub mod watch;
pub mod xenstore;
pub mod xl;
pub mod xl_config;
