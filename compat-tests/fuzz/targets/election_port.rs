//! The election port: the decoders, and a server that hears whatever comes from any number of connections.
#![no_main]

mod server;

use bytes::{BufMut, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use server::{SERVERS, Script, Server, bounded};
use zabra::election::ElectionConn;
use zabra::model::{Epoch, ServerId};
use zabra::replica::{ElectionInput, Input};
use zabra::wire::election::{InitialMessage, Notification, PeerState};

const STATES: [PeerState; 4] =
    [PeerState::Looking, PeerState::Following, PeerState::Leading, PeerState::Observing];

fuzz_target!(|data: &[u8]| {
    if let Ok(Some((_, len))) = bounded::within(data.len(), || InitialMessage::decode(data)) {
        assert!(len <= data.len());
    }
    if let Ok(notification) = bounded::within(data.len(), || Notification::decode(data)) {
        let mut again = BytesMut::new();
        notification.encode(&mut again);
    }
    play(Script(data));
});

fn play(mut script: Script<'_>) {
    let Some(first) = script.byte() else { return };
    let mut server = Server::new(i64::from(first % 3) + 1);
    while let Some(what) = script.byte() {
        let conn = server.conns.iter().nth(usize::from(what >> 4)).copied();
        match (what & 15, conn) {
            (0, _) => drop(server.accept()),
            (1, _) => match server.dials.pop() {
                Some(to) => drop(server.dialed(to)),
                None => server.pass(100),
            },
            (2, _) => {
                if let Some(to) = server.dials.pop() {
                    server.input(Input::Election(ElectionInput::DialFailed(to)));
                }
            }
            (3, _) => {
                let ms = script.byte().unwrap_or(1);
                server.pass(u64::from(ms) * 10);
            }
            (4, _) => drop(server.introduce(script.number())),
            (5, Some(conn)) => server.hang_up(conn),
            (6 | 7, Some(conn)) => hear_notification(&mut server, conn, &mut script),
            (8, Some(conn)) => {
                // A frame around anything.
                let body = script.bytes();
                let mut bytes = BytesMut::new();
                bytes.put_i32(body.len() as i32);
                bytes.put_slice(body);
                server.hear(conn, &bytes);
            }
            (9, _) => {
                server.dials_leader = false;
                server.input(Input::Quorum(zabra::replica::QuorumInput::DialFailed));
            }
            (_, Some(conn)) => server.hear(conn, script.bytes()),
            (_, None) => drop(server.accept()),
        }
    }
    server.pass(10_000);
}

/// One that decodes; it may come in two pieces.
fn hear_notification(server: &mut Server, conn: ElectionConn, script: &mut Script<'_>) {
    let state = STATES[usize::from(script.byte().unwrap_or(0) & 3)];
    let (leader, zxid, round) = (ServerId(script.number()), script.zxid(), script.number());
    let peer_epoch = Epoch(script.number());
    let config = match script.byte().unwrap_or(0) {
        0 => Some(Bytes::from_static(SERVERS.as_bytes())),
        1 => Some(Bytes::from(format!("{SERVERS}\nversion={:x}", script.number()))),
        2 => None,
        _ => Some(Bytes::copy_from_slice(script.bytes())),
    };
    let notification = Notification { state, leader, zxid, round, peer_epoch, version: 2, config };
    let mut bytes = BytesMut::new();
    notification.encode(&mut bytes);
    let (front, back) = bytes.split_at(usize::from(script.byte().unwrap_or(0)).min(bytes.len()));
    server.hear(conn, front);
    server.hear(conn, back);
}
