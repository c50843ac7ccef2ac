//! The quorum port: bytes of learners to a leader, and of a leader to a learner, cut into packets by the link as a value,
//! and taken by a server in whatever state it is.
#![no_main]

mod server;

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use server::{SERVERS, Script, Server, bounded};
use zabra::jute::records::{
    CreateRequest, CreateSessionTxn, CreateTxn, DeleteTxn, ErrorTxn, SetDataTxn, TxnHeader,
};
use zabra::model::owner::OwnerRules;
use zabra::model::{Epoch, LinkId, Op, ServerId, SessionId, Zxid};
use zabra::tree::{Database, open_entry};
use zabra::wire::election::PeerState;
use zabra::wire::quorum::{Forwarded, FromLeader, FromLearner, PROTOCOL, Packet, Plea, SIGNATURE, take};
use zabra::wire::txn::{Txn, TxnBody};

const MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    cut::<FromLearner>(data, FromLearner::encode);
    cut::<FromLeader>(data, FromLeader::encode);
    let mut script = Script(data);
    match script.byte() {
        Some(first) if first & 1 == 0 => lead(first, script),
        Some(first) => learn(first, script),
        None => {}
    }
});

/// Packets one after the other. What decodes is the same after another way over the wire.
fn cut<P: Packet + PartialEq + std::fmt::Debug>(data: &[u8], encode: fn(&P, &mut BytesMut)) {
    let mut rest = BytesMut::from(data);
    loop {
        let before = rest.len();
        let taken = bounded::within(before, || take::<P>(&mut rest, MAX));
        let Ok(Some(packet)) = taken else { return };
        assert!(rest.len() < before);
        let mut bytes = BytesMut::new();
        encode(&packet, &mut bytes);
        if let Ok(Some(again)) = take::<P>(&mut bytes, MAX) {
            assert_eq!(again, packet);
        }
    }
}

// A leader and its learners.

fn lead(first: u8, mut script: Script<'_>) {
    let mut server = Server::new(3);
    let voters = [1, 2].map(|id| server.dialed(ServerId(id)));
    for conn in voters {
        server.is_told(conn, PeerState::Looking, 3);
    }
    server.feeds = first & 2 == 0;
    if first & 4 == 0 {
        let link = server.link(false);
        for packet in [
            FromLearner::Info {
                observer: first & 8 != 0,
                accepted: Epoch(0),
                id: ServerId(1),
                protocol: PROTOCOL,
                config_version: 0,
            },
            FromLearner::AckEpoch { current: Some(Epoch(0)), last: Zxid::ZERO, plea: Plea::default() },
            FromLearner::Ack(Zxid::new(Epoch(1), 0)),
        ] {
            learner_says(&mut server, link, &packet);
        }
    }
    while let Some(what) = script.byte() {
        let link = server.links.keys().nth(usize::from(what >> 4)).copied();
        match (what & 15, link) {
            (0, _) => drop(server.link(false)),
            (1, _) => {
                let ms = script.byte().unwrap_or(1);
                server.pass(u64::from(ms) * 10);
            }
            (2, _) => server.connect(),
            (3, _) => client_writes(&mut server, &mut script),
            (4, Some(link)) => server.unlink(link),
            (5, _) => voters.iter().for_each(|conn| server.is_told(*conn, PeerState::Looking, 3)),
            (6..=12, Some(link)) => {
                let packet = learner_packet(&mut script);
                learner_says(&mut server, link, &packet);
            }
            (_, Some(link)) => {
                let bytes = script.bytes();
                server.hear_link(link, bytes);
            }
            (_, None) => drop(server.link(false)),
        }
    }
    server.pass(10_000);
}

fn client_writes(server: &mut Server, script: &mut Script<'_>) {
    match script.byte().unwrap_or(0) {
        0 => {
            let mut body = BytesMut::new();
            let path = format!("/{}", script.byte().unwrap_or(0));
            let data = Some(Bytes::from_static(b"x"));
            CreateRequest { path: Bytes::from(path), data, acl: vec![open_entry()], flags: 0 }.encode(&mut body);
            server.request(Op::Create, &body);
        }
        code => {
            let body = script.bytes();
            if let Some(op) = Op::from_code(i32::from(code as i8)) {
                server.request(op, body);
            }
        }
    }
}

