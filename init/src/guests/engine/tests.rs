//! Each rule, one by one.

use super::start::pause;
use super::world::{Behaviour, Outcome, World};
use super::*;

/// Guests from the text that an administrator writes.
pub(super) fn specs(text: &str) -> Vec<Spec> {
    let guests: BTreeMap<String, Guest> = toml::from_str(text).unwrap();
    guests.into_iter().map(|(name, guest)| Spec { name, guest, saved: false, refused: None }).collect()
}

pub(super) fn world(text: &str, behaviours: &[(&str, Behaviour)]) -> World {
    let specs = specs(text);
    let given: BTreeMap<_, _> = behaviours.iter().cloned().collect();
    let behaviour = |spec: &Spec| (spec.name.clone(), given.get(spec.name.as_str()).cloned().unwrap_or_default());
    let behaviours = specs.iter().map(behaviour).collect();
    World::new(specs, behaviours, 8)
}

/// The same, started.
pub(super) fn started(text: &str, behaviours: &[(&str, Behaviour)]) -> World {
    let mut world = world(text, behaviours);
    begin(&mut world);
    world
}

pub(super) fn begin(world: &mut World) {
    world.feed(Event::DaemonsUp);
    world.feed(Event::StartAll { filter: Filter::All });
}

pub(super) fn state(world: &World, name: &str) -> String {
    let report = world.engine.report().into_iter().find(|guest| guest.name == name).unwrap();
    if report.cause.is_empty() { report.state } else { format!("{}: {}", report.state, report.cause) }
}

/// What was done, as `SECONDS ACTION NAME`, without probes and notes.
pub(super) fn done(world: &World) -> Vec<String> {
    let told = |(at, action): &(u64, Action)| {
        let (what, name) = match action {
            Action::Create { name, attempt: 1 } => ("create".to_owned(), name),
            Action::Create { name, attempt } => (format!("create-{attempt}"), name),
            Action::Restore { name } => ("restore".to_owned(), name),
            Action::Discard { name } => ("discard".to_owned(), name),
            Action::Shutdown { name } => ("shutdown".to_owned(), name),
            Action::Save { name } => ("save".to_owned(), name),
            Action::Destroy { name } => ("destroy".to_owned(), name),
            _ => return None,
        };
        Some(format!("{} {what} {name}", *at as f64 / 1e6))
    };
    world.log.iter().filter_map(told).collect()
}

pub(super) fn fails() -> Behaviour {
    Behaviour { creates: vec![Outcome::Fails], ..Behaviour::default() }
}

pub(super) fn never_ready() -> Behaviour {
    Behaviour { ready_us: None, ..Behaviour::default() }
}

pub(super) fn deaf() -> Behaviour {
    Behaviour { shutdown_us: None, ..Behaviour::default() }
}

pub(super) fn ends(ends: &[(u64, Reason)]) -> Behaviour {
    Behaviour { ends: ends.iter().map(|(after, reason)| (after * SECOND, *reason)).collect(), ..Behaviour::default() }
}

const PAIR: &str = "[db]\nready = 'ping 192.0.2.1'\n[web]\nafter = ['db']\n";
const HOLDING: &str =
    "[db]\nready = 'ping 192.0.2.1'\non_failure = 'hold-dependents'\n[web]\nafter = ['db']\n[app]\nafter = ['web']\n";

#[test]
fn the_pauses_double_up_to_five_minutes() {
    let pauses = [1, 2, 3, 6, 7, 8, 100, u32::MAX].map(|number| pause(number) / SECOND);
    assert_eq!(pauses, [5, 10, 20, 160, 300, 300, 300, 300]);
}

#[test]
fn a_guest_waits_until_those_before_it_are_ready() {
    let mut world = started(PAIR, &[]);
    assert_eq!(state(&world, "web"), "waiting: for db");
    world.settle();
    assert_eq!(done(&world), ["0 create db", "12 create web"]);
    let report = &world.engine.report()[0];
    assert_eq!((report.created_us, report.ready_us, report.tries), (Some(2 * SECOND), Some(12 * SECOND), 1));
}

#[test]
fn nothing_starts_before_the_daemons_and_the_order_decides_who_is_first() {
    let mut world = world("[a]\n[b]\norder = -1\n[c]\n[d]\norder = 7\n", &[]);
    world.engine = Engine::new(specs("[a]\n[b]\norder = -1\n[c]\n[d]\norder = 7\n"), 2, 0);
    world.parallel = 2;
    world.feed(Event::StartAll { filter: Filter::All });
    assert_eq!((done(&world).len(), world.engine.next_deadline()), (0, None));
    world.feed(Event::DaemonsUp);
    world.settle();
    assert_eq!(done(&world), ["0 create b", "0 create a", "2 create c", "2 create d"]);
}

