//! Files of results: what stays, what is made again, and what takes whose place.

use super::*;

fn begin_in(place: &Path, what: &str, only: Option<&str>) -> Recorder {
    let begin = Begin { short: true, only, fresh: false, what };
    Recorder::begin(place, "stage-one", Machine::default(), begin).unwrap()
}

fn take(recorder: &mut Recorder, case: &str, contender: &str, round: u32) {
    recorder.record(case, contender, "init-to-root", round, Unit::Seconds, f64::from(round)).unwrap();
}

#[test]
fn samples_are_on_disk_at_once_and_other_cases_stay() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("stage-one.json");
    let mut recorder = begin_in(place.path(), "a", None);
    take(&mut recorder, "usb normal", "SINO", 1);
    take(&mut recorder, "cd normal", "SINO", 1);
    let read = Results::read(&file).unwrap();
    assert!(!read.complete && read.samples.len() == 2);
    assert_eq!(recorder.finish().unwrap(), Results { complete: true, ..read });
    let mut recorder = begin_in(place.path(), "b", Some("usb"));
    assert_eq!(recorder.samples().len(), 1, "the CD's");
    assert!(recorder.whole && !begin_in(&place.path().join("other"), "b", Some("usb")).whole);
    take(&mut recorder, "usb normal", "SINO", 1);
    recorder.note("no stick").unwrap();
    recorder.failed("cd normal", "SINO", 2, &anyhow::anyhow!("no disc")).unwrap();
    let second = Recorder::begin(place.path(), "stage-one", Machine::default(), Begin::default()).unwrap_err();
    assert!(format!("{second:#}").starts_with("stage-one is being measured by another bench"), "{second:#}");
    drop(recorder);
    let read = Results::read(&file).unwrap();
    assert!(read.runs["usb normal"].of.contains("build b,") && read.runs["cd normal"].of.contains("build a,"));
    assert_eq!(read.failed[0].to_string(), "cd normal, SINO, round 2: no disc");
    assert_eq!(begin_in(place.path(), "c", Some("usb")).results.failed.len(), 1, "the CD's");
    assert_eq!(begin_in(place.path(), "c", Some("=cd")).results.failed.len(), 1, "no whole name");
    assert_eq!(begin_in(place.path(), "c", Some("=cd normal")).results.failed, []);
    assert_eq!(Results::read(&file).unwrap().notes, ["no stick"]);
    assert_eq!(begin_in(place.path(), "c", None).samples(), [], "another build");
    assert_eq!(begin_in(place.path(), "b", None).samples().len(), 1, "of the same build");
}

/// Makes `rounds` rounds of "usb", of which the run `fails` (contender and round) fails, or ends the bench; returns who ran.
fn turns(recorder: &mut Recorder, rounds: u32, fails: &str, ends: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let result = recorder.in_turns("usb", rounds, &["A", "B"], |recorder, &contender, round| {
        let own = format!("{contender}{round}");
        anyhow::ensure!(own != ends, "ended");
        seen.push(own.clone());
        if own == fails {
            return recorder.failed("usb", contender, round, &anyhow::anyhow!("no medium"));
        }
        take(recorder, "usb", contender, round);
        Ok(())
    });
    assert_eq!(result.is_err(), !ends.is_empty(), "{result:?}");
    if let Err(error) = result {
        assert_eq!(format!("{error:#}"), format!("{}, round {}: ended", &ends[..1], &ends[1..]));
    }
    seen
}

