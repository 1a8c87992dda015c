//! The files by which an administrator's own systemd-networkd or ifupdown makes the network (`network.managed = false`).
//!
//! They are kept as one item, whatever `network.managed` says, so that they can be written before the network is handed over.
//! Which of the two is to be started follows from them: what `systemctl enable` does is gone at the next boot.

use super::Item;
use super::file_set::{self, FileSet, Place, ends_with, is_plain};
use super::running::System;
use std::path::Path;

/// Where systemd-networkd's files are. Source: systemd.network(5).
const NETWORKD: &str = "etc/systemd/network";
/// Where ifupdown's are. Source: interfaces(5).
const IFUPDOWN: &str = "etc/network";
/// Where Debian has its units.
const UNITS: &str = "usr/lib/systemd/system";

/// The set.
pub(super) const FILES: FileSet = FileSet {
    places: &[
        Place { folder: IFUPDOWN, wants: |name| name == "interfaces", has_drop_ins: |_| false },
        Place { folder: "etc/network/interfaces.d", wants: is_plain, has_drop_ins: |_| false },
        Place { folder: NETWORKD, wants: is_networkd, has_drop_ins: is_networkd_folder },
    ],
};

/// A file that networkd, or udev for links, reads. Source: systemd.network(5), systemd.netdev(5), systemd.link(5).
fn is_networkd(name: &str) -> bool {
    is_plain(name) && [".network", ".netdev", ".link"].iter().any(|kind| ends_with(name, kind))
}

fn is_networkd_folder(name: &str) -> bool {
    name.strip_suffix(".d").is_some_and(is_networkd)
}

/// The services that make the network of these files in the system below `root`: those whose files an administrator wrote,
/// as far as the image has them.
#[must_use]
pub fn services(root: &Path) -> Vec<&'static str> {
    let Ok(system) = System::open(root) else { return Vec::new() };
    let files = system.read(Item::NetworkFiles).unwrap_or_default();
    let paths: Vec<String> = files.values().flat_map(|bytes| file_set::paths(bytes)).collect();
    let has = |folder: &str, kind: &str| {
        paths
            .iter()
            .any(|path| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')) && ends_with(path, kind))
    };
    let units = system.folder(UNITS).and_then(|folder| Ok(folder.names()?)).unwrap_or_default();
    [("systemd-networkd.service", has(NETWORKD, ".network")), ("networking.service", has(IFUPDOWN, ""))]
        .into_iter()
        .filter(|(unit, wanted)| *wanted && units.iter().any(|name| name == unit))
        .map(|(unit, _)| unit)
        .collect()
}

/// Whether there is anything in these files, the image's own with them.
#[must_use]
pub fn any(root: &Path) -> bool {
    System::open(root).is_ok_and(|system| FILES.read(system.root(), None).is_ok_and(|set| set.is_some()))
}

#[cfg(test)]
mod tests {
    use super::super::archive::tests::file;
    use super::super::archive::{Content, Entries, Entry, pack};
    use super::super::tests::Host;
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn only_the_sets_own_paths_and_kinds_of_files_are_taken() {
        let check = |path: &str, entry: Entry| FILES.check(&pack(&Entries::from([(path.to_owned(), entry)])).unwrap());
        for path in [
            "etc/network/interfaces",
            "etc/network/interfaces.d/xenbr0",
            "etc/systemd/network/10-a.network",
            "etc/systemd/network/a.netdev.d/b.conf",
        ] {
            assert_eq!(check(path, file(0o644, "x")), Ok(()), "{path}");
        }
        for path in [
            "etc/shadow",
            "etc/network/if-up.d/x",
            "etc/network/interfaces.d/../../shadow",
            "etc/network/interfaces.d/.x.swp",
            "etc/network/interfaces.d/x~",
            "etc/systemd/network/x.service",
            "etc/systemd/network/.network",
            "etc/systemd/network/a.network.d/../b.conf",
            "etc/systemd/network/a.service.d/b.conf",
            "/etc/network/interfaces",
            "",
        ] {
            assert!(check(path, file(0o644, "x")).is_err(), "{path}");
        }
        let link = |target: &str| Entry { content: Content::Link(target.into()), ..file(0o777, "") };
        assert_eq!(check("etc/systemd/network/99-default.link", link("/dev/null")), Ok(()));
        assert!(check("etc/systemd/network/99-default.link", link("/etc/shadow")).is_err());
        assert!(check("etc/network/interfaces", file(0o4755, "x")).is_err());
        assert!(check("etc/network/interfaces", file(0o644, "a\0b")).is_err());
        assert!(check("etc/network/interfaces", file(0o644, &"x".repeat(300 << 10))).is_err());
    }

