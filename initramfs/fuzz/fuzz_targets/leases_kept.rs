//! The leases that the store kept, for a boot on which no server answers. Input: the file.
#![no_main]

use sino_init::config::schema::Network;
use sino_init::dhcp::client::{Client, Now, Settings};
use sino_init::dhcp::lease::Lease;
use sino_init::identity::items;
use sino_init::network::plan::Plan;
use sino_init::network::resolv;
use std::collections::BTreeMap;
use std::time::Duration;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(values) = items::leases(data) else { return };
    let mut leases = BTreeMap::new();
    for (bridge, value) in values {
        let Ok(lease) = serde_json::from_value::<Lease>(value) else { continue };
        let written = serde_json::to_value(&lease).expect("what was read can be written");
        assert_eq!(serde_json::from_value::<Lease>(written).expect("what was written can be read"), lease);
        let now = Now { boot: Duration::from_secs(1000), wall: 1_800_000_000 };
        for unproven in [false, true] {
            let settings =
                Settings { mac: [2, 0, 0, 0, 0, 7], hostname: None, previous: Some(lease.clone()), unproven };
            silence(Client::new(settings.clone(), 1, now), now);
            silence(Client::resume(settings, lease.clone(), 1), now);
        }
        leases.insert(bridge, lease);
    }
    let (plan, _) = Plan::from(&Network::default());
    let (servers, domains) = resolv::sources(&plan, &leases, &BTreeMap::new());
    let lines = resolv::text(&servers, &domains);
    let known = |line: &str| ["#", "nameserver ", "search "].iter().any(|start| line.starts_with(start));
    assert!(lines.lines().all(known) && !lines.chars().any(|c| c.is_control() && c != '\n'), "{lines:?}");
});

/// No server answers the client.
fn silence(mut client: Client, mut now: Now) {
    let mut early = 0;
    for _ in 0..64 {
        let Some(deadline) = client.deadline() else { return };
        // Several things may be due at one time, but not for ever.
        early = if deadline <= now.boot { early + 1 } else { 0 };
        assert!(early < 8, "its deadline stays in the past: {client:?}");
        now.boot = deadline.max(now.boot);
        let _ = client.tick(now);
    }
}
