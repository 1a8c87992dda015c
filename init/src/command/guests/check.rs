//! `sino guests check`: what is wrong with the guests' files, by our own reading, by what they need of the host, and by xl's word.

use crate::config::origins::clean;
use crate::config::schema::Config;
use crate::config::{Problem, Severity};
use crate::guests::budget::Candidate;
use crate::guests::graph::{self, Node, graph};
use crate::guests::needs;
use crate::guests::settings::{self, Found};
use crate::guests::survey::{Survey, Wanted};
use crate::guests::xl::{Failure, Kind, Xl};
use crate::guests::xl_config::discover::discover;
use crate::guests::xl_config::{GuestConfig, LARGEST, read, too_large};
use crate::storage::Host;
use crate::storage::lvm::Group;
use crate::storage::state::StorageState;
use crate::supervisor::{guests_lane, storage_lane};
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long xl may take for one file. It reads it and asks nobody, once xenstored has answered.
const WITHIN: Duration = Duration::from_secs(30);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Each file, by its path.
    pub files: Vec<CheckedFile>,
    /// What is not about a single file.
    pub others: Vec<Note>,
    /// Why xl was not asked; `None`: it was.
    pub xl_not_asked: Option<String>,
}

/// A file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckedFile {
    /// Its path, for people.
    pub file: String,
    /// Its guest, if the file has a name.
    pub guest: Option<String>,
    /// What there is to say of it.
    pub notes: Vec<Note>,
    /// What xl is to read.
    #[serde(skip)]
    path: Option<PathBuf>,
}

/// Something to say. It has no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Whether it is a mistake; otherwise it is only odd.
    pub wrong: bool,
    /// What it is.
    pub text: String,
}

impl Note {
    fn new(wrong: bool, text: impl Into<String>) -> Self {
        Self { wrong, text: text.into() }
    }

    fn of(problem: &Problem) -> Self {
        let place = match problem.line {
            0 => String::new(),
            line => format!("line {line}, column {}: ", problem.column),
        };
        let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
        Self::new(problem.severity == Severity::Error, format!("{place}{key}{}", problem.text))
    }
}

impl CheckedFile {
    /// Whether there is a mistake.
    #[must_use]
    pub fn wrong(&self) -> bool {
        self.notes.iter().any(|note| note.wrong)
    }
}

impl Checked {
    /// Whether there is a mistake anywhere.
    #[must_use]
    pub fn wrong(&self) -> bool {
        self.files.iter().any(CheckedFile::wrong) || self.others.iter().any(|note| note.wrong)
    }

    /// Has xl read the files.
    pub fn ask(&mut self, xl: Result<Xl>, within: Duration) {
        // Without Xen, or without xenstored, xl says so of each file, or nothing at all.
        let works = xl.and_then(|xl| {
            xl.list(Instant::now() + within)?;
            Ok(xl)
        });
        let xl = match works {
            Ok(xl) => xl,
            Err(error) => {
                self.xl_not_asked = Some(clean(&format!("{error:#}"), 700));
                return;
            }
        };
        let mut asked: Vec<&mut CheckedFile> = self.files.iter_mut().filter(|file| file.path.is_some()).collect();
        let paths: Vec<PathBuf> = asked.iter().filter_map(|file| file.path.clone()).collect();
        for (file, result) in asked.iter_mut().zip(xl.dry_runs(&paths, within)) {
            if let Err(failure) = result {
                let said = said(&failure).into_iter().map(|line| Note::new(true, format!("xl: {}", clean(&line, 400))));
                file.notes.extend(said);
            }
        }
    }
}

/// What xl says of a file; the file is named already.
fn said(failure: &Failure) -> Vec<String> {
    match failure.kind {
        Kind::Deadline => {
            vec![format!("no answer after {:.0} s; does xenstored run? sino status", failure.took.as_secs_f64())]
        }
        Kind::Status(_) if !failure.said.is_empty() => failure.said.clone(),
        _ => vec![failure.to_string()],
    }
}