#[test]
fn daemons_that_are_lost_cost_no_try() {
    let flaky = Behaviour { creates: vec![Outcome::Fails, Outcome::Works], ..Behaviour::default() };
    let mut world = started("[a]\nretries = 0\n", &[("a", flaky)]);
    world.feed(Event::DaemonsLost);
    world.run_until(100 * SECOND);
    assert_eq!(state(&world, "a"), "waiting: its turn comes; no such? disk");
    world.feed(Event::DaemonsUp);
    world.settle();
    assert_eq!((state(&world, "a"), done(&world).len()), ("ready".into(), 2));
}

#[test]
fn a_delay_counts_from_when_nothing_else_is_in_the_way() {
    let mut world = started("[a]\n[b]\nafter = ['a']\ndelay = 7\n", &[]);
    world.run_until(3 * SECOND);
    assert_eq!(state(&world, "b"), "delayed: until 9.0 s");
    world.settle();
    assert_eq!(done(&world), ["0 create a", "9 create b"]);
}

#[test]
fn a_failed_create_is_tried_again_with_growing_pauses_and_then_given_up() {
    let mut world = started("[a]\nretries = 2\n[b]\nafter = ['a']\n", &[("a", fails())]);
    world.run_until(3 * SECOND);
    assert_eq!(state(&world, "a"), "backing off: no such? disk; again at 7.0 s");
    world.settle();
    assert_eq!(done(&world), ["0 create a", "7 create-2 a", "19 create-3 a", "21 create b"]);
    assert_eq!(state(&world, "a"), "failed: no such? disk (try 3 of 3)");
    assert_eq!(state(&world, "b"), "ready");
}

#[test]
fn what_a_hanging_create_leaves_is_destroyed_before_the_next_try() {
    let hangs = Behaviour { creates: vec![Outcome::Hangs, Outcome::Works], ..Behaviour::default() };
    let mut world = started("[a]\n", &[("a", hangs)]);
    world.settle();
    assert_eq!(done(&world), ["0 create a", "20 destroy a", "25 create-2 a"]);
    assert_eq!(state(&world, "a"), "ready");
}

#[test]
fn a_guest_that_fails_holds_those_after_it_only_if_that_is_wanted_and_only_until_it_is_ready() {
    let flaky = Behaviour { creates: vec![Outcome::Fails, Outcome::Works], ..Behaviour::default() };
    let mut world = started(&format!("{HOLDING}[db.x]\n").replace("[db.x]\n", ""), &[("db", flaky)]);
    world.engine.guests.get_mut("db").unwrap().spec.guest.retries = 0;
    world.settle();
    assert_eq!(state(&world, "web"), "held: db is not ready");
    // "web" itself does not hold anybody.
    assert_eq!(state(&world, "app"), "ready");
    world.feed(Event::Start { name: "db".into() });
    world.settle();
    assert_eq!(state(&world, "web"), "ready");
}

#[test]
fn a_guest_that_is_late_is_left_running_and_said_and_may_still_get_ready() {
    let late = Behaviour { ready_us: Some(150 * SECOND), ..Behaviour::default() };
    let mut world = started(HOLDING, &[("db", late)]);
    world.run_until(125 * SECOND);
    assert_eq!(state(&world, "db"), "not ready: not ready within 120 s (ping 192.0.2.1)");
    assert_eq!(state(&world, "web"), "held: db is not ready");
    world.settle();
    assert_eq!((state(&world, "db"), state(&world, "web")), ("ready".into(), "ready".into()));
    assert_eq!(done(&world), ["0 create db", "122 create app", "152 create web"]);

    let mut world = started(PAIR, &[("db", never_ready())]);
    world.settle();
    assert_eq!(done(&world), ["0 create db", "122 create web"]);
    assert!(state(&world, "db").starts_with("not ready: not ready"), "{}", state(&world, "db"));
}

#[test]
fn a_probe_that_cannot_work_is_told_at_once_and_not_repeated_at_once() {
    let mut engine = Engine::new(specs("[a]\nready = 'console \"[\"'\n"), 2, 0);
    let _ = engine.step(Event::DaemonsUp, 0);
    let _ = engine.step(Event::StartAll { filter: Filter::All }, 0);
    let actions = engine.step(Event::Created { name: "a".into(), result: Ok(4) }, SECOND);
    assert!(
        actions.iter().any(
            |action| matches!(action, Action::Probe { domid: 4, deadline_us, .. } if *deadline_us == 121 * SECOND)
        )
    );
    let stale = engine.step(Event::Probed { name: "a".into(), domid: 3, result: Ok(()) }, SECOND);
    assert_eq!((stale, engine.state("a").unwrap().word()), (vec![], "created"));
    let actions = engine.step(Event::Probed { name: "a".into(), domid: 4, result: Err("no regex".into()) }, SECOND);
    assert!(!actions.iter().any(|action| matches!(action, Action::Probe { .. })));
    assert_eq!(
        (engine.report()[0].cause.as_str(), engine.next_deadline()),
        ("not ready: no regex", Some(121 * SECOND))
    );
    let actions = engine.step(Event::Tick, 121 * SECOND);
    assert!(actions.iter().any(|action| matches!(action, Action::Probe { .. })));
}

