//! The order of checks, what a failed multi leaves, and that no body makes prep panic.

use super::*;
use crate::jute::records::*;
use crate::jute::{Reader as Frame, Source};
use crate::model::owner::OwnerRules;
use crate::model::{Budget, DigestAlgorithm, ErrorCode, Op, SessionId, Zxid};
use crate::tree::{Database, open_entry};
use crate::wire::quorum::{self, FromLeader};
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
            max_txn_bytes: 1 << 20,
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
        self.prepare_as(Arc::new([]), op, body)
    }

    /// The create of an ephemeral.
    fn prepare_for(&mut self, session: SessionId, path: &str) -> Txn {
        self.zxid += 1;
        let (path, mut body) = (Bytes::copy_from_slice(path.as_bytes()), BytesMut::new());
        CreateRequest { path, data: None, acl: vec![open_entry()], flags: 1 }.encode(&mut body);
        let request = Request { session, cxid: 1, op: Op::Create, body: body.freeze(), auth: Arc::new([]) };
        self.preparer.prepare(&self.db.tree, &request, Ok(()), Zxid(self.zxid), 1000)
    }

    fn prepare_as(&mut self, auth: Arc<[Id<Bytes>]>, op: Op, body: Bytes) -> Txn {
        self.zxid += 1;
        let request = Request { session: SESSION, cxid: 1, op, body, auth };
        self.preparer.prepare(&self.db.tree, &request, Ok(()), Zxid(self.zxid), 1000)
    }

    fn apply(&mut self, txn: &Txn) {
        let applied = self.db.apply(txn, &mut Vec::new());
        if !matches!(txn.body, TxnBody::Error(_) | TxnBody::Multi(_)) {
            assert_eq!(applied.err, 0, "what prep let through applies: {txn:?}");
        }
        self.preparer.applied(Zxid(txn.header.zxid));
        if let Some(digest) = txn.digest {
            // Only when nothing else is outstanding is the tree where prep foresaw it.
            if !self.preparer.has_outstanding() {
                assert_eq!(digest.tree_digest as u64, self.db.tree.digest());
            }
        }
    }

    fn close(&mut self, session: SessionId) -> Txn {
        self.zxid += 1;
        let all = self.preparer.ephemerals(&self.db.tree, session).collect();
        self.preparer.prepare_close(&self.db.tree, session, all, 9, Zxid(self.zxid), 1000)
    }

    fn create(&mut self, path: &str, flags: i32) -> Txn {
        let path = path.as_bytes().to_vec();
        self.prepare(Op::Create2, |out| {
            CreateRequest {
                path: path.into(),
                data: Some(Bytes::from_static(b"d")),
                acl: vec![open_entry()],
                flags,
            }
            .encode(out);
        })
    }

    /// What a read is answered with: events and reply, frame by frame, each with its header and its body.
    fn read(&self, op: Op, body: impl FnOnce(&mut BytesMut)) -> Vec<(ReplyHeader, Vec<u8>)> {
        let (mut bytes, mut out, mut reading) = (BytesMut::new(), BytesMut::new(), None);
        body(&mut bytes);
        while !self.hold(op, &bytes, &mut reading, &mut out).0 {}
        frames(&out)
    }

    /// One hold of the lock: whether the read is done, and how many steps it had.
    fn hold(
        &self,
        op: Op,
        body: &[u8],
        reading: &mut Option<Box<Reading>>,
        out: &mut BytesMut,
    ) -> (bool, usize) {
        let work = Budget::default();
        let auth: Arc<[_]> = Arc::new([Id { scheme: "ip".into(), id: "127.0.0.1".into() }]);
        let (conn, session, rules) = (crate::model::ConnId(1), SESSION, self.preparer.rules());
        let reader = ReadContext { conn, session, auth: &auth, rules, work: &work };
        (serve_read(&self.db, reader, 7, op, body, reading, out), work.spent())
    }

    /// How many holds a read takes. None has more steps than it may.
    fn holds(&self, op: Op, body: impl FnOnce(&mut BytesMut)) -> usize {
        let (mut bytes, mut out, mut reading) = (BytesMut::new(), BytesMut::new(), None);
        body(&mut bytes);
        let mut is_done = || {
            let (is_done, steps) = self.hold(op, &bytes, &mut reading, &mut out);
            assert!(steps < Budget::HOLD + 100, "{op:?}: {steps} steps");
            is_done
        };
        (1..).find(|_| is_done()).unwrap()
    }

    /// Creates a znode without prep.
    fn add(&mut self, path: String, ephemeral: bool, acl: Vec<Acl<Bytes>>) {
        self.zxid += 1;
        let parent_cversion = -1;
        let create = CreateTxn { path: path.into(), data: None, acl, ephemeral, parent_cversion };
        self.replay(TxnBody::Create(create));
    }

    fn remove(&mut self, path: String) {
        self.zxid += 1;
        self.replay(TxnBody::Delete(DeleteTxn { path: path.into() }));
    }

    fn replay(&mut self, body: TxnBody) {
        let header =
            TxnHeader { client_id: SESSION.0, cxid: 1, zxid: self.zxid, time: 1, op: body.op().code() };
        let applied = self.db.apply(&Txn { header, body, digest: None }, &mut Vec::new());
        assert_eq!(applied.err, 0);
    }

    fn with_children(count: usize) -> Self {
        let mut server = Self::new();
        server.add("/p".into(), false, vec![open_entry()]);
        for at in 0..count {
            server.add(format!("/p/{at}"), at % 2 == 0, vec![open_entry()]);
        }
        server
    }
}

