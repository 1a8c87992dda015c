//! A client of DHCP for IPv4 (RFC 2131) for one interface, so that the host has its lease before the
//! userland is up.
//!
//! [`client`] is the protocol and nothing else: packets and time go in, packets and events come out. [`endpoint`] gives
//! it the raw sockets of an interface. [`message`] and [`packet`] read and write bytes, [`lease`] judges what a server
//! offers. The client sets no address and no route: whoever polls the [`Endpoint`] does so on [`Event::Bound`] and
//! takes it all back on [`Event::Lost`].
//!
//! An address that is new is probed by ARP before it is used, in 0.6 s instead of the 4 to 7 s of RFC 5227. One that the
//! server confirms (at a reboot, a renewal, a carrier that came back) is not probed again: it was when it was new. While it
//! is in use, it is defended against a host that claims it, and never given up for that (RFC 5227, 2.4 c).

mod arp_filter;
pub mod client;
pub mod endpoint;
pub mod lease;
mod link_address;
pub mod message;
mod names;
pub mod packet;
mod timing;

pub use client::{Event, Settings};
pub use endpoint::{Endpoint, announce};
pub use lease::{Lease, LeaseRoute};