#[test]
fn refused_guests_and_members_of_a_cycle_do_not_start_and_those_after_them_follow_their_wish() {
    let mut all = specs(
        "[big]\non_failure = 'hold-dependents'\n[a]\nafter = ['b']\n[b]\nafter = ['a']\n[c]\nafter = ['b']\n[d]\nafter = ['big']\n[e]\nafter = ['nobody']\n",
    );
    all.iter_mut().find(|spec| spec.name == "big").unwrap().refused = Some("does not fit".into());
    let behaviours = all.iter().map(|spec| (spec.name.clone(), Behaviour::default())).collect();
    let mut world = World::new(all, behaviours, 8);
    begin(&mut world);
    world.settle();
    let states: Vec<String> = ["big", "a", "b", "c", "d", "e"].map(|name| state(&world, name)).into();
    assert_eq!(
        states,
        [
            "refused: does not fit",
            "refused: it waits for itself: a -> b -> a",
            "refused: it waits for itself: a -> b -> a",
            "ready",
            "held: big is not ready",
            "ready"
        ]
    );
    // By hand a guest of a cycle starts alone.
    world.feed(Event::Start { name: "a".into() });
    world.settle();
    assert_eq!(state(&world, "a"), "ready");
}

#[test]
fn the_filter_of_the_command_line_decides_what_starts() {
    let text = "[a]\n[b]\nafter = ['a']\n[hand]\nautostart = false\n";
    for (filter, expected) in [
        (Filter::All, vec!["0 create a", "2 create b"]),
        (Filter::Off, vec![]),
        (Filter::Only(vec!["b".into(), "hand".into(), "hnad".into()]), vec!["0 create b", "0 create hand"]),
    ] {
        let mut world = world(text, &[]);
        world.feed(Event::DaemonsUp);
        world.feed(Event::StartAll { filter: filter.clone() });
        world.settle();
        assert_eq!(done(&world), expected, "{filter:?}");
        let told = world.log.iter().any(|(_, action)| {
            matches!(action, Action::Note { text, warning: true } if text == "there is no guest hnad; did you mean hand?")
        });
        assert_eq!(told, matches!(filter, Filter::Only(_)));
        assert!(world.engine.first_wave_created());
    }
}

#[test]
fn the_first_wave_is_over_when_each_that_waits_for_nobody_was_tried_once() {
    let text = "[a]\n[late]\ndelay = 60\n[bad]\n[web]\nafter = ['a']\n";
    let slow = Behaviour { create_us: 6 * SECOND, ..Behaviour::default() };
    let mut world = world(text, &[("bad", fails()), ("a", slow)]);
    assert!(!world.engine.first_wave_created());
    begin(&mut world);
    world.run_until(5 * SECOND);
    assert!(!world.engine.first_wave_created());
    world.run_until(6 * SECOND);
    assert!(world.engine.first_wave_created());
}

#[test]
fn a_crash_is_followed_by_a_restart_until_the_limit_of_the_hour() {
    let crashes = ends(&[(20, Reason::Crash), (20, Reason::Crash), (20, Reason::Crash)]);
    let mut world = started("[a]\nrestarts_per_hour = 2\n", &[("a", crashes.clone())]);
    world.settle();
    assert_eq!(done(&world), ["0 create a", "27 create a", "59 create a"]);
    assert!(state(&world, "a").starts_with("failed: crashed, and was started again 2 times"), "{}", state(&world, "a"));
    assert_eq!(world.engine.report()[0].restarts, 2);
    let mut world = started("[a]\nrestart = 'no'\n", &[("a", crashes)]);
    world.settle();
    assert_eq!(state(&world, "a"), "crashed: crashed 20 s after its start");
    // An hour later the crashes before count no more.
    let seldom = ends(&[(20, Reason::Crash), (3700, Reason::Crash), (3700, Reason::Crash)]);
    let mut world = started("[a]\nrestarts_per_hour = 1\n", &[("a", seldom)]);
    world.settle();
    assert_eq!((state(&world, "a"), world.engine.report()[0].restarts), ("ready".into(), 3));
}