fn frames(out: &[u8]) -> Vec<(ReplyHeader, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut rest = Frame::new(out);
    while let Ok(Some(frame)) = rest.buffer() {
        let mut from = Frame::new(frame);
        let header = ReplyHeader::decode(&mut from).unwrap();
        frames.push((header, frame[ReplyHeader::MIN_LEN..].to_vec()));
    }
    frames
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
    let close = server.close(SESSION);
    let TxnBody::CloseSession(Some(list)) = &close.body else { panic!("{close:?}") };
    assert_eq!(list.paths_to_delete, [Bytes::from_static(b"/e2")]);
    for txn in [second, gone, close] {
        server.apply(&txn);
    }
    assert_eq!(server.db.tree.ephemeral_count(), 0);
}

/// It is asked for each of thousands of sessions that end together.
#[test]
fn a_close_looks_at_what_is_outstanding_of_its_own_session_alone() {
    for others in [10, 100, 1000] {
        let mut server = Server::new();
        let first = server.create("/own-1", 1);
        server.apply(&first);
        for at in 0..others {
            server.prepare_for(SessionId(100 + at), &format!("/e{at}"));
        }
        server.create("/own-2", 1);
        server.prepare(Op::Delete, |out| DeleteRequest { path: &b"/own-1"[..], version: -1 }.encode(out));
        assert_eq!(server.preparer.outstanding.ephemerals_of(SESSION).count(), 2, "beside {others} others");
        let all: Vec<_> = server.preparer.ephemerals(&server.db.tree, SESSION).collect();
        assert_eq!(all, ["/own-2"]);
        server.preparer.applied(Zxid(server.zxid));
        assert_eq!(server.preparer.outstanding.ephemerals_of(SESSION).count(), 0, "all of it is applied");
    }
}

#[test]
fn a_multi_that_fails_leaves_its_session_no_ephemerals() {
    let mut server = Server::new();
    server.create("/kept", 1);
    let parts = |out: &mut BytesMut| {
        let acl = vec![open_entry()];
        for path in ["/undone", "/no/parent"].map(Bytes::from) {
            MultiHeader { op: 1, done: false, err: -1 }.encode(out);
            CreateRequest { path, data: None, acl: acl.clone(), flags: 1 }.encode(out);
        }
        MultiHeader { op: -1, done: true, err: -1 }.encode(out);
    };
    let multi = server.prepare(Op::Multi, parts);
    let TxnBody::Multi(parts) = &multi.body else { panic!("{multi:?}") };
    assert!(parts.iter().all(|part| matches!(part, TxnBody::Error(_))));
    let all: Vec<_> = server.preparer.ephemerals(&server.db.tree, SESSION).collect();
    assert_eq!(all, ["/kept"]);
    assert_eq!(server.preparer.outstanding.ephemerals_of(SESSION).count(), 1);
}

/// A learner may ask for the end of whatever it likes.
#[test]
fn the_end_of_what_is_no_session_takes_nothing_along() {
    let mut server = Server::new();
    server.create("/a", 0);
    server.create("/container", 4);
    server.create("/a/b", 0);
    for id in [0, -1, i64::MIN] {
        let txn = server.close(SessionId(id));
        let TxnBody::CloseSession(Some(close)) = txn.body else { panic!("{txn:?}") };
        assert_eq!(close.paths_to_delete, Vec::<Bytes>::new(), "{id}");
    }
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
    // Each is deleted and created again as the other kind, and nothing of it is applied when the session closes.
    let mut waiting = vec![
        server.prepare(Op::Delete, delete(b"/was-persistent")),
        server.create("/was-persistent", 1),
        server.prepare(Op::Delete, delete(b"/was-ephemeral")),
        server.create("/was-ephemeral", 0),
    ];
    waiting.push(server.close(SESSION));
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
                acl: vec![open_entry()],
                flags,
                ttl,
            }
            .encode(out);
        });
        assert_eq!(error_of(&txn), Some(code), "flags {flags}, ttl {ttl}");
        server.apply(&txn);
    }
}

