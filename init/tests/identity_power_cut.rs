//! What is kept of a host on real file systems: one that loses its power while it is written to, one that is full, and
//! one that is unmounted and mounted again.
//!
//! Needs root (mounts, a loop device) and mkfs.ext4; what is missing fails with its remedy.

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::event::{EventfdFlags, eventfd};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::UnshareFlags;
use sino_init::config::schema::Config;
use sino_init::identity::{Item, Notice, Occasion, Store, restore, save, watch};
use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How many times the power goes.
const CUTS: u32 = 40;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list {
        // Before any thread starts: a namespace belongs to the thread that asks for it and those it starts later.
        if let Err(why) = enter_namespace() {
            eprintln!("the tests of the store cannot run: {why}");
            return ExitCode::FAILURE;
        }
    }
    let trial = |name: &str, test: fn() -> Outcome| {
        Trial::test(name, move || test().map_err(|error| Failed::from(error.to_string())))
    };
    let trials = vec![
        trial("a_host_is_the_same_or_newer_after_each_power_cut", power_cuts),
        trial("a_full_volume_loses_nothing_and_is_said_once", full),
        trial("a_full_file_system_is_said_with_the_way_out_and_keeping_goes_on_by_itself", full_ext4),
        trial("a_store_of_another_user_is_not_trusted_and_a_readable_one_is_closed", foreign),
        trial("on_an_overlay_as_it_was_booted_changes_are_noticed_and_restored", overlay),
        trial("an_unmounted_volume_is_not_held_and_not_written_below", unmounted),
    ];
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials).exit_code()
}

fn enter_namespace() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Err("root is needed; run: make check (it uses sudo), or this command with sudo".into());
    }
    // SAFETY: only the mount namespace is unshared; no file descriptor table or memory.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    if mount_change("/", private) == Err(rustix::io::Errno::INVAL) {
        // In a chroot "/" is no mount; the namespace's own root, above it, is.
        let open = |path| rustix::fs::open(path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
        let (root, below) = (open("/")?, tempfile::tempdir()?);
        rustix::process::chroot(below.path())?;
        rustix::process::fchdir(&root)?;
        for _ in 0..64 {
            rustix::process::chdir("..")?;
        }
        rustix::process::chroot(".")?;
        mount_change("/", private)?;
        rustix::process::fchdir(&root)?;
        rustix::process::chroot(".")?;
    }
    Ok(())
}

/// A volume at `srv` and a running system at `root`.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> std::io::Result<Self> {
        let place = Self { folder: tempfile::tempdir()? };
        fs::create_dir(place.srv())?;
        place.boot()?;
        Ok(place)
    }

    fn srv(&self) -> PathBuf {
        self.folder.path().join("srv")
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn store(&self) -> Store {
        Store::on_volume(&self.srv())
    }

    /// The root as the image has it.
    fn boot(&self) -> std::io::Result<()> {
        let _ = fs::remove_dir_all(self.root());
        for folder in ["etc/ssh", "etc/default", "root", "run/sino/lower/etc"] {
            fs::create_dir_all(self.root().join(folder))?;
        }
        for file in ["etc/hostname", "run/sino/lower/etc/hostname"] {
            fs::write(self.root().join(file), "sino\n")?;
        }
        fs::write(self.root().join("etc/shadow"), "root:*:1:0:99999:7:::\n")?;
        fs::write(self.root().join("run/sino/lower/etc/shadow"), "root:*:1:0:99999:7:::\n")
    }

    fn name(&self, name: &str) -> std::io::Result<()> {
        fs::write(self.root().join("etc/hostname.new"), format!("{name}\n"))?;
        fs::rename(self.root().join("etc/hostname.new"), self.root().join("etc/hostname"))
    }

    /// A set of two files that belong together.
    fn files(&self, number: u32) -> std::io::Result<()> {
        let folder = self.root().join("etc/systemd/network");
        fs::create_dir_all(&folder)?;
        ["a", "b"].iter().try_for_each(|name| fs::write(folder.join(format!("{name}.network")), number.to_string()))
    }

    /// The number in both files; 0 if there are none.
    fn files_number(&self) -> Result<u32, Box<dyn std::error::Error>> {
        let folder = self.root().join("etc/systemd/network");
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_else(|_| "0".to_owned());
        let (a, b) = (read("a.network"), read("b.network"));
        if a == b { Ok(a.parse()?) } else { Err(format!("half a set: {a} and {b}").into()) }
    }

    fn mount_tmpfs(&self) -> Outcome {
        Ok(mount("tmpfs", self.srv(), "tmpfs", MountFlags::empty(), Some(c"size=256k"))?)
    }
}

