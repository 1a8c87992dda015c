//! The command `sino timeline`: this boot or an earlier one, beside the one before it.

use super::{Timeline, seconds, svg, text};
use crate::boots::when::utc;
use crate::boots::{Boot, Compared, Places, Present, present};
use crate::config::origins::clean;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;

/// How to show the timeline, and of which boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct TimelineArguments {
    /// Print JSON; times are microseconds since the kernel started.
    #[arg(long, conflicts_with = "svg")]
    pub json: bool,
    /// Print a picture as SVG, for a browser: sino timeline --svg > boot.svg.
    #[arg(long)]
    pub svg: bool,
    /// List this boot and those that are kept on /srv.
    #[arg(long, conflicts_with_all = ["svg", "boot"])]
    pub list: bool,
    /// Show an earlier boot: 1 is the one before this, or a name as --list --json has it.
    #[arg(long, value_name = "N|NAME")]
    pub boot: Option<String>,
}

/// A boot in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Summary {
    /// What `--boot` takes.
    number: usize,
    /// The name of its file; `None` if it is not kept.
    name: Option<String>,
    /// In UTC.
    started: String,
    version: String,
    build: String,
    medium: &'static str,
    /// Whether the host was stopped before the boot was over.
    ended_before_over: bool,
    xen_us: Option<u64>,
    total_us: Option<u64>,
    first_created_us: Option<u64>,
    last_ready_us: Option<u64>,
    guests: usize,
    guests_ready: usize,
}

impl Summary {
    fn of(number: usize, name: Option<&str>, boot: &Boot) -> Self {
        let timeline = boot.timeline();
        let guests = timeline.guests.unwrap_or_default();
        Self {
            number,
            name: name.map(str::to_owned),
            started: utc(boot.started),
            version: boot.record.version.clone(),
            build: boot.record.build_id.clone(),
            medium: boot.medium(),
            ended_before_over: boot.ended_before_over,
            xen_us: timeline.xen_us,
            total_us: timeline.total_us(),
            first_created_us: guests.first_created_us,
            last_ready_us: guests.last_ready_us,
            guests: guests.wanted,
            guests_ready: guests.ready,
        }
    }
}

/// A boot as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    timeline: &'a Timeline,
    boot_id: &'a str,
    /// In UTC.
    started: String,
    /// Whether the host was stopped before the boot was over.
    ended_before_over: bool,
    /// `None`: there is nothing to compare with.
    compared: Option<&'a Compared>,
}

/// Shows this host's timeline.
///
/// # Errors
/// There is no boot record, no such boot is kept, or the answer cannot be printed.
pub fn run(arguments: &TimelineArguments) -> Result<()> {
    let places = Places::of_this_host();
    let Present { boot: now, kept, notes } = present(&places, None)?;
    for note in notes {
        eprintln!("sino: {note}");
    }
    let listed = places.store.list().unwrap_or_else(|error| {
        eprintln!("sino: without earlier boots: {error:#}");
        crate::boots::Listed::default()
    });
    let own = kept.map(|(name, _)| name);
    for broken in listed.broken {
        eprintln!("sino: {broken}");
    }
    if !places.store.is_there().unwrap_or_default() {
        eprintln!("sino: without earlier boots: nothing is mounted on /srv; srv status");
    }
    let mut boots = listed.boots;
    boots.retain(|(name, boot)| boot.boot_id != now.boot_id && own.as_ref() != Some(name));
    let answer = answer(arguments, &now, own.as_deref(), &boots)?;
    std::io::stdout().write_all(answer.as_bytes()).context("printing the timeline")
}

