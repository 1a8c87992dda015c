//! An HVM guest in one sector: says a line on its serial port, sleeps, and obeys the ACPI power button.
//!
//! It needs no kernel, so it is there as soon as its BIOS is, and no driver of Xen's, so it is what a host must send an
//! ACPI event to (`xl shutdown -F`). The BIOS's timer wakes it 18 times a second; then it looks at the button.
//!
//! Sources: ACPI 6.5, 4.8.3.1.1 (PM1 status: bit 8 is the power button) and 4.8.3.2.1 (PM1 control: bit 13 sleeps); where
//! these registers are under Xen: `ACPI_PM1A_EVT_BLK_ADDRESS_V1` and `ACPI_PM1A_CNT_BLK_ADDRESS_V1` in
//! `xen/include/public/hvm/ioreq.h`; that state S5 is type 0: `tools/libacpi/dsdt.asl`. The serial port is a 16550 at 0x3f8.

use anyhow::{Context, Result, ensure};

/// Bytes of a sector.
const SECTOR: usize = 512;
/// Where the BIOS loads it.
const LOADED_AT: usize = 0x7c00;
/// What makes it bootable, in its last two bytes.
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Where a partition table would begin.
const TABLE: usize = 446;

/// The program up to its texts. Addresses of texts are put in at [`READY`] and [`ASKED`].
#[rustfmt::skip]
const PROGRAM: &[u8] = &[
    /* 00       */ 0xfa,             // cli
    /* 01       */ 0x31, 0xc0,       // xor ax, ax
    /* 03       */ 0x8e, 0xd8,       // mov ds, ax
    /* 05       */ 0x8e, 0xd0,       // mov ss, ax
    /* 07       */ 0xbc, 0x00, 0x7c, // mov sp, 0x7c00: the stack grows down from here
    /* 0a       */ 0xfc,             // cld
    /* 0b       */ 0xfb,             // sti: the timer shall wake us
    /* 0c       */ 0xbe, 0x00, 0x00, // mov si, the text "ready"
    /* 0f       */ 0xe8, 0x1c, 0x00, // call print
    /* 12 look  */ 0xba, 0x00, 0xb0, // mov dx, 0xb000: PM1 status
    /* 15       */ 0xed,             // in ax, dx
    /* 16       */ 0xf6, 0xc4, 0x01, // test ah, 1: the power button
    /* 19       */ 0x75, 0x03,       // jnz asked
    /* 1b       */ 0xf4,             // hlt: until the next interrupt
    /* 1c       */ 0xeb, 0xf4,       // jmp look
    /* 1e asked */ 0xbe, 0x00, 0x00, // mov si, the text "asked"
    /* 21       */ 0xe8, 0x0a, 0x00, // call print
    /* 24       */ 0xba, 0x04, 0xb0, // mov dx, 0xb004: PM1 control
    /* 27       */ 0xb8, 0x00, 0x20, // mov ax, 0x2000: sleep now, type 0
    /* 2a       */ 0xef,             // out dx, ax
    /* 2b       */ 0xf4,             // hlt
    /* 2c       */ 0xeb, 0xfd,       // jmp to that hlt
    /* 2e print */ 0xac,             // lodsb
    /* 2f       */ 0x84, 0xc0,       // test al, al
    /* 31       */ 0x74, 0x11,       // jz done
    /* 33       */ 0x88, 0xc3,       // mov bl, al
    /* 35       */ 0xba, 0xfd, 0x03, // mov dx, 0x3fd: line status
    /* 38 busy  */ 0xec,             // in al, dx
    /* 39       */ 0xa8, 0x20,       // test al, 0x20: room for a byte
    /* 3b       */ 0x74, 0xfb,       // jz busy
    /* 3d       */ 0x88, 0xd8,       // mov al, bl
    /* 3f       */ 0xb2, 0xf8,       // mov dl, 0xf8: dx is 0x3f8, data
    /* 41       */ 0xee,             // out dx, al
    /* 42       */ 0xeb, 0xea,       // jmp print
    /* 44 done  */ 0xc3,             // ret
];
/// Where the addresses of the two texts stand in the program.
const READY: usize = 0x0d;
const ASKED: usize = 0x1f;

/// The first sector of the disk of the guest `name`.
///
/// # Errors
/// The name does not fit.
pub fn boot_sector(name: &str) -> Result<[u8; SECTOR]> {
    let texts =
        [(READY, format!("guest {name} ready\r\n\0")), (ASKED, format!("guest {name} asked to shut down\r\n\0"))];
    let mut bytes = PROGRAM.to_vec();
    for (operand, text) in &texts {
        let address = u16::try_from(LOADED_AT + bytes.len())?.to_le_bytes();
        bytes
            .get_mut(*operand..operand + 2)
            .context("the operand is outside of the program")?
            .copy_from_slice(&address);
        bytes.extend(text.bytes());
    }
    ensure!(bytes.len() <= TABLE, "{name:?} is too long for a boot sector");
    bytes.resize(SECTOR - SIGNATURE.len(), 0);
    bytes.extend(SIGNATURE);
    bytes.try_into().ok().context("a boot sector that is none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bootable_and_finds_its_texts() {
        let bytes = boot_sector("hvm").unwrap();
        assert_eq!(bytes[510..], SIGNATURE);
        for (operand, text) in [(READY, "guest hvm ready\r\n\0"), (ASKED, "guest hvm asked to shut down\r\n\0")] {
            assert_eq!(bytes[operand - 1], 0xbe, "mov si");
            let at = usize::from(u16::from_le_bytes([bytes[operand], bytes[operand + 1]])) - LOADED_AT;
            assert!(bytes[at..].starts_with(text.as_bytes()), "{text}");
        }
        assert!(boot_sector(&"x".repeat(200)).is_err());
    }

    /// Every jump and call leads to the beginning of an instruction.
    #[test]
    fn jumps_lead_where_the_comments_say() {
        let places = [
            (0x0f, 3, 0x2e),
            (0x19, 2, 0x1e),
            (0x1c, 2, 0x12),
            (0x21, 3, 0x2e),
            (0x2c, 2, 0x2b),
            (0x31, 2, 0x44),
            (0x3b, 2, 0x38),
            (0x42, 2, 0x2e),
        ];
        for (at, length, target) in places {
            let distance = if length == 3 {
                isize::from(i16::from_le_bytes([PROGRAM[at + 1], PROGRAM[at + 2]]))
            } else {
                isize::from(i8::from_le_bytes([PROGRAM[at + 1]]))
            };
            assert_eq!((at + length).checked_add_signed(distance), Some(target), "at {at:#x}");
        }
    }
}
