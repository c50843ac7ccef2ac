//! The commands on logs of our own writer, with each kind of damage.

use super::*;
use crate::jute::records::{
    CloseSessionTxn, CreateSessionTxn, CreateTxn, DeleteTxn, ErrorTxn, SetDataTxn, TxnHeader,
};
use crate::model::Zxid;
use crate::storage::{LogOptions, LogReader, RealDisk, TxnLog, log_name};
use crate::wire::txn::{Txn, TxnBody};
use bytes::{Bytes, BytesMut};
use clap::Parser;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: LogArgs,
}

/// What a command line prints, and how it ends.
fn ran(words: &[&str]) -> (String, Result<Found, ToolError>) {
    let args = Line::try_parse_from(std::iter::once("log").chain(words.iter().copied())).unwrap().args;
    let mut out = Vec::new();
    let found = run_to(&args, &mut out);
    (String::from_utf8(out).unwrap(), found)
}

pub fn txn(zxid: i64, session: i64, body: TxnBody) -> (Zxid, BytesMut) {
    let header = TxnHeader { client_id: session, cxid: 1, zxid, time: 1000 * zxid, op: body.op().code() };
    let mut bytes = BytesMut::new();
    Txn { header, body, digest: None }.encode(&mut bytes);
    (Zxid(zxid), bytes)
}

pub fn create(path: &str, ephemeral: bool) -> TxnBody {
    TxnBody::Create(CreateTxn {
        path: Bytes::copy_from_slice(path.as_bytes()),
        data: Some(Bytes::from_static(b"data")),
        acl: vec![crate::tree::open_entry()],
        ephemeral,
        parent_cversion: 1,
    })
}

fn set(path: &str) -> TxnBody {
    let path = Bytes::copy_from_slice(path.as_bytes());
    TxnBody::SetData(SetDataTxn { path, data: Some(Bytes::from_static(b"changed")), version: 1 })
}

pub fn write_log(dir: &Path, txns: impl IntoIterator<Item = (Zxid, BytesMut)>) -> PathBuf {
    let mut log: Option<(TxnLog, PathBuf)> = None;
    for (zxid, body) in txns {
        let (log, _) = log.get_or_insert_with(|| {
            let options = LogOptions { prealloc_bytes: 64 << 10, force_sync: true };
            let writer = TxnLog::new(Arc::new(RealDisk), dir.to_path_buf(), options, Zxid::ZERO);
            (writer, dir.join(log_name(zxid)))
        });
        log.append(zxid, &body).unwrap();
    }
    let (log, path) = log.unwrap();
    log.close().unwrap();
    path
}

/// Nine transactions of two sessions, one of each kind that the filters tell apart.
fn history(dir: &Path) -> PathBuf {
    let delete = DeleteTxn { path: Bytes::from_static(b"/app/b") };
    let close = CloseSessionTxn { paths_to_delete: vec![Bytes::from_static(b"/app/e")] };
    let multi = vec![set("/app/a"), TxnBody::Delete(DeleteTxn { path: Bytes::from_static(b"/apple") })];
    let bodies = [
        (7, TxnBody::CreateSession(CreateSessionTxn { timeout: 4000 })),
        (7, create("/app", false)),
        (7, create("/app/a", false)),
        (8, create("/apple", false)),
        (8, create("/app/e", true)),
        (7, set("/app/a")),
        (7, TxnBody::Error(ErrorTxn { err: -101 })),
        (8, TxnBody::Multi(multi)),
        (8, TxnBody::CloseSession(Some(close))),
        (7, TxnBody::Delete(delete)),
    ];
    write_log(dir, bodies.into_iter().zip(1..).map(|((session, body), zxid)| txn(zxid, session, body)))
}

fn dir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let log = history(dir.path());
    (dir, log)
}

fn zxids(output: &str) -> Vec<i64> {
    let numbers = output.lines().filter_map(|line| line.split("zxid=0x").nth(1)?.split(' ').next());
    numbers.map(|hex| i64::from_str_radix(hex, 16).unwrap()).collect()
}

