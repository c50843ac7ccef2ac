//! The commands on snapshots and directories of our own writers.

use super::*;
use crate::cli::history::{Bar, Files, State};
use crate::cli::log::tests::{create, txn, write_log};
use crate::cli::{backup, restore};
use crate::core::write_snapshot_of;
use crate::jute::records::CreateTxn;
use crate::model::Zxid;
use crate::storage::{Dirs, RealDisk, StorageError, Trailer, snapshot_name};
use crate::tree::Database;
use crate::wire::txn::{Txn, TxnBody};
use clap::Parser;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: SnapshotArgs,
}

fn ran(words: &[&str]) -> (String, Result<Found, ToolError>) {
    let args = Line::try_parse_from(std::iter::once("snapshot").chain(words.iter().copied())).unwrap().args;
    let mut out = Vec::new();
    let found = run_to(&args, &mut out);
    (String::from_utf8(out).unwrap(), found)
}

#[derive(Debug, Parser)]
struct RestoreLine {
    #[command(flatten)]
    args: restore::RestoreArgs,
}

fn restored(words: &[&str]) -> Result<Found, ToolError> {
    let words = std::iter::once("restore").chain(words.iter().copied());
    restore::run(&RestoreLine::try_parse_from(words).unwrap().args, &mut Vec::new())
}

#[derive(Debug, Parser)]
struct BackupLine {
    #[command(flatten)]
    args: backup::BackupArgs,
}

fn backed_up(words: &[&str]) -> Result<Found, ToolError> {
    let words = std::iter::once("backup").chain(words.iter().copied());
    backup::run(&BackupLine::try_parse_from(words).unwrap().args)
}

const TXNS: i64 = 40;
const SNAPSHOT: i64 = 15;

/// A directory with transactions 1 to 40, a snapshot after the 15th, and the tree after each.
struct History {
    dir: tempfile::TempDir,
    trees: Vec<u64>,
}

/// What creates the znode of this transaction.
fn child(zxid: i64) -> TxnBody {
    let TxnBody::Create(txn) = create(&format!("/n{zxid}"), false) else { unreachable!("it makes a create") };
    TxnBody::Create(CreateTxn { parent_cversion: zxid as i32, ..txn })
}

impl History {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(dir.path(), dir.path());
        fs::create_dir(&dirs.data).unwrap();
        let mut db = Database::new(crate::cli::history::RULES);
        let mut trees = vec![db.tree.digest()];
        let mut bodies = Vec::new();
        for zxid in 1..=TXNS {
            let (_, body) = txn(zxid, 7, child(zxid));
            db.apply(&Txn::decode(body.freeze()).unwrap(), &mut Vec::new());
            trees.push(db.tree.digest());
            let mut body = txn(zxid, 7, child(zxid));
            crate::jute::records::TxnDigest { version: 2, tree_digest: db.tree.digest() as i64 }
                .encode(&mut body.1);
            bodies.push(body);
            if zxid == SNAPSHOT {
                write_snapshot_of(&mut db, &(Arc::new(RealDisk) as _), &dirs).unwrap();
            }
        }
        let second = bodies.split_off(20);
        write_log(&dirs.log, bodies);
        write_log(&dirs.log, second);
        Self { dir, trees }
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("version-2").join(name)
    }

    fn snapshot(&self) -> PathBuf {
        self.file(&snapshot_name(Zxid(SNAPSHOT)))
    }
}

fn state(path: &Path) -> State {
    Files::of(path, None).unwrap().state(None, &mut |_| ()).unwrap()
}

#[test]
fn a_directory_is_its_snapshot_and_its_logs() {
    let history = History::new();
    let (output, found) = ran(&[history.path()]);
    assert_eq!(found.unwrap(), Found::Clean);
    assert!(output.contains("/n40 data=4 bytes") && output.contains("zxid=0x28"), "{output}");
    let (output, _) = ran(&[history.snapshot().to_str().unwrap(), "--prefix", "/n1", "--json", "--data"]);
    let first: serde_json::Value = serde_json::from_str(output.lines().next().unwrap()).unwrap();
    assert_eq!((&first["path"], &first["data"]), (&"/n1".into(), &"data".into()), "{output}");
    assert_eq!(output.lines().count(), 2, "{output}");
}

