//! From power-on to the guests, and off again: the product's own image under Xen, beside the same Debian with live-boot and
//! xendomains (`debian_host`).
//!
//! Xen, kernel, machine, disk and guests are the same: one virtual CPU, 4 GiB of memory of which domain 0 has one, the medium on
//! virtio, Xen and the kernel put into memory by QEMU, so no firmware and no boot loader; a disk with the group `xvg`, on which
//! `/srv` and the guests' volumes are, prepared anew for each boot. The guests are small PV guests that are ready when their
//! network, the xenstore and their disk work; each writes the time of that on its disk. The same units of Debian's are masked
//! ([`crate::host::FAST`]). Until all guests have answered on the network nobody logs in, and nothing else asks the host anything.
//!
//! When a domain was created stands in the xenstore, by xl's hand; all times are by domain 0's clock, from its "Run /init".

mod debian_host;

use super::contenders::Kit;
use super::{Recorder, SINO, SINO_AGAIN, Settings, Unit};
use crate::guest_payload::READY;
use crate::host::{Host, Setup};
use crate::hosts::guests::seen;
use crate::images::Images;
use crate::lab::{self, Disk, LAN, Lab};
use crate::scenario::Image;
use crate::tiny_root;
use anyhow::{Context, Result, bail, ensure};
use debian_host::DebianHost;
use sino_image::guests::config::Kind;
use sino_image::guests::show::PORT;
use sino_image::guests::{Content, Guest, prepare_disk};
use sino_image::qemu::{Bus, EndReason};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The measure.
pub const NAME: &str = "guests";
/// How many guests; the short form has the first.
const CASES: [u32; 2] = [1, 4];
/// How long a host may take from power-on until it is off again.
const WITHIN: Duration = Duration::from_secs(2400);
/// How long all guests may take until they answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1200);
/// How long a shutdown with all guests may take.
const OFF_WITHIN: Duration = Duration::from_secs(600);
/// A guest's memory in MiB, as in the trials.
const MEMORY_MIB: u32 = 96;
/// The disk's size in MiB, and that of `/srv` on it.
const DISK_MIB: u64 = 2048;
const SRV_MIB: u64 = 512;
/// How long SINO gives a guest until it is ready, in seconds; emulated, it takes long.
const READY_WITHIN: u32 = 400;

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Sino,
    LiveBoot,
    Again,
}

impl Who {
    const ALL: [Self; 3] = [Self::Sino, Self::LiveBoot, Self::Again];
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sino => SINO,
            Self::LiveBoot => "live-boot + xendomains",
            Self::Again => SINO_AGAIN,
        })
    }
}

/// What one power-on, and one power-off, came to, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    kernel_to_init: f64,
    first_created: f64,
    all_ready: f64,
    multi_user: f64,
    /// By the host's clock, from QEMU's start until the last guest has answered on the network; looked at every two seconds.
    answering: f64,
    /// By the host's clock, from `poweroff` until the machine is off.
    off: f64,
}

fn case(number: u32) -> String {
    if number == 1 { "1 guest".to_owned() } else { format!("{number} guests") }
}

/// The names of the cases.
#[must_use]
pub fn cases() -> Vec<String> {
    CASES.into_iter().map(case).collect()
}

/// Measures it.
///
/// # Errors
/// The image is missing, or what the other host boots from cannot be made. A run that fails is told, and left out.
pub fn measure(recorder: &mut Recorder, settings: &Settings) -> Result<()> {
    let images = Images::default();
    let kit = Kit::get()?;
    let debian = DebianHost::make(&images.get(Image::Real)?, kit)?;
    super::vm::note_versions(recorder, kit)?;
    let cases = if settings.short { CASES.get(..1).unwrap_or_default() } else { &CASES };
    for &number in cases {
        let case = case(number);
        if !settings.wants(&case) {
            continue;
        }
        // What the machine's noise is, the first case shows; each boot takes minutes.
        let takes_part = |who: &Who| settings.wants_contender(&who.to_string()) && (*who != Who::Again || number == 1);
        let all: Vec<Who> = Who::ALL.into_iter().filter(takes_part).collect();
        recorder.in_turns(&case, settings.rounds, &all, |recorder, &who, round| {
            let figures = match trial(&images, &debian, who, number) {
                Ok(figures) => figures,
                Err(error) => return recorder.failed(&case, &who.to_string(), round, &error),
            };
            let all = [
                ("init-to-first-created", figures.first_created),
                ("init-to-all-ready", figures.all_ready),
                ("init-to-multi-user", figures.multi_user),
                ("kernel-to-init", figures.kernel_to_init),
                ("power-on to all answering", figures.answering),
                ("power-off", figures.off),
            ];
            all.into_iter().try_for_each(|(figure, value)| {
                recorder.record(&case, &who.to_string(), figure, round, Unit::Seconds, value)
            })
        })?;
    }
    Ok(())
}

