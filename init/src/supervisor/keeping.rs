//! What is kept while the host runs: its identity and its leases on `/srv`, and the text above the login.

use super::{News, Sender, login_text, running_guests, storage_lane, systemctl};
use crate::boots::{self, Places};
use crate::config::schema::Config;
use crate::dhcp::lease::Lease;
use crate::identity::access::{self, AccessState};
use crate::identity::{self, Item, Notice, Store};
use crate::network::state::NetworkState;
use crate::storage::srv::{self, State};
use crate::storage::state::{self, StorageState};
use crate::storage::{Host, Problem};
use log::Level;
use sino_boot::{console, layout};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// systemd-timesyncd's time servers of a lease. Source: timesyncd.conf(5).
const TIME_SERVERS: &str = "/run/systemd/timesyncd.conf.d/sino.conf";

/// How long keeping the boot may hold up a stop of the host.
const BOOT_IS_KEPT_WITHIN: Duration = Duration::from_secs(3);

/// What is kept, and who keeps it.
pub struct Keeping {
    config: Config,
    storage: Option<StorageState>,
    access: AccessState,
    leases: BTreeMap<String, Lease>,
    time_servers: Vec<Ipv4Addr>,
    /// The end of this pipe that is kept stops the watch by going away.
    watch: Option<(std::io::PipeWriter, JoinHandle<()>)>,
    /// Keeps the times of this boot.
    boots: Option<boots::Watch>,
    /// What is not kept at the moment, and why.
    not_kept: BTreeSet<String>,
    /// The same of the leases.
    leases_not_kept: Option<String>,
    /// Whether [`Notice::TryAgain`] is on its way.
    retry_comes: bool,
    sender: Option<Sender>,
    /// The guests that run, if that is known.
    guests: Option<Vec<String>>,
    shown: String,
}

