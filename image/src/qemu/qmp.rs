//! QEMU's control channel (QMP): commands with their answers, and what the tests and the demo ask of it.
//!
//! One JSON value a line in both directions. Events that arrive between answers are kept for whoever asks. Every
//! command has a deadline. Source: QEMU's interop documentation, "QEMU Machine Protocol Specification".

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a command may take. Screen dumps and keys take milliseconds; the host may be busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The VGA's text memory, as far as it goes: the console scrolls by moving the start of the screen through it.
const TEXT_MEMORY: (u64, usize) = (0xb8000, 0x8000);
/// Columns of the text screen; two bytes each.
const COLUMNS: usize = 80;

/// What a guest did to one drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveStatistics {
    /// The drive's name in the machine's description.
    pub name: String,
    /// Bytes read by the guest.
    pub read_bytes: u64,
    /// Bytes written by the guest.
    pub written_bytes: u64,
    /// Writes by the guest, of whatever length.
    pub writes: u64,
}

impl DriveStatistics {
    /// Adds what the guest did to the same drive at another time.
    pub fn add(&mut self, other: &Self) {
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
        self.writes += other.writes;
    }
}

/// The channel.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    buffer: Vec<u8>,
    events: Vec<Value>,
    next: u64,
}

impl Qmp {
    /// Greets QEMU on a fresh connection.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn greet(stream: UnixStream) -> Result<Self> {
        let mut qmp = Self { stream, buffer: Vec::new(), events: Vec::new(), next: 1 };
        let deadline = Instant::now() + ANSWER_WITHIN;
        qmp.receive(deadline).context("waiting for QEMU's greeting")?;
        qmp.command("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Sends a command and returns its answer.
    ///
    /// # Errors
    /// QEMU refuses, is gone, or does not answer in time.
    pub fn command(&mut self, name: &str, arguments: &Value) -> Result<Value> {
        self.exchange(name, arguments).with_context(|| format!("QEMU's command {name} {arguments}"))
    }

    fn exchange(&mut self, name: &str, arguments: &Value) -> Result<Value> {
        let id = self.next;
        self.next += 1;
        let mut line = json!({"execute": name, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).context("sending")?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let mut message = self.receive(deadline)?;
            if message.get("event").is_some() {
                self.events.push(message);
            } else if message.get("id").and_then(Value::as_u64) == Some(id) {
                if let Some(error) = message.get("error") {
                    bail!("refused: {}", error.get("desc").and_then(Value::as_str).unwrap_or("no reason given"));
                }
                return Ok(message.get_mut("return").map(Value::take).unwrap_or_default());
            }
        }
    }

    /// Waits for an event, for example `SHUTDOWN`; events that came before count too, each once.
    ///
    /// # Errors
    /// It does not come in time, or QEMU is gone.
    pub fn wait_for_event(&mut self, name: &str, within: Duration) -> Result<Value> {
        self.wait_for_event_with(name, "/event", name, within)
    }

    /// Waits for an event in which the text at the JSON pointer `key` is `value`; otherwise as [`Qmp::wait_for_event`].
    ///
    /// # Errors
    /// It does not come in time, or QEMU is gone.
    pub fn wait_for_event_with(&mut self, name: &str, key: &str, value: &str, within: Duration) -> Result<Value> {
        let deadline = Instant::now() + within;
        let has = |event: &Value, key: &str, value: &str| event.pointer(key).and_then(Value::as_str) == Some(value);
        let is_it = |event: &Value| has(event, "/event", name) && has(event, key, value);
        loop {
            if let Some(index) = self.events.iter().position(is_it) {
                return Ok(self.events.remove(index));
            }
            let message = self.receive(deadline).with_context(|| format!("waiting for QEMU's event {name}"))?;
            self.events.push(message);
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).context("QEMU's line is not JSON");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no answer in time");
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => bail!("QEMU is gone"),
                Ok(length) => self.buffer.extend(piece.iter().take(length)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("receiving"),
            }
        }
    }

    /// What the guest did to each drive so far.
    ///
    /// # Errors
    /// As [`Qmp::command`]; or an answer of another form.
    pub fn drive_statistics(&mut self) -> Result<Vec<DriveStatistics>> {
        let answer = self.command("query-blockstats", &json!({}))?;
        statistics(&answer).with_context(|| format!("reading {answer}"))
    }

    /// Presses keys one after another on the machine's keyboard, by their QEMU names (`down`, `ret`, `a`).
    ///
    /// # Errors
    /// As [`Qmp::command`]; an unknown key is refused by QEMU.
    pub fn press(&mut self, keys: &[&str]) -> Result<()> {
        for key in keys {
            self.command("send-key", &json!({"keys": [{"type": "qcode", "data": key}]}))?;
        }
        Ok(())
    }

