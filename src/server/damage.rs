//! Damage that is found before it does harm: a snapshot whose checksums are right, and that shows another tree than the log states,
//! at a start; and old files, by the scrub.

use super::{Tuning, settings};
use crate::config::{Config, Machine};
use crate::core::{Opened, Opening, RestoredDatabase, Scrub, Wait, open, write_snapshot_of};
use crate::jute::records::{Acl, CreateRequest, Id};
use crate::model::{Debt, Epoch, Op, SessionId, Zxid};
use crate::request::{Preparer, Request};
use crate::storage::{self, Dirs, Disk, LogOptions, Note, RealDisk, StorageError, TxnLog, Upto};
use crate::tree::Database;
use bytes::{Bytes, BytesMut};
use std::path::Path;
use std::sync::Arc;

const TXNS: i64 = 20;
/// The first transaction of the second log.
const SECOND_LOG: i64 = 9;

struct Server {
    dir: tempfile::TempDir,
    dirs: Dirs,
    disk: Arc<dyn Disk>,
    config: Config,
    digest: u64,
}

/// One that has created some znodes, and has its log alone.
fn server() -> Server {
    server_with(&[])
}

/// The same, and the log states a digest for these transactions that no tree had.
fn server_with(misstated: &[i64]) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let dirs = Dirs::new(dir.path(), dir.path());
    let text = format!("dataDir={}\nclientPort=1\n", dir.path().display());
    let read = |file: &Path| match file.to_str() {
        Some("zoo.cfg") => Ok(text.clone().into_bytes()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let config = Config::from_file(Path::new("zoo.cfg"), &Machine { read: &read, resolve: &|_| Vec::new() });
    let config = config.unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    disk.create_dir_all(&dirs.log).unwrap();
    let mut db = Database::new(settings::owners(&config));
    let rules = settings::replica(&config, &Tuning::default()).rules;
    let mut preparer = Preparer::new(rules, db.tree.digest());
    let options = LogOptions { prealloc_bytes: 256 << 10, force_sync: false };
    let mut log = TxnLog::new(disk.clone(), dirs.log.clone(), options, Zxid::ZERO);
    for zxid in 1..=TXNS {
        if zxid == SECOND_LOG {
            log.roll();
        }
        let id = Id { scheme: Bytes::from("world"), id: Bytes::from("anyone") };
        let create = CreateRequest {
            path: Bytes::from(format!("/n{zxid}")),
            data: Some(Bytes::from("x")),
            acl: vec![Acl { perms: 31, id }],
            flags: 0,
        };
        let mut body = BytesMut::new();
        create.encode(&mut body);
        let request = Request {
            session: SessionId(7),
            cxid: 1,
            op: Op::Create,
            body: body.freeze(),
            auth: Arc::new([]),
        };
        let mut txn = preparer.prepare(&db.tree, &request, Ok(()), Zxid(zxid), 1);
        if misstated.contains(&zxid) {
            txn.digest.as_mut().unwrap().tree_digest += 1;
        }
        let mut bytes = BytesMut::new();
        txn.encode(&mut bytes);
        log.append(Zxid(zxid), &bytes).unwrap();
        assert_eq!(db.apply(&txn, &mut Vec::new()).err, 0);
        preparer.applied(Zxid(zxid));
    }
    log.sync().unwrap();
    Server { dir, dirs, disk, config, digest: db.tree.digest() }
}

impl Server {
    /// Writes the snapshot that this server could have taken after this transaction, or a wrong one.
    fn snapshot(&self, zxid: i64, is_wrong: bool) {
        let logs = storage::logs_in(&*self.disk, &self.dirs.log).unwrap();
        let mut state = RestoredDatabase::new(settings::owners(&self.config));
        let upto = Upto { zxid: Zxid(zxid), snapshot: Zxid::ZERO };
        storage::see(&*self.disk, &[], &logs, upto, &mut state, &mut |_| ()).unwrap();
        let mut db = state.into_database();
        (db.last_txn, db.last_zxid) = (Zxid(zxid), Zxid(zxid));
        if is_wrong {
            let data = Some(&b"wrong"[..]);
            db.tree.set_data(&Bytes::from("/n1"), data, 0, zxid, 0, &mut Vec::new()).unwrap();
        }
        write_snapshot_of(&mut db, &self.disk, &self.dirs).unwrap();
    }

    fn open(&self, change: impl FnOnce(&mut Opening)) -> Result<Opened, StorageError> {
        let mut opening = settings::opening(&self.config, &Tuning::default());
        change(&mut opening);
        open(&self.disk, &self.dirs, &opening, &mut |_| ())
    }

    fn read(&self, name: &str) -> Vec<u8> {
        let mut file = self.disk.open(&self.dirs.data.join(name)).unwrap();
        let mut bytes = vec![0; file.len() as usize];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
        bytes
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        self.disk.create(&self.dirs.data.join(name)).unwrap().write_all(bytes).unwrap();
    }

    fn has(&self, name: &str) -> bool {
        self.dir.path().join("version-2").join(name).exists()
    }
}

#[test]
fn the_right_tree_is_built_from_an_older_snapshot() {
    let server = server();
    server.snapshot(5, false);
    server.snapshot(10, true);
    server.snapshot(15, true);
    for distributed in [false, true] {
        let opened = server.open(|opening| opening.distributed = distributed).unwrap();
        assert_eq!((opened.db.tree.digest(), opened.db.last_zxid), (server.digest, Zxid(TXNS)));
        assert_eq!((opened.found.snapshot_zxid, opened.found.txns), (Zxid(5), 15));
        assert!(!opened.position.tree_differs);
        let rebuilt = |note: &Note| matches!(note, Note::TreeRebuilt { kept_in, .. } if kept_in.len() == 2);
        // Once said, it is not there to be said again.
        assert_eq!(opened.found.notes.iter().any(rebuilt), !distributed, "{:?}", opened.found.notes);
        assert!(
            server.has("wrong.snapshot.a") && server.has("wrong.snapshot.f") && !server.has("snapshot.a")
        );
    }
}

/// A leader whose tree was wrong stated it, until the others told it so: the tree that they all have since is not in doubt.
#[test]
fn what_was_misstated_before_the_end_is_no_doubt() {
    let opened = server_with(&[12]).open(|_| ()).unwrap();
    assert!(opened.found.notes.is_empty(), "{:?}", opened.found.notes);
    let Err(_) = server_with(&[12, TXNS]).open(|_| ()) else { panic!("nothing states this tree") };
}

#[test]
fn where_the_log_alone_is_enough_it_is_taken() {
    let server = server();
    server.snapshot(10, true);
    let opened = server.open(|_| ()).unwrap();
    assert_eq!((opened.db.tree.digest(), opened.found.snapshot), (server.digest, None));
}

#[test]
fn where_no_snapshot_is_right_a_server_alone_refuses_and_a_member_asks_its_leader() {
    let server = server();
    server.snapshot(10, true);
    server.disk.remove(&server.dirs.log.join("log.1")).unwrap();
    let Err(error) = server.open(|_| ()) else { panic!("it serves another tree") };
    let text = error.to_string();
    assert!(text.contains("snapshot.a") && text.contains("digest.enabled=false"), "{text}");
    let opened = server.open(|opening| opening.distributed = true).unwrap();
    assert!(opened.position.tree_differs && opened.position.last == Zxid(TXNS));
    assert!(matches!(&opened.found.notes[..], [.., Note::TreeDiffers { .. }]));
    assert!(server.has("snapshot.a"), "it is of use to whoever looks for the cause");
    let opened = server.open(|opening| opening.checks_digests = false).unwrap();
    assert_eq!(opened.found.snapshot_zxid, Zxid(10));
}

/// As in a directory of a Java server, which has no copies of its epochs; and where the copies went as well.
#[test]
fn a_member_whose_promises_are_damaged_knows_that_it_does_not_know_them() {
    let names = ["acceptedEpoch", "currentEpoch", "zabra.debt"];
    for (which, bad) in [(0..1, &b""[..]), (1..2, b"5x"), (0..2, &[0; 10]), (2..3, b"")] {
        let server = server();
        server.write("acceptedEpoch", b"7");
        server.write("currentEpoch", b"6");
        names[which.clone()].iter().for_each(|name| server.write(name, bad));
        let Err(error) = server.open(|_| ()) else { panic!("it has forgotten {which:?}") };
        assert!(error.to_string().contains(names[which.start]), "{error}");
        for time in ["at once", "as it said"] {
            let opened = server.open(|opening| opening.distributed = true).unwrap();
            let is_forgotten = |note: &Note| matches!(note, Note::Forgotten { .. });
            assert_eq!(opened.found.notes.iter().any(is_forgotten), time == "at once", "{which:?}");
            let at = opened.position;
            assert_eq!((at.debt, at.last), (Debt::Unknown, Zxid(TXNS)), "{which:?}, {time}");
            let good = |at: usize, epoch| if which.contains(&at) { Epoch(0) } else { Epoch(epoch) };
            assert_eq!(
                (at.accepted, at.current),
                (good(0, 7).max(good(1, 6)), good(1, 6)),
                "{which:?}, {time}"
            );
        }
    }
}

/// Files that are damaged, in the order in which they are read.
fn scrubbed(scrub: &mut Scrub, server: &Server) -> Vec<String> {
    let wait: Wait = Arc::new(|_| true);
    let pass = scrub.pass(&*server.disk, &server.dirs, &wait).unwrap();
    let place = |error: &StorageError| error.place().rsplit('/').next().unwrap().to_string();
    pass.damaged.iter().map(place).collect()
}

#[test]
fn a_scrub_finds_what_is_damaged_once() {
    let server = server();
    server.snapshot(5, false);
    server.snapshot(10, false);
    let mut scrub = Scrub::new(settings::owners(&server.config));
    assert!(scrubbed(&mut scrub, &server).is_empty());

    let change = |name: &str, at: usize| {
        let mut bytes = server.read(name);
        bytes[at] ^= 1;
        server.write(name, &bytes);
    };
    change("snapshot.5", 40);
    change("log.1", 200);
    // The log that is being written is left to recovery.
    change("log.9", 200);
    let found = scrubbed(&mut scrub, &server);
    assert!(
        matches!(&found[..], [snapshot, log] if snapshot.starts_with("snapshot.5 is damaged at offset")
        && log.starts_with("log.1 is damaged at offset") && log.contains("good record")),
        "{found:?}"
    );
    assert!(scrubbed(&mut scrub, &server).is_empty(), "it was said");
    change("snapshot.5", 40);
    assert!(scrubbed(&mut scrub, &server).is_empty());
    change("snapshot.5", 40);
    assert_eq!(scrubbed(&mut scrub, &server).len(), 1, "it was good meanwhile");
}

#[test]
fn a_scrub_finds_a_tree_that_differs_and_gives_up_where_the_server_stops() {
    let server = server();
    server.snapshot(5, false);
    let mut bytes = server.read("snapshot.5");
    let at = bytes.windows(3).position(|window| window == b"/n1").unwrap() + 7;
    assert_eq!(bytes[at], b'x');
    bytes[at] = b'y';
    // The seals are right again: each is a checksum of all before it, and a path of one byte.
    let seal = |bytes: &mut Vec<u8>, at: usize| {
        let sum = i64::from(simd_adler32::adler32(&&bytes[..at]));
        bytes[at..at + 8].copy_from_slice(&sum.to_be_bytes());
    };
    // After the body; after the digest, with its zxid and version; after the last zxid.
    let seals = [67, 34, 13].map(|before_end| bytes.len() - before_end);
    seals.into_iter().for_each(|at| seal(&mut bytes, at));
    server.write("snapshot.5", &bytes);
    let mut scrub = Scrub::new(settings::owners(&server.config));
    let found = scrubbed(&mut scrub, &server);
    assert!(matches!(&found[..], [one] if one.contains("the tree's digest is")), "{found:?}");

    let stops: Wait = Arc::new(|_| false);
    assert_eq!(
        scrub.pass(&*server.disk, &server.dirs, &stops).unwrap_err().kind(),
        std::io::ErrorKind::TimedOut
    );
}
