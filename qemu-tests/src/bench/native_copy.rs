//! Stage one's copy to RAM on the build machine itself, beside what an administrator would copy with.
//!
//! A file of random bytes, nothing of it in the page cache, into a tmpfs that is mounted as stage one mounts its own: with huge
//! pages where the kernel has them, whoever copies. SINO's is the very function of stage one, with its
//! hash (`initramfs/examples/copy-speed`), and for the cost of trust the same without it; cp, dd and rsync verify nothing, "cp,
//! then b3sum" reads the copy once more.
//!
//! Where the machine is itself a virtual one, a copy into memory that was not used for a while was seen to take up to four times as
//! long. So just before each copy the file is copied once, which uses and gives back the memory that cp takes, whoever copies then. And
//! its disk is held back once so much was read from it: so nobody reads the file more often than that, not for SINO's hashes either.

use super::{Recorder, SINO, SINO_AGAIN, Settings, Unit, machine, programs};
use anyhow::{Context, Result, ensure};
use rustix::fd::AsFd;
use rustix::fs::{Advice, CWD, fadvise, fsync};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, unmount,
};
use sino_image::command;
use sino_image::qemu::process::require;
use std::fmt;
use std::fs::{self, File};
use std::io::{Read as _, copy};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The case.
pub const CASE: &str = "native, cold file";
/// Length of the file.
const SIZE: u64 = 1 << 30;
/// So many times the rounds of the other measures. A round takes ten seconds, and the disks of machines that are themselves
/// virtual are held back now and then: of five rounds a single such copy can decide the median.
const TIMES_THE_ROUNDS: u32 = 3;
/// Its length in the short form.
const SHORT_SIZE: u64 = 256 << 20;

