//! Runs `xl`, each time with a deadline.
//!
//! A call either waits ([`Xl::create`] and the others) or is started and tells its end ([`Xl::start`], [`Job`]). What xl
//! prints is kept with limits and read with distrust; what fails says what was run, what xl said and what to do.

mod domain;
mod dry_run;
mod failure;
mod job;
mod orphans;
mod run;

pub use domain::{Domain, Shutdown, State, long, table};
pub use failure::{Failure, Kind};
pub use job::Job;
pub use orphans::wait_for_orphans;
pub use run::{Captured, DATA, Finished, WORDS, run};

use super::probe::Cancel;
use crate::child::words;
use anyhow::{Context as _, Result};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where Debian has the programs of each Xen version, in folders `xen-VERSION/bin`.
const VERSIONS: &str = "/usr/lib";
/// Where programs are when `PATH` is not set; Debian's own `xl` there picks that of the Xen that runs.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Ends the name of a saved state that is not complete.
const PART: &str = ".part";

/// The program xl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xl {
    /// Its path.
    pub program: PathBuf,
}

/// A domain, as a call names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By name. One that xl would take for a number or an option is refused.
    Name(String),
    /// By number.
    Id(u32),
}

impl From<&str> for Target {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<&Domain> for Target {
    fn from(domain: &Domain) -> Self {
        Self::Id(domain.id)
    }
}

/// Those of Xen's schedulers that know weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// The default since Xen 4.12.
    Credit2,
    /// The one before it.
    Credit,
}

impl Scheduler {
    /// The one at work, as `xl info` tells; none that knows weights, perhaps.
    #[must_use]
    pub fn of_info(info: &str) -> Option<Self> {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        match lines.find(|(key, _)| key.trim() == "xen_scheduler")?.1.trim() {
            "credit2" => Some(Self::Credit2),
            "credit" => Some(Self::Credit),
            _ => None,
        }
    }
}

/// A call of xl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Makes a domain from this file and lets it run. Ends when it runs, not when it has booted.
    Create(PathBuf),
    /// Says as JSON what would be made from this file. Needs Xen, too.
    DryRun(PathBuf),
    /// The table of domains.
    List,
    /// The domains' configurations as JSON.
    ListLong,
    /// Asks a guest to switch itself off, and does not wait until it has; with `acpi`, by its power button if it has no PV drivers.
    Shutdown {
        /// Which.
        guest: Target,
        /// Whether the power button is pressed where nothing else helps.
        acpi: bool,
    },
    /// Asks a guest to begin anew; `acpi` as above.
    Reboot {
        /// Which.
        guest: Target,
        /// Whether the reset button is pressed where nothing else helps.
        acpi: bool,
    },
    /// Writes a guest's state to this file, and ends the guest. The file has its name only when it is complete; it is on the
    /// disk when its file system has been synced or unmounted.
    Save {
        /// Which.
        guest: Target,
        /// To where.
        file: PathBuf,
    },
    /// Lets a guest go on from its saved state.
    Restore(PathBuf),
    /// Takes a domain down at once.
    Destroy(Target),
    /// What Xen says of the host.
    Info,
    /// Xen's own messages.
    ConsoleRing,
    /// Gives domain 0 this share of the CPUs, beside guests that have 256 each.
    WeighDom0 {
        /// Which of Xen's schedulers is at work.
        scheduler: Scheduler,
        /// 1 to 65535.
        weight: u32,
    },
}

impl Xl {
    /// This program.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// The program in `PATH`, or that of the newest Xen below `/usr/lib/xen-*/bin`.
    ///
    /// # Errors
    /// There is none.
    pub fn find() -> Result<Self> {
        // Process 1 may have started us without one.
        let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        Self::find_in(std::env::split_paths(&path), Path::new(VERSIONS))
    }