#[test]
fn what_a_guest_does_itself_decides_with_the_policy_whether_it_comes_back() {
    use Reason::{Destroyed, PowerOff, Reboot, Suspend, Unknown};
    for (restart, reason, creates, expected) in [
        ("always", PowerOff, 2, "ready"),
        ("on-crash", PowerOff, 1, "stopped: powered itself off"),
        ("no", PowerOff, 1, "stopped: powered itself off"),
        ("on-crash", Reboot, 2, "ready"),
        ("no", Reboot, 2, "ready"),
        ("always", Unknown, 2, "ready"),
        ("on-crash", Unknown, 1, "stopped: gone, and nobody saw why"),
        ("always", Destroyed, 1, "stopped: destroyed by somebody else"),
        ("always", Suspend, 1, "stopped: suspended by somebody else; xl restore resumes it"),
    ] {
        let mut world = started(&format!("[a]\nrestart = '{restart}'\n"), &[("a", ends(&[(60, reason)]))]);
        world.settle();
        assert_eq!((done(&world).len(), state(&world, "a").as_str()), (creates, expected), "{restart} {reason:?}");
    }
    // One that reboots as soon as it runs does so for ever.
    let reboots = ends(&[(2, Reboot), (2, Reboot), (2, Reboot), (2, Reboot), (2, Reboot)]);
    let mut world = started("[a]\n", &[("a", reboots)]);
    world.settle();
    assert!(state(&world, "a").starts_with("failed: wanted to reboot as soon as it ran"), "{}", state(&world, "a"));
}

#[test]
fn a_domain_that_is_gone_before_xl_tells_of_it_is_not_taken_for_running() {
    let mut engine = Engine::new(specs("[a]\nrestart = 'no'\n"), 2, 0);
    let _ = engine.step(Event::DaemonsUp, 0);
    let _ = engine.step(Event::StartAll { filter: Filter::All }, 0);
    let _ = engine.step(Event::Gone { name: "a".into(), domid: 7, reason: Reason::Crash }, 1);
    let _ = engine.step(Event::Created { name: "a".into(), result: Ok(7) }, 2);
    assert_eq!(engine.state("a").unwrap().word(), "crashed");
}

#[test]
fn the_table_says_how_each_is() {
    let mut world = started(PAIR, &[("web", fails())]);
    world.run_until(30 * SECOND);
    let mut reports = world.engine.report();
    (reports[0].memory_kib, reports[0].vcpus) = (Some(2 << 20), Some(4));
    assert_eq!(
        table(&reports, world.now),
        "GUEST  STATE        SINCE   MEMORY    VCPUS  UP      READY   RESTARTS  WHY\n\
         db     ready        18.0 s  2048 MiB  4      28.0 s  10.0 s  0\n\
         web    backing off  9.0 s   -         -      -       -       0         no such? disk; again at 31.0 s\n"
    );
    reports[1].cause = format!("xl says: {}", "much ".repeat(20).trim_end());
    let text = table(&reports, world.now);
    assert!(text.lines().take(3).all(|line| line.chars().count() <= 125), "{text}");
    assert!(text.ends_with(&format!("\nweb: {}\n", reports[1].cause)) && text.contains(" mu ...\n"), "{text}");
    let json = serde_json::to_value(&reports).unwrap();
    assert_eq!((&json[0]["state"], &json[1]["tries"]), (&"ready".into(), &2.into()));
}

#[test]
fn the_plan_says_what_would_start_when_and_what_would_not() {
    let mut all = specs(&format!(
        "{HOLDING}[big]\non_failure = 'hold-dependents'\n[c1]\nafter = ['c2', 'dbb']\n[c2]\nafter = ['c1']\n[d]\nafter = ['big']\n[hand]\nautostart = false\n[slow]\ndelay = 5\norder = 3\n"
    ));
    all.iter_mut().find(|spec| spec.name == "big").unwrap().refused = Some("needs 64 GiB, 12 GiB are free".into());
    assert_eq!(
        plan(&all, 4, &Filter::All),
        "4 guests start, 4 at a time\n\
         level 1\n  db    ready: ping 192.0.2.1; those after it are held if it fails\n  slow  order 3; delay 5 s\n\
         level 2\n  web  after db\n\
         level 3\n  app  after web\n\
         not started\n  big   needs 64 GiB, 12 GiB are free\n  c1    it waits for itself: c1 -> c2 -> c1\n  c2    it waits for itself: c1 -> c2 -> c1\n  \
         d     big is not ready\n  hand  it does not start by itself\n\
         problems\n  c1 is after dbb, which there is not; it does not wait for it; did you mean db?\n  \
         each of these waits for the next: c1 -> c2 -> c1; none of them is started, take one `after` away\n"
    );
}