fn learner_packet(script: &mut Script<'_>) -> FromLearner {
    match script.byte().unwrap_or(0) & 7 {
        0 => FromLearner::Info {
            observer: script.byte() == Some(1),
            accepted: Epoch(script.number()),
            id: ServerId(script.number()),
            protocol: PROTOCOL,
            config_version: script.number(),
        },
        1 => FromLearner::AckEpoch {
            current: script.byte().filter(|epoch| *epoch < 16).map(|epoch| Epoch(i64::from(epoch))),
            last: script.zxid(),
            plea: Plea { forgetful: script.byte() == Some(1), snapshot: script.byte() == Some(1), remembers: false },
        },
        2 | 3 => FromLearner::Ack(script.zxid()),
        4 => FromLearner::Ping {
            zxid: script.zxid(),
            touched: vec![(SessionId(script.number()), script.number() as i32)],
        },
        7 => FromLearner::Differs { zxid: script.zxid(), digest: script.number() },
        5 => FromLearner::Revalidate {
            session: SessionId(script.number()),
            timeout_ms: script.number() as i32,
        },
        6 => FromLearner::Request(Forwarded {
            session: SessionId(script.number()),
            cxid: 1,
            op: script.number() as i32,
            body: Bytes::copy_from_slice(script.bytes()),
            auth: Vec::new(),
        }),
        _ => FromLearner::Unknown(script.number() as i32),
    }
}

fn learner_says(server: &mut Server, link: LinkId, packet: &FromLearner) {
    let mut bytes = BytesMut::new();
    packet.encode(&mut bytes);
    server.hear_link(link, &bytes);
}

// A learner and its leader.

fn learn(first: u8, mut script: Script<'_>) {
    let mut server = Server::new(1);
    let others = [2, 3].map(|id| server.introduce(id));
    let established = |server: &mut Server| {
        server.is_told(others[1], PeerState::Leading, 3);
        server.is_told(others[0], PeerState::Following, 3);
    };
    established(&mut server);
    server.is_mendable = first & 2 == 0;
    let epoch = Epoch(1);
    if first & 4 == 0 {
        let link = server.link(true);
        let packets = [
            FromLeader::LeaderInfo { epoch, protocol: PROTOCOL, hears_pleas: true },
            FromLeader::Diff(Zxid::ZERO, None),
            FromLeader::NewLeader { zxid: Zxid::new(epoch, 0), config: None },
            FromLeader::UpToDate,
        ];
        for packet in packets.iter().take(usize::from(first >> 3) % 5) {
            leader_says(&mut server, link, packet);
        }
    }
    while let Some(what) = script.byte() {
        let link = server.links.keys().nth(usize::from(what >> 6)).copied();
        match (what & 15, link) {
            (0, _) => drop(server.link(true)),
            (1, _) => {
                let ms = script.byte().unwrap_or(1);
                server.pass(u64::from(ms) * 10);
            }
            (2, _) => server.connect(),
            (3, _) => client_writes(&mut server, &mut script),
            (4, Some(link)) => server.unlink(link),
            (5, _) => established(&mut server),
            (6..=12, Some(link)) => {
                let packet = leader_packet(&mut script);
                leader_says(&mut server, link, &packet);
            }
            (13, Some(link)) => {
                let snapshot = small_snapshot();
                server.hear_link(link, &snapshot);
            }
            (_, Some(link)) => {
                let bytes = script.bytes();
                server.hear_link(link, bytes);
            }
            (_, None) => drop(server.link(true)),
        }
    }
    server.pass(10_000);
}

