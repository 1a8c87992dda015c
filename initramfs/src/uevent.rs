//! The kernel's device events (uevents): the netlink socket, and what one message says.
//!
//! Source: kernel `lib/kobject_uevent.c`: a message is `ACTION@DEVPATH` and then `KEY=VALUE` fields, each ended by NUL.

use anyhow::{Context, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with, sockopt};

/// The multicast group of the kernel's own events (udev's re-broadcasts are group 2).
const KERNEL_GROUP: u32 = 1;
/// Room for the burst of events that a module with many devices makes, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What one message says, as far as stage one is interested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `change`, `remove`, `bind`, ...
    pub action: String,
    /// `block`, `usb`, `pci`, ...
    pub subsystem: String,
    /// The alias by which drivers are found, if the device has one.
    pub modalias: Option<String>,
    /// Name below `/dev`, if the device has a node.
    pub devname: Option<String>,
    /// The block that dm-verity found to be wrong, for people. Source: kernel `drivers/md/dm-verity-target.c`.
    pub verity_error: Option<String>,
}

/// Reads a message; `None` if it is not a kernel event.
#[must_use]
pub fn parse(message: &[u8]) -> Option<Uevent> {
    let mut fields = message.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let header = fields.next()?;
    let (_action, path) = header.split_once('@')?;
    if !path.starts_with('/') {
        return None;
    }
    let mut event = Uevent::default();
    for field in fields {
        match field.split_once('=') {
            Some(("ACTION", value)) => value.clone_into(&mut event.action),
            Some(("SUBSYSTEM", value)) => value.clone_into(&mut event.subsystem),
            Some(("MODALIAS", value)) if !value.is_empty() => event.modalias = Some(value.to_owned()),
            Some(("DEVNAME", value)) if plain_name(value) => event.devname = Some(value.to_owned()),
            Some(("DM_VERITY_ERR_BLOCK_NR", value)) => event.verity_error = verity_error(value),
            _ => {}
        }
    }
    (!event.action.is_empty()).then_some(event)
}

/// `TYPE,BLOCK`: type 0 is the data, 1 the tree.
fn verity_error(value: &str) -> Option<String> {
    let (kind, block) = value.split_once(',')?;
    let block: u64 = block.parse().ok()?;
    let kind = if kind == "0" { "data block" } else { "block of the tree" };
    Some(format!("{kind} {block} (at {} MiB)", block.saturating_mul(4096) >> 20))
}

/// A device name that stays below `/dev`.
fn plain_name(name: &str) -> bool {
    !name.is_empty() && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The socket on which the kernel's events arrive.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

/// What a wait for events brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// One event.
    Event(Uevent),
    /// Events were lost because too many came at once; the devices must be looked at again.
    Overrun,
}

impl Socket {
    /// Opens the socket. From here on no event is lost silently.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn open() -> Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(KOBJECT_UEVENT))
            .context("opening the socket for kernel device events")?;
        // Without the larger buffer an overrun is more likely, and is noticed and made good.
        let _ = sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER);
        bind(&fd, &SocketAddrNetlink::new(0, KERNEL_GROUP)).context("subscribing to kernel device events")?;
        Ok(Self::inherited(fd))
    }

    /// One that another process has opened: what came since then waits in it.
    #[must_use]
    pub fn inherited(fd: OwnedFd) -> Self {
        Self { fd, buffer: vec![0; 16 << 10] }
    }

    /// To be handed to another process.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Readable when there is an event.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// The socket no longer works.
    pub fn receive(&mut self) -> Result<Received> {
        loop {
            match recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, length)) => {
                    if let Some(event) = self.buffer.get(..length).and_then(parse) {
                        return Ok(Received::Event(event));
                    }
                }
                Err(rustix::io::Errno::NOBUFS) => return Ok(Received::Overrun),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("receiving kernel device events"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_device_and_a_bus_device() {
        let message = b"add@/devices/x/block/sda\0ACTION=add\0DEVPATH=/devices/x/block/sda\0SUBSYSTEM=block\0DEVNAME=sda\0SEQNUM=9\0";
        let event = parse(message).unwrap();
        assert_eq!(
            (event.action.as_str(), event.subsystem.as_str(), event.devname.as_deref()),
            ("add", "block", Some("sda"))
        );
        let event = parse(
            b"change@/devices/virtual/block/dm-0\0ACTION=change\0SUBSYSTEM=block\0DM_VERITY_ERR_BLOCK_NR=0,512\0",
        );
        assert_eq!(event.unwrap().verity_error.as_deref(), Some("data block 512 (at 2 MiB)"));
        let event = parse(b"add@/devices/y\0ACTION=add\0SUBSYSTEM=usb\0MODALIAS=usb:v1\0").unwrap();
        assert_eq!(event.modalias.as_deref(), Some("usb:v1"));
    }

    #[test]
    fn what_is_not_a_kernel_event_is_passed_over() {
        assert_eq!(parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"add@/x\0"), None);
        assert_eq!(parse(b"add@/x\0ACTION=add\0DEVNAME=../etc/passwd\0").unwrap().devname, None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let mut framed = b"add@/x\0ACTION=add\0".to_vec();
            framed.extend(bytes);
            let _ = parse(&framed);
        }
    }
}
