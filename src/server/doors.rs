//! What one door lets in fits every later door: from a client's request to a follower, the leader, its peers, every log and
//! snapshot, and back to a client. The limits of all doors come from `settings`, for whatever `jute.maxbuffer` says.

use super::{Tuning, settings};
use crate::config::{Config, Machine};
use crate::core::Descriptors;
use crate::jute::records::{Acl, CreateRequest, GetAclRequest, GetDataRequest, Id, SetAclRequest};
use crate::jute::{Reader, Source};
use crate::model::{Budget, ConnId, ErrorCode, Op, SessionId, Zxid};
use crate::request::{Preparer, ReadContext, Request, auth, serve_read};
use crate::storage::{Dirs, Disk, LogOptions, LogReader, RealDisk, TxnLog, log_name};
use crate::tree::{Database, Loader};
use crate::wire::quorum::{self, Forwarded, FromLeader, FromLearner};
use crate::wire::txn::{Txn, TxnBody};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

const SESSION: SessionId = SessionId(0x0100_0000_0000_0007);
/// xid and operation: what a frame has before the request's record.
const FRAME_HEAD: usize = 8;

fn config(max_buffer: usize, extra: Option<usize>) -> Config {
    let extra = extra.map(|bytes| format!("jute.maxbuffer.extrasize={bytes}\n")).unwrap_or_default();
    let text = format!("dataDir=/data\nclientPort=1\njute.maxbuffer={max_buffer}\n{extra}");
    let read = |file: &Path| match file.to_str() {
        Some("zoo.cfg") => Ok(text.clone().into_bytes()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    Config::from_file(Path::new("zoo.cfg"), &Machine { read: &read, resolve: &|_| Vec::new() }).unwrap()
}

/// All that a connection lets itself be known by, of ids with names of this length.
fn ids(name: usize) -> Arc<[Id<Bytes>]> {
    let mut ids: Arc<[_]> = Arc::new([auth::ip_id("127.0.0.1".parse().unwrap())]);
    for at in 0_u32.. {
        let name = [&at.to_be_bytes()[..], &vec![b'n'; name], b":h"].concat();
        match auth::with_ids(&ids, vec![Id { scheme: "digest".into(), id: name.into() }]) {
            Ok(more) => ids = more.expect("each has a name of its own"),
            Err(_) => break,
        }
    }
    ids
}

fn entry(perms: i32, scheme: &'static str, id: Vec<u8>) -> Acl<Bytes> {
    Acl { perms, id: Id { scheme: scheme.into(), id: id.into() } }
}

/// The largest buffers of a snapshot's body: how long a reader must let them be.
fn longest(body: &[u8]) -> usize {
    let mut from = Reader::new(body);
    let mut longest = 0;
    let sessions = usize::try_from(from.int().unwrap()).unwrap();
    from.take(12 * sessions).unwrap();
    for _ in 0..from.int().unwrap() {
        from.long().unwrap();
        for _ in 0..from.int().unwrap() {
            from.int().unwrap();
            longest = longest.max(from.ustring().unwrap().len()).max(from.ustring().unwrap().len());
        }
    }
    loop {
        let path = from.ustring().unwrap();
        if path == b"/" {
            return longest;
        }
        longest = longest.max(path.len()).max(from.buffer().unwrap().unwrap_or_default().len());
        from.take(8 + 60).unwrap();
    }
}

#[derive(Debug, Clone)]
struct Asked {
    path: usize,
    data: usize,
    /// An id of bytes that are no text takes three times as many.
    odd: usize,
    autos: i32,
    nets: u32,
}

fn any_asked() -> impl Strategy<Value = Asked> {
    let len = || prop_oneof![Just(0), 1..200_usize, 1000..30_000_usize];
    (1..2000_usize, len(), len(), 0..40_i32, prop_oneof![Just(0), 1..900_u32])
        .prop_map(|(path, data, odd, autos, nets)| Asked { path, data, odd, autos, nets })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_one_door_lets_in_fits_every_later_door(
        asked in any_asked(), max_buffer in 2_000..60_000_usize, extra in prop::option::of(0..4000_usize),
        names in 0..3000_usize,
    ) {
        let (config, tuning, ids) = (config(max_buffer, extra), Tuning::default(), ids(names));
        let rules = settings::replica(&config, &tuning).rules;
        let max_frame = settings::limits(&config, &tuning, 1).max_frame;
        let peers = settings::peers(&config, &Descriptors::new(100, 0));
        let max_record = config.limits.max_record();

        // The client's door.
        let path = Bytes::from([b"/", &vec![b'p'; asked.path][..]].concat());
        let mut acl: Vec<_> = (1..=asked.autos).map(|perms| entry(perms, "auth", Vec::new())).collect();
        acl.extend((0..asked.nets).map(|at| entry(31, "ip", format!("10.0.{}.{}", at >> 8, at & 255).into())));
        acl.push(entry(31, "digest", [&vec![0xff; asked.odd][..], b":h"].concat()));
        let mut body = BytesMut::new();
        CreateRequest { path: path.clone(), data: Some(Bytes::from(vec![1; asked.data])), acl: acl.clone(), flags: 0 }
            .encode(&mut body);
        prop_assume!(FRAME_HEAD + body.len() <= max_frame);
        let body = body.freeze();

        // From a follower to its leader, with all that the client is known by.
        let forwarded = Forwarded { session: SESSION, cxid: 1, op: 1, body: body.clone(), auth: ids.to_vec() };
        let mut packet = BytesMut::new();
        FromLearner::Request(forwarded).encode(&mut packet);
        prop_assert!(matches!(quorum::take::<FromLearner>(&mut packet, peers.max_packet), Ok(Some(_))));

        // Every transaction is proposed, logged, read back and applied, or an error is.
        let mut db = Database::new(settings::owners(&config));
        let mut preparer = Preparer::new(rules.clone(), db.tree.digest());
        let mut set_acl = BytesMut::new();
        SetAclRequest { path: path.clone(), acl, version: -1 }.encode(&mut set_acl);
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs { data: dir.path().to_path_buf(), log: dir.path().to_path_buf() };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let options = LogOptions { prealloc_bytes: 256 << 10, force_sync: false };
        let mut log = TxnLog::new(disk, dirs.log.clone(), options, Zxid::ZERO);
        let mut written = Vec::new();
        for (zxid, op, body) in [(1, Op::Create2, body), (2, Op::SetAcl, set_acl.freeze())] {
            let request = Request { session: SESSION, cxid: 1, op, body, auth: ids.clone() };
            let txn = preparer.prepare(&db.tree, &request, Ok(()), Zxid(zxid), 1);
            let mut bytes = BytesMut::new();
            txn.encode(&mut bytes);
            let bytes = bytes.freeze();
            prop_assert!(bytes.len() <= max_record, "{} of {max_record}", bytes.len());
            let mut packet = BytesMut::new();
            FromLeader::Proposal { zxid: Zxid(zxid), body: bytes.clone() }.encode(&mut packet);
            prop_assert!(matches!(quorum::take::<FromLeader>(&mut packet, peers.max_packet), Ok(Some(_))));
            log.append(Zxid(zxid), &bytes).unwrap();
            if !matches!(txn.body, TxnBody::Error(_)) {
                prop_assert_eq!(db.apply(&txn, &mut Vec::new()).err, 0);
            }
            preparer.applied(Zxid(zxid));
            written.push(bytes);
        }
        log.sync().unwrap();
        let mut reader = LogReader::open(&RealDisk, &dirs.log.join(log_name(Zxid(1)))).unwrap();
        for bytes in written {
            let record = reader.next().unwrap().expect("it was written");
            prop_assert_eq!(&record.body[..], &bytes[..]);
            prop_assert!(Txn::decode(record.body).is_ok());
        }

        // Into a snapshot and back.
        db.begin_snapshot();
        let mut snapshot = BytesMut::new();
        while db.tree.snapshot_under_way() {
            snapshot.extend_from_slice(&db.tree.snapshot_slice(1000).bytes);
        }
        prop_assert!(longest(&snapshot) <= max_record);
        let mut loader = Loader::new(settings::owners(&config));
        prop_assert_eq!(loader.feed(&snapshot).unwrap(), snapshot.len());
        let db = Database::from_snapshot(loader, Zxid(2));

        // To a client: whatever is there is answered.
        if db.tree.find(&path).is_some() {
            for op in [Op::GetData, Op::GetAcl] {
                let (mut body, mut out) = (BytesMut::new(), BytesMut::new());
                match op {
                    Op::GetData => GetDataRequest { path: Some(&path[..]), watch: false }.encode(&mut body),
                    _ => GetAclRequest { path: &path[..] }.encode(&mut body),
                }
                let (conn, auth, rules, work) = (ConnId(1), &ids, &rules, &Budget::default());
                let reader = ReadContext { conn, session: SESSION, auth, rules, work };
                prop_assert!(serve_read(&db, reader, 1, op, &body, &mut None, &mut out));
                let err = i32::from_be_bytes(out[16..20].try_into().unwrap());
                prop_assert!(err == 0 || err == ErrorCode::NoAuth.code());
                prop_assert!(out.len() < 2 * max_record + 200);
            }
        }
    }
}
