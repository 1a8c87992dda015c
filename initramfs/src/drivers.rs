//! Loading kernel modules: each once, after what it needs, from any number of threads.
//!
//! Takes the module table that the image builder made; knows nothing of devices. A module that is not in the table is
//! taken for built in. Parameters on the kernel's command line (`usb-storage.delay_use=0`) are passed on, and
//! `modprobe.blacklist=` is obeyed, as modprobe(8) does.

use crate::seldom;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sino_boot::layout;
use sino_boot::modules::{Module, ModuleTable, normalize};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Parameters that the kernel's command line can change. The kernel makes eight loop devices in advance, which take as long as one
/// driver to be made and looked at; without a number each is made when it is asked for. Source: kernel `drivers/block/loop.c`.
const PARAMETERS: [(&str, &str); 1] = [("loop", "max_loop=0")];
/// `MODULE_INIT_COMPRESSED_FILE` of `include/uapi/linux/module.h`: the kernel unpacks the file itself.
const COMPRESSED: i32 = 4;
/// How long a thread waits for another one that is loading the same module. The slowest storage controllers take
/// some 30 s to start; after this time the waiting thread goes on without the module.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
enum State {
    Loading,
    Loaded,
    Failed(String),
}

/// Loads modules. Shared by all threads.
#[derive(Debug)]
pub struct Loader {
    table: ModuleTable,
    parameters: BTreeMap<String, String>,
    states: Mutex<BTreeMap<String, State>>,
    changed: Condvar,
    stopped: AtomicBool,
    paused: AtomicBool,
    /// Whether the archive of drivers that few machines need could be mounted, once it was tried.
    seldom: OnceLock<Result<(), String>>,
}

/// What one thread is about.
#[derive(Debug, Default)]
struct Attempt {
    /// The modules that it is loading, which soft dependencies may lead back to.
    above: Vec<String>,
    /// Whether it is given up while the loader is paused.
    for_a_device: bool,
}

/// Why a module was not loaded.
enum Refusal {
    /// It cannot be loaded.
    Failed(String),
    /// Nobody needs it any more; if somebody does, it is loaded then.
    GivenUp,
}

impl Loader {
    /// A loader for the modules of `table`, with the parameters of this kernel command line.
    #[must_use]
    pub fn new(table: ModuleTable, command_line: &str) -> Self {
        let (parameters, refused) = parameters(command_line);
        let states = refused
            .into_iter()
            .filter(|name| table.modules.contains_key(name))
            .map(|name| (name, State::Failed("refused by modprobe.blacklist=".to_owned())))
            .collect();
        Self {
            table,
            parameters,
            states: Mutex::new(states),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            seldom: OnceLock::new(),
        }
    }

    /// Loads what a device with this alias asks for, except what the caller loads later; `false` if something of it was given up
    /// because of [`Self::pause`], so that it is to be tried again.
    pub fn load_for_alias(&self, modalias: &str, later: Option<&str>) -> bool {
        let mut whole = true;
        for name in self.table.for_alias(modalias).into_iter().filter(|name| Some(*name) != later) {
            let mut attempt = Attempt { for_a_device: true, ..Attempt::default() };
            // A failure is kept, logged, and reported with the others by `failures`.
            whole &= !matches!(self.load_below(name, &mut attempt), Err(Refusal::GivenUp));
        }
        whole
    }

    /// Loads a module by name, after what it needs.
    ///
    /// # Errors
    /// Why it is not loaded. The error is remembered: it comes again without a second attempt.
    pub fn load(&self, name: &str) -> Result<(), String> {
        match self.load_below(&normalize(name), &mut Attempt::default()) {
            Ok(()) => Ok(()),
            Err(Refusal::Failed(why)) => Err(why),
            // Only what is loaded for a device is given up.
            Err(Refusal::GivenUp) => Err("it was given up".to_owned()),
        }
    }

    /// While paused, what is not begun for a device is given up. What is asked for by name is still loaded.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    /// Ends the work: what is not begun is not loaded any more, and failures are not reported.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// How many modules this loader has loaded.
    pub fn loaded(&self) -> usize {
        self.states().values().filter(|state| matches!(state, State::Loaded)).count()
    }