impl Keeping {
    /// Nothing is kept yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            storage: None,
            access: AccessState::default(),
            leases: BTreeMap::new(),
            time_servers: Vec::new(),
            watch: None,
            boots: None,
            not_kept: BTreeSet::new(),
            leases_not_kept: None,
            retry_comes: false,
            sender: None,
            guests: None,
            shown: String::new(),
        }
    }

    /// `/srv` was looked at; where it can be written, what changes of the host's identity is kept from now on.
    pub fn begin(&mut self, found: storage_lane::Found, sender: &Sender) {
        self.let_go();
        self.config = found.loaded.config;
        self.access = found.access;
        let writable = found.storage.srv.state == State::Mounted;
        self.storage = Some(found.storage);
        self.sender = Some(sender.clone());
        if writable && let Err(error) = self.start_watch(found.unsaved, sender) {
            log::warn!("changes of this host's identity are not kept: {error:#}");
        }
        if writable {
            let watch = boots::Watch::start(Places::of_this_host());
            self.boots = watch.inspect_err(|error| log::warn!("the times of this boot are not kept: {error:#}")).ok();
        } else {
            log::debug!("the times of this boot are not kept: {} cannot be written", layout::SRV);
        }
        self.publish();
    }

    fn start_watch(&mut self, unsaved: Vec<Item>, sender: &Sender) -> anyhow::Result<()> {
        let (stop, hold) = std::io::pipe()?;
        let (config, sender) = (self.config.clone(), sender.clone());
        let thread = std::thread::Builder::new().name("identity".into()).spawn(move || {
            let mut say = |notice| sender.send(News::Identity(notice));
            let stop = std::os::fd::AsFd::as_fd(&stop);
            let result = identity::watch(Path::new("/"), &Store::on_host(), &config, &unsaved, stop, &mut say);
            if let Err(error) = result {
                say(Notice::NotKept(format!("{error:#}")));
            }
        })?;
        self.watch = Some((hold, thread));
        Ok(())
    }

    /// Stops keeping, for example because `/srv` is to be unmounted. What changed until now is kept.
    pub fn let_go(&mut self) {
        if let Some((hold, thread)) = self.watch.take() {
            drop(hold);
            // It can only have ended by a panic, which has been logged.
            let _ = thread.join();
        }
        if let Some(boots) = self.boots.take() {
            boots.stop();
        }
        self.not_kept.clear();
        self.leases_not_kept = None;
    }

    /// The host, or all of SINO on it, is about to stop, and `/srv` with it: what is known of this boot is kept.
    pub fn host_stops(&self) {
        if self.boots.is_none() {
            return;
        }
        let (done, ended) = mpsc::channel();
        let started = std::thread::Builder::new().name("boot".into()).spawn(move || {
            if let Err(error) = boots::keep_at_stop(&Places::of_this_host()) {
                log::warn!("the times of this boot are not kept: {error:#}");
            }
            // Nobody may wait for it any more.
            let _ = done.send(());
        });
        // Guests must not wait for a disk that hangs.
        if started.is_ok() && ended.recv_timeout(BOOT_IS_KEPT_WITHIN).is_err() {
            log::warn!("the times of this boot are not kept yet: {} is slow", layout::SRV);
        }
    }

    /// The configuration was read anew.
    pub fn config(&mut self, config: Config) {
        self.config = config;
    }

    /// The watch has something to say.
    pub fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Watching => {}
            Notice::Kept(items) => {
                let names: Vec<&str> = items.iter().map(|item| item.name()).collect();
                log::info!("kept on {}: {}", layout::SRV_STATE, names.join(", "));
            }
            Notice::NotKept(why) => {
                console::say(&format!("warning: {why}"), Level::Warn);
                self.not_kept.insert(why);
                self.publish();
            }
            Notice::Resolved(why) => {
                self.not_kept.remove(&why);
                self.publish();
            }
            Notice::TryAgain => {
                self.retry_comes = false;
                self.write_leases();
                self.publish();
            }
            Notice::Access(access) => {
                if access.changed {
                    systemctl(&["try-reload-or-restart", "ssh.service"]);
                }
                self.access = access;
            }
        }
    }

    /// A lease was given or renewed.
    pub fn leased(&mut self, bridge: &str, lease: &Lease) {
        self.leases.insert(bridge.to_owned(), lease.clone());
        self.write_leases();
        if let Some(name) = &lease.hostname
            && self.config.network.hostname_from_lease
            && self.config.system.hostname.is_none()
            && has_images_name()
            && let Err(error) = rustix::system::sethostname(name.as_bytes())
        {
            log::warn!("the name {name:?} of the lease cannot be used: {error}");
        }
        if lease.ntp != self.time_servers {
            self.time_servers.clone_from(&lease.ntp);
            tell_time_servers(&lease.ntp);
        }
    }

    /// Keeps the leases that the host has now, because it can be done from now on.
    pub fn keep_leases(&mut self, network: Option<&NetworkState>) {
        for (name, bridge) in network.map(|state| &state.bridges).into_iter().flatten() {
            if let Some(lease) = &bridge.lease {
                self.leases.insert(name.clone(), lease.clone());
            }
        }
        self.write_leases();
    }

    fn write_leases(&mut self) {
        if self.watch.is_none() || self.leases.is_empty() {
            return;
        }
        let store = Store::on_host();
        let mut all = store.leases().map(|(known, _)| known).unwrap_or_default();
        for (bridge, lease) in &self.leases {
            if let Ok(value) = serde_json::to_value(lease) {
                all.insert(bridge.clone(), value);
            }
        }
        let trouble = store.keep_leases(&all).err().map(|error| format!("the lease is not kept yet: {error:#}"));
        if trouble.is_some() {
            self.try_again_later();
        }
        if trouble != self.leases_not_kept {
            if let Some(why) = &trouble {
                console::say(&format!("warning: {why}"), Level::Warn);
            }
            self.leases_not_kept = trouble;
            self.publish();
        }
    }

    /// Has `sino status` show what is not kept, and no longer what is.
    fn publish(&mut self) {
        let trouble =
            |why: &String| Problem::new(why.clone(), "put that right; it is kept by itself within a minute then");
        let not_kept: Vec<Problem> = self.not_kept.iter().chain(&self.leases_not_kept).map(trouble).collect();
        if let Some(storage) = &mut self.storage {
            storage.not_kept.clone_from(&not_kept);
        }
        let host = Host::this();
        let written = state::claim(host).and_then(|_claim| {
            let before = StorageState::load(host)?;
            let mut storage = StorageState { not_kept, ..before.clone() };
            srv::look_at_room(host, &mut storage.srv);
            if storage == before { Ok(()) } else { storage.save(host) }
        });
        if let Err(error) = written {
            // Another program is at work on the storage.
            log::debug!("what is not kept is not shown yet: {error:#}");
            self.try_again_later();
        }
    }

    /// Has a notice come after a while; a full file system does not say when it no longer is.
    fn try_again_later(&mut self) {
        let Some(sender) = self.sender.clone().filter(|_| !self.retry_comes) else { return };
        let timer = std::thread::Builder::new().name("retry".into()).spawn(move || {
            std::thread::sleep(identity::RETRY);
            sender.send(News::Identity(Notice::TryAgain));
        });
        match timer {
            Ok(_) => self.retry_comes = true,
            Err(error) => log::warn!("what is not kept is tried again at its next change only: {error}"),
        }
    }

    /// These guests run.
    pub fn guests(&mut self, names: Option<Vec<String>>) {
        if names != self.guests {
            running_guests::publish(names.as_deref());
            self.guests = names;
        }
    }

    /// Has the login prompts show how the host is, if that has changed.
    pub fn show(&mut self, network: Option<&NetworkState>) {
        let warnings: Vec<String> = self.access.warning().into_iter().collect();
        let text = login_text::render(network, self.storage.as_ref(), self.guests.as_deref(), &warnings);
        if text != self.shown {
            if let Err(error) = login_text::show(&text) {
                log::warn!("the text above the login is not up to date: {error:#}");
            }
            self.shown = text;
        }
    }
}

