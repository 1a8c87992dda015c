//! What the test payload reports of the system that it finds itself in: one line of JSON.
//!
//! Shared by the payload, which fills it in, and by the checks, which judge it. Holds effects, not intentions: what the
//! kernel says is mounted, loaded and displayed.

use serde::{Deserialize, Serialize};

/// The file in the tiny root that tells one root from another.
pub const MARKER_FILE: &str = "etc/sino-test";
/// The host asks the payload to read every file of the root; the answer is a [`ReadAll`].
pub const READ_ALL: &str = "read-all";
/// The host asks the payload to look at everything again; the answer is a [`Report`].
pub const LOOK: &str = "look";
/// The host asks the payload to write to the root until nothing more fits; the answer is a [`Filled`].
pub const FILL: &str = "fill";
/// The host asks the payload how much memory is free; the answer is a [`Memory`].
pub const MEMORY: &str = "memory";
/// The host asks the payload to switch the machine off.
pub const POWER_OFF: &str = "poweroff";
/// The host asks the payload to restart the machine.
pub const RESTART: &str = "reboot";

/// Everything that the payload found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// When the kernel executed the initramfs's `/init`, in microseconds since it started; 0: its log does not say.
    pub init_us: u64,
    /// When the payload began, by the same clock.
    pub began_us: u64,
    /// The payload's process number.
    pub pid: u32,
    /// Seconds since the kernel started, times 1000.
    pub uptime_ms: u64,
    /// `/proc/cmdline`.
    pub command_line: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// `/sys/hypervisor/type`, if there is one.
    pub hypervisor: Option<String>,
    /// What is mounted.
    pub mounts: Vec<Mounted>,
    /// The content of [`MARKER_FILE`].
    pub marker: String,
    /// `MemTotal` of `/proc/meminfo`.
    pub memory_kib: u64,
    /// `/proc/fb`, line by line.
    pub framebuffers: Vec<String>,
    /// `/sys/class/graphics/fb0/virtual_size`.
    pub framebuffer_size: String,
    /// `/sys/class/vtconsole/*/name` of those that are bound.
    pub screen_consoles: Vec<String>,
    /// `/sys/class/tty/console/active`.
    pub consoles: String,
    /// `/run/sino/boot.json`.
    pub boot_record: serde_json::Value,
    /// Why a file written to the root could not be read back; empty if it could.
    pub root_write_error: String,
    /// Loop devices with the files behind them.
    pub loops: Vec<(String, String)>,
    /// Device-mapper devices: kernel name, own name, and the kernel name of the device below.
    pub mapped: Vec<(String, String, String)>,
    /// `/run/sino/issue`, its folded lines joined.
    pub issue: String,
    /// The medium's `sino.toml` as stage one has copied it; empty if there is none.
    pub configuration: String,
    /// `nr_inodes` and `size` of the overlay's tmpfs as the kernel counts them.
    pub overlay_files: u64,
    /// See above; bytes.
    pub overlay_bytes: u64,
    /// Block devices with their length in bytes.
    pub block_devices: Vec<(String, u64)>,
    /// Loaded kernel modules.
    pub modules: Vec<String>,
    /// The payload's arguments.
    pub arguments: Vec<String>,
    /// The payload's environment.
    pub environment: Vec<String>,
    /// Open file descriptors of the payload above standard error, with what they lead to.
    pub open_files: Vec<String>,
    /// What the payload had to do itself although it should have been done, and what it could not find out.
    pub complaints: Vec<String>,
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Where.
    pub target: String,
    /// File system type.
    pub fs: String,
    /// Device or name.
    pub source: String,
    /// Options of the mount.
    pub options: String,
    /// Options of the file system.
    pub fs_options: String,
}

/// The result of reading every file of the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAll {
    /// Files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What could not be read.
    pub errors: Vec<String>,
    /// As [`Memory::free_kib`], afterwards.
    pub free_kib: u64,
    /// `Shmem` of `/proc/meminfo` afterwards, in KiB: what all the tmpfs hold.
    pub tmpfs_kib: u64,
    /// Milliseconds that it took.
    pub spent_ms: u64,
}

/// The memory that is left when nothing is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// `MemFree` of `/proc/meminfo` after the caches were dropped, with what is kept at hand for each processor, in KiB.
    pub free_kib: u64,
    /// `Shmem` then, in KiB: what all the tmpfs hold.
    pub tmpfs_kib: u64,
}

/// The result of filling the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filled {
    /// Bytes that fitted.
    pub bytes: u64,
    /// Why no more did.
    pub error: String,
}

impl Report {
    /// What is mounted at `target`; the last mount hides those before it.
    #[must_use]
    pub fn mounted_at(&self, target: &str) -> Option<&Mounted> {
        self.mounts.iter().rev().find(|mount| mount.target == target)
    }
}

/// Reads `/proc/self/mountinfo` (proc(5)); a line of another form is passed over.
#[must_use]
pub fn parse_mounts(table: &str) -> Vec<Mounted> {
    table.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mounted> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(4);
    let mut after = after.split(' ');
    Some(Mounted {
        target: before.next()?.to_owned(),
        options: before.next()?.to_owned(),
        fs: after.next()?.to_owned(),
        source: after.next()?.to_owned(),
        fs_options: after.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_table_is_read() {
        let table = "21 1 0:19 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/run/sino/lower\n\
                     22 21 0:20 / /proc rw,nosuid - proc proc rw\nnonsense\n";
        let report = Report { mounts: parse_mounts(table), ..Report::default() };
        assert_eq!(report.mounts.len(), 2);
        let root = report.mounted_at("/").unwrap();
        assert_eq!((root.fs.as_str(), root.fs_options.as_str()), ("overlay", "rw,lowerdir=/run/sino/lower"));
        assert!(report.mounted_at("/run/sino/medium").is_none());
    }

    #[test]
    fn a_report_survives_its_line() {
        let report = Report { pid: 1, loops: vec![("loop0".into(), "/x".into())], ..Report::default() };
        let line = serde_json::to_string(&report).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
    }
}
