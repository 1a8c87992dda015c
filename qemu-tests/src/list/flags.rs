//! What flags change, and everything that must fail with an explanation.

use super::{BIOS_BUDGET, XEN_MEMORY, booted, direct, drive, stick};
use crate::scenario::{
    Act, Afterwards, Begin, Booted, Content, During, Entry, Expect, Failed, FileSystem, Image, InitramfsFault, Scenario,
};
use sino_image::qemu::{Bus, EndReason};

/// What flags change.
pub(super) fn flags() -> Vec<Scenario> {
    let absent = |says| Failed { step: "find-medium", says };
    let nothing = || vec![drive("empty", Bus::Virtio, Content::Blank(16))];
    let fails = absent(&["cause:", "no device carries build"]);
    let hung = Failed { step: "copy-to-ram", says: &["cause:", "no progress for 8 s", "seen:", "try:"] };
    vec![
        direct("flag-verify-off", "sino.verify=off", vec![stick()], booted(&["sino.verify=off"])),
        Scenario {
            afterwards: &[Afterwards::Overlay(16 << 20, 2000), Afterwards::LoopDevices(1), Afterwards::ReadAll],
            ..direct("flag-overlay-limits", "sino.overlay=16M sino.overlay-inodes=2000", vec![stick()], booted(&[]))
        },
        Scenario {
            afterwards: &[Afterwards::LoopDevices(3), Afterwards::ReadAll],
            ..direct("flag-of-a-driver", "loop.max_loop=3", vec![stick()], booted(&[]))
        },
        Scenario {
            afterwards: &[
                Afterwards::FillRoot,
                Afterwards::Console("of the 8 MiB for changes to the root are used"),
                Afterwards::Warns("of the 8 MiB for changes to the root are used"),
                Afterwards::ReadAll,
            ],
            ..direct("flag-overlay-filled", "sino.overlay=8M", vec![stick()], booted(&[]))
        },
        direct(
            "flag-on-failure-reboot",
            "sino.medium-timeout=2 sino.on-failure=reboot",
            nothing(),
            Expect::Ends(fails, EndReason::Reset),
        ),
        direct(
            "flag-on-failure-poweroff",
            "sino.medium-timeout=2 sino.on-failure=poweroff",
            nothing(),
            Expect::Ends(fails, EndReason::Off),
        ),
        direct(
            "flag-on-failure-shell-and-nobody-there",
            "sino.medium-timeout=2 sino.rescue-timeout=6",
            nothing(),
            Expect::Ends(fails, EndReason::Reset),
        ),
        direct(
            "flag-on-failure-shell-and-a-key-pressed",
            "sino.medium-timeout=2 sino.rescue-timeout=8",
            nothing(),
            Expect::Stays(fails, 12),
        ),
        direct(
            "flag-break-at-each-step",
            "sino.break=all",
            vec![stick()],
            Expect::Breaks(&crate::checks::STAGE_ONE, Booted { medium: "medium", warnings: &[], in_ram: None }),
        ),
        direct(
            "flag-garbage",
            "sino. sino.= sino.ram=\u{fc} sino.overlay=-1 sino.medium=../x sino.break=,, =x --sino \"sino.init=a b\" sino.\u{1f600}=1 sino.verify=maybe",
            vec![stick()],
            booted(&[
                "flag sino. ",
                "flag sino. ",
                "flag sino.ram",
                "flag sino.overlay",
                "flag sino.medium",
                "flag sino.break",
                "flag sino.init",
                "flag sino.\u{1f600}",
                "flag sino.verify",
            ]),
        ),
        Scenario {
            during: &[During { when: "] find-medium", act: Act::Throttle("medium", 1) }],
            ..direct(
                "fault-step-that-hangs",
                "sino.ram sino.step-timeout=8",
                vec![drive("medium", Bus::Virtio, Content::Iso(Image::Tiny))],
                Expect::Failed(hung),
            )
        },
    ]
}

/// Everything that must fail with an explanation.
pub(super) fn faults() -> Vec<Scenario> {
    let failed = |step, says| Expect::Failed(Failed { step, says });
    let stick = |content| vec![drive("medium", Bus::UsbStick, content)];
    let tiny = Content::Iso(Image::Tiny);
    let no_stage_two = failed("check-root", &["/sbin/sino-init"]);
    vec![
        direct(
            "fault-medium-absent",
            "sino.medium-timeout=5",
            vec![drive("empty", Bus::Virtio, Content::Blank(16))],
            failed("find-medium", &["cause:", "no device carries build", "seen:", "vda", "try:"]),
        ),
        direct(
            "fault-medium-of-another-build",
            "sino.medium-timeout=5",
            stick(Content::Iso(Image::OtherBuild)),
            failed("find-medium", &["cause:", "seen:", "usb", "another", "try:"]),
        ),
        direct(
            "fault-root-image-unreadable",
            "sino.medium-timeout=5",
            stick(Content::DamagedRoot(Image::Tiny)),
            failed("mount-image", &["cause:", "squashfs", "try:"]),
        ),
        direct(
            "fault-root-image-unreadable-on-ram",
            "sino.medium-timeout=5 sino.ram",
            stick(Content::DamagedRoot(Image::Tiny)),
            failed("mount-image", &["cause:", "dm-verity", "try:"]),
        ),
        Scenario {
            image: Image::WithoutStageTwo,
            ..direct("fault-stage-two-missing", "", stick(Content::Iso(Image::WithoutStageTwo)), no_stage_two)
        },
        Scenario {
            image: Image::WithoutInit,
            ..direct(
                "fault-debians-init-missing",
                "sino.rescue-timeout=5",
                stick(Content::Iso(Image::WithoutInit)),
                Expect::Ends(
                    Failed { step: "hand-over", says: &["cause:", "/sbin/init is not in the root image", "try:"] },
                    EndReason::Reset,
                ),
            )
        },
        direct(
            "fault-init-flag-wrong",
            "sino.init=/sbin/nowhere",
            stick(tiny),
            failed("check-root", &["/sbin/nowhere", "try:"]),
        ),
        Scenario {
            initramfs_fault: Some(InitramfsFault::OtherKernel),
            ..direct(
                "fault-kernel-of-another-build",
                "",
                stick(tiny),
                failed("read-manifest", &["cause:", "0.0.0-other", "is running", "try:"]),
            )
        },
        Scenario {
            initramfs_fault: Some(InitramfsFault::BrokenModule("usb_storage")),
            ..direct(
                "fault-driver-of-the-medium-broken",
                "sino.medium-timeout=5",
                stick(tiny),
                failed("find-medium", &["cause:", "usb_storage", "try:"]),
            )
        },
        Scenario {
            initramfs_fault: Some(InitramfsFault::NotForIsoFiles),
            ..direct(
                "fault-initramfs-not-for-iso-files",
                "sino.medium-timeout=5 sino.iso=/boot/iso/sino.iso",
                vec![drive("medium", Bus::UsbStick, Content::IsoFile(Image::Tiny, FileSystem::Xfs))],
                failed("find-medium", &["cause:", "xfs", "sino/initramfs-iso-file.img", "try:"]),
            )
        },
        Scenario {
            name: "fault-under-xen".to_owned(),
            image: Image::WithoutStageTwo,
            begin: Begin::Menu(Entry::Advanced),
            memory_mib: XEN_MEMORY,
            budget: BIOS_BUDGET,
            ..direct("", "", stick(Content::Iso(Image::WithoutStageTwo)), no_stage_two)
        },
    ]
}