/// Whether the host still has the name that its image was built with.
fn has_images_name() -> bool {
    let image = fs::read_to_string(format!("{}/etc/hostname", layout::LOWER)).unwrap_or_default();
    let now = fs::read_to_string("/etc/hostname").unwrap_or_default();
    image.trim() == now.trim()
}

fn tell_time_servers(servers: &[Ipv4Addr]) {
    let mut text = "# The time servers of the lease.\n[Time]\nNTP=".to_owned();
    for server in servers {
        // Writing to a String cannot fail.
        let _ = write!(text, "{server} ");
    }
    text.push('\n');
    let folder = Path::new(TIME_SERVERS).parent().unwrap_or(Path::new("/run"));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(TIME_SERVERS, text));
    match written {
        Ok(()) if Path::new(layout::HANDED_OVER).exists() => {
            systemctl(&["try-restart", "systemd-timesyncd.service"]);
        }
        Ok(()) => {}
        Err(error) => log::warn!("the lease's time servers are not used: {TIME_SERVERS}: {error}"),
    }
}

/// What is known of the storage.
#[must_use]
pub fn storage() -> StorageState {
    StorageState::load(Host::this()).unwrap_or_else(|error| {
        log::warn!("{error:#}");
        StorageState::default()
    })
}

/// Whether `/srv` is mounted, as far as is known.
#[must_use]
pub fn is_mounted() -> bool {
    matches!(storage().srv.state, State::Mounted | State::ReadOnly)
}

/// The host as the supervisor before this one has left it: nothing is restored, and nothing activated.
#[must_use]
pub fn as_it_is() -> storage_lane::Found {
    let storage = storage();
    let loaded = storage_lane::load(is_mounted());
    let access = access::apply(Path::new("/"), &loaded.config.access);
    let leases = storage_lane::known_leases(&Store::on_host()).map(|(leases, _)| leases).unwrap_or_default();
    storage_lane::Found { loaded, storage, access, leases, unsaved: Vec::new() }
}
