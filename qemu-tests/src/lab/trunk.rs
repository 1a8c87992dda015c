//! A VLAN trunk without a VLAN driver: the tags are put on and taken off here, between QEMU and tap devices.
//!
//! QEMU sends each frame of the card as a datagram; socat does the same for a tap device. So a frame of VLAN 42 arrives
//! without its tag at the tap `vlan42`, where a DHCP server listens like on any link, and goes back with the tag. Frames
//! without a tag arrive at the tap `untagged`. Others are counted and dropped.

use super::namespace::Namespace;
use anyhow::{Context, Result};
use sino_image::qemu::process::require;
use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The `EtherType` of a VLAN tag (IEEE 802.1Q).
const TAG: [u8; 2] = [0x81, 0x00];
/// Destination and source of a frame, in bytes; then comes the tag.
const ADDRESSES: usize = 12;
/// The longest frame that is passed on.
const LONGEST: usize = 65_536;
/// The tap for frames without a tag.
pub const UNTAGGED: &str = "untagged";

type Seen = Arc<Mutex<BTreeMap<u16, u64>>>;

/// The trunk.
#[derive(Debug)]
pub struct Trunk {
    folder: tempfile::TempDir,
    seen: Seen,
    over: Arc<AtomicBool>,
    converters: Vec<Child>,
    inlets: Vec<PathBuf>,
}

impl Trunk {
    /// Makes it with the tap `vlanNUMBER` for each number, and the tap [`UNTAGGED`].
    ///
    /// # Errors
    /// socat is missing, or a tap or a socket cannot be made.
    pub fn make(namespace: &Namespace, vlans: &[u16]) -> Result<Self> {
        require("socat", "socat")?;
        // Short, because a socket's path must fit into 108 bytes.
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        let mut trunk =
            Self { folder, seen: Seen::default(), over: Arc::default(), converters: Vec::new(), inlets: Vec::new() };
        let mut sides = BTreeMap::new();
        for vlan in std::iter::once(0).chain(vlans.iter().copied()) {
            sides.insert(vlan, trunk.side(namespace, vlan)?);
        }
        let from_guest = Self::bind(&trunk.remote())?;
        trunk.inlets.push(trunk.remote());
        let (folder, seen, over) = (trunk.folder.path().to_owned(), Arc::clone(&trunk.seen), Arc::clone(&trunk.over));
        std::thread::spawn(move || {
            pass(&from_guest, &over, |frame| {
                let Some((vlan, frame)) = untag(frame) else { return };
                *seen.lock().unwrap_or_else(PoisonError::into_inner).entry(vlan).or_default() += 1;
                if let Some(side) = sides.get(&vlan) {
                    // One that nobody takes is lost, as on a wire.
                    let _ = side.send_to(&frame, folder.join(converter(vlan)));
                }
            });
        });
        Ok(trunk)
    }

    /// A VLAN's converter and tap. Returns the socket that the converter talks to; it listens to no other.
    fn side(&mut self, namespace: &Namespace, vlan: u16) -> Result<UnixDatagram> {
        let tap = if vlan == 0 { UNTAGGED.to_owned() } else { format!("vlan{vlan}") };
        namespace.ip(&format!("tuntap add dev {tap} mode tap"))?;
        let path = |name: &str| self.folder.path().join(name);
        let (inlet, guest) = (path(&format!("from-{vlan}")), self.local());
        let from_tap = Self::bind(&inlet)?;
        let socket = format!("UNIX-SENDTO:{},bind={}", inlet.display(), path(&converter(vlan)).display());
        let device = format!("TUN,tun-type=tap,tun-name={tap},iff-no-pi,iff-up");
        let mut command = namespace.command("socat");
        command.args(["-b", &LONGEST.to_string(), &socket, &device]).stdin(Stdio::null());
        self.converters.push(command.spawn().context("starting socat")?);
        self.inlets.push(inlet);
        let (over, to_tap) = (Arc::clone(&self.over), from_tap.try_clone().context("a second handle on a socket")?);
        std::thread::spawn(move || {
            pass(&from_tap, &over, |frame| {
                let _ = from_tap.send_to(&tagged(frame, vlan), &guest);
            });
        });
        Ok(to_tap)
    }

    fn bind(path: &Path) -> Result<UnixDatagram> {
        UnixDatagram::bind(path).with_context(|| format!("making the socket {}", path.display()))
    }

    /// The socket that QEMU makes for the card.
    #[must_use]
    pub fn local(&self) -> PathBuf {
        self.folder.path().join("guest")
    }

    /// The socket that QEMU sends to.
    #[must_use]
    pub fn remote(&self) -> PathBuf {
        self.folder.path().join("trunk")
    }

    /// How many frames the guest sent in each VLAN; 0: without a tag.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<u16, u64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for child in &mut self.converters {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Each thread waits for a frame; this one is its last.
        if let Ok(socket) = UnixDatagram::unbound() {
            for inlet in &self.inlets {
                let _ = socket.send_to(&[0], inlet);
            }
        }
    }
}

fn converter(vlan: u16) -> String {
    format!("to-{vlan}")
}

/// Passes frames on until it is over.
fn pass(from: &UnixDatagram, over: &AtomicBool, to: impl Fn(&[u8])) {
    let mut buffer = vec![0; LONGEST];
    while let Ok(length) = from.recv(&mut buffer) {
        if over.load(Ordering::Relaxed) {
            return;
        }
        to(buffer.get(..length).unwrap_or_default());
    }
}

/// The VLAN number of a frame (0: it has no tag) and the frame without the tag; `None`: it is none.
fn untag(frame: &[u8]) -> Option<(u16, Vec<u8>)> {
    let (addresses, rest) = frame.split_at_checked(ADDRESSES)?;
    match rest {
        [first, second, high, low, rest @ ..] if [*first, *second] == TAG => {
            // The upper four bits are priority and drop eligibility.
            Some((u16::from_be_bytes([high & 0x0f, *low]), [addresses, rest].concat()))
        }
        _ => Some((0, frame.to_vec())),
    }
}

/// The frame with a tag, unless the number is 0.
fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    match frame.split_at_checked(ADDRESSES) {
        Some((addresses, rest)) if vlan != 0 => [addresses, &TAG, &vlan.to_be_bytes(), rest].concat(),
        _ => frame.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_goes_on_and_off() {
        let frame: Vec<u8> = (0..60).collect();
        let with = tagged(&frame, 42);
        assert_eq!(&with[12..16], [0x81, 0, 0, 42]);
        assert_eq!(untag(&with), Some((42, frame.clone())));
        assert_eq!(untag(&frame), Some((0, frame.clone())));
        assert_eq!(tagged(&frame, 0), frame);
        let mut urgent = with;
        urgent[14] |= 0xe0;
        assert_eq!(untag(&urgent).unwrap().0, 42);
        assert_eq!(untag(&[0; 5]), None);
    }
}