    /// The modules that would not load, with the reason.
    pub fn failures(&self) -> Vec<String> {
        let states = self.states();
        let failures = states.iter().filter_map(|(name, state)| match state {
            State::Failed(why) => Some(format!("driver {name} would not load: {why}")),
            State::Loading | State::Loaded => None,
        });
        failures.collect()
    }

    fn load_below(&self, name: &str, attempt: &mut Attempt) -> Result<(), Refusal> {
        let Some((name, module)) = self.table.modules.get_key_value(name) else {
            return Ok(());
        };
        if attempt.above.contains(name) {
            return Ok(());
        }
        if let Some(result) = self.claim(name) {
            return result.map_err(Refusal::Failed);
        }
        attempt.above.push(name.clone());
        let result = self.load_claimed(name, module, attempt);
        attempt.above.pop();
        match &result {
            Ok(()) => drop(self.states().insert(name.clone(), State::Loaded)),
            Err(Refusal::GivenUp) => drop(self.states().remove(name)),
            Err(Refusal::Failed(why)) => {
                // After the end of stage one the modules' files are gone, and udev loads what is missing.
                if !self.stopped.load(Ordering::Acquire) {
                    log::warn!("driver {name} would not load: {why}");
                }
                self.states().insert(name.clone(), State::Failed(why.clone()));
            }
        }
        self.changed.notify_all();
        for after in &module.after {
            let _ = self.load_below(after, attempt);
        }
        result
    }

