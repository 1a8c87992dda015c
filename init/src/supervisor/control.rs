//! The supervisor's ear: a socket in `/run/sino` that only root can open, one request a connection, as a line of JSON.

use super::guests_lane::Wish;
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use sino_boot::layout;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// Longest request or answer that is read, in bytes.
const LONGEST: u64 = 64 << 10;
/// How long the other side may take for its line.
const WITHIN: Duration = Duration::from_secs(30);
/// How long the supervisor may take for its answer: before a guest is started, xl tells what the host has.
pub const ANSWERS_WITHIN: Duration = Duration::from_secs(150);

/// What is asked of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Read the configuration again and make the network so; go back after so many seconds unless confirmed (0: never).
    NetworkApply {
        /// Seconds.
        revert_after: u32,
    },
    /// Keep the network as it was applied.
    NetworkConfirm,
    /// Go back now to the network before the last apply.
    NetworkRevert,
    /// `/srv` was mounted: take the host's identity and configuration from there, and keep them there.
    SrvStarted,
    /// `/srv` is about to be unmounted: let go of it.
    SrvStopping,
    /// Something with guests.
    Guests(Wish),
}

/// The supervisor's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub ok: bool,
    /// What was done or why not, for people.
    pub text: String,
}

/// Listens. Calls `handle` for each request, one after the other; it must not block for long.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(handle: impl Fn(Request) -> Answer + Send + 'static) -> Result<()> {
    serve_at(Path::new(layout::CONTROL), handle)
}

fn serve_at(path: &Path, handle: impl Fn(Request) -> Answer + Send + 'static) -> Result<()> {
    // Of a supervisor that is gone.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| format!("making {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    std::thread::Builder::new().name("control".into()).spawn(move || {
        for connection in listener.incoming().flatten() {
            if let Err(error) = answer(connection, &handle) {
                log::warn!("a request to the supervisor could not be answered: {error:#}");
            }
        }
    })?;
    Ok(())
}

fn answer(mut connection: UnixStream, handle: &dyn Fn(Request) -> Answer) -> Result<()> {
    connection.set_read_timeout(Some(WITHIN))?;
    connection.set_write_timeout(Some(WITHIN))?;
    let line = read_line(&connection)?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => handle(request),
        Err(error) => Answer { ok: false, text: format!("this supervisor does not know the request: {error}") },
    };
    connection.write_all((serde_json::to_string(&answer)? + "\n").as_bytes()).context("answering")
}

/// Asks the supervisor.
///
/// # Errors
/// None runs, it does not answer, or it refuses.
pub fn ask(request: &Request) -> Result<String> {
    ask_at(Path::new(layout::CONTROL), request)
}

fn ask_at(path: &Path, request: &Request) -> Result<String> {
    let mut connection = UnixStream::connect(path)
        .map_err(|error| anyhow!("the supervisor cannot be reached: {error}; is it running? systemctl status sino"))?;
    connection.set_read_timeout(Some(ANSWERS_WITHIN + WITHIN))?;
    connection.write_all((serde_json::to_string(request)? + "\n").as_bytes()).context("asking the supervisor")?;
    let answer: Answer = serde_json::from_str(&read_line(&connection)?).context("reading the supervisor's answer")?;
    if !answer.ok {
        bail!("{}", answer.text);
    }
    Ok(answer.text)
}

fn read_line(connection: &UnixStream) -> Result<String> {
    let mut line = String::new();
    BufReader::new(connection.take(LONGEST)).read_line(&mut line).context("reading a line")?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        serve_at(&path, |request| Answer { ok: request == Request::NetworkConfirm, text: format!("{request:?}") })
            .unwrap();
        assert_eq!(ask_at(&path, &Request::NetworkConfirm).unwrap(), "NetworkConfirm");
        assert!(ask_at(&path, &Request::SrvStarted).unwrap_err().to_string().contains("SrvStarted"));
        let mut connection = UnixStream::connect(&path).unwrap();
        connection.write_all(b"{\"x\n").unwrap();
        assert!(read_line(&connection).unwrap().contains("does not know"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(ask_at(&folder.path().join("nobody"), &Request::SrvStarted).is_err());
    }
}
