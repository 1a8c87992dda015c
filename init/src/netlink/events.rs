//! The socket on which the kernel tells of changes.

use super::read::{self, Announcement, Messages};
use anyhow::{Context, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with, sockopt};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR` of `include/uapi/linux/rtnetlink.h`.
const LINKS_AND_ADDRESSES: u32 = 1 | 0x10 | 0x100;
/// `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_ROUTE`.
const ROUTES: u32 = 0x40 | 0x400;
/// udev tells in this group of a device that it has finished with. Source: systemd `device-monitor.c`.
const UDEV_GROUP: u32 = 2;
/// `RTNLGRP_ND_USEROPT`: options of announcements that the kernel leaves to others.
const ANNOUNCEMENTS: u32 = 1 << (20 - 1);
/// `RTM_NEWNDUSEROPT`.
const ANNOUNCED: u16 = 68;
/// Announcements that are taken at a time.
const MOST_ANNOUNCEMENTS: usize = 64;
/// Room for the burst of a host that starts many guests, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A subscription. What changed is not told, only that something did: the state is read anew, so that nothing is lost when
/// more happens than the socket holds.
#[derive(Debug)]
pub struct Events {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Events {
    /// Changes of links and addresses.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn of_links_and_addresses() -> Result<Self> {
        Self::open(None, LINKS_AND_ADDRESSES).context("subscribing to changes of the network")
    }

    /// Changes of links, addresses and routes.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn of_everything() -> Result<Self> {
        Self::open(None, LINKS_AND_ADDRESSES | ROUTES).context("subscribing to changes of the network and routes")
    }

    /// Name servers that routers announce; to be taken by [`Events::announcements`].
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn of_name_servers() -> Result<Self> {
        Self::open(None, ANNOUNCEMENTS).context("subscribing to routers' announcements")
    }

    /// Devices that udev has finished with.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn of_udev() -> Result<Self> {
        Self::open(Some(rustix::net::netlink::KOBJECT_UEVENT), UDEV_GROUP).context("subscribing to udev's events")
    }

    /// Takes all announced name servers that are waiting, without waiting itself. What an overrun lost is announced again.
    ///
    /// # Errors
    /// The socket no longer works.
    pub fn announcements(&mut self) -> Result<Vec<Announcement>> {
        let mut all = Vec::new();
        // A flood does not hold the caller: what is left makes the next poll return at once.
        for _ in 0..MOST_ANNOUNCEMENTS {
            match recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, length)) => {
                    let messages = Messages::new(self.buffer.get(..length).unwrap_or_default());
                    let announced = messages.filter(|(header, _)| header.kind == ANNOUNCED);
                    all.extend(announced.filter_map(|(_, payload)| read::announcement(payload)));
                }
                Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error).context("receiving routers' announcements"),
            }
        }
        Ok(all)
    }

    fn open(protocol: Option<Protocol>, groups: u32) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
        // Without the larger buffer an overrun is more likely, and is made good.
        let _ = sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER);
        bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { fd, buffer: vec![0; 64 << 10] })
    }

    /// Readable when something changed.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes all that is waiting, without waiting itself, and tells how many messages that were; an overrun counts as one.
    ///
    /// # Errors
    /// The socket no longer works.
    pub fn drain(&mut self) -> Result<usize> {
        let mut count = 0;
        loop {
            match recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Ok(_) | Err(Errno::NOBUFS) => count += 1,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(count),
                Err(error) => return Err(error).context("receiving changes of the network"),
            }
        }
    }
}