    #[test]
    fn what_is_not_the_images_own_is_read_and_put_back_as_it_was() {
        let (first, second) = (Host::new(), Host::new());
        for host in [&first, &second] {
            for below in ["", "run/sino/lower/"] {
                host.write(&format!("{below}etc/systemd/network/image.network"), "[Match]\nName=image\n");
                host.write(&format!("{below}etc/network/interfaces"), "auto lo\n");
            }
            host.write("etc/group", "root:x:0:\nsystemd-network:x:998:\n");
        }
        let system = |host: &Host| System::open(&host.root()).unwrap();
        assert!(system(&first).read(Item::NetworkFiles).unwrap().is_empty());
        first.write("etc/systemd/network/10-card.network", "[Match]\nName=en*\n[Network]\nBridge=xenbr0 # \u{e9}\n");
        first.write("etc/systemd/network/10-card.network.d/mtu.conf", "[Link]\nMTUBytes=9000\n");
        first.write("etc/systemd/network/wg0.netdev", "[WireGuard]\nPrivateKey=x\n");
        first.write("etc/systemd/network/.10-card.network.swp", "half");
        first.write("etc/systemd/network/readme", "no");
        first.write("etc/network/interfaces", "auto lo eno1\n");
        let secret = first.root().join("etc/systemd/network/wg0.netdev");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/dev/null", first.root().join("etc/systemd/network/99-default.link")).unwrap();
        let files = system(&first).read(Item::NetworkFiles).unwrap();
        let paths = file_set::paths(files.values().next().unwrap());
        assert_eq!(
            paths,
            [
                "etc/network/interfaces",
                "etc/systemd/network/10-card.network",
                "etc/systemd/network/10-card.network.d/mtu.conf",
                "etc/systemd/network/99-default.link",
                "etc/systemd/network/wg0.netdev"
            ]
        );
        let now = std::time::SystemTime::now();
        assert!(system(&second).place(Item::NetworkFiles, &files, now).unwrap());
        assert!(
            !system(&second).place(Item::NetworkFiles, &files, now).unwrap(),
            "a second time there is nothing to do"
        );
        assert_eq!(system(&second).read(Item::NetworkFiles).unwrap(), files);
        for path in paths.iter().filter(|path| !ends_with(path, ".link")) {
            let of = |host: &Host| fs::read(host.root().join(path)).unwrap();
            assert_eq!(of(&first), of(&second), "{path}");
        }
        let mode = fs::metadata(second.root().join("etc/systemd/network/wg0.netdev")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let link = fs::read_link(second.root().join("etc/systemd/network/99-default.link")).unwrap();
        assert_eq!(link, Path::new("/dev/null"));
        assert!(!second.root().join("etc/systemd/network/readme").exists());
    }

    #[test]
    fn a_link_elsewhere_and_too_much_are_said_with_the_file() {
        let host = Host::new();
        host.write("etc/systemd/network/a.network", "x");
        symlink("/srv/network/b.network", host.root().join("etc/systemd/network/b.network")).unwrap();
        let said = || format!("{:#}", System::open(&host.root()).unwrap().read(Item::NetworkFiles).unwrap_err());
        assert!(said().contains("/etc/systemd/network/b.network") && said().contains("/srv/network"), "{}", said());
        fs::remove_file(host.root().join("etc/systemd/network/b.network")).unwrap();
        for number in 0..=200 {
            host.write(&format!("etc/network/interfaces.d/{number}"), "x");
        }
        assert!(said().contains("200 files"), "{}", said());
    }

    #[test]
    fn the_service_follows_from_the_files() {
        let host = Host::new();
        assert_eq!(services(&host.root()), Vec::<&str>::new());
        host.write("etc/systemd/network/names.link", "x");
        host.write("usr/lib/systemd/system/systemd-networkd.service", "");
        assert_eq!(services(&host.root()), Vec::<&str>::new(), "a name for a card is no network");
        host.write("etc/systemd/network/a.network", "x");
        host.write("etc/network/interfaces", "x");
        assert_eq!(services(&host.root()), ["systemd-networkd.service"], "ifupdown is not in this image");
        host.write("usr/lib/systemd/system/networking.service", "");
        assert_eq!(services(&host.root()), ["systemd-networkd.service", "networking.service"]);
    }
}