fn mount_image(image: &Path, on: &Path) -> Outcome {
    let done = Command::new("mount").arg("-oloop").args([image, on]).output()?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into()) }
}

/// As if the power went: no more byte reaches the device, not even of the journal. Source: kernel `fs/ext4/ioctl.c`,
/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
fn cut_power(srv: &Path) -> Outcome {
    const SHUTDOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let fd = rustix::fs::open(srv, flags, rustix::fs::Mode::empty())?;
    // SAFETY: the request reads one u32 and writes nothing.
    #[allow(unsafe_code)]
    unsafe {
        rustix::ioctl::ioctl(&fd, rustix::ioctl::Setter::<SHUTDOWN, u32>::new(2))?;
    }
    Ok(())
}

fn power_cuts() -> Outcome {
    let place = Place::new()?;
    let image = place.folder.path().join("volume");
    fs::File::create(&image)?.set_len(16 << 20)?;
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).output();
    let made = made.map_err(|error| format!("mkfs.ext4: {error}; install it: apt-get install e2fsprogs"))?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into());
    }
    let (store, config, srv) = (place.store(), Config::default(), place.srv());
    let acknowledged = AtomicU32::new(0);
    let (files_kept, files_tried) = (AtomicU32::new(0), AtomicU32::new(0));
    let mut in_flight_survived = 0;
    for cut in 0..CUTS {
        mount_image(&image, &srv)?;
        place.boot()?;
        let restored = restore(&place.root(), &store, &config);
        if !restored.problems.is_empty() || !restored.store_was_there {
            return Err(format!("after cut {cut}: {restored:?}").into());
        }
        let name = fs::read_to_string(place.root().join("etc/hostname"))?;
        let found: u32 = name.trim().strip_prefix("node").and_then(|number| number.parse().ok()).unwrap_or(0);
        let last = acknowledged.load(Ordering::SeqCst);
        if found != last && found != last + 1 {
            return Err(format!("after cut {cut} the host is {name:?}, but node{last} was kept").into());
        }
        let (files, kept) = (place.files_number()?, files_kept.load(Ordering::SeqCst));
        if files != kept && files != files_tried.load(Ordering::SeqCst) {
            return Err(format!("after cut {cut} the files are those of {files}, but {kept} was kept").into());
        }
        files_kept.store(files, Ordering::SeqCst);
        in_flight_survived += u32::from(found == last + 1);
        acknowledged.store(found, Ordering::SeqCst);
        thread::scope(|scope| -> Outcome {
            let writer = scope.spawn(|| {
                for number in found + 1.. {
                    place.name(&format!("node{number}")).unwrap();
                    place.files(number).unwrap();
                    let save = |item| save(&place.root(), &store, &config, &[item], Occasion::Change);
                    if save(Item::Hostname).kept.is_empty() {
                        break;
                    }
                    acknowledged.store(number, Ordering::SeqCst);
                    files_tried.store(number, Ordering::SeqCst);
                    if save(Item::NetworkFiles).kept.is_empty() {
                        break;
                    }
                    files_kept.store(number, Ordering::SeqCst);
                }
            });
            // Any moment: the clock's last digits are as good as chance.
            let chance = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.subsec_micros();
            thread::sleep(Duration::from_micros(u64::from(chance % 120_000)));
            cut_power(&srv)?;
            writer.join().map_err(|_| "the writer died")?;
            Ok(())
        })?;
        unmount(&srv, UnmountFlags::empty())?;
    }
    let kept = acknowledged.load(Ordering::SeqCst);
    println!("{kept} names were kept in {CUTS} cuts; {in_flight_survived} times the one in flight was there");
    if kept < CUTS { Err("too few writes between the cuts for a test".into()) } else { Ok(()) }
}