#[test]
fn digests_are_compared_after_each_transaction() {
    let history = History::new();
    let (output, found) = ran(&["verify", history.path()]);
    assert_eq!(found.unwrap(), Found::Clean, "{output}");
    assert!(output.contains("25 transactions replayed, up to 0x28: 26 digests compared"), "{output}");
}

#[test]
fn a_snapshot_with_right_checksums_and_another_tree_is_found() {
    let history = History::new();
    let mut state = state(&history.snapshot());
    let writer = crate::storage::SnapshotWriter::create_received(
        Arc::new(RealDisk),
        history.file(&snapshot_name(Zxid(SNAPSHOT))),
    );
    let mut writer = writer.unwrap();
    state.db.begin_snapshot();
    let mut bytes = state.db.tree.snapshot_slice(1000).bytes;
    bytes.extend_from_slice(&state.db.tree.snapshot_slice(1000).bytes);
    let at = bytes.windows(4).position(|word| word == b"data").unwrap();
    bytes[at] = b'D';
    writer.write(&bytes).unwrap();
    writer.finish(Zxid(SNAPSHOT), Some(Trailer::whole(history.trees[SNAPSHOT as usize]))).unwrap();
    let (output, found) = ran(&["verify", history.snapshot().to_str().unwrap()]);
    assert_eq!(found.unwrap(), Found::Fault, "{output}");
    assert!(output.contains("DIGEST"), "{output}");
    let into = history.dir.path().join("restored");
    let error = restored(&[history.path(), "--into", into.to_str().unwrap()]).unwrap_err();
    assert!(matches!(error, ToolError::Digest { .. }), "{error}");
}

#[test]
fn damage_is_named_with_file_and_offset() {
    let history = History::new();
    let whole = fs::read(history.snapshot()).unwrap();
    let file = history.snapshot();
    for (damage, bytes) in [
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("flip", whole.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 200)).collect()),
        ("foreign", b"nonsense".repeat(100)),
    ] {
        fs::write(&file, bytes).unwrap();
        let (output, found) = ran(&["verify", file.to_str().unwrap()]);
        assert_eq!(found.unwrap(), Found::Fault, "{damage}: {output}");
        assert!(output.contains("offset") && output.contains(file.to_str().unwrap()), "{damage}: {output}");
        let error = ran(&[file.to_str().unwrap()]).1.unwrap_err();
        assert!(matches!(error, ToolError::Storage(StorageError::Damaged { .. })), "{damage}: {error}");
    }
    // The directory still leads to the same tree, from its beginning.
    assert_eq!(state(history.dir.path()).db.tree.digest(), history.trees[TXNS as usize]);
}

#[test]
fn a_log_is_no_snapshot() {
    let history = History::new();
    let error = ran(&[history.file("log.1").to_str().unwrap()]).1.unwrap_err();
    assert!(matches!(error, ToolError::IsLog { .. }), "{error}");
    assert!(error.to_string().contains("use: zabra log"), "{error}");
}

#[test]
fn a_summary_counts_each_znode_once() {
    let history = History::new();
    let (output, found) = ran(&["summary", history.path(), "--json", "--top", "3"]);
    assert_eq!(found.unwrap(), Found::Clean);
    let summary: serde_json::Value = serde_json::from_str(&output).unwrap();
    // 40, the root, and /zookeeper with two below.
    assert_eq!((&summary["znodes"], &summary["bytes"]), (&44.into(), &160.into()), "{output}");
    assert_eq!(summary["subtree_count"], 42, "{output}");
    assert_eq!(summary["largest"].as_array().unwrap().len(), 3, "{output}");
}

#[test]
fn trees_are_compared_by_all_that_clients_see() {
    let history = History::new();
    let (output, found) = ran(&["compare", history.path(), history.path()]);
    assert_eq!(found.unwrap(), Found::Clean, "{output}");
    let (output, found) = ran(&["compare", history.snapshot().to_str().unwrap(), history.path()]);
    assert_eq!(found.unwrap(), Found::Fault);
    let lines = |mark| output.lines().filter(|line| line.starts_with(mark)).count();
    // What was created after the snapshot; and the root, which counts its children.
    assert_eq!((lines('-'), lines('+'), lines('~')), (0, 25, 1), "{output}");
    assert!(output.contains("0 only in A, 25 only in B, 1 different"), "{output}");
}

