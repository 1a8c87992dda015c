//! What is generated from the program itself: manual pages, completions, and the example configuration.

use crate::command::Arguments;
use crate::config;
use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;
use std::fs;
use std::path::Path;

/// Writes them below `root`, which is to become a root file system.
///
/// # Errors
/// A file cannot be written.
pub fn write(root: &Path) -> Result<()> {
    let command = Arguments::command();
    let pages = root.join("usr/share/man/man8");
    fs::create_dir_all(&pages).with_context(|| format!("making {}", pages.display()))?;
    clap_mangen::generate_to(command.clone(), &pages).context("writing the manual pages")?;
    // A manual's section is in its name: administrators' commands are in the eighth.
    for entry in fs::read_dir(&pages)? {
        let path = entry?.path();
        if path.extension().is_some_and(|section| section == "1") {
            let text = fs::read_to_string(&path)?.replacen(" 1 ", " 8 ", 1);
            fs::write(path.with_extension("8"), text)?;
            fs::remove_file(&path)?;
        }
    }
    for (shell, folder, name) in [
        (Shell::Bash, "usr/share/bash-completion/completions", "sino"),
        (Shell::Zsh, "usr/share/zsh/vendor-completions", "_sino"),
        (Shell::Fish, "usr/share/fish/vendor_completions.d", "sino.fish"),
    ] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), "sino", &mut text);
        fs::write(folder.join(name), text).with_context(|| format!("writing {}/{name}", folder.display()))?;
    }
    let folder = root.join("etc/sino");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    fs::write(folder.join("sino.toml"), config::example()).context("writing the example configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_page_and_bash_its_completion() {
        let root = tempfile::tempdir().unwrap();
        write(root.path()).unwrap();
        for page in ["sino.8", "sino-network-apply.8", "sino-disk-prepare.8"] {
            let text = fs::read_to_string(root.path().join("usr/share/man/man8").join(page)).unwrap();
            assert!(text.contains(" 8 "), "{page}: {text}");
        }
        let completion = root.path().join("usr/share/bash-completion/completions/sino");
        assert!(fs::read_to_string(completion).unwrap().contains("timeline"));
        assert!(fs::read_to_string(root.path().join("etc/sino/sino.toml")).unwrap().contains("# "));
    }
}
