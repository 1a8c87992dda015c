//! The engine and its driver against a fake xl (`init/examples/fake-xl`): guests are started in their order, tried again, stopped
//! in the reverse order, and each ends in one state. Only the deaths of domains, which need a xenstored, are looked for here.
//!
//! Run alone, it needs the fake built: `cargo build -p sino-init --example fake-xl`.

use sino_boot::record::now_us;
use sino_init::guests::driver::{Driver, Places, Told};
use sino_init::guests::engine::{Action, Engine, Event, Filter, Reason, Spec, State};
use sino_init::guests::making::Making;
use sino_init::guests::ready::Ready;
use sino_init::guests::settings::{Guest, StopAs};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

#[path = "fake-xl/lab.rs"]
mod lab;
use lab::{Lab, soon};

/// How often it is looked which domains are gone.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

struct Host {
    lab: Lab,
    engine: Engine,
    driver: Driver,
    answers: Receiver<Told>,
    notes: Vec<String>,
}

impl Host {
    fn new(script: &str, guests: &[(&str, Guest)]) -> Self {
        let lab = Lab::new(script);
        let (sender, answers) = channel();
        let places = Places { consoles: lab.path("consoles"), saved: lab.path("saved") };
        std::fs::create_dir(&places.consoles).unwrap();
        let mut driver = Driver::new(
            lab.xl.clone(),
            places,
            Making::default(),
            Arc::new(move |told| sender.send(told).unwrap_or_default()),
        );
        let files: BTreeMap<String, PathBuf> =
            guests.iter().map(|(name, _)| ((*name).to_owned(), lab.guest(name, "memory = 64"))).collect();
        driver.files(files);
        let spec = |(name, guest): &(&str, Guest)| Spec {
            name: (*name).to_owned(),
            guest: guest.clone(),
            saved: false,
            refused: None,
        };
        let mut host = Self {
            engine: Engine::new(guests.iter().map(spec).collect(), 4, now_us()),
            lab,
            driver,
            answers,
            notes: vec![],
        };
        host.step(Event::DaemonsUp);
        host
    }

    fn step(&mut self, event: Event) {
        for action in self.engine.step(event, now_us()) {
            if let Action::Note { text, .. } = &action {
                self.notes.push(text.clone());
            }
            self.driver.act(action);
        }
    }

    /// Goes on until it is so, a minute at most.
    fn until(&mut self, is_so: impl Fn(&Engine) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        let mut look = Instant::now();
        while !is_so(&self.engine) {
            assert!(Instant::now() < end, "never so: {:#?}\n{:#?}", self.engine.report(), self.notes);
            match self.answers.recv_timeout(LOOKS_EVERY) {
                Ok(told) if self.driver.takes(&told) => self.step(told.event),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => self.step(Event::Tick),
                Err(error) => panic!("{error}"),
            }
            if look.elapsed() > LOOKS_EVERY {
                self.gone();
                look = Instant::now();
            }
        }
    }

    fn gone(&mut self) {
        let there = self.lab.xl.list(soon(60_000)).unwrap();
        for guest in self.engine.report() {
            if let Some(domid) = guest.domid
                && !self.driver.works_on(&guest.name)
                && !there.iter().any(|domain| domain.id == domid)
            {
                self.step(Event::Gone { name: guest.name, domid, reason: Reason::PowerOff });
            }
        }
    }

    /// When a call of xl for this guest began first, in ms.
    fn began(&self, command: &str, name: &str) -> u64 {
        let calls = self.lab.calls();
        let mut of = calls.iter().filter(|call| {
            call.arguments[0] == command && call.arguments.last().is_some_and(|last| last.contains(name))
        });
        of.next().unwrap_or_else(|| panic!("no xl {command} {name}: {calls:#?}")).began
    }
}

fn after(names: &[&str]) -> Guest {
    Guest { after: names.iter().map(|&name| name.to_owned()).collect(), ready: Ready::Running, ..Guest::default() }
}

#[test]
fn guests_come_in_their_order_and_go_in_the_reverse_one() {
    let script = "[guest.db.create]\nms = 300\n[guest.db.shutdown]\nms = 200\n[guest.web.shutdown]\nms = 200\n";
    let guests = [("web", after(&["db"])), ("db", after(&[])), ("mail", after(&[]))];
    let mut host = Host::new(script, &guests);
    host.step(Event::StartAll { filter: Filter::All });
    host.until(|engine| engine.report().iter().all(|guest| guest.state == "ready"));
    assert!(host.engine.first_wave_created());
    assert!(host.began("create", "web") >= host.began("create", "db") + 300);
    assert_eq!(host.lab.names(), ["db", "mail", "web"]);
    host.step(Event::StopAll { until_us: now_us() + 60_000_000 });
    host.until(|engine| engine.is_settled() && engine.report().iter().all(|guest| guest.state == "stopped"));
    assert!(host.began("shutdown", "db") >= host.began("shutdown", "web") + 200);
    assert!(host.lab.names().is_empty());
}

#[test]
fn what_fails_is_tried_again_and_what_cannot_be_is_reported_with_the_cause() {
    let script = "[guest.once.create]\nfail_first = 1\n[guest.never.create]\nfail_first = 99\n";
    let never = Guest { retries: 0, ..after(&[]) };
    let mut host = Host::new(script, &[("once", after(&[])), ("never", never), ("behind", after(&["never"]))]);
    host.step(Event::StartAll { filter: Filter::All });
    host.until(Engine::is_settled);
    let report = host.engine.report();
    let of = |name: &str| report.iter().find(|guest| guest.name == name).unwrap();
    assert_eq!((of("once").state.as_str(), of("once").tries), ("ready", 2));
    assert_eq!(of("never").state, "failed");
    assert!(of("never").cause.contains("unable to add disk devices"), "{}", of("never").cause);
    assert_eq!(of("behind").state, "ready", "on_failure is continue");
}

#[test]
fn a_guest_is_saved_and_goes_on_from_there() {
    let guest = Guest { stop: StopAs::Save, stop_timeout: 1, ..after(&[]) };
    let mut host = Host::new("[guest.vm]\nignores = true\n", &[("vm", guest)]);
    host.step(Event::StartAll { filter: Filter::All });
    host.until(|engine| matches!(engine.state("vm"), Some(State::Ready { .. })));
    host.step(Event::StopAll { until_us: now_us() + 60_000_000 });
    host.until(|engine| engine.state("vm") == Some(&State::Saved));
    assert!(host.lab.path("saved/vm.save").is_file());
    host.step(Event::Start { name: "vm".into() });
    host.until(|engine| matches!(engine.state("vm"), Some(State::Ready { .. })));
    assert!(!host.lab.path("saved/vm.save").exists(), "it must not be resumed twice");
    host.began("restore", "vm.save");
}
