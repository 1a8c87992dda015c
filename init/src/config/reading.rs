//! One layer's text as values with their origins, and as problems.
//!
//! Text in, values out; nothing is opened here. A text that is not TOML gives no value at all, a key that cannot be used
//! is left out alone.

use super::check::Refused;
use super::keys::{self, Key, NAME, Place};
use super::origins::{Layer, Lines, Origin, Problem, Severity, clean, dotted};
use super::schema::Config;
use serde::Deserialize;
use sino_boot::options::distance;
use toml::Value;
use toml::de::{DeTable, DeValue};

/// Problems of one layer that are told; a file that is no `sino.toml` at all must not fill the console.
const TOLD: usize = 50;
/// Lists within lists that are followed; no key has any.
const DEEPEST: usize = 8;
/// Stack for parsing, in bytes. The parser stops at 80 levels of nesting and at 80 parts of a key, thus at some 6500 levels;
/// without optimisation 4 MiB are too few for them and 8 MiB enough. What is not used of it costs nothing.
const STACK: usize = 16 << 20;
/// Characters of a value that are shown.
const SHOWN: usize = 60;

/// A value that a layer gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// The names that lead to it.
    pub path: Vec<String>,
    /// The value; an empty table says only that the table is there.
    pub value: Value,
    /// Where it is.
    pub origin: Origin,
}

/// What a layer gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Its values, in the order of the text.
    pub given: Vec<Given>,
    /// What could not be used.
    pub problems: Vec<Problem>,
}

/// Reads a text. `file` is its name in origins and problems; with `flag` that is the flag which the text was made of, and
/// no line is told.
#[must_use]
pub fn read(text: &str, layer: Layer, file: &str, flag: bool) -> Reading {
    let file = clean(file, 300);
    // Dotted keys in tables in tables make a value some thousand levels deep, and toml parses and frees it level by level on
    // the stack.
    let reading = std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().name("sino.toml".to_owned()).stack_size(STACK);
        let parser = parser.spawn_scoped(scope, || parse(text, layer, &file, flag)).ok()?;
        parser.join().ok()
    });
    reading.unwrap_or_else(|| {
        failed(&file, "cannot be parsed: there was no thread for it, or this is a defect of SINO's own")
    })
}

/// A layer that gives nothing but a problem with it as a whole.
pub(crate) fn failed(file: &str, text: &str) -> Reading {
    Reading { given: Vec::new(), problems: vec![whole(Severity::Error, file, text)] }
}

fn whole(severity: Severity, file: &str, text: &str) -> Problem {
    Problem { severity, file: clean(file, 300), line: 0, column: 0, key: String::new(), text: clean(text, 500) }
}

fn parse(text: &str, layer: Layer, file: &str, flag: bool) -> Reading {
    let mut reader =
        Reader { lines: Lines::new(text), layer, file: file.to_owned(), flag, reading: Reading::default() };
    match DeTable::parse(text) {
        Ok(table) => reader.table(table.get_ref(), &mut Vec::new()),
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            let follows = if flag { "" } else { "; nothing of this file is used until that is corrected" };
            let text = format!("is not TOML: {}{follows}", error.message());
            reader.problem(Severity::Error, offset, &[], &text);
        }
    }
    let mut reading = reader.reading;
    if let Some(worst) = reading.problems.iter().skip(TOLD).map(|problem| problem.severity).max() {
        let more = reading.problems.len() - TOLD;
        reading.problems.truncate(TOLD);
        reading.problems.push(whole(worst, file, &format!("and {more} more problems")));
    }
    reading
}