fn leader_packet(script: &mut Script<'_>) -> FromLeader {
    match script.byte().unwrap_or(0) & 15 {
        0 => FromLeader::LeaderInfo { epoch: Epoch(script.number()), protocol: PROTOCOL, hears_pleas: script.number() & 1 == 0 },
        1 => FromLeader::Diff(script.zxid(), None),
        2 => FromLeader::Trunc(script.zxid(), None),
        3 => FromLeader::Snap(script.zxid(), None),
        4 => FromLeader::Commit(script.zxid()),
        5 => FromLeader::CommitAndActivate { zxid: script.zxid(), leader: ServerId(script.number()) },
        6 => {
            let (zxid, leader) = (script.zxid(), ServerId(script.number()));
            FromLeader::InformAndActivate { zxid, leader, body: txn(zxid, script) }
        }
        7 => {
            let zxid = script.zxid();
            FromLeader::Inform { zxid, body: txn(zxid, script) }
        }
        8 => FromLeader::NewLeader {
            zxid: script.zxid(),
            config: script.byte().filter(|with| *with > 0).map(|_| config(script)),
        },
        9 => FromLeader::UpToDate,
        10 => FromLeader::Ping(script.zxid()),
        11 => FromLeader::Revalidate { session: SessionId(script.number()), valid: script.byte() == Some(1) },
        12 => FromLeader::Sync,
        13 => FromLeader::Unknown(script.number() as i32),
        _ => {
            let zxid = script.zxid();
            FromLeader::Proposal { zxid, body: txn(zxid, script) }
        }
    }
}

fn config(script: &mut Script<'_>) -> Bytes {
    match script.byte().unwrap_or(0) {
        0 => Bytes::copy_from_slice(script.bytes()),
        _ => Bytes::from(format!("{SERVERS}\nversion={:x}", script.zxid().0)),
    }
}

/// A transaction that decodes, most of the time.
fn txn(zxid: Zxid, script: &mut Script<'_>) -> Bytes {
    let path = Bytes::from(format!("/{}", script.byte().unwrap_or(0)));
    let data = Some(Bytes::from_static(b"x"));
    let body = match script.byte().unwrap_or(0) & 7 {
        0 => TxnBody::Create(CreateTxn {
            path,
            data,
            acl: vec![open_entry()],
            ephemeral: script.byte() == Some(1),
            parent_cversion: script.number() as i32,
        }),
        1 => TxnBody::SetData(SetDataTxn { path, data, version: script.number() as i32 }),
        2 => TxnBody::Delete(DeleteTxn { path }),
        3 => TxnBody::CreateSession(CreateSessionTxn { timeout: script.number() as i32 }),
        4 => TxnBody::CloseSession(None),
        5 => TxnBody::Reconfig(SetDataTxn {
            path: Bytes::from_static(b"/zookeeper/config"),
            data: Some(config(script)),
            version: -1,
        }),
        6 => TxnBody::Error(ErrorTxn { err: -101 }),
        _ => return Bytes::copy_from_slice(script.bytes()),
    };
    let header = TxnHeader {
        client_id: script.number(),
        cxid: script.number() as i32,
        zxid: zxid.0,
        time: 0,
        op: body.op().code(),
    };
    let mut bytes = BytesMut::new();
    Txn { header, body, digest: None }.encode(&mut bytes);
    bytes.freeze()
}

/// What stands behind a SNAP.
fn small_snapshot() -> BytesMut {
    let mut db = Database::new(OwnerRules { extended_types: true, emulate_353: false });
    db.tree.begin_snapshot(&db.sessions);
    let mut bytes = BytesMut::new();
    loop {
        let slice = db.tree.snapshot_slice(1000);
        bytes.extend_from_slice(&slice.bytes);
        if slice.done {
            break;
        }
    }
    bytes.extend_from_slice(&(SIGNATURE.len() as i32).to_be_bytes());
    bytes.extend_from_slice(SIGNATURE);
    bytes
}

fn leader_says(server: &mut Server, link: LinkId, packet: &FromLeader) {
    let mut bytes = BytesMut::new();
    packet.encode(&mut bytes);
    server.hear_link(link, &bytes);
}