/// One host, on and off.
fn trial(images: &Images, debian: &DebianHost, who: Who, number: u32) -> Result<Figures> {
    let mut lab = Lab::open("bench-guests", images, WITHIN)?;
    let artifacts = lab.folder.display().to_string();
    once(&mut lab, debian, who, number).with_context(|| format!("its files, until the next run: {artifacts}"))
}

fn once(lab: &mut Lab, debian: &DebianHost, who: Who, number: u32) -> Result<Figures> {
    lab.lan.start(&lab.namespace, &lab::Settings::default())?;
    let card = lab.card("virtio-net-pci", Some(LAN))?;
    let guests = guests(number);
    let disk = prepared(lab, &guests)?;
    let mut setup = Setup::direct(&[card], std::slice::from_ref(&disk)).on_xen();
    if who == Who::LiveBoot {
        lab.image.iso.clone_from(&debian.medium);
        lab.image.initramfs.clone_from(&debian.initramfs);
        setup = Setup { stage_one: false, ..setup.with("boot=live") };
    }
    let began = Instant::now();
    let mut host = Host::begin(lab, &setup)?;
    for guest in &guests {
        let name = &guest.orders.name;
        let (address, _) = guest.orders.address.with_context(|| format!("{name} has no address"))?;
        let answer =
            seen::wait_for_answer(lab, address, ANSWER_WITHIN).with_context(|| format!("waiting for {name}"))?;
        ensure!(answer.name == *name, "at {address} is not {name} but {}", answer.name);
    }
    let answering = began.elapsed().as_secs_f64();
    host.log_in()?;
    let state = host.settle()?;
    ensure!(state == "running" || state == "degraded", "Debian does not come up: systemd says {state}");
    let clock = Clock::of(&mut host)?;
    let multi_user = host.do_("systemctl show -P ActiveEnterTimestampMonotonic multi-user.target")?;
    let multi_user: f64 = multi_user.parse().with_context(|| format!("multi-user since {multi_user:?}"))?;
    let mut created = Vec::new();
    for guest in &guests {
        created.push(seen::moment(&mut host, &guest.orders.name)?);
    }
    let asked = Instant::now();
    host.type_line("poweroff")?;
    let reason = host.guest()?.wait_for_end_reason(OFF_WITHIN).context("switching the host off")?;
    ensure!(reason == EndReason::Off, "the machine was reset instead of switched off");
    let off = asked.elapsed().as_secs_f64();
    host.pull_the_plug();
    let mut ready = Vec::new();
    for guest in &guests {
        let record = seen::record(&disk, &guest.orders.name)?;
        ready
            .push(readiness(&record).with_context(|| format!("{} was not ready once: {record:?}", guest.orders.name))?);
    }
    let figures = Figures {
        kernel_to_init: clock.init,
        first_created: clock.since_init(created.into_iter().fold(f64::MAX, f64::min)),
        all_ready: clock.since_init(ready.into_iter().fold(0.0, f64::max)),
        multi_user: multi_user / 1e6 - clock.init,
        answering,
        off,
    };
    // Clocks that do not go together would show here.
    ensure!(
        figures.first_created > 0.0 && figures.all_ready > figures.first_created && figures.multi_user > 0.0,
        "these times cannot be: {figures:?}"
    );
    ensure!(figures.all_ready < answering + 5.0, "ready only after they have answered: {figures:?}");
    Ok(figures)
}