#[test]
fn a_null_path_is_refused_where_java_looks_at_it() {
    let mut server = Server::new();
    let mut create = |flags| {
        let txn = server.prepare(Op::Create, |out| {
            let acl = Some(vec![open_entry().into()]);
            AskedCreate::<Bytes> { path: None, data: None, acl, flags }.encode(out);
        });
        error_of(&txn)
    };
    assert_eq!(create(7), Some(ErrorCode::BadArguments), "the flags come first");
    assert_eq!(create(0), Some(ErrorCode::MarshallingError));
    let set = server
        .prepare(Op::SetData, |out| AskedSetData::<&[u8]> { path: None, data: None, version: 0 }.encode(out));
    assert_eq!(error_of(&set), Some(ErrorCode::BadArguments));
    let set_acl = server
        .prepare(Op::SetAcl, |out| AskedSetAcl::<&[u8]> { path: None, acl: None, version: 0 }.encode(out));
    assert_eq!(error_of(&set_acl), Some(ErrorCode::BadArguments));
}

#[test]
fn a_null_path_in_a_part_fails_the_whole_multi() {
    let mut server = Server::new();
    let multi = server.prepare(Op::Multi, |out| {
        for path in [Some(&b"/none"[..]), None] {
            MultiHeader { op: Op::Delete.code(), done: false, err: -1 }.encode(out);
            AskedAtVersion { path, version: -1 }.encode(out);
        }
        MultiHeader { op: -1, done: true, err: -1 }.encode(out);
    });
    assert_eq!(error_of(&multi), Some(ErrorCode::MarshallingError));
}

#[test]
fn a_part_that_java_stumbles_over_fails_the_whole_multi() {
    let mut server = Server::new();
    let part = |out: &mut BytesMut, path: &'static [u8], id: Option<&'static [u8]>| {
        MultiHeader { op: Op::Create.code(), done: false, err: -1 }.encode(out);
        let acl = AskedAcl { perms: 31, id: AskedId { scheme: Some(&b"world"[..]), id } };
        AskedCreate { path: Some(path), data: None, acl: Some(vec![acl]), flags: 0 }.encode(out);
    };
    let before = server.preparer.has_outstanding();
    let multi = server.prepare(Op::Multi, |out| {
        part(out, b"/a", Some(b"anyone"));
        part(out, b"/b", None);
        MultiHeader { op: -1, done: true, err: -1 }.encode(out);
    });
    assert_eq!(error_of(&multi), Some(ErrorCode::MarshallingError));
    assert_eq!(server.preparer.has_outstanding(), before, "nothing of it is left");
}

#[test]
fn an_id_in_a_multi_is_what_java_reads_of_what_it_wrote() {
    let mut server = Server::new();
    let write = |out: &mut BytesMut| {
        let id = AskedId { scheme: Some(&b"digest"[..]), id: Some("u:\u{1f600}".as_bytes()) };
        let acl = Some(vec![AskedAcl { perms: 31, id }]);
        AskedCreate { path: Some(&b"/a"[..]), data: None, acl, flags: 0 }.encode(out);
    };
    let alone = server.prepare(Op::Create, write);
    let TxnBody::Create(alone) = &alone.body else { panic!("{alone:?}") };
    assert_eq!(alone.acl[0].id.id, &b"u:\xed\xa0\xbd\xed\xb8\x80"[..]);
    let mut server = Server::new();
    let multi = server.prepare(Op::Multi, |out| {
        MultiHeader { op: Op::Create.code(), done: false, err: -1 }.encode(out);
        write(out);
        MultiHeader { op: -1, done: true, err: -1 }.encode(out);
    });
    let TxnBody::Multi(parts) = &multi.body else { panic!("{multi:?}") };
    let TxnBody::Create(part) = &parts[0] else { panic!("{parts:?}") };
    assert_eq!(part.acl[0].id.id, "u:\u{fffd}\u{fffd}".as_bytes());
}

#[test]
fn a_multi_read_that_fails_half_way_sends_what_it_has() {
    let server = Server::new();
    let part = |out: &mut BytesMut, path: Option<&[u8]>| {
        MultiHeader { op: Op::GetData.code(), done: false, err: -1 }.encode(out);
        GetDataRequest { path, watch: false }.encode(out);
    };
    let end = |out: &mut BytesMut| MultiHeader { op: -1, done: true, err: -1 }.encode(out);
    let read = |body: &dyn Fn(&mut BytesMut)| server.read(Op::MultiRead, body).remove(0);
    let mut expected = BytesMut::new();
    crate::wire::multi::write_error(ErrorCode::NoNode.code(), &mut expected);
    end(&mut expected);
    let (header, body) = read(&|out| {
        part(out, Some(b"/none"));
        part(out, None);
        part(out, Some(b"/"));
        end(out);
    });
    assert_eq!((header.err, body), (-5, expected.to_vec()));
    let (header, body) = read(&|out| {
        MultiHeader { op: Op::Delete.code(), done: false, err: -1 }.encode(out);
        DeleteRequest { path: &b"/none"[..], version: -1 }.encode(out);
        end(out);
    });
    assert_eq!((header.err, body.len()), (-5, MultiHeader::MIN_LEN), "a write: nothing but the end");
    let (header, body) = read(&|out| {
        MultiHeader { op: Op::Delete.code(), done: false, err: -1 }.encode(out);
        AskedAtVersion::<&[u8]> { path: None, version: -1 }.encode(out);
        end(out);
    });
    assert_eq!((header.err, body.len()), (-5, MultiHeader::MIN_LEN), "nor does its null path count");
    let (header, body) = read(&|out| part(out, Some(b"/")));
    assert_eq!((header.err, body), (-5, vec![]), "what does not decode has no results");
}

