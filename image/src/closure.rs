//! From the wanted modules to the whole set: what each needs, what its soft dependencies name, and which device
//! aliases lead to it. Pure: takes the texts that depmod wrote, returns stage one's table and each module's file.
//!
//! Sources: modules.dep(5), modules.softdep and modules.alias as depmod(8) writes them, modules.builtin.

use crate::module_set::ASKS_FOR;
use anyhow::{Context, Result, ensure};
use sino_boot::modules::{Module, ModuleTable, matches, normalize};
use std::collections::{BTreeMap, BTreeSet};

/// The texts of `/usr/lib/modules/RELEASE`.
#[derive(Clone, Debug, Default)]
pub struct DepmodTexts {
    /// `modules.dep`.
    pub dep: String,
    /// `modules.alias`.
    pub alias: String,
    /// `modules.softdep`.
    pub softdep: String,
    /// `modules.builtin`.
    pub builtin: String,
}

/// The chosen modules.
#[derive(Clone, Debug)]
pub struct Closure {
    /// What stage one reads.
    pub table: ModuleTable,
    /// Each module's file below the release's folder.
    pub sources: BTreeMap<String, String>,
}

/// Soft dependencies of one module, names as written.
#[derive(Default)]
struct Soft {
    before: Vec<String>,
    after: Vec<String>,
}

struct Depmod<'a> {
    /// Module name -> its path and the names that it needs.
    modules: BTreeMap<String, (&'a str, Vec<String>)>,
    builtin: BTreeSet<String>,
    aliases: Vec<(&'a str, String)>,
    soft: BTreeMap<String, Soft>,
}

/// The closure of all modules whose path is wanted. Those at hand, and what they need, have their files directly in the folder; what
/// nobody but those for carriers need in the folder `carrier` of it; the others in `seldom`.
///
/// # Errors
/// A line that depmod does not write, a needed module that is nowhere, or nothing at hand to open the archive of the others with.
pub fn resolve(
    release: &str,
    texts: &DepmodTexts,
    is_wanted: impl Fn(&str) -> bool,
    is_at_hand: impl Fn(&str) -> bool,
    is_for_carriers: impl Fn(&str) -> bool,
) -> Result<Closure> {
    let depmod = Depmod::parse(texts)?;
    let chosen = |rule: &dyn Fn(&str) -> bool| -> Vec<String> {
        depmod.modules.iter().filter(|(_, (path, _))| rule(path)).map(|(name, _)| name.clone()).collect()
    };
    let (mut table, sources) = depmod.below(release, chosen(&is_wanted))?;
    let (at_hand, _) = depmod.below(release, chosen(&is_at_hand))?;
    let (everywhere, _) = depmod.below(release, chosen(&|path| is_wanted(path) && !is_for_carriers(path)))?;
    for (name, module) in table.modules.iter_mut().filter(|(name, _)| !at_hand.modules.contains_key(*name)) {
        ensure!(!OPENS_THE_ARCHIVE.contains(&name.as_str()), "module {name} is in the archive that is opened with it");
        let folder = if everywhere.modules.contains_key(name) { SELDOM } else { CARRIER };
        module.file = format!("{folder}{}", module.file);
    }
    Ok(Closure { table, sources })
}

/// The folder of the modules that are in the archive, as it stands in the table.
pub const SELDOM: &str = "seldom/";
/// The folder of the modules that only the initramfs for ISO files has, as it stands in the table.
pub const CARRIER: &str = "carrier/";
/// What stage one opens the archive with.
const OPENS_THE_ARCHIVE: [&str; 2] = ["loop", "squashfs"];

impl<'a> Depmod<'a> {
    /// The modules of these names with all that they need.
    fn below(&self, release: &str, mut open: Vec<String>) -> Result<(ModuleTable, BTreeMap<String, String>)> {
        let mut table = ModuleTable { kernel_release: release.to_owned(), ..ModuleTable::default() };
        let mut sources = BTreeMap::new();
        while let Some(name) = open.pop() {
            if table.modules.contains_key(&name) {
                continue;
            }
            let (path, needs) =
                self.modules.get(&name).with_context(|| format!("module {name} is not in modules.dep"))?;
            let module = self.module(&name, needs);
            open.extend(module.needs.iter().chain(&module.before).chain(&module.after).cloned());
            sources.insert(name.clone(), (*path).to_owned());
            table.modules.insert(name, module);
        }
        let of_table = self.aliases.iter().filter(|(_, module)| table.modules.contains_key(module));
        table.aliases = of_table.map(|(pattern, module)| (*pattern, module.as_str())).collect();
        Ok((table, sources))
    }

    fn parse(texts: &'a DepmodTexts) -> Result<Self> {
        let mut modules = BTreeMap::new();
        for line in texts.dep.lines().filter(|line| !line.is_empty()) {
            let (path, needs) = line.split_once(':').with_context(|| format!("modules.dep: {line:?} has no colon"))?;
            // depmod lists the nearest first; loading begins with the last.
            let needs = needs.split_whitespace().rev().map(name_of).collect();
            modules.insert(name_of(path), (path, needs));
        }
        ensure!(!modules.is_empty(), "modules.dep is empty");
        let aliases = texts.alias.lines().filter_map(alias_line).collect();
        let builtin = texts.builtin.lines().map(name_of).collect();
        let mut soft: BTreeMap<String, Soft> = BTreeMap::new();
        for (module, entry) in texts.softdep.lines().filter_map(softdep_line) {
            let all = soft.entry(module).or_default();
            all.before.extend(entry.before);
            all.after.extend(entry.after);
        }
        for (module, names) in ASKS_FOR {
            let all = soft.entry((*module).to_owned()).or_default();
            all.before.extend(names.iter().map(|name| (*name).to_owned()));
        }
        Ok(Self { modules, builtin, aliases, soft })
    }

    fn module(&self, name: &str, needs: &[String]) -> Module {
        let needs = needs.iter().filter(|need| !self.builtin.contains(*need)).cloned().collect();
        let soft = self.soft.get(name);
        let list = |names: Option<&Vec<String>>| self.named(names.map(Vec::as_slice).unwrap_or_default(), name);
        Module {
            file: format!("{name}.ko"),
            needs,
            before: list(soft.map(|soft| &soft.before)),
            after: list(soft.map(|soft| &soft.after)),
        }
    }

    /// The modules that soft names stand for: a module's own name, or an alias of one or several.
    fn named(&self, names: &[String], asking: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for name in names {
            let own = normalize(name);
            let by_alias = || {
                let hits = self.aliases.iter().filter(|(pattern, _)| matches(pattern, name));
                hits.map(|(_, module)| module.clone()).collect()
            };
            let modules: Vec<String> = if self.modules.contains_key(&own) {
                vec![own]
            } else if self.builtin.contains(&own) {
                Vec::new()
            } else {
                by_alias()
            };
            let new = modules.into_iter().filter(|module| module != asking && self.modules.contains_key(module));
            for module in new {
                if !found.contains(&module) {
                    found.push(module);
                }
            }
        }
        found
    }
}

/// The module's name of a path: `kernel/fs/nls/nls_iso8859-1.ko.xz` is `nls_iso8859_1`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normalize(file.split(".ko").next().unwrap_or(file))
}

