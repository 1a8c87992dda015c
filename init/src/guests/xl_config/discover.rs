//! Finds the guests' files: those of `/srv/autostart` and `/etc/xen/auto`, and those that `sino.toml` names.
//!
//! Looks and reads, nothing else. A file that is not a guest is left out and told.

use super::{GuestConfig, LARGEST, read, too_large};
use crate::config::origins::clean;
use crate::config::{Problem, Severity};
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// SINO's own folder of guests, and whether only `*.cfg` counts there.
const FOLDERS: [(&str, bool); 2] = [("/srv/autostart", true), ("/etc/xen/auto", false)];
/// Files of a folder that are read; a folder of more is somebody's mistake.
const MOST: usize = 4096;

/// A guest that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name, as its file says.
    pub name: String,
    /// Its file as it was found, without the root; a link is not followed.
    pub path: PathBuf,
    /// What the file says.
    pub config: GuestConfig,
    /// What is wrong with the file.
    pub problems: Vec<Problem>,
    /// The tables `[guest.NAME]` of `sino.toml` that name the file.
    pub sections: Vec<String>,
}

impl Guest {
    /// Whether tables of other names only name the file: it is not known then which name was meant.
    #[must_use]
    pub fn is_misnamed(&self) -> bool {
        !self.sections.is_empty() && !self.sections.contains(&self.name)
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The guests: as given, then by folder and name of file. No two have one name, but for those that are misnamed.
    pub guests: Vec<Guest>,
    /// Files and folders of which there is no guest, and why.
    pub problems: Vec<Problem>,
}

/// Finds the guests. `root` is the root of the host's files, `given` the sections of `sino.toml` that name a file. Of two files
/// with one name the one that `sino.toml` names for it counts, else the first.
#[must_use]
pub fn discover(root: &Path, given: &[(String, PathBuf)]) -> Found {
    let mut search = Search { root, found: Found::default(), names: HashMap::new(), files: HashMap::new() };
    for (section, path) in given {
        search.file(path, Some(section));
    }
    for (folder, cfg_only) in FOLDERS {
        for path in search.folder(Path::new(folder), cfg_only) {
            search.file(&path, None);
        }
    }
    search.found
}

struct Search<'a> {
    root: &'a Path,
    found: Found,
    /// Places in `found` by name and by what file it is (device and inode).
    names: HashMap<String, usize>,
    files: HashMap<(u64, u64), usize>,
}

impl Search<'_> {
    /// The files of a folder, sorted; those that are no guests by their names are left out.
    fn folder(&mut self, folder: &Path, cfg_only: bool) -> Vec<PathBuf> {
        let entries = match fs::read_dir(self.on_host(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if let Ok(target) = fs::read_link(self.on_host(folder)) {
                    self.problem(folder, &format!("is a link to {}, which does not exist", target.display()));
                }
                return Vec::new();
            }
            Err(error) => {
                self.problem(folder, &format!("the folder cannot be read: {error}; none of its guests starts"));
                return Vec::new();
            }
        };
        let mut paths = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => paths.push(folder.join(entry.file_name())),
                Err(error) => {
                    self.problem(folder, &format!("the folder cannot be read to its end: {error}"));
                    break;
                }
            }
        }
        paths.sort();
        paths.retain(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with('.') || name.ends_with('~') || name.contains(".dpkg-") {
                return false;
            }
            if cfg_only && path.extension().is_none_or(|ending| ending != "cfg") {
                let text = "is left out, as its name does not end in .cfg";
                self.found.problems.push(problem(Severity::Warning, path, text));
                return false;
            }
            true
        });
        if paths.len() > MOST {
            let text = format!("has {} files; the first {MOST} are read", paths.len());
            self.problem(folder, &text);
            paths.truncate(MOST);
        }
        paths
    }

    fn file(&mut self, path: &Path, section: Option<&String>) {
        let (bytes, identity) = match self.read(path) {
            Ok(read) => read,
            Err(why) => return self.problem(path, &why),
        };
        // A file that is linked from two places is one guest.
        if let Some(known) = self.files.get(&identity).and_then(|place| self.found.guests.get_mut(*place)) {
            if let Some(section) = section {
                name_section(known, section);
            }
            return;
        }
        let reading = read(&bytes, &path.to_string_lossy());
        let name = reading.config.name.as_ref().map(|name| name.value.clone()).unwrap_or_default();
        if name.is_empty() {
            let empty = bytes.iter().all(u8::is_ascii_whitespace);
            let problems = reading.problems;
            if empty {
                self.problem(path, "is empty: there is no name in it, and xl refuses it");
            } else {
                self.found.problems.extend(problems);
            }
            return;
        }
        let misnamed = section.is_some_and(|section| *section != name);
        let first = self.names.get(&name).filter(|_| !misnamed);
        if let Some(first) = first.and_then(|place| self.found.guests.get(*place)) {
            let by = if first.sections.is_empty() { "" } else { ", the file in sino.toml" };
            let text = format!(
                "has the guest name {name:?}, as has {}{by}; this file is left out; try: another name in it",
                first.path.display()
            );
            return self.problem(path, &text);
        }
        let place = self.found.guests.len();
        if !misnamed {
            self.names.insert(name.clone(), place);
        }
        self.files.insert(identity, place);
        let (config, problems) = (reading.config, reading.problems);
        let mut guest = Guest { name, path: path.to_owned(), config, problems, sections: Vec::new() };
        if let Some(section) = section {
            name_section(&mut guest, section);
        }
        self.found.guests.push(guest);
    }

    /// The file's bytes, one more than may be read if it is larger, and what file it is.
    fn read(&self, path: &Path) -> Result<(Vec<u8>, (u64, u64)), String> {
        let on_host = self.on_host(path);
        // Not to wait for a FIFO's other end.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::open(&on_host, flags, Mode::empty()).map_err(|error| {
            match (std::io::Error::from(error), fs::read_link(&on_host)) {
                (error, Ok(target)) if error.kind() == ErrorKind::NotFound => {
                    format!("is a link to {}, which does not exist; the guest does not start", target.display())
                }
                (error, _) => format!("cannot be opened: {error}; the guest does not start"),
            }
        })?;
        let stat = rustix::fs::fstat(&file).map_err(|error| format!("cannot be looked at: {error}"))?;
        match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile => {}
            rustix::fs::FileType::Directory => return Err("is a folder; guests' files are not looked for in it".into()),
            _ => return Err("is no file".into()),
        }
        if let Some(why) = u64::try_from(stat.st_size).ok().and_then(too_large) {
            return Err(why);
        }
        let mut bytes = Vec::new();
        let limit = u64::try_from(LARGEST).unwrap_or(u64::MAX).saturating_add(1);
        File::from(file).take(limit).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
        Ok((bytes, (stat.st_dev, stat.st_ino)))
    }

    fn on_host(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn problem(&mut self, path: &Path, text: &str) {
        self.found.problems.push(problem(Severity::Error, path, text));
    }
}

