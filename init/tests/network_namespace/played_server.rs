//! A DHCP server at the switch's end of a cable that is silent when the trial wants it, and notes all that it is asked.

use super::net::Net;
use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};
use libtest_mimic::Failed;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Answers go to all of the net: a client has no address yet, and one that has takes them all the same.
const EVERYBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 255), 68);
/// The address that it gives.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
/// How soon it sees that the trial is over.
const LOOK: Duration = Duration::from_millis(100);

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    Nothing,
    /// A DISCOVER, but no REQUEST.
    Offers,
    Everything,
}

/// Seconds of a lease, until T1 and until T2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times(pub(super) u32, pub(super) u32, pub(super) u32);

/// A message of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Discover,
    /// For what a server offered.
    Offered(Ipv4Addr),
    /// INIT-REBOOT: for an address that it had, or was granted.
    Again(Ipv4Addr),
    /// For more time for the address that it uses.
    Extend(Ipv4Addr),
    Other(MessageType),
}

struct Shared {
    answers: Answers,
    times: Times,
    asked: Vec<Asked>,
}

/// The server; it ends with its value.
pub(super) struct PlayedServer {
    shared: Arc<Mutex<Shared>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for PlayedServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl PlayedServer {
    /// A server on the cable of `card`, which answers everything.
    pub(super) fn start(net: &Net, card: &str, times: Times) -> Result<Self, Failed> {
        net.at_switch(&["ip", "address", "add", "192.0.2.1/24", "dev", &format!("p-{card}")])?;
        let namespace = File::open(format!("/proc/{}/ns/net", net.switch_pid()))?;
        // A socket stays in the namespace that its thread was in.
        let opened = std::thread::spawn(move || -> std::io::Result<UdpSocket> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67))?;
            socket.set_broadcast(true)?;
            socket.set_read_timeout(Some(LOOK))?;
            Ok(socket)
        });
        let socket = opened.join().map_err(|_| "the server's thread panicked")??;
        let shared = Arc::new(Mutex::new(Shared { answers: Answers::Everything, times, asked: Vec::new() }));
        let over = Arc::new(AtomicBool::new(false));
        let (its_shared, its_over) = (Arc::clone(&shared), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !its_over.load(Ordering::Relaxed) {
                let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
                let message = Message::from_bytes(&buffer[..length]).expect("the client's message");
                let reply = its_shared.lock().expect("the server's state").hear(&message);
                if let Some(reply) = reply {
                    let _ = socket.send_to(&reply.to_vec().expect("an answer"), EVERYBODY);
                }
            }
        });
        Ok(Self { shared, over, thread: Some(thread) })
    }

    pub(super) fn answers(&self, answers: Answers) {
        self.shared.lock().expect("the server's state").answers = answers;
    }

    /// What it was asked since the last call.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.lock().expect("the server's state").asked)
    }
}

impl Shared {
    fn hear(&mut self, message: &Message) -> Option<Message> {
        let options = message.opts();
        let wish = match options.get(OptionCode::RequestedIpAddress) {
            Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
            _ => None,
        };
        let asked = match (options.msg_type(), wish) {
            (Some(MessageType::Discover), _) => Asked::Discover,
            (Some(MessageType::Request), Some(wish)) if options.get(OptionCode::ServerIdentifier).is_some() => {
                Asked::Offered(wish)
            }
            (Some(MessageType::Request), Some(wish)) => Asked::Again(wish),
            (Some(MessageType::Request), None) => Asked::Extend(message.ciaddr()),
            (kind, _) => Asked::Other(kind.expect("a kind of message")),
        };
        self.asked.push(asked);
        let kind = match (asked, self.answers) {
            (Asked::Discover, Answers::Offers | Answers::Everything) => MessageType::Offer,
            (Asked::Offered(_) | Asked::Again(_) | Asked::Extend(_), Answers::Everything) => MessageType::Ack,
            _ => return None,
        };
        let Times(lease, renewal, rebinding) = self.times;
        let none = Ipv4Addr::UNSPECIFIED;
        let mut reply = Message::new_with_id(message.xid(), none, ADDRESS, none, none, message.chaddr());
        reply.set_opcode(Opcode::BootReply);
        for option in [
            DhcpOption::MessageType(kind),
            DhcpOption::ServerIdentifier(SERVER),
            DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
            DhcpOption::Router(vec![SERVER]),
            DhcpOption::AddressLeaseTime(lease),
            DhcpOption::Renewal(renewal),
            DhcpOption::Rebinding(rebinding),
        ] {
            reply.opts_mut().insert(option);
        }
        Some(reply)
    }
}
