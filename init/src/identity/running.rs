//! The items in a running system: how they are read from its files, and put there.

use super::folder::{Folder, Found, Rights, Unread, replace};
use super::items::{self, Files, Item};
use super::network_files;
use super::ssh_key;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FlockOperation, Mode, OFlags};
use sino_boot::{in_root, layout};
use std::io;
use std::path::Path;
use std::time::SystemTime;

const ZONES: &str = "/usr/share/zoneinfo/";
/// The permission bits of Debian's shadow file, if it cannot be asked.
const SHADOW_MODE: u32 = 0o640;

/// A system's root folder.
#[derive(Debug)]
pub(super) struct System {
    root: Folder,
}

impl System {
    /// Opens it.
    ///
    /// # Errors
    /// There is no such folder.
    pub(super) fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: Folder::open(root).with_context(|| format!("opening {}", root.display()))? })
    }

    /// An open folder of the system.
    ///
    /// # Errors
    /// There is no such folder.
    pub(super) fn folder(&self, path: &str) -> Result<Folder> {
        self.root.inside(path).with_context(|| format!("opening /{path}"))
    }

    /// The root folder itself.
    pub(super) fn root(&self) -> &Folder {
        &self.root
    }

    /// The image that the system was booted from, if it can be seen.
    fn image(&self) -> Option<Folder> {
        let image = self.root.inside(layout::LOWER.trim_start_matches('/')).ok()?;
        image.child("etc").is_ok().then_some(image)
    }

    /// A file of the system; `None` if it or its folder is not there.
    fn file(&self, folder: &str, name: &str) -> Result<Option<Found>> {
        let folder_fd = match self.root.inside(folder) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("opening /{folder}")),
        };
        match folder_fd.read(name) {
            Ok(found) => Ok(found),
            Err(Unread::Foreign(why)) => bail!("/{folder}/{name} is not used: {why}"),
            Err(Unread::Failed(error)) => Err(error).with_context(|| format!("reading /{folder}/{name}")),
        }
    }

    /// Reads an item; nothing if the system has none.
    ///
    /// # Errors
    /// It cannot be read, or is not what it should be.
    pub(super) fn read(&self, item: Item) -> Result<Files> {
        let bytes = match item {
            Item::SshHostKeys => return self.host_keys(),
            Item::Leases => None,
            Item::RootPassword => Some(self.root_hash()?),
            Item::AuthorizedKeys => self.file("root/.ssh", "authorized_keys")?.map(|found| found.bytes),
            Item::Hostname => self.file("etc", "hostname")?.map(|found| hostname_line(&found.bytes)),
            Item::MachineId => {
                let found = self.file("etc", "machine-id")?.map(|found| found.bytes);
                // machine-id(5): in both states the system makes one when it starts.
                found.filter(|bytes| !matches!(bytes.trim_ascii(), b"" | b"uninitialized")).map(with_end)
            }
            Item::Timezone => self.zone()?.map(|zone| format!("{zone}\n").into_bytes()),
            Item::Keyboard => self.file("etc/default", "keyboard")?.map(|found| found.bytes),
            Item::NetworkFiles => {
                network_files::FILES.read(&self.root, self.image().as_ref()).with_context(|| item.to_string())?
            }
        };
        let (Some(bytes), Some(name)) = (bytes, item.file()) else { return Ok(Files::new()) };
        items::check(item, &bytes).map_err(|why| anyhow!("{item} of the running system is not used: it {why}"))?;
        Ok(Files::from([(name.to_owned(), bytes)]))
    }

    /// Puts an item in its place. `since` is when it was last changed. Returns whether that changed anything.
    ///
    /// # Errors
    /// A file cannot be written, or the item is nothing for this system.
    pub(super) fn place(&self, item: Item, files: &Files, since: SystemTime) -> Result<bool> {
        if item == Item::SshHostKeys {
            return self.place_host_keys(files);
        }
        let Some(bytes) = files.values().next() else { return Ok(false) };
        let text = String::from_utf8_lossy(bytes);
        match item {
            Item::RootPassword => self.place_root_hash(text.trim_end(), since),
            Item::AuthorizedKeys => self.place_authorized_keys(bytes),
            Item::Hostname => {
                let placed = self.put("etc", "hostname", bytes, 0o644)?;
                Ok(self.place_hosts(text.trim_end())? || placed)
            }
            Item::MachineId => self.put("etc", "machine-id", bytes, 0o444),
            Item::Timezone => self.place_zone(text.trim_end()),
            Item::Keyboard => self.put("etc/default", "keyboard", bytes, 0o644),
            Item::NetworkFiles => network_files::FILES.place(&self.root, bytes),
            Item::SshHostKeys | Item::Leases => Ok(false),
        }
    }

    /// Writes a file unless it has this content and these permission bits.
    ///
    /// # Errors
    /// It cannot be written; the old one is there still.
    pub(super) fn put(&self, folder: &str, name: &str, bytes: &[u8], mode: u32) -> Result<bool> {
        let mut folder_fd = self.folder(folder)?;
        if matches!(folder_fd.read(name), Ok(Some(found)) if found.bytes == bytes && found.rights.mode == mode) {
            return Ok(false);
        }
        replace(&mut folder_fd, name, bytes, Rights::mode(mode))
            .with_context(|| format!("writing /{folder}/{name}"))?;
        Ok(true)
    }

    fn host_keys(&self) -> Result<Files> {
        let mut keys = Files::new();
        let Ok(folder) = self.root.inside("etc/ssh") else { return Ok(keys) };
        for name in folder.names().context("reading /etc/ssh")?.into_iter().filter(|name| items::is_host_key_name(name))
        {
            if let Some(found) = self.file("etc/ssh", &name)? {
                items::check(Item::SshHostKeys, &found.bytes).map_err(|why| anyhow!("/etc/ssh/{name} {why}"))?;
                keys.insert(name, found.bytes);
            }
        }
        Ok(keys)
    }

    fn place_host_keys(&self, files: &Files) -> Result<bool> {
        let mut changed = false;
        for (name, bytes) in files {
            let public = ssh_key::public_line(bytes).map_err(|why| anyhow!("{name} {why}"))?;
            changed |= self.put("etc/ssh", name, bytes, 0o600)?;
            // Its other half follows from the key, so the two always match; a comment of the same key may stay.
            let public_name = format!("{name}.pub");
            let there = self.file("etc/ssh", &public_name).ok().flatten();
            let same = there.is_some_and(|found| found.bytes.starts_with(public.trim_end().as_bytes()));
            if !same {
                changed |= self.put("etc/ssh", &public_name, public.as_bytes(), 0o644)?;
            }
        }
        Ok(changed)
    }

    fn shadow(&self) -> Result<(String, Rights)> {
        let found = self.file("etc", "shadow")?.context("there is no /etc/shadow")?;
        let text = String::from_utf8(found.bytes).map_err(|_| anyhow!("/etc/shadow is not text"))?;
        Ok((text, found.rights))
    }

    fn root_hash(&self) -> Result<Vec<u8>> {
        let (text, _) = self.shadow()?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("root:")).context("/etc/shadow has no line for root")?;
        let hash = line.split(':').next().unwrap_or_default();
        if hash.is_empty() {
            bail!("root has no password at all, which is not kept; to set one: passwd");
        }
        Ok(format!("{hash}\n").into_bytes())
    }

    fn place_root_hash(&self, hash: &str, since: SystemTime) -> Result<bool> {
        // passwd(1) holds this lock while it replaces the file. Source: lckpwdf(3).
        let folder = self.folder("etc")?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(folder.fd(), ".pwd.lock", flags, Mode::RUSR | Mode::WUSR)
            .context("opening /etc/.pwd.lock")?;
        rustix::fs::fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive)
            .context("root's password is being changed by another program (/etc/.pwd.lock)")?;
        let (text, rights) = self.shadow()?;
        let new = with_root_hash(&text, hash, days(since)).context("/etc/shadow has no line for root")?;
        if new == text {
            return Ok(false);
        }
        let mode = if rights.mode == 0 { SHADOW_MODE } else { rights.mode };
        let mut folder = folder;
        replace(&mut folder, "shadow", new.as_bytes(), Rights { mode, ..rights }).context("writing /etc/shadow")?;
        Ok(true)
    }

    fn place_authorized_keys(&self, bytes: &[u8]) -> Result<bool> {
        if self.root.inside("root/.ssh").is_err() {
            self.folder("root")?.made(".ssh", 0o700).context("making /root/.ssh")?;
        }
        self.put("root/.ssh", "authorized_keys", bytes, 0o600)
    }

    /// The name of the host as its own address has it; other lines stay. Source: hosts(5), Debian Reference 5.1.1.
    fn place_hosts(&self, hostname: &str) -> Result<bool> {
        let old = self.file("etc", "hosts")?.map(|found| found.bytes).unwrap_or_default();
        let old = String::from_utf8_lossy(&old).into_owned();
        let short = hostname.split('.').next().unwrap_or_default();
        let ours = if short == hostname { hostname.to_owned() } else { format!("{hostname} {short}") };
        let ours = format!("127.0.1.1\t{ours}");
        let own = |line: &str| line.split_whitespace().next() == Some("127.0.1.1");
        let mut lines: Vec<&str> = old.lines().collect();
        if let Some(line) = lines.iter_mut().find(|line| own(line)) {
            *line = &ours;
        } else {
            let after = lines.iter().position(|line| line.starts_with("127.0.0.1")).map_or(0, |at| at + 1);
            lines.insert(after, &ours);
        }
        self.put("etc", "hosts", (lines.join("\n") + "\n").as_bytes(), 0o644)
    }

    /// The zone that `/etc/localtime` leads to; if that is no link, the one that `/etc/timezone` names.
    fn zone(&self) -> Result<Option<String>> {
        let link = self.folder("etc")?.link("localtime");
        if let Some(zone) = link.as_deref().and_then(|target| target.split_once("zoneinfo/")) {
            return Ok(Some(zone.1.to_owned()));
        }
        let named = self.file("etc", "timezone")?;
        Ok(named.map(|found| String::from_utf8_lossy(&found.bytes).trim().to_owned()).filter(|zone| !zone.is_empty()))
    }

    fn place_zone(&self, zone: &str) -> Result<bool> {
        let path = format!("{ZONES}{zone}");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = in_root::open(self.root.fd(), &path, flags);
        let mut magic = [0; 4];
        let is_zone = file.is_ok_and(|file| rustix::io::read(&file, &mut magic) == Ok(4) && magic == *b"TZif");
        if !is_zone {
            bail!("there is no time zone {zone:?} in this image; to see those there are: timedatectl list-timezones");
        }
        let mut etc = self.folder("etc")?;
        let mut changed = false;
        if etc.link("localtime").as_deref() != Some(path.as_str()) {
            etc.put_link("localtime", &path).context("writing /etc/localtime")?;
            changed = true;
        }
        Ok(self.put("etc", "timezone", format!("{zone}\n").as_bytes(), 0o644)? || changed)
    }
}

