//! Every request body, against a small tree: prep, apply, replies to reads. The log's form of what comes out is read
//! back.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use zabra::model::owner::OwnerRules;
use zabra::model::{Budget, ConnId, DigestAlgorithm, Op, SessionId, Zxid};
use zabra::request::{Preparer, ReadContext, Request, Rules, is_read, serve_read};
use zabra::tree::Database;
use zabra::wire::txn::Txn;

fuzz_target!(|data: &[u8]| {
    let mut db = Database::new(OwnerRules { extended_types: true, emulate_353: false });
    let rules = Rules {
        extended_types: true,
        digest_auth: Some(DigestAlgorithm::Sha1),
        txn_digests: true,
        max_txn_bytes: 1 << 20,
        ..Rules::default()
    };
    let mut preparer = Preparer::new(rules.clone(), db.tree.digest());
    let auth = Arc::from([]);
    let session = SessionId(7);
    let mut rest = data;
    let mut zxid = 0;
    // A chain of requests: operation, length, body.
    while let [op, len, tail @ ..] = rest {
        let len = usize::from(*len).min(tail.len());
        let (body, next) = tail.split_at(len);
        rest = next;
        let Some(op) = Op::from_code(i32::from(*op as i8)) else { continue };
        if is_read(op) {
            let (conn, mut reading, mut out) = (ConnId(1), None, BytesMut::new());
            let mut is_done = || {
                let reader =
                    ReadContext { conn, session, auth: &auth, rules: &rules, work: &Budget::default() };
                serve_read(&db, reader, 1, op, body, &mut reading, &mut out)
            };
            while !is_done() {}
            continue;
        }
        zxid += 1;
        let request = Request { session, cxid: 1, op, body: body.to_vec().into(), auth: auth.clone() };
        let txn = preparer.prepare(&db.tree, &request, Ok(()), Zxid(zxid), 1);
        let mut bytes = BytesMut::new();
        txn.encode(&mut bytes);
        assert_eq!(Txn::decode(bytes.freeze()).as_ref(), Ok(&txn));
        db.apply(&txn, &mut Vec::new());
        preparer.applied(Zxid(zxid));
        if let Some(digest) = txn.digest {
            assert_eq!(digest.tree_digest as u64, db.tree.digest());
        }
    }
});