    /// Saves the screen as a PNG picture.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        self.command("screendump", &json!({"filename": file, "format": "png"})).map(drop)
    }

    /// What is in the VGA's text memory, line by line without empty ones; it holds what scrolled away too.
    /// `file` is where QEMU puts the memory.
    ///
    /// # Errors
    /// As [`Qmp::command`]; or the file cannot be read.
    pub fn text_screen(&mut self, file: &Path) -> Result<Vec<String>> {
        let (address, length) = TEXT_MEMORY;
        self.command("pmemsave", &json!({"val": address, "size": length, "filename": file}))?;
        let memory = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        Ok(text_lines(&memory))
    }

    /// A command of QEMU's human monitor, for what QMP does not have.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub fn human(&mut self, line: &str) -> Result<String> {
        let answer = self.command("human-monitor-command", &json!({"command-line": line}))?;
        answer.as_str().map(str::to_owned).ok_or_else(|| anyhow!("QEMU's answer to {line:?} is not text: {answer}"))
    }

    /// The host's port that leads to TCP port `guest` of the guest.
    ///
    /// # Errors
    /// There is no such forwarding.
    pub fn forwarded_port(&mut self, guest: u16) -> Result<u16> {
        let table = self.human("info usernet")?;
        host_port(&table, guest).with_context(|| format!("no forwarding to port {guest} in QEMU's table: {table}"))
    }

    /// Takes a device out of the running machine and waits until it is gone, with its drives and their statistics.
    ///
    /// # Errors
    /// As [`Qmp::command`]; or the guest does not let go, which those on PCI need.
    pub fn remove(&mut self, device: &str) -> Result<()> {
        self.command("device_del", &json!({"id": device}))?;
        // What hangs on the device has an event of its own.
        self.wait_for_event_with("DEVICE_DELETED", "/data/device", device, ANSWER_WITHIN).map(drop)
    }

    /// Lets the guest read at most so many bytes a second from a drive that is plugged in; 0: as fast as it can.
    ///
    /// # Errors
    /// As [`Qmp::command`]; or there is no such drive.
    pub fn throttle(&mut self, drive: &str, bytes_per_second: u64) -> Result<()> {
        let answer = self.command("query-block", &json!({}))?;
        let (device, _) =
            device_of(&answer, drive).with_context(|| format!("no drive {drive} is plugged in: {answer}"))?;
        self.limit(device, bytes_per_second, 0)
    }

    /// Lets the reads that wait because of [`Qmp::throttle`] come one a second; a drive without that stays as it is.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub fn hurry(&mut self, drive: &str) -> Result<()> {
        let answer = self.command("query-block", &json!({}))?;
        match device_of(&answer, drive) {
            Some((device, true)) => self.limit(device, 0, 1),
            _ => Ok(()),
        }
    }

    fn limit(&mut self, device: &str, bytes_read: u64, reads: u64) -> Result<()> {
        let limits = json!({
            "id": device,
            "bps": 0, "bps_rd": bytes_read, "bps_wr": 0,
            "iops": 0, "iops_rd": reads, "iops_wr": 0,
        });
        self.command("block_set_io_throttle", &limits).map(drop)
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub fn power_button(&mut self) -> Result<()> {
        self.command("system_powerdown", &json!({})).map(drop)
    }
}

fn statistics(answer: &Value) -> Result<Vec<DriveStatistics>> {
    let list = answer.as_array().context("not a list")?;
    let mut drives = Vec::new();
    for entry in list {
        let name = entry.get("device").and_then(Value::as_str).unwrap_or_default();
        let number = |key: &str| {
            entry.pointer(&format!("/stats/{key}")).and_then(Value::as_u64).with_context(|| format!("{name}: no {key}"))
        };
        drives.push(DriveStatistics {
            name: name.to_owned(),
            read_bytes: number("rd_bytes")?,
            written_bytes: number("wr_bytes")?,
            writes: number("wr_operations")?,
        });
    }
    Ok(drives)
}

/// The device in front of a drive, in the answer to `query-block`, and whether reads through it are throttled.
fn device_of<'a>(answer: &'a Value, drive: &str) -> Option<(&'a str, bool)> {
    let entries = answer.as_array()?;
    let entry = entries.iter().find(|entry| entry.get("device").and_then(Value::as_str) == Some(drive))?;
    let limit = entry.pointer("/inserted/bps_rd").and_then(Value::as_u64);
    Some((entry.get("qdev").and_then(Value::as_str)?, limit.is_some_and(|limit| limit > 0)))
}

