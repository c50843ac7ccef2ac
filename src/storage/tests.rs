//! Logs and snapshots on a real disk and on one that fails: golden bytes, every cut, every flip.

use super::*;
use crate::model::{Epoch, LinkId, Packing, Place, Room, Zxid};
use bytes::Bytes;
use proptest::prelude::*;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const OPTIONS: LogOptions = LogOptions { prealloc_bytes: 64 << 10, force_sync: true };

/// A body that the room can tell from another: a header with its zxid, then filler.
fn body(zxid: i64, len: usize) -> Vec<u8> {
    let mut body = vec![0; 32 + len];
    body[12..20].copy_from_slice(&zxid.to_be_bytes());
    for (at, byte) in body[32..].iter_mut().enumerate() {
        *byte = (at as i64 * 31 + zxid) as u8;
    }
    body
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_path_buf()
    }

    fn dirs(&self) -> Dirs {
        Dirs { data: self.path(), log: self.path() }
    }

    fn write_log(&self, disk: Arc<dyn Disk>, zxids: std::ops::RangeInclusive<i64>) -> PathBuf {
        self.write_log_after(disk, Zxid::ZERO, zxids)
    }

    fn write_log_after(
        &self,
        disk: Arc<dyn Disk>,
        after: Zxid,
        zxids: std::ops::RangeInclusive<i64>,
    ) -> PathBuf {
        let first = *zxids.start();
        let mut log = TxnLog::new(disk, self.path(), OPTIONS, after);
        for zxid in zxids {
            log.append(Zxid(zxid), &body(zxid, 20)).unwrap();
        }
        log.sync().unwrap();
        self.path().join(log_name(Zxid(first)))
    }

    fn write_snapshot(&self, zxid: i64) -> PathBuf {
        self.write_packed_snapshot(zxid, Packing::Plain)
    }

    fn write_packed_snapshot(&self, zxid: i64, packing: Packing) -> PathBuf {
        let mut writer =
            SnapshotWriter::create(Arc::new(RealDisk), &self.path(), Zxid(zxid), packing).unwrap();
        writer.write(&zxid.to_be_bytes()).unwrap();
        writer.write(b"\0\0\0\x01/").unwrap();
        writer.finish(Zxid(zxid), Some(Trailer::whole(7))).unwrap().0
    }
}

/// The state of these tests: the zxids that it consists of.
#[derive(Default)]
struct Zxids {
    fed: bool,
    from_snapshot: i64,
    replayed: Vec<i64>,
}

impl Restore for Zxids {
    fn reset(&mut self) {
        *self = Self::default();
    }

    fn feed(&mut self, window: &[u8]) -> Result<usize, Damage> {
        let Some(bytes) = window.first_chunk::<13>() else { return Ok(0) };
        self.from_snapshot = i64::from_be_bytes(bytes[..8].try_into().unwrap());
        self.fed = true;
        Ok(13)
    }

    fn is_fed(&self) -> bool {
        self.fed
    }

    fn loaded(&mut self, _: Zxid, _: &SnapshotSeal) {}

    fn replay(&mut self, body: Bytes) -> Result<(), Damage> {
        self.replayed.push(i64::from_be_bytes(body[12..20].try_into().unwrap()));
        Ok(())
    }
}

fn recovered(dir: &Dir) -> Result<(Zxids, Recovered), StorageError> {
    let mut state = Zxids::default();
    let found = recover(&RealDisk, &dir.dirs(), &mut state, &mut |_| Ok(()), &mut |_| ())?;
    Ok((state, found))
}

/// As a loss of power may leave it: nothing says how far the log was synced.
fn forget(dir: &Dir) {
    forget_synced(&RealDisk, &dir.path()).unwrap();
}

fn read_all(path: &std::path::Path) -> (Vec<i64>, LogEnd) {
    let mut log = LogReader::open(&RealDisk, path).unwrap();
    let mut zxids = Vec::new();
    while let Some(record) = log.next().unwrap() {
        assert_eq!(record.body, body(record.zxid.0, record.body.len() - 32));
        zxids.push(record.zxid.0);
    }
    (zxids, log.end().unwrap().clone())
}

/// The tools read logs that a server is writing.
#[test]
fn a_record_that_was_being_written_is_read_once_it_is_there() {
    let dir = Dir::new();
    let log = dir.write_log(Arc::new(RealDisk), 1..=5);
    let whole = fs::read(&log).unwrap();
    let third = 16 + 2 * (12 + body(1, 20).len() + 1);
    let mut early = whole.clone();
    early[third..third + 8].fill(0);
    fs::write(&log, &early).unwrap();
    let mut reader = LogReader::open(&RealDisk, &log).unwrap();
    let mut zxids = vec![reader.next().unwrap().unwrap().zxid.0];
    fs::write(&log, &whole).unwrap();
    while let Some(record) = reader.next().unwrap() {
        zxids.push(record.zxid.0);
    }
    assert_eq!(zxids, [1, 2, 3, 4, 5]);
}