fn alias_line(line: &str) -> Option<(&str, String)> {
    let (pattern, module) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
    // A pattern with a space cannot stand in stage one's table; no bus makes one.
    (!pattern.contains(' ')).then(|| (pattern, normalize(module)))
}

/// `softdep NAME pre: A B post: C`.
fn softdep_line(line: &str) -> Option<(String, Soft)> {
    let mut words = line.strip_prefix("softdep ")?.split_whitespace();
    let module = normalize(words.next()?);
    let mut soft = Soft::default();
    let mut post = false;
    for word in words {
        match word {
            "pre:" => post = false,
            "post:" => post = true,
            name if post => soft.after.push(name.to_owned()),
            name => soft.before.push(name.to_owned()),
        }
    }
    Some((module, soft))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> DepmodTexts {
        DepmodTexts {
            dep: "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz\n\
                  kernel/fs/jbd2/jbd2.ko.xz:\nkernel/fs/mbcache.ko.xz:\n\
                  kernel/crypto/crc32c_generic.ko.xz:\nkernel/arch/x86/crypto/crc32c-intel.ko.xz:\n\
                  kernel/drivers/usb/storage/usb-storage.ko.xz: kernel/drivers/usb/core/usbcore.ko.xz kernel/x/base.ko.xz\n\
                  kernel/drivers/usb/core/usbcore.ko.xz: kernel/x/base.ko.xz\n\
                  kernel/x/base.ko.xz:\nkernel/drivers/usb/storage/uas.ko.xz:\nkernel/net/unwanted.ko.xz:\n"
                .into(),
            alias: "# Aliases\nalias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\n\
                    alias fs-ext4 ext4\nalias pci:v1* unwanted\nalias usb:x* usb-storage\n"
                .into(),
            softdep: "# Soft\nsoftdep ext4 pre: crypto-crc32c missing\nsoftdep usb_storage post: uas\n".into(),
            builtin: "kernel/drivers/scsi/scsi_mod.ko\n".into(),
        }
    }

    fn closure() -> Closure {
        let wanted = |path: &str| path.contains("ext4") || path.contains("usb-storage");
        resolve("6.12", &texts(), wanted, |path| path.contains("usb-storage"), |_| false).unwrap()
    }

    #[test]
    fn the_closure_has_needs_in_load_order_and_soft_dependencies() {
        let table = closure().table;
        let names: Vec<&str> = table.modules.keys().map(String::as_str).collect();
        let expected =
            ["base", "crc32c_generic", "crc32c_intel", "ext4", "jbd2", "mbcache", "uas", "usb_storage", "usbcore"];
        assert_eq!(names, expected);
        assert_eq!(table.modules["usb_storage"].needs, ["base", "usbcore"]);
        assert_eq!(table.modules["usb_storage"].after, ["uas"]);
        assert_eq!(table.modules["ext4"].before, ["crc32c_intel", "crc32c_generic"]);
        assert_eq!(closure().sources["crc32c_intel"], "kernel/arch/x86/crypto/crc32c-intel.ko.xz");
    }

    #[test]
    fn what_is_at_hand_has_its_needs_beside_it_and_the_rest_is_in_the_archive() {
        let table = closure().table;
        let file = |name: &str| table.modules[name].file.as_str();
        assert_eq!(
            ["usb_storage", "usbcore", "base", "uas"].map(file),
            ["usb_storage.ko", "usbcore.ko", "base.ko", "uas.ko"]
        );
        assert_eq!(["ext4", "jbd2"].map(file), ["seldom/ext4.ko", "seldom/jbd2.ko"]);
        let mut texts = texts();
        texts.dep.push_str("kernel/drivers/block/loop.ko:\n");
        let error =
            resolve("6.12", &texts, |path| path.contains("loop"), |_| false, |_| false).unwrap_err().to_string();
        assert!(error.contains("loop"), "{error}");
    }

    #[test]
    fn what_only_carriers_need_is_apart() {
        let wanted = |path: &str| path.contains("ext4") || path.contains("usb-storage");
        let table = resolve("6.12", &texts(), wanted, |_| false, |path| path.contains("ext4")).unwrap().table;
        let file = |name: &str| table.modules[name].file.as_str();
        assert_eq!(["ext4", "jbd2"].map(file), ["carrier/ext4.ko", "carrier/jbd2.ko"]);
        assert_eq!(file("usbcore"), "seldom/usbcore.ko");
        // Somebody else needs it, too.
        let table = resolve("6.12", &texts(), |_| true, |_| false, |path| path.contains("ext4")).unwrap().table;
        assert_eq!(table.modules["ext4"].file, "carrier/ext4.ko");
        assert_eq!(table.modules["jbd2"].file, "seldom/jbd2.ko");
    }

    #[test]
    fn only_aliases_of_chosen_modules_are_kept() {
        let aliases = closure().table.aliases;
        assert!(aliases.iter().any(|alias| *alias == ("usb:x*".into(), "usb_storage".into())));
        assert!(aliases.iter().all(|(_, module)| module != "unwanted"));
    }

    #[test]
    fn the_table_is_one_that_stage_one_reads() {
        let table = closure().table;
        assert_eq!(ModuleTable::parse(&table.to_text()).unwrap(), table);
    }

    #[test]
    fn a_missing_module_is_named() {
        let mut texts = texts();
        texts.dep = texts.dep.replace("kernel/fs/mbcache.ko.xz:\n", "");
        let error = resolve("6.12", &texts, |path| path.contains("ext4"), |_| true, |_| false).unwrap_err().to_string();
        assert!(error.contains("mbcache"), "{error}");
        assert!(resolve("6.12", &DepmodTexts::default(), |_| true, |_| true, |_| false).is_err());
    }

    #[test]
    fn what_is_built_in_is_not_needed() {
        let mut texts = texts();
        texts.builtin.push_str("kernel/fs/mbcache.ko\n");
        let table = resolve("6.12", &texts, |path| path.contains("ext4"), |_| true, |_| false).unwrap().table;
        assert_eq!(table.modules["ext4"].needs, ["jbd2"]);
    }
}
