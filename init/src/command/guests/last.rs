//! `sino guests last`: how all guests were stopped last, from the report that the supervisor has left on `/srv`.

use crate::boots::when::utc;
use crate::config::origins::clean;
use crate::guests::engine::stop_table;
use crate::supervisor::guests_lane::LastStop;
use crate::supervisor::keeping;
use anyhow::{Context, Result, bail, ensure};
use sino_boot::layout;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

/// The longest report that is read, in bytes; one of some thousand guests is shorter.
const LONGEST: u64 = 4 << 20;

/// Shows it.
///
/// # Errors
/// The report is broken, or `/srv` is not mounted.
pub(super) fn run(json: bool) -> Result<()> {
    let last = load(Path::new(layout::GUESTS_LAST_STOP))?;
    if last.is_none() && !keeping::is_mounted() {
        bail!("how the guests were stopped last is kept on /srv, which is not mounted; try: sino srv start");
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&last).context("writing JSON")?);
    } else {
        print!("{}", text(last.as_ref()));
    }
    Ok(())
}

/// The report; `None`: there is none.
fn load(path: &Path) -> Result<Option<LastStop>> {
    let broken = || {
        format!("{} cannot be used; the next stop of all guests writes a new one", clean(&path.to_string_lossy(), 300))
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(broken),
    };
    let mut text = String::new();
    let length = file.take(LONGEST + 1).read_to_string(&mut text).with_context(broken)?;
    ensure!(u64::try_from(length).unwrap_or(u64::MAX) <= LONGEST, "it is too large: {}", broken());
    ensure!(!text.trim().is_empty(), "it is empty: {}", broken());
    serde_json::from_str(&text).map(Some).with_context(broken)
}

/// The report for people.
fn text(last: Option<&LastStop>) -> String {
    let Some(last) = last else {
        return "no report: all guests of this host were never stopped together, or nothing was mounted on /srv then\n"
            .to_owned();
    };
    let mut text = "all guests were stopped".to_owned();
    // Writing to a String cannot fail.
    if last.ended > 0 {
        let took = last.ended_us.saturating_sub(last.began_us) / 100_000;
        let _ = write!(text, " on {} UTC, after {}.{} s of {} s", utc(last.ended), took / 10, took % 10, last.within);
    }
    text.push('\n');
    if last.guests.is_empty() {
        text.push_str("there was none\n");
        return text;
    }
    text.push_str(&stop_table(&last.guests, (last.ended > 0).then_some(last.began_us)));
    let left = last.guests.iter().filter(|guest| guest.domid.is_some());
    let left: Vec<String> = left.map(|guest| clean(&guest.name, 64)).collect();
    if !left.is_empty() {
        let _ = writeln!(text, "still there when the time was over: {}", left.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::engine::GuestReport;
    use proptest::prelude::*;

    fn guest(name: &str, state: &str, since_s: u64, cause: &str) -> GuestReport {
        let (name, state, cause) = (name.to_owned(), state.to_owned(), cause.to_owned());
        GuestReport { name, state, cause, since_us: since_s * 1_000_000, ..GuestReport::default() }
    }

    #[test]
    fn how_each_guest_was_stopped_is_shown() {
        let mut stuck = guest("stuck", "failed", 280, "still there when the deadline for all guests was over");
        stuck.domid = Some(4);
        let last = LastStop {
            ended: 1_795_464_311,
            within: 180,
            began_us: 100_000_000,
            ended_us: 280_400_000,
            guests: vec![
                guest("db", "stopped", 112, "shut down"),
                guest("old", "stopped", 3, "it does not start by itself"),
                stuck,
                guest("w\u{1b}", "saved", 101, ""),
            ],
        };
        let expected = "\
all guests were stopped on 2026-11-23 20:05:11 UTC, after 180.4 s of 180 s
GUEST  STATE    AFTER   HOW
db     stopped  12.0 s  shut down
old    stopped  before  it does not start by itself
stuck  failed   3 min   still there when the deadline for all guests was over
w?     saved    1.0 s
still there when the time was over: stuck
";
        assert_eq!(text(Some(&last)), expected);
        assert_eq!(text(Some(&LastStop::default())), "all guests were stopped\nthere was none\n");
    }

    #[test]
    fn there_may_be_none_and_a_broken_one_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.json");
        assert_eq!(load(&path).unwrap(), None);
        assert!(text(None).starts_with("no report: "));
        for broken in [&b""[..], b"\n", b"{\"guests\": [{", b"\xff\xfe", b"{\"guests\": 7}", &vec![b' '; 5 << 20]] {
            std::fs::write(&path, broken).unwrap();
            let error = format!("{:#}", load(&path).unwrap_err());
            assert!(error.contains("last.json cannot be used; the next stop"), "{error}");
        }
        // As an older SINO has left it.
        std::fs::write(&path, "{\"stopping\": false, \"guests\": [{\"name\": \"a\", \"state\": \"stopped\"}]}")
            .unwrap();
        let old = text(load(&path).unwrap().as_ref());
        assert_eq!(old, "all guests were stopped\nGUEST  STATE    AFTER  HOW\na      stopped  -\n");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(load(&path).is_err());
    }

    proptest! {
        #[test]
        fn no_report_makes_it_panic(guests in proptest::collection::vec(("\\PC{0,9}", any::<u64>()), 0..4), began_us in any::<u64>()) {
            let guests = guests.iter().map(|(name, since)| GuestReport { since_us: *since, ..guest(name, name, 0, name) });
            let last = LastStop { began_us, ended: began_us, guests: guests.collect(), ..LastStop::default() };
            let text = text(Some(&last));
            prop_assert!(!text.chars().any(|character| character.is_control() && character != '\n'));
        }
    }
}