#[test]
fn the_bytes_are_those_of_a_java_server() {
    let dir = Dir::new();
    let golden = "01000010ad3d0000000000000000000000000001000001a204be8d10fffffff6000027100000000200000000\
                  51c6d660";
    let golden: Vec<u8> = (0..golden.len() / 2)
        .map(|at| u8::from_str_radix(&golden[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let mut log = TxnLog::new(Arc::new(RealDisk), dir.path(), OPTIONS, Zxid(0));
    log.append(Zxid(1), &golden).unwrap();
    log.sync().unwrap();
    let bytes = fs::read(dir.path().join("log.1")).unwrap();
    assert_eq!(bytes.len(), 65_552, "header and padding as Java has them");
    assert_eq!(bytes[..16], *b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0");
    assert_eq!(bytes[16..28], [0, 0, 0, 0, 0xab, 0xd7, 0x09, 0x78, 0, 0, 0, 0x30]);
    assert_eq!((&bytes[28..76], bytes[76]), (&golden[..], b'B'));
}

/// Bytes of each log on the disk.
fn allocated(dir: &Dir) -> Vec<u64> {
    let names = RealDisk.list(&dir.path()).unwrap().into_iter().map(|(name, _)| name);
    let logs = names.filter(|name| name.contains("log."));
    logs.map(|name| RealDisk.allocated(&dir.path().join(name)).unwrap()).collect()
}

#[test]
fn a_log_that_is_finished_gives_back_what_was_allocated_ahead() {
    let dir = Dir::new();
    let mut log = TxnLog::new(Arc::new(RealDisk), dir.path(), OPTIONS, Zxid(0));
    let append = |log: &mut TxnLog, zxid: i64, len| log.append(Zxid(zxid), &body(zxid, len)).unwrap();
    // Rolled after a sync and before one; cut for a leader; closed.
    append(&mut log, 1, 20);
    log.sync().unwrap();
    assert!(allocated(&dir)[0] >= 64 << 10, "it is still written on");
    log.roll();
    append(&mut log, 2, 5000);
    log.roll();
    append(&mut log, 3, 20);
    log.sync().unwrap();
    log.restart(Zxid(3));
    append(&mut log, 4, 4096 - 16 - 32 - 13);
    log.close().unwrap();
    assert_eq!(allocated(&dir), [4096, 8192, 4096, 8192], "a zero length follows the last record");
    for zxid in 1..=4 {
        let (zxids, end) = read_all(&dir.path().join(log_name(Zxid(zxid))));
        assert!(zxids == [zxid] && matches!(end, LogEnd::Clean { .. }), "{end:?}");
    }
    let (state, found) = recovered(&dir).unwrap();
    assert_eq!((state.replayed, found.notes, found.logs), (vec![1, 2, 3, 4], vec![], 4));
}

#[test]
fn a_start_gives_back_what_a_kill_left_allocated() {
    let dir = Dir::new();
    let logs = [1..=3, 4..=5, 6..=9, 10..=10]
        .map(|zxids: std::ops::RangeInclusive<i64>| dir.write_log(Arc::new(RealDisk), zxids));
    dir.write_snapshot(7);
    // A crash before the first record.
    fs::write(dir.path().join("log.b"), [&b"ZKLG\0\0\0\x02"[..], &[0; 64 << 10]].concat()).unwrap();
    // A log that is not needed, and not to be touched: it is damaged.
    let damaged = &logs[0];
    flip(damaged, 16 + 65 + 20);
    let (state, found) = recovered(&dir).unwrap();
    assert_eq!((state.replayed, found.txns, found.logs), (vec![8, 9, 10], 3, 2));
    assert!(matches!(&found.notes[..], [Note::LogSetAside { .. }]), "{:?}", found.notes);
    assert!(RealDisk.allocated(damaged).unwrap() >= 64 << 10);
    fs::remove_file(damaged).unwrap();
    assert_eq!(allocated(&dir), [4096; 4], "two that were read, one that was not, and what was set aside");
    assert_eq!(read_all(&logs[1]).0, [4, 5]);
    let (state, found) = recovered(&dir).unwrap();
    assert_eq!((state.replayed, found.notes), (vec![8, 9, 10], vec![]));
}

/// In a file that ends with its last record, a length that the disk changed would look like a write that was cut short.
#[test]
fn a_finished_log_does_not_hide_that_its_last_record_is_damaged() {
    let dir = Dir::new();
    let path = dir.write_log(Arc::new(RealDisk), 1..=3);
    recovered(&dir).unwrap();
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len(), 4096);
    let at = 16 + 2 * 65;
    for garbage in [0x01, 0x42, 0x7f, 0xff] {
        for (from, to) in [(4, 12), (4, 65), (8, 12), (0, 20)] {
            let mut bytes = whole.clone();
            bytes[at + from..at + to].fill(garbage);
            fs::write(&path, &bytes).unwrap();
            let (state, found) = recovered(&dir).unwrap();
            assert_eq!(state.replayed, [1, 2]);
            assert!(found.lost.is_some(), "{garbage:#x} from {from} to {to} was taken for a write cut short");
        }
    }
}

#[test]
fn a_log_that_is_cut_while_it_is_read_ends_there() {
    let dir = Dir::new();
    let mut log = TxnLog::new(Arc::new(RealDisk), dir.path(), OPTIONS, Zxid(0));
    log.append(Zxid(1), &body(1, 20)).unwrap();
    log.sync().unwrap();
    let mut reader = LogReader::open(&RealDisk, &dir.path().join("log.1")).unwrap();
    log.close().unwrap();
    assert_eq!(reader.next().unwrap().map(|record| record.zxid), Some(Zxid(1)));
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!(reader.end(), Some(&LogEnd::Clean { offset: 16 + 65 }));
}

#[test]
fn a_log_cut_at_every_byte_of_its_last_record_loses_that_record_alone() {
    let dir = Dir::new();
    let path = dir.write_log(Arc::new(RealDisk), 1..=5);
    forget(&dir);
    let whole = fs::read(&path).unwrap();
    let record = 12 + 52 + 1;
    let last = 16 + 4 * record;
    for cut in last..last + record {
        fs::write(&path, &whole[..cut]).unwrap();
        let (state, found) = recovered(&dir).unwrap();
        assert_eq!(state.replayed, [1, 2, 3, 4], "cut at {cut}");
        let told = found
            .notes
            .iter()
            .any(|note| matches!(note, Note::TailCut { offset, .. } if *offset == last as u64));
        assert_eq!(told, cut > last + 4, "cut at {cut}: {:?}", found.notes);
        assert_eq!(read_all(&path).1, LogEnd::Clean { offset: last as u64 });
        assert_eq!(recovered(&dir).unwrap().1.notes, [], "recovery is idempotent");
    }
}

#[test]
fn a_flip_in_any_byte_of_a_middle_record_is_damage() {
    let dir = Dir::new();
    let path = dir.write_log(Arc::new(RealDisk), 1..=5);
    let whole = fs::read(&path).unwrap();
    let at = 16 + 2 * (12 + 52 + 1);
    for place in at..at + 65 {
        for bit in [0x01, 0x80] {
            let mut bytes = whole.clone();
            bytes[place] ^= bit;
            fs::write(&path, &bytes).unwrap();
            let error =
                recovered(&dir).err().unwrap_or_else(|| panic!("flip {bit:#x} at {place} went unseen"));
            let StorageError::Damaged { file, offset, .. } = &error else { panic!("{error}") };
            assert_eq!((file, *offset), (&path, at as u64), "flip {bit:#x} at {place}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was changed");
        }
    }
}

/// Writes the frame of a record at `at`, which says that it has `length` bytes: all of them are zero, or there is an end.
fn claim(path: &std::path::Path, at: u64, length: i32) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let frame = [&0x1234_5678_u64.to_be_bytes()[..], &length.to_be_bytes(), &body(1, 20)].concat();
    file.write_all_at(&frame, at).unwrap();
}

/// A multi of two gigabytes was written with a negative length, and cut off with all that had been acknowledged later:
/// the good records were further away than anybody looked.
#[test]
fn a_record_of_any_length_before_good_ones_is_damage() {
    use std::os::unix::fs::FileExt;
    const FAR: u64 = 300 << 20;
    for length in [-2_134_854_318, -1, i32::MIN, 400 << 20] {
        let dir = Dir::new();
        let path = dir.write_log(Arc::new(RealDisk), 2..=3);
        let records = fs::read(&path).unwrap()[16..16 + 2 * 65].to_vec();
        fs::remove_file(&path).unwrap();
        // A hole in the file: it reads as zeros, and takes no time to write.
        let path = dir.path().join("log.1");
        fs::write(&path, b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0").unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(FAR + 4096).unwrap();
        claim(&path, 16, length);
        file.write_all_at(&records, FAR).unwrap();
        let error = recovered(&dir).err().unwrap_or_else(|| panic!("{length} is cut off")).to_string();
        assert!(error.contains("damaged at offset 16"), "{error}");
    }
}

#[test]
fn an_impossible_length_near_good_records_is_damage_and_a_short_one_may_be_torn() {
    // Its frame is the last of a sector.
    let at = 16 + 7 * 65;
    for (length, torn) in [(-1, false), (i32::MIN, false), (i32::MAX, false), (52, true), (33, true)] {
        let dir = Dir::new();
        let path = dir.write_log(Arc::new(RealDisk), 1..=30);
        let mut bytes = fs::read(&path).unwrap();
        bytes[512..1024].fill(0);
        bytes[at + 8..at + 12].copy_from_slice(&length.to_be_bytes());
        fs::write(&path, &bytes).unwrap();
        match (recovered(&dir), torn) {
            (Ok((state, _)), true) => assert_eq!(state.replayed, [1, 2, 3, 4, 5, 6, 7], "{length}"),
            (Err(StorageError::Damaged { offset, .. }), false) => assert_eq!(offset, at as u64, "{length}"),
            (other, _) => panic!("{length}: {:?}", other.map(|(state, _)| state.replayed)),
        }
    }
}

/// At the end of a file nothing tells that more was there; but it was no write that a crash cut short.
#[test]
fn a_negative_length_at_the_end_may_have_been_acknowledged() {
    let dir = Dir::new();
    let path = dir.write_log(Arc::new(RealDisk), 1..=2);
    claim(&path, 16 + 2 * 65, -5);
    let (state, found) = recovered(&dir).unwrap();
    assert_eq!(state.replayed, [1, 2]);
    assert_eq!(found.lost, Some(Lost::Unknown), "what it was");
}

/// What a client writes may look like the begin of a record of a gigabyte: none of it is read on that account.
#[test]
fn values_that_look_like_records_cost_nothing() {
    let dir = Dir::new();
    let like = [&[0, 0, 0, 0, 0, 0, 0, 6][..], &i32::to_be_bytes(16 << 20), &[7; 20]].concat();
    let mut log = TxnLog::new(Arc::new(RealDisk), dir.path(), OPTIONS, Zxid(0));
    let value = [body(1, 0), like.repeat(1 << 20)].concat();
    for zxid in 1..=2 {
        let mut value = value.clone();
        value[12..20].copy_from_slice(&i64::to_be_bytes(zxid));
        log.append(Zxid(zxid), &value).unwrap();
    }
    log.sync().unwrap();
    let path = dir.path().join("log.1");
    flip(&path, 16 + 40);
    let started = std::time::Instant::now();
    let error = recovered(&dir).err().expect("a good record follows").to_string();
    assert!(error.contains("offset 16"), "{error}");
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn a_transaction_whose_length_no_record_can_tell_is_refused() {
    // Its pages are never touched: all are the same zeros.
    let body = vec![0; 1 << 31];
    let dir = Dir::new();
    let mut log = TxnLog::new(Arc::new(RealDisk), dir.path(), OPTIONS, Zxid(0));
    let error = log.append(Zxid(1), &body).unwrap_err().to_string();
    assert!(error.contains("2147483648 bytes"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was begun");
    assert!(log.append(Zxid(1), &body[..32]).is_err(), "the log is over");
}

/// Found by the simulator: where no more than the zeros of a checksum's high half are before a sector's end, they were
/// taken for a sector that was never written.
#[test]
fn a_flip_in_a_record_that_begins_at_the_end_of_a_sector_is_damage() {
    let dir = Dir::new();
    let path = dir.write_log(Arc::new(RealDisk), 1..=300);
    let whole = fs::read(&path).unwrap();
    let mut seen = 0;
    for at in (0..299).map(|record| 16 + record * 65).filter(|at| at % 512 > 504) {
        let mut bytes = whole.clone();
        bytes[at + 12 + 40] ^= 0x40;
        fs::write(&path, &bytes).unwrap();
        let error = recovered(&dir).err().unwrap_or_else(|| panic!("a flip at {at} went unseen"));
        assert!(error.to_string().contains(&format!("offset {at}")), "{error}");
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn a_flip_in_the_last_record_is_a_torn_tail() {
    let dir = Dir::new();
    let path = dir.write_log(Arc::new(RealDisk), 1..=3);
    forget(&dir);
    let whole = fs::read(&path).unwrap();
    let at = 16 + 2 * 65;
    for place in at + 8..at + 65 {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x20;
        fs::write(&path, &bytes).unwrap();
        let (state, found) = recovered(&dir).unwrap();
        assert_eq!(state.replayed, [1, 2], "flip at {place}");
        let [Note::TailCut { kept_in, .. }] = &found.notes[..] else { panic!("{:?}", found.notes) };
        assert_eq!(fs::read(kept_in).unwrap(), bytes[at..at + 65], "what was cut is kept");
    }
}

/// The end of what was synced, one byte after the other, is overwritten, cut off, or gone with its file.
#[test]
fn what_was_synced_is_never_taken_for_torn() {
    let dir = Dir::new();
    let path = dir.write_log(Arc::new(RealDisk), 1..=3);
    let whole = fs::read(&path).unwrap();
    let at = 16 + 2 * 65;
    let missing = |what: &str| {
        let (state, found) = recovered(&dir).unwrap();
        let missing = found.missing.expect(what);
        assert_eq!(
            (missing.file, missing.synced, missing.last),
            (path.clone(), Zxid(3), found.last_zxid),
            "{what}"
        );
        assert_eq!(found.lost, Some(Lost::UpTo(Zxid(3))), "{what}");
        assert_eq!(state.replayed.last().copied().unwrap_or(0), found.last_zxid.0);
        missing.offset
    };
    for place in at..at + 65 {
        let mut zeroed = whole.clone();
        zeroed[place..].fill(0);
        for bytes in [&zeroed[..], &whole[..place]] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(missing("its end is gone"), at as u64);
        }
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(missing("the log is gone"), 0);
    fs::write(&path, &whole).unwrap();
    assert_eq!(recovered(&dir).unwrap().1.missing, None);
    // A snapshot has it.
    fs::remove_file(&path).unwrap();
    dir.write_snapshot(3);
    assert_eq!(recovered(&dir).unwrap().1.missing, None);
}

/// A leader's history counts as synced as soon as it is installed: nothing may have been written after it when it is damaged.
#[test]
fn what_was_installed_is_never_taken_for_torn() {
    let dir = Dir::new();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    dir.write_log(disk.clone(), 1..=4);
    let received = receive(&dir, disk.clone(), 5).unwrap();
    stage(&RealDisk, &dir.dirs(), &received, Zxid(5)).unwrap();
    let mut log = TxnLog::new(disk, dir.path(), OPTIONS, Zxid(4));
    log.restart_staged(Zxid(5));
    for zxid in 6..=8 {
        log.append(Zxid(zxid), &body(zxid, 20)).unwrap();
    }
    log.sync().unwrap();
    log.roll();
    log.forget_synced().unwrap();
    install(&RealDisk, &dir.dirs(), true).unwrap();
    log.restart_installed().unwrap();
    let path = dir.path().join("log.6");
    let mut bytes = fs::read(&path).unwrap();
    bytes[16 + 65..].fill(0);
    fs::write(&path, &bytes).unwrap();
    let (_, found) = recovered(&dir).unwrap();
    assert_eq!((found.last_zxid, found.lost), (Zxid(6), Some(Lost::UpTo(Zxid(8)))));
}

/// Power was lost, and with it perhaps a later place: what is missing may be more than this one says.
#[test]
fn how_much_is_missing_after_a_loss_of_power_is_unknown() {
    let dir = Dir::new();
    let before = FaultyDisk { boot: 7, ..FaultyDisk::whole() };
    let path = dir.write_log(Arc::new(before), 1..=3);
    for gone in [16, 16 + 65] {
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..gone]).unwrap();
        let found = |boot: u64| {
            let disk = FaultyDisk { boot, ..FaultyDisk::whole() };
            let mut lost = None;
            let mut stop = |found: &Recovered| {
                lost = found.lost;
                Err(StorageError::TooLong(0))
            };
            let _ = recover(&disk, &dir.dirs(), &mut Zxids::default(), &mut stop, &mut |_| ());
            lost
        };
        assert_eq!(found(7), Some(Lost::UpTo(Zxid(3))));
        assert_eq!(found(8), Some(Lost::Unknown));
        assert_eq!(found(0), Some(Lost::Unknown), "it can't be told");
        fs::write(&path, &whole).unwrap();
    }
}

/// Whatever a crash does to the place that was written last, the one before it is whole.
#[test]
fn how_far_the_log_was_synced_is_read_back_or_not_believed() {
    let dir = Dir::new();
    let mut log = TxnLog::new(Arc::new(RealDisk), dir.path(), OPTIONS, Zxid(0));
    for zxid in 1..=3 {
        log.append(Zxid(zxid), &body(zxid, 20)).unwrap();
        log.sync().unwrap();
    }
    let boot = RealDisk.boot();
    let synced = |last: i64| Synced { segment: Zxid(1), end: 16 + 65 * last as u64, last: Zxid(last), boot };
    let read = || read_synced(&RealDisk, &dir.path()).unwrap();
    assert_eq!(read(), Some(synced(3)));
    let path = dir.path().join("zabra.synced");
    let whole = fs::read(&path).unwrap();
    for bit in 0..44 * 8 {
        let mut bytes = whole.clone();
        // Odd numbers are in the second place.
        bytes[64 + bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read(), Some(synced(2)), "bit {bit}");
    }
    for bytes in [&b""[..], &[0; 4096], &[0xff; 4096], &whole[..20]] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(read(), None);
    }
}

/// An epoch may begin after any transaction, so zxids alone do not show that the log of a whole epoch is gone.
#[test]
fn a_missing_log_of_a_whole_epoch_is_noticed() {
    let dir = Dir::new();
    let epoch = |epoch: i64| (epoch << 32) + 1..=(epoch << 32) + 2;
    let disk = || Arc::new(RealDisk);
    dir.write_log_after(disk(), Zxid(0), epoch(1));
    let middle = dir.write_log_after(disk(), Zxid(0x1_0000_0002), epoch(2));
    let newest = dir.write_log_after(disk(), Zxid(0x2_0000_0002), epoch(3));
    assert_eq!(recovered(&dir).unwrap().0.replayed.len(), 6);
    fs::remove_file(&middle).unwrap();
    // No learner is sent what has a hole, or is asked to cut what the history has.
    let (mut cursor, place) = LogCursor::seek(disk(), &dir.dirs(), Zxid(0x1_0000_0002)).unwrap();
    assert_eq!(place, Place::Within);
    assert!(cursor.next().is_err());
    assert_eq!(LogCursor::seek(disk(), &dir.dirs(), Zxid(0x2_0000_0001)).unwrap().1, Place::Older);
    for only_header in [false, true] {
        if only_header {
            let header = fs::read(&newest).unwrap()[..16].to_vec();
            fs::write(&newest, header).unwrap();
        }
        match recovered(&dir).map(|_| ()) {
            Err(StorageError::Damaged { file, offset: 0, what: Damage::BeginsLater { after, last } }) => {
                assert_eq!((file, after, last), (newest.clone(), Zxid(0x2_0000_0002), Zxid(0x1_0000_0002)));
            }
            other => panic!("{other:?}"),
        }
    }
    dir.write_snapshot(0x2_0000_0002);
    assert_eq!(recovered(&dir).unwrap().0.from_snapshot, 0x2_0000_0002);
}

/// Found by the simulator: a server waited for ever for a transaction whose number the disk had changed.
#[test]
fn of_a_damaged_end_only_the_next_zxid_is_believed() {
    for (next, named) in [(3, true), (0x1_0000_0001, false)] {
        let dir = Dir::new();
        let mut log = TxnLog::new(Arc::new(RealDisk), dir.path(), OPTIONS, Zxid(0));
        for zxid in [1, 2, next] {
            log.append(Zxid(zxid), &body(zxid, 20)).unwrap();
        }
        log.sync().unwrap();
        forget(&dir);
        let path = dir.path().join("log.1");
        let whole = fs::read(&path).unwrap();
        let zxid = 16 + 2 * 65 + 12 + 12;
        for (place, expected) in [(zxid + 1, Lost::Unknown), (zxid + 20, Lost::UpTo(Zxid(next)))] {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x20;
            fs::write(&path, &bytes).unwrap();
            let expected = if named { expected } else { Lost::Unknown };
            assert_eq!(recovered(&dir).unwrap().1.lost, Some(expected), "{next:#x}, flip at {place}");
        }
    }
}

/// Found by the simulator: a new epoch may follow any transaction, so it hid the loss of the last one before it.
#[test]
fn a_flip_in_the_last_record_before_a_new_epoch_is_damage() {
    let dir = Dir::new();
    let path = dir.write_log(Arc::new(RealDisk), 1..=3);
    let later = dir.write_log(Arc::new(RealDisk), 0x1_0000_0001..=0x1_0000_0002);
    let whole = fs::read(&path).unwrap();
    let at = 16 + 2 * 65;
    for place in at + 8..at + 65 {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x20;
        fs::write(&path, &bytes).unwrap();
        let error = recovered(&dir).err().unwrap_or_else(|| panic!("flip at {place} starts")).to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("offset 146"), "{error}");
        let (mut cursor, place) = LogCursor::seek(Arc::new(RealDisk), &dir.dirs(), Zxid(1)).unwrap();
        assert_eq!(place, Place::Within);
        assert_eq!(cursor.next().unwrap().map(|record| record.zxid), Some(Zxid(2)));
        assert!(cursor.next().is_err(), "no learner is sent what has a hole");
    }
    // A file without a record in between settles nothing.
    let empty = dir.path().join(log_name(Zxid(4)));
    fs::write(&empty, &whole[..16]).unwrap();
    assert!(recovered(&dir).is_err());
    let (mut cursor, _) = LogCursor::seek(Arc::new(RealDisk), &dir.dirs(), Zxid(1)).unwrap();
    assert_eq!(cursor.next().unwrap().map(|record| record.zxid), Some(Zxid(2)));
    assert!(cursor.next().is_err());
    fs::remove_file(empty).unwrap();
    // A write that was cut short lost nothing, and what was written again leaves no doubt.
    let mut cut = whole.clone();
    cut.truncate(at + 32);
    fs::write(&path, &cut).unwrap();
    assert_eq!(recovered(&dir).unwrap().0.replayed, [1, 2, 0x1_0000_0001, 0x1_0000_0002]);
    fs::remove_file(later).unwrap();
    dir.write_log(Arc::new(RealDisk), 3..=4);
    let mut bytes = whole;
    bytes[at + 40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(recovered(&dir).unwrap().0.replayed, [1, 2, 3, 4]);
}

/// A torn end that a snapshot covers is cut off, and nothing is lost. But the log has a hole then, where the next epoch
/// begins, that its zxids do not show.
#[test]
fn a_hole_that_a_snapshot_covers_is_never_passed_over() {
    let dir = Dir::new();
    let log = dir.write_log(Arc::new(RealDisk), 1..=4);
    flip(&log, 16 + 3 * 65 + 40);
    let snapshot = dir.write_snapshot(4);
    let (state, found) = recovered(&dir).unwrap();
    assert_eq!((state.from_snapshot, found.last_zxid), (4, Zxid(4)));
    assert_eq!(read_all(&log).0, [1, 2, 3], "the torn end is cut off");
    dir.write_log(Arc::new(RealDisk), 0x1_0000_0001..=0x1_0000_0002);
    let seek = |zxid| LogCursor::seek(Arc::new(RealDisk), &dir.dirs(), Zxid(zxid)).unwrap();

    let (mut cursor, place) = seek(2);
    assert_eq!(place, Place::Within);
    assert_eq!(cursor.next().unwrap().map(|record| record.zxid), Some(Zxid(3)));
    assert!(cursor.next().is_err(), "a learner would be sent what has a hole");
    let (mut cursor, place) = seek(4);
    assert_eq!(place, Place::Within, "a learner would be told to cut off what is committed");
    assert_eq!(cursor.next().unwrap().map(|record| record.zxid), Some(Zxid(0x1_0000_0001)));
    assert_eq!(seek(5).1, Place::Older, "whether 4 or 5 was the last of the epoch is in no file");
    assert_eq!(seek(0x1_0000_0003).1, Place::Behind(Zxid(0x1_0000_0002)));

    // A Java server's snapshot does not tell what was the last one before.
    let of_java = dir.write_snapshot(0x1_0000_0000);
    assert_eq!(seek(4).1, Place::Older);
    fs::remove_file(of_java).unwrap();

    // Without the snapshot the log can't be trusted any more, but it proves what is missing by its name.
    flip(&snapshot, 20);
    dir.write_snapshot(0);
    let error = recovered(&dir).err().expect("it starts with a hole").to_string();
    assert!(error.contains("transaction 0x100000001 follows 0x3"), "{error}");
}

#[test]
fn a_record_that_a_kill_cut_short_was_never_acknowledged() {
    let dir = Dir::new();
    let path = dir.write_log(Arc::new(RealDisk), 1..=3);
    forget(&dir);
    let whole = fs::read(&path).unwrap();
    let at = 16 + 2 * 65;
    // Length, body and end are written in this order; the checksum last of all.
    for written in 1..65 - 8 {
        let mut bytes = whole.clone();
        bytes[at..at + 8].fill(0);
        bytes[at + 8 + written..at + 65].fill(0);
        fs::write(&path, &bytes).unwrap();
        let (state, found) = recovered(&dir).unwrap();
        assert_eq!((state.replayed, found.lost), (vec![1, 2], None), "{written} bytes");
    }
}

#[test]
fn a_gap_between_files_does_not_start() {
    let dir = Dir::new();
    dir.write_log(Arc::new(RealDisk), 1..=3);
    let after = dir.write_log(Arc::new(RealDisk), 5..=6);
    let error = recovered(&dir).err().unwrap().to_string();
    assert!(
        error.contains(&after.display().to_string()) && error.contains("begins at 0x5")
            || error.contains("0x5"),
        "{error}"
    );
    let middle = dir.write_log(Arc::new(RealDisk), 4..=4);
    assert_eq!(recovered(&dir).unwrap().0.replayed, [1, 2, 3, 4, 5, 6]);
    fs::remove_file(middle).unwrap();
    assert!(recovered(&dir).is_err());
}

#[test]
fn a_new_epoch_may_follow() {
    let dir = Dir::new();
    dir.write_log(Arc::new(RealDisk), 1..=2);
    dir.write_log(Arc::new(RealDisk), 0x1_0000_0001..=0x1_0000_0002);
    assert_eq!(recovered(&dir).unwrap().0.replayed, [1, 2, 0x1_0000_0001, 0x1_0000_0002]);
}

#[test]
fn a_log_without_its_beginning_and_without_a_snapshot_does_not_start() {
    let dir = Dir::new();
    dir.write_log(Arc::new(RealDisk), 7..=9);
    let error = recovered(&dir).err().unwrap().to_string();
    assert!(error.contains("there is no snapshot"), "{error}");
    dir.write_snapshot(6);
    assert_eq!(recovered(&dir).unwrap().0.replayed, [7, 8, 9]);
}

#[test]
fn every_flip_in_a_snapshot_is_seen_and_the_one_before_is_taken() {
    let dir = Dir::new();
    dir.write_snapshot(2);
    dir.write_log(Arc::new(RealDisk), 1..=9);
    let newest = dir.write_snapshot(6);
    assert_eq!(recovered(&dir).unwrap().0.replayed, [7, 8, 9]);
    let whole = fs::read(&newest).unwrap();
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x08;
        fs::write(&newest, &bytes).unwrap();
        let (state, found) = recovered(&dir).unwrap();
        // Version and dbid of the header are covered by the checksum alone.
        assert_eq!(state.replayed, [3, 4, 5, 6, 7, 8, 9], "flip at {place}");
        assert!(
            matches!(&found.notes[..], [Note::SnapshotSkipped { why }] if why.contains(&newest.display().to_string()))
        );
    }
    for cut in 0..whole.len() {
        // A snapshot of an older Java version ends after an earlier seal.
        if cut == whole.len() - 21 || cut == whole.len() - 54 {
            continue;
        }
        fs::write(&newest, &whole[..cut]).unwrap();
        assert_eq!(recovered(&dir).unwrap().0.from_snapshot, 2, "cut at {cut}");
    }
}

/// Java's server 3.9 with `digest.enabled=false` reads no other.
#[test]
fn a_snapshot_without_a_digest_ends_with_its_first_seal() {
    let dir = Dir::new();
    let with = fs::read(dir.write_snapshot(5)).unwrap();
    let body = &with[16..with.len() - 13 - 20 - 13 - 8 - 13];
    let mut writer =
        SnapshotWriter::create(Arc::new(RealDisk), &dir.path(), Zxid(6), Packing::Plain).unwrap();
    writer.write(body).unwrap();
    let (path, _) = writer.finish(Zxid(6), None).unwrap();
    assert_eq!(fs::read(path).unwrap(), with[..16 + body.len() + 13]);
    assert_eq!(recovered(&dir).unwrap().1.snapshot_zxid, Zxid(6));
}

#[test]
fn compressed_snapshots_are_read() {
    use std::io::Write;
    let dir = Dir::new();
    let plain = fs::read(dir.write_snapshot(5)).unwrap();
    fs::remove_file(dir.path().join("snapshot.5")).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&plain).unwrap();
    fs::write(dir.path().join("snapshot.5.gz"), gz.finish().unwrap()).unwrap();
    assert_eq!(recovered(&dir).unwrap().0.from_snapshot, 5);
    fs::remove_file(dir.path().join("snapshot.5.gz")).unwrap();

    let mut snappy = vec![0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
    for block in plain.chunks(10) {
        let packed = snap::raw::Encoder::new().compress_vec(block).unwrap();
        snappy.extend((packed.len() as u32).to_be_bytes());
        snappy.extend(packed);
    }
    fs::write(dir.path().join("snapshot.5.snappy"), &snappy).unwrap();
    assert_eq!(recovered(&dir).unwrap().0.from_snapshot, 5);
    snappy.truncate(snappy.len() - 3);
    fs::write(dir.path().join("snapshot.5.snappy"), &snappy).unwrap();
    let error = recovered(&dir).err().unwrap().to_string();
    assert!(error.contains("snapshot.5.snappy") && error.contains("compressed data"), "{error}");
}

/// Of many blocks, in pieces that end anywhere: what is read is what was written, and nothing of it may be missing.
#[test]
fn a_snapshot_is_written_compressed_as_its_name_says() {
    let body: Vec<u8> = (0..150_000_u32).flat_map(|number| (number / 7).to_be_bytes()).collect();
    for (packing, name) in [
        (Packing::Plain, "snapshot.5"),
        (Packing::Gzip, "snapshot.5.gz"),
        (Packing::Snappy, "snapshot.5.snappy"),
    ] {
        let dir = Dir::new();
        let mut writer = SnapshotWriter::create(Arc::new(RealDisk), &dir.path(), Zxid(5), packing).unwrap();
        for piece in body.chunks(7_777) {
            writer.write(piece).unwrap();
        }
        let (path, len) = writer.finish(Zxid(5), Some(Trailer::whole(7))).unwrap();
        assert_eq!(path, dir.path().join(name));
        let whole = fs::read(&path).unwrap();
        assert_eq!(len, whole.len() as u64);
        assert_eq!(packing == Packing::Plain, whole.len() > body.len(), "{packing:?}: {} bytes", whole.len());
        assert_eq!(kind_of(&RealDisk, &path).unwrap(), FileKind::Snapshot);
        let read = || {
            let mut reader = SnapshotReader::open(&RealDisk, &path)?;
            let mut found = Vec::new();
            while found.len() < body.len() {
                reader.with(&mut |window| {
                    let count = window.len().min(body.len() - found.len());
                    found.extend_from_slice(&window[..count]);
                    (count > 0).then_some(count)
                })?;
            }
            reader.finish().map(|seal| (found, seal))
        };
        let (found, seal) = read().unwrap();
        assert!(found == body, "{packing:?}");
        assert_eq!((seal.digest, seal.last_zxid), (Some((Zxid(5), 7)), Some(Zxid(5))));
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        assert!(matches!(read(), Err(StorageError::Damaged { .. })), "{packing:?}");
    }
}

#[test]
fn purging_keeps_what_the_oldest_kept_snapshot_needs() {
    let dir = Dir::new();
    for (first, last) in [(1, 3), (4, 6), (7, 9), (10, 12)] {
        dir.write_log(Arc::new(RealDisk), first..=last);
        dir.write_snapshot(last - 1);
    }
    let removed = purge(&RealDisk, &dir.dirs(), 3, &|_, _| true).unwrap();
    let mut names: Vec<_> = removed.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["log.1", "snapshot.2"]);
    assert!(purge(&RealDisk, &dir.dirs(), 3, &|_, _| true).unwrap().is_empty());
    // With one that can't be read there are not enough good ones to remove any.
    let bad = dir.path().join("snapshot.8");
    assert!(purge(&RealDisk, &dir.dirs(), 3, &|_, path| path != bad).unwrap().is_empty());
    assert_eq!(recovered(&dir).unwrap().0.replayed, [12]);
}

#[test]
fn swapped_directories_are_refused() {
    let (data, log) = (Dir::new(), Dir::new());
    data.write_snapshot(1);
    let swapped = Dirs { data: log.path(), log: data.path() };
    let error =
        recover(&RealDisk, &swapped, &mut Zxids::default(), &mut |_| Ok(()), &mut |_| ()).err().unwrap();
    assert!(error.to_string().contains("swapped"), "{error}");
}

#[test]
fn epochs_are_replaced_as_a_whole_and_garbage_is_damage() {
    let dir = Dir::new();
    assert_eq!(Epochs::read(&RealDisk, &dir.path()).unwrap(), Epochs::default());
    Epochs::write_accepted(&RealDisk, &dir.path(), Epoch(5)).unwrap();
    Epochs::write_current(&RealDisk, &dir.path(), Epoch(4)).unwrap();
    let read = Epochs::read(&RealDisk, &dir.path()).unwrap();
    let epochs = |restored| Epochs { accepted: Some(Epoch(5)), current: Some(Epoch(4)), restored };
    assert_eq!(read, epochs(None));
    assert_eq!(fs::read(dir.path().join("acceptedEpoch")).unwrap(), b"5");
    let read = || Epochs::read(&RealDisk, &dir.path());
    for bad in [&b""[..], b"4x", b"-1", &[0; 10], b"99999999999", b"1\xff"] {
        fs::write(dir.path().join("currentEpoch"), bad).unwrap();
        assert_eq!(read().unwrap(), epochs(Some("currentEpoch")));
        fs::write(dir.path().join("currentEpoch"), "4").unwrap();
        fs::write(dir.path().join("acceptedEpoch"), bad).unwrap();
        assert_eq!(read().unwrap(), epochs(Some("acceptedEpoch")));
        fs::write(dir.path().join("acceptedEpoch"), "5").unwrap();
    }
    // A Java server went on from here: the copy may be older than what is lost.
    fs::write(dir.path().join("currentEpoch"), "6").unwrap();
    fs::write(dir.path().join("acceptedEpoch"), "").unwrap();
    assert!(matches!(read(), Err(StorageError::Damaged { .. })));
    fs::write(dir.path().join("currentEpoch"), "4").unwrap();
    for bad in ["", "5", "5 00000000\n", "6 00360036\n"] {
        fs::write(dir.path().join("zabra.acceptedEpoch"), bad).unwrap();
        assert!(matches!(read(), Err(StorageError::Damaged { .. })), "{bad:?}");
    }
    fs::write(dir.path().join("currentEpoch"), "").unwrap();
    assert!(matches!(read(), Err(StorageError::Damaged { .. })), "both");
}

#[test]
fn one_server_holds_a_directory() {
    let dir = Dir::new();
    let held = DirLock::take(&dir.path()).unwrap();
    let error = DirLock::take(&dir.path()).unwrap_err().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    drop(held);
    DirLock::take(&dir.path()).unwrap();
}

/// The real disk, but for what is made to go wrong.
struct FaultyDisk {
    /// Bytes that may still be allocated.
    room: AtomicU64,
    /// Syncs until one fails.
    syncs_left: Arc<AtomicU64>,
    /// Renames and removes until all fail.
    changes_left: AtomicU64,
    /// No block is left, not even for what is written to those that are allocated: a write is cut short, and a sync fails.
    is_full: Arc<AtomicBool>,
    boot: u64,
}

impl FaultyDisk {
    fn new(room: u64, syncs: u64) -> Arc<Self> {
        let (room, syncs_left) = (AtomicU64::new(room), Arc::new(AtomicU64::new(syncs)));
        Arc::new(Self { room, syncs_left, ..Self::whole() })
    }

    /// Nothing is wrong with it.
    fn whole() -> Self {
        let much = || AtomicU64::new(u64::MAX);
        let (syncs_left, is_full) = (Arc::new(much()), Arc::default());
        Self { room: much(), syncs_left, changes_left: much(), is_full, boot: 1 }
    }

    /// A process that ends after this many changes of names.
    fn ending_after(changes: u64) -> Arc<Self> {
        let disk = Self::new(u64::MAX, u64::MAX);
        disk.changes_left.store(changes, Ordering::Relaxed);
        disk
    }

    fn change(&self) -> io::Result<()> {
        let left = self.changes_left.load(Ordering::Relaxed).checked_sub(1);
        let left = left.ok_or_else(|| io::Error::other("the process has ended"))?;
        self.changes_left.store(left, Ordering::Relaxed);
        Ok(())
    }
}

struct FaultySegment {
    inner: Box<dyn SegmentFile>,
    syncs_left: Arc<AtomicU64>,
    is_full: Arc<AtomicBool>,
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

impl SegmentFile for FaultySegment {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn grow(&mut self, _: u64) -> io::Result<()> {
        Err(no_space())
    }
    fn write(&mut self, offset: u64, first: &[u8], rest: &[&[u8]]) -> io::Result<()> {
        if self.is_full.load(Ordering::Relaxed) {
            self.inner.write(offset, &vec![0xee; first.len()], rest)?;
            return Err(no_space());
        }
        self.inner.write(offset, first, rest)
    }
    fn sync(&mut self) -> io::Result<()> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(no_space());
        }
        match self.syncs_left.load(Ordering::Relaxed) {
            0 => Err(io::Error::from_raw_os_error(libc::EIO)),
            left => {
                self.syncs_left.store(left - 1, Ordering::Relaxed);
                self.inner.sync()
            }
        }
    }
    fn cut(self: Box<Self>, len: u64) -> io::Result<()> {
        self.inner.cut(len)
    }
}

impl Disk for FaultyDisk {
    fn boot(&self) -> u64 {
        self.boot
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        RealDisk.list(dir)
    }
    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list_dirs(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(dir)
    }
    fn open(&self, file: &Path) -> io::Result<Box<dyn ReadFile>> {
        RealDisk.open(file)
    }
    fn create(&self, file: &Path) -> io::Result<Box<dyn WriteFile>> {
        RealDisk.create(file)
    }
    fn segment(&self, file: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        if len > self.room.load(Ordering::Relaxed) {
            return Err(no_space());
        }
        let inner = RealDisk.segment(file, len)?;
        let (syncs_left, is_full) = (self.syncs_left.clone(), self.is_full.clone());
        Ok(Box::new(FaultySegment { inner, syncs_left, is_full }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, file: &Path) -> io::Result<()> {
        self.change()?;
        RealDisk.remove(file)
    }
    fn truncate(&self, file: &Path, len: u64) -> io::Result<()> {
        RealDisk.truncate(file, len)
    }
    fn allocated(&self, file: &Path) -> io::Result<u64> {
        RealDisk.allocated(file)
    }
    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { free: self.room.load(Ordering::Relaxed), size: 1 << 40 })
    }
    fn sync_file(&self, file: &Path) -> io::Result<()> {
        RealDisk.sync_file(file)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

/// Found by the ensemble of real processes: purging began while a log was cut, and the server stopped.
#[test]
fn a_file_that_goes_while_its_directory_is_listed_is_none() {
    let dir = Dir::new();
    fs::write(dir.path().join("log.1"), b"").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for number in 0..20 {
                    fs::write(dir.path().join(format!("tmp.{number}")), b"").unwrap();
                }
                for number in 0..20 {
                    fs::remove_file(dir.path().join(format!("tmp.{number}"))).unwrap();
                }
            }
        });
        let listed: io::Result<Vec<_>> = (0..5000).map(|_| RealDisk.list(&dir.path())).collect();
        stop.store(true, Ordering::Relaxed);
        let own = ("log.1".to_owned(), 0);
        assert!(listed.unwrap().iter().all(|names| names.contains(&own)));
    });
}

