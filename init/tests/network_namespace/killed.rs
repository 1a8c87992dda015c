//! The supervisor's process is killed in each state of its DHCP client, and another is started. What counts: the server is
//! asked no more than is needed, the address is the same, and it is never gone from the bridge while its lease holds.

use super::engine_process::{EngineProcess, KEPT};
use super::net::{Net, equal};
use super::played_server::{ADDRESS, Answers, Asked, PlayedServer, Times};
use super::{LIMIT, Outcome};
use libtest_mimic::Failed;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use sino_init::network::state::{self, BridgeState};
use std::fs;
use std::time::{Duration, Instant};

/// A lease that nothing happens to during a trial.
const LONG: Times = Times(600, 300, 500);

/// Hears when the kernel removes an IPv4 address.
struct Removals(OwnedFd);

impl Removals {
    fn new() -> Result<Self, Failed> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, None)?;
        // RTMGRP_IPV4_IFADDR of `include/uapi/linux/rtnetlink.h`.
        bind(&socket, &SocketAddrNetlink::new(0, 0x10))?;
        Ok(Self(socket))
    }

    /// How many since the last call.
    fn count(&self) -> Result<usize, Failed> {
        let (mut count, mut buffer) = (0, [0; 8192]);
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                // The kernel tells of one address in each datagram; RTM_DELADDR is 21.
                Ok((_, length)) => count += usize::from(buffer[..length].get(4..6) == Some(&21_u16.to_ne_bytes())),
                Err(Errno::AGAIN) => return Ok(count),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for one; the shortest lease takes as long as other things may.
    fn wait(&self) -> Outcome {
        let end = Instant::now() + LIMIT * 2;
        while self.count()? == 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("the kernel removes no address".into());
            }
            let left = Timespec::try_from(left)?;
            poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left))?;
        }
        Ok(())
    }
}

/// A host with one card, and a server at the other end of its cable.
fn lab(net: &mut Net, times: Times) -> Result<PlayedServer, Failed> {
    net.card("eth0", true)?;
    PlayedServer::start(net, "eth0", times)
}

fn recorded(net: &Net) -> Result<BridgeState, Failed> {
    let state = state::read(&net.folder.path().join("network.json"))?.ok_or("no state")?;
    state.bridges.get("xenbr0").cloned().ok_or_else(|| "no bridge in the state".into())
}

fn has_address(net: &mut Net, has: bool) -> Outcome {
    let wanted = if has { vec![format!("{ADDRESS}/24")] } else { Vec::new() };
    equal("addresses", &net.addresses("xenbr0")?, &wanted)
}

/// Waits for `state` in a process that is started now, kills it there, and proves that it was there.
fn kill_in(net: &mut Net, state: &str) -> Outcome {
    let mut process = EngineProcess::start(net)?;
    process.until(state)?;
    process.kill()?;
    equal("the state when it was killed", &recorded(net)?.dhcp.as_deref(), &Some(state))
}

/// Starts a process that is to have the address, and returns the states that it went through.
fn bound(net: &mut Net) -> Result<(EngineProcess, Vec<String>), Failed> {
    let mut process = EngineProcess::start(net)?;
    process.until("bound")?;
    has_address(net, true)?;
    let seen = process.seen.clone();
    Ok((process, seen))
}

const NEW: [Asked; 2] = [Asked::Discover, Asked::Offered(ADDRESS)];

pub(super) fn selecting(net: &mut Net) -> Outcome {
    let server = lab(net, LONG)?;
    server.answers(Answers::Nothing);
    kill_in(net, "selecting")?;
    equal("asked before", &server.asked(), &vec![Asked::Discover])?;
    server.answers(Answers::Everything);
    let _process = bound(net)?;
    equal("asked", &server.asked(), &NEW.to_vec())
}

pub(super) fn requesting(net: &mut Net) -> Outcome {
    let server = lab(net, LONG)?;
    server.answers(Answers::Offers);
    kill_in(net, "requesting")?;
    // Nothing was granted: there is nothing that could be asked for again.
    equal("kept", &recorded(net)?.unproven, &None)?;
    server.asked();
    server.answers(Answers::Everything);
    let _process = bound(net)?;
    equal("asked", &server.asked(), &NEW.to_vec())
}

pub(super) fn probing(net: &mut Net) -> Outcome {
    let server = lab(net, LONG)?;
    kill_in(net, "probing")?;
    has_address(net, false)?;
    equal("kept", &recorded(net)?.unproven.map(|lease| lease.address), &Some(ADDRESS))?;
    equal("asked before", &server.asked(), &NEW.to_vec())?;
    // And once more while it is confirmed.
    server.answers(Answers::Nothing);
    kill_in(net, "rebooting")?;
    has_address(net, false)?;
    equal("asked in between", &server.asked(), &vec![Asked::Again(ADDRESS)])?;
    server.answers(Answers::Everything);
    let (_process, states) = bound(net)?;
    equal("asked", &server.asked(), &vec![Asked::Again(ADDRESS)])?;
    // It is still to be seen whether anybody else uses it.
    equal("states", &states.iter().any(|state| state == "probing"), &true)?;
    equal("kept", &recorded(net)?.unproven, &None)
}