    fn find_in(path: impl Iterator<Item = PathBuf>, versions: &Path) -> Result<Self> {
        let is_program = |file: &PathBuf| {
            fs::metadata(file).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
        };
        let mut installed: Vec<(Vec<u32>, PathBuf)> = fs::read_dir(versions)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let version = name.to_str()?.strip_prefix("xen-")?;
                // "4.9" is before "4.20".
                let numbers = version.split('.').map(|part| part.parse().unwrap_or(0)).collect();
                Some((numbers, entry.path().join("bin/xl")))
            })
            .collect();
        installed.sort();
        let found = path
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join("xl"))
            .chain(installed.into_iter().rev().map(|(_, program)| program))
            .find(is_program);
        found.map(Self::new).with_context(|| {
            format!(
                "no program xl, neither in PATH nor as {}/xen-*/bin/xl; is this image built with Xen (group base)?",
                versions.display()
            )
        })
    }

    /// The command line of a call.
    ///
    /// # Errors
    /// It would do something else than what is meant: `xl destroy 12` is about the domain with the *number* 12.
    pub fn command(&self, call: &Call) -> Result<Command, Failure> {
        let mut command = Command::new(&self.program);
        match call {
            // With -f, because a path with a "=" in it would be taken for a line of configuration.
            Call::Create(file) => command.args(["create", "-f"]).arg(file),
            Call::DryRun(file) => command.args(["-N", "create", "-f"]).arg(file),
            Call::List => command.args(["list", "-v"]),
            Call::ListLong => command.args(["list", "-l"]),
            Call::Shutdown { guest, acpi } => command.arg("shutdown").args(acpi.then_some("-F")).arg(guest.argument()),
            Call::Reboot { guest, acpi } => command.arg("reboot").args(acpi.then_some("-F")).arg(guest.argument()),
            Call::Save { guest, file } => command.arg("save").arg(guest.argument()).arg(part(file)),
            Call::Restore(file) => command.arg("restore").arg(file),
            Call::Destroy(guest) => command.arg("destroy").arg(guest.argument()),
            Call::Info => command.arg("info"),
            Call::ConsoleRing => command.arg("dmesg"),
            Call::WeighDom0 { scheduler, weight } => {
                let name = match scheduler {
                    Scheduler::Credit2 => "sched-credit2",
                    Scheduler::Credit => "sched-credit",
                };
                command.args([name, "-d", "Domain-0", "-w", &weight.to_string()])
            }
        };
        match call.refused() {
            Some(why) => Err(Failure::new(words(&command), Kind::Refused(why), Duration::ZERO, b"", b"")),
            None => Ok(command),
        }
    }

    /// Makes the call and waits for its end.
    ///
    /// # Errors
    /// It was refused, cannot be run, has not ended by `deadline`, was cancelled, or has failed.
    pub fn call(&self, call: &Call, deadline: Instant, cancel: Option<&Cancel>) -> Result<Finished, Failure> {
        let mut command = self.command(call)?;
        let limit = match call {
            Call::List | Call::ListLong | Call::DryRun(_) | Call::ConsoleRing => DATA,
            _ => WORDS,
        };
        let result = run(&mut command, limit, deadline, cancel);
        let Call::Save { file, .. } = call else { return result };
        // A state that is not complete must never be taken for one.
        let finished = result.inspect_err(|_| {
            let _ = fs::remove_file(part(file));
        })?;
        fs::rename(part(file), file).map_err(|error| {
            let why = format!("the saved state {}: {error}", part(file).display());
            Failure::new(words(&command), Kind::Unreadable(why), finished.took, b"", b"")
        })?;
        Ok(finished)
    }

    /// Makes the call in a thread; `done` is given its result there.
    ///
    /// # Errors
    /// No thread is to be had; `done` is not called then.
    pub fn start(
        &self,
        call: Call,
        deadline: Instant,
        done: impl FnOnce(Result<Finished, Failure>) + Send + 'static,
    ) -> io::Result<Job> {
        let xl = self.clone();
        Job::start("xl", move |cancel| xl.call(&call, deadline, Some(cancel)), done)
    }

    /// Lists the domains in a thread; `done` is given them there.
    ///
    /// # Errors
    /// No thread is to be had; `done` is not called then.
    pub fn start_list(
        &self,
        deadline: Instant,
        done: impl FnOnce(Result<Vec<Domain>, Failure>) + Send + 'static,
    ) -> io::Result<Job> {
        let xl = self.clone();
        Job::start("xl list", move |cancel| xl.domains(deadline, Some(cancel)), done)
    }

    /// Makes a domain from `config` (an absolute path) and lets it run. After a failure of which
    /// [`Failure::may_leave_a_domain`] is true, look at [`Xl::list`] and destroy what is left.
    ///
    /// # Errors
    /// As with [`Xl::call`].
    pub fn create(&self, config: &Path, deadline: Instant) -> Result<Finished, Failure> {
        self.call(&Call::Create(config.to_owned()), deadline, None)
    }

    /// The configuration that xl reads out of `config`, as JSON; nothing is made.
    ///
    /// # Errors
    /// As with [`Xl::call`]: xl's own opinion of the file, too.
    pub fn dry_run(&self, config: &Path, deadline: Instant) -> Result<String, Failure> {
        self.text(&Call::DryRun(config.to_owned()), deadline)
    }

    /// The domains that there are, Domain-0 included.
    ///
    /// The table is asked first because only it has the states; where it cannot be read (a name with a line break in it), the
    /// JSON of `xl list -l` tells at least which domains there are.
    ///
    /// # Errors
    /// As with [`Xl::call`], or what it prints is no list.
    pub fn list(&self, deadline: Instant) -> Result<Vec<Domain>, Failure> {
        self.domains(deadline, None)
    }

    fn domains(&self, deadline: Instant, cancel: Option<&Cancel>) -> Result<Vec<Domain>, Failure> {
        let seen = self.call(&Call::List, deadline, cancel)?;
        let why_no_table = match whole(&seen).and_then(table) {
            Ok(domains) => return Ok(domains),
            Err(error) => error,
        };
        let seen = self.call(&Call::ListLong, deadline, cancel)?;
        whole(&seen).and_then(long).map_err(|error| {
            let why = format!("{why_no_table:#}; and with -l: {error:#}");
            self.unreadable(&Call::List, why, &seen)
        })
    }

    /// Asks a guest to switch itself off; returns when it has been asked. With `acpi`, a guest without PV drivers has its power
    /// button pressed; without, [`Failure::no_pv_drivers`] tells that it has none.
    ///
    /// # Errors
    /// As with [`Xl::call`].
    pub fn shutdown(&self, guest: impl Into<Target>, acpi: bool, deadline: Instant) -> Result<Finished, Failure> {
        self.call(&Call::Shutdown { guest: guest.into(), acpi }, deadline, None)
    }

    /// Asks a guest to begin anew, as [`Xl::shutdown`] does.
    ///
    /// # Errors
    /// As with [`Xl::call`].
    pub fn reboot(&self, guest: impl Into<Target>, acpi: bool, deadline: Instant) -> Result<Finished, Failure> {
        self.call(&Call::Reboot { guest: guest.into(), acpi }, deadline, None)
    }

    /// Saves a guest to `file`, which is there only if all of it is, and ends the guest. A guest whose save was killed at the
    /// deadline may be suspended for good: destroy it.
    ///
    /// # Errors
    /// As with [`Xl::call`].
    pub fn save(&self, guest: impl Into<Target>, file: &Path, deadline: Instant) -> Result<Finished, Failure> {
        self.call(&Call::Save { guest: guest.into(), file: file.to_owned() }, deadline, None)
    }

    /// Lets a guest go on from its saved state. The file is left where it is; it must not be used twice.
    ///
    /// # Errors
    /// As with [`Xl::call`].
    pub fn restore(&self, file: &Path, deadline: Instant) -> Result<Finished, Failure> {
        self.call(&Call::Restore(file.to_owned()), deadline, None)
    }

    /// Takes a domain down at once.
    ///
    /// # Errors
    /// As with [`Xl::call`].
    pub fn destroy(&self, guest: impl Into<Target>, deadline: Instant) -> Result<Finished, Failure> {
        self.call(&Call::Destroy(guest.into()), deadline, None)
    }

    /// What `xl info` says of the host.
    ///
    /// # Errors
    /// As with [`Xl::call`].
    pub fn info(&self, deadline: Instant) -> Result<String, Failure> {
        self.text(&Call::Info, deadline)
    }

    /// Xen's own messages since it was started, as far as its ring still has them.
    ///
    /// # Errors
    /// As with [`Xl::call`].
    pub fn console_ring(&self, deadline: Instant) -> Result<String, Failure> {
        self.text(&Call::ConsoleRing, deadline)
    }

    fn text(&self, call: &Call, deadline: Instant) -> Result<String, Failure> {
        let finished = self.call(call, deadline, None)?;
        match whole(&finished) {
            Ok(text) if !text.is_empty() => Ok(String::from_utf8_lossy(text).into_owned()),
            Ok(_) => Err(self.unreadable(call, "nothing".into(), &finished)),
            Err(error) => Err(self.unreadable(call, error.to_string(), &finished)),
        }
    }

    fn unreadable(&self, call: &Call, why: String, finished: &Finished) -> Failure {
        let words = self.command(call).map_or_else(|failure| failure.command, |command| words(&command));
        // Its standard output is data, and what is wrong with it stands in `why`.
        Failure::new(words, Kind::Unreadable(why), finished.took, b"", &finished.stderr.bytes())
    }
}

