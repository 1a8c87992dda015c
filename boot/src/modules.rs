//! The table of kernel modules that the image builder hands to stage one: which there are, what each needs, and
//! which device aliases ask for it.
//!
//! A text of lines. The first is `sino-modules 1 KERNEL-RELEASE`, the last is `end N` with the number of lines
//! between them, so that a truncated table is noticed. Between them:
//! `module NAME FILE DEPS PRE POST` (the lists comma-separated, `-` when empty) and `alias PATTERN MODULE`.
//! Names have `_`, never `-`. Sources: depmod's modules.dep(5), modules.alias, modules.softdep.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// File name below [`crate::layout::MODULES`].
    pub file: String,
    /// Modules that must be loaded before it; loading fails without them.
    pub needs: Vec<String>,
    /// Modules to load before it if they can be (softdep pre).
    pub before: Vec<String>,
    /// Modules to load after it if they can be (softdep post).
    pub after: Vec<String>,
}

/// The whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleTable {
    /// `uname -r` of the kernel that the modules belong to.
    pub kernel_release: String,
    /// The modules by name.
    pub modules: BTreeMap<String, Module>,
    /// Which device asks for which.
    pub aliases: Aliases,
}

/// Alias patterns (shell wildcards) with the module that each asks for, in depmod's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    all: Vec<(String, String)>,
    /// Positions in `all` by how the patterns begin: a device need not be compared with those of other vendors.
    by_beginning: BTreeMap<String, Vec<usize>>,
}

/// A pattern's beginning up to here tells its vendor: `pci:v00008086d`.
const BEGINNING: usize = 14;

impl Aliases {
    /// Adds a pattern and the module that it asks for.
    pub fn push(&mut self, pattern: &str, module: &str) {
        let literal = pattern.find(['*', '?', '[']).unwrap_or(pattern.len()).min(BEGINNING);
        // Not in the middle of a letter of several bytes, which no bus has.
        let beginning = pattern.get(..literal).unwrap_or_default();
        let place = self.all.len();
        if let Some(places) = self.by_beginning.get_mut(beginning) {
            places.push(place);
        } else {
            self.by_beginning.insert(beginning.to_owned(), vec![place]);
        }
        self.all.push((pattern.to_owned(), module.to_owned()));
    }

    /// All of them: pattern and module.
    pub fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.all.iter()
    }

    /// The modules that a device's `modalias` asks for, in order, with repetition.
    fn of<'a>(&'a self, modalias: &str) -> impl Iterator<Item = &'a str> {
        let beginnings = (0..=BEGINNING).filter_map(|length| self.by_beginning.get(modalias.get(..length)?));
        let mut places: Vec<usize> = beginnings.flatten().copied().collect();
        places.sort_unstable();
        let near = places.into_iter().filter_map(|place| self.all.get(place));
        near.filter(|(pattern, _)| matches(pattern, modalias)).map(|(_, module)| module.as_str())
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Aliases {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut aliases = Self::default();
        pairs.into_iter().for_each(|(pattern, module)| aliases.push(pattern, module));
        aliases
    }
}

/// A module's name as the kernel writes it: with `_` where file names may have `-`.
#[must_use]
pub fn normalize(name: &str) -> String {
    name.replace('-', "_")
}

impl ModuleTable {
    /// The table as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("sino-modules 1 {}\n", self.kernel_release);
        for (name, module) in &self.modules {
            let list = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(",") };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "module {name} {} {} {} {}",
                module.file,
                list(&module.needs),
                list(&module.before),
                list(&module.after)
            );
        }
        for (pattern, module) in self.aliases.iter() {
            let _ = writeln!(text, "alias {pattern} {module}");
        }
        let _ = writeln!(text, "end {}", self.modules.len() + self.aliases.all.len());
        text
    }

    /// Reads a table.
    ///
    /// # Errors
    /// A line that is not of the format (with its number), a wrong count, or a needed module that is not in the table.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let kernel_release = lines
            .next()
            .and_then(|(_, line)| line.strip_prefix("sino-modules 1 "))
            .context("the module table's first line is not \"sino-modules 1 KERNEL-RELEASE\"")?;
        let mut table = Self { kernel_release: kernel_release.to_owned(), ..Self::default() };
        let mut end = None;
        for (number, line) in lines {
            ensure!(end.is_none(), "module table line {number}: text after the end line");
            // Most lines are these.
            if let Some((pattern, module)) = line.strip_prefix("alias ").and_then(|rest| rest.split_once(' '))
                && !module.contains(' ')
            {
                table.aliases.push(pattern, module);
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["module", name, file, needs, before, after] => {
                    let module = Module {
                        file: (*file).to_owned(),
                        needs: list(needs),
                        before: list(before),
                        after: list(after),
                    };
                    table.modules.insert((*name).to_owned(), module);
                }
                ["end", count] => end = Some((*count).to_owned()),
                _ => bail!("module table line {number}: not a module, alias or end line: {line:?}"),
            }
        }
        let count = (table.modules.len() + table.aliases.all.len()).to_string();
        ensure!(
            end.as_deref() == Some(count.as_str()),
            "the module table is cut short: {count} entries, end line {end:?}"
        );
        for (name, module) in &table.modules {
            if let Some(missing) = module.needs.iter().find(|need| !table.modules.contains_key(*need)) {
                bail!("module {name} needs {missing}, which is not in the table");
            }
        }
        Ok(table)
    }

    /// The modules that a device's `modalias` asks for, in the table's order, without repetition.
    #[must_use]
    pub fn for_alias<'a>(&'a self, modalias: &str) -> Vec<&'a str> {
        let mut found: Vec<&str> = Vec::new();
        for module in self.aliases.of(modalias) {
            if !found.contains(&module) {
                found.push(module);
            }
        }
        found
    }
}