#[test]
fn a_part_of_a_character_begins_no_ephemerals_path() {
    let mut server = Server::new();
    let path = Bytes::from("/\u{20ac}");
    let txn = server.prepare(Op::Create, |out| {
        CreateRequest { path, data: None, acl: vec![open_entry()], flags: 1 }.encode(out);
    });
    server.apply(&txn);
    for (prefix, count) in [(&b"/\xe2\x82"[..], 0), (b"/\xe2\x82\xac", 1), (b"/", 1)] {
        let reply = server.read(Op::GetEphemerals, |out| {
            GetEphemeralsRequest { prefix: Some(prefix) }.encode(out);
        });
        let found = GetEphemeralsResponse::decode(&mut Frame::new(&reply[0].1)).unwrap();
        assert_eq!(found.ephemerals.len(), count, "{prefix:x?}");
    }
}

#[test]
fn blanks_alone_ask_for_all_ephemerals() {
    let mut server = Server::new();
    let txn = server.create("/e", 1);
    server.apply(&txn);
    for (prefix, count) in [("", 1), ("/", 1), (" \t/\0 ", 1), ("\0", 1), ("/e", 1), (" /e", 0), ("/f", 0)] {
        let reply = server.read(Op::GetEphemerals, |out| {
            GetEphemeralsRequest { prefix: Some(prefix.as_bytes()) }.encode(out);
        });
        let found = GetEphemeralsResponse::decode(&mut Frame::new(&reply[0].1)).unwrap();
        assert_eq!(found.ephemerals.len(), count, "{prefix:?}");
    }
}

#[test]
fn the_empty_path_counts_the_roots_other_name_too() {
    let server = Server::new();
    let count = |path: &'static [u8]| {
        let reply =
            server.read(Op::GetAllChildrenNumber, |out| GetAllChildrenNumberRequest { path }.encode(out));
        GetAllChildrenNumberResponse::decode(&mut Frame::new(&reply[0].1)).unwrap().total
    };
    assert_eq!((count(b"/"), count(b"")), (3, 4));
}

#[test]
fn watches_are_taken_up_as_far_as_no_null_stands_in_the_way() {
    let server = Server::new();
    let none = || Some(vec![]);
    let told = |data, exist, persistent| {
        let frames = server.read(Op::SetWatches2, |out| {
            let (relative_zxid, child, persistent_recursive) = (0, none(), none());
            SetWatches2 { relative_zxid, data, exist, child, persistent, persistent_recursive }.encode(out);
        });
        let reply = frames.last().unwrap().0;
        assert_eq!(reply.xid, 7);
        (frames.len() - 1, reply.err)
    };
    let gone = Some(&b"/gone"[..]);
    assert_eq!(told(Some(vec![gone, None, gone]), none(), none()), (1, -5));
    assert_eq!(told(Some(vec![gone]), None, none()), (1, -5));
    assert_eq!(told(Some(vec![gone]), none(), Some(vec![None])), (1, 0), "nobody looks at these");
}

#[test]
fn a_stranger_is_not_told_what_it_missed_and_keeps_its_watch() {
    let mut server = Server::new();
    let made = server.prepare(Op::Create2, |out| {
        let id = Id { scheme: Bytes::from_static(b"digest"), id: Bytes::from_static(b"owner:hash") };
        let acl = vec![Acl { perms: crate::model::perms::ALL, id }];
        CreateRequest { path: Bytes::from_static(b"/secret"), data: None, acl, flags: 0 }.encode(out);
    });
    server.apply(&made);
    let open = server.create("/open", 0);
    server.apply(&open);
    let paths = || Some(vec![Some(&b"/secret"[..]), Some(&b"/open"[..])]);
    let frames = server.read(Op::SetWatches, |out| {
        SetWatches { relative_zxid: 0, data: paths(), exist: Some(vec![]), child: paths() }.encode(out);
    });
    assert_eq!(frames.len(), 3, "both changes of the open znode, and the reply");
    let stands = |path: &'static [u8], kind| {
        let frames =
            server.read(Op::CheckWatches, |out| WatchesRequest { path: Some(path), kind }.encode(out));
        frames[0].0.err == 0
    };
    assert!(stands(b"/secret", 1) && stands(b"/secret", 2));
    assert!(!stands(b"/open", 2));
}