#[test]
fn after_a_failed_sync_nothing_is_tried_again() {
    let dir = Dir::new();
    let mut log = TxnLog::new(FaultyDisk::new(1 << 30, 2), dir.path(), OPTIONS, Zxid(0));
    log.append(Zxid(1), &body(1, 10)).unwrap();
    log.sync().unwrap();
    log.append(Zxid(2), &body(2, 10)).unwrap();
    assert!(log.sync().unwrap_err().to_string().contains("log.1"));
    assert!(log.sync().unwrap_err().to_string().contains("failed before"));
    assert!(log.append(Zxid(3), &body(3, 10)).is_err());
}

#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let dir = Dir::new();
    let mut log = TxnLog::new(FaultyDisk::new(1000, 9), dir.path(), OPTIONS, Zxid(0));
    let error = log.append(Zxid(1), &body(1, 10)).unwrap_err().to_string();
    assert!(error.contains("log.1") && error.contains("No space left"), "{error}");
    assert!(!dir.path().join("log.1").exists());
    // Less room than a whole step, but enough for the record: it is used.
    let options = LogOptions { prealloc_bytes: 1 << 30, ..OPTIONS };
    let mut log = TxnLog::new(FaultyDisk::new(200_000, 9), dir.path(), options, Zxid(0));
    log.append(Zxid(1), &body(1, 10)).unwrap();
    log.sync().unwrap();
    let error =
        (2..9999).find_map(|zxid| log.append(Zxid(zxid), &body(zxid, 1000)).err()).unwrap().to_string();
    assert!(error.contains("log.1") && error.contains("No space left"), "{error}");
}

