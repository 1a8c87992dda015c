//! A laboratory for one host: a network of its own with real DHCP servers, disks that last over several boots, and the
//! list of what was found wrong.
//!
//! The network is a namespace with two segments, each a bridge: `lan` (192.0.2.0/24) and `other` (198.51.100.0/24), and on
//! demand a VLAN trunk. Each network card gets a tap device. All of it goes away with the [`Lab`], whatever happens. The
//! files stay in `target/qemu/NAME/`.

pub mod capture;
pub mod dhcp_server;
pub mod disk;
pub mod lines;
pub mod namespace;
pub mod trunk;

pub use capture::Capture;
pub use dhcp_server::{DhcpServer, Settings};
pub use disk::Disk;
pub use namespace::Namespace;

use crate::faults;
use crate::images::{Images, Paths, target};
use crate::runner::machine::second_partition;
use crate::scenario::Image;
use anyhow::{Context, Result, bail, ensure};
use sino_image::qemu::machine::Backend;
use sino_image::qemu::process::require;
use sino_image::qemu::{Bus, NetworkCard};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use trunk::{Trunk, UNTAGGED};

/// The segment that a host is usually on, as the name of its bridge, and the first three numbers of its addresses.
pub const LAN: (&str, &str) = ("lan", "192.0.2");
/// The second segment.
pub const OTHER: (&str, &str) = ("other", "198.51.100");
/// The first three numbers of the addresses in the trunk's VLAN.
const VLAN_PREFIX: &str = "203.0.113";

/// The laboratory.
#[derive(Debug)]
pub struct Lab {
    /// The trial's name.
    pub name: String,
    /// Where its files are.
    pub folder: PathBuf,
    /// The image that is booted.
    pub image: Paths,
    /// Its network.
    pub namespace: Namespace,
    /// The DHCP server of [`LAN`]; not started.
    pub lan: DhcpServer,
    /// The DHCP server of [`OTHER`]; not started.
    pub other: DhcpServer,
    trunk: Option<Trunk>,
    /// Copies of the medium: large, so they go with the lab.
    sticks: tempfile::TempDir,
    cards: usize,
    wrong: Vec<String>,
    deadline: Instant,
}

impl Lab {
    /// Opens a laboratory for a trial that may take so long.
    ///
    /// # Errors
    /// The real image or a tool is missing, or the user is not root.
    pub fn open(name: &str, images: &Images, budget: Duration) -> Result<Self> {
        require("ping", "iputils-ping")?;
        require("ssh", "openssh-client")?;
        require("sshpass", "sshpass")?;
        let folder = target().join("qemu").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let folder = fs::canonicalize(&folder)?;
        let sticks = tempfile::tempdir_in(&folder).context("making a folder for copies of the medium")?;
        let image = images.get(Image::Real)?;
        let namespace = Namespace::make()?;
        for (bridge, prefix) in [LAN, OTHER] {
            namespace.ip(&format!("link add {bridge} type bridge"))?;
            namespace.ip(&format!("address add {prefix}.1/24 dev {bridge}"))?;
            namespace.ip(&format!("link set {bridge} up"))?;
        }
        Ok(Self {
            lan: DhcpServer::new(LAN.0, LAN.1, &folder),
            other: DhcpServer::new(OTHER.0, OTHER.1, &folder),
            name: name.to_owned(),
            folder,
            image,
            namespace,
            trunk: None,
            sticks,
            cards: 0,
            wrong: Vec::new(),
            deadline: Instant::now() + budget,
        })
    }

    /// When the trial's time is over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// A network card on a segment ([`LAN`] or [`OTHER`]); without one, its cable leads nowhere.
    ///
    /// # Errors
    /// The tap device cannot be made.
    pub fn card(&mut self, model: &str, segment: Option<(&str, &str)>) -> Result<NetworkCard> {
        let backend = match segment {
            Some((bridge, _)) => {
                let tap = format!("tap{}", self.cards);
                self.namespace.ip(&format!("tuntap add dev {tap} mode tap"))?;
                self.namespace.ip(&format!("link set {tap} master {bridge} up"))?;
                Backend::Tap(tap)
            }
            None => Backend::None,
        };
        Ok(self.with_mac(model, backend))
    }