/// Does it, for all guests or for these files.
///
/// # Errors
/// It cannot be written as JSON.
pub fn run(files: &[PathBuf], json: bool) -> Result<ExitCode> {
    let loaded = storage_lane::load(true);
    let seen = guests_lane::look(&loaded.config, &Wanted::default());
    let mut checked = if files.is_empty() {
        all(Path::new("/"), &loaded.config, &loaded.problems, &seen.survey)
    } else {
        let running: BTreeSet<String> = seen.domains.into_iter().map(|domain| domain.name).collect();
        let group = StorageState::load(Host::this()).unwrap_or_default().group;
        let groups: Vec<Group> = Some(group).filter(|group| group.uuid.is_some()).into_iter().collect();
        given(Path::new("/"), files, &groups, &running, &seen.survey.configs, &seen.disks)
    };
    checked.ask(Xl::find(), WITHIN);
    if json {
        println!("{}", serde_json::to_string_pretty(&checked).context("writing JSON")?);
    } else {
        print!("{}", text(&checked));
    }
    Ok(if checked.wrong() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Checks all guests' files, and what `sino.toml` says of guests.
#[must_use]
pub fn all(root: &Path, config: &Config, of_toml: &[Problem], survey: &Survey) -> Checked {
    let tables = config.guest.iter();
    let named: Vec<(String, PathBuf)> =
        tables.filter_map(|(name, guest)| Some((name.clone(), guest.config.clone()?.into()))).collect();
    let found = discover(root, &named);
    let mut files: BTreeMap<String, CheckedFile> = BTreeMap::new();
    let mut told: BTreeSet<String> = BTreeSet::new();
    for guest in &found.guests {
        let file = entry(&mut files, &guest.path);
        file.guest = Some(clean(&guest.name, 64));
        file.path = Some(guest.path.clone());
        file.notes.extend(guest.problems.iter().map(Note::of));
        told.extend(guest.problems.iter().map(ToString::to_string));
    }
    for problem in &found.problems {
        let path = Path::new(&problem.file);
        let file = entry(&mut files, path);
        file.notes.push(Note::of(problem));
        // xl has the last word on what could not be read; a folder, or what is left out by its name, is none of its business.
        if problem.severity == Severity::Error && path.is_file() {
            file.path = Some(path.to_owned());
        }
        told.insert(problem.to_string());
    }
    let mut others: Vec<Note> = Vec::new();
    for spec in &survey.specs {
        let Some(why) = &spec.refused else { continue };
        let path = survey.files.get(&spec.name).cloned().unwrap_or_default();
        let file = entry(&mut files, &path);
        // That its file cannot be used follows from what is said of the file.
        if survey.configs.contains_key(&spec.name) || !file.wrong() {
            file.notes.push(Note::new(true, clean(why, 700)));
        }
    }
    others.extend(of_toml.iter().filter(|problem| problem.is_of_guests()).map(|problem| {
        let wrong = problem.severity == Severity::Error;
        Note::new(wrong, problem.to_string())
    }));
    let named = found.guests.iter().filter(|guest| !guest.is_misnamed());
    let known: Vec<Found> = named.map(|guest| Found { name: guest.name.clone(), config: guest.path.clone() }).collect();
    let listed = settings::list(&known, config).problems;
    let nodes: Vec<Node> = survey.specs.iter().map(node).collect();
    let of_order = graph(&nodes).problems;
    told.extend(of_order.iter().map(ToString::to_string));
    others.extend(survey.problems.iter().filter(|text| !told.contains(*text)).map(|text| {
        let wrong = listed.contains(text);
        Note::new(wrong, clean(text, 700))
    }));
    others.extend(of_order.iter().map(|problem| {
        let odd = matches!(problem, graph::Problem::NotAutomatic { .. });
        Note::new(!odd, problem.to_string())
    }));
    Checked { files: files.into_values().collect(), others, xl_not_asked: None }
}

fn node(spec: &crate::guests::engine::Spec) -> Node {
    let guest = &spec.guest;
    Node { name: spec.name.clone(), after: guest.after.clone(), order: guest.order, autostart: guest.autostart }
}

fn entry<'a>(files: &'a mut BTreeMap<String, CheckedFile>, path: &Path) -> &'a mut CheckedFile {
    let file = clean(&path.to_string_lossy(), 300);
    files.entry(file.clone()).or_insert_with(|| CheckedFile { file, ..CheckedFile::default() })
}