/// What was synced before stays, what was not is appended again, and then all is there once.
#[test]
fn what_a_full_disk_did_not_take_is_appended_again() {
    for first in [1, 2] {
        for fails_at_sync in [false, true] {
            let dir = Dir::new();
            let disk = FaultyDisk::new(1 << 30, u64::MAX);
            let mut log = TxnLog::new(disk.clone(), dir.path(), OPTIONS, Zxid(0));
            for zxid in 1..first {
                log.append(Zxid(zxid), &body(zxid, 10)).unwrap();
                log.sync().unwrap();
            }
            for _ in 0..3 {
                disk.is_full.store(!fails_at_sync, Ordering::Relaxed);
                let appended = log.append(Zxid(first), &body(first, 10));
                disk.is_full.store(true, Ordering::Relaxed);
                let error = if fails_at_sync { log.sync() } else { appended }.unwrap_err();
                assert!(error.is_full(), "{error}");
                assert_eq!(log.last_zxid(), Zxid(first - 1));
            }
            disk.is_full.store(false, Ordering::Relaxed);
            for zxid in first..=3 {
                log.append(Zxid(zxid), &body(zxid, 10)).unwrap();
            }
            log.sync().unwrap();
            drop(log);
            let (found, _) = recovered(&dir).unwrap();
            assert_eq!(found.replayed, [1, 2, 3], "{first} {fails_at_sync}");
        }
    }
}

