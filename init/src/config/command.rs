//! `sino config`: what holds and why, and whether a file is right.

use super::layers::{Extra, Layers, Loaded, Merged, read_file};
use super::origins::{Layer, Severity};
use super::show;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `sino config` does.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ConfigAction {
    /// Shows the configuration that holds: every key, and the layer, file and line (or flag) that its value came from.
    Show {
        /// Print JSON: the configuration, the origins and the problems.
        #[arg(long)]
        json: bool,
    },
    /// Looks for mistakes in a file, or in all layers; the exit code is 1 when something wanted does not hold.
    Check {
        /// The file, for example before it is copied to the stick. Not given: all layers of this host.
        file: Option<PathBuf>,
    },
}

/// Does it on this host and prints the answer. `root`, `command_line` and `extra` are those of [`Layers::load`]; the layer
/// of `/srv` is read if it is there.
///
/// # Errors
/// The file to check is not there, or the answer cannot be printed.
pub fn run(action: &ConfigAction, root: &Path, command_line: &str, extra: Vec<Extra>) -> Result<ExitCode> {
    let (text, good) = answer(action, root, command_line, extra)?;
    std::io::stdout().write_all(text.as_bytes()).context("printing the answer")?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The answer, and whether it is a good one.
fn answer(action: &ConfigAction, root: &Path, command_line: &str, extra: Vec<Extra>) -> Result<(String, bool)> {
    let all = |extra| Layers::load(root, command_line, true, extra);
    match action {
        ConfigAction::Show { json: false } => Ok((show::text(&all(extra)), true)),
        ConfigAction::Show { json: true } => {
            let text = serde_json::to_string_pretty(&show::json(&all(extra))).context("writing JSON")?;
            Ok((text + "\n", true))
        }
        ConfigAction::Check { file: None } => Ok(verdict(&all(extra))),
        ConfigAction::Check { file: Some(path) } => {
            let mut merged = Merged::default();
            match read_file(path, Layer::Stick) {
                Some(reading) => merged.add(reading),
                None => {
                    bail!("{} is not there; give the path of a sino.toml, or none to check all layers", path.display())
                }
            }
            Ok(verdict(&merged.finish()))
        }
    }
}

fn verdict(loaded: &Loaded) -> (String, bool) {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for problem in &loaded.problems {
        let _ = writeln!(text, "{problem}");
    }
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    let errors = loaded.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let keys = count(loaded.origins.len(), "key");
    let _ = match (errors, loaded.problems.len() - errors) {
        (0, 0) => writeln!(text, "{keys}, no problems"),
        (0, warnings) => writeln!(text, "{keys}, {}", count(warnings, "warning")),
        (errors, warnings) => writeln!(text, "{keys}, {}, {}", count(errors, "error"), count(warnings, "warning")),
    };
    (text, errors == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (String, bool) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sino.toml");
        std::fs::write(&file, text).unwrap();
        let action = ConfigAction::Check { file: Some(file) };
        let (text, good) = answer(&action, folder.path(), "sino.handover=9", Vec::new()).unwrap();
        (text.replace(folder.path().to_str().unwrap(), ""), good)
    }

    #[test]
    fn a_file_is_checked_alone() {
        assert_eq!(check("[boot]\nhandover = 5\n"), ("1 key, no problems\n".into(), true));
        assert_eq!(check(""), ("0 keys, no problems\n".into(), true));
        let (text, good) = check("[boot]\nhandover = 601\nfast = 1\n[system]\nhostname = 'h'\n");
        let lines: Vec<&str> = text.lines().collect();
        assert!(!good && lines[0].starts_with("/sino.toml:2:1: boot.handover: 601 is out of range"), "{text}");
        assert!(lines[1].starts_with("/sino.toml:3:1: boot.fast: warning: "), "{text}");
        assert_eq!(lines[2], "1 key, 1 error, 1 warning");
        let (text, good) = check("[boot]\nfast = 1\n");
        assert!(good && text.ends_with("0 keys, 1 warning\n"), "{text}");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let action = ConfigAction::Check { file: Some("/nowhere/sino.toml".into()) };
        let error = answer(&action, Path::new("/nowhere"), "", Vec::new()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/sino.toml is not there"), "{error}");
    }

    #[test]
    fn without_a_file_all_layers_are_checked_and_shown() {
        let root = tempfile::tempdir().unwrap();
        let answer = |action| answer(&action, root.path(), "sino.handover=9", Vec::new()).unwrap();
        assert_eq!(answer(ConfigAction::Check { file: None }), ("1 key, no problems\n".into(), true));
        assert!(answer(ConfigAction::Show { json: false }).0.contains("# flag sino.handover=9"));
        let json = answer(ConfigAction::Show { json: true }).0;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["config"]["boot"]["handover"], 9);
    }
}