/// What a contender runs.
#[derive(Clone, Copy, Debug)]
enum How {
    /// Stage one's function.
    Ours,
    /// The same, built to take every byte for right.
    WithoutHash,
    /// Commands, in which `FROM` and `TO` stand for the files.
    Commands(&'static [&'static [&'static str]]),
}

/// A contender.
#[derive(Clone, Copy, Debug)]
struct Contender {
    name: &'static str,
    how: How,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const OURS: Contender = Contender { name: SINO, how: How::Ours };
const AGAIN: Contender = Contender { name: SINO_AGAIN, how: How::Ours };
/// Beside other programs.
const COPIES: &[Contender] = &[
    OURS,
    Contender { name: "cp", how: How::Commands(&[&["cp", "FROM", "TO"]]) },
    Contender { name: "dd bs=1M", how: How::Commands(&[&["dd", "if=FROM", "of=TO", "bs=1M", "status=none"]]) },
    Contender { name: "rsync", how: How::Commands(&[&["rsync", "FROM", "TO"]]) },
    Contender { name: "cp, then b3sum", how: How::Commands(&[&["cp", "FROM", "TO"], &["b3sum", "TO"]]) },
    AGAIN,
];
/// With and without the hash.
const FORMS: &[Contender] = &[OURS, Contender { name: "SINO without hash", how: How::WithoutHash }, AGAIN];

/// A tmpfs with what is in it. After a bench that was killed it stays until the next one begins.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of so many bytes.
    fn new(folder: PathBuf, size: u64) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        while unmount(&folder, UnmountFlags::DETACH).is_ok() {}
        let mount = |huge: bool| -> rustix::io::Result<()> {
            let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(context.as_fd(), "size", size.to_string())?;
            if huge {
                fsconfig_set_string(context.as_fd(), "huge", "always")?;
            }
            fsconfig_create(context.as_fd())?;
            let mounted = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
            move_mount(mounted.as_fd(), "", CWD, &folder, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        };
        // As in stage one, a kernel without huge pages has small ones.
        let mounted = mount(true).or_else(|_| mount(false));
        mounted.with_context(|| format!("mounting a tmpfs on {}, for which root is needed", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // The next one does it if it fails here.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// The names of the cases.
#[must_use]
pub fn cases() -> Vec<String> {
    vec![CASE.to_owned()]
}

/// Measures it beside other programs.
///
/// # Errors
/// Too little memory, a tool is missing or fails.
pub fn measure(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    for (tool, package) in [("rsync", "rsync"), ("b3sum", "b3sum")] {
        require(tool, package)?;
    }
    copies(recorder, settings, COPIES)
}

/// Measures what the hash costs.
///
/// # Errors
/// Too little memory, or a tool fails.
pub fn measure_hash(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    copies(recorder, settings, FORMS)
}

fn copies(recorder: &mut Recorder, settings: &Settings, contenders: &[Contender]) -> Result<()> {
    if !settings.wants(CASE) {
        return Ok(());
    }
    let size = if settings.short { SHORT_SIZE } else { SIZE };
    let available = machine::available_memory()?;
    ensure!(
        available > 2 * size,
        "a copy of {} MiB needs as much memory twice, and {} MiB are available; free some, or use --short",
        size >> 20,
        available >> 20
    );
    let folder = settings.work("native-copy");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let built = |features: &str, name: &str| -> Result<PathBuf> {
        // Kept apart: built with other features, it has the same name.
        let own = folder.join(name);
        fs::copy(programs::example(settings, "sino-initramfs", "copy-speed", features)?, &own)
            .with_context(|| format!("copying to {}", own.display()))?;
        Ok(own)
    };
    let needs_other = contenders.iter().any(|contender| matches!(contender.how, How::WithoutHash));
    let without_hash = needs_other.then(|| built("bench-without-hash", "copy-speed-without-hash")).transpose()?;
    let ours = built("", "copy-speed")?;
    let from = random_file(&folder, size)?;
    let values = folder.join("values");
    command::run(Command::new(&ours).arg("--values").args([&from, &values]))?;
    let tmpfs = Tmpfs::new(folder.join("tmpfs"), size + (64 << 20))?;
    let to = tmpfs.0.join("copy");
    recorder.in_turns(CASE, settings.rounds * TIMES_THE_ROUNDS, contenders, |recorder, contender, round| {
        use_memory(&from, &to)?;
        forget(&from)?;
        let timed = |program: &Path| -> Result<f64> {
            let said = command::run(Command::new(program).arg("--once").args([&from, &to, &values]))?;
            String::from_utf8_lossy(&said).trim().parse::<f64>().context("copy-speed prints no seconds")
        };
        let seconds = match contender.how {
            How::Ours => timed(&ours)?,
            How::WithoutHash => timed(without_hash.as_ref().context("the copy without its hash was not built")?)?,
            How::Commands(commands) => {
                let began = Instant::now();
                for words in commands {
                    command::run(&mut filled_in(words, &from, &to))?;
                }
                began.elapsed().as_secs_f64()
            }
        };
        ensure!(fs::metadata(&to)?.len() == size, "the copy is not whole");
        fs::remove_file(&to).context("removing the copy")?;
        recorder.record(CASE, contender.name, "time", round, Unit::Seconds, seconds)?;
        #[expect(clippy::cast_precision_loss, reason = "a gigabyte")]
        let speed = size as f64 / 1e6 / seconds;
        recorder.record(CASE, contender.name, "speed", round, Unit::MegabytesPerSecond, speed)
    })?;
    fs::remove_file(&from).context("removing the file that was copied")
}

fn filled_in(words: &[&str], from: &Path, to: &Path) -> Command {
    let fill = |word: &&str| word.replace("FROM", &from.to_string_lossy()).replace("TO", &to.to_string_lossy());
    let words: Vec<String> = words.iter().map(fill).collect();
    let (program, arguments) = words.split_first().map_or(("true", &[] as &[String]), |(first, rest)| (first, rest));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Random, so that nothing below can compress it or leave it out.
fn random_file(folder: &Path, size: u64) -> Result<PathBuf> {
    let path = folder.join("random");
    let mut file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    let random = File::open("/dev/urandom").context("opening /dev/urandom")?;
    copy(&mut random.take(size), &mut file).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Uses the memory that a copy through the page cache takes, and gives it back.
fn use_memory(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    fs::remove_file(to).context("removing the copy")
}

/// Takes the file out of the page cache.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    fsync(&file)?;
    fadvise(&file, 0, None, Advice::DontNeed).context("taking the file out of the page cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in() {
        let How::Commands(commands) = COPIES[2].how else { panic!("{:?} has no commands", COPIES[2]) };
        let command = filled_in(commands[0], Path::new("/a b"), Path::new("/c"));
        assert_eq!(command::line(&command), "dd 'if=/a b' of=/c bs=1M status=none");
    }
}
