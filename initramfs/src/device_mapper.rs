//! Device-mapper devices by ioctl: made with one table, read-only, and removed.
//!
//! Source: kernel `include/uapi/linux/dm-ioctl.h`. Knows nothing of what the targets mean; [`crate::verity`] and
//! [`crate::lvm`] write their parameters.

use crate::ioctl::{self, SizedBuffer};
use anyhow::{Context, Result, ensure};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::Opcode;

const CONTROL: &str = "/dev/mapper/control";
/// `sizeof(struct dm_ioctl)`, also where the targets begin.
const HEADER: usize = 312;
/// `sizeof(struct dm_target_spec)`.
const SPEC: usize = 40;
/// Room for the answer to [`status`].
const ANSWER: usize = 4096;

/// `_IOWR(0xfd, number, struct dm_ioctl)`.
const fn opcode(number: u32) -> Opcode {
    (3 << 30) | (312 << 16) | (0xfd << 8) | number
}

const DEV_CREATE: Opcode = opcode(3);
const DEV_REMOVE: Opcode = opcode(4);
/// Resumes when [`SUSPEND_FLAG`] is not set.
const DEV_SUSPEND: Opcode = opcode(6);
const TABLE_LOAD: Opcode = opcode(9);
const TABLE_STATUS: Opcode = opcode(12);

const READONLY_FLAG: u32 = 1;

/// Places in `struct dm_ioctl`.
const AT_DATA_SIZE: usize = 12;
const AT_DATA_START: usize = 16;
const AT_TARGET_COUNT: usize = 20;
const AT_FLAGS: usize = 28;
const AT_DEV: usize = 40;
const AT_NAME: usize = 48;
const NAME_LENGTH: usize = 128;
const AT_UUID: usize = 176;
const UUID_LENGTH: usize = 129;

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// First 512-byte sector of the device.
    pub start: u64,
    /// Its number of 512-byte sectors.
    pub length: u64,
    /// Kind of target, for example `verity` or `linear`.
    pub kind: &'static str,
    /// The target's parameters.
    pub parameters: String,
}

/// `struct dm_ioctl` with what follows it.
struct Message(Vec<u8>);

// SAFETY: the kernel copies in and out at most `data_size` bytes, and `Message::new` sets that field to the length of the
// vector, which is never changed afterwards.
#[allow(unsafe_code)]
unsafe impl SizedBuffer for Message {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Message {
    fn new(name: &str, uuid: &str, payload: &[u8], room: usize, flags: u32, targets: usize) -> Result<Self> {
        ensure!(name.len() < NAME_LENGTH && uuid.len() < UUID_LENGTH, "the name {name:?} is too long");
        let mut bytes = vec![0; HEADER];
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().max(HEADER + room), 0);
        let length = u32::try_from(bytes.len()).context("a table that is too long")?;
        let targets = u32::try_from(targets).context("too many targets")?;
        let mut put = |at: usize, value: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + value.len()) {
                place.copy_from_slice(value);
            }
        };
        // The version of the interface: 4.0.0 is understood by every kernel since 2.6.
        put(0, &4_u32.to_ne_bytes());
        put(AT_DATA_SIZE, &length.to_ne_bytes());
        put(AT_DATA_START, &u32::try_from(HEADER).unwrap_or_default().to_ne_bytes());
        put(AT_TARGET_COUNT, &targets.to_ne_bytes());
        put(AT_FLAGS, &flags.to_ne_bytes());
        put(AT_NAME, name.as_bytes());
        put(AT_UUID, uuid.as_bytes());
        Ok(Self(bytes))
    }

    fn send(&mut self, control: &OwnedFd, opcode: Opcode) -> rustix::io::Result<i32> {
        ioctl::with_buffer(control, opcode, self)
    }

    /// The device's number in the kernel's own encoding (`huge_encode_dev`).
    fn device(&self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.0.get(AT_DEV..AT_DEV + 8)?.try_into().ok()?))
    }
}

