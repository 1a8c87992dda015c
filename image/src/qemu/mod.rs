//! QEMU: a machine as data, its arguments, its control channel, its life.
//!
//! [`machine`] describes a virtual machine and nothing else; [`arguments`] and [`drives`] turn the description into
//! QEMU's command line; [`guest`] runs it: the process ([`process`]), what it says on its serial port and report port
//! ([`watch`]), and its control channel ([`qmp`]). Nothing here knows what the guest is for: `make demo` and the tests
//! decide that.

pub mod arguments;
pub mod drives;
pub mod firmware;
pub mod guest;
pub mod machine;
pub mod process;
pub mod qmp;
pub mod terminal_text;
pub mod watch;

pub use guest::{EndReason, Guest};
pub use machine::{Accelerator, AcpiTable, Backend, Bus, Drive, DriveFault, Firmware, Machine, NetworkCard, Start};