#[test]
fn a_log_says_that_room_is_low_before_it_is_out() {
    let dir = Dir::new();
    let disk = FaultyDisk::new(1 << 30, u64::MAX);
    let options = LogOptions { prealloc_bytes: 100_000, ..OPTIONS };
    let mut log = TxnLog::new(disk.clone(), dir.path(), options, Zxid(0));
    assert_eq!(log.look_for_room(), Room::Enough);
    let mut zxid = 0;
    // Its segments do not grow.
    while log.room() == Room::Enough {
        zxid += 1;
        log.append(Zxid(zxid), &body(zxid, 1000)).unwrap();
        log.sync().unwrap();
    }
    for at in 1..20 {
        log.append(Zxid(zxid + at), &body(zxid + at, 1000)).unwrap();
    }
    log.sync().unwrap();
    assert_eq!(log.look_for_room(), Room::Low);
    log.roll();
    assert_eq!(log.look_for_room(), Room::Enough, "the next one has room");
    disk.room.store(log.reserve() - 1, Ordering::Relaxed);
    assert_eq!(log.look_for_room(), Room::Low, "of others' files, it is full too");
    disk.room.store(log.reserve() + 1, Ordering::Relaxed);
    assert_eq!(log.look_for_room(), Room::Low, "it does not go to and fro");
    disk.room.store(2 * log.reserve(), Ordering::Relaxed);
    assert_eq!(log.look_for_room(), Room::Enough);
}

