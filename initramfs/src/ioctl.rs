//! The shapes of ioctl that stage one needs: one that takes a number, one that takes a pointer to a structure that the
//! kernel only reads, and one that takes a buffer that the kernel reads and writes. The result is the return value.

use rustix::fd::AsFd;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use std::ffi::c_void;

/// A structure that an ioctl reads.
///
/// # Safety
/// The type is `repr(C)` and laid out as the kernel's header defines it for [`Argument::OPCODE`], and that ioctl reads
/// no more than the type's size and writes nothing through the pointer.
#[allow(unsafe_code)]
pub unsafe trait Argument {
    /// The ioctl that takes this structure.
    const OPCODE: Opcode;
}

/// An ioctl that reads and writes a buffer whose first bytes say how long it is.
///
/// # Safety
/// The kernel, given [`SizedBuffer::bytes`] of the ioctl that the caller names, touches only as many bytes as the buffer's
/// own length field says, and [`SizedBuffer::bytes`] is at least that long.
#[allow(unsafe_code)]
pub unsafe trait SizedBuffer {
    /// The whole buffer.
    fn bytes(&mut self) -> &mut [u8];
}

struct Call {
    opcode: Opcode,
    argument: *mut c_void,
}

// SAFETY: `Call` is only made by the two functions below. The argument is a number for an ioctl that takes one, or
// points to an `Argument` of that very opcode which outlives the call.
#[allow(unsafe_code)]
unsafe impl Ioctl for Call {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

/// An ioctl that takes a number, or ignores its argument.
pub(crate) fn with_number(fd: impl AsFd, opcode: Opcode, number: usize) -> rustix::io::Result<i32> {
    // SAFETY: no pointer is passed; the callers' opcodes are documented to take an integer or nothing.
    #[allow(unsafe_code)]
    unsafe {
        rustix::ioctl::ioctl(fd, Call { opcode, argument: std::ptr::without_provenance_mut(number) })
    }
}

/// An ioctl that reads a structure.
pub(crate) fn with_structure<A: Argument>(fd: impl AsFd, argument: &A) -> rustix::io::Result<i32> {
    // SAFETY: the contract of `Argument`.
    #[allow(unsafe_code)]
    unsafe {
        rustix::ioctl::ioctl(fd, Call { opcode: A::OPCODE, argument: std::ptr::from_ref(argument).cast_mut().cast() })
    }
}

/// An ioctl that reads and writes a buffer.
pub(crate) fn with_buffer<B: SizedBuffer>(fd: impl AsFd, opcode: Opcode, buffer: &mut B) -> rustix::io::Result<i32> {
    // SAFETY: the contract of `SizedBuffer`; the buffer outlives the call.
    #[allow(unsafe_code)]
    unsafe {
        rustix::ioctl::ioctl(fd, Call { opcode, argument: buffer.bytes().as_mut_ptr().cast() })
    }
}
