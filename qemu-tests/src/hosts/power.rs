//! Some boots in a row (twenty in the long set), each ended by the power, each with the same lease: asked for by name, never by a DHCPDISCOVER. Most
//! end as soon as the lease is confirmed; the last ones at random moments while what makes the host itself is changed over
//! and over. Afterwards each of it is what it was before or after a change, never half of it, and the volume is in use again
//! without anybody's help.
//!
//! A disk's own cache is not played ([`crate::host::Host::power_cut`]): what the guest's kernel had sent stays.

use super::check::{ends, is};
use super::product::{BRIDGE, KEPT_SECONDS, VOLUME, mounted, prepare, up};
use crate::host::{Host, Setup};
use crate::lab::{LAN, Lab, Settings};
use anyhow::{Context, Result};
use sino_image::qemu::Bus;
use std::time::{Duration, Instant, SystemTime};

/// How many boots there are, and in the long set.
const BOOTS: u32 = 6;
const MANY_BOOTS: u32 = 20;
/// How often the power fails while everything changes.
const CUTS: u32 = 3;
/// How long a host may take to its lease.
const LEASE: Duration = Duration::from_secs(150);
/// It fails within so many milliseconds after the changes began; each round of changes takes about two seconds.
const WITHIN_MS: u64 = 9000;
/// The two states between which the host goes to and fro: password, host name, and the comment of the one key that may log in.
const STATES: [&str; 2] = ["ebb", "flood"];
/// Does so without end.
const CHANGES: &str = "while :; do for s in ebb flood; do echo root:$s | chpasswd; hostnamectl set-hostname $s; \
                       ssh-keygen -q -c -C $s -P '' -f /root/.ssh/id >/dev/null && cp /root/.ssh/id.pub /root/.ssh/authorized_keys; \
                       date > /srv/file.new && mv /srv/file.new /srv/file; done; done";

/// The trial.
pub(super) fn run(lab: &mut Lab) -> Result<()> {
    cuts(lab, BOOTS)
}

/// The same with more boots.
pub(super) fn run_long(lab: &mut Lab) -> Result<()> {
    cuts(lab, MANY_BOOTS)
}

fn cuts(lab: &mut Lab, boots: u32) -> Result<()> {
    lab.lan.start(&lab.namespace, &Settings::default())?;
    let card = lab.card("virtio-net-pci", Some(LAN))?;
    let disk = lab.disk("one", Bus::Virtio, 2048)?;
    let mut host = Host::boot(lab, &Setup::direct(&[card], std::slice::from_ref(&disk)))?;
    host.settle()?;
    prepare(&mut host, &["virtio-one"], true)?;
    host.do_("mkdir -p /root/.ssh; ssh-keygen -q -t ed25519 -N '' -C ebb -f /root/.ssh/id; cp /root/.ssh/id.pub /root/.ssh/authorized_keys")?;
    host.do_("hostnamectl set-hostname ebb; echo root:ebb | chpasswd")?;
    host.do_(&format!("sleep {KEPT_SECONDS}; sync"))?;
    host.passwords = STATES.map(str::to_owned).to_vec();
    let host_key = host.do_("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")?;
    let machine = host.do_("cat /etc/machine-id")?;
    let user_key = host.do_("cut -d' ' -f1,2 /root/.ssh/authorized_keys")?;
    let mut lease = Lease::first(lab, host.mac(BRIDGE)?)?;
    // One was the first, and as many come after the random cuts; what was just made by hand must outlive all of them.
    for boot in 2..boots - CUTS {
        host.cut()?;
        lease.is_confirmed(lab, &host, &format!("boot {boot}"))?;
    }
    host.power_cut()?;
    for cut in 0..=CUTS {
        let when = format!("boot {}, after random cut {cut}", boots - CUTS + cut);
        lease.is_confirmed(lab, &host, &when)?;
        let state = host.settle()?;
        lab.expect(state == "running", format!("{when}: the host is {state:?}"));
        let mut wrong = host.check(&up())?;
        wrong.extend(host.check(&mounted(true))?);
        wrong.extend(host.check(&[
            is("hostname | grep -cxE 'ebb|flood'", "1"),
            is("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", &host_key),
            ends("diff <(ssh-keygen -yf /etc/ssh/ssh_host_ed25519_key | cut -c1-80) <(cut -c1-80 /etc/ssh/ssh_host_ed25519_key.pub)"),
            is("cat /etc/machine-id", &machine),
            is("cut -d' ' -f1,2 /root/.ssh/authorized_keys", &user_key),
            is("grep -c ^root:.y /etc/shadow", "1"),
            is("sort -u /sys/fs/ext4/dm-*/errors_count", "0"),
            ends("sino state list"),
        ])?);
        lab.note(&when, wrong);
        if cut < CUTS {
            let delay = random_ms()?;
            host.type_line(&format!("({CHANGES}) & # the power fails after {delay} ms"))?;
            std::thread::sleep(Duration::from_millis(delay));
            host.power_cut().with_context(|| format!("cut {} after {delay} ms of changes", cut + 1))?;
        }
    }
    host.power_off()?;
    let damage = disk.ext4_damage(VOLUME.0, VOLUME.1)?;
    lab.expect(damage.is_none(), format!("in the end: {damage:?}"));
    Ok(())
}

/// The lease that must stay the same.
struct Lease {
    mac: String,
    address: String,
    /// How much of the server's log was looked at.
    mark: usize,
}

impl Lease {
    /// That of the first boot.
    fn first(lab: &Lab, mac: String) -> Result<Self> {
        let address = lab.lan.wait_for(0, &mac, "DHCPACK", LEASE)?.context("an ACK without an address")?;
        Ok(Self { mac, address, mark: lab.lan.mark() })
    }

    /// Waits until the server has confirmed it once more. The boot must have begun with the question for this address
    /// (INIT-REBOOT; RFC 2131, 3.2).
    fn is_confirmed(&mut self, lab: &mut Lab, host: &Host, when: &str) -> Result<()> {
        let began = Instant::now();
        let address = lab.lan.wait_for(self.mark, &self.mac, "DHCPACK", LEASE).with_context(|| when.to_owned())?;
        let messages = lab.lan.messages(self.mark, &self.mac);
        self.mark = lab.lan.mark();
        let kinds: Vec<&str> = messages.iter().map(|message| message.kind.as_str()).collect();
        host.comment(&format!("{when}: {address:?} by {kinds:?}, waited for {:.1} s", began.elapsed().as_secs_f64()));
        lab.expect(address.as_ref() == Some(&self.address), format!("{when} has {address:?}, not {}", self.address));
        let asked = messages.first().filter(|first| first.kind == "DHCPREQUEST" && first.address == address);
        lab.expect(
            asked.is_some(),
            format!("{when} began with something else than a DHCPREQUEST for it: {messages:?}"),
        );
        let discovers = kinds.iter().filter(|kind| **kind == "DHCPDISCOVER").count();
        lab.expect(discovers == 0, format!("{when}: {discovers} DHCPDISCOVER"));
        Ok(())
    }
}

/// A moment nobody chose. It stands in the log, so that it can be had again.
fn random_ms() -> Result<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(u64::from(now.subsec_nanos()) / 1000 % WITHIN_MS)
}