/// Every point of the history, with and without a snapshot before it.
#[test]
fn what_is_restored_is_the_tree_of_that_point() {
    let history = History::new();
    for zxid in 1..=TXNS {
        let into = history.dir.path().join(format!("at{zxid}"));
        let to = format!("{zxid:#x}");
        let found = restored(&[history.path(), "--to-zxid", &to, "--into", into.to_str().unwrap()]);
        assert_eq!(found.unwrap(), Found::Clean);
        let there = state(&into);
        assert_eq!((there.point(), there.db.tree.digest()), (Zxid(zxid), history.trees[zxid as usize]));
        let error = restored(&[history.path(), "--into", into.to_str().unwrap()]).unwrap_err();
        assert!(matches!(error, ToolError::NotEmpty { .. }), "{error}");
    }
}

#[test]
fn a_time_means_the_last_transaction_that_is_not_later() {
    let history = History::new();
    let into = history.dir.path().join("then");
    restored(&[history.path(), "--to-time", "30999", "--into", into.to_str().unwrap()]).unwrap();
    assert_eq!(state(&into).point(), Zxid(30));
    let error = restored(&[history.path(), "--to-time", "999", "--dry-run"]).unwrap_err();
    assert!(matches!(error, ToolError::BeforeBeginning { .. }), "{error}");
    let error = restored(&[history.path(), "--to-zxid", "0x100", "--dry-run"]).unwrap_err();
    assert!(matches!(error, ToolError::BeyondEnd { .. }), "{error}");
}

/// Clients have seen the zxids that are given up: the next leader's epoch is later than all of them.
#[test]
fn the_epochs_that_were_used_stay_used() {
    let history = History::new();
    fs::write(history.file("acceptedEpoch"), "7").unwrap();
    fs::write(history.file("currentEpoch"), "6").unwrap();
    let into = history.dir.path().join("then");
    restored(&[history.path(), "--to-zxid", "0x5", "--into", into.to_str().unwrap()]).unwrap();
    assert_eq!(fs::read(into.join("version-2/acceptedEpoch")).unwrap(), b"7");
    assert_eq!(fs::read(into.join("version-2/currentEpoch")).unwrap(), b"0");
}

#[test]
fn a_backup_is_the_directory_at_one_point() {
    let history = History::new();
    let to = history.dir.path().join("backup.of.today");
    backed_up(&[history.path(), "--to", to.to_str().unwrap()]).unwrap();
    let there = state(&to);
    assert_eq!((there.point(), there.db.tree.digest()), (Zxid(TXNS), history.trees[TXNS as usize]));
    let before = fs::read(&to).unwrap();
    let error = backed_up(&[history.path(), "--to", to.to_str().unwrap()]).unwrap_err();
    assert!(matches!(error, ToolError::Exists { .. }), "{error}");
    assert_eq!(fs::read(&to).unwrap(), before, "no existing file is written over");
    for packed in ["today.gz", "today.snappy"] {
        let to = history.dir.path().join(packed);
        backed_up(&[history.path(), "--to", to.to_str().unwrap()]).unwrap();
        assert!(fs::read(&to).unwrap().len() < before.len(), "{packed}");
        assert_eq!(
            (state(&to).point(), state(&to).db.tree.digest()),
            (Zxid(TXNS), history.trees[TXNS as usize])
        );
    }
    backed_up(&[history.path(), "--to", history.path()]).unwrap();
    assert_eq!(fs::read(history.dir.path().join("snapshot.28")).unwrap(), before);
}