#[test]
fn a_watch_stands_on_the_text_that_java_reads() {
    let server = Server::new();
    let add = |path| server.read(Op::AddWatch, |out| AddWatchRequest { path, mode: 0 }.encode(out))[0].0.err;
    let check =
        |path| server.read(Op::CheckWatches, |out| WatchesRequest { path, kind: 3 }.encode(out))[0].0.err;
    assert_eq!((check(None), add(None), check(None)), (-121, 0, 0));
    assert_eq!(
        (check(Some(&b"/\xfe"[..])), add(Some(&b"/\xff"[..])), check(Some(&b"/\xfe"[..]))),
        (-121, 0, 0)
    );
    let frames = server.read(Op::SetWatches, |out| {
        let data = Some(vec![Some(&b"/\xff"[..])]);
        SetWatches { relative_zxid: 0, data, exist: Some(vec![]), child: Some(vec![]) }.encode(out);
    });
    let event = WatcherEvent::decode(&mut Frame::new(&frames[0].1)).unwrap();
    assert_eq!(event.path, "/\u{fffd}".as_bytes());
}

#[test]
fn a_hard_quota_refuses_and_its_namespace_is_told_once_for_each_refusal() {
    let mut server = Server::new();
    let rules = Rules { enforce_quota: true, ..server.preparer.rules().clone() };
    server.preparer = Preparer::new(rules, server.db.tree.digest());
    for path in ["/app", "/app/a", "/other", "/zookeeper/quota/app"] {
        let made = server.create(path, 0);
        server.apply(&made);
    }
    for (name, text) in
        [("zookeeper_limits", "count=1,bytes=-1=;countHardLimit=3"), ("zookeeper_stats", "count=0,bytes=0")]
    {
        let made = server.prepare(Op::Create2, |out| {
            let (path, data) = (format!("/zookeeper/quota/app/{name}").into(), Some(text.into()));
            CreateRequest::<Bytes> { path, data, acl: vec![open_entry()], flags: 0 }.encode(out);
        });
        server.apply(&made);
    }
    let third = server.create("/app/b", 0);
    assert_eq!(error_of(&third), None, "beyond the soft limit, and not beyond the hard one");
    server.apply(&third);
    assert!(server.preparer.take_quota_exceeded().is_empty());
    for path in ["/app/c", "/app/a/d"] {
        assert_eq!(error_of(&server.create(path, 0)), Some(ErrorCode::QuotaExceeded));
    }
    assert_eq!(error_of(&server.create("/other/e", 0)), None);
    assert_eq!(server.preparer.take_quota_exceeded(), ["app", "app"]);
    assert!(server.preparer.take_quota_exceeded().is_empty());
}

/// One that takes transactions of `bytes` bytes at most.
fn with_limit(max_txn_bytes: usize) -> Server {
    let mut server = Server::new();
    let rules = Rules { max_txn_bytes, ..server.preparer.rules().clone() };
    server.preparer = Preparer::new(rules, server.db.tree.digest());
    server
}

fn digest_ids(count: usize) -> Arc<[Id<Bytes>]> {
    let id = |at| Id { scheme: Bytes::from_static(b"digest"), id: format!("user-{at}:hash").into() };
    (0..count).map(id).collect()
}

/// `count` different entries, each of which means all ids of a connection.
fn auth_entries(count: i32) -> Vec<Acl<Bytes>> {
    let auth = Id { scheme: Bytes::from_static(b"auth"), id: Bytes::new() };
    (0..count).map(|perms| Acl { perms, id: auth.clone() }).collect()
}

/// n ids and n entries make n² of them: 40 KB would be 300 MB, and five times as much in memory.
#[test]
fn what_no_peer_could_read_is_refused_before_anything_changes() {
    const LIMIT: usize = 10_000;
    let mut server = with_limit(LIMIT);
    let made = server.create("/a", 0);
    server.apply(&made);
    let digest = server.db.tree.digest();
    let auth = digest_ids(2500);
    let acl = || auth_entries(2500);
    let path = || Bytes::from_static(b"/a/b");
    let mut refused = |op, body: &dyn Fn(&mut BytesMut)| {
        let mut bytes = BytesMut::new();
        body(&mut bytes);
        let txn = server.prepare_as(auth.clone(), op, bytes.freeze());
        assert_eq!(error_of(&txn), Some(TOO_LARGE), "{op:?}");
        assert!(server.preparer.take_too_large() && !server.preparer.has_outstanding(), "{op:?}");
        server.apply(&txn);
    };
    for (op, flags) in [(Op::Create, 0), (Op::CreateContainer, 4)] {
        refused(op, &|out| CreateRequest { path: path(), data: None, acl: acl(), flags }.encode(out));
    }
    refused(Op::CreateTtl, &|out| {
        CreateTtlRequest { path: path(), data: None, acl: acl(), flags: 5, ttl: 1000 }.encode(out);
    });
    refused(Op::SetAcl, &|out| {
        SetAclRequest { path: Bytes::from_static(b"/a"), acl: acl(), version: -1 }.encode(out);
    });
    refused(Op::SetData, &|out| {
        let data = Some(Bytes::from(vec![0; LIMIT]));
        SetDataRequest { path: Bytes::from_static(b"/a"), data, version: -1 }.encode(out);
    });
    assert_eq!(server.db.tree.digest(), digest);
    let next = server.create("/a/b", 0);
    assert_eq!((error_of(&next), server.preparer.take_too_large()), (None, false));
    server.apply(&next);
}

