//! Programs of the workspace that measures run: built by cargo when they are needed, as they are shipped, optimised.
//!
//! They belong to the crates whose code they measure, which nothing else may depend on.

use super::Settings;
use anyhow::{Context, Result};
use sino_image::command;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds an example with a package's `features` (a list for cargo, which may be empty) and returns its file. One with other features
/// overwrites it.
///
/// # Errors
/// It cannot be built.
pub fn example(settings: &Settings, package: &str, name: &str, features: &str) -> Result<PathBuf> {
    let arguments = ["build", "--release", "-p", package, "--example", name, "--features", features];
    built(settings, name, Command::new(cargo()).args(arguments))
}

/// Builds a program of the folder `benches` and returns its file.
///
/// # Errors
/// It cannot be built.
pub fn bench(settings: &Settings, package: &str, name: &str) -> Result<PathBuf> {
    built(settings, name, Command::new(cargo()).args(["bench", "--no-run", "-p", package, "--bench", name]))
}

fn cargo() -> PathBuf {
    // Set by the cargo that runs this.
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

fn built(settings: &Settings, name: &str, command: &mut Command) -> Result<PathBuf> {
    println!("  building {name}");
    command.args(["--locked", "--message-format=json"]).current_dir(&settings.workspace);
    command.env("CARGO_TARGET_DIR", &settings.target);
    let said = command::run(command).with_context(|| format!("building {name}"))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    executable(&said, name).with_context(|| format!("cargo does not say where {name} is"))
}

/// The executable of the target `name` in cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut found =
        messages.filter(|message| message.pointer("/target/name").and_then(|own| own.as_str()) == Some(name));
    found.find_map(|message| message.get("executable")?.as_str().map(|path| Path::new(path).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"sino\"},\"executable\":\"/t/sino\"}\n\
            garbage\n{\"target\":{\"name\":\"fake-xl\"},\"executable\":null}\n\
            {\"target\":{\"name\":\"fake-xl\"},\"executable\":\"/t/examples/fake-xl\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executable(messages, "fake-xl"), Some("/t/examples/fake-xl".into()));
        assert_eq!(executable(messages, "other"), None);
    }
}