fn list(word: &str) -> Vec<String> {
    if word == "-" { Vec::new() } else { word.split(',').map(str::to_owned).collect() }
}

/// Whether `text` matches the shell wildcard `pattern` (`*`, `?`, `[...]` with ranges), as fnmatch(3) without flags
/// does for the patterns that kernel modules carry. Linear in memory, never recursive.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                star = Some((p + 1, t));
                Some((p + 1, t))
            }
            (Some(b'?'), Some(_)) => Some((p + 1, t + 1)),
            (Some(b'['), Some(&byte)) => set(pattern, p, byte).map(|next| (next, t + 1)),
            (Some(wanted), Some(byte)) if wanted == byte => Some((p + 1, t + 1)),
            _ => None,
        };
        (p, t) = match (step, star) {
            (Some(next), _) => next,
            // Let the last star take one more byte, if there is one.
            (None, Some((after, taken))) if taken < text.len() => {
                star = Some((after, taken + 1));
                (after, taken + 1)
            }
            (None, _) => return false,
        };
    }
}

/// Matches `byte` against the set that begins at `pattern[at]`; returns the index after the set.
fn set(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    let length = pattern.get(at + 1..)?.iter().position(|&b| b == b']')?;
    let members = pattern.get(at + 1..at + 1 + length)?;
    let mut found = false;
    let mut index = 0;
    while let Some(&first) = members.get(index) {
        if let (Some(b'-'), Some(&last)) = (members.get(index + 1), members.get(index + 2)) {
            found |= (first..=last).contains(&byte);
            index += 3;
        } else {
            found |= first == byte;
            index += 1;
        }
    }
    found.then_some(at + length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> ModuleTable {
        let usb = Module {
            file: "usb-storage.ko".into(),
            needs: vec!["usbcore".into()],
            before: Vec::new(),
            after: vec!["uas".into()],
        };
        let core = Module { file: "usbcore.ko".into(), ..Module::default() };
        ModuleTable {
            kernel_release: "6.12.1-amd64".into(),
            modules: [("usb_storage".to_owned(), usb), ("usbcore".to_owned(), core)].into(),
            aliases: [("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "usb_storage")].into_iter().collect(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(ModuleTable::parse(&sample().to_text()).unwrap(), sample());
    }

    #[test]
    fn damage_is_noticed_and_named() {
        let text = sample().to_text();
        let cut = text.split_inclusive('\n').take(2).collect::<String>();
        assert!(ModuleTable::parse(&cut).unwrap_err().to_string().contains("cut short"));
        assert!(
            ModuleTable::parse(&text.replace("alias usb", "alias x usb")).unwrap_err().to_string().contains("line 4")
        );
        assert!(
            ModuleTable::parse(&text.replace("module usbcore", "module other"))
                .unwrap_err()
                .to_string()
                .contains("needs usbcore")
        );
        assert!(ModuleTable::parse("").is_err());
    }

    #[test]
    fn aliases_find_modules() {
        let found = sample();
        assert_eq!(found.for_alias("usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00"), ["usb_storage"]);
        assert!(found.for_alias("usb:v0781p5581d0100dc00dsc00dp00ic03isc06ip50in00").is_empty());
    }

    #[test]
    fn all_patterns_that_match_are_found_in_their_order_however_they_begin() {
        let patterns = [
            ("pci:v*d*sv*sd*bc01sc06i01*", "by_class"),
            ("pci:v00008086d00002922sv*sd*bc*sc*i*", "by_device"),
            ("pci:v00008086d00002829sv*sd*bc*sc*i*", "other"),
            ("*", "all"),
            ("pci:v0000808[67]d*", "by_set"),
            ("pci:v00008086d00002922sv*sd*bc01*", "by_class"),
            ("pci:", "short"),
        ];
        let table = ModuleTable { aliases: patterns.into_iter().collect(), ..ModuleTable::default() };
        let found = table.for_alias("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01");
        assert_eq!(found, ["by_class", "by_device", "all", "by_set"]);
        assert_eq!(table.for_alias("pci:"), ["all", "short"]);
        assert_eq!(table.for_alias(""), ["all"]);
        assert_eq!(table.for_alias("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}"), ["all"]);
    }

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXbYY", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("of:N*T*Cvendor,[a-c]x", "of:NfooTbarCvendor,bx", true),
            ("[0-9a]z", "5z", true),
            ("[0-9a]z", "bz", false),
            ("[ab", "a", false),
            ("pci:v00008086d*", "pci:v00008086d00001234sv", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_text_matches_itself_and_a_star(text in "[a-z0-9:]{0,20}") {
            prop_assert!(matches(&text, &text));
            prop_assert!(matches("*", &text));
            let longer = text.clone() + "!";
            prop_assert!(!matches(&longer, &text));
        }

        #[test]
        fn nothing_makes_it_panic(pattern in "[-*?\\[\\]a-c]{0,12}", text in "[-a-c\\]]{0,12}", table in "\\PC{0,200}") {
            let _ = matches(&pattern, &text);
            let _ = ModuleTable::parse(&format!("sino-modules 1 x\n{table}"));
        }
    }
}