struct Reader<'a> {
    lines: Lines<'a>,
    layer: Layer,
    file: String,
    flag: bool,
    reading: Reading,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, path: &mut Vec<String>) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            path.push(name.get_ref().to_string());
            let at = name.span().start;
            match (keys::place(path), value.get_ref()) {
                (Place::Unknown, _) => {
                    let text = if self.reading.problems.len() < TOLD { unknown(path) } else { String::new() };
                    self.problem(Severity::Warning, at, path, &text);
                }
                (Place::Table { free }, DeValue::Table(table)) => {
                    if free {
                        self.give(path, Value::Table(toml::Table::new()), at);
                    }
                    self.table(table, path);
                }
                (Place::Table { .. }, other) => {
                    let text =
                        format!("must be a table, as in [{}]; it has no effect as {}", dotted(path), kind(other));
                    self.problem(Severity::Error, at, path, &text);
                }
                (Place::Key(key), value) => self.value(key, value, path, at),
            }
            path.pop();
        }
    }

    /// Takes a key's value when it has the right type and passes the key's check.
    fn value(&mut self, key: &Key, value: &DeValue<'_>, path: &[String], at: usize) {
        let refused = match plain(value, DEEPEST) {
            None => (at, format!("this {} cannot be used", kind(value))),
            Some(plain) => match fits(path, &plain).then(|| key.check.map_or(Ok(()), |check| check(&plain))) {
                Some(Ok(())) => return self.give(path, plain, at),
                Some(Err(Refused { item, why })) => {
                    let item = item.and_then(|item| Some((plain.get(item)?, value.get(item)?.span().start)));
                    let (shown, at) = item.unwrap_or((&plain, at));
                    (at, format!("{} {why}", clean(&shown.to_string(), SHOWN)))
                }
                None => (at, format!("{} is of the wrong kind", clean(&plain.to_string(), SHOWN))),
            },
        };
        let (at, why) = refused;
        let text = format!("{why}; allowed: {}; what the layer below says holds instead", key.values);
        self.problem(Severity::Error, at, path, &text);
    }

    fn give(&mut self, path: &[String], value: Value, at: usize) {
        let line = if self.flag { 0 } else { self.lines.locate(at).0 };
        let origin = Origin { layer: self.layer, file: self.file.clone(), line };
        self.reading.given.push(Given { path: path.to_vec(), value, origin });
    }

    fn problem(&mut self, severity: Severity, at: usize, path: &[String], text: &str) {
        // What is beyond this number is only counted, and has no place to be looked for.
        let locate = !self.flag && self.reading.problems.len() < TOLD;
        let (line, column) = if locate { self.lines.locate(at) } else { (0, 0) };
        self.reading.problems.push(Problem {
            severity,
            file: self.file.clone(),
            line,
            column,
            key: clean(&dotted(path), 200),
            text: clean(text, 500),
        });
    }
}

/// Whether the value alone makes a configuration: what is not so has the wrong type. As every key is tried by itself, all
/// of them together make one, too.
fn fits(path: &[String], value: &Value) -> bool {
    let nested = path
        .iter()
        .rev()
        .fold(value.clone(), |value, name| Value::Table(toml::Table::from_iter([(name.clone(), value)])));
    Config::deserialize(nested).is_ok()
}

/// The value without its places in the text; `None` where the configuration has no use for such a value.
fn plain(value: &DeValue<'_>, deepest: usize) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()?),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Array(items) => {
            let deepest = deepest.checked_sub(1)?;
            Value::Array(items.iter().map(|item| plain(item.get_ref(), deepest)).collect::<Option<_>>()?)
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "date",
        DeValue::Array(_) => "list",
        DeValue::Table(_) => "table",
    }
}