/// A backup, and the logs that go on after it, lead to any later point.
#[test]
fn logs_lead_on_from_a_backup() {
    let history = History::new();
    let backup = history.dir.path().join("backup");
    fs::rename(history.snapshot(), &backup).unwrap();
    fs::remove_file(history.file("log.1")).unwrap();
    let error = state_error(&backup, history.path(), "0x28");
    assert!(error.to_string().contains("what lies between is missing"), "{error}");
    let history = History::new();
    let backup = history.dir.path().join("backup");
    fs::rename(history.snapshot(), &backup).unwrap();
    let into = history.dir.path().join("then");
    let words = [
        backup.to_str().unwrap(),
        "--log-dir",
        history.path(),
        "--to-zxid",
        "0x1e",
        "--into",
        into.to_str().unwrap(),
    ];
    restored(&words).unwrap();
    assert_eq!(state(&into).db.tree.digest(), history.trees[30]);
}

fn state_error(from: &Path, logs: &str, to: &str) -> ToolError {
    let words = [from.to_str().unwrap(), "--log-dir", logs, "--to-zxid", to, "--dry-run"];
    restored(&words).unwrap_err()
}

/// What is missing before a point is never made up.
#[test]
fn a_point_that_the_files_do_not_lead_to_is_refused() {
    let history = History::new();
    fs::remove_file(history.file("log.1")).unwrap();
    let error = |from: &str, to: &str| restored(&[from, "--to-zxid", to, "--dry-run"]).unwrap_err();
    let (dir, snapshot) = (history.path(), history.snapshot());
    for from in [dir, snapshot.to_str().unwrap()] {
        let error = error(from, "0x5");
        assert!(matches!(error, ToolError::TooOld { oldest: Zxid(SNAPSHOT), .. }), "{from}: {error}");
    }
    let between = error(dir, "0x12");
    assert!(between.to_string().contains("0x15 follows 0xf: what lies between is missing"), "{between}");
    restored(&[dir, "--to-zxid", "0xf", "--dry-run"]).unwrap();
}

#[test]
fn damage_after_a_point_does_not_matter_to_it() {
    let history = History::new();
    let log = history.file("log.15");
    let mut bytes = fs::read(&log).unwrap();
    let at = bytes.windows(4).position(|word| word == b"/n30").unwrap();
    bytes[at] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let files = Files::of(history.dir.path(), None).unwrap();
    for zxid in SNAPSHOT..30 {
        let state = files.state(Some(Zxid(zxid)), &mut |_| ()).unwrap();
        assert_eq!((state.point(), state.db.tree.digest()), (Zxid(zxid), history.trees[zxid as usize]));
    }
    for zxid in [30, 31, TXNS] {
        let error = files.state(Some(Zxid(zxid)), &mut |_| ()).err().expect("it is damaged");
        assert!(matches!(error, ToolError::Storage(StorageError::Damaged { .. })), "{error}");
    }
}

/// As `zabra backup --to - | gzip` makes them.
#[test]
fn a_compressed_backup_needs_no_name() {
    let history = History::new();
    let (gz, snappy) = (history.file("backup.gz"), history.file("backup.snappy"));
    let mut packed =
        flate2::write::GzEncoder::new(fs::File::create(&gz).unwrap(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &fs::read(history.snapshot()).unwrap()).unwrap();
    packed.finish().unwrap();
    assert_eq!(state(&gz).point(), Zxid(SNAPSHOT));
    fs::write(&snappy, b"\x82SNAPPY\0").unwrap();
    let (output, found) = ran(&["verify", snappy.to_str().unwrap()]);
    assert_eq!(found.unwrap(), Found::Fault, "{output}");
}

/// A server that is killed leaves a torn end, which is no part of its history.
#[test]
fn a_torn_end_is_left_out_and_named() {
    let history = History::new();
    let log = history.file("log.15");
    let bytes = fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    fs::write(&log, &bytes[..end - 10]).unwrap();
    let seen = state(history.dir.path());
    assert_eq!((seen.point(), seen.notes().len()), (Zxid(TXNS - 1), 1));
    assert_eq!(fs::read(&log).unwrap(), bytes[..end - 10], "no file is changed");
    let mut seen = seen;
    let name = history.dir.path().join("backup");
    let writer = crate::storage::SnapshotWriter::create_received(Arc::new(RealDisk), name.clone()).unwrap();
    backup::write(&mut seen, writer, &Bar::new()).unwrap();
    assert_eq!(state(&name).db.tree.digest(), history.trees[TXNS as usize - 1]);
}