/// Runs a watch while `act` does something.
fn watched(place: &Place, act: impl FnOnce(&Receiver<Notice>) -> Outcome) -> Outcome {
    watched_in(&place.root(), place, act)
}

fn watched_in(root: &Path, place: &Place, act: impl FnOnce(&Receiver<Notice>) -> Outcome) -> Outcome {
    let stop = eventfd(0, EventfdFlags::empty())?;
    let (say, said) = channel();
    let (store, config) = (place.store(), Config::default());
    thread::scope(|scope| {
        let watcher =
            scope.spawn(|| watch(root, &store, &config, &[], stop.as_fd(), &mut |notice| say.send(notice).unwrap()));
        let done = expect(&said, &Notice::Watching).and_then(|()| act(&said));
        rustix::io::write(&stop, &1u64.to_ne_bytes())?;
        watcher.join().map_err(|_| "the watch died")??;
        done
    })
}

fn next(said: &Receiver<Notice>) -> Result<Notice, Box<dyn std::error::Error>> {
    loop {
        match said.recv_timeout(Duration::from_secs(2)) {
            // It goes with what is kept.
            Ok(Notice::Resolved(_)) => {}
            other => return other.map_err(|_| "nothing was said for 2 s".into()),
        }
    }
}

fn expect(said: &Receiver<Notice>, wanted: &Notice) -> Outcome {
    let notice = next(said)?;
    if notice == *wanted { Ok(()) } else { Err(format!("{notice:?} instead of {wanted:?}").into()) }
}

fn not_kept(said: &Receiver<Notice>, word: &str) -> Outcome {
    match next(said)? {
        Notice::NotKept(why) if why.contains(word) => Ok(()),
        other => Err(format!("{other:?} instead of {word:?}").into()),
    }
}

fn full() -> Outcome {
    let place = Place::new()?;
    place.mount_tmpfs()?;
    watched(&place, |said| {
        place.name("before")?;
        expect(said, &Notice::Kept(vec![Item::Hostname]))?;
        let ballast = place.srv().join("ballast");
        let filled = fs::write(&ballast, vec![1; 1 << 20]);
        if filled.is_ok() {
            return Err("the volume could not be filled".into());
        }
        for name in ["during", "during-too"] {
            place.name(name)?;
            if name == "during" {
                not_kept(said, "space")?;
            } else if let Ok(notice) = said.recv_timeout(Duration::from_secs(1)) {
                return Err(format!("said a second time: {notice:?}").into());
            }
            let kept = fs::read_to_string(place.srv().join("sino/state/hostname"))?;
            let files = fs::read_dir(place.srv().join("sino/state"))?.count();
            if kept != "before\n" || files != 1 {
                return Err(format!("a full volume has {kept:?} and {files} files").into());
            }
        }
        fs::remove_file(&ballast)?;
        fs::write(place.root().join("etc/default/keyboard"), "XKBLAYOUT=\"br\"\n")?;
        expect(said, &Notice::Kept(vec![Item::Hostname, Item::Keyboard]))?;
        let kept = fs::read_to_string(place.srv().join("sino/state/hostname"))?;
        if kept == "during-too\n" { Ok(()) } else { Err(format!("kept {kept:?}").into()) }
    })?;
    Ok(unmount(place.srv(), UnmountFlags::empty())?)
}