/// Where its records begin, and where the last one ends.
fn offsets(log: &Path) -> Vec<usize> {
    let mut reader = LogReader::open(&RealDisk, log).unwrap();
    let mut found = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        found.push(record.offset as usize);
    }
    found.push(reader.position() as usize);
    found
}

#[test]
fn filters_leave_what_is_asked_for() {
    let (_dir, log) = dir();
    let log = log.to_str().unwrap();
    for (filter, wanted) in [
        (&[][..], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10][..]),
        (&["--path", "/app"], &[2]),
        (&["--path", "/app/a"], &[3, 6, 8]),
        (&["--prefix", "/app"], &[2, 3, 5, 6, 8, 9, 10]),
        (&["--prefix", "/app/"], &[2, 3, 5, 6, 8, 9, 10]),
        (&["--prefix", "/"], &[2, 3, 4, 5, 6, 8, 9, 10]),
        (&["--session", "0x8"], &[4, 5, 8, 9]),
        (&["--type", "delete"], &[8, 10]),
        (&["--type", "create,error"], &[2, 3, 4, 5, 7]),
        (&["--since", "3000", "--until", "1970-01-01T00:00:05Z"], &[3, 4, 5]),
        (&["--from-zxid", "0x4", "--to-zxid", "0x6"], &[4, 5, 6]),
        (&["--session", "0x7", "--prefix", "/app/a", "--type", "setData"], &[6]),
    ] {
        let (output, found) = ran(&[&[log], filter].concat());
        assert_eq!(found.unwrap(), Found::Clean);
        assert_eq!(zxids(&output), wanted, "{filter:?}");
        let json = [&[log], filter, &["--json"]].concat();
        let lines = ran(&json).0.lines().count();
        assert_eq!(lines, wanted.len() + 1, "{json:?}");
    }
}

#[test]
fn who_changed_a_znode_last_is_found_in_any_file() {
    let (dir, _) = dir();
    write_log(dir.path(), [txn(11, 9, create("/later", false))]);
    let dir = dir.path().to_str().unwrap();
    for (path, wanted) in
        [("/app/a", 8), ("/app/e", 9), ("/app", 2), ("/apple", 8), ("/app/b", 10), ("/later", 11)]
    {
        let (output, found) = ran(&["last", path, dir]);
        assert_eq!((found.unwrap(), zxids(&output)), (Found::Clean, vec![wanted]), "{path}");
    }
    assert_eq!(ran(&["last", "/ap", dir]).1.unwrap(), Found::Fault);
}

#[test]
fn a_directory_gives_its_logs_in_order() {
    let (dir, _) = dir();
    fs::create_dir(dir.path().join("version-2")).unwrap();
    fs::rename(dir.path().join("log.1"), dir.path().join("version-2/log.1")).unwrap();
    write_log(&dir.path().join("version-2"), [txn(11, 7, set("/app"))]);
    let (output, found) = ran(&[dir.path().to_str().unwrap()]);
    assert_eq!(found.unwrap(), Found::Clean);
    assert_eq!(zxids(&output), (1..=11).collect::<Vec<_>>());
}

#[test]
fn what_is_no_log_is_named_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("snapshot.5");
    fs::write(&snapshot, b"ZKSN and so on").unwrap();
    let error = ran(&[snapshot.to_str().unwrap()]).1.unwrap_err();
    assert!(matches!(error, ToolError::IsSnapshot { .. }), "{error}");
    assert!(error.to_string().contains("use: zabra snapshot"), "{error}");
    let foreign = dir.path().join("notes.txt");
    fs::write(&foreign, b"hello").unwrap();
    let error = ran(&[foreign.to_str().unwrap()]).1.unwrap_err();
    assert!(matches!(error, ToolError::Foreign { .. }), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = ran(&[empty.path().to_str().unwrap()]).1.unwrap_err();
    assert!(matches!(error, ToolError::NoFiles { .. }), "{error}");
}

