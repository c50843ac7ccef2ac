//! What a replay tells: who is at work, and packets in words.

use super::network::{Chunk, Host, Port};
use crate::model::Op;
use crate::wire::connect::Connect;
use crate::wire::election::{InitialMessage, Notification};
use crate::wire::quorum::{FromLeader, FromLearner, take};
use bytes::{Bytes, BytesMut};
use std::cell::Cell;
use std::fmt::{Debug, Write};

thread_local! {
    static AT: Cell<(usize, u64)> = const { Cell::new((0, 0)) };
}

pub(super) fn enter(server: usize, now: u64) {
    AT.set((server, now));
}

/// The server that is at work, for the lines that it logs, and the microseconds since the beginning.
pub fn at() -> (usize, u64) {
    AT.get()
}

/// A packet in words.
pub(super) fn packet(key: u64, from: Host, to: Host, port: Port, from_dialer: bool, chunk: &Chunk) -> String {
    let what = match (port, chunk) {
        (_, Chunk::End) => "end".to_string(),
        (_, Chunk::Reset) => "reset".to_string(),
        (Port::Client, Chunk::Bytes(bytes)) if from_dialer => requests(bytes),
        (Port::Client, Chunk::Bytes(bytes)) => replies(bytes),
        (Port::Election, Chunk::Bytes(bytes)) => votes(bytes),
        (Port::Quorum, Chunk::Bytes(bytes)) if from_dialer => packets::<FromLearner>(bytes),
        (Port::Quorum, Chunk::Bytes(bytes)) => packets::<FromLeader>(bytes),
    };
    format!("{} → {} ({key}): {what}", name(from), name(to))
}

fn name(host: Host) -> String {
    match host {
        Host::Server(index) => format!("server {}", index + 1),
        Host::Client(index) => format!("client {index}"),
        Host::Crowd(index) => format!("one of many {index}"),
        Host::Stranger(index) => format!("stranger {index}"),
    }
}

fn short(value: &dyn Debug) -> String {
    let mut text = format!("{value:?}");
    if let Some((end, _)) = text.char_indices().nth(300) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn packets<P: crate::wire::quorum::Packet + Debug>(bytes: &Bytes) -> String {
    let mut bytes = BytesMut::from(&bytes[..]);
    let mut text = String::new();
    loop {
        match take::<P>(&mut bytes, 1 << 20) {
            Ok(Some(packet)) => {
                let _ = write!(text, "{} ", short(&packet));
            }
            Ok(None) if bytes.is_empty() => return text,
            // A piece of a snapshot, or of a packet.
            _ => return format!("{text}{} bytes", bytes.len()),
        }
    }
}

/// The way by which a leader begins to synchronize, if these bytes begin with that.
pub(super) fn way(bytes: &[u8]) -> Option<&'static str> {
    match i32::from_be_bytes(*bytes.first_chunk()?) {
        13 => Some("DIFF"),
        14 => Some("TRUNC"),
        15 => Some("SNAP"),
        _ => None,
    }
}

fn votes(bytes: &Bytes) -> String {
    // The version in front of an initial message is negative, the length of a notification's frame is not.
    if bytes.first().is_some_and(|first| *first >= 0x80)
        && let Ok(Some((hello, _))) = InitialMessage::decode(bytes)
    {
        return short(&hello);
    }
    match Notification::decode(bytes.get(4..).unwrap_or_default()) {
        Ok(Notification { leader, zxid, round, state, peer_epoch, .. }) => {
            format!("{state:?}, round {round}: server {leader} with {zxid} of {peer_epoch}")
        }
        Err(_) => format!("{} bytes", bytes.len()),
    }
}

fn requests(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Some(len) = bytes.first_chunk().map(|len| i32::from_be_bytes(*len) as usize) {
        let Some(frame) = bytes.get(4..4 + len) else { break };
        // A connect request begins with the protocol's version, 0, and no request has that xid.
        let number = |from: usize| frame.get(from..)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
        let _ = match (number(0), number(4), Connect::decode(frame)) {
            (Some(0), _, Ok(connect)) => {
                write!(text, "connect {}, seen {:#x}; ", connect.session, connect.last_zxid_seen)
            }
            (Some(xid), Some(op), _) => match Op::from_code(op) {
                Some(op) => write!(text, "{op:?} {xid}; "),
                None => write!(text, "operation {op} {xid}; "),
            },
            _ => write!(text, "{len} bytes; "),
        };
        bytes = &bytes[4 + len..];
    }
    text
}

fn replies(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Some(len) = bytes.first_chunk().map(|len| i32::from_be_bytes(*len) as usize) {
        let Some(frame) = bytes.get(4..4 + len).filter(|frame| frame.len() >= 16) else { break };
        let xid = i32::from_be_bytes(frame[..4].try_into().unwrap_or_default());
        let zxid = i64::from_be_bytes(frame[4..12].try_into().unwrap_or_default());
        let err = i32::from_be_bytes(frame[12..16].try_into().unwrap_or_default());
        let _ = write!(text, "{xid} at {zxid:#x}: {err}; ");
        bytes = &bytes[4 + len..];
    }
    text
}
