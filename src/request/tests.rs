//! The order of checks, what a failed multi leaves behind, and that no body makes prep panic.

use super::*;
use crate::jute::records::*;
use crate::model::owner::OwnerRules;
use crate::model::{DigestAlgorithm, ErrorCode, Op, SessionId, Zxid};
use crate::tree::{Database, open_entry};
use crate::wire::txn::{Txn, TxnBody};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::sync::Arc;

const SESSION: SessionId = SessionId(0x0100_0000_0000_0007);

struct Server {
    db: Database,
    preparer: Preparer,
    zxid: i64,
}

impl Server {
    fn new() -> Self {
        let rules = Rules {
            extended_types: true,
            digest_auth: Some(DigestAlgorithm::Sha1),
            txn_digests: true,
            ..Rules::default()
        };
        let db = Database::new(OwnerRules { extended_types: true, emulate_353: false });
        let digest = db.tree.digest();
        Self { db, preparer: Preparer::new(rules, digest), zxid: 0 }
    }

    fn prepare(&mut self, op: Op, body: impl FnOnce(&mut BytesMut)) -> Txn {
        let mut bytes = BytesMut::new();
        body(&mut bytes);
        self.prepare_bytes(op, bytes.freeze())
    }

    fn prepare_bytes(&mut self, op: Op, body: Bytes) -> Txn {
        self.zxid += 1;
        let request = Request { session: SESSION, cxid: 1, op, body, auth: Arc::new([]) };
        self.preparer.prepare(&self.db.tree, &request, Ok(()), Zxid(self.zxid), 1000)
    }

    fn apply(&mut self, txn: &Txn) {
        let applied = self.db.apply(txn, &mut Vec::new());
        if !matches!(txn.body, TxnBody::Error(_) | TxnBody::Multi(_)) {
            assert_eq!(applied.err, 0, "what prep let through applies: {txn:?}");
        }
        self.preparer.applied(Zxid(txn.header.zxid));
        if let Some(digest) = txn.digest {
            // Only when nothing else is outstanding does the tree stand where prep foresaw it.
            if !self.preparer.has_outstanding() {
                assert_eq!(digest.tree_digest as u64, self.db.tree.digest());
            }
        }
    }

    fn create(&mut self, path: &str, flags: i32) -> Txn {
        let path = path.as_bytes().to_vec();
        self.prepare(Op::Create2, |out| {
            CreateRequest {
                path: path.into(),
                data: Some(Bytes::from_static(b"d")),
                acl: vec![open_entry().into()],
                flags,
            }
            .encode(out);
        })
    }
}

fn error_of(txn: &Txn) -> Option<ErrorCode> {
    match &txn.body {
        TxnBody::Error(error) => ErrorCode::from_code(error.err),
        _ => None,
    }
}

