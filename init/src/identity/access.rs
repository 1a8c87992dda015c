//! Who may log in by ssh: sshd's configuration and SINO's list of keys, from `sino.toml` and the keys that are there.

use super::image_of;
use super::items::Item;
use super::running::System;
use super::ssh_key;
use crate::config::schema::Access;
use serde::Serialize;
use std::path::Path;

/// sshd takes the first value that it meets, and reads these files by name: before the image's `sino.conf`.
const CONFIGURATION: &str = "00-sino-access.conf";
/// The keys of `sino.toml`; root's own file stays the administrator's.
const KEYS: &str = "sino_authorized_keys";

/// How a host may be entered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AccessState {
    /// Whether a password is enough by ssh.
    pub password_login: bool,
    /// How many keys may log in as root.
    pub keys: usize,
    /// Whether root's password is the one that the image was built with, which everybody may know.
    pub default_password: bool,
    /// Whether sshd's files were changed: sshd must read them again.
    pub changed: bool,
    /// What could not be used or written, for people.
    pub problems: Vec<String>,
}

impl AccessState {
    /// What people should read at the login, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let way = if self.password_login { "on the console and by ssh" } else { "on the console" };
        self.default_password.then(|| {
            format!("root's password is the image's default, which opens this host {way}: change it with passwd")
        })
    }
}

/// Writes sshd's part for this configuration. A password is enough while nobody could log in otherwise, unless
/// `sino.toml` says something else. Reloads nothing: see [`AccessState::changed`].
pub fn apply(root: &Path, access: &Access) -> AccessState {
    let mut state = AccessState::default();
    let system = match System::open(root) {
        Ok(system) => system,
        Err(error) => {
            state.problems.push(format!("ssh stays as the image has it: {error:#}"));
            return state;
        }
    };
    let mut lines = String::new();
    for (number, key) in access.authorized_keys.iter().enumerate() {
        let key = key.trim();
        if key.chars().any(char::is_control) || !ssh_key::is_authorized_line(key) {
            state.problems.push(format!(
                "key {} of access.authorized_keys in sino.toml is no public key and is left out; it should be a line as in an id_ed25519.pub",
                number + 1
            ));
            continue;
        }
        lines.push_str(key);
        lines.push('\n');
        state.keys += 1;
    }
    match system.read(Item::AuthorizedKeys) {
        Ok(files) => state.keys += files.values().map(|bytes| ssh_key::authorized_lines(bytes)).sum::<usize>(),
        Err(error) => state.problems.push(format!("{error:#}")),
    }
    state.password_login = access.ssh_password.unwrap_or(state.keys == 0);
    state.default_password = is_default(&system, root);
    let configuration = configuration(state.password_login);
    for (folder, name, text) in [("etc/ssh", KEYS, &lines), ("etc/ssh/sshd_config.d", CONFIGURATION, &configuration)] {
        match system.put(folder, name, text.as_bytes(), 0o644) {
            // The keys are read at each login.
            Ok(changed) => state.changed |= changed && name == CONFIGURATION,
            Err(error) => state.problems.push(format!("{error:#}")),
        }
    }
    state
}

/// Whether root's password is the image's.
fn is_default(system: &System, root: &Path) -> bool {
    let running = system.read(Item::RootPassword).ok();
    running.is_some() && image_of(root).is_some_and(|image| image.read(Item::RootPassword).ok() == running)
}

/// How the running host may be entered; changes nothing, and does not count keys. `None`: it cannot be seen, as by somebody who
/// may not read `/etc/shadow`.
#[must_use]
pub fn look(root: &Path) -> Option<AccessState> {
    let system = System::open(root).ok()?;
    let closed = std::fs::read_to_string(root.join("etc/ssh/sshd_config.d").join(CONFIGURATION))
        .is_ok_and(|text| text == configuration(false));
    system.read(Item::RootPassword).ok()?;
    let default_password = is_default(&system, root);
    Some(AccessState { password_login: !closed, default_password, ..AccessState::default() })
}

/// Source: `sshd_config(5)`.
fn configuration(password: bool) -> String {
    let (word, root) = if password { ("yes", "yes") } else { ("no", "prohibit-password") };
    format!(
        "# SINO writes this from [access] in sino.toml; what is changed here is lost.\n\
         PasswordAuthentication {word}\n\
         # It would ask for the same password.\n\
         KbdInteractiveAuthentication no\n\
         PermitRootLogin {root}\n\
         AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/{KEYS}\n"
    )
}
