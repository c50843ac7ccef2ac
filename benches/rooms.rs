//! Codec, tree and log, each alone: `cargo bench`.

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use zabra::jute::records::{CreateRequest, CreateTxn, SetDataTxn, TxnHeader};
use zabra::jute::{Reader, SharedReader};
use zabra::model::owner::OwnerRules;
use zabra::model::{Budget, ConnId, Op, SessionId, Zxid};
use zabra::request::{ReadContext, Rules, serve_read};
use zabra::storage::{LogOptions, RealDisk, TxnLog};
use zabra::tree::{Database, open_entry};
use zabra::wire::txn::{Txn, TxnBody};

fn txn(zxid: i64, body: TxnBody) -> Txn {
    let header = TxnHeader { client_id: 1, cxid: 1, zxid, time: 1, op: body.op().code() };
    Txn { header, body, digest: None }
}

fn create(path: String) -> TxnBody {
    let data = Some(Bytes::from(vec![b'x'; 100]));
    TxnBody::Create(CreateTxn {
        path: path.into(),
        data,
        acl: vec![open_entry()],
        ephemeral: false,
        parent_cversion: -1,
    })
}

fn set(path: String) -> TxnBody {
    TxnBody::SetData(SetDataTxn { path: path.into(), data: Some(Bytes::from(vec![b'y'; 100])), version: 1 })
}

fn filled(nodes: i64) -> Database {
    let mut db = Database::new(OwnerRules::default());
    for node in 0..nodes {
        db.apply(&txn(node + 1, create(format!("/n{node:07}"))), &mut Vec::new());
    }
    db
}

fn codec(c: &mut Criterion) {
    let request =
        CreateRequest { path: &b"/some/path"[..], data: Some(&[7; 100][..]), acl: vec![], flags: 0 };
    let mut frame = BytesMut::new();
    request.encode(&mut frame);
    let shared = frame.clone().freeze();
    let mut group = c.benchmark_group("codec");
    group.bench_function("encode create", |b| {
        let mut out = BytesMut::new();
        b.iter(|| {
            out.clear();
            black_box(&request).encode(&mut out);
        });
    });
    group.bench_function("decode create, borrowed", |b| {
        b.iter(|| CreateRequest::decode(&mut Reader::new(black_box(&frame))));
    });
    group.bench_function("decode create, shared", |b| {
        b.iter(|| CreateRequest::decode(&mut SharedReader::new(black_box(shared.clone()))));
    });
    group.finish();
}

fn tree(c: &mut Criterion) {
    let mut db = filled(100_000);
    let rules = Rules::default();
    let auth = Arc::from([]);
    let requests: Vec<Vec<u8>> = (0..1000)
        .map(|at| {
            let path = format!("/n{:07}", at * 97);
            [&(path.len() as i32).to_be_bytes()[..], path.as_bytes(), &[0]].concat()
        })
        .collect();
    let mut group = c.benchmark_group("tree of 100,000");
    group.throughput(Throughput::Elements(1));
    group.bench_function("getData", |b| {
        let (conn, session, auth, rules) = (ConnId(1), SessionId(1), &auth, &rules);
        let (mut out, mut at) = (BytesMut::new(), 0);
        b.iter(|| {
            out.clear();
            at = (at + 1) % requests.len();
            let reader = ReadContext { conn, session, auth, rules, work: &Budget::default() };
            serve_read(&db, reader, 1, Op::GetData, &requests[at], &mut None, &mut out)
        });
    });
    let sets: Vec<Txn> = (0..1000).map(|at| txn(200_000, set(format!("/n{:07}", at * 89)))).collect();
    group.bench_function("setData", |b| {
        let (mut events, mut at) = (Vec::new(), 0);
        b.iter(|| {
            events.clear();
            at = (at + 1) % sets.len();
            db.apply(&sets[at], &mut events)
        });
    });
    group.finish();
    c.bench_function("snapshot of 100,000", |b| {
        b.iter(|| {
            db.tree.abandon_snapshot();
            db.begin_snapshot();
            while !db.tree.snapshot_slice(256).done {}
        });
    });
}

fn log(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = LogOptions { prealloc_bytes: 64 << 20, force_sync: true };
    let mut log = TxnLog::new(Arc::new(RealDisk), dir.path().to_path_buf(), options, Zxid::ZERO);
    let mut encoded = BytesMut::new();
    txn(1, set("/some/path".into())).encode(&mut encoded);
    let mut zxid = 0;
    let mut group = c.benchmark_group("log");
    for batch in [1_u64, 100] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("append {batch} and sync"), |b| {
            b.iter(|| {
                for _ in 0..batch {
                    zxid += 1;
                    log.append(Zxid(zxid), &encoded).expect("the disk takes it");
                }
                log.sync().expect("the disk takes it");
            });
        });
    }
    group.finish();
}

criterion_group!(rooms, codec, tree, log);
criterion_main!(rooms);