/// A leader's snapshot comes.
fn receive(dir: &Dir, disk: Arc<dyn Disk>, zxid: i64) -> Result<PathBuf, StorageError> {
    let received = dir.path().join(received_name(LinkId(1), Zxid(zxid)));
    let mut writer = SnapshotWriter::create_received(disk, received.clone())?;
    writer.write(&zxid.to_be_bytes())?;
    writer.write(b"\0\0\0\x01/")?;
    writer.finish(Zxid(zxid), None)?;
    Ok(received)
}

/// A leader's history, snapshot and log, comes and is installed. The old one reaches further than the snapshot.
fn take_history(dir: &Dir, disk: Arc<FaultyDisk>) -> Result<(), StorageError> {
    let received = receive(dir, disk.clone(), 2)?;
    stage(&*disk, &dir.dirs(), &received, Zxid(2))?;
    let mut log = TxnLog::new(disk.clone(), dir.path(), OPTIONS, Zxid(5));
    log.restart_staged(Zxid(2));
    for zxid in 3..=9 {
        log.append(Zxid(zxid), &body(zxid, 20))?;
        if zxid == 6 {
            log.roll();
        }
    }
    log.sync()?;
    log.restart(Zxid(9));
    log.forget_synced()?;
    install(&*disk, &dir.dirs(), true).map(drop)
}