/// What is printed. `earlier`: the other boots, the latest first.
fn answer(arguments: &TimelineArguments, now: &Boot, own: Option<&str>, earlier: &[(String, Boot)]) -> Result<String> {
    if arguments.list {
        let others = earlier.iter().enumerate();
        let others = others.map(|(index, (name, boot))| Summary::of(index + 1, Some(name), boot));
        let all: Vec<Summary> = std::iter::once(Summary::of(0, own, now)).chain(others).collect();
        return if arguments.json { json(&all) } else { Ok(list(&all)) };
    }
    let number = arguments.boot.as_deref().map_or(Ok(0), |wish| number(wish, own, earlier))?;
    let boot = if number == 0 { now } else { earlier.get(number - 1).map(|(_, boot)| boot).context(NOT_KEPT)? };
    let before = earlier.get(number);
    let compared = before.map(|(name, before)| Compared::of(boot, name, before));
    let timeline = boot.timeline();
    if arguments.json {
        let (boot_id, started) = (boot.boot_id.as_str(), utc(boot.started));
        let ended_before_over = boot.ended_before_over;
        return json(&Answer { timeline: &timeline, boot_id, started, ended_before_over, compared: compared.as_ref() });
    }
    if arguments.svg {
        return Ok(svg::draw(&timeline));
    }
    let mut answer = String::new();
    if number > 0 {
        let cut = if boot.ended_before_over { CUT } else { "" };
        let _ = writeln!(answer, "the boot of {} UTC{cut}", utc(boot.started));
    }
    answer.push_str(&text::draw(&timeline));
    match compared {
        Some(compared) => answer.push_str(&compared.text(number == 0)),
        None => answer.push_str("not compared: no earlier boot is kept\n"),
    }
    Ok(answer)
}

/// Of a boot during which the host was stopped.
const CUT: &str = ", ended before the boot was over";
const NOT_KEPT: &str = "no such boot is kept; sino timeline --list shows them";

/// Which boot is meant: 0 for this one, else its place among the earlier ones, from 1.
fn number(wish: &str, own: Option<&str>, earlier: &[(String, Boot)]) -> Result<usize> {
    let is = |name: &str| name == wish || name.strip_suffix(".json") == Some(wish);
    if own.is_some_and(is) {
        return Ok(0);
    }
    if let Some(index) = earlier.iter().position(|(name, _)| is(name)) {
        return Ok(index + 1);
    }
    match wish.parse::<usize>() {
        Ok(number) if number <= earlier.len() => Ok(number),
        _ => bail!("{}: {NOT_KEPT}", clean(wish, 80)),
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value).context("writing JSON")? + "\n")
}

