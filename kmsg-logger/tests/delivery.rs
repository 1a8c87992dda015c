//! Where records end up: a file, a datagram socket, a pipe whose reader is gone, a full socket, a full disk.

use kmsg_logger::KmsgLogger;
use log::{Level, Log, Record};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

fn say(logger: &KmsgLogger, level: Level, text: fmt::Arguments<'_>) {
    logger.log(&Record::builder().level(level).args(text).build());
}

fn content(mut file: &File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// A logger on `target` and the file that gets what `target` does not take.
fn logger(target: impl Into<OwnedFd>) -> (KmsgLogger, File) {
    let fallback = tempfile::tempfile().unwrap();
    let logger =
        KmsgLogger::new("sino").with_file(File::from(target.into())).with_fallback(fallback.try_clone().unwrap());
    (logger, fallback)
}

#[test]
fn a_file_gets_every_record_and_the_fallback_none() {
    let file = tempfile::tempfile().unwrap();
    let (logger, fallback) = logger(file.try_clone().unwrap());
    assert!(logger.reaches_the_kernel());
    say(&logger, Level::Error, format_args!("no medium\nseen: {}", "sda"));
    say(&logger, Level::Warn, format_args!("slow"));
    logger.flush();
    assert_eq!(content(&file), "<27>sino: no medium\n<27>sino: seen: sda\n<28>sino: slow\n");
    assert_eq!(content(&fallback), "");
}

#[test]
fn each_record_is_one_write() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let (logger, _) = logger(ours);
    say(&logger, Level::Info, format_args!("{}\n{}", "é".repeat(600), "end"));
    theirs.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    let mut datagrams = Vec::new();
    while let Ok(length) = theirs.recv(&mut buffer) {
        datagrams.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    assert_eq!(datagrams.len(), 3, "{datagrams:?}");
    assert!(datagrams.iter().all(|datagram| datagram.starts_with("<30>sino: ") && datagram.len() <= 976));
    assert_eq!(datagrams[2], "<30>sino: end\n");
}

#[test]
fn a_closed_pipe_ends_in_the_fallback() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (logger, fallback) = logger(writer);
    say(&logger, Level::Info, format_args!("one\ntwo"));
    assert_eq!(content(&fallback), "sino: one\nsino: two\n");
}

#[test]
fn a_full_socket_does_not_hang_and_ends_in_the_fallback() {
    let (ours, _theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let (logger, fallback) = logger(ours.try_clone().unwrap());
    while ours.send(&[0; 512]).is_ok() {}
    say(&logger, Level::Info, format_args!("after the queue was full"));
    assert_eq!(content(&fallback), "sino: after the queue was full\n");
}

#[test]
fn a_full_disk_ends_in_the_fallback() {
    let (logger, fallback) = logger(OpenOptions::new().write(true).open("/dev/full").unwrap());
    say(&logger, Level::Info, format_args!("hello"));
    assert_eq!(content(&fallback), "sino: hello\n");
}

#[test]
fn when_the_fallback_is_full_too_nothing_happens() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let logger = KmsgLogger::new("sino").with_file(full()).with_fallback(full());
    say(&logger, Level::Error, format_args!("nobody hears this"));
}

#[test]
fn a_value_that_cannot_be_printed_does_not_take_the_message_along() {
    struct Unprintable;
    impl fmt::Display for Unprintable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Err(fmt::Error)
        }
    }
    let file = tempfile::tempfile().unwrap();
    let (logger, _) = logger(file.try_clone().unwrap());
    say(&logger, Level::Info, format_args!("size {Unprintable} bytes"));
    assert_eq!(content(&file), "<30>sino: size  (a value in this message could not be printed)\n");
}

#[test]
fn a_value_may_log_while_it_is_printed() {
    struct Talkative<'a>(&'a KmsgLogger);
    impl fmt::Display for Talkative<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            say(self.0, Level::Debug, format_args!("inner"));
            f.write_str("outer")
        }
    }
    let file = tempfile::tempfile().unwrap();
    let (logger, _) = logger(file.try_clone().unwrap());
    say(&logger, Level::Info, format_args!("{}", Talkative(&logger)));
    assert_eq!(content(&file), "<31>sino: inner\n<30>sino: outer\n");
}

#[test]
fn threads_do_not_mix_within_a_record() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (logger, _) = logger(OpenOptions::new().append(true).open(file.path()).unwrap());
    std::thread::scope(|scope| {
        for letter in ["a", "b", "c", "d"] {
            let logger = &logger;
            scope.spawn(move || {
                for _ in 0..200 {
                    say(logger, Level::Info, format_args!("{}", letter.repeat(100)));
                }
            });
        }
    });
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert_eq!(text.lines().count(), 800);
    for line in text.lines() {
        let body = line.strip_prefix("<30>sino: ").unwrap();
        assert_eq!(body, body[..1].repeat(100));
    }
}
