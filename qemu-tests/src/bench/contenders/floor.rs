//! The floor: an initramfs that knows everything about its one machine. A static busybox and a script.
//!
//! It inserts the modules in order, looks at the one device until it is there, mounts, and switches to the root. The modules
//! are unpacked and the archive is one zstd frame, as in SINO's initramfs.

use anyhow::{Context, Result, ensure};
use sino_image::cache::{Cache, Key};
use sino_image::command;
use sino_image::cpio::{Archive, Kind};
use sino_image::qemu::Bus;
use sino_image::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Raised when the way it is made changes.
const FORMAT: u32 = 1;
/// What every one of its machines needs.
const MODULES: [&str; 3] = ["isofs", "loop", "overlay"];

/// What drives a medium on this bus.
fn drivers(bus: Bus) -> &'static [&'static str] {
    match bus {
        Bus::Virtio => &["virtio_blk"],
        Bus::Cdrom => &["ata_piix", "sr_mod"],
        _ => &["xhci_pci", "usb_storage", "sd_mod"],
    }
}

/// The device of the only medium on this bus.
pub(super) fn device(bus: Bus) -> &'static str {
    match bus {
        Bus::Virtio => "/dev/vda",
        Bus::Cdrom => "/dev/sr0",
        _ => "/dev/sda",
    }
}

/// A file system that a root image can be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootFs {
    /// squashfs.
    Squashfs,
    /// erofs.
    Erofs,
}

impl RootFs {
    fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }

    fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Squashfs => &["squashfs"],
            // libcrc32c asks the kernel's cryptography for its algorithm.
            Self::Erofs => &["crc32c_generic", "erofs"],
        }
    }
}