fn control() -> Result<OwnedFd> {
    rustix::fs::open(CONTROL, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {CONTROL}: this kernel has no device-mapper"))
}

/// Makes a read-only device of these targets and returns its path, `/dev/dm-N`.
///
/// # Errors
/// The kernel's refusal; nothing stays behind then.
pub fn create(name: &str, uuid: &str, targets: &[Target]) -> Result<String> {
    let control = control()?;
    let mut made = Message::new(name, uuid, &[], 0, 0, 0)?;
    made.send(&control, DEV_CREATE).with_context(|| format!("making the device {name}"))?;
    let started = (|| -> Result<String> {
        load(&control, name, targets)?;
        let mut resumed = Message::new(name, "", &[], 0, 0, 0)?;
        resumed.send(&control, DEV_SUSPEND).with_context(|| format!("starting {name}"))?;
        let number = resumed.device().or_else(|| made.device()).context("the kernel names no device")?;
        // Minor numbers above 255 lie above the major number.
        let minor = number & 0xff | (number >> 12) & !0xff;
        Ok(format!("/dev/dm-{minor}"))
    })();
    if started.is_err() {
        let _ = remove(name);
    }
    started
}

/// Loads a table, which waits until the device is started.
fn load(control: &OwnedFd, name: &str, targets: &[Target]) -> Result<()> {
    let mut table = Message::new(name, "", &table(targets), 0, READONLY_FLAG, targets.len())?;
    table.send(control, TABLE_LOAD).with_context(|| {
        let lines: Vec<String> =
            targets.iter().map(|target| format!("{} {}", target.kind, target.parameters)).collect();
        format!("loading the table of {name} ({})", lines.join("; "))
    })?;
    Ok(())
}

fn table(targets: &[Target]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for target in targets {
        let parameters = target.parameters.as_bytes();
        // The text ends with a NUL; the next target begins at a multiple of eight.
        let length = (SPEC + parameters.len() + 1).next_multiple_of(8);
        let end = bytes.len() + length;
        bytes.extend(target.start.to_ne_bytes());
        bytes.extend(target.length.to_ne_bytes());
        bytes.extend(0_i32.to_ne_bytes());
        bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        let mut kind = [0; 16];
        for (to, from) in kind.iter_mut().take(15).zip(target.kind.bytes()) {
            *to = from;
        }
        bytes.extend(kind);
        bytes.extend(parameters);
        bytes.resize(end, 0);
    }
    bytes
}

/// Removes a device.
///
/// # Errors
/// It is not there, or in use.
pub fn remove(name: &str) -> Result<()> {
    let control = control()?;
    Message::new(name, "", &[], 0, 0, 0)?
        .send(&control, DEV_REMOVE)
        .with_context(|| format!("removing the device {name}"))?;
    Ok(())
}

/// What the first target of a device says of itself; for verity `V` while all that was read was right, `C` after a wrong
/// block.
///
/// # Errors
/// There is no such device.
pub fn status(name: &str) -> Result<String> {
    let control = control()?;
    let mut message = Message::new(name, "", &[], ANSWER, 0, 0)?;
    message.send(&control, TABLE_STATUS).with_context(|| format!("asking for the status of {name}"))?;
    let text = message.0.get(HEADER + SPEC..).unwrap_or_default();
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernels_header() {
        // _IOWR(0xfd, 3, struct dm_ioctl) as dmsetup's strace shows it.
        assert_eq!(DEV_CREATE, 0xc138_fd03);
        assert_eq!(TABLE_STATUS, 0xc138_fd0c);
    }

    #[test]
    fn each_target_begins_at_a_multiple_of_eight() {
        let target = |parameters: &str| Target { start: 0, length: 8, kind: "linear", parameters: parameters.into() };
        let bytes = table(&[target("7:0 0"), target("7:0 1024")]);
        assert_eq!(bytes.len(), 48 + 56);
        assert_eq!(u32::from_ne_bytes(bytes[20..24].try_into().unwrap()), 48);
        assert_eq!(&bytes[24..30], b"linear");
        assert_eq!(&bytes[40..46], b"7:0 0\0");
        assert_eq!(&bytes[48 + 40..48 + 49], b"7:0 1024\0");
    }

    #[test]
    fn a_message_says_how_long_it_is() {
        let message = Message::new("n", "u", b"12345678", ANSWER, READONLY_FLAG, 1).unwrap();
        let at = |place: usize| u32::from_ne_bytes(message.0[place..place + 4].try_into().unwrap());
        assert_eq!((at(AT_DATA_SIZE) as usize, at(AT_FLAGS), at(AT_TARGET_COUNT)), (message.0.len(), 1, 1));
        assert!(Message::new(&"n".repeat(128), "", &[], 0, 0, 0).is_err());
    }
}