pub(super) fn probing_a_taken_address(net: &mut Net) -> Outcome {
    let server = lab(net, LONG)?;
    kill_in(net, "probing")?;
    server.asked();
    net.at_switch(&["ip", "address", "add", &format!("{ADDRESS}/32"), "dev", "p-eth0"])?;
    let mut process = EngineProcess::start(net)?;
    process.until("waiting")?;
    has_address(net, false)?;
    let declined = Asked::Other(dhcproto::v4::MessageType::Decline);
    let end = Instant::now() + LIMIT;
    let mut asked = server.asked();
    while asked.len() < 2 && Instant::now() < end {
        std::thread::yield_now();
        asked.extend(server.asked());
    }
    equal("asked", &asked, &vec![Asked::Again(ADDRESS), declined])?;
    equal("kept", &recorded(net)?.unproven, &None)
}

pub(super) fn in_use(net: &mut Net) -> Outcome {
    let server = lab(net, LONG)?;
    let removals = Removals::new()?;
    let (process, _) = bound(net)?;
    server.asked();
    process.kill()?;
    has_address(net, true)?;
    for _ in 0..3 {
        let (process, states) = bound(net)?;
        equal("states", &states, &vec!["bound".to_owned()])?;
        process.kill()?;
    }
    equal("asked and removed", &(server.asked(), removals.count()?), &(Vec::new(), 0))
}

/// Killed in a state that the lease reaches when the server is silent; `again`: what the next process asks.
fn extended(net: &mut Net, times: Times, state: &str, again: &[Asked]) -> Outcome {
    let server = lab(net, times)?;
    let removals = Removals::new()?;
    let (mut process, _) = bound(net)?;
    server.answers(Answers::Nothing);
    process.until(state)?;
    process.kill()?;
    equal("the state when it was killed", &recorded(net)?.dhcp.as_deref(), &Some(state))?;
    has_address(net, true)?;
    server.asked();
    server.answers(Answers::Everything);
    let mut process = EngineProcess::start(net)?;
    process.until(state)?;
    process.until("bound")?;
    has_address(net, true)?;
    equal("asked", &server.asked(), &again.to_vec())?;
    equal("removed", &removals.count()?, &0)
}

pub(super) fn renewing(net: &mut Net) -> Outcome {
    extended(net, Times(120, 5, 100), "renewing", &[Asked::Extend(ADDRESS)])
}

pub(super) fn rebinding(net: &mut Net) -> Outcome {
    extended(net, Times(120, 5, 6), "rebinding", &[Asked::Extend(ADDRESS)])
}

pub(super) fn rebooting(net: &mut Net) -> Outcome {
    let server = lab(net, LONG)?;
    let (process, _) = bound(net)?;
    let kept = [("xenbr0", recorded(net)?.lease.ok_or("no lease")?)];
    process.kill()?;
    // The host starts anew: nothing of it is left but what is on the disk.
    super::ip(&["link", "delete", "xenbr0"])?;
    fs::remove_file(net.folder.path().join("network.json"))?;
    fs::write(net.folder.path().join(KEPT), serde_json::to_string(&std::collections::BTreeMap::from(kept))?)?;
    server.asked();
    server.answers(Answers::Nothing);
    kill_in(net, "rebooting")?;
    equal("asked before", &server.asked(), &vec![Asked::Again(ADDRESS)])?;
    server.answers(Answers::Everything);
    let (_process, states) = bound(net)?;
    equal("asked", &server.asked(), &vec![Asked::Again(ADDRESS)])?;
    // It was the host's before, and is not probed.
    equal("states", &states.iter().any(|state| state == "probing"), &false)
}

pub(super) fn verifying(net: &mut Net) -> Outcome {
    let server = lab(net, LONG)?;
    let removals = Removals::new()?;
    let (mut process, _) = bound(net)?;
    server.asked();
    server.answers(Answers::Nothing);
    unplug(net)?;
    net.plug("eth0", true)?;
    process.until("verifying")?;
    process.kill()?;
    server.asked();
    server.answers(Answers::Everything);
    let (process, _) = bound(net)?;
    let mut process = verified(process, &server)?;
    // The cable is out when it is killed, and in again before the next one is there.
    unplug(net)?;
    process.kill()?;
    net.plug("eth0", true)?;
    process = bound(net)?.0;
    verified(process, &server)?;
    has_address(net, true)?;
    equal("removed", &removals.count()?, &0)
}

/// Pulls the cable, and returns when the engine has seen it.
fn unplug(net: &Net) -> Outcome {
    net.plug("eth0", false)?;
    let end = Instant::now() + LIMIT;
    while recorded(net)?.carrier {
        equal("the carrier stays", &(Instant::now() > end), &false)?;
        std::thread::yield_now();
    }
    Ok(())
}

/// Waits until the server was asked whether the address still holds, and that it was asked nothing else.
fn verified(process: EngineProcess, server: &PlayedServer) -> Result<EngineProcess, Failed> {
    let end = Instant::now() + LIMIT;
    loop {
        let asked = server.asked();
        if !asked.is_empty() {
            equal("asked", &asked, &vec![Asked::Again(ADDRESS)])?;
            return Ok(process);
        }
        equal("nobody asks", &(Instant::now() > end), &false)?;
        std::thread::yield_now();
    }
}

pub(super) fn expired(net: &mut Net) -> Outcome {
    let server = lab(net, Times(10, 5, 7))?;
    let removals = Removals::new()?;
    let (process, _) = bound(net)?;
    process.kill()?;
    server.asked();
    // Nobody is there to remove it: the kernel does.
    removals.wait()?;
    has_address(net, false)?;
    // Kernel, lease and wall clock each count in seconds of their own.
    std::thread::sleep(Duration::from_secs(1));
    let _process = bound(net)?;
    equal("asked", &server.asked(), &NEW.to_vec())
}