/// `/init`. It stops where something is missing, and the boot then fails by its deadline. insmod, other than modprobe, takes no
/// parameters from the kernel's command line; without usb-storage's the stick would wait a second that nobody else waits.
const SCRIPT: &str = "\
#!/busybox sh
b=/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
for word in $($b cat /proc/cmdline); do
    case $word in
    usb-storage.*) usb_storage=\"$usb_storage ${word#*.}\" ;;
    floor.device=*) device=${word#*=} ;;
    floor.ram) ram=1 ;;
    init=*) init=${word#*=} ;;
    esac
done
for module in $($b cat /modules/order); do
    if [ $module = usb_storage ]; then parameters=$usb_storage; else parameters=; fi
    $b insmod /modules/$module.ko $parameters || exec $b sh
done
until $b mount -t iso9660 -o ro $device /medium 2>/dev/null; do $b usleep 5000; done
image=/medium/live/filesystem.squashfs
if [ \"$ram\" ]; then
    $b mount -t tmpfs -o size=80% ram /ram
    $b cp $image /ram/image
    $b umount /medium
    image=/ram/image
fi
$b losetup -r /dev/loop0 $image
$b mount -t $($b cat /root-fs) -o ro /dev/loop0 /lower
$b mount -t tmpfs overlay /overlay
$b mkdir /overlay/upper /overlay/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/overlay/upper,workdir=/overlay/work root /root
if [ -e /bench-init ]; then
    $b chroot /root /usr/bin/xargs -a /usr/lib/sino/held-in-ram cat >/dev/null 2>&1
    $b cp /bench-init /root$init
fi
for folder in dev proc sys; do $b mount --move /$folder /root/$folder; done
exec $b switch_root /root $init
";

/// The initramfs for a machine with its medium on `bus`, and a root image of this kind. With `init` it brings the bench's
/// init along, for root images that have none; it then first reads the programs that the running system is made of.
///
/// # Errors
/// A module or a tool is missing.
pub(super) fn initramfs(bus: Bus, kind: RootFs, init: Option<&Path>, tree: &Tree, cache: &Cache) -> Result<PathBuf> {
    let wanted: Vec<&str> = drivers(bus).iter().chain(&MODULES).chain(kind.modules()).copied().collect();
    let mut key = Key::new("floor", FORMAT)
        .with("tree", &tree.id)
        .with("script", SCRIPT)
        .with("modules", format!("{wanted:?} {kind:?}"));
    if let Some(init) = init {
        key = key.with_file("init", init)?;
    }
    cache.get("floor", &key, false, |path| {
        let folder = tree.modules();
        let text = fs::read_to_string(folder.join("modules.dep")).context("reading modules.dep")?;
        let mut archive = archive(&ordered(&text, &wanted)?, &folder, tree)?;
        archive.file("root-fs", 0o644, kind.name())?;
        if let Some(init) = init {
            archive.file("bench-init", 0o755, read(init)?)?;
        }
        let plain = path.with_extension("cpio");
        fs::write(&plain, archive.to_bytes(tree.made)?).with_context(|| format!("writing {}", plain.display()))?;
        let mut zstd = Command::new("zstd");
        let result = command::run(zstd.args(["-q", "-f", "-19"]).arg(&plain).arg("-o").arg(path));
        fs::remove_file(&plain).with_context(|| format!("removing {}", plain.display()))?;
        result.map(drop)
    })
}

fn archive(modules: &[(String, String)], folder: &Path, tree: &Tree) -> Result<Archive> {
    let mut archive = Archive::new();
    for name in ["dev", "proc", "sys", "medium", "ram", "lower", "overlay", "root"] {
        archive.folder(name)?;
    }
    archive.add("dev/console", 0o600, Kind::Device(5, 1))?;
    archive.file("init", 0o755, SCRIPT)?;
    archive.file("busybox", 0o755, read(&tree.root.join("usr/bin/busybox"))?)?;
    let mut order = String::new();
    for (name, path) in modules {
        // Writing to a String cannot fail.
        let _ = writeln!(order, "{name}");
        let unpacked = command::run(Command::new("xz").args(["-d", "-c", "-q", "--"]).arg(folder.join(path)))?;
        archive.file(&format!("modules/{name}.ko"), 0o644, unpacked)?;
    }
    archive.file("modules/order", 0o644, order)?;
    Ok(archive)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// The wanted modules with all that they need, in the order in which they can be inserted: names with files.
fn ordered(dep: &str, wanted: &[&str]) -> Result<Vec<(String, String)>> {
    let mut known = BTreeMap::new();
    for line in dep.lines() {
        let (path, needs) = line.split_once(':').with_context(|| format!("modules.dep: {line:?} has no colon"))?;
        known.insert(name_of(path), (path, needs));
    }
    let (mut order, mut chosen) = (Vec::new(), BTreeSet::new());
    for &name in wanted {
        let (path, needs) = known.get(name).with_context(|| format!("there is no kernel module {name}"))?;
        let packed = Path::new(path).extension().is_some_and(|extension| extension == "xz");
        ensure!(packed, "{path} is not packed as Debian's modules are");
        // depmod lists the nearest first; loading begins with the last.
        for path in needs.split_whitespace().rev().chain([*path]) {
            if chosen.insert(name_of(path)) {
                order.push((name_of(path), path.to_owned()));
            }
        }
    }
    Ok(order)
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::super::{FLAGS, root};
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let dep = "k/a.ko.xz: k/b-b.ko.xz k/c.ko.xz\nk/b-b.ko.xz: k/c.ko.xz\nk/c.ko.xz:\nk/d.ko.xz: k/c.ko.xz\n";
        let names: Vec<String> = ordered(dep, &["a", "d"]).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["c", "b_b", "a", "d"]);
        assert!(ordered(dep, &["e"]).is_err());
    }

    #[test]
    fn the_stick_waits_no_longer_than_for_the_others() {
        let (_, delay) = FLAGS.split_once("usb-storage.").unwrap();
        assert!(delay.starts_with("delay_use=0") && SCRIPT.contains("usb-storage.*)"), "{SCRIPT}");
        assert!(drivers(Bus::UsbStick).contains(&"usb_storage") && SCRIPT.contains("[ $module = usb_storage ]"));
    }

    #[test]
    fn the_script_looks_where_the_image_lies() {
        assert!(SCRIPT.contains(&format!("/medium/{}", root::LIVE_BOOT_IMAGE)));
    }
}
