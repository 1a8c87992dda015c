//! The program of a small guest ([`sino_image::guests`]): process 1, and what the kernel calls when the guest is to go down.
//!
//! As process 1 it loads the drivers that it finds, brings up its network card, answers on a TCP port, says that it is
//! ready on its console and in the xenstore, and keeps a record on its disk. As `/sbin/poweroff` or `/sbin/reboot` it says
//! that it was asked to, and obeys, or does not. What fails is said on the console; the rest goes on.

mod address;
pub mod record;
mod xenstore;

use anyhow::{Context, Result};
use record::Record;
use rustix::mount::{MountFlags, mount};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with, sockopt};
use rustix::system::{RebootCommand, reboot};
use sino_image::guests::{Orders, initramfs};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// The first network card.
const CARD: &str = "eth0";
/// The first disk.
const DISK: &str = "/dev/xvda";
/// How long a device may take to appear: the host's side of it is set up by scripts.
const DEVICE_WITHIN: Duration = Duration::from_secs(60);
/// How long somebody who connects may think about what to say.
const COMMAND_WITHIN: Duration = Duration::from_secs(20);
/// What somebody who connects says to crash the guest.
pub const CRASH: &str = "crash";
/// In the record and on the console: the guest was asked to go down.
pub const ASKED: &str = "asked to shut down";
/// The same: it has come up.
pub const READY: &str = "ready";

/// What the program does under this name; returns only when it was not called as process 1.
pub fn main(called: &str) {
    let name = called.rsplit('/').next().unwrap_or_default();
    if name == "poweroff" || name == "reboot" {
        go_down(name);
        return;
    }
    if let Err(error) = come_up() {
        say(&format!("guest: {error:#}"));
    }
    // Process 1 must not end.
    loop {
        std::thread::park();
    }
}

/// Says a line on the console.
fn say(line: &str) {
    // Without a console there is nobody to tell.
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(format!("{line}\n").as_bytes());
    }
}

fn come_up() -> Result<()> {
    for (fs, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(fs, target, fs, MountFlags::empty(), None).with_context(|| format!("mounting {target}"))?;
    }
    let orders = Orders::parse(&fs::read_to_string("/proc/cmdline")?).context("reading the command line")?;
    let complain = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            say(&format!("guest {}: {what}: {error:#}", orders.name));
        }
    };
    let events = Events::open()?;
    complain("drivers", drivers());
    if orders.disk {
        complain("disk", events.wait_for(DISK).and_then(|()| note("started")));
    }
    if let Some((address, prefix)) = orders.address {
        complain(
            "network",
            events.wait_for(&format!("/sys/class/net/{CARD}")).and_then(|()| address::set(CARD, address, prefix)),
        );
    }
    if let Some(port) = orders.port {
        complain("TCP", listen(&orders.name, port));
    }
    std::thread::sleep(Duration::from_secs(orders.delay));
    complain("xenstore", xenstore::write("data/ready", "1"));
    if orders.disk {
        complain("disk", note(READY));
    }
    say(&format!("guest {} {READY}", orders.name));
    if let Some(seconds) = orders.crash_after {
        std::thread::sleep(Duration::from_secs(seconds));
        complain("crash", crash());
    }
    Ok(())
}

/// Loads every driver that is there.
fn drivers() -> Result<()> {
    for entry in fs::read_dir(Path::new("/").join(initramfs::FOLDER))? {
        let path = entry?.path();
        let image = fs::read(&path)?;
        rustix::system::init_module(&image, c"").with_context(|| format!("loading {}", path.display()))?;
    }
    Ok(())
}

/// Adds to the record on the disk.
fn note(what: &str) -> Result<()> {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Record::open(Path::new(DISK))?.add(&format!("{}.{:03} {what}", since_1970.as_secs(), since_1970.subsec_millis()))
}

/// Answers everybody who connects, each in a thread of its own.
fn listen(name: &str, port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("listening")?;
    let name = name.to_owned();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let name = name.clone();
            // Who goes away early misses the answer.
            std::thread::spawn(move || answer(&name, &connection));
        }
    });
    Ok(())
}

/// Says who this is, of which boot, and since how many seconds; then does what is asked for.
fn answer(name: &str, mut connection: &TcpStream) -> Result<()> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (boot, uptime) = (read("/proc/sys/kernel/random/boot_id"), read("/proc/uptime"));
    let seconds = uptime.split('.').next().unwrap_or_default();
    connection.write_all(format!("guest {name} boot {} up {seconds} s\n", boot.trim()).as_bytes())?;
    connection.set_read_timeout(Some(COMMAND_WITHIN))?;
    let mut command = String::new();
    BufReader::new(connection).read_line(&mut command)?;
    if command.trim() == CRASH { crash() } else { Ok(()) }
}

/// Crashes the kernel.
fn crash() -> Result<()> {
    fs::write("/proc/sysrq-trigger", "c").context("asking the kernel to crash")
}

/// Says that the guest was asked to go down, and goes.
fn go_down(how: &str) {
    let Ok(orders) = fs::read_to_string("/proc/cmdline").map_err(Into::into).and_then(|line| Orders::parse(&line))
    else {
        return say("guest: asked to go down, but the command line makes no sense");
    };
    let name = &orders.name;
    // The disk first: a console that takes nothing must not keep it from the record.
    let noted = if orders.disk { note(ASKED) } else { Ok(()) };
    say(&format!("guest {name} {ASKED} ({how})"));
    if let Err(error) = noted {
        say(&format!("guest {name}: disk: {error:#}"));
    }
    if orders.ignore_shutdown {
        return say(&format!("guest {name} ignores it"));
    }
    rustix::fs::sync();
    let error = reboot(if how == "reboot" { RebootCommand::Restart } else { RebootCommand::PowerOff });
    say(&format!("guest {name}: {how}: {error:?}"));
}

/// The kernel's device events: each is a reason to look again whether a device is there.
struct Events(rustix::fd::OwnedFd);

impl Events {
    fn open() -> Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(KOBJECT_UEVENT))
            .context("opening the socket for device events")?;
        bind(&fd, &SocketAddrNetlink::new(0, 1)).context("subscribing to device events")?;
        Ok(Self(fd))
    }

    /// Waits until there is such a file.
    fn wait_for(&self, path: &str) -> Result<()> {
        let deadline = Instant::now() + DEVICE_WITHIN;
        let mut message = [0; 4096];
        while !Path::new(path).exists() {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
            let left = left.with_context(|| format!("there is no {path} after {} s", DEVICE_WITHIN.as_secs()))?;
            sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, Some(left))?;
            // Whatever it brings, or that it brings nothing: the file says what matters.
            let _ = recv(&self.0, &mut message[..], RecvFlags::empty());
        }
        Ok(())
    }
}
