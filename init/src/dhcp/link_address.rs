//! Where a raw packet goes or comes from: an interface, a protocol and a MAC address (`sockaddr_ll`, packet(7)).
//!
//! rustix has no such address, and nix has one that cannot be made without `unsafe` either; so it is made here.

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, Protocol};

/// `struct sockaddr_ll` of `include/uapi/linux/if_packet.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkAddress {
    family: u16,
    /// In network byte order.
    protocol: u16,
    index: i32,
    /// Type of hardware and of packet; the kernel fills them in on receipt and looks at neither here.
    hardware: u16,
    packet_type: u8,
    length: u8,
    address: [u8; 8],
}

impl LinkAddress {
    /// Packets of `protocol` (one of `rustix::net::eth`) on the interface `index`, to every host when sent.
    pub(super) fn broadcast(index: u32, protocol: Protocol) -> Self {
        Self {
            family: AddressFamily::PACKET.as_raw(),
            // rustix keeps the 16 bits in network byte order already, in a wider type.
            protocol: u16::try_from(protocol.as_raw().get()).unwrap_or_default(),
            // The kernel's own numbers are positive ints; one that is not names no interface.
            index: i32::try_from(index).unwrap_or(-1),
            hardware: 0,
            packet_type: 0,
            length: 6,
            address: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
        }
    }
}

const _: () = assert!(size_of::<LinkAddress>() == 20);

// SAFETY: the pointer is to a whole, initialised `sockaddr_ll` that outlives the call, and the length is its size; the
// layout is the kernel's (repr(C), no padding: the assertion above), so that every byte may be read.
#[allow(unsafe_code)]
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        const LENGTH: SocketAddrLen = 20;
        f(std::ptr::from_ref(self).cast(), LENGTH)
    }
}