    /// Marks a module as being loaded by this thread, or returns how another thread's attempt ended.
    fn claim(&self, name: &str) -> Option<Result<(), String>> {
        let deadline = Instant::now() + PATIENCE;
        let mut states = self.states();
        loop {
            match states.get(name) {
                None => {
                    states.insert(name.to_owned(), State::Loading);
                    return None;
                }
                Some(State::Loaded) => return Some(Ok(())),
                Some(State::Failed(why)) => return Some(Err(why.clone())),
                Some(State::Loading) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Some(Err(format!("still not started after {} s", PATIENCE.as_secs())));
                    }
                    states = self.changed.wait_timeout(states, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn load_claimed(&self, name: &str, module: &Module, attempt: &mut Attempt) -> Result<(), Refusal> {
        for need in &module.needs {
            self.load_below(need, attempt).map_err(|refusal| match refusal {
                Refusal::Failed(why) => Refusal::Failed(format!("it needs {need}: {why}")),
                Refusal::GivenUp => Refusal::GivenUp,
            })?;
        }
        for before in &module.before {
            let _ = self.load_below(before, attempt);
        }
        if self.stopped.load(Ordering::Acquire) {
            return Err(Refusal::Failed("stage one is over".to_owned()));
        }
        if attempt.for_a_device && self.paused.load(Ordering::Acquire) {
            return Err(Refusal::GivenUp);
        }
        self.insert(name, module).map_err(Refusal::Failed)
    }

    fn insert(&self, name: &str, module: &Module) -> Result<(), String> {
        let path = format!("{}/{}", layout::MODULES, module.file);
        let own = PARAMETERS.iter().find(|(module, _)| *module == name).map_or("", |(_, own)| *own);
        let given = self.parameters.get(name).map_or("", String::as_str);
        // The last one counts.
        let parameters = format!("{own} {given}").trim().to_owned();
        let parameters = CString::new(parameters).map_err(|_| "a parameter holds a NUL byte".to_owned())?;
        let flags = if module.file.ends_with(".ko.xz") { COMPRESSED } else { 0 };
        let file = self.open(&path)?;
        match rustix::system::finit_module(&file, &parameters, flags) {
            Ok(()) => {
                log::debug!("driver {name} loaded");
                Ok(())
            }
            // Loaded or built in already.
            Err(Errno::EXIST) => Ok(()),
            // The module looked for its hardware and found none: not a failure, but not loaded either.
            Err(Errno::NODEV) => {
                log::debug!("driver {name} found no hardware");
                Ok(())
            }
            Err(error) => Err(format!("{error}")),
        }
    }

    /// Opens a module's file, and mounts the archive for the first that is in there.
    fn open(&self, path: &str) -> Result<OwnedFd, String> {
        let open = || rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut file = open();
        if matches!(file, Err(Errno::NOENT)) && path.starts_with(layout::SELDOM_MODULES) {
            for name in seldom::NEEDS {
                self.load(name).map_err(|why| format!("its archive needs {name}: {why}"))?;
            }
            self.seldom.get_or_init(|| seldom::mount().map_err(|error| format!("{error:#}"))).clone()?;
            file = open();
        }
        file.map_err(|error| match error {
            Errno::NOENT if path.starts_with(layout::CARRIER_MODULES) => {
                format!("only {} of the ISO has it", layout::ISO_FILE_INITRAMFS)
            }
            error => format!("opening {path}: {error}"),
        })
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        // A thread that panicked while it held the lock leaves a map that is still whole.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The modules' parameters on a kernel command line by module, and the names that `modprobe.blacklist=` refuses.
fn parameters(command_line: &str) -> (BTreeMap<String, String>, Vec<String>) {
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    let mut refused = Vec::new();
    for word in command_line.split_whitespace().take_while(|word| *word != "--") {
        let name = word.split('=').next().unwrap_or_default();
        let Some((module, parameter)) = name.split_once('.') else { continue };
        let value = word.get(name.len()..).unwrap_or_default();
        if module == "modprobe" && parameter == "blacklist" {
            refused.extend(value.trim_start_matches('=').split(',').filter(|name| !name.is_empty()).map(normalize));
        } else if !matches!(module, "" | "sino" | "systemd") {
            let entry = parameters.entry(normalize(module)).or_default();
            if !entry.is_empty() {
                entry.push(' ');
            }
            entry.push_str(parameter);
            entry.push_str(value);
        }
    }
    (parameters, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_modprobe_does() {
        let (parameters, refused) = parameters(
            "usb-storage.delay_use=0 ro usb_storage.quirks=a:b:u libata.force=x=y modprobe.blacklist=uas,sr-mod sino.ram -- a.b=c",
        );
        assert_eq!(parameters.get("usb_storage").map(String::as_str), Some("delay_use=0 quirks=a:b:u"));
        assert_eq!(parameters.get("libata").map(String::as_str), Some("force=x=y"));
        assert_eq!(parameters.len(), 2);
        assert_eq!(refused, ["uas", "sr_mod"]);
    }

    fn loader(modules: &[(&str, Module)], line: &str) -> Loader {
        let modules = modules.iter().map(|(name, module)| ((*name).to_owned(), module.clone())).collect();
        Loader::new(
            ModuleTable { kernel_release: "x".into(), modules, aliases: sino_boot::modules::Aliases::default() },
            line,
        )
    }

    #[test]
    fn what_is_for_a_device_can_be_given_up_and_tried_again() {
        let module = |file: &str| Module { file: file.into(), ..Module::default() };
        let mut loader = loader(&[("a", module("no-such-file.ko"))], "");
        loader.table.aliases.push("pci:*", "a");
        loader.pause(true);
        assert!(!loader.load_for_alias("pci:x", None));
        assert!(loader.failures().is_empty());
        assert!(loader.load("a").is_err(), "what a step asks for is tried");
        loader.pause(false);
        assert!(loader.load_for_alias("pci:x", None));
    }

    #[test]
    fn what_is_not_in_the_table_is_built_in() {
        assert_eq!(loader(&[], "").load("loop"), Ok(()));
    }

    #[test]
    fn a_failure_names_the_module_below_and_is_remembered() {
        let below = Module { file: "no-such-file.ko".into(), ..Module::default() };
        let above = Module { file: "above.ko".into(), needs: vec!["below".into()], ..Module::default() };
        let loader = loader(&[("above", above), ("below", below)], "");
        let why = loader.load("above").unwrap_err();
        assert!(why.contains("it needs below") && why.contains("no-such-file.ko"), "{why}");
        assert_eq!(loader.load("above"), Err(why));
        assert_eq!(loader.failures().len(), 2);
    }

    #[test]
    fn a_circle_of_soft_dependencies_ends() {
        let one = Module { file: "none.ko".into(), before: vec!["two".into()], ..Module::default() };
        let two = Module { file: "none.ko".into(), before: vec!["one".into()], ..Module::default() };
        assert!(loader(&[("one", one), ("two", two)], "").load("one").is_err());
    }

    #[test]
    fn a_refused_module_is_not_loaded() {
        let module = Module { file: "none.ko".into(), ..Module::default() };
        let why = loader(&[("uas", module)], "modprobe.blacklist=uas").load("uas").unwrap_err();
        assert!(why.contains("blacklist"), "{why}");
    }
}
