//! The test payload: finds out what system it is in, reports, and does what the host says.
//!
//! Runs as process 1 of the tiny root. It repairs nothing silently: what it has to do itself, it complains of. What
//! cannot be found out is a complaint too, never the end of the program.

mod kernel_log;

use crate::report::{self, Filled, MARKER_FILE, Memory, ReadAll, Report, parse_mounts};
use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use sino_boot::layout;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// The virtio-serial port to report on.
const PORT: &str = "sino.report";
/// Size of a page of memory on the only processors that there are SINO images for.
const PAGE_KIB: u64 = 4;

/// Reports, and obeys the host until it switches the machine off. Returns only when there is nobody to report to.
///
/// # Errors
/// There is no report port, or it does not work.
pub fn run() -> Result<()> {
    let marked = kernel_log::mark();
    let mut complaints = kernel_file_systems();
    if !marked {
        kernel_log::mark();
    }
    let mut port = open_port().context("finding the report port")?;
    let mut report = collect(&mut complaints);
    report.complaints = complaints;
    send(&mut port, &serde_json::to_string(&report)?)?;
    say("sino-payload: reported");
    let commands = BufReader::new(port.try_clone().context("reading the report port")?);
    for command in commands.lines() {
        match command.context("reading a command")?.trim() {
            report::READ_ALL => send(&mut port, &serde_json::to_string(&read_all())?)?,
            report::LOOK => send(&mut port, &serde_json::to_string(&collect(&mut Vec::new()))?)?,
            report::MEMORY => send(&mut port, &serde_json::to_string(&memory(10))?)?,
            report::FILL => send(&mut port, &serde_json::to_string(&fill())?)?,
            report::POWER_OFF => reboot(RebootCommand::PowerOff).context("switching off")?,
            report::RESTART => reboot(RebootCommand::Restart).context("restarting")?,
            other => say(&format!("sino-payload: the host said {other:?}, which means nothing here")),
        }
    }
    bail!("the host closed the report port")
}

/// Says a line on the console.
pub fn say(line: &str) {
    // Without a console there is nobody to tell.
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(format!("{line}\n").as_bytes());
    }
}

fn send(port: &mut File, line: &str) -> Result<()> {
    port.write_all(format!("{line}\n").as_bytes()).context("writing to the report port")
}

/// Mounts what the boot should have left mounted, with a complaint for each.
fn kernel_file_systems() -> Vec<String> {
    let mut complaints = Vec::new();
    for (fs, target, probe) in
        [("proc", "/proc", "/proc/self/mountinfo"), ("sysfs", "/sys", "/sys/class"), ("devtmpfs", "/dev", "/dev/null")]
    {
        if !Path::new(probe).exists() {
            let result = mount(fs, target, fs, MountFlags::empty(), None);
            complaints.push(format!("{target} was not mounted; mounting it: {result:?}"));
        }
    }
    complaints
}

fn open_port() -> Result<File> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        if text(entry.path().join("name")) == PORT {
            let device = Path::new("/dev").join(entry.file_name());
            return OpenOptions::new().read(true).write(true).open(&device).context(device.display().to_string());
        }
    }
    bail!("no virtio-serial port is named {PORT}")
}

fn collect(complaints: &mut Vec<String>) -> Report {
    let boot_record = fs::read_to_string(layout::BOOT_RECORD)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_str(&text)?))
        .unwrap_or_else(|error| {
            complaints.push(format!("{}: {error:#}", layout::BOOT_RECORD));
            serde_json::Value::Null
        });
    let overlay = rustix::fs::statvfs(layout::OVERLAY).ok();
    let (init_us, began_us) = kernel_log::times();
    Report {
        init_us,
        began_us,
        pid: std::process::id(),
        uptime_ms: sino_boot::record::now_us() / 1000,
        command_line: text("/proc/cmdline".into()),
        kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
        hypervisor: fs::read_to_string("/sys/hypervisor/type").ok().map(|text| text.trim().to_owned()),
        mounts: parse_mounts(&text("/proc/self/mountinfo".into())),
        marker: text(Path::new("/").join(MARKER_FILE)),
        memory_kib: memory_kib("MemTotal:"),
        framebuffers: text("/proc/fb".into()).lines().map(str::to_owned).collect(),
        framebuffer_size: text("/sys/class/graphics/fb0/virtual_size".into()),
        screen_consoles: screen_consoles(),
        consoles: text("/sys/class/tty/console/active".into()),
        boot_record,
        root_write_error: write_to_root().err().map(|error| format!("{error:#}")).unwrap_or_default(),
        loops: each("/sys/block", |device| {
            let file = text(device.join("loop/backing_file"));
            (!file.is_empty()).then(|| (name(device), file))
        }),
        mapped: each("/sys/block", |device| {
            let below = fs::read_dir(device.join("slaves")).ok()?.next()?.ok()?;
            let own = text(device.join("dm/name"));
            (!own.is_empty()).then(|| (name(device), own, name(&below.path())))
        }),
        // What was folded for a console in one line again.
        issue: text(layout::ISSUE.into()).replace("\n  ", " "),
        configuration: text(layout::STICK_CONFIG.into()),
        overlay_files: overlay.as_ref().map(|facts| facts.f_files).unwrap_or_default(),
        overlay_bytes: overlay.as_ref().map(|facts| facts.f_blocks * facts.f_frsize).unwrap_or_default(),
        block_devices: each("/sys/block", |device| {
            let sectors: u64 = text(device.join("size")).parse().ok()?;
            Some((name(device), sectors * 512))
        }),
        modules: text("/proc/modules".into())
            .lines()
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect(),
        arguments: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        environment: std::env::vars_os()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
            .collect(),
        open_files: open_files(),
        complaints: Vec::new(),
    }
}

