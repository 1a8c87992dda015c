//! Whether there is a Xen below, and what the kernel must have to talk to it.

use crate::storage::Host;
use crate::storage::mounts::Mount;
use crate::storage::tools::{Call, SHORT};
use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use sino_boot::stage::{Done, Fault, done};
use std::fs;
use std::path::{Path, PathBuf};

/// Says `xen` on a kernel that runs on Xen. Source: Linux, `Documentation/ABI/stable/sysfs-hypervisor-xen`.
const TYPE: &str = "/sys/hypervisor/type";
/// Holds `major` and `minor`. Source: as above.
const VERSION: &str = "/sys/hypervisor/version";
/// Where the kernel's files for xenstored are. Source: Debian's /etc/init.d/xen.
const XENFS: &str = "/proc/xen";
/// Holds `control_d` on the host itself. Source: Linux, `drivers/xen/xenfs/super.c`.
const CAPABILITIES: &str = "/proc/xen/capabilities";
/// Without these neither xenstored nor `xl` works. In Debian's kernel they are modules; xenfs brings xen-privcmd.
const MODULES: [&str; 3] = ["xenfs", "xen-evtchn", "xen-gntdev"];

/// The Xen below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xen {
    /// Its version, for example `4.20`: which of Debian's packages fits it.
    pub version: String,
    /// Where the programs are that fit it.
    pub programs: PathBuf,
}

/// What is below this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Below {
    /// A Xen, whose host this is.
    Xen(Xen),
    /// No Xen, or one whose guest this is: why there are no guests here.
    Nothing(String),
}

/// Finds out what is below, loads what the kernel needs for it, and mounts its files. No Xen is no fault.
///
/// # Errors
/// There is a Xen, and the host cannot work with it: modules or programs do not fit.
pub(super) fn below(host: Host<'_>) -> Result<Done<Below>, Fault> {
    let read = |path: &str| fs::read_to_string(host.path(path)).unwrap_or_default().trim().to_owned();
    let nothing = |why: &str| Ok(done(Below::Nothing(why.to_owned()), format!("no Xen: {why}")));
    if read(TYPE) != "xen" {
        return nothing("this kernel was started without it, so no guest can run");
    }
    let mut call = vec!["modprobe", "-a"];
    call.extend(MODULES);
    // What is built in is found loaded. A failure shows below, or by what needs it.
    let loaded = host.tools.run(&Call::new(&call, SHORT));
    let said = match &loaded {
        Ok(output) if output.succeeded() => None,
        Ok(output) => Some(output.said()),
        Err(error) => Some(format!("{error:#}")),
    };
    if !host.path(CAPABILITIES).exists() {
        let target = host.path(XENFS);
        let mount = Mount { device: Path::new("xenfs"), fs: "xenfs", target: &target, read_only: false, options: &[] };
        host.tools.mount(&mount).map_err(|error| {
            let fault = Fault::from(error).hint("the kernel and its modules must be of one build: sino status");
            said.iter().fold(fault, |fault, said| fault.seen(format!("modprobe: {said}")))
        })?;
    }
    if !read(CAPABILITIES).split_whitespace().any(|word| word == "control_d") {
        return nothing("this is a guest of Xen and not its host, so no guest can run here");
    }
    let number = |part: &str| -> Result<u32, Fault> {
        let path = format!("{VERSION}/{part}");
        Ok(read(&path).parse().with_context(|| format!("{path} holds no number"))?)
    };
    let version = format!("{}.{}", number("major")?, number("minor")?);
    let programs = host.path(&format!("/usr/lib/xen-{version}/bin"));
    if !programs.is_dir() {
        return Err(Fault::from(anyhow!("Xen {version} runs, and its programs are not here"))
            .seen(format!("there is no {}", programs.display()))
            .hint("the stick's Xen and its root must be of one build: make the stick anew"));
    }
    let detail = match said {
        Some(said) => format!("Xen {version}; modprobe: {said}"),
        None => format!("Xen {version}"),
    };
    Ok(done(Below::Xen(Xen { version, programs }), detail))
}
