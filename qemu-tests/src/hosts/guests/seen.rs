//! How guests are seen from outside: what they answer on the network, what Xen and the product say of them, and what is
//! written on their disks.

use super::show::PORT;
use crate::guest_payload::record::Record;
use crate::host::Host;
use crate::lab::{Disk, Lab};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long to wait between two looks at something that has no event: another machine's answer.
const PAUSE: Duration = Duration::from_secs(2);
/// How long one attempt at a connection may take, in seconds.
const CONNECT: u32 = 10;

/// What a guest says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its name.
    pub(crate) name: String,
    /// The kernel's name of this boot.
    pub(crate) boot: String,
    /// How long it has been up.
    pub(crate) seconds: u64,
}

/// What the guest at this address answers, if there is one.
pub(super) fn answer(lab: &Lab, address: Ipv4Addr) -> Result<Option<Answer>> {
    Ok(parse(&talk(lab, address, "")?))
}

/// Tells the guest at this address a word.
pub(super) fn tell(lab: &Lab, address: Ipv4Addr, word: &str) -> Result<()> {
    talk(lab, address, word).map(drop)
}

/// Waits for an answer.
pub(crate) fn wait_for_answer(lab: &Lab, address: Ipv4Addr, within: Duration) -> Result<Answer> {
    wait_for_another(lab, address, "", within)
}

/// Waits for an answer from another boot than this one.
pub(super) fn wait_for_another(lab: &Lab, address: Ipv4Addr, boot: &str, within: Duration) -> Result<Answer> {
    let deadline = lab.deadline().min(Instant::now() + within);
    loop {
        if let Some(answer) = answer(lab, address)?.filter(|answer| answer.boot != boot) {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("nobody answers at {address}:{PORT}");
        }
        std::thread::sleep(PAUSE);
    }
}

fn talk(lab: &Lab, address: Ipv4Addr, word: &str) -> Result<String> {
    let mut socat = lab.namespace.command("socat");
    socat.args(["-t", "5", "-T", "20", "-", &format!("TCP:{address}:{PORT},connect-timeout={CONNECT}")]);
    let mut socat =
        socat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("starting socat")?;
    if let Some(mut to) = socat.stdin.take() {
        // Nobody there: there is no answer either.
        let _ = to.write_all(format!("{word}\n").as_bytes());
    }
    let output = socat.wait_with_output().context("waiting for socat")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads `guest NAME boot ID up SECONDS s`.
fn parse(text: &str) -> Option<Answer> {
    let mut words = text.split_whitespace();
    let mut after = |word: &str| words.find(|found| *found == word).and_then(|_| words.next().map(str::to_owned));
    let (name, boot, seconds) = (after("guest")?, after("boot")?, after("up")?);
    Some(Answer { name, boot, seconds: seconds.parse().ok()? })
}

/// The product's word for a guest, and all that it says of it.
pub(super) fn state_of(host: &mut Host, name: &str) -> Result<(String, Value)> {
    let all = host.json(&format!("{} --json", super::GUESTS))?;
    let guest = find(&all, name).with_context(|| format!("{name} is not in {all}"))?;
    let state = guest.get("state").and_then(Value::as_str).with_context(|| format!("no state in {guest}"))?;
    Ok((state.to_owned(), guest.clone()))
}

/// The object with this name, wherever it is.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) if map.get("name").and_then(Value::as_str) == Some(name) => Some(value),
        Value::Object(map) => map.values().find_map(|value| find(value, name)),
        Value::Array(all) => all.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}

/// Waits until the product says one of these words of a guest.
pub(super) fn wait_for_state(host: &mut Host, name: &str, wanted: &[&str], within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let (state, all) = state_of(host, name)?;
        if wanted.contains(&state.as_str()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{name} is not {wanted:?} after {} s: {all}", within.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}

/// When a guest's domain was created, in seconds since 1970, as xl wrote it into the xenstore.
pub(crate) fn moment(host: &mut Host, name: &str) -> Result<f64> {
    let vm = format!("$(xenstore-read /local/domain/$(xl domid {name})/vm)");
    let time = host.do_(&format!("xenstore-read {vm}/start_time"))?;
    time.parse().with_context(|| format!("the time of {name} is {time:?}"))
}

/// The record of a guest on its volume, while the host is off.
pub(crate) fn record(disk: &Disk, name: &str) -> Result<Vec<String>> {
    let from = disk.volume(super::VOLUME.0, name)?;
    Record::within(&disk.file, from)?.lines()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_anything_else_is_none() {
        let answer = parse("guest alpha boot edd79541-4b16 up 26 s\n").unwrap();
        assert_eq!((answer.name.as_str(), answer.boot.as_str(), answer.seconds), ("alpha", "edd79541-4b16", 26));
        for text in ["", "guest alpha", "guest alpha boot x up y s"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_guest_is_found_wherever_it_is() {
        let all = serde_json::json!({"guests": [{"name": "a", "state": "x"}, {"name": "b", "state": "ready"}]});
        assert_eq!(find(&all, "b").unwrap()["state"], "ready");
        assert!(find(&all, "c").is_none());
    }
}