fn list(all: &[Summary]) -> String {
    let mut text = "BOOT  STARTED (UTC)        VERSION      TOTAL  FIRST GUEST  ALL READY  FROM\n".to_owned();
    let known = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), seconds);
    for boot in all {
        let ready = match boot.guests {
            0 => "-".to_owned(),
            wanted if wanted == boot.guests_ready => known(boot.last_ready_us),
            wanted => format!("{} of {wanted}", boot.guests_ready),
        };
        let (total, first) = (known(boot.total_us), known(boot.first_created_us));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:>4}  {:<19}  {:<9} {total:>8}  {first:>11}  {ready:>9}  {}{}",
            boot.number,
            boot.started,
            clean(&boot.version, 12),
            boot.medium,
            if boot.ended_before_over { CUT } else { "" },
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boots::record_of_a_test as seen;

    fn boots() -> (Boot, Vec<(String, Boot)>) {
        let now = Boot::of(seen(), None);
        let earlier = (1..4_u64).map(|number| {
            let boot_id = format!("{number:08x}-1");
            let mut boot = Boot { boot_id, started: now.started - number * 86_400, ..now.clone() };
            boot.userland.as_mut().unwrap().times.finish_us += number * 1_000_000;
            (boot.file_name().unwrap(), boot)
        });
        (now.clone(), earlier.collect())
    }

    #[test]
    fn boots_are_listed_with_what_matters() {
        let (now, earlier) = boots();
        let arguments = TimelineArguments { list: true, ..TimelineArguments::default() };
        let text = answer(&arguments, &now, None, &earlier).unwrap();
        println!("{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[1], "   0  2026-11-18 11:06:40  0.1.0      19.80 s      12.00 s     1 of 2  RAM");
        assert_eq!(lines[2], "   1  2026-11-17 11:06:40  0.1.0      20.80 s      12.00 s     1 of 2  RAM");
        let json = answer(&TimelineArguments { json: true, ..arguments }, &now, None, &earlier).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value[0]["name"], &value[1]["number"]), (&serde_json::Value::Null, &1.into()));
        assert_eq!(value[2]["name"], earlier[1].0);
    }

    #[test]
    fn an_earlier_boot_is_shown_by_number_or_name_beside_the_one_before_it() {
        let (now, earlier) = boots();
        let show = |boot: Option<&str>| {
            let boot = boot.map(str::to_owned);
            answer(&TimelineArguments { boot, ..TimelineArguments::default() }, &now, Some("own.json"), &earlier)
        };
        let text = show(None).unwrap();
        println!("{text}");
        assert!(text.contains("\nguests-ready ") && text.contains("Xen, before the kernel         1.90 s"), "{text}");
        assert!(text.ends_with("in all about as fast as the last boot: -1.00 s (20.80 s -> 19.80 s)\n"), "{text}");
        assert_eq!((show(Some("0")).unwrap(), show(Some("own")).unwrap()), (text.clone(), text));
        let name = earlier[0].0.strip_suffix(".json").unwrap();
        let first = show(Some("1")).unwrap();
        assert!(first.starts_with("the boot of 2026-11-17 11:06:40 UTC\n"), "{first}");
        assert!(first.contains("the boot before: -1.00 s (21.80 s -> 20.80 s)"), "{first}");
        assert_eq!(show(Some(name)).unwrap(), first);
        assert!(show(Some("3")).unwrap().ends_with("not compared: no earlier boot is kept\n"));
        for wrong in ["4", "x", "-1", "", "99999999999999999999", "../etc/passwd"] {
            assert!(format!("{:#}", show(Some(wrong)).unwrap_err()).contains("--list"), "{wrong}");
        }
    }

    #[test]
    fn a_boot_that_was_cut_short_is_shown_as_such() {
        let (now, mut earlier) = boots();
        earlier[0].1 = Boot { ended_before_over: true, userland: None, ..earlier[0].1.clone() };
        let list = TimelineArguments { list: true, ..TimelineArguments::default() };
        let text = answer(&list, &now, None, &earlier).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].ends_with("  RAM, ended before the boot was over") && lines[3].ends_with("  RAM"), "{text}");
        let one = TimelineArguments { boot: Some("1".to_owned()), ..TimelineArguments::default() };
        let text = answer(&one, &now, None, &earlier).unwrap();
        assert!(text.starts_with("the boot of 2026-11-17 11:06:40 UTC, ended before the boot was over\n"), "{text}");
        let text = answer(&TimelineArguments { json: true, ..one }, &now, None, &earlier).unwrap();
        assert!(text.contains("\"ended_before_over\": true"), "{text}");
    }

    #[test]
    fn json_says_what_it_is_compared_with() {
        let (now, earlier) = boots();
        let arguments = TimelineArguments { json: true, ..TimelineArguments::default() };
        let value: serde_json::Value =
            serde_json::from_str(&answer(&arguments, &now, None, &earlier).unwrap()).unwrap();
        assert_eq!(value["compared"]["with"], earlier[0].0);
        assert_eq!(value["compared"]["total"]["before_us"], 20_800_000);
        assert_eq!((&value["guests"]["ready"], &value["xen_us"]), (&1.into(), &1_900_000.into()));
        let value: serde_json::Value = serde_json::from_str(&answer(&arguments, &now, None, &[]).unwrap()).unwrap();
        assert!(value["compared"].is_null() && value["lanes"].is_array());
    }
}