/// Checks these files, whether they are of guests that SINO starts or not. `others` are the guests' files that there are: of
/// those that run, the disks are taken; `disks` is what the xenstore says of them.
#[must_use]
pub fn given(
    root: &Path,
    files: &[PathBuf],
    groups: &[Group],
    running: &BTreeSet<String>,
    others: &BTreeMap<String, GuestConfig>,
    disks: &[needs::Use],
) -> Checked {
    let mut checked = Vec::new();
    let mut configs: BTreeMap<String, (usize, GuestConfig)> = BTreeMap::new();
    for path in files {
        let mut file = CheckedFile { file: clean(&path.to_string_lossy(), 300), ..CheckedFile::default() };
        match bytes(path) {
            Err(error) => file.notes.push(Note::new(true, clean(&format!("{error:#}"), 300))),
            Ok(bytes) => {
                file.path = std::path::absolute(path).ok();
                let reading = read(&bytes, &file.file);
                file.notes.extend(reading.problems.iter().map(Note::of));
                let name = reading.config.name.as_ref().map(|name| name.value.clone()).unwrap_or_default();
                if name.is_empty() {
                    if !file.wrong() {
                        file.notes.push(Note::new(true, "there is no name in it, and xl refuses it"));
                    }
                } else {
                    file.guest = Some(clean(&name, 64));
                    if running.contains(&name) {
                        file.notes.push(Note::new(false, "its guest runs: what it needs is not looked for"));
                    }
                    let twice = format!("another of these files has the name {name:?}, too");
                    match configs.entry(name) {
                        Entry::Occupied(_) => file.notes.push(Note::new(true, twice)),
                        Entry::Vacant(place) => {
                            place.insert((checked.len(), reading.config));
                        }
                    }
                }
            }
        }
        checked.push(file);
    }
    let beside = others.iter().filter(|(name, _)| running.contains(*name) && !configs.contains_key(*name));
    let beside = beside.map(|(name, config)| Candidate { name, config, running: true });
    let own = configs.iter().map(|(name, (_, config))| Candidate { name, config, running: running.contains(name) });
    let candidates: Vec<Candidate<'_>> = beside.chain(own).collect();
    let there = needs::Host { files: &needs::Root(root.to_owned()), groups };
    for problem in needs::check(there, &candidates, disks) {
        let file = configs.iter().find(|(name, _)| **name == problem.guest).map(|(_, (file, _))| *file);
        if let Some(file) = file.and_then(|file| checked.get_mut(file)) {
            let line = if problem.line > 0 { format!("line {}: ", problem.line) } else { String::new() };
            file.notes.push(Note::new(problem.refuse, format!("{line}{}; try: {}", problem.what, problem.remedy)));
        }
    }
    Checked { files: checked, others: Vec::new(), xl_not_asked: None }
}

/// A file's bytes, one more than may be read if it is larger.
fn bytes(path: &Path) -> Result<Vec<u8>> {
    let about = std::fs::metadata(path).context("cannot be looked at")?;
    // A FIFO would be waited for.
    anyhow::ensure!(about.is_file(), "is no file");
    if let Some(why) = too_large(about.len()) {
        anyhow::bail!(why);
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(LARGEST).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).context("cannot be read")?;
    Ok(bytes)
}

/// What was found, for people.
#[must_use]
pub fn text(checked: &Checked) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for file in &checked.files {
        let guest = file.guest.as_ref().map(|guest| format!(" ({guest})")).unwrap_or_default();
        let verdict = if file.wrong() { "wrong" } else { "ok" };
        let _ = writeln!(text, "{}{guest}: {verdict}", file.file);
        for note in file.notes.iter().filter(|note| note.wrong) {
            let _ = writeln!(text, "  {}", note.text);
        }
        for note in file.notes.iter().filter(|note| !note.wrong) {
            let _ = writeln!(text, "  note: {}", note.text);
        }
    }
    for note in &checked.others {
        let _ = writeln!(text, "{}{}", if note.wrong { "" } else { "note: " }, note.text);
    }
    if let Some(why) = &checked.xl_not_asked {
        let _ = writeln!(text, "xl was not asked: {why}");
    }
    let wrong = checked.files.iter().filter(|file| file.wrong()).count();
    let _ = match checked.files.len() {
        0 => writeln!(text, "no guests' files: they belong into /srv/autostart, or into sino.toml"),
        1 => writeln!(text, "1 file, {}", if wrong == 0 { "nothing wrong with it" } else { "and it is wrong" }),
        all => writeln!(text, "{all} files, {}", if wrong == 0 { "none".into() } else { wrong.to_string() } + " wrong"),
    };
    text
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
