//! Which Debian packages an image holds: named groups, and what differs from suite to suite.
//!
//! Names only; versions are the archive's affair and are listed beside the finished image. Pure: takes groups and
//! returns a sorted list, or says which group is unknown and which there are.

use anyhow::{Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// The suites that are known to work.
pub const SUITES: &[&str] = &["trixie", "bookworm"];

/// The group that cannot be left out: without it nothing boots.
pub const BASE: &str = "base";

/// The default groups with their packages.
pub const GROUPS: &[(&str, &[&str])] = &[
    (
        BASE,
        &[
            "linux-image-amd64",
            "xen-system-amd64",
            "systemd-sysv",
            "systemd-timesyncd",
            "libpam-systemd",
            "udev",
            "dbus",
            "kmod",
            "lvm2",
            "thin-provisioning-tools",
            "e2fsprogs",
            "xfsprogs",
            "dosfstools",
            "fdisk",
            "openssh-server",
            "iproute2",
            "iputils-ping",
            "bridge-utils",
            "ethtool",
            "ca-certificates",
            "locales",
            "tzdata",
            "keyboard-configuration",
            "console-setup",
            "kbd",
            "cron",
            "procps",
            "psmisc",
            "less",
            "nano",
            "vim",
            "busybox-static",
            "zstd",
            "xz-utils",
        ],
    ),
    ("hvm", &["qemu-system-xen", "seabios", "ovmf", "ipxe-qemu"]),
    ("pv", &["xen-tools", "debootstrap"]),
    (
        "admin",
        &[
            "bash-completion",
            "curl",
            "file",
            "gdisk",
            "hdparm",
            "htop",
            "ipmitool",
            "iptables",
            "lsof",
            "man-db",
            "mdadm",
            "netcat-openbsd",
            "nftables",
            "nvme-cli",
            "parted",
            "pciutils",
            "rsync",
            "screen",
            "smartmontools",
            "strace",
            "sudo",
            "tcpdump",
            "tmux",
            "usbutils",
            "wget",
        ],
    ),
    ("firmware", &["amd64-microcode", "firmware-bnx2", "firmware-bnx2x", "firmware-realtek"]),
    (INTEL_MICROCODE, &["intel-microcode"]),
];

/// A group that is known but not enabled by default: it makes the initramfs four times as large (21 MB), which every
/// boot from a slow stick would pay for; the machine's own firmware brings microcode, too.
const INTEL_MICROCODE: &str = "intel-microcode";

/// The groups that are enabled by default.
#[must_use]
pub fn enabled_groups() -> Vec<String> {
    GROUPS.iter().map(|(name, _)| (*name).to_owned()).filter(|name| name != INTEL_MICROCODE).collect()
}

/// Packages that a suite lacks, with the suite whose package does (all they depend on is in both).
pub const BORROWED: &[(&str, &str, &str)] = &[("trixie", "xen-tools", "bookworm")];

/// The default groups as a map.
#[must_use]
pub fn default_groups() -> BTreeMap<String, Vec<String>> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    GROUPS.iter().map(|(name, packages)| ((*name).to_owned(), owned(packages))).collect()
}

/// The packages of the enabled groups and the extra ones, sorted, each once.
///
/// # Errors
/// A group that does not exist, `base` left out, or a name that no Debian package can have.
pub fn resolve(groups: &BTreeMap<String, Vec<String>>, enabled: &[String], extra: &[String]) -> Result<Vec<String>> {
    ensure!(enabled.iter().any(|name| name == BASE), "the group \"{BASE}\" cannot be left out");
    let mut packages = BTreeSet::new();
    for name in enabled {
        let Some(group) = groups.get(name) else {
            let known: Vec<&str> = groups.keys().map(String::as_str).collect();
            bail!("there is no package group {name:?}; allowed: {}", known.join(", "));
        };
        packages.extend(group.iter().cloned());
    }
    packages.extend(extra.iter().cloned());
    match packages.iter().find(|name| !is_package_name(name)) {
        Some(name) => bail!("{name:?} is not a package name; allowed: lower-case letters, digits, '+', '-', '.'"),
        None => Ok(packages.into_iter().collect()),
    }
}

/// The packages of the list that come from another suite, as (package, suite).
#[must_use]
pub fn borrowed<'a>(suite: &str, packages: &[String]) -> Vec<(&'a str, &'a str)> {
    let wanted = |package: &str| packages.iter().any(|name| name == package);
    let rows = BORROWED.iter().filter(|(in_suite, package, _)| *in_suite == suite && wanted(package));
    rows.map(|(_, package, from)| (*package, *from)).collect()
}

/// Debian policy 5.6.7: lower-case letters, digits, plus, minus, period; at least two, the first alphanumeric.
fn is_package_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    name.len() >= 2 && name.bytes().all(allowed) && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn groups_and_extras_make_one_sorted_list() {
        let packages = resolve(&default_groups(), &owned(&["base", "pv"]), &owned(&["zsh", "nano"])).unwrap();
        assert!(packages.is_sorted() && packages.contains(&"xen-tools".to_owned()));
        assert_eq!(packages.iter().filter(|name| *name == "nano").count(), 1);
        assert!(!packages.contains(&"qemu-system-xen".to_owned()));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let refused = |enabled: &[&str], extra: &[&str]| {
            resolve(&default_groups(), &owned(enabled), &owned(extra)).unwrap_err().to_string()
        };
        assert!(refused(&["base", "hmv"], &[]).contains("allowed: admin, base, firmware, hvm, intel-microcode, pv"));
        assert!(refused(&["hvm"], &[]).contains("cannot be left out"));
        assert!(refused(&["base"], &["Zsh"]).contains("\"Zsh\" is not a package name"));
        assert!(refused(&["base"], &["--force"]).contains("is not a package name"));
    }

    #[test]
    fn xen_tools_is_borrowed_only_where_it_is_missing() {
        let packages = owned(&["xen-tools"]);
        assert_eq!(borrowed("trixie", &packages), [("xen-tools", "bookworm")]);
        assert!(borrowed("bookworm", &packages).is_empty());
        assert!(borrowed("trixie", &[]).is_empty());
    }
}
