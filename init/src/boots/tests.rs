//! A boot that is kept, in a folder in place of `/`.

use super::record::tests::{ID, guest, seen};
use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const NAME_ENDS: &str = "Z-5f1c3a90.json";

fn userland(_: Option<&Cancel>) -> Result<Userland> {
    seen().userland.context("none")
}

/// A host whose systemd has finished.
fn host(folder: &Path) -> Places {
    for below in ["run/sino", "proc/sys/kernel/random", "srv"] {
        fs::create_dir_all(folder.join(below)).unwrap();
    }
    let places = Places {
        root: folder.to_owned(),
        store: Store::in_folder(&folder.join("srv")),
        userland,
        xen: || None,
        finish: &["sh", "-c", "echo degraded; exit 1"],
        now_us: || 20_000_000,
    };
    fs::write(places.path(BOOT_ID), format!("{ID}\n")).unwrap();
    seen().record.save(&places.path(layout::BOOT_RECORD)).unwrap();
    places
}

fn guests_are(places: &Places, guests: Vec<crate::guests::engine::GuestReport>) {
    let state = GuestsState { guests, ..GuestsState::default() };
    let path = places.path(layout::GUESTS_STATE);
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_string(&state).unwrap()).unwrap();
    fs::rename(new, path).unwrap();
}

fn handed_over(places: &Places) {
    fs::write(places.path(layout::HANDED_OVER), "").unwrap();
}

fn wait_for(what: &str, so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_file_for_each_boot_and_written_only_when_something_changed() {
    let folder = tempfile::tempdir().unwrap();
    let places = host(folder.path());
    guests_are(&places, vec![guest("db", "created", Some(12), None)]);
    let Kept::Written(name) = keep(&places, None).unwrap() else { panic!("not written") };
    assert!(name.ends_with(NAME_ENDS), "{name}");
    assert_eq!(keep(&places, None).unwrap(), Kept::AsItWas);
    guests_are(&places, vec![guest("db", "ready", Some(12), Some(20))]);
    assert_eq!(keep(&places, None).unwrap(), Kept::Written(name.clone()));
    // Its own file was damaged: written anew, under the same name.
    fs::write(places.store.path().join(&name), "}").unwrap();
    assert_eq!(keep(&places, None).unwrap(), Kept::Written(name.clone()));
    let listed = places.store.list().unwrap();
    assert_eq!((listed.boots.len(), listed.broken.len(), &listed.boots[0].0), (1, 0, &name));
    let guests = listed.boots[0].1.guests.clone().unwrap();
    assert_eq!(guests[0].ready_us, Some(20_000_000));
}

#[test]
fn what_systemd_has_finished_is_not_asked_for_again() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let folder = tempfile::tempdir().unwrap();
    let places = Places {
        userland: |_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            seen().userland.context("none")
        },
        ..host(folder.path())
    };
    for seconds in 13..16 {
        guests_are(&places, vec![guest("db", "ready", Some(12), Some(seconds))]);
        keep(&places, None).unwrap();
    }
    assert_eq!(ASKED.load(Ordering::SeqCst), 1);
}

#[test]
fn a_boot_without_systemd_or_guests_is_kept_too() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places { userland: |_| anyhow::bail!("it does not answer"), ..host(folder.path()) };
    let present = present(&places, None).unwrap();
    assert!(present.notes[0].contains("it does not answer"), "{:?}", present.notes);
    assert_eq!((present.boot.guests.is_none(), present.boot.is_over()), (true, false));
    assert!(matches!(keep(&places, None).unwrap(), Kept::Written(_)));
}

#[test]
fn a_boot_is_kept_when_it_is_over_and_again_when_a_guest_is_ready_later() {
    let folder = tempfile::tempdir().unwrap();
    let places = host(folder.path());
    let kept = || places.store.find(ID).unwrap().and_then(|(_, boot)| boot);
    let watch = Watch::start(places.clone()).unwrap();
    guests_are(&places, vec![guest("db", "ready", Some(12), Some(20)), guest("web", "created", Some(13), None)]);
    handed_over(&places);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(kept(), None);
    guests_are(&places, vec![guest("db", "ready", Some(12), Some(20)), guest("web", "not ready", Some(13), None)]);
    wait_for("it is kept when it is over", || kept().is_some_and(|boot| boot.is_over()));
    guests_are(&places, vec![guest("db", "ready", Some(12), Some(20)), guest("web", "ready", Some(13), Some(400))]);
    wait_for("the late guest is kept", || {
        kept().is_some_and(|boot| boot.guests.iter().flatten().all(|guest| guest.ready_us.is_some()))
    });
    assert!(!watch.is_finished());
    watch.stop();
}

#[test]
fn a_boot_that_is_never_over_is_kept_after_a_quarter_of_an_hour_and_not_followed_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places { finish: &["sleep", "1000"], now_us: || 15 * 60 * 1_000_000, ..host(folder.path()) };
    handed_over(&places);
    guests_are(&places, vec![guest("db", "created", Some(12), None)]);
    let kept = || places.store.find(ID).unwrap().is_some();
    let watch = Watch::start(places.clone()).unwrap();
    wait_for("it is kept", kept);
    watch.stop();
    fs::remove_dir_all(places.store.path()).unwrap();
    let watch = Watch::start(Places { now_us: || 3_600_000_001, ..places.clone() }).unwrap();
    wait_for("it ends by itself", || watch.is_finished());
    assert!(kept());
    watch.stop();
}

#[test]
fn a_boot_that_the_hosts_stop_ends_is_kept_without_asking_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places { userland: |_| panic!("systemd is busy"), xen: || panic!("so is xl"), ..host(folder.path()) };
    guests_are(&places, vec![guest("db", "created", Some(12), None)]);
    let Kept::Written(name) = keep_at_stop(&places).unwrap() else { panic!("not written") };
    let text = fs::read_to_string(places.store.path().join(&name)).unwrap();
    assert!(text.contains("\"ended_before_over\": true"), "{text}");
    assert_eq!(keep_at_stop(&places).unwrap(), Kept::AsItWas);
    // The watch does not take that back as long as the boot is not over.
    let places = Places { userland: |_| anyhow::bail!("it does not answer"), xen: || None, ..places };
    guests_are(&places, vec![guest("db", "stopped", None, None)]);
    keep(&places, None).unwrap();
    let kept = |places: &Places| places.store.find(ID).unwrap().and_then(|(_, boot)| boot).unwrap();
    assert!(kept(&places).ended_before_over);
    // One that is over is none that was cut short.
    let places = Places { userland, ..places };
    keep(&places, None).unwrap();
    assert!(kept(&places).is_over() && !kept(&places).ended_before_over);
    keep_at_stop(&places).unwrap();
    assert!(!kept(&places).ended_before_over);
    // Nor is one after an hour, of which nothing was kept because /srv came later.
    fs::remove_dir_all(places.store.path()).unwrap();
    let late = Places { now_us: || BOOT_ENDS + 1, ..places };
    assert_eq!((keep_at_stop(&late).unwrap(), late.store.find(ID).unwrap()), (Kept::AsItWas, None));
}

#[test]
fn what_is_known_when_it_is_stopped_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places { finish: &["sleep", "1000"], ..host(folder.path()) };
    handed_over(&places);
    guests_are(&places, vec![guest("db", "created", Some(12), None)]);
    let began = Instant::now();
    let watch = Watch::start(places.clone()).unwrap();
    watch.stop();
    assert!(began.elapsed() < Duration::from_secs(20));
    let (_, boot) = places.store.find(ID).unwrap().unwrap();
    assert_eq!(boot.unwrap().guests.unwrap()[0].name, "db");
}