#[test]
fn the_parts_of_a_multi_share_its_room() {
    let mut server = with_limit(1000);
    let auth = digest_ids(4);
    let mut body = BytesMut::new();
    for at in 0..20 {
        MultiHeader { op: Op::Create.code(), done: false, err: -1 }.encode(&mut body);
        CreateRequest { path: format!("/m{at}").into(), data: None, acl: auth_entries(1), flags: 0 }
            .encode(&mut body);
    }
    MultiHeader { op: -1, done: true, err: -1 }.encode(&mut body);
    let multi = server.prepare_as(auth, Op::Multi, body.freeze());
    let TxnBody::Multi(parts) = &multi.body else { panic!("{multi:?}") };
    let code = |part: &TxnBody| if let TxnBody::Error(error) = part { error.err } else { 1 };
    let codes: Vec<_> = parts.iter().map(code).collect();
    let refused = codes.iter().position(|code| *code == TOO_LARGE.code()).expect("one is too many");
    assert!(refused > 1, "there is room for some");
    assert!(codes[..refused].iter().all(|code| *code == 0), "{codes:?}");
    assert!(codes[refused + 1..].iter().all(|code| *code == -2), "{codes:?}");
    assert!(server.preparer.take_too_large() && !server.preparer.has_outstanding());
    assert!(multi.encoded_len() <= 1000);
    server.apply(&multi);
}

fn children_of_p(out: &mut BytesMut) {
    GetChildrenRequest { path: Some(&b"/p"[..]), watch: true }.encode(out);
}

#[test]
fn a_hold_has_no_more_steps_for_more_children_ephemerals_or_watches() {
    const TIMES: [usize; 3] = [1, 10, 100];
    let mut holds = Vec::new();
    for times in TIMES {
        let server = Server::with_children(300 * times);
        let children = server.holds(Op::GetChildren, children_of_p);
        let below = server.holds(Op::GetAllChildrenNumber, |out| {
            GetAllChildrenNumberRequest { path: &b"/p"[..] }.encode(out);
        });
        let ephemerals = server.holds(Op::GetEphemerals, |out| {
            GetEphemeralsRequest { prefix: Some(&b""[..]) }.encode(out);
        });
        let watches = server.holds(Op::SetWatches, |out| {
            let paths: Vec<_> = (0..300 * times).map(|at| format!("/p/{at}").into_bytes()).collect();
            let data = Some(paths.into_iter().map(Some).collect());
            SetWatches { relative_zxid: i64::MAX, data, exist: Some(vec![]), child: Some(vec![]) }
                .encode(out);
        });
        holds.push([children, below, ephemerals, watches]);
    }
    assert_eq!(holds[0], [1; 4]);
    let linear = |at: usize| holds[2][at] > 1 && holds[2][at] <= 100;
    assert!((0..4).all(linear), "{holds:?}");
}

#[test]
fn a_check_of_a_long_acl_list_takes_few_steps() {
    let steps = [40, 400, 4000].map(|count| {
        let mut server = Server::new();
        let net =
            |at: usize| Id { scheme: "ip".into(), id: format!("10.{}.{}.0/24", at >> 8, at & 255).into() };
        server.add("/a".into(), false, (0..count).map(|at| Acl { perms: 31, id: net(at) }).collect());
        let read = |out: &mut BytesMut| ExistsRequest { path: &b"/a"[..], watch: false }.encode(out);
        assert_eq!(server.read(Op::Exists, read)[0].0.err, ErrorCode::NoAuth.code());
        let (mut body, mut out) = (BytesMut::new(), BytesMut::new());
        read(&mut body);
        server.hold(Op::Exists, &body, &mut None, &mut out).1
    });
    assert!(steps[0] < 20 && steps == [steps[0]; 3], "{steps:?}");
}

fn names(answer: &[u8]) -> std::collections::BTreeSet<String> {
    let (header, body) = frames(answer).remove(0);
    assert_eq!(header.err, 0);
    let names = GetChildrenResponse::decode(&mut Frame::new(&body)).unwrap().children;
    let count = names.len();
    let names: std::collections::BTreeSet<_> =
        names.iter().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
    assert_eq!(names.len(), count, "each once");
    names
}

