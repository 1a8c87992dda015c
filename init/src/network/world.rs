//! What is there: the kernel's links, addresses and routes, and what `/sys` and udev know of the cards. Read, never changed.

use super::plan::guest_name;
use super::ports::{CardRule, Place};
use crate::netlink::{Address, Connection, Link, Route};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the facts about links are.
#[derive(Clone, Debug)]
pub struct Places {
    /// `/sys/class/net`.
    pub class: PathBuf,
    /// `/run/udev/data`, where udev leaves a file `nINDEX` for each link that it has finished with.
    pub udev: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { class: "/sys/class/net".into(), udev: "/run/udev/data".into() }
    }
}

/// The network as it is.
#[derive(Clone, Debug)]
pub struct World {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// The routes of the main table.
    pub routes: Vec<Route>,
    /// Network cards by number, with their place in the machine.
    pub cards: BTreeMap<u32, Place>,
    /// Links that belong to guests.
    pub guests: BTreeSet<u32>,
    /// Cards that udev may still rename; not to be touched.
    pub unsettled: BTreeSet<u32>,
    /// Reads a kernel setting below `/proc/sys/net`, without the newline.
    pub setting: fn(&str) -> Option<String>,
}

impl World {
    /// Reads all of it. `unsettled` is left empty.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn read(connection: &mut Connection, places: &Places, rule: CardRule) -> Result<Self> {
        let links = connection.links()?;
        let mut cards = BTreeMap::new();
        let mut guests = BTreeSet::new();
        for link in &links {
            if is_guest(&places.class, link) {
                guests.insert(link.index);
            } else if rule.is_card(&places.class, link) {
                cards.insert(link.index, Place::of(&places.class, &link.name));
            }
        }
        Ok(Self {
            addresses: connection.addresses()?,
            routes: connection.routes()?,
            links,
            cards,
            guests,
            unsettled: BTreeSet::new(),
            setting: read_setting,
        })
    }

    /// The link of this name, unless udev may still give it another.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name && !self.unsettled.contains(&link.index))
    }

    /// The link with this number.
    #[must_use]
    pub fn numbered(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The ports of a bridge or bond.
    pub fn ports_of(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(move |link| link.master == Some(master))
    }
}

/// Whether a link is the host's end of a guest's interface.
fn is_guest(class: &Path, link: &Link) -> bool {
    let path = class.join(&link.name).join("device");
    guest_name(&link.name)
        || link.kind.as_deref() == Some("tun")
        || path.join("devtype").exists()
        || fs::read_to_string(path.join("modalias")).is_ok_and(|alias| alias.trim() == "xen-backend:vif")
}

fn read_setting(path: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys/net").join(path)).ok().map(|text| text.trim().to_owned())
}
