//! A xenstored that is played by a test: over a socket pair, with a tree in memory, and no domains but those it is told of.

use super::Client;
use super::wire::{Decoder, Kind, Message, PAYLOAD_MAX, strings};
use rustix::fd::OwnedFd;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What it holds.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) values: BTreeMap<String, Vec<u8>>,
    pub(crate) introduced: BTreeSet<u32>,
    watches: Vec<(String, String)>,
    stream: Option<UnixStream>,
}

impl Tree {
    /// Triggers the watches of a path.
    pub(crate) fn fire(&mut self, path: &str) {
        let hit: Vec<_> = self.watches.iter().filter(|(of, _)| super::is_below(path, of)).cloned().collect();
        for (_, token) in hit {
            self.send(Kind::WatchEvent.number(), 0, format!("{path}\0{token}\0").into_bytes());
        }
    }

    /// Sets a value, as a guest or `xl` would.
    pub(crate) fn set(&mut self, path: &str, value: &str) {
        let mut parent = path;
        while let Some((above, _)) = parent.rsplit_once('/').filter(|(above, _)| !above.is_empty()) {
            self.values.entry(above.into()).or_default();
            parent = above;
        }
        self.values.insert(path.into(), value.into());
        self.fire(path);
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, kind: u32, request: u32, payload: Vec<u8>) {
        let bytes = Message { kind, request, transaction: 0, payload }.bytes().unwrap();
        let _ = self.stream.as_mut().unwrap().write_all(&bytes);
    }

    /// Ends the connection.
    pub(crate) fn end(&mut self) {
        self.stream.as_mut().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
    }

    fn children(&self, path: &str) -> Vec<String> {
        let start = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let names: BTreeSet<String> = self
            .values
            .keys()
            .filter_map(|key| key.strip_prefix(&start))
            .filter(|rest| !rest.is_empty())
            .map(|rest| rest.split('/').next().unwrap().to_owned())
            .collect();
        names.into_iter().collect()
    }

    /// The names in a folder, each ended by NUL.
    fn list(&self, path: &str) -> String {
        self.children(path).into_iter().flat_map(|name| [name, "\0".to_owned()]).collect()
    }

    fn answer(&mut self, message: &Message) -> Result<Vec<u8>, &'static str> {
        let split = message.payload.iter().position(|&byte| byte == 0).ok_or("EINVAL")?;
        let path = String::from_utf8(message.payload[..split].to_vec()).unwrap();
        let rest = message.payload[split + 1..].to_vec();
        let words = strings(&rest);
        let there = path == "/" || self.values.contains_key(&path);
        let ok = b"OK\0".to_vec();
        match message.kind {
            kind if kind == Kind::Read.number() => {
                if path == "/" {
                    Ok(Vec::new())
                } else {
                    self.values.get(&path).cloned().ok_or("ENOENT")
                }
            }
            kind if kind == Kind::Write.number() => {
                self.set(&path, &String::from_utf8(rest).unwrap());
                Ok(ok)
            }
            kind if kind == Kind::Mkdir.number() => {
                self.values.entry(path).or_default();
                Ok(ok)
            }
            kind if kind == Kind::Remove.number() => {
                self.values.retain(|key, _| !super::is_below(key, &path));
                self.fire(&path);
                if there { Ok(ok) } else { Err("ENOENT") }
            }
            kind if kind == Kind::Directory.number() && there => {
                let names = self.list(&path);
                if names.len() > PAYLOAD_MAX { Err("E2BIG") } else { Ok(names.into_bytes()) }
            }
            kind if kind == Kind::DirectoryPart.number() && there => {
                let names = self.list(&path);
                let offset: usize = words[0].parse().unwrap();
                let rest = names.get(offset..).unwrap_or("");
                let mut part = String::new();
                for name in rest.split_inclusive('\0') {
                    if part.len() + name.len() > 1000 {
                        return Ok(format!("7\0{part}").into_bytes());
                    }
                    part.push_str(name);
                }
                Ok(format!("7\0{part}\0").into_bytes())
            }
            kind if kind == Kind::Watch.number() => {
                let watch = (path, words[0].clone());
                if self.watches.contains(&watch) {
                    Err("EEXIST")
                } else {
                    self.watches.push(watch);
                    Ok(ok)
                }
            }
            kind if kind == Kind::Unwatch.number() => {
                let before = self.watches.len();
                self.watches.retain(|watch| *watch != (path.clone(), words[0].clone()));
                if before == self.watches.len() { Err("ENOENT") } else { Ok(ok) }
            }
            kind if kind == Kind::GetDomainPath.number() => Ok(format!("/local/domain/{path}\0").into_bytes()),
            kind if kind == Kind::IsDomainIntroduced.number() => {
                Ok(if self.introduced.contains(&path.parse().unwrap()) { b"T\0".to_vec() } else { b"F\0".to_vec() })
            }
            _ if !there => Err("ENOENT"),
            _ => Err("EINVAL"),
        }
    }
}

/// A client whose other end is `UnixStream`, for a test that plays the server by hand.
pub(crate) fn pair() -> (Client, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Client::over(OwnedFd::from(ours)).within(Duration::from_secs(20)), theirs)
}

/// A client of a server that works, and its tree.
pub(crate) fn server() -> (Client, Arc<Mutex<Tree>>) {
    let (client, mut stream) = pair();
    let tree = Tree { stream: Some(stream.try_clone().unwrap()), ..Tree::default() };
    let tree = Arc::new(Mutex::new(tree));
    let served = Arc::clone(&tree);
    std::thread::spawn(move || {
        let (mut decoder, mut buffer) = (Decoder::default(), [0; 512]);
        while let Ok(length) = stream.read(&mut buffer) {
            if length == 0 {
                return;
            }
            decoder.push(&buffer[..length]);
            while let Some(message) = decoder.next().unwrap() {
                let mut tree = served.lock().unwrap();
                match tree.answer(&message) {
                    Ok(payload) => {
                        tree.send(message.kind, message.request, payload);
                        if message.kind == Kind::Watch.number() {
                            let fields = strings(&message.payload);
                            let event = format!("{}\0{}\0", fields[0], fields[1]);
                            tree.send(Kind::WatchEvent.number(), 0, event.into_bytes());
                        }
                    }
                    Err(name) => tree.send(Kind::Error.number(), message.request, format!("{name}\0").into_bytes()),
                }
            }
        }
    });
    (client, tree)
}
