//! Stage one's mounts against the real kernel, in a mount namespace with a root of its own: nothing of the machine's is
//! touched but a free loop device.
//!
//! Needs root (loop devices), the kernel's squashfs and overlay, and mksquashfs; what is missing fails with its remedy.

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};
use rustix::thread::UnshareFlags;
use sino_boot::layout;
use sino_boot::options::{Options, OverlaySize};
use sino_initramfs::keeper::Task;
use sino_initramfs::mounts::{self, Mount};
use sino_initramfs::overlay::Limits;
use sino_initramfs::{block_copy, loop_device, overlay};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list {
        // Before any thread starts: a namespace belongs to the thread that asks for it and those it starts later.
        if let Err(why) = enter_namespace() {
            eprintln!("the namespace tests cannot run: {why}");
            return ExitCode::FAILURE;
        }
    }
    let trials = vec![
        Trial::test("a_root_is_stacked_checked_and_taken_down", || whole().map_err(Failed::from)),
        Trial::test("the_file_below_a_mounted_root_is_swapped", || swap().map_err(Failed::from)),
        Trial::test("a_mount_error_carries_the_kernels_own_words", || garbage().map_err(Failed::from)),
    ];
    // The trials share the paths of a boot.
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials).exit_code()
}

fn enter_namespace() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("root is needed; run: make check (it uses sudo), or this command with sudo".to_owned());
    }
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let image = place.path().join("image");
    fs::create_dir_all(image.join("sbin")).map_err(|error| error.to_string())?;
    fs::write(image.join("sbin/sino-init"), "#!/bin/sh\n").map_err(|error| error.to_string())?;
    fs::set_permissions(image.join("sbin/sino-init"), fs::Permissions::from_mode(0o755))
        .map_err(|error| error.to_string())?;
    fs::write(image.join("sbin/plain"), "#!/bin/sh\n").map_err(|error| error.to_string())?;
    std::os::unix::fs::symlink("/sbin/sino-init", image.join("sbin/link")).map_err(|error| error.to_string())?;
    let packed = Command::new("mksquashfs")
        .args([&image, &place.path().join("root.squashfs")])
        .args(["-quiet", "-no-progress", "-comp", "zstd"])
        .output()
        .map_err(|error| format!("mksquashfs: {error}; install it: apt-get install squashfs-tools"))?;
    if !packed.status.success() {
        return Err(format!("mksquashfs: {}", String::from_utf8_lossy(&packed.stderr)));
    }
    let bytes = fs::read(place.path().join("root.squashfs")).map_err(|error| error.to_string())?;
    isolate(place.path(), &bytes).map_err(|error| format!("making the namespace: {error}"))
}