/// Notes that a section of `sino.toml` names the guest's file.
fn name_section(guest: &mut Guest, section: &str) {
    if section != guest.name {
        let text = format!(
            "is the file of [guest.{section}] in sino.toml, but the guest's name in it is {:?}; try: the same name in both",
            guest.name
        );
        guest.problems.push(problem(Severity::Error, &guest.path, &text));
    }
    guest.sections.push(section.to_owned());
}

fn problem(severity: Severity, path: &Path, text: &str) -> Problem {
    let file = clean(&path.to_string_lossy(), 300);
    Problem { severity, file, line: 0, column: 0, key: String::new(), text: clean(text, 500) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const GUEST: &str = "kernel = '/boot/k'\nmemory = 64\n";

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names(found: &Found) -> Vec<&str> {
        found.guests.iter().map(|guest| guest.name.as_str()).collect()
    }

    fn told(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn guests_are_found_in_order_and_each_once() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        put(root, "/srv/guests/web.cfg", &format!("name = 'web'\n{GUEST}"));
        put(root, "/srv/autostart/20-db.cfg", &format!("name = 'db'\n{GUEST}"));
        symlink("../guests/web.cfg", root.join("srv/autostart/30-web.cfg")).unwrap();
        put(root, "/etc/xen/auto/mail", &format!("name = 'mail'\n{GUEST}"));
        symlink("../../../srv/guests/web.cfg", root.join("etc/xen/auto/web")).unwrap();
        put(root, "/etc/xen/x.cfg", &format!("name = 'x'\n{GUEST}"));
        let given = [("x".to_owned(), "/etc/xen/x.cfg".into()), ("web".to_owned(), "/srv/guests/web.cfg".into())];
        let found = discover(root, &given);
        assert_eq!(told(&found.problems), [""; 0]);
        assert_eq!(names(&found), ["x", "web", "db", "mail"]);
        assert_eq!(found.guests[1].path, Path::new("/srv/guests/web.cfg"));
        let sections: Vec<_> = found.guests.iter().map(|guest| guest.sections.join(" ")).collect();
        assert_eq!(sections, ["x", "web", "", ""]);
        assert!(found.guests.iter().all(|guest| guest.problems.is_empty()), "{found:?}");
    }

    #[test]
    fn what_is_no_guest_is_left_out_and_told() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for silent in ["/srv/autostart/.web.cfg", "/srv/autostart/web.cfg~", "/srv/autostart/web.cfg.dpkg-old"] {
            put(root, silent, "");
        }
        put(root, "/srv/autostart/README", "");
        put(root, "/srv/autostart/a.cfg", &format!("name = 'a'\n{GUEST}"));
        put(root, "/srv/autostart/b.cfg", &format!("name = 'a'\n{GUEST}"));
        put(root, "/srv/autostart/c.cfg/x", "");
        put(root, "/srv/autostart/d.cfg", " \n");
        put(root, "/srv/autostart/e.cfg", "memory = 64\nkernel = 'k'\n");
        put(root, "/srv/autostart/f.cfg", "\0ELF");
        symlink("../nowhere/g", root.join("srv/autostart/g.cfg")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("srv/autostart/h.cfg"),
            rustix::fs::FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        File::create(root.join("srv/autostart/i.cfg")).unwrap().set_len(10 << 20).unwrap();
        put(root, "/etc/xen/auto", "");
        let given = [("z".to_owned(), "/etc/xen/z.cfg".into())];
        let found = discover(root, &given);
        assert_eq!(names(&found), ["a"]);
        let expected = [
            "/srv/autostart/README: warning: is left out, as its name does not end in .cfg",
            "/srv/autostart/b.cfg: has the guest name \"a\", as has /srv/autostart/a.cfg; this file is left out",
            "/srv/autostart/c.cfg: is a folder",
            "/srv/autostart/d.cfg: is empty: there is no name in it, and xl refuses it",
            "/srv/autostart/e.cfg: name: is not given; xl refuses a guest without a name",
            "/srv/autostart/f.cfg:1:1: is binary",
            "/srv/autostart/g.cfg: is a link to ../nowhere/g, which does not exist",
            "/srv/autostart/h.cfg: is no file",
            "/srv/autostart/i.cfg: is too large for a guest's file (10240 KiB; at most 1024 KiB are read)",
            "/etc/xen/auto: the folder cannot be read: ",
            "/etc/xen/z.cfg: cannot be opened: ",
        ];
        let told = told(&found.problems);
        for expected in expected {
            assert!(told.iter().any(|told| told.starts_with(expected)), "{expected}: {told:#?}");
        }
        for one in ["/srv/autostart/f.cfg", "/srv/autostart/i.cfg"] {
            assert_eq!(told.iter().filter(|told| told.starts_with(one)).count(), 1, "only the cause: {told:#?}");
        }
    }

    #[test]
    fn a_section_of_another_name_is_told() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "/srv/web.cfg", &format!("name = 'web1'\n{GUEST}"));
        let found = discover(root.path(), &[("web".to_owned(), "/srv/web.cfg".into())]);
        assert_eq!(names(&found), ["web1"]);
        let told = told(&found.guests[0].problems);
        assert!(told[0].contains("[guest.web]") && told[0].contains("\"web1\""), "{told:?}");
    }

    #[test]
    fn the_file_that_a_table_names_comes_before_another_of_that_name() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        put(root, "/srv/a.cfg", &format!("name = 'a'\n{GUEST}"));
        put(root, "/srv/autostart/a.cfg", &format!("name = 'a'\n{GUEST}"));
        put(root, "/srv/autostart/b.cfg", &format!("name = 'b'\n{GUEST}"));
        put(root, "/srv/x.cfg", &format!("name = 'b'\n{GUEST}"));
        let given = |tables: &[(&str, &str)]| {
            tables.iter().map(|(name, path)| ((*name).to_owned(), path.into())).collect::<Vec<(String, PathBuf)>>()
        };
        let found = discover(root, &given(&[("a", "/srv/a.cfg"), ("x", "/srv/x.cfg")]));
        let paths: Vec<_> =
            found.guests.iter().map(|guest| (guest.path.to_str().unwrap(), guest.is_misnamed())).collect();
        assert_eq!(paths, [("/srv/a.cfg", false), ("/srv/x.cfg", true), ("/srv/autostart/b.cfg", false)]);
        let left = "/srv/autostart/a.cfg: has the guest name \"a\", as has /srv/a.cfg, the file in sino.toml; this file is left out";
        assert!(found.problems.len() == 1 && told(&found.problems)[0].starts_with(left), "{:?}", told(&found.problems));
        // One that only tables name that are called otherwise claims no name; one of the right name makes it right.
        for tables in [[("a1", "/srv/a.cfg"), ("a", "/srv/a.cfg")], [("a", "/srv/a.cfg"), ("z", "/srv/a.cfg")]] {
            let found = discover(root, &given(&tables));
            assert!(!found.guests[0].is_misnamed() && found.guests[0].problems.len() == 1, "{found:?}");
        }
    }

    #[test]
    fn a_host_without_guests_has_nothing_to_tell() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(discover(root.path(), &[]), Found::default());
        fs::create_dir_all(root.path().join("srv")).unwrap();
        symlink("gone", root.path().join("srv/autostart")).unwrap();
        let found = discover(root.path(), &[]);
        assert_eq!(told(&found.problems), ["/srv/autostart: is a link to gone, which does not exist"]);
    }
}
