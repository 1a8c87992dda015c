//! Which guests run, whoever started them: for the text above the login and for `sino status`. xenstored tells; nobody is asked
//! again and again.

use super::{News, Sender};
use crate::guests::xenstore::{Client, SOCKET, domains::Domains};
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use sino_boot::layout;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What the kernel says of the hypervisor below it. Source: the kernel's ABI/stable/sysfs-hypervisor-xen.
const HYPERVISOR: &str = "/sys/hypervisor/type";
/// How soon xenstored is tried again: that its socket is there does not say that it answers yet.
const TRIES_EVERY: Duration = Duration::from_secs(2);

/// Whether this kernel runs on Xen.
#[must_use]
pub fn on_xen() -> bool {
    fs::read_to_string(HYPERVISOR).is_ok_and(|kind| kind.trim() == "xen")
}

/// Watches in a thread, from when xenstored answers; does nothing where there is no Xen.
pub fn watch(sender: &Sender) {
    if !on_xen() {
        return;
    }
    let sender = sender.clone();
    let watch = move || {
        loop {
            let result = wait_for_xenstored().and_then(|client| follow(client, &sender));
            if let Err(error) = result {
                log::warn!("which guests run is not known: {error:#}");
                sender.send(News::Running(None));
                // Its socket may be there without it: no event tells when it answers again.
                std::thread::sleep(TRIES_EVERY);
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("domains".into()).spawn(watch) {
        log::warn!("which guests run is not known: {error}; systemctl restart sino");
    }
}

/// Waits until xenstored answers. It may never come, and nobody waits for this.
pub(super) fn wait_for_xenstored() -> Result<Client> {
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    loop {
        if let Ok(client) = Client::by_socket(Path::new(SOCKET)) {
            return Ok(client);
        }
        for folder in Path::new(SOCKET).ancestors().skip(1).take(2) {
            // The inner one may not be there yet.
            let _ = inotify::add_watch(&events, folder, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO);
        }
        let there = Path::new(SOCKET).exists();
        let limit = Timespec::try_from(TRIES_EVERY).ok().filter(|_| there);
        let mut fds = [PollFd::new(&events, PollFlags::IN)];
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for xenstored"),
        }
        // Empty when it was the time.
        let _ = rustix::io::read(&events, &mut [0; 4096]);
    }
}

/// Tells which guests run whenever that changes, until xenstored is lost.
fn follow(client: Client, sender: &Sender) -> Result<()> {
    let mut domains = Domains::watch(client)?;
    loop {
        domains.changes()?;
        let mut names: Vec<String> = domains
            .there()
            .map(|domain| domain.name.clone().unwrap_or_else(|| format!("domain {}", domain.id)))
            .collect();
        names.sort();
        sender.send(News::Running(Some(names)));
        let mut fds = [PollFd::from_borrowed_fd(domains.fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for news of the domains"),
        }
    }
}

/// Keeps what is known for `sino status`.
pub fn publish(names: Option<&[String]>) {
    let new = format!("{}.new", layout::RUNNING_GUESTS);
    let text = serde_json::to_string(&names).unwrap_or_default();
    if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, layout::RUNNING_GUESTS)) {
        log::warn!("{} could not be written: {error}", layout::RUNNING_GUESTS);
    }
}

/// What [`publish`] kept: `None` where it is not known.
#[must_use]
pub fn known() -> Option<Vec<String>> {
    serde_json::from_str(&fs::read_to_string(layout::RUNNING_GUESTS).ok()?).ok()?
}

/// One line on the guests that run.
#[must_use]
pub fn line(names: &[String]) -> String {
    match names {
        [] => "No guest runs.".to_owned(),
        [name] => format!("1 guest runs: {name}."),
        names => format!("{} guests run: {}.", names.len(), names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_that_run_are_counted_and_named() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(line(&[]), "No guest runs.");
        assert_eq!(line(&names(&["db"])), "1 guest runs: db.");
        assert_eq!(line(&names(&["db", "web"])), "2 guests run: db, web.");
    }
}
