//! Loop devices: a file as a read-only block device.
//!
//! Source: kernel `include/uapi/linux/loop.h`, loop(4). `LOOP_CONFIGURE` (Linux 5.8) sets everything at once.

use crate::ioctl::{self, Argument};
use anyhow::{Context, Result, bail};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::Opcode;

const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_CHANGE_FD: Opcode = 0x4C06;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// How often another program may take the free device between asking for it and using it.
const ATTEMPTS: u32 = 16;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

// SAFETY: laid out as `struct loop_config`; LOOP_CONFIGURE only reads it.
#[allow(unsafe_code)]
unsafe impl Argument for LoopConfig {
    const OPCODE: Opcode = 0x4C0A;
}

/// Makes `file` a read-only block device and returns the device's path. With `direct`, the loop reads the file past the
/// page cache where the file system allows it (the squashfs above caches what it needs).
///
/// # Errors
/// No loop devices in this kernel, none free, or the kernel's refusal.
pub fn attach(file: &OwnedFd, name: &str, direct: bool) -> Result<String> {
    let open = |path: &str, flags: OFlags| {
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).with_context(|| format!("opening {path}"))
    };
    let control = open("/dev/loop-control", OFlags::RDWR).context("this kernel has no loop devices")?;
    let mut file_name = [0_u8; 64];
    for (to, from) in file_name.iter_mut().take(63).zip(name.bytes()) {
        *to = from;
    }
    for _ in 0..ATTEMPTS {
        let number = ioctl::with_number(&control, LOOP_CTL_GET_FREE, 0).context("asking for a free loop device")?;
        let path = format!("/dev/loop{number}");
        let device = open(&path, OFlags::RDONLY)?;
        let info = LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_READ_ONLY | if direct { LO_FLAGS_DIRECT_IO } else { 0 },
            file_name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        };
        let fd = u32::try_from(file.as_raw_fd()).context("a file descriptor below zero")?;
        match ioctl::with_structure(&device, &LoopConfig { fd, block_size: 0, info, reserved: [0; 8] }) {
            Ok(_) => return Ok(path),
            // Another program was faster: take the next one.
            Err(Errno::BUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("setting up {path} for {name}")),
        }
    }
    bail!("no loop device stayed free in {ATTEMPTS} attempts")
}

/// Puts another file behind a read-only loop device while it is in use. The file must be as long as the old one, which is
/// let go of.
///
/// # Errors
/// The kernel's refusal.
pub fn change(path: &str, file: &OwnedFd) -> Result<()> {
    let device = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {path}"))?;
    let number = usize::try_from(file.as_raw_fd()).context("a file descriptor below zero")?;
    ioctl::with_number(&device, LOOP_CHANGE_FD, number).with_context(|| format!("changing the file behind {path}"))?;
    Ok(())
}

/// Lets go of the file behind a loop device.
///
/// # Errors
/// The kernel's refusal.
pub fn detach(path: &str) -> Result<()> {
    let device = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {path}"))?;
    ioctl::with_number(&device, LOOP_CLR_FD, 0).with_context(|| format!("releasing {path}"))?;
    Ok(())
}