#[test]
fn all_bad_places_are_found_and_nothing_else() {
    let (_dir, log) = dir();
    let at = offsets(&log);
    let mut bytes = fs::read(&log).unwrap();
    bytes[at[2] + 40] ^= 1;
    bytes[at[4] + 12..at[5]].fill(0);
    bytes[at[8] + 3] ^= 0x10;
    fs::write(&log, &bytes).unwrap();
    let name = log.to_str().unwrap();
    let (output, found) = ran(&["verify", name, "--json"]);
    assert_eq!(found.unwrap(), Found::Fault);
    let lines: Vec<serde_json::Value> =
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, bad) = lines.split_last().unwrap();
    let places: Vec<_> = bad.iter().map(|line| line["offset"].as_u64().unwrap() as usize).collect();
    assert_eq!(places, [at[2], at[4], at[8]], "{output}");
    assert!(bad.iter().all(|line| line["missing"] == 1), "{output}");
    assert_eq!(summary["transactions"], 7, "{output}");
    // The dump shows what is left, and the same places.
    let (output, found) = ran(&[name]);
    assert_eq!(found.unwrap(), Found::Fault);
    assert_eq!(zxids(&output), [1, 2, 4, 6, 7, 8, 10]);
}

#[test]
fn a_whole_log_has_no_bad_place() {
    let (dir, _) = dir();
    let (output, found) = ran(&["verify", dir.path().to_str().unwrap()]);
    assert_eq!(found.unwrap(), Found::Clean, "{output}");
    assert!(output.contains("10 transactions, 0x1 to 0xa"), "{output}");
}

#[test]
fn a_log_that_is_missing_between_two_is_a_gap() {
    let (dir, _) = dir();
    write_log(dir.path(), [txn(14, 7, set("/app"))]);
    let (output, found) = ran(&["verify", dir.path().to_str().unwrap()]);
    assert_eq!(found.unwrap(), Found::Fault);
    assert!(output.contains("log.e offset 16: GAP: transaction 0xe follows 0xa: 3 transactions"), "{output}");
}

#[test]
fn a_missing_log_of_a_whole_epoch_is_a_gap() {
    let (dir, _) = dir();
    let options = LogOptions { prealloc_bytes: 64 << 10, force_sync: true };
    let mut log = TxnLog::new(Arc::new(RealDisk), dir.path().into(), options, Zxid(0x1_0000_0007));
    let (zxid, bytes) = txn(0x2_0000_0001, 7, set("/app"));
    log.append(zxid, &bytes).unwrap();
    log.close().unwrap();
    let (output, found) = ran(&["verify", dir.path().to_str().unwrap()]);
    assert_eq!(found.unwrap(), Found::Fault);
    assert!(output.contains("log.200000001 offset 0: GAP: this log was begun after 0x100000007"), "{output}");
}

#[test]
fn a_record_that_does_not_decode_is_a_finding() {
    let dir = tempfile::tempdir().unwrap();
    let (zxid, mut bytes) = txn(2, 7, set("/a"));
    bytes.truncate(36);
    let log = write_log(dir.path(), [txn(1, 7, create("/a", false)), (zxid, bytes)]);
    let (output, found) = ran(&["verify", log.to_str().unwrap()]);
    assert_eq!(found.unwrap(), Found::Fault);
    assert!(output.contains("UNDECODABLE: transaction 0x2"), "{output}");
}

/// Each kind of damage, at each record: what is mended is the part before it, whole, and the input stays.
#[test]
fn what_is_mended_is_the_good_part_in_a_new_file() {
    let (dir, log) = dir();
    let whole = fs::read(&log).unwrap();
    let at = offsets(&log);
    let mended = dir.path().join("mended");
    for place in 1..at.len() - 1 {
        for damage in ["flip", "zeros", "cut"] {
            let mut bytes = whole.clone();
            match damage {
                "flip" => bytes[at[place] + 33] ^= 4,
                "zeros" => bytes[at[place]..at[place + 1]].fill(0),
                _ => bytes.truncate(at[place] + 20),
            }
            fs::write(&log, &bytes).unwrap();
            let arguments = ["mend", log.to_str().unwrap(), "--to", mended.to_str().unwrap()];
            let (output, found) = ran(&arguments);
            found.unwrap();
            assert!(output.contains(&format!("{place} transactions")), "{damage} at {place}: {output}");
            assert_eq!(fs::read(&log).unwrap(), bytes, "the input stays");
            let (output, found) = ran(&["verify", mended.to_str().unwrap()]);
            assert_eq!(found.unwrap(), Found::Clean, "{output}");
            let copied = fs::read(&mended).unwrap();
            assert_eq!(copied[..at[place]], whole[..at[place]], "byte for byte");
            let error = ran(&arguments).1.unwrap_err();
            assert!(matches!(error, ToolError::Exists { .. }), "{error}");
            assert_eq!(fs::read(&mended).unwrap(), copied, "no existing file is written over");
            fs::remove_file(&mended).unwrap();
        }
    }
}

