//! `/srv`, swap and `sino disk prepare` with the real tools and the real kernel, on file systems in image files.
//!
//! A mount namespace of its own, whose root is an overlay over the machine's and whose /dev holds loop devices only:
//! nothing of the machine's is touched but free loop devices. Needs root and the tools; what is missing fails with its
//! remedy.

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, unmount,
};
use rustix::thread::UnshareFlags;
use sino_init::config::schema;
use sino_init::identity::Notice;
use sino_init::storage::lvm::{Group, Volume};
use sino_init::storage::prepare::{self, Request};
use sino_init::storage::srv::{self, Srv, State};
use sino_init::storage::state::StorageState;
use sino_init::storage::tools::{Call, Heard, Output, Programs, SHORT, Tools};
use sino_init::storage::{Host, srv_command, swap};
use sino_init::supervisor::keeping::Keeping;
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list {
        // Before any thread starts: a namespace belongs to the thread that asks for it and those it starts later.
        if let Err(why) = enter() {
            eprintln!("the storage tests cannot run: {why}");
            return ExitCode::FAILURE;
        }
    }
    let trials = vec![
        Trial::test("a_clean_file_system_is_mounted_and_unmounted", clean),
        Trial::test("a_journal_is_replayed_and_said", dirty),
        Trial::test("what_is_safe_to_correct_is_corrected_with_progress", corrected),
        Trial::test("what_cannot_be_corrected_is_mounted_read_only_and_not_repaired", uncorrectable),
        Trial::test("a_destroyed_superblock_is_recognised_and_nothing_is_written", destroyed),
        Trial::test("a_read_only_device_is_mounted_read_only", read_only),
        Trial::test("xfs_is_mounted", xfs),
        Trial::test("a_full_file_system_is_a_warning", full),
        Trial::test("what_is_not_kept_is_in_the_status_until_it_is", not_kept),
        Trial::test("what_holds_srv_is_named_and_srv_stays_mounted", held),
        Trial::test("a_swap_area_is_recognised", swap_area),
        Trial::test("a_disk_that_holds_anything_is_refused_and_not_written", refused),
        Trial::test("a_disk_in_use_is_refused_even_to_erase", in_use),
        Trial::test("an_empty_disk_gets_its_partition_and_its_group", prepared),
    ];
    // The trials share /srv.
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials).exit_code()
}

fn enter() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("root is needed; run: make check (it uses sudo), or this command with sudo".to_owned());
    }
    for (tool, package) in [
        ("mkfs.ext4", "e2fsprogs"),
        ("e2fsck", "e2fsprogs"),
        ("tune2fs", "e2fsprogs"),
        ("mkfs.xfs", "xfsprogs"),
        ("lvm", "lvm2"),
        ("losetup", "mount"),
        ("sfdisk", "fdisk"),
        ("wipefs", "util-linux"),
        ("mkswap", "util-linux"),
    ] {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.map_err(|error| format!("{tool}: {error}; install it: apt-get install {package}"))?;
    }
    isolate().map_err(|error| format!("making the namespace: {error}"))
}

fn isolate() -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: only the mount namespace is unshared; no file descriptor table or memory.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    if mount_change("/", private) == Err(rustix::io::Errno::INVAL) {
        return Err("the root is no mount, as in a chroot: run the test outside of it".into());
    }
    // Only this namespace sees it, so nothing is left in the machine's /tmp.
    let place = Path::new("/tmp");
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), None)?;
    for name in ["upper", "work", "root"] {
        fs::create_dir(place.join(name))?;
    }
    let (upper, work, root) = (place.join("upper"), place.join("work"), place.join("root"));
    let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mount("overlay", &root, "overlay", MountFlags::empty(), Some(std::ffi::CString::new(options)?.as_c_str()))?;
    for name in ["proc", "sys"] {
        mount_bind_recursive(format!("/{name}"), root.join(name))?;
    }
    for name in ["dev", "run", "images", "srv"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["dev", "run", "images"] {
        mount("tmpfs", root.join(name), "tmpfs", MountFlags::empty(), None)?;
    }
    rustix::process::chroot(&root)?;
    rustix::process::chdir("/")?;
    for (name, major, minor) in [("null", 1, 3), ("zero", 1, 5), ("urandom", 1, 9), ("loop-control", 10, 237)] {
        node(&format!("/dev/{name}"), FileType::CharacterDevice, major, minor)?;
    }
    for minor in 0..64 {
        node(&format!("/dev/loop{minor}"), FileType::BlockDevice, 7, minor)?;
    }
    fs::create_dir_all("/run/sino")?;
    fs::create_dir_all("/run/lock/lvm")?;
    fs::create_dir_all("/dev/xvg")?;
    Ok(())
}

