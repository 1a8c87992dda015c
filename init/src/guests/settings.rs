//! What `sino.toml` says of the guests, and which guests there are.
//!
//! [`Guests`] and [`Guest`] are the tables `[guests]` and `[guest.NAME]`; [`list`] joins them with the guests that were found
//! in the folders that need no further configuration. Nothing is opened here.

use super::ready::Ready;
use crate::config::origins::clean;
use crate::config::schema::Config;
use serde::{Deserialize, Serialize};
use sino_boot::options::distance;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Characters of a name that are compared when the nearest one is looked for; a guest's name is seldom longer.
const COMPARED: usize = 64;

/// What holds for all guests: the table `[guests]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guests {
    /// How many guests are created at the same time; as many, and 64 at least, are shut down at the same time. Not given: as
    /// dom0 has CPUs.
    pub parallel: Option<u32>,
    /// How long stopping all guests may take, in seconds.
    pub stop_deadline: u32,
    /// How much of the CPUs domain 0 gets when all want them, beside guests that have 256 each (`cpu_weight` in their files). 0: as Xen
    /// has it, which is 256, too.
    pub dom0_weight: u32,
}

/// What is wanted of one guest: the table `[guest.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guest {
    /// Its xl configuration file. Not given: the one that was found under its name.
    pub config: Option<String>,
    /// The guests that must be ready before it starts.
    pub after: Vec<String>,
    /// Guests of a lower number are started first, where nothing else decides.
    pub order: i32,
    /// Seconds to wait before it starts, once nothing else is in its way.
    pub delay: u32,
    /// When it is ready.
    pub ready: Ready,
    /// Seconds after which it is reported as not ready in time.
    pub ready_timeout: u32,
    /// How often a failed `xl create` is tried again.
    pub retries: u32,
    /// What becomes of the guests after it when it fails.
    pub on_failure: OnFailure,
    /// Seconds that it has for shutting down.
    pub stop_timeout: u32,
    /// What follows when it did not shut down in time.
    pub stop: StopAs,
    /// Whether it starts with the host.
    pub autostart: bool,
    /// When it is started again.
    pub restart: Restart,
    /// How often within an hour.
    pub restarts_per_hour: u32,
}

/// What becomes of the guests after one that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// They start.
    #[default]
    Continue,
    /// They are held until it is ready.
    HoldDependents,
}

/// What follows when a guest that was asked to shut down is still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopAs {
    /// Stopped alone, it is left running; when all are stopped it is destroyed.
    #[default]
    Shutdown,
    /// Its memory is saved, and it is resumed at its next start.
    Save,
    /// It is destroyed.
    Destroy,
}

/// When a guest is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Also when it powered itself off.
    Always,
    /// When it crashed.
    #[default]
    OnCrash,
    /// Never.
    No,
}

impl Default for Guests {
    fn default() -> Self {
        Self { parallel: None, stop_deadline: 180, dom0_weight: 1024 }
    }
}

impl Guests {
    /// How many guests are created at the same time on a dom0 with `cpus` CPUs.
    #[must_use]
    pub fn parallel(&self, cpus: usize) -> usize {
        let given = self.parallel.and_then(|parallel| usize::try_from(parallel).ok());
        given.unwrap_or(cpus).max(1)
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            config: None,
            after: Vec::new(),
            order: 0,
            delay: 0,
            ready: Ready::default(),
            ready_timeout: 120,
            retries: 2,
            on_failure: OnFailure::default(),
            stop_timeout: 120,
            stop: StopAs::default(),
            autostart: true,
            restart: Restart::default(),
            restarts_per_hour: 3,
        }
    }
}

/// A guest that was found in a folder for guests that start with the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name that its file gives it.
    pub name: String,
    /// The file, with links followed.
    pub config: PathBuf,
}

/// The guests that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Each guest that has a file, by name; `config` is always given.
    pub guests: BTreeMap<String, Guest>,
    /// What is wrong, for people; without control characters.
    pub problems: Vec<String>,
}