#[test]
fn a_list_shows_one_moment_however_many_holds_it_takes() {
    let mut server = Server::with_children(20_000);
    let (mut body, mut out, mut reading) = (BytesMut::new(), BytesMut::new(), None);
    children_of_p(&mut body);
    assert!(!server.hold(Op::GetChildren, &body, &mut reading, &mut out).0);
    assert!(out.is_empty() && reading.as_ref().unwrap().kept() > 10_000);
    // Elsewhere: it does not begin again.
    server.add("/other".into(), false, vec![open_entry()]);
    assert!(!server.hold(Op::GetChildren, &body, &mut reading, &mut out).0);
    server.add("/p/new".into(), false, vec![open_entry()]);
    server.remove("/p/19999".into());
    // An event comes out before the answer.
    out.extend_from_slice(b"event");
    while !server.hold(Op::GetChildren, &body, &mut reading, &mut out).0 {}
    assert_eq!(&out[..5], b"event");
    let names = names(&out[5..]);
    assert!(names.len() == 20_000 && names.contains("new") && !names.contains("19999"));
    assert_eq!(frames(&out[5..])[0].0.zxid, server.zxid, "of the last hold");
    let watches = server.db.watches.lock();
    assert!(watches.has(crate::model::ConnId(1), b"/p", crate::tree::WatchKind::Child, 1));
}

#[test]
fn a_list_that_changes_in_each_hold_is_answered_all_the_same() {
    let mut server = Server::with_children(20_000);
    let (mut body, mut out, mut reading) = (BytesMut::new(), BytesMut::new(), None);
    children_of_p(&mut body);
    let mut holds = 0;
    loop {
        let work = Budget::default();
        let (conn, auth, rules) =
            (crate::model::ConnId(1), Arc::new([]) as Arc<[_]>, server.preparer.rules());
        let reader = ReadContext { conn, session: SESSION, auth: &auth, rules, work: &work };
        if serve_read(&server.db, reader, 7, Op::GetChildren, &body, &mut reading, &mut out) {
            break;
        }
        holds += 1;
        server.add(format!("/p/new-{holds}"), false, vec![open_entry()]);
    }
    assert!(holds < 5, "its holds grow: {holds}");
    assert_eq!(names(&out).len(), 20_000 + holds);
}

#[test]
fn a_count_goes_on_where_it_was_and_again_from_the_top_where_that_is_gone() {
    let mut server = Server::with_children(0);
    for at in 0..12_000 {
        server.add(format!("/p/{at}"), false, vec![open_entry()]);
    }
    let (mut body, mut out, mut reading) = (BytesMut::new(), BytesMut::new(), None);
    GetAllChildrenNumberRequest { path: &b"/p"[..] }.encode(&mut body);
    let mut holds = 0;
    while !server.hold(Op::GetAllChildrenNumber, &body, &mut reading, &mut out).0 {
        holds += 1;
        if holds == 1 {
            // All that was counted goes, and with it the place where to go on.
            (6_000..12_000).for_each(|at| server.remove(format!("/p/{at}")));
        }
    }
    let total = GetAllChildrenNumberResponse::decode(&mut Frame::new(&frames(&out)[0].1)).unwrap().total;
    assert_eq!((total, holds), (6_000, 1), "again, in a longer hold");
}

#[test]
fn a_multi_read_is_refused_before_its_answer_is_larger_than_it_may_be() {
    let mut server = with_limit(100_000);
    let made = server.prepare(Op::Create, |out| {
        let data = Some(Bytes::from(vec![b'd'; 60_000]));
        CreateRequest { path: Bytes::from_static(b"/a"), data, acl: vec![open_entry()], flags: 0 }
            .encode(out);
    });
    server.apply(&made);
    for (parts, err) in [(69, 0), (70, TOO_LARGE.code()), (40_000, TOO_LARGE.code())] {
        let mut body = BytesMut::new();
        for _ in 0..parts {
            MultiHeader { op: Op::GetData.code(), done: false, err: -1 }.encode(&mut body);
            GetDataRequest { path: Some(&b"/a"[..]), watch: false }.encode(&mut body);
        }
        MultiHeader { op: -1, done: true, err: -1 }.encode(&mut body);
        let mut out = BytesMut::new();
        assert!(server.hold(Op::MultiRead, &body, &mut None, &mut out).0);
        let (header, answer) = frames(&out).remove(0);
        assert_eq!((header.err, answer.is_empty()), (err, err != 0), "{parts} parts");
        assert!(out.capacity() <= 2 * server.preparer.rules().max_multi_read(), "{}", out.capacity());
    }
}

fn any_acl() -> impl Strategy<Value = Vec<Acl<Bytes>>> {
    let id = prop_oneof![
        Just((Bytes::from_static(b"world"), Bytes::from_static(b"anyone"))),
        Just((Bytes::from_static(b"auth"), Bytes::new())),
        // Some that are no text, which makes three bytes of one.
        prop::collection::vec(prop_oneof![Just(b'u'), Just(0xff)], 1..40)
            .prop_map(|user| (Bytes::from_static(b"digest"), [&user[..], b":h"].concat().into())),
    ];
    let entry = (0..32_i32, id).prop_map(|(perms, (scheme, id))| Acl { perms, id: Id { scheme, id } });
    prop::collection::vec(entry, 0..6)
}

