//! Reads a transaction log and tells how it ends: cleanly, torn by a crash, or damaged before good records.

use super::record::{
    END_OF_RECORD, FINISHED_PADDING, FRAME_BYTES, FRAME_LEN, HEADER_LEN, MAX_UNSYNCED, MIN_BODY, after_of,
    type_of, zxid_of,
};
use super::{BadRecord, Damage, Disk, ReadFile, StorageError, len_of};
use crate::model::Zxid;
use bytes::Bytes;
use std::path::{Path, PathBuf};

const CHUNK: usize = 1 << 20;
static ZEROS_OF_A_CHUNK: [u8; CHUNK] = [0; CHUNK];
/// What the disk writes as a whole.
const SECTOR: u64 = 512;
const VALID_HEADER: [u8; 8] = *b"ZKLG\0\0\0\x02";
/// A checksum has 32 bits in a field of 64: what a record begins with is zero, written or not.
const ZEROS: u64 = 4;

/// A transaction of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where its frame begins in the file, in bytes.
    pub offset: u64,
    /// Adler-32 of the body.
    pub checksum: u32,
    /// Its zxid, as the body has it.
    pub zxid: Zxid,
    /// Header, record, digest.
    pub body: Bytes,
}

/// How a log file ends. Known once [`LogReader::next`] returned `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEnd {
    /// Nothing but padding after the last record.
    Clean {
        /// Where the padding begins.
        offset: u64,
    },
    /// A write that a crash cut short: bytes that are no record, with none after them but those of the same write.
    Torn {
        /// Where the bytes begin that are no record.
        offset: u64,
        /// What is wrong with them.
        what: BadRecord,
        /// What may have stood there.
        lost: Lost,
    },
    /// Bytes that are no record, with a good record after them at `good`.
    Damaged {
        /// Where the bytes begin that are no record.
        offset: u64,
        /// What is wrong with them.
        what: BadRecord,
        /// Where the next good record begins.
        good: u64,
    },
}

/// What a torn end may have held that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Nothing: a part of it was never written, as the zeros of the allocated file show, so its sync never came back.
    Nothing,
    /// It is all there, and wrong: the disk changed it, or the write was cut within a sector. It names this zxid.
    UpTo(Zxid),
    /// The same, and it names nothing that could follow.
    Unknown,
}

/// A suspicious end of a log file: the disk may have changed it. It is accepted only if the next file begins with exactly
/// the transaction that is missing here. A new epoch may begin after any transaction, so it does not prove that none was lost.
#[derive(Debug)]
pub(super) struct Doubt {
    damage: StorageError,
    /// None if nothing comes before it: then nothing proves that this was the end.
    missing: Option<Zxid>,
}

impl Doubt {
    /// `next`: the first transaction after the file, if there is one.
    pub(super) fn settle(doubt: &mut Option<Self>, next: Zxid) -> Result<(), StorageError> {
        match doubt.take() {
            Some(Self { damage, missing }) if Some(next) != missing => Err(damage),
            _ => Ok(()),
        }
    }
}

/// Reads the records of one log file in order.
pub struct LogReader {
    file: Box<dyn ReadFile>,
    path: PathBuf,
    len: u64,
    buf: Vec<u8>,
    buf_at: u64,
    position: u64,
    after: Zxid,
    /// The largest one so far.
    last_zxid: Option<Zxid>,
    end: Option<LogEnd>,
    reading: Reading,
}

/// What the file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Its history: nobody writes it any more.
    Finished,
    /// It is still being written: what is no record yet is its end.
    Growing,
    /// What is left of it: a wrong header is one bad place more.
    Inspected,
}