fn node(path: &str, kind: FileType, major: u32, minor: u32) -> rustix::io::Result<()> {
    mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, makedev(major, minor))
}

/// Executes a program that must succeed; returns its output.
fn run(line: &str) -> Result<String, Failed> {
    let output = Command::new("sh").args(["-c", line]).output()?;
    if !output.status.success() {
        return Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A loop device on an image file.
struct Image {
    file: String,
    device: String,
}

impl Image {
    /// An image of zeros, after `make` (in which `$I` is the file).
    fn new(name: &str, size: &str, make: &str, options: &str) -> Result<Self, Failed> {
        let file = format!("/images/{name}");
        run(&format!("rm -f {file}; truncate -s {size} {file}; I={file}; {make}"))?;
        Self::of(&file, options)
    }

    fn of(file: &str, options: &str) -> Result<Self, Failed> {
        let device = run(&format!("losetup --find --show {options} {file}"))?;
        Ok(Self { file: file.to_owned(), device })
    }

    /// Makes it the volume of this name.
    fn volume(&self, name: &str) -> Outcome {
        let path = format!("/dev/xvg/{name}");
        let _ = fs::remove_file(&path);
        Ok(symlink(&self.device, path)?)
    }

    fn sum(&self) -> Result<String, Failed> {
        run(&format!("sync; sha256sum < {}", self.file))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // At worst a loop device stays until the namespace ends.
        let _ = unmount("/srv", UnmountFlags::empty());
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

fn bring_up(image: &Image) -> Result<(Srv, Vec<String>), Failed> {
    image.volume("xvol")?;
    let volume = Volume { name: "xvol".into(), size: 1, active: true };
    let group = Group { name: "xvg".into(), uuid: Some("u".into()), volumes: vec![volume], ..Group::default() };
    let said = RefCell::new(Vec::new());
    let srv = srv::attempt(Host::this(), &schema::Storage::default(), &group, &|line| {
        said.borrow_mut().push(line.to_owned());
    });
    eprintln!("{srv:?} {said:?}");
    Ok((srv, said.into_inner()))
}

fn expect(right: bool, what: impl std::fmt::Debug) -> Outcome {
    if right { Ok(()) } else { Err(format!("not as expected: {what:?}").into()) }
}

/// A new /srv that is full already: its folders cannot be made. What the supervisor hears of it, the status shows.
fn not_kept() -> Outcome {
    let image = Image::new("no-inodes", "4M", "mkfs.ext4 -q -N 16 $I", "")?;
    let (srv, _) = bring_up(&image)?;
    let _ = (0..64).try_for_each(|number| fs::write(format!("/srv/{number}"), ""));
    let why = format!("{:#}", srv_command::folders(Host::this()).err().ok_or("folders were made on a full /srv")?);
    expect(why.contains("/srv is full") && why.contains("df -i /srv"), &why)?;
    let shown = || StorageState::load(Host::this()).map(|state| state.problems().map(ToString::to_string).collect());
    StorageState { srv, ..StorageState::default() }.save(Host::this())?;
    let mut keeping = Keeping::new(schema::Config::default());
    keeping.notice(Notice::NotKept(why.clone()));
    let during: Vec<String> = shown()?;
    expect(during.len() == 2 && during[0].contains("room for files") && during[1].starts_with(&why), &during)?;
    run("rm /srv/[0-9]*")?;
    keeping.notice(Notice::Resolved(why));
    expect(shown()?.is_empty(), shown()?)
}

fn clean() -> Outcome {
    let image = Image::new("clean", "64M", "mkfs.ext4 -q $I", "")?;
    let (srv, _) = bring_up(&image)?;
    expect(srv.state == State::Mounted && srv.problems.is_empty() && srv.fs == "ext4", &srv)?;
    expect(srv_command::folders(Host::this())?.len() == 3, "folders")?;
    fs::write("/srv/sino/kept", "x")?;
    let options = run("grep ' /srv ' /proc/self/mounts")?;
    expect(options.contains("errors=remount-ro") && options.contains("relatime"), &options)?;
    // A supervisor that was started again keeps it.
    let (again, _) = bring_up(&image)?;
    expect(again.state == State::Mounted && again.note.contains("before"), &again)?;
    let now = srv_command::Now::look(Host::this())?;
    expect(now.mounted && now.size > 40 << 20 && !now.checked.is_empty(), &now)?;
    srv_command::stop(Host::this(), &|_| ())?;
    expect(!Path::new("/srv/sino").exists(), "unmounted")
}

fn dirty() -> Outcome {
    let image = Image::new("live", "64M", "mkfs.ext4 -q $I", "")?;
    run(&format!("mount {} /srv; for n in $(seq 200); do echo $n > /srv/$n; done; sync", image.device))?;
    run("cp /images/live /images/dirty")?;
    drop(image);
    let copy = Image::of("/images/dirty", "")?;
    let (srv, _) = bring_up(&copy)?;
    expect(srv.state == State::Mounted && srv.note.contains("journal was replayed"), &srv)?;
    expect(fs::read_to_string("/srv/200")? == "200\n", "the last file")
}

fn corrected() -> Outcome {
    let make =
        "mkfs.ext4 -q $I; debugfs -w -R 'ssv free_blocks_count 5' $I 2>/dev/null; tune2fs -E force_fsck $I >/dev/null";
    let image = Image::new("wrong-count", "64M", make, "")?;
    let (srv, said) = bring_up(&image)?;
    expect(srv.state == State::Mounted && srv.note.contains("which were corrected"), &srv)?;
    let percents: Vec<&str> = said.iter().filter_map(|line| line.strip_prefix("checking /dev/xvg/xvol: ")).collect();
    expect(percents.last() == Some(&"100 %") && (5..=10).contains(&percents.len()), &said)
}

fn uncorrectable() -> Outcome {
    // 64 inodes behind the root's block become garbage, and the file system is marked to be checked.
    let make = "mkdir /images/tree; for n in $(seq 300); do mkdir /images/tree/$n; done; \
        mkfs.ext4 -q -b 4096 -d /images/tree $I; rm -r /images/tree; tune2fs -E force_fsck $I >/dev/null; \
        T=$(dumpe2fs $I 2>/dev/null | sed -n 's/.*Inode table at \\([0-9]*\\).*/\\1/p' | head -1); \
        dd if=/dev/urandom of=$I bs=4096 seek=$((T+2)) count=4 conv=notrunc 2>/dev/null";
    let image = Image::new("damaged", "64M", make, "")?;
    let (srv, said) = bring_up(&image)?;
    expect(srv.state == State::ReadOnly, &srv)?;
    let problem = &srv.problems[0];
    expect(problem.what.contains("not safe to correct") && problem.todo.contains("e2fsck -f /dev/xvg/xvol"), problem)?;
    expect(fs::write("/srv/new", "x").is_err(), "written to a damaged file system")?;
    expect(fs::read_dir("/srv")?.count() > 100, &said)?;
    unmount("/srv", UnmountFlags::empty())?;
    // What the administrator is told to type finds the damage still there.
    let code = Command::new("e2fsck")
        .args(["-n", "-f", &image.device])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    expect(code.code().is_some_and(|code| code & 4 != 0), code)
}

fn destroyed() -> Outcome {
    let make = "mkfs.ext4 -q -b 4096 $I; dd if=/dev/zero of=$I bs=64K count=1 conv=notrunc 2>/dev/null";
    let image = Image::new("destroyed", "256M", make, "")?;
    let before = image.sum()?;
    let (srv, _) = bring_up(&image)?;
    expect(srv.state == State::Failed, &srv)?;
    let problem = &srv.problems[0];
    expect(problem.what.contains("at block 32768") && problem.todo.contains("e2fsck -b 32768 -B 4096"), problem)?;
    expect(image.sum()? == before, "it was written to")?;
    let empty = Image::new("empty", "16M", "true", "")?;
    let (srv, _) = bring_up(&empty)?;
    expect(srv.state == State::Failed && srv.problems[0].todo.contains("mkfs.ext4 /dev/xvg/xvol"), &srv)
}

fn read_only() -> Outcome {
    let image = Image::new("read-only", "64M", "mkfs.ext4 -q $I", "--read-only")?;
    let (srv, _) = bring_up(&image)?;
    expect(srv.state == State::ReadOnly && srv.problems[0].what.contains("device is read-only"), &srv)
}

fn xfs() -> Outcome {
    let image = Image::new("xfs", "400M", "mkfs.xfs -q $I", "")?;
    let (srv, _) = bring_up(&image)?;
    if !fs::read_to_string("/proc/filesystems")?.contains("\txfs\n") {
        return expect(srv.state == State::Failed && srv.problems[0].what.contains("xfs"), &srv);
    }
    expect(srv.state == State::Mounted && srv.fs == "xfs", &srv)?;
    run("echo x > /srv/x; sync")?;
    run("cp /images/xfs /images/xfs-log")?;
    drop(image);
    let copy = Image::of("/images/xfs-log", "")?;
    let (srv, _) = bring_up(&copy)?;
    expect(srv.state == State::Mounted && fs::read_to_string("/srv/x")? == "x\n", &srv)?;
    drop(copy);
    // Garbage in the place of the log that is to be replayed.
    let damage = "B=$(xfs_db -r -c 'sb 0' -c 'p logstart' /images/xfs | sed 's/.*= //'); \
        O=$(xfs_db -r -c \"convert fsblock $B byte\" /images/xfs | sed 's/.*(\\([0-9]*\\)).*/\\1/'); \
        dd if=/dev/urandom of=/images/xfs bs=4096 seek=$((O/4096)) count=64 conv=notrunc 2>/dev/null";
    run(damage)?;
    let broken = Image::of("/images/xfs", "")?;
    let (srv, _) = bring_up(&broken)?;
    expect(srv.state == State::ReadOnly && srv.note.contains("norecovery"), &srv)?;
    expect(srv.problems[0].todo.contains("xfs_repair -n /dev/xvg/xvol"), &srv)
}

fn full() -> Outcome {
    let image = Image::new("full", "16M", "mkfs.ext4 -q $I", "")?;
    run(&format!("mount {} /srv; dd if=/dev/zero of=/srv/all bs=64K 2>/dev/null; umount /srv", image.device))?;
    let (mut srv, _) = bring_up(&image)?;
    expect(srv.state == State::Mounted && srv.problems.iter().any(|problem| problem.what.contains("full")), &srv)?;
    fs::remove_file("/srv/all")?;
    srv::look_at_room(Host::this(), &mut srv);
    expect(srv.problems.is_empty(), &srv)
}

fn held() -> Outcome {
    let image = Image::new("held", "64M", "mkfs.ext4 -q $I", "")?;
    bring_up(&image)?;
    run("truncate -s 1M /srv/guest.img; mkdir /srv/iso; mount -t tmpfs none /srv/iso; echo > /srv/log")?;
    let guest = Image::of("/srv/guest.img", "")?;
    let mut sleeper =
        Command::new("sleep").arg("600").current_dir("/srv").stdin(fs::File::open("/srv/log")?).spawn()?;
    let refusal = srv_command::stop(Host::this(), &|_| ());
    sleeper.kill()?;
    sleeper.wait()?;
    let refusal = refusal.err().ok_or("srv was unmounted")?.to_string();
    eprintln!("{refusal}");
    for part in [
        format!("process {} (sleep) works in /srv, has /srv/log open", sleeper.id()),
        format!("kill {}", sleeper.id()),
        format!("the loop device {} uses /srv/guest.img", guest.device),
        "is mounted on /srv/iso".to_owned(),
        "umount /srv/iso".to_owned(),
    ] {
        expect(refusal.contains(&part), &part)?;
    }
    run(&format!("losetup -d {}; umount /srv/iso", guest.device))?;
    std::mem::forget(guest);
    srv_command::stop(Host::this(), &|_| ())?;
    expect(!srv_command::Now::look(Host::this())?.mounted, "unmounted")
}

/// The real programs; LVM sees one device and needs no device-mapper, and swap is never put to use.
struct Careful {
    device: String,
    file: String,
    /// What stands in for the disk's partition.
    partition: RefCell<Option<String>>,
}

impl Careful {
    fn new(image: &Image) -> Self {
        Self { device: image.device.clone(), file: image.file.clone(), partition: RefCell::default() }
    }
}

impl Drop for Careful {
    fn drop(&mut self) {
        if let Some(device) = self.partition.take() {
            // At worst a loop device stays.
            let _ = Command::new("losetup").args(["--detach", &device]).status();
            let _ = fs::remove_file(format!("{}p1", self.device));
        }
    }
}

impl Tools for Careful {
    fn listen(&self, call: &Call, hear: &mut dyn FnMut(Heard<'_>)) -> anyhow::Result<Output> {
        let mut call = call.clone();
        match call.words[0].as_str() {
            "swapon" => return Ok(Output { code: Some(0), ..Output::default() }),
            "udevadm" => {
                // A kernel that reads no partitions on loop devices has none: another loop device stands in for it.
                let words = ["losetup", "--find", "--show", "--offset", "1048576", &self.file];
                let second = self.text(&Call::new(&words, SHORT))?.trim().to_owned();
                let minor = second.trim_start_matches("/dev/loop").parse()?;
                node(&format!("{}p1", self.device), FileType::BlockDevice, 7, minor)?;
                self.partition.replace(Some(second));
                return Ok(Output { code: Some(0), ..Output::default() });
            }
            "lvm" => {
                let filter = format!(
                    "devices{{use_devicesfile=0 scan_lvs=0 obtain_device_list_from_udev=0 \
                     filter=[\"a|^{}(p1)?$|\",\"r|.*|\"]}} backup{{backup=0 archive=0}} activation{{udev_sync=0 udev_rules=0}}",
                    self.device
                );
                call.words.splice(2..2, ["--driverloaded".into(), "n".into(), "--config".into(), filter]);
            }
            _ => {}
        }
        Programs.listen(&call, hear)
    }
}

fn swap_area() -> Outcome {
    let image = Image::new("swap", "16M", "mkswap -q $I 2>/dev/null", "")?;
    let other = Image::new("labelled", "16M", "mkswap -q -L swap $I 2>/dev/null", "")?;
    let guest = Image::new("guest", "16M", "mkswap -q -L guest $I 2>/dev/null", "")?;
    let mut volumes = Vec::new();
    let empty = Image::new("nothing", "16M", "true", "")?;
    for (image, name) in [(&empty, "empty"), (&image, "swap"), (&other, "more"), (&guest, "guest")] {
        image.volume(name)?;
        volumes.push(Volume { name: name.into(), size: 16 << 20, active: true });
    }
    let group = Group { name: "xvg".into(), volumes, ..Group::default() };
    let tools = Careful::new(&image);
    let (swaps, problems) = swap::attempt(Host::new(&tools, ""), &schema::Storage::default(), &group)?;
    let names: Vec<&str> = swaps.iter().map(|swap| swap.device.as_str()).collect();
    expect(names == ["/dev/xvg/swap", "/dev/xvg/more"] && problems.is_empty(), (&swaps, &problems))
}

#[allow(clippy::unnecessary_wraps)] // what a question is answered with
fn ask(_: &str) -> anyhow::Result<Option<String>> {
    Ok(None)
}

fn prepare(image: &Image, tools: &Careful, erase: Option<&str>) -> anyhow::Result<prepare::Found> {
    let request =
        Request { disk: image.device.clone(), erase: erase.map(str::to_owned), yes: true, ..Request::default() };
    let host = Host::new(tools, "");
    prepare::prepare(host, &schema::Storage::default(), &request, &ask, &mut |line| eprintln!("{line}"))?;
    prepare::inspect(host, &image.device)
}

fn refused() -> Outcome {
    let pv = "L=$(losetup --find --show $I); lvm pvcreate --driverloaded n --config \"devices{use_devicesfile=0 \
        filter=[\\\"a|^$L\\$|\\\",\\\"r|.*|\\\"]}\" $L 2>/dev/null; losetup -d $L";
    for (name, make, words) in [
        ("ext4", "mkfs.ext4 -q -L old $I", "ext4 \"old\""),
        ("pv", pv, "LVM2_member"),
        ("gpt", "echo 'start=1MiB, size=8MiB' | sfdisk -q --label gpt $I", "gpt"),
        ("mbr", "echo 'start=1MiB, size=8MiB' | sfdisk -q --label dos $I", "dos"),
        ("swap-disk", "mkswap -q $I 2>/dev/null", "swap"),
        ("xfs-disk", "truncate -s 400M $I; mkfs.xfs -q $I", "xfs"),
        ("encrypted", "dd if=/dev/urandom of=$I bs=1M count=64 conv=notrunc 2>/dev/null", "not known"),
    ] {
        let image = Image::new(name, "256M", make, "")?;
        let tools = Careful::new(&image);
        let before = image.sum()?;
        for erase in [None, Some(""), Some("sda")] {
            let error = prepare(&image, &tools, erase).err().ok_or("it was not refused")?.to_string();
            eprintln!("{name} {erase:?}: {error}");
            let words = match erase {
                None => words,
                Some("") => "no terminal",
                Some(_) => "does not name the disk",
            };
            expect(error.contains(words), (words, &error))?;
        }
        expect(image.sum()? == before, format!("{name} was written to"))?;
    }
    Ok(())
}

fn in_use() -> Outcome {
    let image = Image::new("used", "64M", "mkfs.ext4 -q $I", "")?;
    run(&format!("mount {} /srv", image.device))?;
    let tools = Careful::new(&image);
    let name = image.device.trim_start_matches("/dev/").to_owned();
    let error = prepare(&image, &tools, Some(&name)).err().ok_or("a mounted disk was taken")?.to_string();
    expect(error.contains("is mounted on /srv") && error.contains("never prepared"), &error)?;
    run("umount /srv")?;
    fs::write("/run/sino/boot.json", format!("{{\"medium\": {{\"device\": \"{name}\"}}}}"))?;
    let error = prepare(&image, &tools, Some(&name)).err().ok_or("the boot medium was taken")?.to_string();
    fs::remove_file("/run/sino/boot.json")?;
    expect(error.contains("was booted from it"), &error)
}

fn prepared() -> Outcome {
    fs::remove_dir_all("/dev/xvg")?;
    // An old file system goes, as it is asked for; LVM cannot activate here, so the first volume is where it ends.
    let image = Image::new("disk", "600M", "mkfs.ext4 -q -L old $I", "")?;
    let tools = Careful::new(&image);
    let name = image.device.trim_start_matches("/dev/").to_owned();
    let error = prepare(&image, &tools, Some(&name)).err().ok_or("LVM activated a volume without device-mapper")?;
    let error = error.to_string();
    eprintln!("{error}");
    let (done, left) = error.split_once("left to do").ok_or("no list of what is left")?;
    expect(done.contains("lvm vgcreate xvg") && done.contains("wipefs --all"), done)?;
    expect(left.contains("mkfs.ext4 -q -L srv /dev/xvg/xvol"), left)?;
    let table = run(&format!("sfdisk --dump {}", image.device))?;
    expect(table.contains("E6D6D379-F507-44C2-A23C-238F2A3DF928") && table.contains("start=        2048"), &table)?;
    let host = Host::new(&tools, "");
    let (groups, _) = sino_init::storage::lvm::scan(host).map_err(|fault| fault.cause())?;
    expect(groups.len() == 1 && groups[0].name == "xvg" && groups[0].size > 500 << 20, &groups)?;
    // Now there is a group of that name.
    let error = prepare(&image, &tools, Some(&name)).err().ok_or("the group was made twice")?.to_string();
    expect(error.contains("vgextend xvg"), &error)?;
    let mut magic = [0_u8; 2];
    fs::File::open(&image.file)?.read_exact_at(&mut magic, 0x438)?;
    expect(magic != [0x53, 0xef], "the old file system is still there")
}
