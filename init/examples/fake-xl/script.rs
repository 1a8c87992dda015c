//! What the fake xl is told to do.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The script, a TOML file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// Where it was read from.
    #[serde(skip)]
    pub(crate) path: PathBuf,
    /// The folder with the domains; made if it is not there.
    pub(crate) state: PathBuf,
    /// Where each call is logged, one line of JSON when it begins and one when it ends.
    pub(crate) log: Option<PathBuf>,
    /// The memory of the host, in MiB; more is not given.
    #[serde(default = "memory")]
    pub(crate) memory_mib: u64,
    /// How calls that are about no guest behave: `list`, `list -l`, `info`, `dmesg`.
    #[serde(default)]
    pub(crate) command: BTreeMap<String, Behaviour>,
    /// The guests; one that is not here behaves well.
    #[serde(default)]
    pub(crate) guest: BTreeMap<String, Guest>,
}

/// How a guest, and calls about it, behave.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "each is a line of the script")]
pub(crate) struct Guest {
    pub(crate) create: Behaviour,
    /// `xl -N create`: what would be made.
    pub(crate) dry_run: Behaviour,
    /// `ms` is how long the call takes; `obeys_after` how long the guest takes then.
    pub(crate) shutdown: Behaviour,
    pub(crate) reboot: Behaviour,
    pub(crate) save: Behaviour,
    pub(crate) restore: Behaviour,
    pub(crate) destroy: Behaviour,
    /// It crashes so long after it was made, in ms.
    pub(crate) crash_after: Option<u64>,
    /// It wants to reboot so long after it was made, in ms, with `on_reboot = "destroy"`.
    pub(crate) reboot_after: Option<u64>,
    /// How long it takes to shut down once asked, in ms.
    pub(crate) obeys_after: u64,
    /// It does not care.
    pub(crate) ignores: bool,
    /// It has no PV drivers: only ACPI reaches it.
    pub(crate) no_pv: bool,
    /// A domain that has crashed stays, as with `on_crash = "preserve"`.
    pub(crate) preserve: bool,
    /// xl leaves its daemon behind.
    pub(crate) daemon: bool,
}

/// How one call behaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Behaviour {
    /// How long it takes, in ms.
    pub(crate) ms: u64,
    /// It fails so many times before it works.
    pub(crate) fail_first: u32,
    /// The status of a failure; 3 is libxl's `ERROR_FAIL`.
    pub(crate) code: u8,
    /// What it says then.
    pub(crate) text: String,
    /// It never ends.
    pub(crate) hang: bool,
    /// So many programs of its own hang with it.
    pub(crate) children: u32,
    /// It says that it worked, and has done nothing.
    pub(crate) lie: bool,
    /// It prints what nobody can read.
    pub(crate) garbage: bool,
    /// It prints so many bytes.
    pub(crate) huge: usize,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            ms: 0,
            fail_first: 0,
            code: 3,
            text: "libxl: error: libxl_create.c:1862:domcreate_launch_dm: Domain 5:unable to add disk devices\n".into(),
            hang: false,
            children: 0,
            lie: false,
            garbage: false,
            huge: 0,
        }
    }
}

fn memory() -> u64 {
    1 << 20
}

impl Script {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let script: Self = toml::from_str(&text).map_err(|error| error.to_string())?;
        let script = Self { path: path.to_owned(), ..script };
        std::fs::create_dir_all(&script.state).map_err(|error| error.to_string())?;
        Ok(script)
    }

    pub(crate) fn guest(&self, name: &str) -> Guest {
        self.guest.get(name).cloned().unwrap_or_default()
    }
}