impl LogReader {
    /// For a finished log, or one that a crash has left.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, StorageError> {
        let file = disk.open(path).map_err(StorageError::io("open", path))?;
        let len = file.len();
        let path = path.to_path_buf();
        let (buf, buf_at, position) = (Vec::new(), 0, 0);
        let (after, last_zxid, end) = (Zxid::ZERO, None, None);
        let reading = Reading::Finished;
        Ok(Self { file, path, len, buf, buf_at, position, after, last_zxid, end, reading })
    }

    /// For a log that may still be written: it ends where the next record is not there as a whole.
    pub fn open_growing(disk: &dyn Disk, path: &Path) -> Result<Self, StorageError> {
        Ok(Self { reading: Reading::Growing, ..Self::open(disk, path)? })
    }

    /// For a log that may be damaged everywhere: a wrong header is a bad place, and no error.
    pub fn open_inspected(disk: &dyn Disk, path: &Path) -> Result<Self, StorageError> {
        Ok(Self { reading: Reading::Inspected, ..Self::open(disk, path)? })
    }

    /// Looks at the file again, for what was written since it ended.
    pub fn look_again(&mut self, disk: &dyn Disk) -> Result<(), StorageError> {
        self.file = disk.open(&self.path).map_err(StorageError::io("open", &self.path))?;
        self.len = self.file.len();
        self.buf.clear();
        self.end = None;
        Ok(())
    }

    /// Goes on after a bad place, at the next good record, and returns where that is. None: there is none.
    pub fn resume(&mut self) -> Result<Option<u64>, StorageError> {
        let offset = match self.end {
            Some(LogEnd::Torn { offset, .. } | LogEnd::Damaged { offset, .. }) => offset,
            Some(LogEnd::Clean { .. }) | None => return Ok(None),
        };
        let last = self.last_byte()?;
        let good = self.good_record_behind(offset, last)?;
        if let Some(good) = good {
            self.resume_at(good);
        }
        Ok(good)
    }

    /// The same where it is known.
    pub(super) fn resume_at(&mut self, good: u64) {
        (self.position, self.end) = (good, None);
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next record begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The last transaction before this log, once its header is read; zero where that does not say.
    pub(super) fn after(&self) -> Zxid {
        self.after
    }

    /// Whether a transaction after `last` came before this log: an epoch may begin after any transaction, so zxids alone do not
    /// tell. The counter of no transaction is 0: that is where an epoch was opened.
    pub(super) fn begins_after_more_than(&self, last: Zxid) -> bool {
        self.after > last && self.after.counter() != 0
    }

    /// Whether this end leaves a doubt, where `last` is the last transaction up to here and another file follows.
    pub(super) fn doubt(&self, last: Option<Zxid>) -> Option<Doubt> {
        match &self.end {
            Some(LogEnd::Torn { offset, what, lost }) if *lost != Lost::Nothing => {
                let damage = StorageError::damaged(&self.path, *offset, Damage::BeforeLog(what.clone()));
                Some(Doubt { damage, missing: last.map(|last| Zxid(last.0.saturating_add(1))) })
            }
            _ => None,
        }
    }

    /// Bytes that the file had when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it had none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether more is padding than a finished file has, by what is at its end.
    pub(super) fn looks_padded(&mut self) -> Result<bool, StorageError> {
        let tail = self.bytes(self.len.saturating_sub(FINISHED_PADDING), FINISHED_PADDING)?;
        Ok(tail.len() as u64 == FINISHED_PADDING && tail.iter().all(|byte| *byte == 0))
    }

    /// How the file ends, once all its records were read.
    pub fn end(&self) -> Option<&LogEnd> {
        self.end.as_ref()
    }

    /// The next good record. Named as iterators do, but it can fail.
    #[allow(clippy::should_implement_trait, reason = "it can fail")]
    pub fn next(&mut self) -> Result<Option<LogRecord>, StorageError> {
        if self.end.is_some() {
            return Ok(None);
        }
        if self.position == 0 {
            let head = self.bytes(0, HEADER_LEN)?;
            if let Some(after) = after_of(head) {
                self.after = after;
            } else {
                // A crash leaves a part of the header, or zeros; anything else is no log.
                let begins = head.iter().zip(VALID_HEADER).all(|(byte, valid)| *byte == valid);
                let cut = begins || head.iter().all(|byte| *byte == 0);
                if !cut && self.reading != Reading::Inspected {
                    return Err(StorageError::damaged(&self.path, 0, BadRecord::NoHeader));
                }
                return self.bad(BadRecord::NoHeader);
            }
            self.position = HEADER_LEN;
        }
        let at = self.position;
        let head = self.bytes(at, FRAME_LEN)?;
        if head.iter().all(|byte| *byte == 0) {
            return self.padding();
        }
        let Some(head) = head.first_chunk::<FRAME_BYTES>().copied() else {
            return self.bad(BadRecord::FrameCut);
        };
        match self.record_at(at, &head)? {
            Ok(record) => {
                self.last_zxid = self.last_zxid.max(Some(record.zxid));
                self.position = at + FRAME_LEN + record.body.len() as u64 + 1;
                Ok(Some(record))
            }
            Err(what) => self.bad(what),
        }
    }

    /// What is bad from here on was seen: it counts as the end.
    pub(super) fn end_at(&mut self, offset: u64) {
        self.end = Some(LogEnd::Clean { offset });
    }

    /// The record at `at`, or why there is none.
    fn record_at(
        &mut self,
        at: u64,
        head: &[u8; FRAME_BYTES],
    ) -> Result<Result<LogRecord, BadRecord>, StorageError> {
        let stated = u64::from_be_bytes(head[..8].try_into().expect("8 bytes"));
        let length = i32::from_be_bytes(head[8..].try_into().expect("4 bytes"));
        let left = self.len.saturating_sub(at + FRAME_LEN);
        let wanted = u64::try_from(length).unwrap_or(u64::MAX);
        if !(MIN_BODY..=left.saturating_sub(1)).contains(&wanted) {
            return Ok(Err(BadRecord::Length { length, left }));
        }
        let bytes = self.bytes(at + FRAME_LEN, wanted + 1)?;
        let Some((last, body)) = bytes.split_last() else { return Ok(Err(BadRecord::Cut)) };
        if body.len() as u64 != wanted {
            return Ok(Err(BadRecord::Cut));
        }
        if *last != END_OF_RECORD {
            return Ok(Err(BadRecord::End(*last)));
        }
        let actual = simd_adler32::adler32(&body);
        if stated != u64::from(actual) {
            return Ok(Err(BadRecord::Checksum { actual, stated }));
        }
        let body = Bytes::copy_from_slice(body);
        let zxid = zxid_of(&body).expect("a body holds a header");
        Ok(Ok(LogRecord { offset: at, checksum: actual, zxid, body }))
    }

    /// Zeros from here on are the padding of a clean end; anything else among them is not.
    fn padding(&mut self) -> Result<Option<LogRecord>, StorageError> {
        let start = self.position;
        if self.reading == Reading::Growing {
            self.end = Some(LogEnd::Clean { offset: start });
            return Ok(None);
        }
        let mut at = start;
        while at < self.len {
            let chunk = self.bytes(at, CHUNK as u64)?;
            let len = chunk.len() as u64;
            if len == 0 {
                // It was cut to its records meanwhile.
                break;
            }
            if chunk.iter().any(|byte| *byte != 0) {
                return self.bad(BadRecord::AfterPadding);
            }
            at += len;
        }
        self.end = Some(LogEnd::Clean { offset: start });
        Ok(None)
    }

    fn bad(&mut self, what: BadRecord) -> Result<Option<LogRecord>, StorageError> {
        let offset = self.position;
        if self.reading == Reading::Growing {
            self.end = Some(LogEnd::Clean { offset });
            return Ok(None);
        }
        let last = self.last_byte()?;
        let good = self.good_record_behind(offset, last)?;
        if good.is_some()
            && let Some(record) = self.second_look(offset)?
        {
            return Ok(Some(record));
        }
        let unwritten = self.is_unwritten(offset, good.unwrap_or(self.len), last)?;
        self.end = Some(match good {
            // The sectors of one write reach the disk in any order.
            Some(_) if unwritten && last - offset <= MAX_UNSYNCED => {
                LogEnd::Torn { offset, what, lost: Lost::Nothing }
            }
            Some(good) => LogEnd::Damaged { offset, what, good },
            None if unwritten => LogEnd::Torn { offset, what, lost: Lost::Nothing },
            None => LogEnd::Torn { offset, what, lost: self.named_at(offset)? },
        });
        Ok(None)
    }

    /// A server that runs writes one record after the other: where a later one is good, this one may be by now.
    fn second_look(&mut self, offset: u64) -> Result<Option<LogRecord>, StorageError> {
        self.buf.clear();
        let Some(head) = self.bytes(offset, FRAME_LEN)?.first_chunk::<FRAME_BYTES>().copied() else {
            return Ok(None);
        };
        let record = if offset < HEADER_LEN { None } else { self.record_at(offset, &head)?.ok() };
        if let Some(record) = &record {
            self.last_zxid = self.last_zxid.max(Some(record.zxid));
            self.position = offset + FRAME_LEN + record.body.len() as u64 + 1;
        }
        Ok(record)
    }

    /// Whether a sector of the record that should be here, before `stop`, is still as it was allocated, from the
    /// record's begin on; or the record was never finished. Behind `last` all is zero.
    fn is_unwritten(&mut self, offset: u64, stop: u64, last: u64) -> Result<bool, StorageError> {
        let head = self.bytes(offset, FRAME_LEN)?;
        let Some(len) = head.get(8..12) else { return Ok(true) };
        // The checksum is written last, and no record's is zero.
        if head[..8] == [0; 8] {
            return Ok(true);
        }
        // What was not written reads as zeros, so it makes a length smaller, never negative. An older server could write
        // such a length, and acknowledged it.
        let Ok(claimed) = u32::try_from(i32::from_be_bytes(len.try_into().expect("4 bytes"))) else {
            return Ok(false);
        };
        if self.has_wrong_length(offset, stop.min(last))? {
            return Ok(false);
        }
        let end = offset + FRAME_LEN + u64::from(claimed).max(MIN_BODY) + 1;
        // The file grows before a record is begun, and others follow it here: it was never that long.
        if end > self.len && stop < self.len {
            return Ok(false);
        }
        let mut at = offset + ZEROS;
        if end > self.len && stop == self.len {
            // A file that was not allocated ahead ends where its writing ended. Otherwise this is no length, and the
            // place itself has to tell.
            let is_cut = last == self.len;
            return Ok(is_cut || self.bytes(at, SECTOR - at % SECTOR)?.iter().all(|byte| *byte == 0));
        }
        let end = end.min(stop);
        while at < end {
            let next = ((at / SECTOR + 1) * SECTOR).min(stop);
            if self.bytes(at, next - at)?.iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
            at = next;
        }
        Ok(false)
    }

    /// Whether the record that should be here, before `stop`, is all there, but for its length.
    fn has_wrong_length(&mut self, offset: u64, stop: u64) -> Result<bool, StorageError> {
        let Some(checksum) = self.bytes(offset, 8)?.first_chunk().map(|sum| u64::from_be_bytes(*sum)) else {
            return Ok(false);
        };
        // Adler-32, looked at after every byte.
        let (mut a, mut b) = (1, 0);
        let start = offset + FRAME_LEN;
        let mut at = start;
        while at < stop {
            let chunk = self.bytes(at, (CHUNK as u64).min(stop - at))?;
            if chunk.is_empty() {
                break;
            }
            for byte in chunk {
                if *byte == END_OF_RECORD && at - start >= MIN_BODY && checksum == (b << 16 | a) {
                    return Ok(true);
                }
                a = (a + u64::from(*byte)) % 65521;
                b = (b + a) % 65521;
                at += 1;
            }
        }
        Ok(false)
    }

    /// Behind the last byte that is not zero.
    pub(super) fn last_byte(&mut self) -> Result<u64, StorageError> {
        let mut end = self.len;
        while end > 0 {
            let start = end.saturating_sub(CHUNK as u64);
            let chunk = self.bytes(start, end - start)?;
            if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
                return Ok(start + last as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }

    /// The zxid in the header of a record that is wrong elsewhere. Only the next one of the epoch can be believed: another
    /// that might follow, the first of a later epoch, may be what is wrong.
    fn named_at(&mut self, offset: u64) -> Result<Lost, StorageError> {
        let next = self.last_zxid.and_then(|last| last.0.checked_add(1)).map(Zxid);
        let head = self.bytes(offset + FRAME_LEN, MIN_BODY)?;
        Ok(match zxid_of(head) {
            Some(zxid) if Some(zxid) == next => Lost::UpTo(zxid),
            Some(_) | None => Lost::Unknown,
        })
    }

    /// The first place after `offset` that has a whole record with a right checksum. What is bad may have been a
    /// record of any length: only `last`, after which all is zero, ends the search.
    fn good_record_behind(&mut self, offset: u64, last: u64) -> Result<Option<u64>, StorageError> {
        let mut at = offset + 1;
        while at + FRAME_LEN + MIN_BODY < last {
            let chunk = self.bytes(at, CHUNK as u64)?.to_vec();
            if chunk.len() < FRAME_BYTES {
                break;
            }
            if chunk == ZEROS_OF_A_CHUNK[..chunk.len()] {
                at += chunk.len() as u64 - FRAME_LEN + 1;
                continue;
            }
            for start in 0..=chunk.len() - FRAME_BYTES {
                let head: &[u8; FRAME_BYTES] =
                    chunk[start..][..FRAME_BYTES].try_into().expect("a frame's length");
                // The four high bytes of the checksum are zero, and some low one is not.
                if head[..4] != [0; 4] || head[4..8] == [0; 4] || head[8..] == [0; 4] {
                    continue;
                }
                let place = at + start as u64;
                if self.may_begin_at(place, head, last)? && self.record_at(place, head)?.is_ok() {
                    return Ok(Some(place));
                }
            }
            at += (chunk.len() - FRAME_BYTES + 1) as u64;
        }
        Ok(None)
    }

    /// Whether a later record may be there, by what costs little to look at: much of what clients write looks like the
    /// begin of a record, of a gigabyte maybe.
    fn may_begin_at(&mut self, at: u64, head: &[u8; FRAME_BYTES], last: u64) -> Result<bool, StorageError> {
        let length = i32::from_be_bytes(head[8..].try_into().expect("4 bytes"));
        let end = at + FRAME_LEN + u64::try_from(length).unwrap_or(u64::MAX / 2);
        if end >= last {
            return Ok(false);
        }
        let before = self.last_zxid;
        let header = self.bytes(at + FRAME_LEN, MIN_BODY)?;
        let is_later = zxid_of(header).is_some_and(|zxid| Some(zxid) > before);
        // Types of transactions are small numbers.
        if !is_later || !type_of(header).is_some_and(|op| (-128..128).contains(&op)) {
            return Ok(false);
        }
        Ok(self.bytes(end, 1)? == [END_OF_RECORD])
    }

    /// At most `len` bytes from `at`, fewer at the end of the file.
    fn bytes(&mut self, at: u64, len: u64) -> Result<&[u8], StorageError> {
        let len = len_of(len.min(self.len.saturating_sub(at)));
        let inside = at >= self.buf_at && at + len as u64 <= self.buf_at + self.buf.len() as u64;
        if !inside {
            let want = len.max(CHUNK).min(len_of(self.len.saturating_sub(at)));
            self.buf.resize(want, 0);
            self.buf_at = at;
            let mut filled = 0;
            while filled < want {
                let read = self.file.read_at(at + filled as u64, &mut self.buf[filled..]);
                match read.map_err(StorageError::io("read", &self.path))? {
                    0 => break,
                    count => filled += count,
                }
            }
            self.buf.truncate(filled);
        }
        let start = len_of(at - self.buf_at);
        let stop = (start + len).min(self.buf.len());
        Ok(&self.buf[start.min(stop)..stop])
    }
}