/// Fills a folder's file system: all its bytes, or all its inodes.
fn fill(folder: &Path, inodes: bool) -> Outcome {
    fs::create_dir(folder)?;
    for number in 0..100_000 {
        // A file that is no larger than a block finds the last one.
        let size = if inodes { 0 } else { 1024 };
        match fs::write(folder.join(number.to_string()), vec![1; size]) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Err("the volume could not be filled".into())
}

fn full_ext4() -> Outcome {
    let place = Place::new()?;
    let (image, srv, store) = (place.folder.path().join("volume"), place.srv(), place.store());
    let lease = |address: &str| [("xenbr0".to_owned(), serde_json::json!({ "address": address }))].into();
    for (inodes, options) in [(false, ["-b", "1024", "-N", "8192"]), (true, ["-b", "1024", "-N", "64"])] {
        fs::File::create(&image)?.set_len(4 << 20)?;
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).args(options).arg(&image).status()?;
        if !made.success() {
            return Err("mkfs.ext4 failed".into());
        }
        mount_image(&image, &srv)?;
        place.boot()?;
        let done = watched(&place, |said| {
            place.name("before")?;
            expect(said, &Notice::Kept(vec![Item::Hostname]))?;
            store.keep_leases(&lease("192.0.2.1/24"))?;
            let ballast = srv.join("ballast");
            fill(&ballast, inodes)?;
            place.name("during")?;
            let command = if inodes { format!("df -i {}", srv.display()) } else { format!("df -h {}", srv.display()) };
            match next(said)? {
                Notice::NotKept(why) if why.contains("is full, no space is left") && why.contains(&command) => {
                    println!("{why}");
                }
                other => return Err(format!("{other:?} instead of {command}").into()),
            }
            let why = store.keep_leases(&lease("192.0.2.2/24")).err().map(|error| format!("{error:#}"));
            if !why.as_ref().is_some_and(|why| why.contains("is full") && why.contains(&command)) {
                return Err(format!("the lease: {why:?}").into());
            }
            let (kept, _) = store.leases()?;
            let name = fs::read_to_string(srv.join("sino/state/hostname"))?;
            if kept != lease("192.0.2.1/24") || name != "before\n" {
                return Err(format!("a full volume has {kept:?} and {name:?}").into());
            }
            let mut names: Vec<_> =
                fs::read_dir(srv.join("sino/state"))?.flatten().map(|file| file.file_name()).collect();
            names.sort();
            if names != ["hostname", "leases.json"] {
                return Err(format!("a full volume has {names:?}").into());
            }
            fs::remove_dir_all(&ballast)?;
            if inodes {
                place.files(1)?;
                expect(said, &Notice::Kept(vec![Item::Hostname, Item::NetworkFiles]))?;
            } else {
                // Nothing changes, and nothing tells that there is room.
                let notice = said.recv_timeout(sino_init::identity::RETRY + Duration::from_secs(5))?;
                if notice != Notice::Kept(vec![Item::Hostname]) {
                    return Err(format!("{notice:?} after there was room").into());
                }
            }
            match said.recv_timeout(Duration::from_secs(2))? {
                Notice::Resolved(why) if why.contains("is full") => {}
                other => return Err(format!("{other:?}: it is not said that it is well again").into()),
            }
            store.keep_leases(&lease("192.0.2.2/24"))?;
            Ok(())
        });
        unmount(&srv, UnmountFlags::empty())?;
        done?;
    }
    Ok(())
}

fn foreign() -> Outcome {
    let place = Place::new()?;
    place.mount_tmpfs()?;
    let state = place.srv().join("sino/state");
    fs::create_dir_all(&state)?;
    fs::write(state.join("hostname"), "theirs\n")?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755))?;
    chown(&state, Some(1000), None)?;
    let restored = restore(&place.root(), &place.store(), &Config::default());
    if restored.problems.len() != 1 || !restored.problems.iter().all(|why| why.contains("chown")) {
        return Err(format!("another user's store: {restored:?}").into());
    }
    let saved = save(&place.root(), &place.store(), &Config::default(), &[Item::Hostname], Occasion::Change);
    if !saved.kept.is_empty() || saved.failed.is_empty() {
        return Err(format!("kept for another user: {saved:?}").into());
    }
    chown(&state, Some(0), None)?;
    // The folder is root's now, the file of the other user is not.
    chown(state.join("hostname"), Some(1000), None)?;
    let restored = restore(&place.root(), &place.store(), &Config::default());
    let mode = fs::metadata(&state)?.permissions().mode() & 0o777;
    let name = fs::read_to_string(place.root().join("etc/hostname"))?;
    let said = restored.problems.iter().any(|why| why.contains("hostname.damaged") && why.contains("1000"));
    unmount(place.srv(), UnmountFlags::empty())?;
    if mode == 0o700 && name == "sino\n" && said {
        Ok(())
    } else {
        Err(format!("{mode:o} {name:?} {restored:?}").into())
    }
}

