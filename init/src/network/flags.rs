//! Stub.
/// Stub.
#[must_use]
pub fn from_command_line(_line: &str) -> (Option<toml::Table>, Vec<String>) {
    (None, Vec::new())
}
