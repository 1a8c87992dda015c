//! Copies to RAM, and sticks that are pulled.

use super::{TIGHT_MEMORY, booted, direct, drive, from_medium, stick};
use crate::scenario::{
    Act, Afterwards, Booted, Content, DriveSpec, During, Expect, Failed, FileSystem, Image, Scenario, Trouble,
};
use sino_image::qemu::Bus;

/// Copies to RAM.
pub(super) fn on_ram() -> Vec<Scenario> {
    let slow = |bytes| vec![DriveSpec { trouble: Some(Trouble::Slow(bytes)), ..stick() }];
    let large = || vec![drive("medium", Bus::UsbStick, Content::Iso(Image::Large))];
    let pulled =
        Failed { step: "copy-to-ram", says: &["cause:", "was pulled while it was copied", "try:", "plug it in"] };
    vec![
        direct("on-ram-slow-stick", "sino.ram", slow(1_000_000), booted(&[])),
        Scenario {
            during: &[During { when: "% of", act: Act::Pull("medium") }],
            ..direct("on-ram-pulled-half-way", "sino.ram", slow(1_000_000), Expect::Failed(pulled))
        },
        Scenario {
            image: Image::Large,
            memory_mib: TIGHT_MEMORY,
            ..direct("on-ram-too-little-memory", "sino.ram", large(), from_medium(&["MiB reserve"]))
        },
        direct(
            "on-ram-auto-fits",
            "sino.ram=auto",
            vec![stick()],
            Expect::Booted(Booted { medium: "medium", warnings: &[], in_ram: Some(true) }),
        ),
        Scenario {
            image: Image::Large,
            memory_mib: TIGHT_MEMORY,
            ..direct("on-ram-auto-does-not-fit", "sino.ram=auto", large(), from_medium(&[]))
        },
        Scenario {
            afterwards: &[
                Afterwards::Console("the stick may be removed"),
                Afterwards::MayBeRemoved,
                Afterwards::Pull("medium"),
                Afterwards::ReadAll,
            ],
            image: Image::Large,
            memory_mib: 1024,
            ..direct("on-ram-in-the-background", "sino.ram=background", large(), from_medium(&[]))
        },
        Scenario {
            afterwards: &[
                Afterwards::Console("the stick may be removed"),
                Afterwards::MayBeRemoved,
                Afterwards::Pull("medium"),
                Afterwards::ReadAll,
            ],
            image: Image::Large,
            memory_mib: 1024,
            ..direct(
                "on-ram-in-the-background-from-an-iso-file",
                "sino.ram=background sino.iso=/boot/iso/sino.iso",
                vec![drive("medium", Bus::UsbStick, Content::IsoFile(Image::Large, FileSystem::Ext4))],
                from_medium(&[]),
            )
        },
        Scenario {
            afterwards: &[
                Afterwards::Pull("medium"),
                Afterwards::Console("the medium was pulled before the copy was complete"),
                Afterwards::Warns("not copied to RAM"),
                Afterwards::ReadWhatIsLeft,
            ],
            image: Image::Large,
            memory_mib: 1024,
            ..direct(
                "on-ram-in-the-background-pulled-too-early",
                "sino.ram=background",
                vec![DriveSpec {
                    trouble: Some(Trouble::Slow(4_000_000)),
                    ..drive("medium", Bus::UsbStick, Content::Iso(Image::Large))
                }],
                from_medium(&[]),
            )
        },
    ]
}

/// The stick is pulled while the host runs from it.
pub(super) fn lost() -> Vec<Scenario> {
    vec![Scenario {
        afterwards: &[
            Afterwards::Pull("medium"),
            Afterwards::Console("THE MEDIUM IS GONE"),
            Afterwards::Trouble("IT IS GONE"),
            Afterwards::ReadWhatIsLeft,
            Afterwards::Restart,
        ],
        ..direct("medium-pulled-while-in-use", "", vec![stick()], booted(&[]))
    }]
}