/// The guests, whose addresses end with 61, 62, ...
fn guests(number: u32) -> Vec<Guest> {
    let guest = |last: u8| {
        let name = format!("g{}", last - 60);
        let disk = format!("/dev/xvg/{name}");
        Guest::new(Kind::Pv, &name, MEMORY_MIB).at(Ipv4Addr::new(192, 0, 2, last), PORT).with_disk(&disk)
    };
    (61..=254).take(number as usize).map(guest).collect()
}

/// What SINO is told; xendomains has nothing of that kind.
fn configuration(guests: &[Guest]) -> String {
    guests.iter().fold(String::new(), |mut text, guest| {
        let name = &guest.orders.name;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[guest.{name}]\nready = \"xenstore data/ready=1\"\nready_timeout = {READY_WITHIN}\n");
        text
    })
}

fn prepared(lab: &Lab, guests: &[Guest]) -> Result<Disk> {
    let disk = lab.disk("one", Bus::Virtio, DISK_MIB)?;
    let content = Content {
        iso: &lab.image.iso,
        payload: &tiny_root::programs()?.join("sino-guest"),
        guests,
        configuration: &configuration(guests),
        files: &[],
        volumes: &[],
        srv_mib: SRV_MIB,
    };
    prepare_disk(&disk.file, DISK_MIB, &content)?;
    Ok(disk)
}

/// Domain 0's clock, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Clock {
    /// When its kernel started, since 1970.
    kernel: f64,
    /// When its kernel executed `/init`, since it started.
    init: f64,
}

impl Clock {
    fn of(host: &mut Host) -> Result<Self> {
        // Both at once, without a program in between.
        let now = host.do_("read up idle < /proc/uptime; echo $EPOCHREALTIME $up")?;
        let init = host.do_("dmesg | grep -m1 'Run /init as init process'")?;
        Self::parse(&now, &init).with_context(|| format!("domain 0's clock: {now:?}, {init:?}"))
    }

    fn parse(now: &str, init: &str) -> Option<Self> {
        let (now, up) = now.trim().split_once(' ')?;
        // A locale may write a comma.
        let seconds = |text: &str| text.replace(',', ".").parse::<f64>().ok();
        let init = init.trim().strip_prefix('[')?.split_once(']')?.0;
        Some(Self { kernel: seconds(now)? - seconds(up)?, init: init.trim().parse().ok()? })
    }

    /// Seconds from `/init` to this moment, which is since 1970.
    fn since_init(self, moment: f64) -> f64 {
        moment - self.kernel - self.init
    }
}

/// When a guest was ready, in seconds since 1970, from its record. It is ready once: no guest starts twice here.
fn readiness(record: &[String]) -> Result<f64> {
    let mut times = record.iter().filter_map(|line| line.strip_suffix(READY)?.trim().parse::<f64>().ok());
    match (times.next(), times.next()) {
        (Some(time), None) => Ok(time),
        (None, _) => bail!("it never was"),
        (Some(_), Some(_)) => bail!("it was more than once"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_init() {
        let clock = Clock::parse("1795442677.500000 100.50\n", "[   19.250000] Run /init as init process\n").unwrap();
        assert_eq!(clock, Clock { kernel: 1_795_442_577.0, init: 19.25 });
        assert!((clock.since_init(1_795_442_600.0) - 3.75).abs() < 1e-6);
        assert_eq!(Clock::parse("1795442677,5 100.50", "[19.25] x"), Some(clock));
        assert_eq!(Clock::parse("100.50", "[19.25] x"), None);
    }

    #[test]
    fn a_guest_is_ready_once() {
        let record = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        assert!((readiness(&record(&["7.000 started", "9.250 ready"])).unwrap() - 9.25).abs() < 1e-9);
        assert!(readiness(&record(&["7.000 started"])).is_err());
        assert!(readiness(&record(&["1.0 ready", "2.0 ready"])).is_err());
    }

    #[test]
    fn guests_differ_and_sino_knows_each() {
        let guests = guests(4);
        let told: toml::Table = configuration(&guests).parse().unwrap();
        assert_eq!(told["guest"].as_table().unwrap().len(), 4);
        let mut addresses: Vec<_> = guests.iter().filter_map(|guest| guest.orders.address).collect();
        addresses.dedup();
        assert_eq!(addresses.len(), 4);
    }
}
