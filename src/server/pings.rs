//! A client's ping waits for no lock: not for the database's, and not for the core's.

use super::memory::{Bound, Memory};
use super::{Parts, Server, Watch, start};
use crate::config::{Config, Machine};
use crate::jute::records::ConnectRequest;
use crate::storage::{Progress, RealDisk, Recovered};
use bytes::{BufMut, BytesMut};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const PING: i32 = 11;
const CREATE: i32 = 1;
const DELETE: i32 = 2;
const EXISTS: i32 = 3;
const SYNC: i32 = 9;

struct Quiet;

impl Watch for Quiet {
    fn recovering(&mut self, _: Progress<'_>) {}

    fn recovered(&mut self, _: &Recovered) {}
}

/// On one reactor all clients would wait for whatever that waits for.
fn server(dir: &Path, reactors: usize) -> Server {
    let text = format!("dataDir={}\nclientPort=0\nclientPortAddress=127.0.0.1\n", dir.display());
    let read = |file: &Path| match file.to_str() {
        Some("zoo.cfg") => Ok(text.clone().into_bytes()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let machine = Machine { read: &read, resolve: &|_| Vec::new() };
    let config = Config::from_file(Path::new("zoo.cfg"), &machine).unwrap();
    let fatal = Box::new(|error| panic!("{error}"));
    let memory = Memory { bytes: u64::MAX, by: Bound::Machine };
    let parts = Parts { disk: Arc::new(RealDisk), fatal, reactors, descriptors: 1024, memory };
    start(&config, parts, &mut Quiet).unwrap()
}

struct Client(TcpStream);

impl Client {
    fn new(server: &Server) -> Self {
        let stream = TcpStream::connect(server.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut client = Self(stream);
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout: 30_000,
            session_id: 0,
            passwd: Some(&[0; 16][..]),
        };
        let mut body = BytesMut::new();
        request.encode(&mut body);
        client.say(&body);
        client.frame();
        client
    }

    fn say(&mut self, body: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_i32(body.len() as i32);
        frame.put_slice(body);
        self.0.write_all(&frame).unwrap();
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut len = [0; 4];
        self.0.read_exact(&mut len).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }

    fn ask(&mut self, xid: i32, op: i32, body: &[u8]) {
        self.say(&[&xid.to_be_bytes()[..], &op.to_be_bytes(), body].concat());
    }

    /// Pings, and returns the zxid of the answer.
    fn ping(&mut self) -> i64 {
        self.ask(-2, PING, b"");
        self.answer(-2)
    }

    /// The zxid of the answer that comes next.
    fn answer(&mut self, xid: i32) -> i64 {
        let answer = self.frame();
        assert_eq!(answer[..4], xid.to_be_bytes());
        i64::from_be_bytes(answer[4..12].try_into().unwrap())
    }
}

#[test]
fn a_ping_is_answered_while_the_database_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), 1);
    let (mut client, mut reader) = (Client::new(&server), Client::new(&server));
    let before = server.core().db.read().last_zxid.0;
    let held = server.core().db.write();
    let exists = [&1_i32.to_be_bytes()[..], b"/\0"].concat();
    reader.ask(1, EXISTS, &exists);
    for _ in 0..5 {
        assert!(client.ping() <= before);
    }
    drop(held);
    assert_eq!(reader.frame()[..4], 1_i32.to_be_bytes(), "the read was waiting");
    server.stop();
}

/// As Java answers it, and not by what this connection heard last.
#[test]
fn a_ping_of_one_client_tells_what_another_has_written() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), 2);
    let (mut client, mut writer) = (Client::new(&server), Client::new(&server));
    for xid in 1..=20 {
        // A version that is not there: an error, which takes a zxid too.
        writer.ask(xid, DELETE, &[&2_i32.to_be_bytes()[..], b"/x", &9_i32.to_be_bytes()].concat());
        let zxid = writer.answer(xid);
        assert_eq!(client.ping(), zxid);
    }
    server.stop();
}

/// The event goes before the ping's answer, whichever of them the reactor hears of first.
#[test]
fn a_ping_tells_of_what_the_client_was_shown_before() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), 2);
    let (mut client, mut writer) = (Client::new(&server), Client::new(&server));
    let path = [&2_i32.to_be_bytes()[..], b"/x"].concat();
    let anyone = b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone";
    let create = [&path[..], &0_i32.to_be_bytes(), anyone, &0_i32.to_be_bytes()].concat();
    let delete = [&path[..], &(-1_i32).to_be_bytes()].concat();
    let exists = [&path[..], &[1]].concat();
    for xid in 1..=2_000 {
        client.ask(xid, EXISTS, &exists);
        client.answer(xid);
        let (op, body) = if xid % 2 == 1 { (CREATE, &create) } else { (DELETE, &delete) };
        writer.ask(xid, op, body);
        let zxid = writer.answer(xid);
        client.ask(-2, PING, b"");
        client.answer(-1);
        assert_eq!(client.answer(-2), zxid);
    }
    server.stop();
}

#[test]
fn a_ping_is_answered_while_the_core_is_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), 1);
    let mut client = Client::new(&server);
    // Another thread may be at work for a moment.
    let mut pings_meanwhile = || {
        std::thread::yield_now();
        server.core().look(|_| client.ping()).is_some()
    };
    assert!((0..10_000_000).any(|_| pings_meanwhile()));
    server.stop();
}

/// What is to be applied waits for the database here, as it may be large. The reactor that brought it does not wait with it.
#[test]
fn a_ping_is_answered_while_something_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), 1);
    let (mut client, mut writer) = (Client::new(&server), Client::new(&server));
    let held = server.core().db.read();
    writer.ask(1, SYNC, &[&1_i32.to_be_bytes()[..], b"/"].concat());
    // It was handed in before the last of these was answered.
    for _ in 0..100 {
        client.ping();
    }
    drop(held);
    assert_eq!(writer.frame()[..4], 1_i32.to_be_bytes());
    server.stop();
}