/// The leader may lose its disk before its log is through: what this server had must not be gone by then. So, wherever a
/// process ends, and the next one again, the old history is there or the new one, whole.
#[test]
fn a_leaders_history_takes_the_place_of_the_old_one_as_a_whole() {
    let mut ends = Vec::new();
    for (first, second) in (0..20).flat_map(|first| (0..20).map(move |second| (first, second))) {
        let dir = Dir::new();
        dir.write_log(Arc::new(RealDisk), 1..=4);
        dir.write_log(Arc::new(RealDisk), 5..=5);
        dir.write_snapshot(0);
        dir.write_snapshot(3);
        let done = take_history(&dir, FaultyDisk::ending_after(first)).is_ok();
        let disk = FaultyDisk::ending_after(second);
        let _ = recover(&*disk, &dir.dirs(), &mut Zxids::default(), &mut |_| Ok(()), &mut |_| ());
        let (state, found) = recovered(&dir).unwrap();
        let at = format!("first {first}, second {second}");
        match found.last_zxid.0 {
            5 => assert_eq!((state.from_snapshot, state.replayed, done), (3, vec![4, 5], false), "{at}"),
            9 => assert_eq!((state.from_snapshot, state.replayed), (2, (3..=9).collect()), "{at}"),
            other => panic!("{at}: a history that ends at {other}"),
        }
        let left = RealDisk.list(&dir.path()).unwrap();
        let own =
            |name: &str| name.starts_with("log.") || name.starts_with("snapshot.") || name == "zabra.synced";
        assert!(left.iter().all(|(name, _)| own(name)), "{at}: {left:?}");
        ends.push((found.last_zxid.0, done));
    }
    for end in [(5, false), (9, false), (9, true)] {
        assert!(ends.contains(&end), "{end:?} was never seen");
    }
}

