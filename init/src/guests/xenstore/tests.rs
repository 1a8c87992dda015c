use super::played::{pair, server};
use super::wire::Message;
use super::*;
use proptest::prelude::*;
use std::io::Write;

fn event(client: &mut Client) -> Event {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(event) = client.event().unwrap() {
            return event;
        }
        client.wait(PollFlags::IN, deadline).unwrap();
    }
}

#[test]
fn values_are_written_listed_read_and_removed() {
    let (mut client, _tree) = server();
    assert_eq!(client.read("/").unwrap(), Some(vec![]));
    assert_eq!(client.text("/data/a").unwrap(), None);
    client.write("/data/a", "one").unwrap();
    client.write("/data/empty", "").unwrap();
    client.mkdir("/data/b").unwrap();
    assert_eq!(client.text("/data/a").unwrap().unwrap(), "one");
    assert_eq!(client.text("/data/empty").unwrap().unwrap(), "");
    assert_eq!(client.directory("/data").unwrap().unwrap(), ["a", "b", "empty"]);
    assert_eq!(client.directory("/nothing").unwrap(), None);
    client.remove("/data").unwrap();
    client.remove("/data").unwrap();
    assert_eq!(client.text("/data/a").unwrap(), None);
    assert_eq!(client.domain_path(7).unwrap(), "/local/domain/7");
}

#[test]
fn a_long_list_comes_in_parts() {
    let (mut client, tree) = server();
    for number in 0..2000 {
        tree.lock().unwrap().values.insert(format!("/local/domain/{number}"), vec![]);
    }
    tree.lock().unwrap().values.insert("/local/domain".into(), vec![]);
    let names = client.directory("/local/domain").unwrap().unwrap();
    assert_eq!(names.len(), 2000);
    assert!(names.contains(&"1999".to_owned()));
}

#[test]
fn watches_tell_of_changes_until_they_end() {
    let (mut client, tree) = server();
    client.watch("/data", "mine").unwrap();
    client.watch("/data", "mine").unwrap();
    assert_eq!(event(&mut client), Event { path: "/data".into(), token: "mine".into() });
    tree.lock().unwrap().set("/data/a", "1");
    tree.lock().unwrap().set("/data/a", "2");
    // The event comes before the answer, and is kept meanwhile; twice the same is once.
    assert_eq!(client.text("/data/a").unwrap().unwrap(), "2");
    assert_eq!(event(&mut client).path, "/data/a");
    assert_eq!(client.event().unwrap(), None);
    tree.lock().unwrap().set("/data/b", "1");
    client.unwatch("/data", "mine").unwrap();
    client.unwatch("/data", "mine").unwrap();
    tree.lock().unwrap().set("/data/c", "1");
    client.read("/").unwrap();
    assert_eq!(client.event().unwrap(), None);
}

#[test]
fn a_server_that_is_silent_costs_the_deadline_and_its_late_answer_harms_nobody() {
    let (client, mut server) = pair();
    let mut client = client.within(Duration::from_millis(50));
    let error = format!("{:#}", client.read("/a").unwrap_err());
    assert!(error.contains("reading /a") && error.contains("does not answer"), "{error}");
    for (request, value) in [(1, "late"), (2, "in time")] {
        let message = Message { kind: Kind::Read.number(), request, transaction: 0, payload: value.into() };
        server.write_all(&message.bytes().unwrap()).unwrap();
    }
    assert_eq!(client.text("/b").unwrap().unwrap(), "in time");
}

#[test]
fn a_server_that_goes_is_told_each_time() {
    let (mut client, server) = pair();
    drop(server);
    for _ in 0..2 {
        assert!(format!("{:#}", client.read("/a").unwrap_err()).contains("is lost"));
        assert!(client.event().is_err());
    }
}

#[test]
fn what_cannot_be_sent_is_not() {
    let (mut client, _tree) = server();
    assert!(client.read("/a\0b").is_err());
    assert!(client.watch("/a", "b\0c").is_err());
    assert!(client.read(&"/a".repeat(1600)).is_err());
    assert!(client.write("/a", &"b".repeat(4100)).is_err());
    assert_eq!(client.read("/").unwrap(), Some(vec![]));
}

#[test]
fn a_refusal_has_its_name() {
    let (mut client, mut server) = pair();
    let refusal = Message { kind: 16, request: 1, transaction: 0, payload: b"EACCES\0".to_vec() };
    server.write_all(&refusal.bytes().unwrap()).unwrap();
    let error = client.write("/a", "b").unwrap_err();
    assert_eq!(error.downcast_ref::<Refused>(), Some(&Refused("EACCES".into())));
    assert_eq!(format!("{error:#}"), "writing /a to the xenstore: xenstored refused it: not allowed (EACCES)");
}

#[test]
fn a_flood_of_events_ends_the_connection_and_not_the_memory() {
    let (mut client, mut server) = pair();
    let flood = std::thread::spawn(move || {
        for number in 0..20_000 {
            let payload = format!("/a/{number}\0t\0").into_bytes();
            let message = Message { kind: 15, request: 0, transaction: 0, payload };
            if server.write_all(&message.bytes().unwrap()).is_err() {
                return;
            }
        }
    });
    let error = client.read("/").unwrap_err();
    assert!(format!("{error:#}").contains("events wait"), "{error:#}");
    drop(client);
    flood.join().unwrap();
}

#[test]
fn a_socket_is_found_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    assert!(format!("{:#}", Client::by_socket(&path).unwrap_err()).contains("connecting to xenstored"));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut client = Client::by_socket(&path).unwrap().within(Duration::from_millis(20));
    let _ = listener.accept().unwrap();
    assert!(client.read("/").is_err());
}

proptest! {
    #[test]
    fn no_server_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0_u32..30) {
        let (client, mut server) = pair();
        let mut client = client.within(Duration::from_millis(5));
        let odd = Message { kind, request: 1, transaction: 9, payload: bytes.clone() };
        server.write_all(&odd.bytes().unwrap()).unwrap();
        server.write_all(&bytes).unwrap();
        drop(server);
        let _ = client.directory("/a");
        let _ = client.is_introduced(3);
        let _ = client.domain_path(3);
        let _ = client.event();
    }
}