fn path_of(txn: &Txn) -> &[u8] {
    match &txn.body {
        TxnBody::Create2(create) => &create.path,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sequential_creates_in_flight_get_names_of_their_own() {
    let mut server = Server::new();
    let first = server.create("/s-", 2);
    let second = server.create("/s-", 2);
    assert_eq!((path_of(&first), path_of(&second)), (&b"/s-0000000000"[..], &b"/s-0000000001"[..]));
    let third = server.create("/s-0000000001", 0);
    assert_eq!(error_of(&third), Some(ErrorCode::NodeExists), "it is there, though not applied yet");
    for txn in [first, second, third] {
        server.apply(&txn);
    }
}

#[test]
fn a_failed_multi_leaves_nothing_behind() {
    let mut server = Server::new();
    let part = |out: &mut BytesMut, op: Op| MultiHeader { op: op.code(), done: false, err: -1 }.encode(out);
    let multi = server.prepare(Op::Multi, |out| {
        part(out, Op::Create);
        CreateRequest { path: &b"/m"[..], data: None, acl: vec![], flags: 0 }.encode(out);
        part(out, Op::Delete);
        DeleteRequest { path: &b"/none"[..], version: -1 }.encode(out);
        MultiHeader { op: -1, done: true, err: -1 }.encode(out);
    });
    let TxnBody::Multi(parts) = &multi.body else { panic!("{multi:?}") };
    let codes = parts.iter().map(|part| match part {
        TxnBody::Error(error) => error.err,
        _ => 0,
    });
    let codes: Vec<_> = codes.collect();
    assert_eq!(codes, [-114, -2]);
    let before = server.db.tree.digest();
    assert_eq!(multi.digest.unwrap().tree_digest as u64, before);
    server.apply(&multi);
    let next = server.create("/m", 0);
    assert_eq!(error_of(&next), None);
    server.apply(&next);
}

#[test]
fn a_close_takes_ephemerals_that_are_still_in_flight() {
    let mut server = Server::new();
    let first = server.create("/e1", 1);
    server.apply(&first);
    let second = server.create("/e2", 1);
    let gone = server.prepare(Op::Delete, |out| DeleteRequest { path: &b"/e1"[..], version: -1 }.encode(out));
    server.zxid += 1;
    let close = server.preparer.prepare_close(&server.db.tree, SESSION, 9, Zxid(server.zxid), 1000);
    let TxnBody::CloseSession(Some(list)) = &close.body else { panic!("{close:?}") };
    assert_eq!(list.paths_to_delete, [Bytes::from_static(b"/e2")]);
    for txn in [second, gone, close] {
        server.apply(&txn);
    }
    assert_eq!(server.db.tree.ephemeral_count(), 0);
}

#[test]
fn a_close_takes_what_a_path_is_by_then() {
    let mut server = Server::new();
    let delete =
        |path: &'static [u8]| move |out: &mut BytesMut| DeleteRequest { path, version: -1 }.encode(out);
    for (path, flags) in [("/was-persistent", 0), ("/was-ephemeral", 1)] {
        let txn = server.create(path, flags);
        server.apply(&txn);
    }
    // Each is deleted and made anew as the other kind, and nothing of it is applied when the session closes.
    let mut waiting = vec![
        server.prepare(Op::Delete, delete(b"/was-persistent")),
        server.create("/was-persistent", 1),
        server.prepare(Op::Delete, delete(b"/was-ephemeral")),
        server.create("/was-ephemeral", 0),
    ];
    server.zxid += 1;
    waiting.push(server.preparer.prepare_close(&server.db.tree, SESSION, 9, Zxid(server.zxid), 1000));
    for txn in waiting {
        server.apply(&txn);
    }
    assert!(server.db.tree.find(b"/was-persistent").is_none(), "a ghost");
    assert!(server.db.tree.find(b"/was-ephemeral").is_some(), "it was not the session's any more");
}

#[test]
fn the_sequence_counter_stops_before_it_turns_negative() {
    let mut server = Server::new();
    let parent = server.create("/p", 0);
    server.apply(&parent);
    let last = TxnBody::Create(CreateTxn {
        path: Bytes::from_static(b"/p/last"),
        data: None,
        acl: vec![open_entry()],
        ephemeral: false,
        parent_cversion: i32::MAX,
    });
    server.zxid += 1;
    let header = TxnHeader { client_id: 1, cxid: 1, zxid: server.zxid, time: 1, op: 1 };
    server.db.apply(&Txn { header, body: last, digest: None }, &mut Vec::new());
    let digest = server.db.tree.digest();
    server.preparer = Preparer::new(server.preparer.rules().clone(), digest);
    assert_eq!(error_of(&server.create("/p/n-", 2)), Some(ErrorCode::SystemError));
}

#[test]
fn the_poison_create_is_refused() {
    let mut server = Server::new();
    for (flags, ttl, code) in [
        (0, -1, ErrorCode::BadArguments),
        (0, 5, ErrorCode::BadArguments),
        (5, 0, ErrorCode::BadArguments),
        (5, 1 << 40, ErrorCode::BadArguments),
        (9, 1, ErrorCode::BadArguments),
    ] {
        let txn = server.prepare(Op::CreateTtl, |out| {
            CreateTtlRequest {
                path: Bytes::from_static(b"/t"),
                data: None,
                acl: vec![open_entry().into()],
                flags,
                ttl,
            }
            .encode(out);
        });
        assert_eq!(error_of(&txn), Some(code), "flags {flags}, ttl {ttl}");
        server.apply(&txn);
    }
}

fn any_path() -> impl Strategy<Value = Bytes> {
    let known =
        prop::sample::select(vec!["/a", "/a/b", "/c", "/", "/zookeeper", "/zookeeper/quota", "/a/s-"]);
    prop_oneof![
        4 => known.prop_map(|path| Bytes::from_static(path.as_bytes())),
        1 => prop::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from),
    ]
}

proptest! {
    #[test]
    fn what_prep_lets_through_always_applies(
        steps in prop::collection::vec((0..6_u8, any_path(), -1..4_i32, 0..7_i32), 1..60),
        lag in 0..5_usize,
    ) {
        let mut server = Server::new();
        let mut waiting = std::collections::VecDeque::new();
        for (kind, path, version, flags) in steps {
            let acl = vec![open_entry().into()];
            let txn = match kind {
                0 | 1 => server.prepare(Op::Create2, |out| CreateRequest { path, data: None, acl, flags }.encode(out)),
                2 => server.prepare(Op::Delete, |out| DeleteRequest { path, version }.encode(out)),
                3 => server.prepare(Op::SetData, |out| {
                    SetDataRequest { path: path.clone(), data: Some(path), version }.encode(out);
                }),
                4 => server.prepare(Op::SetAcl, |out| SetAclRequest { path, acl, version }.encode(out)),
                _ => {
                    server.zxid += 1;
                    server.preparer.prepare_close(&server.db.tree, SESSION, 1, Zxid(server.zxid), 1)
                }
            };
            let mut bytes = BytesMut::new();
            txn.encode(&mut bytes);
            prop_assert_eq!(Txn::decode(bytes.freeze()).unwrap(), txn.clone());
            waiting.push_back(txn);
            while waiting.len() > lag {
                let txn = waiting.pop_front().unwrap();
                server.apply(&txn);
            }
        }
        for txn in waiting {
            server.apply(&txn);
        }
    }

    #[test]
    fn no_body_makes_prep_or_a_read_panic(op in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..120)) {
        let mut server = Server::new();
        let Some(op) = Op::from_code(i32::from(op) - 12) else { return Ok(()) };
        let txn = server.prepare_bytes(op, body.clone().into());
        server.apply(&txn);
        let auth: Arc<[Id<Bytes>]> = Arc::new([]);
        let rules = Rules::default();
        let reader = ReadContext { conn: crate::model::ConnId(1), session: SESSION, auth: &auth, rules: &rules };
        if is_read(op) {
            serve_read(&server.db, reader, 1, op, &body, &mut BytesMut::new());
        }
    }
}