#[test]
fn a_bench_that_was_ended_goes_on_with_whole_rounds() {
    let place = tempfile::tempdir().unwrap();
    let begin = |what| begin_in(place.path(), what, None);
    assert_eq!(turns(&mut begin("a"), 3, "", "B2"), ["A1", "B1", "A2"]);
    // What the contender A did in the second round is made again.
    let mut recorder = begin("a");
    assert_eq!(turns(&mut recorder, 3, "A3", ""), ["A2", "B2", "A3", "B3"]);
    assert_eq!((recorder.samples().len(), recorder.results.failed.len()), (5, 1));
    drop(recorder);
    // The round in which one has failed, too; then its failure is history.
    let mut recorder = begin("a");
    assert_eq!(turns(&mut recorder, 3, "", ""), ["A3", "B3"]);
    assert_eq!((recorder.samples().len(), recorder.results.failed.len()), (6, 0));
    drop(recorder);
    assert_eq!(turns(&mut begin("a"), 3, "", ""), [""; 0]);
    let mut recorder = begin("a");
    assert_eq!(turns(&mut recorder, 2, "", ""), [""; 0]);
    assert_eq!(recorder.samples().len(), 6, "fewer are asked for, and the others stay");
    drop(recorder);
    assert_eq!(turns(&mut begin("b"), 1, "", ""), ["A1", "B1"], "another build");
    let fresh = Begin { short: true, fresh: true, what: "b", only: None };
    let mut recorder = Recorder::begin(place.path(), "stage-one", Machine::default(), fresh).unwrap();
    assert_eq!(turns(&mut recorder, 1, "", ""), ["A1", "B1"]);
    // Fewer contenders are no other rounds; another one makes another.
    let mut only = |contenders: &[&str]| {
        let mut seen = 0;
        let made = recorder.in_turns("usb", 1, contenders, |recorder, contender, round| {
            seen += 1;
            take(recorder, "usb", contender, round);
            Ok(())
        });
        made.map(|()| seen)
    };
    assert_eq!(only(&["A"]).unwrap(), 0);
    assert_eq!(only(&["A", "C"]).unwrap(), 2);
    assert!(only(&[]).unwrap_err().to_string().contains("of usb is meant"));
    assert_eq!(recorder.samples().len(), 2);
}

#[test]
fn a_file_is_read_as_it_was_written_and_cases_of_another_are_added() {
    let place = tempfile::tempdir().unwrap();
    let (file, other) = (place.path().join("stage-one.json"), place.path().join("other"));
    let mut recorder = begin_in(place.path(), "a", None);
    recorder.note("\"samples\": []").unwrap();
    let empty = recorder.results.clone();
    assert_eq!(Results::read(&file).unwrap(), empty);
    take(&mut recorder, "usb normal", "SINO", 1);
    take(&mut recorder, "cd normal", "SINO", 1);
    let before = recorder.finish().unwrap();
    assert_eq!(Results::read(&file).unwrap(), before);
    assert_eq!(empty.clone().or_before(before.clone()).samples, before.samples);
    let mut recorder = begin_in(&other, "b", None);
    take(&mut recorder, "usb normal", "SINO", 1);
    take(&mut recorder, "usb normal", "SINO", 2);
    let merged = recorder.results.clone().or_before(before.clone());
    let rounds: Vec<(&str, u32)> = merged.samples.iter().map(|one| (one.case.as_str(), one.round)).collect();
    assert_eq!(rounds, [("usb normal", 1), ("usb normal", 2), ("cd normal", 1)]);
    assert!(merged.runs["usb normal"].of.contains("build b,") && merged.runs["cd normal"].of.contains("build a,"));
    assert!(merged.complete && !recorder.results.complete);
    // One with more rounds stays.
    let mut longer = before.clone();
    longer.runs.get_mut("usb normal").unwrap().rounds = (1..=3).map(|round| (round, Vec::new())).collect();
    let merged = recorder.results.clone().or_before(longer);
    assert!(merged.runs["usb normal"].of.contains("build a,") && merged.samples.len() == 2, "{merged:?}");
    // So does a row, until there is a whole round.
    let row = |case: &str| Printed { case: case.into(), ..Printed::default() };
    let printed = Results { printed: vec![row("usb normal")], samples: Vec::new(), ..before.clone() };
    let merged = recorder.results.clone().or_before(printed.clone());
    assert!(merged.printed.len() == 1 && merged.samples.is_empty(), "{merged:?}");
    let mut whole = recorder.results.clone();
    whole.runs.get_mut("usb normal").unwrap().rounds.insert(1, Vec::new());
    let merged = whole.or_before(printed);
    assert!(merged.printed.is_empty() && merged.samples.len() == 2, "{merged:?}");
    let elsewhere = Results { machine: Machine { cores: 64, ..Machine::default() }, ..before };
    assert_eq!(recorder.results.clone().or_before(elsewhere), recorder.results);
}

#[test]
fn values_are_shown_as_one_says_them() {
    assert_eq!(Unit::Seconds.show(0.0123), "12.3 ms");
    assert_eq!(Unit::Seconds.show(3.456), "3.46 s");
    assert_eq!(Unit::Bytes.show(6_000_000.0), "6.00 MB");
    assert_eq!(Unit::Kibibytes.show(2048.0), "2.0 MiB");
}