/// A write, or part of one: what the operation needs of it.
fn any_write() -> impl Strategy<Value = (Op, Bytes)> {
    let data = prop::option::of(prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from));
    let ops = prop::sample::select(vec![
        Op::Create,
        Op::Create2,
        Op::CreateContainer,
        Op::CreateTtl,
        Op::SetData,
        Op::Delete,
        Op::Check,
        Op::SetAcl,
    ]);
    (ops, "/[ab]{1,40}", data, any_acl(), 0..4_i32).prop_map(|(op, path, data, acl, flags)| {
        let (mut out, path, version) = (BytesMut::new(), Bytes::from(path), -1);
        match op {
            Op::CreateTtl => {
                CreateTtlRequest { path, data, acl, flags: 5 + flags % 2, ttl: 9 }.encode(&mut out)
            }
            Op::SetData => SetDataRequest { path: Bytes::from_static(b"/"), data, version }.encode(&mut out),
            Op::SetAcl => SetAclRequest { path: Bytes::from_static(b"/"), acl, version }.encode(&mut out),
            Op::Delete | Op::Check => AskedAtVersion { path: Some(path), version }.encode(&mut out),
            _ => CreateRequest { path, data, acl, flags }.encode(&mut out),
        }
        (op, out.freeze())
    })
}

/// Writes alone and in multis.
fn any_request() -> impl Strategy<Value = (Op, Bytes)> {
    let multi = prop::collection::vec(any_write(), 0..8).prop_map(|parts| {
        let mut out = BytesMut::new();
        for (op, body) in parts.into_iter().filter(|(op, _)| *op != Op::SetAcl) {
            MultiHeader { op: op.code(), done: false, err: -1 }.encode(&mut out);
            out.extend_from_slice(&body);
        }
        MultiHeader { op: -1, done: true, err: -1 }.encode(&mut out);
        (Op::Multi, out.freeze())
    });
    prop_oneof![any_write(), multi]
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
    /// Exactly what is larger than the limit is refused, and what is not is read by a peer that has the limit.
    #[test]
    fn a_peer_reads_what_is_proposed(
        (op, body) in any_request(), limit in 100..1500_usize, ids in 0..6_usize,
    ) {
        let asked = body.len() + 44;
        let free = with_limit(1 << 30).prepare_as(digest_ids(ids), op, body.clone());
        let mut server = with_limit(limit);
        let txn = server.prepare_as(digest_ids(ids), op, body);
        let has_failed = |txn: &Txn| match &txn.body {
            TxnBody::Multi(parts) => parts.iter().any(|part| matches!(part, TxnBody::Error(_))),
            body => matches!(body, TxnBody::Error(_)),
        };
        let (failed, in_any_case) = (has_failed(&txn), has_failed(&free));
        let mut bytes = BytesMut::new();
        txn.encode(&mut bytes);
        prop_assert_eq!(bytes.len(), txn.encoded_len());
        if !in_any_case {
            prop_assert_eq!(failed, free.encoded_len() > limit, "{} bytes", free.encoded_len());
        }
        prop_assert_eq!(failed, txn != free || in_any_case);
        prop_assert_eq!(server.preparer.take_too_large(), txn != free);
        prop_assert!(!failed || !server.preparer.has_outstanding());
        // A multi that failed is smaller than its request, which came through a door of no more.
        let limit = if failed { limit.max(asked) } else { limit };
        let (body, mut packet) = (bytes.clone().freeze(), BytesMut::new());
        FromLeader::Proposal { zxid: Zxid(1), body: body.clone() }.encode(&mut packet);
        let taken = quorum::take(&mut packet, limit);
        prop_assert_eq!(taken, Ok(Some(FromLeader::Proposal { zxid: Zxid(1), body })));
        prop_assert_eq!(&Txn::decode(bytes.freeze()).unwrap(), &txn);
        server.apply(&txn);
    }

    #[test]
    fn what_prep_lets_through_always_applies(
        steps in prop::collection::vec((0..6_u8, any_path(), -1..4_i32, 0..7_i32), 1..60),
        lag in 0..5_usize,
    ) {
        let mut server = Server::new();
        let mut waiting = std::collections::VecDeque::new();
        for (kind, path, version, flags) in steps {
            let acl = vec![open_entry()];
            let txn = match kind {
                0 | 1 => server.prepare(Op::Create2, |out| {
                    CreateRequest { path, data: None, acl, flags }.encode(out);
                }),
                2 => server.prepare(Op::Delete, |out| DeleteRequest { path, version }.encode(out)),
                3 => server.prepare(Op::SetData, |out| {
                    SetDataRequest { path: path.clone(), data: Some(path), version }.encode(out);
                }),
                4 => server.prepare(Op::SetAcl, |out| SetAclRequest { path, acl, version }.encode(out)),
                _ => server.close(SESSION),
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
        if is_read(op) {
            server.read(op, |out| out.extend_from_slice(&body));
        }
    }
}