/// The folders that are watched are the image's until something is changed in them.
fn overlay() -> Outcome {
    let place = Place::new()?;
    place.mount_tmpfs()?;
    let base = place.folder.path();
    let (memory, merged) = (base.join("memory"), base.join("merged"));
    let boot = || -> Outcome {
        fs::create_dir_all(&merged)?;
        fs::create_dir_all(&memory)?;
        mount("tmpfs", &memory, "tmpfs", MountFlags::empty(), None)?;
        for folder in ["upper", "work"] {
            fs::create_dir(memory.join(folder))?;
        }
        let (lower, memory) = (place.root(), memory.display().to_string());
        let options = format!("lowerdir={},upperdir={memory}/upper,workdir={memory}/work", lower.display());
        Ok(mount("overlay", &merged, "overlay", MountFlags::empty(), Some(&*CString::new(options)?))?)
    };
    let shut_down = || unmount(&merged, UnmountFlags::empty()).and_then(|()| unmount(&memory, UnmountFlags::empty()));
    boot()?;
    let hash = format!("$6$0123456789abcdef${}", "x".repeat(86));
    watched_in(&merged, &place, |said| {
        fs::write(merged.join("etc/nshadow"), format!("root:{hash}:20000:0:99999:7:::\n"))?;
        fs::rename(merged.join("etc/nshadow"), merged.join("etc/shadow"))?;
        expect(said, &Notice::Kept(vec![Item::RootPassword]))?;
        // Who may log in is looked at again, too.
        next(said)?;
        fs::write(merged.join("etc/hostname"), "node7\n")?;
        expect(said, &Notice::Kept(vec![Item::Hostname]))?;
        fs::create_dir(merged.join("root/.ssh"))?;
        fs::write(merged.join("root/.ssh/authorized_keys"), "# none\n")?;
        expect(said, &Notice::Kept(vec![Item::AuthorizedKeys]))
    })?;
    shut_down()?;
    boot()?;
    let restored = restore(&merged, &place.store(), &Config::default());
    let (name, shadow) =
        (fs::read_to_string(merged.join("etc/hostname"))?, fs::read_to_string(merged.join("etc/shadow"))?);
    shut_down()?;
    unmount(place.srv(), UnmountFlags::empty())?;
    if restored.problems.is_empty() && name == "node7\n" && shadow.starts_with(&format!("root:{hash}:")) {
        return Ok(());
    }
    Err(format!("{name:?} {shadow:?} {restored:?}").into())
}

fn unmounted() -> Outcome {
    let place = Place::new()?;
    let (image, srv) = (place.folder.path().join("volume"), place.srv());
    fs::File::create(&image)?.set_len(16 << 20)?;
    Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status()?;
    let device = Command::new("losetup").args(["--find", "--show"]).arg(&image).output()?;
    let device = String::from_utf8(device.stdout)?.trim().to_owned();
    let mount_it = || mount(&device, &srv, "ext4", MountFlags::empty(), None);
    mount_it()?;
    let done = watched(&place, |said| {
        place.name("before")?;
        expect(said, &Notice::Kept(vec![Item::Hostname]))?;
        // It is busy if anything of it is open.
        unmount(&srv, UnmountFlags::empty())?;
        place.name("meanwhile")?;
        not_kept(said, "not mounted")?;
        if fs::read_dir(&srv)?.count() != 0 {
            return Err("something was written below the unmounted volume".into());
        }
        let start = Instant::now();
        mount_it()?;
        expect(said, &Notice::Kept(vec![Item::Hostname]))?;
        println!("kept {} ms after the volume was back", start.elapsed().as_millis());
        // Another volume there is not this host's.
        unmount(&srv, UnmountFlags::empty())?;
        place.mount_tmpfs()?;
        place.name("elsewhere")?;
        not_kept(said, "another volume")?;
        if fs::read_dir(&srv)?.count() != 0 {
            return Err("something was written to another volume".into());
        }
        unmount(&srv, UnmountFlags::empty())?;
        not_kept(said, "not mounted")?;
        mount_it()?;
        expect(said, &Notice::Kept(vec![Item::Hostname]))
    });
    let _ = unmount(&srv, UnmountFlags::empty());
    Command::new("losetup").args(["--detach", &device]).status()?;
    done
}
