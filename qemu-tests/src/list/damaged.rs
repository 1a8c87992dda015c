//! Media with wrong or unreadable bytes.

use super::{booted, direct, drive, from_medium, stick};
use crate::scenario::{Act, Afterwards, Content, DriveSpec, During, Expect, Failed, Image, Place, Scenario, Trouble};
use sino_image::qemu::Bus;

/// What happens when the damaged file is read.
const NOTICED: &[Afterwards] = &[
    Afterwards::ReadAllBut(&["/ballast"]),
    Afterwards::Console("THE MEDIUM IS DAMAGED"),
    Afterwards::Trouble("IT IS DAMAGED"),
];

/// Media with wrong or unreadable bytes.
pub(super) fn damaged() -> Vec<Scenario> {
    [wrong_bits(), read_errors()].concat()
}

/// Bits that are another, and a medium that ends too early.
fn wrong_bits() -> Vec<Scenario> {
    let failed = |step, says| Expect::Failed(Failed { step, says });
    vec![
        Scenario {
            afterwards: NOTICED,
            ..direct("damaged-bit-in-data", "", flipped(Place::SquashfsMiddle), booted(&[]))
        },
        Scenario {
            afterwards: NOTICED,
            ..direct(
                "damaged-bit-in-data-on-ram",
                "sino.ram",
                flipped(Place::SquashfsMiddle),
                from_medium(&["is not what was built, read twice"]),
            )
        },
        Scenario {
            afterwards: &[
                Afterwards::Console("copy to RAM FAILED: the medium is damaged"),
                Afterwards::Warns("not copied to RAM"),
            ],
            ..direct(
                "damaged-bit-in-data-in-the-background",
                "sino.ram=background",
                flipped(Place::SquashfsMiddle),
                from_medium(&[]),
            )
        },
        direct(
            "damaged-bit-in-data-on-ram-unverified",
            "sino.ram sino.verify=off",
            flipped(Place::SquashfsMiddle),
            failed("copy-to-ram", &["cause:", "is not what was built, read twice", "try:", "SHA256SUMS"]),
        ),
        direct(
            "damaged-bit-in-superblock",
            "",
            flipped(Place::SquashfsSuperblock),
            failed("mount-image", &["cause:", "seen:", "dm-verity", "try:", "the medium is damaged"]),
        ),
        direct(
            "damaged-bit-in-superblock-on-ram",
            "sino.ram",
            flipped(Place::SquashfsSuperblock),
            failed("mount-image", &["cause:", "seen:", "dm-verity", "try:", "the medium is damaged"]),
        ),
        direct(
            "damaged-bit-in-verity-tree",
            "",
            flipped(Place::VerityTree),
            failed("mount-image", &["cause:", "try:", "the medium is damaged"]),
        ),
        direct(
            "damaged-truncated",
            "sino.medium-timeout=5",
            vec![drive("medium", Bus::UsbStick, Content::Truncated(Image::Tiny, 90))],
            failed("find-medium", &["cause:", "seen:", "half written", "try:"]),
        ),
    ]
}

/// A stick with one wrong bit.
fn flipped(place: Place) -> Vec<DriveSpec> {
    vec![drive("medium", Bus::UsbStick, Content::FlippedBit(Image::Tiny, place))]
}

/// Sectors that cannot be read, and `sino.check`.
fn read_errors() -> Vec<Scenario> {
    let unreadable = |trouble| vec![DriveSpec { trouble: Some(trouble), ..stick() }];
    vec![
        Scenario {
            afterwards: NOTICED,
            ..direct("damaged-read-error-in-data", "", unreadable(Trouble::UnreadableData), booted(&[]))
        },
        Scenario {
            afterwards: &[Afterwards::ReadAllBut(&["/ballast"])],
            ..direct(
                "damaged-read-error-in-data-on-ram",
                "sino.ram",
                unreadable(Trouble::UnreadableData),
                from_medium(&["cannot be read, twice"]),
            )
        },
        direct("damaged-read-error-elsewhere", "", unreadable(Trouble::UnreadableElsewhere), booted(&[])),
        direct(
            "damaged-read-error-elsewhere-on-ram",
            "sino.ram",
            unreadable(Trouble::UnreadableElsewhere),
            booted(&[]),
        ),
        Scenario {
            during: &[During { when: "and the EFI partition, ", act: Act::See }],
            ..direct("check-of-a-good-medium", "sino.check sino.debug", vec![stick()], booted(&[]))
        },
        Scenario {
            afterwards: &[Afterwards::ReadAllBut(&["/ballast"])],
            ..direct(
                "check-of-a-damaged-medium",
                "sino.check",
                flipped(Place::SquashfsMiddle),
                booted(&["the medium is DAMAGED: sino/root.squashfs"]),
            )
        },
        direct(
            "check-of-a-damaged-efi-partition",
            "sino.check",
            unreadable(Trouble::UnreadableEfi),
            booted(&["the medium is DAMAGED: the EFI partition"]),
        ),
        direct(
            "check-of-a-medium-with-unreadable-files",
            "sino.check",
            unreadable(Trouble::UnreadableElsewhere),
            booted(&["the medium is DAMAGED: sino/vmlinuz"]),
        ),
    ]
}
