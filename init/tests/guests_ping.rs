//! Pings against the real kernel, in a network namespace whose only link is down at first.
//!
//! Needs root (raw sockets, the namespace) and `ip`; what is missing fails with its remedy.

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::thread::UnshareFlags;
use sino_init::guests::probe::{self, Cancel, Outcome, Sources};
use sino_init::guests::ready::Ready;
use sino_init::guests::xl::Job;
use std::fs;
use std::net::IpAddr;
use std::process::{Command, ExitCode};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

type Done = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list {
        // Before any thread starts: a namespace belongs to the thread that asks for it and those it starts later.
        if let Err(why) = enter_namespace() {
            eprintln!("the tests of ping cannot run: {why}");
            return ExitCode::FAILURE;
        }
    }
    let trial = |name: &str, test: fn() -> Done| {
        Trial::test(name, move || test().map_err(|error| Failed::from(error.to_string())))
    };
    let trials = vec![
        trial("a_guest_whose_network_comes_late_is_ready_then", late),
        trial("one_that_does_not_answer_is_not_ready_and_a_cancel_ends_the_wait", silent),
    ];
    // The second needs the link that the first has set up.
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials).exit_code()
}

fn enter_namespace() -> Done {
    if !rustix::process::geteuid().is_root() {
        return Err("root is needed; run this command with sudo".into());
    }
    // SAFETY: only the network namespace is unshared; no file descriptor table or memory.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Done {
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .map_err(|error| format!("ip: {error}; install it: apt-get install iproute2"))?;
    if status.success() { Ok(()) } else { Err(format!("ip {}: {status}", arguments.join(" ")).into()) }
}

fn ping(address: IpAddr, time: Duration) -> Result<Outcome, Box<dyn std::error::Error>> {
    Ok(probe::wait(&Ready::Ping(address), &mut Sources::default(), Instant::now() + time, &Cancel::new()?))
}

fn late() -> Done {
    let outcome = ping("127.0.0.1".parse()?, Duration::from_millis(1500))?;
    let told = outcome.to_string();
    if !told.contains("127.0.0.1 has not answered") || !told.contains("unreachable") {
        return Err(format!("a network that is not there: {told}").into());
    }
    let (sender, receiver) = channel();
    for address in ["127.0.0.1", "::1", "127.0.0.9"] {
        let (sender, address) = (sender.clone(), address.parse()?);
        let deadline = Instant::now() + Duration::from_secs(60);
        let probe =
            move |cancel: &Cancel| probe::wait(&Ready::Ping(address), &mut Sources::default(), deadline, cancel);
        Job::start("probe", probe, move |outcome| {
            let _ = sender.send((address, outcome));
        })?;
    }
    if receiver.recv_timeout(Duration::from_millis(500)).is_ok() {
        return Err("an answer without a network".into());
    }
    ip(&["link", "set", "lo", "up"])?;
    for _ in 0..3 {
        let (address, outcome) = receiver.recv_timeout(Duration::from_secs(30))?;
        if outcome != Outcome::Ready {
            return Err(format!("{address}: {outcome}").into());
        }
    }
    Ok(())
}

fn silent() -> Done {
    ip(&["link", "set", "lo", "up"])?;

    // Of the namespace of the thread that opens it.
    fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1")?;
    let began = Instant::now();
    let told = ping("127.0.0.1".parse()?, Duration::from_millis(2500))?.to_string();
    if !told.contains("has not answered 3 pings in 2 s") || began.elapsed() < Duration::from_millis(2400) {
        return Err(format!("one a second until the deadline: {told} after {:?}", began.elapsed()).into());
    }
    let cancel = Cancel::new()?;
    let waiter = thread::spawn({
        let (cancel, address) = (cancel.clone(), "127.0.0.1".parse()?);
        move || {
            let deadline = Instant::now() + Duration::from_secs(60);
            probe::wait(&Ready::Ping(address), &mut Sources::default(), deadline, &cancel)
        }
    });
    thread::sleep(Duration::from_millis(100));
    cancel.cancel();
    match waiter.join() {
        Ok(Outcome::Cancelled) if began.elapsed() < Duration::from_secs(20) => Ok(()),
        other => Err(format!("cancelled: {other:?}").into()),
    }
}
