//! What keeps LVM to SINO's group: `activation/auto_activation_volume_list` in `/etc/lvm/lvmlocal.conf`.
//!
//! udev's rule 69-lvm.rules executes `vgchange -aay --autoactivation event GROUP` for each group that is complete, and
//! `-aay` activates only what this list names; see lvm.conf(5). So a group of another system, or of a guest's disk, stays
//! off. `vgchange -ay` by hand is not bound by the list.

use super::{Host, Problem};
use anyhow::{Context, Result};
use std::fs;

const PATH: &str = "/etc/lvm/lvmlocal.conf";
const SETTING: &str = "auto_activation_volume_list";
const MARK: &str = "# Written by SINO at each boot, unless this line is changed.";

/// Writes the configuration for `group`. A file that an administrator wrote stays; Debian's, which holds nothing but
/// comments, does not. To be called before udev sees the disks.
///
/// # Errors
/// The file cannot be read or written.
pub fn keep_to(host: Host<'_>, group: &str) -> Result<Option<Problem>> {
    let path = host.path(PATH);
    let doing = || format!("writing {}", path.display());
    let old = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let new = format!(
        "{MARK}\n# Only this group is activated by itself: vgchange -ay GROUP activates another one.\n\
         activation {{\n\t{SETTING} = [ \"{group}\" ]\n}}\n"
    );
    if old == new {
        return Ok(None);
    }
    if !old.starts_with(MARK) && says_something(&old) {
        return Ok(not_bound(&old, group));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(doing)?;
    }
    let fresh = path.with_extension("conf.new");
    fs::write(&fresh, new).with_context(doing)?;
    fs::rename(&fresh, &path).with_context(doing)?;
    Ok(None)
}

/// The lines that set something: no comment, not empty, not the beginning or end of a section.
fn settings(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| line.contains('='))
}

fn says_something(text: &str) -> bool {
    settings(text).next().is_some()
}

/// What is to be said of an administrator's own file.
fn not_bound(text: &str, group: &str) -> Option<Problem> {
    let bound = settings(text).any(|line| line.contains(SETTING));
    (!bound).then(|| {
        Problem::new(
            format!("{PATH} is an administrator's own and does not say which groups are activated by themselves"),
            format!("add to its section \"activation\": {SETTING} = [ \"{group}\" ]"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fake::{Fake, file, root};

    #[test]
    fn debians_empty_file_is_replaced_and_an_administrators_stays() {
        let (root, fake) = (root(), Fake::default());
        let host = Host::new(&fake, root.path().to_str().unwrap());
        let text = || fs::read_to_string(root.path().join("etc/lvm/lvmlocal.conf")).unwrap();
        file(root.path(), "etc/lvm/lvmlocal.conf", "# This is a local configuration.\n# x = 1\nlocal {\n}\n");
        assert_eq!(keep_to(host, "xvg").unwrap(), None);
        assert!(text().contains("auto_activation_volume_list = [ \"xvg\" ]"), "{}", text());
        assert_eq!(keep_to(host, "data").unwrap(), None);
        assert!(text().contains("[ \"data\" ]"), "{}", text());
        let own = "local {\n\tsystem_id = \"one\" # mine\n}\n";
        file(root.path(), "etc/lvm/lvmlocal.conf", own);
        let problem = keep_to(host, "xvg").unwrap().unwrap();
        assert!(problem.todo.contains("auto_activation_volume_list = [ \"xvg\" ]"), "{problem}");
        assert_eq!(text(), own);
        file(root.path(), "etc/lvm/lvmlocal.conf", "activation { auto_activation_volume_list = [ \"a\" ] }\n");
        assert_eq!(keep_to(host, "xvg").unwrap(), None);
        assert!(text().contains("\"a\""));
    }
}
