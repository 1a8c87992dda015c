//! The configuration that holds, as TOML with the origin of each value.

use super::keys::{KEYS, NAME, SECTIONS};
use super::layers::Loaded;
use super::origins::{dotted, quoted};
use std::fmt::Write as _;
use toml::Value;

/// The column at which comments begin, unless a value is longer.
const COMMENTS: usize = 44;
/// The longest list that stands on one line.
const LIST: usize = 72;

/// All keys as TOML, defaults included, each with its origin as a comment; and the problems as comments at the end.
#[must_use]
pub fn text(loaded: &Loaded) -> String {
    let mut text = String::new();
    let root = Value::try_from(&loaded.config).unwrap_or(Value::Boolean(false));
    for section in SECTIONS {
        match section.name.strip_suffix(NAME) {
            None => table(&mut text, loaded, &root, section.name, &split(section.name)),
            Some(above) => {
                let above = split(above.trim_end_matches('.'));
                let tables = look(&root, &above).and_then(Value::as_table);
                for name in tables.into_iter().flat_map(toml::Table::keys) {
                    let path: Vec<String> = above.iter().cloned().chain([name.clone()]).collect();
                    table(&mut text, loaded, &root, section.name, &path);
                }
            }
        }
    }
    for problem in &loaded.problems {
        let _ = writeln!(text, "# problem: {problem}");
    }
    text
}

/// The same as JSON: `config`, `origins` (what is not there is the default) and `problems`.
#[must_use]
pub fn json(loaded: &Loaded) -> serde_json::Value {
    serde_json::json!(loaded)
}

/// One table; writing to a String cannot fail.
fn table(text: &mut String, loaded: &Loaded, root: &Value, section: &str, path: &[String]) {
    let _ = writeln!(text, "[{}]", dotted(path));
    for key in KEYS.iter().filter(|key| key.section() == section) {
        let path: Vec<String> = path.iter().cloned().chain([key.short().to_owned()]).collect();
        let origin = loaded.origins.get(&dotted(&path));
        let (line, comment) = match (look(root, &path), origin) {
            (None, _) => (format!("# {} is not given", key.short()), format!("default: {}", key.default)),
            (Some(value), None) => (format!("{} = {}", key.short(), written(value)), "default".to_owned()),
            (Some(value), Some(origin)) => (format!("{} = {}", key.short(), written(value)), origin.to_string()),
        };
        // A list on several lines has its comment behind the first.
        let (first, rest) = line.split_once('\n').unwrap_or((&line, ""));
        let _ = writeln!(text, "{first:<COMMENTS$}  # {comment}");
        if !rest.is_empty() {
            let _ = writeln!(text, "{rest}");
        }
    }
    text.push('\n');
}

fn split(name: &str) -> Vec<String> {
    name.split('.').map(str::to_owned).collect()
}

fn look<'a>(root: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, name| value.get(name))
}

/// A value as TOML; a text is on one line and without control characters, a long list has a line for each item.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(written).collect();
            let line = format!("[{}]", items.join(", "));
            if line.len() <= LIST { line } else { format!("[\n  {},\n]", items.join(",\n  ")) }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers::Merged;
    use super::super::origins::Layer;
    use super::super::reading::read;
    use super::*;

    fn loaded(source: &str) -> Loaded {
        let mut merged = Merged::default();
        merged.add(read(source, Layer::Stick, "/s", false));
        merged.finish()
    }

    #[test]
    fn what_is_shown_is_the_configuration_again() {
        let source = "[system]\nhostname = 'h'\n[network.vlan.'eno1.5']\nlink = 'eno1'\nid = 5\n[access]\nauthorized_keys = [\n\
                      'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAA one',\n\"ssh-rsa AAAAB3NzaC1yc2EAAAADAQ \\\"two\\\"\"]\n\
                      [guest.'web 1.a']\nready = 'console \"login: $\"'\nstop = 'save'\nrestart = 'no'\non_failure = 'hold-dependents'\n";
        let loaded = loaded(source);
        assert_eq!(loaded.problems, []);
        let shown = text(&loaded);
        let again = super::tests::loaded(&shown);
        assert_eq!((again.config, again.problems), (loaded.config, Vec::new()), "{shown}");
    }

    #[test]
    fn each_value_has_its_origin() {
        let shown = text(&loaded("[boot]\nhandover = 20\nfast = true\n"));
        for line in [
            "[network.bridge.xenbr0]",
            "group = \"xvg\"                                 # default",
            "handover = 20                                 # stick /s:2",
            "# hostname is not given                       # default: the name that /srv keeps, else that of a lease, \
             else the image's",
            "# problem: /s:3:1: boot.fast: warning: is not known and has no effect; known here: handover",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
    }

    #[test]
    fn json_has_the_same() {
        let json = json(&loaded("[boot]\nhandover = 20\nfast = true\n"));
        assert_eq!(json["config"]["boot"]["handover"], 20);
        assert_eq!(json["origins"]["boot.handover"]["layer"], "stick");
        assert_eq!(json["problems"][0]["severity"], "warning");
    }
}
