//! The played daemons: a xenstored whose domains are those of the fake xl, and a xenconsoled that does nothing.
//!
//! What `xl`'s own process for a guest would write when its domain stops is written here, too.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Set for the process that stays.
const BEHIND: &str = "PLAYED_DAEMON";

pub(crate) fn daemon(program: &Path, name: &str) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Process 1 waits for what is left behind.
    #[allow(clippy::zombie_processes)]
    if std::env::var_os(BEHIND).is_none() {
        Command::new(program).args(&arguments).env(BEHIND, "1").stdin(Stdio::null()).spawn().unwrap();
        return ExitCode::SUCCESS;
    }
    let at = arguments.iter().position(|argument| argument == "--pid-file");
    let file = arguments.iter().find_map(|argument| argument.strip_prefix("--pid-file="));
    let file = file.map_or_else(|| arguments[at.unwrap() + 1].clone(), str::to_owned);
    let ready = || fs::write(&file, format!("{}\n", std::process::id())).unwrap();
    if name == "oxenstored" {
        serve(ready);
    }
    ready();
    loop {
        std::thread::park();
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Domain {
    id: u32,
    name: String,
    uuid: String,
    ends: Option<u64>,
    crashes: Option<u64>,
    reboots: Option<u64>,
    preserve: bool,
    disks: Vec<String>,
}

impl Domain {
    /// When it is gone by itself.
    fn end(&self) -> Option<u64> {
        let crash = self.crashes.filter(|_| !self.preserve);
        [self.ends, crash, self.reboots].into_iter().flatten().min()
    }

    fn has_ended(&self) {
        let code = if self.ends.is_some() {
            0
        } else if self.reboots.is_some() {
            1
        } else {
            3
        };
        stopped(self, code, "destroy");
    }
}

#[derive(Default, Deserialize)]
struct Domains {
    domains: Vec<Domain>,
}

/// What there is, and who wants to know.
#[derive(Default)]
struct Store {
    there: BTreeMap<u32, Domain>,
    connections: Vec<Connection>,
    last: u64,
    /// Domains that have crashed and stay.
    preserved: BTreeSet<u32>,
    values: BTreeMap<String, Vec<u8>>,
}

struct Connection {
    number: u64,
    stream: UnixStream,
    /// Paths and tokens.
    watches: Vec<(String, String)>,
}

fn folder() -> PathBuf {
    fs::read_to_string("/run/state-of-xl").unwrap().trim().into()
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn serve(ready: impl FnOnce()) {
    let store = Arc::new(Mutex::new(Store::default()));
    store.lock().unwrap().values.insert("/local/domain/0/name".into(), b"Domain-0".to_vec());
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
    fs::create_dir_all(folder()).unwrap();
    inotify::add_watch(&events, folder(), inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CREATE).unwrap();
    look(&store);
    fs::create_dir_all("/run/xenstored").unwrap();
    let _ = fs::remove_file("/run/xenstored/socket");
    let listener = UnixListener::bind("/run/xenstored/socket").unwrap();
    ready();
    let accepts = Arc::clone(&store);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let store = Arc::clone(&accepts);
            std::thread::spawn(move || talk(stream, &store));
        }
    });
    loop {
        let next = look(&store);
        let left = next.map(|at| Duration::from_millis(at.saturating_sub(now()) + 1));
        let _ = poll(
            &mut [PollFd::new(&events, PollFlags::IN)],
            left.and_then(|left| Timespec::try_from(left).ok()).as_ref(),
        );
        let mut buffer = [0; 4096];
        while rustix::io::read(&events, &mut buffer).is_ok_and(|length| length > 0) {}
        // A test wants all connections to end.
        if fs::remove_file(folder().join("drop")).is_ok() {
            for connection in std::mem::take(&mut store.lock().unwrap().connections) {
                let _ = connection.stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }
}

/// Compares the fake xl's domains with those that are known. Returns when the next one ends by itself.
fn look(store: &Mutex<Store>) -> Option<u64> {
    let text = fs::read(folder().join("domains.json")).unwrap_or_default();
    let Domains { domains } = if text.is_empty() {
        Domains::default()
    } else {
        let remedy = "this is no list of the fake xl's; cargo build -p sino-init --example fake-xl";
        serde_json::from_slice(&text).expect(remedy)
    };
    let time = now();
    let mut store = store.lock().unwrap();
    let (mut next, mut there) = (None, BTreeMap::new());
    // A call of the fake xl that comes first takes those that have ended from its list.
    let taken = store.there.values().filter(|old| !domains.iter().any(|domain| domain.id == old.id));
    taken.filter(|old| old.end().is_some_and(|end| end <= time)).for_each(Domain::has_ended);
    for domain in domains {
        let end = domain.end();
        let stays = domain.crashes.filter(|_| domain.preserve);
        if stays.is_some_and(|at| at <= time) && store.preserved.insert(domain.id) {
            stopped(&domain, 3, "preserve");
            store.fire("@releaseDomain");
        }
        next = [next, stays.filter(|at| *at > time)].into_iter().flatten().min();
        if end.is_some_and(|end| end <= time) {
            if store.there.contains_key(&domain.id) {
                domain.has_ended();
            }
            continue;
        }
        next = [next, end].into_iter().flatten().min();
        there.insert(domain.id, domain);
    }
    let introduced = there.keys().any(|id| !store.there.contains_key(id));
    let released = store.there.keys().any(|id| !there.contains_key(id));
    store.there = there;
    if introduced {
        store.fire("@introduceDomain");
    }
    if released {
        store.fire("@releaseDomain");
    }
    next
}

/// What the xl that waits for a domain writes.
fn stopped(domain: &Domain, code: u32, action: &str) {
    let id = domain.id;
    let text = format!(
        "Domain {id} has shut down, reason code {code} 0x{code}\nAction for shutdown reason code {code} is {action}\n"
    );
    fs::write(format!("/var/log/xen/xl-{}.log", domain.name), text).unwrap();
}

impl Store {
    fn fire(&mut self, path: &str) {
        for Connection { stream, watches, .. } in &mut self.connections {
            for (_, token) in watches.iter().filter(|(of, _)| of == path) {
                // One that is gone is dropped by its own thread.
                let _ = send(stream, 15, 0, format!("{path}\0{token}\0").as_bytes());
            }
        }
    }

    fn answer(&mut self, kind: u32, path: &str, rest: &[u8]) -> Result<Vec<u8>, &'static str> {
        let part: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let domain = |id: &str| id.parse().ok().and_then(|id: u32| self.there.get(&id));
        let value = match part.as_slice() {
            ["local", "domain", id, "name"] => domain(id).map(|domain| domain.name.clone().into_bytes()),
            ["local", "domain", "0", "backend", "qdisk", id, disk, leaf] => {
                let disk = domain(id).zip(disk.parse().ok()).and_then(|(domain, at): (_, usize)| domain.disks.get(at));
                disk.and_then(|disk| backend(disk, leaf))
            }
            ["local", "domain", id, "vm"] => domain(id).map(|domain| format!("/vm/{}", domain.uuid).into_bytes()),
            _ => None,
        };
        match kind {
            1 if path == "/local/domain" => {
                let ids = self.there.keys().flat_map(|id| format!("{id}\0").into_bytes());
                Ok(b"0\0".iter().copied().chain(ids).collect())
            }
            1 if path == "/local/domain/0/backend/qdisk" => {
                let with = self.there.values().filter(|domain| !domain.disks.is_empty());
                Ok(with.flat_map(|domain| format!("{}\0", domain.id).into_bytes()).collect())
            }
            1 if path.starts_with("/local/domain/0/backend/qdisk/") => {
                let disks = part.last().and_then(|id| domain(id)).map_or(0, |domain| domain.disks.len());
                Ok((0..disks).flat_map(|disk| format!("{disk}\0").into_bytes()).collect())
            }
            2 if path == "/" => Ok(vec![]),
            2 => value.or_else(|| self.values.get(path).cloned()).ok_or("ENOENT"),
            10 => Ok(format!("/local/domain/{path}\0").into_bytes()),
            11 => {
                self.values.insert(path.to_owned(), rest.to_vec());
                Ok(b"OK\0".to_vec())
            }
            17 => Ok(if domain(path).is_some() { b"T\0".to_vec() } else { b"F\0".to_vec() }),
            _ => Err("ENOENT"),
        }
    }
}