fn flip(path: &std::path::Path, place: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[place] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_snapshot_without_a_log_does_not_start() {
    let dir = Dir::new();
    flip(&dir.write_snapshot(9), 18);
    let result = recovered(&dir).map(|(_, found)| (found.last_zxid, found.snapshot));
    assert!(result.is_err(), "started with {result:?}");
}

#[test]
fn falling_back_never_ends_before_the_damaged_snapshot() {
    let dir = Dir::new();
    dir.write_snapshot(0);
    dir.write_log(Arc::new(RealDisk), 1..=4);
    flip(&dir.write_snapshot(9), 18);
    let result = recovered(&dir).map(|(_, found)| (found.last_zxid, found.snapshot));
    assert!(result.is_err(), "started with {result:?}");
}

#[test]
fn a_log_without_records_may_not_prove_lost_history() {
    let dir = Dir::new();
    fs::write(dir.path().join("log.500000001"), [0; 4096]).unwrap();
    let result = recovered(&dir).map(|(_, found)| (found.last_zxid, found.snapshot));
    assert!(result.is_err(), "started with {result:?}");
}

#[test]
fn a_foreign_file_named_like_a_log_is_damage() {
    let dir = Dir::new();
    dir.write_snapshot(0);
    fs::write(dir.path().join("log.1"), b"something else entirely, not a log").unwrap();
    let result = recovered(&dir).map(|(_, found)| (found.last_zxid, found.notes));
    assert!(result.is_err(), "started with {result:?}");
}

#[test]
fn zxids_that_go_back_are_damage() {
    let dir = Dir::new();
    dir.write_snapshot(0);
    dir.write_log(Arc::new(RealDisk), 1..=8);
    let later = dir.write_log(Arc::new(RealDisk), 4..=6);
    fs::rename(later, dir.path().join("log.9")).unwrap();
    let result = recovered(&dir).map(|(_, found)| (found.last_zxid, found.notes));
    assert!(result.is_err(), "started with {result:?}");
}

#[test]
fn what_was_cut_is_never_overwritten() {
    let dir = Dir::new();
    dir.write_snapshot(0);
    for content in [&b"ZKLG\0\0"[..], b"ZKL"] {
        fs::write(dir.path().join("log.1"), content).unwrap();
        recovered(&dir).unwrap();
    }
    let kept: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .filter(|n| n.to_string_lossy().starts_with("torn"))
        .collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn records_of_any_size_come_back(
        sizes in prop::collection::vec(prop_oneof![0..200_usize, 3900..4300_usize, 60_000..70_000_usize], 1..30),
        prealloc in prop_oneof![Just(0_u64), Just(4096), Just(65_536)],
        rolls in prop::collection::vec(any::<bool>(), 30),
    ) {
        let dir = Dir::new();
        let options = LogOptions { prealloc_bytes: prealloc, force_sync: true };
        let mut log = TxnLog::new(Arc::new(RealDisk), dir.path(), options, Zxid(0));
        for (at, size) in sizes.iter().enumerate() {
            let zxid = at as i64 + 1;
            log.append(Zxid(zxid), &body(zxid, *size)).unwrap();
            if rolls[at] {
                log.roll();
            }
            log.sync().unwrap();
        }
        let (state, found) = recovered(&dir).unwrap();
        prop_assert_eq!(state.replayed, (1..=sizes.len() as i64).collect::<Vec<_>>());
        prop_assert_eq!(found.notes, []);
    }

    #[test]
    fn no_bytes_make_the_log_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), header in any::<bool>()) {
        let dir = Dir::new();
        let path = dir.path().join("log.1");
        let mut content = if header { b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0".to_vec() } else { Vec::new() };
        content.extend(bytes);
        fs::write(&path, content).unwrap();
        let mut log = LogReader::open(&RealDisk, &path).unwrap();
        while let Ok(Some(_)) = log.next() {}
    }
}

/// Seen on real processes: empty servers led, and the only history went with TRUNC and SNAP.
#[test]
fn what_a_leaders_history_takes_the_place_of_is_kept_with_the_way_back() {
    let dir = Dir::new();
    dir.write_log(Arc::new(RealDisk), 1..=4);
    dir.write_log(Arc::new(RealDisk), 5..=9);
    dir.write_snapshot(0);
    dir.write_snapshot(7);
    let names = |dir: &PathBuf| {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    // Cut within the older log: the newer files go as they are, the older log's end goes into a log of its own.
    let Cut::Done(Some(kept)) = truncate(&RealDisk, &dir.dirs(), Zxid(3), Zxid(9)).unwrap() else {
        panic!("it was cut")
    };
    assert_eq!((kept.files, kept.last), (3, Zxid(9)));
    assert_eq!(names(&kept.dirs[0]), ["README", "log.4", "log.5", "snapshot.7"]);
    assert_eq!(recovered(&dir).unwrap().0.replayed, [1, 2, 3]);
    let page = fs::read_to_string(kept.dirs[0].join("README")).unwrap();
    assert!(page.contains("0x3") && page.contains("0x9"), "{page}");
    assert_eq!(
        truncate(&RealDisk, &dir.dirs(), Zxid(3), Zxid(3)).unwrap(),
        Cut::Done(None),
        "nothing is behind it any more"
    );
    // The way back that the page tells.
    for name in ["log.4", "log.5", "snapshot.7"] {
        fs::rename(kept.dirs[0].join(name), dir.path().join(name)).unwrap();
    }
    assert_eq!(recovered(&dir).unwrap().0.replayed, [8, 9]);
    // A whole history goes into the next directory.
    let whole = wipe(&RealDisk, &dir.dirs()).unwrap().unwrap();
    assert!(whole.dirs[0].ends_with("kept.2"), "{whole:?}");
    assert_eq!(names(&whole.dirs[0]), ["README", "log.1", "log.4", "log.5", "snapshot.0", "snapshot.7"]);
    assert_eq!(wipe(&RealDisk, &dir.dirs()).unwrap(), None, "there is nothing to keep");
    // As many stay as an operator wants snapshots to stay.
    let gone = purge(&RealDisk, &dir.dirs(), 1, &|_, _| true).unwrap();
    assert_eq!(gone, kept.dirs);
    assert!(whole.dirs[0].exists());
}