fn text_lines(memory: &[u8]) -> Vec<String> {
    let readable = |cell: &[u8]| match cell.first() {
        Some(&byte @ 0x20..=0x7e) => char::from(byte),
        _ => ' ',
    };
    let lines = memory.chunks(COLUMNS * 2).map(|line| line.chunks(2).map(readable).collect::<String>());
    lines.map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// Reads `info usernet`: `TCP[HOST_FORWARD]  12  127.0.0.1 41233  10.0.2.15 22  0 0`.
fn host_port(table: &str, guest: u16) -> Option<u16> {
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [kind, _, _, from, _, to, ..] if kind.starts_with("TCP[HOST_FORWARD") && to.parse() == Ok(guest) => {
                from.parse().ok()
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;

    /// Plays QEMU: greets, then answers each command with the next of `answers`, `ID` replaced.
    fn qmp(answers: &'static [&'static str]) -> Qmp {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut out = theirs.try_clone().unwrap();
            out.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n").unwrap();
            let lines = std::io::BufReader::new(theirs).lines();
            for (line, answer) in lines.zip(std::iter::once(&"{\"return\": {}, \"id\": ID}").chain(answers)) {
                let command: Value = serde_json::from_str(&line.unwrap()).unwrap();
                out.write_all(answer.replace("ID", &command["id"].to_string()).as_bytes()).unwrap();
                out.write_all(b"\r\n").unwrap();
            }
        });
        Qmp::greet(ours).unwrap()
    }

    #[test]
    fn an_answer_is_found_behind_events_which_are_kept() {
        let mut qmp = qmp(&["{\"event\": \"RESET\"}\r\n{\"return\": 7, \"id\": ID}"]);
        assert_eq!(qmp.command("x", &json!({})).unwrap(), json!(7));
        qmp.wait_for_event("RESET", Duration::ZERO).unwrap();
        assert!(qmp.wait_for_event("RESET", Duration::ZERO).is_err());
    }

    #[test]
    fn a_refusal_has_qemus_words() {
        let mut qmp = qmp(&["{\"error\": {\"class\": \"G\", \"desc\": \"no such key\"}, \"id\": ID}"]);
        let error = format!("{:#}", qmp.press(&["zz"]).unwrap_err());
        assert!(error.contains("send-key") && error.contains("no such key"), "{error}");
        assert!(format!("{:#}", qmp.press(&["a"]).unwrap_err()).contains("QEMU is gone"));
    }

    #[test]
    fn statistics_are_read_and_a_missing_number_is_an_error() {
        let answer = json!([{"device": "medium", "stats": {"rd_bytes": 5, "wr_bytes": 0, "wr_operations": 1}}]);
        let expected = DriveStatistics { name: "medium".into(), read_bytes: 5, written_bytes: 0, writes: 1 };
        assert_eq!(statistics(&answer).unwrap(), [expected]);
        assert!(statistics(&json!([{"device": "x", "stats": {"rd_bytes": 5}}])).is_err());
    }

    #[test]
    fn a_drive_that_is_plugged_in_has_a_device_in_front() {
        let slow = json!({"device": "c", "qdev": "/machine/c-device", "inserted": {"bps_rd": 5}});
        let answer = json!([{"device": "a"}, {"device": "b", "qdev": "/machine/b-device"}, slow]);
        assert_eq!(device_of(&answer, "b"), Some(("/machine/b-device", false)));
        assert_eq!(device_of(&answer, "c"), Some(("/machine/c-device", true)));
        assert_eq!(device_of(&answer, "a"), None);
        assert_eq!(device_of(&answer, "d"), None);
    }

    #[test]
    fn an_event_is_told_from_others_of_its_name() {
        let event = |device| format!("{{\"event\": \"DEVICE_DELETED\", \"data\": {{\"device\": \"{device}\"}}}}\r\n");
        let answer = format!("{}{}{{\"return\": {{}}, \"id\": ID}}", event("a"), event("b"));
        let mut qmp = qmp(Box::leak(Box::new([&*Box::leak(answer.into_boxed_str())])));
        qmp.remove("b").unwrap();
        qmp.wait_for_event("DEVICE_DELETED", Duration::ZERO).unwrap();
        assert!(qmp.wait_for_event("DEVICE_DELETED", Duration::ZERO).is_err());
    }

    #[test]
    fn the_text_screen_is_every_second_byte() {
        let mut memory = vec![0; 0x8000];
        for (cell, byte) in b"sino: hello".iter().enumerate() {
            memory[COLUMNS * 2 * 3 + cell * 2] = *byte;
        }
        assert_eq!(text_lines(&memory), ["sino: hello"]);
    }

    #[test]
    fn the_forwarded_port_is_in_the_table() {
        let table = "Hub -1 (net0):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  \
                     TCP[HOST_FORWARD]  12       127.0.0.1 41233       10.0.2.15    22     0     0\n";
        assert_eq!(host_port(table, 22), Some(41233));
        assert_eq!(host_port(table, 80), None);
    }
}