/// A mount namespace whose root is a tmpfs with the machine's /dev, /proc and /sys, and the image on it.
fn isolate(place: &Path, image: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: only the mount namespace is unshared; no file descriptor table or memory.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    let place = rustix::fs::open(place, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    if mount_change("/", private) == Err(rustix::io::Errno::INVAL) {
        // In a chroot "/" is no mount; the namespace's own root, above it, is.
        leave_chroot(&place)?;
        mount_change("/", private)?;
    }
    rustix::process::fchdir(&place)?;
    let root = Path::new("root");
    fs::create_dir(root)?;
    mount("tmpfs", root, "tmpfs", MountFlags::empty(), None)?;
    for name in ["dev", "proc", "sys"] {
        fs::create_dir(root.join(name))?;
        mount_bind_recursive(format!("/{name}"), root.join(name))?;
    }
    fs::create_dir(root.join("tmp"))?;
    fs::write(root.join("root.squashfs"), image)?;
    rustix::process::chroot(root)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Goes to the root of the mount namespace: a root below the working directory holds nobody who walks upwards.
fn leave_chroot(below: &rustix::fd::OwnedFd) -> Result<(), Box<dyn std::error::Error>> {
    let here = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
    rustix::process::fchdir(below)?;
    rustix::process::chroot(".")?;
    rustix::process::fchdir(&here)?;
    for _ in 0..64 {
        rustix::process::chdir("..")?;
    }
    rustix::process::chroot(".")?;
    Ok(())
}

fn open(path: &str) -> Result<rustix::fd::OwnedFd, String> {
    rustix::fs::open(path, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).map_err(|error| error.to_string())
}

/// Attaches and mounts the image as `image::mount` does, without the device threads.
fn lower(path: &str) -> Result<(String, anyhow::Result<()>), String> {
    let device = loop_device::attach(&open(path)?, path, true).map_err(|error| format!("{error:#}"))?;
    let attributes = rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY;
    let squashfs = Mount { fs: "squashfs", source: &device, target: layout::LOWER, attributes, options: &[] };
    let mounted = mounts::mount(&squashfs);
    Ok((device, mounted))
}

fn whole() -> Result<(), String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    let (device, mounted) = lower("/root.squashfs")?;
    mounted.map_err(text)?;
    let options = Options { overlay: OverlaySize::Bytes(2 << 20), ..Options::default() };
    let cases = [
        (None, true),
        (Some("/sbin/link"), true),
        (Some("/sbin/plain"), false),
        (Some("/sbin/none"), false),
        (Some("/sbin"), false),
    ];
    for (init, right) in cases {
        let root = overlay::mount(Limits::new(&options, 1 << 30)).map_err(|fault| fault.cause())?;
        // A write must reach the tmpfs and not the image; more than the tmpfs takes must fail.
        fs::write(format!("{}/written", layout::NEW_ROOT), "x").map_err(|error| error.to_string())?;
        let large = fs::write(format!("{}/large", layout::NEW_ROOT), vec![1; 3 << 20]);
        let checked = root.checked(init, Task::default());
        if checked.is_ok() != right {
            return Err(format!("{init:?}: expected {right}, got {checked:?}"));
        }
        for place in [layout::NEW_ROOT, layout::OVERLAY] {
            mounts::release(place).map_err(text)?;
        }
        if large.is_ok() || Path::new(&format!("{}/written", layout::LOWER)).exists() {
            return Err("the overlay's limit or its direction is wrong".to_owned());
        }
    }
    mounts::release(layout::LOWER).map_err(text)?;
    loop_device::detach(&device).map_err(text)
}

/// A copy in RAM takes the place of the file below a squashfs that is mounted and read: what the keeper does.
fn swap() -> Result<(), String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    fs::copy("/root.squashfs", "/medium.squashfs").map_err(|error| error.to_string())?;
    let (device, mounted) = lower("/medium.squashfs")?;
    mounted.map_err(text)?;
    let program = format!("{}/sbin/sino-init", layout::LOWER);
    let before = fs::read(&program).map_err(|error| error.to_string())?;
    let bytes = fs::read("/medium.squashfs").map_err(|error| error.to_string())?;
    let blocks: Vec<_> = (0..)
        .zip(bytes.chunks(sino_boot::block_hash::BLOCK))
        .map(|(index, block)| sino_boot::block_hash::chaining_value(index, block))
        .collect();
    let (from, to) = (open("/medium.squashfs")?, "/ram.squashfs");
    let copy: rustix::fd::OwnedFd = fs::File::create_new(to).map_err(|error| error.to_string())?.into();
    let plan = block_copy::Plan { from: &from, to: Some(&copy), size: bytes.len() as u64, blocks: &blocks };
    block_copy::copy(plan, &|_| {}).map_err(text)?;
    loop_device::change(&device, &open(to)?).map_err(text)?;
    fs::remove_file("/medium.squashfs").map_err(|error| error.to_string())?;
    fs::write("/proc/sys/vm/drop_caches", "3").map_err(|error| error.to_string())?;
    let name = device.trim_start_matches("/dev/");
    let behind =
        fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).map_err(|error| error.to_string())?;
    if !behind.trim_end().ends_with("ram.squashfs") {
        return Err(format!("behind {device} is {behind}"));
    }
    if fs::read(&program).map_err(|error| error.to_string())? != before {
        return Err("the program changed".to_owned());
    }
    // A file of another length is refused, and nothing changes.
    fs::write("/short", "x").map_err(|error| error.to_string())?;
    if loop_device::change(&device, &open("/short")?).is_ok() {
        return Err("a file of another length was taken".to_owned());
    }
    mounts::release(layout::LOWER).map_err(text)?;
    loop_device::detach(&device).map_err(text)
}

fn garbage() -> Result<(), String> {
    fs::write("/garbage", vec![7; 1 << 20]).map_err(|error| error.to_string())?;
    let (device, mounted) = lower("/garbage")?;
    loop_device::detach(&device).map_err(|error| format!("{error:#}"))?;
    let said = format!("{:#}", mounted.err().ok_or("garbage was mounted")?);
    for part in ["squashfs", device.as_str(), layout::LOWER] {
        if !said.contains(part) {
            return Err(format!("no {part:?} in: {said}"));
        }
    }
    eprintln!("the kernel's words: {said}");
    Ok(())
}