/// A number of `/proc/meminfo`; 0 if it is not there.
fn memory_kib(name: &str) -> u64 {
    let text = text("/proc/meminfo".into());
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_default()
}

/// The memory that is free once the kernel has let go of all that it can read or make again; the most of so many looks.
fn memory(looks: u32) -> Memory {
    // Not MemAvailable: it subtracts the kernel's watermarks, which are raised by tens of megabytes for a while after memory
    // was found fragmented. What is under way beside this, like udev's workers, takes memory for a moment: the largest counts.
    let settled = |_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        // Without it the figure is too low, which a reader of the bench sees by its spread.
        let _ = fs::write("/proc/sys/vm/drop_caches", "3");
        memory_kib("MemFree:") + at_hand_kib(&text("/proc/zoneinfo".into()))
    };
    Memory { free_kib: (0..looks).map(settled).max().unwrap_or_default(), tmpfs_kib: memory_kib("Shmem:") }
}

/// The memory that is free, too, but kept at hand for each processor, in KiB. `MemFree` does not count it, and the kernel lets
/// these lists grow to an eighth of the memory while much is freed. Source: kernel `mm/page_alloc.c`, `mm/vmstat.c`.
fn at_hand_kib(zoneinfo: &str) -> u64 {
    let counts = zoneinfo.lines().filter_map(|line| line.trim_start().strip_prefix("count:"));
    let pages: u64 = counts.filter_map(|count| count.trim().parse::<u64>().ok()).sum();
    pages * PAGE_KIB
}

/// Writes to the root until it takes no more. What was written stays.
fn fill() -> Filled {
    let mut filled = Filled::default();
    let piece = vec![0x5a; 64 << 10];
    let result = File::create("/sino-payload.filling").and_then(|mut file| {
        loop {
            match file.write(&piece)? {
                0 => return Ok(()),
                length => filled.bytes += length as u64,
            }
        }
    });
    filled.error = result.err().map(|error| error.to_string()).unwrap_or_default();
    filled
}

/// A file's text without the newline at its end; empty if there is no such file.
fn text(path: PathBuf) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()).unwrap_or_default()
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What `find` makes of each entry of a folder, sorted.
fn each<T: Ord>(folder: &str, find: impl Fn(&Path) -> Option<T>) -> Vec<T> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<T> = entries.filter_map(|entry| find(&entry.path())).collect();
    found.sort();
    found
}

fn screen_consoles() -> Vec<String> {
    each("/sys/class/vtconsole", |console| (text(console.join("bind")) == "1").then(|| text(console.join("name"))))
}

/// What this process was left open, apart from the report port and the folder that is being read.
fn open_files() -> Vec<String> {
    each("/proc/self/fd", |link| {
        let number: u32 = name(link).parse().ok()?;
        let target = fs::read_link(link).ok()?.to_string_lossy().into_owned();
        let own = target.starts_with("/dev/vport") || target.starts_with("/proc/");
        (number > 2 && !own).then(|| format!("{number} {target}"))
    })
}

fn write_to_root() -> Result<()> {
    let path = "/sino-payload.written";
    fs::write(path, path).context("writing")?;
    let read = fs::read_to_string(path).context("reading back")?;
    if read != path {
        bail!("read back {read:?}");
    }
    fs::remove_file(path).context("removing")
}

/// Reads every file of the root, but not of what is mounted below it.
fn read_all() -> ReadAll {
    // Forget what is cached, so that the files come from the medium; at worst they come from the cache.
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
    let mounted: Vec<PathBuf> =
        parse_mounts(&text("/proc/self/mountinfo".into())).into_iter().map(|mount| mount.target.into()).collect();
    let began = std::time::Instant::now();
    let mut result = ReadAll::default();
    let mut folders = vec![PathBuf::from("/")];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                result.errors.push(format!("{}: {error}", folder.display()));
                continue;
            }
        };
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !mounted.contains(&path) => folders.push(path),
                Ok(kind) if kind.is_file() => match fs::read(&path) {
                    Ok(bytes) => {
                        result.files += 1;
                        result.bytes += bytes.len() as u64;
                    }
                    Err(error) => result.errors.push(format!("{}: {error}", path.display())),
                },
                Ok(_) => {}
                Err(error) => result.errors.push(format!("{}: {error}", path.display())),
            }
        }
    }
    result.spent_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Memory { free_kib: result.free_kib, tmpfs_kib: result.tmpfs_kib } = memory(30);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_at_hand_of_every_processor_are_counted() {
        let zoneinfo = "Node 0, zone    DMA32\n  pages free     350\n  pagesets\n    cpu: 0\n              count:    32000\n              \
            high:     34000\n    cpu: 1\n              count:    2\n  vm stats threshold: 12\n";
        assert_eq!(at_hand_kib(zoneinfo), 128_008);
        assert_eq!(at_hand_kib(""), 0);
    }
}