/// What is said of a key that does not exist, with the name that was probably meant.
fn unknown(path: &[String]) -> String {
    let Some((name, above)) = path.split_last() else { return String::new() };
    let siblings = keys::below(above);
    let written = |name: &str| {
        let mut path = above.to_vec();
        path.push(name.to_owned());
        dotted(&path)
    };
    // Of two that are equally far, the one with the same letters was meant.
    let letters = |name: &str| {
        let mut letters: Vec<char> = name.chars().collect();
        letters.sort_unstable();
        letters
    };
    let named = siblings.iter().filter(|sibling| **sibling != NAME);
    let nearest = named.map(|sibling| (distance(name, sibling), letters(name) != letters(sibling), sibling));
    let begun = |sibling: &&&str| name.len() > 2 && sibling.starts_with(name.as_str());
    let meant = match nearest.min() {
        // A third of the name wrong is still a typing error, and so is one letter more in a short one.
        Some((far, _, sibling)) if far * 3 <= name.len() + 3 => Some(written(sibling)),
        _ => siblings.iter().find(begun).map(|sibling| written(sibling)).or_else(|| {
            let elsewhere = keys::KEYS.iter().find(|key| key.short() == name || key.section() == name);
            elsewhere.map(|key| if key.short() == name { key.name } else { key.section() }.to_owned())
        }),
    };
    match meant {
        Some(meant) => format!("is not known and has no effect; did you mean {meant}?"),
        None => format!("is not known and has no effect; known here: {}", siblings.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problems(text: &str) -> Vec<String> {
        read(text, Layer::Srv, "f", false).problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_have_their_lines() {
        let reading = read(
            "[system]\nhostname = 'h'\n[network]\ndns = ['192.0.2.1']\nbridge.x.mtu = 9000\n[guest.g]\norder = 5\n",
            Layer::Stick,
            "/f",
            false,
        );
        assert_eq!(reading.problems, []);
        let given: Vec<_> = reading.given.iter().map(|given| (dotted(&given.path), given.origin.line)).collect();
        let expected = [
            ("system.hostname", 2),
            ("network.dns", 4),
            ("network.bridge.x", 5),
            ("network.bridge.x.mtu", 5),
            ("guest.g", 6),
            ("guest.g.order", 7),
        ];
        assert_eq!(given, expected.map(|(key, line)| (key.to_owned(), line)));
        assert_eq!(reading.given[0].origin.to_string(), "stick /f:2");
    }

    #[test]
    fn every_kind_of_problem_is_told_with_its_place() {
        for (text, expected) in [
            ("a = 1\nb = = 2", "f:2:5: is not TOML: "),
            ("[system]\nhostname = 'a'\nhostname = 'b'", "f:3:1: is not TOML: duplicate key"),
            ("netwrk = 1", "f:1:1: netwrk: warning: is not known and has no effect; did you mean network?"),
            (
                "\n[system]\nhost = 'x'",
                "f:3:1: system.host: warning: is not known and has no effect; did you mean system.hostname?",
            ),
            (
                "hostname = 'x'",
                "f:1:1: hostname: warning: is not known and has no effect; did you mean system.hostname?",
            ),
            ("[bond.x]", "f:1:2: bond: warning: is not known and has no effect; did you mean"),
            (
                "[network.bridge.x]\nmut = 1",
                "f:2:1: network.bridge.x.mut: warning: is not known and has no effect; did you mean network.bridge.x.mtu?",
            ),
            (
                "[boot]\nqqqqqqqqqqqq = 1",
                "f:2:1: boot.qqqqqqqqqqqq: warning: is not known and has no effect; known here: handover",
            ),
            ("network = 5", "f:1:1: network: must be a table, as in [network]"),
            ("[[network.bridge.x]]\nmtu = 1500", "f:1:18: network.bridge.x: must be a table"),
            ("[boot]\nhandover = 'x'", "f:2:1: boot.handover: \"x\" is of the wrong kind; allowed: seconds, 0 to 600"),
            ("[boot]\nhandover = 601", "f:2:1: boot.handover: 601 is out of range; allowed: seconds, 0 to 600"),
            ("[boot]\nhandover = -1", "f:2:1: boot.handover: -1 is of the wrong kind; allowed: seconds"),
            ("[boot]\nhandover = 1.5", "f:2:1: boot.handover: this number cannot be used; allowed"),
            ("[boot]\nhandover = 99999999999999999999", "f:2:1: boot.handover: this number cannot be used"),
            ("[boot.handover]\nx = 1", "f:1:7: boot.handover: this table cannot be used"),
            ("[storage]\nswap = 2026-11-23", "f:2:1: storage.swap: this date cannot be used"),
            ("[network]\ndns = ['192.0.2.1', 'x']", "f:2:1: network.dns: [\"192.0.2.1\", \"x\"] is of the wrong kind"),
            (
                "[network.bond.b]\nmode = 'rr'",
                "f:2:1: network.bond.b.mode: \"rr\" is of the wrong kind; allowed: \"active-backup\"",
            ),
            (
                "[access]\nauthorized_keys = [\n  'ssh-rsa AAAAB3NzaC1yc2EAAAADAQ',\n  'ssh-rsa',\n]",
                "f:4:3: access.authorized_keys: \"ssh-rsa\" is not one line",
            ),
            (
                "[guest.g]\nmemory = 5",
                "f:2:1: guest.g.memory: warning: is not known and has no effect; known here: config, after, order",
            ),
            (
                "[guest.g]\nafer = []",
                "f:2:1: guest.g.afer: warning: is not known and has no effect; did you mean guest.g.after?",
            ),
            (
                "[guest.'a b']\nready = 'ping host'",
                "f:2:1: guest.\"a b\".ready: \"ping host\" is of the wrong kind; allowed: \"running\"",
            ),
            ("[guest.g]\nafter = ['a',\n'']", "f:3:1: guest.g.after: \"\" is not a guest's name"),
            ("[guest.g]\nrestart = 'yes'", "f:2:1: guest.g.restart: \"yes\" is of the wrong kind; allowed: \"always\""),
            ("[guests]\nparallel = 0", "f:2:1: guests.parallel: 0 is out of range; allowed: 1 to 256"),
            ("guest = 1", "f:1:1: guest: must be a table, as in [guest]"),
            ("[guest]\nx = 1", "f:2:1: guest.x: must be a table"),
            ("[network.vlan.'eno1.5']\nid = 0", "f:2:1: network.vlan.\"eno1.5\".id: 0 is out of range"),
        ] {
            let found = problems(text);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{text}: {found:#?}");
        }
    }

    #[test]
    fn what_editors_add_to_a_file_does_no_harm() {
        assert_eq!(problems("\u{feff}[boot]\r\nhandover = 5\r\n"), Vec::<String>::new());
    }

    #[test]
    fn one_wrong_key_leaves_the_others() {
        let reading = read("[boot]\nhandover = 601\n[storage]\ngroup = 'a'\nsrv = '..'\n", Layer::Srv, "f", false);
        assert_eq!((reading.given.len(), reading.problems.len()), (1, 2));
    }

    #[test]
    fn a_file_of_something_else_does_not_fill_the_console() {
        let text: String =
            (0..9000).flat_map(|number| ["key".to_owned(), number.to_string(), " = 1\n".to_owned()]).collect();
        let found = problems(&text);
        assert_eq!((found.len(), found[50].as_str()), (51, "f: warning: and 8950 more problems"));
    }

    #[test]
    fn a_large_file_is_read_in_a_moment() {
        let tables = (0..8000)
            .flat_map(|number| ["[network.bridge.a".to_owned(), number.to_string(), "]\nmtu = 1500\n".to_owned()]);
        let begun = std::time::Instant::now();
        assert_eq!(read(&tables.collect::<String>(), Layer::Srv, "f", false).given.len(), 16_000);
        // It is half a second; it was minutes when each line was counted from the beginning of the file.
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }

    #[test]
    fn deep_nesting_is_a_problem_and_no_more() {
        let deep = 100_000;
        for text in [
            format!("a = {}{}", "[".repeat(deep), "]".repeat(deep)),
            format!("a = {}1{}", "{a=".repeat(deep), "}".repeat(deep)),
            format!("[{}a]", "a.".repeat(deep)),
            format!("{}a = 1", "a.".repeat(deep)),
            format!("boot.handover = {}{}", "[".repeat(20), "]".repeat(20)),
            format!(
                "[{0}a]\n{0}a = {1}1{2}",
                "a.".repeat(78),
                format!("{{{}a=", "a.".repeat(78)).repeat(78),
                "}".repeat(78)
            ),
        ] {
            assert_eq!(problems(&text).len(), 1, "{}", &text[..40]);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            text in "(\\[(system|network|network\\.bridge\\.x|storage|\\PC{0,5})\\]|hostname|dns|mtu|ports|group| = |'|\"|\
                     \\[|\\]|\\{|\\}|,|\\.|#|[0-9]{1,20}|true|\\\\u001b|\n|\r\n|\u{1b}|\u{7f}|\\PC){0,30}"
        ) {
            for flag in [false, true] {
                for problem in read(&text, Layer::Srv, "a\u{1b}b", flag).problems {
                    prop_assert!(!problem.to_string().chars().any(char::is_control), "{problem:?}");
                }
            }
        }
    }
}
