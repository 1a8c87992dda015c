//! The host's network: bridges with their ports, what is below them, and the host's addresses.
//!
//! [`plan`] says what is wanted, [`world`] what is there, `difference` what has to be done; and [`engine`] keeps doing it.

pub mod announced;
mod apply;
mod difference;
pub mod engine;
pub mod flags;
pub mod plan;
pub mod ports;
pub mod resolv;
pub mod state;
pub mod world;

pub use difference::Made;

/// A lease for tests.
#[cfg(test)]
pub(crate) fn test_lease() -> crate::dhcp::lease::Lease {
    crate::dhcp::lease::Lease {
        address: [192, 0, 2, 77].into(),
        prefix: 24,
        routers: vec![[192, 0, 2, 1].into()],
        routes: Vec::new(),
        dns: Vec::new(),
        domain: None,
        search: Vec::new(),
        hostname: None,
        ntp: Vec::new(),
        mtu: None,
        server: [192, 0, 2, 1].into(),
        obtained_at: 0,
        began: 1000,
        lease_s: 600,
        renew_s: 300,
        rebind_s: 500,
    }
}