#[test]
fn a_log_with_a_wrong_header_still_gives_what_it_has() {
    let (dir, log) = dir();
    let mut bytes = fs::read(&log).unwrap();
    bytes[1] ^= 0xff;
    fs::write(&log, &bytes).unwrap();
    let (output, found) = ran(&[log.to_str().unwrap()]);
    assert_eq!(found.unwrap(), Found::Fault);
    assert_eq!(zxids(&output).len(), 10);
    let to = dir.path().join("mended");
    let (output, found) = ran(&["mend", log.to_str().unwrap(), "--to", to.to_str().unwrap()]);
    assert_eq!(found.unwrap(), Found::Fault);
    assert!(output.contains("10 transactions"), "{output}");
    assert_eq!(ran(&["verify", to.to_str().unwrap()]).1.unwrap(), Found::Clean);
}

#[test]
fn what_has_no_good_record_is_not_mended() {
    let (dir, log) = dir();
    fs::write(&log, b"nonsense".repeat(100)).unwrap();
    let to = dir.path().join("mended");
    let error = ran(&["mend", log.to_str().unwrap(), "--to", to.to_str().unwrap()]).1;
    assert!(matches!(error, Err(ToolError::NothingGood { .. })));
    assert!(!to.exists(), "nothing was written");
}

#[test]
fn an_empty_log_has_nothing_and_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.1");
    for content in [&b""[..], b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0", &[0; 4096]] {
        fs::write(&log, content).unwrap();
        let (output, found) = ran(&[log.to_str().unwrap()]);
        assert_eq!(found.unwrap(), Found::Clean, "{output}");
        assert!(output.contains("0 transactions"), "{output}");
    }
}

#[test]
fn a_chopped_log_ends_with_the_transaction_that_is_named() {
    let (dir, log) = dir();
    let (log, to) = (log.to_str().unwrap(), dir.path().join("short"));
    let to = to.to_str().unwrap();
    ran(&["chop", log, "--after", "0x6", "--to", to]).1.unwrap();
    let (output, found) = ran(&[to]);
    assert_eq!(found.unwrap(), Found::Clean);
    assert_eq!(zxids(&output), [1, 2, 3, 4, 5, 6]);
    let refused = |after| ran(&["chop", log, "--after", after, "--to", to]).1.unwrap_err();
    assert!(matches!(refused("0x6"), ToolError::Exists { .. }));
    fs::remove_file(to).unwrap();
    assert!(matches!(refused("0xa"), ToolError::NothingAfter { .. }));
    assert!(matches!(refused("0x0"), ToolError::NothingBefore { .. }));
    assert!(!Path::new(to).exists(), "nothing was written");
}

#[test]
fn a_log_that_is_damaged_before_the_place_is_not_chopped() {
    let (dir, log) = dir();
    let at = offsets(&log);
    let mut bytes = fs::read(&log).unwrap();
    bytes[at[2] + 40] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let to = dir.path().join("short");
    let arguments = |after| ["chop", log.to_str().unwrap(), "--after", after, "--to", to.to_str().unwrap()];
    let error = ran(&arguments("0x6")).1.unwrap_err();
    assert!(matches!(error, ToolError::DamagedBefore { .. }), "{error}");
    assert!(!to.exists());
}