/// What qemu is told of a disk.
fn backend(disk: &str, leaf: &str) -> Option<Vec<u8>> {
    let target = disk.split_once("target=")?.1;
    match leaf {
        "params" => Some(format!("aio:{target}").into_bytes()),
        "mode" => Some(if disk.contains("access=rw") { b"w".to_vec() } else { b"r".to_vec() }),
        _ => None,
    }
}

fn send(stream: &mut UnixStream, kind: u32, request: u32, payload: &[u8]) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for number in [kind, request, 0, u32::try_from(payload.len()).unwrap()] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(payload);
    stream.write_all(&bytes)
}

fn talk(mut stream: UnixStream, store: &Mutex<Store>) -> std::io::Result<()> {
    let number = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut writer = stream.try_clone()?;
    let me = {
        let mut store = store.lock().unwrap();
        store.last += 1;
        let number = store.last;
        store.connections.push(Connection { number, stream: writer.try_clone()?, watches: Vec::new() });
        number
    };
    loop {
        let mut header = [0; 16];
        let mut payload = vec![];
        let read = stream.read_exact(&mut header).and_then(|()| {
            payload.resize(number(&header, 12) as usize, 0);
            stream.read_exact(&mut payload)
        });
        let mut store = store.lock().unwrap();
        if read.is_err() {
            store.connections.retain(|connection| connection.number != me);
            return Ok(());
        }
        let mut all = store.connections.iter_mut();
        let Some(Connection { watches, .. }) = all.find(|connection| connection.number == me) else { return Ok(()) };
        let (kind, request) = (number(&header, 0), number(&header, 4));
        let at = payload.iter().position(|&byte| byte == 0).unwrap_or(payload.len());
        let path = String::from_utf8_lossy(&payload[..at]).into_owned();
        let rest = payload.get(at + 1..).unwrap_or_default();
        let token = String::from_utf8_lossy(rest).trim_end_matches('\0').to_owned();
        // Both ways of a connection are written under the lock, so that messages do not mix.
        match kind {
            4 => {
                watches.push((path.clone(), token.clone()));
                send(&mut writer, 4, request, b"OK\0")?;
                send(&mut writer, 15, 0, format!("{path}\0{token}\0").as_bytes())?;
            }
            5 => {
                watches.retain(|watch| *watch != (path.clone(), token.clone()));
                send(&mut writer, 5, request, b"OK\0")?;
            }
            _ => match store.answer(kind, &path, rest) {
                Ok(answer) => send(&mut writer, kind, request, &answer)?,
                Err(name) => send(&mut writer, 16, request, format!("{name}\0").as_bytes())?,
            },
        }
    }
}