/// Joins the guests that were found with the tables of `sino.toml`. Of two found files that give the same name the first
/// holds; the file that `sino.toml` names holds before both.
#[must_use]
pub fn list(found: &[Found], config: &Config) -> Listed {
    let mut listed = Listed::default();
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for Found { name, config } in found {
        let file = config.display().to_string();
        match files.get(name.as_str()) {
            Some(first) if *first != file => listed.problems.push(format!(
                "{}: the name {} is that of {} already; this file is not used, give its guest another name",
                clean(&file, 300),
                clean(name, 100),
                clean(first, 300)
            )),
            Some(_) => {}
            None => {
                files.insert(name, file);
            }
        }
    }
    for (name, guest) in &config.guest {
        match (guest.config.clone(), files.remove(name.as_str())) {
            (Some(_), _) => {
                listed.guests.insert(name.clone(), guest.clone());
            }
            (None, Some(file)) => {
                listed.guests.insert(name.clone(), Guest { config: Some(file), ..guest.clone() });
            }
            (None, None) => {
                let tables = config.guest.keys().filter(|other| *other != name);
                let others = found.iter().map(|found| &found.name).chain(tables).map(String::as_str);
                let meant = nearest(name, others).map(|meant| format!("; did you mean {}?", clean(meant, 100)));
                listed.problems.push(format!(
                    "guest.{}: no file of this guest was found, and `config` does not name one; it has no effect{}",
                    clean(name, 100),
                    meant.unwrap_or_default()
                ));
            }
        }
    }
    for (name, file) in files {
        listed.guests.insert(name.to_owned(), Guest { config: Some(file), ..Guest::default() });
    }
    listed
}

/// The name that was probably meant: one that differs in a third of its letters at most.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let short = |name: &str| name.chars().take(COMPARED).collect::<String>().to_lowercase();
    let wanted = short(name);
    let (far, found) = known.into_iter().map(|known| (distance(&wanted, &short(known)), known)).min()?;
    (far * 3 <= wanted.len() + 3).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, config: &str) -> Found {
        Found { name: name.into(), config: config.into() }
    }

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_limit_follows_the_cpus_unless_it_is_given() {
        let given = |parallel| Guests { parallel, ..Guests::default() };
        assert_eq!([0, 1, 2, 8].map(|cpus| given(None).parallel(cpus)), [1, 1, 2, 8]);
        assert_eq!((given(Some(1)).parallel(8), given(Some(0)).parallel(8)), (1, 1));
    }

    #[test]
    fn a_found_guest_needs_no_table_and_a_table_adds_to_it() {
        let files = [found("db", "/srv/autostart/db.cfg"), found("web", "/etc/xen/auto/web.cfg")];
        let listed = list(&files, &config("[guest.web]\nafter = ['db']\n[guest.mail]\nconfig = '/srv/mail.cfg'\n"));
        assert_eq!(listed.problems, Vec::<String>::new());
        assert_eq!(listed.guests.keys().collect::<Vec<_>>(), ["db", "mail", "web"]);
        let file = |name: &str| listed.guests[name].config.as_deref();
        assert_eq!(file("web"), Some("/etc/xen/auto/web.cfg"));
        assert_eq!((file("db"), file("mail")), (Some("/srv/autostart/db.cfg"), Some("/srv/mail.cfg")));
        assert_eq!(listed.guests["web"].after, ["db"]);
        assert!(listed.guests["mail"].autostart);
    }

    #[test]
    fn a_name_that_two_files_give_is_told_and_the_same_file_twice_is_not() {
        let files = [found("a", "/1"), found("a", "/2"), found("a", "/1")];
        let listed = list(&files, &Config::default());
        assert_eq!(listed.guests["a"].config.as_deref(), Some("/1"));
        assert!(listed.problems.len() == 1 && listed.problems[0].starts_with("/2: the name a is that of /1"));
        let listed = list(&files, &config("[guest.a]\nconfig = '/3'\n"));
        assert_eq!(listed.guests["a"].config.as_deref(), Some("/3"));
    }

    #[test]
    fn a_table_without_a_file_is_told_with_the_nearest_name() {
        let listed = list(&[found("database", "/d")], &config("[guest.databsae]\norder = 1\n[guest.\"x\\u001b\"]\n"));
        assert_eq!(listed.guests.len(), 1);
        assert!(listed.problems[0].ends_with("it has no effect; did you mean database?"), "{:?}", listed.problems);
        assert!(listed.problems[1].starts_with("guest.x?: no file"), "{:?}", listed.problems);
        assert!(!listed.problems[1].contains("did you mean"));
    }
}