    /// A network card on a trunk with one VLAN, and the DHCP server in that VLAN (not started). Frames without a tag are on
    /// [`LAN`].
    ///
    /// # Errors
    /// The trunk cannot be made, or there is one already.
    pub fn trunk(&mut self, model: &str, vlan: u16) -> Result<(NetworkCard, DhcpServer)> {
        ensure!(self.trunk.is_none(), "the lab has a trunk already");
        let trunk = Trunk::make(&self.namespace, &[vlan])?;
        let link = format!("vlan{vlan}");
        self.namespace.ip(&format!("link set {UNTAGGED} master {} up", LAN.0))?;
        self.namespace.ip(&format!("address add {VLAN_PREFIX}.1/24 dev {link}"))?;
        self.namespace.ip(&format!("link set {link} up"))?;
        let backend = Backend::Datagrams { local: trunk.local(), remote: trunk.remote() };
        self.trunk = Some(trunk);
        let server = DhcpServer::new(&link, VLAN_PREFIX, &self.folder);
        Ok((self.with_mac(model, backend), server))
    }

    fn with_mac(&mut self, model: &str, backend: Backend) -> NetworkCard {
        // The prefix that QEMU and KVM use for their guests.
        let mac = format!("52:54:00:51:00:{:02x}", self.cards);
        self.cards += 1;
        NetworkCard { model: model.to_owned(), mac: Some(mac), backend }
    }

    /// How many frames the guest sent to the trunk in this VLAN; 0: without a tag.
    #[must_use]
    pub fn frames_in_vlan(&self, vlan: u16) -> u64 {
        self.trunk.as_ref().and_then(|trunk| trunk.seen().get(&vlan).copied()).unwrap_or_default()
    }

    /// A blank disk of so many MiB.
    ///
    /// # Errors
    /// Its file cannot be made.
    pub fn disk(&self, name: &str, bus: Bus, mib: u64) -> Result<Disk> {
        Disk::blank(&self.folder, name, bus, mib)
    }

    /// The image's medium with this text as `sino.toml` on its EFI partition, as an administrator puts it there from any
    /// computer.
    ///
    /// # Errors
    /// The copy cannot be made, or a tool is missing.
    pub fn stick(&self, name: &str, configuration: &str) -> Result<PathBuf> {
        let copy = self.sticks.path().join(format!("{name}.iso"));
        faults::configure(&self.image.iso, &copy, second_partition(&self.image.iso)?, configuration)?;
        Ok(copy)
    }

    /// An ssh key: the private key's file, and the public key as one line.
    ///
    /// # Errors
    /// ssh-keygen fails.
    pub fn ssh_key(&self, name: &str) -> Result<(PathBuf, String)> {
        let file = self.folder.join(name);
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&file);
        ensure!(keygen.status().context("running ssh-keygen")?.success(), "ssh-keygen made no key");
        let public = fs::read_to_string(file.with_extension("pub")).context("reading the public key")?;
        Ok((file, public.trim().to_owned()))
    }

    /// Begins to capture frames on a link of the lab ([`Capture::start`]).
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn capture(&self, link: &str, filter: &str, name: &str) -> Result<Capture> {
        Capture::start(&self.namespace, link, filter, &self.folder, name)
    }

    /// Sends so many pings, two a second, and returns how many were answered.
    ///
    /// # Errors
    /// ping cannot be run.
    pub fn ping(&self, address: &str, count: u32) -> Result<usize> {
        let mut command = self.namespace.command("ping");
        command.args(["-n", "-i", "0.5", "-W", "3", "-c", &count.to_string(), address]);
        let output = command.output().context("running ping")?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter(|line| line.contains("bytes from")).count())
    }

    /// Adds what was found wrong; the trial goes on and fails in the end. `when` says at which point.
    pub fn note(&mut self, when: &str, wrong: Vec<String>) {
        self.wrong.extend(wrong.into_iter().map(|sentence| format!("{when}: {sentence}")));
    }

    /// Adds a sentence if something is not right.
    pub fn expect(&mut self, right: bool, sentence: impl Into<String>) {
        if !right {
            self.wrong.push(sentence.into());
        }
    }

    /// What came of the trial.
    ///
    /// # Errors
    /// What ended it, and everything that was found wrong.
    pub fn verdict(&mut self, result: Result<()>) -> Result<()> {
        let wrong = std::mem::take(&mut self.wrong);
        match (result, wrong.is_empty()) {
            (result, true) => result,
            (Ok(()), false) => bail!("not as expected:\n  - {}", wrong.join("\n  - ")),
            (Err(error), false) => bail!("{error:#}\nand before that:\n  - {}", wrong.join("\n  - ")),
        }
    }
}