fn whole(finished: &Finished) -> Result<&[u8]> {
    finished.stdout.whole().with_context(|| format!("more than {} MiB of output", DATA >> 20))
}

fn part(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(PART);
    name.into()
}

impl Target {
    fn argument(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Id(id) => id.to_string(),
        }
    }

    /// Why it must not be given to xl. A name of digits only is a number to xl (xen
    /// `tools/libs/light/libxl_utils.c`, `libxl_domain_qualifier_to_domid`), and none at all is number 0.
    fn refused(&self) -> Option<String> {
        match self {
            Self::Id(0) => Some("the host itself is no guest".into()),
            Self::Name(name) if name == "Domain-0" => Some("the host itself is no guest".into()),
            Self::Name(name) if name.is_empty() => Some("a guest without a name".into()),
            Self::Name(name) if name.starts_with('-') => Some(format!("xl would take the name {name:?} for an option")),
            Self::Name(name) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(format!("xl would take the name {name:?} for the number of a domain"))
            }
            _ => None,
        }
    }
}

impl Call {
    fn refused(&self) -> Option<String> {
        match self {
            Self::Create(file) | Self::DryRun(file) | Self::Restore(file) | Self::Save { file, .. }
                if !file.is_absolute() =>
            {
                Some(format!("{} is no absolute path", file.display()))
            }
            Self::Shutdown { guest, .. }
            | Self::Reboot { guest, .. }
            | Self::Save { guest, .. }
            | Self::Destroy(guest) => guest.refused(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(call: &Call) -> Result<String, Kind> {
        Xl::new("xl").command(call).map(|command| words(&command)).map_err(|failure| failure.kind)
    }

    #[test]
    fn each_call_is_what_xl_understands() {
        let guest = Target::from("two words");
        for (call, expected) in [
            (Call::Create("/a=b.cfg".into()), "xl create -f /a=b.cfg"),
            (Call::DryRun("/a.cfg".into()), "xl -N create -f /a.cfg"),
            (Call::List, "xl list -v"),
            (Call::ListLong, "xl list -l"),
            (Call::Shutdown { guest: guest.clone(), acpi: false }, "xl shutdown two words"),
            (Call::Shutdown { guest: Target::Id(7), acpi: true }, "xl shutdown -F 7"),
            (Call::Reboot { guest: guest.clone(), acpi: true }, "xl reboot -F two words"),
            (Call::Save { guest, file: "/s/web".into() }, "xl save two words /s/web.part"),
            (Call::Restore("/s/web".into()), "xl restore /s/web"),
            (Call::Destroy(Target::Id(12)), "xl destroy 12"),
            (Call::Info, "xl info"),
            (Call::ConsoleRing, "xl dmesg"),
            (Call::WeighDom0 { scheduler: Scheduler::Credit2, weight: 9 }, "xl sched-credit2 -d Domain-0 -w 9"),
            (Call::WeighDom0 { scheduler: Scheduler::Credit, weight: 9 }, "xl sched-credit -d Domain-0 -w 9"),
        ] {
            assert_eq!(line(&call).unwrap(), expected);
        }
    }

    #[test]
    fn what_would_hit_another_domain_is_refused() {
        for name in ["12", "-F", "", "Domain-0"] {
            assert!(matches!(line(&Call::Destroy(name.into())), Err(Kind::Refused(_))), "{name}");
        }
        assert!(matches!(line(&Call::Shutdown { guest: Target::Id(0), acpi: false }), Err(Kind::Refused(_))));
        assert!(matches!(line(&Call::Create("a.cfg".into())), Err(Kind::Refused(_))));
        assert!(line(&Call::Destroy("12a".into())).is_ok());
    }

    #[test]
    fn it_is_found_in_path_or_with_the_newest_xen() {
        let place = tempfile::tempdir().unwrap();
        let program = |path: &str, mode| {
            let file = place.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        let find = |path: Vec<PathBuf>| Xl::find_in(path.into_iter(), place.path()).map(|xl| xl.program);
        let error = find(vec!["/no/such".into()]).unwrap_err().to_string();
        assert!(error.contains("neither in PATH"), "{error}");
        program("xen-4.9/bin/xl", 0o755);
        let newest = program("xen-4.20/bin/xl", 0o755);
        assert_eq!(find(vec![]).unwrap(), newest);
        program("none/xl", 0o644);
        let first = program("sbin/xl", 0o755);
        assert_eq!(find(vec![place.path().join("none"), place.path().join("sbin")]).unwrap(), first);
    }
}
