//! The network lane: the engine, its milestones in the boot's record, and what a lease means for the rest of the host.

use super::keeping::Keeping;
use super::lane::Lane;
use crate::config::schema::{FIRST_BRIDGE, Network};
use crate::dhcp::lease::Lease;
use crate::network::engine::{Command, Engine, EngineControl, EngineSettings, Report};
use crate::network::state::NetworkState;
use log::Level;
use rustix::fd::BorrowedFd;
use sino_boot::console;
use sino_boot::record::now_us;
use sino_boot::stage::Fault;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a card waits for udev, which renames it. A slow machine's udev needs long at the boot; without udev there is
/// nothing that could rename it, so a card that waited for nothing only comes later.
const UDEV_PATIENCE: Duration = Duration::from_secs(30);

/// The lane.
pub struct NetworkLane {
    engine: Option<EngineControl>,
    lane: Lane,
    state: Option<NetworkState>,
    /// What was reached so far: bridge, port, address.
    reached: [bool; 3],
    /// When the last of them was, in microseconds since the kernel started.
    since_us: u64,
    ready: bool,
}

impl NetworkLane {
    /// Starts the engine. A network that cannot be had is a failure that is narrated, and the rest goes on.
    #[must_use]
    pub fn start(network: Network, boot: bool) -> Self {
        let mut lane = Lane::new(super::NETWORK, "network ", 3, boot);
        let since_us = now_us();
        let managed = network.managed;
        let settings = EngineSettings {
            network,
            hostname: Some(hostname()),
            udev_patience: UDEV_PATIENCE,
            missing_patience: UDEV_PATIENCE,
            ..EngineSettings::default()
        };
        let engine = match Engine::start(settings) {
            Ok(engine) => Some(engine),
            Err(error) => {
                lane.step("bridge", || {
                    Err::<sino_boot::stage::Done<()>, _>(
                        Fault::from(error).hint("the network is yours: ip link, ip address; systemctl restart sino"),
                    )
                });
                None
            }
        };
        let ready = engine.is_none() || !managed;
        Self { engine, lane, state: None, reached: [false; 3], since_us, ready }
    }

    /// Readable when [`NetworkLane::take`] has something to take.
    #[must_use]
    pub fn ready(&self) -> Option<BorrowedFd<'_>> {
        self.engine.as_ref().map(EngineControl::ready)
    }

    /// What is known of the network.
    #[must_use]
    pub fn state(&self) -> Option<&NetworkState> {
        self.state.as_ref()
    }

    /// Takes what the engine has to say. Returns whether guests can be attached.
    pub fn take(&mut self, keeping: &mut Keeping) -> bool {
        let reports = self.engine.as_ref().map(EngineControl::take);
        match reports {
            Some(Some(reports)) => {
                for report in reports {
                    self.report(report, keeping);
                }
            }
            Some(None) => {
                // It has said why.
                self.engine = None;
                self.ready = true;
            }
            None => {}
        }
        self.ready
    }

    fn report(&mut self, report: Report, keeping: &mut Keeping) {
        match report {
            Report::BridgeUp { bridge, .. } => {
                if bridge == FIRST_BRIDGE {
                    self.milestone(0, "bridge", &bridge);
                    self.ready = true;
                }
            }
            Report::PortChosen { bridge, port, .. } => {
                if bridge == FIRST_BRIDGE {
                    self.milestone(1, "port", &port);
                }
            }
            Report::Addressed { bridge, lease, .. } => {
                keeping.leased(&bridge, &lease);
            }
            Report::Changed(state) => {
                if let Some(bridge) = state.bridges.get(FIRST_BRIDGE) {
                    let names: Vec<&str> = bridge.ports.iter().map(|port| port.name.as_str()).collect();
                    if !names.is_empty() && self.reached.first() == Some(&true) {
                        self.milestone(1, "port", &names.join(", "));
                    }
                    let addresses: Vec<&str> =
                        bridge.addresses.iter().map(|address| address.address.as_str()).collect();
                    if !addresses.is_empty() {
                        self.milestone(2, "address", &addresses.join(", "));
                    }
                }
                self.state = Some(*state);
            }
            Report::Say { text, warning } => {
                if warning {
                    self.lane.warn(&text);
                } else {
                    console::say(&text, Level::Info);
                }
            }
        }
    }

    fn milestone(&mut self, number: usize, name: &str, detail: &str) {
        if let Some(reached) = self.reached.get_mut(number).filter(|reached| !**reached) {
            *reached = true;
            self.lane.reached(name, self.since_us, detail);
            self.since_us = now_us();
        }
    }

    /// The network is to be this from now on.
    pub fn reconfigure(&mut self, network: Network) {
        if !network.managed {
            self.ready = true;
        }
        self.tell(Command::Reconfigure(Box::new(network), Some(hostname())));
    }

    /// Addresses that servers may give again.
    pub fn known_leases(&self, leases: BTreeMap<String, Lease>) {
        self.tell(Command::KnownLease(leases));
    }

    /// The configuration is whole.
    pub fn begin_addresses(&self) {
        self.tell(Command::BeginAddresses);
    }

    fn tell(&self, command: Command) {
        if let Some(engine) = &self.engine
            && !engine.tell(command)
        {
            log::error!("the network is no longer looked after; systemctl restart sino starts it anew");
        }
    }
}

/// The host's name as the kernel knows it.
fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