/// `/etc/hostname` without its comments. Source: hostname(5).
fn hostname_line(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    format!("{}\n", line.unwrap_or_default()).into_bytes()
}

fn with_end(mut bytes: Vec<u8>) -> Vec<u8> {
    if !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    bytes
}

/// Days since 1970, but never 0, which would ask for a new password at the next login. Source: shadow(5).
fn days(since: SystemTime) -> u64 {
    let seconds = since.duration_since(SystemTime::UNIX_EPOCH).map(|past| past.as_secs()).unwrap_or_default();
    (seconds / 86_400).max(1)
}

/// The shadow file's text with root's hash and the day of its change replaced; `None` if it has no line for root. When
/// the hash is the same, so is the text.
fn with_root_hash(shadow: &str, hash: &str, day: u64) -> Option<String> {
    let mut found = false;
    let mut text = String::with_capacity(shadow.len() + hash.len());
    for line in shadow.split_inclusive('\n') {
        let mut fields = line.split(':');
        match (found, fields.next(), fields.next(), fields.next()) {
            (false, Some("root"), Some(old), Some(_)) => {
                found = true;
                if old == hash {
                    text.push_str(line);
                } else {
                    let rest: Vec<&str> = fields.collect();
                    text.push_str(&["root", hash, &day.to_string(), &rest.join(":")].join(":"));
                }
            }
            _ => text.push_str(line),
        }
    }
    found.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_the_hash_and_the_day_of_roots_line_change() {
        let shadow = "daemon:*:1:0:99999:7:::\nroot:old:5:0:99999:7:::\nroot:second:5::::::\nnobody:*:1::::::";
        let new = "daemon:*:1:0:99999:7:::\nroot:H:20000:0:99999:7:::\nroot:second:5::::::\nnobody:*:1::::::";
        assert_eq!(with_root_hash(shadow, "H", 20_000).as_deref(), Some(new));
        assert_eq!(with_root_hash(shadow, "old", 20_000).as_deref(), Some(shadow));
        assert_eq!(with_root_hash("daemon:*:1::::::\n", "H", 1), None);
        assert_eq!(days(SystemTime::UNIX_EPOCH), 1);
        assert_eq!(days(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 7 + 5)), 7);
    }

    #[test]
    fn the_host_knows_its_own_name() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let hosts = root.path().join("etc/hosts");
        let system = System::open(root.path()).unwrap();
        std::fs::write(&hosts, "127.0.0.1\tlocalhost\n127.0.1.1\tsino\n\n::1\tlocalhost\n").unwrap();
        assert!(system.place_hosts("node7.example.org").unwrap());
        let text = std::fs::read_to_string(&hosts).unwrap();
        assert_eq!(text, "127.0.0.1\tlocalhost\n127.0.1.1\tnode7.example.org node7\n\n::1\tlocalhost\n");
        assert!(!system.place_hosts("node7.example.org").unwrap(), "a second time there is nothing to do");
        std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
        system.place_hosts("node7").unwrap();
        assert_eq!(std::fs::read_to_string(&hosts).unwrap(), "127.0.0.1 localhost\n127.0.1.1\tnode7\n");
    }
}
